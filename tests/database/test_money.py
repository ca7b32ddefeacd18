"""Money and time in databases are whole numbers, and nothing is lost on the way there and back."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.database import dollars, micros, moment, pico
from polyvox.errors import InputError


@given(st.integers(0, 2**63 - 1))
def test_every_whole_number_of_pico_dollars_comes_back_as_it_was(amount):
    assert pico(dollars(amount)) == amount


@given(st.decimals(min_value=0, max_value=9_000_000, places=12, allow_nan=False, allow_infinity=False))
def test_an_amount_to_the_pico_dollar_is_kept_exactly(amount):
    assert dollars(pico(amount)) == amount


def test_what_is_finer_than_a_pico_dollar_is_rounded_half_to_even():
    assert pico(Decimal("0.0000000000005")) == 0
    assert pico(Decimal("0.0000000000015")) == 2


@pytest.mark.parametrize("amount", ["NaN", "sNaN", "Infinity", "-Infinity", "-0.01", "9300000", "1e999"])
def test_what_is_no_amount_is_refused(amount):
    with pytest.raises(InputError) as caught:
        pico(Decimal(amount))
    assert caught.value.hint


@given(st.datetimes(datetime(1970, 1, 2), datetime(3000, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_a_point_in_time_comes_back_whatever_zone_it_was_said_in(naive, minutes):
    said = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert moment(micros(said)) == said
    assert micros(naive) == micros(naive.replace(tzinfo=UTC))
