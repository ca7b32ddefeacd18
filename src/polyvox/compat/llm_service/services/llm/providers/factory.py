"""Providers by name: the one of the document, those that were registered, and all of the core's catalog."""

from __future__ import annotations

from typing import Any, ClassVar

from polyvox.compat.llm_service.services.llm.providers.base import BaseProvider
from polyvox.compat.llm_service.services.llm.providers.core import CoreProvider
from polyvox.compat.llm_service.services.llm.providers.openai import OpenAIProvider
from polyvox.compat.llm_service.services.llm.registered import Names


class ProviderFactory:
    """Creates providers. What is registered holds for the whole process; names count in any case.

    >>> ProviderFactory.create("openai", None).name
    'openai'
    """

    _names: ClassVar[Names[BaseProvider]] = Names(
        "provider", BaseProvider, {"openai": OpenAIProvider}, lambda _name: CoreProvider
    )

    @classmethod
    def create(cls, name: str, client: Any = None) -> BaseProvider:
        """The provider of a name, for a client of its library. UnsupportedProviderError, with the names there are and
        the nearest, for one that is not known."""
        made = cls._names.get(name)(client)
        made.name = cls._names.known_as(name)
        return made

    @classmethod
    def register_provider(cls, name: str, provider: type[BaseProvider]) -> None:
        """Let a subclass of BaseProvider answer for a name. ValidationError for anything else; an earlier one of the
        name is replaced, with a warning in the log."""
        cls._names.add(name, provider)

    @classmethod
    def unregister_provider(cls, name: str) -> None:
        """Forget one that was registered; a built-in one of the name is there again."""
        cls._names.remove(name)

    @classmethod
    def registered(cls) -> tuple[str, ...]:
        """The names there are."""
        return cls._names.all()
