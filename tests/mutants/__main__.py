"""``python -m tests.mutants``: plant every fault in turn and see whether the property suite notices.

The last line is ``caught N/M``; the exit status is 1 if less than 95 % were caught.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

from .fault import Fault
from .faults import FAULTS
from .suite import Limits, Outcome, Suite, snapshot

REQUIRED = 0.95


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", help="plant this fault only; may be repeated")
    parser.add_argument("--file", metavar="FILE", help="plant the faults of this module only, for example _watch.py")
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="how many at once (default: 2)")
    parser.add_argument("--list", action="store_true", help="say which faults there are, and plant none")
    parser.add_argument("--survivors", action="store_true", help="print only the faults that nothing noticed")
    parser.add_argument("--trusting", action="store_true", help="leave out the runs that prove the harness itself")
    parser.add_argument("--near", action="store_true", help="run only the tests that a fault names: a quick look")
    parser.add_argument("--verbose", action="store_true", help="print what pytest said of each fault")
    return parser.parse_args()


def _chosen(arguments: argparse.Namespace) -> list[Fault]:
    unknown = set(arguments.only or ()) - {fault.name for fault in FAULTS}
    if unknown:
        sys.exit(f"there is no fault {', '.join(sorted(unknown))}")
    return [
        fault
        for fault in FAULTS
        if (not arguments.only or fault.name in arguments.only) and arguments.file in (None, fault.file)
    ]


def _limits(suite: Suite) -> Limits:
    """Prove that the suite is green without a fault and that the copy is what is tested; return the time limits."""
    green = suite.run()
    if green.verdict != "green":
        sys.exit(f"{green.output}\nthe suite is not green without a fault ({green.verdict} {green.test})")
    if not suite.is_what_is_tested():
        sys.exit("the suite does not test the copy")
    print(f"green without a fault in {green.seconds:.0f} s; the longest run of Trio took {green.slowest:.1f} s")
    return Limits(trio_run=max(10.0, 5 * green.slowest), suite=30 + 3 * green.seconds)


def _say(fault: Fault, outcome: Outcome) -> None:
    if outcome.caught:
        verdict = f"caught by {outcome.test.removeprefix('tests/properties/')}"
        verdict += " (timeout)" if outcome.verdict == "timeout" else ""
    elif outcome.verdict == "broken":
        verdict = "BROKEN: the fault keeps the suite from running"
    elif fault.explained is not None:
        verdict = f"explained survivor: {fault.explained}"
    else:
        verdict = "SURVIVED"
    print(f"{outcome.seconds:6.1f}s  {fault.file:<16} {fault.name:<40} {fault.simulates}; {verdict}", flush=True)


def _plant_all(suite: Suite, faults: list[Fault], arguments: argparse.Namespace) -> int:
    caught = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {pool.submit(suite.run, fault): fault for fault in faults}
        for run in as_completed(runs):
            outcome = run.result()
            caught += outcome.caught
            if not (arguments.survivors and outcome.caught):
                _say(runs[run], outcome)
                if arguments.verbose:
                    print(outcome.output)
    return caught


def main() -> int:
    """Run the command."""
    arguments = _arguments()
    faults = _chosen(arguments)
    if arguments.list:
        for fault in faults:
            print(f"{fault.file:<16} {fault.name:<40} {fault.simulates}")
        return 0
    with snapshot() as root:
        limits = Limits(trio_run=20.0, suite=600.0) if arguments.trusting else _limits(Suite(root))
        caught = _plant_all(Suite(root, limits, arguments.near), faults, arguments)
    print(f"caught {caught}/{len(faults)}")
    return 0 if caught >= REQUIRED * len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
