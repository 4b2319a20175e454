# pyright: reportUnknownMemberType=false
"""One token a row attends to paged keys and values: a GPU kernel that reads each of them once, where it lies.

Split-K flash decoding (Dao et al. 2023, "Flash-Decoding for long-context inference"; the online softmax is Milakov and
Gimelshein 2018, "Online normalizer calculation for softmax"): the keys of a row are dealt to several programs of the
grid, each makes a partial output with its own maximum and sum, and `_combine` weighs them together. Pages are looked up
in the kernel, key by key, as vLLM's Triton kernels do.

The kernel is written in Pallas and lowered to Triton. Newer versions of jax deprecate that way and may drop it, so ask
`available` first. Not run on a GPU yet: it was checked in interpret mode against `reference`, and the program that it
is lowered to was compiled by Triton 3.6 for compute capability 9.0 (no spills, asynchronous copies of 16 bytes). Tile,
warps, stages and splits are reasoned, not tuned.
"""

import math
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

__all__ = ["available", "choose_splits", "paged_decode", "supports"]


def _optional(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


pl: Any = _optional("jax.experimental.pallas")
triton: Any = _optional("jax.experimental.pallas.triton")

# Triton multiplies tiles of 16 rows or more.
_MIN_TILE = 16
# A tile of keys, and one of values, of 16 KiB: several programs fit a multiprocessor.
_TILE_BYTES = 16_384
_MAX_TILE = 128
# Three stages: the pages of one tile are looked up while the keys of the one before are on their way.
_WARPS, _STAGES = 4, 3
# Two programs for each of the 132 multiprocessors of an H100; what is combined later costs a round trip through memory.
_PROGRAMS = 264
_MAX_SPLITS = 32

_FLOATS = ("bfloat16", "float16", "float32")


def available() -> bool:
    """This version of jax can still lower Pallas kernels to Triton."""
    return pl is not None and hasattr(triton, "CompilerParams") and hasattr(triton, "load")


def supports(*, dtype: str, head_dim: int) -> bool:
    """Whether `paged_decode` takes a cache of this dtype (its name) and width. Pages and heads may be any number."""
    return dtype in _FLOATS and _MIN_TILE <= head_dim <= 256 and head_dim.bit_count() == 1


def choose_splits(rows: int, kv_heads: int, capacity: int, tile: int) -> int:
    """Return among how many programs the keys of a row are dealt: enough to fill a large GPU, and no more.

    Args:
        rows: sequences that decode together.
        kv_heads: of the model.
        capacity: most keys that a row can have.
        tile: keys that a program takes at a time.
    """
    wanted = math.ceil(_PROGRAMS / (rows * kv_heads))
    return max(1, min(wanted, math.ceil(capacity / tile), _MAX_SPLITS))


class _Shape(NamedTuple):
    """What the kernel is compiled for. ``group``: query heads of one key-value head; ``tile``: keys at a time."""

    group: int
    page_size: int
    splits: int
    tile: int
    scale: float
    window: int
    soft_cap: float | None

    @property
    def rows(self) -> int:
        """Query rows of the products."""
        return max(_MIN_TILE, 1 << (self.group - 1).bit_length())


def paged_decode(
    q: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    tables: jax.Array,
    positions: jax.Array,
    *,
    scale: float,
    window: int = 0,
    soft_cap: float | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Attend with one query token a row, as `reference.attend` defines it. Call it in a jitted program.

    Only pages that a row sees keys in are read, and of those only the keys that it sees: the time goes with the lengths
    of the rows, not with the width of the table. A row that is padding has position 0 and page 0: its result is that
    page's first value.

    Args:
        q: ``[B, heads, D]``, any float dtype; rounded to that of the keys.
        keys: ``[num_pages, kv_heads, page_size, D]``; see `supports`.
        values: the same.
        tables: i32 ``[B, W]``: the key of position p of row b is in page ``tables[b, p // page_size]``.
        positions: i32 ``[B]``, from 0 to ``W * page_size - 1``: of the query, whose own key is written already.
        scale: factor of the scores.
        window: positions that a token sees, its own included; 0 is all.
        soft_cap: scores are bent to stay within this, if it is given.
        interpret: run without a GPU, slowly: for tests.

    Returns:
        float32 ``[B, heads * D]``.
    """
    batch, heads, dim = q.shape
    kv_heads, page_size = keys.shape[1:3]
    tile = max(_MIN_TILE, min(_MAX_TILE, _TILE_BYTES // (dim * keys.dtype.itemsize)))
    splits = choose_splits(batch, kv_heads, tables.shape[1] * page_size, tile)
    shape = _Shape(heads // kv_heads, page_size, splits, tile, scale, window, soft_cap)
    grouped = q.astype(keys.dtype).reshape(batch, kv_heads, shape.group, dim)
    partials = _call(shape, (batch, kv_heads, dim), interpret)(grouped, keys, values, tables, positions)
    return _combine(*partials).reshape(batch, heads * dim)


def _call(shape: _Shape, sizes: tuple[int, int, int], interpret: bool) -> Any:
    """The kernel over its grid: (q, keys, values, tables, positions) to partial (outputs, maxima, sums)."""
    batch, kv_heads, dim = sizes
    outer = batch, kv_heads, shape.splits, shape.group
    whole = pl.BlockSpec()
    of_group = _block(lambda b, h, s: (b, h, 0, 0), None, None, shape.group, dim)
    part = _block(lambda b, h, s: (b, h, s, 0, 0), None, None, None, shape.group, dim)
    flat = _block(lambda b, h, s: (b, h, s, 0), None, None, None, shape.group)
    return pl.pallas_call(
        partial(_kernel, shape),
        grid=outer[:3],
        in_specs=[of_group, whole, whole, whole, whole],
        out_specs=[part, flat, flat],
        out_shape=[jax.ShapeDtypeStruct((*outer, dim), jnp.float32)] + [jax.ShapeDtypeStruct(outer, jnp.float32)] * 2,
        compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=_STAGES),
        interpret=interpret,
        name="paged_decode",
    )


def _block(index: Callable[[Any, Any, Any], tuple[Any, ...]], *sizes: int | None) -> Any:
    return pl.BlockSpec(sizes, index)


def _kernel(
    shape: _Shape, q_ref: Any, keys_ref: Any, values_ref: Any, tables_ref: Any, positions_ref: Any, *out_refs: Any
) -> None:
    row, head, split = pl.program_id(0), pl.program_id(1), pl.program_id(2)
    position = positions_ref[row]
    # The group is repeated to fill a tile of query rows; the repetitions give, and store, the same numbers again.
    group = jnp.minimum(jnp.arange(shape.rows), shape.group - 1)
    q = q_ref[group]
    begin, end = _share(shape, position, split)

    def step(tile: jax.Array, state: _State) -> _State:
        at = tile * shape.tile + jnp.arange(shape.tile)
        seen = (at <= position) & (at >= _first_seen(shape, position))
        # Keys that are not seen are not read: their pages may be anybody's, and hold anything.
        pages = triton.load(tables_ref.at[row, at // shape.page_size], mask=seen, other=0)
        load = partial(_load, pages, head, at % shape.page_size, seen)
        scores = jnp.where(seen[None], _scores(shape, q, load(keys_ref)), _NEVER)
        return _add(state, scores, load(values_ref))

    zeros = jnp.zeros(shape.rows, jnp.float32)
    start = _State(jnp.zeros(q.shape, jnp.float32), zeros + _NEVER, zeros)
    final = cast("_State", jax.lax.fori_loop(begin, end, step, start))
    for ref, value in zip(out_refs, final, strict=True):
        ref[group] = value


def _load(pages: jax.Array, head: jax.Array, offsets: jax.Array, seen: jax.Array, ref: Any) -> jax.Array:
    """One vector for each key: ``[tile, D]``, zeros where it is not seen."""
    sizes = offsets.shape[0], ref.shape[-1]
    pages, offsets, seen = (jax.lax.broadcast_in_dim(x, sizes, (0,)) for x in (pages, offsets, seen))
    where = pages, head, offsets, jax.lax.broadcasted_iota(jnp.int32, sizes, 1)
    return triton.load(ref.at[where], mask=seen, other=0)


# Not minus infinity, whose difference to itself is no number.
_NEVER = -1e30


class _State(NamedTuple):
    """Of the keys so far: outputs ``[rows, D]`` that lack the division by the sums, maxima and sums ``[rows]``."""

    outputs: jax.Array
    maxima: jax.Array
    sums: jax.Array


def _first_seen(shape: _Shape, position: jax.Array) -> jax.Array:
    return jnp.maximum(position - shape.window + 1, 0) if shape.window else jnp.zeros_like(position)


def _share(shape: _Shape, position: jax.Array, split: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tiles ``begin .. end - 1`` of a split: the tiles that a row sees, dealt out evenly; the last may get none."""
    first, beyond = _first_seen(shape, position) // shape.tile, position // shape.tile + 1
    each = (beyond - first + shape.splits - 1) // shape.splits
    begin = first + split * each
    return begin, jnp.minimum(begin + each, beyond)


def _scores(shape: _Shape, q: jax.Array, k: jax.Array) -> jax.Array:
    scores = _product(q, k, 1) * shape.scale
    return scores if shape.soft_cap is None else jnp.tanh(scores / shape.soft_cap) * shape.soft_cap


def _add(state: _State, scores: jax.Array, v: jax.Array) -> _State:
    maxima = jnp.maximum(state.maxima, jnp.max(scores, axis=1))
    faded = jnp.exp(state.maxima - maxima)
    weights = jnp.exp(scores - maxima[:, None])
    return _State(
        state.outputs * faded[:, None] + _product(weights.astype(v.dtype), v, 0),
        maxima,
        state.sums * faded + jnp.sum(weights, axis=1),
    )


def _product(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    precision = jax.lax.Precision.HIGHEST if b.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a, b, (((1,), (axis,)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )


def _combine(outputs: jax.Array, maxima: jax.Array, sums: jax.Array) -> jax.Array:
    """Weigh the splits (axis 2) together. A split that had no keys has the sum 0, and the maximum that is never."""
    weights = jnp.exp(maxima - jnp.max(maxima, axis=2, keepdims=True))
    return jnp.sum(outputs * weights[..., None], axis=2) / jnp.sum(sums * weights, axis=2)[..., None]
