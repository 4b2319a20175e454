"""What one HTTP request asks for, in the framework's own terms."""

from collections.abc import Sequence

from attrs import evolve, frozen

from atomr_trio.core import ExecuteBatch, TokenUsage

from ._urgency import ServedTier

__all__ = ["Generation", "expand", "total_usage"]


@frozen(kw_only=True)
class Generation:
    """One HTTP request that wants tokens.

    Args:
        id: the answer's id, ``chatcmpl-…`` or ``cmpl-…``.
        model: the model's name as the client said it.
        prompts: one batch per prompt, not yet prepared.
        n: how many choices per prompt.
        best_of: of how many the best are chosen, if they are more.
        echo: each answer begins with its prompt.
        alone: nothing follows it; the batches ask for one token, since there is no asking for none.
        stream: send tokens as they come.
        include_usage: end the stream with a usage chunk.
        service_tier: told in the answer; ``None``: not asked for.
        token_ids: tell the ids of all tokens.
        prompt_logprobs: tell the log probabilities of the prompt's tokens, with so many others; ``None``: do not.
        prompt_param: the request field that holds the prompt, for error messages.
        grammar_param: the same for what the answer must look like.
    """

    id: str
    model: str
    prompts: tuple[ExecuteBatch, ...]
    n: int = 1
    best_of: int = 1
    echo: bool = False
    alone: bool = False
    stream: bool = False
    include_usage: bool = False
    service_tier: ServedTier | None = None
    token_ids: bool = False
    prompt_logprobs: int | None = None
    prompt_param: str = "messages"
    grammar_param: str | None = None

    @property
    def drawn(self) -> int:
        """How many answers are drawn per prompt."""
        return max(self.n, self.best_of)

    @property
    def logprobs(self) -> bool:
        """Log probabilities are part of the answer."""
        return self.prompts[0].sampling.logprobs


def expand(
    prepared: Sequence[ExecuteBatch], n: int, *, ranked: bool = False, streamed: bool = False
) -> tuple[ExecuteBatch, ...]:
    """One batch per choice, ordered by prompt, then by choice, each under its own request id.

    The choices of a prompt differ by their seed: ``seed``, ``seed + 1``, … So a seeded request gives the same
    choices again, and a prompt's choices do not depend on the other prompts in the request. If they are ``ranked``
    afterwards, their log probabilities have to be known. What is asked of a prompt, its first choice says for all of
    them, unless they are ``streamed``, each for itself.
    """
    if n == 1 and len(prepared) == 1:
        return tuple(prepared)
    choices: list[ExecuteBatch] = []
    for batch in prepared:
        for number in range(n):
            sampling = evolve(
                batch.sampling,
                seed=_seed(batch.sampling.seed, number),
                logprobs=ranked or batch.sampling.logprobs,
                prompt_logprobs=batch.sampling.prompt_logprobs and (streamed or number == 0),
            )
            choices.append(evolve(batch, request_id=f"{batch.request_id}-{len(choices)}", sampling=sampling))
    return tuple(choices)


def _seed(seed: int | None, number: int) -> int | None:
    # Wraps around within the 64 bits that the API allows.
    return None if seed is None else (seed + number + 2**63) % 2**64 - 2**63


def total_usage(choices: Sequence[TokenUsage], n: int) -> TokenUsage:
    """The usage of the whole answer: each prompt counts once, the output of each choice counts."""
    total = TokenUsage()
    for index, usage in enumerate(choices):
        counted_before = index % n != 0
        total += evolve(usage, input_tokens=0, cached_tokens=0) if counted_before else usage
    return total
