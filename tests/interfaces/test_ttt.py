"""TTT by its document: asked, streamed and talked to, awaited and not, with answers that are texts and know where they
come from, and errors of its own tree."""

import asyncio
import copy
import importlib
import inspect
import json
import pickle
import subprocess
import sys
import threading
import traceback
from decimal import Decimal

import pytest

import polyvox
from polyvox.compat import names, ttt
from polyvox.compat.ttt import AIResponse
from polyvox.compat.ttt import config as settings
from polyvox.errors import PolyvoxError
from polyvox.testing import Simulator
from polyvox.testing.fault_server import refused_port
from tests.interfaces.rows import rows

MODELS = {
    "gpt-4": ("cloud", "openai.chat"), "claude-haiku-4-5": ("cloud", "anthropic.messages"),
    "gemini-3-pro": ("cloud", "gemini.generate"), "openrouter/openai/gpt-99": ("cloud", "openai.chat"),
    "groq/llama-9": ("cloud", "openai.chat"), "llama2": ("local", "ollama.chat"),
}  # fmt: skip
"""Models of every provider the document names, who answers for each, and how that one is spoken to."""


@pytest.fixture(autouse=True)
def fresh():
    """Nothing is configured, and nothing is left behind."""
    settings.reset_config()
    yield
    settings.reset_config()


def asked_at(simulator, **facts):
    """OpenAI and the local server are this simulator from now on."""
    polyvox.configure(
        providers={
            "openai": {"base_url": simulator.base_url("openai.chat")},
            "ollama": {"base_url": simulator.base_url("ollama.chat")},
        },
        **facts,
    )


# ---- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "module", "name"),
    [
        pytest.param("S4-005", "api", "ask", id="S4-005"), pytest.param("S4-006", "api", "stream", id="S4-006"),
        pytest.param("S4-007", "api", "chat", id="S4-007"), pytest.param("S4-019", "api", "ask_async", id="S4-019"),
        pytest.param("S4-031", "backends", "BaseBackend", id="S4-031"),
        pytest.param("S4-039", "backends.cloud", "CloudBackend", id="S4-039"),
        pytest.param("S4-045", "backends.local", "LocalBackend", id="S4-045"),
        pytest.param("S4-051", "routing", "Router", id="S4-051"),
        pytest.param("S4-068", "config", "ConfigLoader", id="S4-068"),
        pytest.param("S4-076", "session", "ChatSession", id="S4-076"),
    ],
)  # fmt: skip
def test_a_name_is_at_the_root_and_where_its_heading_says(row, module, name):
    there = getattr(importlib.import_module(f"polyvox.compat.ttt.{module}"), name)
    assert getattr(ttt, name) is there and callable(there)
    assert name in dir(ttt) and there.__module__.startswith("polyvox.compat.ttt")


@rows("S4-004", "S4-020")
def test_every_function_has_its_awaited_twin_with_the_same_parameters(row):
    for plain, awaited in (("ask", "ask_async"), ("stream", "stream_async"), ("chat", "achat")):
        both = [inspect.signature(getattr(ttt, name)) for name in (plain, awaited)]
        assert list(both[0].parameters.values()) == list(both[1].parameters.values())
    assert inspect.iscoroutinefunction(ttt.ask_async) and not inspect.iscoroutinefunction(ttt.ask)
    for plain, awaited in ((ttt.ChatSession, ttt.AsyncChatSession),):
        told = [{name for name in vars(kind) if not name.startswith("_")} for kind in (plain, awaited)]
        assert told[0] == told[1] >= {"ask", "stream", "history"}


def test_importing_it_loads_no_framework_and_no_client():
    code = "import sys; import polyvox.compat.ttt; print([n for n in sys.modules if n.split('.')[0] in set(sys.argv)])"
    unwanted = ["django", "celery", "sqlalchemy", "pydantic_settings", "litellm", "ollama", "openai", "msgspec"]
    done = subprocess.run([sys.executable, "-c", code, *unwanted], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


WAITING = {
    "from polyvox.compat.ttt import tool": ("tool", "run as tools"),
    "from polyvox.compat.ttt.tools import tool": ("tools", "run as tools"),
    "import polyvox.compat.ttt.tools.executor": ("tools", "run as tools"),
    "from polyvox.compat.ttt import PersistentChatSession": ("PersistentChatSession", "sessions that are kept"),
    "from polyvox.compat.ttt.session import ChatSession, PersistentChatSession": (
        "PersistentChatSession", "sessions that are kept",
    ),
    "from polyvox.compat.ttt import plugins": ("plugins", "found and loaded"),
}  # fmt: skip
"""Imports that the document writes and that cannot work yet: the name, and the capability it waits for."""


@pytest.mark.parametrize("line", WAITING)
def test_a_name_of_a_later_capability_says_what_it_waits_for(line):
    for _ in range(2):  # the second import may not find half a module
        with pytest.raises(ImportError) as caught:
            exec(line, {})
        name, capability = WAITING[line]
        assert isinstance(caught.value, ttt.AIError) and caught.value.hint.endswith(" meanwhile")
        assert f"{name} comes with" in caught.value.message and capability in caught.value.message


def test_a_name_of_a_later_capability_is_not_there_for_who_looks():
    for name in ("tool", "tools", "PersistentChatSession", "plugins"):
        assert not hasattr(ttt, name) and getattr(ttt, name, None) is None and name not in dir(ttt)
        with pytest.raises(AttributeError, match=f"{name} comes with"):
            getattr(ttt, name)
    assert not hasattr(ttt.session, "PersistentChatSession")
    with pytest.raises(ImportError, match="cannot import name 'no_such_name'") as caught:
        exec("from polyvox.compat.ttt import no_such_name", {})
    assert not isinstance(caught.value, PolyvoxError)
    there = {}
    exec("from polyvox.compat.ttt import *", there)
    assert set(ttt.__all__) == set(there) - {"__builtins__"}


def test_a_module_of_the_document_is_there_for_who_has_the_root():
    code = "from polyvox.compat import ttt; print(ttt.config.get_config().get('backends.default'), ttt.routing.Router)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("auto <class")


# ---- asking -----------------------------------------------------------------------------------


@rows("S4-021", "S4-029", "S4-090")
def test_a_question_is_answered_with_a_text(world, row):
    response = ttt.ask("What is Python?", model="gpt-4")
    assert isinstance(response, AIResponse) and "What is Python?" in response
    (asked,) = world.requests
    assert (asked.model, asked.dialect) == ("gpt-4", "openai.chat")


@rows("S4-024", "S4-030")
def test_a_question_is_answered_to_who_awaits_it(world, row):
    async def go():
        response = await ttt.ask_async("What is Python?", model="gpt-4")
        assert isinstance(response, AIResponse) and "What is Python?" in response
        assert (response.model, response.backend, world.requests[0].model) == ("gpt-4", "cloud", "gpt-4")

    asyncio.run(go())


@rows("S4-027", "S4-091", "S4-089", "S4-041")
@pytest.mark.parametrize("model", MODELS)
def test_every_provider_is_asked_alike_and_its_answer_tells_the_same(world, row, model):
    backend, dialect = MODELS[model]
    response = ttt.ask("hello", model=model, system="Be brief.", max_tokens=50)
    assert [asked.dialect for asked in world.requests] == [dialect]
    assert (response.model, response.backend, response.finish_reason) == (model, backend, "stop")
    assert response.tokens_in > 0 and response.tokens_out > 0 and response.usage.source == "provider"
    assert response.time > 0 and len(response.attempts) == 1 and response.metadata["provider"]
    assert "hello" in "".join(ttt.stream("hello", model=model))


def test_what_is_not_said_is_not_sent_and_what_is_configured_is(world):
    ttt.ask("hello", model="gpt-4")
    settings.configure(temperature=0.5, system="Be brief.")
    ttt.ask("hello", model="gpt-4")
    ttt.ask("hello", model="gpt-4", temperature=0.1)
    bodies = [json.loads(asked.body) for asked in world.requests]
    assert "temperature" not in bodies[0] and "max_tokens" not in bodies[0] and len(bodies[0]["messages"]) == 1
    assert bodies[1]["temperature"] == 0.5 and bodies[1]["messages"][0]["content"] == "Be brief."
    assert bodies[2]["temperature"] == 0.1


@rows("S4-085")
@pytest.mark.parametrize("prompt", ["", "  ", None, 5])
def test_no_question_is_refused_before_anything_is_sent(world, row, prompt):
    with pytest.raises(ttt.AIError):
        ttt.ask(prompt, model="gpt-4")
    with pytest.raises(ttt.AIError):
        list(ttt.stream(prompt, model="gpt-4"))
    assert world.counts.requests == 0


# ---- the answer -------------------------------------------------------------------------------


@rows("S4-009", "S4-028")
def test_an_answer_is_its_text_knows_the_rest_and_survives_pickle_copy_and_json(world, row):
    response = ttt.ask("hello", model="gpt-4")
    assert (response.model, response.backend) == ("gpt-4", "cloud")
    assert (response.tokens_in, response.tokens_out) == (response.usage.input, response.usage.output)
    assert response.tokens_total == response.tokens_in + response.tokens_out
    assert isinstance(response.cost, Decimal) and response.cost > 0
    assert response.tool_calls == () and response.attempts[0].outcome == "ok"
    for again in (pickle.loads(pickle.dumps(response)), copy.deepcopy(response)):
        assert again == response and type(again) is AIResponse and vars(again) == vars(response)
    assert json.loads(json.dumps({"answer": response})) == {"answer": str(response)}
    assert response.text == response and type(response.text) is str and hash(response) == hash(response.text)


def test_what_nobody_told_is_none_and_never_nothing():
    response = AIResponse("hello")
    told = (response.model, response.backend, response.tokens_in, response.tokens_out, response.time, response.cost)
    assert told == (None,) * 6 and response.tokens_total is None and response.metadata == {}
    assert AIResponse("a", cost="0.10").cost == Decimal("0.10")


def test_calls_of_tools_are_told(world):
    def weather(city: str) -> str:
        """The weather of a city."""
        raise AssertionError(city)

    response = ttt.ask("call weather", model="gpt-4", tools=[weather], tool_choice="required")
    assert [call.name for call in response.tool_calls] == ["weather"] and response.finish_reason == "tool_calls"


# ---- streams ----------------------------------------------------------------------------------


@pytest.fixture
def slow(world):
    """A provider that writes slowly, and what it has ended."""
    ended = threading.Event()
    with Simulator(token_rate=15, on_answer=lambda _: ended.set()) as simulator:
        asked_at(simulator)
        yield simulator, ended


@rows("S4-022", "S4-044")
def test_the_first_piece_is_there_before_the_last_is_written(slow, row):
    pieces = ttt.stream("Generate a text of some words", model="gpt-4")
    first = next(pieces)
    assert isinstance(first, str) and first and not slow[1].is_set()
    rest = list(pieces)
    assert slow[1].wait(10) and len(rest) > 1 and "Generate" in first + "".join(rest)


@rows("S4-025")
def test_the_first_piece_is_there_early_for_who_awaits_it_too(slow, row):
    async def go():
        pieces = ttt.stream_async("Generate a text of some words", model="gpt-4")
        first = await anext(pieces)
        assert isinstance(first, str) and first and not slow[1].is_set()
        assert "Generate" in first + "".join([piece async for piece in pieces])

    asyncio.run(go())


@rows("S4-108")
def test_leaving_a_stream_ends_it_at_the_provider(slow, row):
    simulator, ended = slow
    for _piece in ttt.stream("Generate a text of very many words " * 20, model="gpt-4"):
        break
    assert ended.wait(5)
    assert simulator.counts.cut_by_client == 1, "it was cut, and not written to its end"


# ---- conversations ----------------------------------------------------------------------------


@rows("S4-023", "S4-078", "S4-138")
def test_a_conversation_takes_along_what_was_said(world, row):
    with ttt.chat(model="gpt-4", system="Be brief.") as session:
        assert isinstance(session, ttt.ChatSession)
        first = session.ask("My name is Ada.")
        second = session.ask("What is my name?")
        assert "".join(session.stream("And mine?")) and len(session.history) == 6
    roles = [message["role"] for message in json.loads(world.requests[1].body)["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert second.tokens_in > first.tokens_in and (second.model, second.backend) == ("gpt-4", "cloud")
    session.undo()
    assert len(session.history) == 4
    session.clear()
    assert session.history == ()


@rows("S4-026", "S4-138")
def test_a_conversation_can_be_awaited(world, row):
    async def go():
        async with ttt.achat(model="llama2") as session:
            asking = session.ask("My name is Ada.")
            assert inspect.isawaitable(asking)
            first = await asking
            second = await session.ask("What is my name?")
            assert "".join([piece async for piece in session.stream("And mine?")])
        assert isinstance(first, AIResponse) and second.tokens_in > first.tokens_in and len(session.history) == 6
        assert (second.backend, session.backend, session.model) == ("local", "local", "llama2")

    asyncio.run(go())


def test_a_turn_that_fails_leaves_the_conversation_as_it_was(world):
    with Simulator(plan=[{"kind": "status", "status": 400, "at": [2]}]) as simulator:
        asked_at(simulator)
        session = ttt.chat(model="gpt-4")
        session.ask("one")
        with pytest.raises(ttt.AIError):
            session.ask("two")
        assert session.history[0].text == "one" and len(session.history) == 2
        assert "three" in session.ask("three")


# ---- errors -----------------------------------------------------------------------------------

TREE = {
    "APIKeyError": "S4-153", "ModelNotFoundError": "S4-154", "BackendNotAvailableError": "S4-155",
    "RateLimitError": "S4-156", "ToolExecutionError": "S4-157", "ConfigurationError": "S4-158",
}  # fmt: skip


@rows("S4-152")
def test_one_error_catches_all_that_the_document_names_and_all_that_is_raised(place, row):
    for name in TREE:
        assert issubclass(getattr(ttt, name), ttt.AIError) and getattr(ttt, name) is not ttt.AIError
    for wrong in (
        lambda: ttt.ask("hello", model="gpt-4"),  # no key
        lambda: ttt.ask("hello", model="nobody/has-this"),
        lambda: ttt.ask("hello", backend="nowhere"),
        lambda: ttt.ask("hello", model="demo", temperature="warm"),
        lambda: ttt.ask("hello", model=5),
        lambda: ttt.configure(nothing=1),
        lambda: ttt.model_registry.get_model("no-such-model"),
        lambda: ttt.Backend.create("local", 5),
    ):
        with pytest.raises(ttt.AIError) as caught:
            wrong()
        assert isinstance(caught.value, PolyvoxError) and caught.value.hint


@rows("S4-153", "S4-043")
def test_a_missing_and_a_wrong_key_name_provider_and_variable_and_never_the_key(world, monkeypatch, row):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(ttt.APIKeyError) as caught:
        ttt.ask("hello", model="claude-haiku-4-5")
    assert "ANTHROPIC_API_KEY" in str(caught.value) and "anthropic" in str(caught.value).lower()
    with Simulator(keys=["another-key"]) as simulator:
        asked_at(simulator)
        with pytest.raises(ttt.APIKeyError) as caught:
            ttt.ask("hello", model="gpt-4")
        assert simulator.counts.requests == 1, "what cannot succeed is asked once"
    told = "".join(traceback.format_exception(caught.value))
    assert caught.value.provider == "openai" and "sk-test-openai" not in told


@rows("S4-154", "S4-043")
@pytest.mark.parametrize(
    ("model", "hint"),
    [("gpt-5.4-mni", "gpt-5.4-mini"), ("gpt-4", "gpt-5.6-sol"), ("claud-haiku-4-5", "claude-haiku-4-5")],
)
def test_an_unknown_model_and_a_retired_one_say_what_to_ask_instead(world, model, hint, row):
    with Simulator(models=["another"]) as simulator:
        asked_at(simulator)
        with pytest.raises(ttt.ModelNotFoundError) as caught:
            ttt.ask("hello", model=model)
        assert hint in caught.value.hint
        with pytest.raises(ttt.ModelNotFoundError) as caught:
            list(ttt.stream("hello", model=model))
    assert hint in caught.value.hint


@rows("S4-155", "S4-043", "S4-058")
def test_a_backend_that_is_off_is_told_as_that(world, row):
    polyvox.configure(retries=0, providers={"ollama": {"base_url": f"http://127.0.0.1:{refused_port()}"}})
    with pytest.raises(ttt.BackendNotAvailableError) as caught:
        ttt.ask("Private data", model="llama2")
    assert isinstance(caught.value, ttt.AIError) and "ollama serve" in caught.value.hint
    assert world.counts.requests == 0, "it never goes to the cloud instead"


@rows("S4-156", "S4-043")
def test_a_limit_says_how_long_to_wait_and_is_what_ai_utilities_calls_it_too(world, row):
    plan = [{"kind": "status", "status": 429, "headers": {"retry-after": "7"}}]
    with Simulator(plan=plan) as simulator:
        asked_at(simulator, retries=0)
        with pytest.raises(ttt.RateLimitError) as caught:
            ttt.ask("hello", model="gpt-4")
    assert caught.value.retry_after == 7 and isinstance(caught.value, names.ProviderRateLimitError)


@rows("S4-158")
@pytest.mark.parametrize(
    ("name", "text", "line"),
    [("ttt.yaml", "models:\n  default: [", 2), ("ttt.yml", "timeout: -1\n", 1), ("ttt.toml", "a = 1\nb =\n", 2)],
)
def test_a_bad_file_is_named_with_its_line(place, row, name, text, line):
    (place / "home" / "polyvox" / name).write_text(text)
    with pytest.raises(ttt.ConfigurationError) as caught:
        ttt.ask("hello", model="demo")
    assert f"{name}:{line}" in str(caught.value)


@rows("S4-043")
def test_one_budget_of_retries_holds_for_the_whole_call(world, row):
    with Simulator(plan=[{"kind": "status", "status": 503}]) as simulator:
        asked_at(simulator)
        settings.configure(retries=1)
        with pytest.raises(ttt.AIError) as caught:
            ttt.ask("hello", model="gpt-4")
        assert simulator.counts.requests == 2 == len(caught.value.attempts)
    with Simulator(plan=[{"kind": "status", "status": 503, "at": [1]}]) as simulator:
        asked_at(simulator)
        assert [attempt.outcome for attempt in ttt.ask("hello", model="gpt-4").attempts] == ["server", "ok"]


def test_inside_a_running_loop_the_plain_functions_work_too(world):
    async def inside():
        return ttt.ask("hello", model="gpt-4"), list(ttt.stream("hello", model="gpt-4"))

    response, pieces = asyncio.run(inside())
    assert response == "".join(pieces)
