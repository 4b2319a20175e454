"""The shape of a model, as the engine needs it."""

import os
from collections.abc import Mapping
from typing import Any, Literal, Self

from attrs import Attribute, field, frozen
from attrs.validators import optional

from atomr_trio.core import ModelLoadError
from atomr_trio.formats import GgufFile, HfFolder

from ._gguf_config import SUPPORTED_ARCHITECTURES, config_arguments
from ._hf_config import hf_config_arguments
from .rope_scaling import RopeTable

__all__ = ["SUPPORTED_ARCHITECTURES", "Activation", "DType", "ModelConfig"]

DType = Literal["float32", "bfloat16", "int8"]
"""How weights are held. ``int8`` has one float32 scale per output channel; what they are multiplied with stays float on
a GPU, and is rounded to 16 bits on a CPU (`linear_rows`)."""

Activation = Literal["silu", "gelu"]


def _positive(_instance: object, attribute: "Attribute[Any]", value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be positive, got {value!r}")


@frozen(kw_only=True)
class ModelConfig:
    """Sizes, constants and switches of a decoder-only transformer.

    Args:
        architecture: the name in the model's own configuration.
        num_layers: transformer blocks.
        hidden_size: width of the residual stream.
        intermediate_size: width inside the gated feed-forward.
        num_heads: query heads; a multiple of ``num_kv_heads``.
        num_kv_heads: key and value heads.
        head_dim: width of one head; even.
        vocab_size: rows of the embedding.
        context_length: positions the model was made for.
        rope: rotary frequencies.
        local_rope: those of layers with a window, where they have their own.
        windows: by layer, how many positions a token sees, its own included; 0 is all. Empty: all layers see all.
        rms_norm_eps: added to the mean square in each norm.
        qkv_bias: the query, key and value products have biases.
        out_bias: the product after attention has one.
        qk_norm: each query and key head is normed before it is rotated.
        post_norms: attention and feed-forward are normed again before they are added to the residual stream.
        activation: of the gate; ``gelu`` is the tanh approximation.
        attention_scale: factor on the scores; ``None``: ``head_dim ** -0.5``.
        attention_soft_cap: bound of the scores: ``cap * tanh(score / cap)``.
        final_soft_cap: the same for the logits.
        scaled_embedding: embeddings are multiplied by ``hidden_size ** 0.5``, rounded to the activations' dtype.
        tied_embeddings: the output matrix is the embedding. GGUF loading follows the file instead.
        bos_token_id: put before a prompt, if any.
        eos_token_ids: any of these ends an answer.

    Raises:
        ValueError: a size is not positive, or the sizes do not fit together.
    """

    architecture: str = "llama"
    num_layers: int = field(validator=_positive)
    hidden_size: int = field(validator=_positive)
    intermediate_size: int = field(validator=_positive)
    num_heads: int = field(validator=_positive)
    num_kv_heads: int = field(validator=_positive)
    head_dim: int = field(validator=_positive)
    vocab_size: int = field(validator=_positive)
    context_length: int = field(validator=_positive)
    rope: RopeTable = field(factory=RopeTable)
    local_rope: RopeTable | None = None
    windows: tuple[int, ...] = ()
    rms_norm_eps: float = field(default=1e-5, validator=_positive)
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    activation: Activation = "silu"
    attention_scale: float | None = field(default=None, validator=optional(_positive))
    attention_soft_cap: float | None = field(default=None, validator=optional(_positive))
    final_soft_cap: float | None = field(default=None, validator=optional(_positive))
    scaled_embedding: bool = False
    tied_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads} query heads cannot share {self.num_kv_heads} key-value heads")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even to be rotated, not {self.head_dim}")
        if len(self.windows) not in (0, self.num_layers) or any(window < 0 for window in self.windows):
            raise ValueError(f"windows must be one size of 0 or more for each of {self.num_layers} layers")

    @property
    def qkv_size(self) -> int:
        """Rows of the fused query-key-value matrix."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim

    @property
    def score_scale(self) -> float:
        """Factor on the products of queries and keys."""
        return self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale

    def window(self, layer: int) -> int:
        """Positions that a token of this layer sees, its own included; 0 is all."""
        return self.windows[layer] if self.windows else 0

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """A model small enough to compile and run in a test; ``changes`` override any argument."""
        sizes: dict[str, Any] = {
            "num_layers": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "num_kv_heads": 2,
            "head_dim": 8,
            "vocab_size": 97,
            "context_length": 256,
            "bos_token_id": 1,
            "eos_token_ids": (2,),
        }
        return cls(**{**sizes, **changes})

    @classmethod
    def read(cls, path: str | os.PathLike[str], /) -> Self:
        """Read the configuration of a model: a GGUF file, a Hugging Face folder, or the ``config.json`` of one.

        Raises:
            ModelLoadError: it cannot be read, is not supported, or a field is missing or absurd.
        """
        folder = HfFolder.at(path)
        if folder is not None:
            return cls.from_hf(folder.config, folder.generation)
        with GgufFile.open(path) as file:
            return cls.from_gguf(file.fields)

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any], /) -> Self:
        """Read the configuration from a GGUF file's metadata.

        Raises:
            ModelLoadError: an unsupported architecture or feature, or a field that is missing or absurd.
        """
        try:
            return cls(**config_arguments(fields))
        except ValueError as error:
            raise ModelLoadError(f"the file's sizes do not fit together: {error}") from None

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], generation: Mapping[str, Any], /) -> Self:
        """Read the configuration from a Hugging Face folder's ``config.json`` and ``generation_config.json``.

        Args:
            config: the content of the first.
            generation: of the second, which wins where both speak; may be empty.

        Raises:
            ModelLoadError: an unsupported architecture or feature, or a field that is missing or absurd.
        """
        try:
            return cls(**hf_config_arguments(config, generation))
        except ValueError as error:
            raise ModelLoadError(f"the model's sizes do not fit together: {error}") from None
