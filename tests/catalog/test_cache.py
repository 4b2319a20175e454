import errno
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.catalog import CacheUnusable, HashMismatch, NoSpace, cache_dir
from atomr_trio.catalog._cache import MARGIN, ModelHome, copy_hashed, require_space, storage_errors
from atomr_trio.catalog._child import folder_size
from atomr_trio.catalog._progress import silent

from .kit import sha256


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_dir() == Path("/somewhere/atomr-trio")
    monkeypatch.setenv("HOME", "/home/me")
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_dir() == Path("/home/me/.cache/atomr-trio")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_a_type(tmp_path, number):
    with pytest.raises(NoSpace, match="no disk space"), storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EIO, errno.EFBIG])
def test_an_unusable_folder_has_a_type(tmp_path, number):
    with pytest.raises(CacheUnusable, match="XDG_CACHE_HOME") as caught, storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert caught.value.reason == os.strerror(number)
    assert caught.value.folder == tmp_path


def test_other_errors_are_not_ours(tmp_path):
    with pytest.raises(BrokenPipeError), storage_errors(tmp_path):
        raise BrokenPipeError(errno.EPIPE, "the terminal is gone")


@given(free=st.integers(0, 10**12), needed=st.integers(0, 10**12))
def test_space_is_asked_for_with_a_margin(free, needed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _folder: type("Usage", (), {"free": free}))
        if free >= needed + MARGIN:
            return require_space(Path("/"), needed)
        with pytest.raises(NoSpace) as caught:
            require_space(Path("/"), needed)
    assert (caught.value.needed, caught.value.free) == (needed + MARGIN, free)
    assert f"{free / 1e6:.0f} MB free" in str(caught.value)


@given(data=st.binary(max_size=3000), chunk=st.integers(1, 1000))
def test_copying_hashes_and_reports(data, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atomr_trio.catalog._cache._CHUNK", chunk)
        seen, sink = [], io.BytesIO()
        digest = copy_hashed(io.BytesIO(data), sink, stage="unpack", total=len(data), report=seen.append)
    assert (digest, sink.getvalue()) == (sha256(data), data)
    assert [report.done for report in seen] == [0, *[min(at + chunk, len(data)) for at in range(0, len(data), chunk)]]
    assert {(report.stage, report.total) for report in seen} == {("unpack", len(data))}


def test_only_the_right_file_gets_the_final_name(tmp_path):
    home = ModelHome(tmp_path, "m.gguf")
    with home.lock(silent):
        coming = home.partial / "coming"
        coming.write_bytes(b"wrong")
        with pytest.raises(HashMismatch, match="expected right"):
            home.commit(coming, actual="wrong", expected="right")
        assert not coming.exists()
        assert not home.final.exists()
        coming.write_bytes(b"right")
        assert home.commit(coming, actual="right", expected="right") == home.final
    assert home.final.read_bytes() == b"right"
    assert home.known_sha256() == "right"
    assert not coming.exists()


def test_a_lock_that_another_holds_is_waited_for(tmp_path):
    seen = []

    def report(progress):
        seen.append(progress.stage)
        if len(seen) == 3:
            raise KeyboardInterrupt

    home, other = ModelHome(tmp_path, "m"), ModelHome(tmp_path, "m")
    with home.lock(silent):
        with pytest.raises(KeyboardInterrupt), other.lock(report):
            pytest.fail("two at once")
        assert seen == ["wait"] * 3
        assert other.lock_fd == -1
    with other.lock(report):
        assert len(seen) == 3


def test_the_size_of_a_folder(tmp_path):
    assert folder_size(tmp_path / "nothing") == 0
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_bytes(b"12345")
    (tmp_path / "a" / "b" / "y").write_bytes(b"678")
    assert folder_size(tmp_path) == 8
