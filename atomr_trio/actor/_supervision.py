"""The supervisor's decisions: pure, with the time as an argument.

A failing child asks its parent's strategy; the strategy maps the exception to a directive; restarts are counted in
a sliding window (OTP's intensity and period). Nothing here knows Trio.
"""

import enum
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict, TypeVar, Unpack

from attrs import define, field, frozen, validators

T = TypeVar("T")

__all__ = [
    "AutoShutdown",
    "Backoff",
    "Decider",
    "Directive",
    "Restart",
    "RestartWindow",
    "Scope",
    "SupervisorStrategy",
    "by_type",
    "dynamic_pool",
    "escalating",
    "one_for_all",
    "one_for_one",
    "rest_for_one",
    "stopping",
]


class Directive(enum.Enum):
    """What a supervisor does about a child's failure. Values rise with severity."""

    RESUME = 0
    RESTART = 1
    STOP = 2
    ESCALATE = 3


Decider = Callable[[Exception], Directive]
"""Says what is to be done about a failure; it is called with each leaf of a group."""


def by_type(directives: Mapping[type[Exception], Directive], *, otherwise: Directive) -> Decider:
    """Return a decider that looks the exception's classes up, nearest base first.

    Examples:
        >>> decide = by_type({OSError: Directive.RESTART, TimeoutError: Directive.RESUME}, otherwise=Directive.STOP)
        >>> decide(TimeoutError()), decide(ConnectionError()), decide(ValueError())
        (<Directive.RESUME: 0>, <Directive.RESTART: 1>, <Directive.STOP: 2>)
    """
    table = dict(directives)

    def decide(failure: Exception) -> Directive:
        found = (table[cls] for cls in type(failure).__mro__ if cls in table)
        return next(found, otherwise)

    return decide


def _always_restart(_failure: Exception) -> Directive:
    return Directive.RESTART


class Restart(enum.Enum):
    """When a child is started again (OTP's restart types)."""

    PERMANENT = "permanent"
    """Always, also when it stopped itself."""
    TRANSIENT = "transient"
    """When it failed."""
    TEMPORARY = "temporary"
    """Never, also when a sibling's failure took it down."""


class AutoShutdown(enum.Enum):
    """Whether a supervisor stops when its job is done: when children that are ``significant`` have stopped (OTP)."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"


class Scope(enum.Enum):
    """Whom a failure concerns, beside the child that failed."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


@frozen(kw_only=True)
class Backoff:
    """How long a restart waits: exponentially longer with each restart in the window.

    Args:
        initial: seconds before the first.
        maximum: seconds at most.
        factor: from one to the next.
        jitter: share of the delay, in [0, 1], that is random, so that many actors do not restart in step.
    """

    initial: float = field(default=0.2, validator=validators.ge(0))
    maximum: float = field(default=30.0, validator=validators.ge(0))
    factor: float = field(default=2.0, validator=validators.ge(1))
    jitter: float = field(default=0.2, validator=[validators.ge(0), validators.le(1)])

    def delay(self, earlier: int, draw: float) -> float:
        """Return the seconds to wait after ``earlier`` restarts; ``draw`` is a random number in [0, 1).

        Examples:
            >>> backoff = Backoff(initial=0.5, maximum=10, jitter=0.2)
            >>> [backoff.delay(earlier, draw=0) for earlier in range(6)]
            [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
            >>> backoff.delay(0, draw=0.5)
            0.45
        """
        # A bound on the exponent keeps a long history from overflowing the power.
        grown = self.initial * self.factor ** min(earlier, 64)
        return min(grown, self.maximum) * (1 - self.jitter * draw)


@frozen(kw_only=True)
class SupervisorStrategy:
    """What a supervisor does about its children's failures.

    Args:
        scope: whom a failure concerns: the child alone, all children, or those started after it as well.
        decider: maps the failure to a directive.
        max_restarts: how many restarts the window may hold. One more, and the supervisor gives up: it fails itself
            with ``SupervisorGaveUp``.
        within: length of the window in seconds.
        backoff: how long a restart waits; ``None``: not at all.
        auto_shutdown: whether the supervisor stops with its significant children.
        stop_together: all children are stopped at once instead of one by one, the youngest first.
    """

    scope: Scope = Scope.ONE_FOR_ONE
    decider: Decider = _always_restart
    max_restarts: int = field(default=10, validator=validators.ge(0))
    within: float = field(default=60.0, validator=validators.gt(0))
    backoff: Backoff | None = None
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    stop_together: bool = False

    def affected(self, children: Sequence[T], failed: T) -> list[T]:
        """Return the children, in start order, that a failure of ``failed`` (one of them) concerns.

        Examples:
            >>> rest_for_one().affected(["a", "b", "c"], "b")
            ['b', 'c']
        """
        if self.scope is Scope.ONE_FOR_ALL:
            return list(children)
        if self.scope is Scope.REST_FOR_ONE:
            return list(children[children.index(failed) :])
        return [failed]

    def done(self, ended: bool, others: Iterable[bool]) -> bool:
        """Return whether the supervisor's job is done now that a child has stopped for good.

        Args:
            ended: whether that child is significant.
            others: the same of each living one.
        """
        if not ended or self.auto_shutdown is AutoShutdown.NEVER:
            return False
        return self.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT or not any(others)


class Options(TypedDict, total=False):
    """The fields of ``SupervisorStrategy`` that the factories pass on."""

    max_restarts: int
    within: float
    backoff: Backoff | None
    auto_shutdown: AutoShutdown
    stop_together: bool


Directives = Mapping[type[Exception], Directive]


def one_for_one(
    directives: Directives | None = None, *, otherwise: Directive = Directive.RESTART, **options: Unpack[Options]
) -> SupervisorStrategy:
    """Return a strategy by exception class in which a failure concerns the child that failed and no other."""
    return SupervisorStrategy(decider=by_type(directives or {}, otherwise=otherwise), **options)


def one_for_all(
    directives: Directives | None = None, *, otherwise: Directive = Directive.RESTART, **options: Unpack[Options]
) -> SupervisorStrategy:
    """Return a strategy by exception class in which a failure stops and restarts all children."""
    decider = by_type(directives or {}, otherwise=otherwise)
    return SupervisorStrategy(scope=Scope.ONE_FOR_ALL, decider=decider, **options)


def rest_for_one(
    directives: Directives | None = None, *, otherwise: Directive = Directive.RESTART, **options: Unpack[Options]
) -> SupervisorStrategy:
    """Return a strategy by exception class in which a failure concerns those started after the child as well."""
    decider = by_type(directives or {}, otherwise=otherwise)
    return SupervisorStrategy(scope=Scope.REST_FOR_ONE, decider=decider, **options)


def dynamic_pool(
    directives: Directives | None = None, *, otherwise: Directive = Directive.RESTART, **options: Unpack[Options]
) -> SupervisorStrategy:
    """Return the strategy for many like children that come and go (OTP's ``simple_one_for_one``).

    Each is on its own, and they are stopped together: a thousand of them take no longer than the slowest one.
    """
    return one_for_one(directives, otherwise=otherwise, **{"stop_together": True, **options})


def stopping() -> SupervisorStrategy:
    """Return the strategy that stops a failing child."""
    return one_for_one(otherwise=Directive.STOP)


def escalating() -> SupervisorStrategy:
    """Return the strategy that handles nothing and fails the supervisor itself."""
    return one_for_one(otherwise=Directive.ESCALATE)


@define
class RestartWindow:
    """Counts restarts in a sliding window, as OTP does: a restart leaves the window ``within`` seconds after it.

    Args:
        max_restarts: how many the window may hold.
        within: its length in seconds.

    Examples:
        >>> window = RestartWindow(2, within=10)
        >>> [window.admit(now) for now in (0, 9, 9.9, 10, 18)]
        [True, True, False, True, False]
    """

    max_restarts: int
    within: float
    _times: deque[float] = field(factory=deque[float], init=False)

    @property
    def count(self) -> int:
        """Restarts recorded in the window, as of the last ``admit``."""
        return len(self._times)

    def admit(self, now: float) -> bool:
        """Record a restart at ``now`` (seconds) and say whether the window still allows it."""
        while self._times and now - self._times[0] >= self.within:
            self._times.popleft()
        if len(self._times) >= self.max_restarts:
            return False
        self._times.append(now)
        return True
