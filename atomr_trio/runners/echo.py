"""The smallest runner: says the last user message back, word by word."""

import hashlib
import re
from typing import Self

from atomr_trio.core import (
    ChunkSink,
    Deployment,
    Embedding,
    ExecuteBatch,
    FinishReason,
    ModelRunner,
    TokenChunk,
    TokenUsage,
    TransportKind,
)

__all__ = ["EchoRunner"]

WORDS = re.compile(r"\s*\S+|\s+")


class EchoRunner(ModelRunner):
    """Answers with the last user text; a word is a token. Useful to try a client without a model.

    The embedding of a text is made of its digest: the same for the same text, and far from all others.
    """

    embeds = True

    @classmethod
    def from_deployment(cls, deployment: Deployment, /) -> Self:
        """Take no configuration."""
        return cls()

    @property
    def runtime_kind(self) -> str:
        """``echo``."""
        return "echo"

    @property
    def transport_kind(self) -> TransportKind:
        """It runs here, on the CPU."""
        return TransportKind.LOCAL_CPU

    async def execute(self, batch: ExecuteBatch, out: ChunkSink, /) -> None:
        """Send one chunk per word, up to ``max_tokens`` of them; or an embedding of 32 dimensions."""
        if batch.embed:
            await out.send(_embedded(batch))
            return
        words = WORDS.findall(batch.last_user_text)
        limit = len(words) if batch.sampling.max_tokens is None else batch.sampling.max_tokens
        sent = words[:limit]
        for word in sent:
            await out.send(TokenChunk(text_delta=word))
        reason = FinishReason.STOP if len(sent) == len(words) else FinishReason.LENGTH
        await out.send(TokenChunk(usage=TokenUsage(len(words), len(sent)), finish_reason=reason))


def _embedded(batch: ExecuteBatch) -> TokenChunk:
    ids = batch.prompt if isinstance(batch.prompt, tuple) else ()
    words = WORDS.findall(batch.last_user_text) or [f"{id} " for id in ids]
    digest = hashlib.sha256("".join(words).encode(errors="surrogatepass")).digest()
    embedding = Embedding.of(byte - 127.5 for byte in digest).unit()
    return TokenChunk(embedding=embedding, usage=TokenUsage(len(words)), finish_reason=FinishReason.STOP)
