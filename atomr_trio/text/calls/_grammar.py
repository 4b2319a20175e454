"""The grammar of an answer: calls, what the client wants, and the reasoning before either."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from atomr_trio.core import Grammar, Tool

from ._layout import Layout

__all__ = ["answer_rule", "call_grammar"]

# Written as the models were trained to; free white space would let a weak one go on with it for ever.
_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_THOUGHT = "/(?s:.*)/"


def call_grammar(
    layout: Layout | None,
    tools: Sequence[Tool],
    *,
    parallel: bool = True,
    answer: str | None = None,
    thoughts: tuple[str, str] | None = None,
    thinking: bool = False,
    control: Mapping[str, int] | None = None,
) -> Grammar:
    """Return the grammar of answers that are calls, or what the client wants instead, and nothing else.

    Args:
        layout: how calls are written; ``None``: there are none.
        tools: those that may be called, one at least if there are calls.
        parallel: there may be several calls.
        answer: the rule of what may be said instead; ``None``: nothing.
        thoughts: what reasoning begins and ends with; it may come first.
        thinking: the reasoning has begun in the prompt.
        control: ids of the marks that are control tokens in this model, by their spelling.
    """
    spell = _Speller(control or {})
    bodies = [name for name, there in (("calls", layout is not None), ("answer", answer is not None)) if there]
    rules = [" ".join(["start:", *_thought(thoughts, thinking=thinking), f"({' | '.join(bodies)})"])]
    rules += _thought_rules(thoughts, spell, thinking=thinking)
    if answer is not None:
        rules.append(f"answer: {answer}")
    if layout is not None:
        rules += _call_rules(layout, tools, spell, parallel=parallel)
    return Grammar("lark", "\n".join(rules) + "\n")


class _Speller:
    """Writes text and rules one after the other; control tokens are told by their ids, since they have no text."""

    def __init__(self, control: Mapping[str, int]) -> None:
        self._control = control
        self._marks = re.compile("|".join(map(re.escape, control)) or r"(?!)")

    def __call__(self, before: str, rule: str = "", after: str = "") -> str:
        return " ".join(part for part in (*self._spelled(before), rule, *self._spelled(after)) if part)

    def _spelled(self, text: str) -> Iterator[str]:
        at = 0
        for found in self._marks.finditer(text):
            yield from self._quoted(text[at : found.start()])
            yield f"<[{self._control[found[0]]}]>"
            at = found.end()
        yield from self._quoted(text[at:])

    def _quoted(self, text: str) -> Iterator[str]:
        if text:
            yield json.dumps(text, ensure_ascii=False)


def _call_rules(layout: Layout, tools: Sequence[Tool], spell: _Speller, *, parallel: bool) -> Iterator[str]:
    more = [f"({spell(layout.join, 'call')})*"] if parallel else []
    yield " ".join(["calls:", spell(layout.head, "call"), *more, spell(layout.tail)])
    yield f"call: {' | '.join(f'call_{number}' for number in range(len(tools)))}"
    for number, tool in enumerate(tools):
        yield f"call_{number}: {spell(layout.opening(tool.name), f'arguments_{number}', layout.after)}"
        yield f"arguments_{number}: %json {_schema(tool)}"


def _thought(thoughts: tuple[str, str] | None, *, thinking: bool) -> Iterator[str]:
    if thoughts is not None:
        yield "thought" if thinking else "thought?"


def _thought_rules(thoughts: tuple[str, str] | None, spell: _Speller, *, thinking: bool) -> Iterator[str]:
    if thoughts is None:
        return
    opens, closes = thoughts
    yield f"thought: {spell('' if thinking else opens, 'inner')} /[ \\n]{{0,2}}/"
    ending = spell(closes)
    # A rule with a suffix ends at the first place where it can.
    yield f"inner[suffix={ending}]: {_THOUGHT}" if ending.startswith('"') else f"inner: {_THOUGHT} {ending}"


def _schema(tool: Tool) -> str:
    schema: dict[str, Any] = {"properties": {}, "additionalProperties": False} if not tool.parameters else {}
    return _json_text({**schema, **tool.parameters, "type": "object"})


def _json_text(schema: Mapping[str, Any]) -> str:
    return json.dumps({"x-guidance": _STYLE, **schema}, ensure_ascii=False)


def answer_rule(own: Grammar) -> str | None:
    """Return a client's grammar as a rule beside others; ``None``: it cannot be one, and has to stand alone."""
    try:
        match own.kind:
            case "json":
                return f"%json {_json_text({**json.loads(own.text)})}"
            case "choice":
                return " | ".join([json.dumps(str(choice), ensure_ascii=False) for choice in json.loads(own.text)])
            case "regex":
                return f"/{_SLASH.sub(_escaped, own.text)}/"
            case _:
                return None
    except (ValueError, TypeError, RecursionError):
        # What is wrong with it is told by those who read it.
        return None


# A line break and a slash would end the expression; what is escaped already is left alone.
_SLASH = re.compile(r"\\.|/|\n", re.DOTALL)
_ESCAPES = {"/": r"\/", "\n": r"\n"}


def _escaped(found: "re.Match[str]") -> str:
    return _ESCAPES.get(found[0], found[0])
