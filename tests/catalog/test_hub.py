"""The Hugging Face source: the real client against a small hub of our own."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import pytest

from atomr_trio.catalog import (
    Catalog,
    DownloadFailed,
    HashMismatch,
    HubFile,
    ModelUnknown,
    NoSpace,
    ToolMissing,
    ensure_model,
)
from atomr_trio.catalog._hub import classify_hub_failure, hub_entry

from .kit import MODEL, sha256

COMMIT = "c" * 40
NAME = "hf:org/repo/sub/tiny.gguf"


class Hub(ThreadingHTTPServer):
    """Serves one file the way the hub does; can break off in the middle, or lie about the hash."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.starts: list[int] = []
        self.break_at: list[int] = []
        self.offer(MODEL)

    def offer(self, data):
        self.data, self.etag = data, sha256(data)


class HubHandler(BaseHTTPRequestHandler):
    def log_message(self, format, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        found = re.fullmatch(r"/org/repo/resolve/(?:main|c{40})/sub/tiny\.gguf", self.path)
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(404 if not found else 206 if wanted else 200)
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self.server.etag}"')
        self.send_header("Accept-Ranges", "bytes")
        whole = self.server.data
        data = whole[start:] if found else b""
        self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.server.starts.append(start)
            breaks = self.server.break_at
            self.wfile.write(data[: breaks.pop(0)] if breaks else data)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield server
        server.shutdown()
        thread.join()


def test_a_file_of_the_hub(hub, tmp_path, monkeypatch):
    seen = []
    path = ensure_model(Catalog(), NAME, on_progress=seen.append)
    assert path == tmp_path / "cache/atomr-trio/models/hf/org/repo/sub/tiny.gguf"
    assert path.read_bytes() == MODEL
    assert {report.stage for report in seen} == {"download", "verify"}
    assert seen[-1].total == len(MODEL)
    # Cached: no hub needed. Its hash is remembered, so that damage can be found.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert ensure_model(Catalog(), NAME, verify=True) == path
    path.write_bytes(MODEL[::-1])
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE"):
        ensure_model(Catalog(), NAME, verify=True)


def test_a_broken_download_goes_on_where_it_stopped(hub):
    # The client writes ten megabytes at a time.
    hub.offer(MODEL * 4)
    hub.break_at = [11 * 2**20]
    assert ensure_model(Catalog(), NAME).read_bytes() == MODEL * 4
    assert hub.starts == [0, 10 * 2**20]


def test_a_download_that_is_ended_leaves_nothing_in_the_way(hub, tmp_path):
    hub.offer(MODEL * 4)
    hub.break_at = [11 * 2**20, *[0] * 100]

    def give_up(_progress):
        if len(hub.starts) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_model(Catalog(), NAME, on_progress=give_up)
    assert not list((tmp_path / "cache").rglob("*.gguf"))
    hub.break_at.clear()
    seen = []
    path = ensure_model(Catalog(), NAME, on_progress=seen.append)
    assert path.read_bytes() == MODEL * 4
    assert seen[0].done < 1000
    assert not list((tmp_path / "cache").rglob("*.incomplete"))


def test_a_whole_file_that_was_not_yet_checked_is_not_fetched_again(hub):
    def give_up(progress):
        if progress.stage == "verify":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_model(Catalog(), NAME, on_progress=give_up)
    assert hub.starts == [0]
    assert ensure_model(Catalog(), NAME).read_bytes() == MODEL
    assert hub.starts == [0]


def test_a_file_that_is_not_what_the_hub_says(hub, tmp_path):
    hub.etag = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(HashMismatch):
        ensure_model(Catalog(), NAME)
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_a_catalogue_knows_better_than_the_hub(hub):
    entry = attrs.evolve(hub_entry(NAME), name="mine", sha256="0" * 64)
    with pytest.raises(HashMismatch) as caught:
        ensure_model(Catalog((entry,)), "mine")
    assert caught.value.expected == "0" * 64


def test_a_file_that_the_hub_does_not_have(hub):
    with pytest.raises(DownloadFailed, match="Check the repository and the file name"):
        ensure_model(Catalog(), "hf:org/repo/other.gguf")


def test_without_the_client(hub, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ToolMissing, match=re.escape("pip install 'atomr-trio[hub]'")):
        ensure_model(Catalog(), NAME)


@pytest.mark.parametrize(
    "name", ["hf:", "hf:org", "hf:org/repo", "hf:org/repo/", "hf:org/../x", "hf:org/repo/../../x", "hf:/a/b"]
)
def test_a_name_that_is_not_one_of_the_hub(name):
    with pytest.raises(ModelUnknown, match=r"hf:org/repo/file\.gguf"):
        ensure_model(Catalog(), name)


def test_what_a_hub_name_means():
    entry = hub_entry("hf:org/repo-GGUF/q4/model.Q4_1.gguf")
    assert entry.sources == (HubFile(repo="org/repo-GGUF", filename="q4/model.Q4_1.gguf"),)
    assert (entry.name, entry.filename) == ("hf/org/repo-GGUF/q4", "model.Q4_1.gguf")


@pytest.mark.parametrize(
    ("told", "kind", "says"),
    [
        ({"error": ["NoSpace"], "needed": 9, "free": 1}, NoSpace, "disk space"),
        ({"error": ["OSError"], "errno": 28, "message": "x"}, NoSpace, "disk space"),
        ({"error": ["GatedRepoError", "RepositoryNotFoundError"], "message": "gated"}, DownloadFailed, "terms"),
        ({"error": ["RepositoryNotFoundError"], "message": "404.\nmore"}, DownloadFailed, "says: 404. Check the repo"),
        ({"error": ["OfflineModeIsEnabled"], "message": "offline"}, DownloadFailed, "HF_HUB_OFFLINE"),
        ({"error": ["ValueError"], "message": "odd"}, DownloadFailed, "the hub says: odd."),
        ({}, DownloadFailed, "ended early"),
    ],
)
def test_what_the_client_says_becomes_a_typed_error(told, kind, says):
    error = classify_hub_failure("hf:x", told, Path("/cache"))
    assert type(error) is kind
    assert says in str(error)
