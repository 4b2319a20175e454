# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The device programs of a step, and how they are compiled.

A step is a forward program (cache donated, one row of logits per sequence) and a draw from its logits. They are apart
because drawing takes as long to compile as the model, and its shape knows neither context nor chunk. What few requests
ask for (masks, edits, the best tokens) comes in small programs before and after the draw. Where a loop decodes several
tokens, both are in it.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from attrs import define, field
from jax.sharding import NamedSharding

from .attention import Attend, View, attend_pages, attend_view, fill_row, joined, parted, view_shapes
from .buckets import ProgramKey
from .decode_loop import loop_pages, loop_view, loop_width
from .draws import draw_and_keep, report
from .edits import edit, edit_width
from .kv_cache import copy_in, copy_out
from .masks import mask_words, restrict
from .model import KV
from .packing import DRAW_WIDTH, step_width, unpack_steps
from .served_model import ServedModel
from .sharding import ONE_DEVICE, Layout

__all__ = ["ProgramBuilder", "compute", "compute_view", "fill"]


def compute(
    model: ServedModel, attend: Attend, key: ProgramKey, params: Any, kv: KV, packed: jax.Array, last: jax.Array
) -> tuple[KV, jax.Array, jax.Array]:
    """Run the model over one step of the shape ``key``.

    Args:
        model: the model (static).
        attend: the back-end of attention (static).
        key: the shape (static).
        params: the weights.
        kv: the cache; donate it.
        packed: i32 ``[B, step_width(key)]``.
        last: i32 ``[S]``, the tokens that the step before drew.

    Returns:
        The new cache; f32 ``[B, V]``, logits after each row's last token, or of a pooled chunk f32 ``[B, H]``, the
        model's output after it, or its sum; and of a scored chunk what `report` says of each next token, i32
        ``[C, …]`` (f32 ``[0]`` otherwise).
    """
    inputs = unpack_steps(key, packed, last)
    hidden, kv = model.run(params, kv, inputs.tokens, inputs.positions, inputs.page_tables, attend)
    scores = jnp.zeros(0)
    if key.kind == "sums":
        # What padding computes may be anything, also no number.
        return kv, jnp.where(inputs.positions[:, :, None] < 0, 0, hidden).sum(axis=1), scores
    ends = jnp.take_along_axis(hidden, inputs.last[:, None, None], axis=1)[:, 0]
    if key.kind == "ends":
        return kv, ends, scores
    if key.kind == "scored":
        given = jnp.stack([inputs.next_tokens[0], jnp.zeros_like(inputs.next_tokens[0])], axis=1)
        scores = report(model.logits(params, hidden[0]), given)
    return kv, model.logits(params, ends), scores


def compute_view(
    model: ServedModel, key: ProgramKey, params: Any, kv: KV, view: View, packed: jax.Array, last: jax.Array
) -> tuple[KV, View, jax.Array]:
    """Decode one token of each row of a view; as `compute`, with the view donated, too, and without scores."""
    inputs = unpack_steps(key, packed, last)
    cache = joined(kv, view)
    hidden, cache = model.run(params, cache, inputs.tokens, inputs.positions, inputs.page_tables, attend_view)
    kv, view = parted(cache)
    return kv, view, model.logits(params, hidden[:, 0])


def fill(kv: KV, view: View, packed: jax.Array) -> View:
    """Copy the pages of a sequence into a row of a view; ``packed``: i32 ``[1 + W]``, the row, then its page table."""
    return fill_row(kv, view, packed[0], packed[1:])


def _spec(array: Any) -> jax.ShapeDtypeStruct:
    # With one device nothing is said of it: programs keep the text that they have in the persistent cache.
    sharding = array.sharding if isinstance(array.sharding, NamedSharding) else None
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def _specs(tree: Any) -> Any:
    return jax.tree.map(_spec, tree)


@define
class ProgramBuilder:
    """Compiles programs for a model and a cache, of which only the shapes are used. Safe to use from threads.

    Args:
        model: the model.
        params: its weights.
        kv: its pages.
        places: tokens that a step can leave for the next one, ``S``.
        attend: the back-end of attention for programs that read pages.
        layout: where cache and weights lie.
    """

    _model: ServedModel
    _params: Any = field(converter=_specs)
    _kv: Any = field(converter=_specs)
    _places: int
    _attend: Attend = attend_pages
    _layout: Layout = ONE_DEVICE
    # Two threads that trace at once share what jax remembers of inner functions, by chance: the same program would
    # come out in another text each time, and never be found in the persistent cache. Compiling goes on in parallel.
    _tracing: threading.Lock = field(init=False, factory=threading.Lock)

    def __call__(self, key: ProgramKey) -> jax.stages.Compiled:
        """Compile the program of this shape; that of ``compute`` with its cache donated."""
        with self._tracing:
            lowered = self._lower(key)
        return lowered.compile()

    def _lower(self, key: ProgramKey) -> jax.stages.Lowered:
        heads, whole = self._layout.heads, self._layout.whole
        match key.kind:
            case "mask":
                return self._lower_on_logits(restrict, key, mask_words(self._model.sizes.vocab_size))
            case "edit":
                return self._lower_on_logits(edit, key, edit_width(key.chunk))
            case "sample":
                return self._lower_on_logits(draw_and_keep, key, DRAW_WIDTH, self._last)
            case "report":
                return self._lower_on_logits(report, key, 2)
            case "fill":
                jitted = jax.jit(fill, donate_argnums=1, out_shardings=heads)
                return jitted.lower(self._kv, self._view(key), self._whole(1 + key.pages))
            case "keep":
                return jax.jit(copy_out, out_shardings=whole).lower(self._kv, self._whole(key.rows))
            case "restore":
                content = jax.eval_shape(copy_out, self._kv, self._whole(key.rows))
                jitted = jax.jit(copy_in, donate_argnums=0, out_shardings=heads)
                return jitted.lower(self._kv, self._whole(key.rows), self._whole(*content.shape, dtype=content.dtype))
            case "view":
                program = partial(compute_view, self._model, key)
                jitted = jax.jit(program, donate_argnums=(1, 2), out_shardings=(heads, heads, whole))
                return jitted.lower(self._params, self._kv, self._view(key), self._packed(key), self._last)
            case "views":
                program = partial(loop_view, self._model, key)
                jitted = jax.jit(program, donate_argnums=(1, 2), out_shardings=(heads, heads, whole, whole))
                return jitted.lower(self._params, self._kv, self._view(key), self._packed(key), self._last)
            case "decodes":
                program = partial(loop_pages, self._model, self._attend, key)
                jitted = jax.jit(program, donate_argnums=1, out_shardings=(heads, whole, whole))
                return jitted.lower(self._params, self._kv, self._packed(key), self._last)
            case _:
                program = partial(compute, self._model, self._attend, key)
                jitted = jax.jit(program, donate_argnums=1, out_shardings=(heads, whole, whole))
                return jitted.lower(self._params, self._kv, self._packed(key), self._last)

    def _lower_on_logits(
        self, program: Callable[..., Any], key: ProgramKey, width: int, *more: jax.ShapeDtypeStruct
    ) -> jax.stages.Lowered:
        raw = self._whole(key.rows, self._model.sizes.vocab_size, dtype=jnp.float32)
        jitted = jax.jit(program, out_shardings=self._layout.whole)
        return jitted.lower(raw, self._whole(key.rows, width), *more)

    def _view(self, key: ProgramKey) -> Any:
        time = key.pages * self._kv[0][0].shape[2]
        return view_shapes(self._model.sizes, key.rows, time, self._layout.heads)

    @property
    def _last(self) -> jax.ShapeDtypeStruct:
        return self._whole(self._places)

    def _packed(self, key: ProgramKey) -> jax.ShapeDtypeStruct:
        return self._whole(key.rows, loop_width(key) if key.is_loop else step_width(key))

    def _whole(self, *shape: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self._layout.whole)
