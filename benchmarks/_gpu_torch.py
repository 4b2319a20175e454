"""One process of `gpu.py`: the same model in PyTorch, the way that is fast there, and prints what it measured as JSON.

A Llama with random weights, a static cache, and a decode step that is compiled as a whole (`torch.compile`, with CUDA
graphs), greedy drawing included; weights fused as ours are. All rows stand at the same position, and attention goes
over the whole cache, which is just as long as the measurement needs. int8 is weight-only, one scale per output channel.
"""

import json
import sys
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WARM_UP = 8


class Linear(nn.Module):
    """Weights `[out, in]` in the model's dtype, or in int8 with a scale for each output channel."""

    def __init__(self, outputs: int, inputs: int, dtype: torch.dtype, *, int8: bool) -> None:
        super().__init__()
        if int8:
            self.register_buffer("weight", torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8))
            self.register_buffer("scale", torch.full((outputs,), 1 / (64 * inputs**0.5), dtype=dtype))
        else:
            self.register_buffer("weight", torch.randn(outputs, inputs, dtype=dtype) / inputs**0.5)
            self.scale = None

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is None:
            return F.linear(x, self.weight)
        return F.linear(x, self.weight.to(x.dtype)) * self.scale


class Block(nn.Module):
    def __init__(self, model: dict[str, Any], dtype: torch.dtype, *, int8: bool, rows: int, time: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.dim = (
            model[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim")
        )
        hidden, inner = model["hidden_size"], model["intermediate_size"]
        wide, narrow = self.heads * self.dim, self.kv_heads * self.dim
        self.qkv = Linear(wide + 2 * narrow, hidden, dtype, int8=int8)
        self.out = Linear(hidden, wide, dtype, int8=int8)
        self.gate_up = Linear(2 * inner, hidden, dtype, int8=int8)
        self.down = Linear(hidden, inner, dtype, int8=int8)
        for name in ("attn_norm", "ffn_norm"):
            self.register_buffer(name, torch.ones(hidden, dtype=dtype))
        for name in ("keys", "values"):
            cache = torch.zeros(rows, self.kv_heads, time, self.dim, dtype=dtype)
            # A graph may then write to it: it will be where it was.
            torch._dynamo.mark_static_address(cache)
            self.register_buffer(name, cache)

    def forward(self, x: Tensor, position: Tensor, rotation: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        x = x + self.out(self.attend(norm(x, self.attn_norm), position, rotation, seen))
        gate, up = self.gate_up(norm(x, self.ffn_norm)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    def attend(self, x: Tensor, position: Tensor, rotation: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        qkv = self.qkv(x).view(x.shape[0], -1, 1, self.dim)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        self.keys.index_copy_(2, position, rotate(k, rotation))
        self.values.index_copy_(2, position, v)
        mixed = F.scaled_dot_product_attention(
            rotate(q, rotation), self.keys, self.values, attn_mask=seen, enable_gqa=True
        )
        return mixed.reshape(x.shape[0], -1)


class Llama(nn.Module):
    def __init__(self, model: dict[str, Any], dtype: torch.dtype, *, int8: bool, rows: int, time: int) -> None:
        super().__init__()
        hidden, vocab = model["hidden_size"], model["vocab_size"]
        self.output = Linear(vocab, hidden, dtype, int8=int8)
        if model["tie_word_embeddings"]:
            self.embed = self.output
        else:
            self.embed = Linear(vocab, hidden, dtype, int8=int8)
        self.blocks = nn.ModuleList(
            Block(model, dtype, int8=int8, rows=rows, time=time) for _ in range(model["num_hidden_layers"])
        )
        half = torch.arange(0, model["head_dim"], 2, dtype=torch.float32)
        self.register_buffer("frequencies", model["rope_theta"] ** (-half / model["head_dim"]))
        self.register_buffer("times", torch.arange(time))
        self.register_buffer("norm", torch.ones(hidden, dtype=dtype))

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """Return the next token of each row `[B]` at one position, i64 `[1]`."""
        angle = position * self.frequencies
        rotation = angle.cos().repeat(2), angle.sin().repeat(2)
        seen = (self.times <= position)[None, None, None]
        x = self.embed.weight[tokens].to(self.norm.dtype)
        if self.embed.scale is not None:
            x = x * self.embed.scale[tokens, None]
        for block in self.blocks:
            x = block(x, position, rotation, seen)
        return self.output(norm(x, self.norm)).argmax(-1)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, eps=1e-5)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x * rotation[0] + turned * rotation[1]).to(x.dtype)


def decode(options: dict[str, Any], rows: int, device: str) -> dict[str, float]:
    steps = options["tokens"]
    time = options["prompt"] + rows + WARM_UP + steps
    int8 = options["dtype"] == "int8"
    dtype = torch.float32 if options["dtype"] == "float32" else torch.bfloat16
    with torch.device(device), torch.inference_mode():
        model = Llama(options["config"], dtype, int8=int8, rows=rows, time=time)
        step = torch.compile(model, mode="reduce-overhead", fullgraph=True) if device == "cuda" else model
        tokens, first = torch.zeros(rows, dtype=torch.int64), options["prompt"] + rows
        positions = torch.arange(time).split(1)
        for position in positions[first : first + WARM_UP]:
            tokens = step(tokens, position).clone()
        synchronize(device)
        started = perf_counter()
        for position in positions[first + WARM_UP :]:
            tokens = step(tokens, position).clone()
        synchronize(device)
        elapsed = perf_counter() - started
    return {
        "streams": rows,
        "tokens_per_s": rows * steps / elapsed,
        "step_ms": 1000 * elapsed / steps,
        "context_tokens": rows * (first + WARM_UP + steps / 2),
    }


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(options: dict[str, Any]) -> dict[str, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options["tiny"]:
        return {"skipped": "PyTorch sees no GPU"}
    results: list[dict[str, float]] = []
    for rows in options["streams"]:
        results.append(decode(options, rows, device))
        torch.compiler.reset()
        if device == "cuda":
            torch.cuda.empty_cache()
    return {"torch": torch.__version__, "decode": results}


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
