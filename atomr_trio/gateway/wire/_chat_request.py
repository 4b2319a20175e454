"""``POST /v1/chat/completions``: the request, and its translation."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from atomr_trio.core import (
    BadRequest,
    ContentPart,
    ExecuteBatch,
    ImageBase64,
    ImageUrl,
    Message,
    MessageContent,
    Role,
    TextPart,
)

from ._decode import decode_body
from ._fields import (
    MAX_TOP_LOGPROBS,
    NEUTRAL,
    CommonFields,
    Count,
    check_stream_options,
    decoder_of,
    refuse_unsupported,
    sampling_params,
    wants_usage,
)
from ._generation import Generation
from ._rendering import rendering_of
from ._structure import ResponseFormat, structure_of
from ._tool_fields import Choice, OfferedTool, WireCall, message_calls, result_names, tool_offer
from ._urgency import priority_of, served_tier

__all__ = ["CHAT_NEUTRAL", "ChatRequest", "chat_generation", "decode_chat"]


class TextContent(Struct, tag_field="type", tag="text"):
    """A piece of text."""

    text: str


class RefusalContent(Struct, tag_field="type", tag="refusal"):
    """What the assistant said when it refused."""

    refusal: str


class ImageLocation(Struct):
    """Where an image is: a web address, or the image itself as a ``data:`` URL."""

    url: str
    detail: str | None = None


class ImageContent(Struct, tag_field="type", tag="image_url"):
    """An image."""

    image_url: ImageLocation


class AudioContent(Struct, tag_field="type", tag="input_audio"):
    """Sound: known, and refused."""


class FileContent(Struct, tag_field="type", tag="file"):
    """A file: known, and refused."""


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Part = TextContent | RefusalContent | ImageContent | AudioContent | FileContent


class WireMessage(Struct):
    """One turn of the conversation, as clients send it."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    refusal: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[WireCall] | None = None
    function_call: Any = None


class ChatRequest(CommonFields, kw_only=True):
    """The fields of a chat completion that this server knows. Others are ignored."""

    messages: Annotated[list[WireMessage], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    parallel_tool_calls: bool | None = None
    tool_choice: Choice | None = None
    tools: Annotated[list[OfferedTool], Meta(max_length=128)] | None = None
    # Hints and bookkeeping that do not change the answer.
    store: bool | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # What is said to the model's chat template.
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    reasoning_effort: Effort | None = None
    # Known, and refused when they ask for something.
    audio: Any = None
    chat_template: str | None = None
    function_call: Any = None
    functions: Any = None
    modalities: Any = None
    moderation: Any = None
    verbosity: str | None = None
    web_search_options: Any = None


CHAT_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    **NEUTRAL,
    "audio": (),
    "echo": (False,),
    "chat_template": (),
    "modalities": (["text"],),
    "moderation": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}
_ROLES = {"developer": Role.SYSTEM, "function": Role.TOOL}
_DECODER = decoder_of(ChatRequest)


def decode_chat(body: bytes) -> ChatRequest:
    """Decode and validate a request's body.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    request: ChatRequest = decode_body(_DECODER, body)
    refuse_unsupported(request, CHAT_NEUTRAL)
    _refuse_deprecated(request)
    check_stream_options(request)
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("`top_logprobs` is allowed only with `logprobs: true`", param="top_logprobs")
    return request


def _refuse_deprecated(request: ChatRequest) -> None:
    for name, instead in (("functions", "tools"), ("function_call", "tool_choice")):
        if getattr(request, name) not in (None, [], "none", "auto"):
            raise BadRequest(f"`{name}` is deprecated and not supported by this server: use `{instead}`", param=name)


def chat_generation(request: ChatRequest, id: str) -> Generation:
    """Translate a chat request.

    Args:
        request: from `decode_chat`.
        id: the answer's id; also the batch's, so it must be unique among the requests in flight.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    grammar, grammar_param = structure_of(request.response_format, request.structured_outputs) or (None, None)
    turns = _messages(request.messages)
    offer = tool_offer(request.tools or (), request.tool_choice, request.parallel_tool_calls)
    limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    batch = ExecuteBatch(
        request_id=id,
        model=request.model,
        messages=turns,
        sampling=sampling_params(request, limit, (request.top_logprobs or 0) if request.logprobs else None, grammar),
        tools=offer,
        rendering=rendering_of(
            turns,
            begin=request.add_generation_prompt,
            go_on=request.continue_final_message,
            variables=request.chat_template_kwargs,
            effort=request.reasoning_effort,
        ),
        stream=bool(request.stream),
        priority=priority_of(request.service_tier, request.priority),
        cache_salt=request.cache_salt or "",
    )
    return Generation(
        id=id,
        model=request.model,
        prompts=(batch,),
        n=request.n or 1,
        stream=bool(request.stream),
        include_usage=wants_usage(request),
        service_tier=None if request.service_tier is None else served_tier(request.service_tier),
        token_ids=bool(request.return_token_ids),
        prompt_logprobs=request.prompt_logprobs,
        grammar_param=grammar_param or ("tools" if offer is not None and offer.required else None),
    )


def _messages(messages: Sequence[WireMessage]) -> list[Message]:
    turns = [_message(message, at) for at, message in enumerate(messages)]
    return result_names(turns)


def _message(message: WireMessage, at: int) -> Message:
    if message.function_call:
        param = f"messages[{at}].function_call"
        raise BadRequest(f"`{param}` is deprecated and not supported by this server: use `tool_calls`", param=param)
    role = _ROLES.get(message.role) or Role(message.role)
    return Message(
        role,
        _content(message, role, at),
        tool_calls=message_calls(message.tool_calls or (), role, f"messages[{at}].tool_calls"),
        tool_call_id=message.tool_call_id or "",
        name=(message.name or "") if role is Role.TOOL else "",
        reasoning=message.reasoning_content or "",
    )


def _content(message: WireMessage, role: Role, at: int) -> MessageContent:
    if message.content is None:
        return _instead_of_content(message, role, at)
    return message.content if isinstance(message.content, str) else _parts(message.content, at)


def _instead_of_content(message: WireMessage, role: Role, at: int) -> str:
    if role is not Role.ASSISTANT:
        param = f"messages[{at}].content"
        raise BadRequest(f"`{param}` is required", param=param)
    return message.refusal or ""


def _parts(parts: Sequence[Part], at: int) -> tuple[ContentPart, ...]:
    return tuple(_part(part, f"messages[{at}].content[{number}]") for number, part in enumerate(parts))


def _part(part: Part, where: str) -> ContentPart:
    match part:
        case TextContent():
            return TextPart(part.text)
        case RefusalContent():
            return TextPart(part.refusal)
        case ImageContent():
            return _image(part.image_url.url)
        case AudioContent() | FileContent():
            raise BadRequest(f"`{where}`: audio and file content are not supported by this server", param=where)


def _image(url: str) -> ContentPart:
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        return ImageBase64(head.removeprefix("data:").removesuffix(";base64"), data)
    return ImageUrl(url)
