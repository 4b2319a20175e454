"""Reads rotary frequencies from a ``config.json``: ``rope_parameters``, or ``rope_theta`` beside ``rope_scaling``."""

from collections.abc import Mapping
from typing import Any

from atomr_trio.core import ModelLoadError

from ._fields import Fields, shown
from .rope_scaling import LinearScaling, Llama3Scaling, RopeScaling, RopeTable, YarnScaling, yarn_amplitude

_LOCAL_THETA = 10_000.0
_GLOBAL_THETA = 1_000_000.0


def rope_tables(fields: Fields, *, local: bool) -> tuple[RopeTable, RopeTable | None, int]:
    """Return the table of all layers (of those without a window, if ``local``), that of windowed ones, and the context.

    Raises:
        ModelLoadError: a kind of scaling that is not supported, or a field that is missing or absurd.
    """
    context = fields.size("max_position_embeddings")
    ours, theirs = _parameters(fields, local=local)
    table = _table(ours, _GLOBAL_THETA if local else 10_000.0, context)
    local_table = _table(theirs, _LOCAL_THETA, context) if local else None
    if isinstance(table.scaling, YarnScaling):
        # Files are meant to be stretched beyond the number that they give.
        context = max(context, int(table.scaling.original_context * table.scaling.factor))
    return table, local_table, context


def _parameters(fields: Fields, *, local: bool) -> tuple[Fields, Fields]:
    """The parameters of layers without and with a window."""
    given = _mapping(fields, "rope_parameters")
    if given is None:
        old = {"rope_theta": fields.get("rope_theta"), **(_mapping(fields, "rope_scaling") or {})}
        return Fields(old), Fields({"rope_theta": fields.get("rope_local_base_freq")})
    new = Fields(given)
    full, sliding = _mapping(new, "full_attention"), _mapping(new, "sliding_attention")
    if full is not None:
        if sliding is not None and sliding != full and not local:
            raise ModelLoadError("rotary frequencies by kind of layer are not supported for this architecture")
        return Fields(full), Fields(sliding or {})
    return new, Fields({"rope_theta": fields.get("rope_local_base_freq")})


def _mapping(fields: Fields, name: str) -> Mapping[str, Any] | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ModelLoadError(f"field `{name}` is {shown(value)}, not an object")
    return value  # pyright: ignore[reportUnknownVariableType]


def _table(parameters: Fields, theta: float, context: int) -> RopeTable:
    if parameters.number("partial_rotary_factor", 1.0) != 1.0:
        raise ModelLoadError("heads that are rotated in part (field `partial_rotary_factor`) are not supported")
    return RopeTable(theta=parameters.number("rope_theta", theta), scaling=_scaling(parameters, context))


def _scaling(parameters: Fields, context: int) -> RopeScaling | None:
    match parameters.get("rope_type", parameters.get("type", "default")):
        case "default":
            return None
        case "linear":
            return LinearScaling(factor=parameters.number("factor"))
        case "llama3":
            return Llama3Scaling(
                factor=parameters.number("factor"),
                low_freq_factor=parameters.number("low_freq_factor"),
                high_freq_factor=parameters.number("high_freq_factor"),
                original_context=parameters.size("original_max_position_embeddings", context),
            )
        case "yarn":
            return _yarn(parameters, context)
        case other:
            raise ModelLoadError(f"rotary scaling `{shown(other)}` is not supported")


def _yarn(parameters: Fields, context: int) -> YarnScaling:
    factor = parameters.number("factor")
    amplitude = parameters.optional_number("attention_factor")
    weights = parameters.optional_number("mscale"), parameters.optional_number("mscale_all_dim")
    if amplitude is None and weights[0] and weights[1]:
        amplitude = yarn_amplitude(factor, weights[0]) / yarn_amplitude(factor, weights[1])
    return YarnScaling(
        factor=factor,
        original_context=parameters.size("original_max_position_embeddings", context),
        beta_fast=parameters.number("beta_fast", 32.0),
        beta_slow=parameters.number("beta_slow", 1.0),
        attention_factor=amplitude,
        truncate=parameters.flag("truncate", default=True),
    )
