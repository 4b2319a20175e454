"""Pages that outlive their engine: the next one goes on with the same tokens, and computes hardly any again."""

from contextlib import contextmanager

import jax.numpy as jnp
import pytest
from engine_kit import CONFIG, MAX_LEN, collect, request, tiny_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.engine.device_state import DeviceState
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.kept_pages import KEEP, RESTORE, name_of
from atomr_trio.runners._pages import PagesFile

PAGE = 4
tokens = st.integers(3, CONFIG.vocab_size - 1)
prompts = st.lists(st.lists(tokens, min_size=1, max_size=30), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def undisturbed(programs_dir):
    engine = Engine(tiny_settings(programs_dir))
    engine.load()
    yield engine
    engine.close()


@contextmanager
def engine_on(file, programs_dir, **changes):
    """An engine that keeps its pages in this file, with the programs for it."""
    engine = Engine(tiny_settings(programs_dir, **{"kept_mib": 1, **changes}), pages_fd=file.fd)
    engine.load()
    for key in (KEEP, RESTORE):
        engine._loaded.programs.get(key)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture
def file():
    file = PagesFile(wanted=True)
    yield file
    file.close()


def run(engine, steps=None):
    """Step so often, or to the end; returns tokens by request, and the rows computed."""
    found, rows = {}, 0
    while not engine.idle and (steps is None or steps > 0):
        result = engine.step()
        rows += result.tokens
        for output in result.outputs:
            found.setdefault(output.id, []).extend(output.token_ids)
        steps = None if steps is None else steps - 1
    return found, rows


def open_ones(engine):
    return {sequence.id for sequence in (*engine._loaded.scheduler.running, *engine._loaded.scheduler.waiting)}


@settings(max_examples=6, deadline=None)
@given(
    prompts=prompts,
    deaths=st.lists(st.integers(1, 30), min_size=1, max_size=2),
    temperature=st.sampled_from([0.0, 0.8]),
    max_tokens=st.integers(1, 30),
    _seed=st.random_module(),
)
def test_who_goes_on_in_the_next_engine_gets_the_same_tokens(
    undisturbed, programs_dir, prompts, deaths, temperature, max_tokens, _seed
):
    def wanted(number, told=()):
        return request(number, prompts[number], max_tokens, temperature=temperature, seed=number, generated=[*told])

    for number in range(len(prompts)):
        undisturbed.add(wanted(number))
    expected, _ = collect(undisturbed)
    file = PagesFile(wanted=True)
    file.outlives_sessions = True
    told = {number: [] for number in range(len(prompts))}
    unfinished = set(told)
    try:
        for steps in [*deaths, None]:
            with engine_on(file, programs_dir) as engine:
                for number in sorted(unfinished):
                    engine.add(wanted(number, told[number]))
                found, _ = run(engine, steps)
                unfinished = open_ones(engine)
            for number, ids in found.items():
                told[number] += ids
    finally:
        file.close()
    assert told == expected


def test_only_incomplete_pages_are_computed_again(programs_dir, file):
    file.outlives_sessions = True
    with engine_on(file, programs_dir) as engine:
        for number in range(4):
            engine.add(request(number, range(3 + number, 30 + number), 30))
        told, _ = run(engine, 24)
        pool = engine._loaded.scheduler.pool
        lengths = {one.id: one.num_computed for one in engine._loaded.scheduler.running}
        held = len(pool.taken)
    assert sum(lengths.values()) > 100
    with engine_on(file, programs_dir) as engine:
        pool = engine._loaded.scheduler.pool
        assert (pool.free, held - 12 <= pool.cached <= held) == (8 * MAX_LEN // PAGE, True)
        for number in range(4):
            engine.add(request(number, range(3 + number, 30 + number), len(told[number]) + 1, generated=told[number]))
        _, rows = run(engine)
        # Of each the last page, what was on its way when the engine died, and the new token.
        assert rows <= 4 * (3 * PAGE)
        assert pool.free == 8 * MAX_LEN // PAGE


def test_tokens_of_an_earlier_process_do_not_count_as_cached(programs_dir, file):
    file.outlives_sessions = True
    prompt = range(3, 30)
    with engine_on(file, programs_dir) as engine:
        engine.add(request(1, prompt, 20))
        told, _ = run(engine, 10)
    with engine_on(file, programs_dir) as engine:
        engine.add(request(1, prompt, 20, generated=told[1]))
        _, last = collect(engine)
        assert last[1].cached_tokens == 0
        engine.add(request(2, prompt, 2))
        _, last = collect(engine)
        assert last[2].cached_tokens == 24


def test_what_is_in_doubt_is_not_found_by_the_next_engine(programs_dir, file):
    file.outlives_sessions = True
    with engine_on(file, programs_dir) as engine:
        engine.add(request(1, range(3, 30), 30))
        engine.add(request(2, range(40, 67), 30))
        run(engine, 12)
        scheduler = engine._loaded.scheduler
        assert scheduler.pool.cached > 10
        scheduler.abort(1, forget=True)
        kept = scheduler.pool.cached
        run(engine, 4)
    with engine_on(file, programs_dir) as engine:
        assert 0 < engine._loaded.scheduler.pool.cached <= kept + 2
        engine.add(request(1, range(3, 30), 2))
        engine.add(request(2, range(40, 67), 2))
        _, last = collect(engine)
        assert (last[1].cached_tokens, last[2].cached_tokens) == (0, 24)


def test_other_weights_begin_with_nothing(programs_dir, file):
    file.outlives_sessions = True
    with engine_on(file, programs_dir) as engine:
        engine.add(request(1, range(3, 30), 12))
        run(engine)
        assert engine._loaded.scheduler.pool.cached
    with engine_on(file, programs_dir, seed=1) as engine:
        assert not engine._loaded.scheduler.pool.cached
    with engine_on(file, programs_dir) as engine:
        assert not engine._loaded.scheduler.pool.cached


def test_weights_are_told_apart_by_any_of_their_arrays():
    params = {"a": jnp.ones((3, 4)), "b": jnp.zeros(5)}
    names = [
        name_of(params, ""),
        name_of(params, "16"),
        name_of({**params, "b": jnp.ones(5)}, ""),
        name_of({**params, "a": jnp.ones((4, 3))}, ""),
        name_of({**params, "b": jnp.zeros(5, jnp.bfloat16)}, ""),
    ]
    assert len({*names}) == 5
    assert name_of(dict(params), "") == names[0]


def test_those_who_run_stay_when_there_is_no_more_room(programs_dir, file):
    file.outlives_sessions = True
    with engine_on(file, programs_dir) as engine:
        vacant = engine._loaded.kept._vacant
        assert len(vacant) > 24
        del vacant[24:]
        # The first one runs all the time and has the oldest pages; those of the second are given up for the third.
        engine.add(request(1, range(3, 30), 36))
        told, _ = run(engine, 8)
        engine.add(request(2, range(70, 97), 3))
        engine.add(request(3, range(40, 67), 20))
        more, _ = run(engine, 22)
        assert len(vacant) == 0
        assert open_ones(engine) == {1, 3}
    told = told[1] + more[1]
    with engine_on(file, programs_dir) as engine:
        engine.add(request(1, range(3, 30), len(told) + 1, generated=told))
        engine.add(request(3, range(40, 67), len(more[3]) + 1, generated=more[3]))
        _, rows = run(engine)
        assert rows <= 2 * 3 * PAGE


def test_what_is_found_in_the_cache_is_kept_like_what_is_computed(programs_dir, file):
    file.outlives_sessions = True
    with engine_on(file, programs_dir) as engine:
        del engine._loaded.kept._vacant[18:]
        prompt = list(range(3, 30))
        engine.add(request(1, prompt, 30))
        run(engine)
        # Its slots go to another one; its pages are still in the cache when somebody asks the same again.
        engine.add(request(2, range(40, 67), 30))
        run(engine)
        engine.add(request(3, prompt, 30, temperature=2.0))
        told, rows = run(engine, 20)
        assert rows < len(prompt)
    with engine_on(file, programs_dir) as engine:
        engine.add(request(3, prompt, len(told[3]) + 1, temperature=2.0, generated=told[3]))
        _, rows = run(engine)
        assert rows <= 3 * PAGE


def test_beginnings_are_the_last_to_go(programs_dir, file):
    file.outlives_sessions = True
    with engine_on(file, programs_dir) as engine:
        engine.add(request(1, range(3, 30), 30))
        run(engine)
    with engine_on(file, programs_dir) as engine:
        pool = engine._loaded.scheduler.pool
        cached = pool.cached
        assert cached >= 12
        pool.take(pool.free - 4)
        assert pool.cached == 4
        chain = [engine._loaded.scheduler._hasher.root("")]
        for start in range(3, 19, PAGE):
            chain.append(engine._loaded.scheduler._hasher.page(chain[-1], range(start, start + PAGE)))
        assert len(pool.find(chain[1:])) == 4


def test_after_the_pages_are_lost_none_is_kept(programs_dir, file):
    file.outlives_sessions = True
    with engine_on(file, programs_dir) as engine:
        engine.add(request(1, range(3, 30), 30))
        run(engine)
        kept = engine._loaded.kept
        assert kept._kept
        engine._loaded.scheduler.restart_all()
        assert not kept._kept
        assert not list(kept._store.contents())


def test_a_backlog_of_copies_is_bounded(programs_dir, file):
    with engine_on(file, programs_dir, kv_tokens=MAX_LEN) as engine:
        engine._loaded.kept._programs._compiled.pop(KEEP)
        pages = engine._loaded.scheduler.pool.num_pages
        for number in range(20):
            engine.add(request(number, range(3 + number, 50 + number), 4))
            run(engine)
            assert len(engine._loaded.kept._noted) <= 2 * pages


def test_nothing_is_kept_without_memory_for_it(programs_dir, file, monkeypatch):
    def full(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", full)
    with engine_on(file, programs_dir) as engine:
        engine.add(request(1, range(3, 30), 12))
        found, _ = run(engine)
        assert len(found[1]) == 12


def test_a_copy_that_fails_costs_no_step(programs_dir, file, monkeypatch, caplog):
    with engine_on(file, programs_dir) as engine:

        def broken(*_):
            raise RuntimeError("INTERNAL: no copy")

        monkeypatch.setattr(DeviceState, "copy_out", broken)
        engine.add(request(1, range(3, 30), 12))
        found, _ = run(engine)
        assert len(found[1]) == 12
    assert "could not be kept" in caplog.text
