"""Whom a client of creative_services asks: a provider, a model, a key. It reads nothing and asks nobody."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from polyvox.compat.errors import named, speaking
from polyvox.compat.shared import IN_CATALOG
from polyvox.errors import ConfigError, InputError

if TYPE_CHECKING:
    from polyvox.catalog import Provider
    from polyvox.keys import Secret


class LLMProvider(StrEnum):
    """The providers that the documents name. Any other is said as a plain string."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"
    GROQ = "groq"
    GOOGLE = "google"
    OPENROUTER = "openrouter"

    @classmethod
    def _missing_(cls, value: object) -> LLMProvider:
        """A member by its word in any case; InputError for what is none."""
        if isinstance(value, str) and (found := _MEMBERS.get(value.strip().lower())) is not None:
            return found
        hint = f"there are {', '.join(cls)}; any other provider is said as a plain string"
        raise named(InputError(f"there is no member of LLMProvider for {value!r}", hint=hint, param="provider"))


_ALIASES = {"model_name": "model", "api_endpoint": "base_url"}
# What the other LLMConfig takes, which says what to ask and not whom.
_OF_REQUEST = ("prompt", "vector_store_id", "llm_model_spec", "max_num_results", "include_file_search_results")


@dataclass(frozen=True, init=False, repr=False)
class LLMConfig:
    """Whom to ask, and how.

    Args:
        provider: a member of LLMProvider, or the name of any other provider; without one, whom the environment's AI_
            variables or the model's name mean.
        model: as the provider has it, which is how it goes out; without one the provider's usual model. Also as
            model_name.
        api_key: without it, the provider's own from the environment, the key store or the configuration.
        base_url: another address than the provider's. Also as api_endpoint.
        temperature, max_tokens: sent with each call that says none; None is not sent.
        timeout: seconds for a whole call, retries included.

    A text without any word, such as the value of an empty variable, says nothing.

    InputError, which names the nearest field, for a keyword that is none.

    A copy has the key; a pickle never has it. Where it is read, a key that was the provider's own is looked up as if
    none had been said; another key is another account, so a client of such a config raises MissingKeyError.

    >>> LLMConfig(provider="openai", model="gpt-4o-mini", api_key="sk-not-a-real-key")
    LLMConfig(provider='openai', model='gpt-4o-mini', api_key='***')
    """

    provider: LLMProvider | str | None
    model: str | None
    api_key: Secret | None
    base_url: str | None
    temperature: float | None
    max_tokens: int | None
    timeout: float | None

    def __init__(
        self,
        provider: LLMProvider | str | None = None,
        model: str | None = None,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: float | None = None,
        **more: Any,
    ) -> None:
        said: dict[str, Any] = {
            "provider": provider, "model": model, "api_key": api_key, "base_url": base_url,
            "temperature": temperature, "max_tokens": max_tokens, "timeout": timeout,
        }  # fmt: skip
        from polyvox.client.check import seconds
        from polyvox.client.inputs import request_fields

        with speaking():
            for name, value in more.items():
                field = _meant(name, value, said)
                said[field] = said[field] if value is None else value
            said["provider"] = provider_of(said["provider"])
            for name in ("model", "base_url"):
                said[name] = word_of(name, said[name])
            said["api_key"] = _key(said["api_key"])
            if said["timeout"] is not None:
                said["timeout"] = seconds("timeout", said["timeout"])
            request_fields({name: said[name] for name in ("temperature", "max_tokens")})
        for name, value in said.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """What was said, without the key."""
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        shown = {name: str(value) if isinstance(value, str) else value for name, value in said.items()}
        shown |= {"api_key": str(self.api_key)} if self.api_key is not None else {}
        return f"LLMConfig({', '.join(f'{name}={value!r}' for name, value in shown.items() if value is not None)})"

    def __copy__(self) -> Self:
        """The same config: there is nothing in it to change."""
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        """The same config."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: all but the key."""
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.api_key is not None:
            from polyvox.compat.creative_services.core.left_behind import LEFT, is_usual

            said["api_key"] = None if is_usual(self) else LEFT
        return said

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read what `__getstate__` gave."""
        for name, value in state.items():
            object.__setattr__(self, name, value)


def _key(said: Any) -> Secret | None:
    """A key as it is kept; None for one without any word."""
    if said is None:
        return None
    from polyvox.compat.creative_services.core.left_behind import LEFT
    from polyvox.keys import Secret
    from polyvox.keys.secret import secret_of

    key = said if isinstance(said, Secret) else word_of("api_key", said)
    return key if key is None or key is LEFT else secret_of(key)


def _meant(name: str, value: Any, said: dict[str, Any]) -> str:
    """The field that a keyword means."""
    field = _ALIASES.get(name)
    if field is not None:
        if said[field] is not None and value is not None:
            raise InputError(f"{name} and {field} are the same", param=name, hint="say one of them")
        return field
    import difflib

    near = difflib.get_close_matches(name, [*said, *_ALIASES], n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(said)}"
    if name in _OF_REQUEST:
        hint = f"{name} belongs to LLMConfig of polyvox.compat.llm_service, which says what to ask; this one says whom"
    raise InputError(f"LLMConfig has no {name!r}", param=name, hint=hint)


def refuse_other(given: Any) -> None:
    """InputError for what is no LLMConfig, which says so of the other class of this name."""
    if isinstance(given, LLMConfig):
        return
    hint = "say LLMClient(LLMConfig(provider=..., model=...))"
    if hasattr(given, "llm_model_spec"):
        hint = "that one is of polyvox.compat.llm_service: it says what to ask; here LLMConfig says whom"
    raise named(InputError(f"a client is made of an LLMConfig, not of {type(given).__name__}", hint=hint))


# ---- names ------------------------------------------------------------------------------------


def word_of(name: str, value: Any) -> str | None:
    """A text that somebody said; None for one without any word. InputError for what is no text."""
    from polyvox.client.check import text_or_none

    text = text_or_none(name, value)
    return None if text is None else text.strip() or None


_MEMBERS: dict[str, LLMProvider] = {
    word: member for member in LLMProvider for word in (member.value, IN_CATALOG.get(member.value, member.value))
}


def provider_of(name: Any) -> LLMProvider | str | None:
    """A provider as it is kept: the member for one that has any, else the word in lower case."""
    word = (word_of("provider", name) or "").lower()
    return _MEMBERS.get(word, word) or None


def row_of(provider: str) -> Provider:
    """What is known of a provider; UnknownProviderError for one that nobody knows."""
    from polyvox import catalog, config

    settings = config.current()
    rows = catalog.load().with_overrides(settings.providers, settings.origins)
    return rows.provider(IN_CATALOG.get(provider, provider))


def usual_model(provider: str) -> str:
    """The model that a provider is asked for where nobody says which."""
    found = row_of(provider).default_model
    if found is None:
        raise ConfigError(f"no model is named for {provider}", hint="say which with model=...")
    return found


def name_of(provider: str | None, model: str | None) -> str | None:
    """A provider and its model in one name, as the core takes it; None where nothing is said."""
    if provider is None:
        return model
    from polyvox import backends

    if model is None and backends.registered_as(provider) is not None:
        return str(provider)
    return f"{IN_CATALOG.get(provider, provider)}/{model or usual_model(provider)}"
