"""Whether a request can be run at all. Pure."""

import math

from atomr_trio.core import BadRequest, ContextLengthExceeded

from .frames import SequenceRequest

__all__ = ["MAX_BIASED", "MAX_END_TOKENS", "MAX_PRIORITY", "MAX_PROMPT_TOPS", "MAX_TOP_LOGPROBS", "check_request"]

MAX_PRIORITY = 100
"""How far from 0 a priority may be: what bounds how long others can overtake a request."""

MAX_BIASED = 1024
"""How many tokens a request's ``logit_bias`` may name."""

MAX_TOP_LOGPROBS = 20
"""How many of the most likely tokens are reported at most."""

MAX_PROMPT_TOPS = 2**17
"""How many of the most likely tokens are reported at most for all tokens of a prompt: they come in one frame."""

MAX_END_TOKENS = 512
"""How many tokens, the model's own included, ``min_tokens`` may have to hold off."""

_MILDEST, _HARSHEST = 0.01, 100.0


def check_request(request: SequenceRequest, *, vocab_size: int, max_model_len: int) -> None:
    """Refuse a request that this engine can never answer.

    Raises:
        BadRequest: it is empty, a token id or a parameter is out of range.
        ContextLengthExceeded: its prompt leaves no room for one more token, or is too long to embed.
    """
    if not request.prompt_ids:
        raise BadRequest("the prompt is empty", param="prompt")
    for name in ("prompt_ids", "generated", "eos_ids", "stop_ids"):
        _check_ids(name, getattr(request, name), vocab_size)
    _check_sampling(request)
    _check_penalties(request)
    _check_bias(request, vocab_size)
    if request.max_tokens < 1:
        raise BadRequest("max_tokens must be at least 1", param="max_tokens")
    if request.min_tokens > 0:
        _check_ends({*request.stop_ids, *request.eos_ids}, vocab_size)
    if not -MAX_PRIORITY <= request.priority <= MAX_PRIORITY:
        raise BadRequest(f"priority must be in [-{MAX_PRIORITY}, {MAX_PRIORITY}]", param="priority")
    if request.pooling is not None:
        _check_alone(request)
    needed = len(request.prompt_ids) + (request.pooling is None)
    if needed > max_model_len:
        raise ContextLengthExceeded(needed, max_model_len)


def _check_alone(request: SequenceRequest) -> None:
    for name in ("generated", "prompt_logprobs", "grammar"):
        if getattr(request, name):
            raise BadRequest(f"{name} cannot be had with an embedding", param=name)


def _check_ids(name: str, ids: list[int], vocab_size: int) -> None:
    for token in ids:
        if not 0 <= token < vocab_size:
            raise BadRequest(f"token id {token} is not in the vocabulary of {vocab_size}", param=name)


def _check_ends(ends: set[int], vocab_size: int) -> None:
    if len(ends) > MAX_END_TOKENS:
        raise BadRequest(f"min_tokens works with at most {MAX_END_TOKENS} end tokens", param="stop_token_ids")
    if len(ends) >= vocab_size:
        raise BadRequest("min_tokens needs a token that does not end the answer", param="stop_token_ids")


def _check_sampling(request: SequenceRequest) -> None:
    # Written so that NaN, which compares false with everything, is refused too.
    if not 0 <= request.temperature < math.inf:
        raise BadRequest("temperature must be a number of 0 or more", param="temperature")
    if not 0 < request.top_p <= 1:
        raise BadRequest("top_p must be in (0, 1]", param="top_p")
    if not 0 <= request.min_p <= 1:
        raise BadRequest("min_p must be in [0, 1]", param="min_p")
    if not 0 <= request.top_k < 2**31:
        raise BadRequest("top_k must be 0 or more", param="top_k")
    if not 0 <= request.top_logprobs <= MAX_TOP_LOGPROBS:
        raise BadRequest(f"top_logprobs must be in [0, {MAX_TOP_LOGPROBS}]", param="top_logprobs")
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("top_logprobs takes logprobs", param="top_logprobs")
    if request.prompt_top_logprobs:
        _check_prompt_tops(request)


def _check_prompt_tops(request: SequenceRequest) -> None:
    if not 0 < request.prompt_top_logprobs <= MAX_TOP_LOGPROBS:
        message = f"prompt_top_logprobs must be in [0, {MAX_TOP_LOGPROBS}]"
        raise BadRequest(message, param="prompt_logprobs")
    if not request.prompt_logprobs:
        raise BadRequest("prompt_top_logprobs takes prompt_logprobs", param="prompt_logprobs")
    if len(request.prompt_ids) * request.prompt_top_logprobs > MAX_PROMPT_TOPS:
        most = MAX_PROMPT_TOPS // request.prompt_top_logprobs
        message = (
            f"with {request.prompt_top_logprobs} log probabilities a token, a prompt may have at most {most} tokens"
        )
        raise BadRequest(message, param="prompt_logprobs")


def _check_penalties(request: SequenceRequest) -> None:
    if not _MILDEST <= request.repetition_penalty <= _HARSHEST:
        message = f"repetition_penalty must be in [{_MILDEST:g}, {_HARSHEST:g}]"
        raise BadRequest(message, param="repetition_penalty")
    for name in ("presence_penalty", "frequency_penalty"):
        if not -2 <= getattr(request, name) <= 2:
            raise BadRequest(f"{name} must be in [-2, 2]", param=name)


def _check_bias(request: SequenceRequest, vocab_size: int) -> None:
    if len(request.logit_bias) > MAX_BIASED:
        raise BadRequest(f"logit_bias may name at most {MAX_BIASED} tokens", param="logit_bias")
    _check_ids("logit_bias", [token for token, _ in request.logit_bias], vocab_size)
    for token, bias in request.logit_bias:
        if not -100 <= bias <= 100:
            raise BadRequest(f"logit_bias of token {token} must be in [-100, 100]", param="logit_bias")
