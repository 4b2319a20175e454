"""What is measured: each figure with its floor, its target and how many operations make one measurement."""

from collections.abc import Awaitable, Callable

import _actors_floor as floor
import _actors_ours as ours
from attrs import frozen

BYTES_PER_ACTOR = 10 * 1024
"""At most so many for an idle one."""

Scenario = Callable[[int], Awaitable[float]]


@frozen
class Figure:
    """One row.

    Args:
        key: its name in the JSON object.
        title: its name in the table.
        ours: the scenario with actors.
        floor: the same with Trio alone, measured before it in each round; `None`: it has none.
        floor_key: the floor's name in the JSON object.
        count: operations in one measurement.
        per_second: shown as a rate; otherwise as microseconds for one operation.
        limit: the target: at least this rate, or at most these microseconds.
        share: the target: at least this share of the floor's speed.
    """

    key: str
    title: str
    ours: Scenario
    floor: Scenario | None
    floor_key: str
    count: int
    per_second: bool = False
    limit: float | None = None
    share: float | None = None


FIGURES = (
    Figure(
        "tells_per_s",
        "drained tells",
        ours.tells,
        floor.tells,
        "raw_tells_per_s",
        20_000,
        per_second=True,
        limit=500_000,
        share=0.5,
    ),
    Figure("ask_us", "ask, one client", ours.asks, floor.ping_pong, "raw_pingpong_us", 1_000, share=0.5),
    Figure("fan_in_ask_us", "ask, 200 clients", ours.fan_in, None, "", 4_000),
    Figure("spawn_us", "spawn", ours.spawns, floor.starts, "raw_spawn_us", 150, limit=250),
    Figure("child_spawn_us", "ctx.spawn", ours.child_spawns, None, "", 150),
    Figure("restart_us", "restart", ours.restarts, floor.restarts, "raw_restart_us", 150, limit=250),
)
