"""What a client keeps of its calls: the ledger and the budgets they go by, and the answers it may give again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec.structs import replace

from polyvox.client.check import shown, text_or_none
from polyvox.engine import AnyRoute, Call, CallOptions, Deployment, Engine, StreamRun, Who, is_route, refuse_losses
from polyvox.engine.contract import NOBODY, CallFacts
from polyvox.errors import InputError
from polyvox.types import Cost, Request, Response

if TYPE_CHECKING:
    from polyvox.books import Books
    from polyvox.budgets import Budget, Budgets
    from polyvox.cache import CachedRun, CacheKey, Fingerprint, ResponseCache
    from polyvox.ledger import Ledger
    from polyvox.stores import Store

LedgerChoice: TypeAlias = "Ledger | str | os.PathLike[str] | bool | None"
BudgetsChoice: TypeAlias = "Budgets | Iterable[Budget] | None"
CacheChoice: TypeAlias = "ResponseCache | Store | str | os.PathLike[str] | bool | None"

_WORDS = ("project", "session", "tenant")
_USES = {True: "use", False: "off", "use": "use", "off": "off", "refresh": "refresh", "only": "only"}
_NO_COST = Cost(Decimal(0), source="catalog")


def who_of(said: Any) -> Who:
    """On whose behalf a call is made, as it says itself."""
    tags = said.get("tags")
    given: dict[str, Any] = {
        word: text_or_none(word, value) for word in _WORDS if (value := said.get(word)) is not None
    }
    if tags is None and not given:
        return NOBODY
    if tags is not None:
        if isinstance(tags, str) or not isinstance(tags, Iterable):
            raise InputError(f"tags must be a sequence of words, not {shown(tags)}", param="tags")
        words = tuple(tags)
        if not all(isinstance(word, str) and word for word in words):
            raise InputError("tags must be words that are not empty", param="tags")
        given["tags"] = words
    return Who(**given)


def use_of(cached: Any) -> str:
    """How a call wants the cache used."""
    found = _USES.get(cached) if isinstance(cached, bool | str) else None
    if found is None:
        raise InputError(
            f"cached must be True, False, 'refresh' or 'only', not {shown(cached)}",
            param="cached",
            hint="False asks anew and keeps nothing; 'refresh' asks anew and keeps the answer",
        )
    return found


# ---- ledger and budgets -----------------------------------------------------------------------


class Kept:
    """The ledger and the budgets of one client. Those that were made here are closed here."""

    def __init__(self, ledger: LedgerChoice, budgets: BudgetsChoice) -> None:
        self.ledger: Ledger | None
        self.budgets: Budgets | None
        self.ledger, self._own_ledger = _ledger(ledger)
        self.budgets, self._own_budgets = _budgets(budgets)
        self.books: Books | None = None
        if self.ledger is not None or self.budgets is not None:
            from polyvox.books import Books

            self.books = Books(self.ledger, self.budgets)

    async def close(self) -> None:
        """Write what was handed over, and close what was made here."""
        if self.books is not None:
            await self.books.settled()
        if self._own_budgets and self.budgets is not None:
            await self.budgets.close()
        if self._own_ledger and self.ledger is not None:
            self.ledger.close()


def _ledger(choice: LedgerChoice) -> tuple[Ledger | None, bool]:
    if choice is None or choice is False:
        return None, False
    from polyvox.ledger import Ledger, default_place

    if isinstance(choice, Ledger):
        return choice, False
    if choice is True:
        return Ledger(default_place()), True
    if isinstance(choice, str | os.PathLike):
        return Ledger(choice), True
    raise InputError(
        f"ledger must be True, a path, a URL or a Ledger, not {shown(choice)}",
        hint="True keeps it where the command line does",
    )


def _budgets(choice: BudgetsChoice) -> tuple[Budgets | None, bool]:
    if choice is None:
        return None, False
    from polyvox.budgets import Budget, Budgets

    if isinstance(choice, Budgets):
        return choice, False
    if not isinstance(choice, Iterable):
        raise InputError(f"budgets must be a sequence of Budget, or Budgets, not {shown(choice)}")
    rules = tuple(choice)
    if not all(isinstance(rule, Budget) for rule in rules):
        raise InputError("budgets must be a sequence of Budget", hint='for example [Budget("5", window="day")]')
    return (Budgets(rules), True) if rules else (None, False)


# ---- answers that are given again -------------------------------------------------------------


class Answers:
    """Answers of calls that were made before, given again: the engine is asked only for what is not there."""

    def __init__(
        self, choice: CacheChoice, engine: Engine, books: Books | None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.cache: ResponseCache
        self.cache, self._own = _cache(choice)
        self._engine = engine
        self._books = books
        self._now = now
        self._prints: dict[str, tuple[AnyRoute, Fingerprint]] = {}

    async def whole(self, request: Request, deployment: AnyRoute, how: CallOptions, use: str) -> Response:
        """A whole answer, kept or made."""
        begun = self._now()
        given = await self.cache.whole(
            self._key(request, deployment, how),
            lambda: self._engine.call(request, deployment, how),
            use=use,  # type: ignore[arg-type]  # checked by use_of
            timeout=how.timeout,
        )
        if given.how == "made":
            return given.response
        return self._again(given.response, request, deployment, how, self._now() - begun)

    def stream(self, request: Request, deployment: AnyRoute, how: CallOptions, use: str) -> CachedRun:
        """A streamed answer, kept or made; nothing begins before its first batch."""

        def make() -> StreamRun:
            return self._engine.stream(request, deployment, how)

        begun = self._now()
        run = self.cache.stream(
            self._key(request, deployment, how),
            make,
            use=use,  # type: ignore[arg-type]  # checked by use_of
            timeout=how.timeout,
        )
        run.on_given = lambda response: self._again(response, request, deployment, how, self._now() - begun)
        return run

    def _key(self, request: Request, deployment: AnyRoute, how: CallOptions) -> CacheKey | None:
        name = f"{deployment.name} {dict(how.usual)}" if how.usual else deployment.name
        held = self._prints.get(name)
        if held is None or held[0] is not deployment:
            held = self._prints[name] = (deployment, _fingerprint(deployment, how.usual))
        return self.cache.key(request, held[1], tenant=how.who.tenant, headers=how.headers)

    def _again(self, response: Response, request: Request, at: AnyRoute, how: CallOptions, seconds: float) -> Response:
        """An answer that was made for another call: it cost this one nothing."""
        if how.strict:
            refuse_losses(response.losses)
        if self._books is not None:
            facts = CallFacts("", "chat", at.name, at.provider, at.model, request.stream, request, how.who)
            self._books.given_again(facts, response, seconds)
        given = replace(response, attempts=(), decision=None, cost=_NO_COST)
        Call(self._engine, request, at, how).given_again(given)
        return given

    async def close(self) -> None:
        """Keep what is under way; close what was made here."""
        await self.cache.settle()
        if self._own:
            await self.cache.close()


def _cache(choice: CacheChoice) -> tuple[ResponseCache, bool]:
    from polyvox.cache import ResponseCache

    if isinstance(choice, ResponseCache):
        return choice, False
    if choice is True:
        return ResponseCache(), True
    if isinstance(choice, str | os.PathLike):
        return ResponseCache(os.fspath(choice)), True
    if callable(getattr(choice, "get", None)) and callable(getattr(choice, "put", None)):
        return ResponseCache(choice), True  # type: ignore[arg-type]  # a Store, by its methods
    raise InputError(f"cache must be True, a path, a URL, a store or a ResponseCache, not {shown(choice)}")


def _fingerprint(deployment: AnyRoute, configured: Mapping[str, Any] = {}) -> Fingerprint:
    from polyvox.cache import fingerprint

    if is_route(deployment):
        # Whoever of them answers, it is an answer to this call.
        asked = zip(deployment.asked, deployment.usual, strict=True)
        inner = [(_fingerprint(one).digest.hex(), sorted({**configured, **usual}.items())) for one, usual in asked]
        return fingerprint("", deployment.name, "pool", more=inner)
    if isinstance(deployment, Deployment):
        return fingerprint(
            deployment.provider,
            deployment.model,
            deployment.speaks,
            endpoint=deployment.endpoint,
            headers=deployment.headers,
            query=deployment.query,
        )
    return fingerprint(deployment.provider, deployment.model, f"backend:{type(deployment).__name__}")
