"""Laws of supervision: what each directive, scope, restart type and window must lead to."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

from atomr_trio.actor import AutoShutdown, ChildEscalated, Directive, Restart, Scope

from ._lives import Life, Lives
from .history import Born, EndBegun, Entry, Failing, GaveUp

__all__ = ["SUPERVISION_LAWS"]

EPS = 1e-6
PATIENCE = 30.0
"""Seconds after which a restart that is due must have happened, on top of its backoff."""


def each_directive_is_obeyed(lives: Lives) -> Iterator[str]:
    """Resume goes on; stop and escalate end the actor for good; a restart is one, unless something forbids it."""
    for number, entry in lives.failing.items():
        life = lives.lives[entry.what.place, entry.what.life]
        if life.cause != number:
            continue
        hook = life.ending.what.hook if life.ending is not None else "none"
        later = life.number + 1 in {other.number for other in lives.of_place[life.place]}
        running = life.started is not None and life.started.n < entry.n
        if entry.what.directive is Directive.RESUME and (later or (running and not _excused(lives, life, entry))):
            yield f"{life} ended by failure {number}, which was to be resumed"
        elif entry.what.directive in (Directive.STOP, Directive.ESCALATE) and (hook == "pre_restart" or later):
            yield f"{life} was restarted after failure {number}, which was to {entry.what.directive.name}"
        elif entry.what.directive is Directive.RESTART and hook == "post_stop" and not _excused(lives, life, entry):
            yield f"{life} was not restarted after failure {number}"


def _excused(lives: Lives, life: Life, failing: Entry[Failing]) -> bool:
    supervisor = lives.supervisor(life.place)
    if supervisor is None or supervisor.strategy.scope is not Scope.ONE_FOR_ONE or not lives.gone[life.place]:
        return True
    if lives.stops[life.place] or lives.quits[life.place, life.number] or _is_temporary(lives, life.place):
        return True
    if any(entry.what == GaveUp(life.place, failing.what.number) for entry in lives.history.of(GaveUp)):
        return True
    # The first start failed: its spawner has got the failure.
    first = life.number == 1 and (life.started is None or life.started.n > failing.n)
    return first or not _goes_on(lives, lives.parent_life(life.place), lives.gone[life.place][0].n)


def _is_temporary(lives: Lives, place: int) -> bool:
    return lives.born[place].what.restart is Restart.TEMPORARY


def _goes_on(lives: Lives, key: tuple[int, int], n: int) -> bool:
    """Say whether a life handled mail after entry ``n``; one message may have been on its way."""
    life = lives.lives.get(key)
    return life is not None and sum(entry.n > n for entry in life.taken) > 1


def restart_types_are_kept(lives: Lives) -> Iterator[str]:
    """A temporary actor has one life; a life that ended without a failure is followed by another only if permanent."""
    for place, own in lives.of_place.items():
        if len(own) > 1 and _is_temporary(lives, place):
            yield f"{place} is temporary and had {len(own)} lives"
        for before, after in pairwise(own):
            if before.ending is not None and before.ending.what.hook != "pre_restart":
                yield f"{after} follows one that was stopped"
            quit_asked = lives.quits[place, before.number]
            permanent = lives.born[place].what.restart is Restart.PERMANENT
            if quit_asked and not permanent and before.cause == "ActorStopped" and len(lives.siblings(place)) == 1:
                yield f"{after} follows one that stopped itself"


def due_restarts_happen(lives: Lives) -> Iterator[str]:
    """What is to be restarted is, and what escalates reaches the parent: within reach of the end of the history."""
    ends = [entry.at for entry in lives.history.of(EndBegun)]
    if not ends:
        return
    for place, own in lives.of_place.items():
        if not own:
            continue
        last = own[-1]
        waits = last.ending is not None and last.ending.what.hook == "pre_restart"
        if not waits or (lives.gone[place] and lives.gone[place][0].at < min(ends)):
            continue
        supervisor = lives.supervisor(place)
        backoff = supervisor.strategy.backoff if supervisor is not None else None
        since = last.ended[-1].at if last.ended else last.starting.at
        if min(ends) - since > PATIENCE + (0.0 if backoff is None else backoff.maximum):
            yield f"{place} waits for its restart since {since:g}"


def failures_stay_in_their_scope(lives: Lives) -> Iterator[str]:
    """A life ends by its own failure, or by a sibling's if the strategy's scope says so."""
    for life in lives.lives.values():
        owner = lives.failing.get(life.cause) if isinstance(life.cause, int) else None
        if owner is None or owner.what.place == life.place:
            continue
        if owner.what.place not in lives.siblings(life.place):
            yield f"{life} ended by failure {life.cause} of {owner.what.place}, which is no sibling"
        elif not _concerns(lives, owner.what.place, life.place):
            yield f"{life} ended by failure {life.cause} of {owner.what.place}, which does not concern it"


def _concerns(lives: Lives, failed: int, other: int) -> bool:
    supervisor = lives.supervisor(failed)
    if supervisor is None or supervisor.strategy.scope is Scope.ONE_FOR_ONE:
        return supervisor is None
    family = lives.siblings(failed)
    return supervisor.strategy.scope is Scope.ONE_FOR_ALL or family.index(other) >= family.index(failed)


def groups_go_down_and_come_up_together(lives: Lives) -> Iterator[str]:
    """Before one of a group is started again, all that its failure concerns are down; they come up in start order."""
    for life in lives.lives.values():
        owner = lives.failing.get(life.cause) if isinstance(life.cause, int) else None
        nexts = lives.lives.get((life.place, life.number + 1))
        if owner is None or owner.what.place != life.place or nexts is None:
            continue
        since = _round_began(lives, life, owner)
        for sibling in lives.siblings(life.place):
            if sibling != life.place and _concerns(lives, life.place, sibling) and lives.born[sibling].n < since:
                yield from _group_member(lives, life, sibling, owner, nexts)


def _round_began(lives: Lives, life: Life, failing: Entry[Failing]) -> int:
    """Return the first failure of the restart that is under way when ``life`` fails: it is the one that it joins."""
    first = failing.n
    for sibling in lives.siblings(life.place):
        for other in lives.of_place[sibling]:
            earlier = lives.failing.get(other.cause) if isinstance(other.cause, int) else None
            again = lives.lives.get((sibling, other.number + 1))
            if not _restarting(other) or (again is not None and again.starting.n < failing.n):
                continue
            # When a failure that is not numbered was judged is not known, but it was in that life.
            began = other.starting.n if isinstance(other.cause, str) else earlier.n if earlier is not None else first
            first = min(first, began)
    return first


def _group_member(lives: Lives, life: Life, sibling: int, failing: Entry[Failing], again: Life) -> Iterator[str]:
    for other in lives.of_place[sibling]:
        ran = other.started is not None and other.started.n < failing.n
        closed = other.closing.n if other.closing is not None else len(lives.history)
        if ran and closed > again.starting.n:
            yield f"{other} was not taken down before {again} began"
        twin = lives.lives.get((sibling, other.number + 1))
        if other.cause == life.cause and twin is not None:
            family = lives.siblings(sibling)
            older_first = family.index(sibling) < family.index(life.place)
            if (twin.starting.n < again.starting.n) is not older_first:
                yield f"{twin} and {again} came up in the wrong order"


def the_window_bounds_restarts(lives: Lives) -> Iterator[str]:
    """No window holds more restarts than the strategy allows, and no supervisor gives up before that."""
    for key, family in lives.children.items():
        supervisor = lives.born.get(key[0])
        if supervisor is None:
            continue
        times = sorted(_counted(lives, supervisor.what, family))
        most, within = supervisor.what.strategy.max_restarts, supervisor.what.strategy.within
        for index in range(most, len(times)):
            if times[index] - times[index - most] < within - EPS:
                yield f"life {key} restarted its children {most + 1} times from {times[index - most]:g}"
    for entry in lives.history.of(GaveUp):
        yield from _gave_up_too_early(lives, entry)


def _counted(lives: Lives, supervisor: Born, family: list[int]) -> Iterator[float]:
    """Yield when restarts were admitted, those of which the time is known for sure."""
    for number, failing in lives.failing.items():
        life = lives.lives[failing.what.place, failing.what.life]
        if life.place not in family or life.cause != number or not _restarting(life):
            continue
        # In a group its restart may have been another's, which is the one that counts, unless it took others along.
        alone = supervisor.strategy.scope is Scope.ONE_FOR_ONE
        if alone or any(_took_along(lives, other, number) for other in family if other != life.place):
            yield failing.at


def _took_along(lives: Lives, other: int, number: int) -> bool:
    return any(life.cause == number for life in lives.of_place[other])


def _restarting(life: Life) -> bool:
    return life.ending is not None and life.ending.what.hook == "pre_restart"


def _gave_up_too_early(lives: Lives, entry: Entry[GaveUp]) -> Iterator[str]:
    failing = lives.failing.get(entry.what.cause) if isinstance(entry.what.cause, int) else None
    supervisor = lives.supervisor(entry.what.place)
    if failing is None or supervisor is None:
        return
    strategy = supervisor.strategy
    known = 0
    for place in lives.siblings(entry.what.place):
        for life in lives.of_place[place]:
            own = lives.failing.get(life.cause) if isinstance(life.cause, int) else None
            # One that was cut in `on_failure` may have been on its way to a restart.
            stopped = life.ending is not None and life.ending.what.hook == "post_stop"
            if stopped or life.closing is None or (own is not None and own.n >= failing.n):
                continue
            # A failure that is not ours has no exact time: it counts if its closing hook is within the window.
            at = own.at if own is not None else life.closing.at
            known += failing.at - at < strategy.within + (EPS if own is not None else PATIENCE)
    if known < strategy.max_restarts:
        yield f"the supervisor of {entry.what.place} gave up after {known} of {strategy.max_restarts} restarts"


def backoffs_are_kept(lives: Lives) -> Iterator[str]:
    """A restart waits at least for the first delay less its jitter; without a group at most for the longest."""
    for place, own in lives.of_place.items():
        supervisor = lives.supervisor(place)
        if supervisor is None or supervisor.strategy.scope is not Scope.ONE_FOR_ONE:
            continue
        backoff = supervisor.strategy.backoff
        for before, after in pairwise(own):
            waited = after.starting.at - before.ended[-1].at if before.ended else 0.0
            most = 0.0 if backoff is None else backoff.maximum
            least = 0.0 if backoff is None else min(backoff.initial, most) * (1 - backoff.jitter)
            if before.ended and not least - EPS <= waited <= most + EPS:
                yield f"{after} waited {waited:g}s for its start instead of {least:g} to {most:g}"


def escalations_reach_the_parent(lives: Lives) -> Iterator[str]:
    """A parent goes on after an escalation only if its own supervisor resumes it."""
    for number, failing in lives.failing.items():
        life = lives.lives[failing.what.place, failing.what.life]
        if life.cause != number or failing.what.directive is not Directive.ESCALATE or not lives.gone[life.place]:
            continue
        # A child that was stopping when it failed has nothing to escalate, nor has one whose spawner was told.
        if lives.stops[life.place] or lives.quits[life.place, life.number] or life.started is None:
            continue
        supervisor = lives.supervisor(life.place)
        above = lives.supervisor(supervisor.place) if supervisor is not None and supervisor.place else None
        if above is None or supervisor is None or supervisor.strategy.scope is not Scope.ONE_FOR_ONE:
            continue
        resumed = above.strategy.decider(ChildEscalated(str(life.place))) is Directive.RESUME
        if not resumed and _goes_on(lives, lives.parent_life(life.place), lives.gone[life.place][0].n):
            yield f"the parent of {life} went on after failure {number}, which was to be escalated"


def supervisors_stop_with_their_significant_children(lives: Lives) -> Iterator[str]:
    """A supervisor whose job is done does not go on."""
    for key, family in lives.children.items():
        supervisor = lives.born.get(key[0])
        if supervisor is None or supervisor.what.strategy.auto_shutdown is AutoShutdown.NEVER or key not in lives.lives:
            continue
        births = [lives.born[child].n for child in family]
        for child in family:
            if not lives.gone[child] or not lives.born[child].what.significant:
                continue
            n = lives.gone[child][0].n
            others = family[: bisect_left(births, n)]
            rest = [other for other in others if lives.born[other].what.significant and _lives_at(lives, other, n)]
            done = supervisor.what.strategy.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT or not rest
            if done and _goes_on(lives, key, n):
                yield f"life {key} went on after its significant child {child} was gone"


def _lives_at(lives: Lives, place: int, n: int) -> bool:
    return not lives.gone[place] or lives.gone[place][0].n > n


SUPERVISION_LAWS = (
    each_directive_is_obeyed,
    restart_types_are_kept,
    due_restarts_happen,
    failures_stay_in_their_scope,
    groups_go_down_and_come_up_together,
    the_window_bounds_restarts,
    backoffs_are_kept,
    escalations_reach_the_parent,
    supervisors_stop_with_their_significant_children,
)
