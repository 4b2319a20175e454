"""The laws of the actor core, checked on a recorded history: pure, and written without a look at the core's code.

``violations(history)`` returns what is wrong. The entries are those of ``history``; a history that lacks some (no
timers, say) is checked on the others.
"""

from collections.abc import Callable, Iterable, Iterator

from attrs import define, frozen

from ._laws_lives import LIFE_LAWS
from ._laws_mail import MAIL_LAWS
from ._laws_supervision import SUPERVISION_LAWS
from ._lives import Lives
from .history import History

__all__ = ["LAWS", "LawBroken", "Violation", "check_laws", "violations"]

Law = Callable[[Lives], Iterator[str]]

LAWS: tuple[Law, ...] = (*LIFE_LAWS, *SUPERVISION_LAWS, *MAIL_LAWS)


@frozen
class Violation:
    """One law that a history breaks, and where."""

    law: str
    text: str

    def __str__(self) -> str:
        return f"{self.law}: {self.text}"


@define
class LawBroken(AssertionError):
    """A history breaks laws of the actor core; ``violations`` has all it was caught with."""

    violations: tuple[Violation, ...]

    def __str__(self) -> str:
        return f"{len(self.violations)} violations; " + "; ".join(map(str, self.violations[:5]))


def violations(history: History, laws: Iterable[Law] = LAWS) -> list[Violation]:
    """Return every violation of the laws in a finished history, law by law."""
    lives = Lives.of(history)
    return [Violation(law.__name__, text) for law in laws for text in law(lives)]


def check_laws(history: History) -> None:
    """Check a finished history.

    Raises:
        LawBroken: it breaks a law.
    """
    found = violations(history)
    if found:
        raise LawBroken(tuple(found))
