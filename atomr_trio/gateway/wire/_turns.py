"""Conversations for APIs that take any order of turns, where templates want the sides to alternate."""

from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import groupby

from attrs import evolve

from atomr_trio.core import Message, Role

from ._tool_fields import result_names

__all__ = ["joined", "joined_turns"]


def joined_turns(turns: Iterable[Message]) -> list[Message]:
    """The turns, of which those of one side that follow each other are one, with an empty line in between.

    Each result of a tool stays a turn of its own, and gets the name of its function. What the assistant only thought,
    and said nothing after it, is left out.
    """
    return [turn for turn in result_names(joined(turns, "\n\n")) if turn.text or turn.tool_calls or not turn.reasoning]


def joined(turns: Iterable[Message], between: str) -> Iterator[Message]:
    """The turns, of which those of one side that follow each other are one; results of tools stay apart."""
    for role, same in groupby(turns, key=lambda turn: turn.role):
        if role is Role.TOOL:
            yield from same
        else:
            yield reduce(lambda first, second: _and(first, second, between), same)


def _and(first: Message, second: Message, between: str) -> Message:
    return evolve(
        first,
        content=between.join(filter(None, (first.text, second.text))),
        tool_calls=(*first.tool_calls, *second.tool_calls),
        reasoning=between.join(filter(None, (first.reasoning, second.reasoning))),
    )
