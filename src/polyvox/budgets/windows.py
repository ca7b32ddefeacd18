"""The spans of time a budget counts in: calendar windows in a named zone, rolling ones, and all time. Pure: a time is
handed in, in whole microseconds since the epoch."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import TypeAlias
from zoneinfo import ZoneInfo

from msgspec import Struct

from polyvox.database.money import micros, moment
from polyvox.errors import InputError

Bounds: TypeAlias = tuple[int | None, int | None]
"""Start and end of a window in microseconds since the epoch; None without one."""

UNITS = ("hour", "day", "week", "month", "year")
HINT = f"a window is one of {', '.join(UNITS)}, a length such as 90m, 5h or 30d, a timedelta, or None for all time"
_HOUR = 3_600_000_000
_LENGTH = re.compile(r"(\d{1,9})\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# Ends of windows stay below 2**53, the largest whole number every store keeps exactly.
_LONGEST = timedelta(days=36_525)


class Window(Struct, frozen=True):
    """One kind of window. unit is a calendar's, in zone; span a rolling window's length in microseconds; all time has
    neither. text tells windows apart in the names of what is counted."""

    text: str
    unit: str | None = None
    span: int | None = None
    zone: tzinfo = UTC

    def bounds(self, now: int) -> Bounds:
        """The window that a time lies in: every time lies in exactly one. A week begins on Monday, a day at the first
        moment that has its date; an hour may be shorter where the clocks change within it."""
        if self.unit is None:
            return None, None
        local = moment(now).astimezone(self.zone)
        if self.unit == "hour":
            return _hour(local, now, self.zone)
        first, following = _dates(local.date(), self.unit)
        return _begins(first, self.zone), _begins(following, self.zone)


def window_of(given: str | timedelta | None, zone: str | tzinfo = "UTC") -> Window:
    """Read a window; InputError for what is none.

    >>> window_of("5h").span
    18000000000
    >>> window_of("month", "Europe/Berlin").text
    'month@Europe/Berlin'
    """
    if given is None:
        return Window("ever")
    if isinstance(given, str) and given in UNITS:
        where = zone if isinstance(zone, tzinfo) else zone_of(zone)
        return Window(f"{given}@{where}", unit=given, zone=where)
    length = _length(given)
    if length is None:
        raise InputError(f"{given!r} is no window of time", hint=HINT)
    if not timedelta(0) < length <= _LONGEST:
        raise InputError(f"a window of {length} is too {'long' if length > _LONGEST else 'short'}", hint=HINT)
    span = length // timedelta(microseconds=1)
    return Window(f"rolling {span}", span=span)


def zone_of(name: str) -> tzinfo:
    """A time zone by its name; InputError for one that is not known here."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError, TypeError):
        hint = "write a name such as Europe/Berlin; where none is known, install tzdata"
        raise InputError(f"no time zone {name!r} is known", hint=hint) from None


def _length(given: object) -> timedelta | None:
    if isinstance(given, timedelta):
        return given
    found = _LENGTH.fullmatch(given.strip()) if isinstance(given, str) else None
    return None if found is None else timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def _dates(today: date, unit: str) -> tuple[date, date]:
    """The first day of the window, and of the one after it."""
    if unit == "day":
        return today, today + timedelta(days=1)
    if unit == "week":
        monday = today - timedelta(days=today.weekday())
        return monday, monday + timedelta(days=7)
    if unit == "month":
        first = today.replace(day=1)
        return first, (first + timedelta(days=32)).replace(day=1)
    return today.replace(month=1, day=1), date(today.year + 1, 1, 1)


def _begins(day: date, zone: tzinfo) -> int:
    """The first moment of a day. Where its midnight is skipped, that is the moment of the change."""
    return micros(datetime.combine(day, time.min, zone))


def _hour(local: datetime, now: int, zone: tzinfo) -> Bounds:
    start = micros(local.replace(minute=0, second=0, microsecond=0))
    end = start + _HOUR
    offset = local.utcoffset()
    if _offset(start, zone) != offset:
        start = _change(start, now, zone)
    if _offset(end - 1, zone) != offset:
        end = _change(now, end - 1, zone)
    return start, end


def _offset(at: int, zone: tzinfo) -> timedelta | None:
    return moment(at).astimezone(zone).utcoffset()


def _change(low: int, high: int, zone: tzinfo) -> int:
    """The moment the clocks change, between two moments with different offsets."""
    before = _offset(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(middle, zone) == before:
            low = middle
        else:
            high = middle
    return high
