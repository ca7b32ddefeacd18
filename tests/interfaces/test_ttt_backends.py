"""TTT's backends: one interface for the cloud, for this machine and for whatever somebody writes; chosen by the model's
name, and by nothing else."""

import asyncio
import inspect
import socket
import subprocess
import sys
import types

import pytest

import polyvox
from polyvox import catalog
from polyvox.compat import shared, ttt
from polyvox.compat.ttt import AIResponse, Backend, BaseBackend, CloudBackend, LocalBackend, ModelInfo, Router
from polyvox.compat.ttt import config as settings
from polyvox.registry import DictRegistry, Entry
from polyvox.testing import Simulator
from polyvox.testing.fault_server import refused_port
from tests.interfaces.rows import rows


@pytest.fixture(autouse=True)
def fresh():
    """Nothing is configured or registered, and nothing is left behind."""
    settings.reset_config()
    yield
    settings.reset_config()
    for name in Backend.names():
        if name not in ("cloud", "local"):
            Backend.unregister(name)


class CustomBackend(BaseBackend):
    """As the document has it, with an answer."""

    @property
    def name(self) -> str:
        return "custom"

    async def ask(self, prompt: str, **kwargs) -> AIResponse:
        return AIResponse(f"You said: {prompt}", tokens_in=3, cost="0.5", metadata={"heard": sorted(kwargs)})


class Silent(CustomBackend):
    async def ask(self, prompt: str, **kwargs) -> AIResponse:
        pass


def at(simulator, **facts):
    """OpenAI and the local server are this simulator from now on."""
    places = {"openai": "openai.chat", "ollama": "ollama.chat"}
    polyvox.configure(providers={n: {"base_url": simulator.base_url(d)} for n, d in places.items()}, **facts)


# ---- the contract -----------------------------------------------------------------------------

MEMBERS = {
    "S4-033": "ask", "S4-034": "astream", "S4-035": "models", "S4-036": "status", "S4-037": "name",
    "S4-038": "is_available",
}  # fmt: skip


@rows("S4-010", "S4-032", "S4-110", "S4-109")
def test_a_backend_has_six_members_of_which_two_must_be_written(row):
    assert all(hasattr(BaseBackend, name) for name in MEMBERS.values())
    assert BaseBackend.__abstractmethods__ == {"name", "ask"}
    with pytest.raises(TypeError, match="abstract"):
        BaseBackend()
    assert isinstance(CustomBackend(), BaseBackend)


@rows("S4-112")
def test_ask_has_the_signature_of_the_document(row):
    signature = inspect.signature(BaseBackend.ask)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    assert list(kinds)[:2] == ["self", "prompt"] and kinds["kwargs"] is inspect.Parameter.VAR_KEYWORD
    assert signature.return_annotation == "AIResponse" and inspect.iscoroutinefunction(BaseBackend.ask)


@pytest.mark.parametrize(("row", "member"), [pytest.param(row, name, id=row) for row, name in MEMBERS.items()])
@pytest.mark.parametrize("kind", ["cloud", "local", "custom"])
def test_each_member_works_at_every_backend(world, row, member, kind):
    backend = CustomBackend() if kind == "custom" else Backend.create(kind, {"model": "gpt-4"})

    async def go():
        async with backend:
            if member == "ask":
                assert isinstance(await backend.ask("hello"), AIResponse)
            elif member == "astream":
                pieces = [piece async for piece in backend.astream("hello there")]
                assert len(pieces) > 1 and "hello there" in "".join(pieces)
            elif member == "models":
                told = await backend.models()
                assert type(told) is list and bool(told) is (kind != "custom")
                assert all(isinstance(name, str) for name in told)
            elif member == "status":
                told = await backend.status()
                assert told["available"] is True and told["latency"] >= 0 and isinstance(told["detail"], str)
            elif member == "name":
                assert backend.name == kind
            else:
                assert backend.is_available is True

    asyncio.run(go())


def test_the_default_stream_gives_the_whole_answer_in_words():
    async def go(backend):
        return [piece async for piece in backend.astream(" a  b\nc ")]

    assert asyncio.run(go(CustomBackend())) == ["You ", "said:  ", "a  ", "b\n", "c "]
    with pytest.raises(ttt.AIError, match="NoneType"):
        asyncio.run(go(Silent()))


@rows("S4-036", "S4-038")
def test_what_is_off_says_so_and_nobody_is_asked_for_it_twice(world, row, monkeypatch):
    local = Backend.create("local", {"base_url": f"http://127.0.0.1:{refused_port()}", "retries": 0})
    told = asyncio.run(local.status())
    assert told["available"] is False and told["latency"] is None and "ollama serve" in told["detail"]
    assert local.is_available is False
    for name in ("OPENAI", "ANTHROPIC", "GROQ", "OPENROUTER", "GEMINI", "MISTRAL"):
        monkeypatch.delenv(f"{name}_API_KEY")
    cloud = Backend.create("cloud", {})

    def no_network(*_):
        raise AssertionError("a network was touched")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    assert cloud.is_available is False and asyncio.run(cloud.status())["available"] is False


class Broken(CustomBackend):
    async def models(self):
        raise RuntimeError("the list is lost, sk-test-0123456789abcdefghij")


def test_a_backend_whose_list_fails_is_not_available_and_shows_no_key():
    told = asyncio.run(Broken().status())
    assert told["available"] is False and "the list is lost" in told["detail"] and "0123456789" not in told["detail"]


# ---- by name ----------------------------------------------------------------------------------


@rows("S4-100", "S4-101", "S4-102")
@pytest.mark.parametrize("config", [{}, None, {"timeout": 5}, {"backends": {"local": {"timeout": 5}}}])
def test_a_backend_is_made_by_name_with_any_form_of_configuration(place, row, config):
    for name, kind in (("cloud", CloudBackend), ("local", LocalBackend)):
        made = [Backend.create(name, config), Backend.create(name, ttt.Config({"timeout": 3}))]
        assert [type(one) for one in made] == [kind, kind] and made[0].name == name
        assert made[1].said["timeout"] == 3
    with pytest.raises(ttt.ConfigurationError, match="cloud, local"):
        Backend.create("nowhere", config)


@pytest.mark.parametrize("config", [{"tiemout": 5}, {"timeout": "soon"}, {"engine": "steam"}, 5, "local"])
def test_a_configuration_that_cannot_be_is_refused(place, config):
    with pytest.raises(ttt.ConfigurationError) as caught:
        Backend.create("cloud", config)
    assert caught.value.hint
    if config == {"tiemout": 5}:
        assert "timeout" in caught.value.hint


@rows("S4-111", "S4-109")
def test_a_registered_backend_is_asked_by_its_name_and_keeps_what_it_told(world, row):
    backend = Backend.register(CustomBackend())
    response = ttt.ask("hello", backend="custom")
    assert (response, response.backend) == ("You said: hello", "custom")
    assert response.tokens_in == 3 and str(response.cost) == "0.5"
    assert response.metadata["heard"] == [] and response.metadata["reason"] == "the backend custom is named"
    assert "".join(ttt.stream("hello", backend="custom")) == "You said: hello"
    assert ttt.ask("hello", model="custom").backend == "custom"
    assert polyvox.ask("hello", model="custom").text == "You said: hello", "all of polyvox knows it"
    assert Router().select_backend("custom/large", "q") is backend and Backend.create("custom", {}) is backend
    with ttt.chat(backend="custom") as session:
        assert session.ask("one") == "You said: one" and session.backend == "custom"
    assert world.counts.requests == 0


@rows("S4-111")
def test_a_class_an_object_at_hand_and_one_of_the_core_are_backends_too(place, row):
    Backend.register(CustomBackend)
    assert isinstance(Backend.create("custom"), CustomBackend)
    assert ttt.ask("hi", backend=CustomBackend(), temperature=0.5).metadata["heard"] == ["temperature"]

    @polyvox.register_backend
    class Shout:
        name = "shout"

        def ask(self, prompt):
            return prompt.upper()

    assert ttt.ask("hi", backend="shout") == "HI" and "shout" in Backend.names()
    assert asyncio.run(Backend.create("shout").ask("hi")) == "HI"
    with pytest.raises(ttt.AIError, match="itself"):
        Backend.register(CustomBackend(), "local")


@rows("S4-110", "S4-112")
def test_a_backend_that_answers_nothing_is_a_clear_error(place, row):
    Backend.register(Silent())
    for call in (lambda: ttt.ask("hi", backend="custom"), lambda: list(ttt.stream("hi", backend="custom"))):
        with pytest.raises(ttt.AIError, match="'custom' answered with NoneType, which is no answer"):
            call()


# ---- the cloud --------------------------------------------------------------------------------


@rows("S4-011", "S4-040")
def test_litellm_is_one_engine_and_not_needed(world, row, monkeypatch):
    monkeypatch.setattr(polyvox.backends, "_discovered", {})
    monkeypatch.setitem(sys.modules, "litellm", None)
    assert ttt.ask("hello", model="gpt-4").backend == "cloud"
    through = Backend.create("cloud", {"engine": "litellm"})
    with pytest.raises(ttt.ConfigurationError) as caught:
        asyncio.run(through.ask("hello", model="far/away"))
    assert "polyvox[litellm]" in caught.value.hint
    asked = []

    async def acompletion(**said):
        asked.append(said)
        message = {"role": "assistant", "content": "from afar"}
        usage = {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "1", "object": "chat.completion", "model": "far/away", "choices": [choice], "usage": usage}

    library = types.ModuleType("litellm")
    library.acompletion = acompletion
    monkeypatch.setitem(sys.modules, "litellm", library)
    response = asyncio.run(through.ask("hello", model="far/away", temperature=0.5))
    assert (response, response.model, response.backend, response.tokens_in) == ("from afar", "far/away", "cloud", 2)
    assert asked[0]["model"] == "far/away" and asked[0]["temperature"] == 0.5
    assert world.counts.requests == 1, "only the question before it"


def test_the_models_of_all_providers_with_a_key_are_told_and_one_that_fails_is_left_out(world, monkeypatch):
    told = asyncio.run(Backend.create("cloud").models())
    assert {name.split("/")[0] for name in told} >= {"openai", "anthropic", "openrouter", "gemini"}
    polyvox.configure(providers={"groq": {"base_url": f"http://127.0.0.1:{refused_port()}/v1"}})
    left = asyncio.run(Backend.create("cloud").models())
    assert "groq" not in {name.split("/")[0] for name in left} and len(left) >= 3


# ---- this machine -----------------------------------------------------------------------------


@rows("S4-012", "S4-018", "S4-046", "S4-048", "S4-057", "S4-058")
def test_a_local_model_is_asked_in_ollamas_own_way_without_a_key(world, row, monkeypatch):
    for name in ("OPENAI", "ANTHROPIC", "GROQ", "OPENROUTER", "GEMINI", "MISTRAL"):
        monkeypatch.delenv(f"{name}_API_KEY")
    response = ttt.ask("Private data", model="llama2")
    assert (response.backend, response.model) == ("local", "llama2") and "Private data" in response
    (asked,) = world.requests
    assert (asked.dialect, asked.model, asked.path) == ("ollama.chat", "llama2", "/api/chat")


@rows("S4-057")
def test_a_model_of_a_provider_is_asked_in_the_cloud(world, row):
    assert ttt.ask("Code question", model="gpt-4").backend == "cloud"
    assert Router().select_backend("gpt-4", "Code question") is not Router().select_backend("llama2", "x")


@rows("S4-047", "S4-058")
def test_nothing_that_the_local_backend_is_asked_leaves_this_machine(world, row):
    code = """
    import sys
    sys.modules["uvloop"] = None  # its sockets are not seen by the hook
    met = []
    def hook(event, facts):
        if event in ("socket.connect", "socket.getaddrinfo"):
            met.append(facts[1][:2] if event == "socket.connect" else facts[0])
    sys.addaudithook(hook)
    from polyvox.compat import ttt
    ttt.configure(backends={"enable_fallbacks": True, "cloud": {"model": "gpt-4"}, "local": {"retries": 0}})
    for backend, model in ((None, "llama2"), ("local", "gpt-4"), ("local", None)):
        try:
            print(ttt.ask("private", backend=backend, model=model, attachments=["https://example.com/a.png"]).backend)
        except ttt.AIError as error:
            print(isinstance(error, ttt.BackendNotAvailableError), error.provider)
    print({place for place in met})
    """
    port = refused_port()
    env = {"POLYVOX_HOME": "/nonexistent", "OPENAI_API_KEY": "sk-test-0123456789", "PYTHONPATH": ":".join(sys.path)}
    code = "\n".join(line[4:] for line in code.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**env, "OLLAMA_HOST": f"127.0.0.1:{port}"},
    )  # fmt: skip
    here = "{('127.0.0.1', " + str(port) + ")}"
    assert done.stdout.splitlines() == ["True ollama"] * 3 + [here], done.stderr


@rows("S4-047")
@pytest.mark.parametrize("url", ["http://192.168.1.5:11434", "https://ollama.com", "http://user:pw@127.0.0.1:1"])
def test_the_local_backend_takes_no_address_of_another_machine(place, row, url):
    backend = Backend.create("local", {"base_url": url})
    with pytest.raises(ttt.ConfigurationError) as caught:
        asyncio.run(backend.ask("private", model="llama2"))
    assert "pw" not in str(caught.value)
    if "@" not in url:
        polyvox.configure(providers={"ollama": {"base_url": url}})
        with pytest.raises(ttt.ConfigurationError, match="another machine"):
            ttt.ask("private", model="llama2")


@rows("S4-049")
@pytest.mark.parametrize("tag", ["mine:latest", "hf.co/unsloth/Qwen3-4B-GGUF:Q4_K_M", "me/own-model:v1.2", "odd"])
def test_any_tag_that_the_server_lists_can_be_asked(world, row, tag):
    with Simulator(models=[tag]) as simulator:
        at(simulator)
        assert ttt.ask("hi", model=tag, backend="local").model == tag
        assert ttt.ask("hi", model=f"ollama/{tag}").backend == "local"
        assert {asked.model for asked in simulator.requests if asked.path == "/api/chat"} == {tag}
        assert asyncio.run(Backend.create("local").models()) == [tag]


@rows("S4-049", "S4-018")
def test_a_name_that_only_the_local_server_knows_is_asked_there_and_told_as_local(world, row):
    with Simulator(models=["private-finetune"]) as simulator:
        at(simulator)
        response = ttt.ask("hi", model="private-finetune")
        assert (response.backend, response.model) == ("local", "private-finetune")
        assert [asked.path for asked in simulator.requests] == ["/api/tags", "/api/chat"]
    assert world.counts.requests == 0


@rows("S4-050")
def test_a_model_that_is_not_there_is_fetched_when_that_is_wanted(world, row):
    steps = []
    with Simulator(models=["small"]) as simulator:
        at(simulator, retries=0)
        with pytest.raises(ttt.ModelNotFoundError, match="ollama/tiny"):
            ttt.ask("hi", model="tiny", backend="local")
        backend = LocalBackend({"pull": True}, on_pull=steps.append)

        async def go():
            async with backend:
                assert (await backend.ask("hi", model="tiny")).model == "tiny"
                assert await backend.models() == ["small", "tiny:latest"]
                assert "".join([piece async for piece in backend.astream("hi", model="tiny")])
                shown = await backend.show("tiny")
                await backend.delete("tiny")
                return shown, await backend.models()

        shown, left = asyncio.run(go())
        assert sum(asked.path == "/api/pull" for asked in simulator.requests) == 1
        settings.configure(backends={"local": {"pull": True}})
        with ttt.chat(model="ollama/tiny") as session:
            assert session.ask("hi")
    assert shown.format == "gguf" and left == ["small"]
    assert steps[-1].status == "success" and any(step.completed == step.total for step in steps if step.digest)


# ---- the router -------------------------------------------------------------------------------

PATTERNS = {
    "gpt-4": "cloud", "gpt-99": "cloud", "o1": "cloud", "o3-mini": "cloud", "claude-next": "cloud",
    "gemini-9-pro": "cloud", "openai/gpt-99": "cloud", "groq/llama-9": "cloud", "openrouter/meta-llama/ll-9": "cloud",
    "mistral/any": "cloud", "llama2": "local", "llama3.2": "local", "qwen9:4b": "local", "ollama/gpt-99": "local",
    "vllm/any": "local",
}  # fmt: skip


@rows("S4-104", "S4-105", "S4-053", "S4-042")
@pytest.mark.parametrize(("model", "kind"), PATTERNS.items())
def test_the_pattern_of_a_name_says_which_backend_is_asked(world, row, model, kind):
    router = Router()
    backend = router.select_backend(model, "any question")
    assert isinstance(backend, {"cloud": CloudBackend, "local": LocalBackend}[kind])
    assert router.select_backend(model, "another") is backend
    found = router.select(model, "any question")
    assert (found.backend, found.model) == (backend, model) and model in found.reason
    assert world.counts.requests == 0


@rows("S4-017", "S4-034", "S4-042", "S4-053")
@pytest.mark.parametrize("model", ["google/gemini-3-pro", "Google/gemini-3-pro", "google:gemini-3-pro"])
def test_a_provider_is_asked_by_the_word_the_document_has_for_it(world, row, model):
    response = ttt.ask("hi", model=model)
    assert (response.model, response.backend, response.metadata["provider"]) == (model, "cloud", "gemini")
    assert (world.requests[0].dialect, world.requests[0].model) == ("gemini.generate", "gemini-3-pro")
    assert "hi" in "".join(ttt.stream("hi", model=model, backend="cloud"))
    assert "hi" in ttt.ask("hi", model=[model, "gpt-4"])
    with ttt.chat(model=model) as session:
        assert session.ask("hi").metadata["provider"] == "gemini"
    chosen = Router().select(model, "hi")
    assert (chosen.backend.name, chosen.reason) == ("cloud", f"{model} is a model of gemini")
    assert Router().select_backend(model, "hi").name == "cloud"
    ttt.configure(models={"default": model, "aliases": {"best": model}})
    assert ttt.ask("hi").metadata["provider"] == ttt.ask("hi", model="best").metadata["provider"] == "gemini"


def test_the_registry_knows_a_provider_by_the_word_the_document_has_for_it(place):
    known = ttt.model_registry
    assert known.get_model("google/gemini-2.5-flash") == known.get_model("gemini/gemini-2.5-flash")
    assert known.list_models("google") == known.list_models("gemini") != []
    known.add_model(ModelInfo("gemini-99", provider="google", context_length=8192))
    assert known.get_model("google/gemini-99").context_length == 8192 and "google/gemini-99" in known
    assert Router().select("gemini-99").backend.name == "cloud"
    known.remove_model("google/gemini-99")
    assert "google/gemini-99" not in known


def test_a_word_of_the_document_that_somebody_has_taken_means_theirs(world):
    class Google(CustomBackend):
        @property
        def name(self):
            return "google"

    Backend.register(Google())
    assert ttt.ask("hi", model="google/gemini-3-pro").backend == "google" and world.counts.requests == 0
    Backend.unregister("google")
    registry = DictRegistry([Entry("google/mine", "openai/gpt-4")])
    shared.EVERYONE.publish(registry)
    assert ttt.ask("hi", model="google/mine").metadata["provider"] == "openai"


@rows("S4-052", "S4-056")
def test_what_is_asked_chooses_the_model_where_that_is_wanted_and_says_why(world, row):
    hard = "Prove by induction that the sum converges, then write the algorithm as a Python class with tests."
    easy, difficult = ttt.ask("hello", model="auto"), ttt.ask(hard, model="auto")
    models = [asked.model for asked in world.requests]
    assert models[0] != models[1] and "mathematics" in difficult.metadata["reason"]
    assert easy.model == "auto" and easy.metadata["served_by"] == models[0]
    assert Router().select("auto", hard)[1:] == Router().select("auto", hard)[1:]
    assert ttt.ask(hard, model="gpt-4").metadata["served_by"] == "gpt-4", "a name switches it off"


def test_deployments_registered_anywhere_are_asked_by_name_and_by_what_a_query_says(world):
    registry = DictRegistry([Entry("house", "openai/gpt-4", tier="economy"), Entry("near", "ollama/llama2")])
    shared.EVERYONE.publish(registry)
    assert ttt.ask("hi", model="house").backend == "cloud"
    assert ttt.ask("hi", model="near").backend == "local", "where it is asked is told, not how it was found"
    assert ttt.ask("hi", model="auto").metadata["deployment"] == "house"
    assert [asked.model for asked in world.requests] == ["gpt-4", "llama2", "gpt-4"]


def test_where_no_model_is_named_ttt_says_before_the_environment_before_the_core(world, monkeypatch):
    polyvox.configure(model="mistral/core-said")
    assert ttt.ask("hi").metadata["served_by"] == "core-said"
    monkeypatch.setenv("AI_PROVIDER", "openai")
    monkeypatch.setenv("AI_MODEL", "env-said")
    assert ttt.ask("hi").metadata["served_by"] == "env-said"
    settings.configure(models={"default": "claude-ttt-said"})
    assert ttt.ask("hi").model == "claude-ttt-said"
    settings.configure(models={"default": None}, backends={"default": "local"})
    assert ttt.ask("hi").backend == "local"


def test_aliases_of_ttt_and_of_the_core_are_followed(world):
    polyvox.configure(aliases={"quick": "gpt-4"})
    settings.configure(models={"aliases": {"home": "llama2"}})
    assert ttt.ask("hi", model="@quick").backend == "cloud" and ttt.ask("hi", model="@home").backend == "local"
    with pytest.raises(ttt.ModelNotFoundError, match="no alias"):
        ttt.ask("hi", model="@nobody")


@rows("S4-055", "S4-160")
@pytest.mark.parametrize(("order", "backend"), [(["local"], "local"), (["custom", "local"], "custom")])
def test_where_the_first_backend_fails_the_next_answers_if_that_is_enabled(world, row, order, backend):
    Backend.register(CustomBackend())
    with Simulator(plan=[{"kind": "status", "status": 503}]) as simulator:
        polyvox.configure(retries=0, providers={"openai": {"base_url": simulator.base_url("openai.chat")}})
        with pytest.raises(ttt.AIError):
            ttt.ask("hello", model="gpt-4")
        settings.configure(backends={"enable_fallbacks": True, "fallback_order": order})
        response = ttt.ask("hello", model="gpt-4")
        assert "hello" in "".join(ttt.stream("hello", model="gpt-4"))
    assert response.backend == backend and response.model != "gpt-4"
    outcomes = [attempt.outcome for attempt in response.attempts]
    # Whoever failed often enough is left alone for a while.
    assert outcomes[-1] == "ok" and set(outcomes[:-1]) <= {"server"}


# ---- models of one's own ----------------------------------------------------------------------


@pytest.fixture
def own(world):
    """The model of the document."""
    ttt.model_registry.add_model(
        ModelInfo(name="custom-model", provider="custom", capabilities=["text", "code"], context_length=8192)
    )


@rows("S4-116", "S4-117", "S4-054")
def test_an_added_model_is_seen_by_the_router_the_list_and_the_rest_of_polyvox(own, row):
    assert "custom-model" in [info.name for info in ttt.model_registry.list_models("custom")]
    assert catalog.load().info("custom", "custom-model").context == 8192
    with pytest.raises(ttt.AIError, match="custom"):
        ttt.ask("hi", model="custom-model")
    backend = Backend.register(CustomBackend())
    assert Router().select_backend("custom-model", "q") is backend
    assert ttt.ask("hi", model="custom-model") == "You said: hi"
    polyvox.add_model(id="elsewhere", provider="vllm", context=99)
    assert ttt.model_registry.get_model("elsewhere").context_length == 99
    ttt.model_registry.remove_model("custom-model")
    assert "custom-model" not in ttt.model_registry and "elsewhere" in ttt.model_registry


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        pytest.param("S4-118", "name", "custom-model", id="S4-118"),
        pytest.param("S4-119", "provider", "custom", id="S4-119"),
        pytest.param("S4-120", "capabilities", ["text", "code"], id="S4-120"),
        pytest.param("S4-121", "context_length", 8192, id="S4-121"),
    ],
)
def test_a_field_of_a_model_comes_back_as_it_was_said(own, row, field, value):
    info = ttt.model_registry.get_model("custom-model")
    assert getattr(info, field) == value and type(getattr(info, field)) is type(value)
    assert getattr(ttt.model_registry.get_model("custom/custom-model"), field) == value
    assert ModelInfo(name="bare").context_length is None, "only the name must be said"
    assert info.has("code") and not info.has("vision")


@rows("S4-121")
def test_an_added_context_is_believed_when_deployments_are_chosen(world, row):
    ttt.model_registry.add_model(name="tight", provider="openai", context_length=50)
    shared_here = DictRegistry([Entry("tight", "openai/tight"), Entry("wide", "openai/gpt-5.4", priority=1)])
    with polyvox.Client("*", registry=shared_here) as client:
        assert client.ask("word " * 400).deployment == "wide" and client.ask("hi").deployment == "tight"


@pytest.mark.parametrize(
    "facts",
    [{}, {"name": ""}, {"name": "a", "provider_name": "b"}, {"name": "a", "context_length": -1}, {"name": 5},
     {"name": "a", "capabilities": "text"}, {"name": "a", "context_length": "wide"}],
)  # fmt: skip
def test_a_model_that_cannot_be_is_refused(place, facts):
    before = catalog.added()
    with pytest.raises(ttt.AIError):
        ttt.model_registry.add_model(**facts)
    assert catalog.added() == before
    with pytest.raises(ttt.ModelNotFoundError) as caught:
        ttt.model_registry.get_model("gpt-5.4-mni")
    assert "gpt-5.4-mini" in caught.value.hint


def test_what_comes_with_polyvox_keeps_what_no_field_of_ours_says(place):
    before = catalog.load().info("openai", "gpt-5.4-mini")
    ttt.model_registry.add_model(name="gpt-5.4-mini", provider="openai", context_length=77)
    after = catalog.load().info("openai", "gpt-5.4-mini")
    assert after.context == 77 and after.prices == before.prices and after.capabilities == before.capabilities
