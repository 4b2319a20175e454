"""The fields that speak to a model's chat template."""

from collections.abc import Sequence
from typing import Any

from atomr_trio.core import BadRequest, Message, Rendering, Role

__all__ = ["rendering_of"]


def rendering_of(
    turns: Sequence[Message],
    *,
    begin: bool | None = None,
    go_on: bool | None = None,
    variables: dict[str, Any] | None = None,
    effort: str | None = None,
) -> Rendering:
    """What is said to the template.

    Args:
        turns: the conversation.
        begin: ``add_generation_prompt``; on, unless a turn is gone on with.
        go_on: ``continue_final_message``.
        variables: ``chat_template_kwargs``.
        effort: ``reasoning_effort``.

    Raises:
        BadRequest: there is no turn to go on with, or another one shall begin all the same.
    """
    if go_on and begin:
        message = "`continue_final_message` and `add_generation_prompt` cannot both be true"
        raise BadRequest(message, param="continue_final_message")
    if go_on and turns[-1].role is not Role.ASSISTANT:
        message = "`continue_final_message`: the last message is not the assistant's"
        raise BadRequest(message, param="continue_final_message")
    return Rendering(
        begin=begin is not False and not go_on, go_on=bool(go_on), variables=variables or {}, effort=effort
    )
