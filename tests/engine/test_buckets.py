"""Shapes: everything that can be scheduled has one, and what stands in for it is large enough."""

from itertools import pairwise

from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from atomr_trio.engine.buckets import POOLED, Buckets, ProgramKey, best_cover, powers_of_two

limits = st.fixed_dictionaries(
    {
        "max_num_seqs": st.integers(1, 70),
        "max_chunk": st.integers(1, 600),
        "max_pages": st.integers(1, 600),
        "max_entries": st.integers(1, 9000),
        "view_pages": st.just(0) | st.integers(1, 6000),
        "steps": st.integers(1, 4),
    }
)
keys = st.builds(
    ProgramKey,
    st.sampled_from(
        ["decode", "view", "decodes", "views", "prefill", "sample", "scored", "ends", "sums", "mask", "edit", "report"]
    ),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 4),
)


@given(first=st.integers(1, 50), last=st.integers(1, 5000))
def test_powers_of_two_ascend_to_exactly_the_last(first, last):
    assume(first <= last)
    sizes = powers_of_two(first, last)
    assert sizes[-1] == last
    assert list(sizes) == sorted(set(sizes))
    assert all(b <= 2 * a for a, b in pairwise(sizes))


@given(limits=limits, data=st.data())
def test_every_step_has_a_shape_that_holds_it(limits, data):
    buckets = Buckets.of(**limits)
    rows = data.draw(st.integers(1, limits["max_num_seqs"]))
    tokens = data.draw(st.integers(1, limits["max_chunk"]))
    pages = data.draw(st.integers(1, limits["max_pages"]))
    decode, chunk = buckets.decode(rows, pages), buckets.chunk(tokens, pages)
    assert decode.rows >= rows
    assert chunk.chunk >= tokens
    assert min(decode.pages, chunk.pages) >= pages
    entries = data.draw(st.integers(1, limits["max_entries"]))
    edit = buckets.edit(rows, entries)
    assert edit.chunk >= entries
    needed = {decode, chunk, buckets.sample(rows), edit, *buckets.before(decode), *buckets.loops([decode])}
    assert needed <= set(buckets.everything())
    assert (decode.kind == "view") <= (decode.rows * decode.pages <= limits["view_pages"])


@given(limits=limits, data=st.data())
def test_after_the_ladder_everything_is_covered(limits, data):
    buckets = Buckets.of(**limits)
    chunks = (limits["max_chunk"], max(1, limits["max_chunk"] // 4))
    start, ladder = buckets.at_start(chunks), buckets.ladder(chunks)
    available = start + ladder
    assert len(available) == len(set(available))
    # Who has compiled everything is not surprised by what is compiled in quiet moments.
    assert set(available) <= set(buckets.everything())
    # A loop that is not there is done step by step.
    wanted = data.draw(st.sampled_from([key.once for key in buckets.everything() if key.kind != "fill"]))
    found = best_cover(wanted, available)
    assert found is not None
    assert set(buckets.before(found)) <= set(available)
    # What a first, short request needs is there from the start.
    assert best_cover(buckets.decode(1, 1), start) is not None
    assert best_cover(buckets.chunk(1, 1), start) is not None
    assert buckets.sample(1) in start


@given(wanted=keys, available=st.lists(keys))
def test_a_cover_is_large_enough_and_the_cheapest(wanted, available):
    found = best_cover(wanted, available)
    good = [k for k in available if k.covers(wanted)]
    assert (found is None) == (not good)
    if found is not None:
        assert found.kind == wanted.kind or (found.kind, wanted.kind) == ("decode", "view")
        assert found.rows >= wanted.rows
        assert found.cost == min(k.cost for k in good)
    assert best_cover(wanted, [*available, wanted]).cost == wanted.cost


def test_a_growing_context_needs_the_next_wider_table():
    buckets = Buckets.of(max_num_seqs=4, max_chunk=64, max_pages=100)
    widths = [buckets.decode(2, 1)]
    while wider := buckets.wider(widths[-1]):
        widths += wider
    assert widths == [ProgramKey("decode", 2, 1, pages) for pages in (16, 32, 64, 100)]


def test_a_growing_view_becomes_pages_when_it_is_too_large():
    buckets = Buckets.of(max_num_seqs=4, max_chunk=64, max_pages=100, view_pages=48)
    widths = [buckets.decode(2, 1)]
    while wider := buckets.wider(widths[-1]):
        widths.append(wider[-1])
    assert widths == [ProgramKey("view", 2, 1, pages) for pages in (8, 12, 16, 24)] + [
        ProgramKey("decode", 2, 1, pages) for pages in (32, 64, 100)
    ]


@given(limits=limits, data=st.data())
def test_a_loop_is_compiled_after_what_it_repeats(limits, data):
    buckets = Buckets.of(**limits)
    chunks = (limits["max_chunk"],)
    keys = [*buckets.at_start(chunks), *buckets.ladder(chunks)]
    loops = [key for key in keys if key.is_loop]
    assert bool(loops) == (buckets.steps > 1)
    assert not any(key.is_loop for key in buckets.at_start(chunks))
    for loop in loops:
        assert (loop.chunk, loop.once.chunk) == (buckets.steps, 1)
        assert buckets.loops([loop.once]) == [loop]
        assert keys.index(loop) > max(keys.index(key) for key in [*buckets.before(loop), loop.once])


def test_a_growing_context_needs_the_wider_loop_and_what_it_repeats():
    buckets = Buckets.of(max_num_seqs=4, max_chunk=64, max_pages=100, steps=4)
    decode = buckets.decode(2, 1)
    [loop] = buckets.loops([decode])
    assert buckets.wider(loop) == [*buckets.wider(decode), ProgramKey("decodes", 2, 4, 32)]


def test_no_loop_stands_in_for_another():
    loop = ProgramKey("decodes", 2, 4, 32)
    for other in (ProgramKey("decodes", 2, 4, 16), ProgramKey("views", 2, 4, 32), ProgramKey("decode", 2, 1, 32)):
        assert not loop.covers(other)
        assert not other.covers(loop)


def test_a_growing_list_of_edits_needs_the_next_longer_one():
    buckets = Buckets.of(max_num_seqs=4, max_chunk=64, max_pages=100, max_entries=1025)
    keys = [buckets.edit(3, 1)]
    while longer := buckets.longer(keys[-1]):
        keys += longer
    assert keys == [ProgramKey("edit", 4, entries) for entries in (64, 256, 1024, 4096)]


def test_few_programs_are_compiled_before_the_first_request():
    buckets = Buckets.of(max_num_seqs=32, max_chunk=64, max_pages=512)
    assert len(buckets.at_start((64, 64))) == 5


@given(limits=limits, pooling=st.sampled_from([None, "last", "mean"]))
def test_who_generates_pays_for_no_embeddings(limits, pooling):
    buckets = Buckets.of(**limits)
    chunks = (limits["max_chunk"],)
    keys = [*buckets.at_start(chunks), *buckets.ladder(chunks), *buckets.everything()]
    assert not {key.kind for key in keys} & {"ends", "sums"}
    twins = buckets.pooled(keys, pooling)
    if pooling is None:
        assert twins == []
    else:
        assert [evolve(twin, kind="prefill") for twin in twins] == [key for key in keys if key.kind == "prefill"]
        assert {key.kind for key in twins} == {POOLED[pooling]}
