"""How many tokens of an answer are reasoning."""

from attrs import define, field

from .calls import WHITE
from .stops import StopMatcher

__all__ = ["ThoughtCounter"]


@define(eq=False)
class ThoughtCounter:
    """Counts the tokens up to the end of the reasoning, its marks included. Takes the text of one token at a time.

    Args:
        opens: what reasoning begins with.
        closes: what it ends with.
        thinking: it has begun before the answer.
    """

    _opens: str
    _closes: str
    _thinking: bool
    tokens: int = field(default=0, init=False)
    """How many there are."""
    _undecided: int = field(default=0, init=False)
    _head: str = field(default="", init=False)
    _over: bool = field(default=False, init=False)
    _end: StopMatcher = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._end = StopMatcher((self._closes,))

    def push(self, text: str) -> None:
        """Take the text of the next token; it may be empty."""
        if self._over:
            return
        self._undecided += 1
        self._head += text
        if self._thinking or self._begins():
            self.tokens, self._undecided = self.tokens + self._undecided, 0
            self._over = self._end.push(self._head)[1]
            self._head = ""

    def _begins(self) -> bool:
        head = self._head.lstrip(WHITE)
        self._thinking = head.startswith(self._opens)
        self._over = not self._thinking and not self._opens.startswith(head)
        return self._thinking
