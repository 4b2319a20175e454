"""What a deployment of the local runner says, and what follows for its text side and its engine."""

from pathlib import Path
from typing import Literal

import msgspec

from atomr_trio.catalog import CatalogError, cache_dir, default_catalog, ensure_model
from atomr_trio.core import Deployment, ModelLoadError
from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.fault_plan import DeviceFaultPlan
from atomr_trio.engine.settings import EngineSettings, Pooling
from atomr_trio.formats import HfFolder
from atomr_trio.text import TextCodec, ThoughtStyle, Tokenizer, ToolStyle

from ._pooling import model_pooling
from ._spare import SpareChoice

__all__ = ["JaxConfig", "codec_of", "engine_settings", "find_model", "own_codec", "with_pooling"]


class JaxConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a deployment may say in ``runtime_config``.

    Args:
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``int8``.
        load_format: ``auto`` reads the model's weights; ``dummy`` makes random ones of its shape; ``python`` calls the
            function that the deployment's model names, ``package.module:function``, in the device process.
        tokenizer: for ``python``: a Hugging Face folder with the tokenizer, and a chat template if there is one.
        tensor_parallel: devices of this host that the model is dealt to.
        max_model_len: prompt plus answer, in tokens; at most the model's own.
        tool_style: how the model calls functions; ``auto``: as its chat template says.
        thought_style: how it marks its reasoning; ``auto``: as its chat template says.
        kv_tokens: size of the KV pool, in tokens.
        decode_steps: tokens that each stream gets at once while no prompt is to be computed; ``auto`` is what suits the
            device.
        compile_cache: keep compiled programs on disk, so that the next start is faster.
        pooling: what embeddings are made of: the state after the ``last`` token, which alone knows the whole text, or
            the ``mean`` of all, which takes nothing from the prefix cache. ``auto``: as the model says, else ``last``.
        warm_embeddings: compile the programs for embeddings with the others, not when they are first asked for.
        load_timeout: seconds without progress after which loading has failed.
        silence_timeout: seconds of silence after which the device process is lost.
        step_timeout: seconds after which a step hangs.
        spare: a second process that stands by for the death of the first: ``imported``, without touching the device;
            ``loaded``, with weights and programs, as far as memory allows; ``none``. ``auto``: ``loaded`` on a CPU,
            ``imported`` elsewhere.
        kept_mib: on a CPU, most memory, in MiB, for copies of what was computed of open answers, which outlive the
            device process: after a kill only the last few tokens of each are computed again. 0: all of them are.
        faults: what shall go wrong in the device process, for tests: the arguments of a ``DeviceFaultPlan``.
    """

    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    load_format: Literal["auto", "dummy", "python"] = "auto"
    tokenizer: str | None = None
    tensor_parallel: int = 1
    max_model_len: int | None = None
    tool_style: ToolStyle = "auto"
    thought_style: ThoughtStyle = "auto"
    kv_tokens: int | None = None
    decode_steps: Literal["auto"] | int = "auto"
    compile_cache: bool = True
    pooling: Literal["auto"] | Pooling = "auto"
    warm_embeddings: bool = False
    load_timeout: float = 600.0
    silence_timeout: float = 30.0
    step_timeout: float = 60.0
    spare: SpareChoice = "auto"
    kept_mib: int = 256
    faults: DeviceFaultPlan | None = None

    @property
    def settled_pooling(self) -> Pooling:
        """How embeddings are made, once `with_pooling` has asked the model."""
        return "last" if self.pooling == "auto" else self.pooling


def find_model(model: str) -> Path:
    """Return the path of a model's file or folder, fetched first if need be.

    Raises:
        ModelLoadError: it cannot be had.
    """
    try:
        return ensure_model(default_catalog(), model)
    except CatalogError as error:
        # The reason may name paths, and a failed deployment's reason is shown to clients.
        raise ModelLoadError("its file cannot be had") from error


def with_pooling(path: Path, config: JaxConfig) -> JaxConfig:
    """Return the configuration with what the model says of its embeddings.

    Raises:
        ModelLoadError: that cannot be done, and the configuration does not say what to do instead.
    """
    if config.pooling != "auto":
        return config
    return msgspec.structs.replace(config, pooling=model_pooling(path) or "auto")


def codec_of(path: Path, model: ModelConfig, config: JaxConfig) -> TextCodec:
    """Read the text side of a model."""
    folder = HfFolder.at(path)
    if folder is None:
        return TextCodec.from_gguf(path, config.max_model_len, **_styles(config))
    if config.load_format == "dummy" and not folder.has_tokenizer:
        tokenizer = Tokenizer.bare(model.vocab_size, model.eos_token_ids)
        return TextCodec(tokenizer, None, min(config.max_model_len or model.context_length, model.context_length))
    return TextCodec.from_folder(folder.path, model.context_length, config.max_model_len, **_styles(config))


def own_codec(config: JaxConfig) -> TextCodec:
    """Read the text side of a model that a function of the user's makes.

    Raises:
        ValueError: the configuration does not say enough.
    """
    # The model is made in the device process: here nobody knows what it reads and how much of it.
    if config.tokenizer is None or config.max_model_len is None:
        raise ValueError("load_format `python` needs `tokenizer` and `max_model_len`")
    return TextCodec.from_folder(config.tokenizer, config.max_model_len, None, **_styles(config))


def _styles(config: JaxConfig) -> dict[str, str]:
    return {"tool_style": config.tool_style, "thought_style": config.thought_style}


def engine_settings(model: str, config: JaxConfig, deployment: Deployment) -> EngineSettings:
    """Return what the device process is told."""
    return EngineSettings(
        model=model,
        load_format=config.load_format,
        dtype=config.dtype,
        tensor_parallel=config.tensor_parallel,
        max_num_seqs=deployment.serving.max_concurrent,
        max_model_len=config.max_model_len,
        kv_tokens=config.kv_tokens,
        decode_steps=config.decode_steps,
        warm_pooling=config.settled_pooling if config.warm_embeddings else None,
        cache_dir=str(cache_dir() / "compiled") if config.compile_cache else None,
        kept_mib=config.kept_mib,
    )
