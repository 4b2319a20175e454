"""How calls are written, as data: what stands before, between and after names and arguments."""

import json
from collections.abc import Iterable
from typing import Protocol

from attrs import frozen

__all__ = ["NAMED", "Layout"]


class _Call(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def arguments(self) -> str: ...


@frozen(kw_only=True)
class Layout:
    """The literal text around calls, in the order in which it comes.

    Args:
        head: before the first call.
        before: before each call, with what comes before its name.
        named: between name and arguments.
        after: after the arguments of each call.
        join: between calls.
        tail: after the last call.
    """

    head: str = ""
    before: str
    named: str
    after: str
    join: str = ""
    tail: str = ""

    def render(self, calls: Iterable[_Call]) -> str:
        """Return the calls as a model writes them; there must be one at least."""
        return self.head + self.join.join(map(self._written, calls)) + self.tail

    def opening(self, name: str) -> str:
        """Return all that comes before the arguments in a call of this function."""
        return f"{self.before}{json.dumps(name, ensure_ascii=False)[1:-1]}{self.named}"

    def _written(self, call: _Call) -> str:
        return f"{self.opening(call.name)}{call.arguments}{self.after}"


NAMED = ('{"name": "', '", "arguments": ', "}")
"""What most models write around name and arguments."""
