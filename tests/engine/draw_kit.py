"""What the tests of drawing share: rows of requests, and the exact reference, written in float64 from the rules."""

import numpy as np
from hypothesis import strategies as st

from atomr_trio.engine.frames import SequenceRequest
from atomr_trio.engine.packing import Row
from atomr_trio.engine.sequence import Sequence


def row(prompt=(1,), output=(), **changes):
    """A row that draws the token after ``prompt`` and ``output``."""
    values = {"temperature": 1.0, **changes}
    asked = SequenceRequest(id=0, prompt_ids=list(prompt), generated=list(output), max_tokens=99, **values)
    sequence = Sequence.of(asked, 0)
    return Row(sequence, len(sequence.tokens) - 1, 1)


def edited(logits, asked, *, bans=True):
    """Float64 logits after bias, bans, repetition, frequency and presence: one token after the other."""
    sequence, request = asked.sequence, asked.sequence.request
    bias, output = dict(request.logit_bias), sequence.tokens[sequence.prompt_len :]
    ends = {*request.stop_ids, *([] if request.ignore_eos else request.eos_ids)}
    result = []
    for token, logit in enumerate(np.asarray(logits, np.float64)):
        value = logit + bias.get(token, 0.0)
        if bans and token in ends and len(output) < request.min_tokens:
            value = -np.inf
        if token in sequence.tokens:
            value = value / request.repetition_penalty if value > 0 else value * request.repetition_penalty
        value -= request.frequency_penalty * output.count(token) + request.presence_penalty * (token in output)
        result.append(value)
    return np.array(result)


def weights(logits, request):
    """Float64 weights of float64 logits after temperature, min-p, top-k and top-p, and how near a limit rounding is."""
    best = logits.max()
    if request.temperature == 0:
        return (np.arange(len(logits)) == logits.argmax()).astype(float), np.inf
    weight = np.exp((logits - best) / request.temperature)
    margins = [np.inf]
    if request.min_p > 0:
        margins.append(np.abs(weight - request.min_p).min())
        weight = np.where(weight >= request.min_p, weight, 0)
    if 0 < request.top_k < len(logits):
        weight = np.where(logits >= np.sort(logits)[-request.top_k], weight, 0)
    if request.top_p < 1:
        better = np.array([weight[logits > value].sum() for value in logits]) / weight.sum()
        margins.append(np.abs(better - request.top_p).min())
        weight = np.where(better < request.top_p, weight, 0)
    return weight, min(margins)


def tokens(vocab, most):
    return st.lists(st.integers(0, vocab - 1), max_size=most)


def changes(vocab):
    """Anything that edits logits."""
    penalty = st.sampled_from([0.0, 2.0, -2.0]) | st.floats(-2, 2, width=16)
    return st.fixed_dictionaries(
        {},
        optional={
            "repetition_penalty": st.sampled_from([1.0, 0.5, 1.2, 100.0]),
            "presence_penalty": penalty,
            "frequency_penalty": penalty,
            "logit_bias": st.dictionaries(
                st.integers(0, vocab - 1), st.sampled_from([-100.0, 100.0, 0.5, -3.0]), max_size=5
            ).map(lambda bias: list(bias.items())),
            "eos_ids": tokens(vocab, 3),
            "stop_ids": tokens(vocab, 12),
            "ignore_eos": st.booleans(),
            "min_tokens": st.sampled_from([0, 2, 50]),
        },
    )
