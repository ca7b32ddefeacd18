"""What a plan of faults is: which calls to break and how, as TOML, JSON or values, and who gets which by seed.
It breaks nothing itself; `faults` does so in process, `polyvox.testing` on a socket.
"""

from __future__ import annotations

import json
import math
import os
import random
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from polyvox.errors import ConfigError

Kind = Literal[
    "refuse", "connect_timeout", "first_byte_timeout", "status", "html", "delay",
    "stall", "cut", "reset", "garble", "drip", "split",
    "empty", "no_head", "reset_head", "rubbish", "slow_head", "header_bomb", "bad_header",
    "length_too_big", "length_too_small", "bad_chunk", "no_final_chunk", "half_close", "bad_gzip", "gzip_bomb",
    "error_event", "no_end", "huge_line", "endless",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)

Room = Literal["transport", "simulator"]

# What only one of the rooms can do, and why the other cannot: the kinds from "empty" on were made for sockets.
_UNCONNECTED = "leaves the server no request to break: a FaultTransport plays it"
_NEEDS_A_SOCKET = "needs a socket or a dialect: a Simulator plays it"
_NOT_IN: dict[Room, dict[str, str]] = {
    "transport": dict.fromkeys(KINDS[KINDS.index("empty") :], _NEEDS_A_SOCKET),
    "simulator": dict.fromkeys(("refuse", "connect_timeout"), _UNCONNECTED),
}

_MEBIBYTE = 1 << 20
_PROBLEMS = 20  # problems that an error lists
_HINT = 'a fault is, for example, {kind = "cut", after = 200, at = [1]}'


class Fault(Struct, frozen=True):
    """One way to break a call, and which calls. With neither `at` nor `share` it means every call.

    Attributes:
        kind: what happens. Those marked * need a socket, or know the dialect: a `Simulator` plays them.
            Instead of asking: "refuse" (no connection), "connect_timeout", "first_byte_timeout", "status"
            (an answer with status, headers, body), "html" (200 and a login page), "empty"* (200 and no body),
            "no_head"* (the connection closes without a word), "reset_head"* (it breaks without one),
            "rubbish"* (the body's bytes, which are no HTTP).
            Before the head: "delay" (seconds).
            In the head: "slow_head"* (byte by byte), "header_bomb"* (a field of size bytes), "bad_header"* (a
            line without a colon), "length_too_big"*, "length_too_small"* (more or fewer bytes are promised
            than come), "bad_gzip"* (said to be compressed, and is not), "gzip_bomb"* (size blanks before the
            body, which its readers pass over, compressed).
            In the body: "cut" (it ends as if well), "reset" (it breaks), "stall" (silence until the idle
            timeout), "garble" (all bits of one byte flipped), "drip" (one byte at a time), "split" (pieces of
            random size), "bad_chunk"* (the framing breaks), "no_final_chunk"* (the framing does not end),
            "half_close"* (our side ends, and waits), "huge_line"* (a line of size bytes, and no more; where
            events are binary, one whose length says so many).
            In the events of a stream: "error_event"* (an error in the dialect's own form, as of status),
            "no_end"* (without the events that make it whole), "endless"* (an event again and again, for size
            bytes).
        at: numbers of calls, from 1.
        share: the chance of each call, from 0 to 1.
        times: how many calls at most.
        after: bytes of the body that come through first, for events to the end of the one they lie in; a body
            without that many is left alone.
        seconds: of the delay; of a drip or a slow head, the pause before each byte.
        status, headers, body: of the answer. Without a body a simulator says the status in the dialect's form.
        size: bytes.
    """

    kind: Kind
    at: tuple[int, ...] = ()
    share: float | None = None
    times: int | None = None
    after: int = 0
    seconds: float = 0.0
    status: int = 500
    headers: Mapping[str, str] = {}
    body: bytes = b""
    size: int = _MEBIBYTE


class Schedule:
    """Which fault each call gets: the first of the plan that matches it. That depends on the plan, the seed
    and the call's number alone, but for `times`, which counts the calls as they come.
    """

    def __init__(self, plan: tuple[Fault, ...], seed: int) -> None:
        self._plan = plan
        self._seed = seed
        self._chosen = [0] * len(plan)

    def fault_for(self, number: int) -> tuple[Fault | None, random.Random]:
        """The fault for a call, with the chance that is this fault's and this call's alone: how calls
        interleave, and what the rest of the plan draws, changes nothing."""
        rng = random.Random()
        for index, fault in enumerate(self._plan):
            if fault.times is not None and self._chosen[index] >= fault.times:
                continue
            if fault.at and number not in fault.at:
                continue
            rng = random.Random(f"{self._seed}/{index}/{number}")
            if fault.share is not None and rng.random() >= fault.share:
                continue
            self._chosen[index] += 1
            return fault, rng
        return None, rng


# ---- reading a plan ---------------------------------------------------------------------------


def plan_file(path: str | os.PathLike[str], room: Room | None = None) -> tuple[Fault, ...]:
    """The plan in a file: JSON where its name ends in .json, else TOML. ConfigError when it cannot be read."""
    name = os.fspath(path)
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read the plan of faults {name}: {why}", hint="check the path") from None
    as_json = name.lower().endswith(".json")
    try:
        data = json.loads(text) if as_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not {'JSON' if as_json else 'TOML'}: {error}", hint=_HINT) from None
    return plan_from(data, room)


def plan_from(data: Any, room: Room | None = None) -> tuple[Fault, ...]:
    """A plan from TOML or JSON data: a list of faults, or an object whose only key `fault` has the list
    (TOML's [[fault]]). ConfigError lists everything that is wrong, with a room also what it cannot do.

    Keys are the fields of `Fault`; a body may be a text or a JSON value, at may be one number.

    >>> plan_from([{"kind": "cut", "after": 40, "at": [1, 3]}])[0].at
    (1, 3)
    """
    rows = data
    if isinstance(data, Mapping):
        if set(data) != {"fault"}:
            raise ConfigError("a plan is a list of faults, or an object with nothing but the list `fault`", hint=_HINT)
        rows = data["fault"]
    if isinstance(rows, str | bytes | Mapping | Fault) or not isinstance(rows, Iterable):
        raise ConfigError(f"a plan must be a list of faults, not {type(rows).__name__}", hint=_HINT)
    faults, problems = [], []
    for number, row in enumerate(rows, 1):
        fault, found = _fault_of(row)
        if fault is not None and room is not None and fault.kind in _NOT_IN[room]:
            found = [f"{fault.kind} {_NOT_IN[room][fault.kind]}"]
        problems += [f"fault {number}: {problem}" for problem in found]
        if fault is not None:
            faults.append(fault)
    if problems:
        more = len(problems) - _PROBLEMS
        shown = (*problems[:_PROBLEMS], *((f"and {more} more",) if more > 0 else ()))
        raise ConfigError("the plan of faults is wrong", problems=shown, hint=_HINT)
    return tuple(faults)


def _fault_of(row: Any) -> tuple[Fault | None, list[str]]:
    """The fault a row says, or None and what is wrong with the row."""
    if isinstance(row, Fault):
        # One made by hand was never checked; what it does not say stands at its default.
        said = {name: value for name, value in msgspec.structs.asdict(row).items() if value != _DEFAULTS.get(name)}
    elif isinstance(row, Mapping):
        said = dict(row)
    else:
        return None, [f"must be an object with a kind, not {type(row).__name__}"]
    kind = said.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        return None, [f"kind must be one of {', '.join(KINDS)}" + ("" if kind is None else f", not {kind!r}")]
    values, problems = {}, []
    taken = (*_WHICH, *_FIELDS.get(kind, ()))
    for name, value in said.items():
        if name not in taken:
            problems.append(f"{kind} has no {name}; it takes {', '.join(taken)}")
            continue
        try:
            values[name] = _CHECKS[name](value)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            problems.append(f"{name} must be {_WORDS[name]}")
    if "at" in said and "share" in said:
        problems.append("at and share are both given; a fault has one of them")
    if kind == "delay" and "seconds" not in said:
        problems.append("seconds is missing")
    return (None, problems) if problems else (Fault(kind, **values), [])  # type: ignore[arg-type]


_DEFAULTS = {
    field.name: () if field.name == "at" else {} if field.name == "headers" else field.default
    for field in msgspec.structs.fields(Fault)
}
_WHICH = ("at", "share", "times")
_FIELDS: dict[str, tuple[str, ...]] = {
    "status": ("status", "headers", "body"),
    "delay": ("seconds",),
    "drip": ("seconds",),
    "slow_head": ("seconds",),
    "rubbish": ("body",),
    "header_bomb": ("size",),
    "gzip_bomb": ("size",),
    "error_event": ("after", "status"),
    "huge_line": ("after", "size"),
    "endless": ("after", "size"),
    **dict.fromkeys(("cut", "reset", "stall", "garble", "bad_chunk", "half_close"), ("after",)),
}


def _whole(least: int, most: float = math.inf) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError
        return value

    return check


def _number(least: float, most: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if type(value) not in (int, float) or not least <= value <= most:  # NaN is in no range
            raise ValueError
        return float(value)

    return check


def _numbers(value: Any) -> tuple[int, ...]:
    found = tuple([_whole(1)(item) for item in (value if isinstance(value, list | tuple) else [value])])
    if not found:
        raise ValueError
    return found


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise TypeError
    if any(mark in text for pair in value.items() for text in pair for mark in "\r\n\0"):
        raise ValueError
    return dict(value)


def _body(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "at": _numbers,
    "share": _number(0, 1),
    "times": _whole(1),
    "after": _whole(0),
    "seconds": _number(0, 86_400),
    "status": _whole(200, 599),
    "headers": _headers,
    "body": _body,
    "size": _whole(1, 1 << 30),
}
_WORDS = {
    "at": "a number of a call, from 1, or a list of them",
    "share": "a number from 0 to 1",
    "times": "a whole number from 1",
    "after": "a whole number of bytes, from 0",
    "seconds": "a number of seconds from 0 to a day",
    "status": "an HTTP status from 200 to 599",
    "headers": "texts by name, each on one line",
    "body": "a text or a JSON value",
    "size": "a whole number of bytes, from 1 to 1 GiB",
}
