"""Drawing as a whole: the order of its operations, its exact distribution, and what it tells of what it drew."""

import draw_kit
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_masks import Fixed

from atomr_trio.engine.buckets import Buckets
from atomr_trio.engine.drawing import DrawCall, Drawing, read_draws
from atomr_trio.engine.draws import draw, draw_and_keep, report
from atomr_trio.engine.edits import TokenEdits, edit, needs_edits, pack_edits
from atomr_trio.engine.masks import mask_words, pack_masks, restrict
from atomr_trio.engine.packing import pack_draws
from atomr_trio.engine.sampler import seed_words

VOCAB, ENTRIES, DRAWS = 50, 64, 1 << 12
BUCKETS = Buckets.of(max_num_seqs=4, max_chunk=16, max_pages=16)
PROGRAMS = {
    "mask": jax.jit(restrict),
    "edit": jax.jit(edit),
    "sample": jax.jit(draw_and_keep),
    "report": jax.jit(report),
}


@jax.jit
def everything(logits, masks, edits, draws):
    return draw(edit(restrict(logits, masks), edits), draws)


def many(logits, asked, guide=None):
    """Draw ``DRAWS`` times, each with its own seed; all in one call."""
    own = TokenEdits.of(asked.sequence) if needs_edits(asked.sequence.request) else None
    key = BUCKETS.sample(1)
    packed = np.repeat(pack_draws(key, [asked]), DRAWS, axis=0)
    packed[:, 4:6] = np.array([seed_words(seed * 0x9E3779B97F4A7C15) for seed in range(DRAWS)], np.uint32).view(
        np.int32
    )
    wide = [pack_masks(1, mask_words(VOCAB), [(asked, guide)]), pack_edits(1, ENTRIES, [(asked, own)])]
    masks, edits = (np.repeat(one, DRAWS, axis=0) for one in wide)
    return np.asarray(everything(np.repeat(logits[None], DRAWS, axis=0), masks, edits, packed))[:, 0]


filters = st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.5, 1.0, 1.7])},
    optional={
        "top_k": st.sampled_from([3, 10, 45]),
        "top_p": st.sampled_from([0.5, 0.9, 0.99]),
        "min_p": st.sampled_from([0.01, 0.1]),
    },
)


@given(
    prompt=draw_kit.tokens(VOCAB, 8),
    output=draw_kit.tokens(VOCAB, 8),
    changes=draw_kit.changes(VOCAB),
    filters=filters,
    allowed=st.none() | st.sets(st.integers(0, VOCAB - 1), min_size=VOCAB // 2),
    seed=st.integers(0, 2**32 - 1),
)
# The seeds are fixed, so a combination that passed once passes always.
@settings(max_examples=50, derandomize=True)
def test_the_distribution_is_the_references(prompt, output, changes, filters, allowed, seed):
    logits = (np.random.default_rng(seed).standard_normal(VOCAB) * 2).astype(np.float32)
    asked = draw_kit.row(prompt or [0], output, **changes, **filters)
    kept = np.isin(np.arange(VOCAB), list(range(VOCAB) if allowed is None else allowed))
    wanted = draw_kit.edited(np.where(kept, logits, -np.inf), asked)
    if not np.isfinite(wanted).any():
        return
    weights, margin = draw_kit.weights(wanted, asked.sequence.request)
    if margin < 1e-5:
        return
    ids = many(logits, asked, None if allowed is None else Fixed(allowed, VOCAB))
    counts, expected = np.bincount(ids, minlength=VOCAB), weights / weights.sum() * DRAWS
    assert counts[weights == 0].sum() == 0
    common = expected >= 8
    # The rare share one cell, and the same number on both sides keeps it from being empty.
    cells = [np.append(each[common], each[~common].sum() + 20) for each in (counts, expected)]
    if common.sum() > 1:
        assert stats.chisquare(*cells).pvalue > 1e-5


@pytest.mark.parametrize(
    ("logits", "changes", "allowed", "possible"),
    [
        # A bias does not bring back what the mask forbids, nor what min_tokens forbids.
        ([0, 0, 0], {"logit_bias": [(0, 100.0)]}, {1, 2}, {1, 2}),
        ([0, 0, 0], {"logit_bias": [(0, 100.0)], "min_tokens": 5, "eos_ids": [0]}, None, {1, 2}),
        # The bias comes before the penalty: (-1 + 3) / 4 is above 0, -1 * 4 + 3 is not.
        ([-1, 0, -9], {"logit_bias": [(0, 3.0)], "repetition_penalty": 4.0, "top_k": 1}, None, {0}),
        # Penalties come before the filters: what they lower is no longer the best.
        ([5, 4, 0], {"presence_penalty": 2.0, "output": [0], "top_k": 1}, None, {1}),
        ([5, 4.9, 0], {"frequency_penalty": 2.0, "output": [0], "min_p": 0.5}, None, {1}),
        # Repetition before frequency: 4 / 2 - 1 = 1 stays above 0.9.
        ([4, 0.9, -9], {"repetition_penalty": 2.0, "frequency_penalty": 1.0, "output": [0], "top_k": 1}, None, {0}),
        # Temperature comes before min-p: at 2 the second has e^-0.5 of the best's probability.
        ([1, 0, -9], {"temperature": 2.0, "min_p": 0.5}, None, {0, 1}),
        ([1, 0, -9], {"temperature": 1.0, "min_p": 0.5}, None, {0}),
        # min-p comes before top-p: the mass is that of what is left.
        ([2, 1.9, 0], {"min_p": 0.5, "top_p": 0.52}, None, {0}),
        # top-k comes before top-p: of two equals, half the mass is one of them, or both at the limit.
        ([1, 0.9, 0.8], {"top_k": 2, "top_p": 0.52}, None, {0}),
        ([1, 0.9, 0.8], {"top_p": 0.52}, None, {0, 1}),
    ],
)  # fmt: skip
def test_the_order_of_operations(logits, changes, allowed, possible):
    whole = np.full(VOCAB, -50, np.float32)
    whole[: len(logits)] = logits
    output = changes.pop("output", [])
    asked = draw_kit.row([0], output, **changes)
    guide = None if allowed is None else Fixed(allowed, VOCAB)
    assert set(many(whole, asked, guide).tolist()) == possible


# --- which programs run, and what comes out


def drawn(logits, rows, guides=None):
    """Draw as the engine does; return what each row drew and the kinds of programs that ran."""
    drawing, used = Drawing(logits.shape[1], BUCKETS), []
    for index, guide in (guides or {}).items():
        drawing.guide(rows[index].sequence, guide)

    def require(key):
        used.append(key)
        return PROGRAMS[key.kind]

    needs = drawing.needs(rows)
    packed, kept = map(np.asarray, drawing.start(require, DrawCall(rows, needs, 1), logits, np.zeros(6, np.int32)))
    assert kept.tolist() == [0, *packed[: len(rows), 0].tolist(), *[0] * (5 - len(rows))]
    assert sorted(used) == sorted(drawing.keys(needs, len(logits)))
    return read_draws(packed, len(rows)), [key.kind for key in used]


def some_logits(rows=4, vocab=VOCAB, seed=0):
    return (np.random.default_rng(seed).standard_normal((rows, vocab)) * 2).astype(np.float32)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, ["sample"]),
        ({"logprobs": True}, ["sample"]),
        ({"logprobs": True, "min_tokens": 3, "eos_ids": [1]}, ["sample"]),
        ({"presence_penalty": 1.0}, ["edit", "sample"]),
        ({"presence_penalty": 1.0, "logprobs": True}, ["edit", "sample", "report"]),
        ({"logprobs": True, "top_logprobs": 1}, ["sample", "report"]),
    ],
)
def test_only_what_is_asked_for_runs(changes, kinds):
    assert drawn(some_logits(), [draw_kit.row(), draw_kit.row(**changes)])[1] == kinds


def test_nobodys_token_depends_on_what_the_others_ask_for():
    logits = some_logits()
    plain = [draw_kit.row(seed=at, top_p=0.9) for at in range(3)]
    alone, _ = drawn(logits, plain)
    demanding = draw_kit.row([1], [2], repetition_penalty=1.5, logprobs=True, top_logprobs=20, seed=9)
    mixed, kinds = drawn(logits, [*plain, demanding], {3: Fixed(range(0, VOCAB, 2), VOCAB)})
    assert kinds == ["mask", "edit", "sample", "report"]
    assert [one.token for one in mixed[:3]] == [one.token for one in alone]
    for with_report, without in zip(mixed, alone, strict=False):
        assert with_report.logprob == pytest.approx(without.logprob, abs=1e-6)
    assert mixed[3].token % 2 == 0


def report_of(logits, ids):
    return read_draws(np.asarray(PROGRAMS["report"](logits, np.stack([ids, np.zeros_like(ids)], axis=1))), len(ids))


@given(vocab=st.sampled_from([1, 5, 50, 1000]), ties=st.booleans(), seed=st.integers(0, 2**16))
@settings(max_examples=30)
def test_the_report_is_of_the_raw_logits(vocab, ties, seed):
    logits = some_logits(4, vocab, seed)
    # The sum makes one zero of the two that there are.
    logits = np.round(logits) + 0.0 if ties else logits
    ids = np.arange(4, dtype=np.int32) % vocab
    (one, *_), raw = report_of(logits, ids), log_softmax(logits[0])
    assert one.token == 0
    assert one.logprob == pytest.approx(raw[0], abs=1e-5)
    best = np.lexsort((np.arange(vocab), -logits[0]))[:20]
    assert [token for token, _ in one.top] == best.tolist()
    assert [logprob for _, logprob in one.top] == pytest.approx(raw[best].tolist(), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("logprobs", [False, True])
def test_a_row_that_may_draw_nothing_is_seen_and_harms_nobody(temperature, logprobs):
    logits = some_logits()
    rows = [draw_kit.row(seed=at, temperature=temperature, logprobs=logprobs) for at in range(4)]
    expected, _ = drawn(logits, rows)
    got, _ = drawn(logits, rows, {2: Fixed([], VOCAB)})
    assert np.isnan(got[2].logprob)
    assert [(got[at].token) for at in (0, 1, 3)] == [expected[at].token for at in (0, 1, 3)]
    assert not np.isnan([got[at].logprob for at in (0, 1, 3)]).any()


def test_the_log_probability_of_an_edited_row_is_the_raw_one():
    logits = some_logits()
    asked = draw_kit.row([0], [0, 0], frequency_penalty=2.0, logit_bias=[(0, 5.0)], logprobs=True)
    got, _ = drawn(logits, [asked, *[draw_kit.row(logprobs=True) for _ in range(3)]])
    assert [one.logprob for one in got] == pytest.approx(
        [log_softmax(values)[one.token] for values, one in zip(logits, got, strict=True)], abs=1e-5
    )


def test_a_row_without_numbers_is_seen_whatever_is_asked():
    logits = some_logits()
    logits[1] = np.nan
    for changes in ({}, {"presence_penalty": 1.0}, {"logprobs": True, "top_logprobs": 5}):
        got, _ = drawn(logits, [draw_kit.row(**changes) for _ in range(4)])
        assert [bool(np.isnan(one.logprob)) for one in got] == [False, True, False, False]


@given(
    temperature=st.sampled_from([1e-45, 1e-38, 1e-6, 1e6, 3e38]),
    scale=st.sampled_from([0.0, 1.0, 1e30]),
    changes=draw_kit.changes(VOCAB),
    filters=filters,
)
@settings(max_examples=60)
def test_extreme_values_draw_a_token_that_was_allowed(temperature, scale, changes, filters):
    logits = some_logits() * np.float32(scale)
    asked = draw_kit.row([1, 2], [3, 4], **{**changes, **filters, "temperature": temperature})
    wanted = draw_kit.edited(logits[0], asked)
    (one,), _ = drawn(logits, [asked])
    assert np.isfinite(one.logprob)
    assert np.isfinite(wanted[one.token])


def test_what_a_sequence_changed_goes_with_it():
    drawing = Drawing(VOCAB, BUCKETS)
    row = draw_kit.row(presence_penalty=1.0)
    drawing.guide(row.sequence, Fixed([1], VOCAB))
    drawing.needs([row])
    assert (len(drawing._edits), len(drawing._guides)) == (1, 1)
    del row
    assert (len(drawing._edits), len(drawing._guides)) == (0, 0)


def test_the_next_longer_edit_is_wanted_before_it_is_needed():
    buckets = Buckets.of(max_num_seqs=4, max_chunk=16, max_pages=16, max_entries=600)
    assert buckets.entries == (64, 256, 1024)
    drawing = Drawing(2000, buckets)

    def keys(entries):
        row = draw_kit.row(logit_bias=[(token, 1.0) for token in range(entries)])
        needs = drawing.needs([row])
        needed = [key for key in drawing.keys(needs, 2) if key.kind == "edit"]
        return [key.chunk for key in needed], [key.chunk for key in drawing.soon(needs, 2)]

    assert keys(0) == ([], [])
    assert keys(1) == ([64], [])
    assert keys(48) == ([64], [])
    assert keys(49) == ([64], [256])
    assert keys(65) == ([256], [])
    assert keys(1000) == ([1024], [])
