"""What distinguishes the families of decoders beyond sizes, by architecture. See `ModelConfig` for the switches."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

__all__ = ["FAMILIES", "Family", "windows"]


@frozen(kw_only=True)
class Family:
    """One family.

    Args:
        switches: arguments of `ModelConfig` that all its models share.
        local_rope: windowed layers have rotary frequencies of their own.
        window: size of the window where a file does not say it; ``None``: layers have windows only if it says so.
        window_pattern: every so-manieth layer sees all; 0: none does.
        soft_caps: scores and logits are bounded.
        permuted: GGUF files hold the rows of query and key in pairs.
    """

    switches: Mapping[str, Any] = field(factory=dict[str, Any])
    local_rope: bool = False
    window: int | None = None
    window_pattern: int = 0
    soft_caps: bool = False
    permuted: bool = False


_GEMMA = {"post_norms": True, "activation": "gelu", "scaled_embedding": True}

FAMILIES: Mapping[str, Family] = {
    "llama": Family(permuted=True),
    "mistral": Family(),
    "qwen2": Family(switches={"qkv_bias": True}),
    "qwen3": Family(switches={"qk_norm": True}),
    "gemma2": Family(switches=_GEMMA, window=4096, window_pattern=2, soft_caps=True),
    "gemma3": Family(switches=_GEMMA | {"qk_norm": True}, local_rope=True, window=4096, window_pattern=6),
}


def windows(layers: int, size: int, pattern: int) -> tuple[int, ...]:
    """Return the window of each layer: ``size``, but 0 for every ``pattern``-th; no exception if ``pattern`` is 0."""
    return tuple(0 if pattern and (layer + 1) % pattern == 0 else size for layer in range(layers))
