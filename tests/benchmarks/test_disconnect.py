"""How the disconnect benchmark counts; measuring itself takes a model and minutes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

COUNT = st.integers(0, 5000)


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    """The scripts import each other by their plain names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield


@given(kind=st.sampled_from(["streams", "whole"]), besides=COUNT, stayed=COUNT, left=COUNT, lost=COUNT, late=COUNT)
def test_every_token_that_was_made_is_somewhere(kind, besides, stayed, left, lost, late):
    from disconnect import Crowd, row_of

    read = left if kind == "streams" else 0
    crowd = Crowd(stayed=3, left=2, tokens_stayed=stayed, tokens_left=read)
    row = row_of(kind, besides, crowd, {"tokens_out": besides + stayed + read + lost, "tokens_late": late})
    assert row.made == row.delivered + row.with_them + row.late + row.unread
    # What is not streamed is lost with its client, and was not made for one that had left.
    assert row.for_nobody == (late + lost if kind == "streams" else late)


def test_the_last_line_of_the_server_is_found_among_others():
    from disconnect import counted

    lines = ["a warning", '{"event": "started"}', '{"event": "served", "tokens_late": 3}']
    assert counted(lines)["tokens_late"] == 3
