"""`atomr-trio serve`: the gateway over one deployment, until a signal ends it."""

import json
import shlex
import signal
from typing import Any

import click
import trio

from atomr_trio.actor import ActorRef, Props
from atomr_trio.core import Deployment, shorten_pauses
from atomr_trio.gateway import GatewaySettings, KeyStore, ServerSettings
from atomr_trio.gateway.actor import ApiGatewayActor, GatewayConfig, GatewayMsg, ReloadKeys, Stop
from atomr_trio.gateway.logs import stderr_log
from atomr_trio.runners import RunnerRegistry
from atomr_trio.runtime import Cluster

from ._edge import edge_options, key_store, to_edge
from ._exits import exits
from ._files import make_room
from ._launch import Loading, prepare
from ._model import POOLINGS, ModelOptions, model_options
from ._served import tell_served

SLOW_STEP = 0.25
"""Seconds that an actor may hold the loop before a warning names it: tokens of all streams wait meanwhile."""

__all__ = ["serve"]


@click.command()
@model_options
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="Seconds that requests in flight get to finish after SIGINT or SIGTERM; a second signal ends them at once.",
)
@click.option(
    "--spare",
    type=click.Choice(["auto", "none", "imported", "loaded"]),
    default="auto",
    show_default=True,
    help="How far a second process goes ahead for the case that the first one dies; auto: loaded, on a GPU imported.",
)
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    default="auto",
    show_default=True,
    help="What embeddings are made of: the state after the last token, or the mean of all; auto: as the model says.",
)
@click.option("--warm-embeddings", is_flag=True, help="Compile what embeddings take before the first is asked for.")
@click.option(
    "--resume-window",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Seconds that a stream goes on for a client whose connection broke; 0: the answer is cancelled at once.",
)
@edge_options
@click.option("--access-log/--no-access-log", default=True, help="One JSON line per request on standard error.")
def serve(host: str, port: int, grace: float, resume_window: float, access_log: bool, **options: Any) -> None:
    """Serve MODEL with the OpenAI API.

    MODEL is a catalogue name, the path of a GGUF file or of a Hugging Face folder, or hf:ORG/REPO/FILE.gguf.
    """
    with exits():
        edge = to_edge(options)
        keys = key_store(edge.keys)
        deployment, registry = prepare(ModelOptions(**options))
        config = GatewayConfig(
            host=host,
            port=port,
            server=ServerSettings(grace=grace, **edge.server),
            app=GatewaySettings(access_log=access_log, resume_window=resume_window, **edge.app),
        )
        make_room(config.server.max_connections)
        trio.run(_serve, config, deployment, registry, keys)


async def _serve(
    config: GatewayConfig, deployment: Deployment, registry: RunnerRegistry, keys: KeyStore | None
) -> None:
    loading, log = Loading(registry), stderr_log()
    with trio.CancelScope() as everything:
        async with (
            Cluster.open(create_runner=loading.create, dump_signal=signal.SIGUSR1, slow_step=SLOW_STEP) as cluster,
            trio.open_nursery() as nursery,
        ):
            gateway = ApiGatewayActor(config, cluster.directory, log=log, keys=keys)
            # Bound before the model is loaded: a taken port is known at once, and /readyz says 503 meanwhile.
            ref = await cluster.system.actor_of(Props[GatewayMsg](factory=lambda: gateway), "gateway")
            await nursery.start(_obey_signals, ref, everything)
            if keys is not None:
                await nursery.start(_reload_on_hangup, ref)
            nursery.start_soon(_launch, cluster, loading, deployment, gateway)
            await ref.wait_terminated()
            await tell_served(cluster, log)
            nursery.cancel_scope.cancel(reason="the gateway has stopped")


async def _launch(cluster: Cluster, loading: Loading, deployment: Deployment, gateway: ApiGatewayActor) -> None:
    await loading.deploy(cluster, deployment)
    shorten_pauses()
    body = {"model": deployment.name, "messages": [{"role": "user", "content": "Say hello."}], "stream": True}
    url = f"{gateway.urls[0]}/v1"
    curl = ["curl", "-N", f"{url}/chat/completions", "-H", "content-type: application/json", "-d", json.dumps(body)]
    details = loading.describe()
    click.echo(f"{deployment.name} is served at {url}" + (f" ({details})" if details else ""))
    click.echo(f"\n  {shlex.join(curl)}\n")


async def _obey_signals(
    gateway: "ActorRef[GatewayMsg]", everything: trio.CancelScope, *, task_status: "trio.TaskStatus[None]"
) -> None:
    """The first signal ends the server with grace, the second at once."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        click.echo("stopping; a second signal ends it at once", err=True)
        gateway.tell(Stop())
        await anext(signals)
        everything.cancel(reason="a second signal")


async def _reload_on_hangup(gateway: "ActorRef[GatewayMsg]", *, task_status: "trio.TaskStatus[None]") -> None:
    """SIGHUP has the file of the keys read again. A system without this signal has to restart instead."""
    if not hasattr(signal, "SIGHUP"):
        task_status.started()
        return
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        task_status.started()
        async for _ in hangups:
            gateway.tell(ReloadKeys())
