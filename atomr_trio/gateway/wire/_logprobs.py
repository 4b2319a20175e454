"""Log probabilities as the two routes tell them. Pure."""

import codecs
from collections.abc import Iterable, Sequence

from attrs import define, field

from atomr_trio.core import TokenLogprob

from ._objects import ChatAlternative, ChatLogprobs, ChatToken, PromptScore, PromptToken, TextLogprobs

__all__ = ["TextPlaces", "chat_logprobs", "joined_logprobs", "prompt_scores"]

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


def prompt_scores(details: Iterable[TokenLogprob], top: int) -> list[PromptScore | None]:
    """The tokens of a prompt, with so many others in the place of each; of the first one nothing is said."""
    return [_score(token, top) if at else None for at, token in enumerate(details)]


def _score(token: TokenLogprob, top: int) -> PromptScore:
    places = [(token, None), *((other, rank) for rank, other in enumerate(token.top[:top], 1))]
    # The token itself comes first; where it is among the best, its rank is known.
    return {str(each.id): PromptToken(_number(each), rank, each.name) for each, rank in places if each.id is not None}


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

    def take_prompt(self, text: str, details: Iterable[TokenLogprob], top: int) -> TextLogprobs | None:
        """The tokens of the prompt, if they are known; the completion begins behind its text."""
        tokens = list(details)
        found = TextLogprobs(
            tokens=[_label(token) for token in tokens],
            token_logprobs=[_number(token) if at else None for at, token in enumerate(tokens)],
            top_logprobs=[_top(token, top) if at else None for at, token in enumerate(tokens)],
            text_offset=[self._place_in(text, token) for token in tokens],
        )
        self._offset, self._decode = len(text), _decoder()
        return found if tokens else None

    def _place(self, token: TokenLogprob) -> int:
        begin = self._offset
        self._offset += len(self._decode.decode(token.text or b""))
        return begin

    def _place_in(self, text: str, token: TokenLogprob) -> int:
        begin = self._offset
        # A prompt may name control tokens; one that was put in front is not in it. Nor is the blank that some
        # tokenizers put there.
        piece = token.name if token.text is None else self._decode.decode(token.text)
        said = next((one for one in (piece, piece.removeprefix(" ")) if text.startswith(one, begin)), "")
        self._offset += len(said)
        return begin


def joined_logprobs(*parts: TextLogprobs | None) -> TextLogprobs | None:
    """What is known of several pieces of a text; ``None``: nothing."""
    known = [part for part in parts if part is not None]
    if len(known) < 2:
        return known[0] if known else None
    return TextLogprobs(
        tokens=[each for part in known for each in part.tokens],
        token_logprobs=[each for part in known for each in part.token_logprobs],
        top_logprobs=[each for part in known for each in part.top_logprobs],
        text_offset=[each for part in known for each in part.text_offset],
    )


def _top(token: TokenLogprob, most: int | None = None) -> dict[str, float]:
    # The token itself is always there, also where it was not among the best.
    top: dict[str, float] = {}
    for each in (*token.top[:most], token):
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
