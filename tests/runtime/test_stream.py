"""The token path: one end, nothing lost, nothing after the end."""

import pytest
import trio
from attrs import evolve, fields
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import CudaContextPoisoned, Embedding, FinishReason, TokenChunk, TokenLogprob, TokenUsage
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
    expected, end, calls, ends = "", None, [], []
    stream.call_on_cancel(calls.append)
    stream.call_on_end(lambda: ends.append(stream.ended))
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
    assert ends == [True]
    stream.call_on_end(lambda: ends.append("at once"))
    assert ends == [True, "at once"]
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


CHUNKS = st.one_of(
    st.builds(TokenChunk, token_ids=st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple)),
    st.builds(TokenChunk, text_delta=st.text("ab", min_size=1)),
    st.builds(TokenChunk, usage=st.builds(TokenUsage, output_tokens=st.integers(0, 4))),
    # The usage of a last chunk is that of the whole answer.
    st.just(TokenChunk(usage=TokenUsage(3, 50), finish_reason=FinishReason.STOP)),
)


def made(chunk):
    if chunk.finish_reason is not None:
        return 0
    return len(chunk.token_ids) or int(bool(chunk.text_delta)) or chunk.usage.output_tokens


@given(before=st.lists(CHUNKS, max_size=3), after=st.lists(CHUNKS, max_size=5), end=ENDS)
def test_tokens_for_who_has_left_are_counted_and_no_others(before, after, end):
    stream, told = TokenStream("r"), []
    stream.call_when_late(told.append)
    for chunk in before:
        stream.push(chunk)
    match end:
        case "cancel":
            stream.cancel("left")
        case "fail":
            stream.fail(CudaContextPoisoned("x"))
        case _:
            stream.finish()
    for chunk in after:
        stream.push(chunk)
    late = [made(chunk) for chunk in after] if stream.cancel_reason else []
    assert stream.late_tokens == sum(late) == sum(told)
    assert all(told)


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


@pytest.mark.parametrize("end", ["finish", "start"])
async def test_who_waits_for_the_start_before_an_engine_has_the_stream_is_woken(end):
    stream, woken = TokenStream("r"), trio.Event()

    async def wait():
        await stream.wait_started()
        woken.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked()
            stream.lend()
        await trio.testing.wait_all_tasks_blocked()
        assert not woken.is_set()
        if end == "start":
            stream.mark_started()
        else:
            stream.finish()
        with trio.fail_after(1):
            await woken.wait()


@given(before=st.lists(st.text(max_size=2), max_size=3), stop=st.none() | st.text("ab", min_size=1))
async def test_the_stop_string_of_the_last_chunk_arrives_however_it_is_merged(before, stop):
    stream = TokenStream("r")
    for text in before:
        stream.push(TokenChunk(text_delta=text))
    stream.push(TokenChunk(text_delta="x", finish_reason=FinishReason.STOP, stop_string=stop))
    assert (await stream.receive()).stop_string == stop
    assert stream.tokens.stop_string == stop


@given(sizes=st.lists(st.integers(0, 2), max_size=4), at=st.integers(0, 4))
async def test_what_is_known_of_the_prompt_arrives_once_however_it_is_merged(sizes, at):
    details = (TokenLogprob("a", b"a", 0.0, id=1), TokenLogprob("b", b"b", -1.0, id=2))
    stream = TokenStream("r")
    for number, size in enumerate(sizes):
        stream.push(TokenChunk(text_delta="x" * size, prompt_details=details if number == at else ()))
    stream.push(TokenChunk(finish_reason=FinishReason.STOP, prompt_details=details if at >= len(sizes) else ()))
    assert (await stream.receive()).prompt_details == details
    assert stream.tokens.prompt_details == details


FULL = TokenChunk(
    request_id="another",
    text_delta="a",
    token_ids=(1,),
    logprobs=(-0.5,),
    details=(TokenLogprob("a", b"a", -0.5),),
    prompt_details=(TokenLogprob("p", b"p", -0.5),),
    tool_call_delta={"index": 0},
    embedding=Embedding.of([1.0, 2.0]),
    usage=TokenUsage(1, 2),
    finish_reason=FinishReason.STOP,
    stop_string="s",
)


async def test_every_field_of_a_chunk_arrives_alone_and_merged():
    assert all(getattr(FULL, field.name) != field.default for field in fields(TokenChunk))
    for before in (0, 1):
        stream = TokenStream("r")
        for _ in range(before):
            stream.push(TokenChunk(text_delta="b"))
        stream.push(FULL)
        assert await stream.receive() == evolve(FULL, request_id="r", text_delta="b" * before + "a")


async def test_an_embedding_arrives_however_it_is_merged():
    embedding = Embedding.of([1.0, 2.0])
    stream = TokenStream("r", input_tokens=3)
    stream.push(TokenChunk(embedding=embedding))
    stream.finish()
    chunk = await stream.receive()
    assert (chunk.embedding, chunk.finish_reason, chunk.usage) == (embedding, FinishReason.STOP, TokenUsage(3, 0))
    assert stream.tokens.embedding == embedding
