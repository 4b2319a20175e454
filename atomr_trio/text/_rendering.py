"""What clients may say to a chat template, and turns that are not finished. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import evolve

from atomr_trio.core import BadRequest, Message, Rendering, Role

from .template import ChatTemplate

__all__ = ["begun_text", "unfinished", "until_mark", "variables_of"]

# What a template takes from us alone.
_OURS: Final = frozenset(
    {"self", "messages", "tools", "xml_tools", "add_generation_prompt", "bos_token", "eos_token", "range"}
)
# Stands behind the text that is gone on with: where it comes out, the prompt ends. No model has a use for it.
_MARK: Final = "\ue000\ufdd0\ue001"


def variables_of(rendering: Rendering, template: ChatTemplate) -> Mapping[str, Any]:
    """Return the variables that a client sets.

    Raises:
        BadRequest: it sets what is not its own, or wants an effort that the template knows nothing of.
    """
    for name in rendering.variables:
        if name in _OURS:
            message = f"`chat_template_kwargs`: `{name}` cannot be set"
            raise BadRequest(message, param="chat_template_kwargs")
    return {**_effort(rendering.effort, template), **rendering.variables}


def _effort(effort: str | None, template: ChatTemplate) -> Mapping[str, Any]:
    if effort is None:
        return {}
    if "reasoning_effort" in template.variables:
        return {"reasoning_effort": effort}
    if effort != "none":
        raise BadRequest("this model knows no `reasoning_effort`", param="reasoning_effort")
    # Many templates that know no degrees have a switch.
    return {"enable_thinking": False} if "enable_thinking" in template.variables else {}


def unfinished(messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with a mark where its last turn is to be gone on with.

    Raises:
        BadRequest: the last turn is not the assistant's, or has calls.
    """
    *before, last = messages
    if last.role is not Role.ASSISTANT:
        raise BadRequest("only a turn of the assistant can be gone on with", param="messages")
    if last.tool_calls:
        raise BadRequest("a turn with tool calls cannot be gone on with", param="messages")
    return [*before, evolve(last, content=last.text + _MARK)]


def until_mark(prompt: str) -> str:
    """Return what comes before the mark.

    Raises:
        BadRequest: the template has left it out.
    """
    text, mark, _ = prompt.rpartition(_MARK)
    if not mark:
        raise BadRequest("this model's chat template does not let a turn be gone on with", param="messages")
    return text


def begun_text(rendering: Rendering, messages: Sequence[Message]) -> str:
    """Return what the assistant has said already in the turn that is gone on with."""
    return messages[-1].text if rendering.go_on else ""
