"""``POST /v1/completions``: the request, and its translation."""

from typing import Annotated, TypeGuard

from msgspec import Meta

from atomr_trio.core import BadRequest, ExecuteBatch

from ._decode import decode_body
from ._fields import (
    MAX_TOP_LOGPROBS,
    NEUTRAL,
    CommonFields,
    TokenId,
    check_stream_options,
    decoder_of,
    refuse_unsupported,
    sampling_params,
    wants_usage,
)
from ._generation import Generation

__all__ = ["CompletionRequest", "completion_generation", "decode_completion"]

DEFAULT_MAX_TOKENS = 16

Prompt = str | tuple[int, ...]


class CompletionRequest(CommonFields, kw_only=True):
    """The fields of a plain completion that this server knows. Others are ignored."""

    # One text, several, one list of token ids, or several: `_prompts` sorts them out.
    prompt: str | list[str | TokenId | list[TokenId]] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    # Known, and refused when they ask for something.
    best_of: Annotated[int, Meta(ge=0, le=128)] | None = None
    suffix: str | None = None


_NEUTRAL = {**NEUTRAL, "suffix": ("",)}
_DECODER = decoder_of(CompletionRequest)


def decode_completion(body: bytes) -> CompletionRequest:
    """Decode and validate a request's body.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    request: CompletionRequest = decode_body(_DECODER, body)
    refuse_unsupported(request, {**_NEUTRAL, "best_of": (0, request.n or 1)})
    check_stream_options(request)
    return request


def completion_generation(request: CompletionRequest, id: str, *, max_choices: int) -> Generation:
    """Translate a completion request.

    Args:
        request: from `decode_completion`.
        id: the answer's id, unique among the requests in flight.
        max_choices: upper bound of prompts times ``n``.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    prompts = _prompts(request.prompt)
    n = request.n or 1
    if len(prompts) * n > max_choices:
        message = f"at most {max_choices} choices (prompts times `n`) are allowed in one request"
        raise BadRequest(message, param="prompt")
    sampling = sampling_params(request, request.max_tokens or DEFAULT_MAX_TOKENS, request.logprobs)
    stream = bool(request.stream)
    batches = tuple(
        ExecuteBatch(
            request_id=id,
            model=request.model,
            prompt=prompt,
            sampling=sampling,
            stream=stream,
            cache_salt=request.cache_salt or "",
        )
        for prompt in prompts
    )
    return Generation(
        id=id,
        model=request.model,
        prompts=batches,
        n=n,
        stream=stream,
        include_usage=wants_usage(request),
        prompt_param="prompt",
    )


def _prompts(prompt: str | list[str | int | list[int]] | None) -> list[Prompt]:
    found: list[Prompt] = []
    if isinstance(prompt, str):
        found = [prompt]
    elif _all_ints(prompt):
        found = [tuple(prompt)]
    elif prompt:
        if len({type(each) for each in prompt}) > 1:
            raise BadRequest("`prompt`: texts and token ids cannot be mixed in one list", param="prompt")
        found = [tuple(each) if isinstance(each, list) else str(each) for each in prompt]
    if not found or not all(found):
        raise BadRequest("`prompt` is required and must not be empty", param="prompt")
    return found


def _all_ints(prompt: list[str | int | list[int]] | None) -> TypeGuard[list[int]]:
    return bool(prompt) and all(isinstance(each, int) for each in prompt or ())
