"""The routes, and the table that says which is where."""

from quart_trio import QuartTrio

from ._gateway import RELEASE as RELEASE
from ._gateway import Gateway as Gateway
from ._gateway import current_request_id as current_request_id
from ._gateway import view
from ._generate import complete, complete_chat
from ._health import livez, readyz
from ._models import list_models, show_model


def register_routes(app: QuartTrio, gateway: Gateway) -> None:
    """Put all routes into the application."""
    get, post = ["GET"], ["POST"]
    app.add_url_rule("/livez", "livez", view(gateway, livez), methods=get)
    app.add_url_rule("/readyz", "readyz", view(gateway, readyz), methods=get)
    app.add_url_rule("/health", "health", view(gateway, readyz), methods=get)
    app.add_url_rule("/v1/models", "list_models", view(gateway, list_models), methods=get)
    app.add_url_rule("/v1/models/<path:id>", "show_model", view(gateway, show_model), methods=get)
    chat = view(gateway, complete_chat, prompt_param="messages")
    app.add_url_rule("/v1/chat/completions", "complete_chat", chat, methods=post)
    plain = view(gateway, complete, prompt_param="prompt")
    app.add_url_rule("/v1/completions", "complete", plain, methods=post)
