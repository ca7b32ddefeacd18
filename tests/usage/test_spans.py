"""Points in time as people say them become one moment, in the zone they mean."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.errors import InputError
from polyvox.usage import shown
from polyvox.usage.spans import moment_of, periods, zone_of

NOW = datetime(2026, 11, 21, 18, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", "2026-11-21T17:00"),
        ("24h", "2026-11-20T18:30"),
        ("7d", "2026-11-14T18:30"),
        ("2w", "2026-11-07T18:30"),
        ("today", "2026-11-21T00:00"),
        ("Yesterday", "2026-11-20T00:00"),
        ("week", "2026-11-16T00:00"),
        ("month", "2026-11-01T00:00"),
        ("year", "2026-01-01T00:00"),
        ("2026", "2026-01-01T00:00"),
        ("2026-03", "2026-03-01T00:00"),
        ("2026-03-29", "2026-03-29T00:00"),
        (" 2026-03-29T14:30 ", "2026-03-29T14:30"),
        ("2026-03-29T14:30:15+02:00", "2026-03-29T12:30:15"),
    ],
)
def test_a_text_means_one_moment(text, moment):
    assert moment_of(text, NOW) == datetime.fromisoformat(moment).replace(tzinfo=UTC)


def test_days_begin_in_the_zone_that_is_said():
    late = datetime(2026, 6, 30, 22, 30, tzinfo=UTC)  # in Berlin it is July already
    assert moment_of("month", late, BERLIN) == datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert moment_of("2026-01-01", late, BERLIN) == datetime(2025, 12, 31, 23, tzinfo=UTC)
    assert moment_of("24h", late, BERLIN) == late - timedelta(hours=24)


@pytest.mark.parametrize("text", ["", "7", "7x", "-7d", "2026-13", "2026-02-30", "999999w", "soon", "0000"])
def test_what_is_no_time_is_refused_with_what_there_is_to_say(text):
    with pytest.raises(InputError, match="no point in time") as wrong:
        moment_of(text, NOW)
    assert "2026-11-01" in wrong.value.hint


@given(st.text(max_size=20))
def test_any_text_is_a_moment_or_one_clear_error(text):
    try:
        assert moment_of(text, NOW, BERLIN).tzinfo is not None
    except InputError as wrong:
        assert wrong.hint


@pytest.mark.parametrize("name", ["", "Mars/Base", "../etc/passwd", "/etc/passwd", "a\0b", "Europe"])
def test_a_zone_that_is_none_is_refused(name):
    with pytest.raises(InputError, match="no time zone"):
        zone_of(name)


def test_zones_are_known_by_name():
    assert zone_of("utc") is UTC and zone_of("Europe/Berlin") == BERLIN


def test_days_and_months_without_calls_are_in_a_time_line_too():
    assert periods("2026-02-27", "2026-03-02") == ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"]
    assert periods("2025-11", "2026-02") == ["2025-11", "2025-12", "2026-01", "2026-02"]
    assert len(periods("0001-01-01", "9999-12-31")) == 1200


@given(st.decimals(min_value=0, max_value=10**7, places=12))
def test_short_money_is_the_amount_to_three_digits_or_a_cent_and_never_nothing_for_something(amount):
    said = shown.money(amount).removeprefix("$").replace(",", "")
    assert abs(float(said) - float(amount)) <= max(0.0051 * float(amount), 1e-18)
    assert (float(said) == 0) == (amount == 0)


@given(st.floats(0, 1e15))
def test_short_counts_are_the_number_to_half_a_percent(number):
    said = shown.count(number).replace(",", "")
    sizes = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    value = float(said[:-1]) * sizes[said[-1]] if said[-1] in sizes else float(said)
    assert abs(value - number) <= 0.0051 * number
