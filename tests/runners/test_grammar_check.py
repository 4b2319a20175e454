"""Grammars that would harm whoever reads them harm a process that nobody misses."""

import json
import signal

import pytest
import trio

from atomr_trio.core import Backpressure, BadRequest, Grammar, Internal, Unsupported
from atomr_trio.runners import _grammar_check
from atomr_trio.runners._grammar_check import GrammarCheck


@pytest.fixture
def check():
    return GrammarCheck({2: "<|im_end|>", 300: "<call>"}, 400)


@pytest.fixture
def runs(monkeypatch):
    """Counts the processes."""
    real, count = trio.run_process, []

    async def run(*arguments, **options):
        count.append(1)
        return await real(*arguments, **options)

    monkeypatch.setattr(trio, "run_process", run)
    return count


async def refused(check, grammar):
    with pytest.raises(BadRequest) as caught:
        await check.check(grammar)
    assert caught.value.param == "grammar"
    return caught.value.message


async def test_verdicts_are_remembered(check, runs):
    good, bad = Grammar("lark", 'start: <call> "a" <[300]>'), Grammar("json", '{"type": "strng"}')
    for _ in range(3):
        await check.check(good)
        assert "strng" in await refused(check, bad)
    assert len(runs) == 2


async def test_many_who_ask_the_same_are_answered_by_one_process(check, runs):
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(check.check, Grammar("regex", "a"))
    assert len(runs) == 1


async def test_the_oldest_verdict_is_forgotten(check, runs, monkeypatch):
    monkeypatch.setattr(_grammar_check, "KEPT", 2)
    for text in "abcb":
        await check.check(Grammar("regex", text))
    assert len(runs) == 3
    await check.check(Grammar("regex", "a"))
    assert len(runs) == 4


def chain(length):
    return "\n".join(["start: r0", *(f"r{at}: r{at + 1}" for at in range(length)), f'r{length}: "a"'])


def everywhere(count):
    """Texts with so many others in them, in any order: what is computed of it doubles with each."""
    return {"allOf": [{"type": "string", "pattern": f".*x{at}.*"} for at in range(count)]}


HARMFUL = [
    # Overflows the stack; takes minutes; has a million states.
    Grammar("lark", chain(5000)),
    Grammar("json", json.dumps(everywhere(30))),
    Grammar("json", '{"type": "integer", "multipleOf": 999983}'),
]


@pytest.mark.parametrize("grammar", HARMFUL, ids=["stack", "time", "states"])
async def test_what_harms_its_reader_is_too_complex(check, runs, grammar):
    assert "too complex" in await refused(check, grammar)
    await refused(check, grammar)
    assert len(runs) == 1


async def test_what_is_no_grammar_at_all_starts_no_process(check, runs):
    await refused(check, Grammar("choice", "[]"))
    assert runs == []


async def test_without_the_library_it_is_not_supported(check, monkeypatch):
    monkeypatch.setattr(_grammar_check, "find_spec", lambda _: None)
    with pytest.raises(Unsupported):
        await check.check(Grammar("regex", "a"))


def stand_in(monkeypatch, tmp_path, program):
    path = tmp_path / "program.py"
    path.write_text(program)
    monkeypatch.setattr(_grammar_check, "_PROGRAM", path)


async def test_a_program_that_fails_convicts_nobody(check, monkeypatch, tmp_path):
    good = Grammar("regex", "a")
    for program in ("raise SystemExit(3)", "pass", f"import os; os.kill(os.getpid(), {int(signal.SIGTERM)})"):
        with monkeypatch.context() as patch:
            stand_in(patch, tmp_path, program)
            with pytest.raises(Internal):
                await check.check(good)
    await check.check(good)


async def test_a_program_that_does_not_answer_is_not_waited_for(check, monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, "import signal; signal.pause()")
    monkeypatch.setattr(_grammar_check, "PATIENCE", 0.01)
    with pytest.raises(Backpressure):
        await check.check(Grammar("regex", "a"))


async def test_who_leaves_takes_the_process_along(check, monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, "import signal; signal.pause()")
    with trio.move_on_after(0.05) as scope:
        await check.check(Grammar("regex", "a"))
    assert scope.cancelled_caught
    assert check._limiter.borrowed_tokens == 0
