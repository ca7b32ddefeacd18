"""The one registry of specifications: a view of polyvox's catalog. What is registered here is known to the whole
program, and what the program adds to the catalog is found here; only parameters, for which the catalog has no place,
are kept beside."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from polyvox.compat import llm_service
from polyvox.compat.errors import named, speaking
from polyvox.compat.llm_service.models.llm.config import LLMModelSpec
from polyvox.compat.llm_service.models.llm.specs.base import ModelCapabilities, ModelSpec
from polyvox.errors import InputError, UnknownModelError

if TYPE_CHECKING:
    from polyvox.models import Model


class _Held(NamedTuple):
    """A specification, and the row it belongs to: another row in its place makes it outdated."""

    row: Model
    spec: ModelSpec
    defaults: tuple[Any, ...] = ()


class ModelSpecRegistry:
    """The specifications of all models. Every construction gives the same object.

    >>> ModelSpecRegistry() is ModelSpecRegistry()
    True
    >>> ModelSpecRegistry().get("openai", "o1").supports("reasoning")
    True
    """

    _one: ModelSpecRegistry | None = None
    _guard = threading.Lock()
    _lock: threading.RLock
    _registered: dict[tuple[str, str], _Held]
    _derived: dict[tuple[str, str], _Held]

    def __new__(cls) -> Self:
        """The one of this process."""
        with ModelSpecRegistry._guard:
            if ModelSpecRegistry._one is None:
                one = super().__new__(cls)
                one._lock, one._registered, one._derived = threading.RLock(), {}, {}
                ModelSpecRegistry._one = one
        return ModelSpecRegistry._one  # type: ignore[return-value]

    def register(self, spec: ModelSpec) -> ModelSpec:
        """Make a specification known, in the place of what was known of the model's abilities; its prices and life
        dates stay. Raises the documented ValidationError for one that contradicts itself, or is none."""
        if not isinstance(spec, ModelSpec):
            raise named(
                InputError(
                    f"a ModelSpec is registered, not {type(spec).__name__}",
                    hint="ModelSpec(model_name=..., provider=...) makes one",
                    param="spec",
                )
            )
        spec.validate_config()
        from polyvox import catalog

        with self._lock, speaking():
            row = catalog.add_model(_row(spec))
            self._registered[row.provider, row.id] = _Held(row, spec)
        return spec

    def unregister(self, provider: str, model: str) -> bool:
        """Forget a specification that was registered, and what the program added of its model: what came with polyvox
        holds again. False where there was none."""
        from polyvox import catalog

        key = _key(provider, model)
        with self._lock:
            mine = self._registered.pop(key, None)
            if mine is None and not any((row.provider, row.id) == key for row in catalog.added()):
                return False
            catalog.forget_models("/".join(key))
            return True

    def get(self, provider: str, model: str) -> ModelSpec | None:
        """The specification of a model, by its name at a provider or an alias of it; None where nobody knows it."""
        key = _key(provider, model)
        row = _known(*key)
        if row is None:
            self._registered.pop(key, None)  # forgotten elsewhere
            return None
        return self._spec(row)

    def list(self, provider: str | None = None) -> builtins.list[ModelSpec]:
        """The specifications of the models that talk, and of all that were added; of one provider, or of all."""
        from polyvox import catalog

        known = catalog.load()
        own = set(map(id, catalog.added()))
        rows = [row for row in known.models if row.bare or id(row) in own]
        if provider is not None:
            # One account in several dialects has the same models.
            name, _ = _key(provider, "")
            at = known.providers.get(name)
            rows = [row for row in rows if row.provider == name or (at is not None and row.provider == at.key_of)]
        return [self._spec(row) for row in rows]

    def validate(
        self,
        provider: str,
        model: str,
        config: Mapping[str, Any] | LLMModelSpec | None = None,
        *,
        strict: bool = False,
        lenient: bool = False,
    ) -> tuple[str, ...]:
        """Check a configuration against the specification of a model; see `ModelSpec.validate_config`.

        A model that nobody knows takes everything, unless strict: then it is an UnknownModelError, which is the
        documented ValidationError.
        """
        spec = self.get(provider, model)
        if spec is not None:
            return spec.validate_config(config, strict=strict, lenient=lenient)
        if strict:
            raise named(
                UnknownModelError(
                    f"there is no specification of {provider}/{model}",
                    hint="register one with ModelSpecRegistry().register(ModelSpec(...)), or leave strict out",
                    param="model",
                )
            )
        return ()

    def clear(self) -> None:
        """Forget every specification that was registered; the catalog's own stay."""
        with self._lock:
            for provider, model in builtins.list(self._registered):
                self.unregister(provider, model)
            self._derived.clear()

    def __contains__(self, name: object) -> bool:
        """Whether "provider/model" is known."""
        provider, _, model = name.partition("/") if isinstance(name, str) else ("", "", "")
        return bool(model) and self.get(provider, model) is not None

    def _spec(self, row: Model) -> ModelSpec:
        from polyvox import catalog
        from polyvox.compat.llm_service.models.llm.specs.derived import derived

        key = (row.provider, row.id)
        held = self._registered.get(key)
        if held is not None and held.row is row:
            return held.spec
        if held is not None and any(row is one for one in catalog.added()):
            # Added again elsewhere: its abilities are the newer ones; of parameters nobody else can have spoken.
            return held.spec.model_copy(update={"capabilities": ModelCapabilities.from_names(row.capabilities)})
        self._registered.pop(key, None)  # forgotten elsewhere
        defaults = (llm_service.constant("DEFAULT_TEMPERATURE"), llm_service.constant("DEFAULT_TOP_P"))
        held = self._derived.get(key)
        if held is None or held.row is not row or held.defaults != defaults:
            with speaking():
                held = self._derived[key] = _Held(row, derived(row), defaults)
        return held.spec


def _key(provider: str, model: str) -> tuple[str, str]:
    for word, name in (("provider", provider), ("model", model)):
        if not isinstance(name, str):
            raise named(
                InputError(
                    f"a {word} is named by text, not {type(name).__name__}",
                    hint='for example get("openai", "gpt-4o")',
                    param=word,
                )
            )
    return provider.strip().lower(), model.strip()


def _known(provider: str, model: str) -> Model | None:
    from polyvox import catalog
    from polyvox.models import Model

    known = catalog.load()
    row = known.providers.get(provider)
    found = known.info(provider, model)
    if found is None and row is not None and row.default_model == model:
        return Model(id=model, provider=provider)
    return found


def _row(spec: ModelSpec) -> Model:
    """The row of the catalog that says what a specification does; what it has no word for stays as it was known."""
    from msgspec.structs import replace

    from polyvox import catalog
    from polyvox.models import Model

    known = catalog.load()
    row = known.info(spec.provider, spec.model_name)
    if row is None:
        row = Model(id=spec.model_name, provider=spec.provider, bare=not known.claims(spec.model_name))
    elif (row.provider, row.id) != (spec.provider, spec.model_name):
        # It was known by another name of the same model: now it is one of its own.
        row = replace(row, provider=spec.provider, id=spec.model_name, aliases=(), bare=False)
    limit = spec.parameter("max_tokens")
    most = limit.max_value if limit is not None and limit.max_value is not None else row.max_output
    return replace(row, capabilities=spec.capabilities.words, max_output=None if most is None else int(most))
