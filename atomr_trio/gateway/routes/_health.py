"""Is the process alive, and can it answer?"""

from quart import Response

from atomr_trio.gateway.wire import Alive, Ready, to_json

from ._gateway import Gateway, json_response

__all__ = ["livez", "readyz"]


async def livez(_gateway: Gateway) -> Response:
    """200 as long as the process runs its event loop."""
    return _uncached(json_response(to_json(Alive())))


async def readyz(gateway: Gateway) -> Response:
    """200 when new requests can be answered, else 503; with the state of each deployment."""
    readiness = await gateway.backend.readiness()
    states = {name: str(state) for name, state in readiness.deployments.items()}
    body = Ready("ready" if readiness.ready else "not_ready", states)
    return _uncached(json_response(to_json(body), 200 if readiness.ready else 503))


def _uncached(response: Response) -> Response:
    response.headers["cache-control"] = "no-store"
    return response
