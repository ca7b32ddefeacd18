"""Calls among several deployments through the public clients: what goes to whom with which key, what it costs and in
whose name, what is kept and given again, and what people see who only look."""

import asyncio
import json
import sys
import threading
from decimal import Decimal

import pytest

from polyvox import AsyncClient, Client, config
from polyvox.budgets import Budget, BudgetExceededError
from polyvox.config import Settings
from polyvox.errors import (
    CallTimeoutError,
    InputError,
    MissingExtraError,
    MissingKeyError,
    PolyvoxError,
    RateLimitError,
    UsageError,
)
from polyvox.keys import Secret
from polyvox.ledger import Ledger
from polyvox.limits import Limits
from polyvox.pools import NoDeploymentError, Routing
from polyvox.registry import DictRegistry, Entry
from polyvox.routing.decision import Decision
from polyvox.types import File, Message, Request, Text
from tests.scripted import Answer, failed, piece, said, streamed
from tests.test_books import only

HARD = "Prove by induction, step-by-step, that this class compiles: def f(): return 1 == 2"


class Wire:
    """Answers by the host that is asked: with what is scripted for it, else with its name."""

    def __init__(self, **scripts):
        self.scripts = {host: list(answers) for host, answers in scripts.items()}
        self.sent = []

    async def send(self, outgoing, timeouts):
        self.sent.append(outgoing)
        host = host_of(outgoing)
        if self.scripts.get(host):
            answer = self.scripts[host].pop(0)
            if isinstance(answer, float):
                await asyncio.sleep(answer)
                answer = said(host)
            return answer
        return streamed(host) if b'"stream":true' in outgoing.body else said(host)

    async def close(self):
        pass

    @property
    def hosts(self):
        return [host_of(sent) for sent in self.sent]

    def bodies(self):
        return [json.loads(sent.body) for sent in self.sent]


def host_of(outgoing):
    return outgoing.url.split("/")[2].split(".")[0]


def at(name, **facts):
    """An entry of this name at a host of this name."""
    return Entry(name, f"m-{name}", **{"base_url": f"https://{name}.example/v1", **facts})


def client_of(entries, wire, kind=Client, **facts):
    facts = {"settings": Settings(), "retries": 0, **facts}
    return kind(facts.pop("model", "*"), registry=entries, transport=wire, **facts)


# ---- what goes to whom ------------------------------------------------------------------------


def test_each_deployment_hears_its_own_key_and_its_own_model_and_nobody_else_s():
    wire = Wire(one=[failed(503)])
    entries = [at("one", api_key=Secret("key-one-canary")), at("two", api_key=Secret("key-two-canary"), priority=1)]
    with client_of(entries, wire) as client:
        answer = client.ask("hello")
    assert wire.hosts == ["one", "two"] and [body["model"] for body in wire.bodies()] == ["m-one", "m-two"]
    assert [sent.headers["authorization"] for sent in wire.sent] == ["Bearer key-one-canary", "Bearer key-two-canary"]
    assert answer.deployment == "two" and "canary" not in repr((answer, client.standing(), answer.decision.describe()))


def test_a_deployment_whose_own_key_is_missing_never_uses_another_one(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-another-account")
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    wire = Wire()
    entries = [Entry("team", "openai/gpt-5.4-mini", api_key_env="NO_SUCH_VARIABLE")]
    with client_of(entries, wire, model="team") as client:
        with pytest.raises(MissingKeyError, match="NO_SUCH_VARIABLE") as caught:
            client.ask("hello")
        assert wire.sent == [] and caught.value.sent == "no"
        assert caught.value.decision.skipped == {"team": caught.value.message}
    with client_of([*entries, at("other", priority=1)], wire) as client:
        assert client.ask("hello").deployment == "other"


def test_what_an_entry_says_of_requests_is_asked_where_a_call_says_nothing():
    wire = Wire()
    with client_of([at("one", max_tokens=7, temperature=0.3)], wire) as client:
        client.ask("hello")
        client.ask("hello", max_tokens=9)
    assert [(body["max_completion_tokens"], body["temperature"]) for body in wire.bodies()] == [(7, 0.3), (9, 0.3)]


def test_a_key_that_is_configured_anew_is_used_by_the_next_call():
    wire = Wire()
    registry = DictRegistry([at("one", api_key=Secret("old-key-canary"))])
    with client_of(registry, wire) as client:
        client.ask("hello")
        registry.update("one", api_key=Secret("new-key-canary"))
        client.ask("hello")
    assert [sent.headers["authorization"][7:] for sent in wire.sent] == ["old-key-canary", "new-key-canary"]


@pytest.fixture
def configured(monkeypatch, tmp_path):
    """Nothing is configured but what a test says; it may say another thing later."""
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path))
    config.reset()
    yield config.configure
    config.reset()


def own_at(host):
    return {"own": {"dialect": "openai.chat", "base_url": f"https://{host}.example/v1", "auth": "none"}}


def test_settings_that_change_act_on_the_next_call_and_what_is_known_stays(configured):
    configured(providers=own_at("one"))
    wire = Wire()
    with Client("*", registry=[Entry("a", "own/m")], transport=wire, retries=0) as client:
        client.ask("hello")
        configured(providers=own_at("two"))
        client.ask("hello")
        assert wire.hosts == ["one", "two"]
        assert [(one["name"], one["calls"]) for one in client.standing()] == [("a", 2)]


def test_routing_that_is_configured_anew_acts_on_the_next_call_and_what_the_client_says_goes_before(configured):
    configured(routing={"strategy": "cheapest"})
    entries, wire = [at("one"), at("two")], Wire()
    with (
        Client("*", registry=entries, transport=wire) as client,
        Client("*", registry=entries, transport=wire, routing={"queue": 3}) as own,
        Client("*", registry=entries, transport=wire, routing=Routing()) as fixed,
    ):
        everybody = (client, own, fixed)
        assert [one.route("hello").strategy for one in everybody] == ["cheapest", "cheapest", "weighted"]
        configured(routing={"strategy": "fastest"})
        assert [one.route("hello").strategy for one in everybody] == ["fastest", "fastest", "weighted"]


# ---- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said_by", "limit"),
    [({}, 600.0), ({"timeout": 30}, 30.0), ({"first": 20.0}, 600.0), ({"first": 20.0, "second": 5.0}, 20.0)],
)
def test_a_call_has_the_time_of_the_longest_it_may_go_to_unless_it_says_itself(said_by, limit):
    entries = [at("one", timeout=said_by.get("first")), at("two", timeout=said_by.get("second"))]
    facts = {"timeout": said_by["timeout"]} if "timeout" in said_by else {}
    with client_of(entries, Wire(), **facts) as client:
        _, _, how = client._async._prepared("hello", {})
    assert how.timeout == limit


def test_an_entry_s_time_ends_a_call_to_it():
    with client_of([at("one", timeout=0.05, tier="economy")], Wire(one=[30.0, 30.0])) as client:
        with pytest.raises(CallTimeoutError):
            client.ask("hello")
        with pytest.raises(CallTimeoutError):
            client.ask("hello", model=None, tier="auto")


# ---- what it costs, and in whose name ---------------------------------------------------------

PRICES = {"one": {"input": 1000, "output": 1000}, "two": {"input": 1, "output": 1}}


@pytest.mark.parametrize("stream", [False, True])
def test_each_attempt_is_written_down_with_its_deployment_s_name_provider_model_and_price(tmp_path, stream):
    entries = [
        at("one", price=PRICES["one"]),
        Entry("two", "own/m", price=PRICES["two"], priority=1),
    ]
    row = {"dialect": "openai.chat", "base_url": "https://two.example/v1", "auth": "none"}
    wire = Wire(one=[failed(500)], two=[streamed_with_usage() if stream else said("well")])
    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        client_of(entries, wire, ledger=ledger, settings=Settings(providers={"own": row})) as client,
    ):
        answer = client.stream("hello").finish() if stream else client.ask("hello")
        kept = only(ledger)
    assert answer.cost.amount == Decimal(5) / 1_000_000 == kept.cost
    assert [(one.deployment, one.provider, one.model, one.cost) for one in kept.attempts] == [
        ("one", "one.example", "m-one", 0),
        ("two", "own", "m", kept.cost),
    ]
    assert (kept.deployment, kept.provider) == ("two", "own")


def streamed_with_usage():
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    last = b"data: " + json.dumps({"id": "c1", "choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n"
    return Answer(piece({"content": "well"}), piece({}, "stop"), last)


def test_a_budget_of_a_deployment_counts_by_its_name_and_at_its_own_price():
    wire = Wire()
    budgets = [Budget("0.004", model="one", window="day")]
    entries = [at("one", price=PRICES["one"], max_tokens=2), at("two", price=PRICES["two"])]
    with client_of(entries, wire, budgets=budgets, model="one") as client:
        with pytest.raises(BudgetExceededError) as caught:
            for _ in range(3):
                client.ask("hi")
        spent = len(wire.sent)
        assert caught.value.sent == "no" and spent < 3
        assert client.ask("hi", model="two").deployment == "two"
        assert [(one["in_flight"], one["errors"], one["breaker"]) for one in client.standing()] == [
            (0, 0, "closed")
        ] * 2
    assert wire.hosts == ["one"] * spent + ["two"]


# ---- answers that are given again -------------------------------------------------------------


def test_an_answer_is_given_again_to_the_same_pool_and_to_no_other():
    wire = Wire()
    entries = [at("one", tier="economy"), at("two", tier="premium")]
    with client_of(entries, wire, cache=True) as client:
        for _ in range(2):
            client.ask("hello")
            client.ask("hello", model="one")
            client.ask("hello", model="two")
            client.ask("hello", tier="economy")
            client.ask("hello", model=["one", "two"])
        assert len(wire.sent) == 5


@pytest.mark.parametrize(
    "change",
    [{"model": "m-other"}, {"base_url": "https://other.example/v1"}, {"temperature": 0.9}, {"max_tokens": 5}],
)
def test_a_change_of_the_registry_that_changes_answers_is_no_old_answer(change):
    wire, registry = Wire(), DictRegistry([at("one")])
    with client_of(registry, wire, cache=True, model="one") as client:
        client.ask("hello")
        assert client.ask("hello").attempts == () and len(wire.sent) == 1
        registry.update("one", **change)
        client.ask("hello")
        assert len(wire.sent) == 2


def test_another_key_or_weight_is_the_same_answer():
    wire, registry = Wire(), DictRegistry([at("one", api_key=Secret("first-key-canary"))])
    with client_of(registry, wire, cache=True, model="one") as client:
        client.ask("hello")
        registry.update("one", api_key=Secret("second-key-canary"), weight=3.0)
        client.ask("hello")
        assert len(wire.sent) == 1


def test_an_answer_that_is_given_again_takes_no_room_and_asks_nobody():
    wire = Wire()
    entries = [at("one", limits=Limits(requests_per_minute=1))]
    with client_of(entries, wire, cache=True) as client:
        for _ in range(3):
            client.ask("hello")
        with pytest.raises(RateLimitError):
            client.ask("something else", timeout=30)
        assert [(one["calls"], one["in_flight"]) for one in client.standing()] == [(1, 0)]


# ---- tiers ------------------------------------------------------------------------------------


def test_what_is_local_goes_nowhere_else_whatever_happens():
    wire = Wire(**{"127": [failed(503), failed(503)]})
    here = at("here", base_url="http://127.0.0.1:9/v1", tier="local")
    with client_of([here, at("away", tier="economy")], wire, tier="local", model=None) as client:
        for ask in (client.ask, lambda prompt: client.stream(prompt).finish()):
            with pytest.raises(PolyvoxError) as caught:
                ask("hello")
            assert [attempt.deployment for attempt in caught.value.attempts] == ["here"]
        assert set(wire.hosts) == {"127"}


def test_the_tier_of_each_request_is_found_and_where_it_has_nobody_the_next_better_one_answers():
    wire = Wire()
    entries = [at("plain", tier="standard"), at("best", tier="premium"), at("here", base_url="http://127.0.0.1:9/v1",
                                                                         tier="local")]  # fmt: skip
    with client_of(entries, wire, tier="auto", model=None) as client:
        easy, hard = client.ask("hello"), client.ask(HARD)
        assert (easy.deployment, hard.deployment) == ("plain", "best")
        assert easy.decision.tier == "economy" and hard.decision.tier == "premium"
        assert client.route(HARD).asked == ("best",)
    with client_of(entries[2:], wire, tier="auto", model=None) as client:
        for look in (client.ask, client.route, client.explain, lambda prompt: client.stream(prompt).finish()):
            with pytest.raises(NoDeploymentError):
                look("hello")


# ---- looking ----------------------------------------------------------------------------------

ODD = ["", " ", "\N{ZERO WIDTH SPACE}", "x" * 10_000, [Message("user", ())], [Message("user", (Text(""),))],
       [Message("assistant", (Text("a"),))], Request("", (Message("user", (Text("q"),)),))]  # fmt: skip


@pytest.mark.parametrize("prompt", ODD, ids=[f"odd {number}" for number in range(len(ODD))])
def test_to_look_at_a_call_asks_nobody_however_odd_it_is(prompt):
    wire = Wire()
    with client_of([at("one"), at("two")], wire) as client:
        for look in (client.route, client.explain):
            try:
                found = look(prompt)
            except PolyvoxError as error:
                assert error.hint
            else:
                assert json.dumps(found.describe())
        assert wire.sent == [] and all(one["in_flight"] == 0 for one in client.standing())


@pytest.mark.parametrize(
    "said_of_it",
    [
        {"tier": ""}, {"tier": " "}, {"tier": 3}, {"tier": "no such"}, {"model": []}, {"model": [""]}, {"model": [1]},
        {"model": "z*"}, {"model": ["one"], "tier": "economy"}, {"model": {"one": 1}}, {"model": b"one"},
    ],
    ids=str,
)  # fmt: skip
def test_names_that_mean_nobody_are_refused_before_anything_is_sent(said_of_it):
    wire = Wire()
    with client_of([at("one")], wire) as client:
        for call in (
            client.ask,
            client.route,
            client.explain,
            lambda prompt, **said: client.stream(prompt, **said).finish(),
        ):
            with pytest.raises(PolyvoxError) as caught:
                call("hello", **said_of_it)
            assert isinstance(caught.value, InputError | NoDeploymentError) and caught.value.hint
    assert wire.sent == []


def test_to_look_among_whom_there_is_no_choice_says_so():
    with Client("demo", settings=Settings()) as client, pytest.raises(UsageError, match="nothing to choose"):
        client.route("hello")
    with Client("demo", settings=Settings()) as client:
        assert client.standing() == []


def test_an_explanation_is_what_the_first_one_would_hear_and_shows_no_key():
    wire = Wire()
    entries = [at("two", priority=1), at("one", api_key=Secret("key-one-canary"), temperature=0.3, max_tokens=7)]
    with client_of(entries, wire) as client:
        shown = client.explain("hello")
        client.ask("hello")
    assert json.loads(shown.body) == wire.bodies()[0] and shown.url == wire.sent[0].url
    assert "canary" not in repr(shown) + json.dumps(shown.describe())


def test_how_deployments_do_is_told_in_plain_values():
    wire = Wire(one=[failed(503)])
    with client_of([at("one", limits=Limits(concurrency=3)), at("two", priority=1)], wire) as client:
        client.ask("hello")
        told = json.loads(json.dumps(client.standing()))
    assert [(one["name"], one["calls"], one["errors"], one["in_flight"]) for one in told] == [
        ("one", 1, 1, 0), ("two", 1, 0, 0),
    ]  # fmt: skip
    assert told[0]["limits"] == {"concurrency": 3} and told[1]["limits"] == {}


def test_one_may_look_from_any_thread_while_calls_are_under_way():
    registry, wire, problems = DictRegistry([at("one"), at("two")]), Wire(), []
    with client_of(registry, wire) as client:

        def look():
            try:
                for number in range(30):
                    assert isinstance(client.route("hello"), Decision)
                    assert client.standing() is not None
                    registry.update("two", weight=1.0 + number)
                    client.ask("hello")
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == [] and all(one["in_flight"] == 0 for one in client.standing())
        assert sum(one["calls"] for one in client.standing()) == 120


def test_files_that_one_keeps_go_to_it_alone():
    wire = Wire()
    with client_of([at("one"), at("two", priority=1)], wire) as client:
        kept = [Message("user", (Text("see"), File(file_id="f", origin="two")))]
        assert client.ask(kept).deployment == "two"
        assert client.route(kept).bound == ("two",)


# ---- where limits are counted -----------------------------------------------------------------


REDIS = "redis://ann:hunter2-canary@127.0.0.1:1/0"


def test_where_limits_are_counted_needs_no_library_until_a_call_has_a_choice(monkeypatch):
    for name in [name for name in sys.modules if name == "redis" or name.startswith("redis.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)  # as where it is not installed
    for facts in ({"limits": REDIS}, {"settings": Settings(routing={"limits": REDIS})}):
        with client_of([at("one")], Wire(), **facts) as client:
            assert "canary" not in repr(client) and client.standing() == []
            with pytest.raises(MissingExtraError):
                client.ask("hello")
        with Client("demo", **{"settings": Settings(), **facts}) as client:
            assert client.ask("hello").text


def test_where_limits_are_counted_is_not_asked_by_who_only_looks_and_its_password_is_shown_nowhere(caplog):
    pytest.importorskip("redis", reason="limits of several processes are counted with its client")
    caplog.set_level("DEBUG")
    with client_of([at("one")], Wire(), limits=REDIS) as client:
        assert client.route("hello").asked == ("one",) and not caplog.records
        assert client.ask("hello").text == "one"  # away: this process counts for itself
        shown = repr((client, client._async._pooling.pools.shared.leases)) + json.dumps(client.standing())
    assert "hunter2" not in shown + caplog.text


@pytest.mark.parametrize("choice", ["http://x", 3, object(), "nowhere"])
def test_limits_that_are_counted_nowhere_are_refused_at_once(choice):
    with pytest.raises(InputError) as caught:
        Client("demo", settings=Settings(), limits=choice)
    assert "limits" in caught.value.message


def test_a_place_that_is_none_is_refused_without_its_password():
    with pytest.raises(InputError) as caught:
        Client("demo", settings=Settings(), limits="http://ann:hunter2-canary@host/")
    assert "hunter2" not in str(caught.value) + repr(caught.value)


async def _many(client):
    return await asyncio.gather(*(client.ask("hello") for _ in range(6)))


def test_an_async_client_keeps_its_limits_in_one_event_loop_after_the_other():
    wire = Wire(one=[0.01] * 12)
    client = client_of([at("one", limits=Limits(concurrency=2))], wire, kind=AsyncClient)
    for _ in range(2):
        assert len(asyncio.run(_many(client))) == 6
    assert [one["in_flight"] for one in client.standing()] == [0]
