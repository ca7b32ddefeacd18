"""Transformers by the name of their provider. Those for the providers of the core's catalog need no registering."""

from __future__ import annotations

from typing import ClassVar

from polyvox.compat.llm_service.services.llm.registered import Names
from polyvox.compat.llm_service.services.llm.transformers.base import ConfigTransformer, of_dialect
from polyvox.compat.llm_service.services.llm.transformers.openai import OpenAITransformer


def _usual(provider: str) -> type[ConfigTransformer]:
    from polyvox import catalog

    return of_dialect(catalog.load().providers[provider].dialect)


class TransformerFactory:
    """Creates transformers. What is registered holds for the whole process; names count in any case.

    >>> type(TransformerFactory.create("OpenAI", "gpt-4")).__name__
    'OpenAITransformer'
    """

    _names: ClassVar[Names[ConfigTransformer]] = Names(
        "transformer", ConfigTransformer, {"openai": OpenAITransformer}, _usual
    )

    @classmethod
    def create(cls, provider: str, model: str | None = None) -> ConfigTransformer:
        """The transformer for a provider, with the specification of the model where the registry has one.
        UnsupportedProviderError where there is none."""
        import inspect
        import logging

        from polyvox.compat.llm_service.models.llm.specs.registry import ModelSpecRegistry

        kind = cls._names.get(provider)
        spec = None if model is None else ModelSpecRegistry().get(provider, model)
        if spec is None and model is not None:
            log = logging.getLogger("polyvox.llm_service")
            log.debug("no specification of %s/%s: what it takes is not checked", provider, model)
        try:
            inspect.signature(kind).bind(model_spec=spec)
        except TypeError:
            made = kind()  # its __init__ is its own business
            made.model_spec = spec
            return made
        return kind(model_spec=spec)

    @classmethod
    def register_transformer(cls, name: str, transformer: type[ConfigTransformer]) -> None:
        """Let a subclass of ConfigTransformer write the arguments for a provider. ValidationError for anything else;
        an earlier one of the name is replaced, with a warning in the log."""
        cls._names.add(name, transformer)

    @classmethod
    def unregister_transformer(cls, name: str) -> None:
        """Forget one that was registered; a built-in one of the name is there again."""
        cls._names.remove(name)

    @classmethod
    def registered(cls) -> tuple[str, ...]:
        """The names there are."""
        return cls._names.all()
