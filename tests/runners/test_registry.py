"""Finding a runner by its runtime's name, and what is said when there is none."""

import pytest

from atomr_trio.core import Deployment, ModelLoadError, ModelRunner
from atomr_trio.runners import RunnerRegistry
from atomr_trio.runners.echo import EchoRunner


class Mine(ModelRunner):
    async def execute(self, batch, out):
        pass


def deployment(runtime):
    return Deployment(name="m", model="m", runtime=runtime)


def test_built_in_registered_and_replaced():
    registry = RunnerRegistry()
    assert isinstance(registry.create(deployment("echo")), EchoRunner)
    registry.register("mine", Mine)
    registry.register("echo", Mine)
    assert isinstance(registry.create(deployment("mine")), Mine)
    assert isinstance(registry.create(deployment("echo")), Mine)
    assert list(registry) == ["echo", "jax", "mine"]


def test_an_unknown_runtime_names_the_known_ones():
    with pytest.raises(ModelLoadError, match=r"'vllm' \(known: echo, jax\)"):
        RunnerRegistry().resolve("vllm")


def test_registries_do_not_share():
    RunnerRegistry().register("mine", Mine)
    assert "mine" not in list(RunnerRegistry())


def test_defaults_of_a_runner():
    runner = Mine.from_deployment(deployment("mine"))
    assert (runner.runtime_kind, runner.resumable, runner.codec) == ("mine", False, None)
    assert (runner.estimate_cost_usd(None), runner.loading, runner.description) == (0.0, None, None)
