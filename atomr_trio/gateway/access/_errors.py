"""Why a key is not let in, or not now."""

from typing import ClassVar

from attrs import define

from atomr_trio.core import InferenceError

__all__ = ["InvalidApiKey", "QuotaExhausted", "QuotaHeld", "RequestsLimited", "TokensLimited", "TooLargeForLimit"]


@define
class InvalidApiKey(InferenceError):
    """The request has no key, or one that is unknown, revoked or expired. Which of these is not told."""

    kind: ClassVar[str] = "invalid_api_key"

    def __str__(self) -> str:
        return "the API key is missing or not valid; send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`"


@define
class RequestsLimited(InferenceError):
    """The key has made, or has open, as many requests as it may. ``retry_after`` is in seconds."""

    kind: ClassVar[str] = "requests_limited"
    retryable: ClassVar[bool] = True
    limit: int
    per: str
    retry_after: float | None = None

    def __str__(self) -> str:
        return f"rate limit reached: this key may have {self.limit} requests {self.per}"


@define
class TokensLimited(InferenceError):
    """The tokens that the request may take do not fit now. ``retry_after`` is in seconds."""

    kind: ClassVar[str] = "tokens_limited"
    retryable: ClassVar[bool] = True
    limit: int
    wanted: int
    left: int
    retry_after: float | None = None

    def __str__(self) -> str:
        return (
            f"rate limit reached: this key may use {self.limit} tokens per minute and has {self.left} left, but the "
            f"request may take {self.wanted}"
        )


@define
class TooLargeForLimit(InferenceError):
    """The request may take more tokens than the key ever has in a minute."""

    kind: ClassVar[str] = "too_large_for_limit"
    limit: int
    wanted: int

    def __str__(self) -> str:
        return (
            f"the request may take {self.wanted} tokens, but this key may use {self.limit} per minute; shorten the "
            "prompt or ask for fewer tokens"
        )


@define
class QuotaExhausted(InferenceError):
    """The key's budget is used up, or what is left of it does not cover what the request may cost.

    ``unit`` is ``tokens`` or ``USD``; the amounts are in it.
    """

    kind: ClassVar[str] = "quota_exhausted"
    unit: str
    left: float
    wanted: float

    def __str__(self) -> str:
        if self.left <= 0:
            return f"this key's budget of {self.unit} is used up"
        return (
            f"this key's budget has {self.left:.12g} {self.unit} left, but the request may take {self.wanted:.12g}; "
            "shorten the prompt or ask for fewer tokens"
        )


@define
class QuotaHeld(InferenceError):
    """The budget would do, but requests that run have reserved it. ``retry_after`` is in seconds."""

    kind: ClassVar[str] = "quota_held"
    retryable: ClassVar[bool] = True
    unit: str
    retry_after: float | None = None

    def __str__(self) -> str:
        return f"requests of this key that still run may take what is left of its budget of {self.unit}"
