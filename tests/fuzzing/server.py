"""The server under attack, in a process of its own: the whole runtime with the echo runner, and short deadlines.

It writes its port to standard output; for each line on standard input it writes its vitals; it ends with its input.
"""

import gc
import json
import logging
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path

import attrs
import structlog
import trio

from atomr_trio.actor import Props
from atomr_trio.core import Deployment
from atomr_trio.gateway import GatewaySettings, ServerSettings
from atomr_trio.gateway.actor import ApiGatewayActor, GatewayConfig, Stop
from atomr_trio.runners import RunnerRegistry
from atomr_trio.runtime import Cluster

from .requests import MODEL

MOST_ERRORS = 20
SETTINGS = GatewayConfig(
    port=0,
    server=ServerSettings(write_timeout=1.0, keep_alive_timeout=1.0, grace=1.0, linger=0.2),
    app=GatewaySettings(
        max_body_bytes=65_536, body_timeout=1.0, drain_timeout=0.5, heartbeat=0.5, max_choices=16, access_log=False
    ),
)


class Errors:
    """A log that counts the errors since it was last asked for them, by what they are and where."""

    def __init__(self):
        self._kept = {}

    def __call__(self, _logger, method, entry):
        if method in {"error", "critical"}:
            for text in [f"{entry['event']}: {leaf}" for leaf in leaves(entry.get("exc_info"))]:
                if text in self._kept or len(self._kept) < MOST_ERRORS:
                    self._kept[text] = self._kept.get(text, 0) + 1
        raise structlog.DropEvent

    def take(self):
        taken, self._kept = self._kept, {}
        return taken


def leaves(error):
    """The exceptions in a group, each as a line, with the last places that it came through."""
    if isinstance(error, BaseExceptionGroup):
        return [text for each in error.exceptions for text in leaves(each)]
    if error is True:
        error = sys.exc_info()[1]
    frames = traceback.extract_tb(getattr(error, "__traceback__", None))[-4:]
    return [f"{error!r} in " + " > ".join(f"{Path(frame.filename).name}:{frame.name}" for frame in frames)]


def configured(limits):
    """The settings, with some limits changed."""
    app, server = (attrs.asdict(one, recurse=False) for one in (SETTINGS.app, SETTINGS.server))
    for name, value in limits.items():
        (app if name in app else server)[name] = value
    return GatewayConfig(port=0, server=ServerSettings(**server), app=GatewaySettings(**app))


async def main(config):
    errors = Errors()
    log = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[errors],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    create = partial(trio.to_thread.run_sync, RunnerRegistry().create)
    async with Cluster.open(create_runner=create) as cluster, trio.open_nursery() as nursery:
        gateway = ApiGatewayActor(config, cluster.directory, log=log)
        ref = await cluster.system.actor_of(Props[Stop](factory=lambda: gateway), "gateway")
        await cluster.deploy(Deployment(name=MODEL, model=MODEL, runtime="echo"))
        nursery.start_soon(answer, errors, ref)
        nursery.start_soon(stop_on_signal, ref)
        print(gateway.urls[0].rpartition(":")[2], flush=True)
        await ref.wait_terminated()
        nursery.cancel_scope.cancel()


async def stop_on_signal(ref):
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        await anext(signals)
        ref.tell(Stop())


async def answer(errors, ref):
    stdin = trio.lowlevel.FdStream(os.dup(0))
    async with stdin:
        while await stdin.receive_some(100):
            print(json.dumps({**vitals(), "errors": errors.take()}), flush=True)
    ref.tell(Stop())


def vitals():
    """Tasks, descriptors, and resident bytes once the garbage is gone."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "fds": len(os.listdir("/proc/self/fd")),
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
    }


if __name__ == "__main__":
    trio.run(main, configured(json.loads(sys.argv[1]) if sys.argv[1:] else {}))
