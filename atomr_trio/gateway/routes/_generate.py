"""``POST /v1/chat/completions`` and ``POST /v1/completions``."""

import uuid
from collections.abc import Sequence
from functools import partial

import trio
from attrs import evolve
from quart import Response

from atomr_trio.core import ExecuteBatch, TokenUsage
from atomr_trio.gateway.answers import Answers, News, open_answers, usage_of
from atomr_trio.gateway.streaming import EventStream
from atomr_trio.gateway.wire import (
    ChatShape,
    CompletionShape,
    Generation,
    Shape,
    chat_generation,
    completion_generation,
    decode_chat,
    decode_completion,
    expand,
    total_usage,
)

from ._gateway import Gateway, current_request_id, decoded_body, json_response, release_of

__all__ = ["complete", "complete_chat"]


async def complete_chat(gateway: Gateway) -> Response:
    """Answer a conversation."""
    request = await decoded_body(decode_chat)
    generation = chat_generation(request, f"chatcmpl-{uuid.uuid4().hex}")
    created = int(gateway.clock())
    shape = ChatShape(generation.id, created, generation.model, generation.include_usage, generation.logprobs)
    return await _generate(gateway, generation, shape)


async def complete(gateway: Gateway) -> Response:
    """Continue a text."""
    request = await decoded_body(decode_completion)
    generation = completion_generation(request, f"cmpl-{uuid.uuid4().hex}", max_choices=gateway.settings.max_choices)
    created = int(gateway.clock())
    shape = CompletionShape(generation.id, created, generation.model, generation.include_usage, generation.logprobs)
    return await _generate(gateway, generation, shape)


async def _generate(gateway: Gateway, generation: Generation, shape: Shape) -> Response:
    # The client's own request id goes along for the log; it may be used twice at a time, so it is not the batch's.
    note = {"http_request_id": current_request_id()}
    prepared = [await gateway.backend.prepare(evolve(batch, metadata=note)) for batch in generation.prompts]
    batches = expand(prepared, generation.n)
    answer = _streamed if generation.stream else _whole
    return await answer(gateway, generation, shape, batches)


async def _whole(gateway: Gateway, generation: Generation, shape: Shape, batches: Sequence[ExecuteBatch]) -> Response:
    parallel = gateway.settings.max_parallel_choices
    async with open_answers(gateway.backend, batches, max_parallel=parallel) as answers:
        failure = await _wait_for_all(answers, len(batches))
    if failure is not None:
        raise failure
    choices = [answers.tokens(index) for index in range(len(batches))]
    return json_response(shape.whole(choices, _usage(answers, batches, generation.n)))


async def _wait_for_all(answers: Answers, count: int) -> Exception | None:
    unfinished = set(range(count))
    while unfinished:
        for index, piece in await answers.receive():
            if isinstance(piece, Exception):
                return piece
            if piece.finish_reason is not None:
                unfinished.discard(index)
    return None


async def _streamed(
    gateway: Gateway, generation: Generation, shape: Shape, batches: Sequence[ExecuteBatch]
) -> Response:
    release = release_of()
    parallel = gateway.settings.max_parallel_choices
    answers = await release.enter_async_context(open_answers(gateway.backend, batches, max_parallel=parallel))
    first: Sequence[News] = ()
    with trio.move_on_after(gateway.settings.heartbeat):
        first = await answers.receive()
    failure = next((piece for _, piece in first if isinstance(piece, Exception)), None)
    if failure is not None:
        await release.aclose()
        raise failure
    body = EventStream(
        answers=answers,
        shape=shape,
        open_choices=set(range(len(batches))),
        first=first,
        usage=partial(_usage, answers, batches, generation.n),
        tell=partial(gateway.tell, request_id=current_request_id(), prompt_param=generation.prompt_param),
        heartbeat=gateway.settings.heartbeat,
        release=release,
    )
    return _event_stream(body)


def _event_stream(body: EventStream) -> Response:
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    response = Response(body, headers=headers, content_type="text/event-stream; charset=utf-8")
    response.timeout = None
    return response


def _usage(answers: Answers, batches: Sequence[ExecuteBatch], n: int) -> TokenUsage:
    return total_usage([usage_of(batch, answers.tokens(index)) for index, batch in enumerate(batches)], n)
