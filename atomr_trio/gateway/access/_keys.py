"""API keys: what each may do. Of its secret only a hash is known."""

import hashlib
import secrets
from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from ._budget import Period

__all__ = ["ApiKey", "hashed", "new_secret"]

PREFIX = "sk-atomr-"

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")]
Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Dollars = Annotated[float, Meta(gt=0, le=1e6)]
Date = Annotated[datetime, Meta(tz=True)]


class ApiKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A key as it is written down. ``None`` is no limit.

    Args:
        name: who has it; appears in the access lines.
        sha256: of its secret, in hexadecimal. A secret of ours has 256 random bits, which no slower hash would protect
            better.
        deployments: the only ones that it may use, and see.
        requests_per_minute: how many requests may begin in any 60 seconds.
        tokens_per_minute: how many tokens, of prompts and answers, they may take.
        max_concurrent: how many of them may be open at once.
        budget_tokens: how many tokens it may take in a period.
        budget_usd: how much they may cost, by the runtimes' own estimates.
        budget_period: after which the budgets are whole again; days and months are those of UTC.
        expires: when it stops being valid.
        created: when it was made.
        share_prefixes: its prompts and those of other keys that share may use what was computed for each other.
            The time to the first token then tells whether somebody has asked the same.
    """

    name: Name
    sha256: Hash
    deployments: tuple[str, ...] | None = None
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    max_concurrent: Positive | None = None
    budget_tokens: Positive | None = None
    budget_usd: Dollars | None = None
    budget_period: Period = "total"
    expires: Date | None = None
    created: Date | None = None
    share_prefixes: bool = False

    @property
    def id(self) -> str:
        """Tells it from another key, which had the same name before, or has now."""
        return self.sha256[:16]

    def may_use(self, deployment: str) -> bool:
        """Whether it may know of a deployment."""
        return self.deployments is None or deployment in self.deployments

    def is_expired(self, unix: float) -> bool:
        """Whether it is no longer valid at this time (Unix seconds)."""
        return self.expires is not None and unix >= self.expires.timestamp()


def new_secret() -> str:
    """A secret that nobody has."""
    return PREFIX + secrets.token_urlsafe(32)


def hashed(secret: bytes) -> str:
    """What is written down of a secret."""
    return hashlib.sha256(secret).hexdigest()
