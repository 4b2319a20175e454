"""``/v1/responses``: OpenAI's newer dialect, without its store."""

import uuid

from quart import Response

from atomr_trio.core import BadRequest
from atomr_trio.gateway.wire import (
    InputTokens,
    ResponsesShape,
    decode_response,
    response_begun,
    response_generation,
    response_question,
    to_json,
)

from ._gateway import Gateway, decoded_body, json_response
from ._generate import generate

__all__ = ["count_input_tokens", "create_response", "find_response"]


async def create_response(gateway: Gateway) -> Response:
    """Answer an input."""
    request = await decoded_body(decode_response)
    generation = response_generation(request, f"resp_{uuid.uuid4().hex}")
    begun = response_begun(request, generation.id, int(gateway.clock()))
    shape = ResponsesShape(begun, generation.logprobs)
    return await generate(gateway, generation, shape)


async def count_input_tokens(gateway: Gateway) -> Response:
    """Say how long an input is, answering nothing."""
    request = await decoded_body(decode_response)
    ids = await gateway.backend.tokenize(response_question(request))
    return json_response(to_json(InputTokens(len(ids))))


async def find_response(_gateway: Gateway, id: str) -> Response:
    """Refuse: there is nothing to find.

    Raises:
        BadRequest: always.
    """
    raise BadRequest("this server stores no responses: an answer is only where it was asked for")
