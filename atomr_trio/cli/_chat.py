"""`atomr-trio chat`: talk to a model in the terminal, without a server."""

import signal
import sys
import uuid
from typing import Any

import click
import trio
from attrs import define, field

from atomr_trio.core import (
    Deployment,
    ExecuteBatch,
    InferenceError,
    Message,
    Role,
    SamplingParams,
    TokenUsage,
)
from atomr_trio.runners import RunnerRegistry
from atomr_trio.runtime import Cluster

from ._exits import exits
from ._launch import Loading, prepare
from ._model import ModelOptions, model_options

__all__ = ["chat"]

HELP = "/stats  /reset  /help  /exit   (Ctrl-C stops an answer, Ctrl-D leaves)"


@click.command()
@model_options
@click.option("--system", "system_prompt", help="A system message to begin with.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.7, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True)
@click.option("--seed", type=int)
def chat(system_prompt: str | None, temperature: float, max_tokens: int, seed: int | None, **options: Any) -> None:
    """Talk to MODEL in the terminal.

    MODEL is a catalogue name, the path of a GGUF file or of a Hugging Face folder, or hf:ORG/REPO/FILE.gguf.
    """
    with exits():
        deployment, registry = prepare(ModelOptions(**options))
        sampling = SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=seed)
        opening = [Message(Role.SYSTEM, system_prompt)] if system_prompt else []
        trio.run(_chat, deployment, registry, _Conversation(deployment.name, sampling, opening))


@define
class _Stats:
    answers: int = 0
    usage: TokenUsage = field(factory=TokenUsage)
    first_token_s: float = 0.0
    decode_s: float = 0.0

    def __str__(self) -> str:
        if not self.answers:
            return "no answers yet"
        # The first token is the prompt's; the rate is that of the others.
        decoded = self.usage.output_tokens - self.answers
        rate = decoded / self.decode_s if self.decode_s and decoded > 0 else 0.0
        return (
            f"{self.answers} answers, {self.usage.input_tokens} prompt tokens, {self.usage.output_tokens} tokens; "
            f"first token after {1000 * self.first_token_s / self.answers:.0f} ms, then {rate:.1f} tokens/s"
        )


@define
class _Conversation:
    model: str
    sampling: SamplingParams
    opening: list[Message]
    turns: list[Message] = field(factory=list[Message])
    stats: _Stats = field(factory=_Stats)
    answering: trio.CancelScope | None = None

    async def answer(self, cluster: Cluster, text: str) -> None:
        """Stream one answer to standard output; an interrupted one stays in the conversation."""
        self.turns.append(Message(Role.USER, text))
        batch = ExecuteBatch(
            request_id=f"chat-{uuid.uuid4().hex}",
            model=self.model,
            messages=(*self.opening, *self.turns),
            sampling=self.sampling,
            stream=True,
        )
        said: list[str] = []
        with trio.CancelScope() as self.answering:
            try:
                await self._stream(cluster, batch, said)
            except InferenceError as error:
                click.echo(f"\n{error}", err=True)
        self.answering = None
        click.echo()
        self.turns.append(Message(Role.ASSISTANT, "".join(said)))

    async def _stream(self, cluster: Cluster, batch: ExecuteBatch, said: list[str]) -> None:
        started = trio.current_time()
        first: float | None = None
        usage = TokenUsage()
        async with cluster.execute_stream(batch) as chunks:
            async for chunk in chunks:
                first = first or trio.current_time()
                said.append(chunk.text_delta)
                click.echo(chunk.text_delta, nl=False)
                sys.stdout.flush()
                usage = chunk.usage or usage
        first = first or trio.current_time()
        self.stats.answers += 1
        self.stats.usage += usage
        self.stats.first_token_s += first - started
        self.stats.decode_s += trio.current_time() - first

    def command(self, line: str) -> bool:
        """Obey a slash command; returns whether to go on."""
        match line.split()[0]:
            case "/exit" | "/quit":
                return False
            case "/stats":
                click.echo(str(self.stats))
            case "/reset":
                self.turns.clear()
            case _:
                click.echo(HELP)
        return True

    def interrupt(self) -> bool:
        """Stop the answer that is being given; returns whether there was one."""
        if self.answering is None:
            return False
        self.answering.cancel(reason="Ctrl-C")
        return True


async def _chat(deployment: Deployment, registry: RunnerRegistry, conversation: _Conversation) -> None:
    loading = Loading(registry)
    async with Cluster.open(create_runner=loading.create) as cluster, trio.open_nursery() as nursery:
        nursery.start_soon(_obey_interrupts, conversation, nursery.cancel_scope)
        await loading.deploy(cluster, deployment)
        if sys.stdin.isatty():
            click.echo(f"{deployment.name} ({loading.describe()})\n{HELP}" if loading.describe() else HELP)
        await _talk(cluster, conversation)
        nursery.cancel_scope.cancel(reason="the conversation is over")


async def _talk(cluster: Cluster, conversation: _Conversation) -> None:
    while (line := await trio.to_thread.run_sync(_read_line, abandon_on_cancel=True)) is not None:
        if line.startswith("/"):
            if not conversation.command(line):
                return
        elif line.strip():
            await conversation.answer(cluster, line)


def _read_line() -> str | None:
    """Read a line from the terminal, or from a pipe; ``None`` at its end."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None


async def _obey_interrupts(conversation: _Conversation, everything: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if number != signal.SIGINT or not conversation.interrupt():
                everything.cancel(reason=signal.Signals(number).name)
