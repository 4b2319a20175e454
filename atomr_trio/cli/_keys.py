"""`atomr-trio keys`: make, list and revoke API keys. Only hashes are written down."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import click
import msgspec

from atomr_trio.gateway import ApiKey, KeyFileError
from atomr_trio.gateway.access import hashed, locked, new_secret, read_keys, write_keys

from ._edge import KEYS_FILE
from ._exits import exits

__all__ = ["keys"]

DEFAULT = Path("keys.json")

_file = click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar=KEYS_FILE,
    default=DEFAULT,
    show_default=True,
    show_envvar=True,
)


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys of `serve --keys`.

    A server that runs learns of changes by SIGHUP.
    """


def _to_date(_ctx: click.Context, _param: click.Parameter, days: float | None) -> datetime | None:
    return None if days is None else (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


@keys.command()
@click.argument("name")
@_file
@click.option("--deployment", "deployments", multiple=True, help="A deployment that it may use; all unless given.")
@click.option("--requests-per-minute", type=click.IntRange(1))
@click.option("--tokens-per-minute", type=click.IntRange(1), help="Of prompts and answers together.")
@click.option("--max-concurrent", type=click.IntRange(1), help="Requests at once.")
@click.option("--budget-tokens", type=click.IntRange(1), help="Tokens that it may use in a period.")
@click.option("--budget-usd", type=click.FloatRange(0, min_open=True), help="What they may cost, in dollars.")
@click.option("--budget-period", type=click.Choice(["total", "month", "day"]), default="total", show_default=True)
@click.option("--expires-in", "expires", type=click.FloatRange(0, min_open=True), callback=_to_date, help="Days.")
@click.option(
    "--share-prefixes", is_flag=True, help="Use what was computed for others that share, and let them use its."
)
def new(name: str, path: Path, deployments: tuple[str, ...], **limits: Any) -> None:
    """Make a key for NAME, print its secret, and write its hash into the file. The secret is never shown again."""
    secret = new_secret()
    given = {field: value for field, value in limits.items() if value is not None}
    fields = {
        "name": name,
        "sha256": hashed(secret.encode()),
        "deployments": deployments or None,
        "created": datetime.now(UTC).replace(microsecond=0),
        **given,
    }
    with exits():
        key = _checked(fields, path)
        with locked(path):
            present = _present(path)
            if any(other.name == name for other in present):
                raise KeyFileError(str(path), f"`{name}` has a key; revoke it first, or choose another name")
            write_keys(path, [*present, key])
    click.echo(secret)


@keys.command(name="list")
@_file
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_keys(path: Path, as_json: bool) -> None:
    """List the keys with their limits."""
    with exits():
        found = read_keys(path)
    for key in found:
        fields = {field: value for field, value in msgspec.to_builtins(key).items() if field != "sha256"}
        click.echo(json.dumps(fields) if as_json else _line(fields, key))


@keys.command()
@click.argument("name")
@_file
def revoke(name: str, path: Path) -> None:
    """Remove the key of NAME from the file."""
    with exits(), locked(path):
        present = read_keys(path)
        left = [key for key in present if key.name != name]
        if len(left) == len(present):
            raise KeyFileError(str(path), f"`{name}` has no key")
        write_keys(path, left)
    click.echo(f"{name} has no key any more; a server that runs learns of it by SIGHUP", err=True)


def _checked(fields: dict[str, Any], path: Path) -> ApiKey:
    try:
        return msgspec.convert(fields, ApiKey)
    except msgspec.ValidationError as error:
        raise KeyFileError(str(path), str(error)) from None


def _present(path: Path) -> tuple[ApiKey, ...]:
    return read_keys(path) if path.exists() else ()


def _line(fields: dict[str, Any], key: ApiKey) -> str:
    rest = (f"{name}={_shown(value)}" for name, value in fields.items() if name != "name")
    expired = ["EXPIRED"] if key.is_expired(datetime.now(UTC).timestamp()) else []
    return "  ".join([key.name, *expired, *rest])


def _shown(value: Any) -> str:
    return ",".join(map(str, cast("list[Any]", value))) if isinstance(value, list) else str(value)
