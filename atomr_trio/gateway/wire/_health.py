"""What the health routes say."""

from typing import Literal

from msgspec import Struct

__all__ = ["Alive", "Ready"]


class Alive(Struct):
    """The process runs its event loop."""

    status: Literal["ok"] = "ok"


class Ready(Struct):
    """Whether new requests can be answered, and the state of each deployment by name."""

    status: Literal["ready", "not_ready"]
    deployments: dict[str, str]
