"""Names find their provider, or fail with the name that was meant; the rows that come along can all be used."""

import json
import re
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox import Client, Thinking, dialects
from polyvox.auth import SCHEMES
from polyvox.catalog import Catalog, Model, Provider, complete_url, host_of, load, url_problems
from polyvox.config import Settings
from polyvox.errors import ConfigError, PolyvoxError, UnknownModelError, UnknownProviderError, UsageError
from polyvox.keys import Secret
from tests import providers_page

CATALOG = load()


def resolved(name, **more):
    target = CATALOG.resolve(name, **more)
    return target.provider.name, target.model


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("openai/gpt-6-luna", "openai", "gpt-6-luna"),
        ("openai:gpt-6-luna", "openai", "gpt-6-luna"),
        ("OpenAI/gpt-6-luna", "openai", "gpt-6-luna"),
        ("openrouter/anthropic/claude-x:free", "openrouter", "anthropic/claude-x:free"),
        ("ollama/llama3:8b", "ollama", "llama3:8b"),
        ("ollama:llama3:8b", "ollama", "llama3:8b"),
        ("groq/openai/gpt-oss-20b", "groq", "openai/gpt-oss-20b"),
        ("anthropic/ Odd Name ", "anthropic", " Odd Name"),
        ("vllm//srv/models/mine", "vllm", "/srv/models/mine"),
    ],
)
def test_a_full_name_splits_at_the_first_separator_and_keeps_the_rest_as_typed(name, provider, model):
    assert resolved(name) == (provider, model)


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("gpt-7-not-yet-known", "openai"),
        ("ft:gpt-4o:acme::1", "openai"),
        ("claude-next", "anthropic"),
        ("gemini-next", "gemini"),
        ("codestral-latest", "mistral"),
        ("grok-9", "xai"),
        ("deepseek-flash", "deepseek"),
        ("kimi-k2.6", "moonshot"),
        ("gpt-oss-120b", "cerebras"),
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", "together"),
        ("llama3.2", "ollama"),
        ("llama3.2:3b", "ollama"),
        ("gpt-oss:20b", "ollama"),
        ("deepseek-r1:8b", "ollama"),
        ("mixtral:8x7b", "ollama"),
        ("somebody-elses:latest", "ollama"),
    ],
)
def test_a_bare_name_finds_the_provider_that_serves_it(name, provider):
    assert resolved(name) == (provider, name)


def test_a_providers_name_alone_means_its_default_model():
    assert resolved("demo") == ("demo", "demo")
    assert resolved("openai") == ("openai", CATALOG.providers["openai"].default_model)
    with pytest.raises(UnknownModelError, match="say vllm/MODEL"):
        CATALOG.resolve("vllm")


def test_what_is_known_of_a_model_comes_along_also_by_its_dated_name():
    assert CATALOG.resolve("claude-haiku-4-5").info.max_output == 64000
    assert CATALOG.resolve("anthropic/claude-haiku-4-5-20251001").info.id == "claude-haiku-4-5"
    assert CATALOG.resolve("anthropic/claude-haiku-4-5-20251001").model == "claude-haiku-4-5-20251001"
    assert CATALOG.resolve("openai/unheard-of").info is None


def test_an_alias_is_followed_with_and_without_its_sign():
    aliases = {"fast": "@small", "small": "openai/gpt-6-luna"}
    assert resolved("@fast", aliases=aliases) == resolved("fast", aliases=aliases) == ("openai", "gpt-6-luna")


def test_aliases_in_a_circle_are_refused():
    with pytest.raises(ConfigError, match="a -> b -> a"):
        CATALOG.resolve("@a", {"a": "b", "b": "@a"})


def test_an_unknown_alias_offers_the_nearest():
    with pytest.raises(UnknownModelError, match="did you mean @fast"):
        CATALOG.resolve("@fsat", {"fast": "demo"})


@pytest.mark.parametrize("separator", ["/", ":"])
def test_a_misspelt_provider_is_named_with_the_right_spelling(separator):
    with pytest.raises(UnknownProviderError) as caught:
        CATALOG.resolve(f"opanai{separator}gpt-5")
    assert caught.value.hint == f"did you mean openai{separator}gpt-5?"
    assert caught.value.sent == "no"


def test_a_misspelt_model_is_named_with_the_right_spelling():
    with pytest.raises(UnknownModelError, match="did you mean openai/gpt-6-luna"):
        CATALOG.resolve("gtp-6-luna")


@pytest.mark.parametrize("name", ["", "  ", "openai/", "nothing-like-it", "acme/model"])
def test_a_name_nobody_serves_is_an_error_of_ours_with_a_hint(name):
    with pytest.raises((UnknownModelError, UnknownProviderError)) as caught:
        CATALOG.resolve(name)
    assert caught.value.hint


def two(**more):
    row = {"dialect": "openai.chat", "base_url": "https://x.test/v1", "models": ("m-*",), **more}
    return Catalog({name: Provider(name=name, **row) for name in ("one", "two")})


def test_an_ambiguous_name_lists_every_exact_spelling():
    with pytest.raises(UnknownModelError, match="ambiguous") as caught:
        two().resolve("m-1")
    assert caught.value.hint == "say one of: one/m-1, two/m-1"


def test_of_several_providers_the_only_one_with_a_key_wins():
    assert two().resolve("m-1", has_key=lambda provider: provider.name == "two").provider.name == "two"
    for answer in (True, False):
        with pytest.raises(UnknownModelError, match="ambiguous"):
            two().resolve("m-1", has_key=lambda provider, answer=answer: answer)


@given(st.text(alphabet="abgtpo-@/: .1\n\x00é", max_size=30))
def test_no_name_whatever_raises_anything_but_an_error_of_ours(name):
    try:
        target = CATALOG.resolve(name, {"a": "b"})
    except PolyvoxError:
        return
    assert target.model


# ---- rows -------------------------------------------------------------------------------------


def test_the_page_of_providers_is_up_to_date():
    written = (Path(__file__).parent.parent / "docs" / "providers.md").read_text(encoding="utf-8")
    assert written == providers_page.page(), "run: python -m tests.providers_page --write docs/providers.md"


def test_there_are_rows_for_thirty_providers_and_more():
    assert len([row for row in CATALOG.providers.values() if row.transport == "http"]) >= 30


@pytest.mark.parametrize("provider", CATALOG.providers.values(), ids=lambda provider: provider.name)
def test_every_row_can_be_used(provider):
    assert provider.dialect in dialects.NAMES
    assert provider.quirks <= dialects.QUIRKS.keys()
    assert provider.auth in SCHEMES
    assert provider.title
    assert set(re.findall(r"\{(\w+)\}", provider.base_url)) <= provider.needs.keys()
    if re.match(r"https://\{\w+\}/", provider.base_url):
        assert provider.hosts, "a host that anybody may name is bound to nothing"
    elif not provider.needs:
        assert host_of(provider.base_url) in provider.hosts
    assert not provider.models_url or host_of(provider.models_url) in provider.hosts
    assert provider.lists_models or not provider.models_url
    assert not provider.key_of or CATALOG.providers[provider.key_of].key_env == provider.key_env
    assert provider.local or provider.transport == "demo" or provider.base_url.startswith("https://")
    assert provider.key_env or provider.auth == "none"
    assert provider.needs_key == (not provider.local and provider.transport == "http")
    if provider.default_model:
        assert resolved(provider.name) == (provider.name, provider.default_model)
        assert provider.local or CATALOG.info(provider.name, provider.default_model)


def test_every_model_row_is_of_a_known_provider_told_once_and_within_its_context():
    names = [(model.provider, name) for model in CATALOG.models for name in (model.id, *model.aliases)]
    assert len(names) == len(set(names)) > 40
    for model in CATALOG.models:
        assert model.provider in CATALOG.providers
        if model.context and model.max_output:
            assert 0 < model.max_output <= model.context


def test_the_model_data_say_where_and_when_they_are_from():
    note = json.loads((resources.files("polyvox") / "data/models.json").read_text("utf-8"))[0]
    assert note["_source"] and note["_date"].startswith("20")


def test_a_provider_can_be_added_without_changing_the_catalog_it_came_from():
    mine = Provider(name="mine", dialect="openai.chat", base_url="https://llm.mine.test/v1")
    assert CATALOG.with_provider(mine).resolve("mine/x").provider is mine
    assert "mine" not in CATALOG.providers
    assert mine.hosts == ("llm.mine.test",)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"quirks": frozenset({"limps"})}, "quirks: 'limps' is not one of"),
        ({"auth": "header"}, "auth_header: is needed"),
        ({"auth": "query"}, "auth_header: is needed"),
        ({"base_url": ""}, "base_url: is needed"),
        ({"base_url": "ftp://x"}, "must begin with https"),
        ({"base_url": "https://user:hunter2@x/v1"}, "must not hold a user or password"),
    ],
)
def test_a_row_that_cannot_work_is_refused_in_words(row, problem):
    with pytest.raises(ConfigError) as caught:
        Provider(**{"name": "p", "dialect": "openai.chat", "base_url": "https://x.test", **row})
    assert problem in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_row_in_a_dialect_this_version_does_not_speak_is_refused_only_when_it_is_used(monkeypatch):
    row = Provider(name="p", dialect="morse", base_url="https://x.test", models=("morse-*",))
    rows = CATALOG.with_provider(row)
    assert rows.resolve("morse-1").provider is row
    monkeypatch.setattr("polyvox.catalog.load", lambda: rows)
    client = Client("morse-1", api_key="k", settings=Settings())
    for use in (client.ask, client.explain):
        with pytest.raises(ConfigError, match="p speaks morse, which this version of polyvox does not") as caught:
            use("hi")
        assert "openai.chat" in caught.value.hint
    with pytest.raises(UsageError, match="no list of models"):
        client.models()


def test_options_of_a_row_stay_beside_those_of_the_settings():
    row = CATALOG.with_overrides({"vertex": {"options": {"project": "p"}}}).providers["vertex"]
    assert row.options == {"location": "global", "project": "p"}


def test_settings_change_a_row_and_say_where_its_address_came_from():
    overrides = {
        "openai": {
            "base_url": "https://eu.api.openai.com/v1",
            "headers": {"x-a": "1"},
            "quirks": ("max_tokens",),
            "model": "gpt-x",
            "api_key_env": ("MY_KEY",),
            "timeout": 3.0,
        }
    }
    changed = CATALOG.with_overrides(overrides, {"providers.openai.base_url": "env OPENAI_BASE_URL"})
    provider = changed.providers["openai"]
    assert (provider.base_url, provider.url_source) == ("https://eu.api.openai.com/v1", "env OPENAI_BASE_URL")
    assert provider.headers == {"x-a": "1"}
    assert provider.quirks == {"max_tokens"}
    assert provider.key_env == ("MY_KEY",)
    assert changed.resolve("openai").model == "gpt-x"
    assert provider.hosts == CATALOG.providers["openai"].hosts, "a new address does not bind the key to itself"


def test_a_new_provider_needs_no_more_than_an_address():
    provider = CATALOG.with_overrides({"corp": {"base_url": "https://llm.corp.test/v1"}}).providers["corp"]
    assert (provider.dialect, provider.auth, provider.hosts) == ("openai.chat", "bearer", ("llm.corp.test",))


def test_a_wrong_override_is_a_config_error():
    with pytest.raises(ConfigError, match="corp"):
        CATALOG.with_overrides({"corp": {"base_url": 5}})


def test_a_provider_shows_no_header_whatever_way_it_is_printed():
    overrides = {"openai": {"headers": {"x-a": "plain-canary"}, "secret_headers": {"x-b": Secret("secret-canary")}}}
    provider = CATALOG.with_overrides(overrides).providers["openai"]
    assert "canary" not in f"{provider} {provider!r} {[provider]}"
    assert "secret-canary" not in str(provider.secret_headers)


def test_a_key_of_gemini_stands_in_a_header_and_in_no_address():
    client = Client("gemini/gemini-next", api_key="planted-canary", settings=Settings())
    shown = client.explain("hello", stream=True, seed=3)
    assert shown.url == (
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-next:streamGenerateContent?alt=sse"
    )
    assert shown.headers["x-goog-api-key"] == "$GOOGLE_API_KEY" and "canary" not in shown.curl()
    assert shown.describe()["body"] == {
        "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
        "generationConfig": {"seed": 3},
    }


@pytest.mark.parametrize(
    ("options", "fields", "lost"),
    [
        ({}, {"top_k": 5, "thinking": {"type": "enabled", "budget_tokens": 2000}}, []),
        ({"fields": {"top_k": "inferenceConfig.topK"}}, {"inferenceConfig": {"topK": 5}}, ["thinking"]),
    ],
)
def test_bedrock_is_told_what_only_models_know_where_the_settings_say(options, fields, lost):
    settings = Settings(providers={"bedrock": {"options": {"region": "eu-central-1", **options}}})
    client = Client("bedrock/anthropic.some-model-v1:0", api_key="k", settings=settings)
    shown = client.explain("hello", top_k=5, thinking=Thinking(budget_tokens=2000))
    assert shown.describe()["body"]["additionalModelRequestFields"] == fields
    assert [loss.field for loss in shown.losses] == lost


# ---- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_text", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("box", "http://box:11434"),
        ("box:8000", "http://box:8000"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("[::]:9", "http://[::1]:9"),
        ("http://box/", "http://box"),
        ("https://box.test/ollama/", "https://box.test/ollama"),
        (" box ", "http://box:11434"),
    ],
)
def test_an_address_in_a_variable_is_completed_as_a_local_server_would_mean_it(given_text, url):
    assert complete_url(given_text, CATALOG.providers["ollama"]) == url


def test_an_address_of_a_remote_provider_is_completed_to_https():
    assert complete_url("gw.test/v1", CATALOG.providers["openai"]) == "https://gw.test/v1"


@given(st.text(max_size=40))
def test_any_text_is_judged_as_an_address_without_being_repeated(text):
    for problem in url_problems(complete_url(text, CATALOG.providers["ollama"])):
        assert len(text) < 9 or text not in problem
    assert isinstance(host_of(text), str)


def test_models_are_plain_values():
    assert Model(id="m", provider="p") == Model(id="m", provider="p", context=None)
