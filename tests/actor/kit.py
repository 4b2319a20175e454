"""Small actors that the tests of the core share."""

from typing import Any

import trio
from attrs import frozen

from atomr_trio.actor import Actor, Props, Request, Terminated


@frozen
class Say(Request[Any]):
    """Ask for the given value back."""

    value: Any


@frozen
class Crash:
    error: Exception


@frozen
class Block:
    """Stay in the handler until the event is set."""

    entered: trio.Event
    leave: trio.Event


@frozen
class Spawn(Request[Any]):
    props: Props
    name: str


class Recorder(Actor[Any]):
    """Does what the message says and writes every event of its life into a shared list."""

    def __init__(self, name: str, events: list, **behaviour: Any) -> None:
        self.name, self.events, self.behaviour = name, events, behaviour
        if "strategy" in behaviour:
            self.supervisor_strategy = behaviour["strategy"]

    def note(self, what: str) -> None:
        self.events.append((self.name, what))

    async def pre_start(self, ctx):
        self.note(f"start{ctx.incarnation}")
        for child_name, child in self.behaviour.get("children", {}).items():
            await ctx.spawn(child, child_name)
        if "pre_start" in self.behaviour:
            await self.behaviour["pre_start"](ctx)

    async def handle(self, message, ctx):
        match message:
            case Say(value):
                return value
            case Crash(error):
                raise error
            case Block(entered, leave):
                entered.set()
                await leave.wait()
                self.note("left the block")
            case Spawn(props, name):
                return await ctx.spawn(props, name)
            case _ if callable(message):
                return await message(self, ctx)
            case _:
                self.note(f"got {message}")

    async def pre_restart(self, failure, ctx):
        self.note("pre_restart")

    async def post_stop(self, ctx):
        self.note("stop")
        if "post_stop" in self.behaviour:
            await self.behaviour["post_stop"](ctx)

    async def on_terminated(self, terminated: Terminated, ctx):
        self.note(f"terminated {terminated.ref.path}")


def recorder(
    name: str, events: list, *, capacity: int = 1024, overflow: str = "fail", shutdown: float = 5.0, **behaviour
):
    return Props(
        factory=lambda: Recorder(name, events, **behaviour), capacity=capacity, overflow=overflow, shutdown=shutdown
    )
