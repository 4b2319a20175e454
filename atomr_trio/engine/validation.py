"""Whether a request can be run at all. Pure."""

import math

from atomr_trio.core import BadRequest, ContextLengthExceeded

from .frames import SequenceRequest

__all__ = ["check_request"]


def check_request(request: SequenceRequest, *, vocab_size: int, max_model_len: int, max_banned: int) -> None:
    """Refuse a request that this engine can never answer.

    Raises:
        BadRequest: it is empty, a token id or a parameter is out of range.
        ContextLengthExceeded: its prompt leaves no room for one more token.
    """
    if not request.prompt_ids:
        raise BadRequest("the prompt is empty", param="prompt")
    for name in ("prompt_ids", "generated", "eos_ids", "stop_ids"):
        _check_ids(name, getattr(request, name), vocab_size)
    _check_sampling(request)
    if request.max_tokens < 1:
        raise BadRequest("max_tokens must be at least 1", param="max_tokens")
    if request.min_tokens > 0 and len(request.stop_ids) + len(request.eos_ids) > max_banned:
        raise BadRequest(f"min_tokens works with at most {max_banned} end tokens", param="stop_token_ids")
    if len(request.prompt_ids) >= max_model_len:
        raise ContextLengthExceeded(len(request.prompt_ids) + 1, max_model_len)


def _check_ids(name: str, ids: list[int], vocab_size: int) -> None:
    for token in ids:
        if not 0 <= token < vocab_size:
            raise BadRequest(f"token id {token} is not in the vocabulary of {vocab_size}", param=name)


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
