"""The table for people."""

from typing import Any

from _actors_scenarios import BYTES_PER_ACTOR, FIGURES, Figure
from rich.console import Console
from rich.table import Table


def table(results: dict[str, Any]) -> None:
    console = Console(width=140)
    about = "{cpu}, {cores} cores, load {load}, Python {python}, trio {trio}".format_map(results)
    console.print(about, "{command}   (medians of {rounds} rounds, {clock} clock)\n".format_map(results), sep="\n")
    grid = Table("", "atomr_trio", "best", "trio", "of its speed", "target", "holds", "pykka", "atomr", "", box=None)
    for column in grid.columns[1:-1]:
        column.justify = "right"
    for figure in FIGURES:
        if figure.key in results:
            grid.add_row(*row(figure, results))
    if "bytes_per_actor" in results:
        grid.add_row(*idle_row(results))
    console.print(grid)
    if results["clock"] == "cpu" and "pykka_version" in results:
        console.print("\npykka and atomr: by the wall clock")
    if "start_all_s" in results:
        said = "{idle_actors} idle actors: started in {start_all_s:.2f} s, stopped in {stop_all_s:.2f} s, "
        console.print("\n" + (said + "{tasks_left} tasks left, {dead_letters} dead letters").format_map(results))


def row(figure: Figure, results: dict[str, Any]) -> list[str]:
    ratio = results.get(f"{figure.key}_of_floor")
    return [
        figure.title,
        number(results[figure.key]),
        number(results[f"{figure.key}_best"]),
        number(results.get(figure.floor_key)),
        "" if ratio is None else f"{ratio:.2f}x",
        target(figure),
        verdict(results.get(f"{figure.key}_holds")),
        *others(figure.key, results),
        "per s" if figure.per_second else "us",
    ]


def idle_row(results: dict[str, Any]) -> list[str]:
    key = "bytes_per_actor"
    good = verdict(results[f"{key}_holds"])
    limit = f"<= {number(BYTES_PER_ACTOR)}"
    return ["idle actor", number(results[key]), "", "", "", limit, good, *others(key, results), "bytes"]


def target(figure: Figure) -> str:
    sign = ">=" if figure.per_second else "<="
    limit = [] if figure.limit is None else [f"{sign} {number(figure.limit)}"]
    return ", ".join(limit + ([] if figure.share is None else [f">= {figure.share}x"]))


def others(key: str, results: dict[str, Any]) -> list[str]:
    return [other(name, key, results) for name in ("pykka", "atomr")]


def other(name: str, key: str, results: dict[str, Any]) -> str:
    if f"{name}_version" not in results:
        return ""
    if results[f"{name}_version"] is None:
        return "not installed"
    if (name, key) == ("pykka", "restart_us"):
        return "has none"
    return number(results.get(f"{name}_{key}"))


def number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def verdict(held: bool | None) -> str:
    return "" if held is None else "yes" if held else "NO"
