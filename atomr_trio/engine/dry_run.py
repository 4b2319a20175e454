"""Runs programs once, on nothing, before anybody waits for them.

The first run of a program takes up to a second longer than all others: with SmolLM2 on a CPU 0.6 s for the one that
decodes one row, and 16 ms from then on. Padding goes to the garbage page, so a run on rows of nobody leaves the cache
as it is; none may be under way.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from attrs import evolve

from .buckets import ProgramKey
from .device import wait_for
from .device_state import DeviceState, Program

__all__ = ["run_dry"]


def run_dry(state: DeviceState, key: ProgramKey, program: Program, get: Callable[[ProgramKey], Program]) -> None:
    """Run a program and wait for it.

    Args:
        state: what it works on.
        key: its shape.
        program: is compiled.
        get: returns the program of another shape, which it cannot do without.
    """
    wait_for(_run(state, key, program, get))
    state.forget()


def _run(state: DeviceState, key: ProgramKey, program: Program, get: Callable[[ProgramKey], Program]) -> Any:
    match key.kind:
        case "prefill" | "scored" | "ends" | "sums" | "decode":
            return state.gather(key, program, []).waited
        case "decodes":
            return state.loop(key, program, []).drawn
        case "fill":
            return state.fill_nothing(key, program)
        case "view":
            return state.decode_view(key, program, get(evolve(key, kind="fill")), []).waited
        case "views":
            return state.loop_view(key, program, get(evolve(key.once, kind="fill")), []).drawn
        case "keep":
            return state.copy_out(program, np.zeros(key.rows, np.int32))
        case "restore":
            _, pages, content = _inputs(program)
            return state.copy_in(program, _nothing(pages), _nothing(content))
        case _:
            return program(*jax.tree.map(_nothing, _inputs(program)))


def _inputs(program: Any) -> Any:
    return program.args_info[0]


def _nothing(info: Any) -> Any:
    return np.zeros(info.shape, info.dtype)
