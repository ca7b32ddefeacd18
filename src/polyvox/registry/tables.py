"""Entries from tables of settings, `[deployments.NAME]` wherever they stand: all of them, or every problem with its
place. It opens nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from polyvox.config import Settings
from polyvox.config.fields import Key, Problem, deployments
from polyvox.errors import ConfigError
from polyvox.limits import Limits
from polyvox.registry.reach import local_problem
from polyvox.registry.values import Entry, clashes

WRONG = "the deployments cannot be used"


def read(tables: Any, where: Callable[[Key], str], settings: Settings) -> tuple[Entry, ...]:
    """Entries from tables as they were written; where tells the origin of a setting by its place.

    ConfigError with every problem, each as "origin: setting: what".
    """
    problems: list[str] = []
    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    for item in deployments(tables):
        if isinstance(item, Problem):
            problems.append(f"{where(item.key)}: {'.'.join(item.key)}: {item.what}")
            continue
        key, value = item
        inner = values.setdefault(key[1], {})
        for part in key[2:-1]:
            inner = inner.setdefault(part, {})
        inner[key[-1]] = value
        origins[".".join(key)] = where(key)
    for name, table in tables.items() if isinstance(tables, Mapping) else ():
        if table == {} and isinstance(name, str) and not any(f" deployments.{name}: " in said for said in problems):
            problems.append(f"{where(('deployments', name))}: deployments.{name}: needs a model")
    if problems:
        raise ConfigError(WRONG, problems=tuple(problems))
    return made(values, origins, settings)


def made(tables: Mapping[str, Mapping[str, Any]], origins: Mapping[str, str], settings: Settings) -> tuple[Entry, ...]:
    """Entries from values that were checked; origins has the place of each setting by its dotted name."""
    problems: list[str] = []
    found: list[Entry] = []
    for name, table in tables.items():
        place = f"deployments.{name}"
        inside = (origin for setting, origin in origins.items() if setting.startswith(f"{place}."))
        origin = origins.get(f"{place}.model") or next(inside, "argument")
        if "model" not in table:
            problems.append(f"{origin}: {place}: needs a model")
            continue
        limits = Limits(**table["limits"]) if "limits" in table else Limits()
        rest = {field: value for field, value in table.items() if field != "limits"}
        try:
            found.append(Entry(name=name, limits=limits, origin=origin, **rest))
        except ConfigError as error:
            problems += [problem.replace(": ", f": {place}.", 1) for problem in error.problems]
    problems += problems_of(found, settings)
    if problems:
        raise ConfigError(WRONG, problems=tuple(problems))
    return tuple(found)


def problems_of(entries: Iterable[Entry], settings: Settings) -> list[str]:
    """What is wrong with entries beside each other and at the places they lead to."""
    entries = tuple(entries)
    problems = [f"{entry.origin}: deployments.{entry.name}: {what}" for entry, what in clashes(entries)]
    for entry in entries:
        what = local_problem(entry, settings)
        if what is not None:
            problems.append(f"{entry.origin}: deployments.{entry.name}.{what}")
    return problems


def refuse(entries: Iterable[Entry], settings: Settings) -> None:
    """ConfigError where there is any such problem."""
    problems = problems_of(entries, settings)
    if problems:
        raise ConfigError(
            WRONG, problems=tuple(problems), hint="give each a name of its own, and local only to this machine"
        )
