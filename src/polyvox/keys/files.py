"""Where configuration and keys live, and how such a file is changed: in one step, by one process at a time. It knows
nothing of what is in them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path


def config_dir(env: Mapping[str, str] | None = None) -> Path:
    """Where configuration and keys live: $POLYVOX_HOME, else the platform's folder for settings."""
    env = os.environ if env is None else env
    if env.get("POLYVOX_HOME"):
        return Path(env["POLYVOX_HOME"]).expanduser()
    if sys.platform == "win32" and env.get("APPDATA"):
        return Path(env["APPDATA"]) / "polyvox"
    base = Path(env.get("XDG_CONFIG_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (base if base.is_absolute() else Path("~/.config").expanduser()) / "polyvox"


def write_atomically(path: Path, data: bytes, mode: int) -> None:
    """Replace a file in one step, so that no reader and no crash ever sees half of it.

    A symbolic link stays one. Raises OSError.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(temporary, flags, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system lets a folder be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes that change files in it; no-op where that cannot be done."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
