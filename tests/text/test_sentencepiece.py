"""Vocabularies of SentencePiece's kind, rebuilt from a GGUF file's fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import ModelLoadError
from atomr_trio.text import Detokenizer, Tokenizer

SPACE = "\u2581"
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<end_of_turn>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
USER = ["\n\n", "  "]
PIECES = [*"helo", SPACE, "é", "he", "ll", "hell", "hello", SPACE + "hello", "lo", SPACE + "h"]
TOKENS = [*CONTROL, *BYTES, *USER, *PIECES]
BOS, EOS = 2, 1


def fields(**changes):
    values = {
        "model": "llama",
        "tokens": TOKENS,
        "scores": [-1000.0] * (len(TOKENS) - len(PIECES)) + [-float(at) for at in range(len(PIECES))],
        "token_type": [3, 3, 3, 2, 3] + [6] * 256 + [4] * len(USER) + [1] * len(PIECES),
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "unknown_token_id": 3,
        "add_space_prefix": False,
        **changes,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in values.items() if value is not None}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_gguf(fields())


def spelled(tokenizer, text, **options):
    return [TOKENS[id] for id in tokenizer.encode(text, **options)]


def test_merges_follow_the_scores(tokenizer):
    # "he" is better than "ll", which is better than "lo": h e l l o -> he l l o -> he ll o -> hell o -> hello.
    assert spelled(tokenizer, "hello", add_special=False) == ["hello"]
    assert spelled(tokenizer, "hello hello", add_special=False) == ["hello", SPACE + "hello"]
    # The better score comes first, even where that leaves a longer piece unmade.
    assert spelled(tokenizer, " he", add_special=False) == [SPACE, "he"]


def test_what_it_knows_of_its_tokens(tokenizer):
    assert (tokenizer.bos_id, tokenizer.add_bos, tokenizer.eos_ids) == (BOS, True, {EOS, 4})
    assert tokenizer.special_ids == {0, 1, 2, 3, 4}
    assert tokenizer.token_bytes(5 + 0x41) == b"A"
    assert tokenizer.token_bytes(TOKENS.index(SPACE + "hello")) == b" hello"
    assert spelled(tokenizer, "he") == ["<bos>", "he"]
    assert not Tokenizer.from_gguf(fields(add_bos_token=False)).add_bos


def test_unknown_characters_are_bytes(tokenizer):
    assert spelled(tokenizer, "é日", add_special=False) == ["é", "<0xE6>", "<0x97>", "<0xA5>"]
    # The name of a byte in a text is a text.
    assert "<0x41>" not in spelled(tokenizer, "<0x41>", add_special=False)


def test_user_defined_tokens_are_found_as_they_are_written(tokenizer):
    assert spelled(tokenizer, "he\n\n  he", add_special=False) == ["he", "\n\n", "  ", "he"]


def test_control_tokens_come_only_from_parsing(tokenizer):
    assert spelled(tokenizer, "he<eos>", add_special=False) == ["he", "<eos>"]
    assert "<eos>" not in spelled(tokenizer, "he<eos>", add_special=False, parse_special=False)


@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.text("hel o\n<é"))
def test_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    expected = text.replace(SPACE, " ")
    assert tokenizer.decode(ids, skip_special=False) == expected
    stream = Detokenizer(tokenizer)
    assert "".join([*[stream.push([id]) for id in ids], stream.flush()]) == expected


def test_a_space_in_front_where_the_file_wants_one():
    tokenizer = Tokenizer.from_gguf(fields(add_space_prefix=None))
    assert spelled(tokenizer, "hello", add_special=False) == [SPACE + "hello"]


def test_scores_that_do_not_fit_are_named():
    for scores in (None, [0.0]):
        with pytest.raises(ModelLoadError, match="scores does not fit"):
            Tokenizer.from_gguf(fields(scores=scores))
