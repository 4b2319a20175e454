"""A benchmark's report, for people and for programs."""

import os
import platform
from collections.abc import Sequence
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.table import Table

from ._bench_stats import LoadPoint, Spread, Summary

__all__ = ["Report", "load_name", "machine", "show"]

_PLAIN_WIDTH = 160
_PERCENTILES = "p50 / p90 / p99"


@frozen(kw_only=True)
class Report:
    """All that a run found.

    Args:
        target: what was measured, in a few words.
        prompt_tokens: asked for, of each prompt.
        shared_prefix: how many of them all prompts share.
        output_tokens: asked for, of each answer.
        seed: of the prompts and arrivals.
        bandwidth: of the memory, bytes a second; ``None``: not known, or of no use.
        rows: one for each load.
    """

    target: str
    prompt_tokens: int
    shared_prefix: int
    output_tokens: int
    seed: int
    bandwidth: float | None
    rows: Sequence[Summary]

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "machine": machine(),
            "target": self.target,
            "prompt_tokens": self.prompt_tokens,
            "shared_prefix": self.shared_prefix,
            "output_tokens": self.output_tokens,
            "seed": self.seed,
            "bandwidth_bytes_per_s": self.bandwidth,
            "rows": [row.to_dict() for row in self.rows],
        }


def machine() -> str:
    """Say in a line what this computer is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores, Python {platform.python_version()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next(line.partition(":")[2].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def show(report: Report, console: Console | None = None) -> None:
    """Print the table; where standard output is no terminal, without styles and as wide as it needs to be."""
    console = console or _console()
    for line in _heading(report):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(_table(report))
    for line in _notes(report):
        console.print(line, highlight=False, soft_wrap=True)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def _heading(report: Report) -> list[str]:
    shared = f", {report.shared_prefix} of them shared" if report.shared_prefix else ""
    lengths = f"prompts of {report.prompt_tokens} tokens{shared}, answers of {report.output_tokens}, seed {report.seed}"
    copied = "" if report.bandwidth is None else f", memory copied at {report.bandwidth / 1e9:.1f} GB/s"
    return [machine() + copied, report.target, lengths, ""]


def _table(report: Report) -> Table:
    table = Table("load", "requests", "out tok/s", "all tok/s", box=None, padding=(0, 1))
    for name in ("TTFT", "TPOT", "ITL"):
        table.add_column(f"{name} ms\n{_PERCENTILES}")
    with_goals = any(row.goodput_per_s is not None for row in report.rows)
    with_roofline = any(row.roofline is not None for row in report.rows)
    if with_goals:
        table.add_column("goodput\nper s")
    if with_roofline:
        table.add_column("of the\nroofline")
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for row in report.rows:
        cells = _cells(row) + [_number(row.goodput_per_s, ".2f")] * with_goals
        table.add_row(*cells, *[_number(row.roofline, ".0%")] * with_roofline)
    return table


def _cells(row: Summary) -> list[str]:
    return [
        load_name(row.load),
        f"{row.requests}" + (f" (+{row.failed} failed)" if row.failed else ""),
        f"{row.output_tokens_per_s:.1f}",
        f"{row.total_tokens_per_s:.1f}",
        *(_spread(spread) for spread in (row.ttft_ms, row.tpot_ms, row.itl_ms)),
    ]


def load_name(load: LoadPoint) -> str:
    """Return it in words."""
    if load.kind == "rate":
        return f"{load.value:g} requests/s"
    return f"{load.value:g} stream{'s' if load.value > 1 else ''}"


def _spread(spread: Spread | None) -> str:
    return "-" if spread is None else " / ".join(_milliseconds(value) for value in (spread.p50, spread.p90, spread.p99))


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _number(value: float | None, kind: str) -> str:
    return "-" if value is None else format(value, kind)


def _notes(report: Report) -> list[str]:
    """What a reader must know to read the table right."""
    rows = [row for row in report.rows if row.requests]
    notes: list[str] = []
    if not all(row.exact for row in rows):
        notes.append("The server reports no usage: each chunk was counted as one token.")
    merged = max((row.tokens_per_chunk for row in rows), default=0.0)
    if merged > 1.05:
        notes.append(f"Chunks carry up to {merged:.1f} tokens on average: read TPOT, not ITL.")
    short = [row for row in rows if row.output_tokens < report.output_tokens * row.requests]
    if short:
        notes.append("Some answers ended before they were as long as asked for.")
    cached = sum(row.cached_tokens for row in rows)
    if cached:
        share = cached / max(1, sum(row.prompt_tokens for row in rows))
        notes.append(f"{share:.0%} of the prompt tokens were found in the prefix cache.")
    return notes
