"""Conversations with one model: how they are put to it, and how its answers are read."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Literal

from attrs import define, field

from atomr_trio.core import (
    AnswerForm,
    AnswerReader,
    BadRequest,
    ExecuteBatch,
    Grammar,
    ModelLoadError,
    Tokenize,
    ToolOffer,
)

from ._rendering import begun_text, unfinished, until_mark, variables_of
from ._traits import TemplateTraits, probe
from ._turns import template_tools, turns_of
from .answer import AnswerParser
from .calls import FORMS, CallForm, answer_rule, call_grammar, form_of
from .template import ChatTemplate

__all__ = ["THOUGHTS", "Dialogue", "ThoughtStyle", "ToolStyle"]

ToolStyle = Literal["auto", "none", "hermes", "llama3", "mistral", "mistral-args", "gemma", "smollm"]
"""How a model calls functions; ``auto``: what its template speaks of."""

ThoughtStyle = Literal["auto", "none", "think", "mistral"]
"""How a model marks its reasoning; ``auto``: what its template speaks of."""

THOUGHTS: Final[Mapping[str, tuple[str, str]]] = {
    "think": ("<think>", "</think>"),
    "mistral": ("[THINK]", "[/THINK]"),
}
"""What reasoning begins and ends with, by the name of the style."""


@define(eq=False)
class Dialogue:
    """Puts conversations to one model.

    Args:
        template: the model's.
        tool_style: how it calls functions.
        thought_style: how it marks its reasoning.

    Raises:
        ModelLoadError: there is no such style.
    """

    _template: ChatTemplate
    _tool_style: str = "auto"
    _thought_style: str = "auto"
    calls: CallForm | None = field(init=False)
    thoughts: tuple[str, str] | None = field(init=False)
    traits: TemplateTraits = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.calls = _calls(self._template, self._tool_style)
        self.thoughts = _thoughts(self._template, self._thought_style)
        self.traits = probe(self._template)

    @property
    def marks(self) -> tuple[str, ...]:
        """What has to be seen of an answer, even where it is a control token."""
        return (*(self.calls.control if self.calls else ()), *(self.thoughts or ()))

    def render(self, of: ExecuteBatch | Tokenize) -> str:
        """Return a conversation as the model's prompt.

        Raises:
            BadRequest: the template refuses it, or what is said to it besides; the model cannot call functions; or
                there is no turn to go on with.
        """
        tools = () if of.tools is None else of.tools.tools
        if tools and self.calls is None:
            raise BadRequest("this model's way to call tools is not known to this server", param="tools")
        how = of.rendering
        messages = unfinished(of.messages) if how.go_on else of.messages
        try:
            turns = turns_of(messages, tools, self.traits, self.calls)
        except RecursionError:
            raise BadRequest("a tool or a call of one is nested too deeply", param="messages") from None
        given: dict[str, Any] = {self.traits.tools: template_tools(tools)} if tools and self.traits.tools else {}
        given |= variables_of(how, self._template)
        prompt = self._template.render(turns, add_generation_prompt=how.begin and not how.go_on, **given)
        return until_mark(prompt) if how.go_on else prompt

    def form(self, prompt: str, batch: ExecuteBatch) -> AnswerForm | None:
        """Return how the answer to a rendered prompt is read; ``None``: it is plain text."""
        offer, own = batch.tools, batch.sampling.grammar
        form = None if offer is None else self.calls
        # What the client's grammar leaves no room for cannot come.
        alone = own is not None and answer_rule(own) is None and not (offer is not None and offer.required)
        thoughts = None if alone else self.thoughts
        if form is None and thoughts is None:
            return None
        thinking = thoughts is not None and _is_open(thoughts, prompt, begun_text(batch.rendering, batch.messages))
        return AnswerForm(
            calls="" if form is None else form.name,
            thoughts=thoughts,
            thinking=thinking,
            reader=_reader(form, offer, thoughts, thinking=thinking),
        )

    def grammar(self, form: AnswerForm, batch: ExecuteBatch, control: Mapping[str, int]) -> Grammar | None:
        """Return the grammar of answers that have to call, or that have to be what the client says; ``None``: any.

        Args:
            form: of the answer.
            batch: the request.
            control: ids of the marks that are control tokens.

        Raises:
            BadRequest: a tool's schema is nested too deeply.
        """
        offer, own = batch.tools, batch.sampling.grammar
        required = offer is not None and offer.required
        answer = None if own is None or required else answer_rule(own)
        if not required and answer is None:
            return own
        try:
            return call_grammar(
                FORMS[form.calls].layout if form.calls else None,
                () if offer is None else offer.callable,
                parallel=offer is None or offer.parallel,
                answer=answer,
                thoughts=form.thoughts,
                thinking=form.thinking,
                control=control,
            )
        except RecursionError:
            raise BadRequest("the schema of a tool is nested too deeply", param="tools") from None


def _is_open(thoughts: tuple[str, str], prompt: str, begun: str) -> bool:
    """Whether the answer begins within reasoning: the template has begun it, or the turn that is gone on with."""
    begin, end = thoughts
    return prompt.rstrip().endswith(begin) or begun.rfind(begin) > begun.rfind(end)


def _calls(template: ChatTemplate, style: str) -> CallForm | None:
    if style not in ("auto", "none", *FORMS):
        raise ModelLoadError(f"there is no tool style `{style}`, only auto, none, {', '.join(FORMS)}")
    return form_of(template.source) if style == "auto" else FORMS.get(style)


def _thoughts(template: ChatTemplate, style: str) -> tuple[str, str] | None:
    if style not in ("auto", "none", *THOUGHTS):
        raise ModelLoadError(f"there is no thought style `{style}`, only auto, none, {', '.join(THOUGHTS)}")
    if style == "auto":
        return next((marks for marks in THOUGHTS.values() if marks[0] in template.source), None)
    return THOUGHTS.get(style)


def _reader(
    form: CallForm | None, offer: ToolOffer | None, thoughts: tuple[str, str] | None, *, thinking: bool
) -> Callable[[], AnswerReader]:
    callable = () if offer is None else offer.callable
    offered = {tool.name: tuple(tool.parameters.get("properties", ())) for tool in callable}
    return partial(AnswerParser, form, offered, offer is None or offer.parallel, thoughts, thinking)
