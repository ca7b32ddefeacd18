"""Change one setting in a TOML file and leave every other line, comment and blank as it is.
A change that would not read back as exactly that change is never written.
"""

from __future__ import annotations

import copy
import json
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from polyvox.config.fields import (
    BUDGET_FIELDS,
    BUDGETS_FIELDS,
    DEPLOYMENT_FIELDS,
    FIELDS,
    OWN_TABLES,
    PROVIDER_FIELDS,
    Field,
    Key,
    Problem,
    check,
)
from polyvox.config.sources import Statement, read_text, statements
from polyvox.errors import ConfigError
from polyvox.keys import is_secret_name, locked, redact, write_atomically

_PLACES = ("place", "database")


def set_value(path: str | os.PathLike[str], key: str, value: str) -> None:
    """Set a dotted key ("timeout", "aliases.fast", "providers.openai.base_url") from its text.

    Lists are given with commas. The file is made when there is none, replaced in one step, and keeps
    its mode. Raises ConfigError for what `load` would refuse, and for keys: those go in the key store.
    """
    place = _place(key)
    _refuse_secrets(place)
    parsed = _typed(place, value)
    if place[-1] in _PLACES and redact(value) != value:
        raise ConfigError(
            f"{key}: a password is not written to a configuration file",
            hint="leave it out of the URL; PostgreSQL reads it from ~/.pgpass, or write it there yourself",
        )
    change(Path(path), lambda text: with_value(text, place, parsed, Path(path)))


def unset_value(path: str | os.PathLike[str], key: str) -> bool:
    """Remove a dotted key; False when it is not in the file."""
    place = _place(key)
    if not Path(path).exists():
        return False
    return change(Path(path), lambda text: _without(text, place, Path(path)))


# ---- what is meant ----------------------------------------------------------------------------


def _place(key: str) -> Key:
    """The parts of a dotted key. Names of aliases, headers and options may hold dots themselves."""
    parts = key.split(".")
    if parts[0] == "budgets" and len(parts) > 3:
        return parts[0], ".".join(parts[1:-1]), parts[-1]
    if parts[0] == "deployments" and len(parts) > 3:
        tail = 2 if parts[-2] in ("limits", "price") else 1
        return (parts[0], ".".join(parts[1:-tail]), *parts[-tail:])
    if parts[0] == "aliases" and len(parts) > 1:
        return "aliases", ".".join(parts[1:]).removeprefix("@")
    if parts[0] == "providers" and len(parts) > 3:
        return (*parts[:3], ".".join(parts[3:]))
    return tuple(parts)


def _refuse_secrets(place: Key) -> None:
    secret = "api_key" in place or (len(place) == 4 and place[0] == "providers" and is_secret_name(place[3]))
    if secret:
        name = place[1] if place[0] == "providers" and len(place) > 1 else "NAME"
        hint = f"polyvox keys set {name}"
        if place[0] == "deployments":
            hint = f"{hint}, or name the variable that has it: {'.'.join(place[:2])}.api_key_env"
        raise ConfigError(f"{'.'.join(place)} is not written to a configuration file", hint=hint)


def _typed(place: Key, text: str) -> Any:
    """The value a text means at this place, in TOML's types; ConfigError where `load` would refuse it."""
    whole = {
        "providers": 3,
        "aliases": 2,
        "budgets": 3,
        "deployments": 4 if place[2:] in (("limits",), ("price",)) else 3,
        **dict.fromkeys(OWN_TABLES, 2),
    }.get(place[0], 1)
    if place[0] == "budgets" and place[1:2] and place[1] in BUDGETS_FIELDS:
        whole = 2
    problems = []
    if len(place) < whole:
        problems.append(f"{'.'.join(place)}: is a table; name a setting in it")
    table: Any = text
    for part in reversed(place):
        table = {part: table}
    value: Any = None
    for item in () if problems else check(table):
        if isinstance(item, Problem):
            problems.append(f"{'.'.join(item.key)}: {item.what}")
        else:
            value = item[1]
    if problems:
        raise ConfigError("the setting cannot be written", problems=tuple(problems))
    if place[-2:-1] == ("options",):
        return _literal(text)
    field = _field(place)
    if field and field.is_list:
        return list(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Decimal):
        return text.strip()  # exactly as it was typed
    # "no limit" parses to None, which TOML cannot say; the word can.
    return "none" if value is None else value


def _field(place: Key) -> Field | None:
    """The field at a place of one or three parts."""
    if len(place) == 3:
        return _OF_THREE.get(place[0], PROVIDER_FIELDS).get(place[2])
    return FIELDS.get(place[0]) if len(place) == 1 else None


_OF_THREE = {"budgets": BUDGET_FIELDS, "deployments": DEPLOYMENT_FIELDS}


def _literal(text: str) -> Any:
    """A TOML value, or the text itself where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


# ---- the file ---------------------------------------------------------------------------------


def change(path: Path, edit: Any) -> bool:
    """Apply an edit (text -> text, or None for no change) to a file, in one step."""
    if path.suffix.lower() != ".toml":
        raise ConfigError(f"{path} is not a TOML file", hint="edit it by hand, or keep settings in config.toml")
    real = Path(os.path.realpath(path))
    try:
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(real.parent):
            exists = real.exists()
            new = edit(read_text(path) if exists else "")
            if new is None:
                return False
            write_atomically(real, new.encode("utf-8"), stat.S_IMODE(real.stat().st_mode) if exists else 0o600)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    return True


def _loaded(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML", problems=(f"{path}: {error}",), hint="mend it first") from None


def with_value(text: str, place: Key, value: Any, path: Path) -> str:
    """The text of a file with a value set; ConfigError where that cannot be done without disturbing the rest."""
    wanted = _laid(_loaded(text, path), place, value)
    for candidate in _ways_to_set(text, place, value):
        if _reads_as(candidate, wanted):
            return candidate
    raise ConfigError(
        f"{'.'.join(place)} cannot be set in {path} without disturbing the rest", hint="edit the file by hand"
    )


def _without(text: str, place: Key, path: Path) -> str | None:
    data = _loaded(text, path)
    if _found(data, place) is None:
        return None
    wanted = _laid(data, place, None)
    lines = text.splitlines(keepends=True)
    for statement in statements(lines):
        if statement.value_at is None or statement.key != place[: len(statement.key)]:
            continue
        if statement.key == place:
            candidate = "".join(lines[: statement.start] + lines[statement.end :])
        else:
            candidate = _replaced(lines, statement, _found(wanted, statement.key) or {})
        if _reads_as(candidate, wanted):
            return candidate
    raise ConfigError(f"{'.'.join(place)} cannot be removed from {path}", hint="edit the file by hand")


def _ways_to_set(text: str, place: Key, value: Any) -> Iterator[str]:
    """Texts that may have the value at its place, the least disturbing first."""
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += end
    known = list(statements(lines))
    for statement in known:
        if statement.value_at is None:
            continue
        if statement.key == place:
            yield _replaced(lines, statement, value)
        elif statement.key == place[: len(statement.key)]:
            table = _found(tomllib.loads(text), statement.key)
            if isinstance(table, dict):
                yield _replaced(lines, statement, _laid(table, place[len(statement.key) :], value))
    table_key, name = place[:-1], place[-1]
    after = _end_of_table(known, table_key)
    if after is not None:
        yield "".join([*lines[:after], f"{_bare(name)} = {_dumped(value)}{end}", *lines[after:]])
    if table_key:
        gap = end if lines and lines[-1].strip() else ""
        yield "".join([*lines, f"{gap}[{_dotted(table_key)}]{end}{_bare(name)} = {_dumped(value)}{end}"])
    top = _end_of_table(known, ()) or 0
    yield "".join([*lines[:top], f"{_dotted(place)} = {_dumped(value)}{end}", *lines[top:]])


def _end_of_table(known: list[Statement], table: Key) -> int | None:
    """The line after the last assignment under a table's header; None when there is no such header."""
    here: Key = ()
    after = 0 if not table else None
    for statement in known:
        if statement.value_at is None:
            here = statement.key
            after = statement.end if here == table else after
        elif here == table:
            after = statement.end
    return after


def _replaced(lines: list[str], statement: Statement, value: Any) -> str:
    """The text with one assignment's value exchanged and the comment after it kept."""
    first, last = lines[statement.start], lines[statement.end - 1]
    body = last.rstrip("\r\n")
    kept = last[len(body) :]
    before = "".join(lines[statement.start : statement.end - 1])
    for at, char in enumerate(body):
        # The first '#' before which everything parses is where the comment begins.
        if char == "#" and _complete(before + body[:at]):
            spaces = len(body[:at]) - len(body[:at].rstrip())
            kept = body[at - spaces :] + kept
            break
    head = first[: statement.value_at]
    new = f"{head} {_dumped(value)}{kept}"
    return "".join([*lines[: statement.start], new, *lines[statement.end :]])


def _complete(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


# ---- values -----------------------------------------------------------------------------------


def _found(data: Any, place: Key) -> Any:
    for part in place:
        if not isinstance(data, Mapping) or part not in data:
            return None
        data = data[part]
    return data


def _laid(data: Mapping[str, Any], place: Key, value: Any) -> dict[str, Any]:
    """A copy of the tables with one value set, or removed where it is None."""
    made = copy.deepcopy(dict(data))
    inner = made
    for part in place[:-1]:
        if not isinstance(inner.get(part), dict):
            inner[part] = {}
        inner = inner[part]
    if value is None:
        inner.pop(place[-1], None)
    else:
        inner[place[-1]] = value
    return made


def _reads_as(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return _full(tomllib.loads(text)) == _full(wanted)
    except tomllib.TOMLDecodeError:
        return False


def _full(data: Mapping[str, Any]) -> dict[str, Any]:
    """The tables without empty ones: a header with nothing under it says nothing."""
    made = {key: _full(value) if isinstance(value, Mapping) else value for key, value in data.items()}
    return {key: value for key, value in made.items() if value != {}}


def _bare(name: str) -> str:
    plain = name.replace("-", "").replace("_", "")
    return name if plain.isascii() and plain.isalnum() else _quoted(name)


def _dotted(place: Key) -> str:
    return ".".join(_bare(part) for part in place)


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped and JSON leaves.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _dumped(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_dumped(item) for item in value)}]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_bare(key)} = {_dumped(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)
