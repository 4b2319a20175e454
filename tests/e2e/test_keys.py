"""The command with keys: who is let in, the signal that reloads them, and the end that waits."""

import json
import signal

from click.testing import CliRunner

from atomr_trio.cli import main

from .kit import Server, wait_for


def secret_of(path, name, *limits):
    made = CliRunner().invoke(main, ["keys", "new", name, "--file", str(path), *limits])
    assert made.exit_code == 0, made.output
    return {"authorization": f"Bearer {made.stdout.strip()}"}


def status_of(server, headers):
    return server.http.get("/v1/models", headers=headers).status_code


def test_keys_are_reloaded_and_what_they_spent_is_kept(tmp_path):
    path = tmp_path / "keys.json"
    one = secret_of(path, "one", "--budget-tokens", "100", "--requests-per-minute", "50")
    server = Server("--runtime", "echo", "--keys", str(path), "--lame-duck", "2", "--max-connections", "50")
    try:
        assert (status_of(server, {}), status_of(server, one)) == (401, 200)
        name = server.http.get("/v1/models", headers=one).json()["data"][0]["id"]
        body = {"model": name, "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 20}
        answer = server.http.post("/v1/chat/completions", json=body, headers=one)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-ratelimit-remaining-requests"] == "49"

        two = secret_of(path, "two")
        assert status_of(server, two) == 401
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: status_of(server, two) == 200)
        path.write_text("{")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: any("the keys stay as they were" in line for line in server.stderr))
        assert (status_of(server, one), status_of(server, two)) == (200, 200)

        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.http.get("/readyz").status_code == 503)
        refused = server.http.post("/v1/chat/completions", json=body, headers=one)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert server.process.wait(timeout=60) == 0
    finally:
        server.end()
    spent = json.loads((tmp_path / "keys.json.spent").read_text())["spent"]
    assert [entry["tokens"] for entry in spent.values()] == [answer.json()["usage"]["total_tokens"]]


def test_a_server_that_others_reach_says_so():
    server = Server("--runtime", "echo", "--host", "0.0.0.0")
    try:
        wait_for(lambda: any("without a key" in line for line in server.stderr))
    finally:
        server.end()
