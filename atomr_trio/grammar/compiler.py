"""Reads rules with llguidance: for guides, and as a program of its own that says whether a rule can be read.

As a program it takes a question on its standard input and puts the answer on its standard output. The reader has
limits, but not for everything: a few hundred bytes can make it work for minutes, or overflow its stack. So a rule is
read first where that harms nobody. It imports nothing of the package, so that it starts fast.
"""

import json
import re
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["LIMITS", "UnreadableRule", "new_matcher", "new_tokenizer"]

LIMITS: dict[str, Any] = {
    # About 20 ms for the first mask of a grammar and 10 ms for a later one, at most; most take a tenth of one.
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 25_000,
    # 1 to 2 kB each.
    "max_lexer_states": 20_000,
    # Its errors would tell the state of the reader at length.
    "verbose_errors": False,
}

CPU_SECONDS = 2
"""How long the reading may take, the start of the program included."""

MEMORY_BYTES = 2 * 1024**3
STACK_BYTES = 4 * 1024**2
"""Less than a thread of the device process has, so that what can be read here can be read there."""

_FREE = '\n%llguidance {"no_forcing": true}\n'
"""The model chooses among all spellings of what the grammar leaves no choice about, as it would by itself."""

_REST = re.compile(r"\n<|; following|\n\s*\d+ \| ")


class UnreadableRule(Exception):
    """The rule is wrong, or beyond the limits; the text says why."""


class _Words:
    """A vocabulary in the form that llguidance takes."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], special_ids: Sequence[int], end: int) -> None:
        self.tokens = list(tokens)
        self.special_token_ids = list(special_ids)
        self.eos_token_id = end
        self.spell: Callable[[str], list[int]] = lambda _text: []

    def __call__(self, text: str) -> list[int]:
        return self.spell(text)


def new_tokenizer(tokens: Sequence[bytes], special_ids: Sequence[int], end: int) -> Any:
    """Return a vocabulary that rules are compiled for. Takes about 5 µs a token, and does not share the interpreter.

    Args:
        tokens: what each token stands for; an empty one is never said.
        special_ids: control tokens: no text is spelled with them.
        end: the token that may come where the rule is complete.
    """
    from llguidance import LLTokenizer

    words = _Words(tokens, special_ids, end)
    made: Any = LLTokenizer(words)  # pyright: ignore[reportArgumentType]
    words.spell = made.greedy_tokenize
    return made


def new_matcher(tokenizer: Any, kind: str, text: str) -> Any:
    """Return what follows a rule, token by token.

    Raises:
        UnreadableRule: it is wrong or too complex, or there is nothing that it allows.
    """
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(**LIMITS)  # pyright: ignore[reportArgumentType]
    matcher: Any = LLMatcher(tokenizer, _lark(kind, text) + _FREE, log_level=0, limits=limits)
    scout: Any = matcher.deep_copy()
    _look_ahead(scout)
    if scout.is_error():
        raise UnreadableRule(explain(scout.get_error()))
    return matcher


def _look_ahead(matcher: Any) -> None:
    # Masks find out what the compilation leaves open: rules without an answer, and too many ways to go on.
    mask = int.from_bytes(matcher.compute_bitmask(), "little")
    if matcher.is_error() or not mask:
        return
    matcher.consume_token((mask & -mask).bit_length() - 1)
    if not matcher.is_stopped():
        matcher.compute_bitmask()


def explain(error: str) -> str:
    """Return what a client needs of the reader's words."""
    if "NoExtension" in error:
        return "there is no answer that it allows"
    # Not the state of the reader, the list of all control tokens, or the rule itself.
    return " ".join(_REST.split(error, maxsplit=1)[0].split())[:300]


def _lark(kind: str, text: str) -> str:
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import any_to_lark

    if kind == "regex":
        return json.loads(LLMatcher.grammar_from_regex(text))["grammars"][0]["lark_grammar"]
    if kind == "lark":
        return text
    try:
        return any_to_lark(text)
    except Exception as error:
        raise UnreadableRule(explain(f"it is neither Lark (with a rule `start`) nor GBNF: {error}")) from None


def _answer(question: dict[str, Any]) -> dict[str, str | None]:
    """Read a rule for a vocabulary of single bytes, and of the control tokens that it may name."""
    special = {int(id): name.encode() for id, name in question["special"].items()}
    size = max(question["vocab_size"], 257 + len(special))
    tokens = [special.get(id, b"") for id in range(size)]
    plain = (id for id in range(size) if id not in special)
    for byte in range(256):
        tokens[next(plain)] = bytes([byte])
    end = next(iter(special), size - 1)
    try:
        new_matcher(new_tokenizer(tokens, [*special, end], end), question["kind"], question["text"])
    except UnreadableRule as error:
        return {"error": str(error)}
    return {"error": None}


def _bound() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    threading.stack_size(STACK_BYTES)


def _serve() -> None:
    sys.stdout.write(json.dumps(_answer(json.load(sys.stdin))))


def _main() -> None:
    _bound()
    reader = threading.Thread(target=_serve)
    reader.start()
    reader.join()


if __name__ == "__main__":
    _main()
