"""Stop strings: where an answer ends, found while it comes."""

from collections.abc import Iterable

from attrs import define, field

from atomr_trio.core import BadRequest

__all__ = ["StopMatcher"]


def _failure_table(pattern: str) -> list[int]:
    """For each prefix of the pattern, the length of its longest proper end that begins the pattern too.

    This is the table of Knuth, Morris and Pratt: with it no character is looked at twice, whatever the portions.
    """
    table = [0] * len(pattern)
    length = 0
    for at in range(1, len(pattern)):
        while length and pattern[at] != pattern[length]:
            length = table[length - 1]
        length += pattern[at] == pattern[length]
        table[at] = length
    return table


@define
class _Pattern:
    """One stop string, and how much of it the end of the text so far matches."""

    text: str
    table: list[int] = field(init=False)
    matched: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.table = _failure_table(self.text)

    def advance(self, text: str) -> int:
        """Go on through ``text``; return where in it the first match ends, or -1."""
        pattern, table, matched = self.text, self.table, self.matched
        at = 0
        while at < len(text):
            if matched == 0:
                at = text.find(pattern[0], at)
                if at < 0:
                    break
            while matched and text[at] != pattern[matched]:
                matched = table[matched - 1]
            matched += text[at] == pattern[matched]
            at += 1
            if matched == len(pattern):
                return at
        self.matched = matched
        return -1


def _patterns(stops: Iterable[str]) -> list[_Pattern]:
    texts = tuple(dict.fromkeys(stops))
    if "" in texts:
        raise BadRequest("a stop string must not be empty", param="stop")
    return [_Pattern(text) for text in texts]


@define(eq=False)
class StopMatcher:
    """Cuts a text before the first stop string that completes in it; among those that complete together, the longest.

    The result does not depend on how the text is portioned. What is held back is exactly the longest end of the text
    that may still become a stop string.

    Args:
        stops: the stop strings; with none, everything passes.

    Raises:
        BadRequest: a stop string is empty.
    """

    _stops: list[_Pattern] = field(converter=_patterns)
    _held: str = field(default="", init=False)
    found: str | None = field(default=None, init=False)
    """The stop string that ended the answer."""

    @property
    def matched(self) -> bool:
        """A stop string has ended the answer."""
        return self.found is not None

    def push(self, text: str) -> tuple[str, bool]:
        """Take more text; return what can be shown now, and whether a stop string has ended the answer."""
        if self.matched:
            return "", True
        # Every pattern must see the text, so no short-circuit here.
        ends = [(end, -len(stop.text)) for stop in self._stops if (end := stop.advance(text)) >= 0]
        seen = self._held + text
        if ends:
            end, minus_length = min(ends)
            cut = len(self._held) + end + minus_length
            self.found = seen[cut : cut - minus_length]
            self._held = ""
            return seen[:cut], True
        cut = len(seen) - max((stop.matched for stop in self._stops), default=0)
        self._held = seen[cut:]
        return seen[:cut], False

    def flush(self) -> str:
        """Return what is held back: no more text comes."""
        rest, self._held = self._held, ""
        for stop in self._stops:
            stop.matched = 0
        return rest
