"""Settings of AI Utilities: what is said goes before the environment, that before the .env file, that before the
defaults; a key goes where it belongs, and is never shown."""

import copy
import importlib
import json
import logging
import pickle
import subprocess
import sys

import pydantic
import pydantic_settings
import pytest

from polyvox import catalog
from polyvox.compat import ai_utilities as root
from polyvox.compat.ai_utilities import (
    AiClient,
    AiSettings,
    AIUtilitiesError,
    BaseProvider,
    ConfigurationResolver,
    create_provider,
    register_provider,
)
from polyvox.compat.names import ProviderConfigurationError
from polyvox.errors import ConfigError, InputError, UnknownProviderError
from polyvox.testing import Simulator

from .rows import rows

KEY = "sk-test-settings-0123456789abcdef"
OTHER = "sk-test-another-0123456789abcdef"
NOBODY = "http://127.0.0.1:9/v1"


def env_file(place, **values):
    """Write the .env file of the working folder."""
    (place / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))


# ---- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "module", "name"),
    [
        pytest.param("S2-002", "client", "AiClient", id="S2-002"),
        pytest.param("S2-003", "async_client", "AsyncAiClient", id="S2-003"),
        pytest.param("S2-004", "client", "create_client", id="S2-004"),
        pytest.param("S2-005", "config_models", "AiSettings", id="S2-005"),
        pytest.param("S2-016", "client", "AiClient", id="S2-016"),
        pytest.param("S2-017", "async_client", "AsyncAiClient", id="S2-017"),
        pytest.param("S2-026", "config_models", "AiSettings", id="S2-026"),
        pytest.param("S2-027", "config_resolver", "ConfigurationResolver", id="S2-027"),
        pytest.param("S2-035", "providers", "create_provider", id="S2-035"),
        pytest.param("S2-182", "client", "AiClient", id="S2-182"),
        pytest.param("S2-183", "async_client", "AsyncAiClient", id="S2-183"),
        pytest.param("S2-184", "config_models", "AiSettings", id="S2-184"),
        pytest.param("S2-185", "config_resolver", "ConfigurationResolver", id="S2-185"),
        pytest.param("S2-187", "providers", "create_provider", id="S2-187"),
        pytest.param("S2-188", "providers.base_provider", "BaseProvider", id="S2-188"),
        pytest.param("S2-189", "providers.openai_provider", "OpenAIProvider", id="S2-189"),
        pytest.param("S2-190", "providers.groq_provider", "GroqProvider", id="S2-190"),
        pytest.param("S2-191", "providers.ollama_provider", "OllamaProvider", id="S2-191"),
    ],
)
def test_a_name_stands_in_its_module_and_at_the_root(place, row, module, name):
    found = getattr(importlib.import_module(f"polyvox.compat.ai_utilities.{module}"), name)
    assert found.__name__ == name
    assert getattr(root, name) is found and name in dir(root)


PUBLIC = {
    "AIUtilitiesError", "AiClient", "AiSettings", "AskResult", "AsyncAiClient", "BaseProvider", "CacheBackend",
    "CatalogProvider", "ConfigurationResolver", "GroqProvider", "MemoryCache", "OllamaProvider", "OpenAIProvider",
    "ProviderAPIError", "ProviderConfigurationError", "ProviderError", "ProviderRateLimitError", "RedisCache",
    "SQLiteCache", "SetupWizard", "UsageData", "UsageTracker", "check_provider", "create_cache", "create_client",
    "create_provider", "create_usage_tracker", "register_cache", "register_provider",
}  # fmt: skip


@pytest.mark.parametrize("name", ["audio", "files", "jobs", "monitoring"])
def test_what_the_document_names_and_is_not_there_yet_says_what_it_waits_for(name, place):
    for code in (f"from polyvox.compat.ai_utilities import {name}", f"import polyvox.compat.ai_utilities.{name}"):
        with pytest.raises(ImportError, match=f"ai_utilities.{name} comes with") as caught:
            exec(code, {})
        assert isinstance(caught.value, AIUtilitiesError) and "use polyvox." in caught.value.hint
    assert not hasattr(root, name) and name not in root.__all__
    star = {}
    exec("from polyvox.compat.ai_utilities import *", star)
    assert PUBLIC <= set(star) and name not in star


@rows("S2-180", "S2-181")
def test_the_root_has_these_names_each_loaded_when_it_is_used(row, place):
    assert set(root.__all__) == PUBLIC
    assert all(getattr(root, name).__name__ == name for name in PUBLIC)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = root.nothing_of_the_kind
    code = """
import sys
from polyvox.compat import ai_utilities
early = [name for name in sys.modules if name.split(".")[0] in ("pydantic_settings", "openai", "redis")]
assert not early, early
ai_utilities.AiSettings
assert "pydantic_settings" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_without_the_library_for_settings_the_error_says_how_to_get_it(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic_settings", None)
    monkeypatch.delitem(sys.modules, "polyvox.compat.ai_utilities.settings")
    with pytest.raises(AIUtilitiesError, match=r"pip install 'polyvox\[settings\]'"):
        _ = root.AiSettings


# ---- what may be set -------------------------------------------------------------------------------


@rows("S2-029", "S2-106")
def test_they_are_settings_of_pydantic(row, place):
    assert issubclass(AiSettings, pydantic_settings.BaseSettings)
    assert isinstance(AiSettings(), pydantic_settings.BaseSettings)
    assert AiSettings.model_config["env_prefix"] == "AI_" and AiSettings.model_config["case_sensitive"] is False


@pytest.mark.parametrize(
    ("row", "field", "default"),
    [
        pytest.param("S2-107", "provider", "openai", id="S2-107"),
        pytest.param("S2-108", "api_key", None, id="S2-108"),
        pytest.param("S2-109", "model", None, id="S2-109"),
        pytest.param("S2-112", "temperature", 0.7, id="S2-112"),
        pytest.param("S2-113", "max_tokens", None, id="S2-113"),
        pytest.param("S2-114", "cache_enabled", False, id="S2-114"),
        pytest.param("S2-115", "cache_backend", "memory", id="S2-115"),
        pytest.param("S2-116", "cache_ttl_s", 3600, id="S2-116"),
        pytest.param("S2-140", "base_url", None, id="S2-140"),
    ],
)
def test_a_field_has_its_default_where_nobody_says_anything(place, row, field, default):
    settings = AiSettings()
    assert getattr(settings, field) == default and type(getattr(settings, field)) is type(default)
    assert settings.origin(field) == "default"


@rows("S2-007", "S2-067", "S2-069", "S2-070")
def test_without_a_file_and_a_variable_there_are_settings_all_the_same(row, place):
    assert not (place / ".env").exists()
    settings = AiSettings()
    assert settings.model_dump() == {
        "provider": "openai", "model": None, "base_url": None, "temperature": 0.7, "max_tokens": None,
        "timeout_s": None, "cache_enabled": False, "cache_backend": "memory", "cache_ttl_s": 3600,
    }  # fmt: skip
    assert set(settings.origins.values()) == {"default"}


VALUES = {
    "provider": ("AI_PROVIDER", "groq", "ollama", "mistral", "groq", "ollama", "mistral"),
    "api_key": ("AI_API_KEY", KEY, OTHER, f"{KEY}-file", KEY, OTHER, f"{KEY}-file"),
    "model": ("AI_MODEL", "said", "of-env", "of-file", "said", "of-env", "of-file"),
    "base_url": ("AI_BASE_URL", "http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3",
                 "http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"),
    "temperature": ("AI_TEMPERATURE", 0.1, "0.2", "0.3", 0.1, 0.2, 0.3),
    "max_tokens": ("AI_MAX_TOKENS", 1, "2", "3", 1, 2, 3),
    "timeout_s": ("AI_TIMEOUT_S", 1, "2", "3", 1, 2, 3),
    "cache_enabled": ("AI_CACHE_ENABLED", True, "yes", "1", True, True, True),
    "cache_backend": ("AI_CACHE_BACKEND", "sqlite", "redis", "sqlite", "sqlite", "redis", "sqlite"),
    "cache_ttl_s": ("AI_CACHE_TTL_S", 1, "2", "3", 1, 2, 3),
    "cache_options": ("AI_CACHE_OPTIONS", {"a": 1}, '{"a": 2}', '{"a": 3}', {"a": 1}, {"a": 2}, {"a": 3}),
}  # fmt: skip
"""For each field its variable, what is said in three places, and what that means."""


@pytest.mark.parametrize("field", VALUES)
@rows("S2-125", "S2-032")
def test_each_source_goes_before_the_next_for_every_field(row, field, place, monkeypatch):
    assert set(VALUES) == set(AiSettings.model_fields)
    variable, said, of_env, of_file, *means = VALUES[field]
    default = getattr(AiSettings(), field)
    env_file(place, **{variable: of_file})
    monkeypatch.setenv(variable, of_env)
    settings = AiSettings(**{field: said})
    assert (getattr(settings, field), settings.origin(field)) == (means[0], "argument")
    settings = AiSettings()
    assert (getattr(settings, field), settings.origin(field)) == (means[1], f"env {variable}")
    monkeypatch.delenv(variable)
    settings = AiSettings()
    assert (getattr(settings, field), settings.origin(field)) == (means[2], f".env:1 {variable}")
    assert getattr(AiSettings(_env_file=None), field) == default
    (place / ".env").unlink()
    settings = AiSettings()
    assert (getattr(settings, field), settings.origin(field)) == (default, "default")


@pytest.mark.parametrize(
    ("row", "variable", "text", "field", "value"),
    [
        pytest.param("S2-110", "AI_MODEL", "a-model", "model", "a-model", id="S2-110"),
        pytest.param("S2-111", "OPENAI_MODEL", "a-model", "model", "a-model", id="S2-111"),
        pytest.param("S2-117", "AI_PROVIDER", "groq", "provider", "groq", id="S2-117"),
        pytest.param("S2-118", "AI_API_KEY", KEY, "api_key", KEY, id="S2-118"),
        pytest.param("S2-119", "AI_TEMPERATURE", "0.25", "temperature", 0.25, id="S2-119"),
        pytest.param("S2-120", "AI_MAX_TOKENS", "12", "max_tokens", 12, id="S2-120"),
        pytest.param("S2-121", "AI_CACHE_ENABLED", "true", "cache_enabled", True, id="S2-121"),
        pytest.param("S2-114", "AI_CACHE_ENABLED", "true", "cache_enabled", True, id="S2-114"),
        pytest.param("S2-122", "AI_CACHE_BACKEND", "sqlite", "cache_backend", "sqlite", id="S2-122"),
        pytest.param("S2-123", "AI_CACHE_TTL_S", "60", "cache_ttl_s", 60, id="S2-123"),
        pytest.param("S2-108", "AI_API_KEY", KEY, "api_key", KEY, id="S2-108"),
        pytest.param("S2-124", "ai_provider", "groq", "provider", "groq", id="S2-124"),
        pytest.param("S2-031", "Ai_Temperature", "0.5", "temperature", 0.5, id="S2-031"),
        pytest.param("S2-127", "AI_CACHE_ENABLED", "1", "cache_enabled", True, id="S2-127-flag"),
        pytest.param("S2-127", "AI_TEMPERATURE", "0.5", "temperature", 0.5, id="S2-127-number"),
    ],
)
def test_a_variable_sets_its_field(place, monkeypatch, row, variable, text, field, value):
    assert getattr(AiSettings(), field) != value
    monkeypatch.setenv(variable, text)
    found = getattr(AiSettings(), field)
    assert found == value and isinstance(found, type(value))
    monkeypatch.setenv(variable, "")
    assert getattr(AiSettings(), field) != value


@rows("S2-068", "S2-007")
def test_the_environment_is_read_when_settings_are_made(row, place, monkeypatch):
    monkeypatch.setenv("AI_MODEL", "first")
    before = AiSettings()
    monkeypatch.setenv("AI_MODEL", "second")
    assert (before.model, AiSettings().model) == ("first", "second")


@rows("S2-109", "S2-110", "S2-111")
def test_the_own_variable_of_the_model_goes_before_the_other_and_a_model_may_be_said(row, place, monkeypatch):
    monkeypatch.setenv("OPENAI_MODEL", "other")
    assert AiSettings().model == "other"
    monkeypatch.setenv("AI_MODEL", "own")
    assert AiSettings().model == "own"
    assert AiSettings(model="said").model == AiSettings(AI_MODEL="said").model == "said"


@rows("S2-032", "S2-069")
def test_a_file_that_is_not_readable_as_one_is_told_with_its_line(row, place):
    (place / ".env").write_text("AI_MODEL=one\nthis is nothing\n")
    with pytest.raises(ProviderConfigurationError, match=r"\.env:2"):
        AiSettings()
    assert AiSettings(_env_file=None).model is None
    (place / "other.env").write_text("AI_MODEL=two\n")
    assert AiSettings(_env_file="other.env").model == "two"
    assert AiSettings(_env_file="there-is-none.env").model is None


# ---- what may not be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        pytest.param("S2-112", "temperature", -0.1, id="S2-112-below"),
        pytest.param("S2-112", "temperature", 2.1, id="S2-112-above"),
        pytest.param("S2-113", "max_tokens", 0, id="S2-113"),
        pytest.param("S2-116", "cache_ttl_s", "soon", id="S2-116"),
        pytest.param("S2-126", "temperature", "warm", id="S2-126"),
        pytest.param("S2-126", "provider", 7, id="S2-126-kind"),
    ],
)
def test_a_value_that_cannot_be_is_refused(place, row, field, value):
    with pytest.raises(ConfigError) as caught:
        AiSettings(**{field: value})
    error = caught.value
    assert isinstance(error, ProviderConfigurationError) and isinstance(error, ValueError)
    assert field in str(error) and str(value) in str(error) and error.hint
    assert isinstance(error.__cause__, pydantic.ValidationError)


@rows("S2-033", "S2-128")
def test_the_error_names_the_variable_as_it_was_typed_and_what_it_may_be(row, place, monkeypatch):
    monkeypatch.setenv("ai_Temperature", "3")
    with pytest.raises(ConfigError, match=r"ai_Temperature=3: temperature must be a number from 0 to 2"):
        AiSettings()
    monkeypatch.delenv("ai_Temperature")
    env_file(place, AI_MODEL="a", ai_max_tokens="0")
    with pytest.raises(ConfigError, match=r"\.env:2: ai_max_tokens=0: max_tokens must be a whole number from 1 up"):
        AiSettings()


@rows("S2-071")
def test_all_that_is_wrong_is_told_at_once(row, place, monkeypatch):
    monkeypatch.setenv("AI_TEMPERATURE", "3")
    monkeypatch.setenv("AI_MAX_TOKENS", "0")
    with pytest.raises(ConfigError) as caught:
        AiSettings(cache_backend="paper", nonsense=1)
    error = caught.value
    assert len(error.problems) == 4 and len(error.errors()) == 4
    for word in ("AI_TEMPERATURE=3", "AI_MAX_TOKENS=0", "paper", "nonsense: there is no such setting"):
        assert word in str(error)


@rows("S2-115")
def test_a_cache_is_one_that_there_is(row, place):
    assert [AiSettings(cache_backend=name).cache_backend for name in ("memory", "SQLite", "redis")] == [
        "memory", "sqlite", "redis",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="must be one of memory, sqlite, redis"):
        AiSettings(cache_backend="paper")


@pytest.mark.parametrize("url", ["ftp://a.example", "https://user:word@a.example/v1", "https://", "a b"])
def test_an_address_that_cannot_be_one_is_refused_before_anything_is_sent(place, url):
    with pytest.raises(ConfigError, match="base_url"):
        AiSettings(base_url=url)


@rows("S2-072", "S2-126")
def test_settings_are_changed_by_making_others(row, place):
    settings = AiSettings(temperature=0.1, model="a")
    with pytest.raises(InputError, match="model_copy") as caught:
        settings.temperature = 0.2
    assert isinstance(caught.value, AIUtilitiesError) and settings.temperature == 0.1
    with pytest.raises(InputError, match="model_copy"):
        del settings.model
    other = settings.model_copy(update={"temperature": 0.2})
    assert (other.temperature, other.model, settings.temperature) == (0.2, "a", 0.1)
    assert (other.origin("temperature"), other.origin("max_tokens")) == ("argument", "default")
    with pytest.raises(ConfigError, match="temperature must be"):
        settings.model_copy(update={"temperature": 3})


def test_more_fields_come_with_a_subclass(place, monkeypatch):
    class Mine(AiSettings):
        region: str = "here"
        labels: list[str] = []

    monkeypatch.setenv("AI_REGION", "there")
    monkeypatch.setenv("AI_LABELS", '["a", "b"]')
    assert (Mine().region, Mine().labels, Mine().origin("region")) == ("there", ["a", "b"], "env AI_REGION")


# ---- the key ---------------------------------------------------------------------------------------


@rows("S2-108", "S2-118", "S2-139")
def test_the_key_is_plain_where_it_is_asked_for_and_nowhere_else(row, place, caplog):
    settings = AiSettings(api_key=KEY)
    assert settings.api_key == KEY and isinstance(settings.api_key, str)
    shown = [
        repr(settings), str(settings), f"{settings}", repr(settings.model_dump()), settings.model_dump_json(),
        repr(dict(settings)), repr(settings.origins), repr(create_provider(settings)), repr(AiClient(settings)),
        repr(pickle.dumps(settings)), json.dumps(AiSettings.model_json_schema()),
    ]  # fmt: skip
    logging.getLogger("polyvox").warning("a key: %s", KEY)
    assert not [text for text in (*shown, caplog.text) if KEY in text]
    assert copy.copy(settings).api_key == copy.deepcopy(settings).api_key == KEY
    assert pickle.loads(pickle.dumps(settings)).api_key is None
    with pytest.raises(ConfigError) as caught:
        AiSettings(api_key=KEY, temperature=3)
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    with pytest.raises(ConfigError) as caught:
        AiSettings(api_key=[KEY])
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"


class Regional(AiSettings):
    """Settings with a field more."""

    region: str = "here"


def ways_to_copy(settings):
    """Settings that are the same ones, however they are made of others."""
    yield from (settings, copy.copy(settings), copy.deepcopy(settings), settings.model_copy())
    yield from (settings.model_copy(deep=True), settings.model_copy(update={"model": "x"}))
    kind = type(settings)
    yield from (kind.model_validate({"api_key": KEY}), kind.model_construct(api_key=KEY))
    yield ConfigurationResolver(kind).resolve(settings).settings


@rows("S2-108", "S2-139")
def test_the_key_is_in_no_table_that_anybody_may_send_also_not_in_that_of_a_copy(row, place):
    for first in (AiSettings(api_key=KEY), Regional(api_key=f" {KEY} ")):
        for settings in ways_to_copy(first):
            assert settings.api_key == KEY and type(f"{settings.api_key}") is str
            sent = (
                json.dumps(vars(settings)), json.dumps(settings.__dict__), json.dumps(dict(settings)),
                json.dumps(settings.model_dump()), json.dumps(settings.model_dump(include={"api_key"})),
                settings.model_dump_json(), str(settings.__getstate__()), str(list(settings)),
                *(pickle.dumps(settings, protocol).decode("latin-1") for protocol in (2, pickle.HIGHEST_PROTOCOL)),
            )  # fmt: skip
            assert not [text for text in sent if KEY in text]
    assert AiSettings(api_key=KEY) == AiSettings(api_key=KEY) != AiSettings(api_key=OTHER)
    assert AiSettings().api_key is AiSettings(api_key="  ").api_key is None
    with pytest.raises(AttributeError, match="api_keys"):
        _ = AiSettings().api_keys


@rows("S2-108")
def test_without_a_key_the_variable_of_the_provider_is_asked(row, place, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GROQ_API_KEY", OTHER)
    assert AiSettings().api_key == KEY
    assert AiSettings(provider="groq").api_key == OTHER
    assert AiSettings(provider="groq").origin("api_key") == "env GROQ_API_KEY"
    assert AiSettings(provider="mistral").api_key is None
    # Of another provider the key is another one; one that was said goes along.
    assert create_provider(AiSettings(), "groq").settings.api_key == OTHER
    assert create_provider(AiSettings(), "mistral").settings.api_key is None
    assert create_provider(AiSettings(api_key="said-0123456789"), "groq").settings.api_key == "said-0123456789"
    monkeypatch.setenv("AI_API_KEY", f"{KEY}-own")
    assert AiSettings().api_key == AiSettings(provider="groq").api_key == f"{KEY}-own"


def test_an_address_in_a_file_gets_no_key_from_elsewhere(place, monkeypatch, caplog):
    env_file(place, AI_BASE_URL=NOBODY)
    monkeypatch.setenv("AI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings = AiSettings()
    assert settings.base_url == NOBODY and settings.api_key is None
    assert ".env:1 AI_BASE_URL" in caplog.text and KEY not in caplog.text
    assert settings.model_copy(update={"temperature": 0.1}).api_key is None
    assert ConfigurationResolver().resolve().settings.api_key is None
    assert AiSettings(api_key=OTHER).api_key == OTHER
    env_file(place, AI_BASE_URL=NOBODY, AI_API_KEY=OTHER)
    assert (AiSettings().api_key, AiSettings().origin("api_key")) == (OTHER, ".env:2 AI_API_KEY")
    env_file(place, AI_BASE_URL=NOBODY, OPENAI_API_KEY=OTHER)
    assert AiSettings().api_key == OTHER
    # Nor by way of a copy.
    assert create_provider(AiSettings(), "groq").settings.api_key is None
    # An address that is said, or stands in the environment, is of the hand that set AI_API_KEY.
    env_file(place)
    assert AiSettings(base_url=NOBODY).api_key == KEY
    monkeypatch.delenv("AI_API_KEY")
    # The provider's own key is for the provider's own addresses.
    assert AiSettings(base_url=NOBODY).api_key is None
    assert AiSettings(base_url="https://eu.api.openai.com/v1").api_key == KEY
    assert AiSettings().model_copy(update={"base_url": NOBODY}).api_key is None


@pytest.mark.parametrize(
    ("file", "status"),
    [({}, 401), ({"AI_API_KEY": KEY}, 401), ({"AI_API_KEY": OTHER}, 200), ({"OPENAI_API_KEY": OTHER}, 200)],
    ids=["alone", "with a wrong key", "with a key", "with the provider's"],
)
def test_what_goes_to_an_address_in_a_file_is_what_stands_there(place, monkeypatch, file, status):
    monkeypatch.setenv("AI_API_KEY", OTHER)
    monkeypatch.setenv("OPENAI_API_KEY", OTHER)
    with Simulator(keys=[OTHER]) as server:
        env_file(place, AI_BASE_URL=server.base_url("openai.chat"), **file)
        with AiClient(AiSettings(model="a-model")) as client:
            if status == 200:
                assert client.ask("hello").text
            else:
                with pytest.raises(AIUtilitiesError):
                    client.ask("hello")
        assert [asked.status for asked in server.requests] == [status]


# ---- the resolver ----------------------------------------------------------------------------------


@rows("S2-006", "S2-028", "S2-030")
def test_the_resolver_gives_settings_and_where_each_value_comes_from(row, place, monkeypatch):
    env_file(place, AI_CACHE_TTL_S=60, AI_TEMPERATURE=0.1)
    monkeypatch.setenv("AI_TEMPERATURE", "0.5")
    found = ConfigurationResolver().resolve(max_tokens=9)
    settings, origins = found
    assert isinstance(settings, AiSettings) and set(origins) == set(AiSettings.model_fields)
    assert (settings.temperature, settings.cache_ttl_s, settings.max_tokens) == (0.5, 60, 9)
    assert origins["temperature"] == "env AI_TEMPERATURE" and origins["cache_ttl_s"] == ".env:1 AI_CACHE_TTL_S"
    assert origins["max_tokens"] == "argument" and origins["cache_enabled"] == "default"
    assert (settings.model, origins["model"]) == (catalog.load().provider("openai").default_model, "default of openai")
    assert settings.origins == origins
    again = ConfigurationResolver(env_file=None).resolve(settings, temperature=0.2)
    assert (again.settings.temperature, again.origins["temperature"]) == (0.2, "argument")
    assert again.origins["cache_ttl_s"] == ".env:1 AI_CACHE_TTL_S"


@pytest.mark.parametrize("provider", ["openai", "groq", "ollama", "anthropic", "mistral", "openrouter"])
@rows("S2-034")
def test_each_provider_has_defaults_of_its_own(row, provider, place, monkeypatch):
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    usual = catalog.load().provider(provider)
    settings, origins = ConfigurationResolver().resolve(provider=provider)
    assert (settings.model, settings.base_url) == (usual.default_model, usual.base_url.rstrip("/"))
    assert settings.timeout_s == (1800 if usual.local else 600)
    assert usual.local == (provider == "ollama")
    assert origins["base_url"] == origins["timeout_s"] == f"default of {provider}"
    said, origins = ConfigurationResolver().resolve(provider=provider, model="mine", base_url=NOBODY, timeout_s=5)
    assert (said.model, said.base_url, said.timeout_s) == ("mine", NOBODY, 5)
    assert origins["model"] == origins["base_url"] == origins["timeout_s"] == "argument"


@rows("S2-030")
def test_settings_that_were_resolved_are_ready_to_be_asked_with(row, world, monkeypatch):
    monkeypatch.setenv("AI_TEMPERATURE", "0.25")
    settings, _ = ConfigurationResolver().resolve()
    assert settings.base_url == world.base_url("openai.chat") and settings.origin("api_key") == "env OPENAI_API_KEY"
    for name in ("openai", "groq"):
        provider = create_provider(settings, name)
        assert provider.ask("hello").provider == name
        provider.close()
    assert [asked.model for asked in world.requests] == [
        catalog.load().provider(name).default_model for name in ("openai", "groq")
    ]  # fmt: skip
    assert [asked.json["temperature"] for asked in world.requests] == [0.25, 0.25]


@rows("S2-030")
def test_values_that_cannot_be_together_are_named(row, place):
    with pytest.raises(ConfigError) as caught:
        ConfigurationResolver().resolve(provider="auto", base_url=NOBODY, api_key=KEY, cache_options={"max_entries": 1})
    assert isinstance(caught.value, ProviderConfigurationError) and len(caught.value.problems) == 3
    assert all(word in str(caught.value) for word in ("base_url:", "api_key:", "cache_options:"))
    with pytest.raises(UnknownProviderError, match="did you mean groq"):
        ConfigurationResolver().resolve(provider="groqq")


@rows("S2-199")
def test_what_a_provider_needs_is_checked_before_it_is_asked(row, place):
    class Demanding(BaseProvider):
        required_settings = ("base_url", "model")

        @classmethod
        def problems_of(cls, settings):
            if settings.temperature > 1:
                yield "temperature: it takes none above 1"

        def ask(self, prompt, **kwargs):
            raise AssertionError("asked")

    forget = register_provider("demanding", Demanding)
    try:
        for check in (
            lambda **said: ConfigurationResolver().resolve(provider="demanding", **said).settings,
            lambda **said: create_provider(AiSettings(provider="demanding", **said)).settings,
        ):
            with pytest.raises(ConfigError) as caught:
                check(temperature=1.5)
            assert len(caught.value.problems) == 3
            assert "AI_BASE_URL" in str(caught.value) and "none above 1" in str(caught.value)
            assert check(model="a", base_url=NOBODY).model == "a"
    finally:
        forget()
