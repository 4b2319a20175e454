"""How each family of byte-level BPE splits text before merging, by the name in ``tokenizer.ggml.pre``."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from attrs import frozen
from tokenizers import Regex, pre_tokenizers

from atomr_trio.core import ModelLoadError

__all__ = ["Family", "family_of", "pre_tokenizer"]

_DIGIT = r"\p{N}"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_LLAMA3 = _WORDS + r"\p{N}{1,3}" + _TAIL
_QWEN2 = _WORDS + _DIGIT + _TAIL


@frozen
class Family:
    """One way of splitting.

    Args:
        patterns: regular expressions; each splits further what the one before left. Matches are pieces, and so are
            the gaps between them.
        whole_words: a piece that is a token is taken as it is, without merging.
        adds_bos: a prompt begins with the begin-of-sequence token unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False


_GPT2_FAMILY = Family((_GPT2,))
_DIGITS_FAMILY = Family((_DIGIT, _GPT2))
_LLAMA3_FAMILY = Family((_LLAMA3,), whole_words=True, adds_bos=True)
_QWEN2_FAMILY = Family((_QWEN2,))
_DEFAULT_FAMILY = Family((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))

_FAMILIES = {
    "default": _DEFAULT_FAMILY,
    "gpt-2": _GPT2_FAMILY,
    "gpt2": _GPT2_FAMILY,
    "phi-2": _GPT2_FAMILY,
    "olmo": _GPT2_FAMILY,
    "smollm": _DIGITS_FAMILY,
    "starcoder": _DIGITS_FAMILY,
    "refact": _DIGITS_FAMILY,
    "codeshell": _DIGITS_FAMILY,
    "command-r": _DIGITS_FAMILY,
    "llama3": _LLAMA3_FAMILY,
    "llama-v3": _LLAMA3_FAMILY,
    "llama-bpe": _LLAMA3_FAMILY,
    "dbrx": Family((_LLAMA3,)),
    "smaug-bpe": Family((_LLAMA3,)),
    "qwen2": _QWEN2_FAMILY,
    "deepseek-r1-qwen": _QWEN2_FAMILY,
    "stablelm2": _QWEN2_FAMILY,
}


def family_of(name: str) -> Family:
    """Return the family with this ``tokenizer.ggml.pre`` name.

    Raises:
        ModelLoadError: the name is unknown.
    """
    try:
        return _FAMILIES[name]
    except KeyError:
        known = ", ".join(sorted(_FAMILIES))
        raise ModelLoadError(f"unknown pre-tokenizer `{name}`; known are {known}") from None


def pre_tokenizer(family: Family) -> pre_tokenizers.PreTokenizer:
    """Build the splitter: the family's patterns, then bytes as characters."""
    # The byte step has GPT-2's pattern built in, a third faster than as a general expression. It turns bytes into
    # characters too, so it can stand in for that pattern only at the end.
    built_in = family.patterns[-1] == _GPT2
    patterns = family.patterns[:-1] if built_in else family.patterns
    to_characters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=built_in)
    return pre_tokenizers.Sequence([*map(_split, patterns), to_characters])


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    if pattern == _DIGIT:
        return pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")
