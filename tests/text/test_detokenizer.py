import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import Internal
from atomr_trio.text import Detokenizer

from .tiny import EOS, TOKENS

# Bytes of multi-byte characters far more often than chance would give them.
IDS = st.lists(
    st.one_of(st.integers(0, len(TOKENS) - 1), st.sampled_from([*"😀é日".encode(), EOS, 0xE0, 0x80, 0xF4, 0xFF]))
)


@st.composite
def portions(draw, ids=IDS):
    rest, made = draw(ids), []
    while rest:
        size = draw(st.integers(0, len(rest)))
        made.append(rest[:size])
        rest = rest[size:]
        if size == 0:
            made.append(rest[:1])
            rest = rest[1:]
    return made


@given(chunks=portions())
def test_all_texts_together_are_the_text_of_all_tokens(tiny, chunks):
    detokenizer = Detokenizer(tiny)
    text = "".join([detokenizer.push(chunk) for chunk in chunks]) + detokenizer.flush()
    assert text == tiny.decode([id for chunk in chunks for id in chunk])


@given(ids=IDS)
def test_nothing_waits_but_the_begin_of_one_character(tiny, ids):
    detokenizer, shown, data = Detokenizer(tiny), "", b""
    for id in ids:
        shown += detokenizer.push([id])
        data += b"" if id in tiny.special_ids else tiny.token_bytes(id)
        whole = data.decode(errors="replace")
        assert whole == shown or (whole == shown + "\ufffd" and completes(data, shown))


def completes(data, shown):
    """Some continuation makes one character of the bytes that are not shown."""
    ends = [bytes(end) for size in (1, 2, 3) for end in itertools.product((0x80, 0x90, 0xA0), repeat=size)]
    longer = [(data + end).decode(errors="replace").removeprefix(shown) for end in ends]
    return any(len(rest) == 1 and rest != "\ufffd" for rest in longer)


def test_a_character_in_four_tokens_comes_at_once(tiny):
    detokenizer = Detokenizer(tiny)
    assert [detokenizer.push([byte]) for byte in "😀".encode()] == ["", "", "", "😀"]
    assert detokenizer.flush() == ""


def test_a_character_that_never_ends(tiny):
    detokenizer = Detokenizer(tiny)
    assert detokenizer.push("😀".encode()[:3]) == ""
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.push(b"ok") == "ok"


def test_control_tokens_have_no_text_and_break_no_character(tiny):
    first, second = "é".encode()
    assert Detokenizer(tiny).push([first, EOS, second]) == "é"


def test_an_id_outside_the_vocabulary(tiny):
    with pytest.raises(Internal):
        Detokenizer(tiny).push([len(TOKENS)])
