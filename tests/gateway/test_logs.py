"""The default log, and what Hypercorn says through it."""

import json

import trio

from atomr_trio.gateway import ServerSettings, stderr_log
from atomr_trio.gateway.server import hypercorn_config

from .harness import capturing_log


def test_the_default_log_writes_json_lines_to_standard_error(capsys):
    log = stderr_log()
    log.info("request", path="/x")
    log.debug("nothing")
    try:
        raise ValueError("why")
    except ValueError as error:
        log.error("failed", exc_info=error)
    captured = capsys.readouterr()
    first, second = map(json.loads, captured.err.splitlines())
    assert captured.out == ""
    assert (first["event"], first["path"], first["level"]) == ("request", "/x", "info")
    assert "ValueError: why" in second["exception"]


async def test_hypercorn_speaks_through_the_gateways_log():
    log, entries = capturing_log()
    spoken = hypercorn_config(ServerSettings(), log).log
    await spoken.critical("%s failed", "it")
    await spoken.error("a")
    await spoken.warning("b")
    try:
        raise ValueError
    except ValueError:
        await spoken.exception("c")
    await spoken.info("not this")
    assert [(entry["event"], entry["log_level"]) for entry in entries] == [
        ("it failed", "critical"),
        ("a", "error"),
        ("b", "warning"),
        ("c", "error"),
    ]
    await trio.lowlevel.checkpoint()
