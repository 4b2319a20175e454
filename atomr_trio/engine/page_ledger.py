"""Which sequence has which pages, and what it may read instead of computing. Pure."""

from collections.abc import Collection, Iterable

from attrs import define, field

from .blocks import BlockPool, pages_for
from .prefix_cache import PageHasher
from .sequence import Sequence

__all__ = ["PageLedger"]


@define
class PageLedger:
    """Allots the pages of a pool to sequences, cached ones first.

    Args:
        pool: the pages.
        hasher: names their content.
    """

    pool: BlockPool
    _hasher: PageHasher = field(factory=PageHasher)

    def admit(self, sequence: Sequence, reserve: int) -> bool:
        """Give a sequence pages for all of its tokens, if ``reserve`` pages are free beyond them.

        What was found in the cache counts as computed; at least one token is left, for the next one is drawn from it.
        """
        found = self.pool.find(self._readable(sequence))
        needed = pages_for(len(sequence.tokens), self.pool.page_size) - len(found)
        if needed + self.pool.free_among(found) + reserve > self.pool.free:
            return False
        # First what was found: taking pages may evict them.
        self.pool.share(found)
        sequence.pages = [*found, *(self.pool.take(needed) or [])]
        sequence.remembered = len(found)
        sequence.num_computed = len(found) * self.pool.page_size
        if sequence.cached_tokens is None:
            # What an earlier process computed for this very answer was no saving.
            known = 0 if sequence.is_resumed else sequence.num_computed
            sequence.cached_tokens = min(known, sequence.prompt_len)
        return True

    def lacks(self, sequence: Sequence, steps: int = 1) -> int:
        """Return how many more pages a sequence needs to compute its last token, or that and those drawn after it."""
        return max(0, pages_for(sequence.length + steps - 1, self.pool.page_size) - len(sequence.pages))

    def grow(self, sequence: Sequence, steps: int = 1) -> bool:
        """Give a sequence the pages that it lacks, or none."""
        pages = self.pool.take(self.lacks(sequence, steps))
        if pages is None:
            return False
        sequence.pages += pages
        return True

    def grow_all(self, sequences: Iterable[Sequence], steps: int) -> bool:
        """Give all of these the pages that they lack for so many steps, or nobody any."""
        growing = list(sequences)
        if sum(self.lacks(sequence, steps) for sequence in growing) > self.pool.free:
            return False
        return all(self.grow(sequence, steps) for sequence in growing)

    def waits_for(self, sequence: Sequence, coming: Collection[bytes]) -> bool:
        """Return whether the next page that a sequence would have to compute is one of those."""
        readable = self._readable(sequence)
        found = len(self.pool.find(readable))
        return found < len(readable) and readable[found] in coming

    def completing(self, sequence: Sequence, computed: int) -> list[bytes]:
        """Return the hashes of the pages that are new and full once so many tokens are computed."""
        full = computed // self.pool.page_size
        return self._chain(sequence, full)[sequence.remembered : full]

    def remember(self, sequence: Sequence, computed: int) -> None:
        """Note that so many tokens of a sequence are computed: its full pages can be found."""
        for content in self.completing(sequence, computed):
            self.pool.remember(sequence.pages[sequence.remembered], content)
            sequence.remembered += 1

    def give_back(self, sequence: Sequence, *, forget: bool = False) -> None:
        """Take a sequence's pages away; with ``forget``, nobody finds them again."""
        if forget:
            self.pool.forget(sequence.pages)
        self.pool.give_back(sequence.pages, sequence.last_step)
        sequence.void()

    def _readable(self, sequence: Sequence) -> list[bytes]:
        if sequence.needs_prompt_computed:
            return []
        full = (len(sequence.tokens) - 1) // self.pool.page_size
        return self._chain(sequence, full)[:full]

    def _chain(self, sequence: Sequence, pages: int) -> list[bytes]:
        chain, size = sequence.chain, self.pool.page_size
        for start in range(len(chain) * size, pages * size, size):
            before = chain[-1] if chain else self._hasher.root(sequence.request.salt)
            chain.append(self._hasher.page(before, sequence.tokens[start : start + size]))
        return chain
