"""How a conversation is put into a model's chat template, where a client wants it otherwise."""

from typing import Any

from attrs import field, frozen

__all__ = ["Rendering"]


@frozen(kw_only=True)
class Rendering:
    """What is said to a chat template besides the conversation. Runners without one ignore it.

    Args:
        begin: end with the begin of the assistant's turn.
        go_on: the last turn is the assistant's and not finished: the answer goes on with it, and nothing is begun.
        variables: further variables of the template.
        effort: how much the model shall think before it speaks, as the API says it; ``None``: nothing was said.
    """

    begin: bool = True
    go_on: bool = False
    variables: dict[str, Any] = field(factory=dict[str, Any], hash=False)
    effort: str | None = None
