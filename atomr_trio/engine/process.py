"""Entry of the device process: ``python -m atomr_trio.engine.process --fd N --parent-pid P``."""

import argparse
import logging
import os
import signal
import socket
import sys
import traceback
import warnings

from atomr_trio.core import InferenceError, shorten_pauses

from .connection import EXIT_VIOLATION, Connection
from .frames import Configure, ProtocolViolation
from .parent_death import exit_with_parent
from .politeness import be_nice_as_a_whole
from .program_cache import discard_unreadable_programs, programs_folder

__all__ = ["EXIT_FATAL", "main", "set_signals"]

EXIT_FATAL = 5
_SWITCH_S = 0.0005


def main(argv: list[str] | None = None) -> None:
    """Serve the socket that was inherited, until the server hangs up. Never returns."""
    arguments = _parser().parse_args(argv)
    exit_with_parent(arguments.parent_pid)
    set_signals()
    _silence()
    # Tracing a program in the background must not hold a step up for Python's usual 5 ms, several times a step.
    sys.setswitchinterval(_SWITCH_S)
    connection = Connection(socket.socket(fileno=arguments.fd))
    connection.start()
    _serve(connection, arguments.pages_fd)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="atomr_trio.engine.process", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="number of the inherited socket")
    parser.add_argument("--pages-fd", type=int, help="number of the inherited file for pages that outlive the process")
    parser.add_argument("--parent-pid", type=int, default=os.getppid(), help="whose death ends this process")
    return parser


def set_signals() -> None:
    """Leave it to the server when the process ends, bar a direct SIGTERM."""
    # Ctrl-C in a terminal reaches the whole group; only the server decides when its device process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The kernel's own default: it works inside of XLA too, where no Python handler would run.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _silence() -> None:
    """Keep the server's terminal clean: standard output is nobody's, and only errors reach standard error."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.close(devnull)
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)


def _serve(connection: Connection, pages_fd: int | None) -> None:
    code = EXIT_FATAL
    try:
        configure = connection.receive()
        if not isinstance(configure, Configure):
            raise ProtocolViolation("the first frame must be Configure")
        if configure.settings.cache_dir is not None:
            discard_unreadable_programs(programs_folder(configure.settings.cache_dir))
        if configure.standby != "none":
            be_nice_as_a_whole(True)
        # Here and not above: importing jax takes a second, in which the reader already watches the socket.
        from .service import Service

        Service(connection, configure, shorten_pauses, pages_fd).run()
    except ProtocolViolation as violation:
        sys.stderr.write(f"atomr-trio device process: {violation}\n")
        code = EXIT_VIOLATION
    except Exception as error:
        from .service import fatal_frame

        if not isinstance(error, InferenceError):
            traceback.print_exc()
        connection.send(fatal_frame(error))
    sys.stderr.flush()
    # Not sys.exit: tearing a lost device context down can hang.
    os._exit(code)


if __name__ == "__main__":
    main()
