"""A failed request, in the words that all routes' errors are made of."""

from typing import Any

from attrs import frozen

__all__ = ["Failure"]


@frozen
class Failure:
    """What is told of an error.

    Args:
        status: the HTTP status that it has, or would have had before the first token.
        error: OpenAI's fields: ``message``, ``type``, ``param``, ``code``, and what else there is.
        request_id: under which the log has the details.
    """

    status: int
    error: dict[str, Any]
    request_id: str

    @property
    def message(self) -> str:
        """For people."""
        return self.error["message"]
