"""The laws that can be read off the source: each check takes a module's tree and returns what breaks its law."""

import ast
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet

from attrs import frozen

Functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@frozen(order=True)
class Finding:
    line: int
    text: str


Check = Callable[[ast.Module], list[Finding]]


def name_of(node: ast.AST | None) -> str:
    """Return the dotted name that an expression spells, as far as it does: `trio.CancelScope`, `.cancel`, or ``."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return ""


def last_name(node: ast.AST | None) -> str:
    return name_of(node).rpartition(".")[2]


# (a) Cancelled always propagates.

CATCHES_CANCELLED = frozenset({"BaseException", "BaseExceptionGroup", "Cancelled"})


def catches_cancelled(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return handler.type is None or any(last_name(kind) in CATCHES_CANCELLED for kind in kinds)


def swallows_cancelled(tree: ast.Module) -> list[Finding]:
    """A handler that catches `Cancelled` raises it again on every path; a `finally` never leaves by itself."""
    findings: list[Finding] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and catches_cancelled(node):
            if leaves(node.body) or not reraises(node.body, node.name):
                findings.append(Finding(node.lineno, "catches Cancelled and does not raise it on every path"))
        elif isinstance(node, ast.Try | ast.TryStar) and leaves(node.finalbody):
            findings.append(Finding(node.finalbody[0].lineno, "a finally that returns, breaks or continues"))
        elif isinstance(node, ast.Call) and last_name(node.func) == "suppress":
            kinds = {last_name(kind) for kind in node.args}
            findings.extend([Finding(node.lineno, "suppresses Cancelled")] if kinds & CATCHES_CANCELLED else [])
    return findings


def leaves(body: Iterable[ast.AST], *, in_loop: bool = False) -> bool:
    """Whether the statements may return, or break out of a loop around them."""
    for node in body:
        if isinstance(node, ast.Return) or (isinstance(node, ast.Break | ast.Continue) and not in_loop):
            return True
        if isinstance(node, Functions):
            continue
        looping = in_loop or isinstance(node, ast.For | ast.AsyncFor | ast.While)
        if leaves(ast.iter_child_nodes(node), in_loop=looping):
            return True
    return False


def reraises(body: list[ast.stmt], caught: str | None) -> bool:
    """Whether the end of the statements is only reached by raising what was caught, or something made of it."""
    return any(reraises_itself(statement, caught) for statement in body)


def reraises_itself(statement: ast.stmt, caught: str | None) -> bool:
    match statement:
        case ast.Raise(exc=None):
            return True
        case ast.Raise(exc=error):
            return any(isinstance(node, ast.Name) and node.id == caught for node in ast.walk(error))
        case ast.If(body=then, orelse=otherwise):
            return reraises(then, caught) and reraises(otherwise, caught)
        case ast.With(body=inner, items=items) | ast.AsyncWith(body=inner, items=items):
            return reraises(inner, caught) and not any(may_swallow(item.context_expr) for item in items)
        case ast.Try(body=inner, handlers=handlers, finalbody=last):
            return reraises(last, caught) or (not handlers and reraises(inner, caught))
        case ast.Match(cases=cases):
            complete = isinstance(cases[-1].pattern, ast.MatchAs) and cases[-1].guard is None
            return complete and all(reraises(case.body, caught) for case in cases)
        case _:
            return False


def may_swallow(context: ast.expr) -> bool:
    function = context.func if isinstance(context, ast.Call) else context
    return last_name(function) in {"suppress", "CancelScope", "move_on_after", "move_on_at"}


# (b) Clean-up is shielded.

UNCANCELLED = frozenset({"aclose_forcefully", "cancel_shielded_checkpoint"})
"""Functions that need no shield: they never wait."""


def unshielded_clean_up(tree: ast.Module) -> list[Finding]:
    """Whatever waits in a `finally`, or where `Cancelled` was caught, does so under a shield."""
    harmless = UNCANCELLED | set(shielded_functions(tree))
    findings: set[Finding] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try | ast.TryStar):
            bodies = [node.finalbody, *(handler.body for handler in node.handlers if catches_cancelled(handler))]
            lines = unshielded([statement for body in bodies for statement in body], harmless)
            findings.update(Finding(line, "waits in clean-up without a shield") for line in lines)
    return sorted(findings)


def shielded_functions(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the functions that are one shielded block, but for their docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef):
            last = node.body[-1]
            alone = len(node.body) == 1 + (ast.get_docstring(node) is not None)
            if alone and isinstance(last, ast.With) and any(map(shields, last.items)):
                yield node.name


def unshielded(nodes: Iterable[ast.AST], harmless: AbstractSet[str]) -> Iterator[int]:
    for node in nodes:
        if isinstance(node, Functions) or (isinstance(node, ast.With) and any(map(shields, node.items))):
            continue
        if waits(node, harmless):
            yield node.lineno if isinstance(node, ast.stmt | ast.expr) else 0
        yield from unshielded(ast.iter_child_nodes(node), harmless)


def waits(node: ast.AST, harmless: AbstractSet[str]) -> bool:
    if isinstance(node, ast.Await):
        call = node.value
        return not (isinstance(call, ast.Call) and last_name(call.func) in harmless)
    if isinstance(node, ast.comprehension):
        return bool(node.is_async)
    return isinstance(node, ast.AsyncWith | ast.AsyncFor)


def shields(item: ast.withitem) -> bool:
    call = item.context_expr
    scopes = {"CancelScope", "move_on_after", "move_on_at", "fail_after", "fail_at"}
    if not isinstance(call, ast.Call) or last_name(call.func) not in scopes:
        return False
    given = (keyword.value for keyword in call.keywords if keyword.arg == "shield")
    return any(isinstance(value, ast.Constant) and value.value is True for value in given)


# (c) Everything is bounded.


def unbounded_channels(tree: ast.Module) -> list[Finding]:
    """No memory channel has an infinite buffer."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [
        Finding(call.lineno, "an unbounded channel")
        for call in calls
        if last_name(call.func.value if isinstance(call.func, ast.Subscript) else call.func) == "open_memory_channel"
        and any(is_infinite(value) for value in (*call.args, *(keyword.value for keyword in call.keywords)))
    ]


def is_infinite(node: ast.expr) -> bool:
    return any(
        last_name(part) in {"inf", "maxsize"} or (isinstance(part, ast.Constant) and part.value in {"inf", "infinity"})
        for part in ast.walk(node)
    )


# (d) Every cancel carries a reason.


def cancels_without_reason(tree: ast.Module) -> list[Finding]:
    """Whatever is called a scope, or was bound to one in this module, is cancelled with a reason."""
    scopes = set(scope_names(tree))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [
        Finding(call.lineno, "a cancel without a reason")
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "cancel"
        and (last_name(call.func.value) in scopes or "scope" in last_name(call.func.value).lower())
        and not any(keyword.arg == "reason" and not is_empty(keyword.value) for keyword in call.keywords)
    ]


def is_empty(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not node.value


def scope_names(tree: ast.Module) -> Iterator[str]:
    """Yield the last names of all that is bound to a new scope, or annotated as one."""
    for node in ast.walk(tree):
        match node:
            case ast.withitem(context_expr=ast.Call(func=maker), optional_vars=target) if target is not None:
                if last_name(maker) in {"CancelScope", "move_on_after", "move_on_at", "fail_after", "fail_at"}:
                    yield last_name(target)
            case ast.Assign(targets=targets, value=ast.Call(func=maker)) if last_name(maker) == "CancelScope":
                yield from map(last_name, targets)
            case ast.AnnAssign(target=target, annotation=kind) | ast.arg(arg=target, annotation=kind) if (
                kind is not None
            ):
                if any(last_name(part) == "CancelScope" for part in ast.walk(kind)):
                    yield target if isinstance(target, str) else last_name(target)
            case _:
                pass


def names_a_scope(annotation: ast.expr | None) -> bool:
    return annotation is not None and any(last_name(part) == "CancelScope" for part in ast.walk(annotation))


# (e) The clock is Trio's.

CLOCKS = frozenset(
    {
        "time.sleep",
        "time.time",
        "time.time_ns",
        "time.monotonic",
        "time.monotonic_ns",
        "time.perf_counter",
        "time.perf_counter_ns",
        "datetime.now",
        "datetime.utcnow",
        "datetime.today",
        "date.today",
    }
)


def foreign_clocks(tree: ast.Module) -> list[Finding]:
    """No other clock is read, and no thread is put to sleep. The text of a finding is the clock's name."""
    return sorted({Finding(line, name) for line, name in mentions(tree) if name in CLOCKS})


def mentions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, ".".join(name_of(node).split(".")[-2:])
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from ((node.lineno, f"time.{name.name}") for name in node.names)


# (f) Nothing is shared behind the tree's back.

MUTABLE = frozenset({"list", "dict", "set", "bytearray", "deque", "defaultdict", "OrderedDict", "Counter", "count"})


def mutable_globals(tree: ast.Module) -> list[Finding]:
    """Neither a module nor a class body holds a container that can change, and no function rebinds a global."""
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    statements = [*tree.body, *(statement for cls in classes for statement in cls.body)]
    shared = [
        Finding(node.lineno, "a mutable global")
        for node in statements
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        if is_mutable(node.value) and not is_declaration(node) and not is_read_only(node)
    ]
    rebound = [Finding(node.lineno, "a global is rebound") for node in ast.walk(tree) if isinstance(node, ast.Global)]
    return sorted(shared + rebound)


def is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        maker = value.func.value if isinstance(value.func, ast.Subscript) else value.func
        return last_name(maker) in MUTABLE or last_name(maker).startswith("Weak")
    return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def is_declaration(node: ast.Assign | ast.AnnAssign) -> bool:
    """`__all__`, `__slots__` and the like belong to the language, which reads them once."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return all(last_name(target).startswith("__") for target in targets)


def is_read_only(node: ast.Assign | ast.AnnAssign) -> bool:
    """Whether its declared type has no method that changes it; the type checker sees to the rest."""
    kinds = ast.walk(node.annotation) if isinstance(node, ast.AnnAssign) else ()
    return any(last_name(kind) in {"Mapping", "Sequence", "AbstractSet", "Collection"} for kind in kinds)
