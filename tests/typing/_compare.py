"""Compares a report of pyright with the marks in the sources."""

import re
from pathlib import PurePath
from typing import Any

MARK = re.compile(r"# error: (\w+)\s*$")
Place = tuple[str, int, str]


def differences(sources: dict[str, str], report: dict[str, Any]) -> list[str]:
    """Say what was reported and not expected, or expected and not reported: one line each, in order.

    Args:
        sources: the fixtures' text by the path that the report calls them by.
        report: what `pyright --outputjson` prints.
    """
    checked = report["summary"]["filesAnalyzed"]
    if checked < len(sources):
        return [f"pyright looked at {checked} files of {len(sources)}"]
    expected = {place for path, source in sources.items() for place in _marked(path, source)}
    reported = {_place(diagnostic): diagnostic["message"] for diagnostic in report["generalDiagnostics"]}
    missing = dict.fromkeys(expected - reported.keys(), "expected, but pyright accepts it")
    surplus = {place: message for place, message in reported.items() if place not in expected}
    return [_line(place, text) for place, text in sorted({**missing, **surplus}.items())]


def _marked(path: str, source: str) -> list[Place]:
    marks = enumerate(map(MARK.search, source.splitlines()), start=1)
    return [(path, number, mark[1]) for number, mark in marks if mark is not None]


def _place(diagnostic: dict[str, Any]) -> Place:
    return diagnostic["file"], diagnostic["range"]["start"]["line"] + 1, diagnostic.get("rule", "syntax")


def _line(place: Place, text: str) -> str:
    path, number, rule = place
    return f"{PurePath(path).name}:{number}: {rule}: {text}"
