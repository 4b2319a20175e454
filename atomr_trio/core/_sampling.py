"""How the next token is chosen, and when to stop choosing."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from attrs import Attribute, field, frozen, validators

from ._errors import BadRequest
from ._grammar import Grammar

__all__ = ["SamplingParams"]


Validator = Callable[[Any, "Attribute[Any]", Any], None]


def _within(low: float, high: float) -> Validator:
    def check(_instance: object, attribute: "Attribute[Any]", value: float | None) -> None:
        # Written so that NaN, which compares false with everything, is rejected too.
        if value is not None and not low <= value <= high:
            message = f"{attribute.name} must be between {low:g} and {high:g}, got {value!r}"
            raise BadRequest(message, param=attribute.name)

    return check


def _at_least(low: int) -> Validator:
    def check(_instance: object, attribute: "Attribute[Any]", value: int | None) -> None:
        if value is not None and value < low:
            message = f"{attribute.name} must be at least {low}, got {value!r}"
            raise BadRequest(message, param=attribute.name)

    return check


def _pairs(bias: Mapping[int, float] | Iterable[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    pairs = cast("Iterable[tuple[int, float]]", bias.items() if isinstance(bias, Mapping) else bias)
    return tuple(sorted(pairs))


def _check_bias(_instance: object, attribute: "Attribute[Any]", value: tuple[tuple[int, float], ...]) -> None:
    for token, bias in value:
        if token < 0 or not -100 <= bias <= 100:
            message = f"{attribute.name} must map token ids to numbers between -100 and 100, got {token}: {bias!r}"
            raise BadRequest(message, param=attribute.name)


@frozen(kw_only=True)
class SamplingParams:
    """How tokens are drawn from the model's distribution, and when a request ends.

    ``None`` means "the server's default": temperature 1, no top-k, top-p or min-p, and as many
    tokens as the context has room for.

    Args:
        temperature: 0 is greedy; at most 2.
        top_p: nucleus mass in (0, 1].
        top_k: how many candidates to keep; ``None``, 0 and -1 keep all.
        min_p: keep tokens whose probability is at least this share of the best one's, in [0, 1].
        max_tokens: upper bound of generated tokens, at least 1.
        min_tokens: the end-of-sequence token is not drawn before this many tokens.
        stop: strings that end the answer; they are not part of it.
        stop_token_ids: token ids that end the answer, besides the model's own.
        ignore_eos: go on after the model's end-of-sequence token.
        presence_penalty: taken from the logits of tokens that the answer has already, in [-2, 2].
        frequency_penalty: the same, times how often the answer has the token, in [-2, 2].
        repetition_penalty: positive logits of tokens of prompt and answer are divided by it, others multiplied; in
            [0.01, 100], 1 changes nothing.
        logit_bias: token ids, and what is added to their logits, in [-100, 100]; a mapping or pairs.
        seed: the same seed, prompt and parameters give the same text. ``None``: drawn per request.
        logprobs: return the log probability of each generated token.
        top_logprobs: with it, so many of the most likely tokens in its place, at most 20.
        prompt_logprobs: return the log probability of each prompt token.
        prompt_top_logprobs: with it, so many of the most likely tokens in its place, at most 20.
        grammar: what the answer must look like.

    Raises:
        BadRequest: a value is outside its range, or contradicts another one; ``param`` names the field.
    """

    temperature: float | None = field(default=None, validator=_within(0.0, 2.0))
    top_p: float | None = field(default=None, validator=_within(1e-9, 1.0))
    top_k: int | None = field(default=None, validator=_at_least(-1))
    min_p: float | None = field(default=None, validator=_within(0.0, 1.0))
    max_tokens: int | None = field(default=None, validator=_at_least(1))
    min_tokens: int = field(default=0, validator=_at_least(0))
    stop: tuple[str, ...] = field(default=(), converter=tuple)
    stop_token_ids: tuple[int, ...] = field(default=(), converter=tuple)
    ignore_eos: bool = field(default=False, validator=validators.instance_of(bool))
    presence_penalty: float | None = field(default=None, validator=_within(-2.0, 2.0))
    frequency_penalty: float | None = field(default=None, validator=_within(-2.0, 2.0))
    repetition_penalty: float | None = field(default=None, validator=_within(0.01, 100.0))
    logit_bias: tuple[tuple[int, float], ...] = field(default=(), converter=_pairs, validator=_check_bias)
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int = field(default=0, validator=_within(0, 20))
    prompt_logprobs: bool = False
    prompt_top_logprobs: int = field(default=0, validator=_within(0, 20))
    grammar: Grammar | None = None

    def __attrs_post_init__(self) -> None:
        if self.grammar is not None:
            _check_free_end(self)


def _check_free_end(asked: SamplingParams) -> None:
    # Where a grammar is complete nothing may follow but the end, and either of these would forbid it.
    for name in ("ignore_eos", "min_tokens"):
        if getattr(asked, name):
            raise BadRequest(f"{name} cannot be had with structured output, which ends by its own rule", param=name)
