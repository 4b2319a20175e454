"""``POST /tokenize`` and ``POST /detokenize``."""

from collections.abc import Callable
from functools import partial

import trio
from quart import Response

from atomr_trio.core import BadRequest
from atomr_trio.gateway.wire import (
    decode_detokenize,
    decode_tokenize,
    text_answer,
    token_question,
    tokens_answer,
    wants_spelling,
)

from ._gateway import Gateway, decoded_body, json_response

__all__ = ["detokenize", "tokenize"]

INLINE_TOKENS = 8192
"""Longer answers are written in a thread: the event loop must not stand still for them."""


async def tokenize(gateway: Gateway) -> Response:
    """Tell the tokens of a text or of a conversation."""
    request = await decoded_body(decode_tokenize)
    model = await _meant(gateway, request.model)
    ids = await gateway.backend.tokenize(token_question(request, model))
    spelled = await gateway.backend.spell(model, ids) if wants_spelling(request) else None
    length = await _max_model_len(gateway, model)
    return json_response(await _written(partial(tokens_answer, request, ids, spelled, length), len(ids)))


async def detokenize(gateway: Gateway) -> Response:
    """Tell the text of tokens."""
    request = await decoded_body(decode_detokenize)
    model = await _meant(gateway, request.model)
    spelled = await gateway.backend.spell(model, request.tokens)
    return json_response(await _written(partial(text_answer, spelled), len(spelled)))


async def _written(write: Callable[[], bytes], tokens: int) -> bytes:
    return write() if tokens <= INLINE_TOKENS else await trio.to_thread.run_sync(write)


async def _meant(gateway: Gateway, given: str | None) -> str:
    # These routes come from servers of one model, whose clients do not name it.
    if given is not None:
        return given
    models = await gateway.backend.models()
    if len(models) != 1:
        raise BadRequest(f"`model` is required: this server has {len(models)} of them", param="model")
    return models[0].id


async def _max_model_len(gateway: Gateway, model: str) -> int | None:
    return next((info.max_model_len for info in await gateway.backend.models() if info.id == model), None)
