"""A conversation as a chat template takes it, in the words of those that know nothing of tools too."""

import hashlib
import json
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve

from atomr_trio.core import BadRequest, Message, Role, Tool, ToolCall

from ._traits import TemplateTraits
from .calls import CallForm

__all__ = ["template_tools", "turns_of"]

Turn = dict[str, Any]

_LETTERS = string.digits + string.ascii_letters
_ID_LENGTH = 9


def template_tools(tools: Iterable[Tool]) -> list[Mapping[str, Any]]:
    """Return the tools as templates take them, which is as clients send them."""
    return [{"type": "function", "function": _function(tool)} for tool in tools]


def _function(tool: Tool) -> Mapping[str, Any]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


def turns_of(
    messages: Sequence[Message], tools: Sequence[Tool], traits: TemplateTraits, form: CallForm | None
) -> list[Turn]:
    """Return the conversation for a template.

    Args:
        messages: the conversation.
        tools: those that may be called.
        traits: what the template knows.
        form: how the model calls; ``None`` only if it never does.

    Raises:
        BadRequest: a part of a message is not text, or there are calls and nobody knows how they are written.
    """
    turns = [turn for message in _apart(messages, traits) for turn in _turn(message, traits, form)]
    if tools and traits.tools is None and form is not None:
        turns = _taught(turns, _lesson(tools, form), traits)
    # What stands for a tool's result is a user's turn, and there may be another one beside it.
    return turns if traits.results else list(_joined(turns))


def _turn(message: Message, traits: TemplateTraits, form: CallForm | None) -> Iterator[Turn]:
    if message.role is Role.TOOL:
        yield _result(message, traits, form)
        return
    turn: Turn = {"role": str(message.role), "content": message.text}
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls and traits.arguments is None:
        turn["content"] = "\n".join(filter(None, [message.text, _known(form).layout.render(message.tool_calls)]))
    elif message.tool_calls:
        turn["tool_calls"] = [_call(call, as_text=traits.arguments == "text") for call in message.tool_calls]
    yield turn


def _call(call: ToolCall, *, as_text: bool) -> Mapping[str, Any]:
    arguments = call.arguments if as_text else json.loads(call.arguments)
    return {"id": _short(call.id), "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _result(message: Message, traits: TemplateTraits, form: CallForm | None) -> Turn:
    if traits.results:
        told = {"name": message.name} if message.name else {}
        return {"role": "tool", "content": message.text, "tool_call_id": _short(message.tool_call_id), **told}
    return {"role": "user", "content": _known(form).result.format(content=message.text)}


def _known(form: CallForm | None) -> CallForm:
    if form is None:
        raise BadRequest("this model's way to call tools is not known to this server", param="messages")
    return form


def _short(id: str) -> str:
    # Mistral's templates insist on nine letters or digits.
    if len(id) == _ID_LENGTH and id.isascii() and id.isalnum():
        return id
    number = int.from_bytes(hashlib.sha256(id.encode(errors="replace")).digest()[:8])
    return "".join(_LETTERS[number // 62**place % 62] for place in range(_ID_LENGTH))


def _apart(messages: Sequence[Message], traits: TemplateTraits) -> Iterator[Message]:
    """Give each call a turn of its own, with its result after it, where a template takes no more than one in a turn."""
    at = 0
    while at < len(messages):
        message, at = messages[at], at + 1
        if len(message.tool_calls) < 2 or traits.many_calls or traits.arguments is None:
            yield message
            continue
        results: list[Message] = []
        while at < len(messages) and messages[at].role is Role.TOOL:
            results.append(messages[at])
            at += 1
        yield from _one_by_one(message, results)


def _one_by_one(message: Message, results: Sequence[Message]) -> Iterator[Message]:
    left = list(results)
    for number, call in enumerate(message.tool_calls):
        yield evolve(message, content=message.content if number == 0 else "", tool_calls=(call,))
        yield from (result for result in results if result.tool_call_id == call.id)
        left = [result for result in left if result.tool_call_id != call.id]
    yield from left


def _lesson(tools: Sequence[Tool], form: CallForm) -> str:
    described = "\n".join(json.dumps(_function(tool), ensure_ascii=False) for tool in tools)
    example = form.layout.render([ToolCall("", "function_name", '{"parameter_name": "value"}')])
    return form.lesson.format(tools=described, calls=example)


def _taught(turns: Sequence[Turn], lesson: str, traits: TemplateTraits) -> list[Turn]:
    """Put the lesson where the model looks for instructions: after those that there are."""
    role = "system" if traits.system else "user"
    if turns and turns[0]["role"] == role:
        first, rest = turns[0], turns[1:]
        parts = [first["content"], lesson] if role == "system" else [lesson, first["content"]]
        return [{**first, "content": "\n\n".join(filter(None, parts))}, *rest]
    return [{"role": role, "content": lesson}, *turns]


def _joined(turns: Iterable[Turn]) -> Iterator[Turn]:
    before: Turn | None = None
    for turn in turns:
        if before is not None and before["role"] == turn["role"] == "user":
            before = {**before, "content": f"{before['content']}\n\n{turn['content']}"}
            continue
        if before is not None:
            yield before
        before = turn
    if before is not None:
        yield before
