# pyright: reportUnknownMemberType=false
"""What stays on the device from step to step: weights, pages, the view, and the tokens that were drawn last."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from attrs import define, evolve, field, frozen

from .attention import View
from .buckets import ProgramKey
from .decode_loop import pack_loop
from .decode_view import DecodeView
from .device import zeros
from .kv_cache import copy_out
from .model import KV
from .packing import Ints, Row, Rows, pack_steps
from .weights import Params

__all__ = ["DeviceState", "Forwarded", "Looped", "Program"]

Program = Callable[..., Any]


@frozen
class Forwarded:
    """What a forward program will return.

    Args:
        rows: what the first of the logits belong to; ``None``: to nobody.
        logits: f32 ``[B, V]``; of a pooled chunk the model's output, f32 ``[B, H]``.
        waited: the scores of a scored chunk, i32 ``[C, …]``, or anything that is there when the program is done.
    """

    rows: Rows
    logits: jax.Array
    waited: jax.Array


@frozen
class Looped:
    """What a loop will return.

    Args:
        rows: what the first of the draws belong to; ``None``: to nobody.
        drawn: i32 ``[K, B, 2]``.
    """

    rows: Rows
    drawn: jax.Array


@define
class DeviceState:
    """Dispatches forward programs, each on what the one before left.

    Args:
        params: the weights.
        new_kv: allocates the cache, when it is first needed.
        new_view: allocates a view for programs of this shape.
        places: how many tokens the device keeps for the next step.
    """

    _params: Params
    _new_kv: Callable[[], KV]
    _new_view: Callable[[ProgramKey], View]
    _places: int
    _kv: KV = field(init=False, factory=lambda: KV())
    _view: DecodeView | None = field(init=False, default=None)
    last: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.forget()

    def allocate(self) -> None:
        """Allocate the cache, if that was not done before."""
        self._kv = self._kv or self._new_kv()

    def release(self) -> None:
        """Let go of the cache, until it is allocated again."""
        self.forget()
        self._kv = []

    @property
    def lost(self) -> bool:
        """The cache went into a step that failed after it was donated."""
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self._kv))

    @property
    def view(self) -> ProgramKey | None:
        """The shape of the view, if there is one."""
        return self._view and self._view.key

    def rebuild(self) -> None:
        """Allocate the cache anew. What the pages held is lost."""
        self.forget()
        self._kv = []
        self._kv = self._new_kv()

    def forget(self) -> None:
        """Let go of what only the next step could use: a step has failed."""
        self._view = None
        self.last = zeros(jax.ShapeDtypeStruct((self._places,), np.int32))

    def gather(self, key: ProgramKey, program: Program, rows: list[Row]) -> Forwarded:
        """Dispatch a program that reads pages."""
        packed = pack_steps(key, rows)
        self._kv, logits, scores = program(self._params, self._kv, packed, self.last)
        return Forwarded(rows, logits, scores)

    def decode_view(self, key: ProgramKey, program: Program, fill: Program, rows: list[Row]) -> Forwarded:
        """Dispatch a program that reads the view; ``fill`` fills a row of it."""
        view = self._view_for(key)
        placed = view.arrange(rows, self._kv, fill)
        packed = pack_steps(key, placed)
        self._kv, view.arrays, logits = program(self._params, self._kv, view.arrays, packed, self.last)
        return Forwarded(placed, logits, logits)

    def fill_nothing(self, key: ProgramKey, fill: Program) -> View:
        """Dispatch the filling of a row of a view with nobody's pages."""
        view = self._view_for(evolve(key, kind="view"))
        view.arrays = fill(self._kv, view.arrays, np.zeros(1 + key.pages, np.int32))
        return view.arrays

    def copy_out(self, program: Program, pages: Ints) -> jax.Array:
        """Dispatch the copying of pages, i32 ``[N]``, to the host: see `kv_cache.copy_out`."""
        return program(self._kv, pages)

    def no_pages(self, count: int) -> Any:
        """Return zeros, on the host, of the shape and dtype in which so many pages are copied."""
        spec = jax.eval_shape(copy_out, self._kv, jax.ShapeDtypeStruct((count,), np.int32))
        return np.zeros(spec.shape, spec.dtype)

    def copy_in(self, program: Program, pages: Ints, content: Any) -> KV:
        """Dispatch the copying of what `copy_out` returned into these pages; the array is not to be used again."""
        self._kv = program(self._kv, pages, content)
        return self._kv

    def loop(self, key: ProgramKey, program: Program, rows: list[Row]) -> Looped:
        """Dispatch a loop that reads pages."""
        self._kv, drawn, self.last = program(self._params, self._kv, pack_loop(key, rows), self.last)
        return Looped(rows, drawn)

    def loop_view(self, key: ProgramKey, program: Program, fill: Program, rows: list[Row]) -> Looped:
        """Dispatch a loop that reads the view; ``fill`` fills a row of it."""
        view = self._view_for(key.once)
        placed = view.arrange(rows, self._kv, fill)
        packed = pack_loop(key, placed)
        self._kv, view.arrays, drawn, self.last = program(self._params, self._kv, view.arrays, packed, self.last)
        return Looped(placed, drawn)

    def _view_for(self, key: ProgramKey) -> DecodeView:
        if self._view is None or self._view.key != key:
            # The old one goes first: there may be no room for both.
            self._view = None
            self._view = DecodeView(key, self._new_view(key))
        return self._view
