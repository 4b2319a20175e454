"""SentencePiece's way of spelling: spaces are U+2581, unknown characters are byte tokens, merges follow the scores."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import re
from collections.abc import Mapping

from tokenizers import normalizers

__all__ = ["merges_of", "normalizer", "piece_bytes"]

_SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def piece_bytes(spelling: str) -> bytes:
    """Return the bytes that a token's spelling stands for."""
    byte = _BYTE.fullmatch(spelling)
    return bytes([int(byte[1], 16)]) if byte else spelling.replace(_SPACE, " ").encode()


def merges_of(pieces: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the merges, best first, that build the pieces: all ways to make one of two others, by its score."""
    merges: list[tuple[str, str]] = []
    # A vocabulary has millions of splits, so this is one tight loop.
    for piece in sorted(pieces, key=lambda piece: -pieces[piece]):
        for at in range(1, len(piece)):
            left = piece[:at]
            if left in pieces and (right := piece[at:]) in pieces:
                merges.append((left, right))
    return merges


def normalizer(*, prefix: bool) -> normalizers.Normalizer:
    """Return the step before merging; ``prefix``: a text begins with a space."""
    spaces = normalizers.Replace(" ", _SPACE)
    return normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
