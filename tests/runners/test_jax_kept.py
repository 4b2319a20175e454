"""What was computed outlives a device process that is killed, and not one that fails of itself."""

import os
from itertools import pairwise

import pytest
import trio

from atomr_trio.core import Deployment, ExecuteBatch, SamplingParams, Serving
from atomr_trio.engine import frames
from atomr_trio.runners.jax_local import JaxLocalRunner
from atomr_trio.runtime import Cluster

PROMPT = tuple(range(1000, 1090))


class Recording(JaxLocalRunner):
    """Keeps every step that the device reports."""

    def _on_frame(self, frame):
        if isinstance(frame, frames.Step):
            self.__dict__.setdefault("steps", []).append(frame)
        super()._on_frame(frame)


def rows_by_process(steps):
    """Rows that each process computed: numbers of steps begin anew with it."""
    begins = [0, *(place for place, (one, other) in enumerate(pairwise(steps), 1) if other.number <= one.number)]
    return [sum(step.tokens for step in steps[start:end]) for start, end in pairwise([*begins, len(steps)])]


@pytest.mark.parametrize(("kind", "goes_on"), [("kill", True), ("poison", False)])
async def test_after_a_kill_hardly_anything_is_computed_again(smollm2_path, kind, goes_on):
    made = []

    async def create(asked):
        made.append(await trio.to_thread.run_sync(Recording.from_deployment, asked))
        return made[-1]

    config = {"dtype": "float32", "max_model_len": 256, "spare": "none", "kept_mib": 64}
    faults = {"seed": 3, "kinds": [kind], "times": 1, "every": 60}
    deployment = Deployment(
        name="m",
        model=str(smollm2_path),
        serving=Serving(max_concurrent=2),
        runtime_config={**config, "faults": faults},
    )
    sampling = SamplingParams(temperature=0, max_tokens=120, ignore_eos=True)

    async def ask():
        return await cluster.execute(ExecuteBatch(request_id="r", model="m", prompt=PROMPT, sampling=sampling))

    async with Cluster.open(create_runner=create) as cluster:
        await cluster.deploy(deployment)
        (runner,) = made
        disturbed = await ask()
        died, went_on = rows_by_process(runner.steps)
        told = died - len(PROMPT)
        assert told > 16
        undisturbed = await ask()
        assert disturbed.token_ids == undisturbed.token_ids
        assert disturbed.usage.cached_tokens == 0
        again = went_on - (120 - told)
        # The last page, and a few tokens that were computed but not copied, or not told, when it died.
        assert (0 <= again < 24) is goes_on
        assert (again > len(PROMPT)) is not goes_on
        held = runner._pages.fd
        os.fstat(held)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(held)
