"""What one HTTP request asks for, in the framework's own terms."""

from collections.abc import Sequence

from attrs import evolve, frozen

from atomr_trio.core import ExecuteBatch, TokenUsage

__all__ = ["Generation", "expand", "total_usage"]


@frozen(kw_only=True)
class Generation:
    """One HTTP request that wants tokens.

    Args:
        id: the answer's id, ``chatcmpl-…`` or ``cmpl-…``.
        model: the model's name as the client said it.
        prompts: one batch per prompt, not yet prepared.
        n: how many choices per prompt.
        stream: send tokens as they come.
        include_usage: end the stream with a usage chunk.
        prompt_param: the request field that holds the prompt, for error messages.
    """

    id: str
    model: str
    prompts: tuple[ExecuteBatch, ...]
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    prompt_param: str = "messages"

    @property
    def logprobs(self) -> bool:
        """Log probabilities are part of the answer."""
        return self.prompts[0].sampling.logprobs


def expand(prepared: Sequence[ExecuteBatch], n: int) -> tuple[ExecuteBatch, ...]:
    """One batch per choice, ordered by prompt, then by choice, each under its own request id.

    The choices of a prompt differ by their seed: ``seed``, ``seed + 1``, … So a seeded request gives the same
    choices again, and a prompt's choices do not depend on the other prompts in the request.
    """
    if n == 1 and len(prepared) == 1:
        return tuple(prepared)
    choices: list[ExecuteBatch] = []
    for batch in prepared:
        for number in range(n):
            sampling = evolve(batch.sampling, seed=_seed(batch.sampling.seed, number))
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
