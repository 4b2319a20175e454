"""Many idle actors in a fresh process: memory of each, and how fast all of them start and stop. Prints one JSON object.

python benchmarks/_actors_idle.py 10000
"""

import gc
import json
import resource
import sys
from time import perf_counter

import trio

from atomr_trio.actor import Actor, ActorSystem, Props


def resident() -> int:
    """Bytes of memory in use; where the system does not say, the most that ever were."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def idle(count: int) -> dict[str, float]:
    tasks = living_tasks()
    async with ActorSystem.create("bench") as system:
        for number in range(100):  # what is only allocated once
            await system.actor_of(Props(factory=Actor[int]), f"first-{number}")
        gc.collect()
        before, started = resident(), perf_counter()
        for number in range(count):
            await system.actor_of(Props(factory=Actor[int]), str(number))
        start_s = perf_counter() - started
        gc.collect()
        grown = resident() - before
        started = perf_counter()
    return {
        "idle_actors": count,
        "bytes_per_actor": grown / count,
        "start_all_s": start_s,
        "stop_all_s": perf_counter() - started,
        "tasks_left": living_tasks() - tasks,
        "dead_letters": system.dead_letters.count,
    }


if __name__ == "__main__":
    print(json.dumps(trio.run(idle, int(sys.argv[1]))))
