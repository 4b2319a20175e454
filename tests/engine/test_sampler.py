"""Drawing: the filters equal a plain reference, the draws have its distribution, and a row knows no other row."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from atomr_trio.engine import sampler
from atomr_trio.engine.sampler import SamplingState, greedy, sample, seed_words, token_logprobs

ROWS = 4
# Not a whole number of blocks. Few shapes, because each is compiled.
VOCAB = 1000
MANY = 256
FEW, DRAWS = 300, 1 << 14
jitted_sample = jax.jit(sample)
jitted_greedy = jax.jit(greedy)


@partial(jax.jit, static_argnums=2)
def filtered(logits, state, vocab):
    return sampler._weights(sampler._in_blocks(logits), state, vocab).reshape(logits.shape[0], -1)[:, :vocab]


@jax.jit
def bisect(value):
    return sampler._bisect(lambda limit: limit >= value)


def make_state(rows, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=0, position=0):
    def column(value, dtype):
        return np.broadcast_to(np.asarray(value, dtype), rows)

    seeds = np.array([seed_words(int(value)) for value in column(seed, np.uint64)], np.uint32)
    floats = [column(value, np.float32) for value in (temperature, top_p, min_p)]
    return SamplingState(floats[0], column(top_k, np.int32), floats[1], floats[2], seeds, column(position, np.int32))


def reference(logits, temperature, top_k, top_p, min_p):
    """Weights after temperature, kept tokens, and tokens so near a limit that rounding decides; float64."""
    temperature, top_p, min_p = map(np.float32, (temperature, top_p, min_p))
    logits = np.asarray(logits, np.float64)
    weights = np.exp((logits - logits.max()) / temperature)
    kept, unsure = weights >= min_p, np.abs(weights - min_p) < 1e-5 * weights
    if 0 < top_k < len(logits):
        kept &= logits >= np.sort(logits)[-top_k]
    if top_p < 1:
        mass = np.where(kept, weights, 0)
        better = np.array([mass[logits > value].sum() for value in logits])
        unsure |= np.abs(better - top_p * mass.sum()) < 1e-5 * mass.sum()
        kept &= better < top_p * mass.sum()
    return weights, kept, unsure


@st.composite
def logits_rows(draw, vocab):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal((ROWS, vocab)) * draw(st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0]))
    # Rounding makes ties, as a quantized output matrix does.
    return np.round(values, draw(st.sampled_from([0, 1, 7]))).astype(np.float32)


parameters = st.fixed_dictionaries(
    {
        "temperature": st.floats(0.0625, 2, width=32),
        "top_k": st.sampled_from([0, 1, 2, 50, 64, 65, 200, 2**30]),
        "top_p": st.sampled_from([1.0, 0.9999, 0.95, 0.5, 1e-6]) | st.floats(2**-10, 1, width=32),
        "min_p": st.sampled_from([0.0, 0.05, 1.0]) | st.floats(0, 1, width=32),
    }
)
batches = st.sampled_from([5, VOCAB]).flatmap(
    lambda vocab: st.tuples(logits_rows(vocab), st.lists(parameters, min_size=ROWS, max_size=ROWS))
)


def state_of(rows, **more):
    return make_state(len(rows), **{key: [row[key] for row in rows] for key in rows[0]}, **more)


@given(batch=batches)
@settings(max_examples=300)
def test_filters_equal_the_reference(batch):
    logits, rows = batch
    got = np.asarray(filtered(logits, state_of(rows), logits.shape[1]))
    for found, values, row in zip(got, logits, rows, strict=True):
        weights, kept, unsure = reference(values, **row)
        # Tokens whose probability is below what float32 can hold are as good as dropped.
        clear = ~unsure & (weights > 1e-30)
        np.testing.assert_array_equal((found > 0)[clear], kept[clear])
        np.testing.assert_allclose(found[found > 0], weights[found > 0], rtol=1e-3)
        assert found.max() == 1


@given(batch=batches, position=st.integers(0, 2**31 - 1), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=60, derandomize=True)
def test_a_row_draws_the_same_alone_and_in_any_batch(batch, position, seed):
    logits, rows = batch
    state = state_of(rows, seed=seed, position=position)
    ids, logprobs = jitted_sample(logits, state)
    order = np.random.default_rng(seed).permutation(ROWS)
    mixed, _ = jitted_sample(logits[order], jax.tree.map(lambda a: a[order], state))
    np.testing.assert_array_equal(mixed, np.asarray(ids)[order])
    for row in range(ROWS):
        alone, logprob = jitted_sample(logits[row : row + 1], jax.tree.map(lambda a, row=row: a[row : row + 1], state))
        assert alone[0] == ids[row]
        np.testing.assert_allclose(logprob[0], logprobs[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "row",
    [
        {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
        {"temperature": 0.7, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
        {"temperature": 1.0, "top_k": 20, "top_p": 1.0, "min_p": 0.0},
        {"temperature": 1.0, "top_k": 0, "top_p": 0.6, "min_p": 0.0},
        {"temperature": 2.0, "top_k": 0, "top_p": 0.9, "min_p": 0.0},
        {"temperature": 1.0, "top_k": 100, "top_p": 0.97, "min_p": 0.0},
        {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.1},
        {"temperature": 0.9, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
    ],
)
@pytest.mark.parametrize("vary", ["seed", "position"])
def test_draws_have_the_right_distribution(row, vary):
    logits = (np.random.default_rng(5).standard_normal(FEW) * 2).astype(np.float32)
    state = make_state(DRAWS, **row, **{vary: np.arange(DRAWS)})
    ids, logprobs = map(np.asarray, jitted_sample(np.broadcast_to(logits, (DRAWS, FEW)), state))

    weights, kept, unsure = reference(logits, **row)
    assert not unsure.any()
    assert kept[ids].all()
    raw = logits - np.log(np.exp(logits.astype(np.float64)).sum())
    np.testing.assert_allclose(logprobs, raw[ids], rtol=1e-5, atol=1e-5)

    expected = np.where(kept, weights, 0) / weights[kept].sum() * DRAWS
    counts = np.bincount(ids, minlength=FEW)
    # Rare tokens share one cell, so that each cell expects enough draws.
    common = expected >= 10
    assert common.sum() > 10
    test = stats.chisquare(
        np.append(counts[common], counts[~common].sum() + 20), np.append(expected[common], expected[~common].sum() + 20)
    )
    assert test.pvalue > 1e-3


@given(st.floats(0, width=32, allow_nan=False, allow_subnormal=False))
@settings(max_examples=50)
def test_bisection_finds_any_float(value):
    assert bisect(np.float32(value)) == np.float32(value)


def test_all_probability_is_reachable():
    """Every one of equal tokens is drawn, the first and the last of each block included."""
    ids, _ = jitted_sample(np.zeros((DRAWS, FEW), np.float32), make_state(DRAWS, seed=np.arange(DRAWS)))
    assert len(np.unique(ids)) == FEW


def test_draws_at_different_positions_and_seeds_differ():
    logits = np.zeros((MANY, VOCAB), np.float32)
    several = np.arange(MANY, dtype=np.uint64)
    for vary in ({"position": several << 20}, {"seed": several << 20}, {"seed": several << 40}):
        ids, _ = jitted_sample(logits, make_state(MANY, **vary))
        # Of 256 draws out of 1000, about 226 are different.
        assert len(np.unique(ids)) > 200


@pytest.mark.parametrize("vocab", [1, 63, 64, 65, 1000])
def test_greedy_is_the_lowest_of_the_best(vocab):
    rng = np.random.default_rng(vocab)
    logits = rng.integers(-3, 3, (50, vocab)).astype(np.float32)
    ids, logprobs = jitted_greedy(logits)
    np.testing.assert_array_equal(ids, logits.argmax(-1))
    exact = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    np.testing.assert_allclose(logprobs, exact.max(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "row", [{"temperature": 0.0}, {"temperature": 1e-6}, {"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}]
)
def test_every_way_of_asking_for_the_best_token(row):
    logits = np.random.default_rng(0).standard_normal((MANY, VOCAB)).astype(np.float32)
    ids, _ = jitted_sample(logits, make_state(MANY, **row, seed=np.arange(MANY)))
    np.testing.assert_array_equal(ids, jitted_greedy(logits)[0])


def test_greedy_rows_do_not_mind_absurd_filters():
    """Rows that pad a batch are all zeros."""
    logits = np.random.default_rng(0).standard_normal((MANY, VOCAB)).astype(np.float32)
    ids, _ = jitted_sample(logits, make_state(MANY, temperature=0.0, top_p=0.0))
    np.testing.assert_array_equal(ids, logits.argmax(-1))


@pytest.mark.parametrize("row", [{}, {"top_p": 0.99}, {"top_k": 100}, {"temperature": 0.0}])
def test_forbidden_tokens_are_never_drawn(row):
    logits = np.random.default_rng(0).standard_normal((MANY, VOCAB)).astype(np.float32)
    logits[:, 3:] = -np.inf
    ids, logprobs = jitted_sample(logits, make_state(MANY, **row, seed=np.arange(MANY)))
    assert set(np.asarray(ids).tolist()) <= {0, 1, 2}
    assert np.isfinite(logprobs).all()


@given(seed=st.integers(0, 2**16), rows=st.sampled_from([1, 7]), vocab=st.sampled_from([2, 100]))
@settings(max_examples=30)
def test_token_logprobs(seed, rows, vocab):
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((rows, vocab)) * 50).astype(np.float32)
    ids = rng.integers(0, vocab, rows).astype(np.int32)
    peak = logits.max(-1, keepdims=True)
    exact = logits - peak - np.log(np.exp((logits - peak).astype(np.float64)).sum(-1, keepdims=True))
    got = jax.jit(token_logprobs)(logits, ids)
    np.testing.assert_allclose(got, exact[np.arange(rows), ids], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("seed", "words"), [(0, (0, 0)), (1, (0, 1)), (2**32, (1, 0)), (-1, (2**32 - 1, 2**32 - 1)), (2**64 + 5, (0, 5))]
)
def test_seed_words(seed, words):
    assert seed_words(seed) == words


def test_the_key_is_jaxs_own():
    """`fold_in(key(seed), position)`: what a caller with the same seed can compute without us."""
    state = make_state(1, seed=1234, position=77)
    key = jax.random.fold_in(jax.random.key(1234, impl="threefry2x32"), 77)
    np.testing.assert_array_equal(sampler._uniforms(state)[0], jax.random.uniform(key, (2,)))
