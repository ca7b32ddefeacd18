"""Points in time as people say them: 7d, today, month, 2026-11-01. Pure: what time it is now is given."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from polyvox.errors import InputError

HINT = "say 90m, 24h, 7d, 2w, today, yesterday, week, month, year, 2026, 2026-11, 2026-11-01 or 2026-11-01T14:30"

_BACK = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_AGO = re.compile(r"(\d{1,6})([mhdw])")
_MONTH = re.compile(r"(\d{4})(?:-(\d{2}))?")
_STARTS = {
    "today": lambda day: day,
    "yesterday": lambda day: day - timedelta(days=1),
    "week": lambda day: day - timedelta(days=day.weekday()),
    "month": lambda day: day.replace(day=1),
    "year": lambda day: day.replace(month=1, day=1),
}


def moment_of(text: str, now: datetime, zone: tzinfo = UTC) -> datetime:
    """The point in time a text means: so long ago (7d), the start of this day, week (from Monday), month or year, or a
    date and time; days begin in zone. InputError for what is none of these.

    >>> now = datetime(2026, 11, 21, 18, 30, tzinfo=UTC)
    >>> moment_of("7d", now).isoformat(), moment_of("month", now).isoformat()
    ('2026-11-14T18:30:00+00:00', '2026-11-01T00:00:00+00:00')
    """
    said = text.strip()
    try:
        return _moment(said, now.astimezone(zone), zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError(f"{text!r} is no point in time", hint=HINT) from None


def _moment(said: str, now: datetime, zone: tzinfo) -> datetime:
    word = said.lower()
    if word in _STARTS:
        return _start(_STARTS[word](now.date()), zone)
    if found := _AGO.fullmatch(word):
        return now.astimezone(UTC) - int(found[1]) * _BACK[found[2]]
    if found := _MONTH.fullmatch(said):
        return _start(date(int(found[1]), int(found[2] or 1), 1), zone)
    at = datetime.fromisoformat(said)
    return at if at.tzinfo else at.replace(tzinfo=zone)


def _start(day: date, zone: tzinfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)


def zone_of(name: str) -> tzinfo:
    """A time zone by its name ("UTC", "Europe/Berlin"); InputError where there is none of that name."""
    if name.strip().upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(name.strip())
    except (ValueError, OSError, KeyError):
        # KeyError is what an unknown zone is; the others come of names that are paths.
        raise InputError(f"there is no time zone {name!r}", hint="say UTC or a name such as Europe/Berlin") from None


def periods(first: str, last: str, most: int = 1200) -> list[str]:
    """All days (2026-11-01) or months (2026-11) from one to another, both included; at most so many, the last ones.

    >>> periods("2026-11", "2027-01")
    ['2026-11', '2026-12', '2027-01']
    """
    if len(first) == 10:
        begin, end = date.fromisoformat(first).toordinal(), date.fromisoformat(last).toordinal()
        return [date.fromordinal(day).isoformat() for day in range(max(begin, end - most + 1), end + 1)]
    begin, end = _months(first), _months(last)
    return [f"{month // 12:04d}-{month % 12 + 1:02d}" for month in range(max(begin, end - most + 1), end + 1)]


def _months(text: str) -> int:
    return int(text[:4]) * 12 + int(text[5:7]) - 1
