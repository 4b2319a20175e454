"""Fault points around an actor that knows nothing of them."""

from collections.abc import Awaitable
from typing import Any, TypeVar, cast

from attrs import evolve

from atomr_trio.actor import Actor, Context, DeadLetter, Faults, Props, Terminated

M = TypeVar("M")

__all__ = ["with_faults"]


def with_faults(props: Props[M], faults: Faults, name: str | None = None) -> Props[M]:
    """Put fault points around the methods of an actor, whose own code stays as it is.

    The points are ``NAME.pre_start``, ``NAME.handle`` (before a message; ``drops`` loses the message, an ask is then
    never answered), ``NAME.handled`` (after the handler, before its answer goes out), ``NAME.post_stop`` and
    ``NAME.on_terminated``. A behaviour set by ``ctx.become`` has none.

    Args:
        props: the actor's recipe.
        faults: what happens at the points.
        name: their first part; the name of the actor's class if it is left out.
    """

    def factory() -> Actor[M]:
        actor = props.factory()
        return _Faulty(actor, faults, name or type(actor).__name__)

    return evolve(props, factory=factory)


class _Faulty(Actor[Any]):
    def __init__(self, actor: Actor[Any], faults: Faults, name: str) -> None:
        self.supervisor_strategy = actor.supervisor_strategy
        self._actor = actor
        self._faults = faults
        self._name = name

    async def pre_start(self, ctx: Context[Any]) -> None:
        await self._faults.reach(f"{self._name}.pre_start")
        await self._actor.pre_start(ctx)
        self.supervisor_strategy = self._actor.supervisor_strategy

    async def handle(self, message: Any, ctx: Context[Any]) -> Any:
        if self._faults.drops(f"{self._name}.handle"):
            ctx.defer_reply()
            ctx.system.dead_letters.record(DeadLetter(ctx.path, message, "dropped by a fault"))
            return None
        await self._faults.reach(f"{self._name}.handle")
        # A plain function may handle messages too.
        answer: Any = self._actor.handle(message, ctx)
        if isinstance(answer, Awaitable):
            answer = await cast("Awaitable[Any]", answer)
        await self._faults.reach(f"{self._name}.handled")
        return answer

    async def post_stop(self, ctx: Context[Any]) -> None:
        await self._faults.reach(f"{self._name}.post_stop")
        await self._actor.post_stop(ctx)

    async def on_failure(self, failure: Exception, ctx: Context[Any]) -> None:
        await self._actor.on_failure(failure, ctx)

    async def pre_restart(self, failure: Exception, ctx: Context[Any]) -> None:
        await self._actor.pre_restart(failure, ctx)

    async def post_restart(self, failure: Exception, ctx: Context[Any]) -> None:
        await self._actor.post_restart(failure, ctx)

    async def on_terminated(self, terminated: Terminated, ctx: Context[Any]) -> None:
        await self._faults.reach(f"{self._name}.on_terminated")
        await self._actor.on_terminated(terminated, ctx)
