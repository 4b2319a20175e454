"""A step is over when it is computed, not when it is dispatched."""

from atomr_trio.engine.readout import Drawn, Started, collect


class Scores:
    """Stands for a program's output that is not there yet."""

    waited = False

    def block_until_ready(self):
        self.waited = True


def test_a_chunk_that_draws_nothing_is_waited_for_too():
    """Else a long prompt is dispatched in one go, and an abort comes after all of it."""
    scores = Scores()
    assert collect([Started([], None, scores)]) == Drawn()
    assert scores.waited
