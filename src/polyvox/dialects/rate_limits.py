"""What the head of a reply says of rate limits: how much there is, how much remains, when it is whole again. Pure; it
knows the words that names of such headers are made of, and acts on nothing.

Sources: the providers' pages on rate limits, the drafts of RateLimit header fields of the IETF, and recorded replies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Literal, NamedTuple

from polyvox.dialects.errors_on_wire import duration

Of = Literal["requests", "tokens", "input_tokens", "output_tokens"]


class Allowance(NamedTuple):
    """One limit: of what; the most there is, and what remains of it; the seconds until all of it is there again, and
    those it is meant for. None for what the head does not say."""

    of: Of
    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None
    window: float | None = None


def allowances(headers: Mapping[str, str], now: float | None = None) -> tuple[Allowance, ...]:
    """All limits that a head speaks of; names of headers in lower case. What is unknown or makes no sense is left out.

    Points in time are taken from the date of the reply itself, so that no clock need be right; now, seconds since the
    epoch, counts where it has none.

    >>> allowances({"x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "6m0s"})
    (Allowance(of='requests', limit=None, remaining=59, reset=360.0, window=None),)
    """
    found: dict[tuple[Of, float | None], dict[str, float]] = {}
    listed: tuple[Allowance, ...] = ()
    for name in headers:
        if "ratelimit" not in name and not name.startswith("x-trial-"):
            continue
        if name == "ratelimit":
            listed = _listed(headers[name])
            continue
        field = _field(name)
        if field is None:
            continue
        value = _value(field.fact, headers[name], headers, now)
        if value is not None:
            facts = found.get(field[:2])
            if facts is None:
                facts = found[field[:2]] = {}
            facts[field.fact] = value
    if not found:
        return listed
    return tuple(_allowance(of, window, facts) for (of, window), facts in found.items()) + listed


def spent(headers: Mapping[str, str], now: float | None = None) -> tuple[Allowance, ...]:
    """Those limits of which nothing remains: what the others cost to read, a call that went well need not pay.

    >>> spent({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1.5s"})
    (Allowance(of='tokens', limit=None, remaining=0, reset=1.5, window=None),)
    """
    for name in headers:
        if name == "ratelimit" or ("-remaining" in name and headers[name].lstrip(" 0")[:1] not in _DIGITS):
            return tuple(allowance for allowance in allowances(headers, now) if allowance.remaining == 0)
    return ()


def _allowance(of: Of, window: float | None, facts: dict[str, float]) -> Allowance:
    limit, remaining = facts.get("limit"), facts.get("remaining")
    return Allowance(
        of,
        None if limit is None else int(limit),
        None if remaining is None else int(remaining),
        facts.get("reset"),
        window,
    )


# ---- names ------------------------------------------------------------------------------------

_FACTS = frozenset({"limit", "remaining", "reset"})
_OF: dict[tuple[str, ...], Of] = {
    (): "requests",
    ("requests",): "requests",
    ("req",): "requests",
    ("tokens",): "tokens",
    ("input", "tokens"): "input_tokens",
    ("output", "tokens"): "output_tokens",
}
_WINDOWS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "month": 30 * 86400.0}
# What goes before: nothing, or the maker of the protocol. Other words there mean other limits, such as those of a tier
# that is paid for apart or of the management of an account.
_HEADS = frozenset({"ratelimit", "x-ratelimit", "anthropic-ratelimit", "ratelimitbysize", "x-ratelimitbysize"})
_SIZE = "bysize"
_TRIAL = ("x-trial-endpoint-call-limit", "x-trial-endpoint-call-remaining")


class _Field(NamedTuple):
    of: Of
    window: float | None
    fact: str


@lru_cache(maxsize=512)
def _field(name: str) -> _Field | None:
    """What a header is about, from the words of its name in whatever order; None where one of them is unknown."""
    if name in _TRIAL:
        return _Field("requests", 60.0, name.rpartition("-")[2])
    start, separator, rest = name.partition("ratelimit")
    kind, _, rest = rest.partition("-")
    if start + separator + kind not in _HEADS:
        return None
    words = rest.split("-")
    facts = [word for word in words if word in _FACTS]
    if len(facts) != 1:
        return None
    words.remove(facts[0])
    window = None
    if words and words[-1] in _WINDOWS:
        window = _WINDOWS[words.pop()]
        if words and words[-1].isascii() and words[-1].isdigit() and 0 < len(words[-1]) < 5:
            window *= int(words.pop())
    of = _OF.get(tuple(words))
    if of is None or window == 0:
        return None
    return _Field("tokens" if kind == _SIZE else of, window, facts[0])


# ---- values -----------------------------------------------------------------------------------

_COUNT = re.compile(r"\s*([0-9]{1,15})(?:\.0*)?\s*(?:[,;].{0,200})?", re.ASCII | re.DOTALL)
_MILLISECONDS, _SINCE_EPOCH = 1e11, 1e9
"""A plain number from here on is no length of time but a point in it."""
_LONG = 60
_DIGITS = frozenset("123456789")


def _value(fact: str, text: str, headers: Mapping[str, str], now: float | None) -> float | None:
    if fact == "reset":
        return _reset(text, headers, now)
    if text.isdigit() and text.isascii() and len(text) < 16:
        return int(text)
    found = _COUNT.fullmatch(text)
    return int(found[1]) if found else None


def _reset(text: str, headers: Mapping[str, str], now: float | None) -> float | None:
    if len(text) > _LONG:
        return None
    seconds = duration(text)
    if seconds is None:
        when = _moment(text)
    elif seconds >= _SINCE_EPOCH:
        when = seconds / 1000 if seconds >= _MILLISECONDS else seconds
    else:
        return seconds
    here = _date(headers.get("date", "")) or now
    if when is None or here is None:
        return None
    left = when - here
    return max(left, 0.0) if math.isfinite(left) else None


def _moment(text: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 date."""
    try:
        return _epoch(datetime.fromisoformat(text.strip()))
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=16)
def _date(text: str) -> float | None:
    try:
        return _epoch(parsedate_to_datetime(text)) if 0 < len(text) <= _LONG else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _epoch(when: datetime) -> float:
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


# ---- the field of the draft -------------------------------------------------------------------

_ITEM = re.compile(
    r'\s{0,3}"?([^";,]{0,100})"?((?:\s{0,3};\s{0,3}[a-z]{1,20}=[^;,]{1,50}){1,10})\s{0,3}(?:,|$)', re.ASCII
)


def _listed(text: str) -> tuple[Allowance, ...]:
    """Each item of a field such as `"default";r=50;t=30`: how much remains, and seconds until it is whole again."""
    found = []
    for item in _ITEM.finditer(text[:1000]):
        parts = dict(part.strip().partition("=")[::2] for part in item[2].split(";") if part.strip())
        remaining, reset = _COUNT.fullmatch(parts.get("r", "")), duration(parts.get("t", ""))
        if remaining is not None and reset is not None:
            found.append(Allowance("requests", remaining=int(remaining[1]), reset=reset))
    return tuple(found)
