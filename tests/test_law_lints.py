"""The laws of docs/laws.md that the source itself can be asked about, and proof that each question finds its fault."""

import ast
from pathlib import Path
from textwrap import indent

import pytest

import atomr_trio

from . import law_lints as lints

PACKAGE = Path(atomr_trio.__file__).parent
MODULES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}

OTHER_CLOCKS = {
    # How long one step held the loop is the machine's time, whatever clock drives the system.
    "actor/_steps.py": {"time.perf_counter"},
    # The engine process knows no Trio (law 7).
    "engine/engine.py": {"time.perf_counter"},
    "engine/service.py": {"time.monotonic"},
    # What is measured is the machine: how fast it multiplies, and how fast it copies.
    "engine/linear_tuning.py": {"time.perf_counter"},
    "cli/_bench_copy.py": {"time.perf_counter"},
    # Compared with the times of files.
    "engine/program_cache.py": {"time.time"},
    # Dates for people and for HTTP; those that decide something take the clock as an argument.
    "gateway/app.py": {"time.time"},
    "gateway/errors.py": {"time.time"},
    "gateway/key_store.py": {"time.time"},
    "cli/_keys.py": {"datetime.now"},
    "runtime/deployments.py": {"time.time"},
    "text/template.py": {"datetime.now"},
}


def findings(check, folder=""):
    named = ((path.relative_to(PACKAGE).as_posix(), tree) for path, tree in MODULES.items())
    found = ((name, finding) for name, tree in named if name.startswith(folder) for finding in check(tree))
    return [f"{name}:{finding.line}: {finding.text}" for name, finding in found]


@pytest.mark.parametrize(
    "check",
    [
        lints.swallows_cancelled,
        lints.unshielded_clean_up,
        lints.unbounded_channels,
        lints.cancels_without_reason,
    ],
)
def test_the_package_keeps_the_law(check):
    assert findings(check) == []


def test_no_clock_is_read_but_trios_and_those_that_are_listed():
    used: dict[str, set[str]] = {}
    for path, tree in MODULES.items():
        for finding in lints.foreign_clocks(tree):
            used.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(finding.text)
    assert used == OTHER_CLOCKS


def test_the_actor_core_shares_nothing_behind_the_trees_back():
    assert findings(lints.mutable_globals, "actor/") == []


def after(clause, body):
    """A `try` whose last clause is this one."""
    return f"try:\n    f()\n{clause}\n{indent(body, '    ')}"


def clean_up(clause, body):
    """The same in an async function."""
    return f"async def f():\n{indent(after(clause, body), '    ')}"


BAD: dict[lints.Check, list[str]] = {
    lints.swallows_cancelled: [
        after("except:", "pass"),
        after("except BaseException:", "log()"),
        after("except trio.Cancelled:", "pass"),
        after("except (ValueError, Cancelled):", "pass"),
        after("except* trio.Cancelled:", "pass"),
        after("except BaseExceptionGroup as group:", "if known(group):\n    raise"),
        after("except BaseException as error:", "raise ValueError('another one')"),
        after("except BaseException as error:", "with trio.CancelScope():\n    raise"),
        after("except BaseException:", "try:\n    raise\nexcept BaseException:\n    pass"),
        after("except BaseException:", "if late():\n    return\nraise"),
        after("except BaseException:", "if late():\n    continue\nraise"),
        "def g():\n    try:\n        f()\n    finally:\n        return 1",
        "for x in y:\n    try:\n        f()\n    finally:\n        break",
        "with suppress(trio.Cancelled):\n    f()",
        "with contextlib.suppress(ValueError, BaseException):\n    f()",
        after("except BaseException:", "match x:\n    case 1:\n        raise"),
    ],
    lints.unshielded_clean_up: [
        clean_up("finally:", "await g()"),
        clean_up("finally:", "async with g():\n    pass"),
        clean_up("finally:", "async for _ in g():\n    pass"),
        clean_up("finally:", "x = [y async for y in g()]"),
        clean_up("finally:", "with trio.CancelScope():\n    await g()"),
        clean_up("finally:", "with trio.move_on_after(1, shield=False):\n    await g()"),
        clean_up("finally:", "if x:\n    await g()"),
        clean_up("except trio.Cancelled:", "await g()\nraise"),
        clean_up("except BaseException:", "await g()\nraise"),
        "async def g():\n    h()\n    with trio.CancelScope(shield=True):\n        await h()\n"
        + clean_up("finally:", "await g()"),
    ],
    lints.unbounded_channels: [
        "trio.open_memory_channel(math.inf)",
        "trio.open_memory_channel[int](math.inf)",
        "open_memory_channel(max_buffer_size=inf)",
        "trio.open_memory_channel(float('inf'))",
        "trio.open_memory_channel(math.inf if x else 1)",
        "trio.open_memory_channel(sys.maxsize)",
    ],
    lints.cancels_without_reason: [
        "scope.cancel()",
        "nursery.cancel_scope.cancel()",
        "self._scope.cancel('positional is not reason')",
        "scope.cancel(reason='')",
        "scope.cancel(reason=None)",
        "with trio.CancelScope() as around:\n    around.cancel()",
        "with trio.move_on_after(1) as self._patience:\n    self._patience.cancel()",
        "self._waiting: trio.CancelScope | None = None\nself._waiting.cancel()",
        "def stop(around: trio.CancelScope):\n    around.cancel()",
    ],
    lints.foreign_clocks: [
        "time.sleep(1)",
        "now = time.time()",
        "from time import time",
        "from time import monotonic as clock",
        "datetime.datetime.now()",
        "datetime.now(tz)",
        "field(default=time.time)",
    ],
    lints.mutable_globals: [
        "cache = {}",
        "cache: dict[str, int] = {}",
        "queue = collections.deque()",
        "queue = deque[int](maxlen=3)",
        "seen = set()",
        "names = [n for n in x]",
        "ids = itertools.count()",
        "refs = weakref.WeakValueDictionary()",
        "class A:\n    shared = []",
        "n = 0\ndef f():\n    global n\n    n += 1",
    ],
}

GOOD: dict[lints.Check, list[str]] = {
    lints.swallows_cancelled: [
        after("except Exception:", "pass"),
        after("except* ValueError:", "pass"),
        after("except BaseException:", "log()\nraise"),
        after("except BaseExceptionGroup as group:", "raise purified(group) from None"),
        after("except BaseException as error:", "if a:\n    raise\nelse:\n    raise error"),
        after("except BaseException:", "with shielded():\n    g()\nraise"),
        after("except BaseException:", "try:\n    g()\nfinally:\n    raise"),
        after("except BaseException:", "for x in y:\n    if x:\n        break\nraise"),
        after("except BaseException:", "def g():\n    return 1\nraise"),
        after("except BaseException as e:", "match x:\n    case 1:\n        raise\n    case _:\n        raise e"),
        "def g():\n    try:\n        return f()\n    finally:\n        h()",
        "with suppress(ValueError):\n    f()",
    ],
    lints.unshielded_clean_up: [
        "async def f():\n    try:\n        await g()\n    finally:\n        h()",
        clean_up("finally:", "with trio.CancelScope(shield=True):\n    await g()"),
        clean_up("finally:", "with trio.move_on_after(1, shield=True) as scope:\n    await g()"),
        clean_up("except BaseException:", "with trio.fail_after(1, shield=True):\n    await g()\nraise"),
        clean_up("except ValueError:", "await g()"),
        clean_up("finally:", "await trio.aclose_forcefully(x)"),
        clean_up("finally:", "async def g():\n    await h()"),
        "async def close():\n    '''Close.'''\n    with trio.CancelScope(shield=True):\n        await h()\n"
        + clean_up("finally:", "await x.close()"),
    ],
    lints.unbounded_channels: [
        "trio.open_memory_channel[int](capacity)",
        "trio.open_memory_channel(0)",
        "x = math.inf",
    ],
    lints.cancels_without_reason: [
        "scope.cancel(reason='a sibling failed')",
        "nursery.cancel_scope.cancel(reason=f'{path}: stopped')",
        "timers.cancel(key)",
        "with trio.CancelScope() as around:\n    around.cancel(reason='over')",
    ],
    lints.foreign_clocks: [
        "await trio.sleep(1)",
        "now = trio.current_time()",
        "import time",
        "x = datetime.fromtimestamp(0)",
        "self.time()",
        "from time import struct_time",
    ],
    lints.mutable_globals: [
        "__all__ = ['a']",
        "class A:\n    __slots__ = ['a']",
        "KINDS = ('a', 'b')",
        "KINDS = frozenset({'a'})",
        "table: Mapping[str, int] = {'a': 1}",
        "log = logging.getLogger('a')",
        "def f():\n    own = []",
        "@define\nclass A:\n    times: deque[float] = field(factory=deque)",
    ],
}


def cases(snippets):
    numbered = [(check, n, code) for check, codes in snippets.items() for n, code in enumerate(codes)]
    return [pytest.param(check, code, id=f"{check.__name__}-{n}") for check, n, code in numbered]


@pytest.mark.parametrize(("check", "code"), cases(BAD))
def test_a_fault_is_found(check, code):
    assert check(ast.parse(code))


@pytest.mark.parametrize(("check", "code"), cases(GOOD))
def test_what_is_right_is_left_alone(check, code):
    assert check(ast.parse(code)) == []
