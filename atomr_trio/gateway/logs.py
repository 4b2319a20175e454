"""Where the gateway writes what happened: structured lines, never to a client."""

import logging
import sys
from typing import Any

import structlog
from hypercorn.config import Config
from hypercorn.logging import Logger
from structlog.typing import FilteringBoundLogger

__all__ = ["HypercornLog", "Log", "stderr_log"]

Log = FilteringBoundLogger


def stderr_log() -> Log:
    """A log of JSON lines on standard error."""
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


class HypercornLog(Logger):
    """Hands what Hypercorn itself has to say to the gateway's log."""

    def __init__(self, log: Log, config: Config) -> None:
        super().__init__(config)
        self._log = log

    async def critical(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Log at level critical."""
        self._log.critical(message % args if args else message)

    async def error(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Log at level error."""
        self._log.error(message % args if args else message)

    async def warning(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Log at level warning."""
        self._log.warning(message % args if args else message)

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Log at level error, with the exception that is being handled."""
        self._log.error(message % args if args else message, exc_info=True)
