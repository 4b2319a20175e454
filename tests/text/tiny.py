"""A tokenizer small enough to check by hand: every byte, a few merges, control and user-defined tokens."""

from atomr_trio.text._bytelevel import _BYTE_OF

BYTE_TOKENS = [chr(point) for point, _byte in sorted(_BYTE_OF.items(), key=lambda item: item[1])]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello", "Ã ©", "ð Ł", "ðŁ ĺ"]
MERGED = [merge.replace(" ", "") for merge in MERGES]
CONTROL = ["<|bos|>", "<|im_end|>", "<|eos|>"]
USER = ["<think>", "日本"]
TOKENS = [*BYTE_TOKENS, *MERGED, *CONTROL, *USER]
BOS, IM_END, EOS = (TOKENS.index(name) for name in CONTROL)
THINK, NIHON = (TOKENS.index(name) for name in USER)


def tiny_fields(**changes):
    """The fields of a GGUF file; keyword arguments replace `tokenizer.ggml.*` fields, ``None`` removes one."""
    plain = len(BYTE_TOKENS) + len(MERGED)
    fields = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": TOKENS,
        "token_type": [1] * plain + [3] * len(CONTROL) + [4] * len(USER),
        "merges": MERGES,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "add_bos_token": True,
        **changes,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items() if value is not None}
