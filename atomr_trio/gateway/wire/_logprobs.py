"""Log probabilities as the two routes tell them. Pure."""

import codecs
from collections.abc import Sequence

from attrs import define, field

from atomr_trio.core import TokenLogprob

from ._objects import ChatAlternative, ChatLogprobs, ChatToken, TextLogprobs

__all__ = ["TextPlaces", "chat_logprobs"]

# JSON has no minus infinity.
_FLOOR = -9999.0


def _number(token: TokenLogprob) -> float:
    return max(_FLOOR, token.logprob)


def chat_logprobs(details: Sequence[TokenLogprob]) -> ChatLogprobs:
    """The tokens of a chat answer."""
    return ChatLogprobs([_chat_token(token) for token in details])


def _chat_token(token: TokenLogprob) -> ChatToken:
    others = [ChatAlternative(other.name, _number(other), _bytes(other)) for other in token.top]
    return ChatToken(token.name, _number(token), _bytes(token), others)


def _bytes(token: TokenLogprob) -> list[int] | None:
    return None if token.text is None else list(token.text)


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


@define
class TextPlaces:
    """Keeps track of where in the text the tokens of one completion begin."""

    _offset: int = field(init=False, default=0)
    _decode: codecs.IncrementalDecoder = field(init=False, factory=_decoder, repr=False)

    def take(self, details: Sequence[TokenLogprob]) -> TextLogprobs:
        """The next tokens of a completion."""
        return TextLogprobs(
            tokens=[_label(token) for token in details],
            token_logprobs=[_number(token) for token in details],
            top_logprobs=[_top(token) for token in details],
            text_offset=[self._place(token) for token in details],
        )

    def _place(self, token: TokenLogprob) -> int:
        begin = self._offset
        self._offset += len(self._decode.decode(token.text or b""))
        return begin


def _top(token: TokenLogprob) -> dict[str, float]:
    # The token itself is always there, also where it was not among the best.
    top: dict[str, float] = {}
    for each in (*token.top, token):
        top.setdefault(_label(each), _number(each))
    return top


def _label(token: TokenLogprob) -> str:
    if token.text is None:
        return token.name
    try:
        return token.text.decode()
    except UnicodeDecodeError:
        # Several tokens hold half of a character: their names must differ.
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.text)
