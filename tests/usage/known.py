"""A ledger of known calls, and what must be found of them, computed by plain loops."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

from polyvox.ledger import AttemptEnd, CallEnd, Ledger
from polyvox.types import Attempt, Usage

HOSTILE = '</script><img src=x onerror="alert(1)">\x1b[31m=1+1\u202e'

# at (UTC), model, provider, user, tags, state, cost, input, cache_read, output, source, seconds
CALLS = (
    ("2026-03-01T22:30", "swift", "north", "ann", ("web",), "ok", "0.10", 1000, 400, 200, "provider", 1.0),
    ("2026-03-01T23:30", "swift", "north", "ben", ("web", "night"), "ok", "0.20", 2000, 0, 100, "provider", 2.0),
    ("2026-03-02T00:30", "swift", "north", "ann", (), "error", None, None, None, None, "missing", 0.5),
    ("2026-03-02T12:00", "deep", "south", "ann", ("web",), "ok", None, 500, None, 50, "estimated", 4.0),
    ("2026-03-02T13:00", "deep", "south", None, (), "cancelled", "0.000000000001", 10, 0, 1, "provider", 0.25),
    ("2026-03-29T00:30", "deep", "south", "ben", ("batch",), "ok", "1.00", 9000, 9000, 3000, "provider", 30.0),
    ("2026-03-29T22:30", HOSTILE, "south", HOSTILE, (HOSTILE,), "ok", "0.05", 70, 7, 7, "provider", 0.75),
)  # fmt: skip


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self):
        self.at = datetime(2026, 3, 1, tzinfo=UTC)

    def set(self, text):
        self.at = datetime.fromisoformat(text).replace(tzinfo=UTC)

    def __call__(self):
        return self.at.timestamp()


def end_of(start, call):
    """The end of one of CALLS."""
    *_, state, cost, tokens, cached, output, source, seconds = call
    return CallEnd(
        start=start,
        state=state,
        duration=int(seconds * 1_000_000),
        first_token=int(seconds * 200_000),
        finish_reason="stop" if state == "ok" else None,
        error_kind="overloaded" if state == "error" else None,
        error_message="too many at once" if state == "error" else None,
        usage=Usage(input=tokens, cache_read=cached, output=output, source=source),
        cost=None if cost is None else Decimal(cost),
        cost_source="unknown" if cost is None else "catalog",
        cost_how=None if cost is None else {"since": "2026-01-01"},
        request_id="req-7",
        attempts=(
            AttemptEnd(attempt=Attempt(start.deployment, 0.2, "overloaded", "busy just now", 529, waited=0.5)),
            AttemptEnd(attempt=Attempt(start.deployment, seconds), cost=None if cost is None else Decimal(cost)),
        ),
        answer=f"answer of {start.model}",
    )


def begun(ledger, model, provider, user=None, tags=()):
    return ledger.start(
        model=model, provider=provider, deployment=f"{provider}/{model}", user=user, tags=tags, project="demo",
        session="s1", prompt={"messages": [f"question for {model}"]},
    )  # fmt: skip


def fill(place, *, privacy="full"):
    """Write CALLS, and one more that its process did not end, at 2026-03-29T23:00; the ids in that order."""
    clock = Clock()
    ids = []

    async def write(ledger):
        for call in CALLS:
            at, model, provider, user, tags, *_ = call
            clock.set(at)
            start = begun(ledger, model, provider, user, tags)
            await ledger.begin(start)
            await ledger.finish(end_of(start, call))
            ids.append(start.id)
        clock.set("2026-03-29T23:00")
        left = begun(ledger, "swift", "north", "ann")
        await ledger.begin(left)
        ids.append(left.id)

    with Ledger(place, wall=clock, privacy=privacy) as ledger:
        asyncio.run(write(ledger))
    return ids


def sums(chosen):
    """What must be found of some of CALLS."""
    costs = [Decimal(call[6]) for call in chosen if call[6] is not None]
    return {
        "calls": len(chosen),
        "ok": sum(call[5] == "ok" for call in chosen),
        "errors": sum(call[5] == "error" for call in chosen),
        "cancelled": sum(call[5] == "cancelled" for call in chosen),
        "cost": sum(costs, Decimal(0)) if costs else None,
        "unknown_cost": len(chosen) - len(costs),
        "input": total(call[7] for call in chosen),
        "cache_read": total(call[8] for call in chosen),
        "output": total(call[9] for call in chosen),
        "estimated": sum(call[10] == "estimated" for call in chosen),
        "missing": sum(call[10] == "missing" for call in chosen),
    }


def total(values):
    known = [value for value in values if value is not None]
    return sum(known) if known else None
