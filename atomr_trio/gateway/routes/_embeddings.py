"""``POST /v1/embeddings``."""

import uuid
from collections.abc import Sequence
from functools import partial

import trio
from attrs import evolve
from quart import Response

from atomr_trio.core import BadRequest, ExecuteBatch
from atomr_trio.gateway.answers import Answers, open_answers, usage_of
from atomr_trio.gateway.wire import decode_embeddings, embedding_batches, embeddings_answer, total_usage

from ._gateway import Gateway, current_request_id, decoded_body, json_response
from ._generate import wait_for_all

__all__ = ["create_embeddings"]

INLINE_BYTES = 64 * 1024
"""Longer answers, in bytes of their float32 numbers, are written in a thread: the event loop must not stand still."""


async def create_embeddings(gateway: Gateway) -> Response:
    """Embed texts: one vector for each."""
    request = await decoded_body(decode_embeddings)
    wanted = embedding_batches(request, f"embd-{uuid.uuid4().hex}", max_inputs=gateway.settings.max_embeddings)
    batches = [await _prepare(gateway, batch) for batch in wanted]
    answers = await _answered(gateway, batches)
    choices = [answers.tokens(index) for index in range(len(batches))]
    usage = total_usage([usage_of(batch, choice) for batch, choice in zip(batches, choices, strict=True)], 1)
    found = [choice.embedding for choice in choices]
    write = partial(embeddings_answer, request, found, usage)
    size = sum(len(each.data) for each in found if each is not None)
    return json_response(write() if size <= INLINE_BYTES else await trio.to_thread.run_sync(write))


async def _prepare(gateway: Gateway, batch: ExecuteBatch) -> ExecuteBatch:
    # The client's own request id goes along for the log.
    noted = evolve(batch, metadata={"http_request_id": current_request_id()})
    try:
        return await gateway.backend.prepare(noted)
    except BadRequest as refusal:
        # Behind the gateway nobody knows by which field a prompt came.
        raise BadRequest(refusal.message, "input" if refusal.param == "prompt" else refusal.param) from None


async def _answered(gateway: Gateway, batches: Sequence[ExecuteBatch]) -> Answers:
    async with open_answers(gateway.backend, batches, max_parallel=gateway.settings.max_parallel_choices) as answers:
        failure = await wait_for_all(answers, len(batches))
    if failure is not None:
        raise failure
    return answers
