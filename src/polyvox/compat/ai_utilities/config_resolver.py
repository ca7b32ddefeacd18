"""From all that is said to settings that are ready for use: with what is usual for their provider, and with the origin
of every value. Usable alone; it asks nobody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from polyvox.compat.ai_utilities.providers import factory, wiring
from polyvox.compat.errors import named, speaking
from polyvox.errors import ConfigError, InputError

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.settings import AiSettings

__all__ = ["ConfigurationResolver", "Resolved"]


class Resolved(NamedTuple):
    """Settings, and for each of their fields where its value comes from: "argument", "env NAME", ".env:LINE NAME",
    "default", or "default of PROVIDER"."""

    settings: AiSettings
    origins: dict[str, str]


class ConfigurationResolver:
    """Resolves and checks settings.

    Args:
        settings_class: `AiSettings`, or a subclass with more fields.
        env_file: the file that is read after the environment; None reads none.
    """

    def __init__(
        self, settings_class: type[AiSettings] | None = None, *, env_file: str | os.PathLike[str] | None = ".env"
    ) -> None:
        if settings_class is not None and not isinstance(settings_class, type):
            raise named(InputError(
                f"settings_class is a class, not {type(settings_class).__name__}",
                hint="settings that are made already go to resolve(settings)",
            ))  # fmt: skip
        self._class = settings_class
        self._env_file = env_file

    def resolve(self, settings: AiSettings | None = None, **said: Any) -> Resolved:
        """The settings and their origins; what is said goes before everything else. With settings that are made
        already, they are checked and completed.

        ConfigError, with every problem, for values that cannot be and for those that cannot be together;
        UnknownProviderError, with the names there are, for a provider that nobody knows.

        >>> settings, origins = ConfigurationResolver(env_file=None).resolve(provider="groq", model="x")
        >>> origins["model"], origins["base_url"]
        ('argument', 'default of groq')
        """
        with speaking():
            if settings is not None and not hasattr(settings, "model_copy"):
                raise InputError(f"settings are AiSettings, not {type(settings).__name__}", hint="AiSettings(...)")
            if settings is None:
                settings = self._settings_class()(**{"_env_file": self._env_file, **said})
            elif said:
                settings = settings.model_copy(update=said)
            return self._completed(settings)

    def _settings_class(self) -> type[AiSettings]:
        if self._class is None:
            from polyvox.compat.ai_utilities.config_models import AiSettings

            self._class = AiSettings
        return self._class

    def _completed(self, settings: AiSettings) -> Resolved:
        cls = factory.class_of(settings.provider)
        usual = wiring.defaults_of(settings.provider)._asdict()
        missing = {field: value for field, value in usual.items() if getattr(settings, field) is None}
        added = {field: value for field, value in missing.items() if value is not None}
        problems = (*factory.problems_of(cls, settings), *_together(settings))
        if problems:
            raise named(ConfigError("these settings cannot be used together", problems=problems, hint=problems[0]))
        whole = settings.completed(added)
        return Resolved(whole, whole.origins)


def _together(settings: AiSettings) -> Iterator[str]:
    """Values that are right, and cannot be together."""
    if settings.provider == wiring.AUTO:
        if settings.base_url is not None:
            yield 'base_url: whose address it is is not said with provider="auto"; name the provider'
        if settings.api_key is not None and not settings.key_is_the_providers and settings.model is None:
            yield 'api_key: whose key it is is not said with provider="auto"; name the provider or the model'
    if settings.cache_options and not settings.cache_enabled:
        yield "cache_options: the cache is off; set AI_CACHE_ENABLED, or pass cache_enabled=True"
