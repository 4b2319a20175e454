"""Laws of one actor's life, and of the order in which a tree ends."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ._lives import Life, Lives
from .history import EndBegun, EndReached, Entry, Fired, Let, TaskBegun, TaskEnded, Told

__all__ = ["LIFE_LAWS"]

EPS = 1e-6
"""Seconds that sums of floating deadlines may differ by."""


def started_lives_end_once(lives: Lives) -> Iterator[str]:
    """Every started instance gets one closing hook; one that failed to start at most one."""
    yield from lives.unruly
    for life in lives.lives.values():
        ends = len(life.endings)
        if ends > 1 or (ends == 0 and life.started is not None):
            yield f"{life} was ended {ends} times"
        if len(life.ended) != ends:
            yield f"{life} left its closing hook {len(life.ended)} times"


def lives_follow_each_other(lives: Lives) -> Iterator[str]:
    """Incarnations are numbered from 1, and one begins when the one before is over."""
    for place, own in lives.of_place.items():
        if [life.number for life in own] != list(range(1, len(own) + 1)):
            yield f"{place} lived as {[life.number for life in own]}"
        for before, after in pairwise(own):
            if not before.ended or before.ended[-1].n > after.starting.n:
                yield f"{after} began before {before} had ended"


def every_place_goes_once(lives: Lives) -> Iterator[str]:
    """Every spawned actor is gone exactly once, after the end of its last life, and nothing follows."""
    for place in lives.born:
        gone = lives.gone[place]
        if place and len(gone) != 1:
            yield f"{place} went {len(gone)} times"
        elif place and any(entry.n > gone[0].n for life in lives.of_place[place] for entry in life.ended):
            yield f"{place} was gone before its last life had ended"


def nothing_happens_outside_of_a_life(lives: Lives) -> Iterator[str]:
    """Nothing is handled before the start is through, nor after the end has begun; tasks end with their life."""
    for kind in (Told, Fired):
        for entry in lives.history.of(kind):
            yield from _outside(lives, entry)
    for life in lives.lives.values():
        for taken in life.taken:
            yield from _outside(lives, taken)
    for let in lives.history.of(Let):
        yield from _outside(lives, let)
    begun = {entry.what.task: entry for entry in lives.history.of(TaskBegun)}
    ended = {entry.what.task: entry for entry in lives.history.of(TaskEnded)}
    for task, entry in begun.items():
        closing = lives.lives[entry.what.place, entry.what.life].closing
        if task not in ended or (closing is not None and ended[task].n > closing.n):
            yield f"a task of {lives.lives[entry.what.place, entry.what.life]} outlived it"


def _outside(lives: Lives, entry: Entry[Any]) -> Iterator[str]:
    life = lives.lives.get((entry.what.place, entry.what.life))
    if life is None or life.started is None or entry.n < life.started.n:
        yield f"{entry.what} before the start"
    elif life.closing is not None and entry.n > life.closing.n:
        yield f"{entry.what} after the end"


def children_end_before_parents(lives: Lives) -> Iterator[str]:
    """The children of a life are gone before its closing hooks begin."""
    for life in lives.lives.values():
        for child in lives.children[life.place, life.number]:
            gone = lives.gone[child]
            if life.closing is not None and (not gone or gone[0].n > life.closing.n):
                yield f"{child} outlived its parent {life}"


def the_youngest_ends_first(lives: Lives) -> Iterator[str]:
    """A parent that ends stops its children one by one in reverse order of their start."""
    for family in lives.children.values():
        stopped = [child for child in family if lives.gone[child] and lives.gone[child][0].what.by_parent]
        for older, younger in pairwise(stopped):
            closing = _closing_of_a_plain_stop(lives.of_place[older])
            if closing is not None and closing.n < lives.gone[younger][0].n:
                yield f"{older} was stopped before its younger sibling {younger} was gone"
            if lives.gone[older][0].n < lives.gone[younger][0].n:
                yield f"{older} was gone before its younger sibling {younger}"


def _closing_of_a_plain_stop(own: list[Life]) -> Entry[Any] | None:
    # One that was failing, or on its way to a restart, may have been closing already when its turn came.
    if not own or own[-1].ending is None or own[-1].cause is not None or own[-1].ending.what.hook != "post_stop":
        return None
    return own[-1].closing


def a_stop_is_final(lives: Lives) -> Iterator[str]:
    """After a stop from outside no life begins, and no mail is handled but what was being handed over already."""
    for place, asked in lives.stops.items():
        for life in lives.of_place[place]:
            if life.starting.n > asked[0].n:
                yield f"{life} began after a stop"
            late = [entry for entry in life.taken if entry.n > asked[0].n]
            if len(late) > 1:
                yield f"{life} handled {len(late)} messages after a stop"


def a_stop_is_bounded(lives: Lives) -> Iterator[str]:
    """A stop takes at most the deadlines of the actor and of all below it: for a handler and two hooks each."""
    for place, asked in lives.stops.items():
        if place in lives.born and lives.gone[place]:
            concerned = [place, *lives.descendants(place, outliving=asked[0].n)]
            yield from _took(lives, asked[0], lives.gone[place][0], concerned)
    for begun in lives.history.of(EndBegun):
        there = [
            place for place in lives.born if place and not (lives.gone[place] and lives.gone[place][0].n < begun.n)
        ]
        for last in [lives.gone[place][0] for place in there if lives.gone[place]]:
            yield from _took(lives, begun, last, there)
    # The first one may have come while the block was still busy otherwise.
    for begun, reached in zip(lives.history.of(EndBegun)[-1:], lives.history.of(EndReached), strict=False):
        yield from _took(lives, begun, reached, list(filter(None, lives.born)))


def _took(lives: Lives, begun: Entry[Any], ended: Entry[Any], concerned: list[int]) -> Iterator[str]:
    budget = sum(3 * lives.born[place].what.shutdown for place in concerned)
    if ended.at - begun.at > budget + EPS:
        yield f"{begun.what} at {begun.at:g} took until {ended.at:g}, which is more than {budget:g}s"


def nothing_is_left(lives: Lives) -> Iterator[str]:
    """After the system's block no task, no open channel and no queued message is left."""
    for entry in lives.history.of(EndReached):
        if entry.what.tasks or entry.what.channels or entry.what.queued:
            yield str(entry.what)


LIFE_LAWS = (
    started_lives_end_once,
    lives_follow_each_other,
    every_place_goes_once,
    nothing_happens_outside_of_a_life,
    children_end_before_parents,
    the_youngest_ends_first,
    a_stop_is_final,
    a_stop_is_bounded,
    nothing_is_left,
)
