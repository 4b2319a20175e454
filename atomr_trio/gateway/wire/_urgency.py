"""How urgent a request is: OpenAI's service tiers and vLLM's priorities, in the engine's own numbers."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta

__all__ = ["AskedTier", "Priority", "ServedTier", "priority_of", "served_tier"]

_FARTHEST = 100

Priority = Annotated[int, Meta(ge=-_FARTHEST, le=_FARTHEST)]
"""Lower runs sooner; 0 is usual."""

AskedTier = Literal["auto", "default", "flex", "scale", "priority", "fast"]
"""What clients may ask for."""

ServedTier = Literal["default", "flex", "priority"]
"""The classes that there are."""

# Nothing is sold in advance here, so `scale` is what everybody has; `fast` is another name.
_SERVED: Final[Mapping[AskedTier, ServedTier]] = {
    "auto": "default",
    "default": "default",
    "flex": "flex",
    "scale": "default",
    "priority": "priority",
    "fast": "priority",
}
_PRIORITIES: Final[Mapping[ServedTier, int]] = {"default": 0, "flex": 10, "priority": -10}


def served_tier(asked: AskedTier | None) -> ServedTier:
    """The class that a request gets."""
    return _SERVED[asked or "auto"]


def priority_of(tier: AskedTier | None, priority: int | None) -> int:
    """The priority of a request: that of its class, moved by its own."""
    return max(-_FARTHEST, min(_FARTHEST, _PRIORITIES[served_tier(tier)] + (priority or 0)))
