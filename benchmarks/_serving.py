"""What the benchmarks share: servers of their own, how busy they are, and the machine's name."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import httpx2
from attrs import define

from atomr_trio.cli._bench_show import machine as computer

START_TIMEOUT = 600
NAME = "bench"


@define
class Server:
    """A server that this program started, with its children."""

    process: "subprocess.Popen[str]"
    url: str
    command: list[str]

    def cpu_seconds(self) -> float:
        """Processor time of the whole tree so far; 0 where the system does not tell."""
        return sum(map(_cpu_seconds, _tree(self.process.pid)))

    def wait_idle(self, timeout: float = 600) -> None:
        """Wait until it has nothing more to do: ours goes on compiling for a while when nobody asks for anything."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(0.5)
            if self.cpu_seconds() - before < 0.05:
                return

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += _tree(int(child))
    return found


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end_in_order() -> None:
    """Have SIGTERM unwind the program, as Ctrl-C does: whoever has started a server stops it on the way."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def start_ours(*arguments: str, stderr: IO[str] | None = None) -> Server:
    """Start `atomr-trio serve` on a free port; ``stderr`` gets what it logs, instead of the terminal."""
    command = [sys.executable, "-m", "atomr_trio.cli", "serve", "--port", "0", "--name", NAME, "--no-access-log"]
    command += arguments
    end_in_order()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"served at (http://\S+)/v1", line):
            return Server(process, found[1], ["atomr-trio", *command[3:]])
    sys.exit("the server did not come up")


def start_llama(path: str, model: Path, *arguments: str) -> Server:
    """Start llama.cpp's `llama-server` on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [path, "-m", str(model), "--host", "127.0.0.1", "--port", str(port), *arguments]
    end_in_order()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    server = Server(process, f"http://127.0.0.1:{port}", [Path(path).name, "-m", model.name, *arguments])
    deadline = time.monotonic() + START_TIMEOUT
    while not _is_healthy(server.url):
        if process.poll() is not None or time.monotonic() > deadline:
            server.stop()
            sys.exit(f"llama-server did not come up (status {process.returncode}): {shlex.join(server.command)}")
        time.sleep(0.1)
    return server


def _is_healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.HTTPError:
        return False


def machine() -> str:
    load = f", load {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""
    return computer() + load


def command_line() -> str:
    return shlex.join(["python", *sys.argv])


def print_json(machine: str, **results: object) -> None:
    print(json.dumps({"machine": machine, "command": command_line(), **results}))
