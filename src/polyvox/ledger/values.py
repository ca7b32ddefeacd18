"""What is said of a call when it begins and when it ends, and what is read of it later. Frozen; they know no table.
Times are whole microseconds: since the epoch for `started`, measured by a monotonic clock for lengths."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeAlias, TypedDict

from msgspec import Struct

from polyvox.types import Attempt, Usage

State = Literal["open", "ok", "error", "cancelled", "interrupted"]
STATES: tuple[State, ...] = ("open", "ok", "error", "cancelled", "interrupted")
"""By their number in the database. interrupted: the process died before the call ended."""

Durability = Literal["commit", "relaxed"]
Privacy = Literal["none", "hashed", "full"]
Source = Literal["missing", "provider", "estimated"]
SOURCES: tuple[Source, ...] = ("missing", "provider", "estimated")
"""Who said how many tokens, by their number in the database."""


class Explained(Protocol):
    """A cost that can say how it came about; it is asked when that is written down."""

    @property
    def how(self) -> Mapping[str, Any]:
        """As JSON can say it."""


How: TypeAlias = Mapping[str, Any] | Explained | None


class CallStart(Struct, frozen=True, kw_only=True):
    """A call that is about to be sent. Make it with `Ledger.start`, which gives it its id and its time.

    model is the one asked for; key is the name of a key, never the secret; tags are words of the caller's own. prompt
    is what is asked, as anything JSON can say; it is looked at only where the ledger keeps texts or their hashes.
    """

    id: str
    started: int
    operation: str = "chat"
    deployment: str = ""
    provider: str = ""
    model: str = ""
    stream: bool = False
    tenant: str | None = None
    user: str | None = None
    project: str | None = None
    session: str | None = None
    key: str | None = None
    tags: tuple[str, ...] = ()
    prompt: Any = None


class StartFacts(TypedDict, total=False):
    """What `Ledger.start` takes: the fields of a `CallStart` but id and time."""

    operation: str
    deployment: str
    provider: str
    model: str
    stream: bool
    tenant: str | None
    user: str | None
    project: str | None
    session: str | None
    key: str | None
    tags: tuple[str, ...]
    prompt: Any


class AttemptEnd(Struct, frozen=True, kw_only=True):
    """One attempt of a call: what the engine says of it, and what it used and cost by itself; None is not known."""

    attempt: Attempt
    provider: str | None = None
    model: str | None = None
    usage: Usage = Usage()
    cost: Decimal | None = None
    cost_source: str = "unknown"
    cost_how: How = None


class CallEnd(Struct, frozen=True, kw_only=True):
    """How a call ended: one of these for each start.

    Attributes:
        duration, first_token: microseconds from the start of the call.
        deployment, provider, model: that served in the end; None where they are those of the start.
        cost: USD, None for unknown. cost_source is "provider", "catalog" or "unknown"; cost_how says how it came
            about: the price row, its date, the tier, an override.
        own_cache: answered from our own cache; saved is what that saved, USD.
        losses: how many things the request could not say.
    """

    start: CallStart
    state: Literal["ok", "error", "cancelled"] = "ok"
    duration: int | None = None
    first_token: int | None = None
    deployment: str | None = None
    provider: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    error_kind: str | None = None
    error_message: str | None = None
    usage: Usage = Usage()
    cost: Decimal | None = None
    cost_source: str = "unknown"
    cost_how: How = None
    own_cache: bool = False
    saved: Decimal | None = None
    losses: int = 0
    request_id: str | None = None
    attempts: tuple[AttemptEnd, ...] = ()
    answer: Any = None


class AttemptRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attempt as it was written down. duration and waited are microseconds."""

    number: int
    deployment: str
    outcome: str
    provider: str | None = None
    model: str | None = None
    message: str | None = None
    status: int | None = None
    sent: str = "unknown"
    request_id: str | None = None
    duration: int | None = None
    waited: int | None = None
    usage: Usage = Usage()
    cost: Decimal | None = None
    cost_source: str | None = None
    cost_how: dict[str, Any] | None = None


class CallRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call as it was written down. attempts, prompt and answer are there where one call was asked for; prompt and
    answer only where texts are kept, as JSON."""

    id: str
    started: int
    state: State
    operation: str
    deployment: str
    provider: str
    asked: str
    model: str
    stream: bool = False
    tenant: str | None = None
    user: str | None = None
    project: str | None = None
    session: str | None = None
    key: str | None = None
    tags: tuple[str, ...] = ()
    first_token: int | None = None
    duration: int | None = None
    finish_reason: str | None = None
    error_kind: str | None = None
    error_message: str | None = None
    usage: Usage = Usage()
    cost: Decimal | None = None
    cost_source: str | None = None
    cost_how: dict[str, Any] | None = None
    own_cache: bool = False
    saved: Decimal | None = None
    losses: int = 0
    request_id: str | None = None
    prompt_hash: str | None = None
    attempts: tuple[AttemptRecord, ...] = ()
    prompt: str | None = None
    answer: str | None = None
    cut: bool = False


class LedgerHealth(Struct, frozen=True):
    """Whether all that happens is written down.

    state is "ok"; "degraded" where rows wait in a file or in memory, or the database is away; "losing" where there is
    no room left for more. backlog rows wait for the writer, spooled rows in the file, in_memory rows in memory; lost
    rows are gone. interrupted counts the calls of dead processes that were found. why says what is wrong, since seconds
    since the epoch.
    """

    state: Literal["ok", "degraded", "losing"]
    backlog: int = 0
    spooled: int = 0
    in_memory: int = 0
    lost: int = 0
    interrupted: int = 0
    why: str | None = None
    since: float | None = None
