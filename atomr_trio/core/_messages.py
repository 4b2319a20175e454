"""What a client says: roles, content parts, messages, and the batch that carries one request."""

import enum
from typing import Any

from attrs import field, frozen

from ._errors import BadRequest
from ._reading import AnswerForm
from ._rendering import Rendering
from ._sampling import SamplingParams
from ._tools import ToolCall, ToolOffer

__all__ = [
    "ContentPart",
    "ExecuteBatch",
    "ImageBase64",
    "ImageUrl",
    "Message",
    "MessageContent",
    "Role",
    "TextPart",
]


class Role(enum.StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@frozen
class TextPart:
    """A piece of text."""

    text: str


@frozen
class ImageBase64:
    """An image in the message itself; ``data`` is base64."""

    mime: str
    data: str


@frozen
class ImageUrl:
    """An image elsewhere."""

    url: str


ContentPart = TextPart | ImageBase64 | ImageUrl
MessageContent = str | tuple[ContentPart, ...]


@frozen
class Message:
    """One turn of a conversation.

    Args:
        role: who speaks.
        content: what is said.
        tool_calls: the functions that the assistant called in this turn.
        tool_call_id: of a tool's result: the call that it answers.
        name: of a tool's result: the function, where it is known.
        reasoning: what the assistant thought before it spoke.
    """

    role: Role = field(converter=Role)
    content: MessageContent
    tool_calls: tuple[ToolCall, ...] = field(default=(), converter=tuple, kw_only=True)
    tool_call_id: str = field(default="", kw_only=True)
    name: str = field(default="", kw_only=True)
    reasoning: str = field(default="", kw_only=True)

    @property
    def text(self) -> str:
        """The text of the message: the plain string, or its text parts joined.

        Raises:
            BadRequest: a part is not text.
        """
        if isinstance(self.content, str):
            return self.content
        texts: list[str] = []
        for part in self.content:
            if not isinstance(part, TextPart):
                raise BadRequest("only text content is supported by this model", param="messages")
            texts.append(part.text)
        return "".join(texts)


@frozen(kw_only=True)
class ExecuteBatch:
    """One request, as runners see it. (The name is the seed's; a batch holds one request.)

    Args:
        request_id: unique among the requests in flight.
        model: the deployment's name.
        messages: the conversation, or empty for a plain completion.
        prompt: the text, or the token ids, of a plain completion.
        sampling: how to draw tokens and when to stop.
        tools: the functions that the model may call; ``None``: none.
        rendering: how the conversation is put into the model's chat template.
        embed: the answer is no text but an ``Embedding`` of the prompt, in one chunk.
        stream: the client reads as tokens come. Runners may ignore it.
        estimated_tokens: a guess for limiters; never below 1.
        prompt_ids: the prompt as token ids, filled in by the deployment's codec before the request is routed.
        form: how to read the answer, filled in by the codec; ``None``: it is plain text.
        generated: token ids that were already sent to the client. A resumable runner continues after them.
        priority: lower runs sooner where requests wait, in [-100, 100]; 0 is usual. Runners may ignore it.
        cache_salt: what was computed for a prompt is used again only for requests of the same salt. With one for each
            tenant, none can learn by the clock what others ask.
        metadata: trace ids and the like; opaque to runners.
    """

    request_id: str
    model: str
    messages: tuple[Message, ...] = field(default=(), converter=tuple)
    prompt: str | tuple[int, ...] | None = None
    sampling: SamplingParams = field(factory=SamplingParams)
    tools: ToolOffer | None = None
    rendering: Rendering = field(factory=Rendering)
    embed: bool = False
    stream: bool = False
    estimated_tokens: int = field(default=1, converter=lambda value: max(1, int(value)))
    prompt_ids: tuple[int, ...] | None = None
    form: AnswerForm | None = None
    generated: tuple[int, ...] = ()
    priority: int = 0
    cache_salt: str = ""
    metadata: dict[str, Any] = field(factory=dict[str, Any], eq=False)

    @property
    def last_user_text(self) -> str:
        """The text of the last user message, or the prompt of a plain completion; empty if there is neither."""
        for message in reversed(self.messages):
            if message.role is Role.USER:
                return message.text
        return self.prompt if isinstance(self.prompt, str) else ""
