"""The floors: what Trio itself takes for the same work, with nothing of the actor core. Seconds per operation."""

import trio
from _actors_clock import now

BATCH = 1000
"""Messages told at once; it fits the default mailbox of 1024."""


async def tells(count: int) -> float:
    """Batches of `send_nowait`, drained and counted by `receive_nowait` in another task."""
    send, receive = trio.open_memory_channel[int](1024)
    handled, due, drained = 0, 0, trio.Event()

    async def drain() -> None:
        nonlocal handled
        while True:
            await receive.receive()
            handled += 1
            try:
                while True:
                    receive.receive_nowait()
                    handled += 1
            except trio.WouldBlock:
                if handled == due:
                    drained.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        started = now()
        for _ in range(count // BATCH):
            due += BATCH
            drained = trio.Event()
            for number in range(BATCH):
                send.send_nowait(number)
            await drained.wait()
        elapsed = now() - started
        nursery.cancel_scope.cancel(reason="measured")
    return elapsed / (count // BATCH * BATCH)


async def ping_pong(count: int) -> float:
    """One question and one answer over two memory channels between two tasks."""
    to_send, to_receive = trio.open_memory_channel[int](1)
    back_send, back_receive = trio.open_memory_channel[int](1)

    async def answer() -> None:
        while True:
            await back_send.send(await to_receive.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        started = now()
        for number in range(count):
            await to_send.send(number)
            await back_receive.receive()
        elapsed = now() - started
        nursery.cancel_scope.cancel(reason="measured")
    return elapsed / count


async def starts(count: int) -> float:
    """`nursery.start` of a task that opens a nursery, says that it is ready, and waits."""

    async def idle(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery():
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        started = now()
        for _ in range(count):
            await nursery.start(idle)
        elapsed = now() - started
        nursery.cancel_scope.cancel(reason="measured")
    return elapsed / count


async def restarts(count: int) -> float:
    """A message makes a nursery fail; the loop around it catches the group and opens the next one."""
    send, receive = trio.open_memory_channel[int](1)
    ready = trio.Event()

    async def lives() -> None:
        nonlocal ready
        while True:
            try:
                async with trio.open_nursery():
                    ready.set()
                    raise ValueError(await receive.receive())
            except* ValueError:
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lives)
        await ready.wait()
        started = now()
        for number in range(count):
            ready = trio.Event()
            send.send_nowait(number)
            await ready.wait()
        elapsed = now() - started
        nursery.cancel_scope.cancel(reason="measured")
    return elapsed / count
