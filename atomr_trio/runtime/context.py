"""One incarnation = one open session of the runner (for the JAX engine: one device process)."""

import logging

import trio

from atomr_trio.actor import Actor, ActorRef, Context, leaves
from atomr_trio.core import (
    CudaContextPoisoned,
    ExecuteBatch,
    InferenceError,
    Internal,
    ModelRunner,
    OutOfMemory,
    Unrecoverable,
    Unsupported,
)

from .messages import ContextPoisoned, ContextReady, ContextRestarting, Execute, WorkerMsg

__all__ = ["ContextActor"]

log: logging.Logger = logging.getLogger("atomr_trio.runtime")


class ContextActor(Actor[Execute]):
    """Holds the runner's session open and runs each request in a task of this incarnation."""

    def __init__(self, runner: ModelRunner, worker: ActorRef[WorkerMsg]) -> None:
        self._runner = runner
        self._worker = worker
        self._running: dict[str, Execute] = {}
        self._start_failure: Exception | None = None

    async def pre_start(self, ctx: Context[Execute]) -> None:
        """Open the session; the mailbox keeps what comes meanwhile."""
        self._worker.tell(ContextRestarting())
        opened = trio.Event()
        ctx.spawn_task(self._hold_session, opened, name="session")
        await opened.wait()
        if self._start_failure is not None:
            raise self._start_failure
        self._worker.tell(ContextReady(ctx.incarnation))

    async def handle(self, message: Execute, ctx: Context[Execute]) -> None:
        """Run the request; many run at once."""
        if not message.output.ended:
            self._running[message.output.request_id] = message
            ctx.spawn_task(self._execute, message, name=message.output.request_id)

    async def pre_restart(self, failure: Exception, ctx: Context[Execute]) -> None:
        """Tell the worker which requests died with this incarnation."""
        typed = (leaf for leaf in leaves(failure) if isinstance(leaf, InferenceError))
        error = next(typed, Internal("the engine's context failed"))
        lost = tuple(key for key, message in self._running.items() if not message.output.ended)
        self._worker.tell(ContextPoisoned(error, lost))

    async def _hold_session(self, opened: trio.Event) -> None:
        try:
            async with self._runner.session():
                opened.set()
                await trio.sleep_forever()
        except Exception as failure:
            # Before it is open, the failure is pre_start's to raise: that one waits for the event.
            if opened.is_set():
                raise
            self._start_failure = failure
            opened.set()

    async def _execute(self, message: Execute) -> None:
        output = message.output
        # Whoever ends the stream cancels the runner, with no message in between.
        with trio.CancelScope() as scope:
            forget = output.call_on_cancel(lambda reason: scope.cancel(reason=reason))
            try:
                _check_embed(self._runner, message.batch)
                if message.batch.sampling.grammar is not None:
                    # Known already, unless the runner was not there yet when the request came.
                    await self._runner.check_grammar(message.batch.sampling.grammar)
                _check_tools(self._runner, message.batch)
                await self._runner.execute(message.batch, output)
                output.finish()
            except CudaContextPoisoned:
                # The context dies of it. Whether the request does is the worker's to say.
                raise
            except (OutOfMemory, Unrecoverable) as failure:
                output.fail(failure)
                raise
            except InferenceError as failure:
                output.fail(failure)
            except Exception:
                log.exception("the runner failed on request %s", output.request_id)
                output.fail(Internal("the runner failed"))
            finally:
                forget()
        self._running.pop(output.request_id, None)


def _check_embed(runner: ModelRunner, batch: ExecuteBatch) -> None:
    # Known already, unless the runner was not there yet when the request came.
    if batch.embed and not runner.embeds:
        raise Unsupported("embeddings", runner.runtime_kind)


def _check_tools(runner: ModelRunner, batch: ExecuteBatch) -> None:
    # Whoever reads text for calls has asked for a grammar by now. Nobody else sees to it that there is one.
    required = batch.tools is not None and batch.tools.required
    if required and batch.sampling.grammar is None and not runner.calls_tools:
        raise Unsupported("calls of tools that are required", runner.runtime_kind)
