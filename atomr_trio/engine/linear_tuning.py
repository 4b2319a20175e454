# pyright: reportUnknownMemberType=false
"""A short measurement, once on a machine: which form of the integer products is the fastest for each matrix.

All candidates compute the same bits (`linear_forms`), so a noisy measurement can cost time, but never change an answer.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any, TypeGuard, TypeVar

import jax
import numpy as np
from attrs import evolve

from .linear import Int8Weight, TunedForms
from .linear_choices import Choices, choices_file, load_choices, machine_tag, save_choices
from .linear_forms import Form, candidates

__all__ = ["decide", "measure", "tune", "tune_shape"]

_T = TypeVar("_T")

Seconds = Mapping[str, Sequence[float]]
"""By the name of a form, what its runs took."""

logger: logging.Logger = logging.getLogger("atomr_trio.engine")

# int8 rows: those of 1, 8 and 64 tokens. In between, the next larger one speaks; above, the default form is used.
_ROWS = (2, 16, 128)

# Shapes that are measured, those with the most weights first: the others hardly matter, and compiling takes its time.
_SHAPES = 3

# Another form must be faster by so much: noise alone does not move a choice.
_MARGIN = 0.1

# Rounds of a measurement, and the seconds after which it ends early: huge matrices are slow enough to need few.
_ROUNDS = range(3, 8)
_ENOUGH_S = 0.1

# In a model a matrix comes from memory, not from the nearest cache: several take turns, as there.
_TURNS, _TURNED_BYTES = 4, 1 << 26


def decide(seconds: Seconds, default: str) -> str:
    """Return the form to use: the default one, unless another's median is better by a tenth.

    Args:
        seconds: what the runs of each form took, the default's included.
        default: its name.
    """
    medians = {name: median(taken) for name, taken in seconds.items()}
    best = min(medians, key=lambda name: (medians[name], name))
    return best if medians[best] < (1 - _MARGIN) * medians[default] else default


def measure(runs: Mapping[str, Callable[[], object]], clock: Callable[[], float] = perf_counter) -> Seconds:
    """Time functions in turns, so that what disturbs the machine for a while disturbs all of them.

    Args:
        runs: the functions.
        clock: seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    end = clock() + _ENOUGH_S
    for done in range(_ROUNDS.stop):
        if done >= _ROUNDS.start and clock() > end:
            break
        for name, run in runs.items():
            started = clock()
            run()
            seconds[name].append(clock() - started)
    return seconds


def tune(tree: _T, cache_dir: str | None) -> _T:
    """Tell the integer weights of a tree what form to use: as remembered, else as measured now.

    Args:
        tree: of arrays and weights, as `Params` is; the arrays must be computed.
        cache_dir: where to remember; ``None``: nowhere.
    """
    leaves: list[Any] = jax.tree.leaves(tree, is_leaf=_is_integer)
    choices = _choices([leaf for leaf in leaves if _is_integer(leaf)], cache_dir)
    return jax.tree.map(partial(_told, choices), tree, is_leaf=_is_integer)


def _told(choices: Choices, leaf: Any) -> Any:
    return evolve(leaf, forms=choices.get(_shape(leaf), ())) if _is_integer(leaf) else leaf


def _is_integer(leaf: object) -> TypeGuard[Int8Weight]:
    return isinstance(leaf, Int8Weight) and leaf.activations != "float"


def _shape(weight: Int8Weight) -> str:
    return f"{weight.values.shape[0]}x{weight.values.shape[1]}"


def _choices(weights: Sequence[Int8Weight], cache_dir: str | None) -> Choices:
    if not weights:
        return {}
    machine = machine_tag(jax.__version__, jax.default_backend())
    path = None if cache_dir is None else choices_file(cache_dir)
    known: Choices = {} if path is None else load_choices(path, machine)
    shapes: dict[str, list[jax.Array]] = {}
    for weight in weights:
        shapes.setdefault(_shape(weight), []).append(weight.values)
    heaviest = sorted(shapes, key=lambda shape: -sum(values.size for values in shapes[shape]))[:_SHAPES]
    new = {shape: tune_shape(shapes[shape]) for shape in heaviest if shape not in known}
    if new:
        logger.info("forms of the integer products, by matrix and rows: %s", new)
    if new and path is not None:
        save_choices(path, machine, {**known, **new})
    return {**known, **new}


def tune_shape(matrices: Sequence[jax.Array]) -> TunedForms:
    """Measure the forms for matrices of one shape, int8 ``[out, in]``."""
    turns = min(_TURNS, max(1, _TURNED_BYTES // matrices[0].size))
    return tuple((rows, _fastest(matrices[:turns], rows)) for rows in _ROWS)


def _fastest(matrices: Sequence[jax.Array], rows: int) -> str:
    forms = candidates("integers", jax.default_backend(), rows)
    if len(forms) == 1:
        return forms[0].name
    x = jax.device_put(np.ones((rows, matrices[0].shape[1]), np.int8))
    return decide(measure({form.name: _runner(form, x, matrices) for form in forms}), forms[0].name)


def _runner(form: Form, x: jax.Array, matrices: Sequence[jax.Array]) -> Callable[[], object]:
    compiled = jax.jit(form.multiply).lower(x, matrices[0]).compile()

    def run() -> None:
        for matrix in matrices:
            compiled(x, matrix).block_until_ready()

    run()
    return run
