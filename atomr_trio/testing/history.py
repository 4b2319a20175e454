"""What happened in a simulated world, in order: the entries that a scenario records, and those the laws understand.

An actor is told by its *place*, a number for each spawn, and by its *life*: 1 for the first incarnation in that place.
A message has a number of its own, and so has each failure.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, Generic, TypeVar, cast

from attrs import define, field, frozen

from atomr_trio.actor import Directive, Restart, SupervisorStrategy

W = TypeVar("W")
W_co = TypeVar("W_co", covariant=True)

__all__ = ["Entry", "History"]


@frozen
class Entry(Generic[W_co]):
    """One thing that happened: the ``n``-th, ``at`` a time in seconds on Trio's clock."""

    n: int
    at: float
    what: W_co


@define
class History:
    """The entries of one run, in the order in which they happened."""

    entries: list[Entry[Any]] = field(factory=list[Entry[Any]])
    _by_kind: dict[type, list[Entry[Any]]] = field(factory=dict[type, list[Entry[Any]]], eq=False, repr=False)

    def add(self, at: float, what: object) -> None:
        """Append what happened at time ``at``, in seconds."""
        entry = Entry(len(self.entries), at, what)
        self.entries.append(entry)
        self._by_kind.setdefault(type(what), []).append(entry)

    def of(self, kind: type[W]) -> list[Entry[W]]:
        """Return the entries of one class, in order."""
        return cast("list[Entry[W]]", self._by_kind.get(kind, []))

    def digest(self) -> str:
        """Return a fingerprint; equal histories of values have equal ones, in any process."""
        return hashlib.sha256("\n".join(map(repr, self.entries)).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry[Any]]:
        return iter(self.entries)


# The lives of actors.


@frozen
class Born:
    """A spawn was asked for: ``place`` is to be a child of ``parent`` in its life ``parent_life`` (0: top level)."""

    place: int
    path: str
    parent: int
    parent_life: int
    restart: Restart
    significant: bool
    shutdown: float
    capacity: int
    strategy: SupervisorStrategy = field(eq=False, repr=False)


@frozen
class Unborn:
    """The spawn was refused: nothing of the place ever ran."""

    place: int


@frozen
class Starting:
    """``pre_start`` was entered."""

    place: int
    life: int


@frozen
class Started:
    """``pre_start`` is through, and ``post_restart`` if there was one."""

    place: int
    life: int


@frozen
class Failing:
    """The actor is about to raise failure number ``number``, for which the strategies have ``directive``."""

    number: int
    place: int
    life: int
    where: str
    directive: Directive


@frozen
class FailureSeen:
    """``on_failure`` was entered. ``cause`` is the number of a recorded failure, or the name of another's class."""

    place: int
    life: int
    cause: int | str


@frozen
class Ending:
    """``hook`` was entered: ``pre_restart`` or ``post_stop``."""

    place: int
    life: int
    hook: str
    cause: int | str | None


@frozen
class Ended:
    """The closing hook was left: it returned, or was ``cut`` by its deadline."""

    place: int
    life: int
    cut: bool


@frozen
class Gone:
    """The actor is gone for good; ``by_parent`` if the reason given is its parent's end."""

    place: int
    by_parent: bool


@frozen
class GaveUp:
    """The supervisor of ``place`` had to restart it for failure ``cause`` and had no restart left."""

    place: int
    cause: int | str


@frozen
class StopAsked:
    """Somebody else asked the actor to stop."""

    place: int


@frozen
class QuitAsked:
    """The actor asked itself to stop."""

    place: int
    life: int


@frozen
class TaskBegun:
    """A background task of a life runs."""

    task: int
    place: int
    life: int


@frozen
class TaskEnded:
    """The background task is over."""

    task: int


@frozen
class EndBegun:
    """The whole system is being stopped; nothing but the actors' own deadlines can delay it from now on."""


@frozen
class EndReached:
    """The system's block was left. ``queued`` messages are in mailboxes; the others are what is still there."""

    queued: int
    tasks: tuple[str, ...]
    channels: int


# Messages.


@frozen
class Sending:
    """``sender`` begins to send ``message`` to a place, by ``how``: tell, send, ask or stream."""

    message: int
    sender: str
    target: int
    how: str


@frozen
class Sent:
    """The mailbox has it, or lost it to the dead letters."""

    message: int


@frozen
class Refused:
    """It was not sent; ``why``: full, cancelled or cycle. ``queued`` is what the mailbox held, if known."""

    message: int
    why: str
    queued: int | None = None


@frozen
class Taken:
    """A handler was entered with the message. ``behaviour`` is the number of behaviours put on since the start."""

    message: int
    place: int
    life: int
    behaviour: int


@frozen
class Let:
    """The handler was left; ``how``: handled, failed, cut or stashed."""

    message: int
    place: int
    life: int
    how: str


@frozen
class Unstashed:
    """``messages`` are to be handled before any other mail, in this order."""

    place: int
    life: int
    messages: tuple[int, ...]


@frozen
class Dead:
    """The message became a dead letter."""

    message: int
    reason: str


@frozen
class Asked:
    """A question: its answer must come before ``deadline``, in seconds on Trio's clock."""

    message: int
    deadline: float


@frozen
class Resolved:
    """The callee answered the question for the first time, with ``value``, an error of its choice (``refused``)."""

    message: int
    value: Any


@frozen
class Deferred:
    """The handler took the answer of the question over."""

    message: int


@frozen
class Answered:
    """The asker has its outcome: ``answer`` with a value, the name of an error's class, or ``cancelled``."""

    message: int
    outcome: str
    value: Any = None


@frozen
class Produced:
    """The producer of a stream sent item ``item``; -1: it is through."""

    message: int
    item: int


@frozen
class Read:
    """The reader of a stream got item ``item``."""

    message: int
    item: int


@frozen
class ReadEnded:
    """The reader is through; ``how``: end, left, cancelled, or the name of an error's class."""

    message: int
    how: str


# Watches and timers.


@frozen
class Watched:
    """``place`` watches ``target`` from now on."""

    place: int
    target: int


@frozen
class Unwatched:
    """``place`` does not watch ``target`` any more."""

    place: int
    target: int


@frozen
class Told:
    """``place`` is told that ``target`` is gone."""

    place: int
    life: int
    target: int


@frozen
class TimerSet:
    """A timer of a life: ``key`` will deliver ``token`` in ``delay`` seconds, over and over if ``periodic``."""

    place: int
    life: int
    key: str
    token: int
    delay: float
    periodic: bool


@frozen
class TimerCancelled:
    """The timer ``key`` is off."""

    place: int
    life: int
    key: str


@frozen
class Fired:
    """The message of a timer was handled."""

    place: int
    life: int
    key: str
    token: int


@frozen
class Became:
    """From the next message on there is one behaviour more (``up``) or, if there was any, one less."""

    place: int
    life: int
    up: bool


@frozen
class IdleSet:
    """``ReceiveTimeout`` is wanted after so many idle ``seconds``; infinity: never."""

    place: int
    life: int
    seconds: float


@frozen
class Idled:
    """A ``ReceiveTimeout`` was handled."""

    place: int
    life: int
