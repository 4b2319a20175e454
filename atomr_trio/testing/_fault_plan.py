"""Which fault happens where: pure decisions, which a process without Trio can follow too."""

import random
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from attrs import define, field, frozen, validators

__all__ = ["Cancel", "Crash", "Delay", "Drop", "FaultAction", "FaultPlan", "InjectedFault", "Odds"]


@define
class InjectedFault(Exception):
    """A fault point failed because a test wanted it. ``visit`` counts from 1 how often the point was reached."""

    point: str
    visit: int

    def __str__(self) -> str:
        return f"injected at {self.point}, visit {self.visit}"


@frozen
class Crash:
    """Raise ``error``, an exception or a function that makes one; without it an ``InjectedFault``."""

    error: Exception | Callable[[], Exception] | None = None

    def exception(self, point: str, visit: int) -> Exception:
        """Return what to raise."""
        if self.error is None:
            return InjectedFault(point, visit)
        return self.error if isinstance(self.error, Exception) else self.error()


@frozen
class Delay:
    """Wait so many seconds."""

    seconds: float = field(validator=validators.ge(0.0))


@frozen
class Drop:
    """Lose what is about to be sent."""


@frozen
class Cancel:
    """Cancel the nearest ``cancellable`` block that the caller, or what has started its task, is in."""


FaultAction = Crash | Delay | Drop | Cancel

_chance = validators.and_(validators.ge(0.0), validators.le(1.0))


@frozen(kw_only=True)
class Odds:
    """How likely each fault is at a visit of a point.

    Args:
        crash: chance of an ``InjectedFault``.
        delay: chance of a delay, of up to ``max_delay`` seconds.
        cancel: chance of a cancellation.
        drop: chance that what is sent gets lost; it is drawn apart from the others, which sum up to 1 at most.
        max_delay: seconds.
    """

    crash: float = field(default=0.0, validator=_chance)
    delay: float = field(default=0.0, validator=_chance)
    cancel: float = field(default=0.0, validator=_chance)
    drop: float = field(default=0.0, validator=_chance)
    max_delay: float = field(default=1.0, validator=validators.ge(0.0))

    def __attrs_post_init__(self) -> None:
        if self.crash + self.delay + self.cancel > 1.0:
            raise ValueError("the chances of crash, delay and cancel are more than 1 together")

    def draw(self, source: random.Random) -> FaultAction | None:
        """Draw what happens at a visit."""
        lot = source.random()
        if lot < self.crash:
            return Crash()
        if lot < self.crash + self.delay:
            return Delay(source.uniform(0.0, self.max_delay))
        return Cancel() if lot < self.crash + self.delay + self.cancel else None


@frozen
class FaultPlan:
    """What happens at every visit of every point, as a function of a seed.

    It has no state, so the same visit has the same fate in any order of events, in any process.

    Args:
        seed: of everything.
        default: the odds at points that ``points`` does not name.
        points: odds by the name of a point, or by a pattern with ``*``; the first that matches counts.
    """

    seed: int
    default: Odds = Odds()
    points: Mapping[str, Odds] = field(factory=dict[str, Odds])

    def at(self, point: str, visit: int) -> FaultAction | None:
        """Say what happens when ``point`` is reached for the ``visit``-th time, counted from 1."""
        return self._odds(point).draw(self._source("at", point, visit))

    def drops(self, point: str, visit: int) -> bool:
        """Say whether the ``visit``-th thing sent at ``point`` gets lost."""
        return self._source("drops", point, visit).random() < self._odds(point).drop

    def _odds(self, point: str) -> Odds:
        return next((odds for pattern, odds in self.points.items() if fnmatchcase(point, pattern)), self.default)

    def _source(self, *key: Any) -> random.Random:
        # Seeded by a string: that is the same in every process, where a hash is not.
        return random.Random(repr((self.seed, *key)))
