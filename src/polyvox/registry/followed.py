"""The registry that the configuration makes, and a registry of a file of its own: both follow what people write there.
What cannot be used is said once, with its line, and what held before goes on."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from pathlib import Path

from polyvox import config
from polyvox.config import Settings
from polyvox.config.fields import Key
from polyvox.config.sources import read as read_file
from polyvox.config.sources import read_text
from polyvox.errors import ConfigError
from polyvox.registry.base import Asked
from polyvox.registry.rows import Rows
from polyvox.registry.tables import WRONG, made, read
from polyvox.registry.values import Entry

log: logging.Logger = logging.getLogger("polyvox.registry")


class _Followed(Asked):
    """Rows that come from a text somebody writes, and what is wrong with the newest."""

    def __init__(self, settings: Settings | None) -> None:
        super().__init__(settings)
        self._lock = threading.Lock()
        self._rows = Rows()

    def _hold(self, entries: tuple[Entry, ...]) -> None:
        if self._problem is not None:
            log.warning("the deployments can be used again")
        self._rows, self._problem = self._rows.followed_by(entries), None

    def _broken(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("the changed deployments are not used: %s", problem)
        self._problem = problem


def _said(error: ConfigError) -> str:
    return "; ".join(error.problems) or error.message


class SettingsRegistry(_Followed):
    """The deployments of the configuration: `[deployments.NAME]` of its file, and what `configure` was told. settings
    None means those of this process, followed as they change. ConfigError where the first cannot be used."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._seen = self.settings()
        self._hold(_of(self._seen))

    @property
    def rows(self) -> Rows:
        """The newest state."""
        settings = self._fixed
        if settings is None:
            try:
                settings = config.current(at_once=True)
            except ConfigError as error:
                with self._lock:
                    self._broken(_said(error))
                return self._rows
        problem = config.problem() if self._fixed is None else None
        if problem is not None:
            self._problem = problem  # it was logged where it was found
        elif settings is not self._seen:
            with self._lock:
                try:
                    self._hold(_of(settings))
                except ConfigError as error:
                    self._broken(_said(error))
                self._seen = settings
        return self._rows


def _of(settings: Settings) -> tuple[Entry, ...]:
    return made(settings.deployments, settings.origins, settings)


# ---- a file -----------------------------------------------------------------------------------

_YOUNG_NS = 50_000_000
_TRIES = 3


class FileRegistry(_Followed):
    """The `[deployments.NAME]` tables of a TOML (or YAML, or JSON) file that has nothing else. A changed file acts on
    the next call. One that is broken, empty, gone, no plain file or open to everybody's pen changes nothing: what
    held before goes on, and `problem` says file and line. Whoever writes it renames a finished file into its place;
    one written bit by bit may be read when half of it is there.

    ConfigError where the first cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], *, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self.path: Path = Path(path).expanduser().absolute()
        self._text: str | None = None
        self._error: ConfigError | None = None
        self._stamp: object = None
        self._young = False
        self._name = str(self.path)
        self._read()

    def __repr__(self) -> str:
        """Which file."""
        return f"FileRegistry({str(self.path)!r})"

    @property
    def rows(self) -> Rows:
        """The newest state."""
        if self._young or _stamp(self._name) != self._stamp:
            with self._lock:
                if self._young or _stamp(self._name) != self._stamp:
                    try:
                        self._read()
                    except ConfigError as error:
                        self._broken(_said(error))
        return self._rows

    def _read(self) -> None:
        """Read the file as it is between two looks that agree."""
        for _ in range(_TRIES):
            stamp, failed = _stamp(self._name), None
            try:
                entries = self._entries()
            except ConfigError as error:
                failed = error
            if _stamp(self._name) == stamp:
                break
        self._stamp = stamp
        # A second change in the same tick of the file system's clock would leave the same stamp.
        self._young = isinstance(stamp, tuple) and abs(time.time_ns() - stamp[2]) < _YOUNG_NS
        if failed is not None:
            raise failed
        self._hold(entries)

    def _entries(self) -> tuple[Entry, ...]:
        _refuse_place(self.path)
        text = read_text(self.path)
        if text == self._text and self._error is not None:
            raise self._error
        if text != self._text:
            self._text, self._error = text, None
            try:
                self._parsed = self._parse(text)
            except ConfigError as error:
                self._error = error
                raise
        return self._parsed

    def _parse(self, text: str) -> tuple[Entry, ...]:
        if not text.strip():
            raise ConfigError(WRONG, problems=(f"{self.path}: is empty; for no deployments say deployments = {{}}",))
        document = read_file(self.path)

        def where(key: Key) -> str:
            return f"{self.path}:{document.line(key)}"

        others = [name for name in document.data if name != "deployments"]
        if others:
            what = "is not a deployment; this file has tables [deployments.NAME] and nothing else"
            raise ConfigError(WRONG, problems=tuple(f"{where((name,))}: {name}: {what}" for name in others))
        return read(document.data.get("deployments", {}), where, self.settings())


def _stamp(path: str) -> object:
    """What tells one state of a file from another; no tuple where there is no file."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - with every call, and a Path takes twice as long
    except OSError as error:
        return f"errno {error.errno}"
    return facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size, facts.st_mode


def _refuse_place(path: Path) -> None:
    """What is no plain file might keep its reader waiting for ever, and what everybody may write is nobody's word."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # reading it says why
    if not stat.S_ISREG(mode):
        raise ConfigError(WRONG, problems=(f"{path}: is not a plain file",))
    if os.name == "posix" and mode & stat.S_IWOTH:
        raise ConfigError(WRONG, problems=(f"{path}: can be written by every user; run: chmod o-w {path}",))
