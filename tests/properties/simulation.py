"""A random life of fifty actors, drawn from one seed: their tree, what is done to them, and what they do themselves."""

import gc
import logging
from contextlib import contextmanager

import trio
from attrs import evolve

from atomr_trio.actor import (
    ActorEscalated,
    ActorTerminated,
    AutoShutdown,
    ChildEscalated,
    DeadLetter,
    Restart,
    SupervisorGaveUp,
)
from atomr_trio.testing._faults import cancellable
from atomr_trio.testing._leaks import all_tasks, leaked_tasks
from atomr_trio.testing._sim import SimWorld
from atomr_trio.testing.history import (
    Born,
    EndReached,
    StopAsked,
)
from tests.properties.being import Being
from tests.properties.notebook import (
    CLIENTS,
    HORIZON,
    OPERATIONS,
    OPERATIONS_OF_CLIENTS,
    POINTS,
    SETTLE,
    Flow,
    Simulation,
    draw_plan,
    draw_strategy,
    draw_tree,
    harmless,
)


async def client(sim, name, system):
    for _ in range(OPERATIONS):
        await trio.sleep(sim.chance.choice([0.0, 0.0, sim.chance.uniform(0, 0.4)]))
        with cancellable():
            await sim.world.faults.reach("client")
            await operate(sim, name, system, sim.draw(OPERATIONS_OF_CLIENTS))


async def operate(sim, name, system, operation):
    chance = sim.chance
    target, ref = sim.somebody()
    match operation:
        case "tell":
            sim.tell(name, target, ref, sim.work())
        case "burst":
            for _ in range(chance.randint(3, 12)):
                sim.tell(name, target, ref, sim.work())
        case "send":
            for _ in range(chance.randint(1, 4)):
                await sim.send(name, target, ref, sim.work(), chance.choice([0.05, 1.0]))
        case "ask":
            timeout = chance.choice([0.1, 0.5, 3.0])
            await sim.ask(name, target, ref, sim.work(), timeout, chance.choice([0.05, float("inf"), float("inf")]))
        case "stream":
            await sim.stream(name, target, ref, sim.work(Flow), chance.choice([2, 99]), 1.0)
        case "stop":
            sim.note(StopAsked(target))
            ref.stop()
        case "spawn":
            await spawn_top(sim, system, draw_plan(chance))
        case "wait":
            with trio.move_on_after(0.5):
                await ref.wait_terminated()


async def spawn_top(sim, system, plan):
    # Top-level actors are transient and not significant.
    plan = evolve(plan, restart=Restart.TRANSIENT, significant=False)
    await sim.spawn(lambda spec: system.actor_of(spec.props, spec.id), plan, "", 0, 0)


async def live(sim, system, scope, end):
    """Build the tree, let the clients at it, and end it in the way drawn."""
    for kind, callback in {
        DeadLetter: sim.on_dead_letter,
        ActorTerminated: sim.on_terminated,
        ActorEscalated: sim.on_escalated,
    }.items():
        system.events.subscribe(kind, callback)
    try:
        for plan in [*draw_tree(sim.chance), harmless(draw_plan(sim.chance))]:
            await spawn_top(sim, system, plan)
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(client, sim, f"client {number}", system)
            if end in ("cancelled", "terminated"):
                await trio.sleep(sim.chance.uniform(0, 5))
                sim.begin_end()
                scope.cancel(reason="the scenario's end") if end == "cancelled" else system.terminate()
        if end == "settled":
            await trio.sleep(SETTLE)
    finally:
        sim.begin_end()


async def scenario(world):
    """Live through one world; every event is in ``world.history`` afterwards."""
    sim = Simulation(world, Being)
    chance = world.random
    top = evolve(draw_strategy(chance), auto_shutdown=AutoShutdown.NEVER, max_restarts=chance.choice([2, 100]))
    sim.note(Born(0, "/", -1, 0, Restart.PERMANENT, False, 0.0, 1, top))
    end = chance.choice(["settled", "settled", "left", "cancelled", "terminated"])
    before = all_tasks()
    try:
        with trio.CancelScope() as scope:
            async with world.system(supervisor_strategy=top) as system:
                await live(sim, system, scope, end)
    except (ChildEscalated, SupervisorGaveUp):
        pass
    queued = sum(ref.queued for ref in sim.refs.values())
    left = tuple(task.name for task in leaked_tasks(before))
    world.record(EndReached(queued, left, open_channels()))


def open_channels():
    """Count the memory channels that somebody still holds and that are open at both ends."""
    return _open_channels() and (gc.collect(), _open_channels())[1]


def _open_channels():
    channels = [found for found in gc.get_objects() if type(found) is trio.MemoryReceiveChannel]
    open_ends = [
        (found.statistics().open_receive_channels, found.statistics().open_send_channels) for found in channels
    ]
    return sum(all(ends) for ends in open_ends)


@contextmanager
def silence():
    """Half of what happens here is worth a warning in the log; a thousand times that is not."""
    log = logging.getLogger("atomr_trio.actor")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def simulate(seed):
    """Return the history of a seed."""
    world = SimWorld(seed, points=POINTS, horizon=HORIZON)
    # What was there before is none of this world's, and need not be looked through for its channels.
    gc.freeze()
    try:
        with silence():
            world.run(scenario)
    finally:
        gc.unfreeze()
    return world.history
