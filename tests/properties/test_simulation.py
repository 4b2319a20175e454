"""A thousand random lives of fifty actors each: no law is violated, everything occurs, and a seed says it all.

``python tests/soak.py --seed N`` repeats one, ``make soak`` lives through fresh ones.
"""

import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from atomr_trio.actor import Directive, Restart, Scope
from atomr_trio.testing import violations
from atomr_trio.testing._lives import Lives
from atomr_trio.testing.history import (
    Answered,
    Became,
    Dead,
    Ended,
    Fired,
    GaveUp,
    Idled,
    Let,
    QuitAsked,
    ReadEnded,
    Refused,
    Sending,
    StopAsked,
    TaskBegun,
    TimerCancelled,
    Told,
    Unstashed,
    Unwatched,
)
from tests.properties.simulation import simulate

CHUNKS, CHUNK = 20, 50

ROOT = Path(__file__).parents[2]


def occurrences(history):
    """Count what happened in a history, by name."""
    lives = Lives.of(history)
    seen = Counter(type(entry.what).__name__ for entry in history)
    seen["entries"] = len(history)
    for entry in lives.failing.values():
        seen[f"failure in {entry.what.where}"] += 1
        seen[f"{entry.what.directive} in {entry.what.where}"] += 1
    for life in lives.lives.values():
        supervisor = lives.supervisor(life.place)
        owner = lives.failing.get(life.cause)
        seen[f"{lives.born[life.place].what.restart}, life {min(life.number, 3)}"] += 1
        if supervisor is not None and life.number > 1:
            seen[f"restart under {supervisor.strategy.scope}"] += 1
        if owner is not None and owner.what.place != life.place:
            seen[f"taken down by a sibling under {supervisor.strategy.scope}"] += 1
        if life.cause is not None:
            seen[f"ended by {life.cause if owner is None else owner.what.directive}"] += 1
    for kind, field in {
        Let: "how",
        Answered: "outcome",
        ReadEnded: "how",
        Refused: "why",
        Dead: "reason",
        Sending: "how",
    }.items():
        seen.update(f"{kind.__name__} {getattr(entry.what, field)}" for entry in history.of(kind))
    seen["closing hook cut"] += sum(entry.what.cut for entry in history.of(Ended))
    return seen


@cache
def live_through(chunk):
    """Return what happened in a chunk of seeds, and what was wrong with it."""
    seen, wrong = Counter(), []
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        history = simulate(seed)
        seen += occurrences(history)
        wrong += [f"python tests/soak.py --seed {seed}: {violation}" for violation in violations(history)]
    return seen, wrong


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_law_is_violated(chunk):
    _, wrong = live_through(chunk)
    assert not wrong, "\n".join(wrong[:20])


EXPECTED = [
    *(f"{directive} in {where}" for directive in Directive for where in ("handler", "task", "pre_start")),
    *(f"failure in {where}" for where in ("group", "post_restart", "on_terminated", "producer")),
    *(f"ended by {directive}" for directive in (Directive.RESTART, Directive.STOP, Directive.ESCALATE)),
    *(f"ended by {name}" for name in ("ChildEscalated", "SupervisorGaveUp", "ActorStopped", "InjectedFault")),
    *(f"restart under {scope}" for scope in Scope),
    *(f"taken down by a sibling under {scope}" for scope in (Scope.ONE_FOR_ALL, Scope.REST_FOR_ONE)),
    *(f"{restart}, life 1" for restart in Restart),
    *(f"{restart}, life 3" for restart in (Restart.PERMANENT, Restart.TRANSIENT)),
    *(f"Let {how}" for how in ("handled", "failed", "cut", "stashed")),
    *(f"Answered {how}" for how in ("answer", "cancelled", "ActorFailed", "ActorStopped", "AskTimeout", "MailboxFull")),
    *(f"ReadEnded {how}" for how in ("end", "left", "cancelled", "ActorFailed", "ActorStopped", "MailboxFull")),
    *(f"Refused {why}" for why in ("full", "cancelled")),
    *(f"Sending {how}" for how in ("tell", "send", "ask", "stream")),
    *(kind.__name__ for kind in (Became, Fired, GaveUp, Idled, QuitAsked, StopAsked, TaskBegun)),
    *(kind.__name__ for kind in (TimerCancelled, Told, Unstashed, Unwatched)),
    "closing hook cut",
]


def test_everything_occurs():
    """The laws hold of something: each kind of fault, directive, scope and end occurs, and not by exception."""
    seen = sum((live_through(chunk)[0] for chunk in range(CHUNKS)), Counter())
    missing = {name: seen[name] for name in EXPECTED if seen[name] < 30}
    assert not missing
    assert seen["Dead"] > 10 * CHUNKS * CHUNK
    assert seen["Sending"] > 150 * CHUNKS * CHUNK
    assert seen["Starting"] > 50 * CHUNKS * CHUNK


@pytest.mark.parametrize("seed", [0, 7, 8])
def test_a_seed_is_one_history(seed):
    first = simulate(seed)
    assert first.entries == simulate(seed).entries
    assert first.digest() != simulate(seed + 1).digest()
    script = f"from tests.properties.simulation import simulate; print(simulate({seed}).digest())"
    for hash_seed in ("0", "5"):
        ran = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={
                "PYTHONHASHSEED": hash_seed,
                "PYTHONPATH": f"{Path(__import__('atomr_trio').__file__).parents[1]}:{ROOT}",
            },
        )
        assert ran.stdout.strip() == first.digest()
