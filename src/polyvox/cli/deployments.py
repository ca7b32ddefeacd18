"""How the configured deployments stand: what is said of each, whether it has its key, what the ledger tells of its last
hour, and what is used of its limits where a server counts those. It asks no provider."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from polyvox.cli import kept, output, routes
from polyvox.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from polyvox.config import Settings
    from polyvox.limits import Used
    from polyvox.registry import Entry
    from polyvox.usage.deployed import Deployed

T = TypeVar("T")

_SECONDS = 3.0  # for the ledger, and for the server of the limits
_NEVER = {"calls": 0, "errors": 0, "p50": None, "last_error": None, "breaker": "closed"}


def deployments(found: Settings, *, ledger: bool) -> list[dict[str, Any]]:
    """Facts of each configured deployment, in their order. ledger says whether there is one to be asked."""
    entries = routes.configured(found).list_all()
    if not entries:
        return []
    hour: Mapping[str, Deployed] | None = None
    used: Mapping[str, Used] | None = None
    if ledger:
        from polyvox.usage import deployed, switch  # noqa: F401 - before the thread, which may see them half made

        hour = _in_time(lambda: _last_hour(found))
    if found.routing.get("limits"):
        used = _in_time(lambda: _in_use(found, entries))
    return [_facts(entry, found, hour, used) for entry in entries]


def show(rows: Iterable[Mapping[str, Any]]) -> None:
    """As a table; nothing where there are none."""
    rows = list(rows)
    if not rows:
        return
    output.line("")
    header = (
        "DEPLOYMENT", "STATE", "MODEL", "TIER", "PRIORITY", "WEIGHT", "KEY", "LIMITS", "CALLS 1H", "ERRORS", "P50",
    )  # fmt: skip
    output.table(header, map(_cells, rows))


def _in_time(work: Callable[[], T]) -> T | None:
    """What comes of it within a few seconds; None for what fails or is late, which the line about the place tells."""
    came: list[T] = []

    def one() -> None:
        try:
            came.append(work())
        except Exception:  # noqa: BLE001 - a ledger or a server that is away leaves gaps, and no more
            return

    thread = threading.Thread(target=one, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return came[0] if came else None


def _last_hour(found: Settings) -> Mapping[str, Deployed]:
    from polyvox.usage.deployed import deployed
    from polyvox.usage.switch import opened

    with opened(kept.ledger_place(found)) as ledger:
        return deployed(ledger.history)


def _in_use(found: Settings, entries: Iterable[Entry]) -> Mapping[str, Used]:
    from polyvox import portal
    from polyvox.limits import RedisLeases

    async def ask() -> dict[str, Used]:
        leases = RedisLeases(found.routing["limits"])
        try:
            counted = {entry.name: await leases.counted(entry.name) for entry in entries}
            return {name: used for name, used in counted.items() if used is not None}
        finally:
            await leases.close()

    return portal.run(ask())


def states(found: Settings) -> list[tuple[Entry, str, str | None, str | None]]:
    """Each configured deployment: its state ("ready", "no key", "unknown", "off"), why where that needs saying, and
    where its key is from. Nothing is asked for it."""
    return [(entry, *_state(entry, found)) for entry in routes.configured(found).list_all()]


def _facts(
    entry: Entry, found: Settings, hour: Mapping[str, Deployed] | None, used: Mapping[str, Used] | None
) -> dict[str, Any]:
    import msgspec

    state, detail, source = _state(entry, found)
    did = None if hour is None else hour.get(entry.name)
    told: dict[str, Any] = dict.fromkeys(_NEVER) if hour is None else dict(_NEVER)
    if did is not None:
        told = msgspec.structs.asdict(did)
        if state == "ready" and did.breaker != "closed":
            state, detail = "failing", f"it failed again and again: {did.last_error}"
    counted = None if used is None else used.get(entry.name)
    return {
        "name": entry.name, "state": state, "detail": detail, "model": entry.model, "tier": entry.tier,
        "priority": entry.priority, "weight": entry.weight, "default": entry.default,
        "key": source, "limits": {name: limit for name, limit in msgspec.structs.asdict(entry.limits).items() if limit},
        "in_use": counted and counted._asdict(), **told,
    }  # fmt: skip


def _state(entry: Entry, found: Settings) -> tuple[str, str | None, str | None]:
    """How it stands as far as it was configured, why, and where its key is from."""
    from polyvox.registry import key_of, target_of, usable

    if not entry.active:
        return "off", "active = false", None
    try:
        if entry.base_url is None:
            target_of(entry, found)
        key = key_of(entry, found)
    except (NotFoundError, ConfigError) as error:
        return "unknown", error.message, None
    if key is not None:
        return "ready", None, key.source
    return ("ready", None, "not needed") if usable(entry, found) else ("no key", None, "missing")


def _cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    p50 = None if row["p50"] is None else f"{row['p50']:.2f} s"
    limits = ", ".join(_limit(name, most, row["in_use"]) for name, most in row["limits"].items()) or None
    name = f"{row['name']} (default)" if row["default"] else row["name"]
    return (
        name, row["state"], row["model"], row["tier"], row["priority"], f"{row['weight']:g}", row["key"], limits,
        row["calls"], row["errors"], p50,
    )  # fmt: skip


_LIMITS = {
    "concurrency": ("in_flight", "at a time"),
    "requests_per_minute": ("requests", "requests/min"),
    "tokens_per_minute": ("tokens", "tokens/min"),
}


def _limit(name: str, most: int, used: Mapping[str, int] | None) -> str:
    counter, words = _LIMITS[name]
    return f"{most} {words}" if used is None else f"{used[counter]} of {most} {words}"
