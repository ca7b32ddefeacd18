"""A .env file with some of its variables changed: every other line, comment and line end stays as it is. What the
variables mean is not its business."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from polyvox.compat.errors import named
from polyvox.errors import ConfigError, InputError
from polyvox.keys import locked, write_atomically

_LINE = re.compile(
    r"""(?P<head>[ \t]*(?:export[ \t]+)?) (?P<name>[A-Za-z_][A-Za-z0-9_]*) [ \t]*=[ \t]*
        (?:"(?:[^"\\]|\\.)*"|'[^']*'|.*?) (?P<tail>(?:[ \t]+\#.*)?[ \t]*)""",
    re.VERBOSE,
)
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,~-]+")


class Change(NamedTuple):
    """What became of a file: whether its text is another now, and where the text before is."""

    changed: bool
    backup: Path | None = None


def changed(text: str, values: Mapping[str, str | None]) -> str:
    """The text with these variables set, or taken out where they are None. Names are found in any case; one that is
    not there yet is added at the end. InputError for a value of several lines."""
    wanted = {name.upper(): (name, None if value is None else quoted(name, value)) for name, value in values.items()}
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    last = {found["name"].upper(): at for at, found in _found(lines) if found["name"].upper() in wanted}
    made = list(lines)
    for at, found in _found(lines):
        key = found["name"].upper()
        if key not in wanted:
            continue
        name, value = wanted[key]
        # Of several lines with one name the last is believed, so the others go.
        stays = value is not None and last[key] == at
        made[at] = f"{found['head']}{name}={value}{found['tail']}{_end_of(lines[at])}" if stays else ""
    new = [f"{name}={value}{end}" for key, (name, value) in wanted.items() if value is not None and key not in last]
    if new and made and (before := "".join(made)) and not before.endswith("\n"):
        made.append(end)
    return "".join([*made, *new])


def _found(lines: list[str]) -> list[tuple[int, re.Match[str]]]:
    matches = ((at, _LINE.fullmatch(line.rstrip("\r\n"))) for at, line in enumerate(lines))
    return [(at, match) for at, match in matches if match]


def _end_of(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


def quoted(name: str, value: str) -> str:
    """A value as it stands behind NAME=, read as it is by whoever reads the file: nothing in it is expanded."""
    if not value.isprintable():
        raise named(InputError(f"{name} cannot hold line breaks or control characters", param=name))
    if _PLAIN.fullmatch(value) or not value:
        return value
    if "'" not in value:
        return f"'{value}'"
    if "$" in value:  # in double quotes some readers take it for a variable
        raise named(InputError(f"{name} cannot hold both ' and $ in a .env file", param=name))
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def change(path: Path, values: Mapping[str, str | None]) -> Change:
    """Change the file in one step, for its owner alone (mode 0600), and keep what it said before beside it, as
    NAME.bak. ConfigError where that cannot be done."""
    real = Path(os.path.realpath(path))
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        with locked(real.parent):
            before = read(path)
            after = changed(before or "", values)
            if before is not None and after == before:
                if os.name == "posix" and stat.S_IMODE(real.stat().st_mode) != 0o600:
                    real.chmod(0o600)
                return Change(False)
            backup = None
            if before is not None:
                backup = path.with_name(f"{path.name}.bak")
                write_atomically(backup, before.encode("utf-8", "surrogateescape"), 0o600)
            write_atomically(real, after.encode("utf-8", "surrogateescape"), 0o600)
    except OSError as error:
        raise named(ConfigError(f"{path} cannot be written: {error.strerror}", hint="name another: --file")) from None
    return Change(True, backup)


def read(path: Path) -> str | None:
    """What the file says; None where there is none. Bytes that are no text come back as they were."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise named(ConfigError(f"{path} cannot be read: {error.strerror}", hint="name another: --file")) from None
