"""Promises of TTT to who makes mistakes: each is said in plain words, nothing is dropped in silence, nothing hangs, and
nothing is kept that nobody needs."""

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time
import traceback
import weakref
from pathlib import Path

import pytest

import polyvox
from polyvox import catalog
from polyvox.compat import shared, ttt
from polyvox.compat.names import AIUtilitiesError, ValidationError
from polyvox.compat.ttt import AIError, AIResponse, Backend, BaseBackend, CloudBackend, ConfigurationError, Router
from polyvox.compat.ttt import config as settings
from polyvox.compat.ttt.stepping import waited
from polyvox.errors import ConfigError, InputError
from polyvox.registry import DictRegistry, Entry
from polyvox.testing import Simulator
from polyvox.testing.fault_server import FaultServer, answer
from tests.interfaces.rows import rows
from tests.interfaces.test_ttt_backends import at

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def fresh():
    """Nothing is configured or registered, and nothing is left behind."""
    settings.reset_config()
    yield
    settings.reset_config()
    for name in Backend.names():
        if name not in ("cloud", "local"):
            Backend.unregister(name)


class Parrot(BaseBackend):
    name = "parrot"

    async def ask(self, prompt, **kwargs):
        return AIResponse(f"You said: {prompt}")


class Small(Parrot):
    """An object that cannot be hashed and is equal to all."""

    __hash__ = None

    def __eq__(self, other):
        return True


def alone(code, *flags):
    """What a fresh process prints that ends by itself, without a word of warning."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


# ---- backends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "what"),
    [(5, "int cannot be asked"), (object(), "cannot be asked"), (CloudBackend, "not the class CloudBackend")],
    ids=["number", "object", "class"],
)
def test_what_is_no_backend_is_refused_as_that(place, given, what):
    with pytest.raises(AIError, match=what) as caught:
        ttt.ask("hello", backend=given)
    assert isinstance(caught.value, InputError) and caught.value.hint


def test_any_object_with_an_ask_is_a_backend_whatever_it_is_equal_to(place):
    assert ttt.ask("hello", backend=Small()) == "You said: hello"


def test_objects_that_were_given_as_backends_are_not_kept_forever(place):
    seen = []
    for _ in range(60):
        parrot = Parrot()
        assert ttt.ask("hello", backend=parrot)
        seen.append(weakref.ref(parrot))
    del parrot
    gc.collect()
    assert sum(one() is not None for one in seen) <= 20


@rows("S4-101")
def test_a_built_in_backend_is_found_in_any_case(row, place):
    assert type(Backend.create("CLOUD")) is CloudBackend
    assert Router().backend("Cloud").name == "cloud"


@rows("S4-111")
@pytest.mark.parametrize("name", [5, "", "a b"])
def test_a_backend_is_registered_under_a_word_alone(row, place, name):
    with pytest.raises(AIError, match="name"):
        Backend.register(Parrot(), name)
    assert Backend.names() == ["cloud", "local"]


@rows("S4-040")
def test_an_engine_that_is_not_installed_is_not_available(row, place, monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm", None)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdef")
    cloud = Backend.create("cloud", {"engine": "litellm"})
    told = asyncio.run(cloud.status())
    assert told["available"] is False and "litellm" in told["detail"]
    with pytest.raises(ConfigurationError, match="LiteLLM"):
        asyncio.run(cloud.models())


# ---- tiers in the place of models --------------------------------------------------------------


def test_a_tier_is_asked_though_a_model_is_usual_and_never_beside_one(place):
    registry = DictRegistry([Entry("good", "demo", tier="premium"), Entry("usual", "demo", default=True)])
    shared.EVERYONE.publish(registry)
    assert ttt.ask("hello", tier="premium").metadata["deployment"] == "good"
    ttt.configure(models={"default": "gpt-4"})
    answer = ttt.ask("hello", tier="premium")
    assert (answer.metadata["deployment"], answer.metadata["reason"]) == ("good", "the tier premium is named")
    assert "".join(ttt.stream("hello", tier="premium")) == answer
    with ttt.chat(tier="premium") as session:
        assert session.ask("hello").metadata["deployment"] == "good"
    with pytest.raises(InputError, match="a model or a tier, not both"):
        ttt.ask("hello", model="demo", tier="premium")


# ---- configuration ----------------------------------------------------------------------------


class Loader(settings.ConfigLoader):
    def load(self):
        return {"models": {"default": "demo"}}


@rows("S4-122")
@pytest.mark.parametrize("wrong", [5, Loader], ids=["number", "class"])
def test_what_is_no_loader_is_refused_wherever_it_is_given(row, place, wrong):
    for call in (lambda: settings.add_loader(wrong), lambda: settings.Config(loaders=[wrong])):
        with pytest.raises(ConfigurationError, match="derived from ConfigLoader"):
            call()
    with pytest.raises(ConfigurationError, match="ConfigLoader"):
        settings.Config(loaders=wrong)


@rows("S4-122")
def test_a_priority_is_a_number(row, place):
    with pytest.raises(ConfigurationError, match="priority is a number, not 'high'"):
        settings.add_loader(Loader(), "high")
    assert settings.get_config().get("models.default") is None
    settings.add_loader(Loader(), settings.PRIORITIES["files"] + 1)
    assert settings.get_config().get("models.default") == "demo"


@rows("S4-104")
def test_a_router_takes_tables_of_settings(row, place):
    router = Router({"models": {"default": "llama2"}})
    assert router.select_backend().name == "local"
    with pytest.raises(ConfigError, match="table of settings"):
        Router(5)


@rows("S4-071")
def test_a_change_of_the_environment_is_seen_at_once_and_another_one_reads_nothing_anew(row, place, monkeypatch):
    before = settings.get_config()
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    assert settings.get_config() is before
    monkeypatch.setenv("AI_DEFAULT_MODEL", "demo")
    assert settings.get_config().get("models.default") == "demo"
    monkeypatch.delenv("AI_DEFAULT_MODEL")
    assert settings.get_config().get("models.default") is None


# ---- answers ----------------------------------------------------------------------------------


@rows("S4-028")
@pytest.mark.parametrize("wrong", [None, 5, b"hello"])
def test_an_answer_is_made_of_text_alone(row, wrong):
    with pytest.raises(InputError, match="the text of an answer is text"):
        AIResponse(wrong)
    assert AIResponse() == ""


@rows("S4-028")
@pytest.mark.parametrize("wrong", ["much", float("nan"), float("inf")])
def test_a_cost_is_an_amount(row, wrong):
    with pytest.raises(ValidationError, match="amount of USD") as caught:
        AIResponse("hello", cost=wrong)
    assert isinstance(caught.value, AIUtilitiesError)


@rows("S4-028")
@pytest.mark.parametrize(
    ("fact", "wrong"),
    [
        ("tokens_in", "a"), ("tokens_in", -1), ("tokens_out", 1.5), ("time", "now"), ("time", float("nan")),
        ("cost", -1), ("usage", 5), ("tool_calls", 5), ("attempts", "ok"), ("metadata", 5), ("metadata", "x"),
    ],
)  # fmt: skip
def test_a_fact_of_an_answer_that_cannot_be_is_named(row, fact, wrong):
    with pytest.raises(InputError, match=f"^{fact} is a") as caught:
        AIResponse("hello", **{fact: wrong})
    assert isinstance(caught.value, AIError) and caught.value.param == fact


# ---- models -----------------------------------------------------------------------------------


@rows("S4-117", "S4-121")
@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"name": None}, "name of a model is text"), ({"name": " "}, "name of a model is text"),
        ({"name": "x", "provider": None}, "provider of a model is text"),
        ({"name": "x", "context_length": "8k"}, "context_length is a whole number of tokens, not '8k'"),
        ({"name": "x", "context_length": 8192.0}, "context_length is a whole number"),
        ({"name": "x", "context_length": True}, "context_length is a whole number"),
        ({"name": "x", "max_output": 0}, "max_output is a whole number of tokens, not 0"),
        ({"name": "x", "capabilities": None}, "capabilities is a list of words"),
        ({"name": "x", "capabilities": 5}, "capabilities is a list of words"),
        ({"name": "x", "aliases": "y"}, "aliases is a list of words"),
    ],
    ids=str,
)  # fmt: skip
def test_a_field_of_a_model_that_cannot_be_is_called_as_the_document_calls_it(row, place, facts, what):
    with pytest.raises(InputError, match=what) as caught:
        ttt.model_registry.add_model(ttt.ModelInfo(**facts))
    assert isinstance(caught.value, AIError) and catalog.added() == ()


@pytest.mark.parametrize("wrong", [None, 5, ""])
def test_a_name_that_is_no_text_is_refused_by_the_registry(place, wrong):
    for call in (ttt.model_registry.get_model, ttt.model_registry.remove_model):
        with pytest.raises(InputError, match="the name of a model is text"):
            call(wrong)
    assert wrong not in ttt.model_registry


def test_the_models_of_nobody_are_no_empty_list(place):
    with pytest.raises(ConfigurationError, match="opanai") as caught:
        ttt.model_registry.list_models("opanai")
    assert "openai" in caught.value.hint
    assert ttt.model_registry.list_models("ollama") == [], "whose models only its server tells"
    ttt.model_registry.add_model(name="mine", provider="house")
    assert [model.name for model in ttt.model_registry.list_models("house")] == ["mine"]


def test_of_models_that_share_a_name_the_newest_is_told_and_none_is_asked(world):
    for provider in ("openai", "ollama"):
        ttt.model_registry.add_model(name=f"twin-{provider}", provider=provider, aliases=["twin"])
    assert ttt.model_registry.get_model("twin").name == "twin-ollama"
    with pytest.raises(AIError, match="'twin' is ambiguous") as caught:
        ttt.ask("hello", model="twin")
    assert "ollama/twin" in caught.value.hint and world.counts.requests == 0


# ---- conversations ----------------------------------------------------------------------------


@rows("S4-078")
def test_no_turn_is_lost_where_several_are_asked_at_once(row, world):
    session, failed = ttt.chat(model="gpt-4"), []

    def turn(number):
        try:
            session.ask(f"question {number}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=turn, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    asked = [message.text for message in session.history[::2]]
    assert sorted(asked) == [f"question {number}" for number in range(8)]
    assert [message.role for message in session.history] == ["user", "assistant"] * 8
    for question, told in zip(session.history[::2], session.history[1::2], strict=True):
        assert question.text in told.text


@rows("S4-078")
def test_a_question_while_a_stream_is_read_is_kept_beside_it(row, world):
    with Simulator(token_rate=30) as simulator:
        at(simulator)
        session = ttt.chat(model="gpt-4")
        pieces = session.stream("the first one")
        next(pieces)
        session.ask("the second one")
        assert len(session.history) == 2, "the stream is still read"
        assert list(pieces)
    assert [message.text for message in session.history[::2]] == ["the second one", "the first one"]


@pytest.mark.parametrize("wrong", ["hello", b"hello", 5])
def test_earlier_turns_are_a_list(place, wrong):
    with pytest.raises(InputError, match="messages must be a sequence of messages"):
        ttt.chat(model="demo", messages=wrong)


def test_a_conversation_shows_where_it_is(place):
    session = ttt.chat(model="demo")
    session.ask("hello")
    assert repr(session) == "<ChatSession of demo at 'cloud', 2 messages>"
    assert repr(ttt.achat()) == "<AsyncChatSession at 'cloud', 0 messages>"


# ---- Ctrl-C -----------------------------------------------------------------------------------

INTERRUPTED = """
import os, signal, threading
from polyvox.compat import ttt
from polyvox.testing import Simulator
os.environ["OPENAI_API_KEY"] = "sk-test-0123456789abcdef"
ended = threading.Event()
with Simulator(token_rate=20, on_answer=lambda _: ended.set()) as simulator:
    import polyvox
    polyvox.configure(providers={"openai": {"base_url": simulator.base_url("openai.chat"), "hosts": ["127.0.0.1"]}})
    session = ttt.chat(model="gpt-4")
    pieces = session.stream("word " * 200)
    got = [next(pieces)]
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        got += pieces
    except KeyboardInterrupt:
        print("interrupted", 0 < len(got) < 200, ended.wait(10), simulator.counts.cut_by_client, len(session.history))
    print(ttt.ask("hello", model="demo")[:6])
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@rows("S4-044", "S4-137")
def test_ctrl_c_ends_a_stream_at_the_provider_and_the_program_goes_on(row, place):
    assert alone(INTERRUPTED).splitlines() == ["interrupted True True 1 0", "[demo]"]


# ---- models that were added -------------------------------------------------------------------


@rows("S4-117")
def test_a_model_that_is_forgotten_leaves_the_others(row, place):
    known = catalog.load()
    for name in ("one", "two"):
        ttt.model_registry.add_model(name=name, provider="custom", aliases=[f"{name}-latest"])
    ttt.model_registry.add_model(name="one", provider="custom", context_length=8192)  # in its own place
    assert [model.name for model in catalog.added()] == ["custom/two", "custom/one"]
    ttt.model_registry.remove_model("one")
    assert [model.name for model in catalog.added()] == ["custom/two"]
    assert ttt.model_registry.has_model("two-latest") and not ttt.model_registry.has_model("one")
    ttt.model_registry.remove_model("two-latest")
    assert catalog.added() == () and catalog.load() is known


# ---- the end of a program ---------------------------------------------------------------------

LEFT = """
import asyncio, polyvox
from polyvox.compat import ttt
from polyvox.compat.creative_services import DynamicLLMClient, LLMClient, LLMConfig
from polyvox.compat.creative_services.adapters import BFAgentLLMBridge
from polyvox.testing import Simulator
from polyvox.testing.fault_server import FaultServer, answer
import os
simulator = Simulator().__enter__()
os.environ.update(simulator.environment)
os.environ["OPENAI_API_KEY"] = "sk-test-0123456789abcdef"
polyvox.configure(providers={name: {"hosts": ["127.0.0.1"]} for name in ("openai", "openai-responses")})
ttt.ask("hello", model="openai/gpt-4")
async def awaited():
    await ttt.ask_async("hello", model="openai/gpt-4")
    await LLMClient(LLMConfig("openai")).generate("hello")
    await DynamicLLMClient().generate("hello", tier="standard")
    async for _ in ttt.stream_async("hello", model="openai/gpt-4"):
        break
asyncio.run(awaited())
asyncio.run(awaited())
bridge = BFAgentLLMBridge()
bridge.generate_text("hello", tier="standard")
session = ttt.chat(model="openai/gpt-4")
session.ask("hello")
pieces = ttt.stream("hello", model="openai/gpt-4")
next(pieces)
others = session.stream("hello")
next(others)
print("end")
simulator.__exit__(None, None, None)
"""


@rows("S4-129", "S4-137")
def test_a_program_that_closes_nothing_ends_without_a_word(row, place):
    began = time.monotonic()
    assert alone(LEFT) == "end"
    assert time.monotonic() - began < 30


def test_a_question_that_comes_while_the_interpreter_ends_is_refused_and_does_not_hang(place):
    code = """
from polyvox.compat import ttt
class Late:
    def __init__(self):
        self.ask = ttt.ask
    def __del__(self):
        try:
            self.ask("hello", model="demo")
        except Exception as error:
            print(type(error).__name__, "exiting" in str(error), flush=True)
late = Late()
late.ask("hello", model="demo")
"""
    assert alone(code) == "UsageError True"


@rows("S4-140")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_a_key_that_a_provider_says_again_is_shown_nowhere(row, place, monkeypatch, caplog, status):
    key = "sk-canary-0123456789abcdefghijklmnop"
    told = json.dumps({"error": {"message": f"no {key}", "type": key, "code": key, "param": key}}).encode()
    monkeypatch.setenv("OPENAI_API_KEY", key)
    headers = ("content-type: application/json", f"x-request-id: {key}", "retry-after: 0")
    with FaultServer(answer(told, *headers, status=f"{status} No")) as server:
        polyvox.configure(providers={"openai": {"base_url": server.url, "hosts": ["127.0.0.1"]}}, retries=0)
        with caplog.at_level(1), pytest.raises(AIError) as caught:
            ttt.ask("hello", model="openai/gpt-4o")
        with pytest.raises(AIError) as streamed:
            list(ttt.stream("hello", model="openai/gpt-4o"))
    for error in (caught.value, streamed.value):
        shown = f"{error}{error!r}{vars(error)}{''.join(traceback.format_exception(error))}{caplog.text}"
        assert key not in shown and error.request_id == "***" and error.status == status


@rows("S4-137")
def test_a_stream_that_is_dropped_in_the_loops_own_thread_is_closed_by_the_loop(row, world):
    async def dropped():
        pieces.clear()  # as a collection of garbage does, in whichever thread it runs

    ended = threading.Event()
    with Simulator(token_rate=15, on_answer=lambda _: ended.set()) as simulator:
        at(simulator)
        pieces = [ttt.stream("Generate a text of very many words " * 20, model="gpt-4")]
        next(pieces[0])
        waited(dropped())
        assert ended.wait(5) and simulator.counts.cut_by_client == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_of_a_fork_asks_like_its_parent(place):
    code = """
import os
from polyvox.compat import ttt
from polyvox.compat.creative_services.adapters import BFAgentLLMBridge
bridge = BFAgentLLMBridge({"fast": {"model": "demo", "default": True}})
first = (ttt.ask("hello", model="demo"), bridge.generate_text("hello"))
pid = os.fork()
if pid == 0:
    os._exit(0 if (ttt.ask("hello", model="demo"), bridge.generate_text("hello")) == first else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert alone(code) == "0"
