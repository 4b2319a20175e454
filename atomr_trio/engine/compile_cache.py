"""Programs by shape: each compiled once, at the start, in the background, or when a step cannot do without it."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

from attrs import define, field

from .buckets import ProgramKey, best_cover
from .politeness import be_nice

__all__ = ["CompileCache"]

Program = Callable[..., Any]

# A second one gains little on two cores, a third nothing: tracing holds the interpreter's lock.
_THREADS_AT_START = 2


@define
class CompileCache:
    """Hands out programs. Safe to use from threads; a background failure shows when the program is used.

    Args:
        build: compiles the program of a shape.
    """

    _build: Callable[[ProgramKey], Program]
    _compiled: dict[ProgramKey, Program] = field(init=False, factory=dict[ProgramKey, Program])
    _locks: dict[ProgramKey, threading.Lock] = field(init=False, factory=dict[ProgramKey, threading.Lock])
    _asked: set[ProgramKey] = field(init=False, factory=set[ProgramKey])
    _wanted_soon: ThreadPoolExecutor = field(init=False)
    _wanted_later: ThreadPoolExecutor = field(init=False)
    _wanted_now: ThreadPoolExecutor = field(init=False)
    _urgent: dict[ProgramKey, Future[Program]] = field(init=False, factory=dict[ProgramKey, Future[Program]])
    _quiet: threading.Event = field(init=False, factory=threading.Event)
    _closed: bool = field(init=False, default=False)
    _waiting: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        # One thread for each, and polite ones: on a small machine the steps need the cores.
        self._wanted_soon = ThreadPoolExecutor(1, "compile", initializer=be_nice)
        self._wanted_later = ThreadPoolExecutor(1, "compile-idle", initializer=be_nice)
        self._wanted_now = ThreadPoolExecutor(2, "compile-now")
        self._quiet.set()

    @property
    def waiting(self) -> bool:
        """A step waits for its program to be compiled."""
        return self._waiting or any(not future.done() for future in list(self._urgent.values()))

    @property
    def compiled(self) -> frozenset[ProgramKey]:
        """What can be run at once."""
        return frozenset(self._compiled)

    def warm_up(self, keys: Iterable[ProgramKey], on_progress: Callable[[int, int], None]) -> None:
        """Compile these now; ``on_progress`` is called with (programs done, programs in all)."""
        with ThreadPoolExecutor(_THREADS_AT_START, "compile") as pool:
            futures = [pool.submit(self.get, key) for key in keys]
            on_progress(0, len(futures))
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                on_progress(done, len(futures))

    def prepare(self, keys: Iterable[ProgramKey]) -> None:
        """Compile these one after another in the background."""
        new = [key for key in keys if key not in self._asked]
        if new and not self._closed:
            self._asked.update(new)
            self._wanted_soon.submit(self._prepare, new)

    def prepare_when_quiet(self, keys: Iterable[ProgramKey]) -> None:
        """Compile these one after another, each when ``set_busy(False)`` was the last word."""
        self._wanted_later.submit(self._prepare_when_quiet, list(keys))

    def set_busy(self, busy: bool, /) -> None:
        """Say whether there are steps to compute."""
        if busy:
            self._quiet.clear()
        else:
            self._quiet.set()

    def choose(self, wanted: ProgramKey, companions: Iterable[ProgramKey] = ()) -> tuple[ProgramKey, Program]:
        """Return a program for a step: the wanted one, else a larger one for now, else wait for the wanted one.

        The wanted one is then prepared in the background, after its ``companions``.
        """
        key = best_cover(wanted, list(self._compiled))
        if key is None:
            return wanted, self.require(wanted)
        if key != wanted:
            self.prepare([*companions, wanted])
        return key, self._compiled[key]

    def is_at_hand(self, wanted: ProgramKey, companions: Callable[[ProgramKey], list[ProgramKey]]) -> bool:
        """Say whether a step of this shape could run without waiting; if not, compile what it lacks, at once.

        Args:
            wanted: the step's shape.
            companions: what else the step takes, if this program is chosen.
        """
        key = best_cover(wanted, list(self._compiled)) or wanted
        needed = [key, *companions(key)]
        # All are asked before any is judged: what is lacking is compiled side by side.
        ready = [self._is_ready(one) for one in needed]
        return all(ready)

    def _is_ready(self, key: ProgramKey) -> bool:
        if key in self._compiled:
            self._urgent.pop(key, None)
            return True
        if key not in self._urgent:
            self._urgent[key] = self._wanted_now.submit(self.get, key)
        # A failure counts as ready: it is raised where the step asks for the program.
        done = self._urgent[key].done()
        if done:
            del self._urgent[key]
        return done

    def require(self, key: ProgramKey) -> Program:
        """Return the program of exactly this shape, for a step that waits for it."""
        self._waiting = key not in self._compiled
        try:
            return self.get(key)
        finally:
            self._waiting = False

    def get(self, key: ProgramKey) -> Program:
        """Return the program of this shape; compile it if that was not done, wait if it is being done."""
        with self._locks.setdefault(key, threading.Lock()):
            if key not in self._compiled:
                self._compiled[key] = self._build(key)
            return self._compiled[key]

    def close(self) -> None:
        """Compile nothing more in the background."""
        self._closed = True
        self._quiet.set()
        self._wanted_now.shutdown(wait=False, cancel_futures=True)
        self._wanted_soon.shutdown(wait=False, cancel_futures=True)
        self._wanted_later.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, keys: list[ProgramKey]) -> None:
        for key in keys:
            if not self._closed:
                self.get(key)

    def _prepare_when_quiet(self, keys: list[ProgramKey]) -> None:
        for key in keys:
            self._quiet.wait()
            self._prepare([key])
