"""The forms that were measured to be the fastest, kept on disk for the next process on the same machine."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from .linear import TunedForms
from .linear_forms import candidates
from .program_cache import host_tag

__all__ = ["Choices", "MachineTag", "choices_file", "load_choices", "machine_tag", "parse_choices", "save_choices"]

Choices = Mapping[str, TunedForms]
"""By the shape of a matrix, ``"<out>x<in>"``."""


class MachineTag(msgspec.Struct, frozen=True):
    """What a measurement holds for: with another library, back-end, processor or number of cores it is made again."""

    jax: str
    backend: str
    processor: str
    cores: int


class _Content(msgspec.Struct):
    machine: MachineTag
    forms: dict[str, TunedForms]


def machine_tag(jax_version: str, backend: str) -> MachineTag:
    """Describe this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return MachineTag(jax_version, backend, f"{_processor_name()} {host_tag()}", cores)


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def choices_file(cache_dir: str) -> Path:
    """Return where the choices of this kind of processor are."""
    return Path(cache_dir) / f"linear-{host_tag()}.json"


def load_choices(path: Path, machine: MachineTag) -> Choices:
    """Return what is remembered for this machine: nothing where the file is missing, damaged or another's."""
    try:
        content = path.read_bytes()
    except OSError:
        return {}
    return parse_choices(content, machine)


def parse_choices(content: bytes, machine: MachineTag) -> Choices:
    """Return the content of a file if it is whole, this machine's, and names forms that apply; else nothing."""
    try:
        found = msgspec.json.decode(content, type=_Content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    named = [choice for forms in found.forms.values() for choice in forms]
    known = all(_is_known(machine.backend, rows, name) for rows, name in named)
    return found.forms if found.machine == machine and known else {}


def _is_known(backend: str, rows: int, name: str) -> bool:
    return rows > 0 and name in {form.name for form in candidates("integers", backend, rows)}


def save_choices(path: Path, machine: MachineTag, choices: Choices) -> None:
    """Write all choices, whole or not at all. What cannot be written is measured again by the next process."""
    written = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        written.write_bytes(msgspec.json.encode(_Content(machine, dict(choices))))
        written.replace(path)
