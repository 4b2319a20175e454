"""The hooks that end a life: each is called whatever became of the one before, within a deadline of its own."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio

from . import _log
from ._actor import Actor
from ._context import Context
from ._failures import attempt
from ._supervision import Directive
from ._verdict import Verdict

Hook = Callable[[], Awaitable[None]]

__all__ = ["call_hooks", "closing_hooks"]


def closing_hooks(actor: Actor[Any], ctx: Context[Any], end: Verdict) -> list[Hook]:
    """Return what is to be called on an instance that ends so, without the hooks that it has not overridden."""
    # An empty hook would cost its deadline's scope at each restart.
    hooks: list[Hook] = []
    if end.failure is not None and _overrides(actor, "on_failure"):
        hooks.append(partial(actor.on_failure, end.failure, ctx))
    if end.failure is not None and end.directive is Directive.RESTART:
        if _overrides(actor, "pre_restart"):
            hooks.append(partial(actor.pre_restart, end.failure, ctx))
    elif _overrides(actor, "post_stop"):
        hooks.append(partial(actor.post_stop, ctx))
    return hooks


def _overrides(actor: Actor[Any], name: str) -> bool:
    return getattr(getattr(actor, name), "__func__", None) is not getattr(Actor, name)


async def call_hooks(hooks: Sequence[Hook], path: str, seconds: float) -> None:
    """Call them in order; to be called under a shield. What one raises, or its overrun, is logged."""
    for hook in hooks:
        with trio.move_on_after(seconds) as deadline:
            try:
                await attempt(hook)
            except Exception as failure:
                _log.hook_failed(path, failure)
        if deadline.cancelled_caught:
            _log.hook_overran(path, seconds)
