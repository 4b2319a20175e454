"""Calls that are written as Python: ``print(get_weather(city="Bonn"))``. They are read, never run."""

import ast
import json
from collections.abc import Iterator

from atomr_trio.core import Called

from ._form import Offered

__all__ = ["python_calls"]

# The parser's memory grows with what it reads. No call of a function is that long.
_LONGEST = 64 * 1024


def python_calls(source: str, offered: Offered) -> list[Called] | None:
    """Return the calls that are the whole of the source; ``None``: it is something else.

    Args:
        source: Python text.
        offered: tells the names of arguments that come without.
    """
    if len(source) > _LONGEST:
        return None
    try:
        tree = ast.parse(source.strip())
        return [_call(node, offered) for statement in tree.body for node in _expressions(statement)] or None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    # `x = f()` and `print(f())` are what models write that have seen much Python; `[f(), g()]` too.
    match statement:
        case ast.Expr(value=ast.List(elts=several)):
            yield from several
        case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=[printed], keywords=[])):
            yield printed
        case ast.Expr(value=value) | ast.Assign(value=value):
            yield value
        case _:
            raise ValueError("it is no call")


def _call(node: ast.expr, offered: Offered) -> Called:
    if not isinstance(node, ast.Call):
        raise ValueError("it is no call")
    name = ast.unparse(node.func)
    named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    # More of them than there are names is an error, and so is `**values`, which has none.
    placed = dict(zip(offered.get(name, ())[: len(node.args)], map(ast.literal_eval, node.args), strict=True))
    if None in named or placed.keys() & named.keys():
        raise ValueError("an argument has no name, or two values")
    return Called(name, json.dumps({**placed, **named}, ensure_ascii=False, allow_nan=False))
