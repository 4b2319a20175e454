"""Rotary frequencies and how models stretch them to longer contexts: values and float64 arithmetic on the host."""

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from attrs import Attribute, field, frozen

__all__ = ["LinearScaling", "Llama3Scaling", "RopeScaling", "RopeTable", "YarnScaling"]

Frequencies = npt.NDArray[np.float64]


def _positive(_instance: object, attribute: "Attribute[Any]", value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{attribute.name} of the rotary scaling must be positive, got {value!r}")


def _number(default: float | None = None) -> Any:
    return field(validator=_positive) if default is None else field(default=default, validator=_positive)


class RopeScaling(Protocol):
    """A way to stretch. Values compare and hash by what they say: a program is compiled for them."""

    @property
    def amplitude(self) -> float:
        """Factor on cosine and sine."""
        ...

    def stretch(self, frequencies: Frequencies, theta: float) -> Frequencies:
        """Return the frequencies, in radians per position, that take the place of ``theta**(-2i / head_dim)``."""
        ...


@frozen(kw_only=True)
class LinearScaling:
    """Positions are divided by ``factor``."""

    factor: float = _number()

    @property
    def amplitude(self) -> float:
        """1."""
        return 1.0

    def stretch(self, frequencies: Frequencies, theta: float) -> Frequencies:
        """Slow all frequencies down alike."""
        return frequencies / self.factor


@frozen(kw_only=True)
class Llama3Scaling:
    """Waves longer than the context that the model knew are slowed down by ``factor``, short ones are left alone.

    Args:
        factor: of the long waves.
        low_freq_factor: a wave is long from ``original_context / low_freq_factor`` positions on.
        high_freq_factor: a wave is short up to ``original_context / high_freq_factor``; between, the two are mixed.
        original_context: positions before the stretching.
    """

    factor: float = _number()
    low_freq_factor: float = _number()
    high_freq_factor: float = _number()
    original_context: int = _number()

    def __attrs_post_init__(self) -> None:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("high_freq_factor of the rotary scaling must be above low_freq_factor")

    @property
    def amplitude(self) -> float:
        """1."""
        return 1.0

    def stretch(self, frequencies: Frequencies, theta: float) -> Frequencies:
        """Slow down by wavelength."""
        turns = self.original_context * frequencies / (2 * math.pi)
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = np.clip(kept, 0.0, 1.0)
        return kept * frequencies + (1 - kept) * frequencies / self.factor


@frozen(kw_only=True)
class YarnScaling:
    """Frequencies that turn often over the original context stay, those that turn rarely are slowed down.

    Args:
        factor: of the slow ones.
        original_context: positions before the stretching.
        beta_fast: turns over the original context from which on a frequency stays.
        beta_slow: turns up to which it is slowed down in full.
        attention_factor: factor on cosine and sine; ``None``: ``0.1 * ln(factor) + 1``.
        truncate: the bounds are rounded outwards to whole pairs.
    """

    factor: float = _number()
    original_context: int = _number()
    beta_fast: float = _number(32.0)
    beta_slow: float = _number(1.0)
    attention_factor: float | None = None
    truncate: bool = True

    @property
    def amplitude(self) -> float:
        """Sharpens attention, which a longer context would blur."""
        return yarn_amplitude(self.factor) if self.attention_factor is None else self.attention_factor

    def stretch(self, frequencies: Frequencies, theta: float) -> Frequencies:
        """Slow down by a ramp over the pairs."""
        pairs = len(frequencies)
        low, high = self._pair_of(self.beta_fast, theta, pairs), self._pair_of(self.beta_slow, theta, pairs)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * pairs - 1)
        slowed = np.clip((np.arange(pairs) - low) / max(high - low, 0.001), 0.0, 1.0)
        return (1 - slowed) * frequencies + slowed * frequencies / self.factor

    def _pair_of(self, turns: float, theta: float, pairs: int) -> float:
        """Index of the pair that turns so often over the original context; between two, a fraction."""
        return pairs * math.log(self.original_context / (turns * 2 * math.pi)) / math.log(theta)


def yarn_amplitude(factor: float, weight: float = 1.0) -> float:
    """Return yarn's factor on cosine and sine; models may weigh its logarithm."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


@frozen(kw_only=True)
class RopeTable:
    """One set of rotary frequencies.

    Args:
        theta: base; above 1.
        scaling: how they are stretched, if at all.

    Raises:
        ValueError: ``theta`` is not above 1.
    """

    theta: float = 10_000.0
    scaling: RopeScaling | None = None

    def __attrs_post_init__(self) -> None:
        if not (self.theta > 1 and math.isfinite(self.theta)):
            raise ValueError(f"the base of the rotary frequencies must be above 1, got {self.theta!r}")

    @property
    def amplitude(self) -> float:
        """Factor on cosine and sine."""
        return 1.0 if self.scaling is None else self.scaling.amplitude

    def inverse_frequencies(self, head_dim: int) -> npt.NDArray[np.float32]:
        """Return the rotation per position of each pair, in radians: ``[head_dim / 2]``."""
        frequencies = self.theta ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
        if self.scaling is not None:
            frequencies = self.scaling.stretch(frequencies, self.theta)
        return frequencies.astype(np.float32)
