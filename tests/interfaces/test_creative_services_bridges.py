"""Promises of the adapters of creative_services: BFAgent's bridges give plain text wherever they are called, its older
function works in both of its ways, and who comes from a vendor's library reads the same."""

import asyncio
import gc
import inspect
import json
import os
import sys
import threading
from decimal import Decimal
from pathlib import Path

import openai
import pytest
from pydantic import BaseModel, field_validator

from polyvox import portal
from polyvox.compat.creative_services import DictRegistry, InMemoryTracker, LLMTier
from polyvox.compat.creative_services.adapters import AsyncBFAgentLLMBridge, BFAgentLLMBridge, bfagent_compat
from polyvox.compat.creative_services.adapters.bfagent_compat import LlmRequest, generate_text
from polyvox.compat.names import AIError, AIUtilitiesError
from polyvox.errors import InputError, UsageError
from polyvox.registry import Entry

from . import blocks
from .rows import rows

STORY = "Write a story"
WRITER = "You are a writer"


def body(asked):
    return json.loads(asked.body)


@pytest.fixture
def bridge(world):
    with BFAgentLLMBridge() as made:
        yield made


def awaited(work):
    """What an asynchronous bridge gives, and the bridge closed."""

    async def go():
        async with AsyncBFAgentLLMBridge() as bridge:
            return await work(bridge)

    return asyncio.run(go())


# ---- the synchronous one ----------------------------------------------------------------------


@rows("S0-084", "S1-036", "S1-040")
def test_text_comes_back_for_a_prompt_by_its_place(row, bridge, world, capsys):
    result = bridge.generate_text(STORY)
    assert type(result) is str and STORY in result
    print(result)
    assert capsys.readouterr().out == f"{result}\n"
    assert body(world.requests[0])["messages"] == [{"role": "user", "content": STORY}]


@rows("S1-037", "S1-038", "S1-039")
def test_prompt_system_prompt_and_tier_are_keywords(row, bridge, world):
    result = bridge.generate_text(prompt=STORY, system_prompt=WRITER, tier="standard")
    assert type(result) is str and STORY in result
    (asked,) = world.requests
    said = body(asked)
    assert said["messages"][-1] == {"role": "user", "content": STORY} and WRITER in json.dumps(said)
    assert asked.model == bridge.registry.get_by_tier("standard").model.split("/")[1]


@rows("S1-039")
def test_a_tier_that_there_is_not_is_refused_with_those_there_are(row, bridge, world):
    for tier in LLMTier:
        assert bridge.generate_text(STORY, tier=tier.value.title())
    models = [asked.model for asked in world.requests]
    assert models == [bridge.registry.get_by_tier(tier).model.split("/")[1] for tier in LLMTier]
    with pytest.raises(InputError) as caught:
        bridge.generate_text(prompt=STORY, tier="the best")
    assert all(tier.value in str(caught.value) for tier in LLMTier)
    assert isinstance(caught.value, AIError) and isinstance(caught.value, AIUtilitiesError)
    assert world.counts.requests == 4


@rows("S1-035", "S1-032", "S0-084")
def test_it_works_without_a_loop_inside_one_and_in_threads_of_its_own(row, bridge, world):
    async def inside():
        return bridge.generate_text(STORY), await asyncio.to_thread(bridge.generate_text, STORY)

    found = [bridge.generate_text(STORY), *asyncio.run(asyncio.wait_for(inside(), 20))]
    thread = threading.Thread(target=lambda: found.append(bridge.generate_text(STORY)))
    thread.start()
    thread.join(20)
    assert len(found) == 4 and {type(each) for each in found} == {str}
    assert world.counts.answers == 4


@rows("S1-032")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers that fork are of Unix")
def test_a_worker_that_was_forked_uses_the_bridge_of_its_parent(row, bridge, world):
    # As a task of a worker pool does: the module made its bridge, and used it, before the fork.
    assert bridge.generate_text(STORY)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        try:
            os.write(writer, bridge.generate_text("from the child").encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0 and "from the child" in told
    assert "again" in bridge.generate_text("again")


@rows("S1-032")
def test_a_command_of_its_own_process_ends_by_itself(row, place):
    import subprocess

    code = (
        "from polyvox.compat.creative_services.adapters import BFAgentLLMBridge as Bridge\n"
        "print(Bridge({'fast': {'model': 'demo', 'default': True}}).generate_text('hello'))"
    )
    src = Path(bfagent_compat.__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code], env={**os.environ, "PYTHONPATH": str(src)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "You said: hello" in done.stdout
    assert "ResourceWarning" not in done.stderr and "Traceback" not in done.stderr


@rows("S1-035")
def test_a_thousand_calls_leave_no_loop_no_thread_and_no_socket(row, bridge, world):
    def held():
        gc.collect()
        fds = len(os.listdir("/proc/self/fd"))
        loops = sum(isinstance(each, asyncio.AbstractEventLoop) for each in gc.get_objects())
        return fds, loops, threading.active_count()

    for _ in range(5):
        bridge.generate_text(STORY, tier="standard")
    before = held()
    for _ in range(1000):
        assert bridge.generate_text(STORY, tier="standard")
    after = held()
    assert all(now <= then + 3 for now, then in zip(after, before, strict=True)), (before, after)
    assert world.counts.requests == 1005 and world.counts.connections <= 3


def test_inside_the_loop_in_the_background_it_says_what_to_do(bridge):
    async def there():
        return bridge.generate_text(STORY)

    with pytest.raises(UsageError, match="wait for itself") as caught:
        portal.run(there())
    assert isinstance(caught.value, AIError)


@rows("S0-083", "S1-034")
def test_without_arguments_the_environment_says_who_answers(row, world, monkeypatch):
    with BFAgentLLMBridge() as bridge:
        bridge.generate_text(STORY)
        usual = bridge.registry.get_default()
        assert world.requests[-1].model == usual.model.split("/")[1] and usual.tier == "standard"
        monkeypatch.setenv("AI_MODEL", "gpt-4o-mini")
        bridge.generate_text(STORY)
        assert world.requests[-1].model == "gpt-4o-mini"
        registry = DictRegistry([Entry("own", "anthropic/claude-opus-5", tier="nightly")])
        bridge.generate_text(STORY, tier="nightly")
        assert world.requests[-1].model == "claude-opus-5" and len(registry.list_active()) == 1
    with BFAgentLLMBridge(DictRegistry([Entry("own", "openai/gpt-5", tier="standard")])) as given:
        given.generate_text(STORY)
    assert world.requests[-1].model == "gpt-5"


def test_older_keywords_are_understood(bridge, world):
    bridge.generate_text(
        user_prompt="Answer in JSON", provider="openai", model="gpt-4o-mini", max_tokens=9, temperature=0.1, top_p=0.5,
        response_format="json",
    )  # fmt: skip
    said = body(world.requests[0])
    assert (said["model"], said["temperature"], said["top_p"]) == ("gpt-4o-mini", 0.1, 0.5)
    assert 9 in said.values() and said["response_format"]["type"] == "json_object"
    bridge.generate_text(STORY, llm_name="anthropic-economy", response_format="text")
    assert world.requests[1].dialect == "anthropic.messages" and "response_format" not in body(world.requests[1])
    for wrong in ({}, {"prompt": STORY, "user_prompt": STORY}):
        with pytest.raises(InputError, match="say the prompt, once"):
            bridge.generate_text(**wrong)


def test_a_bridge_counts_and_tells_a_tracker_who_asked(world):
    tracker = InMemoryTracker()
    with BFAgentLLMBridge(tracker=tracker) as bridge:
        bridge.generate_text(STORY, tier="economy", user_id=7)
        assert bridge.get_stats().requests == 1
    stats = tracker.get_stats(user_id=7)
    assert stats.requests == 1 and stats.total_cost == bridge.get_stats().total_cost > Decimal(0)


# ---- the asynchronous one ---------------------------------------------------------------------


@rows("S1-041", "S1-043")
def test_there_is_an_asynchronous_one_and_it_needs_no_arguments(row, world):
    assert inspect.isclass(AsyncBFAgentLLMBridge) and not issubclass(AsyncBFAgentLLMBridge, BFAgentLLMBridge)
    assert type(awaited(lambda bridge: bridge.generate_text(STORY))) is str
    assert world.requests[0].model == DictRegistry.from_env().get_default().model.split("/")[1]


@rows("S1-044", "S1-045", "S1-046")
def test_it_is_awaited_under_the_same_name_and_gives_text(row, world):
    async def work(bridge):
        under_way = bridge.generate_text(prompt=STORY, tier="premium")
        assert inspect.iscoroutine(under_way)
        found = await under_way
        assert bridge.get_stats().requests == 1
        assert world.requests[0].model == bridge.registry.get_by_tier("premium").model.split("/")[1]
        with pytest.raises(InputError, match="economy, standard, premium, local"):
            await bridge.generate_text(prompt=STORY, tier="the best")
        return found

    result = awaited(work)
    assert type(result) is str and STORY in result
    ours, theirs = (inspect.signature(each.generate_text) for each in (AsyncBFAgentLLMBridge, BFAgentLLMBridge))
    assert list(ours.parameters)[:4] == list(theirs.parameters)[:4] == ["self", "prompt", "system_prompt", "tier"]


def test_at_its_end_it_is_closed(world):
    async def go():
        async with AsyncBFAgentLLMBridge() as bridge:
            await bridge.generate_text(STORY)
        with pytest.raises(UsageError, match="closed"):
            await bridge.generate_text(STORY, provider="openai", model="gpt-5")

    asyncio.run(go())


# ---- the older function -----------------------------------------------------------------------


class Story(BaseModel):
    title: str


class Choosy(Story):
    @field_validator("title")
    @classmethod
    def refuse(cls, value):
        raise ValueError("too plain")


@pytest.fixture
def older(world, monkeypatch):
    monkeypatch.setattr(bfagent_compat, "_bridge", None)
    yield world
    if bfagent_compat._bridge is not None:
        bfagent_compat._bridge.close()


@rows("S1-031")
def test_the_older_function_gives_text_for_keywords(row, older):
    found = [generate_text(prompt=STORY, system_prompt=WRITER, max_tokens=9), generate_text(STORY)]
    assert {type(each) for each in found} == {str}
    assert WRITER in older.requests[0].body.decode() and older.counts.answers == 2
    with pytest.raises(InputError):
        generate_text()


@rows("S1-031")
def test_the_older_function_gives_a_dict_for_a_request_and_raises_nothing(row, older):
    address = older.base_url("openai.chat").removeprefix("http://") + "/chat/completions"
    request = LlmRequest(
        provider="openai", api_endpoint=address, api_key="sk-own-0123456789", model="gpt-4o-mini", system=WRITER,
        prompt=STORY, temperature=0.1, top_p=0.9, max_tokens=50,
    )  # fmt: skip
    found = generate_text(request)
    assert (found["ok"], found["error"]) == (True, None) and STORY in found["text"]
    assert found["raw"]["choices"][0]["message"]["content"] == found["text"]
    assert isinstance(found["latency_ms"], int) and "structured" not in found
    said = body(older.requests[0])
    assert [message["content"] for message in said["messages"]] == [WRITER, STORY]
    assert (said["model"], said["temperature"], said["top_p"]) == ("gpt-4o-mini", 0.1, 0.9)
    assert generate_text(LlmRequest(provider="openai", prompt=STORY))["ok"]  # the key is the environment's

    class NotTheText:
        provider, prompt, api_key = "openai", "", None

    for wrong in (NotTheText(), LlmRequest(provider="nobody", prompt=STORY), LlmRequest(prompt=5), object()):
        failed = generate_text(wrong)
        assert (failed["ok"], failed["text"]) == (False, "") and failed["error"]
    assert "nobody" in generate_text(LlmRequest(provider="nobody", model="m", prompt=STORY))["error"]


@rows("S1-031")
def test_the_older_function_without_a_key_says_so(row, place):
    failed = generate_text(LlmRequest(provider="openai", model="gpt-4o-mini", prompt=STORY))
    assert failed["ok"] is False and "OPENAI_API_KEY" in failed["error"] and failed["raw"] == {}


@rows("S1-031")
def test_the_older_function_reads_an_answer_into_its_schema(row, older):
    found = generate_text(LlmRequest(provider="openai", model="gpt-4o-mini", prompt=STORY, response_schema=Story))
    schema = body(older.requests[0])["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["title"]["type"] == "string"
    assert found["ok"] and found["structured"] == Story(**json.loads(found["text"]))
    plain = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    found = generate_text(LlmRequest(provider="openai", model="gpt-4o-mini", prompt=STORY, response_schema=plain))
    assert found["structured"] == json.loads(found["text"]) and "title" in found["structured"]
    request = LlmRequest(provider="openai", model="gpt-4o-mini", prompt=STORY, response_schema=Choosy)
    found = generate_text(request)
    assert (found["ok"], found["structured"]) == (False, None) and "too plain" in found["error"] and found["text"]


@pytest.mark.parametrize(
    ("said", "url"),
    [
        ("api.openai.com/v1/chat/completions", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("localhost:8000/v1", "http://localhost:8000/v1"),
        (None, None),
    ],
)
def test_an_older_endpoint_may_lack_its_scheme_and_have_a_path_too_much(said, url):
    assert bfagent_compat._endpoint(said) == url


# ---- from the library of a vendor -------------------------------------------------------------


AFTER = """
from creative_services import DictRegistry, DynamicLLMClient, LLMTier
registry = DictRegistry.from_env()
client = DynamicLLMClient(registry)
content = (await client.generate(prompt=prompt, tier=LLMTier.STANDARD)).content
"""


@rows("S1-047", "S1-048", "S1-050")
def test_who_comes_from_a_vendors_library_reads_the_same(row, world):
    before = openai.OpenAI(api_key=os.environ["OPENAI_API_KEY"])  # OPENAI_BASE_URL says where
    with before:
        response = before.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": STORY}])
    content = response.choices[0].message.content

    there = blocks.execute(AFTER, {"prompt": STORY})
    asyncio.run(there["client"].aclose())
    registry = there["registry"]
    assert isinstance(registry, DictRegistry) and there["client"].registry is registry
    assert there["content"] == content and content
    theirs, ours = world.requests
    assert registry.get_by_tier("standard").model.endswith(f"/{ours.model}")
    assert (theirs.dialect, theirs.outcome, ours.outcome) == ("openai.chat", "answered", "answered")
    assert body(theirs)["messages"] == body(ours)["messages"]
