"""Heads of replies say what remains of rate limits; each provider in its own words, and some of it is nonsense."""

import json
import os
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.dialects.rate_limits import Allowance, allowances, spent

NOW = 1_800_000_000.0
DATE = {"date": formatdate(NOW, usegmt=True)}

HEADS = {
    "names of OpenAI, with spans of Go": (
        {
            "x-ratelimit-limit-requests": "5000",
            "x-ratelimit-remaining-requests": "4999",
            "x-ratelimit-reset-requests": "12ms",
            "x-ratelimit-limit-tokens": "800000",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        [
            Allowance("requests", 5000, 4999, 0.012),
            Allowance("tokens", 800000, 0, 360.0),
        ],
    ),
    "names of Anthropic, with dates": (
        {
            **DATE,
            "anthropic-ratelimit-requests-limit": "4000",
            "anthropic-ratelimit-requests-remaining": "3999",
            "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:30Z",
            "anthropic-ratelimit-input-tokens-limit": "2000000",
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2027-01-15T08:01:00+00:00",
            "anthropic-ratelimit-output-tokens-reset": "2027-01-15T07:00:00Z",
        },
        [
            Allowance("requests", 4000, 3999, 30.0),
            Allowance("input_tokens", 2000000, 0, 60.0),
            Allowance("output_tokens", reset=0.0),
        ],
    ),
    "windows in the names": (
        {
            "x-ratelimit-limit-req-minute": "60",
            "x-ratelimit-remaining-req-minute": "58",
            "x-ratelimit-limit-req-10-second": "20",
            "x-ratelimit-remaining-tokens-month": "199999999990",
            "x-ratelimit-reset-requests-day": "33011.4",
        },
        [
            Allowance("requests", 60, 58, window=60.0),
            Allowance("requests", 20, window=10.0),
            Allowance("tokens", remaining=199999999990, window=2592000.0),
            Allowance("requests", reset=33011.4, window=86400.0),
        ],
    ),
    "by size": (
        {"ratelimitbysize-limit": "500000", "ratelimitbysize-remaining": "307190", "ratelimitbysize-reset": "46"},
        [Allowance("tokens", 500000, 307190, 46.0)],
    ),
    "by size, with a window": (
        {"x-ratelimitbysize-remaining-minute": "1"},
        [Allowance("tokens", remaining=1, window=60.0)],
    ),
    "plain names, and milliseconds since the epoch": (
        {
            **DATE,
            "x-ratelimit-limit": "20",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": str(int((NOW + 42) * 1000)),
        },
        [Allowance("requests", 20, 0, 42.0)],
    ),
    "seconds since the epoch": ({**DATE, "x-ratelimit-reset": str(int(NOW + 9))}, [Allowance("requests", reset=9.0)]),
    "an older draft": (
        {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "599", "ratelimit-reset": "1"},
        [Allowance("requests", 100, 599, 1.0)],
    ),
    "the draft": ({"ratelimit": '"api";r=499;t=70'}, [Allowance("requests", remaining=499, reset=70.0)]),
    "the draft, with several": (
        {"ratelimit": '"burst";r=0;t=3, "daily";t=999;r=7'},
        [Allowance("requests", remaining=0, reset=3.0), Allowance("requests", remaining=7, reset=999.0)],
    ),
    "trial keys": (
        {"x-trial-endpoint-call-limit": "20", "x-trial-endpoint-call-remaining": "19"},
        [Allowance("requests", 20, 19, window=60.0)],
    ),
}


@pytest.mark.parametrize(("headers", "found"), HEADS.values(), ids=HEADS)
def test_each_provider_is_understood(headers, found):
    assert list(allowances(headers)) == found
    assert list(spent(headers)) == [allowance for allowance in found if allowance.remaining == 0]


def test_dates_go_by_the_date_of_the_reply_whatever_our_own_clock_says():
    headers = {"x-ratelimit-reset": str(int(NOW + 9))}
    assert allowances({**headers, **DATE}, now=5.0)[0].reset == 9.0
    assert allowances(headers, now=NOW + 2)[0].reset == 7.0
    assert allowances(headers) == ()
    assert allowances({**headers, "date": "yesterday"}, now=NOW)[0].reset == 9.0


NONSENSE = [
    "nan", "inf", "-1", "soon", "", "1_0", "1e3", "٣", "9" * 400, "0x10", "²", "1.5", "2027-99-99T00:00:00Z", "\x00",
]  # fmt: skip


@pytest.mark.parametrize("nonsense", NONSENSE)
@pytest.mark.parametrize("name", ["x-ratelimit-remaining-requests", "anthropic-ratelimit-tokens-limit"])
def test_nonsense_is_as_if_it_were_not_there(name, nonsense):
    assert allowances({name: nonsense}, now=NOW) == ()
    assert spent({name: nonsense}, now=NOW) == ()


@pytest.mark.parametrize("nonsense", [text for text in NONSENSE if text != "1.5"])
def test_a_reset_that_makes_no_sense_is_left_out_and_the_rest_stays(nonsense):
    headers = {**DATE, "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": nonsense}
    assert allowances(headers, now=NOW) == (Allowance("tokens", remaining=0),)


@pytest.mark.parametrize(
    "name",
    [
        "anthropic-priority-input-tokens-remaining",
        "anthropic-fast-input-tokens-remaining",
        "x-ms-ratelimit-remaining-subscription-reads",
        "x-ratelimit-remaining-input-images",
        "x-ratelimit-tokens-query-cost",
        "x-ratelimit-remaining-tokens_usage_based",
        "x-ratelimit-remaining-limit-requests",
        "x-ratelimit-remaining-req-0-second",
        "x-ratelimit-remaining-req-²-second",
        "x-ratelimit-requests",
        "ratelimit-policy",
        "x-ratelimit",
        "ratelimits-remaining",
    ],
)
def test_limits_of_something_else_are_none_of_ours(name):
    assert allowances({name: "0"}, now=NOW) == ()
    assert spent({name: "0"}, now=NOW) == ()


WORDS = ["x", "ratelimit", "ratelimitbysize", "anthropic", "limit", "remaining", "reset", "requests", "tokens", "10",
         "second", "minute", "input", ""]  # fmt: skip
names = st.one_of(st.lists(st.sampled_from(WORDS), max_size=7).map("-".join), st.text(max_size=30))
values = st.one_of(
    st.text(max_size=80),
    st.integers(-5, 2**70).map(str),
    st.floats().map(str),
    st.sampled_from(["6m0s", "12ms", '"a";r=0;t=1', "2027-01-15T08:00:30Z", "0001-01-01T00:00:00+23:59"]),
)


@given(st.dictionaries(names, values, max_size=8), st.one_of(st.none(), st.floats(0, 1e10)))
def test_whatever_a_head_holds_numbers_come_out_that_can_be_counted_with(headers, now):
    found = allowances(headers, now)
    for allowance in found:
        for number in allowance[1:]:
            assert number is None or 0 <= number < 1e21
    assert spent(headers, now) == tuple(allowance for allowance in found if allowance.remaining == 0)


def test_recorded_heads_are_understood():
    traffic = os.environ.get("POLYVOX_TRAFFIC")
    if not traffic:
        pytest.skip("no recorded traffic here")
    heads = said = 0
    with (Path(traffic) / "dev.jsonl").open(encoding="utf-8") as rows:
        for row in rows:
            headers = {name.lower(): str(value) for name, value in json.loads(row)["response_headers"].items()}
            if not any(name.endswith(("remaining-requests", "requests-remaining")) for name in headers):
                continue
            heads += 1
            found = allowances(headers)
            requests = [one for one in found if one.of == "requests" and one.remaining is not None]
            assert requests
            said += all(one.reset is None or one.reset < 100_000 for one in found)
    assert heads > 50
    assert said == heads
