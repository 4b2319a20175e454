"""How an incarnation ended, or must end."""

import trio
from attrs import frozen

from ._supervision import Directive

__all__ = ["Verdict"]


@frozen
class Verdict:
    """A directive with its reason.

    Args:
        directive: what happens to the actor.
        reason: for watchers, logs and the tree.
        failure: the actor's own exception; ``None`` when it stopped on request.
        escalation: what the parent fails with.
        gate: a restart waits until it is set: siblings go first.
        delay: a restart waits this long, in seconds.
    """

    directive: Directive
    reason: str
    failure: Exception | None = None
    escalation: Exception | None = None
    gate: trio.Event | None = None
    delay: float = 0.0
