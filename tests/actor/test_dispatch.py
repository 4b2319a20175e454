"""One method a message type: the nearest class counts, subclasses override, mistakes are told."""

import pytest
import trio
from attrs import frozen

from atomr_trio.actor import Actor, ActorFailed, ActorSystem, Props, Request, on, stopping


@frozen
class Base(Request):
    pass


@frozen
class Derived(Base):
    pass


@frozen
class Other(Request):
    pass


@frozen
class Unknown(Request):
    pass


class Router(Actor):
    @on(Base)
    async def base(self, message, ctx):
        return f"base {type(message).__name__}"

    @on(Other, int)
    def other(self, message, ctx):
        return "other"


class Nearer(Router):
    def other(self, message, ctx):
        return "overridden"

    @on(Derived)
    async def derived(self, message, ctx):
        await trio.lowlevel.checkpoint()
        return "derived"


async def answers(actor, *messages):
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(Props(factory=actor), "a")
        return [await ref.ask(message, timeout=1) for message in messages]


async def test_the_nearest_class_of_the_message_counts():
    assert await answers(Router, Base(), Derived(), Other(), 3) == ["base Base", "base Derived", "other", "other"]


async def test_a_subclass_adds_and_overrides_methods_without_changing_its_base():
    assert await answers(Nearer, Base(), Derived(), Other()) == ["base Base", "derived", "overridden"]
    assert await answers(Router, Derived()) == ["base Derived"]


async def test_a_message_without_a_method_is_a_failure():
    async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
        ref = await system.actor_of(Props(factory=Router), "a")
        with pytest.raises(ActorFailed) as failed:
            await ref.ask(Unknown(), timeout=1)
    assert str(failed.value.__cause__) == "Router does not handle Unknown"


def test_two_methods_for_one_type_and_none_at_all_are_refused_when_the_class_is_made():
    with pytest.raises(TypeError, match=r"Twice.a and .b both handle int"):

        class Twice(Actor):
            @on(int)
            def a(self, message, ctx): ...

            @on(int)
            def b(self, message, ctx): ...

    with pytest.raises(TypeError, match="needs the types"):
        on()
