"""A backend that plays scripts: what each request answers, when, and whether it was left."""

import math
from contextlib import asynccontextmanager

import attrs
import trio

from atomr_trio.core import (
    BadRequest,
    ContextLengthExceeded,
    DeploymentState,
    FinishReason,
    ModelNotFound,
    SamplingParams,
    TokenChunk,
    TokenLogprob,
    Tokens,
    TokenUsage,
)
from atomr_trio.gateway import ModelInfo, Readiness

MODEL = "org/echo"
BEGIN = 256
PROMPT_IDS = (1, 2, 3)


@attrs.frozen
class StopAt:
    """Ends an answer at a stop string."""

    text: str


@attrs.define
class Script:
    """What a request does, step by step.

    A string is a token, a tuple several at once; a number is a pause in seconds; an exception fails the request; an
    event is waited for; a finish reason or a stop string ends it. A script that runs out ends with `stop`.
    """

    steps: list


def say(*steps):
    return Script(list(steps))


NEVER = math.inf


@attrs.define
class FakeStream:
    """Merges what a producer task has put in since the last call, as the real one does."""

    request_id: str
    sampling: SamplingParams = attrs.field(factory=SamplingParams)
    tokens: Tokens = attrs.field(factory=Tokens)
    _pending: list = attrs.field(factory=list)
    _failure: Exception | None = None
    _finish: FinishReason | None = None
    _stop_string: str | None = None
    cached: int = 0
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _over: bool = False
    _call: object = None

    def push(self, text):
        self._pending.append(text)
        self._tell()

    def end(self, reason, stop_string=None):
        self._finish, self._stop_string = reason, stop_string
        self._tell()

    def fail(self, error):
        self._failure = error
        self._tell()

    def _tell(self):
        self._wake.set()
        if self._call is not None:
            self._call()

    def watch(self, call):
        self._call = call
        if call is not None and (self._wake.is_set() or self._over):
            call()

    async def receive(self):
        if not self._over:
            await self._wake.wait()
        return self.take()

    def take(self):
        if self._over:
            raise StopAsyncIteration
        if not self._wake.is_set():
            return None
        self._wake = trio.Event()
        if self._failure is not None and not self._pending:
            raise self._failure
        return self._take()

    def _detail(self, text):
        others = [TokenLogprob(name, name.encode(), -float(at)) for at, name in enumerate("abcdefghijklmnopqrst")]
        return TokenLogprob(text, text.encode(), -0.5, tuple(others[: self.sampling.top_logprobs]))

    def _prompt_details(self):
        if not self.sampling.prompt_logprobs or self.tokens.prompt_details:
            return ()
        others = [
            TokenLogprob(name, name.encode(), -float(at), id=at) for at, name in enumerate("abcdefghijklmnopqrst")
        ]
        top = tuple(others[: self.sampling.prompt_top_logprobs])
        return tuple(TokenLogprob(str(id), b"%d" % id, -float(id), top, id) for id in PROMPT_IDS)

    def _take(self):
        taken, self._pending = self._pending, []
        usage = None
        if self._finish is not None:
            self._over = True
            usage = TokenUsage(7, len(self.tokens.token_ids) + len(taken), cached_tokens=self.cached)
        chunk = TokenChunk(
            request_id=self.request_id,
            text_delta="".join(taken),
            token_ids=tuple(range(len(taken))),
            details=tuple(map(self._detail, taken)) if self.sampling.logprobs else (),
            prompt_details=self._prompt_details(),
            usage=usage,
            finish_reason=self._finish,
            stop_string=self._stop_string,
        )
        self.tokens.append(chunk)
        if self._failure is not None:
            self._tell()
        return chunk


@attrs.define
class ScriptedBackend:
    """Answers choice k of a request, or the k-th single request, with script k; the last script when they run out."""

    scripts: list = attrs.field(factory=lambda: [say("hello", " ", "world")])
    ready: bool = True
    max_tokens: int = 1000
    prepared: list = attrs.field(factory=list)
    submitted: list = attrs.field(factory=list)
    running: set = attrs.field(factory=set)
    left_early: list = attrs.field(factory=list)
    left_in_peace: list = attrs.field(factory=list)
    cached: int = 0
    on_prepare: object = None
    on_submit: object = None
    idle: trio.Event = attrs.field(factory=trio.Event)
    busy: trio.Event = attrs.field(factory=trio.Event)

    async def models(self):
        return [
            ModelInfo(id=MODEL, created=1_700_000_000, max_model_len=2048),
            ModelInfo(id="other", created=1_700_000_001, owned_by="someone", state=DeploymentState.PENDING),
        ]

    async def readiness(self):
        state = DeploymentState.SERVING if self.ready else DeploymentState.PENDING
        return Readiness(ready=self.ready, deployments={MODEL: state})

    async def pricing(self, model):
        # A thousandth of a dollar for each token that may come.
        return lambda batch: 0.001 * (batch.sampling.max_tokens or 0)

    async def prepare(self, batch):
        await trio.lowlevel.checkpoint()
        self._check(batch.model)
        if len(repr(batch)) > 20_000:
            raise ContextLengthExceeded(len(repr(batch)), 2048)
        self.prepared.append(batch)
        return attrs.evolve(batch, prompt_ids=PROMPT_IDS)

    async def tokenize(self, question):
        """A token per byte, and one for the begin of a text or of a turn."""
        self._check(question.model)
        texts = [turn.text for turn in question.messages] or [question.text]
        begin = [BEGIN] if question.add_special or question.messages else []
        return tuple(id for text in texts for id in (*begin, *text.encode()))

    async def spell(self, model, ids):
        self._check(model)
        if not all(0 <= id <= BEGIN for id in ids):
            raise BadRequest("no such token", param="tokens")
        return tuple(b"<s>" if id == BEGIN else bytes([id]) for id in ids)

    def _check(self, model):
        if self.on_prepare is not None:
            raise self.on_prepare
        if model != MODEL:
            raise ModelNotFound(model)

    @asynccontextmanager
    async def submit(self, batch):
        if self.on_submit is not None:
            raise self.on_submit
        _, _, choice = batch.request_id.rpartition("-")
        number = int(choice) if len(choice) < 5 else len(self.submitted)
        script = self.scripts[min(number, len(self.scripts) - 1)]
        self.submitted.append(batch)
        self.running.add(batch.request_id)
        self.busy.set()
        stream = FakeStream(batch.request_id, batch.sampling, cached=self.cached)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._play, script, stream)
                try:
                    yield stream
                finally:
                    # An effective deadline in the past means that whoever leaves has been cancelled.
                    self.left_in_peace.append(trio.current_effective_deadline() > trio.current_time())
                    nursery.cancel_scope.cancel()
        finally:
            self.running.discard(batch.request_id)
            if stream._finish is None and stream._failure is None:
                self.left_early.append(batch.request_id)
            if not self.running:
                self.idle.set()

    async def _play(self, script, stream):
        for step in script.steps:
            match step:
                case FinishReason():
                    return stream.end(step)
                case StopAt(text):
                    return stream.end(FinishReason.STOP, text)
                case str():
                    stream.push(step)
                    await trio.lowlevel.checkpoint()
                case tuple():
                    for text in step:
                        stream.push(text)
                case int() | float():
                    await trio.sleep(step)
                case trio.Event():
                    await step.wait()
                case Exception():
                    return stream.fail(step)
        return stream.end(FinishReason.STOP)
