"""The simulated actor: it does what the messages say, and notes everything."""

from functools import partial

import trio
from attrs import evolve

from atomr_trio.actor import (
    Actor,
    Directive,
    ReceiveTimeout,
    Restart,
    StashFull,
)
from atomr_trio.testing.history import (
    Became,
    Deferred,
    Ended,
    Ending,
    Failing,
    FailureSeen,
    Fired,
    Idled,
    IdleSet,
    Let,
    Produced,
    QuitAsked,
    Resolved,
    Started,
    Starting,
    StopAsked,
    Taken,
    TaskBegun,
    TaskEnded,
    TimerCancelled,
    TimerSet,
    Told,
    Unstashed,
    Unwatched,
    Watched,
)
from tests.properties.notebook import FAILURES, HANG, Flow, Refusal, Restartable, Tick, Work, cause, draw_plan


class Being(Actor):
    """Does what the messages say, and writes everything down."""

    def __init__(self, sim, place, plan):
        self.sim, self.place, self.plan = sim, place, plan
        self.supervisor_strategy = plan.strategy
        self.depth = 0
        self.stashed = []
        self.watched = []
        if plan.plain:
            self.handle = self.handle_plainly

    def note(self, what):
        self.sim.note(what)

    def fails(self, where, ctx, directive=None):
        """Return a new failure, after noting it."""
        directive = directive or self.sim.chance.choice(list(Directive))
        number = self.sim.number()
        self.note(Failing(number, self.place, ctx.incarnation, where, directive))
        return FAILURES[directive](number)

    def happens(self, fault):
        return self.sim.chance.random() < self.plan.faults[fault]

    # Hooks.

    async def pre_start(self, ctx):
        self.note(Starting(self.place, ctx.incarnation))
        if self.happens("slow start"):
            await trio.sleep(self.sim.chance.choice([0.1, 1.0]))
        for plan in self.plan.children:
            await self.sim.spawn(partial(start_child, ctx, plan), plan, ctx.path, self.place, ctx.incarnation)
        if self.happens("pre_start"):
            raise self.fails("pre_start", ctx)
        if ctx.incarnation == 1:
            self.note(Started(self.place, ctx.incarnation))

    async def post_restart(self, failure, ctx):
        if self.happens("post_restart"):
            raise self.fails("post_restart", ctx)
        self.note(Started(self.place, ctx.incarnation))

    async def on_failure(self, failure, ctx):
        self.note(FailureSeen(self.place, ctx.incarnation, cause(failure)))
        if self.happens("on_failure"):
            await trio.sleep(HANG)

    async def pre_restart(self, failure, ctx):
        await self.close("pre_restart", failure, ctx)

    async def post_stop(self, ctx):
        await self.close("post_stop", None, ctx)

    async def close(self, hook, failure, ctx):
        self.note(Ending(self.place, ctx.incarnation, hook, cause(failure)))
        cut = True
        try:
            if self.happens("closing"):
                raise Refusal("a closing hook that fails")
            if self.happens("slow closing"):
                await trio.sleep(self.sim.chance.choice([0.04, HANG]))
            cut = False
        except Refusal:
            cut = False
            raise
        finally:
            self.note(Ended(self.place, ctx.incarnation, cut))

    async def on_terminated(self, terminated, ctx):
        target = self.sim.paths[terminated.ref.path]
        self.note(Told(self.place, ctx.incarnation, target))
        if self.happens("on_terminated"):
            raise self.fails("on_terminated", ctx)

    # Mail.

    async def handle(self, message, ctx):
        return await self.take(0, message, ctx)

    def handle_plainly(self, message, ctx):
        return self.take(0, message, ctx)

    async def take(self, behaviour, message, ctx):
        match message:
            case Tick(key, token):
                self.note(Fired(self.place, ctx.incarnation, key, token))
            case ReceiveTimeout():
                self.note(Idled(self.place, ctx.incarnation))
            case _:
                return await self.take_mail(behaviour, message, ctx)
        return None

    async def take_mail(self, behaviour, message, ctx):
        self.note(Taken(message.number, self.place, ctx.incarnation, behaviour))
        how = "cut"
        try:
            how, value = await self.work(message, ctx)
            if how == "handled" and isinstance(message, Work):
                self.note(Resolved(message.number, value))
            return value
        except Exception:
            how = "failed"
            raise
        finally:
            self.note(Let(message.number, self.place, ctx.incarnation, "handled" if how == "taken over" else how))

    async def work(self, message, ctx):
        await ctx.faults.reach("handler")
        if isinstance(message, Flow):
            ctx.stream(self.produce, message, ctx.incarnation)
            return "taken over", None
        deed = getattr(self, "do_" + message.deed.replace(" ", "_"))
        done = deed(message, ctx)
        if done is not None and not isinstance(done, str):
            done = await done
        return done or "handled", message.number

    async def produce(self, sink, message, life):
        task = self.sim.number()
        self.note(TaskBegun(task, self.place, life))
        try:
            for item in range(int(message.amount * 30)):
                if message.deed == "crash" and item == 3:
                    failure = Restartable(self.sim.number())
                    self.note(Failing(failure.number, self.place, life, "producer", Directive.RESTART))
                    raise failure
                await self.sim.world.faults.reach("producer")
                await sink.send(item)
                self.note(Produced(message.number, item))
                if message.deed == "nap":
                    await trio.sleep(message.amount)
            self.note(Produced(message.number, -1))
        finally:
            self.note(TaskEnded(task))

    def do_nothing(self, message, ctx):
        return None

    async def do_nap(self, message, ctx):
        await trio.sleep(message.amount)

    async def do_hang(self, message, ctx):
        await trio.sleep(HANG)

    def do_crash(self, message, ctx):
        raise self.fails("handler", ctx)

    def do_crash_in_a_group(self, message, ctx):
        mild, severe = sorted(self.sim.chance.sample(list(Directive), 2), key=lambda directive: directive.value)
        failure = self.fails("group", ctx, severe)
        raise ExceptionGroup("two at once", [FAILURES[mild](failure.number), ExceptionGroup("deep", [failure])])

    def do_quit(self, message, ctx):
        self.note(QuitAsked(self.place, ctx.incarnation))
        ctx.stop()

    def do_stash(self, message, ctx):
        try:
            ctx.stash()
        except StashFull:
            return None
        self.stashed.append(message.number)
        return "stashed"

    def do_unstash(self, message, ctx):
        count = self.sim.chance.choice([None, 1, 2])
        given, self.stashed = self.stashed[:count], self.stashed[len(self.stashed[:count]) :]
        self.note(Unstashed(self.place, ctx.incarnation, tuple(given)))
        ctx.unstash(count)

    def do_become(self, message, ctx):
        self.depth += 1
        self.note(Became(self.place, ctx.incarnation, up=True))
        ctx.become(partial(self.take, self.depth))

    def do_unbecome(self, message, ctx):
        self.depth = max(0, self.depth - 1)
        self.note(Became(self.place, ctx.incarnation, up=False))
        ctx.unbecome()

    def do_timer(self, message, ctx):
        self.set_timer("once", ctx.timers.start_once, message, ctx)

    def do_periodic_timer(self, message, ctx):
        way = self.sim.chance.choice(["start_fixed_delay", "start_fixed_rate"])
        self.set_timer("periodic", getattr(ctx.timers, way), message, ctx)

    def set_timer(self, kind, start, message, ctx):
        key, token = f"{kind}{self.sim.chance.randrange(2)}", self.sim.number()
        delay = message.amount if kind == "once" else 0.5 + message.amount
        self.note(TimerSet(self.place, ctx.incarnation, key, token, delay, kind == "periodic"))
        start(key, Tick(key, token), delay)

    async def do_cancel_timer(self, message, ctx):
        # It may fire meanwhile, and must not be heard of afterwards.
        await trio.sleep(message.amount)
        for kind in ("once", "periodic"):
            key = f"{kind}{self.sim.chance.randrange(2)}"
            self.note(TimerCancelled(self.place, ctx.incarnation, key))
            ctx.timers.cancel(key)

    def do_watch(self, message, ctx):
        target, ref = self.sim.somebody()
        self.watched.append((target, ref))
        self.note(Watched(self.place, target))
        ctx.watch(ref)

    async def do_unwatch(self, message, ctx):
        # The other one may end meanwhile.
        await trio.sleep(message.amount)
        if self.watched:
            target, ref = self.watched.pop()
            self.note(Unwatched(self.place, target))
            ctx.unwatch(ref)

    async def do_spawn(self, message, ctx):
        if len(ctx.children) < 6:
            plan = evolve(draw_plan(self.sim.chance), soon=False)
            await self.sim.spawn(partial(start_child, ctx, plan), plan, ctx.path, self.place, ctx.incarnation)

    async def do_spawn_soon(self, message, ctx):
        if len(ctx.children) < 6:
            plan = evolve(draw_plan(self.sim.chance), soon=True, restart=Restart.TRANSIENT, significant=False)
            await self.sim.spawn(partial(start_child, ctx, plan), plan, ctx.path, self.place, ctx.incarnation)

    def do_task(self, message, ctx):
        ctx.spawn_task(self.background, message.amount, None, ctx)

    def do_failing_task(self, message, ctx):
        ctx.spawn_task(self.background, message.amount, self.sim.chance.choice(list(Directive)), ctx)

    async def background(self, amount, directive, ctx):
        task = self.sim.number()
        self.note(TaskBegun(task, self.place, ctx.incarnation))
        try:
            await trio.sleep(amount * 3)
            if directive is not None:
                raise self.fails("task", ctx, directive)
        finally:
            self.note(TaskEnded(task))

    def do_defer(self, message, ctx):
        self.note(Deferred(message.number))
        ctx.spawn_task(self.resolve_later, message, ctx.defer_reply())
        return "taken over"

    async def resolve_later(self, message, slot):
        await trio.sleep(message.amount)
        self.note(Resolved(message.number, message.number))
        slot.resolve(message.number)
        slot.resolve("a second answer")
        slot.fail(Refusal("a third one"))

    def do_never_answer(self, message, ctx):
        self.note(Deferred(message.number))
        ctx.defer_reply()
        return "taken over"

    def do_refuse(self, message, ctx):
        self.note(Resolved(message.number, (message.number,)))
        ctx.fail(Refusal(message.number))
        return "taken over"

    def do_idle(self, message, ctx):
        seconds = self.sim.chance.choice([0.4, 1.0, None])
        self.note(IdleSet(self.place, ctx.incarnation, float("inf") if seconds is None else seconds))
        ctx.set_receive_timeout(seconds)

    def do_tell(self, message, ctx):
        target, ref = self.sim.somebody()
        self.sim.tell(f"actor {self.place}", target, ref, self.sim.work())

    async def do_ask(self, message, ctx):
        target, ref = self.sim.somebody()
        await self.sim.ask(f"actor {self.place}", target, ref, self.sim.work(), message.amount)

    def do_stop(self, message, ctx):
        target, ref = self.sim.somebody()
        self.note(StopAsked(target))
        ref.stop()


def start_child(ctx, plan, spec):
    # `spawn_soon` takes no spec of its own: such children are transient and not significant.
    if plan.soon and plan.restart is Restart.TRANSIENT and not plan.significant:
        return ctx.spawn_soon(spec.props, spec.id)
    return ctx.start(spec)
