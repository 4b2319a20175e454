"""One text, several, one list of token ids, or several: the four ways in which a field can hold plain prompts."""

from typing import TypeGuard

from atomr_trio.core import BadRequest

from ._fields import TokenId

__all__ = ["Prompts", "prompts_of"]

# Which of the four it is, `prompts_of` finds out.
Prompts = str | list[str | TokenId | list[TokenId]]
Prompt = str | tuple[int, ...]


def prompts_of(given: Prompts | None, param: str = "prompt") -> list[Prompt]:
    """Return the prompts of a request, at least one, none of them empty.

    Args:
        given: the decoded field.
        param: its name.

    Raises:
        BadRequest: there is none, one is empty, or texts and token ids are mixed.
    """
    found: list[Prompt] = []
    if isinstance(given, str):
        found = [given]
    elif _all_ints(given):
        found = [tuple(given)]
    elif given:
        if len({type(each) for each in given}) > 1:
            raise BadRequest(f"`{param}`: texts and token ids cannot be mixed in one list", param=param)
        found = [tuple(each) if isinstance(each, list) else str(each) for each in given]
    if not found or not all(found):
        raise BadRequest(f"`{param}` is required and must not be empty", param=param)
    return found


def _all_ints(given: Prompts | None) -> TypeGuard[list[int]]:
    return bool(given) and all(isinstance(each, int) for each in given or ())
