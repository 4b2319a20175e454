"""A model's chat template, rendered where it can do no harm."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from attrs import define, field
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from atomr_trio.core import BadRequest, ModelLoadError

__all__ = ["ChatTemplate"]

_MAX_STEPS = 1_000_000
_MAX_RESULT = 2**16
_MAX_OUTPUT = 64 * 2**20


class _GenerationTag(Extension):
    """``{% generation %}`` marks the assistant's text for training. Here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 - the name and the type are jinja2's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _result_size(operator: str, left: Any, right: Any) -> int:
    """Return about how many bits or items the result of ``*`` or ``**`` has; raises for what has no such result."""
    if isinstance(left, float) or isinstance(right, float):
        return 0
    if operator == "**":
        return left.bit_length() * right
    if isinstance(right, int) and not isinstance(left, int):
        return len(left) * right
    if isinstance(left, int) and not isinstance(right, int):
        return len(right) * left
    return left.bit_length() + right.bit_length()


class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, without the two operators' way to make gigabytes of a few characters."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if _result_size(operator, left, right) > _MAX_RESULT:
            raise jinja2.TemplateRuntimeError(f"the result of `{operator}` is too big")
        return super().call_binop(context, operator, left, right)


@define
class _Steps:
    """``range``, with one allowance for all ranges of a rendering together, so that nested loops end too."""

    left: int = _MAX_STEPS

    def __call__(self, *args: int) -> range:
        steps = range(*args)
        self.left -= len(steps)
        if self.left < 0:
            raise jinja2.TemplateRuntimeError("the template loops too often")
        return steps


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, indent: int | None = None, *, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _environment(now: Callable[[], datetime]) -> ImmutableSandboxedEnvironment:
    made = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationTag])
    made.filters["tojson"] = _to_json

    def strftime_now(form: str) -> str:
        return now().strftime(form)

    functions: dict[str, Any] = {"raise_exception": _raise_exception, "strftime_now": strftime_now}
    made.globals.update(functions)
    # A generator of filler text, of any length asked for.
    made.globals.pop("lipsum")
    return made


@define(eq=False)
class ChatTemplate:
    """Turns a conversation into the one text that the model was trained on.

    Templates come with model files, so they run in a sandbox: no insides of Python objects, no changes to what is
    passed in, no endless ranges, bounded output. It keeps a hostile template from doing anything but waste time and
    memory, and makes that hard, not impossible.

    Args:
        source: the template, in Jinja.
        bos_token: spelling of the begin-of-sequence token; may be empty.
        eos_token: spelling of the end-of-sequence token; may be empty.
        now: the clock for ``strftime_now``.

    Raises:
        ModelLoadError: the template is not valid Jinja.
    """

    _source: str = field(repr=False)
    bos_token: str = ""
    eos_token: str = ""
    _now: Callable[[], datetime] = field(default=datetime.now, kw_only=True, repr=False)
    _compiled: jinja2.Template = field(init=False, repr=False)
    variables: frozenset[str] = field(init=False, repr=False)
    """What it reads that it does not set itself."""

    def __attrs_post_init__(self) -> None:
        environment = _environment(self._now)
        try:
            self._compiled = environment.from_string(self._source)
            self.variables = frozenset(meta.find_undeclared_variables(environment.parse(self._source)))
        except (jinja2.TemplateError, RecursionError) as error:
            raise ModelLoadError(f"the chat template is not valid: {error}") from error

    @property
    def source(self) -> str:
        """The template itself."""
        return self._source

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **kwargs: Any
    ) -> str:
        """Return the conversation as text.

        Args:
            messages: ``role`` and ``content`` of each turn, as the template expects them.
            add_generation_prompt: end with the begin of the assistant's turn.
            kwargs: more variables for the template, such as ``tools``.

        Raises:
            BadRequest: the template refuses the conversation, or fails on it; ``param`` is ``messages``.
        """
        variables: dict[str, Any] = {"tools": None, "documents": None, **kwargs, "range": _Steps()}
        variables |= {"messages": messages, "add_generation_prompt": add_generation_prompt}
        variables |= {"bos_token": self.bos_token, "eos_token": self.eos_token}
        try:
            return _join(self._compiled.generate(variables))
        except jinja2.TemplateError as error:
            reason = f": {error.message}" if error.message else ""
            raise BadRequest(f"the model's chat template refuses this conversation{reason}", "messages") from error
        except Exception as error:
            # Whatever Python raises inside the template: its text may speak of our insides, so it stays here.
            raise BadRequest("the model's chat template fails on this conversation", "messages") from error


def _join(pieces: Any) -> str:
    texts: list[str] = []
    room = _MAX_OUTPUT
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise jinja2.TemplateRuntimeError("its output is too long")
        texts.append(piece)
    return "".join(texts)
