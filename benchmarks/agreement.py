"""What a smaller dtype costs in accuracy: its next tokens and probabilities against those of float32, by position.

Runs the reference texts (prompts and their greedy answers, `tests/data`) through the model once for each dtype, every
position with the true tokens before it (teacher-forced). The table shows on how many positions the most probable token
is the same, and the mean Kullback-Leibler divergence from float32's distribution, in nats; over all positions, and over
those that predict the answers.

    python benchmarks/agreement.py [--models smollm2-135m-instruct gemma3-270m] [--dtypes bfloat16 int8] [--json]
"""

import argparse
import json
import shlex
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
from _serving import machine
from attrs import asdict, frozen

from atomr_trio.catalog import default_catalog, ensure_model
from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.model import forward, init_kv, logits
from atomr_trio.engine.weights import load_gguf_params
from atomr_trio.formats import GgufFile

REFERENCES = Path(__file__).parents[1] / "tests" / "data"
PAGE = 16
MIN_AGREEMENT, MAX_KL = 0.95, 0.02


@frozen
class Result:
    """Shares of positions with the same best token, and mean divergences in nats."""

    model: str
    dtype: str
    positions: int
    agree: float
    kl: float
    answers: int
    answers_agree: float
    answers_kl: float


@partial(jax.jit, static_argnums=(0, 1))
def logprobs(config, dtype, params, tokens, positions, tables):
    kv = init_kv(config, tables.size + 1, PAGE, dtype)
    hidden, _ = forward(config, params, kv, tokens, positions, tables)
    return jax.nn.log_softmax(logits(config, params, hidden))


def score(config, dtype, params, text):
    """Log probabilities ``[len(text), vocab]`` of the token after each. Lengths are rounded up: fewer programs."""
    width = -(-len(text) // 64) * 64
    tokens, positions = np.zeros((1, width), np.int32), np.full((1, width), -1, np.int32)
    tokens[0, : len(text)], positions[0, : len(text)] = text, np.arange(len(text))
    tables = 1 + np.arange(width // PAGE, dtype=np.int32)[None]
    return np.asarray(logprobs(config, dtype, params, tokens, positions, tables)[0, : len(text)])


def compare(exact, near):
    """Where the best tokens agree, and the divergences."""
    return exact.argmax(-1) == near.argmax(-1), (np.exp(exact) * (exact - near)).sum(-1)


def measure(model: str, dtypes: list[str]) -> list[Result]:
    cases = json.loads((REFERENCES / f"{model}.json").read_text())["cases"]
    texts = [case["prompt_ids"] + case["greedy_ids"] for case in cases]
    answers = np.concatenate([np.arange(len(t)) >= len(c["prompt_ids"]) - 1 for t, c in zip(texts, cases, strict=True)])
    with GgufFile.open(ensure_model(default_catalog(), model)) as file:
        config = ModelConfig.from_gguf(file.fields)
        found = {}
        for dtype in ["float32", *dtypes]:
            params = load_gguf_params(file, config, dtype)
            found[dtype] = [score(config, dtype, params, text) for text in texts]
            del params
    return [result(model, dtype, found["float32"], found[dtype], answers) for dtype in dtypes]


def result(model, dtype, exact, near, answers) -> Result:
    pairs = [compare(*pair) for pair in zip(exact, near, strict=True)]
    agree, kl = (np.concatenate([pair[i] for pair in pairs]) for i in range(2))
    means = (float(part.mean()) for part in (agree, kl, agree[answers], kl[answers]))
    agree_all, kl_all, agree_answers, kl_answers = means
    return Result(model, dtype, len(kl), agree_all, kl_all, int(answers.sum()), agree_answers, kl_answers)


def show(results: list[Result], options: argparse.Namespace) -> None:
    command = shlex.join(["python", *sys.argv])
    if options.json:
        print(json.dumps({"machine": machine(), "command": command, "results": [asdict(one) for one in results]}))
        return
    print(f"{machine()}\n{command}\n")
    print(f"{'model':>24} {'dtype':>9} {'positions':>10} {'agree':>7} {'KL':>8} {'answers':>8} {'agree':>7} {'KL':>8}")
    for one in results:
        everywhere = f"{one.positions:>10} {one.agree:>7.1%} {one.kl:>8.4f}"
        on_answers = f"{one.answers:>8} {one.answers_agree:>7.1%} {one.answers_kl:>8.4f}"
        print(f"{one.model:>24} {one.dtype:>9} {everywhere} {on_answers}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["smollm2-135m-instruct", "gemma3-270m"])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "int8"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = [one for model in options.models for one in measure(model, options.dtypes)]
    show(results, options)
    if any(one.answers_agree < MIN_AGREEMENT or one.answers_kl > MAX_KL for one in results):
        sys.exit(f"at least {MIN_AGREEMENT:.0%} of the answers' tokens must agree, with a mean KL below {MAX_KL}")


if __name__ == "__main__":
    main()
