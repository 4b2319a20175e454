"""Clients that leave, engines that die, servers that are told to stop."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from .kit import events, is_running, served, wait_for, wait_until_idle

LONG = {"max_tokens": 8000, "ignore_eos": True}


@pytest.fixture(scope="module")
def lone(smollm2_path):
    """A server that runs one request at a time: a slot that is not freed is noticed by the next request."""
    with served("--dtype", "float32", "--max-concurrent", "1") as server:
        yield server


def leave_stream(server):
    with server.stream("Tell me a long story.", **LONG) as response:
        for number, _ in enumerate(events(response)):
            if number == 5:
                return


def leave_unanswered(server, prompt="Tell me a long story."):
    with pytest.raises(httpx2.ReadTimeout):
        server.http.post(
            "/v1/completions",
            json={"model": "smollm2-135m-instruct", "prompt": prompt, **LONG},
            timeout=httpx2.Timeout(60, read=0.3),
        )


@pytest.mark.parametrize(
    "leave",
    [leave_stream, leave_unanswered, lambda server: leave_unanswered(server, "word " * 3000)],
    ids=["streaming", "unary", "prefill"],
)
def test_a_client_that_leaves_frees_its_slot(lone, leave):
    leave(lone)
    # Thousands of tokens would take minutes: with the slot still taken this would not come in time.
    reply = lone.http.post(
        "/v1/completions",
        json={"model": "smollm2-135m-instruct", "prompt": "1, 2,", "temperature": 0, "max_tokens": 2},
        timeout=15,
    )
    assert reply.json()["choices"][0]["text"]


def read_text(server, prompt, **fields):
    """Stream until the end; returns the text, or the error object."""
    with server.stream(prompt, **fields) as response:
        received = [event for event in events(response) if isinstance(event, dict)]
    errors = [event["error"] for event in received if "error" in event]
    choices = [choice for event in received for choice in event.get("choices", ())]
    return errors[0] if errors else "".join(choice["delta"].get("content") or "" for choice in choices)


def not_failed(server):
    return server.http.get("/readyz").json()["deployments"]["smollm2-135m-instruct"] != "failed"


def test_open_streams_survive_the_death_of_the_device_process(smollm2_path):
    with served("--dtype", "float32", "--max-model-len", "8192") as server, ThreadPoolExecutor(3) as pool:
        prompts = ["Tell me a story about a fox.", "What is the capital of France?", "List five colours."]
        ask = {"max_tokens": 160, "ignore_eos": True}
        undisturbed = [server.chat(prompt, **ask).json()["choices"][0]["message"]["content"] for prompt in prompts]
        streams = [pool.submit(read_text, server, prompt, **ask) for prompt in prompts]
        with server.stream("Hello", **ask) as probe:
            received = events(probe)
            next(received)
            before = server.device_pid
            os.kill(before, signal.SIGKILL)
            server.wait_ready(503)
            assert server.http.get("/livez").status_code == 200
            rest = list(received)
            assert not [event for event in rest if isinstance(event, dict) and "error" in event]
            assert rest[-1] == "[DONE]"
        assert [stream.result(timeout=120) for stream in streams] == undisturbed
        # Queued during the restart, answered after it.
        assert server.chat("What is the capital of France?").json()["choices"][0]["message"]["content"]
        assert server.http.get("/readyz").status_code == 200
        assert server.device_pid not in (None, before)

        # Four in a row, the first of these included or not: it may have been more than a minute ago.
        killed = {before}
        while not_failed(server):
            if (device := server.device_pid) not in (None, *killed):
                os.kill(device, signal.SIGKILL)
                killed.add(device)
        assert len(killed) in (4, 5)
        refused = server.chat("Hello")
        assert refused.status_code == 503
        assert "failed too often" in refused.json()["error"]["message"]
        assert server.http.get("/livez").status_code == 200
        assert server.device_pid is None
        assert server.end() == 0


def test_the_process_that_stands_by_goes_on_and_none_outlives_the_server(smollm2_path):
    with served("--dtype", "float32", "--max-model-len", "1024", "--spare", "loaded") as server:
        ask = {"max_tokens": 60, "ignore_eos": True}
        undisturbed = server.chat("Tell me a story about a fox.", **ask).json()["choices"][0]["message"]["content"]
        wait_for(lambda: len(server.device_pids) == 2)
        first, spare = server.device_pids
        wait_until_idle(spare)
        with ThreadPoolExecutor(1) as pool:
            with server.stream("Hello", **ask) as probe:
                stream = pool.submit(read_text, server, "Tell me a story about a fox.", **ask)
                received = events(probe)
                next(received)
                os.kill(first, signal.SIGKILL)
                assert list(received)[-1] == "[DONE]"
            assert stream.result(timeout=120) == undisturbed
        wait_for(lambda: len(server.device_pids) == 2)
        assert server.device_pid == spare
        both = server.device_pids
        server.process.kill()
        server.process.wait()
        wait_for(lambda: not any(map(is_running, both)), timeout=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_leaves_no_process(smollm2_path, number):
    with served("--dtype", "float32", "--grace", "1") as server:
        device = server.device_pid
        with server.stream("Tell me a long story.", **LONG) as response:
            received = events(response)
            next(received)
            server.process.send_signal(number)
            rest = list(received)
        assert any(isinstance(event, dict) and "error" in event for event in rest)
        assert server.process.wait(timeout=30) == 0
        assert not is_running(device)


def test_a_killed_server_leaves_no_device_process(smollm2_path):
    with served("--dtype", "float32") as server:
        device = server.device_pid
        assert is_running(device)
        server.process.kill()
        server.process.wait()
        wait_for(lambda: not is_running(device), timeout=10)


def test_a_signal_while_loading_ends_it_too(smollm2_path):
    command = [sys.executable, "-m", "atomr_trio.cli", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with process.stderr:
        assert "loading" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
