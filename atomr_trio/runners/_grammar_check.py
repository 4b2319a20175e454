"""Whether a grammar can be read: asked of a process that may come to harm."""

import json
import logging
import signal
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import trio
from attrs import define, field

import atomr_trio.grammar
from atomr_trio.core import Backpressure, BadRequest, Grammar, Internal, Unsupported
from atomr_trio.grammar import Rule, refusal, rule_of

__all__ = ["GrammarCheck"]

log: logging.Logger = logging.getLogger("atomr_trio.runners")

PATIENCE = 15.0
"""Seconds that a check may take. What it may compute is bounded by the program itself."""

KEPT = 256
"""How many verdicts are kept: most requests have a grammar that was there before."""

_PROGRAM = Path(atomr_trio.grammar.__file__).with_name("compiler.py")

# Its time is up, its stack is full, its memory is used up.
_HARMED = {-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT}

_Verdict = BadRequest | None


def _one_at_a_time() -> trio.CapacityLimiter:
    return trio.CapacityLimiter(1)


@define(eq=False)
class GrammarCheck:
    """Checks grammars one at a time, each in a process of its own, and remembers what came out.

    Args:
        special: names of the control tokens, which a grammar may name too.
        vocab_size: how many tokens there are.
    """

    _special: Mapping[int, str]
    _vocab_size: int
    _limiter: trio.CapacityLimiter = field(init=False, factory=_one_at_a_time)
    _verdicts: "OrderedDict[Grammar, _Verdict]" = field(init=False, factory=OrderedDict[Grammar, _Verdict])

    async def check(self, grammar: Grammar) -> None:
        """Return if answers can keep to it.

        Raises:
            BadRequest: it is wrong, too complex, or allows no answer; ``param`` is ``grammar``.
            Unsupported: the library that reads grammars is not installed.
            Backpressure: there was no time to find out.
        """
        if grammar not in self._verdicts:
            rule = rule_of(grammar)
            async with self._limiter:
                # Whoever had the place before may have asked the same.
                if grammar not in self._verdicts:
                    self._keep(grammar, await self._ask(rule))
        self._verdicts.move_to_end(grammar)
        verdict = self._verdicts[grammar]
        if verdict is not None:
            raise BadRequest(verdict.message, verdict.param)

    def _keep(self, grammar: Grammar, verdict: _Verdict) -> None:
        self._verdicts[grammar] = verdict
        if len(self._verdicts) > KEPT:
            self._verdicts.popitem(last=False)

    async def _ask(self, rule: Rule) -> _Verdict:
        if find_spec("llguidance") is None:
            raise Unsupported("structured output without llguidance", "jax")
        with trio.move_on_after(PATIENCE):
            return _verdict(await _run(self._question(rule)))
        raise Backpressure("there was no time to check the grammar")

    def _question(self, rule: Rule) -> bytes:
        question = {"kind": rule.kind, "text": rule.text, "special": self._special, "vocab_size": self._vocab_size}
        return json.dumps(question).encode()


async def _run(question: bytes) -> "subprocess.CompletedProcess[bytes]":
    return await trio.run_process(
        # Without `-P` the modules beside the program would hide others of their names.
        [sys.executable, "-P", str(_PROGRAM)],
        stdin=question,
        capture_stdout=True,
        stderr=subprocess.DEVNULL,
        check=False,
        # Ctrl-C in a terminal is for the server.
        start_new_session=True,
    )


def _verdict(done: "subprocess.CompletedProcess[bytes]") -> _Verdict:
    if done.returncode in _HARMED:
        return refusal("it is too complex")
    if done.returncode != 0 or not done.stdout:
        log.error("the check of a grammar ended with status %d", done.returncode)
        raise Internal("the grammar could not be checked")
    error = json.loads(done.stdout)["error"]
    return None if error is None else refusal(error)
