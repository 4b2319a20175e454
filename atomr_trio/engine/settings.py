"""How an engine is set up: values that travel to the device process."""

from typing import Literal

import msgspec

__all__ = ["EngineSettings", "Pooling"]

Pooling = Literal["last", "mean"]
"""What an embedding is made of: the state after the last token, or the mean of those after all tokens."""


class EngineSettings(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What to load and the limits to run it with. Lengths and budgets are in tokens.

    Args:
        model: path of a GGUF file or of a Hugging Face folder. Empty: a tiny model, for ``dummy``. For ``python``:
            ``package.module:function``, which returns an `OwnModel` and its weights.
        load_format: ``auto`` reads the weights; ``dummy`` makes random ones of the model's shape (benchmarks, tests);
            ``python`` calls a function that makes the model.
        dtype: ``auto`` is int8 on a CPU and bfloat16 on a GPU.
        tensor_parallel: devices of this host that the model is dealt to.
        max_num_seqs: sequences that decode at once.
        max_model_len: prompt plus answer; ``None``: what the model was trained for. Never more than ``kv_tokens``.
        kv_tokens: size of the page pool; ``None``: two contexts or 16,384, as far as memory allows.
        page_size: tokens a page of the pool.
        prefill_chunk: most prompt tokens in a step; ``None``: what suits the device.
        prefill_chunk_busy: the same while other sequences decode: what bounds the gap in their streams.
        attention: ``auto`` is the fastest back-end for the device; ``xla`` the one that works everywhere.
        steps_ahead: steps that are on the device at once: 2 prepares the next one while it computes.
        decode_steps: tokens that each sequence gets in one program while nothing is to be done but to decode: fewer
            programs for the host to send, tokens in bursts of so many. ``auto`` is 1 on a CPU and 4 elsewhere.
        max_waiting: requests that may wait for a place; the next one is refused.
        warm_pooling: programs for embeddings of this kind are compiled with the others; ``None``: when they are wanted.
        cache_dir: folder of the persistent compilation cache; ``None``: no cache. Its content is trusted code.
        kept_mib: most memory, in MiB, for copies of pages that outlive the process; 0: there are none.
        seed: of the random weights of ``dummy``.

    Raises:
        ValueError: a value is out of its range.
    """

    model: str = ""
    load_format: Literal["auto", "dummy", "python"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    tensor_parallel: int = 1
    max_num_seqs: int = 32
    max_model_len: int | None = None
    kv_tokens: int | None = None
    page_size: int = 16
    prefill_chunk: int | None = None
    prefill_chunk_busy: int | None = None
    attention: Literal["auto", "xla"] = "auto"
    steps_ahead: Literal[1, 2] = 2
    decode_steps: Literal["auto"] | int = "auto"
    max_waiting: int = 1024
    warm_pooling: Pooling | None = None
    cache_dir: str | None = None
    kept_mib: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.load_format != "dummy" and not self.model:
            raise ValueError("model: a path is needed, or the name of a function")
        _check_at_least(1, "tensor_parallel", self.tensor_parallel)
        for name in ("max_num_seqs", "page_size", "prefill_chunk", "prefill_chunk_busy", "max_waiting"):
            _check_at_least(1, name, getattr(self, name))
        _check_at_least(0, "kept_mib", self.kept_mib)
        for name in ("max_model_len", "kv_tokens"):
            _check_at_least(2, name, getattr(self, name))
        if self.decode_steps != "auto":
            _check_at_least(1, "decode_steps", self.decode_steps)


def _check_at_least(least: int, name: str, value: int | None) -> None:
    if value is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
