"""Masks: a bit per token, of whatever vocabulary; a guide that fails harms nobody but its own request."""

import draw_kit
import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.engine.masks import mask_words, pack_masks, restrict

jitted = jax.jit(restrict)


class Fixed:
    """Allows the same tokens each time, and keeps what it was asked."""

    def __init__(self, allowed, vocab):
        bits = np.zeros(mask_words(vocab) * 32, np.uint8)
        bits[list(allowed)] = 1
        self.words = np.packbits(bits, bitorder="little").view(np.int32)
        self.asked = []

    def allowed(self, generated):
        self.asked.append(list(generated))
        return self.words


@given(data=st.data(), vocab=st.sampled_from([1, 31, 32, 33, 100]))
@settings(max_examples=60)
def test_a_token_stays_if_its_bit_is_set(data, vocab):
    allowed = [data.draw(st.sets(st.integers(0, vocab - 1))) for _ in range(2)]
    guides = [*[Fixed(each, vocab) for each in allowed], None]
    if vocab % 32:
        # Bits that no token has.
        guides[1].words = guides[1].words.copy()
        guides[1].words[-1] |= -1 << (vocab % 32)
    rows = [draw_kit.row([1, 2], [3, 4]) for _ in range(3)]
    logits = np.random.default_rng(vocab).standard_normal((5, vocab)).astype(np.float32)
    got = np.asarray(jitted(logits, pack_masks(5, mask_words(vocab), [*zip(rows, guides, strict=True)])))
    assert guides[0].asked == [[3, 4]]
    for index, tokens in enumerate(allowed):
        kept = np.isin(np.arange(vocab), [*tokens])
        np.testing.assert_array_equal(got[index], np.where(kept, logits[index], -np.inf))
    assert got[2:].tobytes() == logits[2:].tobytes()


class Broken:
    def __init__(self, answer):
        self.answer = answer

    def allowed(self, generated):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@given(st.sampled_from([ValueError("no"), np.zeros(99, np.int32), "nonsense", None]))
def test_a_guide_that_fails_allows_nothing_and_harms_nobody(answer):
    rows = [(draw_kit.row(), Broken(answer)), (draw_kit.row(), Fixed([0, 40], 64)), (draw_kit.row(), None)]
    masks = pack_masks(3, 2, rows)
    assert masks.tolist() == [[0, 0], [1, 1 << 8], [-1, -1]]
