"""Structured output: grammars from requests into rules, and rules into masks over a model's tokens.

Importing this room costs nothing: the library that reads grammars is loaded where one is used.
"""

from .rules import Rule as Rule
from .rules import refusal as refusal
from .rules import rule_of as rule_of
