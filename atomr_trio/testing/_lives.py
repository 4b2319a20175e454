"""An index of a history: who was whose child, and when each life began and ended."""

from collections import defaultdict
from typing import Any, Self

from attrs import define, field

from .history import (
    Born,
    Dead,
    Ended,
    Ending,
    Entry,
    Failing,
    FailureSeen,
    Gone,
    History,
    Let,
    QuitAsked,
    Started,
    Starting,
    StopAsked,
    Taken,
    Unborn,
)

__all__ = ["Life", "Lives"]

LifeKey = tuple[int, int]


@define
class Life:
    """One incarnation, as far as it got. ``closing`` is its first closing entry, a hook or ``on_failure``."""

    place: int
    number: int
    starting: Entry[Starting]
    started: Entry[Started] | None = None
    seen: Entry[FailureSeen] | None = None
    endings: list[Entry[Ending]] = field(factory=list[Entry[Ending]])
    ended: list[Entry[Ended]] = field(factory=list[Entry[Ended]])
    taken: list[Entry[Taken]] = field(factory=list[Entry[Taken]])

    @property
    def ending(self) -> Entry[Ending] | None:
        """The closing hook, if it was reached."""
        return self.endings[0] if self.endings else None

    @property
    def closing(self) -> Entry[Any] | None:
        """The first sign of the end."""
        return self.seen or self.ending

    @property
    def cause(self) -> int | str | None:
        """Which failure ended it."""
        if self.seen is not None:
            return self.seen.what.cause
        return self.ending.what.cause if self.ending is not None else None

    def __str__(self) -> str:
        return f"{self.place}#{self.number}"


@define
class Lives:
    """The tree over time."""

    history: History
    born: dict[int, Entry[Born]] = field(factory=dict[int, Entry[Born]])
    gone: dict[int, list[Entry[Gone]]] = field(factory=lambda: defaultdict[int, list[Entry[Gone]]](list))
    lives: dict[LifeKey, Life] = field(factory=dict[LifeKey, Life])
    of_place: dict[int, list[Life]] = field(factory=lambda: defaultdict[int, list[Life]](list))
    children: dict[LifeKey, list[int]] = field(factory=lambda: defaultdict[LifeKey, list[int]](list))
    failing: dict[int, Entry[Failing]] = field(factory=dict[int, Entry[Failing]])
    stops: dict[int, list[Entry[StopAsked]]] = field(factory=lambda: defaultdict[int, list[Entry[StopAsked]]](list))
    quits: dict[LifeKey, list[Entry[QuitAsked]]] = field(
        factory=lambda: defaultdict[LifeKey, list[Entry[QuitAsked]]](list)
    )
    taken: dict[int, list[Entry[Taken]]] = field(factory=lambda: defaultdict[int, list[Entry[Taken]]](list))
    let: dict[int, list[Entry[Let]]] = field(factory=lambda: defaultdict[int, list[Entry[Let]]](list))
    dead: dict[int, list[Entry[Dead]]] = field(factory=lambda: defaultdict[int, list[Entry[Dead]]](list))
    unruly: list[str] = field(factory=list[str])

    @classmethod
    def of(cls, history: History) -> Self:
        """Index a history."""
        lives = cls(history)
        lives._index_places()
        lives._index_lives()
        lives._index_mail()
        return lives

    def parent_life(self, place: int) -> LifeKey:
        """Return the life that spawned a place."""
        born = self.born[place].what
        return born.parent, born.parent_life

    def siblings(self, place: int) -> list[int]:
        """Return the children of the same life, itself among them, in start order."""
        return self.children[self.parent_life(place)]

    def supervisor(self, place: int) -> Born | None:
        """Return the place that supervises this one; None if the history does not know it."""
        parent = self.born.get(self.born[place].what.parent)
        return None if parent is None else parent.what

    def descendants(self, place: int, *, outliving: int) -> list[int]:
        """Return all places below that were there after entry ``outliving``."""
        found: list[int] = []
        waiting = [place]
        while waiting:
            for life in self.of_place[waiting.pop()]:
                below = self.children[life.place, life.number]
                waiting += [child for child in below if not self.gone[child] or self.gone[child][0].n > outliving]
                found += [child for child in below if not self.gone[child] or self.gone[child][0].n > outliving]
        return found

    def _index_places(self) -> None:
        unborn = {entry.what.place for entry in self.history.of(Unborn)}
        for entry in self.history.of(Born):
            if entry.what.place not in unborn:
                self.born[entry.what.place] = entry
                self.children[entry.what.parent, entry.what.parent_life].append(entry.what.place)
        for gone in self.history.of(Gone):
            self.gone[gone.what.place].append(gone)
        for asked in self.history.of(StopAsked):
            self.stops[asked.what.place].append(asked)
        for quit_asked in self.history.of(QuitAsked):
            self.quits[quit_asked.what.place, quit_asked.what.life].append(quit_asked)

    def _index_lives(self) -> None:
        for entry in self.history.of(Starting):
            key = entry.what.place, entry.what.life
            if key in self.lives:
                self.unruly.append(f"{key} was started twice")
            self.lives[key] = life = Life(*key, entry)
            self.of_place[entry.what.place].append(life)
        for started in self.history.of(Started):
            self.lives[started.what.place, started.what.life].started = started
        for seen in self.history.of(FailureSeen):
            self.lives[seen.what.place, seen.what.life].seen = seen
        for ending in self.history.of(Ending):
            self.lives[ending.what.place, ending.what.life].endings.append(ending)
        for ended in self.history.of(Ended):
            self.lives[ended.what.place, ended.what.life].ended.append(ended)
        for failing in self.history.of(Failing):
            self.failing[failing.what.number] = failing

    def _index_mail(self) -> None:
        for taken in self.history.of(Taken):
            self.taken[taken.what.message].append(taken)
            life = self.lives.get((taken.what.place, taken.what.life))
            if life is not None:
                life.taken.append(taken)
        for let in self.history.of(Let):
            self.let[let.what.message].append(let)
        for dead in self.history.of(Dead):
            self.dead[dead.what.message].append(dead)
