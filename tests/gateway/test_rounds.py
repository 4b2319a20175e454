"""Streams written in rounds: the bytes of a task for each stream, with less ado, and nobody's trouble is another's."""

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.gateway.pump import EventBody, pump
from atomr_trio.gateway.rounds import Rounds

HEARTBEAT = 10.0
PIECE = st.binary(min_size=1, max_size=4)


class Body(EventBody):
    """What `say` says; ``None`` is its end, an exception its failure."""

    heartbeat = HEARTBEAT

    def __init__(self, *, watchable=True):
        self.said, self.over, self.call, self.watchable, self.released = [], False, None, watchable, 0
        self.news = trio.Event()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    @property
    def has_news(self):
        return bool(self.said)

    @property
    def is_over(self):
        return self.over

    async def let_go(self):
        self.released += 1

    def say(self, piece):
        self.said.append(piece)
        self.news.set()
        if self.call is not None:
            self.call()

    def watch(self, call):
        self.call = call
        if call is not None and self.said:
            call()
        return self.watchable

    def take(self):
        said, self.said = self.said, []
        for piece in said:
            if isinstance(piece, Exception):
                raise piece
        if None in said:
            self.over = True
        return b"".join(piece or b"." for piece in said)

    async def __anext__(self):
        while not self.said:
            if self.over:
                raise StopAsyncIteration
            self.news = trio.Event()
            await self.news.wait()
        return self.take()


@attrs.define
class Socket:
    """Takes up to so many bytes without waiting."""

    rounds: Rounds | None
    room: int = 1000
    taken: list = attrs.field(factory=list)

    def now(self, piece):
        self.taken.append(piece[: self.room])
        return piece[self.room :]

    async def rest(self, data):
        await trio.lowlevel.checkpoint()
        self.taken.append(data)

    @property
    def text(self):
        return b"".join(self.taken)


async def run_pumps(nursery, pairs):
    for body, socket in pairs:
        nursery.start_soon(pump, body, socket)
    await trio.testing.wait_all_tasks_blocked()


@given(
    st.lists(st.lists(st.lists(PIECE, max_size=3), max_size=5), min_size=1, max_size=4),
    st.sampled_from([1, 3, 1000]),
    st.booleans(),
    st.random_module(),
)
def test_each_stream_gets_all_it_was_told_in_order_and_once(told, room, watchable, _seed):
    async def main():
        rounds = Rounds()
        pairs = [(Body(watchable=watchable), Socket(rounds, room)) for _ in told]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rounds.run)
            await run_pumps(nursery, pairs)
            for at in range(max(map(len, told))):
                for (body, _), passes in zip(pairs, told, strict=True):
                    for piece in passes[at] if at < len(passes) else ():
                        body.say(piece)
                await trio.lowlevel.checkpoint()
            for body, _ in pairs:
                body.say(None)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            nursery.cancel_scope.cancel(reason="all streams have ended")
        for (body, socket), passes in zip(pairs, told, strict=True):
            said = b"".join(piece for one in passes for piece in one)
            assert socket.text == body.ping + said + b"."
            assert body.released == 1

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_what_comes_in_one_pass_is_one_write(autojump_clock):
    rounds = Rounds()
    pairs = [(Body(), Socket(rounds)) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rounds.run)
        await run_pumps(nursery, pairs)
        for body, _ in pairs:
            for piece in b"a", b"b", b"c":
                body.say(piece)
        await trio.testing.wait_all_tasks_blocked()
        assert [socket.taken[1:] for _, socket in pairs] == [[b"abc"]] * 3
        nursery.cancel_scope.cancel(reason="enough")


async def test_the_failure_of_a_stream_is_its_own(autojump_clock):
    rounds = Rounds()
    (bad, _), (good, heard) = pairs = [(Body(), Socket(rounds)) for _ in range(2)]
    failed = []

    async def pump_badly():
        with pytest.raises(ValueError, match="torn") as error:
            await pump(*pairs[0])
        failed.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rounds.run)
        nursery.start_soon(pump_badly)
        nursery.start_soon(pump, *pairs[1])
        await trio.testing.wait_all_tasks_blocked()
        bad.say(ValueError("torn"))
        good.say(b"whole")
        await trio.testing.wait_all_tasks_blocked()
        assert failed
        assert heard.text.endswith(b"whole")
        assert bad.call is None
        nursery.cancel_scope.cancel(reason="enough")


async def test_silence_is_broken_and_words_put_it_off(autojump_clock):
    rounds = Rounds()
    body, socket = Body(), Socket(rounds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rounds.run)
        await run_pumps(nursery, [(body, socket)])
        await trio.sleep(HEARTBEAT - 1)
        body.say(b"a")
        await trio.sleep(HEARTBEAT - 1)
        assert socket.taken == [body.ping, b"a"]
        await trio.sleep(2)
        assert socket.taken == [body.ping, b"a", body.ping]
        nursery.cancel_scope.cancel(reason="enough")


async def test_who_left_is_not_written_to(autojump_clock):
    rounds = Rounds()
    body, socket = Body(), Socket(rounds)
    scope = trio.CancelScope()

    async def leave():
        with scope:
            await pump(body, socket)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rounds.run)
        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        body.say(b"too late")
        scope.cancel(reason="the client has left")
        await trio.testing.wait_all_tasks_blocked()
        body.say(b"much too late")
        await trio.testing.wait_all_tasks_blocked()
        assert b"much" not in socket.text
        assert body.call is None
        nursery.cancel_scope.cancel(reason="enough")
