"""Calls as Prometheus metrics: the exposition parses, and says what the simulated provider counted."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from polyvox import Client
from polyvox.errors import (
    AuthError,
    CallCancelledError,
    InputError,
    NotFoundError,
    PolyvoxError,
    StreamInterruptedError,
)
from polyvox.telemetry import Prometheus
from polyvox.telemetry.prometheus import METRICS, MOST_WATCHED, WATCHED
from polyvox.testing import Simulator
from polyvox.types import Attempt, Cost, Usage
from tests.telemetry.helping import KEY, Info, answered, asked, settings


def figures(metrics):
    """Every sample by its name and labels."""
    families = text_string_to_metric_families(metrics.text())
    return {
        (sample.name.removeprefix("polyvox_"), *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def total(found, name, **labels):
    """The sum of the samples of a name that have these labels."""
    return sum(
        value for (known, *at), value in found.items() if known == name and set(labels.items()) <= set(map(tuple, at))
    )


def told(metrics, begin, **end):
    from msgspec.structs import replace

    metrics.on_call(begin)
    metrics.on_done(replace(begin, **end))


class Seen:
    """Keeps what was estimated."""

    def __init__(self):
        self.estimates = []

    def on_done(self, info):
        if info.usage is not None and info.usage.source == "estimated":
            self.estimates.append(info.usage)


def test_the_exposition_is_what_the_provider_counted():
    plan = [
        {"kind": "status", "status": 503, "at": 2},
        {"kind": "status", "status": 429, "headers": {"retry-after": "0"}, "at": 4},
        {"kind": "status", "status": 400, "at": 6},
        {"kind": "cut", "after": 600, "at": 8},
    ]
    metrics = Prometheus()
    with Simulator(plan=plan) as simulator:
        where = simulator.base_url("openai.chat")
        seen = Seen()
        with Client("m-1", base_url=where, api_key=KEY, hooks=[metrics, seen], settings=settings()) as client:
            for number in range(6):
                try:
                    _ = client.stream("hello").finish() if number > 3 else client.ask("hello")
                except PolyvoxError:
                    pass
        counts, found = simulator.counts, figures(metrics)
    assert counts.requests == 8 and counts.errors == {503: 1, 429: 1, 400: 1}
    assert total(found, "requests_total") == 6
    assert total(found, "requests_total", status="ok") == counts.answers == 4
    assert total(found, "requests_total", status="error", kind="invalid_request") == 1
    assert total(found, "upstream_duration_seconds_count") == counts.requests
    assert total(found, "retries_total") == 2
    assert total(found, "rate_limited_total", by="provider") == 1
    (cut,) = seen.estimates  # of the stream that broke off, which the provider did not count
    assert total(found, "tokens_total", type="input") == counts.tokens_in + cut.input
    assert total(found, "tokens_total", type="output") == counts.tokens_out + cut.output
    assert total(found, "stream_interrupted_total") == 1
    assert total(found, "in_flight") == 0
    assert total(found, "fallbacks_total") == 0
    assert KEY not in metrics.text()


def test_metrics_have_the_names_they_are_known_by():
    metrics = Prometheus()
    metrics.watch("ledger_backlog", lambda: 0)
    families = {family.name for family in text_string_to_metric_families(metrics.text())}
    ours = {f"polyvox_{name}" for name in (*METRICS, "build_info", "ledger_backlog")}
    assert {name for name in families if not name.endswith("_created")} == ours
    assert {"ledger_backlog", "budget_remaining_usd", "breaker_state", "config_reload_success"} <= set(WATCHED)
    known = {
        "requests", "request_duration_seconds", "time_to_first_token_seconds", "upstream_duration_seconds",
        "overhead_seconds", "tokens", "cost_usd", "cost_unknown", "retries", "fallbacks", "in_flight", "rate_limited",
        "stream_interrupted", "cache_hits", "cache_misses",
    }  # fmt: skip
    assert known <= set(METRICS)


def test_times_and_tokens_of_one_call_are_where_they_belong():
    metrics = Prometheus()
    answer = answered(
        usage=Usage(100, 50, 40, None, reasoning=20, source="provider"),
        cost=Cost(Decimal("0.0125"), source="catalog"),
        attempts=(Attempt("a/x", 1.0, "server"), Attempt("b/y", 2.0, waited=0.5)),
    )
    told(metrics, Info(asked(), "b/y", call="c"), response=answer, seconds=3.75, first_token=0.75)
    found = figures(metrics)
    who = {"provider": "b", "model": "y"}
    assert total(found, "request_duration_seconds_sum", **who) == 3.75
    assert total(found, "time_to_first_token_seconds_sum", **who) == 0.75
    assert total(found, "upstream_duration_seconds_sum", provider="a", status="error") == 1.0
    assert total(found, "overhead_seconds_sum") == pytest.approx(0.25)
    assert {kind: total(found, "tokens_total", type=kind) for kind in ("input", "cache_read", "reasoning")} == {
        "input": 100, "cache_read": 40, "reasoning": 20,
    }  # fmt: skip
    assert not [key for key in found if ("type", "cache_write") in key]
    assert total(found, "cost_usd_total", **who) == 0.0125 and total(found, "cost_unknown_total") == 0
    assert total(found, "fallbacks_total", **who) == 1


@pytest.mark.parametrize("amount", [None, Decimal("NaN"), Decimal("Infinity"), Decimal(-1)])
def test_what_is_not_known_is_counted_as_such_and_never_as_zero(amount):
    metrics = Prometheus()
    told(metrics, Info(asked()), response=answered(cost=Cost(amount)))
    found = figures(metrics)
    assert total(found, "cost_unknown_total") == total(found, "usage_unknown_total") == 1
    assert not [key for key in found if key[0] in ("cost_usd_total", "tokens_total", "time_to_first_token_seconds_sum")]


def test_tokens_of_a_stream_that_broke_off_are_counted_too():
    metrics = Prometheus()
    cut = StreamInterruptedError("cut", partial=answered("h", None, usage=Usage(9, source="provider")))
    told(metrics, Info(asked()), error=cut)
    found = figures(metrics)
    assert total(found, "tokens_total", type="input") == 9
    assert total(found, "requests_total", status="error", kind="stream_interrupted") == 1


def test_an_answer_from_our_own_cache_costs_nothing_and_is_a_hit():
    metrics = Prometheus()
    answer = answered(usage=Usage(9, 9, source="provider"), cost=Cost(Decimal(1), source="catalog"))
    told(metrics, Info(asked(), own_cache=False), response=answer)
    told(metrics, Info(asked(), own_cache=True), response=answer)
    found = figures(metrics)
    assert (total(found, "cache_hits_total"), total(found, "cache_misses_total")) == (1, 1)
    assert total(found, "tokens_total", type="input") == 18
    assert total(found, "cost_usd_total") == total(found, "cache_saved_usd_total") == 1


def test_a_provider_whose_key_is_wrong_has_its_name():
    metrics = Prometheus()
    told(metrics, Info(asked()), error=AuthError("wrong key"))
    assert total(figures(metrics), "requests_total", provider="acme", model="m-1", kind="auth") == 1


def test_a_call_that_was_left_is_cancelled_and_no_error():
    metrics = Prometheus()
    told(metrics, Info(asked()), error=CallCancelledError("left"))
    assert total(figures(metrics), "requests_total", status="cancelled", kind="cancelled") == 1


def test_what_an_engine_says_a_failed_call_used_and_cost_is_counted():
    metrics = Prometheus()
    spent = {"usage": Usage(4, 2, source="provider"), "cost": Cost(Decimal("0.5"), source="catalog")}
    told(metrics, Info(asked()), error=CallCancelledError("left"), **spent)
    found = figures(metrics)
    assert total(found, "tokens_total", type="output") == 2 and total(found, "cost_usd_total") == 0.5


def test_a_hundred_thousand_invented_models_make_no_label():
    metrics = Prometheus(models=["always"])
    for number in range(100_000):
        metrics.on_call(begin := Info(asked_once, f"acme/model-{number}"))
        metrics.on_done(Info(asked_once, begin.deployment, error=unknown))
    told(metrics, Info(asked(), "acme/real"), response=answered())
    told(metrics, Info(asked(), "acme/always"), error=unknown)
    models = {dict(at)["model"] for (name, *at) in figures(metrics) if name == "requests_total"}
    assert models == {"other", "real", "always"}


asked_once = asked()
unknown = NotFoundError("no such model")


def test_models_beyond_the_cap_are_other():
    metrics = Prometheus(most_models=5)
    for number in range(50):
        told(metrics, Info(asked(), f"acme-{number}/model-{number}"), response=answered())
    found = figures(metrics)
    for label in ("model", "provider"):
        assert len({dict(at)[label] for (name, *at) in found if name == "requests_total"}) == 6
    assert total(found, "requests_total", model="other") == 45


def test_a_key_given_as_a_model_is_no_label():
    metrics = Prometheus()
    for _ in range(2):
        told(metrics, Info(asked(), f"acme/{KEY}"), response=answered())
    assert KEY not in metrics.text() and total(figures(metrics), "requests_total", model="***") == 2


def test_labels_hold_no_words_of_a_user():
    metrics = Prometheus()
    request = asked("a wish", user="somebody", metadata={"tag": "team"}, cache_key="mine")
    told(metrics, Info(request, session="my session"), response=answered("granted"))
    for word in ("wish", "somebody", "team", "mine", "session", "granted"):
        assert word not in metrics.text()


def test_calls_under_way_are_in_flight():
    metrics = Prometheus()
    begin = Info(asked())
    metrics.on_call(begin)
    assert total(figures(metrics), "in_flight") == 1
    metrics.on_done(Info(begin.request, response=answered()))
    assert total(figures(metrics), "in_flight") == 0


def test_what_is_watched_is_read_when_asked_for_and_left_out_where_nobody_knows(caplog):
    metrics, known = Prometheus(), {"now": 7}
    metrics.watch("ledger_backlog", lambda: known["now"])
    metrics.watch("budget_remaining_usd", lambda: {"team": Decimal("1.5"), "free": None})
    metrics.watch("config_reload_success", lambda: None)
    metrics.watch("breaker_state", lambda: {"a": "broken"})
    found = figures(metrics)
    assert found["ledger_backlog",] == 7
    assert found["budget_remaining_usd", ("budget", "team")] == 1.5
    assert not [
        key for key in found if key[0] in ("config_reload_success", "breaker_state") or ("budget", "free") in key
    ]
    known["now"] = 8
    assert figures(metrics)["ledger_backlog",] == 8
    assert len(caplog.records) == 1 and "breaker_state" in caplog.text


def test_a_gauge_that_is_watched_has_so_many_labels_and_no_key_among_them():
    metrics = Prometheus()
    metrics.watch("budget_remaining_usd", lambda: {KEY: 1.0, "x" * 500: 2.0} | {f"user {n}": n for n in range(10_000)})
    labels = [dict(at)["budget"] for (name, *at) in figures(metrics) if name == "budget_remaining_usd"]
    assert len(labels) == MOST_WATCHED and max(map(len, labels)) == 200 and KEY not in metrics.text()


def test_nothing_else_is_watched():
    with pytest.raises(InputError, match="no_such") as refused:
        Prometheus().watch("no_such", lambda: 1)
    assert "ledger_backlog" in refused.value.hint


def test_it_counts_on_the_registry_that_is_given():
    registry = CollectorRegistry()
    metrics = Prometheus(registry)
    told(metrics, Info(asked()), response=answered())
    labels = {"provider": "acme", "model": "m-1", "route": "chat", "status": "ok", "kind": ""}
    assert metrics.registry is registry and registry.get_sample_value("polyvox_requests_total", labels) == 1
    assert repr(metrics) == "<Prometheus, 0 calls under way>"


def test_a_registry_takes_one_of_these():
    registry = CollectorRegistry()
    _ = Prometheus(registry)
    with pytest.raises(ValueError, match="polyvox_requests"):
        Prometheus(registry)


@trying(deadline=None)
@given(st.lists(st.floats(allow_nan=True) | st.sampled_from(METRICS["request_duration_seconds"][3])))
def test_times_are_in_the_buckets_in_which_the_library_itself_would_put_them(times):
    metrics, plain = Prometheus(), CollectorRegistry()
    theirs = Histogram("plain", "Plain", buckets=METRICS["request_duration_seconds"][3], registry=plain)
    for seconds in times:
        told(metrics, Info(asked()), response=answered(), seconds=seconds)
        if 0 <= seconds < math.inf:
            theirs.observe(seconds)
    known = {"provider": "acme", "model": "m-1", "route": "chat"}
    ours = {
        (sample.name.removeprefix("polyvox_request_duration_seconds"), sample.labels.get("le")): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name.startswith("polyvox_request_duration_seconds") and known.items() <= sample.labels.items()
    }
    wanted = {
        (sample.name.removeprefix("plain"), sample.labels.get("le")): sample.value
        for family in plain.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert ours == (wanted if times else {})


def test_the_figures_are_there_as_json_too():
    metrics = Prometheus()
    told(metrics, Info(asked()), response=answered(usage=Usage(7, 3, source="provider")), seconds=0.3)
    metrics.watch("ledger_backlog", lambda: float("nan"))
    said = json.loads(json.dumps(metrics.samples(), allow_nan=False))
    found = {(one["name"].removeprefix("polyvox_"), *sorted(one["labels"].items())): one["value"] for one in said}
    assert found.pop(("ledger_backlog",)) is None
    plain = figures(metrics)
    plain.pop(("ledger_backlog",))
    assert found == plain and total(found, "tokens_total", type="input") == 7


def test_no_call_is_lost_among_threads():
    metrics = Prometheus()
    answer = answered(usage=Usage(2, 1, source="provider"))

    def calls(number):
        for at in range(200):
            told(metrics, Info(asked(), call=f"{number}-{at}"), response=answer)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(calls, range(8)))
    found = figures(metrics)
    assert total(found, "requests_total") == 1600 and total(found, "tokens_total", type="input") == 3200
    assert total(found, "in_flight") == 0
