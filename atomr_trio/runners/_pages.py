"""The memory in which pages of the cache outlive the device process: made here, used there."""

import os
import secrets

from attrs import define, field

from atomr_trio.engine.page_store import HEAD_BYTES, KEY_BYTES

__all__ = ["PagesFile"]


@define
class PagesFile:
    """A file without a name, made when it is first asked for. It takes memory as it is written to.

    Args:
        wanted: without it there is none.

    Attributes:
        outlives_sessions: somebody will close it. Else it goes with the session.
    """

    _wanted: bool
    outlives_sessions: bool = field(init=False, default=False)
    _fd: int | None = field(init=False, default=None)

    @property
    def fd(self) -> int | None:
        """Its descriptor, to be inherited; ``None`` where the system has no such files."""
        if self._fd is None and self._wanted and hasattr(os, "memfd_create"):
            self._fd = _make()
        return self._fd

    def session_over(self, *, keep: bool) -> None:
        """Note that no process uses it any more.

        Args:
            keep: the next one may go on from these pages. Else they are forgotten: who computed them is not trusted.
        """
        if self._fd is not None and not keep:
            os.ftruncate(self._fd, HEAD_BYTES)
        if not self.outlives_sessions:
            self.close()

    def close(self) -> None:
        """Let go of the memory."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


def _make() -> int | None:
    # Without it answers are computed again, that is all.
    try:
        fd = os.memfd_create("atomr-trio-pages", os.MFD_CLOEXEC)
    except OSError:
        return None
    try:
        os.write(fd, secrets.token_bytes(KEY_BYTES))
        os.ftruncate(fd, HEAD_BYTES)
    except OSError:
        os.close(fd)
        return None
    return fd
