"""Promises of tiers, registry, fallback and balance that no single room shows: on public names, against providers that
count what they are asked."""

import collections
import logging
import socket
from datetime import date

import pytest

from polyvox import Client, Image, catalog, register_backend
from polyvox.config import Settings
from polyvox.errors import InputError, PolyvoxError, RateLimitError, ServerError
from polyvox.keys import Secret
from polyvox.pools import Routing
from polyvox.registry import TIERS, DictRegistry, Entry, known_of
from polyvox.routing.pick import STRATEGIES
from polyvox.routing.tiers import describe
from polyvox.testing import Simulator
from polyvox.testing.fault_server import refused_port

KEYS = {row.key_env[0]: "word-for-the-test" for row in catalog.load().providers.values() if row.key_env}
HARD = "Prove by induction, step-by-step, that this class compiles: def f(): return 1 == 2"


@pytest.fixture
def simulator():
    with Simulator(demand_key=False) as running:
        yield running


def at(simulator, name, **facts):
    """An entry at a simulated provider, with a model of its own name."""
    return Entry(name, name, base_url=simulator.base_url("openai.chat"), **facts)


# ---- tiers ------------------------------------------------------------------------------------


def test_each_of_the_four_tiers_leads_to_its_deployment_and_says_what_it_is_for(simulator):
    registry = [at(simulator, f"{tier}-1", tier=tier.upper()) for tier in TIERS]
    with Client(registry=registry, settings=Settings()) as client:
        assert [client.ask("hello", tier=tier).deployment for tier in TIERS] == [f"{tier}-1" for tier in TIERS]
    assert tuple(TIERS) == ("economy", "standard", "premium", "local")
    assert all(len(words.split()) >= 3 for tier in TIERS for words in (describe(tier), TIERS[tier]))
    assert len({describe(tier) for tier in TIERS}) == 4


def test_the_models_of_tiers_are_rows_of_the_one_catalogue():
    entries = DictRegistry.from_env(KEYS).list_active()
    rows = {model.name: model for model in catalog.load().models}
    hosted = [entry for entry in entries if entry.tier != "local"]
    assert {entry.tier for entry in hosted} == {"economy", "standard", "premium"}
    known = [entry for entry in hosted if known_of(entry, Settings()) is not None]
    assert all(known_of(entry, Settings()) is rows[known_of(entry, Settings()).name] for entry in known)
    assert {entry.name for entry in known} >= {"openai-premium", "anthropic-standard"}


@pytest.mark.parametrize(
    ("model", "last"),
    [
        ("gpt-3.5-turbo", date(2026, 10, 23)), ("gpt-4", date(2026, 10, 23)),
        ("gpt-4o", date(2027, 1, 14)), ("gpt-4o-mini", date(2027, 1, 14)),
        ("claude-3-5-sonnet-latest", date(2025, 10, 28)), ("claude-3-opus-20240229", date(2026, 1, 5)),
    ],
)  # fmt: skip
def test_a_documented_model_works_to_its_last_day_and_then_a_warning_names_who_comes_after_it(model, last):
    target = catalog.load().resolve(model, {}, lambda _: True)
    info = target.info
    assert info.standing(last) in ("alive", "deprecated")
    after = date.fromordinal(last.toordinal() + 1)
    assert info.standing(after) == "retired"
    successor = f"{target.provider.name}/{info.successor}"
    assert str(last) in info.notice(after) and successor in info.notice(after)
    assert catalog.load().resolve(successor, {}, lambda _: True).info is not None


def test_a_retired_model_is_asked_as_its_successor_where_that_is_wanted():
    with Client("gpt-3.5-turbo", settings=Settings()) as client:
        plain, upgraded = client.explain("hi"), client.explain("hi", upgrade=True)
    assert b'"gpt-3.5-turbo"' in plain.body and b'"gpt-3.5-turbo"' not in upgraded.body
    assert any("successor" in loss.why for loss in upgraded.losses)


def test_a_local_call_opens_no_socket_to_elsewhere_even_when_the_local_server_is_down(simulator, monkeypatch):
    reached = []
    connect = socket.socket.connect

    def watched(self, address):
        reached.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    registry = [
        Entry("here", "small", base_url=f"http://127.0.0.1:{refused_port()}/v1", tier="local"),
        Entry("hosted", "openai/gpt-5.4-mini", tier="economy", api_key=Secret("sk-not-a-real-key")),
    ]
    with Client(tier="local", registry=registry, settings=Settings(), retries=0) as client:
        for ask in (client.ask, lambda prompt: client.stream(prompt).finish()):
            with pytest.raises(PolyvoxError) as caught:
                ask("hello")
            assert [attempt.deployment for attempt in caught.value.attempts] == ["here"]
    hosts = {address[0] for address in reached if isinstance(address, tuple)}
    assert hosts == {"127.0.0.1"}


# ---- the request chooses ----------------------------------------------------------------------


def test_what_a_request_says_chooses_the_model_with_reasons_in_record_and_log_and_a_name_switches_it_off(
    simulator, caplog
):
    registry = [at(simulator, "small", tier="economy"), at(simulator, "large", tier="premium")]
    caplog.set_level(logging.DEBUG, "polyvox.pools")
    with Client(tier="auto", registry=registry, settings=Settings()) as client:
        easy, hard = client.ask("hello"), client.ask(HARD)
        named = client.ask(HARD, model="small")
    assert [answer.model for answer in (easy, hard, named)] == ["small", "large", "small"]
    assert easy.decision.reasons == () != hard.decision.reasons
    assert hard.decision.reasons[0] in caplog.text
    assert (named.decision.tier, named.decision.reasons) == (None, ())


def test_the_router_gives_deployment_model_and_reason_without_asking(simulator):
    registry = [
        Entry("blind", "deepseek/deepseek-v4-pro", tier="economy", api_key=Secret("sk-not-a-real-key")),
        at(simulator, "eyes", tier="economy", priority=1),
    ]
    with Client(tier="economy", registry=registry, settings=Settings()) as client:
        found = client.route(["what is this?", Image(data=b"...", media_type="image/png")])
        assert client.standing()[1]["model"] == "eyes"
    assert found.asked == ("eyes",) and found.skipped == {"blind": "takes no images"}
    assert simulator.counts.requests == 0


# ---- fallback ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_on_failures_that_may_mend_each_is_asked_in_order_and_all_attempts_are_told(stream):
    plan = [{"kind": "status", "status": status, "at": [at]} for at, status in ((1, 503), (2, 500))]
    with Simulator(plan=plan, demand_key=False) as simulator:
        registry = [at(simulator, name, priority=place) for place, name in enumerate(["first", "second", "third"])]
        with Client("*", registry=registry, settings=Settings(), retries=0) as client:
            answer = client.stream("hello").finish() if stream else client.ask("hello")
        assert [asked.model for asked in simulator.requests] == ["first", "second", "third"]
    told = [(attempt.deployment, attempt.outcome, attempt.status) for attempt in answer.attempts]
    assert told == [("first", "server", 503), ("second", "server", 500), ("third", "ok", None)]
    assert answer.decision.steps == ("after server at first: elsewhere", "after server at second: elsewhere")


def test_a_wrong_request_is_asked_of_nobody_else():
    plan = [{"kind": "status", "status": 400, "at": [1]}]
    with Simulator(plan=plan, demand_key=False) as simulator:
        registry = [at(simulator, "first"), at(simulator, "second", priority=1)]
        with Client("*", registry=registry, settings=Settings()) as client, pytest.raises(PolyvoxError):
            client.ask("hello")
        assert simulator.counts.requests == 1


@pytest.fixture
def backends(monkeypatch):
    """Two objects of the user's that answer, one of them ill."""
    monkeypatch.setattr("polyvox.backends.registered", {})
    asked = []

    @register_backend
    class Ill:
        name = "ill"

        def ask(self, prompt):
            asked.append(self.name)
            raise ServerError("it is ill", sent="yes")

    @register_backend
    class Well:
        name = "well"

        def ask(self, prompt):
            asked.append(self.name)
            return f"well: {prompt}"

    return asked


def test_where_the_first_backend_fails_the_second_answers_the_same_ask(backends):
    with Client(["ill", "well"], settings=Settings(), retries=0) as client:
        assert client.ask("hello").text == "well: hello"
    assert backends == ["ill", "well"]


# ---- balance ----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies_are_exchanged_by_name(simulator, strategy):
    registry = [at(simulator, "a"), at(simulator, "b")]
    for choice in (strategy, {"strategy": strategy}, Routing(strategy=strategy)):
        with Client("*", registry=registry, routing=choice, settings=Settings()) as client:
            assert client.ask("hello").decision.strategy == strategy


def test_a_strategy_that_is_none_is_refused_with_those_there_are(simulator):
    with pytest.raises(InputError) as caught:
        Client("*", registry=[at(simulator, "a")], routing="best", settings=Settings())
    assert all(name in caught.value.hint for name in STRATEGIES)


def test_weights_share_calls_out_over_endpoints(simulator):
    registry = [at(simulator, "heavy", weight=3), at(simulator, "light"), at(simulator, "none", priority=1)]
    with Client("*", registry=registry, settings=Settings()) as client:
        first = collections.Counter(client.route("hello").asked[0] for _ in range(400))
    # Six standard deviations: 300 of 400, 8.7 each.
    assert set(first) == {"heavy", "light"} and abs(first["heavy"] - 300) < 53


def test_calls_at_the_same_time_go_to_who_is_least_busy():
    with Simulator(demand_key=False, latency=0.3) as simulator:
        registry = [at(simulator, name) for name in "abcd"]
        with Client("*", registry=registry, routing="least_busy", settings=Settings()) as client:
            answers = client.ask_batch(["hello"] * 4, concurrency=4)
    assert sorted(answer.deployment for answer in answers) == ["a", "b", "c", "d"]


# ---- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"requests_per_minute": 7}, {"tokens_per_minute": 700}])
def test_fifty_calls_at_once_keep_to_requests_and_tokens_a_minute(simulator, limit):
    registry = {
        "held": {"model": "m", "base_url": simulator.base_url("openai.chat"), "limits": limit, "max_tokens": 90},
    }
    with Client("held", registry=registry, settings=Settings(), retries=0) as client:
        answers = client.ask_batch(["hello"] * 50, concurrency=50, timeout=30, max_tokens=90)
    served = [answer for answer in answers if not isinstance(answer, PolyvoxError)]
    refused = [answer for answer in answers if isinstance(answer, PolyvoxError)]
    assert len(served) == simulator.counts.requests
    assert {type(error) for error in refused} == {RateLimitError}
    assert all(error.sent == "no" and error.retry_after > 0 for error in refused)
    if "requests_per_minute" in limit:
        assert len(served) == 7
    else:
        assert 0 < sum(answer.usage.total for answer in served) <= 700


def test_a_head_that_says_that_nothing_is_left_is_believed(simulator):
    with Simulator(demand_key=False, rpm=1) as strict:
        registry = [at(strict, "strict"), at(simulator, "spare", priority=1)]
        with Client("*", registry=registry, settings=Settings(), retries=0) as client:
            answers = [client.ask("hello").deployment for _ in range(3)]
        assert answers == ["strict", "spare", "spare"]
        assert strict.counts.requests == 1
