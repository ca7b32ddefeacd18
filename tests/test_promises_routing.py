"""Promises of tiers, registry, fallback and balance that no single room shows: on public names, against providers that
count what they are asked."""

import collections
import contextlib
import json
import logging
import socket
from datetime import date
from decimal import Decimal

import pytest

from polyvox import Client, Image, Message, Text, catalog, register_backend
from polyvox.config import Settings
from polyvox.errors import InputError, InvalidRequestError, NotFoundError, PolyvoxError, RateLimitError, ServerError
from polyvox.keys import Secret
from polyvox.ledger import Ledger
from polyvox.pools import Routing
from polyvox.registry import TIERS, DictRegistry, Entry, known_of
from polyvox.routing import RetryRule
from polyvox.routing.pick import STRATEGIES
from polyvox.routing.tiers import describe
from polyvox.testing import Simulator
from polyvox.testing.fault_server import refused_port
from polyvox.types import Request

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
        ("claude-3-haiku", date(2026, 4, 20)), ("claude-3-haiku-20240307", date(2026, 4, 20)),
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


def test_two_arms_get_their_shares_each_user_stays_in_one_and_the_ledger_has_what_came_of_each(tmp_path):
    plan = [{"kind": "status", "status": 400, "at": [5]}]
    with Simulator(demand_key=False) as one, Simulator(plan=plan, demand_key=False) as other:
        registry = [at(one, "control", weight=3), at(other, "variant")]

        def client(**facts):
            return Client("*", registry=registry, settings=Settings(), retries=0, **facts)

        users = [f"user-{number}" for number in range(400)]
        with client(routing="weighted") as first, client(routing="weighted") as second:
            arms = {user: first.route("hello", cache_key=user).asked[0] for user in users}
            # Sticky: whatever is asked, whenever, in whichever process.
            assert all(second.route(f"again, {user}", cache_key=user).asked[0] == arm for user, arm in arms.items())
        share = collections.Counter(arms.values())
        # Six standard deviations: 300 of 400, 8.7 each.
        assert set(share) == {"control", "variant"} and abs(share["control"] - 300) < 53
        with Ledger(tmp_path / "ledger.db") as ledger, client(ledger=ledger) as asking:
            for user in users[:40]:
                with contextlib.suppress(InvalidRequestError):
                    asking.ask("hello", cache_key=user)
        with Ledger(tmp_path / "ledger.db") as ledger:
            rows = {row.key["deployment"]: row for row in ledger.history.usage("deployment")}
        asked = collections.Counter(arms[user] for user in users[:40])
        assert asked["variant"] >= 5
        assert {arm: (row.calls, row.errors) for arm, row in rows.items()} == {
            "control": (asked["control"], 0), "variant": (asked["variant"], 1),
        }  # fmt: skip


# ---- retries ----------------------------------------------------------------------------------


class Patience:
    """The loop's clock, which waits for nobody: what was waited for, in seconds."""

    def __init__(self, client):
        self.waits = []
        engine = client._async._engine
        engine.sleep, engine.chance = self.sleep, lambda: 0.5

    async def sleep(self, seconds):
        self.waits.append(round(seconds, 6))


@pytest.mark.parametrize(
    ("rule", "waits"),
    [
        (0, []),
        (2, [0.25, 0.5]),
        (RetryRule(retries=1), [0.25]),
        (RetryRule(retries=4, base=0.1), [0.05, 0.1, 0.2, 0.4]),
        (RetryRule(retries=4, base=0.1, jitter=0), [0.1, 0.2, 0.4, 0.8]),
        (RetryRule(retries=4, base=0.1, jitter=0.5), [0.075, 0.15, 0.3, 0.6]),
        (RetryRule(retries=4, base=0.1, jitter=0, cap=0.3), [0.1, 0.2, 0.3, 0.3]),
        (RetryRule(retries=4, base=0.1, jitter=0, budget=30), [0.1, 0.2]),
        (RetryRule(retries=4, budget=0), []),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_attempts_backoff_jitter_and_budget_are_what_the_client_says(rule, waits, named):
    with Simulator(plan=[{"kind": "status", "status": 503}], demand_key=False) as simulator:
        there = {"base_url": simulator.base_url("openai.chat")}
        among = {"registry": {"one": {"model": "m", **there}}} if named else there
        with Client("one" if named else "m", settings=Settings(), retries=rule, **among) as client:
            patience = Patience(client)
            with pytest.raises(ServerError):
                client.ask("hello")
            assert patience.waits == waits and simulator.counts.requests == len(waits) + 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": -1}, {"retries": 1.5}, {"retries": True}, {"budget": -1}, {"base": -1}, {"base": float("nan")},
        {"cap": "20"}, {"jitter": 1.5}, {"jitter": -0.1}, {"longest_wish": float("inf")},
    ],
)  # fmt: skip
def test_a_rule_of_retries_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        RetryRule(**wrong)


@pytest.mark.parametrize("wrong", [-1, "2", 1.5, True, {"retries": 2}])
def test_retries_are_a_number_or_a_rule(wrong):
    with pytest.raises(InputError, match="retries"):
        Client("demo", retries=wrong)


# ---- what an entry says, and what is configured for all ----------------------------------------


def limits_in(body):
    """The limit and the temperature of a request as it went out."""
    return body.get("max_completion_tokens"), body.get("temperature")


ENTRY = {"model": "m", "max_tokens": 50, "temperature": 0.25}
DEFAULTS = {"max_tokens": 900, "temperature": 0.75}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("entry", "client_says", "call_says", "sent"),
    [
        (ENTRY, {}, {}, (50, 0.25)),
        (ENTRY, {"max_tokens": 60}, {}, (60, 0.25)),
        (ENTRY, {"max_tokens": 60}, {"max_tokens": 70, "temperature": 1}, (70, 1)),
        ({"model": "m", "temperature": 0.5}, {}, {}, (900, 0.5)),
        ({"model": "m"}, {}, {}, (900, 0.75)),
    ],
)
def test_the_call_counts_before_the_client_the_client_before_the_entry_and_the_entry_before_the_configuration(
    simulator, entry, client_says, call_says, sent, stream
):
    registry = {"one": {"base_url": simulator.base_url("openai.chat"), **entry}}
    with Client("one", registry=registry, settings=Settings(**DEFAULTS), **client_says) as client:
        client.stream("hello", **call_says).finish() if stream else client.ask("hello", **call_says)
        told = json.loads(client.explain("hello", **call_says).body)
    (request,) = simulator.requests
    assert limits_in(request.json) == limits_in(told) == sent


def test_each_of_several_is_asked_with_its_own_and_a_whole_request_with_nothing_of_the_configuration(simulator):
    plan = [{"kind": "status", "status": 503, "at": [1]}]
    with Simulator(plan=plan, demand_key=False) as simulator:
        there = {"base_url": simulator.base_url("openai.chat")}
        registry = {"first": {**there, **ENTRY}, "second": {**there, "model": "n", "priority": 1}}
        with Client("*", registry=registry, settings=Settings(**DEFAULTS), retries=0) as client:
            client.ask("hello")
            client.ask(Request("", (Message("user", (Text("hello"),)),)), model="second")
        bodies = [limits_in(request.json) for request in simulator.requests]
    assert bodies == [(50, 0.25), (900, 0.75), (None, None)]


@pytest.mark.parametrize("where", ["entry", "configuration"])
def test_a_limit_that_is_too_large_to_wait_for_in_one_piece_is_streamed_wherever_it_is_said(simulator, where):
    there = {"model": "m", "base_url": simulator.base_url("anthropic.messages"), "dialect": "anthropic.messages"}
    registry = {"one": {**there, **({"max_tokens": 64_000} if where == "entry" else {})}}
    configured = Settings(max_tokens=64_000 if where == "configuration" else 10)
    with Client("one", registry=registry, settings=configured) as client:
        assert client.ask("hello").text
    (request,) = simulator.requests
    assert (request.json["max_tokens"], request.json.get("stream")) == (64_000, True)


def test_a_kept_answer_is_given_again_only_where_the_same_would_be_asked(simulator):
    registry = {"one": {"base_url": simulator.base_url("openai.chat"), **ENTRY}}
    with Client("one", registry=registry, settings=Settings(**DEFAULTS), cache=True) as client:
        for said in ({}, {"max_tokens": 900}, {}, {"max_tokens": 900}):
            client.ask("hello", **said)
    assert [limits_in(request.json) for request in simulator.requests] == [(50, 0.25), (900, 0.25)]


def test_a_deployment_whose_key_is_missing_is_explained_with_its_own_too(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    registry = {"one": {"model": "openai/gpt-5.4-mini", "max_tokens": 50}}
    with Client("one", registry=registry, settings=Settings(max_tokens=900)) as client:
        assert b"900" not in client.explain("hello").body and b"50" in client.explain("hello").body


# ---- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"model": "smal"}, "small"), ({"model": "larg"}, "large"), ({"model": ["smal", "lage"]}, "small"),
        ({"tier": "premum"}, "premium"), ({"model": "quik"}, "quick"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["ask", "stream", "explain"])
def test_a_misspelt_name_of_a_deployment_is_answered_with_the_one_that_may_be_meant(said, meant, how, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{refused_port()}")
    registry = {"small": {"model": "demo", "aliases": ["quick"]}, "large": {"model": "demo/x", "tier": "premium"}}
    with Client(registry=registry, settings=Settings()) as client, pytest.raises(PolyvoxError) as caught:
        asked = getattr(client, how)("hello", **said)
        asked.finish()
    assert caught.value.hint.startswith(f"did you mean {meant!r}?")
    assert caught.value.hint.count("did you mean") == 1


def test_a_registry_that_is_changed_under_a_misspelt_name_says_which_may_be_meant():
    with pytest.raises(InputError) as caught:
        DictRegistry({"small": {"model": "demo"}}).update("smal", weight=2)
    assert caught.value.hint == "did you mean 'small'? there are: small"


def test_an_alias_in_a_list_of_models_is_told_as_what_it_stands_for(simulator):
    settings = Settings(aliases={"cheap": "demo/none", "house": "small"})
    registry = {"small": {"model": "m", "base_url": simulator.base_url("openai.chat")}}
    with Client(["@house", "@cheap", "cheap"], registry=registry, settings=settings) as client:
        answer = client.ask("hello")
    assert (answer.deployment, answer.decision.asked) == ("small", ("small",))
    assert answer.decision.names == ("small", "demo/none") and answer.decision.named == "@house, @cheap, cheap"


def test_an_alias_in_a_list_that_stands_for_nothing_is_one_clear_error():
    with (
        Client(["@chep", "demo"], settings=Settings(aliases={"cheap": "demo"})) as client,
        pytest.raises(NotFoundError, match="there is no alias 'chep'") as caught,
    ):
        client.ask("hello")
    assert caught.value.hint == "did you mean @cheap?"


def test_a_deployment_is_asked_by_its_name_beside_chats_too(simulator):
    there = {"base_url": simulator.base_url("openai.chat"), "model": "text-embedding-3-small"}
    registry = {"vectors": {**there, "aliases": ["v"], "price": {"input": 2, "output": 0}, "timeout": 7}}
    with Client(registry=registry, settings=Settings()) as client:
        for name in ("vectors", "v"):
            found = client.embed(["one", "two"], model=name)
            assert (found.deployment, len(found.vectors)) == ("vectors", 2)
            assert found.cost.amount == found.usage.input * 2 / Decimal(10**6)
        with pytest.raises(NotFoundError) as caught:
            client.embed("one", model="vector")
    assert caught.value.hint.startswith("did you mean 'vectors'?")
    assert {request.model for request in simulator.requests} == {"text-embedding-3-small"}


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
