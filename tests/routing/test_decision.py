"""The record of how a call chose."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from polyvox.routing.affinity import Pins
from polyvox.routing.after import Next
from polyvox.routing.decision import Considered, Deciding, Decision
from polyvox.routing.needs import Abilities, Wanted
from polyvox.routing.pick import STRATEGIES, Candidate, Candidates, Order, Rates, Standing
from polyvox.routing.tiers import Scored
from polyvox.types import Image, Message, Request

REQUEST = Request("m", (Message("user", (Image(data=b"1"),)),))


def choosing(candidates, name="weighted", **how):
    order = Order(Candidates(candidates), STRATEGIES[name], Wanted(REQUEST), 0.5, **how)
    return order, Wanted(REQUEST)


def test_a_record_tells_who_was_asked_who_was_left_out_and_why():
    blind = Abilities(images=False)
    order, wanted = choosing(
        [
            Candidate("cheap", rates=Rates(1, 1), abilities=blind),
            Candidate("fair", rates=Rates(2, 2)),
            Candidate("unknown"),
            Candidate("reserve", priority=1, rates=Rates(0, 0)),
        ],
        "cheapest",
    )
    deciding = Deciding(order, named="tier:auto", scored=Scored("economy", 1, ("images: +1",)))
    for place in order:
        why = wanted.why_not(order.candidates.abilities[place])
        if why is None:
            deciding.ask(place)
            break
        deciding.skip(place, why)
    deciding.then("server", Next(0.25, True, 14))
    deciding.then("server", Next(0.0, False))
    deciding.ask(3)
    deciding.then("auth", None)
    deciding.then("timeout", Next(0.0, False), place=1)
    record = deciding.decision
    assert record.asked == ("fair", "reserve")
    assert record.skipped == {"cheap": "takes no images"}
    assert (record.tier, record.points, record.reasons) == ("economy", 1, ("images: +1",))
    assert record.steps == (
        "after server at fair: again in 0.25 s",
        "after server at fair: elsewhere",
        "after auth at reserve: stop",
        "after timeout at fair: elsewhere",
    )
    assert [one.name for one in record.candidates] == ["cheap", "fair", "unknown", "reserve"]
    scores = [one.score for one in record.candidates]
    assert scores[0] < scores[1]
    assert scores[2:] == [None, None]  # nobody knows its price; its priority was never compared


def test_what_was_compared_stays_as_it_was():
    busy, idle = Standing(), Standing()
    busy.in_flight = 3
    order, _ = choosing([Candidate("busy", standing=busy), Candidate("idle", standing=idle)], "least_busy")
    deciding = Deciding(order)
    deciding.ask(next(order))
    busy.in_flight = 99
    assert [one.score for one in deciding.decision.candidates] == [3.0, 0.0]


def test_who_does_not_keep_what_is_named_was_left_out_for_that():
    order, _ = choosing([Candidate("a"), Candidate("b")], only={1})
    deciding = Deciding(order, pins=Pins(only=("b",)))
    deciding.ask(next(order))
    assert deciding.decision.bound == ("b",)
    assert deciding.decision.skipped == {"a": "does not keep what the request names"}


def test_who_was_left_out_at_first_and_asked_later_was_asked():
    order, _ = choosing([Candidate("a")])
    deciding = Deciding(order)
    deciding.skip(0, "its limits are used up")
    assert deciding.decision.skipped == {"a": "its limits are used up"}
    deciding.ask(0)
    assert deciding.decision.skipped == {}
    assert repr(deciding) == repr(deciding.decision)


def test_what_does_not_need_saying_is_left_out():
    order, _ = choosing([Candidate("a")])
    deciding = Deciding(order)
    deciding.ask(next(order))
    assert deciding.describe() == {
        "strategy": "weighted",
        "asked": ["a"],
        "candidates": [{"name": "a", "priority": 0, "weight": 1.0, "asked": 1}],
    }


TEXT = st.none() | st.text(max_size=5)
DECISIONS = st.builds(
    Decision, TEXT, st.text(max_size=5), TEXT, st.none() | st.integers(), st.lists(st.text(max_size=3)).map(tuple),
    sticky=st.booleans(),
    unusable=st.lists(
        st.builds(
            Considered, st.text(max_size=3), st.integers(0, 3), st.floats(0, 9), st.none() | st.floats(0, 9), TEXT,
            st.none() | st.integers(1, 9),
        ),
        max_size=4,
    ).map(tuple),
)  # fmt: skip


@given(DECISIONS)
def test_a_record_is_plain_json_and_comes_back_whole(decision):
    said = decision.describe()
    assert json.loads(json.dumps(said)) == said
    assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision
