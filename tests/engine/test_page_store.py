"""The file that outlives a process: what it gives back is what was put, whenever its writer was killed."""

import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atomr_trio.engine.page_store import HEAD_BYTES, KEY_BYTES, PageStore, read_key
from atomr_trio.runners._pages import PagesFile

SLOTS, PAGE_BYTES = 5, 48
NAME = b"0123456789abcdef"


@contextmanager
def pages_file():
    file = PagesFile(wanted=True)
    try:
        yield file.fd
    finally:
        file.close()


def content(number):
    return number.to_bytes(16, "big")


def page(number):
    return bytes([number % 256]) * PAGE_BYTES


class Store(RuleBasedStateMachine):
    """Against a dict; the file is opened again at any time."""

    def __init__(self):
        super().__init__()
        self.file = PagesFile(wanted=True)
        self.key = read_key(self.file.fd)
        self.store = PageStore.open(self.file.fd, NAME, SLOTS, PAGE_BYTES)
        self.model = {}

    @rule(slot=st.integers(0, SLOTS - 1), number=st.integers(1, 200))
    def write(self, slot, number):
        self.store.write(slot, content(number), page(number))
        self.model[slot] = number

    @rule(slot=st.integers(0, SLOTS - 1))
    def erase(self, slot):
        self.store.erase(slot)
        self.model.pop(slot, None)

    @rule()
    def opened_again(self):
        self.store.close()
        self.store = PageStore.open(self.file.fd, NAME, SLOTS, PAGE_BYTES)

    @rule(name=st.sampled_from([NAME, b"another weights!"]), slots=st.integers(1, SLOTS))
    def opened_by_another_model_or_in_another_size(self, name, slots):
        self.store.close()
        PageStore.open(self.file.fd, name, slots, PAGE_BYTES).close()
        self.store = PageStore.open(self.file.fd, NAME, SLOTS, PAGE_BYTES)
        if (name, slots) != (NAME, SLOTS):
            self.model = {}

    @rule()
    def server_forgets(self):
        self.store.close()
        self.file.outlives_sessions = True
        self.file.session_over(keep=False)
        self.store = PageStore.open(self.file.fd, NAME, SLOTS, PAGE_BYTES)
        self.model = {}

    @invariant()
    def holds_what_was_put(self):
        assert dict(self.store.contents()) == {slot: content(number) for slot, number in self.model.items()}
        assert all(self.store.read(slot) == page(number) for slot, number in self.model.items())
        assert read_key(self.file.fd) == self.key

    def teardown(self):
        self.store.close()
        self.file.close()


TestStore = Store.TestCase

WRITER = f"""
import sys
from itertools import count
from atomr_trio.engine.page_store import PageStore
store = PageStore.open(int(sys.argv[1]), {NAME!r}, 3, 1 << 20)
for number in count(1):
    store.write(number % 3, number.to_bytes(16, "big"), number.to_bytes(4, "big") * (1 << 18))
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_only_whole_pages():
    rng = random.Random(7)
    with pages_file() as fd:
        for _ in range(20):
            command = [sys.executable, "-c", WRITER, str(fd)]
            with subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.PIPE) as writer:
                # It writes on while these are read.
                for _ in range(rng.randint(3, 40)):
                    writer.stdout.readline()
                writer.send_signal(signal.SIGKILL)
            store = PageStore.open(fd, NAME, 3, 1 << 20)
            for slot, found in store.contents():
                number = int.from_bytes(found, "big")
                assert number % 3 == slot
                assert store.read(slot) == number.to_bytes(4, "big") * (1 << 18)
            store.close()


def test_a_file_is_there_when_it_is_wanted_and_not_longer():
    file = PagesFile(wanted=True)
    fd = file.fd
    assert (file.fd, os.fstat(fd).st_size) == (fd, HEAD_BYTES)
    assert not os.get_inheritable(fd)
    assert len({read_key(fd), bytes(KEY_BYTES)}) == 2
    file.session_over(keep=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    file.close()
    assert PagesFile(wanted=False).fd is None


def test_a_system_without_such_files_keeps_nothing(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    file = PagesFile(wanted=True)
    assert file.fd is None
    file.session_over(keep=False)
    file.close()


def test_a_system_without_memory_for_it_keeps_nothing(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", full)
    before = len(os.listdir("/proc/self/fd"))
    assert PagesFile(wanted=True).fd is None
    assert len(os.listdir("/proc/self/fd")) == before
