"""A tiny tokenizer for properties, and the real model's for truth."""

import json

import pytest

from atomr_trio.formats.gguf import GgufFile
from atomr_trio.text import TextCodec, Tokenizer

from .tiny import tiny_fields


@pytest.fixture(scope="session")
def tiny() -> Tokenizer:
    return Tokenizer.from_gguf(tiny_fields())


@pytest.fixture(scope="session")
def real_fields(smollm2_path):
    with GgufFile.open(smollm2_path) as file:
        return file.fields


@pytest.fixture(scope="session")
def real(real_fields) -> Tokenizer:
    return Tokenizer.from_gguf(real_fields)


@pytest.fixture(scope="session")
def codec(smollm2_path) -> TextCodec:
    return TextCodec.from_gguf(smollm2_path)


@pytest.fixture(scope="session")
def cases(data_dir):
    return json.loads((data_dir / "smollm2-135m-instruct.json").read_text())["cases"]
