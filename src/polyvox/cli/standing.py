"""How what is kept stands: the ledger, each budget, the cache. It looks at the places the settings name, all at once
and not for long, and makes none of them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from polyvox.cli import kept, output
from polyvox.errors import PolyvoxError

if TYPE_CHECKING:
    from polyvox.budgets import BudgetState
    from polyvox.config import Settings

_SECONDS = 3.0  # for all of them together
_BAR = 10
_NOT_YET = "not yet"


class Standing(NamedTuple):
    """How one of them stands: state is "ok", "not yet", "degraded", "losing", "away" or "failed", detail says why or
    how much, facts are what `--json` has beside, exit_code is what it makes the command end with."""

    place: str
    state: str
    detail: str
    facts: Mapping[str, Any] = {}
    exit_code: int = output.OK


def looking(found: Settings, *, wanted: bool = True) -> Callable[[], dict[str, Standing]]:
    """Begin to look, if that is wanted; the result is waited for. What did not answer in time is away."""
    looks = {name: look for name, is_on, look in _LOOKS if wanted and is_on(found)}
    if looks:
        _load()
    came: dict[str, Standing] = {}

    def one(name: str) -> None:
        try:
            came[name] = looks[name](found)
        except PolyvoxError as error:
            problems = getattr(error, "problems", ())
            came[name] = _wrong(found, name, "failed", "; ".join(problems) or error.message, output.exit_code(error))
        except Exception as error:  # noqa: BLE001 - whatever a place does, the others are still told of
            came[name] = _wrong(found, name, "failed", f"{type(error).__name__}: {error}", output.UNEXPECTED)

    threads = {name: threading.Thread(target=one, args=(name,), daemon=True) for name in looks}
    until = time.monotonic() + _SECONDS
    for thread in threads.values():
        thread.start()

    def result() -> dict[str, Standing]:
        for thread in threads.values():
            thread.join(max(0.0, until - time.monotonic()))
        late = f"no answer within {_SECONDS:g} s"
        return {name: came.get(name) or _wrong(found, name, "away", late, output.NETWORK) for name in looks}

    return result


def _load() -> None:
    """Import what the looks need: threads that do so at the same time may see modules half made."""
    for room in ("budgets", "cache", "portal", "usage.switch"):
        import_module(f"polyvox.{room}")


def _wrong(found: Settings, name: str, state: str, why: str, code: int) -> Standing:
    return Standing(_shown(_PLACES[name](found)), state, output.redacted(why), exit_code=code)


def _shown(place: str) -> str:
    """A place fit to show: a URL without what may be secret in it, a file as its path."""
    path = kept.file_of(place)
    if path is not None:
        return str(path)
    if place == "memory":
        return place
    parts = urlsplit(place)
    before, _, host = parts.netloc.rpartition("@")
    user = before.partition(":")[0]
    return f"{parts.scheme}://{user}{'@' if user else ''}{host}{parts.path}"


def _unbegun(place: str, detail: str, facts: Mapping[str, Any] = {}) -> Standing | None:
    """How a file stands that is not there, or empty; None where there is something to look at. Of a server only its
    own answer tells."""
    path = kept.file_of(place)
    if path is None or (path.exists() and not (path.is_file() and not path.stat().st_size)):
        return None
    folder = next(each for each in path.parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "is no folder" if not folder.is_dir() else "cannot be written to"
        return Standing(str(path), "failed", f"{folder} {what}", exit_code=output.CONFIG)
    return Standing(str(path), _NOT_YET, detail, facts)


# ---- the three of them ------------------------------------------------------------------------


def _ledger(found: Settings) -> Standing:
    from polyvox.usage.figures import Question, figures
    from polyvox.usage.switch import opened

    place = kept.ledger_place(found)
    if (unbegun := _unbegun(place, "it begins with the first call")) is not None:
        return unbegun
    total = None
    with opened(place) as ledger:
        try:
            total = figures(ledger.history, Question()).total
        except PolyvoxError as error:
            why = error.message
        health = ledger.health()
    waiting = health.backlog + health.spooled + health.in_memory
    facts: dict[str, Any] = {
        "calls": total and total.calls, "open": total and total.open, "own_cache": total and total.own_cache,
        "saved": total and _exact(total.saved), "backlog": health.backlog, "spooled": health.spooled,
        "in_memory": health.in_memory, "lost": health.lost,
    }  # fmt: skip
    if total is None:
        return Standing(_shown(place), "away", health.why or why, facts, output.NETWORK)
    told = [f"{_many(total.calls, 'call')}, {total.open} open"]
    told += [f"{_many(waiting, 'row')} not written yet"] if waiting else []
    told += [f"{_many(health.lost, 'row')} lost"] if health.lost else []
    told += [health.why] if health.why else []
    code = output.OK if health.state == "ok" else output.NETWORK
    return Standing(_shown(place), health.state, "; ".join(told), facts, code)


def _budgets(found: Settings) -> Standing:
    from polyvox import portal
    from polyvox.budgets import Budgets, BudgetsAwayError

    place = kept.budgets_place(found)
    rules = kept.rules(found)
    unspent = _rows(portal.run(Budgets(rules).state()))
    if (unbegun := _unbegun(place, "nothing is spent", unspent)) is not None:
        return unbegun
    with kept.counting(found) as budgets:
        assert budgets is not None
        try:
            states = portal.run(budgets.state())
        except BudgetsAwayError as error:
            hard = any(rule.hard for rule in rules)
            means = "; hard ones refuse every call" if hard else "; calls go on"
            return Standing(_shown(place), "away", f"{error.message}{means}", {}, output.exit_code(error))
    over = [state.name for state in states if state.left <= 0]
    detail = f"nothing is left of {', '.join(dict.fromkeys(over))}" if over else "all have room"
    return Standing(_shown(place), "ok", detail, _rows(states))


def _rows(states: list[BudgetState]) -> dict[str, Any]:
    return {"rows": [
        {
            "name": each.name, "scope": each.scope, "window": each.window, "hard": each.hard,
            "limit": _exact(each.limit), "spent": _exact(each.spent), "reserved": _exact(each.reserved),
            "left": _exact(each.left), "unpriced": each.unpriced,
            "ends": each.ends and each.ends.isoformat(),
        }
        for each in states
    ]}  # fmt: skip


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _exact(amount: Any) -> str | None:
    return None if amount is None else f"{amount:f}"


def _cache(found: Settings) -> Standing:
    from polyvox import portal

    place = kept.cache_place(found)
    if place == "memory":
        return Standing(place, "ok", "answers last as long as one command")
    if (unbegun := _unbegun(place, "no answer is kept", {"entries": 0})) is not None:
        return unbegun

    with kept.answers(found) as cache:
        assert cache is not None
        # A server is only known to be there once it was asked something.
        portal.run(cache.store.get("status", "-"))
        stats = portal.run(cache.store.stats())
    facts = {"kind": stats.kind, "entries": stats.entries, "bytes": stats.bytes}
    counted = (
        "answers are kept" if stats.entries is None else f"{_many(stats.entries, 'answer')}, {stats.bytes or 0} bytes"
    )
    if stats.state == "ok":
        return Standing(_shown(place), "ok", counted, facts)
    why = f"{stats.why}; every call is asked anew"
    return Standing(_shown(place), stats.state, output.redacted(why), facts, output.NETWORK)


_PLACES: dict[str, Callable[[Settings], str]] = {
    "ledger": kept.ledger_place,
    "budgets": kept.budgets_place,
    "cache": kept.cache_place,
}
_LOOKS: tuple[tuple[str, Callable[[Settings], Any], Callable[[Settings], Standing]], ...] = (
    ("ledger", lambda found: found.ledger.get("enabled"), _ledger),
    ("budgets", lambda found: any(isinstance(said, Mapping) for said in found.budgets.values()), _budgets),
    ("cache", lambda found: found.cache.get("enabled"), _cache),
)


# ---- shown ------------------------------------------------------------------------------------


def as_json(standings: Mapping[str, Standing]) -> dict[str, Any]:
    """By name, each as plain values."""
    return {
        name: {"state": each.state, "place": each.place, "detail": each.detail, **each.facts}
        for name, each in standings.items()
    }


def show(standings: Mapping[str, Standing]) -> None:
    """As a table, and the budgets as one of their own."""
    if not standings:
        return
    output.line("")
    output.table(("KEPT", "STATE", "DETAIL", "PLACE"), _lines(standings))
    rows = standings["budgets"].facts.get("rows") if "budgets" in standings else None
    if rows:
        output.line("")
        header = ("BUDGET", "WHOSE", "WINDOW", "LIMIT", "SPENT", "RESERVED", "LEFT", "USED")
        output.table(header, map(_cells, rows))


def _lines(standings: Mapping[str, Standing]) -> Iterator[tuple[str, ...]]:
    again = standings["ledger"].facts.get("own_cache") if "ledger" in standings else None
    for name, each in standings.items():
        hits = f"; {_many(again, 'call')} answered from it" if name == "cache" and again is not None else ""
        yield name, each.state, each.detail + hits, each.place


def _cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    from decimal import Decimal

    from polyvox.usage.shown import money

    limit, spent, reserved, left = (Decimal(row[name]) for name in ("limit", "spent", "reserved", "left"))
    whose = ", ".join(f"{word} {value if value is not None else 'none'}" for word, value in row["scope"].items())
    name = row["name"] if row["hard"] else f"{row['name']} (soft)"
    full = min(_BAR, int((spent + reserved) / limit * _BAR)) if limit else _BAR
    bar = f"[{'#' * full}{'.' * (_BAR - full)}]"
    return name, whose or "all", row["window"], *map(money, (limit, spent, reserved, left)), bar
