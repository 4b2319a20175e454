"""How long Python's cyclic garbage collector may hold up a process that has streams open."""

import gc

__all__ = ["shorten_pauses"]

_THRESHOLDS = (5_000, 20, 100)


def shorten_pauses() -> None:
    """Have the collector leave alone what is there now, and look through all the rest seldom.

    A full collection goes through every object: with some hundred streams that is a fifth of a second, in which all of
    them stand still. It finds nothing: what a start-up makes stays, and what a request makes is freed by its reference
    counts. Cycles, as tracebacks make them, are found by the collections of the young, which are short.

    For programs, not for libraries: call it in a process that serves, when what stays has been loaded; again whenever
    more was.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
