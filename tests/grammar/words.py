"""A vocabulary small enough to look at: every byte, a few longer tokens, control tokens."""

from atomr_trio.grammar.guide import Words

LONGER = [b'{"', b'":', b'", "', b"true", b"false", b"null", b"ab", b"yes", b"\n  ", "é".encode(), "日本".encode()[:4]]
TOKENS = [*(bytes([byte]) for byte in range(256)), *LONGER, b"<end>", b"<turn>", b"<other>", b""]
END, TURN, OTHER = (TOKENS.index(name) for name in (b"<end>", b"<turn>", b"<other>"))
SIZE = 300
"""Logits: more than there are tokens."""


def words(end_ids=(END, TURN), size=SIZE):
    return Words(size, TOKENS, [END, TURN, OTHER], end_ids)


def allowed(mask, size=SIZE):
    """The tokens of a mask."""
    return {token for token in range(size) if mask[token // 32] >> (token % 32) & 1}


def spelled(text):
    """Token ids of a text, a byte each."""
    return list(text.encode())
