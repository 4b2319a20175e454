"""`atomr-trio bench`: throughput and latency of a model, served here or by any server with the OpenAI API."""

import json
import os
import random
from collections.abc import Callable
from math import inf
from typing import Any

import click
import trio
from attrs import fields

from ._bench_plan import Plan, measure_local, measure_url
from ._bench_show import show
from ._bench_stats import Goals, LoadPoint
from ._bench_url import Remote
from ._bench_wire import ENDPOINTS
from ._exits import FAILED, exits
from ._model import ModelOptions, model_options

__all__ = ["bench"]


def _numbers(
    each: type[int] | type[float],
) -> Callable[[click.Context, click.Parameter, str | None], tuple[float, ...]]:
    """Return what reads positive numbers with commas between them."""

    def read(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[float, ...]:
        try:
            numbers = tuple(each(item) for item in text.split(",")) if text is not None else ()
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not a list of numbers with commas between them") from error
        if not all(0 < number < inf for number in numbers):
            raise click.BadParameter(f"the numbers of {text!r} must be positive")
        return numbers

    return read


@click.command()
@model_options
@click.option("--url", help="Measure the server at this address instead of serving a model here.")
@click.option("--model", "remote_model", help="The server's name for the model.  [default: the first that it lists]")
@click.option("--api-key-env", metavar="VAR", help="The environment variable that holds the server's key.")
@click.option(
    "--endpoint",
    type=click.Choice(tuple(ENDPOINTS)),
    default="completions",
    show_default=True,
    help="What the server is asked for; chat prompts are words, so of about the length asked for.",
)
@click.option("--text", is_flag=True, help="Send words and not token ids, for servers that refuse these.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=600.0, help="Seconds a request may take.")
@click.option("--prompt-tokens", "-p", type=click.IntRange(1), default=64, show_default=True)
@click.option("--output-tokens", "-n", type=click.IntRange(1), default=64, show_default=True)
@click.option("--shared-prefix", type=click.IntRange(0), default=0, help="So many tokens of all prompts are the same.")
@click.option(
    "--concurrency",
    "-c",
    metavar="N[,N…]",
    callback=_numbers(int),
    help="Streams that are always busy: one number or several, as in 1,8,32.  [default: 1,8 without --rate]",
)
@click.option(
    "--rate",
    metavar="R[,R…]",
    callback=_numbers(float),
    help="Requests a second that arrive at random (Poisson): one number or several.",
)
@click.option("--requests", type=click.IntRange(1), help="Of each load.  [default: 4 a stream and at least 8; 32]")
@click.option("--warmup", type=click.IntRange(0), help="Requests before each load that do not count.")
@click.option("--ignore-eos/--no-ignore-eos", default=True, help="Generate all tokens, whatever the model says.")
@click.option("--seed", type=int, help="Of prompts and arrivals; drawn if not given, so that no cache knows them.")
@click.option("--ttft-goal", type=click.FloatRange(0), metavar="MS", help="Count requests that meet it as goodput.")
@click.option("--tpot-goal", type=click.FloatRange(0), metavar="MS", help="The same for the time per token.")
@click.option(
    "--bandwidth", type=click.FloatRange(0, min_open=True), metavar="GB/S", help="Of the memory.  [default: measured]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def bench(as_json: bool, **options: Any) -> None:
    """Measure how fast MODEL is served.

    Without --url the model is served by this command itself, without HTTP; with it, any server that speaks the
    OpenAI API is measured. The prompts are random, so that no prefix cache helps; --shared-prefix lets it.

    TTFT is the time to the first chunk, TPOT the time per token after it, ITL the time between chunks. The exit status
    is 1 if a request failed.
    """
    plan, remote = _plan(options), _remote(options)
    with exits():
        if remote is None:
            report = trio.run(measure_local, plan, _served(options))
        else:
            report = trio.run(measure_url, plan, remote, options["text"] or remote.endpoint == "chat")
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        show(report)
    if any(row.failed for row in report.rows):
        raise SystemExit(FAILED)


def _plan(options: dict[str, Any]) -> Plan:
    loads = [LoadPoint("rate", rate) for rate in options["rate"]]
    streams = options["concurrency"] or (() if loads else (1, 8))
    return Plan(
        prompt_tokens=options["prompt_tokens"],
        output_tokens=options["output_tokens"],
        shared_prefix=options["shared_prefix"],
        loads=(*(LoadPoint("concurrency", number) for number in streams), *loads),
        requests=options["requests"],
        warmup=options["warmup"],
        ignore_eos=options["ignore_eos"],
        seed=random.getrandbits(32) if options["seed"] is None else options["seed"],
        goals=Goals(_seconds(options["ttft_goal"]), _seconds(options["tpot_goal"])),
        bandwidth=None if options["bandwidth"] is None else 1e9 * options["bandwidth"],
    )


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _remote(options: dict[str, Any]) -> Remote | None:
    if options["url"] is None:
        if options["remote_model"] or options["api_key_env"]:
            raise click.UsageError("--model and --api-key-env go with --url; a model to serve here is an argument")
        return None
    return Remote(
        url=options["url"],
        model=options["remote_model"] or options["model"],
        api_key=_api_key(options["api_key_env"]),
        endpoint=options["endpoint"],
        output_tokens=options["output_tokens"],
        ignore_eos=options["ignore_eos"],
        timeout=options["timeout"],
    )


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise click.BadParameter(f"the environment has no {variable}", param_hint="--api-key-env")
    return key


def _served(options: dict[str, Any]) -> ModelOptions:
    return ModelOptions(**{field.name: options[field.name] for field in fields(ModelOptions) if field.name in options})
