"""Promises across the four interfaces: what is changed through one is there at once in the three others, as they share
deployments, the AI_ variables and the catalog of models."""

import asyncio

import pytest

import polyvox
from polyvox.compat import ai_utilities, creative_services, names, ttt
from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMConfig, LLMModelSpec
from polyvox.compat.llm_service.models.llm.specs import ModelCapabilities, ModelSpec
from polyvox.compat.llm_service.models.llm.specs.registry import ModelSpecRegistry
from polyvox.compat.llm_service.services.llm import execute_llm_call
from polyvox.errors import ConnectionFailedError
from polyvox.testing import Simulator

KEY = "sk-test-seen-0123456789abcdef"


# ---- asking through each of them, as their documents have it ---------------------------------------


def by_creative_services(deployment):
    async def generate():
        async with creative_services.DynamicLLMClient() as client:
            said = {} if deployment is None else {"llm_name": deployment}
            return (await client.generate(prompt="a question", **said)).content

    return asyncio.run(generate())


def by_ai_utilities(deployment):
    client = ai_utilities.AiClient()
    try:
        return client.ask("a question", **({} if deployment is None else {"model": deployment})).text
    finally:
        client.close()


def by_llm_service(deployment):
    # A call names its model always; the deployment that the variables describe has a name. Who names a provider too
    # means a model of that provider, which may stand at another address than the deployment of its name.
    spec = LLMModelSpec(model=deployment or "environment")
    response, error = execute_llm_call(LLMCallRequest(llm=LLMConfig(prompt="a question", llm_model_spec=spec)))
    if response is None:
        raise error.error
    return response.message


def by_ttt(deployment):
    return str(ttt.ask("a question", **({} if deployment is None else {"model": deployment})))


FACES = {
    "creative_services": by_creative_services,
    "ai_utilities": by_ai_utilities,
    "llm_service": by_llm_service,
    "ttt": by_ttt,
}


def every_face(**more):
    return pytest.mark.parametrize("face", FACES, **more)


def asked(world):
    """Model and dialect of the last question."""
    last = [one for one in world.requests if one.call][-1]
    return last.model, last.dialect.split(".")[0]


# ---- deployments -----------------------------------------------------------------------------------


@every_face()
def test_an_edit_to_a_registry_acts_on_the_next_call_of_all(world, face):
    ask = FACES[face]
    registry = creative_services.DictRegistry({"writer": {"model": "openai/gpt-4o-mini"}})
    assert ask("writer")
    assert asked(world) == ("gpt-4o-mini", "openai")
    registry.update("writer", provider="anthropic", model="claude-sonnet-4-5")
    assert ask("writer")
    assert asked(world) == ("claude-sonnet-4-5", "anthropic")
    registry.add(name="second", provider="openai", model="gpt-4o")
    assert ask("second")
    assert asked(world) == ("gpt-4o", "openai")
    registry.remove("second")
    before = len(world.requests)
    try:
        ask("second")
    except polyvox.PolyvoxError as error:
        assert "second" in str(error)
    # Who then takes it for a model asks the provider that is meant, and not the deployment that is gone.
    assert [one.model for one in world.requests[before:] if one.call] in ([], ["second"])


@every_face()
def test_a_registry_that_nobody_holds_is_forgotten(world, face):
    registry = creative_services.DictRegistry({"writer": {"model": "anthropic/claude-sonnet-4-5"}})
    assert FACES[face]("writer")
    assert asked(world) == ("claude-sonnet-4-5", "anthropic")
    newer = creative_services.DictRegistry({"writer": {"model": "openai/gpt-4o"}})
    assert FACES[face]("writer")
    assert asked(world) == ("gpt-4o", "openai"), "the newest is believed"
    del newer
    assert FACES[face]("writer")
    assert asked(world) == ("claude-sonnet-4-5", "anthropic")
    assert registry.get_by_name("writer") is not None


# ---- the AI_ variables -----------------------------------------------------------------------------


@pytest.fixture
def elsewhere():
    """Another server, which only the variables name."""
    with Simulator() as simulator:
        yield simulator


@every_face()
def test_the_variables_say_who_answers_in_all(world, elsewhere, monkeypatch, face):
    ask = FACES[face]
    monkeypatch.setenv("AI_API_KEY", KEY)
    monkeypatch.setenv("AI_MODEL", "house-model")
    monkeypatch.setenv("AI_BASE_URL", elsewhere.base_url("openai.chat"))
    assert ask(None)
    assert asked(elsewhere)[0] == "house-model" and world.requests == ()
    # A change acts on the next call.
    monkeypatch.setenv("AI_MODEL", "another-model")
    monkeypatch.setenv("ai_temperature", "0.25")
    assert ask(None)
    assert asked(elsewhere)[0] == "another-model" and world.requests == ()
    assert b'"temperature":0.25' in elsewhere.requests[-1].body.replace(b": ", b":")
    assert all("authorization" not in one.headers for one in elsewhere.requests)


@every_face()
def test_a_variable_that_cannot_be_is_named_by_all(world, monkeypatch, face):
    monkeypatch.setenv("AI_API_KEY", KEY)
    monkeypatch.setenv("AI_MODEL", "house-model")
    monkeypatch.setenv("AI_MAX_TOKENS", "many")
    with pytest.raises(polyvox.PolyvoxError, match="AI_MAX_TOKENS") as caught:
        FACES[face](None)
    assert isinstance(caught.value, names.AIUtilitiesError) and isinstance(caught.value, names.AIError)
    assert isinstance(caught.value, names.LLMServiceError) and KEY not in str(caught.value)
    assert world.requests == ()


# ---- models ----------------------------------------------------------------------------------------


def added_by_llm_service():
    capabilities = ModelCapabilities(supports_vision=True)
    spec = ModelSpec(model_name="house-model", provider="anthropic", capabilities=capabilities, parameters=[])
    ModelSpecRegistry().register(spec)


def added_by_ttt():
    ttt.model_registry.add_model(ttt.ModelInfo(name="house-model", provider="anthropic", capabilities=["vision"]))


def added_by_the_core():
    polyvox.add_model(id="house-model", bare=True, provider="anthropic", capabilities=("vision",))


WRITERS = {"llm_service": added_by_llm_service, "ttt": added_by_ttt, "the core": added_by_the_core}


def seen_by_creative_services(world):
    async def generate():
        config = creative_services.LLMConfig(model="house-model")
        async with creative_services.LLMClient(config) as client:
            return await client.generate(prompt="a question")

    assert asyncio.run(generate()).content
    return asked(world) == ("house-model", "anthropic")


def seen_by_ai_utilities(world):
    client = ai_utilities.AiClient(ai_utilities.AiSettings(provider="auto"))
    assert client.ask("a question", model="house-model").text
    client.close()
    return asked(world) == ("house-model", "anthropic")


def seen_by_llm_service(world):
    spec = ModelSpecRegistry().get("anthropic", "house-model")
    return spec is not None and spec.capabilities.supports_vision is True


def seen_by_ttt(world):
    assert ttt.ask("a question", model="house-model")
    assert "vision" in ttt.model_registry.get_model("house-model").capabilities
    return asked(world) == ("house-model", "anthropic")


READERS = {
    "creative_services": seen_by_creative_services,
    "ai_utilities": seen_by_ai_utilities,
    "llm_service": seen_by_llm_service,
    "ttt": seen_by_ttt,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_model_that_is_registered_through_one_is_known_to_all(world, writer, reader):
    WRITERS[writer]()
    assert READERS[reader](world)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_model_that_is_forgotten_is_forgotten_by_all(world, writer):
    WRITERS[writer]()
    assert seen_by_llm_service(world) and seen_by_ttt(world)
    ttt.model_registry.remove_model("house-model")
    assert ModelSpecRegistry().get("anthropic", "house-model") is None
    assert not ttt.model_registry.has_model("house-model")


# ---- one object, by four names ---------------------------------------------------------------------


@every_face()
def test_a_failure_is_caught_by_the_names_of_all(place, monkeypatch, face):
    monkeypatch.setenv("AI_API_KEY", KEY)
    monkeypatch.setenv("AI_MODEL", "house-model")
    monkeypatch.setenv("AI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(names.AIError) as caught:
        FACES[face](None)
    error = caught.value
    assert isinstance(error, names.AIUtilitiesError) and isinstance(error, names.LLMServiceError)
    assert isinstance(error, names.ProviderAPIError) and isinstance(error, names.APICallError)
    assert isinstance(error, names.BackendNotAvailableError) and isinstance(error, ConnectionFailedError)
    assert error.hint and KEY not in f"{error} {error!r}"
