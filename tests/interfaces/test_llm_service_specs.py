"""Specifications of models: what each is able to, what may be set, and the one registry, which is a view of the
catalog."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

import polyvox
from polyvox import catalog, errors
from polyvox.compat import shared
from polyvox.compat.llm_service.models.llm import LLMModelSpec, ReasoningConfig
from polyvox.compat.llm_service.models.llm.specs import ModelCapabilities, ModelSpec, ModelSpecRegistry, ParameterSpec
from polyvox.compat.llm_service.services.llm import constants, specs
from polyvox.compat.llm_service.services.llm.exceptions import ValidationError
from polyvox.compat.llm_service.services.llm.specs.anthropic import create_anthropic_specs
from polyvox.compat.llm_service.services.llm.specs.openai import create_openai_specs
from polyvox.compat.llm_service.services.llm.transformers.factory import TransformerFactory

from .rows import rows

SOURCES = Path(__file__).resolve().parents[2] / "src"

FLAGS = {
    "S3-144": "supports_streaming",
    "S3-145": "supports_vision",
    "S3-064": "supports_reasoning",
    "S3-146-text": "supports_text_config",
    "S3-146-files": "supports_file_search",
    "S3-146-tools": "supports_function_calling",
    "S3-146-schema": "supports_structured_output",
}


@pytest.fixture
def registry(place):
    yield ModelSpecRegistry()
    ModelSpecRegistry().clear()


def fresh(code):
    """A process of its own, in which a warning is an error."""
    env = {**os.environ, "PYTHONPATH": str(SOURCES)}
    return subprocess.run([sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True)


def house(**facts):
    facts = {"model_name": "house-7b", "provider": "house", **facts}
    return ModelSpec(**facts)


def temperature(**facts):
    return ParameterSpec(**{"name": "temperature", "type": "float", "min_value": 0.0, "max_value": 1.0, **facts})


def refused(check, *config, **how):
    with pytest.raises(ValidationError) as caught:
        check(*config, **how)
    assert isinstance(caught.value, ValueError)
    return caught.value


# ---- capabilities -----------------------------------------------------------------------------


@rows("S3-143", "S3-146")
def test_a_model_is_able_to_nothing_unless_said(row):
    spec = house()
    assert isinstance(spec.capabilities, ModelCapabilities)
    assert set(FLAGS.values()) <= set(ModelCapabilities.model_fields)
    assert not any(getattr(spec.capabilities, flag) for flag in FLAGS.values())
    assert spec.capabilities.names == frozenset()


@pytest.mark.parametrize(("row", "flag"), [pytest.param(row[:6], flag, id=row) for row, flag in FLAGS.items()])
def test_a_capability_is_a_flag_and_a_name(row, flag):
    able = ModelCapabilities(**{flag: True})
    name = flag.removeprefix("supports_")
    assert able.names == {name}
    assert able == ModelCapabilities.from_names([name])
    spec = house(capabilities=able)
    assert spec.supports(name)
    assert spec.supports(flag)
    others = set(FLAGS.values()) - {flag}
    assert not any(spec.supports(other) for other in others)


@rows("S3-066")
def test_features_are_asked_for_by_name_the_catalogs_words_among_them(row):
    spec = house(capabilities=ModelCapabilities(supports_vision=True, supports_function_calling=True))
    assert spec.supports("vision")
    assert spec.supports("Vision")
    assert spec.supports("tools")
    assert not spec.supports("reasoning")
    assert not spec.supports("telepathy")
    kept = ModelCapabilities.from_names(["tools", "schema", "telepathy"])
    assert kept.names == {"function_calling", "structured_output", "telepathy"}
    assert kept.words == ("schema", "telepathy", "tools")


# ---- parameters -------------------------------------------------------------------------------


@rows("S3-063", "S3-141", "S3-142")
def test_a_specification_is_a_pydantic_model_with_the_documented_names_and_no_warning(row):
    told = (
        "from polyvox.compat.llm_service.models.llm.specs import ModelSpec; "
        "print(ModelSpec(model_name='claude-3-opus', provider='anthropic').model_dump_json())"
    )
    ran = fresh(told)
    assert ran.stderr == ""
    spec = ModelSpec.model_validate_json(ran.stdout)
    assert (spec.model_name, spec.provider, spec.name) == ("claude-3-opus", "anthropic", "anthropic/claude-3-opus")


@rows("S3-147", "S3-148", "S3-149")
def test_parameters_are_a_list_that_is_empty_unless_said_each_with_a_name(row):
    assert house().parameters == []
    spec = house(parameters=[temperature()])
    assert spec.parameter("temperature") == temperature()
    assert spec.parameter("top_p") is None
    assert refused(lambda: ParameterSpec(type="float")).param == "name"
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(("row", "kind", "taken", "wrong"), [
    pytest.param("S3-150", "float", [1, 0.5, 0], [True, "1", None.__class__, float("nan")], id="S3-150-float"),
    pytest.param("S3-150", "int", [1, 0], [True, 1.0, "1"], id="S3-150-int"),
    pytest.param("S3-150", "str", ["", "flex"], [1, True], id="S3-150-str"),
    pytest.param("S3-150", "bool", [True, False], [1, 0, "true"], id="S3-150-bool"),
    pytest.param("S3-150", "enum", ["low", 1], ["high", True, "LOW"], id="S3-150-enum"),
])  # fmt: skip
def test_a_parameter_has_one_of_five_types_and_true_is_no_number(row, kind, taken, wrong):
    spec = house(parameters=[
        ParameterSpec(name="it", type=kind, allowed_values=["low", 1] if kind == "enum" else None)
    ])  # fmt: skip
    spec.validate_config()
    for value in taken:
        assert spec.validate_config({"it": value}) == ()
    for value in wrong:
        error = refused(spec.validate_config, {"it": value})
        assert error.param == "it"
        assert f"not {value!r}" in error.message
    assert refused(lambda: ParameterSpec(name="it", type="complex")).param == "type"


@rows("S3-151", "S3-152", "S3-065", "S3-194")
def test_bounds_belong_to_what_is_allowed_and_a_refusal_names_parameter_value_and_range(row):
    spec = house(parameters=[temperature()])
    for value in (0.0, 0.7, 1.0, 1):
        spec.validate_config({"temperature": value})
    for value in (-0.1, 1.5):
        error = refused(spec.validate_config, {"temperature": value})
        assert f"temperature must be between 0.0 and 1.0, not {value}" in error.message
        assert error.param == "temperature"
        assert error.hint == "temperature may be between 0.0 and 1.0"
        assert error.errors()[0]["msg"] == f"temperature must be between 0.0 and 1.0, not {value}"
    one_sided = house(parameters=[temperature(max_value=None)])
    one_sided.validate_config({"temperature": 99})
    assert "at least 0.0, not -1" in refused(one_sided.validate_config, {"temperature": -1}).message


@rows("S3-065", "S3-153")
def test_parameters_may_be_needed_have_a_default_only_some_values_and_a_description(row):
    mode = ParameterSpec(
        name="mode", type="str", required=True, allowed_values=["fast", "good"], description="How well to answer."
    )
    limit = ParameterSpec(name="limit", type="int", default=5)
    spec = house(parameters=[mode, limit])
    spec.validate_config()
    assert spec.validate_config({"mode": "good"}) == ()
    assert "mode is needed" in refused(spec.validate_config, {}).message
    assert "mode must be one of fast, good, not 'bad'" in refused(spec.validate_config, {"mode": "bad"}).message
    assert spec.defaults() == {"limit": 5}
    assert spec.parameter("mode").description == "How well to answer."
    assert house(parameters=[mode.model_copy(update={"default": "fast"})]).validate_config({}) == ()


@rows("S3-197")
@pytest.mark.parametrize(("parameter", "problem"), [
    (temperature(min_value=2.0), "temperature has min_value 2.0 above its max_value 1.0"),
    (temperature(default=3), "default: temperature must be between 0.0 and 1.0, not 3"),
    (ParameterSpec(name="mode", type="enum"), "mode is an enum without allowed_values"),
    (ParameterSpec(name="mode", type="str", max_value=3), "mode is text and has no min_value or max_value"),
    (ParameterSpec(name="n", type="int", allowed_values=[1, "2"]), "allowed_values: n must be a whole number"),
])  # fmt: skip
def test_without_a_configuration_a_specification_is_checked_itself(row, parameter, problem):
    assert house(parameters=[temperature()]).validate_config() == ()
    error = refused(house(parameters=[parameter]).validate_config)
    assert problem in error.message
    twice = refused(house(parameters=[temperature(), temperature()]).validate_config)
    assert "temperature is specified 2 times" in twice.message


@rows("S3-197")
def test_a_configuration_is_a_table_or_the_settings_of_a_model_and_what_it_does_not_say_counts_for_nothing(row):
    spec = house(parameters=[temperature(), ParameterSpec(name="effort", type="enum", allowed_values=["low"])])
    assert spec.validate_config({"temperature": None}) == ()
    for told in ({"reasoning": {"effort": "high"}}, {"reasoning_effort": "high"}, {"effort": "high"},
                 {"reasoning": ReasoningConfig(effort="high")},
                 LLMModelSpec(model="house-7b", reasoning={"effort": "high"})):  # fmt: skip
        assert refused(spec.validate_config, told).param == "effort"
    assert refused(spec.validate_config, ["temperature"]).param == "config"


@rows("S3-194")
def test_all_that_is_wrong_is_told_at_once(row):
    spec = house(parameters=[temperature(), ParameterSpec(name="n", type="int", min_value=1)])
    error = refused(spec.validate_config, {"temperature": 2, "n": 0})
    assert [one["msg"] for one in error.errors()] == [
        "temperature must be between 0.0 and 1.0, not 2", "n must be at least 1, not 0",
    ]  # fmt: skip


@rows("S3-176")
def test_what_is_not_listed_passes_unless_strict_and_then_the_nearest_name_is_told(row):
    spec = house(parameters=[temperature()])
    assert spec.validate_config({"temprature": 5}) == ()
    error = refused(spec.validate_config, {"temprature": 5}, strict=True)
    assert "there is no parameter 'temprature': did you mean temperature?" in error.message
    assert error.hint == "house/house-7b takes temperature"


@rows("S3-111")
def test_what_a_model_refuses_is_refused_unless_lenient(row, registry):
    spec = registry.get("openai", "o1")
    told = {"reasoning": {"effort": "high"}, "text": {"verbosity": "medium"}}
    error = refused(spec.validate_config, told)
    assert error.param == "verbosity"
    assert "verbosity is not taken by openai/o1" in error.message
    assert "leave verbosity out" in error.hint
    assert spec.validate_config(told, lenient=True) == ("verbosity is not taken by openai/o1",)
    assert spec.not_taken(told) == ["verbosity"]
    assert registry.get("openai", "gpt-6-luna").validate_config(told) == ()


# ---- the registry -----------------------------------------------------------------------------


@rows("S3-067")
def test_there_is_one_registry_and_it_can_be_emptied(row, registry):
    assert ModelSpecRegistry() is registry
    registry.register(house())
    ModelSpecRegistry().clear()
    assert registry.get("house", "house-7b") is None
    assert registry.get("openai", "gpt-4") is not None


@rows("S3-068")
def test_specifications_are_registered_got_listed_and_unregistered(row, registry):
    spec = house(parameters=[temperature()], capabilities=ModelCapabilities(supports_vision=True))
    assert registry.get("house", "house-7b") is None
    assert registry.register(spec) == spec
    assert registry.get("house", "house-7b") == spec
    assert registry.get(" House ", "house-7b") == spec
    assert "house/house-7b" in registry
    assert registry.list("house") == [spec]
    assert spec in registry.list()
    again = house(parameters=[temperature(max_value=2.0)])
    registry.register(again)
    assert registry.list("house") == [again]
    assert registry.unregister("house", "house-7b") is True
    assert registry.get("house", "house-7b") is None
    assert registry.unregister("house", "house-7b") is False
    assert "house/house-7b" not in registry


@rows("S3-068")
def test_what_contradicts_itself_is_not_registered(row, registry):
    assert "above its max_value" in refused(registry.register, house(parameters=[temperature(min_value=2)])).message
    assert refused(registry.register, {"model_name": "house-7b"}).param == "spec"
    assert registry.get("house", "house-7b") is None


@rows("S3-069")
def test_a_configuration_is_checked_by_the_name_of_the_model(row, registry):
    registry.register(house(parameters=[temperature()]))
    assert registry.validate("house", "house-7b", {"temperature": 0.5}) == ()
    assert refused(registry.validate, "house", "house-7b", {"temperature": 2}).param == "temperature"
    assert refused(registry.validate, "openai", "gpt-4o", {"temperature": 2.5}).param == "temperature"
    assert registry.validate("house", "nobody-knows", {"temperature": 9}) == ()


@rows("S3-070", "S3-012")
def test_what_is_registered_is_in_the_catalog_and_what_is_added_there_is_found_here(row, registry):
    able = ModelCapabilities(supports_vision=True, supports_function_calling=True)
    registry.register(house(capabilities=able, parameters=[ParameterSpec(name="max_tokens", type="int", max_value=99)]))
    known = shared.info("house-7b")
    assert (known.name, known.capabilities, known.max_output) == ("house/house-7b", ("tools", "vision"), 99)

    polyvox.add_model(id="attic-1b", provider="groq", capabilities=("vision",), max_output=7, retires="2020-01-01")
    spec = registry.get("groq", "attic-1b")
    assert spec in registry.list("groq")
    assert spec.supports("vision")
    assert "groq/attic-1b was retired" in spec.notice
    assert "at most 7" in refused(spec.validate_config, {"max_tokens": 8}).message or (
        "between 0 and 7" in refused(spec.validate_config, {"max_tokens": 8}).message
    )
    catalog.forget_models()
    assert registry.get("groq", "attic-1b") is None
    assert registry.get("house", "house-7b") is None


@rows("S3-070", "S3-010")
def test_another_interfaces_registry_shows_the_same_models(row, registry):
    from polyvox.compat.ttt.models import model_registry

    registry.register(house(capabilities=ModelCapabilities(supports_vision=True)))
    seen = model_registry.get_model("house-7b")
    assert (seen.provider, seen.capabilities) == ("house", ["vision"])
    model_registry.add_model(name="attic-1b", provider="groq", capabilities=["vision", "code"])
    able = registry.get("groq", "attic-1b").capabilities
    assert able.supports_vision
    assert able.words == ("code", "streaming", "vision")
    assert registry.unregister("groq", "attic-1b")
    assert not model_registry.has_model("attic-1b")


@rows("S3-070")
def test_the_latest_word_on_a_models_abilities_holds_wherever_it_was_said(row, registry):
    registry.register(house(parameters=[temperature()], capabilities=ModelCapabilities(supports_vision=True)))
    polyvox.add_model(id="house-7b", provider="house", capabilities=("tools",))
    spec = registry.get("house", "house-7b")
    assert spec.capabilities.names == {"function_calling"}
    assert spec.parameters == [temperature()]
    catalog.forget_models()
    assert registry.get("house", "house-7b") is None
    polyvox.add_model(id="house-7b", provider="house", capabilities=("tools",))
    assert registry.get("house", "house-7b").parameters == []


@rows("S3-010", "S3-011")
def test_a_registered_specification_keeps_what_else_is_known_of_the_model(row, registry):
    before = catalog.load().info("anthropic", "claude-opus-5")
    registry.register(ModelSpec(model_name="claude-opus-5", provider="anthropic"))
    after = catalog.load().info("anthropic", "claude-opus-5")
    assert (after.prices, after.context, after.aliases) == (before.prices, before.context, before.aliases)
    assert before.prices
    assert after.capabilities == ()
    registry.unregister("anthropic", "claude-opus-5")
    assert catalog.load().info("anthropic", "claude-opus-5") == before
    assert registry.get("anthropic", "claude-opus-5").supports("vision")


@rows("S3-068")
def test_unregistering_leaves_what_others_added(row, registry):
    polyvox.add_model(id="attic-1b", provider="groq")
    registry.register(house())
    registry.unregister("house", "house-7b")
    assert [model.name for model in catalog.added()] == ["groq/attic-1b"]
    registry.clear()
    assert registry.get("groq", "attic-1b") is not None


# ---- what comes with the service --------------------------------------------------------------


@rows("S3-028", "S3-027")
def test_after_importing_the_service_each_built_in_specification_is_there_once(row):
    told = (
        "import polyvox.compat.llm_service.services.llm; "
        "from polyvox.compat.llm_service.models.llm.specs import ModelSpecRegistry as R; "
        "import polyvox.compat.llm_service.services.llm.specs; "
        "names = [spec.name for spec in R().list()]; "
        "print(len(names) == len(set(names)), 'openai/gpt-6-luna' in names, 'anthropic/claude-opus-5' in names)"
    )
    ran = fresh(told)
    assert ran.stderr == ""
    assert ran.stdout.split() == ["True", "True", "True"]
    assert ModelSpecRegistry().get("openai", "gpt-6-luna") is ModelSpecRegistry().get("openai", "gpt-6-luna")


@rows("S3-029")
def test_the_specifications_of_openai_list_the_models_of_today(row, registry):
    listed = {spec.model_name: spec for spec in create_openai_specs()}
    assert all(spec.provider == "openai" for spec in listed.values())
    alive = [name for name, spec in listed.items() if spec.notice is None]
    assert catalog.load().providers["openai"].default_model in alive
    assert listed["gpt-6-luna"].supports("reasoning")
    assert not listed["gpt-4o"].supports("reasoning")


@rows("S3-140")
def test_there_is_such_a_function_for_each_provider(row, registry):
    assert {spec.provider for spec in create_anthropic_specs()} == {"anthropic"}
    for provider in ("groq", "mistral", "gemini", "openrouter", "ollama", "openai-responses"):
        made = getattr(specs, f"create_{provider.replace('-', '_')}_specs")()
        assert made == registry.list(provider)
        assert all(isinstance(spec, ModelSpec) for spec in made)
    assert getattr(specs, "create_groq_specs")()
    with pytest.raises(AttributeError):
        specs.create_nobodys_specs


@rows("S3-043", "S3-044", "S3-106")
@pytest.mark.parametrize("model", ["gpt-4", "gpt-3.5-turbo", "o1"])
def test_a_documented_model_has_a_specification_that_says_it_is_gone_and_who_comes_after_it(row, model, registry):
    spec = registry.get("openai", model)
    assert spec in create_openai_specs()
    assert spec.model_name == model
    last = catalog.load().info("openai", model)
    assert date.fromisoformat(last.retires) == date(2026, 10, 23)
    assert f"openai/{model}" in spec.notice
    assert last.successor in spec.notice
    assert spec.validate_config() == ()


@rows("S3-064")
def test_what_a_built_in_model_is_able_to_is_what_the_catalog_knows(row, registry):
    for name in ("gpt-4o", "gpt-6-luna", "o3"):
        known = catalog.load().info("openai", name)
        able = registry.get("openai", name).capabilities
        assert set(known.capabilities) <= set(able.words)
        assert able.supports_streaming
        assert able.supports_file_search
    assert registry.get("openai", "gpt-6-luna").supports("text_config")
    assert not registry.get("openai", "o1").supports("text_config")
    assert not registry.get("openai", "text-embedding-3-small").supports("streaming")


@rows("S3-176")
def test_every_default_model_has_a_specification_that_holds_and_strict_refuses_a_model_nobody_knows(row, registry):
    defaults = {name: one.default_model for name, one in catalog.load().providers.items() if one.default_model}
    assert len(defaults) > 5
    for provider, model in defaults.items():
        spec = registry.get(provider, model)
        assert spec is not None, f"{provider}/{model}"
        assert spec.validate_config() == ()
        assert spec.parameter("max_tokens") is not None
        assert registry.validate(provider, model, {"max_tokens": 10}, strict=True) == ()
    error = refused(registry.validate, "openai", "gpt-nobody-knows", {}, strict=True)
    assert isinstance(error, errors.UnknownModelError)
    assert "openai/gpt-nobody-knows" in error.message


@rows("S3-159", "S3-160", "S3-158")
def test_the_default_constants_are_declared_where_a_model_takes_the_setting_and_nowhere_sent(
    row, registry, monkeypatch
):
    spec = registry.get("openai", "gpt-4o")
    assert {"temperature": 1.0, "top_p": 1.0}.items() <= spec.defaults().items()
    assert not {"temperature", "top_p"} & set(registry.get("openai", "o1").defaults())
    assert not {"temperature", "top_p"} & set(registry.get("anthropic", "claude-opus-5").defaults())
    monkeypatch.setattr(constants, "DEFAULT_TEMPERATURE", 0.5)
    monkeypatch.setattr(constants, "DEFAULT_TOP_P", 0.25)
    changed = registry.get("openai", "gpt-4o").defaults()
    assert (changed["temperature"], changed["top_p"]) == (0.5, 0.25)


@rows("S3-061")
def test_a_transformer_has_the_specification_that_the_registry_has(row, registry):
    spec = registry.register(house(provider="openai", parameters=[temperature()]))
    assert TransformerFactory.create("openai", "house-7b").model_spec == spec
    assert TransformerFactory.create("openai", "nobody-knows").model_spec is None


def test_a_specification_reads_as_data(registry):
    told = registry.get("openai", "gpt-4o").model_dump(exclude_defaults=True)
    assert told["model_name"] == "gpt-4o"
    (bounds,) = [one for one in told["parameters"] if one["name"] == "temperature"]
    assert (bounds["min_value"], bounds["max_value"]) == (0, 2)
