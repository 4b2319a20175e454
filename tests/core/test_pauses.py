"""What the collector does to a process that serves; in a process of its own, for it is the process's collector."""

import subprocess
import sys

PROGRAM = """
import gc, sys, weakref
from atomr_trio.core import shorten_pauses

if sys.argv[1] == "short":
    shorten_pauses()
full = []
gc.callbacks.append(lambda phase, info: full.append(info) if phase == "stop" and info["generation"] == 2 else None)
kept = [[number] for number in range(300_000)]

class Knot:
    def __init__(self):
        self.me = self

tied = [weakref.ref(Knot()) for _ in range(20_000)]
print(len(full), gc.get_freeze_count() > 1000, sum(knot() is not None for knot in tied) < 6000)
"""


def ran(how):
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    full, frozen, untied = done.stdout.split()
    return int(full), frozen == "True", untied == "True"


def test_no_stream_waits_for_a_full_collection_and_cycles_are_freed_all_the_same():
    full, frozen, untied = ran("as usual")
    assert full > 0
    assert (frozen, untied) == (False, True)
    assert ran("short") == (0, True, True)
