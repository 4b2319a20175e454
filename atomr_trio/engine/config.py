"""The shape of a model, as the engine needs it."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from attrs import Attribute, field, frozen

from atomr_trio.core import ModelLoadError

from ._gguf_config import SUPPORTED_ARCHITECTURES, config_arguments

__all__ = ["SUPPORTED_ARCHITECTURES", "DType", "ModelConfig"]

DType = Literal["float32", "bfloat16", "int8"]
"""How weights are held. ``int8`` is weight-only: one float32 scale per output channel."""


def _positive(_instance: object, attribute: "Attribute[Any]", value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be positive, got {value!r}")


@frozen(kw_only=True)
class ModelConfig:
    """Sizes and constants of a decoder-only transformer.

    Args:
        architecture: one of `SUPPORTED_ARCHITECTURES`.
        num_layers: transformer blocks.
        hidden_size: width of the residual stream.
        intermediate_size: width inside the gated feed-forward.
        num_heads: query heads; a multiple of ``num_kv_heads``.
        num_kv_heads: key and value heads.
        head_dim: width of one head; even.
        vocab_size: rows of the embedding.
        context_length: positions the model was made for.
        rope_theta: base of the rotary frequencies.
        rope_scale: positions are divided by this (linear scaling); 1 is none.
        rms_norm_eps: added to the mean square in each norm.
        tied_embeddings: the output matrix is the embedding. Loading follows the file; random weights follow this.
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
    rope_theta: float = field(default=10_000.0, validator=_positive)
    rope_scale: float = field(default=1.0, validator=_positive)
    rms_norm_eps: float = field(default=1e-5, validator=_positive)
    tied_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads} query heads cannot share {self.num_kv_heads} key-value heads")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even to be rotated, not {self.head_dim}")

    @property
    def qkv_size(self) -> int:
        """Rows of the fused query-key-value matrix."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim

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
    def from_gguf(cls, fields: Mapping[str, Any], /) -> Self:
        """Read the configuration from a GGUF file's metadata.

        Raises:
            ModelLoadError: an unsupported architecture or feature, or a field that is missing or absurd.
        """
        try:
            return cls(**config_arguments(fields))
        except ValueError as error:
            raise ModelLoadError(f"the file's sizes do not fit together: {error}") from None
