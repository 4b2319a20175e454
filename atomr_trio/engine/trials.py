"""Who is to blame for a step that failed by a bug: everybody in it is tried alone. Pure."""

from collections.abc import Callable, Collection, Iterable

from attrs import define, field

from .sequence import Sequence

__all__ = ["Trials"]

_IN_VAIN = 3


@define
class Trials:
    """Finds the request whose data a step cannot take, so that those who happened to be in that step go on.

    Who was in a failed step is a suspect, and computed in steps of its own until it gets a token, one suspect after the
    other. Who fails alone as well is guilty. If company fails again and again of which everybody does well alone, all
    of it is: then it is not one request's data, and with a trial for each token nobody would have a use of the others.
    That is forgotten when company does well, and when nobody is left of those whose company failed.
    """

    _suspects: list[Sequence] = field(init=False, factory=list[Sequence])
    _company: list[Sequence] = field(init=False, factory=list[Sequence])
    _in_vain: int = field(init=False, default=0)

    def failed(self, present: Collection[Sequence]) -> list[Sequence]:
        """Note that the steps with these in them failed; return who is guilty of it."""
        alone = len(present) == 1
        guilty = all(one in self._suspects for one in present) if alone else self._in_vain == _IN_VAIN
        if guilty:
            self._acquit(present)
            self._in_vain = self._in_vain if alone else 0
            return list(present)
        if not alone:
            self._in_vain += 1
            self._company = _joined(self._company, present)
        self._suspects = _joined(self._suspects, present)
        return []

    def landed(self, present: Collection[Sequence], rewarded: Iterable[Sequence]) -> None:
        """Note that a step with these in it went well, and who of them got a token."""
        self._acquit(list(rewarded))
        if not self._suspects and len(present) > 1:
            self._in_vain = 0

    def next(self, holds: Callable[[Sequence], bool]) -> Sequence | None:
        """Return who is to be tried now; ``holds`` says who is still open."""
        self._suspects = [one for one in self._suspects if holds(one)]
        self._company = [one for one in self._company if holds(one)]
        if not self._company:
            self._in_vain = 0
        return self._suspects[0] if self._suspects else None

    def _acquit(self, innocent: Collection[Sequence]) -> None:
        self._suspects = [one for one in self._suspects if one not in innocent]


def _joined(some: list[Sequence], others: Collection[Sequence]) -> list[Sequence]:
    return some + [one for one in others if one not in some]
