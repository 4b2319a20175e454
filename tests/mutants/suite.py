"""Running the property suite against a copy of the package, in a process of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve, frozen

from .fault import ACTOR, Fault

__all__ = ["CHECKOUT", "Limits", "Outcome", "Suite", "snapshot"]

CHECKOUT = Path(__file__).resolve().parents[2]
# What the property suite imports, and nothing that it does not: the other rooms' tests have no say here.
COPIED = ("atomr_trio", "tests/properties", "tests/actor", "tests/mutants", "tests/__init__.py", "tests/conftest.py")
PYTEST = (
    *("-m", "pytest", "tests/properties", "-x", "-q", "--tb=short", "--no-header", "--color=no"),
    *("-p", "no:cacheprovider", "-p", "tests.mutants.plugin", "-o", "faulthandler_timeout=0"),
    "--hypothesis-profile=mutants",
)
SEEDS = (1, 2, 3)
"""A fault may need a rare history: the tests that it names draw with each of these, the whole suite with the first."""


@frozen
class Limits:
    """How long a run may take, in seconds: one run of Trio, and the whole suite."""

    trio_run: float = 120.0
    suite: float = 3600.0


@frozen
class Outcome:
    """How a run of the suite ended.

    Args:
        verdict: ``green``, ``failed``, ``timeout`` (something hung) or ``broken`` (no test was to blame).
        test: the first test that failed or hung.
        seconds: how long the run took.
        slowest: seconds of the longest run of Trio in it.
        output: what pytest printed.
    """

    verdict: str
    test: str
    seconds: float
    slowest: float
    output: str

    @property
    def caught(self) -> bool:
        """Whether a test noticed."""
        return self.verdict in ("failed", "timeout")


def _ignored(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__" or name.endswith(".pyc")]


@contextlib.contextmanager
def snapshot() -> Iterator[Path]:
    """Copy what is tested to a temporary folder: the checkout may change while the faults are planted."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder)
        shutil.copy(CHECKOUT / "pyproject.toml", root)
        for name in COPIED:
            source, target = CHECKOUT / name, root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=_ignored)
            else:
                shutil.copy(source, target)
        yield root


@frozen
class Suite:
    """The property suite over a snapshot.

    Args:
        root: the snapshot.
        limits: how long a run may take.
        near: run only the tests that a fault names.
    """

    root: Path
    limits: Limits = Limits()
    near: bool = False

    def run(self, fault: Fault | None = None) -> Outcome:
        """Run it with a fault planted or without: first the tests that the fault names, then all of them."""
        outcome, spent = None, 0.0
        for seed in SEEDS if fault is not None and fault.first else ():
            outcome = self._run_once(fault, seed, near=True)
            spent += outcome.seconds
            if outcome.verdict != "green":
                break
        if outcome is None or (outcome.verdict == "green" and not self.near):
            outcome = self._run_once(fault, SEEDS[0], near=False)
            spent += outcome.seconds
        return evolve(outcome, seconds=spent)

    def _run_once(self, fault: Fault | None, seed: int, *, near: bool) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            copy = Path(folder) / "copy"
            shutil.copytree(self.root, copy, ignore=_ignored)
            if fault is not None:
                fault.plant(copy)
            first = fault.first if fault is not None else ()
            return self._run(copy, Path(folder) / "journal", first, seed, near=near)

    def is_what_is_tested(self) -> bool:
        """Whether a package that cannot be imported is noticed: the copy runs, not the checkout."""
        name = "__init__.py"
        text = (self.root / ACTOR / name).read_text()
        return self.run(Fault("canary", name, "", text, "raise SystemError('canary')\n" + text)).verdict == "broken"

    def _run(self, copy: Path, journal: Path, first: tuple[str, ...], seed: int, *, near: bool) -> Outcome:
        journal.touch()
        environment = {
            **os.environ,
            "PYTHONPATH": str(copy),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MUTANTS_JOURNAL": str(journal),
            "MUTANTS_LIMIT": str(self.limits.trio_run),
            "MUTANTS_FIRST": ",".join(first),
            "MUTANTS_NEAR": "1" if near else "",
        }
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, *PYTEST, f"--hypothesis-seed={seed}"],
            cwd=copy,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=self.limits.suite)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
        return _outcome(process.returncode, journal.read_text(), time.monotonic() - began, output)


def _outcome(status: int, journal: str, seconds: float, output: str) -> Outcome:
    notes = [line.split(" ", 1) for line in journal.splitlines()]
    failed = [what for kind, what in notes if kind == "fail"]
    started = [what for kind, what in notes if kind == "start"]
    ended = [what for kind, what in notes if kind == "slowest"]
    slowest = float(ended[0]) if ended else 0.0
    if failed:
        return Outcome("failed", failed[0], seconds, slowest, output)
    if started and not ended:
        return Outcome("timeout", started[-1], seconds, slowest, output)
    return Outcome("green" if status == 0 and started else "broken", "", seconds, slowest, output)
