"""Programs are compiled once, in the right order, and never in the way of a step that can do without."""

import threading

import pytest

from atomr_trio.engine.buckets import ProgramKey
from atomr_trio.engine.compile_cache import CompileCache


def key(rows, pages=1):
    return ProgramKey("decode", rows, 1, pages)


class Builder:
    """Counts; keys in ``held`` wait until they are let go."""

    def __init__(self, *held):
        self.built = []
        self.gates = {k: threading.Event() for k in held}
        self.errors = {}

    def __call__(self, k):
        if k in self.gates:
            self.gates[k].wait(60)
        self.built.append(k)
        if k in self.errors:
            raise self.errors.pop(k)
        return lambda: k


@pytest.fixture
def caches():
    made = []

    def make(builder):
        made.append(CompileCache(builder))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def drain(cache):
    """Wait for the background: each of its threads works in order."""
    cache._wanted_soon.submit(lambda: None).result(60)
    cache._wanted_later.submit(lambda: None).result(60)


def test_warm_up_compiles_all_and_reports(caches):
    builder = Builder()
    cache = caches(builder)
    seen = []
    cache.warm_up([key(1), key(2), key(4)], lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert sorted(builder.built) == [key(1), key(2), key(4)]
    assert cache.compiled == {key(1), key(2), key(4)}


def test_warm_up_passes_errors_on(caches):
    builder = Builder()
    builder.errors[key(2)] = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        caches(builder).warm_up([key(1), key(2)], lambda *_: None)


def test_a_larger_program_serves_while_the_wanted_one_is_compiled(caches):
    builder = Builder(key(2))
    cache = caches(builder)
    cache.get(key(8))
    for _ in range(3):
        used, program = cache.choose(key(2), [key(1)])
        assert used == key(8)
        assert program() == key(8)
    assert not cache.waiting
    builder.gates[key(2)].set()
    drain(cache)
    assert cache.choose(key(2))[0] == key(2)
    assert builder.built == [key(8), key(1), key(2)]


def test_without_a_larger_one_the_step_waits_for_the_background_and_says_so(caches):
    builder = Builder(key(2))
    cache = caches(builder)
    cache.prepare([key(2)])
    result = []
    step = threading.Thread(target=lambda: result.append(cache.choose(key(2))[0]))
    step.start()
    while not cache.waiting:
        pass
    builder.gates[key(2)].set()
    step.join(60)
    assert result == [key(2)]
    assert builder.built == [key(2)]
    assert not cache.waiting


def test_a_failure_in_the_background_shows_at_the_step_that_needs_it(caches):
    builder = Builder()
    builder.errors[key(2)] = ValueError("background")
    cache = caches(builder)
    cache.prepare([key(2)])
    drain(cache)
    builder.errors[key(2)] = ValueError("step")
    with pytest.raises(ValueError, match="step"):
        cache.choose(key(2))
    assert not cache.waiting
    assert cache.choose(key(2))[0] == key(2)


def test_a_closed_cache_compiles_nothing_more_in_the_background(caches):
    builder = Builder(key(1))
    cache = caches(builder)
    cache.prepare([key(1), key(2)])
    cache.close()
    builder.gates[key(1)].set()
    cache.prepare([key(3)])
    cache._wanted_soon.shutdown(wait=True)
    assert set(builder.built) <= {key(1)}


def test_what_has_time_waits_for_quiet_and_what_is_wanted_does_not(caches):
    builder = Builder()
    cache = caches(builder)
    cache.set_busy(True)
    cache.prepare_when_quiet([key(1), key(2)])
    cache.prepare([key(4)])
    cache._wanted_soon.submit(lambda: None).result(60)
    assert builder.built == [key(4)]
    cache.set_busy(False)
    drain(cache)
    assert builder.built == [key(4), key(1), key(2)]


def test_a_closed_cache_does_not_wait_for_quiet(caches):
    builder = Builder()
    cache = caches(builder)
    cache.set_busy(True)
    cache.prepare_when_quiet([key(1)])
    cache.close()
    cache._wanted_later.shutdown(wait=True)
    assert builder.built == []
