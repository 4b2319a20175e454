"""One or many answers under one roof, for any script and any moment of leaving."""

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import Backpressure, ExecuteBatch, FinishReason, TokenUsage
from atomr_trio.gateway.answers import open_answers, usage_of

from .fakes import MODEL, Script, ScriptedBackend

clocks = st.builds(trio.testing.MockClock, autojump_threshold=st.just(0))
reasons = st.sampled_from([FinishReason.STOP, FinishReason.LENGTH])
words = st.text("ab", min_size=1, max_size=3)
pauses = st.sampled_from([0, 0.001, 1])
scripts = st.builds(
    lambda steps, end: Script([*steps, end]),
    st.lists(words | pauses, max_size=6),
    reasons | st.builds(Backpressure, st.just("full")),
)


def batches(count):
    return [ExecuteBatch(request_id=f"id-{index}", model=MODEL, prompt="x") for index in range(count)]


def text_of(script):
    return "".join(step for step in script.steps if type(step) is str)


def fails(script):
    return isinstance(script.steps[-1], Exception)


@given(
    scripts=st.lists(scripts, min_size=1, max_size=5),
    parallel=st.integers(1, 5),
    clock=clocks,
    random=st.random_module(),
)
async def test_every_choice_ends_exactly_once(scripts, parallel, clock, random):
    backend = ScriptedBackend(scripts)
    seen, ended, failure = dict.fromkeys(range(len(scripts)), ""), {}, None
    async with open_answers(backend, batches(len(scripts)), max_parallel=parallel) as answers:
        while failure is None and len(ended) < len(scripts):
            for index, piece in await answers.receive():
                assert index not in ended
                if isinstance(piece, Exception):
                    failure = piece
                    break
                seen[index] += piece.text_delta
                assert answers.tokens(index).text.startswith(seen[index])
                if piece.finish_reason is not None:
                    ended[index] = piece.finish_reason
    assert not backend.running
    if any(fails(script) for script in scripts):
        assert isinstance(failure, Backpressure)
    else:
        assert failure is None
        assert ended == {index: script.steps[-1] for index, script in enumerate(scripts)}
        assert seen == {index: text_of(script) for index, script in enumerate(scripts)}
        assert not backend.left_early


@given(
    scripts=st.lists(scripts, min_size=1, max_size=4),
    patience=st.sampled_from([0, 0.0005, 0.5, 1.5, 10]),
    clock=clocks,
    random=st.random_module(),
)
async def test_leaving_at_any_moment_leaves_nothing_behind(scripts, patience, clock, random):
    backend = ScriptedBackend(scripts)
    with trio.move_on_after(patience):
        async with open_answers(backend, batches(len(scripts)), max_parallel=2) as answers:
            over = 0
            while over < len(scripts):
                news = await answers.receive()
                over += sum(isinstance(piece, Exception) or piece.finish_reason is not None for _, piece in news)
    assert not backend.running


async def test_what_is_raised_inside_comes_out_as_it_is():
    backend = ScriptedBackend([Script([trio.Event()])])
    with pytest.raises(KeyError):
        async with open_answers(backend, batches(3), max_parallel=9):
            raise KeyError
    assert not backend.running


async def test_several_choices_never_run_more_than_allowed():
    gate = trio.Event()
    backend = ScriptedBackend([Script([gate])])
    async with trio.open_nursery() as nursery:
        async with open_answers(backend, batches(7), max_parallel=3) as answers:
            await trio.testing.wait_all_tasks_blocked()
            assert len(backend.running) == 3
            gate.set()
            ended = 0
            while ended < 7:
                ended += sum(piece.finish_reason is not None for _, piece in await answers.receive())
        nursery.cancel_scope.cancel()
    assert len(backend.submitted) == 7


async def test_a_reader_that_is_slow_gets_what_is_pending_in_one_go():
    backend = ScriptedBackend([Script(["a", "b"]), Script(["c", "d"])])
    async with open_answers(backend, batches(2), max_parallel=9) as answers:
        await trio.testing.wait_all_tasks_blocked()
        news = await answers.receive()
    assert {index for index, _ in news} == {0, 1}
    assert sum(piece.finish_reason is not None for _, piece in news) == 2


def test_usage_is_what_was_reported_or_else_is_counted():
    from atomr_trio.core import TokenChunk, Tokens

    batch = ExecuteBatch(request_id="x", model=MODEL, prompt_ids=(1, 2, 3))
    tokens = Tokens()
    tokens.append(TokenChunk(token_ids=(5, 6)))
    assert usage_of(batch, tokens) == TokenUsage(3, 2)
    tokens.append(TokenChunk(usage=TokenUsage(9, 8)))
    assert usage_of(batch, tokens) == TokenUsage(9, 8)
