"""The specification of a model from what polyvox knows of it: its row in the catalog and its family's habits. What
nobody knows is no ability, and no bound."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from polyvox import catalog, profiles
from polyvox.compat import llm_service
from polyvox.compat.llm_service.models.llm.config import VERBOSITIES
from polyvox.compat.llm_service.models.llm.specs.base import Kind, ModelCapabilities, ModelSpec, ParameterSpec
from polyvox.models import Model
from polyvox.profiles import Parameter, Profile

_KINDS: dict[str, Kind] = {"number": "float", "integer": "int", "text": "str", "boolean": "bool"}
# Which constant is a parameter's default, where the model takes it.
_DEFAULTS = {"temperature": "DEFAULT_TEMPERATURE", "top_p": "DEFAULT_TOP_P"}
# What the catalog has no word for: whose Responses API searches in files, and whose models may be told how wordy to
# be. https://platform.openai.com/docs/api-reference/responses/create
_SEARCHES = ("openai/*",)
_WORDY = ("openai/gpt-[5-9]*",)


def derived(model: Model) -> ModelSpec:
    """The specification of a model of the catalog."""
    known = catalog.load()
    row = known.providers.get(model.provider)
    profile = profiles.profile_of(model.name, model)
    parameters = profiles.spec(model.name).parameters if row is not None else ()
    return ModelSpec(
        model_name=model.id,
        provider=model.provider,
        capabilities=ModelCapabilities.from_names(_abilities(model, profile)),
        parameters=[_parameter(one, profile) for one in parameters if one.type in _KINDS],
    )


def _abilities(model: Model, profile: Profile) -> list[str]:
    words = dict.fromkeys(model.capabilities)
    # The catalog holds models for sound and pictures too; the ones found by their bare name are those that talk.
    if model.bare or words:
        words["streaming"] = None
        if _is_one(model, _SEARCHES) and (not model.capabilities or "tools" in words):
            words["file_search"] = None
    if profile.reasons:
        words["reasoning"] = None
    if _is_one(model, _WORDY) and "verbosity" not in profile.refuses:
        words["text_config"] = None
    refused = {"images": "vision", "response_format": "schema", "tools": "tools"}
    gone = {word for field, word in refused.items() if field in profile.refuses}
    return [word for word in words if word not in gone]


def _is_one(model: Model, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model.name, pattern) for pattern in patterns)


def _parameter(one: Parameter, profile: Profile) -> ParameterSpec:
    taken = one.taken and not (profile.reasons and one.name in profile.refuses_reasoning)
    choices = VERBOSITIES if one.name == "verbosity" else one.choices
    facts: dict[str, Any] = {"min_value": one.min, "max_value": one.max}
    if one.type == "integer":
        facts = {name: None if bound is None else int(bound) for name, bound in facts.items()}
    if taken and one.name in _DEFAULTS:
        facts["default"] = llm_service.constant(_DEFAULTS[one.name])
    return ParameterSpec(
        name=one.name,
        type="enum" if choices else _KINDS[one.type],
        allowed_values=list(choices) or None,
        supported=taken,
        **facts,
    )
