"""``POST /v1/embeddings``: the request, its translation, and the answer."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from atomr_trio.core import BadRequest, Embedding, ExecuteBatch, Internal, TokenUsage

from ._decode import decode_body
from ._fields import MAX_TOKEN_ID, decoder_of, refuse_unsupported
from ._prompts import Prompts, prompts_of
from ._sse import to_json

__all__ = [
    "EMBEDDINGS_NEUTRAL",
    "EmbeddingList",
    "EmbeddingsRequest",
    "decode_embeddings",
    "embedding_batches",
    "embeddings_answer",
]

EncodingFormat = Literal["float", "base64"]


class EmbeddingsRequest(Struct, kw_only=True):
    """The fields of a request for embeddings that this server knows. Others are ignored.

    The numbers of ``base64`` are float32, little-endian.
    """

    model: str
    input: Prompts
    encoding_format: EncodingFormat | None = None
    dimensions: Annotated[int, Meta(ge=1, le=MAX_TOKEN_ID)] | None = None
    # Prompts are found in the prefix cache only under the salt that they were computed with.
    cache_salt: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    # A note for the operator; it does not change the answer.
    user: str | None = None
    # Known, and refused when they ask for something.
    truncate_prompt_tokens: Any = None
    priority: int | None = None


EMBEDDINGS_NEUTRAL: Mapping[str, tuple[Any, ...]] = {"truncate_prompt_tokens": (), "priority": (0,)}
_DECODER = decoder_of(EmbeddingsRequest)


class EmbeddingObject(Struct):
    """The embedding of input ``index``: numbers, or their bytes in base64."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingsUsage(Struct):
    """Token counts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, kw_only=True):
    """The embeddings, in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingsUsage


def decode_embeddings(body: bytes) -> EmbeddingsRequest:
    """Decode and validate a request's body.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    request: EmbeddingsRequest = decode_body(_DECODER, body)
    refuse_unsupported(request, EMBEDDINGS_NEUTRAL)
    return request


def embedding_batches(request: EmbeddingsRequest, id: str, *, max_inputs: int) -> list[ExecuteBatch]:
    """Translate a request: one batch for each input.

    Args:
        request: from `decode_embeddings`.
        id: unique among the requests in flight.
        max_inputs: how many of them one request may have.

    Raises:
        BadRequest: there are none, or too many, or one of them is empty.
    """
    inputs = prompts_of(request.input, "input")
    if len(inputs) > max_inputs:
        raise BadRequest(f"at most {max_inputs} inputs are allowed in one request", param="input")
    return [
        ExecuteBatch(
            request_id=f"{id}-{index}",
            model=request.model,
            prompt=each,
            embed=True,
            cache_salt=request.cache_salt or "",
        )
        for index, each in enumerate(inputs)
    ]


def embeddings_answer(request: EmbeddingsRequest, found: Sequence[Embedding | None], usage: TokenUsage) -> bytes:
    """The answer. May take ms for each thousand numbers.

    Args:
        request: from `decode_embeddings`.
        found: the embedding of each input, as its runner made it.
        usage: of all of them.

    Raises:
        BadRequest: they have fewer dimensions than were asked for.
        Internal: a runner has made none.
    """
    data = [EmbeddingObject(index, _written(request, each)) for index, each in enumerate(found)]
    tokens = EmbeddingsUsage(usage.input_tokens, usage.input_tokens)
    return to_json(EmbeddingList(data=data, model=request.model, usage=tokens))


def _written(request: EmbeddingsRequest, embedding: Embedding | None) -> list[float] | str:
    if embedding is None:
        raise Internal("the answer ended without an embedding")
    if request.dimensions is not None:
        embedding = _cut(embedding, request.dimensions)
    return b64encode(embedding.data).decode() if request.encoding_format == "base64" else list(embedding.values)


def _cut(embedding: Embedding, dimensions: int) -> Embedding:
    if dimensions > len(embedding):
        raise BadRequest(f"`dimensions`: this model's embeddings have {len(embedding)}", param="dimensions")
    return embedding.cut(dimensions)
