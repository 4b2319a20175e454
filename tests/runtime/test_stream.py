"""The token path: one end, nothing lost, nothing after the end."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import CudaContextPoisoned, FinishReason, TokenChunk, TokenUsage
from atomr_trio.runtime.stream import UNREAD_CHUNKS, TokenStream

ENDS = st.sampled_from(["finish", "chunk", "fail", "cancel"])
WRITES = st.lists(st.one_of(st.text(max_size=3), ENDS.map(lambda name: (name,)), st.none()), max_size=30)


async def read_all(stream):
    text, usage = "", []
    try:
        while True:
            chunk = await stream.receive()
            text += chunk.text_delta
            usage += [chunk.usage] if chunk.usage else []
    except StopAsyncIteration:
        return text, usage, None
    except CudaContextPoisoned as error:
        return text, usage, error


@given(writes=WRITES, last=ENDS, _seed=st.random_module())
async def test_the_first_terminal_event_wins_and_everything_before_it_arrives(writes, last, _seed):
    stream = TokenStream("r", input_tokens=3)
    expected, end, calls = "", None, []
    stream.call_on_cancel(calls.append)
    results = []

    async with trio.open_nursery() as nursery:

        async def reader():
            results.append(await read_all(stream))

        nursery.start_soon(reader)
        for write in [*writes, (last,)]:
            match write:
                case None:
                    await trio.lowlevel.checkpoint()
                case str():
                    stream.push(TokenChunk(text_delta=write))
                    expected += write if end is None else ""
                case ("finish",):
                    stream.finish()
                case ("chunk",):
                    stream.push(TokenChunk(text_delta="!", finish_reason=FinishReason.LENGTH))
                    expected += "!" if end is None else ""
                case ("fail",):
                    stream.fail(CudaContextPoisoned("x"))
                case ("cancel",):
                    stream.cancel("left")
            if isinstance(write, tuple):
                end = end or write[0]
    ((text, usage, error),) = results
    assert text == stream.tokens.text == expected
    assert (error is not None) is (end == "fail")
    assert calls == {"fail": ["CUDA context poisoned: x"], "cancel": ["left"]}.get(end, [])
    assert stream.cancel_reason == ("left" if end == "cancel" else None)
    assert len(usage) == (end in ("finish", "chunk"))


async def test_a_slow_reader_gets_one_merged_chunk_and_holds_only_the_polite_writer():
    stream = TokenStream("r")
    written = []

    async def polite():
        for i in range(UNREAD_CHUNKS + 10):
            await stream.send(TokenChunk(text_delta="a", token_ids=(i,)))
            written.append(i)
        stream.finish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(polite)
        await trio.testing.wait_all_tasks_blocked()
        assert len(written) == UNREAD_CHUNKS
        stream.push(TokenChunk(text_delta="b"))  # a pushing writer is never held
        chunk = await stream.receive()
        assert chunk.text_delta == "a" * UNREAD_CHUNKS + "b"
        assert chunk.token_ids == tuple(range(UNREAD_CHUNKS))
        await trio.testing.wait_all_tasks_blocked()
        chunk = await stream.receive()
        assert (chunk.text_delta, chunk.finish_reason) == ("a" * 10, FinishReason.STOP)
        assert chunk.usage == TokenUsage(0, UNREAD_CHUNKS + 10)
        with pytest.raises(StopAsyncIteration):
            await stream.receive()


async def test_a_waiting_writer_is_freed_by_the_end():
    stream = TokenStream("r")

    async def write_for_ever():
        while not stream.ended:
            await stream.send(TokenChunk(text_delta="a"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_for_ever)
        await trio.testing.wait_all_tasks_blocked()
        stream.cancel("left")
    assert stream.dropped == 1


async def test_cancelling_late_still_calls_back():
    stream, calls = TokenStream("r"), []
    stream.cancel("left")
    stream.call_on_cancel(calls.append)
    assert calls == ["left"]


async def test_everybody_who_waits_for_more_is_told(autojump_clock):
    stream, heard = TokenStream("r"), []

    async def wait(name, tokens):
        await stream.wait_told(tokens)
        heard.append((name, len(stream.tokens.token_ids)))

    async with trio.open_nursery() as nursery:
        for name, tokens in (("one", 0), ("another", 0), ("late", 1), ("never", 9)):
            nursery.start_soon(wait, name, tokens)
        await trio.sleep(1)
        stream.push(TokenChunk(token_ids=(5,)))
        await trio.sleep(1)
        stream.push(TokenChunk(token_ids=(6,)))
        await trio.sleep(1)
        stream.finish()
    assert sorted(heard) == [("another", 1), ("late", 2), ("never", 2), ("one", 1)]
