"""The options of `serve` for who is let in, from where, and how many at once."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import frozen

from atomr_trio.gateway import Cors, KeyStore, stderr_log
from atomr_trio.gateway.access import Network, to_network

__all__ = ["KEYS_TEXT", "Edge", "edge_options", "key_store", "keys_option", "to_edge"]

KEYS_FILE = "ATOMR_TRIO_KEYS"
KEYS_TEXT = "ATOMR_TRIO_API_KEYS"
"""Environment variables: the path of a file of keys, and the text of one."""

F = TypeVar("F", bound=Callable[..., Any])


@frozen
class Edge:
    """What the options say: the file of the keys, and arguments for the two kinds of settings."""

    keys: Path | None
    server: dict[str, Any]
    app: dict[str, Any]


def _to_networks(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> tuple[Network, ...]:
    try:
        return tuple(map(to_network, given))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _to_cors(_ctx: click.Context, _param: click.Parameter, origins: tuple[str, ...]) -> Cors:
    try:
        return Cors(origins)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


keys_option = click.option(
    "--keys",
    "keys_file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar=KEYS_FILE,
    show_envvar=True,
    help="The file of the API keys, of `atomr-trio keys`; SIGHUP has it read again. Without it all are let in.",
)

_OPTIONS = (
    keys_option,
    click.option(
        "--cors-origin",
        "cors",
        multiple=True,
        callback=_to_cors,
        help="A page that may use the API from a browser, such as https://chat.example.org; * is every page.",
    ),
    click.option(
        "--trusted-proxy",
        "trusted_proxies",
        multiple=True,
        callback=_to_networks,
        help="A proxy, or a network of them, whose X-Forwarded-For and -Proto are believed.",
    ),
    click.option("--max-connections", type=click.IntRange(1), default=1000, show_default=True),
    click.option(
        "--when-full",
        type=click.Choice(["refuse", "wait"]),
        default="refuse",
        show_default=True,
        help="Connections beyond that get 503, or wait to be accepted.",
    ),
    click.option(
        "--lame-duck",
        type=click.FloatRange(0),
        default=0.0,
        show_default=True,
        help="Seconds after SIGTERM that new connections are still answered, with 503, for load balancers to notice.",
    ),
)


def edge_options(command: F) -> F:
    """Add the options to a command; `to_edge` reads them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def to_edge(options: dict[str, Any]) -> Edge:
    """Take these options out of a command's."""
    server = {name: options.pop(name) for name in ("max_connections", "when_full", "lame_duck")}
    app = {name: options.pop(name) for name in ("cors", "trusted_proxies")}
    return Edge(options.pop("keys_file"), server, app)


def key_store(path: Path | None) -> KeyStore | None:
    """Read the keys of a file, or else of the environment; ``None`` if there are none to be read.

    Raises:
        KeyFileError: they are broken.
    """
    if path is not None:
        return KeyStore.from_file(path, stderr_log())
    # A variable that is there but empty is a mistake, and must not open the server.
    text = os.environ.get(KEYS_TEXT)
    return None if text is None else KeyStore.from_text(text, KEYS_TEXT, stderr_log())
