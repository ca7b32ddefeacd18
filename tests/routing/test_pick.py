"""In which order candidates are asked."""

import itertools
import random
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polyvox.errors import InputError
from polyvox.models import Price
from polyvox.routing.needs import Wanted
from polyvox.routing.pick import (
    FORGOTTEN,
    HALF_LIFE,
    STRATEGIES,
    Candidate,
    Candidates,
    Order,
    Rates,
    Standing,
    Strategy,
    rates_of,
    seed_of,
    strategy_of,
)
from polyvox.types import Message, Request, Text

REQUEST = Request("m", (Message("user", (Text("x" * 4000),)),), max_tokens=200)
NOW = 1000.0
WANTED = Wanted(REQUEST, NOW)
CHANCES = st.floats(0, 1, exclude_max=True)


def field(*weights, priorities=(), standings=(), rates=()):
    return Candidates([
        Candidate(
            f"d{place}", weight, priorities[place] if priorities else 0, standings[place] if standings else None,
            rates[place] if rates else None,
        )
        for place, weight in enumerate(weights)
    ])  # fmt: skip


def order(candidates, name="weighted", chance=0.5, wanted=WANTED, **how):
    return list(Order(candidates, strategy_of(name), wanted, chance, **how))


def chi_square(counts, shares):
    total = sum(counts.values())
    return sum((counts[place] - share * total) ** 2 / (share * total) for place, share in enumerate(shares))


# Beyond these a fair draw comes once in a hundred thousand times, by degrees of freedom; the draws here are fixed.
UNLIKELY = {1: 19.5, 2: 23.0, 3: 25.9, 4: 28.5}


@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 3), (5, 1, 1, 1), (0.1, 10, 3, 2, 7)])
@pytest.mark.parametrize("seed", range(4))
def test_traffic_is_shared_by_weight(weights, seed):
    draw, candidates = random.Random(seed), field(*weights)
    counts = Counter(next(Order(candidates, STRATEGIES["weighted"], WANTED, draw.random())) for _ in range(20_000))
    assert chi_square(counts, [weight / sum(weights) for weight in weights]) < UNLIKELY[len(weights) - 1]


@pytest.mark.parametrize("seed", range(4))
def test_who_comes_next_when_the_first_cannot_is_shared_by_weight_too(seed):
    draw, candidates = random.Random(seed), field(4, 1, 2, 3)
    seconds = Counter()
    for _ in range(40_000):
        first, second, *_ = order(candidates, chance=draw.random())
        if first == 0:
            seconds[second - 1] += 1
    assert chi_square(seconds, [1 / 6, 2 / 6, 3 / 6]) < UNLIKELY[2]


TINY = 1e-8  # scores closer than this are the same
FIELDS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.integers(0, 2), st.integers(0, 5), st.none() | st.floats(0, 60),
        st.none() | st.floats(0, 200), st.none() | st.floats(0, 99),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


def made(rows):
    found = []
    for place, (weight, priority, in_flight, first, rate, price) in enumerate(rows):
        standing = Standing()
        standing.in_flight = in_flight
        for _ in range(3 if first is not None else 0):
            standing.first(first, NOW)
            standing.wrote(int(rate or 0), 1.0, NOW)
        rates = None if price is None else Rates(price, price)
        found.append(Candidate(f"d{place}", weight, priority, standing, rates))
    return Candidates(found)


@given(FIELDS, st.sampled_from(sorted(STRATEGIES)), CHANCES, st.none() | st.integers(1, 2**31 - 2), st.data())
def test_everybody_allowed_comes_once_priority_by_priority_and_the_same_chance_gives_the_same(
    rows, name, chance, key, data
):
    candidates = made(rows)
    places = st.lists(st.integers(0, len(rows) - 1), max_size=4)
    first, only = data.draw(places), data.draw(st.none() | places.map(set))
    found = order(candidates, name, chance, first=first, only=only, key=key)
    allowed = set(range(len(rows))) if only is None else only
    assert sorted(found) == sorted(allowed)
    ahead = [place for place in dict.fromkeys(first) if place in allowed]
    assert found[: len(ahead)] == ahead
    ranks = [(rows[place][1], rows[place][0] == 0) for place in found[len(ahead) :]]
    assert ranks == sorted(ranks)
    assert found == order(candidates, name, chance, first=first, only=only, key=key)


@example([(1.0, 0, 0, 1.0, None, None)] * 8 + [(1.0, 0, 0, 5e-324, None, None)], "fastest", 0.0)
@given(FIELDS, st.sampled_from(["least_busy", "fastest", "cheapest"]), CHANCES)
def test_within_a_priority_the_better_come_before_the_worse(rows, name, chance):
    candidates = made(rows)
    asking = Order(candidates, STRATEGIES[name], WANTED, chance)
    found, near = list(asking), STRATEGIES[name].near
    for number, group in enumerate(candidates.groups):
        scores = dict(zip(group.places, asking.scores[number], strict=True))
        row = [scores[place] for place in found if place in scores]
        for worse, better in itertools.combinations(row, 2):
            assert worse <= better * near * near + TINY or worse == better
        assert row[0] <= min(row) * near + TINY or row[0] == min(row)


@given(FIELDS, st.sampled_from(sorted(STRATEGIES)), st.none() | st.integers(1, 2**31 - 2), st.data())
def test_who_is_first_alone_is_first_of_those_sorted_among_equals(rows, name, key, data):
    """The short way to the first and the sorted way to the rest agree on who may be first."""
    candidates, chance = made(rows), data.draw(CHANCES)
    first = order(candidates, name, chance, key=key)[0]
    sorted_first = order(candidates, name, chance, key=key, only=range(len(rows)))[0]
    if key is not None:
        assert first == sorted_first
    asking = Order(candidates, STRATEGIES[name], WANTED, chance, key=key)
    next(asking)
    if asking.scores.get(0) is not None:
        group, near = candidates.groups[0], asking.strategy.near if key is None else asking.strategy.sticky
        scores = dict(zip(group.places, asking.scores[0], strict=True))
        limit = max(min(scores.values()) * near + TINY, min(scores.values()))
        assert max(scores[first], scores[sorted_first]) <= limit


def test_a_priority_is_tried_whole_before_the_next():
    candidates = field(1, 1, 1, 1, priorities=(1, 0, 1, 0))
    for chance in (0.0, 0.3, 0.9):
        assert set(order(candidates, chance=chance)[:2]) == {1, 3}


def test_who_weighs_nothing_is_asked_only_when_nobody_else_of_its_priority_can():
    candidates = field(0, 1, 0, 1, priorities=(0, 0, 1, 1))
    for chance in (0.0, 0.5, 0.999):
        assert order(candidates, chance=chance) == [1, 0, 3, 2]


def test_the_least_busy_for_its_weight_comes_first():
    standings = [Standing(), Standing(), Standing()]
    standings[0].in_flight, standings[1].in_flight, standings[2].in_flight = 4, 2, 9
    assert order(field(1, 1, 1, standings=standings), "least_busy") == [1, 0, 2]
    assert order(field(4, 1, 9, standings=standings), "least_busy")[-1] == 1


def quick(first, rate, at=NOW, times=3):
    standing = Standing()
    for _ in range(times):
        standing.first(first, at)
        standing.wrote(rate, 1.0, at)
    return standing


def test_the_fastest_is_who_has_the_whole_answer_soonest():
    slow_start, slow_writer = quick(2.0, 400), quick(0.1, 20)
    candidates = field(1, 1, standings=[slow_start, slow_writer])
    brief = Wanted(Request("m", max_tokens=10), NOW)
    assert order(candidates, "fastest")[0] == 0
    assert order(candidates, "fastest", wanted=brief)[0] == 1


@pytest.mark.parametrize("other", [Standing(), quick(30.0, 1, at=NOW - FORGOTTEN - 1), quick(30.0, 1, times=2)])
def test_whose_speed_is_not_known_gets_its_share_beside_the_fastest(other):
    candidates = field(1, 1, 1, standings=[quick(0.5, 100), other, quick(9.0, 100)])
    draw = random.Random(1)
    counts = Counter(order(candidates, "fastest", draw.random())[0] for _ in range(4000))
    assert chi_square(counts, [0.5, 0.5]) < UNLIKELY[1]
    assert counts[2] == 0


def test_who_is_about_as_fast_as_the_fastest_shares_with_it():
    candidates = field(1, 1, 1, standings=[quick(1.0, 1000), quick(1.05, 1000), quick(1.5, 1000)])
    assert {order(candidates, "fastest", chance)[0] for chance in (0.1, 0.4, 0.6, 0.9)} == {0, 1}


def test_the_cheapest_is_so_for_this_request_and_an_unknown_price_is_not_cheap():
    rates = [Rates(1.0, 100.0), None, Rates(3.0, 3.0)]
    reading = Wanted(Request("m", REQUEST.messages * 50, max_tokens=1), NOW)
    assert order(field(1, 1, 1, rates=rates), "cheapest") == [2, 0, 1]
    assert order(field(1, 1, 1, rates=rates), "cheapest", wanted=reading) == [0, 2, 1]


def test_a_price_that_is_known_in_part_is_not_known():
    assert rates_of(Price(input=Decimal("0.25"), output=Decimal(2))) == Rates(0.25, 2.0)
    assert rates_of(Price(input=Decimal(0), output=Decimal(0))) == Rates(0.0, 0.0)
    assert rates_of(Price(input=Decimal(1))) is None
    assert rates_of(None) is None


def test_one_beginning_meets_the_cheapest_only_and_the_fast_enough_only():
    rates = [Rates(1, 1), Rates(1, 1), Rates(2, 2)]
    keys = range(1, 400)
    assert {order(field(1, 1, 1, rates=rates), "cheapest", key=seed_of(str(key)))[0] for key in keys} == {0, 1}
    standings = [quick(1.0, 1000), quick(1.4, 1000), quick(3.0, 1000)]
    assert {order(field(1, 1, 1, standings=standings), "fastest", key=seed_of(str(key)))[0] for key in keys} == {0, 1}


def test_a_strategy_of_ones_own_is_a_function_that_scores():
    last = Strategy("last", lambda group, wanted: [-place for place in group.places], near=1.5)
    assert order(field(1, 1, 1), last) == [2, 1, 0]


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 1e-9])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(InputError, match="d1: a weight is"):
        field(1, weight)


def test_two_of_one_name_and_a_strategy_of_no_name_are_refused():
    with pytest.raises(InputError, match="'a'"):
        Candidates([Candidate("a"), Candidate("a")])
    with pytest.raises(InputError, match="'quickest'") as caught:
        strategy_of("quickest")
    assert "fastest" in caught.value.hint


# ---- how a deployment does --------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0, 1000)), min_size=1, max_size=30))
def test_an_average_stays_between_what_was_measured(measured):
    standing, now = Standing(), 0.0
    for seconds, later in measured:
        now += later
        standing.first(seconds, now)
        standing.wrote(100, seconds, now)
    lowest, highest = min(each for each, _ in measured), max(each for each, _ in measured)
    assert lowest - 1e-9 <= standing.first_token <= highest + 1e-9
    assert 100 / highest - 1e-6 <= standing.tokens_per_second <= 100 / lowest + 1e-6


def test_what_was_measured_a_half_life_ago_counts_half():
    standing = Standing()
    standing.first(1.0, 0.0)
    standing.first(3.0, HALF_LIFE)
    assert standing.first_token == pytest.approx(2.0)


def test_a_clock_that_steps_back_does_no_harm():
    standing = quick(1.0, 10, at=100.0)
    standing.first(2.0, 50.0)
    assert 1.0 < standing.first_token < 2.0


def test_an_answer_that_came_whole_took_as_long_as_it_took():
    whole, streamed = Standing(), quick(1.0, 100)
    for _ in range(3):
        whole.whole(200, 2.0, NOW)
    candidates = field(1, 1, standings=[whole, streamed])
    asking_ = Order(candidates, STRATEGIES["fastest"], WANTED, 0.5)
    assert next(asking_) == 0
    assert asking_.scores[0] == [pytest.approx(2.0), pytest.approx(3.0)]


def test_a_whole_answer_of_no_length_tells_when_it_began():
    standing = Standing()
    standing.whole(0, 2.0, NOW)
    assert (standing.first_token, standing.tokens_per_second) == (2.0, None)


def test_too_few_tokens_tell_no_speed():
    standing = Standing()
    standing.wrote(1, 1.0, 0.0)
    standing.wrote(10, 0.0, 0.0)
    assert standing.tokens_per_second is None


@given(st.lists(st.booleans(), max_size=50))
def test_what_begins_and_ends_leaves_nothing_in_flight(ends):
    standing = Standing()
    for well in ends:
        standing.begun()
        standing.ended(well)
    assert (standing.in_flight, standing.calls, standing.errors) == (0, len(ends), ends.count(False))
