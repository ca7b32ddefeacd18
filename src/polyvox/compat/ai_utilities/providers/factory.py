"""Providers by name: ours, those that were registered, those that an installed package announces, and all that the
catalog knows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from polyvox import backends, catalog, config
from polyvox.compat.ai_utilities.providers import wiring
from polyvox.compat.ai_utilities.providers.base_provider import BaseProvider
from polyvox.compat.errors import named
from polyvox.errors import ConfigError, InputError, UnknownProviderError

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.settings import AiSettings

GROUP = "polyvox.ai_utilities.providers"
"""The entry point group in which a package announces providers."""

_OURS = {
    "openai": ("openai_provider", "OpenAIProvider"),
    "groq": ("groq_provider", "GroqProvider"),
    "ollama": ("ollama_provider", "OllamaProvider"),
}
_added: dict[str, type[BaseProvider]] = {}
_announced: dict[str, type[BaseProvider]] = {}


def provider_names() -> tuple[str, ...]:
    """The names that settings.provider may have.

    >>> {"openai", "groq", "ollama", "anthropic", "auto"} <= set(provider_names())
    True
    """
    known = (*_OURS, *_added, *(point.name.lower() for point in entry_points(group=GROUP)), *backends.registered)
    rows = (*catalog.load().providers, *config.current().providers)
    return tuple(dict.fromkeys((*known, *rows, wiring.AUTO)))


def register_provider(name: str, cls: type[BaseProvider]) -> Callable[[], None]:
    """Let settings.provider name a provider of somebody else's, in the place of one of ours too; call what comes back
    to take it away again. InputError for a name that is none, and for what is no subclass of `BaseProvider`."""
    word = name.strip().lower() if isinstance(name, str) else ""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", word) or word == wiring.AUTO:
        raise named(InputError(f"{name!r} is no name for a provider", hint="letters, digits, '.', '-' and '_'"))
    if not (isinstance(cls, type) and issubclass(cls, BaseProvider)):
        raise named(InputError(f"{cls!r} is no class of providers", hint="inherit from BaseProvider"))
    _added[word] = cls

    def forget() -> None:
        if _added.get(word) is cls:
            del _added[word]

    return forget


def create_provider(settings: AiSettings, provider: str | None = None) -> BaseProvider:
    """The provider that settings name, or the one that is named here, made from them.

    UnknownProviderError, with the names there are, for one that nobody knows; ConfigError for settings that it cannot
    work with.
    """
    if not hasattr(settings, "provider"):
        raise named(InputError(f"settings are AiSettings, not {type(settings).__name__}", hint="AiSettings(...)"))
    if provider is not None and not isinstance(provider, str):
        raise named(InputError(f"provider is a name, not {type(provider).__name__}", param="provider"))
    name = (provider or settings.provider).strip().lower()
    cls = class_of(name)
    if name != settings.provider:
        settings = settings.model_copy(update={"provider": name})
    refuse_problems(cls, settings)
    return cls(settings)


def class_of(name: str) -> type[BaseProvider]:
    """The class for a provider's name; UnknownProviderError for one that nobody knows."""
    if name in _added:
        return _added[name]
    if name in _OURS:
        module, kind = _OURS[name]
        found: type[BaseProvider] = getattr(import_module(f"{__package__}.{module}"), kind)
        return found
    announced = _class_announced(name)
    if announced is not None:
        return announced
    names = provider_names()
    if name in names:
        from polyvox.compat.ai_utilities.providers.catalog_provider import CatalogProvider

        return CatalogProvider
    near = difflib.get_close_matches(name, names, n=1)
    raise named(UnknownProviderError(
        f"there is no provider {name!r}; there are {', '.join(names)}",
        hint=f"did you mean {near[0]}?" if near else "register_provider(name, cls) adds one",
        param="provider",
    ))  # fmt: skip


def _class_announced(name: str) -> type[BaseProvider] | None:
    if name in _announced:
        return _announced[name]
    for point in entry_points(group=GROUP):
        if point.name.lower() == name:
            try:
                cls = point.load()
            except Exception as error:
                raise named(ConfigError(
                    f"the provider {name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}",
                    hint="update the package that announces it, or uninstall it",
                )) from error  # fmt: skip
            if not (isinstance(cls, type) and issubclass(cls, BaseProvider)):
                raise named(ConfigError(f"{point.value} is no class of providers", hint="uninstall its package"))
            _announced[name] = cls
            return cls
    return None


def problems_of(cls: type[BaseProvider], settings: AiSettings) -> Iterable[str]:
    """Why a class of providers cannot work with settings: what is missing, then what the class itself says."""
    for field in cls.required_settings:
        if getattr(settings, field, None) in (None, ""):
            yield f"{settings.provider} needs {field}: set AI_{field.upper()}, or pass {field}=..."
    yield from cls.problems_of(settings)


def refuse_problems(cls: type[BaseProvider], settings: AiSettings) -> None:
    """ConfigError with all that `problems_of` finds."""
    problems = tuple(problems_of(cls, settings))
    if problems:
        raise named(ConfigError(
            f"the provider {settings.provider!r} cannot work with these settings", problems=problems,
            hint="mend what is listed",
        ))  # fmt: skip
