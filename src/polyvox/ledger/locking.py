"""A lock on a file that the system takes back when the process dies, however it dies: so others see that it is dead."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class FileLock:
    """A file that this process holds. `close` lets go of it; `remove` takes the file away, too."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle

    def close(self) -> None:
        """Let go. In the child of a fork this leaves the parent's lock alone."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def remove(self) -> None:
        """Take the file away, then let go."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()


def try_lock(path: Path, *, create: bool = False) -> FileLock | None:
    """Hold a file, or None where another process does. FileNotFoundError where there is none and none is made."""
    handle = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        _hold(handle)
        # It may have been taken away between opening and holding it: then it is nobody's lock.
        if path.stat().st_ino == os.fstat(handle).st_ino:
            return FileLock(path, handle)
    except BlockingIOError:
        pass
    except FileNotFoundError:
        os.close(handle)
        raise
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _hold(handle: int) -> None:
    try:
        import fcntl
    except ImportError:
        _hold_on_windows(handle)
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _hold_on_windows(handle: int) -> None:
    import importlib

    system = importlib.import_module("msvcrt")
    try:
        system.locking(handle, system.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(str(error)) from None
