"""A model that somebody wrote on their own: batched, paged, cached and sampled like the built-in ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_kit import collect, request, unit, vector
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_gpt import CONTEXT, HEADS, VOCAB, make

from atomr_trio.core import ModelLoadError
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.own_model import Cache
from atomr_trio.engine.settings import EngineSettings


@pytest.fixture(scope="module")
def engine(programs_dir):
    engine = Engine(
        EngineSettings(
            model="toy_gpt:make",
            load_format="python",
            max_num_seqs=4,
            page_size=4,
            prefill_chunk=16,
            cache_dir=programs_dir,
        )
    )
    ready = engine.load()
    assert (ready.vocab_size, ready.max_model_len) == (VOCAB, CONTEXT)
    yield engine
    engine.close()


class Whole:
    """The cache of a model that sees its whole sequence at once: plain causal attention."""

    def attend(self, _layer, q, k, v):
        scores = jnp.einsum("bqhd,bkd->bhqk", q, k[:, :, 0]) * q.shape[-1] ** -0.5
        causal = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=-1)
        return jnp.einsum("bhqk,bkd->bqhd", weights, v[:, :, 0]).reshape(*q.shape[:2], HEADS * q.shape[-1])


@jax.jit
def _hidden(params, tokens):
    return make()[0].forward(params, tokens[None], jnp.arange(CONTEXT)[None], Whole())[0]


@jax.jit
def _logits(params, tokens):
    return make()[0].logits(params, _hidden(params, tokens))


def holds(tokens, prompt):
    """Each token is the best one after those before it, or as good as the best."""
    padded = np.zeros(CONTEXT, np.int32)
    padded[: len(prompt) + len(tokens)] = [*prompt, *tokens]
    logits = np.asarray(_logits(make()[1], padded))
    told = logits[np.arange(len(tokens)) + len(prompt) - 1]
    return bool((told.max(axis=-1) - told[np.arange(len(tokens)), tokens] < 1e-3).all())


prompts = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=40)


@settings(max_examples=10)
@given(asked=st.lists(st.tuples(prompts, st.integers(1, 30)), min_size=1, max_size=6))
def test_its_greedy_tokens_are_those_of_the_model_alone(engine, asked):
    for number, (prompt, count) in enumerate(asked):
        engine.add(request(number, prompt, count))
    tokens, _ = collect(engine)
    for number, (prompt, count) in enumerate(asked):
        assert len(tokens[number]) == count
        assert holds(tokens[number], prompt)


def test_its_prompts_are_cached(engine):
    prompt = list(range(40))
    engine.add(request(0, prompt, 2))
    collect(engine)
    engine.add(request(1, prompt, 2))
    assert collect(engine)[1][1].cached_tokens == 36


def test_its_embeddings_are_made_of_what_it_returns(engine):
    prompt = list(range(40))
    hidden = np.asarray(_hidden(make()[1], np.pad(prompt, (0, CONTEXT - 40))))[:40]
    for pooling, wanted in [("last", hidden[-1]), ("mean", hidden.mean(axis=0))]:
        engine.add(request(0, prompt, pooling=pooling))
        np.testing.assert_allclose(vector(collect(engine)[1][0]), unit(wanted), atol=1e-4)


@pytest.mark.parametrize("name", ["toy_gpt:missing", "no_such_module:make", "toy_gpt", ":"])
def test_a_function_that_is_not_there_is_a_typed_error(name):
    with pytest.raises(ModelLoadError, match="cannot be made"):
        Engine(EngineSettings(model=name, load_format="python")).load()


def test_a_layer_attends_once(engine):
    zeros = jnp.zeros((1, 1, 1, 8))
    cache = Cache([(zeros, zeros)], None, lambda spec, layer, *rest: (rest[0], layer))
    cache.attend(0, zeros, zeros, zeros)
    for layer in (0, 1, -1):
        with pytest.raises(ValueError, match="attends once"):
            cache.attend(layer, zeros, zeros, zeros)
