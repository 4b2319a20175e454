"""The two servers of `gateway.py`, each a process of its own: what they stream costs nothing to make.

    python _gateway_sides.py ours|starlette --pace SECONDS --ahead N --core N

prints its URL and serves until it is ended. Both tell ``max_tokens`` tokens to a chat request, a write each if they
can, in the same JSON. ``--pace`` is the time for each token; then one task makes those of all streams, as an engine
does. ``--ahead`` makes so many at a time: whoever merges what is pending writes less often.
"""

import argparse
import heapq
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Callable

WORD = "token "
NAME = "bench"
MOST = 4096
"""Connections and requests at once, for both."""

IDLE_S = 0.005


class Pacer:
    """Whose turn it is to speak: the same for both, so that nobody pays for a timer of each stream."""

    def __init__(self, pace: float) -> None:
        self.pace = pace
        self.due: list[tuple[float, int, Callable[[], bool]]] = []
        self.numbers = itertools.count()

    def add(self, speak: Callable[[], bool], now: float) -> None:
        """Have ``speak`` called now, and every ``pace`` seconds for as long as it returns true."""
        if speak():
            heapq.heappush(self.due, (now + self.pace, next(self.numbers), speak))

    def turn(self, now: float) -> float:
        """Call who is due; return how many seconds nobody will be."""
        while self.due and self.due[0][0] <= now:
            when, number, speak = self.due[0]
            if speak():
                heapq.heapreplace(self.due, (when + self.pace, number, speak))
            else:
                heapq.heappop(self.due)
        return min(IDLE_S, self.due[0][0] - now) if self.due else IDLE_S


async def ours(pace: float, ahead: int) -> None:
    import trio

    from atomr_trio.actor import Props
    from atomr_trio.core import Deployment, ModelRunner, Serving, TokenChunk, shorten_pauses
    from atomr_trio.gateway import GatewaySettings, ServerSettings
    from atomr_trio.gateway.actor import ApiGatewayActor, GatewayConfig
    from atomr_trio.runtime import Cluster

    pacer = Pacer(pace * ahead)

    async def beat() -> None:
        while True:
            pause = pacer.turn(trio.current_time())
            await trio.sleep(pause)

    class Source(ModelRunner):
        async def execute(self, batch, out) -> None:  # type: ignore[no-untyped-def]
            left, over = batch.sampling.max_tokens, trio.Event()

            def speak() -> bool:
                nonlocal left
                for _ in range(min(left, ahead)):
                    left -= 1
                    out.push(TokenChunk(text_delta=WORD, token_ids=(1,)))
                if not left:
                    over.set()
                return left > 0

            if pace:
                pacer.add(speak, trio.current_time())
                await over.wait()
            else:
                while speak():
                    await trio.lowlevel.checkpoint()

    async def create(_deployment: Deployment) -> ModelRunner:
        return Source()

    async with Cluster.open(create_runner=create) as cluster, trio.open_nursery() as nursery:
        nursery.start_soon(beat)
        serving = Serving(max_concurrent=MOST, queue_capacity=MOST)
        await cluster.deploy(Deployment(name=NAME, model=NAME, runtime="source", serving=serving))
        actor = ApiGatewayActor(
            GatewayConfig(port=0, app=GatewaySettings(access_log=False), server=ServerSettings(max_connections=MOST)),
            cluster.directory,
        )
        await cluster.system.actor_of(Props(factory=lambda: actor), "gateway")
        shorten_pauses()
        print(actor.urls[0], flush=True)
        await trio.sleep_forever()


def starlette(pace: float, ahead: int) -> None:
    import asyncio
    import socket

    import msgspec
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    encode = msgspec.json.Encoder().encode
    ids = itertools.count()

    def chunk(id: str, delta: dict[str, str], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        body = {"id": id, "object": "chat.completion.chunk", "created": int(time.time()), "model": NAME}
        return b"data: %b\n\n" % encode({**body, "choices": [choice], "system_fingerprint": None})

    pacer = Pacer(pace * ahead)

    async def beat() -> None:
        while True:
            pause = pacer.turn(time.monotonic())
            await asyncio.sleep(pause)

    async def paced(count: int) -> AsyncIterator[str]:
        said, left = asyncio.Queue[str](), count

        def speak() -> bool:
            nonlocal left
            for _ in range(min(left, ahead)):
                left -= 1
                said.put_nowait(WORD)
            return left > 0

        pacer.add(speak, time.monotonic())
        for _ in range(count):
            yield await said.get()

    async def events(id: str, count: int) -> AsyncIterator[bytes]:
        yield chunk(id, {"role": "assistant"}, None)
        if pace:
            async for word in paced(count):
                yield chunk(id, {"content": word}, None)
        else:
            for number in range(count):
                if number % ahead == 0:
                    await asyncio.sleep(0)
                yield chunk(id, {"content": WORD}, None)
        yield chunk(id, {}, "stop")
        yield b"data: [DONE]\n\n"

    async def chat(request: Request) -> Response:
        given = msgspec.json.decode(await request.body())
        id, count = f"chatcmpl-{next(ids)}", given["max_tokens"]
        if given.get("stream"):
            return StreamingResponse(events(id, count), media_type="text/event-stream")
        message = {"role": "assistant", "content": WORD * count}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return Response(encode({"id": id, "model": NAME, "choices": [choice]}), media_type="application/json")

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    # By address, as users start it: a socket of ours would not get TCP_NODELAY from asyncio.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = uvicorn.Config(
        app, port=port, backlog=2048, http="h11", loop="asyncio", lifespan="off", log_level="error", access_log=False
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.beat = asyncio.create_task(beat())
            print(f"http://127.0.0.1:{port}", flush=True)

    Server(config).run()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "starlette"])
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--ahead", type=int, default=1)
    parser.add_argument("--core", type=int, default=None)
    options = parser.parse_args()
    if options.core is not None and sys.platform == "linux":
        os.sched_setaffinity(0, {options.core})
    if options.side == "starlette":
        starlette(options.pace, options.ahead)
    else:
        import trio

        trio.run(ours, options.pace, options.ahead)


if __name__ == "__main__":
    main()
