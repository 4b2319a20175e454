"""``GET /openapi.json``."""

from quart import Response

from ._gateway import Gateway, json_response

__all__ = ["show_description"]


async def show_description(gateway: Gateway) -> Response:
    """This description of the API."""
    return json_response(gateway.description)
