"""``POST /v1/chat/completions``: the request, and its translation."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from atomr_trio.core import BadRequest, ContentPart, ExecuteBatch, ImageBase64, ImageUrl, Message, Role, TextPart

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

__all__ = ["ChatRequest", "chat_generation", "decode_chat"]


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


Part = TextContent | RefusalContent | ImageContent | AudioContent | FileContent


class WireMessage(Struct):
    """One turn of the conversation, as clients send it."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: Any = None
    function_call: Any = None


class ChatRequest(CommonFields, kw_only=True):
    """The fields of a chat completion that this server knows. Others are ignored."""

    messages: Annotated[list[WireMessage], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    # Hints and bookkeeping that do not change the answer.
    parallel_tool_calls: bool | None = None
    service_tier: str | None = None
    store: bool | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # Known, and refused when they ask for something.
    audio: Any = None
    add_generation_prompt: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: Any = None
    continue_final_message: bool | None = None
    function_call: Any = None
    functions: Any = None
    modalities: Any = None
    moderation: Any = None
    reasoning_effort: str | None = None
    response_format: Any = None
    tool_choice: Any = None
    tools: Any = None
    verbosity: str | None = None
    web_search_options: Any = None


_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    **NEUTRAL,
    "audio": (),
    "add_generation_prompt": (True,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
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
    refuse_unsupported(request, _NEUTRAL)
    check_stream_options(request)
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("`top_logprobs` is allowed only with `logprobs: true`", param="top_logprobs")
    return request


def chat_generation(request: ChatRequest, id: str) -> Generation:
    """Translate a chat request.

    Args:
        request: from `decode_chat`.
        id: the answer's id; also the batch's, so it must be unique among the requests in flight.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    batch = ExecuteBatch(
        request_id=id,
        model=request.model,
        messages=[_message(message, at) for at, message in enumerate(request.messages)],
        sampling=sampling_params(request, limit, (request.top_logprobs or 0) if request.logprobs else None),
        stream=bool(request.stream),
        cache_salt=request.cache_salt or "",
    )
    return Generation(
        id=id,
        model=request.model,
        prompts=(batch,),
        n=request.n or 1,
        stream=bool(request.stream),
        include_usage=wants_usage(request),
    )


def _message(message: WireMessage, at: int) -> Message:
    for name in ("tool_calls", "function_call"):
        if getattr(message, name):
            param = f"messages[{at}].{name}"
            raise BadRequest(f"`{param}` is not supported by this server", param=param)
    role = _ROLES.get(message.role) or Role(message.role)
    if isinstance(message.content, str):
        return Message(role, message.content)
    if message.content is None:
        return Message(role, _instead_of_content(message, role, at))
    return Message(role, _parts(message.content, at))


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
