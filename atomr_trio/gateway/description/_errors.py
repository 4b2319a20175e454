"""What an error looks like on the wire, and which errors a route may answer with."""

from collections.abc import Callable, Iterable, Mapping

from attrs import frozen
from msgspec import UNSET, Struct, UnsetType
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout, UnsupportedMediaType

from atomr_trio.core import Internal
from atomr_trio.gateway.errors import Outcome, outcome_of, typed_errors
from atomr_trio.gateway.replay import ReplayGone, StreamNotFound

__all__ = ["BODY_ERRORS", "GENERATION_ERRORS", "ErrorBody", "Outcomes", "outcomes", "own_status"]

BODY_ERRORS: tuple[type[Exception], ...] = (RequestTimeout, RequestEntityTooLarge, UnsupportedMediaType)
"""What reading a request's body may end with."""

GENERATION_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in typed_errors() if kind not in {StreamNotFound, ReplayGone}),
    *BODY_ERRORS,
)
"""What a request for tokens may end with."""


class ErrorDetails(Struct):
    """What went wrong. ``code`` is for programs, ``message`` for people; ``param`` is the field that is to blame."""

    message: str
    type: str
    param: str | None
    code: str | None
    n_prompt_tokens: int | UnsetType = UNSET
    n_ctx: int | UnsetType = UNSET


class ErrorBody(Struct):
    """Every error, of every route."""

    error: ErrorDetails


@frozen
class Outcomes:
    """The errors of one status: their codes, and whether the answer may say when to come back."""

    codes: tuple[str, ...]
    may_say_when: bool


def own_status(outcome: Outcome) -> int:
    """The status that the table of errors has."""
    return outcome.status


def outcomes(errors: Iterable[type[Exception]], status_of: Callable[[Outcome], int]) -> Mapping[int, Outcomes]:
    """Group errors by their HTTP status, in its order; a bug's 500 is always among them.

    Args:
        errors: what a route raises.
        status_of: the status that its API has for an outcome.
    """
    found: dict[int, list[Outcome]] = {}
    for outcome in map(outcome_of, (*errors, Internal)):
        found.setdefault(status_of(outcome), []).append(outcome)
    return {
        status: Outcomes(tuple(sorted({each.code for each in group if each.code})), any(e.may_say_when for e in group))
        for status, group in sorted(found.items())
    }
