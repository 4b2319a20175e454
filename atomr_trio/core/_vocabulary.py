"""The tokenizer of a model, for those who ask for tokens and not for an answer."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from attrs import field, frozen

from ._messages import Message
from ._rendering import Rendering
from ._tools import ToolOffer

__all__ = ["Tokenize", "Vocabulary"]


@frozen(kw_only=True)
class Tokenize:
    """Ask for the tokens of a text, or of a conversation in its model's template.

    Args:
        model: the deployment's name.
        messages: the conversation; empty: ``text`` is meant.
        text: the text.
        tools: the functions that the model may call in its answer to the conversation.
        add_special: put the begin-of-sequence token in front, if the model wants one there.
        parse_special: the names of control tokens in the text mean these tokens. Off, they are plain text.
        rendering: how the conversation is put into the template.
    """

    model: str
    messages: tuple[Message, ...] = field(default=(), converter=tuple)
    text: str = ""
    tools: ToolOffer | None = None
    add_special: bool = True
    parse_special: bool = True
    rendering: Rendering = field(factory=Rendering)


@runtime_checkable
class Vocabulary(Protocol):
    """What a ``PromptCodec`` has besides if it can tell tokens to clients. Pure; may take ms per 10,000 characters."""

    def tokenize(self, question: Tokenize, /) -> tuple[int, ...]:
        """Return the token ids, as many as there are: the context's length is no limit here.

        Raises:
            BadRequest: the messages do not fit the model's template, or the text is not valid Unicode.
        """
        ...

    def spell(self, ids: Sequence[int], /) -> tuple[bytes, ...]:
        """Return the bytes of each token, those of its name for a control token; together they are the text.

        Raises:
            BadRequest: an id is outside the vocabulary.
        """
        ...
