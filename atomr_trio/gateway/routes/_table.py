"""The table that says which route is where: the application and ``/openapi.json`` are both made from it."""

from typing import Any

from quart_trio import QuartTrio

from atomr_trio.core import BadRequest, ModelNotFound
from atomr_trio.gateway.description import GENERATION_ERRORS, Route
from atomr_trio.gateway.replay import ReplayGone, StreamNotFound
from atomr_trio.gateway.wire import (
    CHAT_NEUTRAL,
    COMPLETION_NEUTRAL,
    EMBEDDINGS_NEUTRAL,
    Alive,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    CompletionRequest,
    EmbeddingList,
    EmbeddingsRequest,
    ModelList,
    ModelObject,
    Ready,
    TextCompletion,
)

from ._description import show_description
from ._dialects import DIALECTS
from ._embeddings import create_embeddings
from ._gateway import Gateway, view
from ._generate import complete, complete_chat
from ._health import livez, readyz
from ._models import list_models, show_model
from ._streams import LAST_EVENT_ID, end_stream, resume_stream

__all__ = ["ROUTES", "register_routes"]

_STREAM_ID = {"X-Stream-Id": "The id under which the client can go on with the stream; only where the server keeps it."}

ROUTES: tuple[Route, ...] = (
    Route("GET", "/livez", livez, tag="health", answers={200: Alive}),
    Route("GET", "/readyz", readyz, tag="health", answers={200: Ready, 503: Ready}),
    Route("GET", "/health", readyz, tag="health", answers={200: Ready, 503: Ready}, name="health"),
    Route("GET", "/openapi.json", show_description, tag="description", answers={200: dict[str, Any]}),
    Route("GET", "/v1/models", list_models, tag="models", answers={200: ModelList}),
    Route("GET", "/v1/models/<path:id>", show_model, tag="models", answers={200: ModelObject}, errors=(ModelNotFound,)),
    Route(
        "POST",
        "/v1/chat/completions",
        complete_chat,
        tag="generation",
        body=ChatRequest,
        refused=CHAT_NEUTRAL,
        answers={200: ChatCompletion},
        events=(ChatChunk,),
        errors=GENERATION_ERRORS,
        reply_headers=_STREAM_ID,
        prompt_param="messages",
    ),
    Route(
        "POST",
        "/v1/completions",
        complete,
        tag="generation",
        body=CompletionRequest,
        refused=COMPLETION_NEUTRAL,
        answers={200: TextCompletion},
        events=(TextCompletion,),
        errors=GENERATION_ERRORS,
        reply_headers=_STREAM_ID,
        prompt_param="prompt",
    ),
    Route(
        "POST",
        "/v1/embeddings",
        create_embeddings,
        tag="embeddings",
        body=EmbeddingsRequest,
        refused=EMBEDDINGS_NEUTRAL,
        answers={200: EmbeddingList},
        errors=GENERATION_ERRORS,
        prompt_param="input",
    ),
    Route(
        "GET",
        "/v1/streams/<id>",
        resume_stream,
        tag="streams",
        events=(ChatChunk, TextCompletion),
        errors=(BadRequest, StreamNotFound, ReplayGone),
        headers=LAST_EVENT_ID,
        reply_headers=_STREAM_ID,
    ),
    Route("DELETE", "/v1/streams/<id>", end_stream, tag="streams", answers={204: None}, errors=(StreamNotFound,)),
    *DIALECTS,
)


def register_routes(app: QuartTrio, gateway: Gateway) -> None:
    """Put all routes into the application."""
    for route in ROUTES:
        run = view(gateway, route.handler, prompt_param=route.prompt_param)
        app.add_url_rule(route.path, route.endpoint, run, methods=[route.method])
