"""What settings are read from: TOML, YAML, JSON and .env files, each with the line a setting stands on.
It judges no value.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from polyvox.config.fields import Key
from polyvox.errors import ConfigError, MissingExtraError

_LARGEST = 1024 * 1024


class Document(NamedTuple):
    """A file's settings, and the line (from 1) of each key in it."""

    data: dict[str, Any]
    lines: dict[Key, int]

    def line(self, key: Key) -> int:
        """The line of a key, or of the nearest table around it."""
        for end in range(len(key), 0, -1):
            if key[:end] in self.lines:
                return self.lines[key[:end]]
        return 1


def read(path: Path) -> Document:
    """Read a settings file by its ending; ConfigError whose problem names the line."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise _problem(path, 1, f"the ending must be one of {', '.join(_READERS)}")
    return reader(path, read_text(path))


def read_text(path: Path) -> str:
    """The text of a file of at most 1 MiB, line ends as they are; ConfigError otherwise."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise _problem(path, 1, "is larger than 1 MiB")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise _problem(path, None, "there is no such file") from None
    except OSError as error:
        raise _problem(path, None, f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise _problem(path, error.object[: error.start].count(b"\n") + 1, "is not UTF-8") from None


def _problem(path: Path, line: int | None, what: str) -> ConfigError:
    where = str(path) if line is None else f"{path}:{line}"
    return ConfigError("the configuration cannot be used", problems=(f"{where}: {what}",))


# ---- TOML -------------------------------------------------------------------------------------

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_DOTTED = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_ASSIGNMENT = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=")
_HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*({_DOTTED})[ \t]*\]")


class Statement(NamedTuple):
    """A TOML header or assignment: its full key, its lines [start, end) from 0, and for an
    assignment the column where its value begins on the first line.
    """

    key: Key
    start: int
    end: int
    value_at: int | None


def statements(lines: list[str]) -> Iterator[Statement]:
    """The headers and assignments of a valid TOML text, in order."""
    table: Key = ()
    at = 0
    while at < len(lines):
        header, assignment = _HEADER.match(lines[at]), _ASSIGNMENT.match(lines[at])
        end = at + 1
        if header:
            # What stands in an array of tables has no key of its own; no setting is one.
            table = (*_parts(header[2]), *(("[]",) if header[1] == "[[" else ()))
            yield Statement(table, at, end, None)
        elif assignment:
            while end < len(lines) and not _parses("".join(lines[at:end])):
                end += 1
            yield Statement((*table, *_parts(assignment[1])), at, end, assignment.end())
        at = end


def _parts(dotted: str) -> Key:
    """The parts of a dotted key, unquoted."""
    inner: Any = tomllib.loads(f"{dotted} = 0")
    parts: list[str] = []
    while isinstance(inner, dict):
        name, inner = next(iter(inner.items()))
        parts.append(name)
    return tuple(parts)


def _parses(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _read_toml(path: Path, text: str) -> Document:
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        match = re.search(r"^(.*) \(at line (\d+), column \d+\)$", str(error))
        said, line = (match[1], int(match[2])) if match else (str(error), text.count("\n") + 1)
        raise _problem(path, line, f"is not valid TOML: {said}") from None
    lines: dict[Key, int] = {}
    for statement in statements(text.splitlines(keepends=True)):
        for end in range(1, len(statement.key) + 1):
            lines.setdefault(statement.key[:end], statement.start + 1)
    return Document(data, lines)


# ---- YAML and JSON ----------------------------------------------------------------------------


def _read_yaml(path: Path, text: str) -> Document:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError(f"reading {path} needs YAML", hint="pip install 'polyvox[yaml]'") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or "it cannot be read"
        raise _problem(path, mark.line + 1 if mark else 1, f"is not valid YAML: {said}") from None
    lines: dict[Key, int] = {}

    def visit(node: Any, key: Key) -> None:
        # Deeper than settings go, there is nothing to find (and aliases may nest without end).
        if not isinstance(node, yaml.MappingNode) or len(key) > 4:
            return
        for name, value in node.value:
            inner = (*key, str(name.value))
            lines[inner] = name.start_mark.line + 1
            visit(value, inner)

    visit(root, ())
    return Document(_table(path, data), lines)


def _read_json(path: Path, text: str) -> Document:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise _problem(path, error.lineno, f"is not valid JSON: {error.msg}") from None
    except RecursionError:
        raise _problem(path, 1, "is not valid JSON: nested too deeply") from None
    lines: dict[Key, int] = {}

    def visit(value: Any, key: Key, start: int) -> None:
        if not isinstance(value, dict):
            return
        for name, inner in value.items():
            # JSON parsers tell no positions; the first such name after its table's is nearly always it.
            found = text.find(json.dumps(name, ensure_ascii=False), start)
            at = found if found >= 0 else start
            lines[(*key, name)] = text.count("\n", 0, at) + 1
            visit(inner, (*key, name), at)

    visit(data, (), 0)
    return Document(_table(path, data), lines)


def _table(path: Path, data: Any) -> dict[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
        raise _problem(path, 1, "must be a table of settings")
    return data


_READERS: Mapping[str, Callable[[Path, str], Document]] = {
    ".toml": _read_toml,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".json": _read_json,
}


# ---- .env -------------------------------------------------------------------------------------

_VARIABLE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*(?:#.*)?')
_SINGLE = re.compile(r"'([^']*)'[ \t]*(?:#.*)?")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read_dotenv(path: Path) -> tuple[dict[str, str], dict[str, int]]:
    """The variables of a .env file and their lines. Nothing is expanded, nothing is exported.

    The last of two lines with one name wins. ConfigError lists every line that is not NAME=value,
    without showing it.
    """
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _VARIABLE.fullmatch(line)
        value = _unquoted(match[2]) if match else None
        if match is None or value is None:
            problems.append(f"{path}:{number}: is not NAME=value")
            continue
        values[match[1]], lines[match[1]] = value, number
    if problems:
        raise ConfigError("the configuration cannot be used", problems=tuple(problems))
    return values, lines


def _unquoted(text: str) -> str | None:
    if text.startswith('"'):
        match = _DOUBLE.fullmatch(text)
        return match and re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), match[1])
    if text.startswith("'"):
        match = _SINGLE.fullmatch(text)
        return match and match[1]
    return re.split(r"(?:^|[ \t]+)#", text, maxsplit=1)[0].strip()
