"""Laws of messages: nothing lost without a word, nothing twice, nothing out of order, every question answered once."""

from collections import defaultdict, deque
from collections.abc import Iterator
from itertools import pairwise

from attrs import define, field

from ._lives import Lives
from .history import (
    Answered,
    Asked,
    Became,
    Deferred,
    Entry,
    Fired,
    Gone,
    Idled,
    IdleSet,
    Let,
    Produced,
    Read,
    ReadEnded,
    Refused,
    Resolved,
    Sending,
    Sent,
    Starting,
    Taken,
    TimerCancelled,
    TimerSet,
    Told,
    Unstashed,
    Unwatched,
    Watched,
)

__all__ = ["MAIL_LAWS"]

EPS = 1e-6


def mail_is_conserved(lives: Lives) -> Iterator[str]:
    """Every message that was sent was handled, or lost in a handler that was cut, or became a dead letter: once."""
    sent = {entry.what.message for entry in lives.history.of(Sent)}
    refused = {entry.what.message: entry.what for entry in lives.history.of(Refused)}
    for entry in lives.history.of(Sending):
        message = entry.what.message
        handled = sum(let.what.how != "stashed" for let in lives.let[message])
        dead = len(lives.dead[message])
        if message in sent and handled + dead != 1:
            yield f"{entry.what} was handled {handled} times and became {dead} dead letters"
        elif message in refused and (handled or dead > (refused[message].why == "full")):
            yield f"{refused[message]} was handled {handled} times and became {dead} dead letters"
        elif handled + dead > 1:
            yield f"{entry.what} was handled {handled} times and became {dead} dead letters"
        if len(lives.taken[message]) != len(lives.let[message]):
            yield f"{entry.what} was taken {len(lives.taken[message])} times and let {len(lives.let[message])} times"


def mail_reaches_whom_it_was_sent_to(lives: Lives) -> Iterator[str]:
    """Only the addressee handles a message."""
    for entry in lives.history.of(Sending):
        if any(taken.what.place != entry.what.target for taken in lives.taken[entry.what.message]):
            yield f"{entry.what} was handled by {[taken.what.place for taken in lives.taken[entry.what.message]]}"


def only_a_full_mailbox_refuses(lives: Lives) -> Iterator[str]:
    """A message is refused as one too many only if there were as many as the mailbox holds."""
    target = {entry.what.message: entry.what.target for entry in lives.history.of(Sending)}
    for entry in lives.history.of(Refused):
        place = lives.born.get(target[entry.what.message])
        queued = entry.what.queued
        if queued is not None and place is not None and queued < place.what.capacity:
            yield f"{entry.what} by a mailbox of {place.what.capacity}"


def senders_are_heard_in_order(lives: Lives) -> Iterator[str]:
    """Of the messages of one sender to one actor, what is handled is handled first in the order it was sent."""
    lines: dict[tuple[str, int], list[Entry[Taken]]] = defaultdict(list)
    for entry in lives.history.of(Sending):
        if lives.taken[entry.what.message]:
            lines[entry.what.sender, entry.what.target].append(lives.taken[entry.what.message][0])
    for (sender, target), line in lines.items():
        for before, after in pairwise(line):
            if before.n > after.n:
                yield f"{target} handled {after.what.message} of {sender} before {before.what.message}"


def what_was_stashed_comes_first(lives: Lives) -> Iterator[str]:
    """Unstashed messages are handled before any other mail, in their order."""
    fronts: dict[int, deque[int]] = defaultdict(deque)
    for entry in lives.history:
        if isinstance(entry.what, Unstashed):
            fronts[entry.what.place].extendleft(reversed(entry.what.messages))
        elif isinstance(entry.what, Taken):
            front = fronts[entry.what.place]
            while front and front[0] != entry.what.message and lives.dead[front[0]]:
                front.popleft()
            if front and front.popleft() != entry.what.message:
                yield f"{entry.what} was handled before what was given back"


def behaviours_are_those_put_on(lives: Lives) -> Iterator[str]:
    """``become`` and ``unbecome`` hold from the next message on, and until the end of the incarnation."""
    depth: dict[tuple[int, int], int] = defaultdict(int)
    for entry in lives.history:
        if isinstance(entry.what, Became):
            key = entry.what.place, entry.what.life
            depth[key] = max(0, depth[key] + (1 if entry.what.up else -1))
        elif isinstance(entry.what, Taken):
            expected = depth[entry.what.place, entry.what.life]
            if entry.what.behaviour != expected:
                yield f"{entry.what} should have met behaviour {expected}"


def questions_have_one_outcome(lives: Lives) -> Iterator[str]:
    """Each question ends exactly once, in time, with what the callee said, at the very moment it was said."""
    asked = {entry.what.message: entry for entry in lives.history.of(Asked)}
    answered: dict[int, list[Entry[Answered]]] = defaultdict(list)
    for entry in lives.history.of(Answered):
        answered[entry.what.message].append(entry)
    said = {entry.what.message: entry for entry in lives.history.of(Resolved)}
    deferred = {entry.what.message for entry in lives.history.of(Deferred)}
    for message, entry in asked.items():
        if len(answered[message]) != 1:
            yield f"question {message} has {len(answered[message])} outcomes"
            continue
        yield from _outcome(lives, entry, answered[message][0], said.get(message), message in deferred)


def _outcome(
    lives: Lives, asked: Entry[Asked], answered: Entry[Answered], said: Entry[Resolved] | None, deferred: bool
) -> Iterator[str]:
    message, outcome, at = asked.what.message, answered.what.outcome, answered.at
    if at > asked.what.deadline + EPS:
        yield f"{answered.what} came {at - asked.what.deadline:g}s late"
    if outcome == "cancelled":
        return
    if outcome == "answer" and (said is None or said.what.value != answered.what.value):
        yield f"{answered.what}, but the callee said {said}"
    if outcome == "AskTimeout" and at < asked.what.deadline - EPS:
        yield f"{answered.what} before its deadline"
    if outcome == "ActorFailed" and not _failed(lives, message, at) and not deferred:
        yield f"{answered.what}, but no handler failed"
    if outcome == "ActorStopped" and said is not None and said.at < at - EPS:
        yield f"{answered.what}, but it was answered"
    for what, moment in _moments(lives, message, said, deferred):
        if at > moment + EPS:
            yield f"{answered.what} came at {at:g}; the asker should have been told at {moment:g}: {what}"


def _failed(lives: Lives, message: int, at: float) -> bool:
    return any(let.what.how == "failed" and abs(let.at - at) < EPS for let in lives.let[message])


def _moments(
    lives: Lives, message: int, said: Entry[Resolved] | None, deferred: bool
) -> Iterator[tuple[object, float]]:
    """Yield what settles a question, and when."""
    if said is not None:
        yield said.what, said.at
    for let in lives.let[message]:
        if let.what.how == "failed" and not deferred:
            yield let.what, let.at
        closing = lives.lives[let.what.place, let.what.life].closing
        if let.what.how != "stashed" and closing is not None:
            yield closing.what, closing.at
    for dead in lives.dead[message]:
        yield dead.what, dead.at


def handled_questions_are_answered(lives: Lives) -> Iterator[str]:
    """Nothing answers with the outcome of another question: what was answered was handled."""
    for entry in lives.history.of(Answered):
        if entry.what.outcome == "answer" and not lives.taken[entry.what.message]:
            yield f"{entry.what} was never handled"


@define
class _Stream:
    produced: list[int] = field(factory=list[int])
    read: list[int] = field(factory=list[int])
    ends: list[str] = field(factory=list[str])


def streams_are_read_in_order(lives: Lives) -> Iterator[str]:
    """A reader gets the items in order and without a gap; a good end comes after the last one, and only once."""
    streams: dict[int, _Stream] = defaultdict(_Stream)
    for produced in lives.history.of(Produced):
        streams[produced.what.message].produced.append(produced.what.item)
    for read in lives.history.of(Read):
        streams[read.what.message].read.append(read.what.item)
    for ended in lives.history.of(ReadEnded):
        streams[ended.what.message].ends.append(ended.what.how)
    for message, stream in streams.items():
        if stream.read != list(range(len(stream.read))):
            yield f"the reader of {message} got {stream.read}"
        whole = [*stream.read, -1]
        if len(stream.ends) != 1:
            yield f"the stream {message} ended {len(stream.ends)} times"
        elif stream.ends == ["end"] and stream.produced and stream.produced != whole:
            yield f"the stream {message} ended well after {stream.read}; sent were {stream.produced}"


def deaths_are_told_once(lives: Lives) -> Iterator[str]:
    """A watcher is told once, after the death and before its next mail; not at all once it has looked away."""
    watching: dict[int, set[int]] = defaultdict(set)
    overdue: dict[int, dict[int, int]] = defaultdict(dict)
    watchers: dict[int, set[int]] = defaultdict(set)
    dead: set[int] = set()
    for entry in lives.history:
        what = entry.what
        if isinstance(what, Watched):
            watching[what.place].add(what.target)
            watchers[what.target].add(what.place)
            if what.target in dead:
                overdue[what.place].setdefault(what.target, 0)
        elif isinstance(what, Unwatched):
            watching[what.place].discard(what.target)
            overdue[what.place].pop(what.target, None)
        elif isinstance(what, Gone):
            dead.add(what.place)
            for watcher in watchers[what.place]:
                if what.place in watching[watcher]:
                    overdue[watcher].setdefault(what.place, 0)
        elif isinstance(what, Told):
            if what.target not in dead or what.target not in watching[what.place]:
                yield f"{what} was not due"
            watching[what.place].discard(what.target)
            overdue[what.place].pop(what.target, None)
        elif isinstance(what, Taken):
            for target in overdue[what.place]:
                overdue[what.place][target] += 1
                # One message may have been on its way when the death was announced.
                if overdue[what.place][target] == 2:
                    yield f"{what} before it was told of the death of {target}"


def no_timer_is_stale(lives: Lives) -> Iterator[str]:
    """A timer fires in the life that set it, when it is due, and not after it was set again or cancelled."""
    current: dict[tuple[int, int, str], Entry[TimerSet] | None] = {}
    for entry in lives.history:
        if isinstance(entry.what, TimerSet):
            current[entry.what.place, entry.what.life, entry.what.key] = entry
        elif isinstance(entry.what, TimerCancelled):
            current[entry.what.place, entry.what.life, entry.what.key] = None
        elif isinstance(entry.what, Fired):
            key = entry.what.place, entry.what.life, entry.what.key
            timer = current.get(key)
            if timer is None or timer.what.token != entry.what.token:
                yield f"{entry.what} is stale"
            elif entry.at < timer.at + timer.what.delay - EPS:
                yield f"{entry.what} is {timer.at + timer.what.delay - entry.at:g}s early"
            if timer is not None and not timer.what.periodic:
                current[key] = None


def due_timers_fire(lives: Lives) -> Iterator[str]:
    """A timer that is due is handled before the mail that comes after."""
    waiting: dict[tuple[int, int], dict[str, tuple[Entry[TimerSet], int]]] = defaultdict(dict)
    for entry in lives.history:
        what = entry.what
        if isinstance(what, TimerSet):
            waiting[what.place, what.life][what.key] = entry, 0
        elif isinstance(what, TimerCancelled | Fired):
            waiting[what.place, what.life].pop(what.key, None)
        elif isinstance(what, Taken):
            for key, (timer, missed) in waiting[what.place, what.life].items():
                if entry.at > timer.at + timer.what.delay + EPS:
                    waiting[what.place, what.life][key] = timer, missed + 1
                    if missed == 1:
                        yield f"{what} before {timer.what}, due at {timer.at + timer.what.delay:g}"


def idleness_is_real(lives: Lives) -> Iterator[str]:
    """A receive timeout comes only when no mail was handled for so long."""
    seconds: dict[tuple[int, int], float] = {}
    busy: dict[tuple[int, int], float] = {}
    for entry in lives.history:
        what = entry.what
        if isinstance(what, IdleSet):
            seconds[what.place, what.life] = what.seconds
        elif isinstance(what, Let | Idled | Starting):
            key = what.place, what.life
            if isinstance(what, Idled) and entry.at - busy[key] < seconds.get(key, float("inf")) - EPS:
                yield f"{what} after {entry.at - busy[key]:g}s"
            busy[key] = entry.at


MAIL_LAWS = (
    mail_is_conserved,
    mail_reaches_whom_it_was_sent_to,
    only_a_full_mailbox_refuses,
    senders_are_heard_in_order,
    what_was_stashed_comes_first,
    behaviours_are_those_put_on,
    questions_have_one_outcome,
    handled_questions_are_answered,
    streams_are_read_in_order,
    deaths_are_told_once,
    no_timer_is_stale,
    due_timers_fire,
    idleness_is_real,
)
