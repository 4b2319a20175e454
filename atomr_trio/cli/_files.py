"""Room for as many open files as connections need: a process may have few of them unless it asks for more."""

import contextlib

import click

__all__ = ["make_room"]

RESERVE = 256
"""Files that the rest of the server may have open."""


def make_room(connections: int) -> None:
    """Let the process have so many connections open, as far as the system allows; says so if it does not."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        text = f"this process may open {soft} files: raise `ulimit -n`, or lower --max-connections to {soft - RESERVE}"
        click.echo(f"warning: {text}", err=True)
