"""Functions that a client offers to a model, and the calls that the model makes of them."""

from typing import Any

from attrs import field, frozen

__all__ = ["Tool", "ToolCall", "ToolOffer"]


@frozen
class Tool:
    """A function of the client's.

    Args:
        name: what the model calls it.
        description: what it does, for the model.
        parameters: JSON schema of its arguments, which are an object; empty: it has none.
        strict: the client wants arguments that fit the schema, whatever the model would rather say.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(factory=dict[str, Any], hash=False)
    strict: bool = False


@frozen
class ToolCall:
    """A call that the model made in an earlier turn.

    Args:
        id: what the result refers to.
        name: of the function.
        arguments: a JSON object, as text.
    """

    id: str
    name: str
    arguments: str = "{}"


@frozen(kw_only=True)
class ToolOffer:
    """The functions that the model may call in its answer.

    Args:
        tools: all that it is told of.
        required: it has to call one.
        only: names of those that it may call; empty: all.
        parallel: it may make several calls in one answer.
    """

    tools: tuple[Tool, ...] = field(converter=tuple)
    required: bool = False
    only: frozenset[str] = frozenset()
    parallel: bool = True

    @property
    def callable(self) -> tuple[Tool, ...]:
        """Those that it may call."""
        return tuple([tool for tool in self.tools if not self.only or tool.name in self.only])

    @property
    def characters(self) -> int:
        """About how much text the model is told of them."""
        return sum(len(tool.description) + len(str(tool.parameters)) for tool in self.tools)
