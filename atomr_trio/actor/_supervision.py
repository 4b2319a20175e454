"""The supervisor's decisions: pure, with the time as an argument.

A failing child asks its parent's strategy; the strategy maps the exception to a directive; restarts are counted in
a sliding window (OTP's intensity and period). Nothing here knows Trio.
"""

import enum
from collections import deque
from collections.abc import Callable, Mapping

from attrs import define, field, frozen, validators

__all__ = [
    "Decider",
    "Directive",
    "OneForOneStrategy",
    "RestartWindow",
    "SupervisorStrategy",
    "by_type",
    "escalating",
    "one_for_one",
    "stopping",
]


class Directive(enum.Enum):
    """What a supervisor does about a child's failure. Values rise with severity."""

    RESUME = 0
    RESTART = 1
    STOP = 2
    ESCALATE = 3


Decider = Callable[[Exception], Directive]


def by_type(directives: Mapping[type[Exception], Directive], *, otherwise: Directive) -> Decider:
    """Return a decider that looks the exception's classes up, nearest base first."""
    table = dict(directives)

    def decide(failure: Exception) -> Directive:
        found = (table[cls] for cls in type(failure).__mro__ if cls in table)
        return next(found, otherwise)

    return decide


def _always_restart(_failure: Exception) -> Directive:
    return Directive.RESTART


@frozen(kw_only=True)
class OneForOneStrategy:
    """A failure concerns the child that failed and no other.

    Args:
        decider: maps the failure to a directive.
        max_restarts: how many restarts the window may hold. One more, and the supervisor gives up: it fails itself
            with ``SupervisorGaveUp``.
        within: length of the window in seconds.
    """

    decider: Decider = _always_restart
    max_restarts: int = field(default=10, validator=validators.ge(0))
    within: float = field(default=60.0, validator=validators.gt(0))


SupervisorStrategy = OneForOneStrategy


def one_for_one(
    directives: Mapping[type[Exception], Directive] | None = None,
    *,
    otherwise: Directive = Directive.RESTART,
    max_restarts: int = 10,
    within: float = 60.0,
) -> OneForOneStrategy:
    """Return a one-for-one strategy that decides by exception class."""
    decider = by_type(directives or {}, otherwise=otherwise)
    return OneForOneStrategy(decider=decider, max_restarts=max_restarts, within=within)


def stopping() -> OneForOneStrategy:
    """Return the strategy that stops a failing child."""
    return one_for_one(otherwise=Directive.STOP)


def escalating() -> OneForOneStrategy:
    """Return the strategy that handles nothing and fails the supervisor itself."""
    return one_for_one(otherwise=Directive.ESCALATE)


@define
class RestartWindow:
    """Counts restarts in a sliding window, as OTP does: a restart leaves the window ``within`` seconds after it."""

    max_restarts: int
    within: float
    _times: deque[float] = field(factory=deque[float], init=False)

    def admit(self, now: float) -> bool:
        """Record a restart at ``now`` (seconds) and say whether the window still allows it."""
        while self._times and now - self._times[0] >= self.within:
            self._times.popleft()
        if len(self._times) >= self.max_restarts:
            return False
        self._times.append(now)
        return True
