"""The backend as one client sees it: only what its key may use, in its own part of the prefix cache, and measured.

Every route asks the backend for what it needs, so what is true here is true for all of them.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, evolve, frozen

from atomr_trio.core import ExecuteBatch, ModelNotFound, TokenChunk, Tokenize, Tokens

from .backend import AnswerStream, GatewayBackend, ModelInfo, Readiness
from .charges import METER, Meter, Price
from .drain import Drain
from .notes import Note, current_note

__all__ = ["MeteredBackend", "salted"]

MAX_NAME = 128


@frozen
class MeteredBackend:
    """A backend around another one.

    Args:
        backend: the runtime.
        drain: whether the server stops.
        assumed_output: tokens that an answer may have at most if neither its request nor its model bounds it, and its
            key has limits.
        keyed: clients without a key are told no names.
    """

    _backend: GatewayBackend
    _drain: Drain
    _assumed_output: int
    _keyed: bool

    async def models(self) -> Sequence[ModelInfo]:
        """The models that the client may use."""
        return [info for info in await self._backend.models() if self._may_see(info.id)]

    async def prepare(self, batch: ExecuteBatch, /) -> ExecuteBatch:
        """Check a request, and give it its meter.

        Raises:
            ModelNotFound: there is no such model, or the client may not know of it.
        """
        note = current_note()
        if note is None:
            return await self._backend.prepare(batch)
        # In a log line, as long as a client likes.
        note.model = batch.model[:MAX_NAME]
        self._check(batch.model)
        prepared = await self._backend.prepare(_marked(batch, note))
        meter = Meter(note.charge, await self._price(note, batch.model), note.add_tokens, note.saw_token)
        return evolve(self._bounded(prepared, note), metadata={**prepared.metadata, METER: meter})

    @asynccontextmanager
    async def submit(self, batch: ExecuteBatch, /) -> AsyncGenerator[AnswerStream]:
        """Run a request, and count what its answer takes."""
        meter: Meter | None = batch.metadata.get(METER)
        async with self._backend.submit(batch) as stream:
            if meter is None:
                yield stream
                return
            watched = _Watched(stream, meter)
            try:
                yield watched
            finally:
                meter.record(batch, watched.tokens, failed=watched.failed)

    async def tokenize(self, question: Tokenize, /) -> tuple[int, ...]:
        """The tokens of a text, of a model that the client may use."""
        self._check(question.model)
        return await self._backend.tokenize(question)

    async def spell(self, model: str, ids: Sequence[int], /) -> tuple[bytes, ...]:
        """The bytes of tokens, of a model that the client may use."""
        self._check(model)
        return await self._backend.spell(model, ids)

    async def readiness(self) -> Readiness:
        """Not ready while the server stops. Names are told to those who may use them."""
        readiness = await self._backend.readiness()
        states = {name: state for name, state in readiness.deployments.items() if self._may_see(name)}
        return Readiness(ready=readiness.ready and not self._drain.draining, deployments=states)

    async def pricing(self, model: str, /) -> Price:
        """What the batches of a model may cost."""
        return await self._backend.pricing(model)

    def _check(self, model: str) -> None:
        if not self._may_see(model):
            raise ModelNotFound(model)

    def _may_see(self, model: str) -> bool:
        note = current_note()
        if note is None or note.account is None:
            return not self._keyed
        return note.account.key.may_use(model)

    async def _price(self, note: Note, model: str) -> Price | None:
        if note.account is None or not note.account.bounds_cost:
            return None
        return await self._backend.pricing(model)

    def _bounded(self, batch: ExecuteBatch, note: Note) -> ExecuteBatch:
        # What is reserved is a bound only if the answer has one.
        if note.account is None or not note.account.is_bounded or batch.embed or batch.sampling.max_tokens is not None:
            return batch
        most = max(self._assumed_output, batch.sampling.min_tokens)
        return evolve(batch, sampling=evolve(batch.sampling, max_tokens=most))


def _marked(batch: ExecuteBatch, note: Note) -> ExecuteBatch:
    marks: dict[str, Any] = {"traceparent": note.trace.parent}
    if note.trace.state:
        marks["tracestate"] = note.trace.state
    return evolve(batch, metadata={**batch.metadata, **marks}, cache_salt=salted(batch.cache_salt, note))


def salted(salt: str, note: Note) -> str:
    """The part of the prefix cache that a client's salt stands for.

    Each key has its own. Those that share have one together, in which no salt leads to another key's part.
    """
    if note.account is None:
        return salt
    key = note.account.key
    return f"shared:{salt}" if key.share_prefixes else f"key:{key.id}:{salt}"


@define
class _Watched:
    """An answer that notes its first token, and its failure."""

    _stream: AnswerStream
    _meter: Meter
    failed: bool = False
    _spoke: bool = False

    async def receive(self) -> TokenChunk:
        try:
            piece = await self._stream.receive()
        except Exception:
            self.failed = True
            raise
        self._note(piece)
        return piece

    def take(self) -> TokenChunk | None:
        try:
            piece = self._stream.take()
        except Exception:
            self.failed = True
            raise
        if piece is not None:
            self._note(piece)
        return piece

    def watch(self, call: Callable[[], None] | None) -> None:
        self._stream.watch(call)

    def _note(self, piece: TokenChunk) -> None:
        if not self._spoke and (piece.token_ids or piece.text_delta):
            self._spoke = True
            self._meter.first()

    @property
    def tokens(self) -> Tokens:
        return self._stream.tokens
