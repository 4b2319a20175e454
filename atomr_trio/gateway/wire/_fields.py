"""The fields that chat and plain completions share, and how they become sampling parameters."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from atomr_trio.core import BadRequest, Grammar, SamplingParams

from ._structure import StructuredOutputs
from ._urgency import AskedTier, Priority

__all__ = ["CommonFields", "StreamOptions", "refuse_unsupported", "sampling_params"]

MAX_TOKEN_ID = 2**31 - 1
MAX_TOP_LOGPROBS = 20

Count = Annotated[int, Meta(ge=1, le=MAX_TOKEN_ID)]
TokenId = Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
Bias = Annotated[float, Meta(ge=-100.0, le=100.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
StopString = Annotated[str, Meta(min_length=1)]
# JSON's keys are strings; the schema that msgspec makes would allow any.
TOKEN_ID_KEYS = {"propertyNames": {"pattern": "^[0-9]{1,10}$"}}
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
MetadataKey = Annotated[str, Meta(max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]


class StreamOptions(Struct):
    """What a streaming client wants besides the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class CommonFields(Struct, kw_only=True):
    """Fields of both kinds of request. ``None`` is the same as absent.

    Fields typed ``Any`` are known but not served yet: see `refuse_unsupported`.
    """

    model: str
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1, le=MAX_TOKEN_ID)] | None = None
    min_p: Share | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=4)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=256)] | None = None
    ignore_eos: bool | None = None
    seed: Seed | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100.0)] | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Meta(max_length=1024, extra_json_schema=TOKEN_ID_KEYS)] | None = None
    # Prompts are found in the prefix cache only under the salt that they were computed with.
    cache_salt: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    structured_outputs: StructuredOutputs | None = None
    service_tier: AskedTier | None = None
    priority: Priority | None = None
    return_token_ids: bool | None = None
    prompt_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    # Notes for the operator; they do not change the answer.
    user: str | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)] | None = None
    echo: bool | None = None
    # Known, and refused when they ask for something.
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    truncate_prompt_tokens: Any = None


NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "truncate_prompt_tokens": (),
}


def refuse_unsupported(request: Struct, neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse the fields that are known but not served, unless they ask for nothing.

    Args:
        request: the decoded request.
        neutral: for each such field, the values besides ``None`` that change nothing.

    Raises:
        BadRequest: one of them asks for something; ``param`` names it.
    """
    for name, values in neutral.items():
        value = getattr(request, name)
        if value is not None and value not in values:
            raise BadRequest(f"`{name}` is not supported by this server", param=name)


def check_stream_options(request: CommonFields) -> None:
    """Refuse options for a stream that was not asked for, and what a stream does not tell.

    Raises:
        BadRequest: ``stream_options`` without ``stream``, or an option that is not served; ``prompt_logprobs`` with it.
    """
    options = request.stream_options
    if request.stream and request.prompt_logprobs is not None:
        raise BadRequest("`prompt_logprobs` is not allowed with `stream: true`", param="prompt_logprobs")
    if options is None:
        return
    if not request.stream:
        raise BadRequest("`stream_options` is allowed only with `stream: true`", param="stream_options")
    if options.continuous_usage_stats:
        name = "stream_options.continuous_usage_stats"
        raise BadRequest(f"`{name}` is not supported by this server", param=name)


def wants_usage(request: CommonFields) -> bool:
    """Whether the stream shall end with a usage chunk."""
    return request.stream_options is not None and bool(request.stream_options.include_usage)


def sampling_params(
    request: CommonFields, max_tokens: int | None, top_logprobs: int | None, grammar: Grammar | None = None
) -> SamplingParams:
    """The request's sampling fields in the framework's own form.

    Args:
        request: the decoded request.
        max_tokens: how long the answer may be.
        top_logprobs: how many of the most likely tokens come with each token; ``None``: no log probabilities at all.
        grammar: what the answer must look like.

    Raises:
        BadRequest: two fields contradict each other.
    """
    min_tokens = request.min_tokens or 0
    if max_tokens is not None and min_tokens > max_tokens:
        raise BadRequest("`min_tokens` must not exceed the maximum number of tokens", param="min_tokens")
    return SamplingParams(
        temperature=request.temperature,
        # The API takes 0 for "only the most likely token"; a nucleus of no mass at all does not exist.
        top_p=None if request.top_p is None else max(request.top_p, 1e-9),
        top_k=request.top_k,
        min_p=request.min_p,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
        stop_token_ids=tuple(request.stop_token_ids or ()),
        ignore_eos=bool(request.ignore_eos),
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=request.logit_bias or {},
        seed=request.seed,
        logprobs=top_logprobs is not None,
        top_logprobs=top_logprobs or 0,
        prompt_logprobs=request.prompt_logprobs is not None,
        prompt_top_logprobs=request.prompt_logprobs or 0,
        grammar=grammar,
    )


def decoder_of(kind: type[Any]) -> "msgspec.json.Decoder[Any]":
    """A decoder for one kind of request. It keeps no state between calls."""
    return msgspec.json.Decoder(kind)
