"""How many sequences run at once, when memory does not suffice for as many as are allowed. Pure."""

from attrs import define, field

__all__ = ["RunningBudget"]

_FIRST_PATIENCE = 64
_LAST_PATIENCE = 4096


@define
class RunningBudget:
    """Halved when the device runs out of memory, doubled when it has not for a while; a longer while each time.

    Args:
        most: never more than this.
    """

    most: int
    allowed: int = field(init=False)
    _patience: int = field(init=False, default=_FIRST_PATIENCE)
    _good: int = field(init=False, default=0)
    _fruitless: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.allowed = self.most

    def exhausted(self, running: int) -> bool:
        """Note that memory did not suffice for so many; false if there is nothing left to try.

        One sequence alone gets a second chance: what has taken the memory may be gone by now.
        """
        hopeless = running < 2 and self._fruitless
        self.allowed = max(1, running // 2)
        self._patience = min(2 * self._patience, _LAST_PATIENCE)
        self._good, self._fruitless = 0, running < 2
        return not hopeless

    def landed(self) -> None:
        """Note that a step went well."""
        self._fruitless = False
        if self.allowed == self.most:
            return
        self._good += 1
        if self._good >= self._patience:
            self._good, self.allowed = 0, min(2 * self.allowed, self.most)
