"""`AiSettings` itself: what may be set, and what it may be. Needs pydantic-settings; everybody takes it from
`config_models`, which says so where that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pydantic
from pydantic import AliasChoices, Field, PrivateAttr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from polyvox.compat.ai_utilities import sources
from polyvox.compat.ai_utilities.sources import DEFAULT, USUAL, Value
from polyvox.compat.errors import named, speaking
from polyvox.errors import ConfigError, InputError

# What reads keys and addresses is loaded with the first settings that are made: to name the class costs pydantic alone.
if TYPE_CHECKING:
    from polyvox.keys import Secret

_SECRET = "api_key"  # noqa: S105 - the name of a field
_MODEL = ("AI_MODEL", "OPENAI_MODEL")

_MUST: dict[str, str] = {
    "provider": "the name of a provider",
    "api_key": "text",
    "model": "the name of a model",
    "base_url": "a URL",
    "temperature": "a number from 0 to 2",
    "max_tokens": "a whole number from 1 up",
    "timeout_s": "a number of seconds above 0",
    "cache_enabled": "true or false",
    "cache_backend": "the name of a cache",
    "cache_ttl_s": "a whole number of seconds from 0 up",
    "cache_options": 'a table, such as {"max_entries": 500}',
}
"""What a value must be, in the words of whoever reads the error."""


class _Key(str):
    """A key as text, whole for whoever sends it; what prints a table of values shows only which one it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        from polyvox.keys import Secret

        return f"<key {Secret(self).fingerprint}>"


class AiSettings(BaseSettings):
    """All settings. What is said here goes before AI_ variables of the environment (in any case), those before the
    .env file of the working directory (`_env_file=None` reads none, a path another), those before the defaults.

    Attributes:
        provider: a name of the catalog, one that was registered, or "auto" for whoever has a key.
        api_key: text; where none is said the provider's own variable is asked. Only this attribute gives it: it is in
            no vars(), dict(), dump or pickle of settings. A base_url from a .env file gets a key from the same file, or
            one that is said here, and no other.
        model: None asks the provider's usual one; OPENAI_MODEL says it too.
        base_url: None is the provider's own.
        temperature, max_tokens: sent to models that take them; None is not sent.
        timeout_s: seconds for a whole call; None is what is usual for the provider.
        cache_enabled, cache_backend, cache_ttl_s (seconds), cache_options: answers that are given again;
            cache_options are the arguments of the cache.

    Values cannot be changed; `model_copy(update={...})` gives others, checked. Raises ConfigError, which is a
    ValueError, with every problem.

    >>> AiSettings(temperature=0.2, _env_file=None).temperature
    0.2
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=sources.PREFIX,
        case_sensitive=False,
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
    )

    provider: str = Field(default="openai", min_length=1)
    api_key: str | None = Field(default=None, repr=False, exclude=True)
    model: str | None = Field(default=None, min_length=1, validation_alias=AliasChoices(*_MODEL))
    base_url: str | None = None
    temperature: float | None = Field(default=0.7, ge=0.0, le=2.0)
    max_tokens: int | None = Field(default=None, gt=0)
    timeout_s: float | None = Field(default=None, gt=0, lt=1e9)
    cache_enabled: bool = False
    cache_backend: str = "memory"
    cache_ttl_s: int = Field(default=3600, ge=0)
    cache_options: dict[str, Any] = Field(default={}, repr=False, exclude=True)

    ENV_FILE: ClassVar[str | None] = ".env"
    """The file that is read where a call names none."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _secret: Secret | None = PrivateAttr(default=None)

    def __init__(self, **said: Any) -> None:
        env_file, find_key = said.pop("_env_file", type(self).ENV_FILE), said.pop("_find_key", True)
        if unknown := [name for name in said if name.startswith("_")]:
            raise named(InputError(f"there is no option {unknown[0]}", hint="_env_file=... is the only one"))
        for name in _MODEL:
            if name in said:
                said.setdefault("model", said.pop(name))
        with speaking():
            found = sources.gathered(said, type(self).model_fields, env_file, find_key)
        sources.keep_secret(found[_SECRET].value if _SECRET in found else None)
        try:
            super().__init__(_env_file=None, **{field: sources.as_json(value) for field, value in found.items()})
        except pydantic.ValidationError as error:
            raise _told(error, found) from error
        self._origins = {field: found[field].origin if field in found else DEFAULT for field in type(self).model_fields}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - as pydantic has it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what __init__ gathered: it knows where each value comes from, which those sources do not tell."""
        return (init_settings,)

    def model_post_init(self, context: Any) -> None:
        """Take the key out of the table of values, which anybody may print, dump and send."""
        from polyvox.keys import secret_of

        key = self.__dict__.pop(_SECRET, None)
        self._secret = secret_of(key) if key else None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The key, which is no value in the table."""
            if name != _SECRET:
                return super().__getattr__(name)
            return None if self._secret is None else _Key(self._secret.reveal())

    # ---- values -------------------------------------------------------------------------------

    @field_validator("provider", "cache_backend", "model", mode="before")
    @classmethod
    def _as_a_name(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value

    @field_validator("provider", "cache_backend", mode="after")
    @classmethod
    def _as_a_word(cls, value: str) -> str:
        return value.lower()

    @field_validator("api_key", mode="after")
    @classmethod
    def _without_spaces(cls, value: str | None) -> str | None:
        return value.strip() or None if value is not None else None

    @field_validator("cache_backend", mode="after")
    @classmethod
    def _one_that_there_is(cls, value: str) -> str:
        from polyvox.compat.ai_utilities.cache import cache_backends

        if value not in cache_backends():
            raise ValueError(f"must be one of {', '.join(cache_backends())}")
        return value

    @field_validator("base_url", mode="after")
    @classmethod
    def _a_url(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        from polyvox import catalog

        url = value.strip()
        problems = catalog.url_problems(url if "://" in url else f"https://{url}")
        if problems:
            raise ValueError(problems[0])
        return url

    # ---- what is known of them ----------------------------------------------------------------

    @property
    def origins(self) -> dict[str, str]:
        """Where each value comes from: "argument", "env NAME", ".env:LINE NAME" or "default"."""
        return dict(self._origins)

    def origin(self, field: str) -> str:
        """Where the value of one field comes from."""
        return self._origins.get(field, DEFAULT)

    @property
    def key_is_the_providers(self) -> bool:
        """Whether the key was found under the provider's own variable; it is no other provider's."""
        origin = self.origin(_SECRET)
        return " " in origin and not origin.rpartition(" ")[2].upper().startswith(sources.PREFIX)

    # ---- other values -------------------------------------------------------------------------

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The same settings with other values, which are checked; a key that only the old provider has a use for is
        looked for anew."""
        if not update:
            return super().model_copy(deep=deep)
        values = {field: getattr(self, field) for field in type(self).model_fields}
        moved = update.get("provider", self.provider) != self.provider
        if moved:
            values = {field: value for field, value in values.items() if not self.origin(field).startswith(USUAL)}
        elsewhere = moved or update.get("base_url", self.base_url) != self.base_url
        anew = elsewhere and self.key_is_the_providers and _SECRET not in update
        if anew:
            del values[_SECRET]
        # Who wrote an address into a file gets no key of the environment by way of a copy either.
        stays = "base_url" not in update and sources.is_of_file(self.origin("base_url"))
        copied = type(self)(**{**values, **update}, _env_file=None, _find_key=anew and not stays)
        own = {field: origin for field, origin in self._origins.items() if field in values and field not in update}
        copied._origins.update(own)
        return copied

    def completed(self, usual: Mapping[str, Any]) -> Self:
        """The same settings with what is usual for their provider in the place of what nobody said."""
        copied = super().model_copy(update=dict(usual))
        copied._origins = {**self._origins, **dict.fromkeys(usual, f"{USUAL}{self.provider}")}
        return copied

    def __hash__(self) -> int:
        """Fit for sets and as the key of a table; equal settings have the same."""
        return hash((type(self), repr(self), self._secret))

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse: whoever holds the same settings would not know."""
        if name in type(self).model_fields:
            raise _refused(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        """Refuse, likewise."""
        if name in type(self).model_fields:
            raise _refused(name)
        super().__delattr__(name)

    def __getstate__(self) -> dict[Any, Any]:
        """Without the key, which is looked for again by whoever reads it."""
        state = dict(super().__getstate__())
        return {**state, "__pydantic_private__": {**(state["__pydantic_private__"] or {}), "_secret": None}}


def _refused(name: str) -> Exception:
    return named(
        InputError("settings cannot be changed", hint=f'say settings.model_copy(update={{"{name}": ...}})', param=name)
    )


def _told(error: pydantic.ValidationError, found: Mapping[str, Value]) -> ConfigError:
    """All that is wrong, under the names that were typed; a key is never shown."""
    problems: dict[str, str] = {}
    for one in error.errors(include_url=False, include_context=False):
        field = str(one["loc"][0]) if one["loc"] else ""
        field = "model" if field in _MODEL else field
        if field not in problems:
            problems[field] = _problem(field, str(one["msg"]), str(one["type"]), found.get(field))
    names = ", ".join(found[field].name if field in found else field for field in problems)
    first = next(iter(problems), None)
    return named(ConfigError(
        "the settings cannot be used", problems=tuple(problems.values()), hint=f"mend {names}", param=first
    ))  # fmt: skip


def _problem(field: str, message: str, kind: str, value: Value | None) -> str:
    if value is None:
        return f"{field}: {message}"
    if kind == "extra_forbidden":
        return f"{field}: there is no such setting"
    from polyvox.keys import redact

    shown = "" if field == _SECRET else f"={redact(str(value.value))[:80]}"
    where = f"{value.origin.rpartition(' ')[0]}: " if value.is_of_file else ""
    what = message.removeprefix("Value error, ") if kind == "value_error" or field not in _MUST else ""
    return f"{where}{value.name}{shown}: {field} {what or f'must be {_MUST[field]}'}"
