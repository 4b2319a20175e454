"""How a model's text is read: what is said to the user, what is thought, what is called."""

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import field, frozen

__all__ = ["AnswerForm", "AnswerReader", "Called", "Piece", "Said", "Thought"]


@frozen
class Said:
    """Text for the user."""

    text: str


@frozen
class Thought:
    """Text of the model's reasoning."""

    text: str


@frozen
class Called:
    """A whole call of a function that was offered; ``arguments`` is a JSON object, as text."""

    name: str
    arguments: str


Piece = Said | Thought | Called


class AnswerReader(Protocol):
    """Reads one answer while it comes. All pieces together do not depend on how its text is portioned."""

    def push(self, text: str, /) -> Sequence[Piece]:
        """Take more text; return what is certain now."""
        ...

    def finish(self) -> Sequence[Piece]:
        """Return what was held back: no more text comes."""
        ...


@frozen(kw_only=True)
class AnswerForm:
    """What the text of an answer is made of besides plain text.

    Args:
        calls: the name of the form in which functions are called; empty: no calls are looked for.
        thoughts: what reasoning begins and ends with; ``None``: there is none.
        thinking: the prompt has begun the reasoning already.
        reader: makes a reader for an answer of this form.
    """

    calls: str = ""
    thoughts: tuple[str, str] | None = None
    thinking: bool = False
    reader: Callable[[], AnswerReader] = field(eq=False, repr=False)
