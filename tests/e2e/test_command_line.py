"""What the command says when it cannot do what it is told: one line and an exit status, no traceback."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

from .kit import served, wait_for


def run(*arguments, **kwargs):
    command = [sys.executable, "-m", "atomr_trio.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **kwargs)


def refused(result, status):
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_the_package_can_be_run_as_a_module():
    command = [sys.executable, "-m", "atomr_trio", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert shown.stdout.replace("atomr_trio ", "atomr_trio.cli ") == run("--help").stdout


def test_an_unknown_model_is_named_with_those_that_are_known():
    assert "smollm2-135m-instruct" in refused(run("serve", "smollm3-135m-instruct", "--port", "0"), 3)


def test_a_missing_file():
    assert "no such file" in refused(run("serve", "nowhere/model.gguf", "--port", "0"), 3)


@pytest.mark.parametrize("size", [0, 3, 100, 5000, 1_000_000, 50_000_000])
def test_a_truncated_model(smollm2_path, tmp_path, size):
    path = tmp_path / "cut.gguf"
    with smollm2_path.open("rb") as whole:
        path.write_bytes(whole.read(size))
    assert "cannot load the model" in refused(run("serve", str(path), "--port", "0"), 3)


def test_an_unsupported_architecture(tmp_path):
    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(str(path), "mamba")
    writer.add_context_length(64)
    writer.add_tokenizer_model("gpt2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert "mamba" in refused(run("serve", str(path), "--port", "0"), 3)


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert str(port) in refused(run("serve", "--runtime", "echo", "--port", str(port)), 4)


def test_a_runner_that_is_not_there(tmp_path):
    assert "nope" in refused(run("serve", "--runtime", "nope:Nope", "--port", "0"), 3)
    assert "no runner for runtime" in refused(run("serve", "--runtime", "nope", "--port", "0"), 3)


README = Path(__file__).parents[2] / "README.md"


def test_a_custom_runner_in_ten_lines(tmp_path):
    """The README's own lines."""
    (code,) = re.findall(r"```python\n(# shout\.py\n.*?)```", README.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    path = tmp_path / "shout.py"
    path.write_text(code)
    with served("--runtime", f"{path}:Shout") as server:
        body = {"model": "shout", "messages": [{"role": "user", "content": "hello there"}]}
        reply = server.http.post("/v1/chat/completions", json=body).json()
        assert reply["choices"][0]["message"]["content"] == "HELLO THERE "
        assert reply["choices"][0]["finish_reason"] == "stop"
        server.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: any("the tree of actors" in line for line in server.stderr))
        wait_for(lambda: any(line.startswith("  gateway  running") for line in server.stderr))


def test_a_server_says_at_its_end_what_it_did():
    with served("--runtime", "echo") as server:
        server.wait_ready()
        body = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}
        assert server.http.post("/v1/chat/completions", json=body).status_code == 200
        assert server.end() == 0
    (line,) = [found for line in server.stderr if line.startswith("{") and (found := json.loads(line))]
    assert (line["event"], line["deployment"]) == ("served", "echo")
    assert (line["succeeded"], line["left"], line["tokens_out"], line["tokens_late"]) == (1, 0, 3, 0)


def test_pull_prints_the_path(smollm2_path):
    result = run("pull")
    assert result.stdout.strip() == str(smollm2_path)


def test_chat_answers_lines_from_a_pipe_and_shows_stats(smollm2_path):
    lines = "What is the capital of France?\n/stats\n/nonsense\n/exit\nnever said\n"
    result = run("chat", "--temperature", "0", "--dtype", "float32", input=lines)
    assert result.returncode == 0, result.stderr
    first, stats, commands = result.stdout.strip().splitlines()
    assert first == "The capital of France is Paris."
    assert stats.startswith("1 answers, 37 prompt tokens, 8 tokens; first token after")
    assert "/exit" in commands
