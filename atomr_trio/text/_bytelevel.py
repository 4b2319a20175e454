"""GPT-2's alphabet: each of the 256 bytes as one printable character, as vocabularies spell their tokens."""

__all__ = ["to_bytes", "to_spelling"]


def _alphabet() -> dict[int, int]:
    """Map code points to bytes: printable Latin-1 stands for itself, the rest goes to 256 and up, in order."""
    itself = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in itself]
    return {byte: byte for byte in itself} | {256 + at: byte for at, byte in enumerate(others)}


_BYTE_OF = _alphabet()
_CHARACTER_OF = {byte: chr(point) for point, byte in _BYTE_OF.items()}


def to_spelling(byte: int) -> str:
    """Return the character that stands for a byte."""
    return _CHARACTER_OF[byte]


def to_bytes(spelling: str) -> bytes:
    """Return the bytes that a token's spelling stands for; a character outside the alphabet means itself."""
    if spelling.isascii():
        return spelling.encode()
    try:
        return bytes([_BYTE_OF[ord(character)] for character in spelling])
    except KeyError:
        return spelling.encode()
