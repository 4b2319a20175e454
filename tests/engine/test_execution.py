"""A step is over when it is computed, not when it is dispatched."""

from atomr_trio.engine.execution import Drawn, _collect, _Started


class Scores:
    """Stands for a program's output that is not there yet."""

    size = 0
    waited = False

    def block_until_ready(self):
        self.waited = True


def test_a_chunk_that_draws_nothing_is_waited_for_too():
    """Else a long prompt is dispatched in one go, and an abort comes after all of it."""
    scores, result = Scores(), Drawn()
    _collect(_Started([], None, scores), result)
    assert scores.waited
    assert result == Drawn()
