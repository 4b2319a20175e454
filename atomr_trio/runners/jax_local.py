"""The local runner: a model in JAX, in a device process of its own."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Self

import msgspec
import trio

from atomr_trio.core import (
    ChunkSink,
    CudaContextPoisoned,
    Deployment,
    ExecuteBatch,
    Grammar,
    InferenceError,
    ModelLoadError,
    ModelRunner,
    RuntimeKind,
    TransportKind,
)
from atomr_trio.engine import frames
from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.settings import EngineSettings
from atomr_trio.engine.shares import check_shares
from atomr_trio.text import TextCodec, Tokenizer

from ._grammar_check import GrammarCheck
from ._jax_config import JaxConfig, codec_of, engine_settings, find_model, own_codec, with_pooling
from ._left import LeftBehind
from ._link import DeviceLink, Pulse, open_device, spawn_device
from ._pages import PagesFile
from ._prompt_details import PromptDetails
from ._sequence import OpenSequence, rejection, sequence_request
from ._spare import Spare, standing_by

__all__ = ["JaxConfig", "JaxLocalRunner"]

log: logging.Logger = logging.getLogger("atomr_trio.runners")


class JaxLocalRunner(ModelRunner):
    """Runs a model file in a spawned device process with continuous batching.

    Args:
        codec: the model's text side.
        settings: what the device process loads.
        config: timeouts.
    """

    resumable = True
    embeds = True

    def __init__(self, codec: TextCodec, settings: EngineSettings, config: JaxConfig) -> None:
        self._codec = codec
        self._settings = settings
        self._config = config
        self._link: DeviceLink | None = None
        self._spare = Spare(self._spawn_spare)
        self._pages = PagesFile(config.kept_mib > 0)
        self._sessions = 0
        self._open: dict[int, OpenSequence] = {}
        self._left = LeftBehind()
        self._next_id = 0
        self._grammars = GrammarCheck(_control_tokens(codec.tokenizer), codec.tokenizer.vocab_size)
        self._informed: DeviceLink | None = None
        self._ready = trio.Event()
        self._progress = trio.Event()
        self._stage: frames.Progress | None = None
        self.device: frames.Ready | None = None
        self.last_step: frames.Step | None = None

    @classmethod
    def from_deployment(cls, deployment: Deployment, /) -> Self:
        """Find the model's file and read its tokenizer.

        Raises:
            ModelLoadError: the configuration is wrong, or the file is missing or not a model that can be served.
        """
        try:
            config = msgspec.convert(deployment.runtime_config, JaxConfig)
            if config.load_format == "python":
                return cls(own_codec(config), engine_settings(deployment.model, config, deployment), config)
            path = find_model(deployment.model)
            config = with_pooling(path, config)
            # Before anything is started: the device process would say the same of a wrong model, seconds later.
            model = ModelConfig.read(path)
            settings = engine_settings(str(path), config, deployment)
            check_shares(model, settings.tensor_parallel)
        except (msgspec.ValidationError, ValueError) as error:
            raise ModelLoadError(f"runtime_config of `{deployment.name}`: {error}") from error
        return cls(codec_of(path, model, config), settings, config)

    @property
    def runtime_kind(self) -> RuntimeKind:
        """``jax``."""
        return "jax"

    @property
    def transport_kind(self) -> TransportKind:
        """On this machine."""
        return TransportKind.LOCAL_GPU

    @property
    def codec(self) -> TextCodec:
        """The model's text side."""
        return self._codec

    @property
    def loading(self) -> str | None:
        """The stage of loading and its percentage."""
        if self._stage is None or self._ready.is_set():
            return None
        return f"{self._stage.stage} {100 * self._stage.done // max(1, self._stage.total)}%"

    @property
    def description(self) -> str | None:
        """Number type, device and context length."""
        if self.device is None:
            return None
        return f"{self.device.dtype} on {self.device.device}, context {self.device.max_model_len}"

    @property
    def device_pid(self) -> int | None:
        """The process id of the device process, while there is one."""
        return None if self._link is None else self._link.process.pid

    @property
    def sessions(self) -> int:
        """How many sessions were begun: one more than restarts of the context."""
        return self._sessions

    @property
    def spare_pid(self) -> int | None:
        """The process id of the process that stands by, while there is one."""
        return self._spare.pid

    @asynccontextmanager
    async def lifetime(self) -> AsyncGenerator[None]:
        """See to it that a spare process stands by, once a session has begun, and keep what sessions leave for it."""
        self._pages.outlives_sessions = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._spare.run)
                yield
                nursery.cancel_scope.cancel(reason="the replica stops")
        finally:
            self._pages.close()

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        """Hold a device process open.

        Raises:
            CudaContextPoisoned: it ended, hangs, or sent garbage.
            ModelLoadError: it cannot load the model.
        """
        self._ready, self._open, self._left, self.last_step = trio.Event(), {}, LeftBehind(), None
        failures: list[InferenceError] = []
        link = self._next_link()
        try:
            async with open_device(link) as self._link, trio.open_nursery() as nursery:

                def fail(failure: InferenceError) -> None:
                    # The first failure is the cause. Raised in a group it would hide from the supervisor's decider.
                    failures.append(failure)
                    nursery.cancel_scope.cancel(reason=str(failure))

                nursery.start_soon(_guard, fail, self._link.write)
                nursery.start_soon(_guard, fail, self._link.watch)
                nursery.start_soon(_guard, fail, partial(self._link.read, self._on_frame))
                await _guard(fail, self._wait_ready)
                await trio.lowlevel.checkpoint()  # is cancelled if loading failed
                if self._config.spare != "none":
                    self._spare.want()
                yield
                nursery.cancel_scope.cancel(reason="the session is over")
        finally:
            self._link = self._informed = None
            # Only who was killed was sound until then.
            cause = failures[0] if failures else None
            self._pages.session_over(keep=isinstance(cause, CudaContextPoisoned) and cause.from_outside)
        if failures:
            raise failures[0]

    async def execute(self, batch: ExecuteBatch, out: ChunkSink, /) -> None:
        """Run one request in the device process; the tokens arrive through the session's reader.

        Raises:
            BadRequest: the device process refused the request.
            ContextLengthExceeded: the prompt does not fit the context.
        """
        link = self._link
        if link is None:
            raise CudaContextPoisoned("there is no device process")
        prepared = batch if batch.prompt_ids is not None else self._codec.prepare(batch)
        sequence_id, self._next_id = self._next_id, self._next_id + 1
        request = sequence_request(sequence_id, prepared, self._codec, self._config.settled_pooling)
        describe = self._codec.token_logprob
        sequence = OpenSequence(
            out,
            self._codec.output_decoder(prepared.sampling, prepared.form),
            prompt_tokens=len(request.prompt_ids),
            describe=describe if request.logprobs else None,
            describe_prompt=partial(PromptDetails.of, request.prompt_ids, describe)
            if request.prompt_logprobs
            else None,
            stop_ids=frozenset(request.stop_ids),
            embeds=batch.embed,
        )
        sequence.catch_up(batch.generated)
        self._open[sequence_id] = sequence
        if request.grammar is not None:
            self._inform(link)
        link.post(frames.Add([request]))
        try:
            await sequence.done.wait()
        finally:
            del self._open[sequence_id]
            if not sequence.ended_by_engine:
                self._left.add(sequence_id, out)
                link.post(frames.Abort([sequence_id]))
        if sequence.error is not None:
            raise sequence.error

    async def check_grammar(self, grammar: Grammar, /) -> None:
        """Read it in a process of its own: the first time takes some 0.2 s, afterwards the verdict is known.

        Raises:
            BadRequest: it is wrong, too complex, or allows no answer.
            Unsupported: the library that reads grammars is not installed.
            Backpressure: there was no time to find out.
        """
        await self._grammars.check(grammar)

    def _inform(self, link: DeviceLink) -> None:
        """Tell a device process the vocabulary, once."""
        if self._informed is not link:
            self._informed = link
            tokenizer = self._codec.tokenizer
            ids = sorted(tokenizer.special_ids), sorted(tokenizer.eos_ids)
            link.post(frames.Vocabulary(list(tokenizer.vocabulary), *ids))

    def _next_link(self) -> DeviceLink:
        faults = [] if self._config.faults is None else list(self._config.faults.session(self._sessions))
        self._sessions += 1
        spare = self._spare.take(frames.Activate(faults))
        return spare or spawn_device(frames.Configure(self._settings, faults=faults), self._new_pulse(), self._pages.fd)

    def _new_pulse(self) -> Pulse:
        return Pulse(self._config.silence_timeout, self._config.step_timeout)

    def _spawn_spare(self) -> DeviceLink:
        configure = standing_by(self._settings, self._config.spare, self.device)
        return spawn_device(configure, self._new_pulse(), self._pages.fd)

    async def _wait_ready(self) -> None:
        while not self._ready.is_set():
            self._progress = trio.Event()
            with trio.move_on_after(self._config.load_timeout) as stalled:
                await self._progress.wait()
            if stalled.cancelled_caught:
                raise CudaContextPoisoned(f"loading made no progress for {self._config.load_timeout:g}s")

    def _on_frame(self, frame: frames.ChildFrame) -> None:
        match frame:
            case frames.Step():
                if self.last_step is not None and frame.number <= self.last_step.number:
                    log.warning("step %d came twice", frame.number)
                    return
                self.last_step = frame
                for output in frame.outputs:
                    self._deliver(output)
            case frames.Aborted():
                self._left.forget(frame)
            case frames.Rejected():
                self._reject(frame)
            case frames.Progress():
                self._stage = frame
                self._progress.set()
            case frames.Ready():
                self.device = frame
                self._ready.set()
                self._progress.set()
            case _:
                return

    def _deliver(self, output: frames.SequenceOutput) -> None:
        # Absent when it was aborted while this frame was on its way.
        sequence = self._open.get(output.id)
        if sequence is None:
            self._left.take(output)
            return
        try:
            sequence.take(output)
        except InferenceError as failure:
            sequence.fail(failure)

    def _reject(self, frame: frames.Rejected) -> None:
        sequence = self._open.get(frame.id)
        if sequence is not None:
            sequence.ended_by_engine = True
            sequence.fail(rejection(frame, sequence, self.device))


def _control_tokens(tokenizer: Tokenizer) -> dict[int, str]:
    return {id: tokenizer.token_name(id) for id in sorted(tokenizer.special_ids | tokenizer.eos_ids)}


async def _guard(fail: Callable[[InferenceError], None], fn: Callable[[], Awaitable[None]]) -> None:
    try:
        await fn()
    except InferenceError as failure:
        fail(failure)
