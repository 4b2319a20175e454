"""Edits of logits equal a plain reference, leave every other logit as it was, and keep up with their sequence."""

from functools import partial

import draw_kit
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.engine.edits import TokenEdits, edit, edit_width, needs_edits, pack_edits
from atomr_trio.engine.packing import MAX_BANNED, banned_ids

ROWS, VOCAB, ENTRIES = 4, 200, 64
jitted = jax.jit(edit)


def own(row):
    return TokenEdits.of(row.sequence) if needs_edits(row.sequence.request) else None


def apply(logits, rows, entries=ENTRIES):
    packed = pack_edits(len(logits), entries, [(row, own(row)) for row in rows])
    return np.asarray(jitted(logits, packed))


def expected(logits, row):
    # A few bans are the draw's own business.
    return draw_kit.edited(logits, row, bans=len(banned_ids(row.sequence.request)) > MAX_BANNED)


rows = st.builds(
    lambda prompt, output, changes: draw_kit.row(prompt or [0], output, **changes),
    draw_kit.tokens(VOCAB, 20),
    draw_kit.tokens(VOCAB, 20),
    draw_kit.changes(VOCAB),
)


@st.composite
def logits_of(draw, rows=ROWS, vocab=VOCAB):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal((rows, vocab)) * draw(st.sampled_from([0.0, 1.0, 30.0, 1e6]))
    values = np.round(values, draw(st.sampled_from([0, 7]))).astype(np.float32)
    if draw(st.booleans()):
        values[:, rng.integers(0, vocab, 9)] = -np.inf
    return values


@given(logits=logits_of(), rows=st.lists(rows, max_size=ROWS))
@settings(max_examples=150)
def test_edits_equal_the_reference(logits, rows):
    got = apply(logits, rows)
    for index, row in enumerate(rows):
        np.testing.assert_allclose(got[index], expected(logits[index], row), rtol=1e-5, atol=1e-5)
        changed = own(row)
        listed = [] if changed is None else list(changed._slots)
        untouched = np.setdiff1d(np.arange(VOCAB), listed)
        # Bit for bit, and zeros keep their sign.
        assert got[index, untouched].tobytes() == logits[index, untouched].tobytes()
    assert got[len(rows) :].tobytes() == logits[len(rows) :].tobytes()


@given(logits=logits_of(), rows=st.lists(rows, min_size=ROWS, max_size=ROWS), order=st.permutations(range(ROWS)))
@settings(max_examples=40)
def test_a_row_does_not_know_its_batch_mates(logits, rows, order):
    together = apply(logits, rows)
    mixed = apply(logits[order], [rows[at] for at in order])
    assert mixed.tobytes() == together[order].tobytes()
    for index, row in enumerate(rows):
        alone = apply(np.broadcast_to(logits[index], logits.shape), [row])[0]
        assert alone.tobytes() == together[index].tobytes()


@given(
    prompt=draw_kit.tokens(VOCAB, 30),
    output=st.lists(st.integers(0, VOCAB - 1), max_size=130),
    changes=draw_kit.changes(VOCAB),
)
def test_edits_that_grew_are_those_made_at_once(prompt, output, changes):
    """Also after a restart, when the answer so far comes with the request."""
    whole = draw_kit.row(prompt or [0], output, **{**changes, "frequency_penalty": 0.5})
    growing = draw_kit.row(prompt or [0], (), **{**changes, "frequency_penalty": 0.5})
    edits = TokenEdits.of(growing.sequence)
    for token in output:
        growing.sequence.tokens.append(token)
        edits.keep_up(growing.sequence)
        edits.keep_up(growing.sequence)
    made, entries = TokenEdits.of(whole.sequence), 256
    assert made.size == edits.size <= VOCAB
    for ban in (False, True):
        packed = np.zeros((2, edit_width(entries)), np.int32)
        for target, one in zip(packed, (made, edits), strict=True):
            one.pack_into(target, bans_ends=ban)
        columns = packed[:, 3:].reshape(2, 3, entries)[:, :, : made.size]
        ordered = [sorted(map(tuple, part.T.tolist())) for part in columns]
        assert ordered[0] == ordered[1]
        assert (packed[0, :3] == packed[1, :3]).all()


@given(prompt=st.sets(st.integers(0, VOCAB - 1), min_size=60), output=st.lists(st.integers(0, VOCAB - 1), max_size=200))
@settings(max_examples=20)
def test_lists_grow_beyond_their_first_room(prompt, output):
    asked = draw_kit.row(prompt, output, repetition_penalty=2.0, frequency_penalty=0.5, logit_bias=[(7, 3.0)])
    logits = np.linspace(-3, 3, VOCAB, dtype=np.float32)[None]
    np.testing.assert_allclose(apply(logits, [asked], 256)[0], expected(logits[0], asked), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_extremes_stay_finite_and_forbidden_stays_forbidden(sign):
    logits = np.full((1, VOCAB), sign * 3e38, np.float32)
    logits[0, 5], logits[0, 6] = -np.inf, np.nan
    output = [1, 5, 6] * 30
    for repetition in (0.01, 100.0):
        row = draw_kit.row([1], output, repetition_penalty=repetition, frequency_penalty=2.0, presence_penalty=-2.0)
        got = apply(logits, [row])[0]
        assert np.isfinite(got[1])
        assert got[5] == -np.inf
        assert np.isnan(got[6])


def test_a_request_that_changes_nothing_has_no_edits():
    assert not needs_edits(draw_kit.row(min_tokens=3, eos_ids=[1], stop_ids=[2]).sequence.request)
    assert needs_edits(draw_kit.row(min_tokens=3, stop_ids=list(range(9))).sequence.request)
    assert not needs_edits(draw_kit.row(min_tokens=0, stop_ids=list(range(9))).sequence.request)
    for change in ({"repetition_penalty": 1.1}, {"presence_penalty": -1.0}, {"logit_bias": [(1, 1.0)]}):
        assert needs_edits(draw_kit.row(**change).sequence.request)


def test_repetition_counts_the_prompt_and_the_other_penalties_do_not():
    logits = np.ones((1, VOCAB), np.float32)
    got = apply(logits, [draw_kit.row([7, 7], [8, 8], repetition_penalty=2.0)])[0]
    assert (got[7], got[8], got[9]) == (0.5, 0.5, 1)
    got = apply(logits, [draw_kit.row([7, 7], [8, 8], presence_penalty=0.5, frequency_penalty=0.25)])[0]
    assert (got[7], got[8], got[9]) == (1, 0, 1)


def test_the_program_has_the_same_text_each_time():
    def text():
        shapes = jax.ShapeDtypeStruct((2, VOCAB), np.float32), jax.ShapeDtypeStruct((2, edit_width(64)), np.int32)
        return jax.jit(partial(edit)).lower(*shapes).as_text()

    assert text() == text()
