"""Follows the two documents on creative_services: its architecture and its adapters. It types what they show, in their
order, and asserts what they promise.

It reads the environment as documented: OPENAI_API_KEY and ANTHROPIC_API_KEY, with OPENAI_BASE_URL, ANTHROPIC_BASE_URL
and OLLAMA_HOST where the servers are. Whoever runs it changes `creative_services` in the imports, and nothing else.
"""

import inspect
import os
from decimal import Decimal

import openai
from creative_services import (
    DictRegistry,
    DynamicLLMClient,
    InMemoryTracker,
    LLMClient,
    LLMConfig,
    LLMProvider,
    LLMRegistry,
    LLMTier,
    UsageTracker,
)
from creative_services.adapters import AsyncBFAgentLLMBridge, BFAgentLLMBridge
from creative_services.adapters import bfagent_compat as where_bridges_are
from creative_services.core import llm_client as where_clients_are
from creative_services.core import llm_registry as where_registries_are
from creative_services.core import usage_tracker as where_trackers_are
from creative_services.core.base_handler import BaseHandler


async def main() -> None:
    names_stand_where_the_package_structure_says()
    await one_client_for_every_provider()
    await a_model_by_its_tier()
    what_is_used_is_recorded_by_hand()
    await what_is_used_is_recorded_with_every_call()
    await the_synchronous_bridge()
    await the_asynchronous_bridge()
    await from_the_sdk_of_openai()


def names_stand_where_the_package_structure_says():
    assert where_clients_are.LLMClient is LLMClient
    assert where_registries_are.LLMTier is LLMTier
    assert where_registries_are.DictRegistry is DictRegistry
    assert where_trackers_are.InMemoryTracker is InMemoryTracker
    assert where_bridges_are.BFAgentLLMBridge is BFAgentLLMBridge
    assert where_bridges_are.AsyncBFAgentLLMBridge is AsyncBFAgentLLMBridge
    # The pattern alone is documented; what a handler makes comes with the handlers.
    assert inspect.isabstract(BaseHandler)


async def one_client_for_every_provider():
    config = LLMConfig(
        provider=LLMProvider.OPENAI,
        model="gpt-4o-mini",
    )
    assert os.environ["OPENAI_API_KEY"] not in repr(config)
    client = LLMClient(config)

    response = await client.generate(
        prompt="Write a story",
        system_prompt="You are a creative writer",
    )
    assert isinstance(response.content, str) and response.content
    assert str(response) == response.content

    assert LLMProvider.OPENAI == "openai"
    assert LLMConfig(provider="openai", model="gpt-4o-mini").provider is LLMProvider.OPENAI
    for provider, model in ((LLMProvider.ANTHROPIC, "claude-3-5-sonnet"), (LLMProvider.OLLAMA, "llama3.2")):
        other = await LLMClient(LLMConfig(provider=provider, model=model)).generate(prompt="Write a story")
        assert type(other) is type(response)
        assert isinstance(other.content, str) and other.content


async def a_model_by_its_tier():
    registry = DictRegistry.from_env()
    assert isinstance(registry, LLMRegistry)
    client = DynamicLLMClient(registry)

    assert {tier.name: tier.value for tier in LLMTier} == {
        "ECONOMY": "economy",
        "STANDARD": "standard",
        "PREMIUM": "premium",
        "LOCAL": "local",
    }
    for tier in LLMTier:
        response = await client.generate(
            prompt="Write a story",
            tier=tier,
        )
        assert isinstance(response.content, str) and response.content
    assert (await client.generate(prompt="Write a story", tier="standard")).content

    llm = registry.get_by_tier(LLMTier.STANDARD)
    active = registry.list_active()
    assert llm is not None and llm in active
    assert registry.get_by_tier(LLMTier.STANDARD) == llm
    assert list(registry.list_active()) == list(active)


def what_is_used_is_recorded_by_hand():
    tracker = InMemoryTracker()
    assert isinstance(tracker, UsageTracker)
    tracker.record(
        llm_id=1,
        prompt_tokens=100,
        completion_tokens=500,
        cost=0.001,
    )

    # As printed: nothing was recorded for this user, so it is zero and no error.
    stats = tracker.get_stats(user_id=123)
    assert stats.total_cost == 0
    assert f"Total cost: ${stats.total_cost}".startswith("Total cost: $0")

    tracker.record(
        llm_id=1,
        user_id=123,
        prompt_tokens=100,
        completion_tokens=500,
        cost=0.001,
    )
    assert tracker.get_stats(user_id=123).total_cost == Decimal("0.001")
    assert tracker.get_stats().total_cost == Decimal("0.002")
    assert tracker.get_stats(user_id=123).total_tokens == 600


async def what_is_used_is_recorded_with_every_call():
    tracker = InMemoryTracker()
    client = DynamicLLMClient(DictRegistry.from_env(), tracker=tracker)
    await client.generate(prompt="Write a story", tier=LLMTier.ECONOMY)
    once = tracker.get_stats()
    assert once.requests == 1 and once.total_tokens > 0
    await client.generate(prompt="Write a story", tier=LLMTier.ECONOMY)
    assert tracker.get_stats().requests == 2
    assert tracker.get_stats().total_tokens > once.total_tokens


async def the_synchronous_bridge():
    # Called where a loop runs, on purpose: it has to work there too.
    bridge = BFAgentLLMBridge()
    result = bridge.generate_text("Write a story")
    assert type(result) is str and result

    result = bridge.generate_text(
        prompt="Write a story",
        system_prompt="You are a writer",
        tier="standard",
    )
    assert type(result) is str and result

    try:
        bridge.generate_text(prompt="Write a story", tier="the best there is")
    except Exception as error:  # no document names its class
        assert all(tier.value in str(error) for tier in LLMTier)
    else:
        raise AssertionError("a tier that there is not was taken")


async def the_asynchronous_bridge():
    bridge = AsyncBFAgentLLMBridge()

    result = await bridge.generate_text(
        prompt="Write a story",
        tier="premium",
    )
    assert type(result) is str and result


async def from_the_sdk_of_openai():
    prompt = "Write a story"
    before = openai.OpenAI(api_key=os.environ["OPENAI_API_KEY"])
    response = before.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": prompt}],
    )
    content = response.choices[0].message.content
    before.close()
    assert isinstance(content, str) and content

    registry = DictRegistry.from_env()
    client = DynamicLLMClient(registry)

    response = await client.generate(
        prompt=prompt,
        tier=LLMTier.STANDARD,
    )
    content = response.content
    assert isinstance(content, str) and content


# Left out, with the capability of coverage.toml that each waits for:
#   django     DjangoLLMRegistry(), .get_by_tier, .list_active · the model Llms · DjangoUsageTracker(), .record
#   django     adapters/django_adapter.py, and the bridges over a table of models
#   creative   what a handler does, and the packages character/, story/ and dialogue/
