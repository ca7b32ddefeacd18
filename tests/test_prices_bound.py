"""What a call can cost at most is never less than what it costs; where nothing bounds it, that is said."""

from datetime import timedelta, timezone
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.models import Price
from polyvox.prices import bound, cost, most
from polyvox.types import (
    UNSET,
    Audio,
    CacheHint,
    EmbedRequest,
    File,
    Image,
    Message,
    Opaque,
    Request,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    Usage,
    Video,
)
from tests.test_prices import NOON, PLAIN, model_of, tables


def asking(*parts, **facts):
    return Request("m", (Message("user", parts or (Text("Hello"),)),), **{"max_tokens": 100, **facts})


def body_of(request):
    return len(msgspec.json.encode(request))


@given(tables(tiers=True), st.data(), st.integers(0, 5000), st.integers(1, 4))
def test_no_call_costs_more_than_was_bounded_before(table, data, limit, answers):
    request = asking(Text("x" * data.draw(st.integers(0, 2000))), Audio(data=b"1"), Image(data=b"2"), max_tokens=limit)
    request = msgspec.structs.replace(request, n=answers, audio={"voice": "any"}, cache=CacheHint("1h"))
    said = bound(request, table, bytes_out=body_of(request), at=NOON)
    asked, answered = data.draw(st.integers(0, said.input)), data.draw(st.integers(0, said.output))
    read = data.draw(st.integers(0, asked))
    write = data.draw(st.integers(0, asked - read))
    thought = data.draw(st.integers(0, answered))
    usage = Usage(
        asked, answered, cache_read=read, cache_write=write,
        cache_write_by_ttl={"1h": data.draw(st.integers(0, write))}, reasoning=thought,
        audio_input=data.draw(st.integers(0, asked - read - write)),
        audio_output=data.draw(st.integers(0, answered - thought)),
    )  # fmt: skip
    assert cost(usage, table, at=NOON).amount <= said.amount


def test_the_bound_of_a_plain_request_is_its_bytes_and_its_limit():
    said = bound(asking(), PLAIN, bytes_out=500, at=NOON)
    assert (said.input, said.output) == (500 + 1024, 100)
    assert said.amount == (1524 * Decimal("3.75") + 100 * Decimal(15)) / 1_000_000
    assert most(asking(), PLAIN, bytes_out=500, at=NOON) == said.amount


def test_without_a_limit_the_models_own_counts_and_every_answer_by_itself():
    writer = model_of(*PLAIN.prices, max_output=4096)
    assert bound(asking(max_tokens=UNSET), writer, bytes_out=1, at=NOON).output == 4096
    assert bound(asking(n=3), PLAIN, bytes_out=1, at=NOON).output == 300


def test_a_budget_of_thoughts_beyond_the_limit_counts_beside_it():
    within = bound(asking(thinking=Thinking(budget_tokens=50)), PLAIN, bytes_out=1, at=NOON)
    beyond = bound(asking(thinking=Thinking(budget_tokens=5000)), PLAIN, bytes_out=1, at=NOON)
    assert (within.output, beyond.output) == (100, 5100)


def test_what_is_kept_for_longer_or_spoken_is_bounded_at_its_own_price():
    row = Price(input=Decimal(1), output=Decimal(2), cache_write_1h=Decimal(8), audio_output=Decimal(50))
    kept_long = (CacheHint("1h"), Decimal(8)), (CacheHint("5m"), Decimal(1)), (CacheHint(), Decimal(1))
    for hint, price in kept_long:
        for request in (asking(cache=hint), asking(Text("Hello", cache=hint)), asking(tools=(Tool("f", cache=hint),))):
            said = bound(request, model_of(row), bytes_out=100, at=NOON)
            assert said.amount == (price * said.input + 2 * 100) / 1_000_000
    for request in (asking(audio={"voice": "any"}), asking(modalities=("text", "audio"))):
        said = bound(request, model_of(row), bytes_out=100, at=NOON)
        assert said.amount == Decimal(1124 + 50 * 100) / 1_000_000


def test_a_picture_counts_by_the_most_that_one_can_be_and_not_by_its_bytes():
    picture = Image(data=b"x" * 3_000_000)
    said = bound(asking(Text("Hello"), picture), PLAIN, bytes_out=4_000_200, at=NOON)
    assert said.input == 200 + 1024 + 50_000
    lost = bound(asking(Text("h" * 300), picture), PLAIN, bytes_out=400, at=NOON)
    assert lost.input == 300 + 1024 + 50_000


@pytest.mark.parametrize(
    "part",
    [Video(data=b"1"), File(data=b"%PDF", media_type="application/pdf"), File(file_id="f"), Audio(url="https://a.b/c"),
     Opaque("d", "kept")],
)  # fmt: skip
def test_what_can_be_any_length_is_bounded_by_what_the_model_reads_or_by_nothing(part):
    reader = model_of(*PLAIN.prices, context=200_000)
    assert bound(asking(part), reader, bytes_out=100, at=NOON).input == 200_000
    said = bound(asking(part), PLAIN, bytes_out=100, at=NOON)
    assert said.amount is None and "any length" in said.why


def test_plain_text_in_a_file_is_as_long_as_it_is():
    part = File(data=b"words", media_type="text/plain")
    assert bound(asking(part), PLAIN, bytes_out=100, at=NOON).input == 1124


def test_tools_and_schemas_may_be_rewritten_and_count_more_than_once():
    schema = {"type": "object"}
    tool = bound(asking(tools=(Tool("f", parameters=schema),)), PLAIN, bytes_out=100, at=NOON)
    form = bound(asking(response_format=ResponseFormat("schema", schema)), PLAIN, bytes_out=100, at=NOON)
    assert tool.input == form.input == 100 + 1024 + 2048 + 2 * len('{"type":"object"}')


def test_the_bound_is_at_the_dearest_price_the_call_can_meet():
    dear = model_of(
        Price(input=Decimal(7), output=Decimal(0), hours=("01:00", "02:00")),
        Price(input=Decimal(9), output=Decimal(0), since="2026-11-22"),
        Price(above=2000, input=Decimal(50), output=Decimal(0)),
        Price(when={"service_tier": "priority"}, input=Decimal(20)),
        Price(input=Decimal(1), output=Decimal(0)),
    )
    short, long = (bound(asking(), dear, bytes_out=size, at=NOON) for size in (100, 1000))
    assert short.amount == Decimal(9) * 1124 / 1_000_000
    assert long.amount == Decimal(50) * 2024 / 1_000_000
    east = NOON.astimezone(timezone(timedelta(hours=9)))
    night = model_of(Price(input=Decimal(7), output=Decimal(0), hours=("01:00", "02:00")), dear.prices[-1])
    for at in (NOON, NOON.replace(tzinfo=None), east):
        assert bound(asking(), night, bytes_out=100, at=at).amount == Decimal(7) * 1124 / 1_000_000
    first = bound(asking(service_tier="priority"), dear, bytes_out=100, at=NOON)
    assert first.amount == Decimal(20) * 1124 / 1_000_000
    assert bound(asking(service_tier="auto"), dear, bytes_out=100, at=NOON) == short


def test_a_bound_does_not_depend_on_what_was_bounded_before():
    model = model_of(
        Price(input=Decimal(9), output=Decimal(2), since="2026-11-24"),
        Price(above=2000, input=Decimal(50), output=Decimal(3)),
        Price(input=Decimal(1), output=Decimal(1), cache_write_1h=Decimal(80)),
    )
    later = NOON + timedelta(days=7)
    kept = asking(Text("Hello", cache=CacheHint("1h")))
    wanted = [
        (asking(), NOON, 100, Decimal(1124) + 100),
        (asking(), later, 100, Decimal(9) * 1124 + 2 * 100),
        (asking(), NOON, 1000, Decimal(50) * 2024 + 3 * 100),
        (asking(max_tokens=0), NOON, 100, Decimal(1124)),
        (kept, NOON, 100, Decimal(80) * 1124 + 100),
    ]
    for order in (wanted, wanted[::-1], wanted):
        for request, at, size, amount in order:
            assert bound(request, model, bytes_out=size, at=at).amount == amount / 1_000_000


@pytest.mark.parametrize(
    ("request_", "model", "why"),
    [
        (asking(), None, "nobody says what this model costs"),
        (asking(), model_of(), "no price of p/m"),
        (asking(max_tokens=UNSET), PLAIN, "say max_tokens"),
        (asking(), model_of(Price(input=Decimal(1))), "no price for output"),
        (asking(), model_of(Price(output=Decimal(1))), "no price for input"),
        (asking(service_tier="flex"), PLAIN, "no price for service_tier flex"),
        (asking(tools=(Opaque("d", "web_search"),)), PLAIN, "the provider runs web_search itself"),
        (asking(extra={"d": {"best_of": 5}}), PLAIN, "extra says best_of"),
        (asking(), model_of(Price(input=Decimal(1), output=Decimal(1), other={"x_mtok": Decimal(1)})), "bounds x_mtok"),
    ],
)
def test_where_nothing_bounds_a_call_there_is_no_amount_but_a_reason(request_, model, why):
    said = bound(request_, model, bytes_out=100, at=NOON)
    assert said.amount is None and why in said.why


def test_own_words_that_change_no_price_leave_the_bound():
    assert most(asking(extra={"d": {"store": False, "seed": 1}}), PLAIN, bytes_out=1, at=NOON) is not None


def test_an_embedding_is_bounded_by_its_bytes():
    vectors = model_of(Price(input=Decimal("0.02")))
    said = bound(EmbedRequest(model="m", inputs=("x",)), vectors, bytes_out=976, at=NOON)
    assert (said.input, said.output, said.amount) == (2000, 0, Decimal("0.00004"))
