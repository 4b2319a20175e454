"""Reads a model's weights from a GGUF file."""

from attrs import frozen

from atomr_trio.formats import GgufFile

from ._families import FAMILIES
from ._reader import OnProgress, Reader
from .config import DType, ModelConfig
from .params import Array, Params, build_params
from .sharding import ONE_DEVICE, Layout
from .store import Store

__all__ = ["load_gguf_params"]

_NAMES = {"embed": "token_embd.weight", "final_norm": "output_norm.weight", "output": "output.weight"}
_IN_LAYER = {
    "attn_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "attn_out": "attn_output.weight",
    "attn_out_bias": "attn_output.bias",
    "attn_post_norm": "post_attention_norm.weight",
    "ffn_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "ffn_post_norm": "post_ffw_norm.weight",
}
_ROPE_FACTORS = "rope_freqs.weight"


def load_gguf_params(
    file: GgufFile,
    config: ModelConfig,
    dtype: DType,
    on_progress: OnProgress | None = None,
    layout: Layout = ONE_DEVICE,
) -> Params:
    """Read, dequantize and fuse all weights of a GGUF file.

    Args:
        file: an open file; it may be closed afterwards.
        config: from the same file.
        dtype: how to hold the matrices.
        on_progress: called with (tensors read, tensors in all).
        layout: the devices they go to.

    Raises:
        ModelLoadError: a tensor is missing, misshapen, damaged, of a type without conversion, or not understood.
    """
    reader = Reader(file.tensors, lambda name: file.tensors[name].dequantize(), on_progress)
    params = build_params(_GgufSource(reader, config), config, Store(dtype, layout))
    reader.check_all_read()
    return params


@frozen
class _GgufSource:
    _reader: Reader
    _config: ModelConfig

    def take(self, name: str, *shape: int, layer: int | None = None) -> Array:
        # Norms need nothing: the file's are the factor itself, even those of models that train its distance from 1.
        values = self._reader.take(_NAMES[name] if layer is None else f"blk.{layer}.{_IN_LAYER[name]}", *shape)
        if name in ("q", "k") and FAMILIES[self._config.architecture].permuted:
            return _unpermute(values, self._config.head_dim)
        return values

    def rope_factors(self, size: int) -> Array | None:
        return self._reader.take(_ROPE_FACTORS, size) if _ROPE_FACTORS in self._reader.tensors else None

    @property
    def has_output(self) -> bool:
        return _NAMES["output"] in self._reader.tensors


def _unpermute(rows: Array, head_dim: int) -> Array:
    """Undo the llama family's row order: the file holds rotary pairs side by side, we rotate half against half."""
    heads = rows.reshape(-1, head_dim // 2, 2, rows.shape[-1])
    return heads.swapaxes(1, 2).reshape(rows.shape)
