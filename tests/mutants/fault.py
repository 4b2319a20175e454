"""What a fault is, and how it is planted."""

from pathlib import Path

from attrs import field, frozen, validators

__all__ = ["ACTOR", "Fault"]

ACTOR = Path("atomr_trio/actor")


@frozen
class Fault:
    """One wrong piece of text in the actor core.

    Args:
        name: what the fault is called on the command line.
        file: the module, below ``atomr_trio/actor``.
        simulates: the mistake that somebody could have made.
        old: the right text; it occurs exactly once in the file.
        new: the wrong text.
        first: parts of the names of the tests that are most likely to notice; they run first.
        explained: why the suite cannot notice; the fault is expected to survive then.
    """

    name: str = field(validator=validators.matches_re(r"[a-z0-9]+(-[a-z0-9]+)*"))
    file: str
    simulates: str
    old: str
    new: str
    first: tuple[str, ...] = ()
    explained: str | None = None

    def source(self, root: Path) -> str:
        """Return the faulty module's text.

        Raises:
            ValueError: the right text does not occur exactly once.
        """
        text = (root / ACTOR / self.file).read_text()
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: the text to replace occurs {found} times in {self.file}")
        return text.replace(self.old, self.new)

    def plant(self, root: Path) -> None:
        """Put the fault into the package below ``root``."""
        (root / ACTOR / self.file).write_text(self.source(root))
