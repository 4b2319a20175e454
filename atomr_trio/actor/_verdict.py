"""How an incarnation ended, or must end."""

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
    """

    directive: Directive
    reason: str
    failure: Exception | None = None
    escalation: Exception | None = None
