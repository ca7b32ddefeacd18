"""Promises of tiers and usage in creative_services: a registry says who answers for a tier, the dynamic client asks
that one, and trackers are told what it cost."""

import asyncio
import json
import threading
from decimal import Decimal

import pytest

import polyvox
from polyvox import Client
from polyvox.compat import shared
from polyvox.compat.creative_services import (
    DictRegistry,
    DynamicLLMClient,
    InMemoryTracker,
    LLMClient,
    LLMConfig,
    LLMRegistry,
    LLMTier,
    UsageStats,
    UsageTracker,
)
from polyvox.compat.names import AIError, AIUtilitiesError, ConfigurationError, LLMServiceError
from polyvox.errors import AuthError, ConfigError, InputError, PolyvoxError, ServerError
from polyvox.ledger import Ledger
from polyvox.pools import NoDeploymentError
from polyvox.registry import Entry, SettingsRegistry
from polyvox.testing import Simulator

from .rows import rows

STORY = "Write a story"


def ask(client, *prompt, **said):
    """What a client answers, and the client closed."""

    async def go():
        async with client:
            return await client.generate(*prompt, **said)

    return asyncio.run(go())


def only(monkeypatch, *kept):
    """Keys of these providers alone."""
    for name in ("OPENAI", "ANTHROPIC", "GROQ", "OPENROUTER", "GEMINI", "MISTRAL"):
        if name not in kept:
            monkeypatch.delenv(f"{name}_API_KEY", raising=False)


# ---- tiers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "name", "value"),
    [
        ("S0-062", "ECONOMY", "economy"),
        ("S0-066", "STANDARD", "standard"),
        ("S0-070", "PREMIUM", "premium"),
        ("S0-074", "LOCAL", "local"),
    ],
)
def test_a_tier_is_a_word_that_leads_to_its_entry_and_says_what_it_is_for(row, name, value, world):
    tier = getattr(LLMTier, name)
    assert (tier, tier.value, f"{tier}") == (value, value, value) and isinstance(tier, str)
    assert len(tier.use_case.split()) >= 3 and tier.use_case == tier.description
    registry = DictRegistry.from_env()
    assert registry.get_by_tier(tier).tier == value
    response = ask(DynamicLLMClient(registry), prompt=STORY, tier=tier)
    assert response.raw.deployment == registry.get_by_tier(value.upper()).name


@rows("S0-040")
def test_there_are_the_four_tiers_and_no_other(row):
    assert [tier.name for tier in LLMTier] == ["ECONOMY", "STANDARD", "PREMIUM", "LOCAL"]
    assert len({tier.use_case for tier in LLMTier}) == 4
    with pytest.raises(ValueError, match="best"):
        LLMTier("best")


@rows("S0-046")
def test_a_tier_is_said_in_either_way_and_an_unknown_one_is_refused_with_the_tiers_there_are(row, world):
    registry = DictRegistry.from_env()
    registry.add(name="night", provider="openai", model_name="gpt-5", tier="Nightly")

    async def go():
        async with DynamicLLMClient(registry) as client:
            said = [LLMTier.PREMIUM, "premium", " Premium "]
            found = [await client.generate(prompt=STORY, tier=tier) for tier in said]
            assert len({answer.raw.deployment for answer in found}) == 1
            assert (await client.generate(STORY, tier="nightly")).raw.deployment == "night"
            assert (await client.generate(STORY, tier="auto")).content
            for wrong in ("the best there is", "", 7):
                with pytest.raises(InputError) as caught:
                    await client.generate(prompt=STORY, tier=wrong)
                assert all(tier.value in str(caught.value) for tier in LLMTier) and "nightly" in str(caught.value)
                assert isinstance(caught.value, AIUtilitiesError) and isinstance(caught.value, AIError)

    asyncio.run(go())
    with pytest.raises(InputError, match="economy, standard, premium, local"):
        registry.get_by_tier("the best there is")
    assert world.counts.requests == 5


@rows("S0-041")
def test_from_env_has_the_providers_whose_keys_are_there_and_says_so_when_there_are_none(row, world, monkeypatch):
    only(monkeypatch, "OPENAI")
    entries = DictRegistry.from_env().list_active()
    assert {entry.model.split("/")[0] for entry in entries} == {"openai", "ollama"}
    assert {entry.tier for entry in entries if entry.model.startswith("openai/")} == {"economy", "standard", "premium"}
    only(monkeypatch)
    registry = DictRegistry.from_env()
    assert {entry.tier for entry in registry.list_active()} == {"local"}
    assert registry.get_by_tier(LLMTier.STANDARD) is None
    with pytest.raises(NoDeploymentError, match=r"no deployment is of the tier 'standard'\nhint: .*local"):
        ask(DynamicLLMClient(registry), STORY, tier=LLMTier.STANDARD)
    assert world.counts.requests == 0


@rows("S0-044")
def test_a_tier_is_resolved_and_then_asked_as_by_a_client(row, world):
    registry = DictRegistry.from_env()
    client = DynamicLLMClient(registry)
    response = ask(client, prompt=STORY, system_prompt="You are a writer", tier="standard", max_tokens=77)
    entry = registry.get_by_tier("standard")
    direct = ask(
        LLMClient(LLMConfig(*entry.model.split("/", 1))), STORY, system_prompt="You are a writer", max_tokens=77
    )
    assert type(response) is type(direct)
    assert (response.raw.deployment, response.content) == (entry.name, direct.content)
    assert STORY in response.content  # it is told again by who answers here
    one, other = (json.loads(asked.body) for asked in world.requests)
    assert one == other and 77 in one.values()


@rows("S0-043")
def test_among_several_providers_the_same_one_is_asked_each_time_and_the_next_one_where_it_fails(row, world):
    registry = DictRegistry.from_env()
    providers = {entry.model.split("/")[0] for entry in registry.list_active() if entry.tier == "standard"}
    assert len(providers) > 2
    best = registry.get_by_tier("standard")

    async def go():
        async with DynamicLLMClient(registry) as client:
            return {(await client.generate(STORY, tier="standard")).raw.deployment for _ in range(12)}

    assert asyncio.run(go()) == {best.name}
    with Simulator(plan=[{"kind": "status", "status": 500, "at": [1]}], demand_key=False) as simulator:
        two = DictRegistry([
            Entry(name, name, base_url=simulator.base_url("openai.chat"), tier="standard") for name in ("one", "two")
        ])  # fmt: skip
        answer = ask(DynamicLLMClient(two, retries=0), STORY, tier="standard")
    assert [each.deployment for each in answer.raw.attempts] == ["one", "two"]


def test_weights_share_out_the_calls_of_a_tier(place):
    registry = DictRegistry([
        Entry(name, "demo", tier="standard", weight=weight) for name, weight in (("one", 1.0), ("two", 1.5))
    ])  # fmt: skip

    async def go():
        async with DynamicLLMClient(registry) as client:
            return {(await client.generate(STORY, tier="standard")).raw.deployment for _ in range(60)}

    assert asyncio.run(go()) == {"one", "two"}


# ---- registries -------------------------------------------------------------------------------


@rows("S0-037", "S0-012")
def test_a_registry_is_one_by_what_it_can_do(row, place):
    registry = DictRegistry([Entry("fast", "demo", tier="economy")])
    assert isinstance(registry, LLMRegistry) and isinstance(shared.EVERYONE, LLMRegistry)
    assert isinstance(SettingsRegistry(), LLMRegistry)
    assert not isinstance({}, LLMRegistry) and not isinstance(InMemoryTracker, LLMRegistry)
    assert registry.get_by_tier(LLMTier.ECONOMY) is registry.list_active()[0] is registry.get_by_name("fast")


@rows("S0-042")
def test_the_dynamic_client_takes_its_registry_and_perhaps_a_tracker(row, place):
    registry = DictRegistry([Entry("fast", "demo", default=True)])
    tracker = InMemoryTracker()
    client = DynamicLLMClient(registry, tracker=tracker)
    assert client.registry is registry and ask(client, STORY).raw.deployment == "fast"
    assert tracker.get_stats(llm_id="fast").requests == 1
    assert ask(DynamicLLMClient([Entry("own", "demo", tier="premium")]), STORY, tier="premium").content
    with pytest.raises(InputError, match="int is no registry"):
        DynamicLLMClient(3)
    with pytest.raises(InputError, match="is no tracker"):
        DynamicLLMClient(registry, tracker=object())


def test_an_entry_is_said_in_the_fields_of_the_documented_table(place):
    registry = DictRegistry()
    registry.add(
        id=7, name="good", provider="openai", model_name="gpt-4o-mini", tier="Premium", api_key="", api_endpoint="",
        max_tokens=4096, temperature=0.7, cost_per_1k_input=0.15, cost_per_1k_output="0.6", is_active=True,
    )  # fmt: skip
    entry = registry.get_by_name("7")
    assert (entry.name, entry.model, entry.tier, entry.active) == ("good", "openai/gpt-4o-mini", "premium", True)
    assert (entry.max_tokens, entry.temperature, entry.api_key, entry.base_url) == (4096, 0.7, None, None)
    assert dict(entry.price) == {"input": Decimal("150"), "output": Decimal("600")}
    registry.update("good", cost_per_1k_input=1, is_active=False)
    assert registry.list_active() == () and registry.get_by_tier("premium") is None
    changed = registry.update("good", provider="anthropic", model_name="claude-opus-5", is_active=True)
    assert changed.model == "anthropic/claude-opus-5"
    assert registry.update("good", model_name="claude-odd").model == "anthropic/claude-odd"
    assert dict(changed.price) == {"input": Decimal("1000"), "output": Decimal("600")}
    registry.add(
        name="near", provider="anthropic", model_name="m", api_endpoint="http://127.0.0.1:9", api_key="sk-own-012345678"
    )
    near = registry.get_by_name("near")
    assert (near.model, near.base_url, near.dialect) == ("m", "http://127.0.0.1:9", "anthropic.messages")
    assert "sk-own" not in repr(near)
    assert registry.update("near", api_endpoint="", provider="openai", model_name="gpt-5").dialect is None
    assert registry.remove("near") and not registry.remove("near")


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ({"name": "a", "modle_name": "x"}, InputError, "did you mean model_name?"),
        ({"name": "a", "model": "demo", "cost_per_1k_input": "much"}, InputError, "an amount of USD"),
        ({"name": "fast", "model": "demo"}, ConfigError, "fast"),
        ({"name": "a"}, ConfigError, "model"),
        ({"name": "a", "provider": "nobody"}, PolyvoxError, "nobody"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_and_nothing_is_changed(said, kind, told, place):
    registry = DictRegistry({"fast": {"model": "demo"}})
    before = registry.version
    with pytest.raises(kind, match=told) as caught:
        registry.add(**said)
    assert isinstance(caught.value, AIUtilitiesError) and isinstance(caught.value, ConfigurationError | AIError)
    assert registry.version is before
    with pytest.raises(InputError, match="has its fields already"):
        registry.add(Entry("b", "demo"), tier="economy")
    with pytest.raises(InputError, match="there is no deployment 'nobody'"):
        registry.update("nobody", is_active=False)
    with pytest.raises(ConfigError):
        DictRegistry({"a": {}})


def test_an_edit_is_seen_through_all_and_acts_on_the_next_call(world):
    registry = DictRegistry([Entry("writer", "openai/one")])
    with Client(registry=shared.EVERYONE) as client:
        assert client.ask(STORY, model="writer").model == "one"
        registry.update("writer", provider="openai", model_name="two")
        assert client.ask(STORY, model="writer").model == "two"
    assert shared.EVERYONE.get_by_name("writer").model == "openai/two"
    held = DynamicLLMClient()
    assert held.registry.get_by_name("writer").model == "openai/two"
    del registry
    assert shared.EVERYONE.get_by_name("writer") is None


def test_what_the_ai_variables_say_is_the_default_of_from_env_at_each_moment(world, monkeypatch):
    registry = DictRegistry.from_env()
    assert registry.get_default().tier == "standard"
    monkeypatch.setenv("AI_MODEL", "gpt-4o-mini")
    assert (registry.get_default().name, registry.get_default().model) == ("environment", "openai/gpt-4o-mini")
    assert registry.version is registry.version
    monkeypatch.setenv("AI_MODEL", "gpt-5")
    assert ask(DynamicLLMClient(registry), STORY).model == "gpt-5"
    monkeypatch.delenv("AI_MODEL")
    assert registry.get_by_name("environment") is None
    assert DictRegistry.from_env({}).get_default() is None


def test_a_call_names_an_entry_or_a_model_and_one_of_them(world):
    registry = DictRegistry.from_env()
    registry.add(id=3, name="mine", provider="anthropic", model_name="claude-sonnet-5")

    async def go():
        async with DynamicLLMClient(registry) as client:
            said = [{"llm_id": 3}, {"llm_name": "mine"}, {"provider": "openai", "model": "gpt-5"}, {"provider": "groq"}]
            models = [(await client.generate(STORY, **each)).model for each in said]
            for wrong in ({"llm_id": 3, "tier": "economy"}, {"llm_name": "mine", "model": "gpt-5"}):
                with pytest.raises(InputError, match="one of them"):
                    await client.generate(STORY, **wrong)
            with pytest.raises(InputError, match="there is no deployment '99'"):
                await client.generate(STORY, llm_id=99)
            return models

    assert asyncio.run(go())[:3] == ["claude-sonnet-5", "claude-sonnet-5", "gpt-5"]
    assert world.counts.requests == 4


# ---- trackers ---------------------------------------------------------------------------------


@rows("S0-048")
def test_a_tracker_is_one_by_what_it_can_do(row):
    tracker = InMemoryTracker()
    assert isinstance(tracker, UsageTracker) and isinstance(polyvox.usage.UsageTracker(), UsageTracker)
    assert not isinstance(object(), UsageTracker)
    tracker.track_request({"prompt_tokens": 3, "completion_tokens": 4})
    tracker.record(prompt_tokens=1, completion_tokens=2)
    stats = tracker.get_stats()
    assert isinstance(stats, UsageStats) and (stats.requests, stats.total_tokens) == (2, 10)


@rows("S0-052", "S0-053", "S0-054", "S0-055", "S0-056")
def test_a_record_is_kept_given_back_and_found_again(row, place):
    tracker = InMemoryTracker()
    record = tracker.record(llm_id=1, prompt_tokens=100, completion_tokens=500, cost=0.001)
    assert (record.deployment, record.user, record.usage.input, record.usage.output) == ("1", None, 100, 500)
    assert (record.usage.total, record.cost) == (600, Decimal("0.001"))
    tracker.record(llm_id=2, user_id=5, prompt_tokens=1, completion_tokens=2, cost="0.5")
    first, second, every = tracker.get_stats(llm_id=1), tracker.get_stats(llm_id=2), tracker.get_stats()
    assert (first.requests, first.prompt_tokens, first.completion_tokens, first.total_tokens) == (1, 100, 500, 600)
    assert (second.requests, second.total_tokens, second.total_cost) == (1, 3, Decimal("0.5"))
    assert (every.requests, every.total_tokens, every.total_cost) == (2, 603, Decimal("0.501"))
    for wrong in ({"prompt_tokens": -1}, {"completion_tokens": -1}, {"cost": float("nan")}, {"prompt_tokens": 1.5}):
        with pytest.raises(InputError) as caught:
            tracker.record(llm_id=1, **wrong)
        assert isinstance(caught.value, LLMServiceError) and isinstance(caught.value, AIUtilitiesError)
    assert tracker.get_stats().requests == 2


@rows("S0-058", "S0-059")
def test_statistics_are_those_of_a_user_and_zeros_where_there_is_nothing(row):
    tracker = InMemoryTracker()
    for user, cost in ((123, 0.001), (123, 0.002), (4, 1), (None, 5)):
        tracker.record(user_id=user, prompt_tokens=10, completion_tokens=1, cost=cost)
    stats = tracker.get_stats(user_id=123)
    assert (stats.requests, stats.total_cost, f"${stats.total_cost}") == (2, Decimal("0.003"), "$0.003")
    nobody = tracker.get_stats(user_id=999)
    assert (nobody.requests, nobody.total_tokens, nobody.total_cost) == (0, 0, 0)
    assert f"Total cost: ${nobody.total_cost}" == "Total cost: $0"
    assert tracker.get_stats().total_cost == Decimal("6.003")


@rows("S0-050", "S0-051")
def test_a_tracker_needs_no_arguments_and_threads_may_share_it(row):
    tracker = InMemoryTracker()

    def work():
        for _ in range(50):
            tracker.record(llm_id=1, prompt_tokens=1, completion_tokens=1, cost="0.001")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = tracker.get_stats()
    assert (stats.requests, stats.total_tokens, stats.total_cost) == (400, 800, Decimal("0.4"))


def test_with_a_ledger_rows_outlive_the_tracker(place):
    with Ledger(place / "rows.db", spool=False) as ledger:
        with InMemoryTracker(ledger) as tracker:
            tracker.record(llm_id=1, cost=1)
        assert InMemoryTracker(ledger).get_stats().total_cost == 1


@rows("S0-013", "S0-049")
def test_every_call_is_one_record_with_its_tokens_and_what_they_cost(row, world):
    tracker = InMemoryTracker()
    registry = DictRegistry()
    registry.add(
        name="own",
        provider="openai",
        model_name="gpt-4o-mini",
        tier="standard",
        cost_per_1k_input=2,
        cost_per_1k_output=3,
    )

    async def go():
        async with DynamicLLMClient(registry, tracker=tracker) as client:
            return [await client.generate(STORY, tier="standard", user_id=user) for user in (123, 123, None)]

    answers = asyncio.run(go())
    stats = tracker.get_stats(llm_id="own")
    tokens = [(each.usage.prompt_tokens, each.usage.completion_tokens) for each in answers]
    assert (stats.requests, stats.errors) == (3, 0)
    assert stats.prompt_tokens == sum(given for given, _ in tokens) > 0
    assert stats.completion_tokens == sum(made for _, made in tokens) > 0
    assert stats.total_cost == sum(given * Decimal("0.002") + made * Decimal("0.003") for given, made in tokens)
    mine = tracker.get_stats(user_id=123)
    assert mine.requests == 2 and mine.total_cost == sum(each.cost for each in answers[:2])
    assert not any(b"123" in asked.body for asked in world.requests)  # the user is the tracker's, and sent to nobody
    record = tracker.get_stats(llm_id="own", provider="openai", model="gpt-4o-mini")
    assert record.requests == 3


@rows("S0-049")
def test_a_call_that_fails_is_a_record_too(row, place):
    plan = [{"kind": "status", "status": 500, "at": [1]}, {"kind": "status", "status": 401, "at": [3]}]
    with Simulator(plan=plan, demand_key=False) as simulator:
        tracker = InMemoryTracker()
        registry = DictRegistry([Entry("near", "m", base_url=simulator.base_url("openai.chat"), tier="standard")])
        registry.add(Entry("keyless", "openai/gpt-4o-mini", tier="premium"))

        async def go():
            async with DynamicLLMClient(registry, tracker=tracker, retries=0) as client:
                with pytest.raises(ServerError):
                    await client.generate(STORY, tier="standard", user_id=1)
                await client.generate(STORY, tier="standard", user_id=1)
                for tier in ("standard", "premium"):
                    with pytest.raises(AuthError):
                        await client.generate(STORY, tier=tier, user_id=1)
                with pytest.raises(InputError):  # which is no call
                    await client.generate(STORY, tier="nothing", user_id=1)
                return client.get_stats()

        own = asyncio.run(go())
    stats = tracker.get_stats(user_id=1)
    assert (stats.requests, stats.errors) == (own.requests, own.errors) == (4, 3)
    assert (tracker.get_stats(llm_id="near").requests, tracker.get_stats(llm_id="near").errors) == (3, 2)
    assert tracker.get_stats(llm_id="keyless").errors == 1


@rows("S1-054")
def test_what_a_client_used_is_known_without_any_tracker(row, world):
    async def go():
        async with DynamicLLMClient(DictRegistry.from_env()) as client:
            empty = client.get_stats()
            answers = [await client.generate(STORY, tier=tier) for tier in ("economy", "standard")]
            return empty, answers, client.get_stats()

    empty, answers, stats = asyncio.run(go())
    assert (empty.requests, empty.total_tokens, empty.total_cost) == (0, 0, 0)
    assert (stats.requests, stats.errors, stats.unknown_cost) == (2, 0, 0)
    assert stats.total_tokens == sum(each.usage.total_tokens for each in answers) > 0
    assert stats.total_cost == sum(each.cost for each in answers) > 0
    assert (stats.row.calls, stats.row.cost) == (2, stats.total_cost)


def test_a_tracker_that_fails_harms_no_call(world, caplog):
    class Broken:
        def record(self, **facts):
            raise OSError("the disk is full")

    assert ask(DynamicLLMClient(DictRegistry.from_env(), tracker=Broken()), STORY, tier="economy").content
    assert "the tracker Broken did not take a record" in caplog.text
