"""Where a database is: a file of SQLite or the URL of a PostgreSQL server, read and checked. It opens nothing, and
its texts never hold a password."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from msgspec import Struct

from polyvox.errors import ConfigError
from polyvox.keys import Secret, remember

Kind = Literal["sqlite", "postgresql"]
HINT = "write sqlite:///relative.db, sqlite:////absolute.db, a path, or postgresql://user@host:5432/name"


class Address(Struct, frozen=True):
    """A place for a database. path is the file of SQLite; url is what PostgreSQL is reached by, secret because it may
    hold a password."""

    kind: Kind
    path: Path | None = None
    url: Secret | None = None
    shown: str = ""

    def __str__(self) -> str:
        """The address without its password."""
        return self.shown

    @property
    def digest(self) -> str:
        """Tells databases apart in the names of files; the same whatever the password is."""
        return hashlib.sha256(self.shown.encode()).hexdigest()[:16]


def address_of(place: str | os.PathLike[str]) -> Address:
    """Read a path or URL; ConfigError for what is neither.

    >>> str(address_of("sqlite:////var/lib/polyvox/ledger.db"))
    'sqlite:////var/lib/polyvox/ledger.db'
    >>> str(address_of("postgresql://ann:secret-word@db.example/ledger"))
    'postgresql://ann@db.example/ledger'
    """
    text = os.fspath(place)
    if not text.strip():
        raise ConfigError("no database is named", hint=HINT)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _file(text)
    family = scheme.lower().partition("+")[0]
    if family == "sqlite":
        # Of the three slashes of sqlite:///path the last is no part of the path.
        if not rest.startswith("/") or rest in ("/", "/:memory:"):
            raise ConfigError(f"{text!r} names no file", hint=HINT)
        return _file(unquote(rest[1:].partition("?")[0]))
    if family in ("postgresql", "postgres"):
        return _server(text)
    raise ConfigError(f"{scheme!r} is no kind of database polyvox knows", hint=HINT)


def _file(text: str) -> Address:
    if text in ("", ":memory:") or "\0" in text:
        raise ConfigError("a database in memory cannot be shared by its writer and its readers", hint=HINT)
    path = Path(text).expanduser().absolute()
    return Address("sqlite", path=path, shown=f"sqlite:///{path}")


def _server(text: str) -> Address:
    try:
        parts = urlsplit(text)
        password, port = parts.password, parts.port
    except ValueError as error:
        raise ConfigError(f"the URL of the database cannot be read: {error}", hint=HINT) from None
    if password:
        remember(Secret(password))
        remember(Secret(unquote(password)))
    host = parts.hostname or ""
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    shown = f"postgresql://{parts.username + '@' if parts.username else ''}{place}{parts.path}"
    url = urlunsplit(("postgresql+psycopg", parts.netloc, parts.path, parts.query, ""))
    return Address("postgresql", url=Secret(url), shown=shown + _search_path(parts.query))


def _search_path(query: str) -> str:
    """The part of the query that makes it another database for us; other parts may hold secrets."""
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name == "options" and "search_path" in value:
            return f"?options={value}"
    return ""
