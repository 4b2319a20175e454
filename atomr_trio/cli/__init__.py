"""The `atomr-trio` command: `serve`, `chat`, `pull`, `bench`, `keys`."""

import click

from ._bench import bench
from ._chat import chat
from ._keys import keys
from ._pull import pull
from ._serve import serve

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="atomr-trio")
def main() -> None:
    """Serve language models from supervised actors, with the OpenAI API.

    Exit status: 0 after a clean end, 1 when the server failed, 2 for wrong usage, 3 when the model cannot be had or
    loaded, 4 when the address cannot be bound, 130 when interrupted before it was up.
    """


main.add_command(serve)
main.add_command(chat)
main.add_command(pull)
main.add_command(bench)
main.add_command(keys)
