"""The local runner: a model in JAX, in a device process of its own."""

import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Literal, Self

import msgspec
import trio
from attrs import define, field

from atomr_trio.catalog import CatalogError, cache_dir, default_catalog, ensure_model
from atomr_trio.core import (
    Backpressure,
    BadRequest,
    ChunkSink,
    ContextLengthExceeded,
    CudaContextPoisoned,
    Deployment,
    ExecuteBatch,
    FinishReason,
    InferenceError,
    Internal,
    ModelLoadError,
    ModelRunner,
    RuntimeKind,
    TokenChunk,
    TokenLogprob,
    TokenUsage,
    TransportKind,
)
from atomr_trio.engine import frames
from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.fault_plan import DeviceFaultPlan
from atomr_trio.engine.settings import EngineSettings
from atomr_trio.engine.shares import check_shares
from atomr_trio.formats import HfFolder
from atomr_trio.text import OutputDecoder, TextCodec, Tokenizer

from ._link import DeviceLink, Pulse, open_device, spawn_device
from ._spare import Spare, standing_by

__all__ = ["JaxConfig", "JaxLocalRunner"]

log: logging.Logger = logging.getLogger("atomr_trio.runners")


class JaxConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a deployment may say in ``runtime_config``.

    Args:
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``int8``.
        load_format: ``auto`` reads the model's weights; ``dummy`` makes random ones of its shape; ``python`` calls the
            function that the deployment's model names, ``package.module:function``, in the device process.
        tokenizer: for ``python``: a Hugging Face folder with the tokenizer, and a chat template if there is one.
        tensor_parallel: devices of this host that the model is dealt to.
        max_model_len: prompt plus answer, in tokens; at most the model's own.
        kv_tokens: size of the KV pool, in tokens.
        decode_steps: tokens that each stream gets at once while no prompt is to be computed; ``auto`` is what suits the
            device.
        compile_cache: keep compiled programs on disk, so that the next start is faster.
        load_timeout: seconds without progress after which loading has failed.
        silence_timeout: seconds of silence after which the device process is lost.
        step_timeout: seconds after which a step hangs.
        spare: a second process that stands by for the death of the first: ``imported``, without touching the device;
            ``loaded``, with weights and programs, as far as memory allows; ``none``. ``auto``: ``loaded`` on a CPU,
            ``imported`` elsewhere.
        faults: what shall go wrong in the device process, for tests: the arguments of a ``DeviceFaultPlan``.
    """

    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    load_format: Literal["auto", "dummy", "python"] = "auto"
    tokenizer: str | None = None
    tensor_parallel: int = 1
    max_model_len: int | None = None
    kv_tokens: int | None = None
    decode_steps: Literal["auto"] | int = "auto"
    compile_cache: bool = True
    load_timeout: float = 600.0
    silence_timeout: float = 30.0
    step_timeout: float = 60.0
    spare: Literal["auto", "none", "imported", "loaded"] = "auto"
    faults: DeviceFaultPlan | None = None


@define(eq=False)
class _Sequence:
    """One request in the device process: turns its tokens into chunks, inline with the reader."""

    out: ChunkSink
    decoder: OutputDecoder
    prompt_tokens: int
    describe: Callable[[int, float, Sequence[tuple[int, float]]], TokenLogprob] | None = None
    stop_ids: frozenset[int] = frozenset()
    output_tokens: int = 0
    ended_by_engine: bool = False
    error: InferenceError | None = None
    done: trio.Event = field(factory=trio.Event)

    def catch_up(self, told: Sequence[int]) -> None:
        """Take what an earlier process generated: the client has its text, and what was held back of it is here."""
        self.decoder.push(told)
        self.output_tokens = len(told)

    def take(self, output: frames.SequenceOutput) -> None:
        ids = output.token_ids
        # A token that ends the answer by its id is counted, but its text is not part of the answer.
        silent = int(bool(ids) and ids[-1] in self.stop_ids)
        before = self.decoder.tokens
        text, stopped = self.decoder.push(ids[: len(ids) - silent])
        if output.finish_reason is not None and not stopped:
            text += self.decoder.finish()
        # A stop string may be complete before the last of these tokens: the rest was never said.
        taken = self.decoder.tokens - before + (0 if stopped else silent)
        self.output_tokens += taken
        finish = FinishReason.STOP if stopped else output.finish_reason
        self.ended_by_engine = output.finish_reason is not None
        self.out.push(
            TokenChunk(
                text_delta=text,
                token_ids=tuple(ids[:taken]),
                logprobs=() if self.describe is None else tuple((output.logprobs or ())[:taken]),
                details=self._details(output, taken),
                usage=None if finish is None else self._usage(output),
                finish_reason=finish,
            )
        )
        if finish is not None:
            self.done.set()

    def fail(self, error: InferenceError) -> None:
        self.error = error
        self.done.set()

    def _details(self, output: frames.SequenceOutput, taken: int) -> tuple[TokenLogprob, ...]:
        if self.describe is None or output.logprobs is None:
            return ()
        tops = output.top_logprobs or repeat(())
        places = zip(output.token_ids[:taken], output.logprobs, tops, strict=False)
        return tuple([self.describe(*place) for place in places])

    def _usage(self, output: frames.SequenceOutput) -> TokenUsage:
        return TokenUsage(self.prompt_tokens, self.output_tokens, cached_tokens=output.cached_tokens)


class JaxLocalRunner(ModelRunner):
    """Runs a model file in a spawned device process with continuous batching.

    Args:
        codec: the model's text side.
        settings: what the device process loads.
        config: timeouts.
    """

    resumable = True

    def __init__(self, codec: TextCodec, settings: EngineSettings, config: JaxConfig) -> None:
        self._codec = codec
        self._settings = settings
        self._config = config
        self._link: DeviceLink | None = None
        self._spare = Spare(self._spawn_spare)
        self._sessions = 0
        self._open: dict[int, _Sequence] = {}
        self._next_id = 0
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
                return cls(_own_codec(config), _settings(deployment.model, config, deployment), config)
            path = _find(deployment.model)
            # Before anything is started: the device process would say the same of a wrong model, seconds later.
            model = ModelConfig.read(path)
            settings = _settings(str(path), config, deployment)
            check_shares(model, settings.tensor_parallel)
        except (msgspec.ValidationError, ValueError) as error:
            raise ModelLoadError(f"runtime_config of `{deployment.name}`: {error}") from error
        return cls(_codec(path, model, config), settings, config)

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
        """See to it that a spare process stands by, once a session has begun."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._spare.run)
            yield
            nursery.cancel_scope.cancel(reason="the replica stops")

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        """Hold a device process open.

        Raises:
            CudaContextPoisoned: it ended, hangs, or sent garbage.
            ModelLoadError: it cannot load the model.
        """
        self._ready, self._open, self.last_step = trio.Event(), {}, None
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
            self._link = None
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
        request = _request(sequence_id, prepared, self._codec)
        sequence = _Sequence(
            out,
            self._codec.output_decoder(prepared.sampling),
            prompt_tokens=len(request.prompt_ids),
            describe=self._codec.token_logprob if request.logprobs else None,
            stop_ids=frozenset(request.stop_ids),
        )
        sequence.catch_up(batch.generated)
        self._open[sequence_id] = sequence
        link.post(frames.Add([request]))
        try:
            await sequence.done.wait()
        finally:
            del self._open[sequence_id]
            if not sequence.ended_by_engine:
                link.post(frames.Abort([sequence_id]))
        if sequence.error is not None:
            raise sequence.error

    def _next_link(self) -> DeviceLink:
        faults = [] if self._config.faults is None else list(self._config.faults.session(self._sessions))
        self._sessions += 1
        spare = self._spare.take(frames.Activate(faults))
        return spare or spawn_device(frames.Configure(self._settings, faults=faults), self._new_pulse())

    def _new_pulse(self) -> Pulse:
        return Pulse(self._config.silence_timeout, self._config.step_timeout)

    def _spawn_spare(self) -> DeviceLink:
        return spawn_device(standing_by(self._settings, self._config.spare, self.device), self._new_pulse())

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
            return
        try:
            sequence.take(output)
        except InferenceError as failure:
            sequence.fail(failure)

    def _reject(self, frame: frames.Rejected) -> None:
        sequence = self._open.get(frame.id)
        if sequence is not None:
            sequence.ended_by_engine = True
            sequence.fail(_rejection(frame, sequence, self.device))


async def _guard(fail: Callable[[InferenceError], None], fn: Callable[[], Awaitable[None]]) -> None:
    try:
        await fn()
    except InferenceError as failure:
        fail(failure)


def _find(model: str) -> Path:
    try:
        return ensure_model(default_catalog(), model)
    except CatalogError as error:
        # The reason may name paths, and a failed deployment's reason is shown to clients.
        raise ModelLoadError("its file cannot be had") from error


def _codec(path: Path, model: ModelConfig, config: JaxConfig) -> TextCodec:
    folder = HfFolder.at(path)
    if folder is None:
        return TextCodec.from_gguf(path, config.max_model_len)
    if config.load_format == "dummy" and not folder.has_tokenizer:
        tokenizer = Tokenizer.bare(model.vocab_size, model.eos_token_ids)
        return TextCodec(tokenizer, None, min(config.max_model_len or model.context_length, model.context_length))
    return TextCodec.from_folder(folder.path, model.context_length, config.max_model_len)


def _own_codec(config: JaxConfig) -> TextCodec:
    # The model is made in the device process: here nobody knows what it reads and how much of it.
    if config.tokenizer is None or config.max_model_len is None:
        raise ValueError("load_format `python` needs `tokenizer` and `max_model_len`")
    return TextCodec.from_folder(config.tokenizer, config.max_model_len)


def _settings(model: str, config: JaxConfig, deployment: Deployment) -> EngineSettings:
    return EngineSettings(
        model=model,
        load_format=config.load_format,
        dtype=config.dtype,
        tensor_parallel=config.tensor_parallel,
        max_num_seqs=deployment.serving.max_concurrent,
        max_model_len=config.max_model_len,
        kv_tokens=config.kv_tokens,
        decode_steps=config.decode_steps,
        cache_dir=str(cache_dir() / "compiled") if config.compile_cache else None,
    )


def _request(sequence_id: int, batch: ExecuteBatch, codec: TextCodec) -> frames.SequenceRequest:
    sampling = batch.sampling
    return frames.SequenceRequest(
        id=sequence_id,
        prompt_ids=list(batch.prompt_ids or ()),
        generated=list(batch.generated),
        max_tokens=sampling.max_tokens or 1,
        temperature=1.0 if sampling.temperature is None else sampling.temperature,
        top_k=max(0, sampling.top_k or 0),
        top_p=1.0 if sampling.top_p is None else sampling.top_p,
        min_p=sampling.min_p or 0.0,
        seed=random.getrandbits(64) if sampling.seed is None else sampling.seed % 2**64,
        eos_ids=sorted(codec.tokenizer.eos_ids),
        stop_ids=list(sampling.stop_token_ids),
        ignore_eos=sampling.ignore_eos,
        min_tokens=sampling.min_tokens,
        logprobs=sampling.logprobs,
        prompt_logprobs=sampling.prompt_logprobs,
        top_logprobs=sampling.top_logprobs if sampling.logprobs else 0,
        repetition_penalty=1.0 if sampling.repetition_penalty is None else sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty or 0.0,
        frequency_penalty=sampling.frequency_penalty or 0.0,
        logit_bias=list(sampling.logit_bias),
        priority=batch.priority,
        salt=batch.cache_salt,
    )


def _rejection(frame: frames.Rejected, sequence: _Sequence, device: frames.Ready | None) -> InferenceError:
    if frame.kind == ContextLengthExceeded.kind and device is not None:
        return ContextLengthExceeded(sequence.prompt_tokens + 1, device.max_model_len)
    if frame.kind == BadRequest.kind:
        return BadRequest(frame.message)
    if frame.kind == Backpressure.kind:
        return Backpressure(frame.message)
    return Internal(frame.message)
