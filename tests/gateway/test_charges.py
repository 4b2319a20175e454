"""What answers hold of their key's account, cancelled at every checkpoint: all of it comes back."""

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import Backpressure, ExecuteBatch, InferenceError, SamplingParams, Tokens, TokenUsage
from atomr_trio.gateway.access import Account, ApiKey, Cost, Moment
from atomr_trio.gateway.answers import open_answers
from atomr_trio.gateway.charges import METER, Charge, Meter, reserved
from atomr_trio.gateway.drain import Drain
from atomr_trio.gateway.metered import MeteredBackend
from atomr_trio.testing import cancel_everywhere

from .fakes import MODEL, ScriptedBackend, say

NOW = 1_700_000_000


def account_of(**limits):
    return Account(ApiKey(name="one", sha256="0" * 64, **limits))


def charge_of(account):
    return Charge(account, lambda: Moment(trio.current_time(), NOW))


def meter_of(charge):
    return Meter(charge, lambda batch: 1e-9 * batch.sampling.max_tokens, lambda taken, made: None, lambda: None)


def batches_of(meter, count, max_tokens=5, prompt=3):
    batch = ExecuteBatch(
        request_id="r",
        model=MODEL,
        prompt_ids=tuple(range(prompt)),
        sampling=SamplingParams(max_tokens=max_tokens),
        metadata={METER: meter},
    )
    return [attrs.evolve(batch, request_id=f"r-{number}") for number in range(count)]


def is_whole(account):
    return account.open == account.token_budget.reserved == account.usd_budget.reserved == 0


@pytest.mark.parametrize("script", [say("a", "b"), say("a", Backpressure("full")), say(Backpressure("full"))])
@pytest.mark.parametrize("count", [1, 3])
def test_cancelled_anywhere_nothing_stays_held(count, script):
    @attrs.define
    class World:
        account: Account = attrs.field(factory=lambda: account_of(budget_tokens=100, budget_usd=1.0))

        async def scenario(self):
            charge = charge_of(self.account)
            charge.enter()
            try:
                batches = batches_of(meter_of(charge), count)
                backend = MeteredBackend(ScriptedBackend([script]), Drain(), 100, True)
                await trio.lowlevel.checkpoint()
                async with open_answers(backend, batches, max_parallel=2) as answers:
                    ended = 0
                    while ended < count:
                        for _, piece in await answers.receive():
                            if isinstance(piece, Exception):
                                return
                            ended += piece.finish_reason is not None
            finally:
                charge.leave()

    def check(world):
        assert is_whole(world.account)
        # A prompt of three or, once it was reported, seven; and at most two tokens of each choice.
        assert world.account.token_budget.spent <= 7 + 2 * count

    assert cancel_everywhere(World.scenario, fresh=World, check=check).cancelled > 1


@given(
    limit=st.integers(1, 60),
    prompts=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 10), st.integers(0, 20)), min_size=1, max_size=4),
    inputs=st.integers(0, 30),
)
def test_a_reservation_covers_all_choices_or_none(limit, prompts, inputs):
    account = account_of(budget_tokens=limit)

    async def main():
        charge, batches = charge_of(account), []
        charge.enter()
        for count, max_tokens, length in prompts:
            batches += batches_of(meter_of(charge), count, max_tokens, length)
        most = sum(length + count * max_tokens for count, max_tokens, length in prompts)
        try:
            with reserved(batches):
                assert (account.open, account.token_budget.reserved) == (1, most)
                assert most <= limit
                charge.leave()
                # The answers hold the place.
                assert account.open == 1
        except InferenceError:
            assert most > limit
        charge.leave()
        assert is_whole(account)
        assert account.token_budget.spent == 0

    trio.run(main)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans()), min_size=1, max_size=5))
def test_the_choices_of_a_prompt_pay_for_it_once(answers):
    meter = meter_of(None)
    batches = batches_of(meter, len(answers))
    for batch, (taken, made, failed) in zip(batches, answers, strict=True):
        tokens = Tokens(usage=TokenUsage(taken, made), token_ids=list(range(made)))
        meter.record(batch, tokens, failed=failed)
    counted = [(taken if (taken, made) != (0, 0) else 3, made) for taken, made, failed in answers if made or not failed]
    assert meter.used.tokens == max((taken for taken, _ in counted), default=0) + sum(made for _, made in counted)


def test_batches_without_a_meter_cost_nobody():
    with reserved([attrs.evolve(batch, metadata={}) for batch in batches_of(None, 2)]):
        pass
    meter = meter_of(None)
    with reserved(batches_of(meter, 2)):
        pass
    assert meter.used == Cost()
