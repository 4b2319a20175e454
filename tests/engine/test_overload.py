"""More than fits: a small pool and a short queue, many mixed requests. All end right, and nothing is left."""

import random
from collections import deque

import pytest
from attrs import define
from engine_kit import CONFIG, MAX_LEN, alone, request, tiny_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import Backpressure, FinishReason
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.frames import SequenceRequest

PAGES = 20
"""Of 4 tokens: little more than the longest request takes alone."""
REFERENCES = 10
"""Asked again, alone, from each flood."""


@pytest.fixture(scope="module")
def engine(programs_dir):
    engine = Engine(tiny_settings(programs_dir, max_num_seqs=4, kv_tokens=4 * PAGES, max_waiting=6))
    engine.load()
    yield engine
    engine.close()


@define
class Client:
    """One request, and how many of its tokens the client reads before it leaves; ``None``: it stays."""

    wanted: SequenceRequest
    leaves_after: int | None


def draw_clients(drawn, requests):
    clients = []
    for number in range(requests):
        prompt = [drawn.randrange(3, CONFIG.vocab_size) for _ in range(drawn.randint(1, 40))]
        tokens = drawn.randint(1, MAX_LEN - len(prompt))
        sampled = {"temperature": 0.9, "top_p": 0.95, "seed": number} if drawn.random() < 0.4 else {}
        wanted = request(number, prompt, tokens, priority=drawn.choice((-1, 0, 0, 1)), **sampled)
        leaves = drawn.randrange(tokens) if drawn.random() < 0.15 else None
        clients.append(Client(wanted, leaves))
    return clients


def flood(engine, clients):
    """All come at once; those that are refused come again after a step. Returns tokens, last outputs, refusals."""
    coming, open_clients = deque(clients), {}
    tokens, last, refused = {client.wanted.id: [] for client in clients}, {}, 0
    for _ in range(5_000):
        while coming:
            try:
                engine.add(coming[0].wanted)
            except Backpressure:
                refused += 1
                break
            client = coming.popleft()
            open_clients[client.wanted.id] = client
        if engine.idle and not coming:
            return tokens, last, refused
        for output in engine.step().outputs:
            tokens[output.id] += output.token_ids
            last[output.id] = output
            client = open_clients[output.id]
            enough = client.leaves_after is not None and len(tokens[output.id]) >= client.leaves_after
            if enough and output.finish_reason is None:
                engine.abort(output.id)
    raise AssertionError("every request ends")


def check_ends(clients, tokens, last):
    for client in clients:
        wanted = client.wanted
        if client.leaves_after is None:
            assert last[wanted.id].finish_reason is FinishReason.LENGTH
            assert len(tokens[wanted.id]) == wanted.max_tokens


# A seed and not lists of requests: what is shrunk would no longer be a flood.
@settings(max_examples=4)
@given(st.integers(0, 2**32))
def test_all_end_right_and_nothing_is_left(engine, seed):
    drawn, before = random.Random(seed), engine.preemptions
    clients = draw_clients(drawn, 60)
    tokens, last, refused = flood(engine, clients)
    assert refused, "the queue was long enough"
    assert engine.preemptions > before, "the pool was large enough"
    check_ends(clients, tokens, last)
    assert (engine.running, engine.waiting, engine.free_pages) == (0, 0, PAGES)
    stayed = [client.wanted for client in clients if client.leaves_after is None]
    for wanted in drawn.sample(stayed, REFERENCES):
        assert alone(engine, wanted) == tokens[wanted.id]
    assert engine.free_pages == PAGES
