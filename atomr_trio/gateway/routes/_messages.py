"""``POST /v1/messages`` and ``POST /v1/messages/count_tokens``: Anthropic's dialect."""

import uuid

from quart import Response

from atomr_trio.gateway.wire import (
    MessagesShape,
    TokenCount,
    decode_count,
    decode_messages,
    messages_generation,
    messages_question,
    to_json,
)

from ._gateway import Gateway, decoded_body, json_response
from ._generate import generate

__all__ = ["count_tokens", "create_message"]


async def create_message(gateway: Gateway) -> Response:
    """Answer a conversation."""
    request = await decoded_body(decode_messages)
    generation = messages_generation(request, f"msg_{uuid.uuid4().hex}")
    return await generate(gateway, generation, MessagesShape(generation.id, generation.model))


async def count_tokens(gateway: Gateway) -> Response:
    """Say how long a conversation is, answering nothing."""
    request = await decoded_body(decode_count)
    ids = await gateway.backend.tokenize(messages_question(request))
    return json_response(to_json(TokenCount(len(ids))))
