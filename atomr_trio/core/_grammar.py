"""What an answer must look like: a rule that the device's sampler keeps to."""

from typing import Literal

from attrs import frozen

__all__ = ["Grammar"]


@frozen
class Grammar:
    """A language that the answer is a sentence of.

    Args:
        kind: what ``text`` is: a JSON schema, a regular expression, a JSON array of strings, or a Lark grammar.
        text: the rule itself.
    """

    kind: Literal["json", "regex", "choice", "lark"]
    text: str
