"""Which page holds which tokens: hashes chained over full pages, and the map from hash to page. Pure."""

import secrets
from array import array
from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import blake2b

from attrs import define, field, frozen

__all__ = ["PageHasher", "PrefixIndex"]

_HASH_BYTES = 16


@frozen
class PageHasher:
    """Names the content of pages by 128-bit hashes.

    A page's hash covers its tokens and, through the hash before it, all earlier ones and the salt: equal hashes mean
    equal keys and values. Nobody who does not know the key can make two prompts collide.

    Args:
        key: at most 64 bytes; drawn anew unless given.
    """

    _key: bytes = field(factory=partial(secrets.token_bytes, 32), repr=False)

    def root(self, salt: str) -> bytes:
        """Return what a chain starts from. Chains of different salts share nothing."""
        return blake2b(salt.encode(), digest_size=_HASH_BYTES, key=self._key, person=b"salt").digest()

    def page(self, before: bytes, tokens: Sequence[int]) -> bytes:
        """Return the hash of a page.

        Args:
            before: the hash of the page before, or the root.
            tokens: all tokens of the page, below ``2**32``.
        """
        content = before + array("I", tokens).tobytes()
        return blake2b(content, digest_size=_HASH_BYTES, key=self._key, person=b"page").digest()


@define
class PrefixIndex:
    """A flat map between hashes and pages, one to one."""

    _page_of: dict[bytes, int] = field(init=False, factory=dict[bytes, int])
    _hash_of: dict[int, bytes] = field(init=False, factory=dict[int, bytes])

    def __len__(self) -> int:
        return len(self._page_of)

    def __contains__(self, page: int) -> bool:
        return page in self._hash_of

    def content(self, page: int) -> bytes | None:
        """Return the hash under which a page is found."""
        return self._hash_of.get(page)

    def put(self, page: int, content: bytes) -> bool:
        """Note a page's content. False: it is not found, for another page has the same; a page never changes."""
        new = page not in self._hash_of and content not in self._page_of
        if new:
            self._page_of[content] = page
            self._hash_of[page] = content
        return new

    def find(self, chain: Iterable[bytes]) -> list[int]:
        """Return the pages of the longest known beginning of a chain."""
        pages: list[int] = []
        for content in chain:
            page = self._page_of.get(content)
            if page is None:
                break
            pages.append(page)
        return pages

    def forget(self, page: int) -> bytes | None:
        """Drop what is known of a page; return its hash, if it had one."""
        content = self._hash_of.pop(page, None)
        if content is not None:
            del self._page_of[content]
        return content

    def clear(self) -> list[bytes]:
        """Drop everything; return the hashes."""
        dropped = list(self._page_of)
        self._page_of.clear()
        self._hash_of.clear()
        return dropped
