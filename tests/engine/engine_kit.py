"""A tiny engine for tests: shapes are few and shared, so that they are compiled once a run."""

import jax
import jax.numpy as jnp
import numpy as np

from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.frames import SequenceRequest
from atomr_trio.engine.model import forward, init_kv, logits
from atomr_trio.engine.settings import EngineSettings
from atomr_trio.engine.weights import random_params

CONFIG = ModelConfig.tiny()
MAX_LEN = 64


def tiny_settings(programs_dir, **changes):
    values = {
        "load_format": "dummy",
        "dtype": "float32",
        "max_num_seqs": 8,
        "max_model_len": MAX_LEN,
        "page_size": 4,
        "kv_tokens": 8 * MAX_LEN,
        "prefill_chunk": 16,
        "prefill_chunk_busy": 16,
        "max_waiting": 12,
        "cache_dir": programs_dir,
    }
    return EngineSettings(**{**values, **changes})


def request(number, prompt, max_tokens=12, **changes):
    values = {"temperature": 0.0, "eos_ids": [], **changes}
    return SequenceRequest(id=number, prompt_ids=list(prompt), max_tokens=max_tokens, **values)


def collect(engine, tokens=None, limit=2000):
    """Step until idle; return the tokens of each request, added to ``tokens``, and the last outputs."""
    tokens = {} if tokens is None else tokens
    last = {}
    while not engine.idle:
        limit -= 1
        assert limit, "every request ends"
        for output in engine.step().outputs:
            tokens.setdefault(output.id, []).extend(output.token_ids)
            last[output.id] = output
    return tokens, last


def unit(vector):
    return vector / np.linalg.norm(vector)


def vector(output):
    """The embedding of an output, of length 1 as all are."""
    found = np.frombuffer(output.embedding, "<f4")
    assert np.linalg.norm(found) == np.float32(1) or abs(np.linalg.norm(found.astype(float)) - 1) < 1e-6
    return found


def alone(engine: Engine, wanted):
    """The tokens of one request that has the engine to itself."""
    engine.add(wanted)
    return collect(engine)[0].get(wanted.id, [])


class Reference:
    """Greedy decoding written from the model alone: the whole sequence again for every token, no batch, no pages."""

    def __init__(self):
        self.params = random_params(CONFIG, "float32", 0)
        self.run = jax.jit(self._logprobs)

    def _logprobs(self, tokens, positions):
        kv = init_kv(CONFIG, 2, MAX_LEN, "float32")
        hidden, _ = forward(CONFIG, self.params, kv, tokens, positions, jnp.ones((1, 1), jnp.int32))
        return jax.nn.log_softmax(logits(CONFIG, self.params, hidden[0])), hidden[0]

    def logprobs(self, tokens):
        """f32 [len(tokens), V]: of the token after each."""
        return self._of(tokens)[0]

    def embedding(self, tokens, pooling):
        """f32 [hidden], of length 1."""
        hidden = self._of(tokens)[1]
        return unit(hidden[-1] if pooling == "last" else hidden.mean(axis=0))

    def _of(self, tokens):
        padded = np.zeros((1, MAX_LEN), np.int32)
        padded[0, : len(tokens)] = tokens
        positions = np.where(np.arange(MAX_LEN) < len(tokens), np.arange(MAX_LEN), -1)[None]
        return [np.asarray(values)[: len(tokens)] for values in self.run(padded, positions.astype(np.int32))]

    def greedy(self, prompt, count):
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(self.logprobs(tokens)[-1].argmax()))
        return tokens[len(prompt) :]
