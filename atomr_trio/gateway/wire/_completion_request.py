"""``POST /v1/completions``: the request, and its translation."""

from collections.abc import Mapping
from typing import Annotated, Any

from attrs import evolve
from msgspec import Meta

from atomr_trio.core import BadRequest, ExecuteBatch, Grammar, SamplingParams

from ._decode import decode_body
from ._fields import (
    MAX_TOKEN_ID,
    MAX_TOP_LOGPROBS,
    NEUTRAL,
    CommonFields,
    check_stream_options,
    decoder_of,
    refuse_unsupported,
    sampling_params,
    wants_usage,
)
from ._generation import Generation
from ._prompts import Prompts, prompts_of
from ._structure import ResponseFormat, structure_of
from ._urgency import priority_of, served_tier

__all__ = ["COMPLETION_NEUTRAL", "CompletionRequest", "completion_generation", "decode_completion"]

DEFAULT_MAX_TOKENS = 16


class CompletionRequest(CommonFields, kw_only=True):
    """The fields of a plain completion that this server knows. Others are ignored."""

    prompt: Prompts | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)] | None = None
    best_of: Annotated[int, Meta(ge=0, le=128)] | None = None
    response_format: ResponseFormat | None = None
    # Known, and refused when it asks for something.
    suffix: str | None = None


COMPLETION_NEUTRAL: Mapping[str, tuple[Any, ...]] = {**NEUTRAL, "suffix": ("",)}
_DECODER = decoder_of(CompletionRequest)


def decode_completion(body: bytes) -> CompletionRequest:
    """Decode and validate a request's body.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    request: CompletionRequest = decode_body(_DECODER, body)
    refuse_unsupported(request, COMPLETION_NEUTRAL)
    check_stream_options(request)
    if request.max_tokens == 0 and not request.echo:
        raise BadRequest("`max_tokens: 0` is allowed only with `echo: true`", param="max_tokens")
    _check_best_of(request)
    return request


def _check_best_of(request: CompletionRequest) -> None:
    # 0 is the same as absent, for some clients send it so.
    if not request.best_of:
        return
    if request.best_of < (request.n or 1):
        raise BadRequest("`best_of` must not be less than `n`", param="best_of")
    if request.best_of > (request.n or 1) and request.stream:
        raise BadRequest("`best_of` is not allowed with `stream: true`", param="best_of")


def completion_generation(request: CompletionRequest, id: str, *, max_choices: int) -> Generation:
    """Translate a completion request.

    Args:
        request: from `decode_completion`.
        id: the answer's id, unique among the requests in flight.
        max_choices: upper bound of prompts times ``n``.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    prompts = prompts_of(request.prompt)
    n = request.n or 1
    if len(prompts) * max(n, request.best_of or 1) > max_choices:
        message = f"at most {max_choices} choices (prompts times `n` or `best_of`) are allowed in one request"
        raise BadRequest(message, param="prompt")
    grammar, grammar_param = structure_of(request.response_format, request.structured_outputs) or (None, None)
    sampling = _sampling(request, grammar)
    stream = bool(request.stream)
    batches = tuple(
        ExecuteBatch(
            request_id=id,
            model=request.model,
            prompt=prompt,
            sampling=sampling,
            stream=stream,
            priority=priority_of(request.service_tier, request.priority),
            cache_salt=request.cache_salt or "",
        )
        for prompt in prompts
    )
    return Generation(
        id=id,
        model=request.model,
        prompts=batches,
        n=n,
        best_of=request.best_of or 1,
        echo=bool(request.echo),
        alone=request.max_tokens == 0,
        stream=stream,
        include_usage=wants_usage(request),
        service_tier=None if request.service_tier is None else served_tier(request.service_tier),
        token_ids=bool(request.return_token_ids),
        prompt_logprobs=request.prompt_logprobs,
        prompt_param="prompt",
        grammar_param=grammar_param,
    )


def _sampling(request: CompletionRequest, grammar: Grammar | None) -> SamplingParams:
    limit = DEFAULT_MAX_TOKENS if request.max_tokens is None else max(1, request.max_tokens)
    sampling = sampling_params(request, limit, request.logprobs, grammar)
    if not request.echo or request.logprobs is None:
        return sampling
    most = max(request.logprobs, sampling.prompt_top_logprobs)
    return evolve(sampling, prompt_logprobs=True, prompt_top_logprobs=most)
