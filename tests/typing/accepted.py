"""Code that pyright accepts in strict mode: the types follow from the messages, without a cast."""

from collections.abc import AsyncIterator
from typing import assert_type

from attrs import frozen

from atomr_trio.actor import (
    Actor,
    ActorRef,
    ActorRestarted,
    ActorSystem,
    Broadcast,
    ChildSpec,
    Context,
    DeadLetter,
    Listing,
    Pool,
    Props,
    ReplySlot,
    Request,
    Resize,
    Restart,
    Router,
    ServiceKey,
    StreamRequest,
    StreamSink,
    SupervisorStrategy,
    Terminated,
    broadcast,
    consistent_hash,
    least_loaded,
    on,
    one_for_one,
    round_robin,
)


@frozen
class Length(Request[int]):
    text: str


@frozen
class Words(StreamRequest[str]):
    text: str


@frozen
class Forget:
    everything: bool = True


TextMessage = Length | Words | Forget
TEXTS: ServiceKey[TextMessage] = ServiceKey("texts")


class TextActor(Actor[TextMessage]):
    supervisor_strategy: SupervisorStrategy = one_for_one(max_restarts=3)

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    async def pre_start(self, ctx: Context[TextMessage]) -> None:
        assert_type(ctx.self_ref, ActorRef[TextMessage])
        ctx.timers.start_once("forget", Forget(), 1.0)

    async def handle(self, message: TextMessage, ctx: Context[TextMessage]) -> object:
        match message:
            case Length(text):
                return len(self.prefix + text)
            case Words(text):
                ctx.stream(self.words, text)
            case Forget():
                ctx.self_ref.tell(Length("again"))
                assert_type(ctx.incarnation, int)

    async def words(self, sink: StreamSink[str], text: str) -> None:
        for word in text.split():
            await sink.send(word)

    async def on_terminated(self, terminated: Terminated, ctx: Context[TextMessage]) -> None:
        ctx.stop(terminated.reason)


class NumberActor(Actor[int]):
    async def handle(self, message: int, ctx: Context[int]) -> None:
        slot = ctx.defer_reply()
        slot.resolve(message)


class MarkedActor(Actor[Length | Forget]):
    @on(Length)
    async def length(self, message: Length, ctx: Context[Length | Forget]) -> int:
        return len(message.text)

    @on(Forget)
    async def forget(self, message: Forget, ctx: Context[Length | Forget]) -> None:
        ctx.stop()


class ParentActor(Actor[Forget]):
    async def pre_start(self, ctx: Context[Forget]) -> None:
        assert_type(await ctx.spawn(Props(factory=NumberActor), "number"), ActorRef[int])
        assert_type(ctx.spawn_soon(Props(factory=TextActor), "text"), ActorRef[TextMessage])
        spec = ChildSpec(id="other", props=Props(factory=NumberActor), restart=Restart.PERMANENT)
        assert_type(spec, ChildSpec[int])
        assert_type(await ctx.start(spec), ActorRef[int])
        ctx.watch(ctx.children[0])


async def props(system: ActorSystem) -> None:
    assert_type(Props(factory=TextActor), Props[TextMessage])
    assert_type(Props(factory=lambda: TextActor("a"), capacity=8), Props[TextMessage])
    assert_type(await system.actor_of(Props(factory=TextActor), "text"), ActorRef[TextMessage])
    assert_type(await system.actor_of(Props(factory=MarkedActor), "marked"), ActorRef[Length | Forget])


async def messages(ref: ActorRef[TextMessage]) -> None:
    ref.tell(Length("four"))
    await ref.send(Forget())
    assert_type(await ref.ask(Length("four"), timeout=1.0), int)
    async with ref.ask_stream(Words("two words")) as words:
        assert_type(words, AsyncIterator[str])
        async for word in words:
            assert_type(word, str)


def contravariance(ref: ActorRef[TextMessage]) -> None:
    """Who takes all of the messages can stand in for who takes some of them."""
    narrower: ActorRef[Length] = ref
    narrower.tell(Length("four"))


async def routers(first: ActorRef[TextMessage], second: ActorRef[TextMessage]) -> None:
    router = round_robin([first, second])
    assert_type(router, Router[TextMessage])
    assert_type(least_loaded([first]), Router[TextMessage])
    assert_type(router.pick(Forget()), ActorRef[TextMessage])
    assert_type(await router.ask(Length("four"), timeout=1.0), int)
    everyone = broadcast([first, second])
    assert_type(everyone, Broadcast[TextMessage])
    assert_type(await everyone.ask(Length("four"), timeout=1.0), tuple[int, ...])


def hashed(first: ActorRef[Length]) -> None:
    router = consistent_hash([first], key=lambda message: message.text)
    assert_type(router, Router[Length])
    router.tell(Length("four"))


async def pools(system: ActorSystem) -> None:
    recipe: Props[int | Resize] = Props(factory=lambda: Pool(Props(factory=NumberActor), 2))
    pool = await system.actor_of(recipe, "pool")
    pool.tell(3)
    assert_type(await pool.ask(Resize(4), timeout=1.0), int)


def registry(system: ActorSystem, ref: ActorRef[TextMessage]) -> None:
    system.registry.register(TEXTS, ref)
    assert_type(system.registry.find(TEXTS), tuple[ActorRef[TextMessage], ...])

    def changed(listing: Listing[TextMessage]) -> None:
        assert_type(listing.refs, tuple[ActorRef[TextMessage], ...])

    system.registry.subscribe(TEXTS, changed)


def events(system: ActorSystem, letters: ActorRef[DeadLetter]) -> None:
    system.events.subscribe(DeadLetter, letters)

    def restarted(event: ActorRestarted) -> None:
        assert_type(event.path, str)

    system.events.subscribe(ActorRestarted, restarted)


async def slots(slot: ReplySlot[int]) -> None:
    slot.resolve(1)
    assert_type(await slot.wait(), int)
