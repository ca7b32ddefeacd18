"""The arguments of a call that come value by value, each under its JSON path (RFC 9535, names and indices only)."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from polyvox.dialects import encode_json
from polyvox.dialects.gemini.facts import Json, named
from polyvox.errors import BadResponseError

_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d{1,6})\]|\['(?P<quoted>[^']*)'\]|\[\"(?P<double>[^\"]*)\"\]")
_VALUES = ("stringValue", "numberValue", "boolValue")


class PartialArgs:
    """An object of arguments while it grows."""

    def __init__(self, args: Json) -> None:
        self._args: Any = dict(args)
        self._open: str | None = None  # the path of the string that goes on

    def add(self, raw: Any) -> None:
        """Take one value, or the next piece of a string; raises BadResponseError for a path that leads nowhere."""
        piece = named(raw)
        path = piece.get("jsonPath")
        if not isinstance(path, str):
            raise BadResponseError("the stream has a piece of arguments without a path")
        value = next((piece[key] for key in _VALUES if piece.get(key) is not None), None)
        steps = _steps(path)
        held: Any = self._args
        for step, following in pairwise(steps):
            held = _within(held, step, [] if isinstance(following, int) else {}, path)
        if path == self._open and isinstance(value, str):
            value = _get(held, steps[-1], path) + value
        self._open = path if piece.get("willContinue") is True else None
        _set(held, steps[-1], value, path)

    def text(self) -> str:
        """What has come so far, as JSON."""
        return encode_json(self._args).decode()


def _steps(path: str) -> list[str | int]:
    found: list[str | int] = []
    at = 1
    while at < len(path) and (step := _STEP.match(path, at)) is not None:
        index = step["index"]
        found.append(int(index) if index is not None else next(n for n in step.group("name", "quoted", "double") if n))
        at = step.end()
    if not path.startswith("$") or at < len(path) or not found:
        raise _astray(path)
    return found


def _within(held: Any, step: str | int, empty: Any, path: str) -> Any:
    if isinstance(held, dict) and isinstance(step, str):
        return held.setdefault(step, empty)
    if isinstance(held, list) and isinstance(step, int) and step <= len(held):
        if step == len(held):
            held.append(empty)
        return held[step]
    raise _astray(path)


def _get(held: Any, step: str | int, path: str) -> str:
    found = _within(held, step, "", path)
    if not isinstance(found, str):
        raise _astray(path)
    return found


def _set(held: Any, step: str | int, value: Any, path: str) -> None:
    _within(held, step, value, path)
    held[step] = value


def _astray(path: str) -> BadResponseError:
    return BadResponseError(f"the stream has a piece of arguments for {path[:200]!r}, which leads nowhere")
