"""How simulated providers do over time: pure, and as the numbers say."""

from collections import Counter
from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.testing import weather as w
from polyvox.testing.weather import BROWN_OUT, HEALTHY, OUTAGE, Spell, Weather, flapping, one_of, outage

TIMES = st.floats(0, 1e6)


@pytest.mark.parametrize(
    "latency",
    [w.Constant(), w.LogNormal(), w.HeavyTail(), w.SlowFirst(), w.UnderLoad()],
    ids=lambda it: type(it).__name__,
)
def test_every_latency_is_above_nothing_and_the_same_from_the_same_chance(latency):
    drawn = [latency.draw(chance, busy) for chance in [Random(1)] for busy in range(500)]
    assert all(0 < seconds < 1e6 for seconds in drawn)
    assert drawn == [latency.draw(chance, busy) for chance in [Random(1)] for busy in range(500)]


def drawn(latency, busy=0):
    chance = Random(1)
    return [latency.draw(chance, busy) for _ in range(5000)]


def test_half_are_faster_than_the_median():
    assert median(drawn(w.LogNormal(2.0, 1.0))) == pytest.approx(2.0, rel=0.05)


def test_a_heavy_tail_is_long_and_ends():
    found = drawn(w.HeavyTail(0.2, 1.1, 60.0))
    assert min(found) >= 0.2
    assert max(found) == 60.0
    assert median(found) < 0.5


def test_a_share_of_first_tokens_is_slow():
    found = Counter(drawn(w.SlowFirst(w.Constant(1.0), w.Constant(30.0), 0.2)))
    assert set(found) == {1.0, 30.0}
    assert found[30.0] == pytest.approx(1000, rel=0.1)


def test_whoever_is_busy_is_slower():
    latency = w.UnderLoad(w.Constant(1.0), 8)
    assert [latency.draw(Random(1), busy) for busy in (0, 8, 16)] == [1.0, 2.0, 5.0]


@given(st.floats(0, 1, exclude_max=True), st.lists(st.floats(0, 0.3), max_size=3))
def test_shares_are_laid_end_to_end(chance, shares):
    found = one_of(tuple((str(number), share) for number, share in enumerate(shares)), chance)
    if found is None:
        assert chance >= sum(shares) - 1e-9
    else:
        place = int(found)
        assert sum(shares[:place]) - 1e-9 <= chance <= sum(shares[: place + 1]) + 1e-9


@given(TIMES, TIMES, st.floats(0.1, 1e5))
def test_a_spell_covers_its_time_and_no_other(now, begins, lasts):
    assert Spell(begins, lasts, OUTAGE).covers(now) == (now >= begins and now - begins < lasts)


@given(st.integers(0, 1000), st.floats(0, 9.99))
def test_a_spell_that_comes_again_comes_at_the_same_time_of_each_turn(turn, into):
    spell = Spell(5.0, 4.0, OUTAGE, every=10.0)
    assert spell.covers(5.0 + turn * 10.0 + into) == (into < 4.0) or abs(into - 4.0) < 1e-6


def test_the_last_spell_that_covers_a_moment_holds():
    weather = Weather(HEALTHY, (Spell(10, 20, BROWN_OUT), Spell(15, 2, OUTAGE)))
    assert [weather.at(now) for now in (9, 10, 15, 17, 29, 30)] == [
        HEALTHY, BROWN_OUT, OUTAGE, BROWN_OUT, BROWN_OUT, HEALTHY,
    ]  # fmt: skip


def test_an_outage_ends_and_a_flapping_one_comes_again():
    assert [outage(5, 5).at(now) is OUTAGE for now in (4, 5, 9, 10, 15)] == [False, True, True, False, False]
    assert [flapping(4, 1).at(now) is OUTAGE for now in (3, 4, 5, 8, 9, 10)] == [False, True, False, False, True, False]


def test_in_an_outage_nothing_works():
    assert all(one_of(OUTAGE.errors, number / 1000) is not None for number in range(1000))
