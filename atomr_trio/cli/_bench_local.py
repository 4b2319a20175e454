"""A benchmark's target: a model that is served in this process, without HTTP."""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import trio
from attrs import evolve, field, frozen

from atomr_trio.core import (
    BadRequest,
    Deployment,
    ExecuteBatch,
    Message,
    ModelRunner,
    Role,
    SamplingParams,
    TokenUsage,
)
from atomr_trio.runtime import Cluster

from ._bench_load import Recorder
from ._bench_prompts import Prompt
from ._bench_roofline import ModelBytes, model_bytes
from ._bench_stats import Sample
from ._launch import Loading, prepare
from ._model import ModelOptions

if TYPE_CHECKING:
    from atomr_trio.engine.frames import Ready

__all__ = ["LocalTarget", "copy_bandwidth", "open_local"]


@frozen
class LocalTarget:
    """Asks a deployment of a cluster in this process.

    Args:
        cluster: who serves it.
        name: the deployment's.
        description: what serves, in a few words.
        sampling: of every request.
        vocabulary: its size; ``None``: a runner that takes text.
        context: prompt plus answer, in tokens; ``None``: not known.
        reads: what decoding reads; ``None``: not known.
    """

    cluster: Cluster
    name: str
    description: str
    sampling: SamplingParams
    vocabulary: int | None
    context: int | None
    reads: ModelBytes | None
    _numbers: "count[int]" = field(factory=count, init=False)

    async def ask(self, prompt: Prompt, /) -> Sample:
        """Run one request.

        Raises:
            InferenceError: whatever ended it.
        """
        recorder, usage = Recorder(), TokenUsage()
        async with self.cluster.execute_stream(self._batch(prompt)) as chunks:
            async for chunk in chunks:
                if chunk.token_ids or chunk.text_delta:
                    recorder.chunk(len(chunk.token_ids))
                usage += chunk.usage or TokenUsage()
                recorder.end()
        return recorder.sample(usage.input_tokens, usage.output_tokens, usage.cached_tokens)

    def check(self, prompt_tokens: int) -> None:
        """See that prompt and answer fit.

        Raises:
            BadRequest: they do not.
        """
        needed = prompt_tokens + (self.sampling.max_tokens or 0)
        if self.context is not None and needed > self.context:
            raise BadRequest(f"prompt and answer are {needed} tokens, and the context is {self.context}")

    def _batch(self, prompt: Prompt) -> ExecuteBatch:
        asked: dict[str, Any] = (
            {"messages": [Message(Role.USER, prompt)]} if isinstance(prompt, str) else {"prompt": prompt}
        )
        return ExecuteBatch(
            request_id=f"bench-{next(self._numbers)}", model=self.name, sampling=self.sampling, stream=True, **asked
        )


@asynccontextmanager
async def open_local(options: ModelOptions, sampling: SamplingParams, streams: int) -> AsyncGenerator[LocalTarget]:
    """Serve a model for as long as the block lasts.

    Args:
        options: what is served.
        sampling: of every request.
        streams: how many requests it must run at once, whatever the options say.

    Raises:
        CatalogError: the model's file cannot be had.
        ModelLoadError: it cannot be served.
    """
    options = evolve(options, max_concurrent=max(options.max_concurrent, streams))
    deployment, registry = await trio.to_thread.run_sync(prepare, options)
    loading = Loading(registry)
    async with Cluster.open(create_runner=loading.create) as cluster:
        await loading.deploy(cluster, deployment)
        device = _device_of(loading.runners) if deployment.runtime == "jax" else None
        yield LocalTarget(
            cluster,
            deployment.name,
            loading.describe(),
            sampling,
            None if device is None else device.vocab_size,
            None if device is None else device.max_model_len,
            None if device is None else _reads(deployment, device),
        )


def _device_of(runners: list[ModelRunner]) -> "Ready | None":
    from atomr_trio.runners.jax_local import JaxLocalRunner

    return next((runner.device for runner in runners if isinstance(runner, JaxLocalRunner)), None)


def _reads(deployment: Deployment, device: "Ready") -> ModelBytes | None:
    from atomr_trio.engine.config import ModelConfig

    return model_bytes(ModelConfig.read(deployment.model), device.dtype, device.backend)


async def copy_bandwidth() -> float | None:
    """Measure, in a process of its own, how many bytes a second the device's memory copies; ``None``: it failed.

    Call it before the model is loaded: on an accelerator, the model's process takes the memory.
    """
    command = [sys.executable, "-m", "atomr_trio.cli._bench_copy"]
    result = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return float(result.stdout) if result.returncode == 0 else None
