"""What there is to know of one way to call functions."""

from collections.abc import Callable, Mapping, Sequence

from attrs import field, frozen

from atomr_trio.core import Called
from atomr_trio.text.feed import Feed, Reading

from ._layout import Layout

__all__ = ["CallForm", "Offered", "ReadCalls"]

Offered = Mapping[str, Sequence[str]]
"""The names of the functions that may be called, and of their parameters, in order."""

ReadCalls = Callable[[Feed, str, Offered], Reading[list[Called] | None]]
"""Reads what comes after an opening, which was taken: calls, or ``None`` if it is something else after all."""


@frozen(kw_only=True)
class CallForm:
    """One way in which models call functions.

    Args:
        name: what deployments call it.
        openings: what calls begin with, wherever in the answer; none is the begin of another.
        closing: what may come after a call and is part of it.
        between: what may stand between bare calls.
        bare: a call may also be a bare JSON object that begins the answer, or comes after a call.
        read: reads a call.
        layout: how to write calls.
        control: openings and marks that may be control tokens, which have no text otherwise.
        lesson: tells a model whose template knows no tools how to call them; ``{tools}`` are these, ``{calls}`` an
            example.
        result: how such a model gets a result; ``{content}`` is what the tool said.
    """

    name: str
    openings: tuple[str, ...]
    closing: str = ""
    between: str = ""
    bare: bool = False
    read: ReadCalls = field(repr=False)
    layout: Layout
    control: tuple[str, ...] = ()
    lesson: str = field(repr=False)
    result: str = "<tool_response>\n{content}\n</tool_response>"
