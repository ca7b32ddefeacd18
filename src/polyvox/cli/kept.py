"""What the command line keeps of its calls, as the settings say: a ledger, budgets, answers that are given again. It
opens and closes them; what they do is theirs to know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from polyvox.errors import ConfigError, PolyvoxError

if TYPE_CHECKING:
    from polyvox.budgets import Budget, Budgets
    from polyvox.budgets import Store as BudgetStore
    from polyvox.cache import ResponseCache
    from polyvox.config import Settings
    from polyvox.database import Database
    from polyvox.ledger import Ledger

_SERVERS = ("redis", "rediss", "unix")


class Kept(TypedDict):
    """What a client is given to keep; None for what the settings do not switch on."""

    ledger: Ledger | None
    budgets: Budgets | None
    cache: ResponseCache | None


@contextlib.contextmanager
def kept(found: Settings, said: Mapping[str, Any]) -> Iterator[Kept]:
    """All three, closed afterwards. said is what was typed: an exchange that is recorded or replayed is no answer from
    the cache.

    What cannot be opened is said aloud: whoever wants calls written down or bounded wants to know. One that is away
    is the calls' to deal with.
    """
    with contextlib.ExitStack() as stack:
        ledger = None
        if found.ledger.get("enabled"):
            from polyvox.ledger import Ledger

            made = Ledger(ledger_place(found), privacy=found.ledger.get("texts", "none"))
            ledger = stack.enter_context(made)
        budgets = stack.enter_context(counting(found, ledger.database if ledger else None))
        off = said.get("no_cache") or said.get("record") or said.get("replay")
        cache = None if off else stack.enter_context(answers(found))
        yield {"ledger": ledger, "budgets": budgets, "cache": cache}


def who(said: Mapping[str, Any]) -> dict[str, Any]:
    """On whose behalf a call is made, and how it uses the cache, as options of a call."""
    facts: dict[str, Any] = {"tags": said["tags"] or None, "project": said["project"]}
    if said.get("refresh"):
        facts["cached"] = "refresh"
    return facts


def file_of(place: str) -> Path | None:
    """The file that a place is; None for a server, and for memory."""
    scheme, is_url, rest = place.partition("://")
    if (is_url and scheme.lower().partition("+")[0] != "sqlite") or place == "memory":
        return None
    return Path(rest[1:] if is_url else place).expanduser().absolute()


# ---- ledger and budgets -----------------------------------------------------------------------


def ledger_place(found: Settings) -> str:
    """The path or URL of the ledger, whether there is one or not."""
    from polyvox.ledger import default_place

    return found.ledger.get("database") or str(default_place())


def rules(found: Settings) -> list[Budget]:
    """The budgets that the settings name; ConfigError for one that none can be."""
    from polyvox.budgets import Budget

    made: list[Budget] = []
    problems: list[str] = []
    for name, said in found.budgets.items():
        if not isinstance(said, Mapping):
            continue
        try:
            made.append(Budget(said["limit"], name=name, **{word: said[word] for word in said if word != "limit"}))
        except PolyvoxError as error:
            problems.append(f"{found.origin(f'budgets.{name}.limit')}: budgets.{name}: {error.message}")
    if problems:
        raise ConfigError("the configuration cannot be used", problems=tuple(problems))
    return made


def budgets_place(found: Settings) -> str:
    """Where budgets are counted: with the ledger, unless a place of their own is named."""
    said = found.budgets.get("place", "ledger")
    return ledger_place(found) if said == "ledger" else said


@contextlib.contextmanager
def counting(found: Settings, at: Database | None = None) -> Iterator[Budgets | None]:
    """The budgets, counted where all of the user's processes count them; in this database if it is the one."""
    wanted = rules(found)
    if not wanted:
        yield None
        return
    from polyvox import portal
    from polyvox.budgets import Budgets

    with _counted_in(budgets_place(found), at) as store:
        budgets = Budgets(wanted, store)
        try:
            yield budgets
        finally:
            portal.run(budgets.close())


@contextlib.contextmanager
def _counted_in(place: str, at: Database | None) -> Iterator[BudgetStore]:
    if place.partition("://")[0].lower() in _SERVERS:
        from polyvox.budgets import RedisStore

        yield RedisStore(place)
        return
    from polyvox.budgets import SqlStore
    from polyvox.database import Database
    from polyvox.database.address import address_of

    if at is not None and at.address == address_of(place):
        yield SqlStore(at)
        return
    with Database(place) as database:
        yield SqlStore(database)


# ---- answers ----------------------------------------------------------------------------------


def cache_place(found: Settings) -> str:
    """Where answers are kept: beside the ledger's usual place, so that the next command finds them."""
    from polyvox.ledger import default_place

    return found.cache.get("place") or str(default_place().with_name("cache.db"))


@contextlib.contextmanager
def answers(found: Settings) -> Iterator[ResponseCache | None]:
    """The cache, None where the settings do not switch it on."""
    said = found.cache
    if not said.get("enabled"):
        yield None
        return
    from polyvox import portal
    from polyvox.cache import ResponseCache
    from polyvox.stores import open_store

    place = cache_place(found)
    bound = {word: said[word] for word in ("max_entries",) if word in said}
    if bound and place.partition("://")[0].lower() in _SERVERS:
        where = found.origin("cache.max_entries")
        raise ConfigError(
            "the configuration cannot be used",
            problems=(f"{where}: cache.max_entries: a Redis server has a bound of its own, its maxmemory",),
        )
    how = {word: said[word] for word in ("ttl", "namespace") if word in said}
    file = file_of(place)
    cache = ResponseCache(open_store(place if file is None else file, **bound), **how)
    try:
        yield cache
    finally:
        portal.run(_closed(cache))


async def _closed(cache: ResponseCache) -> None:
    await cache.close()
    await cache.store.close()
