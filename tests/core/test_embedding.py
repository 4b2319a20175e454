"""A vector: its bytes, its length, its begin."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import Embedding, TokenChunk, Tokens

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.lists(numbers, min_size=1, max_size=8)
# Of numbers near the ends of float32's range the length has no digits left.
usual = st.lists(
    st.floats(-(2.0**50), 2.0**50, width=32).filter(lambda x: x == 0 or abs(x) > 2**-50), min_size=1, max_size=8
)


@given(vectors)
def test_what_goes_in_comes_out(values):
    embedding = Embedding.of(values)
    assert list(embedding.values) == values
    assert embedding.data == b"".join(struct.pack("<f", value) for value in values)
    assert len(embedding) == len(values)
    assert embedding == Embedding(embedding.data)


@given(usual)
def test_a_unit_has_the_length_1_and_the_same_direction(values):
    unit = Embedding.of(values).unit()
    length = math.hypot(*values)
    if not length:
        assert list(unit.values) == values
    else:
        assert math.hypot(*unit.values) == pytest.approx(1, abs=1e-6)
        assert list(unit.values) == pytest.approx([value / length for value in values], abs=1e-6)


@given(values=usual, dimensions=st.integers(-1, 10))
def test_a_cut_is_the_unit_of_the_begin(values, dimensions):
    embedding = Embedding.of(values)
    if 1 <= dimensions <= len(values):
        assert embedding.cut(dimensions) == Embedding.of(values[:dimensions]).unit()
    else:
        with pytest.raises(ValueError, match="cannot be cut"):
            embedding.cut(dimensions)


@pytest.mark.parametrize("values", [[math.nan], [1.0, math.inf], [-math.inf], [1e39]])
def test_only_finite_numbers_make_one(values):
    with pytest.raises(ValueError, match="finite"):
        Embedding.of(values)
    if values != [1e39]:
        with pytest.raises(ValueError, match="finite"):
            Embedding(struct.pack(f"<{len(values)}f", *values))


def test_no_number_is_none():
    with pytest.raises(ValueError, match="at least one"):
        Embedding.of([])


@pytest.mark.parametrize("data", [b"", b"abc", b"abcde"])
def test_halves_of_numbers_are_none(data):
    with pytest.raises(ValueError, match="float32"):
        Embedding(data)


def test_it_is_kept_with_the_answer():
    embedding = Embedding.of([1.0])
    tokens = Tokens()
    tokens.append(TokenChunk(embedding=embedding))
    tokens.append(TokenChunk())
    assert tokens.embedding == embedding
