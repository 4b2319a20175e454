"""An item of an answer of ``/v1/responses`` of which more may come."""

from typing import Any

from attrs import define, field

from atomr_trio.core import Said, Thought

from ._objects import ChatToken
from ._responses_objects import OutputItem, OutputMessage, OutputReasoning, OutputText, ReasoningText, Status

__all__ = ["OpenItem"]

Part = OutputText | ReasoningText


@define
class OpenItem:
    """A message or reasoning.

    Args:
        kind: what its text is.
        id: of the item.
    """

    kind: type[Said | Thought]
    id: str
    texts: list[str] = field(factory=list[str])
    tokens: list[ChatToken] = field(factory=list[ChatToken])

    @property
    def event(self) -> str:
        """What its events are called."""
        return "response.output_text" if self.kind is Said else "response.reasoning_text"

    @property
    def part(self) -> Part:
        """What there is of it."""
        text = "".join(self.texts)
        return OutputText(text, logprobs=self.tokens) if self.kind is Said else ReasoningText(text)

    def item(self, status: Status, *parts: Part) -> OutputItem:
        """The item with these parts."""
        content: list[Any] = list(parts)
        made = OutputMessage if self.kind is Said else OutputReasoning
        return made(self.id, status, content)
