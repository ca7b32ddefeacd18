"""What a provider says it charged is what the call cost, in whichever form it says so: an amount, an object, ticks, or
a router's share beside what the user's own key pays."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.dialects import Endpoint, Reply, dialect, embeds
from polyvox.dialects.collect import Collector
from polyvox.models import Model, Price
from polyvox.prices import cost

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
AT = Endpoint(origin="router/m")
TABLE = Model(id="m", provider="router", prices=(Price(input=Decimal(1), output=Decimal(2)),))
FROM_TABLE = Decimal("0.000009")  # 5 tokens in at 1 USD a million, 2 out at 2 USD


def chat(usage):
    """Chat Completions, whole."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}
    body = {"object": "chat.completion", "choices": [choice], "usage": usage}
    return dialect("openai.chat").decode_response(Reply(200, {}, json.dumps(body).encode()), AT)


def chat_stream(usage):
    """Chat Completions, streamed: the usage in the last chunk."""
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": usage},
    ]
    reader, collector = dialect("openai.chat").reader(AT), Collector()
    data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    for event in [*reader.feed(data.encode()), *reader.close()]:
        collector.add(event)
    return collector.response()


def responses(usage):
    """Responses, whole."""
    said = {"type": "message", "role": "assistant", "id": "m", "content": [{"type": "output_text", "text": "Hi"}]}
    renamed = {key.replace("prompt", "input").replace("completion_", "output_"): usage[key] for key in usage}
    body = {"object": "response", "status": "completed", "output": [said], "usage": renamed}
    return dialect("openai.responses").decode_response(Reply(200, {}, json.dumps(body).encode()), AT)


WAYS = [chat, chat_stream, responses]


def billed(way, **told):
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, **told}
    return cost(way(usage).usage, TABLE, at=NOON)


def details(whole, asked=0.0, answered=0.0):
    return {
        "upstream_inference_cost": whole,
        "upstream_inference_prompt_cost": asked,
        "upstream_inference_completions_cost": answered,
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        # As recorded, one of each form.
        ({"cost": 0.0003287}, "0.0003287"),
        ({"cost": 8.6e-05, "is_byok": False, "cost_details": details(None, 9.2e-06, 7.68e-05)}, "0.000086"),
        ({"cost": 0.001022, "is_byok": False, "cost_details": details(0.001022, 0.000727, 0.000295)}, "0.001022"),
        ({"cost": 0.0076509169, "cost_details": details(0.0006509169, 0.0005963958, 5.45211e-05)}, "0.0076509169"),
        ({"cost": 0, "is_byok": False, "cost_details": details(None)}, "0"),
        ({"cost": 0.0047375, "is_byok": False, "market_cost": 0.0047375, "cost_details": details(None)}, "0.0047375"),
        ({"cost_in_usd_ticks": 2733250}, "0.000273325"),
        # With the user's own key behind the router: its share and what the key pays.
        ({"cost": 0, "is_byok": True, "cost_details": details(0.0360795, 0.0343845, 0.001695)}, "0.0360795"),
        ({"cost": 0.0018, "is_byok": True, "cost_details": details(0.036)}, "0.0378"),
        ({"cost": 0.0018, "is_byok": True, "cost_details": details(0)}, "0.0018"),
        # An object that says what it is made of.
        ({"cost": {"input_tokens_cost": 0.001, "request_cost": 0.005, "total_cost": 0.006}}, "0.006"),
        ({"cost": {"total_cost": 0}}, "0"),
    ],
)
def test_what_was_charged_is_the_cost_in_every_form_it_is_told_in(way, told, wanted):
    bill = billed(way, **told)
    assert (bill.amount, bill.source) == (Decimal(wanted), "provider")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "told",
    [
        {"cost": 0.0018, "is_byok": True},
        {"cost": 0.0018, "is_byok": True, "cost_details": None},
        {"cost": 0.0018, "is_byok": True, "cost_details": details(None)},
        {"cost": 0.0018, "is_byok": True, "cost_details": details("some")},
        {"is_byok": True, "cost_details": details(0.036)},
        {"cost": {"input_tokens_cost": 0.001}},
        {"cost": {"total_cost": None}},
        {"cost": []},
    ],
)
def test_an_amount_that_is_told_in_part_is_not_taken_for_the_whole(way, told):
    bill = billed(way, **told)
    assert (bill.amount, bill.source) == (FROM_TABLE, "catalog")


AMOUNTS = st.decimals(0, 100, places=8)


@given(AMOUNTS, AMOUNTS, st.sampled_from([True, False, None, "true", 1, 0]), st.sampled_from(WAYS))
def test_only_a_call_with_the_users_own_key_costs_more_than_the_router_charged(fee, paid, own, way):
    bill = billed(way, cost=str(fee), is_byok=own, cost_details=details(str(paid)))
    assert bill.amount == (fee + paid if own is True else fee)


def test_vectors_cost_what_was_charged_too():
    usage = {"prompt_tokens": 5, "total_tokens": 5, "cost": 0.00001, "is_byok": True, "cost_details": details(0.0002)}
    body = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "model": "m", "usage": usage}
    found = embeds("openai.chat").decode(Reply(200, {}, json.dumps(body).encode()), AT)
    assert cost(found.usage, TABLE, at=NOON, operation="embed").amount == Decimal("0.00021")
