"""The JAX runner over a real device process with the real model."""

import json

import pytest
import trio

from atomr_trio.core import Deployment, ExecuteBatch, ModelLoadError, SamplingParams, Serving
from atomr_trio.engine import frames
from atomr_trio.runners.jax_local import JaxLocalRunner
from atomr_trio.runtime import Cluster


class Recording(JaxLocalRunner):
    """Keeps every step that the device reports."""

    def _on_frame(self, frame):
        if isinstance(frame, frames.Step):
            self.__dict__.setdefault("steps", []).append(frame)
        super()._on_frame(frame)


def deployment(path, **config):
    return Deployment(
        name="m",
        model=str(path),
        serving=Serving(max_concurrent=8),
        runtime_config={"dtype": "float32", "max_model_len": 1024, "spare": "none", **config},
    )


def batch(prompt, number=0, **sampling):
    return ExecuteBatch(
        request_id=f"r{number}", model="m", prompt=prompt, sampling=SamplingParams(**{"temperature": 0, **sampling})
    )


async def test_eight_streams_share_steps_and_one_that_leaves_frees_its_place(smollm2_path, data_dir):
    cases = json.loads((data_dir / "smollm2-135m-instruct.json").read_text())["cases"]
    case = cases[3]
    made = []

    async def create(asked):
        made.append(await trio.to_thread.run_sync(Recording.from_deployment, asked))
        return made[-1]

    async with Cluster.open(create_runner=create) as cluster:
        await cluster.deploy(deployment(smollm2_path))
        (runner,) = made
        texts = {}

        async def ask(number):
            tokens = await cluster.execute(batch(case["prompt"], number, max_tokens=case["safe_length"]))
            texts[number] = tokens.text

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(ask, number)
        assert texts == dict.fromkeys(range(8), case["safe_text"])
        together = max(len(step.outputs) for step in runner.steps)
        assert together == 8
        # 8 answers of 40 tokens in 320 steps would be no batch at all.
        assert len(runner.steps) < 120

        async with cluster.submit(await cluster.directory.prepare(batch("Once", max_tokens=900))) as stream:
            await stream.receive()
            assert runner.steps[-1].running == 1
        alone = await cluster.execute(batch(case["prompt"], max_tokens=3))
        assert alone.token_ids == case["greedy_ids"][:3]
        # The step that carried the last token knew of no other sequence.
        assert (runner.steps[-1].running, runner.steps[-1].waiting) == (0, 0)
        # A step was being read when the client left, and one was behind it; the last word about it has come.
        counted = (await cluster.metrics())["m"]
        assert counted.usage_cancelled.output_tokens >= 1
        assert 1 <= counted.late_tokens <= 3
        assert not len(runner._left)

        seeded = {"temperature": 1.2, "seed": 11, "max_tokens": 12}
        first, *others = [await cluster.execute(batch("Once", number, **seeded)) for number in range(2)]
        assert [other.token_ids for other in others] == [first.token_ids]

        stopped = await cluster.execute(batch(case["prompt"], stop=[" 8"], max_tokens=30, logprobs=True))
        assert stopped.text == case["safe_text"].partition(" 8")[0]
        assert len(stopped.logprobs) == len(stopped.token_ids) == stopped.usage.output_tokens
        for got, expected in zip(stopped.logprobs, case["greedy_logprobs"], strict=False):
            assert got == pytest.approx(expected, abs=0.01)

        stop_id = case["greedy_ids"][3]
        silent = await cluster.execute(batch(case["prompt"], stop_token_ids=[stop_id], max_tokens=30))
        assert silent.usage.output_tokens == case["greedy_ids"].index(stop_id) + 1
        assert silent.text == case["safe_text"][: len(silent.text)]

        # The reference's most likely token, forbidden: the next one is said, and both are told.
        first, *_ = case["greedy_ids"]
        fields = {"max_tokens": 3, "logprobs": True, "top_logprobs": 20}
        forbidden = await cluster.execute(batch(case["prompt"], logit_bias={first: -100}, **fields))
        best, second, *_ = forbidden.details[0].top
        assert (best.logprob, second.logprob) == pytest.approx(
            (case["greedy_logprobs"][0], forbidden.logprobs[0]), abs=0.01
        )
        assert second.text == runner.codec.tokenizer.token_bytes(forbidden.token_ids[0]) == forbidden.details[0].text
        assert [len(token.top) for token in forbidden.details] == [20] * 3

        repeated = {"max_tokens": 40, "ignore_eos": True, "frequency_penalty": 2.0, "presence_penalty": 2.0}
        plain, varied = [
            await cluster.execute(batch("la la la la la", repetition_penalty=penalty, **fields))
            for penalty, fields in [
                (None, {**repeated, "frequency_penalty": 0, "presence_penalty": 0}),
                (1.3, repeated),
            ]
        ]
        assert len(set(varied.token_ids)) == 40 > len(set(plain.token_ids))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"dtype": "float64"}, "dtype"),
        ({"nonsense": 1}, "nonsense"),
        ({"faults": {"seed": 1, "kinds": []}}, "faults"),
        ({"max_model_len": 1}, "max_model_len|context"),
        # Its 3 heads cannot be shared by two devices: known before a device process is started.
        ({"tensor_parallel": 2}, "3 key-value heads"),
        ({"tensor_parallel": 0}, "tensor_parallel"),
    ],
)
def test_a_wrong_configuration_is_named(smollm2_path, config, text):
    with pytest.raises(ModelLoadError, match=text):
        JaxLocalRunner.from_deployment(deployment(smollm2_path, **config))


def test_a_missing_model_says_so_without_its_path():
    with pytest.raises(ModelLoadError) as caught:
        JaxLocalRunner.from_deployment(deployment("secret/place/model.gguf"))
    assert "secret" not in str(caught.value)
