"""The models TTT knows, as a view of the one catalog that all four interfaces share. It keeps nothing of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from polyvox import catalog
from polyvox.compat import shared
from polyvox.compat.errors import named, speaking
from polyvox.errors import InputError, UnknownModelError
from polyvox.models import Model


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model. Only the name must be said.

    Attributes:
        name: what it is asked by.
        provider: whose it is: a provider, a backend of the user's own, or a word that nobody knows yet.
        capabilities: words such as "text", "code", "vision", "tools".
        context_length: tokens it takes; None is not known.
        max_output: tokens it writes at most. aliases: other names for it.
    """

    name: str
    provider: str = "custom"
    capabilities: list[str] = field(default_factory=list)
    context_length: int | None = None
    max_output: int | None = None
    aliases: list[str] = field(default_factory=list)

    def has(self, capability: str) -> bool:
        """Whether it is known to be able to do something."""
        return capability in self.capabilities


class ModelRegistry:
    """The models of the catalog, and those that the program added. One added here is seen through all interfaces."""

    def add_model(self, info: ModelInfo | None = None, /, **facts: Any) -> ModelInfo:
        """Make a model known, in the place of what was known of it; takes a ModelInfo or its fields."""
        if info is None:
            unknown = sorted(set(facts).difference(ModelInfo.__dataclass_fields__))
            if unknown or "name" not in facts:
                what = f"has no {unknown[0]!r}" if unknown else "needs a name"
                fields = ", ".join(ModelInfo.__dataclass_fields__)
                raise named(InputError(f"a model {what}", hint=f"it has {fields}", param=unknown[0] if unknown else ""))
            info = ModelInfo(**facts)
        elif facts or not isinstance(info, ModelInfo):
            raise named(InputError("add_model takes a ModelInfo, or the fields of one", param="info"))
        with speaking():
            made = {
                "id": info.name.removeprefix(f"{info.provider}/") if isinstance(info.name, str) else info.name,
                "provider": info.provider,
                "aliases": _words("aliases", info.aliases),
                "bare": True,
                "context": info.context_length,
                "max_output": info.max_output,
                "capabilities": _words("capabilities", info.capabilities),
            }
            held = next((known for known in catalog.load().models if (known.provider, known.id) == _place(made)), None)
            if held is not None:
                # What a ModelInfo has no word for stays as it was: prices, days of its life.
                kept = {name: getattr(held, name) for name in held.__struct_fields__}
                made = {**kept, **{name: value for name, value in made.items() if value not in (None, ())}}
            return _info(catalog.add_model(**made))

    def get_model(self, name: str) -> ModelInfo:
        """What is known of a model, by its name, an alias or "provider/name". ModelNotFoundError with the nearest names
        for one that nobody knows."""
        if not isinstance(name, str) or not name.strip():
            raise named(InputError("a model's name is text", param="name"))
        with speaking():
            own = [model for model in catalog.added() if name in (model.name, model.id, *model.aliases)]
            found = own[-1] if own else shared.info(name)
        if found is None:
            raise named(_unknown(name))
        return _info(found)

    def has_model(self, name: str) -> bool:
        """Whether anything is known of a model."""
        try:
            self.get_model(name)
        except InputError:
            return False
        return True

    __contains__ = has_model

    def list_models(self, provider: str | None = None, *, capability: str | None = None) -> list[ModelInfo]:
        """All models that are known, of one provider or with one capability where that is said."""
        return [
            _info(model)
            for model in catalog.load().models
            if provider in (None, model.provider) and (capability is None or capability in model.capabilities)
        ]

    def remove_model(self, name: str) -> None:
        """Forget a model that was added; what comes with polyvox stays. ModelNotFoundError where none was."""
        mine = catalog.added()
        meant = [model.name for model in mine if name in (model.name, model.id, *model.aliases)]
        if not meant:
            there = ", ".join(model.name for model in mine) or "none"
            raise named(UnknownModelError(f"no model {name!r} was added", hint=f"added are: {there}"))
        catalog.forget_models(*meant)


def _place(facts: dict[str, Any]) -> tuple[Any, Any]:
    return facts["provider"], facts["id"]


def _words(name: str, given: Iterable[str]) -> tuple[str, ...]:
    words = given if not isinstance(given, str) else None
    if words is None or not all(isinstance(word, str) for word in words):
        raise InputError(f"{name} is a list of words", hint=f'for example {name}=["text", "code"]', param=name)
    return tuple(words)


def _unknown(name: str) -> UnknownModelError:
    names = {known for model in catalog.load().models if model.bare for known in (model.id, *model.aliases)}
    near = get_close_matches(name, sorted(names), 3)
    hint = f"did you mean {' or '.join(near)}?" if near else "add it: model_registry.add_model(ModelInfo(name=...))"
    return UnknownModelError(f"nothing is known of a model {name!r}", hint=hint)


def _info(model: Model) -> ModelInfo:
    return ModelInfo(
        name=model.id,
        provider=model.provider,
        capabilities=list(model.capabilities),
        context_length=model.context,
        max_output=model.max_output,
        aliases=list(model.aliases),
    )


model_registry: ModelRegistry = ModelRegistry()
"""The one of this process."""
