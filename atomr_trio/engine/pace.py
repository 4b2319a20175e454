"""How much of the device's time a long prompt takes from those who are being answered. Pure."""

from collections.abc import Iterable

from attrs import define, field, frozen, validators

from .step_plan import Chunk

__all__ = ["Costs", "Pace"]


@frozen(kw_only=True)
class Costs:
    """What a device takes for a program, in rows: one is what a further token takes in a program that is running.

    Args:
        program: whatever it computes: the weights are read.
        positions: a token that sees so many positions takes two rows instead of one.
        share: pieces of long prompts take at most so much of the time that decoding takes beside them.
    """

    program: float = field(validator=validators.ge(0))
    positions: float = field(validator=validators.gt(0))
    share: float = field(validator=validators.gt(0))

    def decoding(self, rows: int) -> float:
        """Return the cost of a token for each of so many sequences."""
        return self.program + rows

    def piece(self, chunk: Chunk) -> float:
        """Return the cost of a piece of a prompt."""
        return self.program + chunk.length * (1 + (chunk.start + chunk.length) / self.positions)


@define
class Pace:
    """Makes long prompts wait until those who decode have had their share of the time.

    A piece is a debt, every token of the others pays a part of it back, and only who has no debt may go on. So how
    long a stream waits for each token, on average over a long prompt, grows by at most ``1 + share``.

    Args:
        costs: of the device. ``None``: nobody waits.
    """

    costs: Costs | None = None
    debt: float = field(init=False, default=0.0)

    @property
    def allows(self) -> bool:
        """A piece may be computed beside decoding rows."""
        return self.debt <= 0

    def note(self, decoding: int, pieces: Iterable[Chunk]) -> None:
        """Book a step.

        Args:
            decoding: how many sequences got a token.
            pieces: those of long prompts that were computed beside them.
        """
        if self.costs is not None and decoding:
            owed = self.debt + sum(map(self.costs.piece, pieces))
            self.debt = max(0.0, owed - self.costs.share * self.costs.decoding(decoding))
