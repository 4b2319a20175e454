"""A real server in a process of its own, and what it takes to look at it from outside."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2

MODEL = "smollm2-135m-instruct"
START_TIMEOUT = 300


class Server:
    """`atomr-trio serve` on a free port of the loopback interface."""

    def __init__(self, *arguments, env=None):
        command = [sys.executable, "-m", "atomr_trio.cli", "serve", "--port", "0", "--no-access-log", *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.stderr = []
        self._lines = queue.Queue()
        self._threads = [
            threading.Thread(target=self._pump, args=(self.process.stdout, self._lines.put)),
            threading.Thread(target=self._pump, args=(self.process.stderr, self.stderr.append)),
        ]
        for thread in self._threads:
            thread.start()
        self.url = self._wait_url()
        self.http = httpx2.Client(base_url=self.url, timeout=120)

    @staticmethod
    def _pump(stream, put):
        with stream:
            for line in stream:
                put(line)
        put("")

    def _wait_url(self):
        while line := self._lines.get(timeout=START_TIMEOUT):
            if found := re.search(r"served at (http://\S+)/v1", line):
                return found[1]
        raise AssertionError(f"the server did not come up: {''.join(self.stderr)}")

    @property
    def device_pids(self):
        """The device process, the server's child that runs the engine, and then the one that stands by."""
        return [pid for pid in children(self.process.pid) if "atomr_trio.engine.process" in command_of(pid)]

    @property
    def device_pid(self):
        return next(iter(self.device_pids), None)

    def wait_ready(self, status=200):
        """Wait until /readyz says so."""
        wait_for(lambda: self.http.get("/readyz").status_code == status)

    def chat(self, text, **fields):
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
        return self.http.post("/v1/chat/completions", json=body)

    def complete(self, prompt, **fields):
        return self.http.post("/v1/completions", json={"model": MODEL, "prompt": prompt, "temperature": 0, **fields})

    def stream(self, text, **fields):
        """Open a chat stream; iterate over its events' objects with ``events``."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "stream": True,
            **fields,
        }
        return self.http.stream("POST", "/v1/chat/completions", json=body)

    def end(self, number=signal.SIGTERM):
        """Signal the server, wait for its end, return its status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(timeout=60)
        for thread in self._threads:
            thread.join(timeout=60)
        self.http.close()
        return status


def events(response):
    """The data of each server-sent event, decoded; ``[DONE]`` as it is."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield data if data == "[DONE]" else json.loads(data)


def children(pid):
    """Process ids of the children, over all threads."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_running(pid):
    """Whether the process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until_idle(pid):
    """Wait until a process has computed nothing for a while."""
    used = -1
    while (now := cpu_ticks(pid)) != used:
        used = now
        threading.Event().wait(1.0)


def cpu_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def wait_for(condition, timeout=120):
    """Poll something outside of this process until it holds; fails loudly if it never does."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.02)


@contextmanager
def served(*arguments, env=None):
    # Most tests have no use for a second process, and two cores have none for it either.
    spare = () if "--spare" in arguments else ("--spare", "none")
    server = Server(*arguments, *spare, env=env)
    try:
        yield server
    finally:
        server.end()
