"""How a simulated provider is told to behave: every option checked, with one clear error for a wrong one. It
runs nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from polyvox.errors import InputError
from polyvox.keys import Secret
from polyvox.testing.simulate.pace import Latency, latency_from
from polyvox.testing.simulate.recorded import records_in
from polyvox.transports.fault_plan import Fault, plan_file, plan_from
from polyvox.transports.replay import Record
from polyvox.types import Request, Response


class Options(Struct, frozen=True):
    """The options of a `Simulator`, checked and read; see there for what each means."""

    host: str
    port: int
    models: tuple[str, ...] | None
    keys: tuple[Secret, ...] | None
    demand_key: bool
    strict: bool
    latency: Latency
    token_rate: float | None
    rpm: int | None
    tpm: int | None
    concurrent: int | None
    plan: tuple[Fault, ...]
    records: tuple[Record, ...] | None
    answering: Callable[[Request], Response] | None
    seed: int
    keep_alive: float
    keep: int


def options_from(said: Mapping[str, Any]) -> Options:
    """Options from what was passed to a `Simulator`; InputError, with `param`, or ConfigError for a wrong one."""
    replay, plan = said["replay"], said["plan"]
    if said["models"] is not None and replay is not None:
        raise InputError("models and replay exclude each other: a recording has its own models", param="models")
    if said["answering"] is not None and replay is not None:
        raise InputError("answering and replay exclude each other: a recording has its own answers", param="answering")
    checked = {name: check(name, said[name]) for name, check in _CHECKS.items()}
    return Options(
        **checked,
        latency=latency_from(said["latency"]),
        plan=_plan(plan),
        records=None if replay is None else records_in(_path("replay", replay)),
    )


def _plan(said: Any) -> tuple[Fault, ...]:
    if isinstance(said, str | os.PathLike):
        return plan_file(said, "simulator")
    return plan_from(said, "simulator")


def _path(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise _wrong(name, "a path", value)
    return os.fspath(value)


# ---- checks -----------------------------------------------------------------------------------


def _wrong(name: str, what: str, value: Any) -> InputError:
    # The value is not shown: it may be a key.
    shown = f", not {value!r}" if type(value) in (int, float, bool) else f", not {type(value).__name__}"
    return InputError(f"{name} must be {what}{shown}", param=name)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(name, "a text", value)
    return value


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "True or False", value)
    return value


def _texts(name: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise _wrong(name, "a list of texts", value)
    found = tuple(value)
    if not found or not all(isinstance(text, str) and text for text in found):
        raise InputError(f"{name} must be a list of texts with at least one in it", param=name)
    return found


def _keys(name: str, value: Any) -> tuple[Secret, ...] | None:
    found = _texts(name, value)
    return None if found is None else tuple([Secret(text) for text in found])


def _whole(least: int, most: float = math.inf, *, optional: bool = False) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if value is None and optional:
            return None
        if type(value) is not int or not least <= value <= most:
            upper = "" if math.isinf(most) else f" to {most:.0f}"
            raise _wrong(name, f"a whole number from {least}{upper}", value)
        return value

    return check


def _positive(*, optional: bool = False) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if value is None and optional:
            return None
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise _wrong(name, "a number above 0", value)
        return float(value)

    return check


def _function(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise _wrong(name, "a function", value)
    return value


def _seed(name: str, value: Any) -> int:
    if type(value) is not int:
        raise _wrong(name, "a whole number", value)
    return int(value)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "host": _text,
    "port": _whole(0, 65535),
    "models": _texts,
    "keys": _keys,
    "demand_key": _switch,
    "strict": _switch,
    "token_rate": _positive(optional=True),
    "rpm": _whole(1, optional=True),
    "tpm": _whole(1, optional=True),
    "concurrent": _whole(1, optional=True),
    "seed": _seed,
    "keep_alive": _positive(),
    "keep": _whole(0),
    "answering": _function,
}
