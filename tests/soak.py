"""Fresh simulations for as long as asked; every violated law is printed with its seed.

``python tests/soak.py --seconds 600`` draws seeds from the operating system; ``--seed N`` lives through one again, and
``--history`` prints all that happened in it.
"""

import sys
from pathlib import Path

# The repository instead of this folder, whose `typing` would hide Python's.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

import argparse
import secrets
import time

from atomr_trio.testing import violations
from tests.properties.simulation import simulate

MOST_FAILURES = 5


def examine(seed):
    """Return what is wrong with one seed, and its history; a crash of the whole simulation is one violation."""
    try:
        history = simulate(seed)
    except Exception as error:
        return [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())], ()
    return [str(violation) for violation in violations(history)], history


def report(seed, found):
    print(f"seed {seed}: {len(found)} violations; python tests/soak.py --seed {seed} repeats them")
    for text in found[:10]:
        print(f"    {text}")
    sys.stdout.flush()


def repeat(seed, verbose):
    found, history = examine(seed)
    for entry in history if verbose else ():
        print(f"{entry.n:5} {entry.at:9.4f} {entry.what}")
    report(seed, found)
    return bool(found)


def soak(seconds):
    began, done, events, failures = time.monotonic(), 0, 0, 0
    while time.monotonic() - began < seconds and failures < MOST_FAILURES:
        seed = secrets.randbits(48)
        found, history = examine(seed)
        done, events = done + 1, events + len(history)
        if found:
            failures += 1
            report(seed, found)
        if done % 100 == 0:
            took = time.monotonic() - began
            print(f"{done} simulations, {events} events, {failures} failures, {took:.0f}s", flush=True)
    print(f"{done} simulations, {failures} with violated laws")
    return failures > 0


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=600.0, help="how long (600)")
    options.add_argument("--seed", type=int, help="repeat this one instead")
    options.add_argument("--history", action="store_true", help="print every event of it")
    chosen = options.parse_args()
    sys.exit(soak(chosen.seconds) if chosen.seed is None else repeat(chosen.seed, chosen.history))


if __name__ == "__main__":
    main()
