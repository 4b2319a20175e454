import itertools

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import Internal, ModelLoadError
from atomr_trio.text import Tokenizer

from .tiny import BOS, BYTE_TOKENS, EOS, IM_END, MERGED, MERGES, NIHON, THINK, TOKENS, tiny_fields

ALPHABET = st.sampled_from(
    ["hello", " hello", "he", "é", "😀", "日本", "日", "<think>", "<|eos|>", " ", "1", "\n", "x"]
)
TEXTS = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.lists(ALPHABET).map("".join))


def test_all_reference_prompts_have_the_reference_ids(codec, cases):
    from atomr_trio.core import ExecuteBatch, Message

    assert len(cases) == 10
    for case in cases:
        if case["kind"] == "chat":
            messages = [Message(turn["role"], turn["content"]) for turn in case["prompt"]]
            batch = ExecuteBatch(request_id="1", model="m", messages=messages)
        else:
            batch = ExecuteBatch(request_id="1", model="m", prompt=case["prompt"])
        assert list(codec.prepare(batch).prompt_ids) == case["prompt_ids"]


def test_all_reference_answers_have_the_reference_text(real, cases):
    for case in cases:
        assert real.decode(case["greedy_ids"], skip_special=False) == case["greedy_text"]


def test_the_real_vocabulary(real):
    assert (real.vocab_size, real.bos_id, real.eos_ids, real.add_bos) == (49_152, 1, {2}, False)
    assert real.max_token_bytes == 81
    assert len(real.special_ids) == 17
    assert real.token_name(1) == "<|im_start|>"


@given(text=TEXTS)
def test_text_survives_the_round_trip(tiny, text):
    for parse_special in (True, False):
        ids = tiny.encode(text, parse_special=parse_special, add_special=False)
        assert tiny.decode(ids, skip_special=False) == text


@given(text=TEXTS)
def test_control_tokens_come_only_from_parsing(tiny, text):
    ids = tiny.encode(text, add_special=False, parse_special=False)
    assert not tiny.special_ids.intersection(ids)
    assert (EOS in tiny.encode(text)) == ("<|eos|>" in text)


@given(text=TEXTS)
def test_user_defined_tokens_are_always_found(tiny, text):
    for parse_special in (True, False):
        ids = tiny.encode(text, add_special=False, parse_special=parse_special)
        assert ids.count(THINK) == text.count("<think>")
        assert ids.count(NIHON) == text.count("日本")


def test_the_begin_token_goes_in_front_when_the_model_wants_it(tiny):
    assert tiny.encode("hello") == [BOS, TOKENS.index("hello")]
    assert tiny.encode("hello", add_special=False) == [TOKENS.index("hello")]
    assert tiny.encode("") == [BOS]


@pytest.mark.parametrize(
    ("pre", "said", "adds"), [("gpt-2", None, False), ("llama-bpe", None, True), ("llama-bpe", False, False)]
)
def test_whether_a_begin_token_is_wanted(pre, said, adds):
    made = Tokenizer.from_gguf(tiny_fields(pre=pre, add_bos_token=said))
    assert (made.encode("x")[0] == BOS) is adds


@pytest.fixture(scope="module")
def ranks(real_fields):
    return {tuple(merge.split(" ")): at for at, merge in enumerate(real_fields["tokenizer.ggml.merges"])}


def merge_plainly(piece, ranks, ids):
    """Byte pair encoding as its paper has it: again and again the first rule of all that applies."""
    parts = [character for character in piece if character in ids]
    while len(parts) > 1:
        pairs = [*itertools.pairwise(parts)]
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        at = pairs.index(best)
        parts[at : at + 2] = ["".join(best)]
    return [ids[part] for part in parts]


@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.text("the an\n  1é"))
def test_merging_equals_the_plain_algorithm(real, real_fields, ranks, text):
    ids = {token: at for at, token in enumerate(real_fields["tokenizer.ggml.tokens"])}
    pieces = real._without_special.pre_tokenizer.pre_tokenize_str(text)
    expected = [id for piece, _span in pieces for id in merge_plainly(piece, ranks, ids)]
    assert real.encode(text, add_special=False, parse_special=False) == expected


@given(ids=st.lists(st.integers(0, len(TOKENS) - 1)))
def test_decoding_equals_the_library(tiny, ids):
    library = tokenizers.Tokenizer.from_str(tiny._with_special.to_str())
    library.decoder = tokenizers.decoders.ByteLevel()
    assert tiny.decode(ids) == library.decode(ids, skip_special_tokens=True)
    assert tiny.decode(ids, skip_special=False) == library.decode(ids, skip_special_tokens=False)


@given(text=TEXTS)
def test_no_token_is_longer_than_the_longest(tiny, text):
    assert len(text.encode()) <= tiny.max_token_bytes * len(tiny.encode(text, add_special=False))


@pytest.mark.parametrize("id", [-1, len(TOKENS), 10**9])
def test_ids_outside_the_vocabulary(tiny, id):
    with pytest.raises(Internal, match="outside the vocabulary"):
        tiny.token_bytes(id)
    with pytest.raises(Internal):
        tiny.decode([0, id])


def test_half_a_surrogate_pair(tiny):
    with pytest.raises(UnicodeEncodeError):
        tiny.encode("a\ud800")


def test_bytes_that_the_vocabulary_lacks_are_left_out(real):
    assert real.encode("\x04") == []
    assert real.encode("a\x04b") == [*real.encode("a"), *real.encode("b")]


def test_ends_of_answers_are_found_by_field_and_by_name():
    assert Tokenizer.from_gguf(tiny_fields()).eos_ids == {EOS, IM_END}
    assert Tokenizer.from_gguf(tiny_fields(eot_token_id=THINK, eom_token_id=5)).eos_ids == {EOS, IM_END, THINK, 5}
    plain = [1] * len(TOKENS)
    assert Tokenizer.from_gguf(tiny_fields(eos_token_id=None, token_type=plain)).eos_ids == frozenset()


def test_whole_words_skip_the_merges():
    # Merging h-e first leaves no way to "ehe"; a family that looks up whole pieces first finds it.
    tokens, types = [*TOKENS, "ehe"], [*tiny_fields()["tokenizer.ggml.token_type"], 1]
    plain = Tokenizer.from_gguf(tiny_fields(tokens=tokens, token_type=types, pre="gpt-2", add_bos_token=False))
    whole = Tokenizer.from_gguf(tiny_fields(tokens=tokens, token_type=types, pre="llama-bpe", add_bos_token=False))
    assert plain.encode("ehe") == [BYTE_TOKENS.index("e"), tokens.index("he")]
    assert whole.encode("ehe") == [tokens.index("ehe")]


def test_a_file_without_token_types_has_plain_tokens():
    made = Tokenizer.from_gguf(tiny_fields(token_type=None))
    assert made.special_ids == frozenset()
    assert EOS not in made.encode("<|eos|>")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, "kind `bert`"),
        ({"model": None}, "kind `None`"),
        ({"pre": "brand-new"}, "unknown pre-tokenizer `brand-new`"),
        ({"tokens": None}, r"tokenizer\.ggml\.tokens is missing"),
        ({"tokens": "abc"}, r"tokenizer\.ggml\.tokens is missing or"),
        ({"tokens": [1, 2]}, "not a list of strings"),
        ({"tokens": []}, "no tokens"),
        ({"token_type": [1]}, "token_type does not fit"),
        ({"token_type": 7}, "token_type does not fit"),
        ({"merges": None}, r"tokenizer\.ggml\.merges is missing"),
        ({"merges": ["he"]}, "malformed merge"),
        ({"merges": ["q q"]}, "merges do not fit"),
        ({"eos_token_id": len(TOKENS)}, "eos_token_id"),
        ({"bos_token_id": -1}, "bos_token_id"),
        ({"bos_token_id": "1"}, "bos_token_id"),
    ],
)
def test_fields_that_do_not_fit(changes, message):
    with pytest.raises(ModelLoadError, match=message):
        Tokenizer.from_gguf(tiny_fields(**changes))


def test_the_tiny_vocabulary_is_what_it_says(tiny):
    assert tiny.max_token_bytes == len("<|im_end|>")
    assert [tiny.token_bytes(byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    assert tiny.token_bytes(NIHON) == "日本".encode()
    assert len(MERGED) == len(MERGES)
    assert tiny.token_name(None) == ""
