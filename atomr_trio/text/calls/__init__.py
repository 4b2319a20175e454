"""How models call functions: the forms that are known, and how to tell which one a model uses."""

from collections.abc import Mapping
from typing import Final

from ._form import CallForm as CallForm
from ._form import Offered as Offered
from ._gemma import GEMMA
from ._grammar import answer_rule as answer_rule
from ._grammar import call_grammar as call_grammar
from ._layout import Layout as Layout
from ._llama import LLAMA3
from ._mistral import MISTRAL, MISTRAL_ARGS
from ._space import SPACE as SPACE
from ._space import WHITE as WHITE
from ._tagged import HERMES, SMOLLM

FORMS: Final[Mapping[str, CallForm]] = {
    form.name: form for form in (HERMES, LLAMA3, MISTRAL, MISTRAL_ARGS, GEMMA, SMOLLM)
}
"""The forms by their names."""

# Looked for in this order: a template may say several of them.
_SIGNS = (
    ("<function=", None),
    ("[ARGS]", MISTRAL_ARGS),
    ("[TOOL_CALLS]", MISTRAL),
    ("<tool_call>", HERMES),
    ("<|python_tag|>", LLAMA3),
    ("<|start_header_id|>", LLAMA3),
    ("<start_of_turn>", GEMMA),
    ("SmolLM", SMOLLM),
    # It knows calls of a form that is not known here.
    ("tool_calls", None),
)


def form_of(template: str) -> CallForm | None:
    """Return the form that a model's chat template speaks of; ``None``: one that is not known here.

    A template that knows nothing of tools can be taught: it is the most usual form then.
    """
    return next((form for sign, form in _SIGNS if sign in template), HERMES)
