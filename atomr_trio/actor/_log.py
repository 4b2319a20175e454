"""What an operator reads of an actor's life: one line an event, its fields in the record's ``extra``."""

import logging

from ._failures import describe
from ._supervision import Directive

__all__ = [
    "ended",
    "escalated",
    "hook_failed",
    "hook_overran",
    "judged",
    "late_failure",
    "log",
    "restarting",
    "slow_step",
    "started",
]

log = logging.getLogger("atomr_trio.actor")


def _fields(event: str, path: str, **more: object) -> dict[str, object]:
    return {"event": event, "actor": path, **more}


def started(path: str, incarnation: int) -> None:
    """The actor's ``pre_start`` is through."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug("started %s", path, extra=_fields("started", path, incarnation=incarnation))


def ended(path: str, reason: str) -> None:
    """The actor is gone for good."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug("stopped %s: %s", path, reason, extra=_fields("stopped", path, reason=reason))


def restarting(path: str, incarnation: int) -> None:
    """The actor begins its life number ``incarnation``."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug("restarting %s", path, extra=_fields("restarting", path, incarnation=incarnation))


class _Described:
    """Describes a failure when a handler formats the record, and not before."""

    __slots__ = ("_failure",)

    def __init__(self, failure: Exception) -> None:
        self._failure = failure

    def __str__(self) -> str:
        return describe(self._failure)


def judged(path: str, directive: Directive, failure: Exception) -> None:
    """A supervisor has decided about a failure; severe ones are logged with their traceback."""
    if log.isEnabledFor(logging.WARNING):
        mild = directive in (Directive.RESUME, Directive.RESTART)
        said = directive.name.lower()
        extra = _fields("failed", path, directive=said, failure=failure)
        exc_info = None if mild else failure
        log.warning("%s failed, %s: %s", path, said, _Described(failure), exc_info=exc_info, extra=extra)


def escalated(path: str, failure: Exception) -> None:
    """The actor's failure becomes its supervisor's own."""
    log.error("%s escalated: %r", path, failure, extra=_fields("escalated", path, failure=failure))


def late_failure(path: str, failure: Exception) -> None:
    """A failure during a stop changes nothing but should be known."""
    log.error("%s failed while stopping", path, exc_info=failure, extra=_fields("failed", path, failure=failure))


def hook_failed(path: str, failure: Exception) -> None:
    """A closing hook raised."""
    said = _fields("hook_failed", path, failure=failure)
    log.error("%s: the closing hook failed", path, exc_info=failure, extra=said)


def hook_overran(path: str, seconds: float) -> None:
    """A closing hook was cut off."""
    log.error("%s: the closing hook took more than %gs", path, seconds, extra=_fields("hook_overran", path))


def slow_step(name: str, seconds: float, unsaid: int) -> None:
    """A task, named after its actor, has held the loop."""
    more = f"; {unsaid} more since the last warning" if unsaid else ""
    said = _fields("slow_step", name, seconds=seconds, unsaid=unsaid)
    log.warning("%s held the loop for %.3gs without a checkpoint%s", name, seconds, more, extra=said)
