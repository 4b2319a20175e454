"""Reads an answer while it comes: text for the user, thoughts, calls."""

from collections.abc import Sequence

from attrs import define, field

from atomr_trio.core import Called, Piece, Said, Thought

from .calls import SPACE, WHITE, CallForm, Offered
from .feed import Feed, Reading

__all__ = ["AnswerParser"]


@define
class _Scribe:
    """Notes pieces. White space waits: before a call, and at the end of an answer with calls, it is left out."""

    called: int = field(default=0, init=False)
    _pieces: list[Piece] = field(factory=list[Piece], init=False)
    _kind: type[Said] | type[Thought] = field(default=Said, init=False)
    _texts: list[str] = field(factory=list[str], init=False)
    _space: str = field(default="", init=False)

    def begin(self, kind: type[Said] | type[Thought]) -> None:
        """Write text of this kind from now on."""
        self._flush()
        self._kind, self._space = kind, ""

    def write(self, text: str) -> None:
        """Add text."""
        text = self._space + text
        shown = text.rstrip(WHITE)
        self._space = text[len(shown) :]
        self._texts.append(shown)

    def call(self, call: Called) -> None:
        """Add a call."""
        self.begin(Said)
        self._pieces.append(call)
        self.called += 1

    def take(self) -> Sequence[Piece]:
        """Return what is certain."""
        self._flush()
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> None:
        """Settle what waits."""
        if self._space and not self.called and self._kind is Said:
            self._texts.append(self._space)
        self._space = ""

    def _flush(self) -> None:
        if text := "".join(self._texts):
            self._pieces.append(self._kind(text))
        self._texts.clear()


@define(eq=False)
class AnswerParser:
    """An ``AnswerReader``.

    What looks like a call and is none, or calls what was not offered, is text, as it was written. A
    call is told when it is complete, so that none is ever broken.

    Args:
        form: how functions are called; ``None``: they are not.
        offered: the functions that may be called.
        parallel: several calls may be made; otherwise those after the first are left out.
        thoughts: what reasoning begins and ends with; ``None``: there is none. It comes first, or not at all.
        thinking: the reasoning has begun before the answer.
    """

    _form: CallForm | None = None
    _offered: Offered = field(factory=dict[str, Sequence[str]])
    _parallel: bool = True
    _thoughts: tuple[str, str] | None = None
    _thinking: bool = False
    _feed: Feed = field(factory=Feed, init=False, repr=False)
    _scribe: _Scribe = field(factory=_Scribe, init=False, repr=False)
    _reading: Reading[None] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._reading = self._read()

    def push(self, text: str) -> Sequence[Piece]:
        """Take more text; return what is certain now."""
        self._feed.push(text)
        next(self._reading, None)
        return self._scribe.take()

    def finish(self) -> Sequence[Piece]:
        """Return what was held back: no more text comes."""
        self._feed.end()
        next(self._reading, None)
        self._scribe.finish()
        return self._scribe.take()

    def _read(self) -> Reading[None]:
        if self._thoughts is not None:
            yield from self._read_thoughts(*self._thoughts)
        if self._form is None:
            yield from self._read_text(())
        else:
            yield from self._read_calls(self._form)

    def _read_thoughts(self, opens: str, closes: str) -> Reading[None]:
        space = yield from self._feed.span(SPACE)
        # Some models begin again what the prompt has begun.
        if not (yield from self._feed.skip(opens)) and not self._thinking:
            self._scribe.write(space)
            return
        yield from self._feed.span(SPACE)
        self._scribe.begin(Thought)
        if (yield from self._read_text((closes,))) is not None:
            self._feed.take(len(closes))
            yield from self._feed.span(SPACE)
        self._scribe.begin(Said)

    def _read_text(self, literals: tuple[str, ...]) -> Reading[str | None]:
        """Write down the text before the first of these, which is returned; ``None``: the answer has ended."""
        while True:
            text, found = self._feed.before(literals)
            self._scribe.write(text)
            if found is not None:
                return found
            if not (yield from self._feed.more()):
                self._scribe.write(self._feed.take(self._feed.available))
                return None

    def _read_calls(self, form: CallForm) -> Reading[None]:
        bare = form.bare
        while True:
            if bare:
                called = yield from self._read_bare(form)
            elif (opening := (yield from self._read_text(form.openings))) is not None:
                called = yield from self._read_call(form, opening)
            else:
                return
            if called:
                yield from self._after_call(form)
            bare = called and form.bare

    def _read_call(self, form: CallForm, opening: str) -> Reading[bool]:
        self._feed.mark()
        self._feed.take(len(opening))
        return self._tell((yield from form.read(self._feed, opening, self._offered)))

    def _read_bare(self, form: CallForm) -> Reading[bool]:
        space = yield from self._feed.span(SPACE)
        self._scribe.write(space)
        if (yield from self._feed.peek(1)) in ("{", "["):
            return (yield from self._read_call(form, ""))
        return False

    def _after_call(self, form: CallForm) -> Reading[None]:
        space = yield from self._feed.span(SPACE)
        if not form.closing or not (yield from self._feed.skip(form.closing)):
            self._scribe.write(space)
        yield from self._feed.skip(form.between)

    def _tell(self, calls: Sequence[Called] | None) -> bool:
        written = self._feed.release()
        if not calls or any(call.name not in self._offered for call in calls):
            self._scribe.write(written)
            return False
        for call in calls:
            if self._parallel or not self._scribe.called:
                self._scribe.call(call)
        return True
