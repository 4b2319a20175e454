"""``POST /v1/responses``: the request, and its translation. Nothing is stored: each request has its whole input."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from atomr_trio.core import BadRequest, Message, Role, SamplingParams, Tokenize

from ._conversation import Conversation
from ._decode import decode_body
from ._fields import (
    MAX_TOP_LOGPROBS,
    Count,
    MetadataKey,
    MetadataValue,
    Share,
    StreamOptions,
    decoder_of,
    refuse_unsupported,
)
from ._generation import Generation
from ._responses_input import ItemIn, item_turn
from ._responses_objects import ResponseObject, TextFields
from ._responses_text import FreeText, TextConfig, text_structure
from ._responses_tools import FunctionTool, ResponseChoice, response_offer
from ._turns import joined_turns
from ._urgency import AskedTier, Priority, priority_of, served_tier

__all__ = [
    "RESPONSES_NEUTRAL",
    "ResponsesRequest",
    "decode_response",
    "response_begun",
    "response_generation",
    "response_question",
]

LOGPROBS = "message.output_text.logprobs"


class ReasoningConfig(Struct):
    """How much the model shall think."""

    effort: str | None = None


class ResponsesRequest(Struct, kw_only=True):
    """The fields of a response that this server knows. Others are ignored."""

    model: str
    input: str | Annotated[list[ItemIn], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Share | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    include: list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    service_tier: AskedTier | None = None
    priority: Priority | None = None
    # Notes for the operator; they do not change the answer.
    metadata: Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)] | None = None
    user: str | None = None
    parallel_tool_calls: bool | None = None
    # Nothing is stored, and nothing is cut to fit: what does not fit is refused.
    store: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: ResponseChoice | None = None
    text: TextConfig | None = None
    # Known, and refused when they ask for something.
    reasoning: ReasoningConfig | None = None
    background: bool | None = None
    conversation: Any = None
    previous_response_id: str | None = None
    prompt: Any = None


_STATEFUL: Mapping[str, tuple[Any, ...]] = {"background": (False,), "conversation": (), "previous_response_id": ()}
RESPONSES_NEUTRAL: Mapping[str, tuple[Any, ...]] = {**_STATEFUL, "prompt": ()}
_DECODER = decoder_of(ResponsesRequest)


def decode_response(body: bytes) -> ResponsesRequest:
    """Decode and validate a request's body.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    request: ResponsesRequest = decode_body(_DECODER, body)
    _refuse_state(request)
    refuse_unsupported(request, RESPONSES_NEUTRAL)
    _refuse_forms(request)
    if request.stream_options is not None and not request.stream:
        raise BadRequest("`stream_options` is allowed only with `stream: true`", param="stream_options")
    return request


def response_generation(request: ResponsesRequest, id: str) -> Generation:
    """Translate a request.

    Args:
        request: from `decode_response`.
        id: the answer's id; also the batch's, so it must be unique among the requests in flight.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    return _conversation(request).generation(
        id,
        _sampling(request),
        stream=request.stream,
        cache_salt=request.cache_salt,
        priority=priority_of(request.service_tier, request.priority),
        prompt_param="input",
        structure=text_structure(request.text),
    )


def response_question(request: ResponsesRequest) -> Tokenize:
    """Ask for the tokens of the prompt that `response_generation` makes.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    return _conversation(request).question()


def _conversation(request: ResponsesRequest) -> Conversation:
    offer = response_offer(request.tools or (), request.tool_choice, request.parallel_tool_calls)
    return Conversation(model=request.model, turns=_messages(request), offer=offer)


def response_begun(request: ResponsesRequest, id: str, created: int) -> ResponseObject:
    """The answer before there is anything of it.

    Args:
        request: from `decode_response`.
        id: the answer's id.
        created: Unix seconds.
    """
    return ResponseObject(
        id=id,
        created_at=created,
        model=request.model,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata or {},
        parallel_tool_calls=request.parallel_tool_calls is not False,
        service_tier=served_tier(request.service_tier),
        temperature=1.0 if request.temperature is None else request.temperature,
        text=TextFields((request.text and request.text.format) or FreeText()),
        tool_choice=request.tool_choice or "auto",
        tools=request.tools or [],
        top_logprobs=request.top_logprobs or 0,
        top_p=1.0 if request.top_p is None else request.top_p,
        truncation=request.truncation or "disabled",
        user=request.user,
    )


def _refuse_state(request: ResponsesRequest) -> None:
    try:
        refuse_unsupported(request, _STATEFUL)
    except BadRequest as error:
        message = f"`{error.param}` needs stored responses, and this server stores none: send the whole input"
        raise BadRequest(message, param=error.param) from None


def _refuse_forms(request: ResponsesRequest) -> None:
    if request.text is not None and request.text.verbosity not in (None, "medium"):
        raise BadRequest("`text.verbosity` is not supported by this server", param="text.verbosity")
    if request.reasoning is not None and request.reasoning.effort not in (None, "none"):
        raise BadRequest("`reasoning.effort` is not supported by this server", param="reasoning.effort")


def _sampling(request: ResponsesRequest) -> SamplingParams:
    return SamplingParams(
        temperature=request.temperature,
        top_p=None if request.top_p is None else max(request.top_p, 1e-9),
        max_tokens=request.max_output_tokens,
        logprobs=LOGPROBS in (request.include or ()),
        top_logprobs=request.top_logprobs or 0,
    )


def _messages(request: ResponsesRequest) -> list[Message]:
    items = [ItemIn(role="user", content=request.input)] if isinstance(request.input, str) else request.input
    # Reasoning that is told in a summary only, or encrypted, says nothing to a model.
    said = [(at, item) for at, item in enumerate(items) if item.type != "reasoning" or item.content]
    turns = joined_turns([item_turn(item, f"input[{at}]") for at, item in said])
    if not turns:
        raise BadRequest("`input` has no message", param="input")
    instructions = [Message(Role.SYSTEM, request.instructions)] if request.instructions else []
    return joined_turns([*instructions, *turns])
