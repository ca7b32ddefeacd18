"""Which ledger the command line has: the [ledger] table of the configuration file, read and written, and the ledger it
names, opened. It decides nothing about calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from polyvox.config import default_files
from polyvox.config.edit import change, with_value
from polyvox.config.sources import read
from polyvox.database import Address
from polyvox.database.address import address_of
from polyvox.errors import ConfigError
from polyvox.keys import config_dir
from polyvox.ledger import Ledger, default_place
from polyvox.ledger.values import Privacy

TABLE = "ledger"
TEXTS: tuple[Privacy, ...] = ("none", "hashed", "full")
_MAGIC = b"SQLite format 3\0"
_NAME = "name another with --ledger"
_HOW = "write calls down with: polyvox logs on"


class Switch(Struct, frozen=True, kw_only=True):
    """The [ledger] table: whether calls are written down, what is kept of their texts, and in which database; without
    one, in the user's own file."""

    enabled: bool = False
    texts: Privacy = "none"
    database: str | None = None

    @property
    def place(self) -> str:
        """The path or URL of the ledger, whether there is one or not."""
        return self.database or str(default_place())


def settings_file() -> Path:
    """The configuration file in use, or the one that would be made."""
    return next(iter(default_files()), config_dir() / "config.toml")


def switch() -> Switch:
    """What the configuration file says of the ledger; ConfigError with every problem of it."""
    path = settings_file()
    if not path.exists():
        return Switch()
    document = read(path)
    table = document.data.get(TABLE, {})
    problems = []
    if not isinstance(table, dict):
        problems.append(f"{path}:{document.line((TABLE,))}: {TABLE}: must be a table")
        table = {}
    for name, value in table.items():
        what = _wrong(name, value)
        if what:
            problems.append(f"{path}:{document.line((TABLE, name))}: {TABLE}.{name}: {what}")
    if problems:
        raise ConfigError("the configuration cannot be used", problems=tuple(problems))
    return Switch(**table)


def _wrong(name: str, value: Any) -> str | None:
    if name == "enabled":
        return None if isinstance(value, bool) else "must be true or false"
    if name == "texts":
        return None if value in TEXTS else f"must be one of {', '.join(TEXTS)}"
    if name == "database":
        return None if isinstance(value, str) and value.strip() else "must be a path or URL"
    return "is not a setting; there are enabled, texts and database"


def turn(enabled: bool, *, texts: Privacy | None = None, database: str | None = None) -> Path:
    """Write the switch to the configuration file, in one step, and give the file; what is None stays as it is.

    A path is written as an absolute one. ConfigError for a URL with a password, and for a file that cannot be changed.
    """
    values: dict[str, Any] = {"enabled": enabled}
    if texts is not None:
        values["texts"] = texts
    if database is not None:
        values["database"] = _without_secret(database)
    path = settings_file()

    def edit(text: str) -> str:
        for name, value in values.items():
            text = with_value(text, (TABLE, name), value, path)
        return text

    change(path, edit)
    return path


def _without_secret(place: str) -> str:
    address = address_of(place)
    if address.path is not None:
        return str(address.path)
    parts = urlsplit(place)
    if parts.password or any("pass" in name.lower() for name, _ in parse_qsl(parts.query)):
        raise ConfigError(
            "a password is not written to a configuration file",
            hint="leave it out of the URL; PostgreSQL reads it from ~/.pgpass or PGPASSWORD",
        )
    return place


@contextlib.contextmanager
def opened(place: str | None = None) -> Iterator[Ledger]:
    """The ledger at a path or URL, or the one the configuration names, opened: calls that dead processes left are
    marked first, and rows that waited in files come home. It makes no new one: ConfigError where there is none."""
    said = switch().place if place is None else place
    there(address_of(said), named=place is not None)
    with Ledger(said) as ledger:
        yield ledger


def there(address: Address, *, named: bool = False) -> None:
    """Raise ConfigError where no ledger is; of a server only its own answer tells. What is no database is told before
    it is opened: whoever opens a ledger to write puts a broken one aside, and a file of another kind is not broken."""
    if address.path is None:
        return
    try:
        with address.path.open("rb") as file:
            begins = file.read(len(_MAGIC))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        begins = b""
    except OSError as error:
        raise ConfigError(f"the ledger {address.path} cannot be read: {error.strerror}", hint=_NAME) from None
    if not begins:
        raise ConfigError(f"there is no ledger at {address.path}", hint=f"{_NAME}, or {_HOW}" if named else _HOW)
    if begins != _MAGIC:
        raise ConfigError(f"{address.path} is no ledger: it is no SQLite database", hint=_NAME)
