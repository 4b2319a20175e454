"""What a system says of itself, for tests to wait for and to demand."""

from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from atomr_trio.actor import ActorEvent, ActorSystem, DeadLetter

from ._arrivals import Arrivals, Wanted, matches, name_of

E = TypeVar("E")

__all__ = ["EventProbe", "no_dead_letters"]


class EventProbe:
    """Records a system's events: ``with EventProbe(system) as events: ... await events.expect(ActorRestarted)``.

    Events happen whenever they do, so ``expect`` passes over others until it finds the one that is wanted; what it has
    passed it does not find again.

    Args:
        system: whose events.
        kinds: classes of events; without any, the ``ActorEvent`` classes and ``DeadLetter``.
    """

    def __init__(self, system: ActorSystem, *kinds: type[Any]) -> None:
        self._came = Arrivals(f"events of {system.name}")
        events = system.events
        self._subscriptions = [events.subscribe(kind, self._came.put) for kind in kinds or (ActorEvent, DeadLetter)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Record no more."""
        for subscription in self._subscriptions:
            subscription.close()

    @overload
    def recorded(self, kind: type[E]) -> tuple[E, ...]: ...
    @overload
    def recorded(self) -> tuple[Any, ...]: ...
    def recorded(self, kind: type[Any] = object) -> tuple[Any, ...]:
        """Return all events so far, or those of one class, in their order."""
        return tuple(event for event in self._came.all if isinstance(event, kind))

    @overload
    async def expect(self, wanted: type[E], within: float = 3.0) -> E: ...
    @overload
    async def expect(self, wanted: Any, within: float = 3.0) -> Any: ...
    async def expect(self, wanted: Wanted, within: float = 3.0) -> Any:
        """Wait for an event that matches a class, a function that says yes, or a value, and return it.

        Raises:
            AssertionError: none came within so many seconds; it says what did.
        """
        event, _ = await self._came.fish(wanted, within)
        return event

    async def expect_dead_letter(self, message: Wanted, within: float = 3.0) -> DeadLetter:
        """Wait for a lost message that matches, and return its ``DeadLetter``.

        Raises:
            AssertionError: none came in time.
        """
        letter, _ = await self._came.fish(_LostMessage(message), within)
        return letter


class _LostMessage:
    """Equal to the dead letter of a matching message."""

    def __init__(self, message: Wanted) -> None:
        self._message = message

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeadLetter) and matches(self._message, other.message)

    def __repr__(self) -> str:
        return f"dead letter with {name_of(self._message)}"


@contextmanager
def no_dead_letters(system: ActorSystem) -> Generator[None]:
    """Assert that no message is lost while the block runs.

    Raises:
        AssertionError: some were; it says which, for whom, and why.
    """
    with EventProbe(system, DeadLetter) as probe:
        yield
    letters = probe.recorded(DeadLetter)
    if letters:
        lost = "; ".join(f"{letter.message!r} for {letter.path} ({letter.reason})" for letter in letters)
        raise AssertionError(f"{len(letters)} messages were lost: {lost}")
