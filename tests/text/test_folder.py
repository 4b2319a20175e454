"""The text side of a Hugging Face folder."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import BadRequest, ExecuteBatch, Message, ModelLoadError, SamplingParams
from atomr_trio.formats import HfFolder
from atomr_trio.text import TextCodec, Tokenizer
from tests.checkpoints import config_of, write_tokenizer

BOS, EOS, USER, ASSISTANT = range(258, 262)
HEL = 257


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = tmp_path_factory.mktemp("folder")
    (made / "config.json").write_text(json.dumps(config_of("llama")))
    return write_tokenizer(made)


@pytest.fixture(scope="module")
def tokenizer(path):
    return Tokenizer.from_folder(HfFolder(path))


def edit(path, tmp_path, name, **changes):
    """A copy of the folder with some fields of one file changed."""
    for file in path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    target = tmp_path / name
    data = json.loads(target.read_text()) if target.exists() else {}
    target.write_text(json.dumps(data | changes))
    return HfFolder(tmp_path)


def test_what_it_knows_of_its_tokens(tokenizer):
    # Of the model's 300 rows the tokenizer names 262.
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.add_bos) == (300, BOS, True)
    assert (tokenizer.eos_ids, tokenizer.special_ids) == ({EOS}, {BOS, EOS, USER, ASSISTANT})
    assert (tokenizer.token_bytes(HEL), tokenizer.token_bytes(299)) == (b"hel", b"")


def test_prompts(tokenizer):
    assert tokenizer.encode("hello")[:2] == [BOS, HEL]
    assert tokenizer.encode("hel<|eos|>", add_special=False) == [HEL, EOS]
    assert EOS not in tokenizer.encode("hel<|eos|>", parse_special=False)


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    assert tokenizer.decode(ids, skip_special=False) == text
    assert not tokenizer.special_ids.intersection(ids)


def test_a_conversation(path):
    codec = TextCodec.from_folder(path, 64)
    batch = codec.prepare(ExecuteBatch(request_id="1", model="m", messages=[Message("user", "hel")]))
    assert list(batch.prompt_ids) == [BOS, USER, HEL, ASSISTANT]
    assert batch.sampling.max_tokens == 60
    assert codec.output_decoder(SamplingParams()).push([HEL, EOS]) == ("hel", False)
    assert TextCodec.from_folder(path, 64, 16).max_model_len == 16


def test_without_a_template_there_are_no_conversations(path, tmp_path):
    edit(path, tmp_path, "config.json")
    (tmp_path / "chat_template.jinja").unlink()
    codec = TextCodec.from_folder(tmp_path, 64)
    with pytest.raises(BadRequest, match="no chat template"):
        codec.prepare(ExecuteBatch(request_id="1", model="m", messages=[Message("user", "hel")]))


def test_end_tokens_by_precedence(path, tmp_path):
    folder = edit(path, tmp_path, "generation_config.json", eos_token_id=[5, 6])
    assert Tokenizer.from_folder(folder).eos_ids == {5, 6}
    edit(path, tmp_path, "config.json", eos_token_id=None)
    (tmp_path / "generation_config.json").unlink()
    assert Tokenizer.from_folder(HfFolder(tmp_path)).eos_ids == {EOS}


def test_the_begin_of_a_prompt(path, tmp_path):
    assert not Tokenizer.from_folder(edit(path, tmp_path, "tokenizer_config.json", add_bos_token=False)).add_bos
    plain = Tokenizer.from_folder(edit(path, tmp_path, "tokenizer.json", post_processor=None))
    assert (plain.add_bos, plain.bos_id) == (False, BOS)
    assert plain.encode("hel") == [HEL]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"type": "Nonsense"}}, r"`tokenizer.json` is not understood"),
        (
            {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}, "pre_tokenizer": None},
            "neither byte-level",
        ),
    ],
)
def test_tokenizers_that_are_not_understood(path, tmp_path, changes, message):
    with pytest.raises(ModelLoadError, match=message):
        Tokenizer.from_folder(edit(path, tmp_path, "tokenizer.json", **changes))


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_a_bare_tokenizer_knows_bytes(text):
    bare = Tokenizer.bare(300, [257])
    assert bare.encode(text) == list(text.encode())
    assert bare.decode(bare.encode(text)) == text


def test_a_bare_tokenizer_names_the_other_tokens():
    assert Tokenizer.bare(300).decode([104, 105, 299]) == "hi 299"
    with pytest.raises(ModelLoadError, match="no room for bytes"):
        Tokenizer.bare(255)


def test_added_tokens_out_of_order_are_named(path, tmp_path):
    data = json.loads((path / "tokenizer.json").read_text())
    data["added_tokens"][-1]["id"] = 270
    with pytest.raises(ModelLoadError, match=r"assistant.* out of order"):
        Tokenizer.from_folder(edit(path, tmp_path, "tokenizer.json", added_tokens=data["added_tokens"]))
