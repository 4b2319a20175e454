"""Raw HTTP against a server in a process of its own; every peer that does harm is printed with its seed.

``python tests/fuzz_http.py --requests 100000`` draws a name from the operating system; ``--replay SEED`` plays one peer
again and shows what it sends.
"""

import sys
from pathlib import Path

# The repository instead of this folder, whose `typing` would hide Python's.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

import argparse
import os
import secrets

import trio

from tests.fuzzing.campaign import campaign, guilty, seeds_of
from tests.fuzzing.scenarios import scenario

MOST_GROWTH = 8 * 2**20
"""Bytes that a server may grow by in the second half of a campaign."""


def show(found):
    for seed, batch in found.items():
        print(f"seed {seed}: python tests/fuzz_http.py --replay {seed!r} repeats it")
        for text in [*batch.complaints.values(), *batch.leaks]:
            print(f"    {text}")
        for text, count in batch.errors.items():
            print(f"    logged {count} times: {text}")


def replay(seed):
    seeds = seeds_of(seed)
    for peer in map(scenario, seeds):
        print(peer)
        for piece in peer.pieces:
            print(f"    {piece!r}")
    found = trio.run(guilty, seeds)
    show(found)
    return bool(found)


def attack(name, requests):
    print(f"name {name}")
    report = trio.run(campaign, name, requests)
    print(", ".join(f"{kind} {count}" for kind, count in sorted(report.kinds.items())))
    grown = report.slope * report.requests / 2
    rate, first, last = report.requests / report.seconds, report.rss[0][1] / 2**20, report.rss[-1][1] / 2**20
    print(f"{report.requests} peers in {report.seconds:.0f} s ({rate:.0f}/s): {len(report.guilty)} did harm")
    print(f"memory {first:.1f} to {last:.1f} MiB; in the second half {report.slope:.1f} bytes per peer")
    show(report.guilty)
    return bool(report.guilty) or grown > MOST_GROWTH


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--requests", type=int, default=100_000, help="how many peers (100000)")
    options.add_argument("--name", default=secrets.token_hex(4), help="what its seeds are made of")
    options.add_argument("--replay", metavar="SEED", help="play this one, or FIRST..LAST, again instead")
    chosen = options.parse_args()
    os.chdir(Path(__file__).parents[1])
    sys.exit(attack(chosen.name, chosen.requests) if chosen.replay is None else replay(chosen.replay))


if __name__ == "__main__":
    main()
