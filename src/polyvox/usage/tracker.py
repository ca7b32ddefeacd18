"""Objects that track usage by hand: what was used is recorded, and asked for by user, model or project. The rows are
those of the ledger; there is no second copy of any sum."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Self

from msgspec import Struct

from polyvox.database import Unit, pico
from polyvox.errors import InputError
from polyvox.ledger import CallEnd, CallRecord, Ledger, UsageRow
from polyvox.types import Usage
from polyvox.usage.figures import Question, figures

_WAIT = 60.0
"""Seconds that statistics wait for what was recorded before them."""


class UsageStats(Struct, frozen=True, kw_only=True):
    """What was used in all, of the calls that were asked for. Without any, all of it is 0.

    total_cost is USD, the exact sum of what is known; unknown_cost counts the calls that are not in it. requests counts
    calls, failed ones too; errors those. row has all other figures.
    """

    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    total_cost: Decimal
    unknown_cost: int
    row: UsageRow


class UsageTracker:
    """Records usage and adds it up, from any thread.

    With a ledger, the rows go to it and stay. Without one they go to a ledger of the tracker's own in a temporary
    folder, gone with the tracker: a file, because a database in memory cannot be shared by the thread that writes and
    those that read, and because so both kinds add up by the same code.

    >>> with UsageTracker() as tracker:
    ...     record = tracker.record(llm_id=1, prompt_tokens=100, completion_tokens=500, cost=0.001)
    ...     stats = tracker.get_stats(llm_id=1)
    ...     print(f"{stats.total_tokens} tokens for ${stats.total_cost}")
    600 tokens for $0.001
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self._own = ledger is None
        if ledger is None:
            folder = Path(tempfile.mkdtemp(prefix="polyvox-usage-"))
            ledger = Ledger(folder / "usage.db", durability="relaxed", spool=False)
            self._end = weakref.finalize(self, _gone, ledger, folder, os.getpid())
        self.ledger = ledger
        ledger.open()

    def __enter__(self) -> Self:
        """Itself, closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Forget what only this tracker knows; a ledger that was given stays open."""
        if self._own:
            self._end()

    # ---- recording ----------------------------------------------------------------------------

    def record(
        self,
        *,
        llm_id: int | str | None = None,
        user_id: int | str | None = None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        cost: Decimal | float | str | None = None,
        cached_tokens: int | None = None,
        model: str = "",
        provider: str = "",
        project: str | None = None,
        session: str | None = None,
        tags: tuple[str, ...] = (),
        operation: str = "chat",
        latency: float | None = None,
        success: bool = True,
        error: str | None = None,
        own_cache: bool = False,
    ) -> CallRecord:
        """Write down one call that was made elsewhere, and give its record.

        llm_id names what was asked, as the ledger's deployment; cost is USD, latency seconds, error the kind of error.
        What is None is not known and is no 0. Nobody waits for the database; `get_stats` does. InputError for
        numbers that count nothing: negative, NaN, infinite.
        """
        for name, tokens in (("prompt_tokens", prompt_tokens), ("completion_tokens", completion_tokens),
                             ("cached_tokens", cached_tokens)):  # fmt: skip
            _check_count(name, tokens)
        known = prompt_tokens is not None or completion_tokens is not None
        usage = Usage(
            input=prompt_tokens, output=completion_tokens, cache_read=cached_tokens,
            total=(prompt_tokens or 0) + (completion_tokens or 0) if known else None,
            source="provider" if known else "missing",
        )  # fmt: skip
        facts: dict[str, Any] = {
            "operation": operation, "deployment": _name(llm_id) or "", "provider": provider, "model": model,
            "user": _name(user_id), "project": project, "session": session, "tags": tuple(tags),
        }  # fmt: skip
        failed = not success or error is not None
        return self._write(facts, usage, _amount(cost), latency, error if failed else None, failed, own_cache)

    def track_request(self, usage: Any, *, user_id: int | str | None = None, model: str = "") -> None:
        """Write down the usage of one request: a `Usage` of ours, or an object or mapping with prompt_tokens and
        completion_tokens, or input_tokens and output_tokens, and perhaps cost and cached. None is a request of which
        nothing is known. InputError for anything else."""
        found, own_cache = _usage_of(usage)
        facts = {"model": model or _text(usage, "model"), "provider": _text(usage, "provider"),
                 "user": _name(user_id)}  # fmt: skip
        self._write(facts, found, found.cost, None, None, False, own_cache)

    def _write(
        self, facts: dict[str, Any], usage: Usage, cost: Decimal | None, latency: float | None, error: str | None,
        failed: bool, own_cache: bool,
    ) -> CallRecord:  # fmt: skip
        duration = _micros(latency)
        start = self.ledger.start(**facts)
        source = "unknown" if cost is None else "provider"
        self.ledger.note(
            CallEnd(
                start=start, state="error" if failed else "ok", duration=duration, error_kind=error, usage=usage,
                cost=cost, cost_source=source, own_cache=own_cache,
            )
        )  # fmt: skip
        return CallRecord(
            id=start.id, started=start.started, state="error" if failed else "ok", operation=start.operation,
            deployment=start.deployment, provider=start.provider, asked=start.model, model=start.model,
            user=start.user, project=start.project, session=start.session, tags=start.tags, duration=duration,
            error_kind=error, usage=usage, cost=cost, cost_source=source, own_cache=own_cache,
        )  # fmt: skip

    # ---- asking -------------------------------------------------------------------------------

    def get_stats(
        self,
        *,
        user_id: int | str | None = None,
        llm_id: int | str | None = None,
        model: str | None = None,
        provider: str | None = None,
        project: str | None = None,
        session: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> UsageStats:
        """What was used, of all calls or of those one asks for; waits for what was recorded before. Times without a
        zone are UTC. It reads in the thread that calls it."""
        wanted = {
            "user": _name(user_id), "deployment": _name(llm_id), "model": model, "provider": provider,
            "project": project, "session": session, "tag": tag,
        }  # fmt: skip
        filters = {word: value for word, value in wanted.items() if value is not None}
        self.ledger.database.write_sync(_Turn(), timeout=_WAIT)
        row = figures(self.ledger.history, Question(since=since, until=until, filters=filters)).total
        return UsageStats(
            requests=row.calls,
            errors=row.errors + row.interrupted,
            prompt_tokens=row.input or 0,
            completion_tokens=row.output or 0,
            total_tokens=(row.input or 0) + (row.output or 0),
            total_cost=row.cost if row.cost is not None else Decimal(0),
            unknown_cost=row.unknown_cost,
            row=row,
        )


class _Turn(Unit):
    def apply(self, connection: Any) -> None:
        """Nothing: when it is done, so is all that was handed over before it."""


def _gone(ledger: Ledger, folder: Path, owner: int) -> None:
    if os.getpid() != owner:
        return  # in a child, that of the parent goes on
    with contextlib.suppress(Exception):  # at the end of a process the writer may be gone already
        ledger.close()
    shutil.rmtree(folder, ignore_errors=True)


# ---- what people give -------------------------------------------------------------------------


def _name(id: int | str | None) -> str | None:
    return None if id is None else str(id)


def _check_count(name: str, tokens: Any) -> None:
    if tokens is None:
        return
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 0 <= tokens < 2**63:
        raise InputError(f"{name} is a whole number from 0 up, not {tokens!r}")


def _amount(cost: Decimal | float | str | None) -> Decimal | None:
    if cost is None:
        return None
    try:
        # By its text, a float is the decimal that was written.
        amount = cost if isinstance(cost, Decimal) else Decimal(str(cost))
    except InvalidOperation:
        raise InputError(f"cost is an amount of USD, not {cost!r}") from None
    pico(amount)
    return amount


def _micros(latency: float | None) -> int | None:
    if latency is None:
        return None
    if not math.isfinite(latency) or latency < 0:
        raise InputError(f"latency is a number of seconds from 0 up, not {latency!r}")
    return round(latency * 1_000_000)


_NAMES = {
    "input": ("prompt_tokens", "input_tokens"),
    "output": ("completion_tokens", "output_tokens"),
    "cache_read": ("cached_tokens", "cache_read_input_tokens"),
    "total": ("total_tokens",),
}


def _usage_of(said: Any) -> tuple[Usage, bool]:
    """The usage something speaks of, and whether it says the answer came of a cache of ours."""
    if said is None:
        return Usage(), False
    if isinstance(said, Usage):
        return said, False
    counts = {field: _first(said, names) for field, names in _NAMES.items()}
    for field, value in counts.items():
        _check_count(_NAMES[field][0], value)
    cost = _amount(_of(said, "cost"))
    if _of(said, "source") == "missing":
        return Usage(cost=cost), _of(said, "cached") is True  # its counts are none
    known = any(value is not None for value in counts.values())
    if not known and cost is None:
        raise InputError(
            f"a {type(said).__name__} says nothing of what was used",
            hint="give a Usage, or something with prompt_tokens and completion_tokens",
        )
    return Usage(source="provider" if known else "missing", cost=cost, **counts), _of(said, "cached") is True


def _first(said: Any, names: tuple[str, ...]) -> Any:
    return next((value for value in (_of(said, name) for name in names) if value is not None), None)


def _of(said: Any, name: str) -> Any:
    return said.get(name) if isinstance(said, Mapping) else getattr(said, name, None)


def _text(said: Any, name: str) -> str:
    found = None if isinstance(said, Usage) else _of(said, name)
    return found if isinstance(found, str) else ""
