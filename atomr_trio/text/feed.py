"""Text that comes in pieces, for parsers that are written as if it were all there."""

import re
from collections.abc import Generator, Sequence
from typing import TypeVar

from attrs import define, field

__all__ = ["Feed", "Reading", "longest_begin"]

T = TypeVar("T")

Reading = Generator[None, None, T]
"""A parser: a generator that yields where it needs more text, and returns what it found.

It must decide on text alone, never on how much of it is there yet: then portions cannot change what it finds.
"""


@define(eq=False)
class Feed:
    """The text that a parser reads. What it takes after ``mark`` is kept, for when it was not what it looked like."""

    _text: str = field(default="", init=False)
    _at: int = field(default=0, init=False)
    _kept: list[str] | None = field(default=None, init=False)
    ended: bool = field(default=False, init=False)

    def push(self, text: str) -> None:
        """Add text to the end."""
        self._text, self._at = self._text[self._at :] + text, 0

    def end(self) -> None:
        """Say that no more comes."""
        self.ended = True

    def mark(self) -> None:
        """Begin to keep what is taken."""
        self._kept = []

    def release(self) -> str:
        """Return what was taken since the mark, and keep no more."""
        kept, self._kept = self._kept, None
        return "".join(kept or ())

    @property
    def available(self) -> int:
        """How many characters can be taken now."""
        return len(self._text) - self._at

    def take(self, size: int) -> str:
        """Take so many characters, or as many as there are."""
        text = self._text[self._at : self._at + size]
        self._at += len(text)
        if self._kept is not None:
            self._kept.append(text)
        return text

    def more(self) -> Reading[bool]:
        """Wait for more text; ``False``: it has ended."""
        had = self.available
        while self.available == had and not self.ended:
            yield
        return self.available > had

    def peek(self, size: int) -> Reading[str]:
        """Return the next characters without taking them: fewer only at the end."""
        while self.available < size and not self.ended:
            yield
        return self._text[self._at : self._at + size]

    def skip(self, literal: str) -> Reading[bool]:
        """Take the literal if it is what comes next. Waits no longer than it may be."""
        for size in range(1, len(literal) + 1):
            if (yield from self.peek(size)) != literal[:size]:
                return False
        self.take(len(literal))
        return True

    def span(self, pattern: "re.Pattern[str]") -> Reading[str]:
        """Take the longest run of characters that match; ``pattern`` matches runs, the empty one too."""
        parts: list[str] = []
        while True:
            found = pattern.match(self._text, self._at)
            parts.append(self.take(found.end() - self._at if found else 0))
            if self.available or not (yield from self.more()):
                return "".join(parts)

    def before(self, literals: Sequence[str]) -> tuple[str, str | None]:
        """Take what comes before the first of the literals, and say which one it is.

        ``None``: none is there yet. What may be the begin of one is left.
        """
        found = [(at, literal) for literal in literals if (at := self._text.find(literal, self._at)) >= 0]
        if found:
            at, literal = min(found)
            return self.take(at - self._at), literal
        held = 0 if self.ended else max((longest_begin(self._text, each) for each in literals), default=0)
        return self.take(self.available - min(held, self.available)), None


def longest_begin(text: str, literal: str) -> int:
    """Return the length of the longest end of ``text`` that begins the literal, and is not all of it."""
    sizes = range(min(len(text), len(literal) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(literal[:size])), 0)
