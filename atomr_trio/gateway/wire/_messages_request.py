"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: the requests, and their translation."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from atomr_trio.core import BadRequest, Message, Role, SamplingParams, Tokenize

from ._conversation import Conversation
from ._decode import decode_body
from ._fields import MAX_TOKEN_ID, Count, Share, StopString, decoder_of, refuse_unsupported
from ._generation import Generation
from ._messages_content import Block, TextIn, content_turns
from ._messages_tools import ToolChoice, ToolIn, messages_offer
from ._rendering import rendering_of
from ._structure import json_structure
from ._turns import joined_turns

__all__ = [
    "COUNT_NEUTRAL",
    "MESSAGES_NEUTRAL",
    "CountRequest",
    "MessagesRequest",
    "decode_count",
    "decode_messages",
    "messages_generation",
    "messages_question",
]


class MessageIn(Struct):
    """One turn, as clients send it."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Metadata(Struct):
    """Notes for the operator; they do not change the answer."""

    user_id: str | None = None


class Thinking(Struct):
    """Whether the model shall think before it speaks."""

    type: Literal["enabled", "disabled", "adaptive"]


class JsonOutput(Struct, tag_field="type", tag="json_schema"):
    """JSON that a schema describes."""

    schema: dict[str, Any]


class OutputConfig(Struct):
    """How the answer shall look. The effort is the model's own."""

    format: JsonOutput | None = None


class CountRequest(Struct, kw_only=True):
    """The fields that make the prompt. Others are ignored."""

    model: str
    messages: Annotated[list[MessageIn], Meta(min_length=1)]
    system: str | list[TextIn] | None = None
    tools: list[ToolIn] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    # Known, and refused when it asks for something.
    mcp_servers: Any = None


class MessagesRequest(CountRequest, kw_only=True):
    """The fields of a message that this server knows. Others are ignored."""

    max_tokens: Count
    stop_sequences: Annotated[list[StopString], Meta(max_length=64)] | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)] | None = None
    top_p: Share | None = None
    stream: bool | None = None
    metadata: Metadata | None = None
    # Prompts are found in the prefix cache only under the salt that they were computed with.
    cache_salt: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    container: Any = None


COUNT_NEUTRAL: Mapping[str, tuple[Any, ...]] = {"mcp_servers": ([],)}
MESSAGES_NEUTRAL: Mapping[str, tuple[Any, ...]] = {**COUNT_NEUTRAL, "container": ()}
_COUNTING = decoder_of(CountRequest)
_DECODER = decoder_of(MessagesRequest)


def decode_count(body: bytes) -> CountRequest:
    """Decode and validate the body of a question for the length of a prompt.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    request: CountRequest = decode_body(_COUNTING, body)
    _check(request, COUNT_NEUTRAL)
    return request


def decode_messages(body: bytes) -> MessagesRequest:
    """Decode and validate a request's body.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    request: MessagesRequest = decode_body(_DECODER, body)
    _check(request, MESSAGES_NEUTRAL)
    return request


def messages_generation(request: MessagesRequest, id: str) -> Generation:
    """Translate a request.

    Args:
        request: from `decode_messages`.
        id: the answer's id; also the batch's, so it must be unique among the requests in flight.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    output = None if request.output_config is None else request.output_config.format
    return _conversation(request).generation(
        id,
        _sampling(request),
        stream=request.stream,
        cache_salt=request.cache_salt,
        structure=None if output is None else json_structure(output.schema, "output_config.format.schema"),
    )


def messages_question(request: CountRequest) -> Tokenize:
    """Ask for the tokens of the prompt that `messages_generation` makes.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    return _conversation(request).question()


def _conversation(request: CountRequest) -> Conversation:
    turns = _messages(request)
    # To end with the assistant's turn is this API's way to put words into the model's mouth.
    return Conversation(
        model=request.model,
        turns=turns,
        offer=messages_offer(request.tools or (), request.tool_choice),
        rendering=rendering_of(turns, go_on=turns[-1].role is Role.ASSISTANT),
    )


def _check(request: CountRequest, neutral: Mapping[str, tuple[Any, ...]]) -> None:
    refuse_unsupported(request, neutral)
    if request.thinking is not None and request.thinking.type == "enabled":
        raise BadRequest("`thinking` is not supported by this server", param="thinking")


def _sampling(request: MessagesRequest) -> SamplingParams:
    return SamplingParams(
        temperature=request.temperature,
        top_p=None if request.top_p is None else max(request.top_p, 1e-9),
        top_k=request.top_k,
        max_tokens=request.max_tokens,
        stop=request.stop_sequences or (),
    )


def _messages(request: CountRequest) -> list[Message]:
    turns = [
        turn
        for at, given in enumerate(request.messages)
        for turn in content_turns(Role(given.role), given.content, f"messages[{at}].content")
    ]
    # What the assistant only thought says nothing.
    if not joined_turns(turns):
        raise BadRequest("`messages` has no content", param="messages")
    if request.system:
        turns = [*content_turns(Role.SYSTEM, request.system, "system"), *turns]
    return joined_turns(turns)
