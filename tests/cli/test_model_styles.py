"""The styles that the command line offers are those that there are."""

from typing import get_args

import click
from click.testing import CliRunner

from atomr_trio.cli._model import POOLINGS, THOUGHT_STYLES, TOOL_STYLES, ModelOptions, model_options
from atomr_trio.engine.settings import Pooling
from atomr_trio.text import THOUGHTS, ThoughtStyle, ToolStyle
from atomr_trio.text.calls import FORMS


def test_the_names_agree():
    assert get_args(ToolStyle) == TOOL_STYLES
    assert get_args(ThoughtStyle) == THOUGHT_STYLES
    assert get_args(Pooling) == POOLINGS[1:]
    assert set(TOOL_STYLES) == {"auto", "none", *FORMS}
    assert set(THOUGHT_STYLES) == {"auto", "none", *THOUGHTS}


def test_they_reach_the_deployment():
    made = []

    @click.command()
    @model_options
    def command(**options):
        made.append(ModelOptions(**options).deployment().runtime_config)

    result = CliRunner().invoke(command, ["m", "--tool-style", "hermes", "--thought-style", "none"])
    assert result.exit_code == 0
    assert (made[0]["tool_style"], made[0]["thought_style"]) == ("hermes", "none")
    assert CliRunner().invoke(command, ["m", "--tool-style", "xml"]).exit_code == 2
