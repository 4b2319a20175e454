"""Reads a model's weights from a Hugging Face folder."""

from collections.abc import Mapping

from attrs import frozen

from atomr_trio.core import ModelLoadError
from atomr_trio.formats import HfWeights

from ._reader import OnProgress, Reader
from .config import DType, ModelConfig
from .params import Array, Params, build_params
from .sharding import ONE_DEVICE, Layout
from .store import Store

__all__ = ["load_hf_params"]

_EMBED = "embed_tokens.weight"
_IN_LAYER = {
    "attn_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "attn_out": "self_attn.o_proj.weight",
    "attn_out_bias": "self_attn.o_proj.bias",
    "ffn_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
# With four norms, the name that elsewhere is the feed-forward's means another one.
_FOUR_NORMS = {
    "attn_post_norm": "post_attention_layernorm.weight",
    "ffn_norm": "pre_feedforward_layernorm.weight",
    "ffn_post_norm": "post_feedforward_layernorm.weight",
}
# Parts of models with pictures, and constants that old files carry.
_IGNORED = ("vision_tower.", "multi_modal_projector.", "rotary_emb.inv_freq")
_NORMS_FROM_ONE = ("gemma2", "gemma3")


def load_hf_params(
    weights: HfWeights,
    config: ModelConfig,
    dtype: DType,
    on_progress: OnProgress | None = None,
    layout: Layout = ONE_DEVICE,
) -> Params:
    """Read, widen and fuse all weights of a folder.

    Args:
        weights: open; they may be closed afterwards.
        config: from the same folder.
        dtype: how to hold the matrices.
        on_progress: called with (tensors read, tensors in all).
        layout: the devices they go to.

    Raises:
        ModelLoadError: a tensor is missing, misshapen, damaged, of a type without conversion, or not understood.
    """
    reader = Reader(weights.tensors, lambda name: weights.tensors[name].widen(), on_progress)
    source = _HfSource(reader, config, _prefix(weights), _IN_LAYER | (_FOUR_NORMS if config.post_norms else {}))
    params = build_params(source, config, Store(dtype, layout))
    reader.check_all_read(source.is_ignored)
    return params


def _prefix(weights: HfWeights) -> str:
    """What stands before the names of the decoder: ``model.``, with more before it in models with pictures."""
    found = [name for name in weights.tensors if name.endswith(_EMBED)]
    if len(found) != 1:
        raise ModelLoadError(f"tensor `model.{_EMBED}` is missing")
    return found[0].removesuffix(_EMBED)


@frozen
class _HfSource:
    _reader: Reader
    _config: ModelConfig
    _prefix: str
    _in_layer: Mapping[str, str]

    def take(self, name: str, *shape: int, layer: int | None = None) -> Array:
        values = self._reader.take(self._name(name, layer), *shape)
        if name.endswith("norm") and self._config.architecture in _NORMS_FROM_ONE:
            # The checkpoint holds the factor's distance from 1.
            return values + 1
        return values

    def _name(self, name: str, layer: int | None) -> str:
        if layer is not None:
            return f"{self._prefix}layers.{layer}.{self._in_layer[name]}"
        if name == "output":
            return self._output_name()
        return self._prefix + {"embed": _EMBED, "final_norm": "norm.weight"}[name]

    def _output_name(self) -> str:
        found = [name for name in self._reader.tensors if name.endswith("lm_head.weight")]
        return found[0] if found else "lm_head.weight"

    def rope_factors(self, size: int) -> Array | None:
        return None

    @property
    def has_output(self) -> bool:
        return not self._config.tied_embeddings

    def is_ignored(self, name: str) -> bool:
        # A tied output matrix may have been written all the same.
        tied = self._config.tied_embeddings and name.endswith("lm_head.weight")
        return tied or any(part in name for part in _IGNORED)
