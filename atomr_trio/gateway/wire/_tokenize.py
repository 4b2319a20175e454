"""``POST /tokenize`` and ``POST /detokenize``, with the fields of vLLM and of llama.cpp, told apart by their names."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from atomr_trio.core import BadRequest, Tokenize

from ._chat_request import ChatRequest, WireMessage, chat_generation
from ._decode import decode_body
from ._fields import TokenId, decoder_of, refuse_unsupported
from ._sse import to_json
from ._tool_fields import OfferedTool

__all__ = [
    "TOKENIZE_NEUTRAL",
    "DetokenizeRequest",
    "TextAnswer",
    "TokenizeRequest",
    "TokensAnswer",
    "decode_detokenize",
    "decode_tokenize",
    "text_answer",
    "token_question",
    "tokens_answer",
    "wants_spelling",
]


class TokenizeRequest(Struct, kw_only=True):
    """Exactly one of ``prompt`` and ``messages`` (vLLM) and ``content`` (llama.cpp). Unknown fields are ignored."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[WireMessage], Meta(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    return_token_strs: bool | None = None
    tools: Annotated[list[OfferedTool], Meta(max_length=128)] | None = None
    content: str | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    # Known, and refused when it asks for something.
    chat_template: Any = None


class DetokenizeRequest(Struct, kw_only=True):
    """Both servers take the same fields."""

    model: str | None = None
    tokens: list[TokenId]


class TokensAnswer(Struct, kw_only=True):
    """vLLM's answer."""

    count: int
    max_model_len: int | None
    tokens: Sequence[int]
    token_strs: list[str] | None = None


class Piece(Struct):
    """A token and its text; its bytes, if they are not a text by themselves."""

    id: int
    piece: str | list[int]


class PiecesAnswer(Struct):
    """llama.cpp's answer."""

    tokens: Sequence[int] | list[Piece]


class TextAnswer(Struct):
    """The answer of both servers."""

    prompt: str
    content: str


TOKENIZE_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "chat_template": (),
}
_TOKENIZE = decoder_of(TokenizeRequest)
_DETOKENIZE = decoder_of(DetokenizeRequest)


def decode_tokenize(body: bytes) -> TokenizeRequest:
    """Decode and validate a request's body.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    request: TokenizeRequest = decode_body(_TOKENIZE, body)
    refuse_unsupported(request, TOKENIZE_NEUTRAL)
    given = [name for name in ("prompt", "messages", "content") if getattr(request, name) is not None]
    if len(given) != 1:
        message = "exactly one of `prompt`, `messages` and `content` is required"
        raise BadRequest(message, param=given[-1] if given else "prompt")
    return request


def decode_detokenize(body: bytes) -> DetokenizeRequest:
    """Decode and validate a request's body.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    request: DetokenizeRequest = decode_body(_DETOKENIZE, body)
    return request


def token_question(request: TokenizeRequest, model: str) -> Tokenize:
    """Translate a request, with the defaults of the server whose fields it has.

    Raises:
        BadRequest: a message is not text, or two fields contradict each other.
    """
    if request.content is not None:
        special, control = bool(request.add_special), request.parse_special is not False
        return Tokenize(model=model, text=request.content, add_special=special, parse_special=control)
    if request.messages is None:
        special = request.add_special_tokens is not False
        return Tokenize(model=model, text=request.prompt or "", add_special=special)
    conversation = ChatRequest(
        model=model,
        messages=request.messages,
        tools=request.tools,
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
        chat_template_kwargs=request.chat_template_kwargs,
    )
    (batch,) = chat_generation(conversation, "").prompts
    return Tokenize(
        model=model,
        messages=batch.messages,
        tools=batch.tools,
        add_special=bool(request.add_special_tokens),
        rendering=batch.rendering,
    )


def wants_spelling(request: TokenizeRequest) -> bool:
    """Whether the answer has the text of each token."""
    return bool(request.return_token_strs if request.content is None else request.with_pieces)


def tokens_answer(
    request: TokenizeRequest, ids: Sequence[int], spelled: Sequence[bytes] | None, max_model_len: int | None
) -> bytes:
    """The answer in the form of the server whose fields the request has.

    Args:
        request: from `decode_tokenize`.
        ids: the tokens.
        spelled: the bytes of each of them, if it `wants_spelling`.
        max_model_len: the model's context in tokens, if it is known.
    """
    if request.content is not None:
        pieces = None if spelled is None else [Piece(id, _piece(text)) for id, text in zip(ids, spelled, strict=True)]
        return to_json(PiecesAnswer(ids if pieces is None else pieces))
    names = None if spelled is None else [text.decode(errors="replace") for text in spelled]
    return to_json(TokensAnswer(count=len(ids), max_model_len=max_model_len, tokens=ids, token_strs=names))


def text_answer(spelled: Sequence[bytes]) -> bytes:
    """The text of these tokens, under the names of both servers; what is not UTF-8 becomes U+FFFD."""
    text = b"".join(spelled).decode(errors="replace")
    return to_json(TextAnswer(text, text))


def _piece(text: bytes) -> str | list[int]:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return list(text)
