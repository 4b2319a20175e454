"""A few thousand misbehaving peers against a server in a process of its own; `make fuzz` sends a hundred thousand."""

import pytest

from tests.fuzzing.campaign import Batch, Target, campaign, seeds_of, slope, together
from tests.fuzzing.peer import complaint
from tests.fuzzing.scenarios import KINDS, scenario

PEERS = 2000


async def test_no_peer_harms_the_server():
    told = []
    report = await campaign("suite", PEERS, batch_size=250, tell=told.append)
    assert report.guilty == {}, "\n".join(told)
    assert report.requests == PEERS
    # What a peer leaves behind for good would show as this many bytes for each.
    assert report.slope < 4096


def test_a_seed_makes_the_same_peer_again():
    peers = {number: scenario(f"seed-{number}") for number in range(1500)}
    assert {peer.kind for peer in peers.values()} == set(KINDS)
    for number, peer in peers.items():
        assert scenario(f"seed-{number}") == peer


@pytest.mark.parametrize(
    ("said", "wrong"), [(b"", False), (b"HTTP/1.1 200 \r\n", False), (b"HTTP/1.1 501 \r\n", False)]
)
def test_what_is_no_complaint(said, wrong):
    assert bool(complaint(said)) is wrong


def test_a_failure_behind_other_answers_is_seen():
    assert "500" in complaint(b"HTTP/1.1 200 \r\n\r\nokHTTP/1.1 500 \r\n\r\n")


@pytest.mark.parametrize("seeds", [["a-7"], ["a-b-7", "a-b-8"], [f"a-{number}" for number in range(95, 105)]])
def test_seeds_that_follow_each_other_have_a_name(seeds):
    assert seeds_of(together(seeds)) == seeds


def test_a_seed_alone_is_its_own_name():
    assert seeds_of("a-7") == ["a-7"]


def test_what_a_leak_is():
    server = Target(None, 0, None, {"tasks": 10, "fds": 10, "rss": 0})
    assert server.leaks({"tasks": 10, "fds": 12}) == []
    assert server.leaks({"tasks": 11, "fds": 20}) == ["1 tasks more than at rest", "10 fds more than at rest"]
    assert not Batch(leaks=["something"]).clean
    assert not Batch(errors={"something": 1}).clean


def test_the_slope_of_the_memory():
    assert slope([(0, 5)]) == 0
    assert slope([(0, 100), (10, 120), (20, 140)]) == pytest.approx(2)
    assert slope([(0, 100), (10, 100), (20, 100)]) == 0
