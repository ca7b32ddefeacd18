"""The models TTT knows, as a view of the one catalog that all four interfaces share. It keeps nothing of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from polyvox.compat import shared
from polyvox.compat.errors import named, speaking
from polyvox.errors import InputError, UnknownModelError

if TYPE_CHECKING:
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
        from polyvox import catalog

        with speaking():
            provider = shared.in_catalog(_text("provider", info.provider))
            own = _text("name", info.name).removeprefix(f"{info.provider}/")
            made = {
                "id": own,
                "provider": provider,
                "aliases": _words("aliases", info.aliases),
                "bare": True,
                "context": _tokens("context_length", info.context_length),
                "max_output": _tokens("max_output", info.max_output),
                "capabilities": _words("capabilities", info.capabilities),
            }
            held = next(
                (known for known in catalog.load().models if (known.provider, known.id) == (provider, own)), None
            )
            if held is not None:
                # What a ModelInfo has no word for stays as it was: prices, days of its life.
                kept = {name: getattr(held, name) for name in held.__struct_fields__}
                made = {**kept, **{name: value for name, value in made.items() if value not in (None, ())}}
            return _info(catalog.add_model(**made))

    def get_model(self, name: str) -> ModelInfo:
        """What is known of a model, by its name, an alias or "provider/name". ModelNotFoundError with the nearest names
        for one that nobody knows."""
        from polyvox.compat.ttt.places import added_as

        with speaking():
            own = added_as(_text("name", name))
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
        """All models that are known, of one provider or with one capability where that is said. ConfigurationError with
        the nearest names for a provider that nobody knows."""
        from polyvox import backends, catalog
        from polyvox.compat.ttt.places import rows

        with speaking():
            owner = None if provider is None else shared.in_catalog(_text("provider", provider))
            models = catalog.load().models
            if owner is not None and backends.registered_as(owner) is None and all(owner != m.provider for m in models):
                rows().provider(owner)
        return [
            _info(model)
            for model in models
            if owner in (None, model.provider) and (capability is None or capability in model.capabilities)
        ]

    def remove_model(self, name: str) -> None:
        """Forget a model that was added; what comes with polyvox stays. ModelNotFoundError where none was."""
        from polyvox import catalog
        from polyvox.compat.ttt.places import added_as

        with speaking():
            meant = [model.name for model in added_as(_text("name", name))]
        if not meant:
            there = ", ".join(model.name for model in catalog.added()) or "none"
            raise named(UnknownModelError(f"no model {name!r} was added", hint=f"added are: {there}"))
        catalog.forget_models(*meant)


def _text(name: str, given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise InputError(f"the {name} of a model is text, not {given!r}", param=name)
    return given.strip()


def _tokens(name: str, given: Any) -> int | None:
    if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < 1):
        raise InputError(
            f"{name} is a whole number of tokens, not {given!r}", hint=f"for example {name}=8192", param=name
        )
    return given


def _words(name: str, given: Any) -> tuple[str, ...]:
    words = given if isinstance(given, Iterable) and not isinstance(given, str) else None
    if words is None or not all(isinstance(word, str) for word in words):
        raise InputError(f"{name} is a list of words", hint=f'for example {name}=["one", "two"]', param=name)
    return tuple(words)


def _unknown(name: str) -> UnknownModelError:
    from polyvox import catalog

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
