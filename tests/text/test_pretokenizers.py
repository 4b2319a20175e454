import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import ModelLoadError
from atomr_trio.text._bytelevel import to_bytes
from atomr_trio.text._pretokenizers import _FAMILIES, family_of, pre_tokenizer

TEXT = "I'm 1234 years,\n\n  DON'T x=1!"
SPLITTERS = {name: pre_tokenizer(family) for name, family in _FAMILIES.items()}


def pieces(name, text):
    return [to_bytes(piece).decode() for piece, _span in SPLITTERS[name].pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-2", ["I", "'m", " 1234", " years", ",", "\n\n ", " DON", "'", "T", " x", "=", "1", "!"]),
        ("smollm", ["I", "'m", " ", "1", "2", "3", "4", " years", ",", "\n\n ", " DON", "'", "T", " x", "=", "1", "!"]),
        ("llama-bpe", ["I", "'m", " ", "123", "4", " years", ",\n\n", " ", " DON", "'T", " x", "=", "1", "!"]),
        ("qwen2", ["I", "'m", " ", "1", "2", "3", "4", " years", ",\n\n", " ", " DON", "'T", " x", "=", "1", "!"]),
        ("default", ["I", "'", "m", " ", "123", "4", " years", ",", "\n\n ", " DON", "'", "T", " x", "=", "1", "!"]),
    ],
)
def test_known_splits(name, expected):
    assert pieces(name, TEXT) == expected


@given(text=st.text(st.characters(exclude_categories=["Cs"])), name=st.sampled_from(sorted(_FAMILIES)))
def test_nothing_is_lost(name, text):
    found = b"".join(to_bytes(piece) for piece, _span in SPLITTERS[name].pre_tokenize_str(text))
    assert found.decode() == text


def test_an_unknown_name_is_named():
    with pytest.raises(ModelLoadError, match=r"unknown pre-tokenizer `mystery`; known are .*llama-bpe"):
        family_of("mystery")
