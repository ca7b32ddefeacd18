"""What is known of a model is a fact with a source: prices by case, never 0 for unknown; life by the day; and the
file that holds it all is what the script makes of the prices package and the facts kept by hand."""

import importlib.util
import json
import logging
import threading
import tomllib
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from importlib import resources
from pathlib import Path
from types import SimpleNamespace as Said

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox import Client, Message, Request, Text, catalog, errors
from polyvox.catalog import Catalog, Provider
from polyvox.client import deployments
from polyvox.config import Settings
from polyvox.models import Model, Price, problems_of
from tests.scripted import Scripted, said, streamed

ROOT = Path(__file__).parent.parent
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TODAY = NOON.date()
DATA = resources.files("polyvox") / "data"


def script():
    spec = importlib.util.spec_from_file_location("build_models", ROOT / "scripts" / "build_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = script()


# ---- prices -----------------------------------------------------------------------------------


def model_of(*prices, **facts):
    return Model(id="m", provider="p", prices=prices, **facts)


def test_given_no_price_then_none_is_told_and_never_zero():
    assert model_of().price(NOON) is None
    only_input = model_of(Price(input=Decimal(1))).price(NOON)
    assert only_input.output is None and only_input.cache_read is None


def test_given_a_price_above_a_number_of_tokens_then_it_holds_for_more_than_that_and_for_all_of_them():
    tiered = model_of(Price(above=200_000, input=Decimal(4)), Price(input=Decimal(2)))
    assert [tiered.price(NOON, tokens).input for tokens in (0, 200_000, 200_001)] == [2, 2, 4]


def test_given_a_later_price_then_it_holds_from_its_day_on():
    changed = model_of(Price(since="2026-11-21", input=Decimal(3)), Price(input=Decimal(5)))
    assert changed.price(NOON).input == 3
    assert changed.price(NOON - timedelta(days=1)).input == 5
    assert model_of(Price(since="2027-01-01", input=Decimal(3))).price(NOON) is None


@pytest.mark.parametrize(
    ("hours", "hour", "dear"),
    [
        (("01:00", "04:00"), 1, True),
        (("01:00", "04:00"), 4, False),
        (("22:00", "02:00"), 23, True),
        (("22:00", "02:00"), 1, True),
        (("22:00", "02:00"), 12, False),
    ],
)
def test_given_a_price_by_time_of_day_then_the_clock_is_utc(hours, hour, dear):
    model = model_of(Price(hours=hours, input=Decimal(9)), Price(input=Decimal(1)))
    at = datetime(2026, 11, 21, hour, tzinfo=UTC)
    assert model.price(at).input == (9 if dear else 1)
    assert model.price(at.astimezone(timezone(timedelta(hours=9)))).input == (9 if dear else 1)
    assert model.price(at.replace(tzinfo=None)).input == (9 if dear else 1)


def test_given_a_price_for_a_kind_of_call_then_it_takes_the_place_of_what_it_says_and_no_more():
    model = model_of(
        Price(when={"processing": "batch"}, input=Decimal(1), output=Decimal(2)),
        Price(when={"service_tier": "flex"}, input=Decimal("1.5")),
        Price(
            input=Decimal(2), output=Decimal(4), cache_read=Decimal("0.2"), other={"web_searches_kcount": Decimal(10)}
        ),
    )
    batch = model.price(NOON, when={"processing": "batch", "service_tier": "flex"})
    assert (batch.input, batch.output, batch.cache_read) == (1, 2, Decimal("0.2"))
    assert batch.other == {"web_searches_kcount": 10}
    assert model.price(NOON, when={"service_tier": "flex"}).output == 4
    assert model.price(NOON, when={"service_tier": "unheard-of"}).input == 2


def test_every_price_that_comes_along_is_a_decimal_from_zero_up_and_some_models_have_none():
    priced = [model for model in catalog.load().models if model.price(NOON)]
    assert 0.5 < len(priced) / len(catalog.load().models) < 1
    for model in priced:
        price = model.price(NOON, 1_000_000)
        for amount in (price.input, price.output, price.cache_read, price.reasoning):
            assert amount is None or (type(amount) is Decimal and amount >= 0)


def test_a_price_known_from_the_providers_page_comes_out():
    price = catalog.load().info("anthropic", "claude-haiku-4-5-20251001").price(NOON)
    assert (price.input, price.output, price.cache_read, price.cache_write) == (1, 5, Decimal("0.1"), Decimal("1.25"))


# ---- life -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "standing"),
    [
        ({}, "alive"),
        ({"released": "2025-01-01"}, "alive"),
        ({"deprecated": True}, "deprecated"),
        ({"deprecated": "2026-11-21"}, "deprecated"),
        ({"deprecated": "2026-11-22"}, "alive"),
        ({"retires": "2027-01-01"}, "deprecated"),
        ({"retires": "2026-11-21"}, "deprecated"),
        ({"retires": "2026-11-20"}, "retired"),
    ],
)
def test_a_model_lives_to_its_announced_last_day(facts, standing):
    model = model_of(**facts)
    assert model.standing(TODAY) == standing
    assert (model.notice(TODAY) is None) == (standing == "alive")


def test_a_notice_names_the_day_and_the_successor():
    told = model_of(retires="2026-10-23", successor="m2").notice(TODAY)
    assert told == "p/m was retired after 2026-10-23; its successor is p/m2"
    assert model_of(deprecated=True).notice(TODAY) == "p/m is deprecated"
    assert "its last day is 2027-01-01" in model_of(retires="2027-01-01").notice(TODAY)


def test_every_successor_is_a_model_of_the_same_provider_that_is_not_retired():
    known = catalog.load()
    named = [model for model in known.models if model.successor]
    assert len(named) > 5
    for model in named:
        successor = known.info(model.provider, model.successor)
        assert successor is not None and successor.standing(TODAY) != "retired", model.name


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"id": " "}, "id: is empty"),
        ({"context": 0}, "context: is a number of tokens above 0"),
        ({"retires": "soon"}, "retires: is a date like"),
        ({"retires": "20261121"}, "retires: is a date like"),
        ({"prices": [{"input": "-1"}]}, "prices: an amount is a number from 0 up"),
        ({"prices": [{"input": "NaN"}]}, "prices: an amount is a number from 0 up"),
        ({"context": "many"}, "context"),
        ({"prices": "5"}, "prices"),
    ],
)
def test_facts_that_cannot_be_are_refused_in_words_by_one_error(facts, problem):
    with pytest.raises(errors.ConfigError) as caught:
        catalog.add_model(**{"id": "m", "provider": "p", **facts})
    assert problem in str(caught.value)
    assert catalog.load().info("p", "m") is None


def test_of_all_that_comes_along_nothing_cannot_be():
    assert [model.name for model in catalog.load().models if list(problems_of(model))] == []


# ---- names ------------------------------------------------------------------------------------


def small(*models):
    row = {"dialect": "openai.chat", "base_url": "https://x.test/v1"}
    providers = {name: Provider(name=name, **row) for name in ("p", "q")}
    providers["p-other"] = Provider(name="p-other", key_of="p", **row)
    return Catalog(providers, models)


@pytest.mark.parametrize("name", ["m", "m-2026-01-02", "m-20260102", "m@20260102", "m-latest", "also"])
def test_a_dated_snapshot_is_known_as_its_model_is(name):
    assert small(Model(id="m", provider="p", aliases=("also",))).info("p", name).id == "m"


@pytest.mark.parametrize("name", ["m-2", "m-mini", "m-20260102-x", "m-99999999", "mm"])
def test_a_name_that_only_begins_like_a_models_is_not_that_model(name):
    assert small(Model(id="m", provider="p")).info("p", name) is None


def test_one_account_in_another_dialect_has_the_same_models():
    known = small(Model(id="m", provider="p"))
    assert known.info("p-other", "m").id == "m" and known.info("q", "m") is None
    assert known.resolve("p-other/m").known_as == "p/m"


def test_only_a_model_that_says_so_is_found_without_its_provider():
    known = small(Model(id="m", provider="p", bare=True), Model(id="m", provider="q"), Model(id="n", provider="q"))
    assert known.resolve("m").provider.name == "p"
    with pytest.raises(errors.UnknownModelError):
        known.resolve("n")


def test_an_explicit_name_stays_and_only_a_choice_left_to_us_is_upgraded():
    old, new = Model(id="a", provider="p", retires="2026-01-01", successor="b"), Model(id="b", provider="p")
    target = small(old, new).resolve("p/a")
    assert target.model == "a"
    assert small(old, new).successor(target, TODAY).model == "b"
    assert small(old, new).successor(target, date(2025, 1, 1)).model == "b", "an announced end is reason enough"
    assert small(new).successor(small(new).resolve("p/b"), TODAY).model == "b"


def test_successors_in_a_circle_end_somewhere():
    ring = small(*(Model(id=a, provider="p", deprecated=True, successor=b) for a, b in ("ab", "bc", "ca")))
    assert ring.successor(ring.resolve("p/a"), TODAY).model in "abc"


# ---- at run time ------------------------------------------------------------------------------


@pytest.fixture
def added():
    yield catalog.add_model
    catalog.forget_models()


def asked(client, transport, model):
    answer = client.ask("hi", model=model)
    return answer, transport.bodies()[-1]


def test_a_model_that_is_added_is_seen_by_clients_that_are_already_there(added):
    transport = Scripted(said("one"), said("two"))
    client = Client(transport=transport, api_key="k-123456789012", model="openai/house-7b", settings=Settings())
    answer, body = asked(client, transport, "openai/house-7b")
    assert answer.losses == () and body["model"] == "house-7b"
    added(id="house-7b", provider="openai", max_output=100)
    answer = client.ask("hi", model="openai/house-7b", max_tokens=500)
    assert [loss.field for loss in answer.losses] == ["max_tokens"]
    assert transport.bodies()[-1]["max_completion_tokens"] == 100


def test_a_model_that_is_added_takes_the_place_of_what_was_known(added):
    before = catalog.load()
    mine = added(Model(id="gpt-4o", provider="openai", context=7))
    assert catalog.load().info("openai", "gpt-4o") is mine
    assert before.info("openai", "gpt-4o").context == 128_000, "a catalog somebody holds does not change"
    catalog.forget_models()
    assert catalog.load() is before


def test_models_added_from_many_threads_are_all_there(added):
    threads = [threading.Thread(target=added, kwargs={"id": f"t{n}", "provider": "p"}) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(catalog.load().info("p", f"t{n}") for n in range(20))


def test_add_model_takes_a_model_or_its_fields_and_not_both():
    with pytest.raises(errors.InputError):
        catalog.add_model(Model(id="m", provider="p"), context=5)
    with pytest.raises(errors.InputError):
        catalog.add_model("m")


def test_a_retired_model_is_asked_as_it_was_typed_and_that_is_said_once_in_the_log_and_with_each_answer(added, caplog):
    added(id="old-1", provider="openai", retires="2020-01-01", successor="new-1")
    deployments._warn.cache_clear()
    transport = Scripted(said("one"), said("two"))
    with Client(transport=transport, api_key="k-123456789012", model="openai/old-1", settings=Settings()) as client:
        with caplog.at_level(logging.WARNING, "polyvox.client"):
            answers = [client.ask("hi") for _ in range(2)]
    assert [body["model"] for body in transport.bodies()] == ["old-1", "old-1"]
    for answer in answers:
        (loss,) = answer.losses
        assert (loss.field, loss.severity) == ("model", "note") and "openai/new-1" in loss.why
    assert len([record for record in caplog.records if "old-1" in record.message]) == 1


# ---- upgrades ---------------------------------------------------------------------------------


@pytest.fixture
def ageing(added):
    """Two models at their end, one after the other, a third that lives, and one at its end without a successor."""
    added(id="old-1", provider="openai", retires="2020-01-01", successor="mid-1")
    added(id="mid-1", provider="openai", deprecated=True, successor="new-1")
    added(id="new-1", provider="openai", max_output=100)
    added(id="last-1", provider="openai", retires="2020-01-01")


def upgraded(model, *answers, **facts):
    transport = Scripted(*(answers or (said("yes"),)))
    facts = {"settings": Settings(), "api_key": "k-123456789012", **facts}
    return Client(model, transport=transport, **facts), transport


def test_an_upgrade_asks_the_last_of_the_successors_and_says_whose_place_it_takes(ageing):
    client, transport = upgraded("openai/old-1", upgrade=True)
    answer = client.ask("hi", max_tokens=500)
    assert transport.bodies()[0]["model"] == "new-1" and answer.deployment == "openai/new-1"
    assert transport.bodies()[0]["max_completion_tokens"] == 100, "the request fits the model that is asked"
    note = answer.losses[0]
    assert (note.field, note.severity) == ("model", "note")
    assert "openai/old-1" in note.why and "openai/new-1 is asked" in note.why


def test_only_the_call_that_wants_an_upgrade_gets_one(ageing):
    client, transport = upgraded("openai/old-1", said("a"), said("b"), said("c"), said("d"))
    for wanted in (None, True, False, True):
        client.ask("hi", upgrade=wanted)
    assert [body["model"] for body in transport.bodies()] == ["old-1", "new-1", "old-1", "new-1"]
    client, transport = upgraded("openai/old-1", upgrade=True)
    client.ask("hi", upgrade=False)
    assert transport.bodies()[0]["model"] == "old-1"


def test_a_stream_and_an_explanation_are_upgraded_too(ageing):
    client, transport = upgraded("openai/old-1", streamed("yes"), upgrade=True)
    shown = client.explain("hi")
    assert shown.describe()["body"]["model"] == "new-1" and shown.deployment == "openai/new-1"
    with client.stream("hi") as stream:
        answer = stream.finish()
    assert transport.bodies()[0]["model"] == "new-1" and "openai/old-1" in answer.losses[0].why


def test_a_model_that_lives_is_asked_as_it_was_named_and_nothing_is_said(ageing):
    client, transport = upgraded("openai/new-1", upgrade=True)
    assert client.ask("hi").losses == () and transport.bodies()[0]["model"] == "new-1"


def test_a_model_without_a_successor_is_asked_all_the_same_with_the_word_that_it_is_retired(ageing):
    client, transport = upgraded("openai/last-1", upgrade=True)
    (note,) = client.ask("hi").losses
    assert transport.bodies()[0]["model"] == "last-1" and "was retired" in note.why


def test_a_whole_request_is_upgraded_where_the_call_says_so(ageing):
    client, transport = upgraded(None, api_key=None, settings=Settings(providers={"openai": {"api_key": "k-12345678"}}))
    client.ask(Request("openai/old-1", (Message("user", (Text("hi"),)),)), upgrade=True)
    assert transport.bodies()[0]["model"] == "new-1"


def test_strict_takes_an_upgrade_for_the_note_it_is(ageing):
    client, transport = upgraded("openai/old-1", upgrade=True, strict=True)
    assert client.ask("hi").text == "yes" and len(transport.sent) == 1


@pytest.mark.parametrize("wrong", ["yes", 1, []])
def test_an_upgrade_that_is_neither_true_nor_false_is_refused(wrong):
    with pytest.raises(errors.InputError, match="upgrade"):
        Client("demo", upgrade=wrong)
    with pytest.raises(errors.InputError, match="upgrade"):
        Client("demo", settings=Settings()).ask("hi", upgrade=wrong)


# ---- the script -------------------------------------------------------------------------------


def clause(**kind):
    return Said(**kind)


def source():
    """Two providers as the prices package has them, in all shapes it knows."""
    tier = Said(start=200_000, price=Decimal("3.0"))
    plain = Said(input_mtok=Decimal("1.50"), output_mtok=Said(base=Decimal(2), tiers=[tier]), cache_read_mtok=None)
    later = Said(constraint=Said(start_date=date(2026, 12, 1)), prices=Said(input_mtok=Decimal(9)))
    night = Said(
        constraint=Said(start_time=time(1, tzinfo=UTC), end_time=time(4, tzinfo=UTC)),
        prices=Said(input_mtok=Decimal(0), web_searches_kcount=Decimal("1E+1")),
    )
    variant = Said(when={"processing": "batch"}, constraint=None, prices=Said(input_mtok=Decimal("0.75")))
    either = clause(or_=[clause(equals="m-1-also"), clause(starts_with="one/m-1"), clause(regex="^x.*")])
    facts = {"context_window": None, "deprecated": None, "price_variants": None}
    one = Said(
        id="one",
        models=[
            Said(**{**facts, "id": "m-1", "match": either, "prices": plain, "context_window": 1000,
                    "price_variants": [variant]}),
            Said(**{**facts, "id": "title", "match": clause(equals="wire-name"), "deprecated": True,
                    "prices": [Said(constraint=None, prices=plain), later, night]}),
            Said(**{**facts, "id": "free", "match": clause(starts_with="free-"), "prices": Said()}),
            Said(**{**facts, "id": "Flash", "prices": plain, "match": clause(or_=[clause(equals="flash-latest"), clause(
                and_=[clause(starts_with="flash"), clause(regex="^(?!.*-tts)"), clause(contains="as")])])}),
        ],
    )  # fmt: skip
    return [one, Said(id="nobody", models=one.models)]


def made():
    return {row["id"]: row for row in BUILD.source_rows(source(), ["one"])}


def test_the_script_writes_prices_as_decimal_text_the_most_particular_case_first():
    assert made()["m-1-also"]["prices"] == [
        {"when": {"processing": "batch"}, "input": "0.75"},
        {"above": 200_000, "input": "1.5", "output": "3"},
        {"input": "1.5", "output": "2"},
    ]
    assert made()["wire-name"]["prices"][:2] == [
        {"hours": ["01:00", "04:00"], "input": "0", "other": {"web_searches_kcount": "10"}},
        {"since": "2026-12-01", "input": "9"},
    ]


def test_the_script_takes_names_that_go_on_the_wire_and_leaves_out_what_nobody_tells():
    rows = made()
    assert set(rows) == {"m-1-also", "wire-name", "free", "Flash"}
    assert rows["Flash"]["aliases"] == ["flash-latest"]
    assert rows["free"] == {"id": "free", "provider": "one", "aliases": []}, "no price is no price, not 0"
    assert rows["wire-name"]["deprecated"] is True


def test_the_script_lets_facts_kept_by_hand_go_first_and_names_nothing_twice():
    extra = [{"id": "m-1", "provider": "one", "aliases": ["m-1-also"], "context": 5, "capabilities": ["tools"]}]
    rows = BUILD.merged(BUILD.source_rows(source(), ["one"]), extra)
    (row,) = (row for row in rows if row["id"] == "m-1")
    assert (row["context"], row["bare"], row["aliases"]) == (5, True, ["m-1-also"])
    assert row["prices"][-1] == {"input": "1.5", "output": "2"}
    assert [row["id"] for row in rows] == ["Flash", "free", "m-1", "wire-name"]
    with pytest.raises(SystemExit, match="unknown facts"):
        BUILD.merged([], [{"id": "m", "provider": "one", "contxt": 5}])


def test_what_the_script_writes_is_read_back_as_models():
    lines = json.loads(BUILD.text_of({"_date": "2026-11-21"}, BUILD.merged(BUILD.source_rows(source(), ["one"]), [])))
    assert lines[0] == {"_date": "2026-11-21"}
    models = [catalog.msgspec.convert(line, Model) for line in lines[1:]]
    assert models[0].price(NOON, 300_000).output == 3


def test_the_file_is_what_the_script_writes_of_its_rows_and_the_facts_kept_by_hand():
    text = (DATA / "models.json").read_text("utf-8")
    note, *rows = json.loads(text)
    known = catalog.load().providers
    extra = [row for row in BUILD.extra_rows() if row["provider"] in known]
    assert len(extra) > 50
    assert BUILD.text_of(note, BUILD.merged(rows, extra)) == text, "run scripts/build_models.py"
    assert len(text) < 700_000


def test_the_source_of_the_prices_is_named_with_its_licence():
    notice = tomllib.loads((DATA / "notice.toml").read_text("utf-8"))["genai-prices"]
    assert notice["licence"] == "MIT" and "Permission is hereby granted" in notice["text"]


@given(st.builds(Price, input=st.none() | st.decimals(0, 100), above=st.integers(0, 10**6),
                 since=st.none() | st.dates().map(date.isoformat)), st.datetimes(), st.integers(0, 10**7))  # fmt: skip
def test_a_price_that_does_not_hold_is_never_told(price, at, tokens):
    told = model_of(price).price(at, tokens)
    if price.above and tokens <= price.above:
        assert told is None
    if told is not None:
        assert told.input == price.input and (price.since or "") <= at.date().isoformat()
