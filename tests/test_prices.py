"""A call costs exactly what its counts and the table say: no part twice, none for nothing, and nothing where nobody
knows."""

import decimal
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox import catalog, config
from polyvox.catalog import Catalog
from polyvox.errors import ConfigError
from polyvox.models import Model, Price
from polyvox.prices import Bill, Override, again, cost, overridden, overrides_of, served
from polyvox.prices.sheet import sheet
from polyvox.types import Cost, Usage

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HIGH = Decimal(200)

amounts = st.decimals(0, HIGH, places=4)
counts = st.integers(0, 3_000_000)


def model_of(*prices, **facts):
    return Model(id="m", provider="p", prices=prices, **facts)


PLAIN = model_of(Price(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"), cache_write=Decimal("3.75")))


def lines(bill):
    return {line.what: (line.quantity, line.amount) for line in bill.lines}


@st.composite
def tables(draw, *, tiers=False):
    """A row with a price for input and output, and perhaps others; with a tier above it that is dearer."""
    names = ("cache_read", "cache_write", "cache_write_1h", "reasoning", "audio_input", "audio_output", "image_input")
    row = {name: draw(amounts) for name in ("input", "output")}
    row |= {name: draw(amounts) for name in draw(st.sets(st.sampled_from(names)))}
    usual = Price(**row)
    if not tiers:
        return model_of(usual)
    factor = draw(st.integers(1, 5))
    return model_of(Price(above=draw(st.integers(1, 2_000_000)), **{k: v * factor for k, v in row.items()}), usual)


@st.composite
def usages(draw):
    """Counts that can be, inclusive totals made from their parts."""
    fresh, read, write, long = (draw(counts) for _ in range(4))
    words, thought, spoken = (draw(counts) for _ in range(3))
    heard = draw(st.integers(0, fresh))
    return Usage(
        input=fresh + read + write + long,
        output=words + thought + spoken,
        cache_read=read,
        cache_write=write + long,
        cache_write_by_ttl={"5m": write, "1h": long},
        reasoning=thought,
        audio_input=heard,
        audio_output=spoken,
        image_input=draw(st.integers(0, fresh - heard)),
        source="provider",
    )


# ---- lines ------------------------------------------------------------------------------------


def test_given_counts_and_prices_then_each_part_is_a_line_at_its_own_price():
    usage = Usage(
        input=10_000, output=500, cache_read=6000, cache_write=1000, cache_write_by_ttl={"5m": 700, "1h": 300},
        reasoning=200, audio_input=100, image_input=50, audio_output=20, server_tools={"web_search": 3},
    )  # fmt: skip
    table = model_of(
        Price(
            input=Decimal(2), output=Decimal(10), cache_read=Decimal("0.2"), cache_write=Decimal("2.5"),
            cache_write_1h=Decimal(4), reasoning=Decimal(12), audio_input=Decimal(30), image_input=Decimal(5),
            audio_output=Decimal(60), other={"web_searches_kcount": Decimal(10)},
        )
    )  # fmt: skip
    bill = cost(usage, table, at=NOON, units={"cache_audio_read_mtok": 0, "cache_image_read_mtok": 0})
    assert lines(bill) == {
        "audio_input": (100, Decimal("0.003")),
        "image_input": (50, Decimal("0.00025")),
        "input": (2850, Decimal("0.0057")),
        "cache_read": (6000, Decimal("0.0012")),
        "cache_write": (700, Decimal("0.00175")),
        "cache_write_1h": (300, Decimal("0.0012")),
        "reasoning": (200, Decimal("0.0024")),
        "audio_output": (20, Decimal("0.0012")),
        "output": (280, Decimal("0.0028")),
        "web_searches_kcount": (3, Decimal("0.03")),
    }
    assert bill.amount == Decimal("0.04950")
    assert (bill.source, bill.why, bill.notes, bill.model) == ("catalog", None, (), "p/m")


def test_given_no_price_of_its_own_then_a_part_costs_as_what_it_is_part_of_and_says_so():
    table = model_of(Price(input=Decimal(2), output=Decimal(10)))
    usage = Usage(100, 50, cache_read=40, cache_write=30, reasoning=20, audio_input=10, audio_output=5)
    bill = cost(usage, table, at=NOON)
    assert bill.amount == Decimal("0.0007")
    assert {line.what: line.priced_as for line in bill.lines} == {
        "input": "input", "cache_read": "input", "cache_write": "input", "reasoning": "output", "output": "output",
    }  # fmt: skip


def test_given_a_lifetime_without_a_price_then_it_costs_as_any_write_to_a_cache():
    bill = cost(Usage(100, 0, cache_write=100, cache_write_by_ttl={"30m": 100}), PLAIN, at=NOON)
    (line,) = bill.lines
    assert (line.what, line.priced_as, line.amount) == ("cache_write_30m", "cache_write", Decimal("0.000375"))


@given(tables(tiers=True), usages())
def test_lines_add_up_to_the_amount_and_count_every_token_once(table, usage):
    bill = cost(usage, table, at=NOON)
    assert sum(map(Fraction, (line.amount for line in bill.lines))) == Fraction(bill.amount)
    output = {"output", "reasoning", "audio_output"}
    assert sum(line.quantity for line in bill.lines if line.what in output) == usage.output
    assert sum(line.quantity for line in bill.lines if line.what not in output) == usage.input
    for line in bill.lines:
        assert Fraction(line.amount) == line.quantity * Fraction(line.price) / line.per
        assert line.price == getattr(table.price(NOON, usage.input), line.priced_as)


@given(tables(tiers=True), usages(), st.sampled_from(("input", "output")), counts)
def test_more_tokens_never_cost_less(table, usage, side, more):
    larger = msgspec.structs.replace(usage, **{side: getattr(usage, side) + more})
    assert cost(larger, table, at=NOON).amount >= cost(usage, table, at=NOON).amount


@given(tables(), usages(), usages())
def test_without_tiers_two_calls_cost_as_much_as_one_with_the_tokens_of_both(table, one, other):
    names = ("input", "output", "cache_read", "cache_write", "reasoning", "audio_input", "audio_output", "image_input")
    both = Usage(
        **{name: getattr(one, name) + getattr(other, name) for name in names},
        cache_write_by_ttl={ttl: one.cache_write_by_ttl[ttl] + other.cache_write_by_ttl[ttl] for ttl in ("5m", "1h")},
    )
    told = {"cache_audio_read_mtok": 0, "cache_image_read_mtok": 0}
    apart = [Fraction(cost(usage, table, at=NOON, units=told).amount) for usage in (one, other)]
    assert Fraction(cost(both, table, at=NOON, units=told).amount) == sum(apart)


@given(tables(tiers=True), usages())
def test_an_amount_is_exact_whatever_the_precision_of_the_caller(table, usage):
    expected = cost(usage, table, at=NOON)
    with decimal.localcontext(prec=2, traps=[decimal.Inexact, decimal.Rounded, decimal.Subnormal]):
        assert cost(usage, table, at=NOON) == expected


# ---- unknown is not 0 -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "model", "why"),
    [
        (Usage(1, 1), None, "nobody says what this model costs"),
        (Usage(1, 1), model_of(), "the table has no price of p/m"),
        (Usage(1, 1), model_of(Price(input=Decimal(1), output=Decimal(1), since="2027-01-01")), "for this time"),
        (Usage(None, 1), PLAIN, "nobody says how many tokens went in"),
        (Usage(1, None), PLAIN, "nobody says how many tokens came out"),
        (Usage(), PLAIN, "went in; nobody says how many tokens came out"),
        (Usage(1, 1), model_of(Price(input=Decimal(1))), "the table has no price for output"),
        (Usage(1, 1), model_of(Price(output=Decimal(1))), "the table has no price for input"),
        (Usage(1, 1, server_tools={"web_search": 1}), PLAIN, "the table has no price for web_searches_kcount"),
        (Usage(1, 1, server_tools={"dig": 1}), PLAIN, "the table has no price for dig_kcount"),
        (Usage(-1, 1), PLAIN, "nobody says how many tokens went in"),
        (Usage(1, 2**63), PLAIN, "nobody says how many tokens came out"),
    ],
)
def test_what_cannot_be_known_has_no_amount_and_says_why(usage, model, why):
    bill = cost(usage, model, at=NOON)
    assert (bill.amount, bill.source, bill.lines) == (None, "unknown", ())
    assert why in bill.why
    assert str(bill) == "unknown"


def test_given_only_the_sum_of_both_then_the_other_count_follows():
    assert cost(Usage(100, None, total=150), PLAIN, at=NOON) == cost(Usage(100, 50), PLAIN, at=NOON)
    assert cost(Usage(None, 50, total=150), PLAIN, at=NOON) == cost(Usage(100, 50), PLAIN, at=NOON)


def test_what_costs_nothing_costs_0_even_where_nobody_counted():
    free = model_of(Price(input=Decimal(0), output=Decimal(0)))
    assert cost(Usage(100, 50), free, at=NOON).amount == 0
    bill = cost(Usage(), free, at=NOON)
    assert (bill.amount, bill.source) == (Decimal(0), "catalog")
    dear_when_long = model_of(Price(above=1000, input=Decimal(1), output=Decimal(1)), *free.prices)
    assert cost(Usage(), dear_when_long, at=NOON).amount is None


def test_given_an_embedding_then_an_output_that_nobody_counts_is_none():
    vectors = model_of(Price(input=Decimal("0.02")))
    assert cost(Usage(1000), vectors, at=NOON, operation="embed").amount == Decimal("0.00002")
    assert cost(Usage(1000), vectors, at=NOON).amount is None


def test_given_a_price_by_the_hour_then_tokens_are_not_what_is_paid_for():
    ear = model_of(Price(other={"audio_hours": Decimal("0.36")}))
    bill = cost(Usage(), ear, at=NOON, units={"audio_hours": 25}, operation="transcribe")
    assert (bill.amount, bill.lines[0].per) == (Decimal("0.0025"), 3600)
    uneven = cost(Usage(), ear, at=NOON, units={"audio_hours": 1}, operation="transcribe")
    assert uneven.amount == Decimal("0.0001")
    assert cost(Usage(), ear, at=NOON, operation="transcribe").why == "nobody says how much there was of audio_hours"


def test_given_pictures_with_a_price_of_their_own_then_their_tokens_must_be_told():
    painter = model_of(Price(input=Decimal("0.3"), output=Decimal("2.5"), other={"output_image_mtok": Decimal(30)}))
    usage = Usage(10, 1300)
    assert cost(usage, painter, at=NOON).why == "nobody says how much of the output is pictures"
    drawn = cost(usage, painter, at=NOON, units={"output_image_mtok": 1290})
    assert lines(drawn)["output_image_mtok"] == (1290, Decimal("0.0387"))
    assert lines(drawn)["output"] == (10, Decimal("0.000025"))
    assert cost(usage, painter, at=NOON, units={"output_image_mtok": 0}).amount == Decimal("0.003253")


def test_given_a_fee_for_each_request_then_it_is_added_once():
    seeker = model_of(Price(input=Decimal(1), output=Decimal(1), other={"requests_kcount": Decimal(12)}))
    assert cost(Usage(10, 10), seeker, at=NOON).amount == Decimal("0.01202")


@given(
    st.builds(
        Usage,
        *[st.none() | st.integers(-(10**6), 2**66)] * 4,
        reasoning=st.none() | st.integers(-(2**70), 2**70),
        cache_write_by_ttl=st.dictionaries(st.sampled_from(["5m", "1h", "12h", ""]), st.integers(-5, 2**65)),
        audio_input=st.none() | st.integers(-5, 2**65),
        total=st.none() | st.integers(-5, 2**65),
        server_tools=st.dictionaries(st.sampled_from(["web_search", "x"]), st.integers(-5, 2**65)),
        cost=st.none() | st.decimals(),
    ),
    st.dictionaries(st.sampled_from(["cache_audio_read_mtok", "output_image_mtok", "y"]), st.integers(-5, 2**65)),
)
def test_no_usage_however_wrong_raises_or_costs_less_than_nothing(usage, units):
    for name in ("gemini/gemini-2.5-flash", "gemini/gemini-2.5-flash-image", "anthropic/claude-fable-5"):
        bill = cost(usage, catalog.load().info(*name.split("/")), at=NOON, units=units)
        assert bill.amount is None or (bill.amount.is_finite() and bill.amount >= 0)
        assert (bill.why is None) == (bill.amount is not None)
        json.dumps(bill.how)


# ---- counts that cannot be --------------------------------------------------------------------


def test_given_more_cached_than_went_in_then_it_is_counted_beside_it_and_said():
    bill = cost(Usage(100, 10, cache_read=400), PLAIN, at=NOON)
    assert lines(bill)["input"][0] == 100 and lines(bill)["cache_read"][0] == 400
    assert bill.notes == ("400 cached tokens of 100 of input: they are counted beside it",)


def test_given_more_reasoning_than_came_out_then_it_is_counted_beside_it_and_said():
    bill = cost(Usage(10, 100, reasoning=400), PLAIN, at=NOON)
    assert lines(bill)["output"][0] == 100 and lines(bill)["reasoning"][0] == 400
    assert bill.notes == ("400 tokens of reasoning of 100 of output: they are counted beside it",)


def test_given_a_negative_part_then_the_whole_costs_as_usual_and_it_is_said():
    bill = cost(Usage(100, 10, cache_read=-5), PLAIN, at=NOON)
    assert bill.amount == cost(Usage(100, 10), PLAIN, at=NOON).amount
    assert bill.notes == ("cache_read is -5, which is no count",)


def test_given_parts_that_are_more_than_the_written_whole_then_the_larger_counts():
    bill = cost(Usage(500, 0, cache_write=100, cache_write_by_ttl={"5m": 300}), PLAIN, at=NOON)
    assert lines(bill)["cache_write"][0] == 300 and len(bill.notes) == 1


def test_given_a_written_whole_larger_than_its_parts_then_the_rest_costs_as_any_write():
    bill = cost(Usage(500, 0, cache_write=300, cache_write_by_ttl={"1h": 100}), PLAIN, at=NOON)
    assert lines(bill) == {
        "input": (200, Decimal("0.0006")), "cache_write_1h": (100, Decimal("0.000375")),
        "cache_write": (200, Decimal("0.00075")),
    }  # fmt: skip
    assert bill.notes == ()


def test_what_is_counted_beside_the_input_counts_towards_the_tier():
    tiered = model_of(Price(above=450, input=Decimal(2), output=Decimal(0)), Price(input=Decimal(1), output=Decimal(0)))
    assert cost(Usage(100, 0, cache_read=400), tiered, at=NOON).amount == Decimal("0.001")
    assert cost(Usage(400, 0, cache_read=100), tiered, at=NOON).amount == Decimal("0.0004")


def test_searches_that_the_usage_and_the_answer_both_count_are_the_same_searches():
    table = model_of(Price(input=Decimal(1), output=Decimal(1), other={"web_searches_kcount": Decimal(10)}))
    usage = Usage(0, 0, server_tools={"web_search": 2}, source="provider")
    bill = cost(usage, table, at=NOON, units={"web_searches_kcount": 2})
    assert bill.amount == Decimal("0.02")
    assert again(kept(bill, usage), lambda provider, name: table) == bill


@given(tables(tiers=True), counts, counts, counts, counts, counts)
def test_what_cannot_be_costs_at_least_as_much_as_whatever_it_could_mean(table, asked, read, write, said, thought):
    bill = cost(Usage(asked, said, cache_read=read, cache_write=write, reasoning=thought), table, at=NOON)
    if not bill.notes:
        return
    read, write, thought = min(read, asked), min(write, max(0, asked - read)), min(thought, said)
    could = Usage(asked, said, cache_read=read, cache_write=write, reasoning=thought)
    prices = table.price(NOON)
    if all((getattr(prices, name) or 0) <= prices.input for name in ("cache_read", "cache_write")):
        if (prices.reasoning or 0) <= prices.output:
            assert bill.amount >= cost(could, table, at=NOON).amount


@given(tables(), st.integers(0, 10**6), st.data())
def test_sound_of_which_nobody_says_how_much_was_cached_costs_the_dearest_it_can(table, asked, data):
    read, heard = data.draw(st.integers(0, asked)), data.draw(st.integers(0, asked))
    usage = Usage(asked, 0, cache_read=read, audio_input=heard)
    own = {"cache_audio_read_mtok": data.draw(amounts)}
    table = model_of(msgspec.structs.replace(table.prices[0], other=own))
    unsaid = cost(usage, table, at=NOON)
    least = max(0, heard + read - asked)
    known = data.draw(st.integers(least, min(heard, read)))
    assert unsaid.amount >= cost(usage, table, at=NOON, units={"cache_audio_read_mtok": known}).amount
    assert unsaid.notes or least == min(heard, read)


# ---- which price holds ------------------------------------------------------------------------


@given(st.lists(st.integers(1, 1000), unique=True, max_size=4), st.integers(0, 1200))
def test_the_tier_of_a_call_is_the_highest_it_is_above_and_holds_for_all_its_tokens(edges, asked):
    rows = [Price(above=edge, input=Decimal(edge), output=Decimal(0)) for edge in sorted(edges, reverse=True)]
    bill = cost(Usage(asked, 0), model_of(*rows, Price(input=Decimal("0.5"), output=Decimal(0))), at=NOON)
    held = max((edge for edge in edges if asked > edge), default=None)
    assert bill.amount == asked * (Decimal("0.5") if held is None else Decimal(held)) / 1_000_000
    assert all(line.case.above == (held or 0) for line in bill.lines)


def test_cached_tokens_count_towards_the_tier():
    tiered = model_of(Price(above=200, input=Decimal(2), output=Decimal(0)), Price(input=Decimal(1), output=Decimal(0)))
    assert cost(Usage(201, 0, cache_read=200), tiered, at=NOON).lines[0].case.above == 200


@given(st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)), st.integers(-14, 14), st.booleans())
def test_hours_and_days_are_those_of_utc(moment, shift, over_midnight):
    hours = ("22:30", "06:00") if over_midnight else ("06:00", "22:30")
    table = model_of(
        Price(input=Decimal(2), output=Decimal(0), hours=hours),
        Price(input=Decimal(5), output=Decimal(0), since="2026-07-01"),
        Price(input=Decimal(7), output=Decimal(0)),
    )
    inside = "06:00" <= f"{moment:%H:%M}" < "22:30"
    wanted = 2 if inside != over_midnight else 5 if moment >= datetime(2026, 7, 1) else 7
    there = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=shift)))
    for at in (moment, there):
        assert cost(Usage(1_000_000, 0), table, at=at).amount == wanted


@given(st.permutations([99, 100, 101, 0, 100]), st.permutations([-14, 0, 9, 14]))
def test_what_holds_does_not_depend_on_what_was_asked_before(sizes, shifts):
    table = model_of(
        Price(above=100, input=Decimal(2), output=Decimal(0)),
        Price(input=Decimal(5), output=Decimal(0), hours=("11:00", "13:00")),
        Price(input=Decimal(7), output=Decimal(0)),
    )
    for size in sizes:
        assert cost(Usage(size, 0), table, at=NOON).amount == size * (2 if size > 100 else 5) / Decimal(10**6)
    for shift in shifts:
        zone = timezone(timedelta(hours=shift))
        inside, outside = NOON.astimezone(zone), NOON.replace(tzinfo=zone)
        assert cost(Usage(10**6, 0), model_of(*table.prices[1:]), at=inside).amount == 5
        assert cost(Usage(10, 0), table, at=inside).amount == Decimal("0.00005")
        assert cost(Usage(10, 0), table, at=outside).amount == Decimal("0.00007" if shift else "0.00005")


SPECIAL = model_of(
    Price(when={"service_tier": "flex"}, input=Decimal(1)),
    Price(when={"processing": "batch"}, input=Decimal(2), output=Decimal(5), since="2026-10-14"),
    Price(input=Decimal(4), output=Decimal(10), cache_read=Decimal("0.4")),
)


def test_a_special_case_is_laid_over_the_usual_one_and_each_line_names_its_row():
    bill = cost(Usage(100, 10, cache_read=50), SPECIAL, at=NOON, told={"service_tier": "flex"})
    assert {line.what: (line.price, line.case.when) for line in bill.lines} == {
        "input": (1, {"service_tier": "flex"}), "cache_read": (Decimal("0.4"), {}), "output": (10, {}),
    }  # fmt: skip
    both = cost(Usage(100, 10), SPECIAL, at=NOON, told={"service_tier": "flex", "processing": "batch"})
    assert [line.price for line in both.lines] == [1, 5]


def test_a_tier_that_no_row_speaks_of_is_unknown_and_not_the_usual_price():
    bill = cost(Usage(100, 10), SPECIAL, at=NOON, told={"service_tier": "priority"})
    assert bill.why == "the table has no price of p/m for service_tier priority"
    early = cost(Usage(100, 10), SPECIAL, at=datetime(2026, 10, 1), told={"processing": "batch"})
    assert early.amount is None


@settings(max_examples=50)
@given(usages(), st.sampled_from(["", "flex", "priority", "fast"]), st.booleans())
def test_known_models_cost_what_their_row_says(usage, tier, batch):
    told = {"service_tier": tier} if tier else {}
    told |= {"processing": "batch"} if batch else {}
    usage = msgspec.structs.replace(usage, audio_input=None, image_input=None, audio_output=None)
    model = catalog.load().info("openai", "gpt-5.6-sol")
    row = model.price(NOON, usage.input, told)
    long = usage.cache_write_by_ttl["1h"]
    expected = (
        (usage.input - usage.cache_read - usage.cache_write) * row.input
        + usage.cache_read * row.cache_read
        + (usage.cache_write - long) * row.cache_write
        + long * (row.cache_write_1h or row.cache_write)
        + usage.output * row.output
    )
    assert cost(usage, model, at=NOON, told=told).amount == expected / 1_000_000


def test_the_same_table_is_laid_out_once_and_each_kind_of_call_by_itself():
    assert sheet(SPECIAL) is sheet(SPECIAL, {})
    assert sheet(SPECIAL).rates(NOON, 5) is sheet(SPECIAL).rates(NOON + timedelta(seconds=1), 50)
    assert sheet(SPECIAL, {"service_tier": "flex"}) is not sheet(SPECIAL)
    equal = model_of(*SPECIAL.prices)
    assert sheet(equal) is not sheet(SPECIAL)


# ---- who says it ------------------------------------------------------------------------------


def test_what_the_provider_charged_goes_before_the_table():
    bill = cost(Usage(100, 10, cost=Decimal("0.5")), PLAIN, at=NOON)
    assert (bill.amount, bill.source, bill.lines) == (Decimal("0.5"), "provider", ())
    assert cost(Usage(cost=Decimal(0)), None, at=NOON).amount == 0


@pytest.mark.parametrize("wrong", ["NaN", "sNaN", "Infinity", "-1"])
def test_what_no_provider_can_have_charged_is_not_believed(wrong):
    assert cost(Usage(100, 10, cost=Decimal(wrong)), PLAIN, at=NOON).source == "catalog"


def test_an_estimate_of_tokens_is_an_estimate_of_money():
    assert cost(Usage(1, 1, source="estimated"), PLAIN, at=NOON).estimated
    assert not cost(Usage(1, 1, source="estimated", cost=Decimal(1)), PLAIN, at=NOON).estimated


def test_a_bill_is_a_cost_that_prints_without_an_exponent():
    bill = cost(Usage(1, 0), PLAIN, at=NOON)
    assert isinstance(bill, Cost) and str(bill) == "0.000003 USD"


# ---- prices of the user's own -----------------------------------------------------------------


def test_given_a_price_of_the_users_own_then_it_goes_before_every_row_and_the_rest_stays():
    mine = overridden(SPECIAL, [Override(input=Decimal("0.5"), origin="config.toml:7")])
    bill = cost(Usage(100, 10), mine, at=NOON, told={"service_tier": "flex"})
    assert [(line.price, line.case.origin) for line in bill.lines] == [(Decimal("0.5"), "config.toml:7"), (10, None)]
    assert bill.how["lines"][0]["case"] == "by config.toml:7"


def test_the_most_particular_of_the_users_prices_goes_first_in_whatever_order_they_are_said():
    rows = [
        Override(input=Decimal(1)),
        Override(above=1000, input=Decimal(2)),
        Override(since="2026-06-01", input=Decimal(3)),
        Override(when={"service_tier": "flex"}, input=Decimal(4)),
    ]
    early, flex = datetime(2026, 1, 1), {"service_tier": "flex"}
    for said in (rows, rows[::-1]):
        mine = overridden(model_of(Price(input=Decimal(9), output=Decimal(0))), said)
        short, long = Usage(10, 0), Usage(2000, 0)
        asked = ((short, early, {}), (long, early, {}), (short, NOON, {}), (short, NOON, flex))
        prices = [cost(usage, mine, at=at, told=told).lines[0].price for usage, at, told in asked]
        assert prices == [1, 2, 3, 4]


def test_given_prices_for_a_model_without_any_then_it_has_them():
    mine = overridden(model_of(), overrides_of({"p/m": {"input": 0.1, "output": "0.2"}})["p/m"])
    assert cost(Usage(10, 10), mine, at=NOON).amount == Decimal("0.000003")


def test_further_cases_of_a_model_are_rows_for_calls_of_a_kind():
    said = {"input": 4, "cases": [{"when": {"service_tier": "flex"}, "input": 2}, {"above": 1000, "input": 8}]}
    rows = overrides_of({"p/m": said}, {"prices.p/m.input": "c.toml:2", "prices.p/m.cases": "c.toml:4"})["p/m"]
    assert [(row.input, row.above, row.when, row.origin) for row in rows] == [
        (2, 0, {"service_tier": "flex"}, "c.toml:4"), (8, 1000, {}, "c.toml:4"), (4, 0, {}, "c.toml:2"),
    ]  # fmt: skip
    assert overrides_of({"p/m": {"cases": said["cases"]}})["p/m"][0].input == 2


def test_a_float_means_what_was_written():
    (row,) = overrides_of({"p/m": {"input": 0.1}})["p/m"]
    assert row.input == Decimal("0.1")


WRONG = [
    ({"input": float("nan")}, "input must be a finite number from 0 up"),
    ({"input": "inf"}, "input must be a finite number from 0 up"),
    ({"output": -1}, "output must be a finite number from 0 up, not -1"),
    ({"output": True}, "output must be a number of USD per million tokens"),
    ({"output": "much"}, "output must be a number of USD per million tokens"),
    ({"output": [1]}, "output must be a number of USD per million tokens"),
    ({"output": 1e30}, "output must be at most 1e9"),
    ({"output": "1e-99"}, "output must be at most 1e9, with at most 24 digits"),
    ({"ouput": 1}, "ouput is no price"),
    ({"input": 1, "since": "soon"}, "since must be a date"),
    ({"input": 1, "hours": ["25:00", "03:00"]}, "hours must be two different times of day"),
    ({"input": 1, "hours": ["03:00", "03:00"]}, "hours must be two different times of day"),
    ({"input": 1, "above": -1}, "above must be a whole number of tokens"),
    ({"input": 1, "when": {"service_tier": 1}}, "when must be a table of words"),
    ({"other": {"web_searches_kcount": float("nan")}}, "other must be a finite number"),
    ({}, "says no price"),
    ({"since": "2026-01-01"}, "says no price"),
    ({"cases": [{"when": {"service_tier": "flex"}}]}, "cases has a table 1 that says no price"),
    ({"cases": [{"input": 1}, {"input": -1}]}, "cases has in its table 2 a wrong input: it must be a finite number"),
    ({"cases": [{"cases": []}]}, "cases has in its table 1 'cases'"),
    ({"cases": {"input": 1}}, "cases must be a list of tables"),
    ("cheap", "must be a table of prices"),
]


@pytest.mark.parametrize(("table", "problem"), WRONG)
def test_what_cannot_be_a_price_is_refused_with_its_place(table, problem):
    origins = {"prices.p/m": "config.toml:3"}
    with pytest.raises(ConfigError) as caught:
        overrides_of({"p/m": table}, origins)
    (said,) = caught.value.problems
    assert said.startswith("config.toml:3: prices.p/m") and problem in said


def test_all_problems_are_told_each_with_its_own_line_and_the_model_needs_its_full_name():
    origins = {"prices.p/m.input": "config.toml:4", "prices.p/m.output": "config.toml:5", "prices.m.input": "a:1"}
    with pytest.raises(ConfigError) as caught:
        overrides_of({"p/m": {"input": "x", "output": -1}, "m": {"input": 1}}, origins)
    assert [problem.split(" ")[0] for problem in caught.value.problems] == ["config.toml:4:", "config.toml:5:", "a:1:"]


@given(st.floats() | st.decimals() | st.text(max_size=8) | st.integers() | st.none())
def test_an_amount_is_taken_exactly_or_refused(value):
    try:
        (row,) = overrides_of({"p/m": {"input": value}})["p/m"]
    except ConfigError:
        return
    assert row.input.is_finite() and row.input >= 0 and Fraction(row.input) == Fraction(str(value).strip())


# ---- the model that served --------------------------------------------------------------------


def known(*ids):
    return Catalog(catalog.load().providers, [Model(id=name, provider="openai") for name in ids]).info


@pytest.mark.parametrize(
    ("ids", "answered", "asked", "wanted"),
    [
        (("a", "b"), "b", "a", "b"),
        (("a",), None, "a", "a"),
        (("a",), "a-2026-01-01", "a", "a"),
        (("a", "a-0613"), "a", "a-0613", "a-0613"),
        (("a", "a-0613"), "a-0613", "a", "a-0613"),
        (("a",), "a-0613", "a", "a"),
        (("a",), "MAKER/A", "a", "a"),
        (("a",), "models/a", "router", "a"),
        (("router",), "whoever", "router", None),
        (("a",), "a-mini", "a", None),
        (("a",), "a-mini-0613", "a", None),
        ((), "b", "a", None),
    ],
)
def test_the_model_that_served_is_priced_and_not_the_one_asked(ids, answered, asked, wanted):
    found = served(known(*ids), "openai", answered, asked)
    assert (found and found.id) == wanted


# ---- again ------------------------------------------------------------------------------------


def kept(bill, usage, **facts):
    """A call as the ledger has it: its reasons went through JSON."""
    how = json.loads(json.dumps(bill.how))
    row = {"provider": "p", "asked": "m", "model": "m", "operation": "chat", "own_cache": False, **facts}
    return SimpleNamespace(usage=usage, cost_how=how, started=int(NOON.timestamp() * 1e6), **row)


@given(usages(), st.sampled_from([{}, {"service_tier": "flex"}, {"service_tier": "priority"}]), counts)
def test_a_call_of_the_past_costs_the_same_again_by_the_same_table(usage, told, searches):
    table = overridden(SPECIAL, [Override(other={"web_searches_kcount": Decimal(3)})])
    bill = cost(usage, table, at=NOON, told=told, units={"web_searches_kcount": searches})
    assert again(kept(bill, usage), lambda provider, name: table) == bill


def test_a_call_of_the_past_costs_what_the_table_says_now_for_its_time():
    usage = Usage(100, 10, source="provider")
    unknown = cost(usage, None, at=NOON)
    assert unknown.amount is None
    later = model_of(
        Price(since="2026-11-22", input=Decimal(99), output=Decimal(99)), Price(input=Decimal(1), output=Decimal(1))
    )
    assert again(kept(unknown, usage), lambda provider, name: later).amount == Decimal("0.00011")


def test_answers_from_our_own_cache_and_calls_without_counts_are_left_as_they_are():
    usage = Usage(100, 10, source="provider")
    bill = cost(usage, PLAIN, at=NOON)
    assert again(kept(bill, usage, own_cache=True), lambda provider, name: PLAIN) is None
    assert again(kept(bill, Usage()), lambda provider, name: PLAIN) is None


@pytest.mark.parametrize("how", [None, {"when": 5, "units": "x"}, {"when": {"a": 1}, "units": {"b": "c", "d": True}}])
def test_what_others_wrote_into_the_reasons_does_no_harm(how):
    row = kept(Bill(), Usage(1, 1, source="provider"))
    row.cost_how = how
    assert again(row, lambda provider, name: PLAIN).amount == Decimal("0.000018")


# ---- in settings ------------------------------------------------------------------------------


def test_prices_in_a_file_go_before_the_table_everywhere_and_a_wrong_one_names_its_line(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[prices."openai/gpt-5.6-sol"]\ninput = 1.25\n\n[prices."vllm/house"]\ninput = 0\noutput = 0\n')
    found = config.load(env={}, files=[file])
    rows = catalog.load().with_prices(overrides_of(found.prices, found.origins))
    bill = cost(Usage(1000, 0), rows.info("openai", "gpt-5.6-sol"), at=NOON)
    assert (bill.amount, bill.lines[0].case.origin) == (Decimal("0.00125"), f"{file}:2")
    shown = rows.info("openai", "gpt-5.6-sol").price(NOON)
    assert (shown.input, shown.output) == (Decimal("1.25"), Decimal(20))
    assert cost(Usage(), rows.info("vllm", "house"), at=NOON).amount == 0
    file.write_text('[prices."openai/gpt-5.6-sol"]\ninput = 1\noutput = nan\n')
    with pytest.raises(ConfigError) as caught:
        config.load(env={}, files=[file])
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}:3: prices.openai/gpt-5.6-sol.output: must be a finite number")
