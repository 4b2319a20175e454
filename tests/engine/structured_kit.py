"""What random answers need: a tiny model whose vocabulary can spell, schemas, and requests that keep to them."""

import json

from engine_kit import MAX_LEN, request, tiny_settings
from hypothesis import strategies as st

from atomr_trio.core import Grammar

LONGER = [b'{"', b'":', b'", "', b'": ', b"true", b"false", b"null", b"ab", b'"}', b"],", b'"a', b"0.", b"\n  ", b"}}"]
TOKENS = [*(bytes([byte]) for byte in range(256)), *LONGER, b"<end>", b"<turn>"]
END, TURN = len(TOKENS) - 2, len(TOKENS) - 1
VOCAB = 288
LENGTH = 2 * MAX_LEN


def spelling_settings(folder, programs_dir):
    """Settings of a dummy model of 288 logits, with a context long enough for small objects."""
    sizes = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB, "max_position_embeddings": LENGTH,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": END,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(sizes))
    return tiny_settings(
        programs_dir, model=str(folder / "config.json"), max_model_len=LENGTH, kv_tokens=8 * LENGTH, prefill_chunk=64,
        prefill_chunk_busy=64,
    )  # fmt: skip


def wanted(number, grammar, max_tokens=100, **changes):
    """A request for a random answer."""
    values = {"temperature": 1.0, "seed": number, "eos_ids": [END, TURN], **changes}
    return request(number, [1, 2, 3], max_tokens, grammar=grammar, **values)


def text_of(ids):
    """The text of an answer that has ended."""
    assert ids[-1] in (END, TURN)
    return b"".join(TOKENS[id] for id in ids[:-1]).decode()


def _integers():
    return st.tuples(st.integers(-50, 50), st.integers(0, 60)).map(
        lambda bounds: {"type": "integer", "minimum": bounds[0], "maximum": sum(bounds)}
    )


def _texts():
    lengths = st.tuples(st.integers(0, 2), st.integers(0, 4))
    return (
        lengths.map(lambda at: {"type": "string", "minLength": at[0], "maxLength": sum(at)})
        | st.sampled_from(["^a{1,3}$", "^(x|yz)[0-9]$", "^é?$"]).map(lambda it: {"type": "string", "pattern": it})
        | st.sampled_from(["date", "ipv4"]).map(lambda it: {"type": "string", "format": it})
    )


def _arrays(items):
    return st.tuples(items, st.integers(0, 2), st.integers(0, 2)).map(
        lambda it: {"type": "array", "items": it[0], "minItems": it[1], "maxItems": it[1] + it[2]}
    )


@st.composite
def _objects(draw, values):
    names = draw(st.lists(st.sampled_from(["a", "b", "né", 'q"', "a b"]), max_size=3, unique=True))
    schema = {"type": "object", "properties": {name: draw(values) for name in names}}
    if draw(st.booleans()) and names:
        schema["required"] = draw(st.lists(st.sampled_from(names), unique=True))
    if draw(st.booleans()):
        schema["additionalProperties"] = draw(st.sampled_from([False, {"type": "boolean"}]))
    return schema


_leaves = (
    _integers()
    | _texts()
    | st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "number", "minimum": 0, "maximum": 1}])
    | st.lists(st.sampled_from([1, -2.5, True, None, "a", 'q"\n', [1], {"a": []}]), min_size=1, unique_by=repr).map(
        lambda values: {"enum": values}
    )
    | st.sampled_from([0, "x", None]).map(lambda value: {"const": value})
    | st.just({"type": ["integer", "null"]})
)
schemas = st.recursive(
    _leaves,
    lambda inner: _arrays(inner) | _objects(inner) | st.lists(inner, min_size=1, max_size=2).map(
        lambda either: {"anyOf": either}
    ),
    max_leaves=6,
)  # fmt: skip
"""Schemas that have an answer."""


def json_grammar(schema):
    return Grammar("json", json.dumps(schema))
