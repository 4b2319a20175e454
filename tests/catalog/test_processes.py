"""What happens when processes die or compete: with real processes."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

from .kit import MODEL, NAME, open_shop

ROOT = Path(__file__).parents[2]


def start(script, *arguments, env):
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.catalog.{script}", *map(str, arguments)],
        env={**os.environ, **env},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_killed_at_every_step_it_leaves_nothing_that_looks_whole(tmp_path):
    with start("kill_sweep", tmp_path, env={}) as process:
        steps = [json.loads(line) for line in process.stdout]
    assert process.returncode == 0
    *killed, finished = steps
    assert len(killed) > 15
    assert all(step["signal"] == signal.SIGKILL for step in killed)
    assert finished["signal"] == 0
    for step in steps:
        assert step["after"] in ("nothing", "whole"), step
        assert step["recovered"], step
    # The kills did reach both sides of the rename.
    assert {step["after"] for step in killed} == {"nothing", "whole"}


def test_two_processes_share_one_download(tmp_path):
    shop = open_shop(tmp_path)
    with start("fetch", tmp_path, env=shop.env) as one, start("fetch", tmp_path, env=shop.env) as two:
        told = [json.loads(process.stdout.read()) for process in (one, two)]
    assert [entry["path"] for entry in told] == [str(shop.final)] * 2
    assert sorted("download" in entry["stages"] for entry in told) == [False, True]
    assert shop.final.read_bytes() == MODEL


def test_pip_dies_with_the_process_that_started_it(tmp_path):
    shop = open_shop(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent_index:
        url = f"http://127.0.0.1:{silent_index.getsockname()[1]}/simple"
        env = {name: value for name, value in shop.env.items() if name not in ("PIP_NO_INDEX", "PIP_FIND_LINKS")}
        with start("fetch", tmp_path, "--tell-child", env={**env, "PIP_INDEX_URL": url}) as process:
            watch = os.pidfd_open(json.loads(process.stdout.readline())["child"])
            # pip asks the index, which never answers: it would wait for minutes.
            with silent_index.accept()[0]:
                process.kill()
                ended, _, _ = select.select([watch], [], [], 60)
            os.close(watch)
    assert ended
    assert not (shop.folder / f"{NAME}.gguf").exists()
