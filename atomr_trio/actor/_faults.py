"""Fault points: places where a test may delay, fail or cancel; in production nothing happens there."""

from attrs import define

__all__ = ["Faults"]


@define(slots=False)
class Faults:
    """What happens at the named points of a system; this one lets everything pass.

    A handler reaches a point with ``await ctx.faults.reach("ledger.write")``. The test kit's subclasses decide by seed
    whether the caller is delayed there, fails or is cancelled.
    """

    async def reach(self, point: str) -> None:
        """Pass the point, or be delayed, fail or be cancelled at it. Here: pass, without a checkpoint."""

    def drops(self, point: str) -> bool:
        """Say whether what is about to be sent at the point gets lost. Here: never."""
        return False
