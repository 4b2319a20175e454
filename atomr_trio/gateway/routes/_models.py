"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from quart import Response

from atomr_trio.core import ModelNotFound
from atomr_trio.gateway.backend import ModelInfo
from atomr_trio.gateway.wire import ModelList, ModelObject, to_json

from ._gateway import Gateway, json_response

__all__ = ["list_models", "show_model"]


async def list_models(gateway: Gateway) -> Response:
    """All models."""
    found = await gateway.backend.models()
    return json_response(to_json(ModelList(data=[_object(info) for info in found])))


async def show_model(gateway: Gateway, id: str) -> Response:
    """One of them.

    Raises:
        ModelNotFound: there is no such model.
    """
    for info in await gateway.backend.models():
        if info.id == id:
            return json_response(to_json(_object(info)))
    raise ModelNotFound(id)


def _object(info: ModelInfo) -> ModelObject:
    return ModelObject(
        id=info.id, created=info.created, owned_by=info.owned_by, root=info.id, max_model_len=info.max_model_len
    )
