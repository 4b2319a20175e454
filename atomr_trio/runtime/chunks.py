"""Chunks of one answer put together: what a reader gets that has slept for a while. Pure."""

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import chain
from operator import add
from typing import Any, TypeVar

from atomr_trio.core import TokenChunk

__all__ = ["merged", "tokens_of"]

T = TypeVar("T")


def tokens_of(chunk: TokenChunk) -> int:
    """Count the tokens that a chunk was made of: of text alone it is one, and usage tells of what has neither."""
    if chunk.token_ids or chunk.text_delta:
        return len(chunk.token_ids) or 1
    # That of a last chunk may be that of the whole answer.
    return 0 if chunk.usage is None or chunk.finish_reason is not None else chunk.usage.output_tokens


def merged(request_id: str, chunks: list[TokenChunk]) -> tuple[TokenChunk, list[TokenChunk]]:
    """Put chunks into one, as many from the first on as it can hold; return it, and the others.

    Args:
        request_id: of the answer.
        chunks: at least one.
    """
    count = _mergeable(chunks)
    return _one_of(request_id, chunks[:count]), chunks[count:]


def _one_of(request_id: str, chunks: Sequence[TokenChunk]) -> TokenChunk:
    if len(chunks) == 1:
        return _addressed(request_id, chunks[0])
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    # Only the last chunk of an answer says why it ended.
    return TokenChunk(
        request_id=request_id,
        text_delta="".join([chunk.text_delta for chunk in chunks]),
        token_ids=_chained(chunk.token_ids for chunk in chunks),
        logprobs=_chained(chunk.logprobs for chunk in chunks),
        details=_chained(chunk.details for chunk in chunks),
        prompt_details=next((chunk.prompt_details for chunk in chunks if chunk.prompt_details), ()),
        tool_call_delta=reduce(_joined, (chunk.tool_call_delta for chunk in chunks)),
        embedding=next((chunk.embedding for chunk in chunks if chunk.embedding), None),
        usage=reduce(add, usages) if usages else None,
        finish_reason=chunks[-1].finish_reason,
        stop_string=chunks[-1].stop_string,
    )


def _addressed(request_id: str, chunk: TokenChunk) -> TokenChunk:
    if chunk.request_id == request_id:
        return chunk
    # One token of one stream: `evolve` takes three times as long.
    return TokenChunk(
        request_id=request_id,
        text_delta=chunk.text_delta,
        token_ids=chunk.token_ids,
        logprobs=chunk.logprobs,
        details=chunk.details,
        prompt_details=chunk.prompt_details,
        tool_call_delta=chunk.tool_call_delta,
        embedding=chunk.embedding,
        usage=chunk.usage,
        finish_reason=chunk.finish_reason,
        stop_string=chunk.stop_string,
    )


def _chained(parts: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(chain.from_iterable(parts))


def _mergeable(chunks: Sequence[TokenChunk]) -> int:
    """Return how many chunks one chunk can hold: it has room for one call, of which there may be many fragments."""
    index: int | None = None
    for at, chunk in enumerate(chunks):
        if chunk.tool_call_delta is None:
            continue
        own = chunk.tool_call_delta.get("index", 0)
        if index is not None and index != own:
            return at
        index = own
    return len(chunks)


def _joined(first: dict[str, Any] | None, second: dict[str, Any] | None) -> dict[str, Any] | None:
    if first is None or second is None:
        return first or second
    begun: dict[str, Any] = first.get("function") or {}
    more: dict[str, Any] = second.get("function") or {}
    arguments = (begun.get("arguments") or "") + (more.get("arguments") or "")
    return {**second, **first, "function": {**more, **begun, "arguments": arguments}}
