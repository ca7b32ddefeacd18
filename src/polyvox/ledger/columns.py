"""Calls as rows: which columns there are, and how what is said of a call becomes them, and they become a record. Texts
are made fit for any database here: nothing a provider says can keep a row from being written."""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

import msgspec

from polyvox.database import dollars, pico
from polyvox.database.money import LARGEST
from polyvox.errors import InputError
from polyvox.keys import redact
from polyvox.ledger.values import (
    SOURCES,
    STATES,
    AttemptEnd,
    AttemptRecord,
    CallEnd,
    CallRecord,
    CallStart,
    How,
    Privacy,
)
from polyvox.types import Usage

Row: TypeAlias = tuple[Any, ...]

BEGUN = (
    "id", "started", "instance", "state", "operation", "deployment", "provider", "asked", "model", "stream", "tenant",
    "person", "project", "session", "key_name", "tags", "prompt_hash",
)  # fmt: skip
COUNTS = (
    "input", "output", "cache_read", "cache_write", "reasoning", "audio_input", "audio_output", "image_input", "total",
)  # fmt: skip
PRICED = ("usage_more", "usage_source", "cost", "cost_source", "cost_how")
ENDED = (
    "first_token", "duration", "bucket", "finish_reason", "error_kind", "error_message", *COUNTS, *PRICED, "own_cache",
    "saved", "losses", "attempts", "request_id",
)  # fmt: skip
CALL = (*BEGUN, *ENDED)
CHANGED = ("state", "deployment", "provider", "model", *ENDED)
"""What the end of a call says anew of its row."""

ATTEMPT_COUNTS = ("input", "output", "cache_read", "cache_write", "reasoning", "total")
_counts, _attempt_counts = operator.attrgetter(*COUNTS), operator.attrgetter(*ATTEMPT_COUNTS)
ATTEMPT = (
    "call", "number", "deployment", "provider", "model", "outcome", "message", "status", "sent", "request_id",
    "duration", "waited", *ATTEMPT_COUNTS, *PRICED,
)  # fmt: skip
CONTENT = ("call", "prompt", "answer", "cut")

BYTES = frozenset({"id", "call", "prompt_hash"})
TEXTS = frozenset(
    {
        "operation", "deployment", "provider", "asked", "model", "tenant", "person", "project", "session", "key_name",
        "tags", "finish_reason", "error_kind", "error_message", "usage_more", "cost_source", "cost_how", "request_id",
        "outcome", "message", "sent", "prompt", "answer",
    }
)  # fmt: skip
"""The columns that are bytes, and those that are texts; all others are whole numbers."""

NAME = 160
"""Characters of a name: three of them are in one index, whose entries may have 2,700 bytes."""
MESSAGE = 500
TEXT = 1024 * 1024
"""Characters of a prompt or an answer. Some more are looked through for secrets, so that none is cut in two and then
not known."""
_MARGIN = 8192

_encode = msgspec.json.Encoder(enc_hook=repr, order="sorted").encode
_STEP = math.log(1.02)
"""Latencies are counted by their logarithm in steps of 2 %, so that a percentile is exact to 1 %."""


class Written(NamedTuple):
    """All rows that one start or one end writes. ended says which of the two it is."""

    call: Row
    attempts: tuple[Row, ...] = ()
    content: Row | None = None
    ended: bool = False


class Manner(NamedTuple):
    """How rows are made: for which instance, what is kept of texts, and what hashes them."""

    instance: int
    privacy: Privacy = "none"
    hash: Callable[[bytes], bytes] | None = None


def bucket_of(duration: int | None) -> int | None:
    """The step a latency in microseconds counts for."""
    return None if duration is None else round(math.log(max(duration, 1)) / _STEP)


def latency_of(bucket: int) -> int:
    """The latency a step stands for, in microseconds, exact to 1 %."""
    return round(math.exp(bucket * _STEP))


def joined(first: Row, second: Row) -> Row:
    """Two rows of contents of one call as one."""
    call, prompt, answer, cut = first
    return (call, second[1] or prompt, second[2] or answer, max(cut, second[3]))


# ---- to rows ----------------------------------------------------------------------------------


def row_of_start(start: CallStart, manner: Manner, state: int = 0) -> Row:
    """The columns BEGUN of a call."""
    return (
        bytes.fromhex(start.id), start.started, manner.instance, state, _name(start.operation),
        _name(start.deployment), _name(start.provider), _name(start.model), _name(start.model), int(start.stream),
        _word(start.tenant), _word(start.user), _word(start.project), _word(start.session), _word(start.key),
        _json([_word(tag) for tag in start.tags]) if start.tags else None, _hashed(start, manner),
    )  # fmt: skip


def written_start(start: CallStart, manner: Manner) -> Written:
    """What the beginning of a call writes."""
    content = None
    if manner.privacy == "full" and start.prompt is not None:
        text, cut = _text_of(start.prompt)
        content = (bytes.fromhex(start.id), text, None, int(cut))
    return Written(row_of_start(start, manner), (), content)


def written_end(end: CallEnd, manner: Manner) -> Written:
    """What the end of a call writes."""
    begun = list(row_of_start(end.start, manner, STATES.index(end.state)))
    for place, name in ((5, end.deployment), (6, end.provider), (8, end.model)):
        if name is not None:
            begun[place] = _name(name)
    usage, priced, duration = end.usage, _priced(end), _count(end.duration)
    row = (
        *begun, _count(end.first_token), duration, bucket_of(duration), _kind(end.finish_reason),
        _kind(end.error_kind),
        None if manner.privacy == "none" or end.error_message is None else _clean(redact(end.error_message), MESSAGE),
        *map(_count, _counts(usage)), *priced, int(end.own_cache), _money(end.saved), end.losses,
        len(end.attempts), _word(end.request_id),
    )  # fmt: skip
    content = None
    if manner.privacy == "full" and end.answer is not None:
        text, cut = _text_of(end.answer)
        content = (begun[0], None, text, int(cut))
    attempts = []
    for number, attempt in enumerate(end.attempts, 1):
        # A call of one attempt costs what that did, for the same reasons.
        same = attempt.usage is usage and (attempt.cost, attempt.cost_source) == (end.cost, end.cost_source)
        its = priced if same and attempt.cost_how is end.cost_how else _priced(attempt)
        attempts.append(_attempt(begun[0], number, attempt, manner, its))
    return Written(row, tuple(attempts), content, True)


def _priced(end: CallEnd | AttemptEnd) -> Row:
    """The columns PRICED."""
    cost = _money(end.cost)
    source = "unknown" if cost is None else _kind(end.cost_source)
    return (_more(end.usage), SOURCES.index(end.usage.source), cost, source, _how(end.cost_how))


def _attempt(call: bytes, number: int, end: AttemptEnd, manner: Manner, priced: Row) -> Row:
    attempt = end.attempt
    message = None if manner.privacy == "none" or attempt.message is None else _clean(redact(attempt.message), MESSAGE)
    return (
        call, number, _name(attempt.deployment), _kind(end.provider), _kind(end.model), _name(attempt.outcome), message,
        attempt.status, attempt.sent, _word(attempt.request_id), round(attempt.seconds * 1_000_000),
        round(attempt.waited * 1_000_000), *map(_count, _attempt_counts(end.usage)), *priced,
    )  # fmt: skip


def _count(value: int | None) -> int | None:
    """A number that fits its column; what no count can be is not known."""
    return value if value is not None and 0 <= value <= LARGEST else None


def _money(amount: Decimal | None) -> int | None:
    if amount is None:
        return None
    try:
        return pico(amount)
    except InputError:
        return None


def _clean(text: str, most: int) -> str:
    """A text no database refuses: without NUL and lone surrogates, and not too long."""
    if text.isascii():
        if len(text) <= most and "\0" not in text:
            return text
    else:
        text = text.encode("utf-8", "replace").decode()
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= most else f"{text[: most - 1]}…"


@functools.lru_cache(1024)
def _name(text: str) -> str:
    """A name that many calls have."""
    return _clean(text, NAME)


def _kind(text: str | None) -> str | None:
    """The same, where there may be none."""
    return None if text is None else _name(text)


def _word(text: str | None) -> str | None:
    return None if text is None else _clean(text, NAME)


def _json(value: Any) -> str:
    return _clean(_encoded(value).decode(), TEXT)


def _how(how: How) -> str | None:
    """How a cost came about, as JSON; None where there is nothing to be said."""
    said = how if how is None or isinstance(how, Mapping) else how.how
    return _json(said) if said else None


def _more(usage: Usage) -> str | None:
    """What has no column of its own."""
    if not usage.cache_write_by_ttl and not usage.server_tools and usage.cost is None:
        return None
    more: dict[str, Any] = {}
    if usage.cache_write_by_ttl:
        more["cache_write_by_ttl"] = usage.cache_write_by_ttl
    if usage.server_tools:
        more["server_tools"] = usage.server_tools
    if usage.cost is not None:
        more["cost"] = str(usage.cost)
    return _json(more)


def _text_of(value: Any) -> tuple[str, bool]:
    """What was said as JSON without secrets, and whether it is only a part."""
    text = _encoded(value).decode("utf-8", "replace")
    if len(text) <= TEXT:
        return _clean(redact(text), 2 * TEXT), False
    return _clean(redact(text[: TEXT + _MARGIN])[:-_MARGIN], TEXT), True


def _encoded(value: Any) -> bytes:
    """A value as JSON; what JSON cannot say is said in Python's words."""
    try:
        return _encode(value)
    except (ValueError, TypeError, RecursionError):
        # Lone surrogates, keys that are no texts, circles.
        return json.dumps(repr(value)).encode()


def _hashed(start: CallStart, manner: Manner) -> bytes | None:
    if manner.privacy == "none" or manner.hash is None or start.prompt is None:
        return None
    return manner.hash(_encoded(start.prompt))


# ---- from rows --------------------------------------------------------------------------------


def usage_of(row: Mapping[str, Any]) -> Usage:
    """The tokens in the columns of a call or an attempt."""
    more: dict[str, Any] = msgspec.json.decode(row["usage_more"]) if row["usage_more"] else {}
    if "cost" in more:
        more["cost"] = Decimal(more["cost"])
    counts = {name: row[name] for name in COUNTS if name in row}
    return Usage(source=SOURCES[row["usage_source"]], **counts, **more)


def _amount(value: int | None) -> Decimal | None:
    return None if value is None else dollars(value)


def _decoded(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


_SAME = (
    "started", "operation", "deployment", "provider", "asked", "model", "tenant", "project", "session", "first_token",
    "duration", "finish_reason", "error_kind", "error_message", "losses", "request_id", "cost_source",
)  # fmt: skip
_SAME_ATTEMPT = (
    "number", "deployment", "provider", "model", "outcome", "message", "status", "sent", "request_id", "duration",
    "waited", "cost_source",
)  # fmt: skip


def record_of(row: Mapping[str, Any], **more: Any) -> CallRecord:
    """The record of a row of calls."""
    digest = row["prompt_hash"]
    return CallRecord(
        id=bytes(row["id"]).hex(),
        state=STATES[row["state"]],
        stream=bool(row["stream"]),
        user=row["person"],
        key=row["key_name"],
        tags=tuple(_decoded(row["tags"]) or ()),
        usage=usage_of(row),
        cost=_amount(row["cost"]),
        cost_how=_decoded(row["cost_how"]),
        own_cache=bool(row["own_cache"]),
        saved=_amount(row["saved"]),
        prompt_hash=None if digest is None else bytes(digest).hex(),
        **{name: row[name] for name in _SAME},
        **more,
    )


def attempt_of(row: Mapping[str, Any]) -> AttemptRecord:
    """The record of a row of attempts."""
    return AttemptRecord(
        usage=usage_of(row),
        cost=_amount(row["cost"]),
        cost_how=_decoded(row["cost_how"]),
        **{name: row[name] for name in _SAME_ATTEMPT},
    )
