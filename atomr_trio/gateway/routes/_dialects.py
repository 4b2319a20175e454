"""The rows of the table for the dialects beside OpenAI's chat and completions."""

from typing import Any

from atomr_trio.core import BadRequest
from atomr_trio.gateway.description import GENERATION_ERRORS, Route
from atomr_trio.gateway.errors import Outcome
from atomr_trio.gateway.wire import (
    COUNT_NEUTRAL,
    MESSAGE_EVENTS,
    MESSAGES_NEUTRAL,
    RESPONSES_NEUTRAL,
    TOKENIZE_NEUTRAL,
    CountRequest,
    DetokenizeRequest,
    ErrorEvent,
    InputTokens,
    MessageObject,
    MessagesRequest,
    ResponseObject,
    ResponsesRequest,
    TextAnswer,
    TokenCount,
    TokenizeRequest,
    TokensAnswer,
    messages_status,
)

from ._messages import count_tokens, create_message
from ._responses import count_input_tokens, create_response, find_response
from ._tokenize import detokenize, tokenize

__all__ = ["DIALECTS"]


def _messages_outcome(outcome: Outcome) -> int:
    return messages_status(outcome.status, outcome.code)


_MESSAGES = (
    Route(
        "POST",
        "/v1/messages",
        create_message,
        tag="messages",
        body=MessagesRequest,
        refused=MESSAGES_NEUTRAL,
        answers={200: MessageObject},
        events=MESSAGE_EVENTS,
        errors=GENERATION_ERRORS,
        failure=ErrorEvent,
        status_of=_messages_outcome,
        prompt_param="messages",
    ),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        count_tokens,
        tag="messages",
        body=CountRequest,
        refused=COUNT_NEUTRAL,
        answers={200: TokenCount},
        errors=GENERATION_ERRORS,
        failure=ErrorEvent,
        status_of=_messages_outcome,
        prompt_param="messages",
    ),
)
_RESPONSES = (
    Route(
        "POST",
        "/v1/responses",
        create_response,
        tag="responses",
        body=ResponsesRequest,
        refused=RESPONSES_NEUTRAL,
        answers={200: ResponseObject},
        events=(dict[str, Any],),
        errors=GENERATION_ERRORS,
        prompt_param="input",
    ),
    Route(
        "POST",
        "/v1/responses/input_tokens",
        count_input_tokens,
        tag="responses",
        body=ResponsesRequest,
        refused=RESPONSES_NEUTRAL,
        answers={200: InputTokens},
        errors=GENERATION_ERRORS,
        prompt_param="input",
    ),
    *(
        Route(method, f"/v1/responses/<id>{at}", find_response, tag="responses", errors=(BadRequest,), name=name)
        for method, at, name in (
            ("GET", "", "find_response"),
            ("DELETE", "", "delete_response"),
            ("GET", "/input_items", "response_input"),
            ("POST", "/cancel", "cancel_response"),
        )
    ),
)
_TOKENS = tuple(
    route
    for at in ("", "/v1")
    for route in (
        Route(
            "POST",
            f"{at}/tokenize",
            tokenize,
            tag="tokens",
            body=TokenizeRequest,
            refused=TOKENIZE_NEUTRAL,
            answers={200: TokensAnswer},
            errors=GENERATION_ERRORS,
            name=f"{at}tokenize",
        ),
        Route(
            "POST",
            f"{at}/detokenize",
            detokenize,
            tag="tokens",
            body=DetokenizeRequest,
            answers={200: TextAnswer},
            errors=GENERATION_ERRORS,
            name=f"{at}detokenize",
        ),
    )
)

DIALECTS: tuple[Route, ...] = (*_MESSAGES, *_RESPONSES, *_TOKENS)
