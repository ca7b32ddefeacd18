"""A window is what people mean by it: a calendar's day in their zone, or a length; and every moment lies in one."""

import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.budgets.windows import UNITS, window_of
from polyvox.database.money import micros, moment
from polyvox.errors import InputError

ZONES = sorted(zoneinfo.available_timezones() - {"Factory", "localtime"})


def bounds(unit, zone, at):
    start, end = window_of(unit, zone).bounds(micros(at))
    return moment(start), moment(end)


def utc(*when):
    return datetime(*when, tzinfo=UTC)


@pytest.mark.parametrize(
    ("unit", "start", "end"),
    [
        ("hour", utc(2030, 3, 17, 12), utc(2030, 3, 17, 13)),
        ("day", utc(2030, 3, 17), utc(2030, 3, 18)),
        ("week", utc(2030, 3, 11), utc(2030, 3, 18)),
        ("month", utc(2030, 3, 1), utc(2030, 4, 1)),
        ("year", utc(2030, 1, 1), utc(2031, 1, 1)),
    ],
)
def test_a_calendar_window_of_a_moment(unit, start, end):
    assert bounds(unit, "UTC", utc(2030, 3, 17, 12, 34, 56)) == (start, end)


def test_the_first_moment_of_a_window_is_its_own_and_the_last_is_one_microsecond_before_the_next():
    window = window_of("day")
    start, end = window.bounds(micros(utc(2030, 3, 17, 12)))
    assert window.bounds(start) == window.bounds(end - 1) == (start, end)
    assert window.bounds(end)[0] == end


def test_the_end_of_a_year_and_the_29th_of_february():
    assert bounds("month", "UTC", utc(2031, 12, 31, 23, 59, 59)) == (utc(2031, 12, 1), utc(2032, 1, 1))
    assert bounds("month", "UTC", utc(2032, 2, 29)) == (utc(2032, 2, 1), utc(2032, 3, 1))
    assert bounds("week", "UTC", utc(2031, 1, 1)) == (utc(2030, 12, 30), utc(2031, 1, 6))


def test_a_day_on_which_the_clocks_change_has_23_or_25_hours():
    start, end = bounds("day", "Europe/Berlin", utc(2030, 3, 31, 12))
    assert (start, end - start) == (utc(2030, 3, 30, 23), timedelta(hours=23))
    start, end = bounds("day", "Europe/Berlin", utc(2030, 10, 27, 12))
    assert (start, end - start) == (utc(2030, 10, 26, 22), timedelta(hours=25))


def test_the_hour_that_comes_twice_is_two_windows():
    first = bounds("hour", "Europe/Berlin", utc(2030, 10, 27, 0, 30))
    second = bounds("hour", "Europe/Berlin", utc(2030, 10, 27, 1, 30))
    assert first == (utc(2030, 10, 27, 0), utc(2030, 10, 27, 1))
    assert second == (utc(2030, 10, 27, 1), utc(2030, 10, 27, 2))


def test_a_day_whose_midnight_is_skipped_begins_with_the_change():
    # In Beirut the clocks went from 0:00 to 1:00 on 2022-03-27.
    start, end = bounds("day", "Asia/Beirut", utc(2022, 3, 27, 12))
    assert start == utc(2022, 3, 26, 22) and end - start == timedelta(hours=23)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(UNITS),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2005, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),
    st.floats(0, 1, exclude_max=True),
)
def test_windows_follow_on_each_other_without_gap_or_overlap_in_every_zone(unit, zone, at, part):
    window = window_of(unit, zone)
    start, end = window.bounds(micros(at))
    assert start <= micros(at) < end
    inside = start + int((end - start) * part)
    assert window.bounds(inside) == (start, end)
    assert window.bounds(end)[0] == end and window.bounds(start - 1)[1] == start


def test_a_length_is_a_window_that_rolls():
    lengths = ("90s", "90m", "5h", "30d", timedelta(milliseconds=1))
    assert [window_of(length).span for length in lengths] == [
        90_000_000, 5_400_000_000, 18_000_000_000, 2_592_000_000_000, 1000,
    ]  # fmt: skip
    assert window_of("60m").text == window_of("1h").text != window_of("hour").text


def test_all_time_has_no_bounds():
    assert window_of(None).bounds(0) == (None, None) and window_of(None).span is None


@pytest.mark.parametrize(
    "wrong",
    ["", "0s", "0d", "-5h", "5", "5 weeks", "nan", "Day", "fortnight", "999999999d", timedelta(0), timedelta(-1),
     timedelta.max, 5, 5.0, True, b"day", float("nan"), ("day",)],
)  # fmt: skip
def test_what_is_no_window_is_refused_in_one_line(wrong):
    with pytest.raises(InputError) as caught:
        window_of(wrong)
    assert "\n" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize("wrong", ["", "Mars/Base", "../../etc/passwd", "/etc/passwd", "UTC\0", 5, None, "Europe"])
def test_a_zone_nobody_knows_is_refused(wrong):
    with pytest.raises(InputError, match="time zone"):
        window_of("day", wrong)
