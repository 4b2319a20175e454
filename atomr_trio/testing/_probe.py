"""An actor to be told things, and a test that says what it should have been told."""

import math
from typing import Any, TypeVar, overload

from atomr_trio.actor import Actor, ActorRef, ActorSystem, Context, Props, ReplySlot, Terminated

from ._arrivals import Arrivals, Wanted

M = TypeVar("M")

__all__ = ["TestProbe"]


class TestProbe:
    """An actor that keeps what it is told, for the test to ask about: ``probe = await TestProbe.create(system)``.

    Messages wait in order until ``expect`` or ``fish`` takes them. An ask is answered by ``reply`` or ``fail``, which
    concern the message that was taken last; the ask needs a finite timeout. What matches is a class (its instances), a
    function of one argument that says yes, or an equal value.

    To have a probe in a place of its own, as somebody's child for instance, spawn ``TestProbe("name").props``.
    """

    __test__ = False  # pytest collects classes by this name

    def __init__(self, name: str = "probe") -> None:
        self.name = name
        self._told = Arrivals(name)
        self._ended: dict[ActorRef[Any], Arrivals] = {}
        self._context: Context[Any] | None = None
        self._last: ReplySlot[Any] | None = None

    @classmethod
    async def create(cls, system: ActorSystem, name: str = "probe") -> "TestProbe":
        """Start a probe as a top-level actor.

        Raises:
            NameTaken: there is an actor of this name.
        """
        probe = cls(name)
        await system.actor_of(probe.props, name)
        return probe

    @property
    def props(self) -> Props[Any]:
        """The recipe of the actor; all its incarnations report to this probe."""
        return Props[Any](factory=lambda: _ProbeActor(self))

    @property
    def ref(self) -> ActorRef[Any]:
        """The actor.

        Raises:
            RuntimeError: it has not started.
        """
        return self.context.self_ref

    @property
    def context(self) -> Context[Any]:
        """What the actor may do, for a test that wants it done.

        Raises:
            RuntimeError: it has not started.
        """
        if self._context is None:
            raise RuntimeError(f"{self.name} has not started")
        return self._context

    @property
    def received(self) -> tuple[Any, ...]:
        """Every message so far, taken or not."""
        return tuple(self._told.all)

    @overload
    async def expect(self, wanted: type[M], within: float = 3.0) -> M: ...
    @overload
    async def expect(self, wanted: Any, within: float = 3.0) -> Any: ...
    async def expect(self, wanted: Wanted, within: float = 3.0) -> Any:
        """Take the next message, which must match, and return it.

        Args:
            wanted: a class, a function that says yes, or a value.
            within: seconds to wait for it, on the test's clock.

        Raises:
            AssertionError: another message is next, or none came; it says what did come.
        """
        message, self._last = await self._told.next(wanted, within)
        return message

    @overload
    async def fish(self, wanted: type[M], within: float = 3.0) -> M: ...
    @overload
    async def fish(self, wanted: Any, within: float = 3.0) -> Any: ...
    async def fish(self, wanted: Wanted, within: float = 3.0) -> Any:
        """Take messages until one matches, and return that one; the others are passed over.

        Raises:
            AssertionError: none came in time.
        """
        message, self._last = await self._told.fish(wanted, within)
        return message

    async def expect_none(self, within: float = 1.0) -> None:
        """Let ``within`` seconds pass, in which no message may come and after which none may be waiting.

        Raises:
            AssertionError: there is one.
        """
        await self._told.none(within)

    def reply(self, value: Any) -> None:
        """Answer the message taken last.

        Raises:
            AssertionError: nobody waits for an answer to it.
        """
        self._asked().resolve(value)

    def fail(self, error: Exception) -> None:
        """Answer the message taken last with an error.

        Raises:
            AssertionError: nobody waits for an answer to it.
        """
        self._asked().fail(error)

    def _asked(self) -> ReplySlot[Any]:
        slot, self._last = self._last, None
        if slot is None:
            raise AssertionError(f"{self.name}: nothing to answer: the message taken last was told, or is answered")
        if slot.abandoned:
            raise AssertionError(f"{self.name}: the asker does not wait any more")
        return slot

    def watch(self, ref: ActorRef[Any]) -> None:
        """Begin to watch an actor; ``expect_terminated`` says whether its end was heard of."""
        if ref not in self._ended:
            self._ended[ref] = Arrivals(f"{self.name} watching {ref.path}")
            self.context.watch(ref)

    async def expect_terminated(self, ref: ActorRef[Any], within: float = 3.0) -> Terminated:
        """Wait for the end of an actor, and return what its watchers are told; it need not be watched before.

        Raises:
            AssertionError: it is still there.
        """
        self.watch(ref)
        notice, _ = await self._ended[ref].next(Terminated, within)
        del self._ended[ref]
        return notice

    def tell(self, message: Any, ctx: Context[Any]) -> None:
        """Take note of a message; the probe's actor calls it."""
        slot = ctx.defer_reply()
        # What was only told has a slot without a deadline, which nobody reads.
        self._told.put(message, slot if slot.deadline < math.inf else None)

    def started(self, ctx: Context[Any]) -> None:
        """Take note of a new incarnation; the probe's actor calls it."""
        self._context = ctx
        for ref in self._ended:
            ctx.watch(ref)

    def terminated(self, notice: Terminated) -> None:
        """Take note of a watched actor's end; the probe's actor calls it."""
        if notice.ref in self._ended:
            self._ended[notice.ref].put(notice)


class _ProbeActor(Actor[Any]):
    def __init__(self, probe: TestProbe) -> None:
        self._probe = probe

    async def pre_start(self, ctx: Context[Any]) -> None:
        self._probe.started(ctx)

    async def handle(self, message: Any, ctx: Context[Any]) -> None:
        self._probe.tell(message, ctx)

    async def on_terminated(self, terminated: Terminated, ctx: Context[Any]) -> None:
        self._probe.terminated(terminated)
