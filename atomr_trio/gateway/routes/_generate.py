"""``POST /v1/chat/completions`` and ``POST /v1/completions``, and what all routes that generate share."""

import math
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import trio
from attrs import evolve
from quart import Response

from atomr_trio.core import BadRequest, ExecuteBatch, TokenUsage
from atomr_trio.gateway.answers import Answers, News, open_answers, usage_of
from atomr_trio.gateway.kept import Replay
from atomr_trio.gateway.streaming import EventStream
from atomr_trio.gateway.wire import (
    ChatShape,
    CompletionShape,
    Echo,
    Generation,
    Shape,
    best_choices,
    chat_generation,
    completion_generation,
    decode_chat,
    decode_completion,
    expand,
    total_usage,
)

from ._gateway import Gateway, current_owner, current_request_id, decoded_body, event_stream, json_response, release_of

__all__ = ["complete", "complete_chat", "generate", "wait_for_all"]

INLINE_TOKENS = 1024
"""Of longer prompts the log probabilities are written in a thread."""


async def complete_chat(gateway: Gateway) -> Response:
    """Answer a conversation."""
    request = await decoded_body(decode_chat)
    generation = chat_generation(request, f"chatcmpl-{uuid.uuid4().hex}")
    return await generate(gateway, generation, ChatShape.of(generation, int(gateway.clock())))


async def complete(gateway: Gateway) -> Response:
    """Continue a text."""
    request = await decoded_body(decode_completion)
    generation = completion_generation(request, f"cmpl-{uuid.uuid4().hex}", max_choices=gateway.settings.max_choices)
    shape = CompletionShape.of(generation, int(gateway.clock()))
    if generation.echo:
        texts = [await _echoed(gateway, batch) for batch in generation.prompts]
        shape.echo = Echo(texts, generation.n, generation.alone)
    return await generate(gateway, generation, shape)


async def _echoed(gateway: Gateway, batch: ExecuteBatch) -> str:
    if not isinstance(batch.prompt, tuple):
        return batch.prompt or ""
    try:
        spelled = await gateway.backend.spell(batch.model, batch.prompt)
    except BadRequest as refusal:
        raise BadRequest(refusal.message, "prompt") from None
    return b"".join(spelled).decode(errors="replace")


async def generate(gateway: Gateway, generation: Generation, shape: Shape) -> Response:
    """Run what was asked for, and answer in this shape, streamed or whole."""
    # The client's own request id goes along for the log; it may be used twice at a time, so it is not the batch's.
    note = {"http_request_id": current_request_id()}
    prepared = [await _prepare(gateway, generation, evolve(batch, metadata=note)) for batch in generation.prompts]
    # All prompts of a request are of one kind, and so are their answers.
    shape.read_as(prepared[0].form)
    shape.submitted([batch for batch in prepared for _ in range(generation.n)])
    ranked = generation.drawn > generation.n
    batches = expand(prepared, generation.drawn, ranked=ranked, streamed=generation.stream)
    answer = _streamed if generation.stream else _whole
    return await answer(gateway, generation, shape, batches)


async def _prepare(gateway: Gateway, generation: Generation, batch: ExecuteBatch) -> ExecuteBatch:
    try:
        return await gateway.backend.prepare(batch)
    except BadRequest as refusal:
        # Behind the gateway nobody knows by which of several fields a grammar came.
        if refusal.param == "grammar" and generation.grammar_param is not None:
            raise BadRequest(refusal.message, generation.grammar_param) from None
        raise


async def _whole(gateway: Gateway, generation: Generation, shape: Shape, batches: Sequence[ExecuteBatch]) -> Response:
    parallel = gateway.settings.max_parallel_choices
    async with open_answers(gateway.backend, batches, max_parallel=parallel) as answers:
        failure = await wait_for_all(answers, len(batches))
    if failure is not None:
        raise failure
    drawn = [answers.tokens(index) for index in range(len(batches))]
    choices = best_choices(drawn, generation.drawn, generation.n)
    write = partial(shape.whole, choices, _usage(answers, batches, generation.drawn))
    # Where there is much to tell of a prompt, the event loop must not stand still for it.
    prompts = sum(len(tokens.prompt_details) for tokens in choices)
    return json_response(write() if prompts <= INLINE_TOKENS else await trio.to_thread.run_sync(write))


async def wait_for_all(answers: Answers, count: int) -> Exception | None:
    """Wait until so many answers have ended; return the first failure, at once, if there is one."""
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
    begin = partial(_begin, gateway, generation, shape, batches, current_request_id())
    kept = (
        None
        if gateway.kept is None
        else gateway.kept.open(generation.id, partial(begin, math.inf), shape.ping, owner=current_owner())
    )
    if kept is None:
        return event_stream(await begin(gateway.settings.heartbeat, release_of()))
    try:
        with trio.move_on_after(gateway.settings.heartbeat):
            await kept.wait_begun()
    except trio.Cancelled:
        # The client has left before it was told the id, so it cannot come back.
        kept.forget("the client has left")
        raise
    if kept.failure is not None:
        raise kept.failure
    return event_stream(Replay(kept, 0, gateway.settings.heartbeat), kept.id)


async def _begin(
    gateway: Gateway,
    generation: Generation,
    shape: Shape,
    batches: Sequence[ExecuteBatch],
    request_id: str,
    heartbeat: float,
    release: AsyncExitStack,
) -> EventStream:
    """Submit the batches and wait for the first news, for so many seconds."""
    parallel = gateway.settings.max_parallel_choices
    answers = await release.enter_async_context(open_answers(gateway.backend, batches, max_parallel=parallel))
    first: Sequence[News] = ()
    with trio.move_on_after(heartbeat):
        first = await answers.receive()
    failure = next((piece for _, piece in first if isinstance(piece, Exception)), None)
    if failure is not None:
        await release.aclose()
        raise failure
    prompt = total_usage([TokenUsage(len(batch.prompt_ids or ())) for batch in batches], generation.n)
    return EventStream(
        answers=answers,
        shape=shape,
        open_choices=set(range(len(batches))),
        opening=shape.begin(prompt),
        first=first,
        usage=partial(_usage, answers, batches, generation.n),
        tell=partial(gateway.tell, request_id=request_id, prompt_param=generation.prompt_param),
        heartbeat=heartbeat,
        release=release,
    )


def _usage(answers: Answers, batches: Sequence[ExecuteBatch], n: int) -> TokenUsage:
    return total_usage([usage_of(batch, answers.tokens(index)) for index, batch in enumerate(batches)], n)
