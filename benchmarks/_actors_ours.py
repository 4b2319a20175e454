"""The same work done by actors of atomr_trio. Seconds per operation; the system's own start and stop do not count."""

import trio
from _actors_clock import now
from _actors_floor import BATCH
from attrs import frozen

from atomr_trio.actor import Actor, ActorSystem, Context, Props, Request, one_for_one


@frozen
class Echo(Request[int]):
    value: int


class Counter(Actor[int]):
    """Counts, and says when as many as were due are handled."""

    def __init__(self) -> None:
        self.handled = 0
        self.due = 0
        self.drained = trio.Event()

    async def handle(self, message: int, ctx: Context[int]) -> None:
        self.handled += 1
        if self.handled == self.due:
            self.drained.set()


class Echoing(Actor[Echo]):
    async def handle(self, message: Echo, ctx: Context[Echo]) -> int:
        return message.value


class Crashing(Actor[Exception]):
    """Raises what it is told, and says when its next incarnation is up."""

    ready = trio.Event()

    async def pre_start(self, ctx: Context[Exception]) -> None:
        Crashing.ready.set()

    async def handle(self, message: Exception, ctx: Context[Exception]) -> None:
        raise message


class Parent(Actor[Request[float]]):
    """Spawns idle children one after the other."""

    async def handle(self, message: "SpawnMany", ctx: Context[Request[float]]) -> float:
        started = now()
        for number in range(message.count):
            await ctx.spawn(Props(factory=Actor[int]), str(number))
        return (now() - started) / message.count


@frozen
class SpawnMany(Request[float]):
    count: int


async def tells(count: int) -> float:
    """Batches of `tell` to one actor whose `async def handle` counts."""
    counter = Counter()
    async with ActorSystem.create("bench") as system:
        ref = await system.actor_of(Props(factory=lambda: counter), "counter")
        started = now()
        for _ in range(count // BATCH):
            counter.due += BATCH
            counter.drained = trio.Event()
            for number in range(BATCH):
                ref.tell(number)
            await counter.drained.wait()
        return (now() - started) / (count // BATCH * BATCH)


async def asks(count: int) -> float:
    """One client asks one actor, one question after the other."""
    async with ActorSystem.create("bench") as system:
        ref = await system.actor_of(Props(factory=Echoing), "echo")
        question = Echo(1)
        started = now()
        for _ in range(count):
            await ref.ask(question, timeout=60)
        return (now() - started) / count


async def fan_in(count: int) -> float:
    """200 clients ask one actor."""
    clients = min(200, count)
    async with ActorSystem.create("bench") as system:
        ref = await system.actor_of(Props(factory=Echoing), "echo")

        async def client() -> None:
            for number in range(count // clients):
                await ref.ask(Echo(number), timeout=60)

        started = now()
        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(client)
        return (now() - started) / (count // clients * clients)


async def spawns(count: int) -> float:
    """`system.actor_of`, one after the other; each returns after `pre_start`."""
    async with ActorSystem.create("bench") as system:
        started = now()
        for number in range(count):
            await system.actor_of(Props(factory=Actor[int]), str(number))
        return (now() - started) / count


async def child_spawns(count: int) -> float:
    """`ctx.spawn` in a handler, one after the other."""
    async with ActorSystem.create("bench") as system:
        ref = await system.actor_of(Props(factory=Parent), "parent")
        return await ref.ask(SpawnMany(count), timeout=600)


async def restarts(count: int) -> float:
    """From telling an actor to crash until the `pre_start` of its next incarnation is done."""
    strategy = one_for_one(max_restarts=10**6, within=1.0)
    Crashing.ready = trio.Event()
    async with ActorSystem.create("bench", supervisor_strategy=strategy) as system:
        ref = await system.actor_of(Props(factory=Crashing), "crashing")
        started = now()
        for number in range(count):
            Crashing.ready = trio.Event()
            ref.tell(ValueError(number))
            await Crashing.ready.wait()
        return (now() - started) / count
