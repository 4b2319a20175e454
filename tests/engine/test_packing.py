"""What is packed on the host is what the device unpacks."""

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.engine.buckets import ProgramKey
from atomr_trio.engine.frames import SequenceRequest
from atomr_trio.engine.packing import MAX_BANNED, NO_TOKEN, Row, pack_draws, pack_steps, unpack_draws, unpack_steps
from atomr_trio.engine.sampler import seed_words
from atomr_trio.engine.sequence import Sequence

PAGE = 4
LAST = np.array([101, 102, 103, 104, 105], np.int32)
floats = st.floats(0, 2, width=32)


@st.composite
def rows(draw, chunk):
    prompt = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=30))
    request = SequenceRequest(
        id=0,
        prompt_ids=prompt,
        max_tokens=9,
        temperature=draw(floats),
        top_k=draw(st.integers(0, 2**31 - 1)),
        top_p=draw(floats),
        min_p=draw(floats),
        seed=draw(st.integers(-(2**63), 2**64 - 1)),
        eos_ids=draw(st.lists(st.integers(0, 99), max_size=4)),
        stop_ids=draw(st.lists(st.integers(0, 99), max_size=6)),
        ignore_eos=draw(st.booleans()),
        min_tokens=draw(st.integers(0, 1)),
    )
    sequence = Sequence.of(request, 0)
    sequence.pages = list(range(1, 1 - -len(prompt) // PAGE + 1))
    start = draw(st.integers(0, len(prompt) - 1))
    count = draw(st.integers(1, min(chunk, len(prompt) - start)))
    return Row(sequence, start, count, draw(st.sampled_from([-1, 0, 4])))


@given(data=st.data(), kind=st.sampled_from(["decode", "prefill", "scored"]), chunk=st.integers(1, 8))
def test_steps(data, kind, chunk):
    key = ProgramKey(kind, 3, chunk, 9)
    work = data.draw(st.lists(st.none() | rows(chunk), max_size=3))
    with jax.disable_jit():
        inputs = jax.tree.map(np.asarray, unpack_steps(key, pack_steps(key, work), LAST))
    for index, row in enumerate(work):
        if row is None:
            assert (inputs.positions[index] == -1).all()
            assert (inputs.page_tables[index] == 0).all()
            continue
        tokens = list(row.sequence.tokens)
        if row.source >= 0:
            tokens[row.start] = LAST[row.source]
        assert inputs.tokens[index, : row.count].tolist() == tokens[row.start : row.end]
        assert inputs.positions[index].tolist() == [*range(row.start, row.end)] + [-1] * (chunk - row.count)
        assert inputs.last[index] == row.count - 1
        pages = row.sequence.pages[:9]
        assert inputs.page_tables[index].tolist() == pages + [0] * (9 - len(pages))
        if kind == "scored":
            following = tokens[row.start + 1 : row.end + 1]
            assert inputs.next_tokens[index, : len(following)].tolist() == following
    assert (inputs.positions[len(work) :] == -1).all()
    assert (inputs.page_tables[len(work) :] == 0).all()


@given(data=st.data())
def test_draws(data):
    key = ProgramKey("sample", 3)
    work = data.draw(st.lists(st.none() | rows(4), max_size=3))
    first = data.draw(st.integers(0, 9))
    sampling, places, banned = jax.tree.map(np.asarray, unpack_draws(pack_draws(key, work, first)))
    for index, row in enumerate(work):
        if row is None:
            assert sampling.temperature[index] == 0
            assert places[index] == NO_TOKEN
            continue
        assert places[index] == first + index
        asked = row.sequence.request
        got = [getattr(sampling, name)[index] for name in ("temperature", "top_k", "top_p", "min_p")]
        assert got == [asked.temperature, asked.top_k, asked.top_p, asked.min_p]
        assert tuple(sampling.seed[index].tolist()) == seed_words(asked.seed)
        assert sampling.position[index] == row.end
        early = row.end - len(asked.prompt_ids) < asked.min_tokens
        ends = [*dict.fromkeys([*asked.stop_ids, *([] if asked.ignore_eos else asked.eos_ids)])] if early else []
        # More of them than fit are an edit's business.
        ends = ends if len(ends) <= MAX_BANNED else []
        assert banned[index].tolist() == ends + [2**31 - 1] * (MAX_BANNED - len(ends))
    assert (sampling.temperature[len(work) :] == 0).all()
    assert (places[len(work) :] == NO_TOKEN).all()
