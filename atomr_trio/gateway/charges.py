"""What a request holds of its key's account, and gives back when it has ended, however it ends."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from attrs import define, evolve, field

from atomr_trio.core import ExecuteBatch, Tokens, TokenUsage

from .access import Account, Cost, Moment, nano_usd

__all__ = ["METER", "Charge", "Meter", "Price", "prompt_tokens", "reserved"]

METER = "atomr_trio.meter"
"""Where a prepared batch's metadata has its meter."""

CHARACTERS_PER_TOKEN = 4

Price = Callable[[ExecuteBatch], float]
"""What a batch may cost at most, in USD."""


@define(eq=False)
class Charge:
    """One HTTP request's place among those that its key may have open.

    It is held by the request, and by its answers, which may outlive the connection that they were asked for on.

    Args:
        account: of the key.
        now: tells the time.
    """

    account: Account
    now: Callable[[], Moment]
    _inside: bool = field(init=False, default=False)
    _answers: int = field(init=False, default=0)

    def enter(self) -> None:
        """Take the place.

        Raises:
            RequestsLimited: the key has no place left, or has made too many requests.
            QuotaHeld: what is left of its budget is reserved.
            QuotaExhausted: its budget is used up.
        """
        self.account.enter(self.now())
        self._inside = True

    def leave(self) -> None:
        """Leave it to the answers, if there are any. A second time changes nothing."""
        if self._inside:
            self._inside = False
            self._give_up()

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold it for an answer."""
        if not self._inside and not self._answers:
            self.account.open += 1
        self._answers += 1
        try:
            yield
        finally:
            self._answers -= 1
            self._give_up()

    def _give_up(self) -> None:
        if not self._inside and not self._answers:
            self.account.leave()


@define(eq=False)
class Meter:
    """What the answers to one prompt take.

    Args:
        charge: who pays; ``None``: nobody has to.
        price: of a batch, for keys with a budget in USD.
        count: told the tokens of prompt and answer, when an answer has ended.
        first: told that there is a token.
    """

    charge: Charge | None
    price: Price | None
    count: Callable[[int, int], None]
    first: Callable[[], None]
    _input: int = field(init=False, default=0)
    _used: Cost = field(init=False, factory=Cost)

    def __repr__(self) -> str:
        return "Meter()"

    @property
    def used(self) -> Cost:
        """What was taken so far."""
        return self._used

    def most(self, choices: Sequence[ExecuteBatch]) -> Cost:
        """What these answers to the prompt may take at most. The prompt itself counts once."""
        output = sum(batch.sampling.max_tokens or 0 for batch in choices)
        return Cost(prompt_tokens(choices[0]) + output, sum(map(self._cost, choices)))

    def record(self, batch: ExecuteBatch, tokens: Tokens, *, failed: bool) -> None:
        """Count what one answer has taken. An answer that failed before its first token has taken nothing."""
        usage = _usage(batch, tokens)
        if failed and not usage.output_tokens:
            return
        # The choices of a prompt share it.
        more = max(0, usage.input_tokens - self._input)
        self._input += more
        self.count(more, usage.output_tokens)
        self._used += Cost(more + usage.output_tokens, self._cost(_as_made(batch, usage.output_tokens)))

    def _cost(self, batch: ExecuteBatch) -> int:
        return 0 if self.price is None else nano_usd(self.price(batch))


def _as_made(batch: ExecuteBatch, made: int) -> ExecuteBatch:
    """The batch as if no more tokens had been asked for than were made."""
    if batch.embed:
        return batch
    return evolve(batch, sampling=evolve(batch.sampling, max_tokens=max(1, made), min_tokens=0))


@contextmanager
def reserved(batches: Sequence[ExecuteBatch]) -> Generator[None]:
    """Set aside what prepared batches may take of their key's account, and settle for what they took.

    Raises:
        TokensLimited: the key's tokens of this minute do not suffice, or never will (``TooLargeForLimit``).
        QuotaExhausted: its budget does not suffice, or not now (``QuotaHeld``).
    """
    choices = _by_meter(batches)
    charge = next((meter.charge for meter in choices if meter.charge is not None), None)
    if charge is None:
        yield
        return
    with charge.held():
        before = sum((meter.used for meter in choices), Cost())
        most = sum((meter.most(answers) for meter, answers in choices.items()), Cost())
        reservation = charge.account.reserve(most, charge.now())
        try:
            yield
        finally:
            after = sum((meter.used for meter in choices), Cost())
            used = Cost(after.tokens - before.tokens, after.nano_usd - before.nano_usd)
            charge.account.settle(reservation, used, charge.now())


def _by_meter(batches: Sequence[ExecuteBatch]) -> dict[Meter, list[ExecuteBatch]]:
    found: dict[Meter, list[ExecuteBatch]] = {}
    for batch in batches:
        if METER in batch.metadata:
            found.setdefault(batch.metadata[METER], []).append(batch)
    return found


def prompt_tokens(batch: ExecuteBatch) -> int:
    """How many tokens the prompt has; a guess by its length where only a provider will know."""
    if batch.prompt_ids is not None:
        return len(batch.prompt_ids)
    if isinstance(batch.prompt, tuple):
        return len(batch.prompt)
    texts = [batch.prompt or "", *(message.content for message in batch.messages)]
    characters = sum(len(text) for text in texts if isinstance(text, str))
    return max(batch.estimated_tokens, -(-characters // CHARACTERS_PER_TOKEN))


def _usage(batch: ExecuteBatch, tokens: Tokens) -> TokenUsage:
    """The usage that was reported; counted where the answer has not come to its report."""
    if tokens.usage != TokenUsage():
        return tokens.usage
    made = len(tokens.token_ids) or -(-len(tokens.text) // CHARACTERS_PER_TOKEN)
    return TokenUsage(input_tokens=prompt_tokens(batch), output_tokens=made)
