"""One method for each type of message, as an alternative to one ``handle`` for all."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["dispatch", "handlers_of", "on"]

MARK = "__handles_messages__"


def on(*types: type) -> Callable[[F], F]:
    """Mark an actor's method ``(self, message, ctx)`` as the handler of these classes of messages.

    The nearest class of a message counts. A subclass may override the method without marking it again.

        class Counter(Actor[Add | Reset]):
            @on(Add)
            async def add(self, message: Add, ctx: Context[Add | Reset]) -> int: ...

    Raises:
        TypeError: no type is given.
    """
    if not types:
        raise TypeError("@on needs the types of message that the method handles")

    def mark(method: F) -> F:
        setattr(method, MARK, types)
        return method

    return mark


def handlers_of(cls: type, inherited: Mapping[type, str]) -> Mapping[type, str]:
    """Return the method names of a class by the type of message, its own before the ``inherited`` ones.

    Raises:
        TypeError: two methods of the class handle the same type.
    """
    own: dict[type, str] = {}
    for name, member in vars(cls).items():
        for kind in getattr(member, MARK, ()):
            if kind in own:
                raise TypeError(f"{cls.__name__}.{own[kind]} and .{name} both handle {kind.__name__}")
            own[kind] = name
    return {**inherited, **own}


def dispatch(handlers: Mapping[type, str], actor: object, message: object, ctx: object) -> Any:
    """Call the method for the message's class.

    Raises:
        TypeError: there is none.
    """
    for kind in type(message).__mro__:
        if kind in handlers:
            return getattr(actor, handlers[kind])(message, ctx)
    raise TypeError(f"{type(actor).__name__} does not handle {type(message).__name__}")
