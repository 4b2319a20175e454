"""The frame protocol: what goes in comes out, however the stream is cut; nothing else gets in."""

import itertools
import math
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import FinishReason
from atomr_trio.engine import frames as f
from atomr_trio.engine.settings import EngineSettings

small = st.integers(0, 2**31 - 1)
ids = st.lists(small, max_size=8)
floats = st.floats(allow_nan=False)
requests = st.builds(
    f.SequenceRequest,
    id=small,
    prompt_ids=ids,
    max_tokens=small,
    generated=ids,
    temperature=floats,
    top_k=small,
    seed=st.integers(-(2**63), 2**64 - 1),
    eos_ids=ids,
    ignore_eos=st.booleans(),
    prompt_logprobs=st.booleans(),
    logit_bias=st.lists(st.tuples(small, floats), max_size=3),
)
outputs = st.builds(
    f.SequenceOutput,
    small,
    ids,
    st.none() | st.lists(floats, max_size=4),
    st.none() | st.sampled_from(FinishReason),
    small,
    st.none() | st.lists(st.none() | floats, max_size=4),
    st.none() | st.lists(st.lists(st.tuples(small, floats), max_size=3), max_size=3),
    st.none() | st.lists(st.lists(st.tuples(small, floats), max_size=3), max_size=3),
)
settings = st.builds(EngineSettings, model=st.text(min_size=1), cache_dir=st.none() | st.text())
parent_frames = st.one_of(
    st.builds(f.Configure, settings, floats),
    st.builds(f.Add, st.lists(requests, max_size=3)),
    st.builds(f.Abort, ids),
    st.builds(f.Ping, small),
    st.just(f.Shutdown()),
)
child_frames = st.one_of(
    st.builds(f.Progress, st.sampled_from(["weights", "compile"]), small, small),
    st.builds(f.Step, small, st.lists(outputs, max_size=3), small, small, small, small, small),
    st.builds(f.Aborted, ids, ids),
    st.builds(f.Rejected, small, st.text(), st.text()),
    st.builds(f.Heartbeat, small, small, small, floats, st.booleans()),
    st.builds(f.Pong, small),
    st.builds(f.Fatal, st.sampled_from(["ContextPoisoned", "OutOfMemory", "Unrecoverable"]), st.text()),
    st.builds(
        f.Ready, small, small, small, st.text(), st.text(), st.text(), small, small, floats, floats
    ),
)  # fmt: skip


def cut(data, cuts):
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize(
    ("decoder", "frames"),
    [(f.parent_frame_decoder, parent_frames), (f.child_frame_decoder, child_frames)],
    ids=["parent", "child"],
)
def test_every_frame_survives_any_cut_of_the_stream(decoder, frames):
    @given(sent=st.lists(frames, max_size=5), cuts=st.lists(st.integers(0, 10**6), max_size=12))
    def check(sent, cuts):
        receiver = decoder()
        got = []
        for piece in cut(b"".join(map(f.encode, sent)), cuts):
            got += receiver.feed(piece)
        assert got == sent
        assert receiver.buffered == 0

    check()


@given(frame=parent_frames, missing=st.integers(1, 10**6))
def test_a_torn_frame_yields_nothing_and_is_visible(frame, missing):
    data = f.encode(frame)
    receiver = f.parent_frame_decoder()
    torn = data[: len(data) - 1 - missing % len(data)]
    assert receiver.feed(torn) == []
    assert receiver.buffered == len(torn)


@given(st.binary(max_size=200))
def test_garbage_is_a_violation_or_nothing_but_never_another_error(data):
    receiver = f.parent_frame_decoder()
    try:
        received = receiver.feed(data)
    except f.ProtocolViolation:
        with pytest.raises(f.ProtocolViolation):
            receiver.feed(b"")
    else:
        assert all(isinstance(frame, f.Frame) for frame in received)


@given(st.binary(max_size=60))
def test_a_whole_frame_of_garbage_never_waits(payload):
    receiver = f.child_frame_decoder()
    try:
        receiver.feed(struct.pack("<I", len(payload)) + payload)
    except f.ProtocolViolation as violation:
        assert str(violation).startswith("protocol violation")
    assert receiver.buffered == 0


@pytest.mark.parametrize("length", [0, f.MAX_FRAME_BYTES + 1, 2**32 - 1])
def test_a_bad_length_is_refused_before_its_payload_arrives(length):
    with pytest.raises(f.ProtocolViolation):
        f.parent_frame_decoder().feed(struct.pack("<I", length))


def test_the_longest_frame_is_the_longest_for_both_sides():
    big = f.Rejected(1, "internal", "x" * f.MAX_FRAME_BYTES)
    with pytest.raises(f.ProtocolViolation):
        f.encode(big)


def test_a_frame_of_the_other_direction_is_a_violation():
    with pytest.raises(f.ProtocolViolation):
        f.parent_frame_decoder().feed(f.encode(f.Pong(1)))
    with pytest.raises(f.ProtocolViolation):
        f.child_frame_decoder().feed(f.encode(f.Shutdown()))


def test_deep_nesting_is_a_violation():
    nested = b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(f.ProtocolViolation):
        f.parent_frame_decoder().feed(struct.pack("<I", len(nested)) + nested)


@given(
    name=st.sampled_from(["max_num_seqs", "page_size", "prefill_chunk", "max_model_len", "kv_tokens"]),
    value=st.integers(max_value=0),
)
def test_settings_out_of_range_are_refused_here_and_over_the_wire(name, value):
    with pytest.raises(ValueError, match=name):
        EngineSettings(load_format="dummy", **{name: value})


def test_bad_settings_over_the_wire_are_a_violation():
    good = f.encode(f.Configure(EngineSettings(model="m", max_num_seqs=77)))
    bad = good.replace(b"\x4d", b"\x00")
    assert bad != good
    with pytest.raises(f.ProtocolViolation, match="max_num_seqs"):
        f.parent_frame_decoder().feed(bad)


def test_non_finite_numbers_travel():
    frame = f.Step(1, [f.SequenceOutput(1, [2], [-math.inf])], 1, 0, 1, 5, 0)
    assert f.child_frame_decoder().feed(f.encode(frame)) == [frame]


def test_the_servers_side_imports_neither_jax_nor_numpy():
    code = (
        "import sys, atomr_trio.engine, atomr_trio.engine.frames, atomr_trio.engine.environment;"
        "print([m for m in ('jax', 'jaxlib', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
