"""Guides made beside the steps: each request comes out once, with a guide or with a reason, unless it was forgotten."""

import threading

import numpy as np
import pytest
from engine_kit import request
from structured_kit import END, TOKENS, TURN, VOCAB

from atomr_trio.core import Backpressure, BadRequest, Grammar, Internal, Unsupported
from atomr_trio.engine.frames import Vocabulary
from atomr_trio.engine.guiding import Guides
from atomr_trio.grammar.guide import GrammarGuide, Words

VOCABULARY = Vocabulary(TOKENS, [END, TURN], [END])


class Woken:
    def __init__(self):
        self.count = threading.Semaphore(0)

    def __call__(self):
        self.count.release()

    def wait(self):
        assert self.count.acquire(timeout=60)


@pytest.fixture
def woken():
    return Woken()


@pytest.fixture
def guides(woken):
    guides = Guides(VOCAB, 3, woken)
    guides.learn(VOCABULARY)
    return guides


def asked(number, grammar="a|b", kind="regex", **changes):
    return request(number, [1], grammar=Grammar(kind, grammar), **changes)


def test_requests_come_out_once_in_their_order(guides, woken):
    for number in range(3):
        guides.begin(asked(number))
    for _ in range(3):
        woken.wait()
    made = guides.ready()
    assert [one.id for one, _ in made] == [0, 1, 2]
    assert all(isinstance(guide, GrammarGuide) for _, guide in made)
    assert (guides.ready(), guides.busy) == ([], False)


def test_what_was_said_is_followed_already(guides, woken):
    guides.begin(asked(0, "ab|cd", generated=[ord("c")]))
    woken.wait()
    ((_, guide),) = guides.ready()
    mask = guide.allowed([ord("c")])
    assert np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist() == [ord("d")]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({"grammar": "(a"}, BadRequest), ({"kind": "lark"}, BadRequest), ({"generated": [ord("x")]}, BadRequest)],
)
def test_a_reason_instead_of_a_guide(guides, woken, changes, kind):
    guides.begin(asked(0, **changes))
    woken.wait()
    ((_, error),) = guides.ready()
    assert type(error) is kind


def test_a_bug_is_not_told_in_detail(guides, woken, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("at /opt/x")

    monkeypatch.setattr(Words, "guide", fail)
    guides.begin(asked(0))
    woken.wait()
    ((_, error),) = guides.ready()
    assert isinstance(error, Internal)
    assert "/opt" not in str(error)
    assert "ZeroDivisionError" in caplog.text


def test_without_an_end_token_no_answer_is_complete(woken):
    guides = Guides(VOCAB, 3, woken)
    guides.learn(Vocabulary(TOKENS, [], []))
    guides.begin(asked(0))
    woken.wait()
    ((_, error),) = guides.ready()
    assert isinstance(error, Unsupported)


def test_what_is_forgotten_does_not_come_out(guides, woken):
    guides.begin(asked(0))
    assert guides.forget(0)
    assert not guides.forget(0)
    woken.wait()
    assert (guides.ready(), guides.busy) == ([], False)


def test_twice_too_many_and_too_early(guides, woken):
    with pytest.raises(BadRequest):
        Guides(VOCAB, 3, woken).begin(asked(0))
    guides.begin(asked(0))
    with pytest.raises(BadRequest):
        guides.begin(asked(0))
    guides.begin(asked(1))
    guides.begin(asked(2))
    with pytest.raises(Backpressure):
        guides.begin(asked(3))
    assert guides.busy
