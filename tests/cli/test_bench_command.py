"""`atomr-trio bench` as its users meet it: a table or JSON, one line for an error, an exit status."""

import json

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.cli import main
from atomr_trio.cli._bench_local import LocalTarget
from atomr_trio.cli._bench_show import Report, show
from atomr_trio.cli._bench_stats import Goals, LoadPoint, Sample, summarize
from atomr_trio.core import BadRequest, SamplingParams
from tests.e2e.kit import served


def bench(*arguments, **kwargs):
    return CliRunner().invoke(main, ["bench", *map(str, arguments)], **kwargs)


def rows(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["rows"]


def test_offline_all_loads_in_one_run():
    result = bench("--runtime", "echo", "-c", "1,3", "--rate", "200", "-p", 12, "-n", 5, "--requests", 6, "--json")
    found = rows(result)
    assert [row["load"] for row in found] == [{"concurrency": 1}, {"concurrency": 3}, {"rate": 200.0}]
    for row in found:
        assert (row["requests"], row["failed"]) == (6, 0)
        # The echo runner counts words.
        assert (row["prompt_tokens"], row["output_tokens"]) == (6 * 12, 6 * 5)
        assert row["output_tokens_per_s"] * row["duration_s"] == pytest.approx(30)
        assert row["ttft_ms"]["p50"] <= row["latency_ms"]["p99"]
        assert row["roofline"] is None


def test_the_table_says_the_same():
    result = bench("--runtime", "echo", "-c", "2", "-p", 9, "-n", 4, "--requests", 4, "--seed", 7, "--ttft-goal", 1e6)
    assert result.exit_code == 0, result.output
    assert "prompts of 9 tokens, answers of 4, seed 7" in result.stdout
    heading, row = (
        next(line.split() for line in result.stdout.splitlines() if line.strip().startswith(word))
        for word in ("load", "2 streams")
    )
    assert heading[:2] == ["load", "requests"]
    assert row[:3] == ["2", "streams", "4"]
    assert "goodput" in result.stdout


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "eos_token_id": 2,
    "bos_token_id": 1,
}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A model of random weights, in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "tiny" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    return [path, "--load-format", "dummy", "--max-concurrent", 2, "--bandwidth", 10]


def test_a_real_engine_is_compared_with_its_roofline(tiny):
    result = bench(*tiny, "-c", 2, "-p", 10, "-n", 6, "--requests", 4, "--json")
    (row,) = rows(result)
    assert (row["prompt_tokens"], row["output_tokens"], row["cached_tokens"], row["exact"]) == (40, 24, 0, True)
    assert row["roofline"] is None or row["roofline"] > 0
    assert json.loads(result.stdout)["bandwidth_bytes_per_s"] == 10e9


def test_what_does_not_fit_is_refused_before_anything_is_measured():
    sampling = SamplingParams(max_tokens=6)
    target = LocalTarget(None, "m", "", sampling, vocabulary=300, context=32, reads=None)
    target.check(26)
    with pytest.raises(BadRequest, match="are 33 tokens, and the context is 32"):
        target.check(27)


def test_a_server(monkeypatch):
    monkeypatch.setenv("BENCH_KEY", "secret")
    with served("--runtime", "echo") as server:
        chat = ["--url", server.url, "--endpoint", "chat", "-c", 2, "-p", 8, "-n", 3, "--requests", 4]
        (row,) = rows(bench(*chat, "--api-key-env", "BENCH_KEY", "--json"))
        assert (row["requests"], row["prompt_tokens"], row["output_tokens"], row["exact"]) == (4, 32, 12, True)
        text = ["--url", f"{server.url}/v1", "--text", "--model", "echo", "-c", 1, "-n", 2, "--requests", 1]
        assert rows(bench(*text, "--json"))[0]["output_tokens"] == 2
        unknown = bench(*chat, "--model", "nobody")
        assert unknown.exit_code == 1
        assert "nobody" in unknown.stderr
        assert "Traceback" not in unknown.output


def test_a_server_that_is_not_there():
    result = bench("--url", "http://127.0.0.1:1", "--timeout", 10)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: network error: the server cannot be reached")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--concurrency", "0"],
        ["--concurrency", "1,x"],
        ["--rate", "inf"],
        ["--rate", "-1"],
        ["--model", "m"],
        ["--url", "http://127.0.0.1:1", "--api-key-env", "NOT_THERE"],
        ["--prompt-tokens", "0"],
    ],
)
def test_wrong_usage(wrong):
    result = bench(*wrong)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


def test_an_unknown_model():
    assert bench("nobody-7b", "--bandwidth", 1).exit_code == 3


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.integers(0, 5),
    st.booleans(),
    st.none() | st.floats(0, 2),
)
@settings(max_examples=25)
def test_any_report_can_be_shown(counts, failed, with_goals, roofline):
    sample = Sample(sent=0.0, chunks=(1.0, 1.5), ended=1.5, prompt_tokens=4, output_tokens=5)
    goals = Goals(1.0) if with_goals else Goals()
    found = [
        summarize(LoadPoint("rate", 0.5), [sample] * count, failed=failed, duration=2.0, goals=goals, roofline=roofline)
        for count in counts
    ]
    report = Report(target="m", prompt_tokens=4, shared_prefix=0, output_tokens=5, seed=0, bandwidth=1e9, rows=found)
    json.dumps(report.to_dict())
    show(report)
