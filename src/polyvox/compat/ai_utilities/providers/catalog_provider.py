"""A provider of the catalog behind the interface of AI Utilities: what settings say becomes a client of the core, which
does the asking. What differs between providers is data of the core's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import polyvox
from polyvox.backends import backend_of
from polyvox.compat import shared
from polyvox.compat.ai_utilities.providers import wiring
from polyvox.compat.ai_utilities.providers.base_provider import BaseProvider, checked_prompts
from polyvox.compat.ai_utilities.providers.keyless import speaking_of_keys, tell_ways
from polyvox.compat.ai_utilities.results import AskResult
from polyvox.compat.ai_utilities.streams import AsyncTextStream, TextStream
from polyvox.compat.errors import named, speaking
from polyvox.errors import ConfigError, InputError, MissingKeyError, PolyvoxError

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.settings import AiSettings

ClientT = TypeVar("ClientT")

USUAL = ("temperature", "max_tokens")
"""The settings that go with every call which does not say otherwise."""


class CatalogProvider(BaseProvider):
    """Any provider of the catalog, a registered backend, or "auto" for whichever has a key: `settings.provider` says
    whom. A model may also be the name of a deployment in a registry.

    Args:
        settings: see `AiSettings`.
        client: asked in the place of the provider: a client of a vendor's library (`openai.OpenAI(...)`), an object
            that polyvox.backends takes, or a `polyvox.Client`.

    Keywords of a call are those of `polyvox.Client.ask`: model, temperature, max_tokens, system, tools, ...
    """

    name: ClassVar[str] = ""
    """Whom a class stands for; "" for whom the settings say."""

    def __init__(self, settings: AiSettings, client: Any = None) -> None:
        if not hasattr(settings, "provider"):
            raise named(InputError(f"settings are AiSettings, not {type(settings).__name__}", hint="AiSettings(...)"))
        self._client = client
        super().__init__(settings)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.provider!r}>"

    @property
    def provider(self) -> str:
        """The name of who is asked."""
        return type(self).name or self.settings.provider

    @property
    def model(self) -> str | None:
        """Which model is asked where a call names none; None where that is left to who answers."""
        return self.settings.model or wiring.defaults_of(self.provider).model

    @property
    def client(self) -> Any:
        """Who does the asking: what was given, else a `polyvox.Client`."""
        return self._sync if self._client is None else self._client

    @client.setter
    def client(self, client: Any) -> None:
        self._forget()
        self._client = client

    # ---- the clients of the core --------------------------------------------------------------

    # Each is made when it is first used: a subclass may say its client after all else.

    @property
    def _sync(self) -> polyvox.Client:
        return self._kept("_sync_", polyvox.Client, self._facts)

    @property
    def _async(self) -> polyvox.AsyncClient:
        return self._kept("_async_", polyvox.AsyncClient, self._facts)

    @property
    def _everyone(self) -> polyvox.Client:
        return self._kept("_everyone_", polyvox.Client, _anybody)

    @property
    def _everyone_async(self) -> polyvox.AsyncClient:
        return self._kept("_everyone_async_", polyvox.AsyncClient, _anybody)

    def _kept(self, place: str, kind: Callable[..., ClientT], facts: Callable[[], dict[str, Any]]) -> ClientT:
        if place not in self.__dict__:
            with speaking():
                self.__dict__.setdefault(place, kind(**facts()))
        found: ClientT = self.__dict__[place]
        return found

    def _forget(self) -> None:
        for place in ("_sync_", "_async_", "_everyone_", "_everyone_async_"):
            self.__dict__.pop(place, None)

    def _facts(self) -> dict[str, Any]:
        if self._client is None:
            return wiring.facts_of(self.settings, self.provider)
        row = wiring.row_of(self.provider)
        codec = row.dialect if row is not None and not callable(getattr(self._client, "ask", None)) else None
        facts: dict[str, Any] = {"backend": backend_of(self._client, dialect=codec)}
        return facts | ({"timeout": self.settings.timeout_s} if self.settings.timeout_s else {})

    # ---- what a call says ---------------------------------------------------------------------

    def _said(self, kwargs: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        """Whether a deployment of a registry is meant, and what the core is told."""
        settings = self.settings
        said = {name: getattr(settings, name) for name in USUAL} | kwargs
        said = {name: value for name, value in said.items() if value is not None}
        model = said.pop("model", None) or self.model
        if model is not None and not isinstance(model, str):
            raise named(InputError(
                f"model is a name, not {type(model).__name__}", hint="list_models() tells the names", param="model"
            ))  # fmt: skip
        entry = self._deployment(model)
        if entry is not None:
            for name in USUAL:
                if getattr(entry, name) is not None and name not in kwargs and settings.origin(name) == "default":
                    said.pop(name, None)  # what a deployment says goes before what nobody said
            return True, said | {"model": model}
        if model is not None:
            name = str.__str__(model)  # what a member of an enumeration means, not what it is called
            said["model"] = name if self._client is not None else self._full(name)
        elif self.provider != wiring.AUTO and self._client is None:
            said["model"] = self.provider
        return False, said

    def _full(self, model: str) -> str:
        return wiring.full_name(self.provider, model, self.settings.base_url)

    def _deployment(self, model: str | None) -> Any:
        if self._client is not None or model is None:
            return None
        # What is wrong with variables that are not asked for is no matter of this call.
        with contextlib.suppress(ConfigError):
            return shared.EVERYONE.get_by_name(model)
        return None

    # ---- asking -------------------------------------------------------------------------------

    def ask(self, prompt: str, **kwargs: Any) -> AskResult:
        """See `BaseProvider`."""
        with speaking_of_keys(self.provider):
            client, said = self._at(kwargs)
            return AskResult.of(client.ask(prompt, **said))

    def ask_batch(self, prompts: list[str], **kwargs: Any) -> list[AskResult]:
        """See `BaseProvider`."""
        asked = checked_prompts(prompts)
        with speaking_of_keys(self.provider):
            client, said = self._at(kwargs)
            return [self._result(given) for given in client.ask_batch(asked, **said)]

    def ask_stream(self, prompt: str, **kwargs: Any) -> Iterator[str]:
        """See `BaseProvider`. What comes is closed with close() by whoever leaves early; at its end it has a
        `result`."""
        with speaking_of_keys(self.provider):
            client, said = self._at(kwargs)
            stream = client.stream(prompt, **said)
        return TextStream(stream, lambda _: AskResult.of(stream.response), name=self.provider, around=speaking_of_keys)

    def list_models(self) -> list[str]:
        """See `BaseProvider`. Asked of the provider; it costs nothing, and is kept for five minutes."""
        with speaking_of_keys(self.provider):
            return [model.id for model in self._core_client().models(self._lister())]

    def _at(self, kwargs: dict[str, Any]) -> tuple[polyvox.Client, dict[str, Any]]:
        named_one, said = self._said(kwargs)
        return (self._everyone if named_one else self._core_client()), said

    def _result(self, given: Any) -> AskResult:
        if isinstance(given, MissingKeyError):
            tell_ways(given, self.provider)
        return AskResult.failed(named(given)) if isinstance(given, PolyvoxError) else AskResult.of(given)

    def _core_client(self) -> polyvox.Client:
        return self._client if isinstance(self._client, polyvox.Client) else self._sync

    def _lister(self) -> str | None:
        return None if self._client is not None or self.provider == wiring.AUTO else self.provider

    # ---- the same, awaited --------------------------------------------------------------------

    async def ask_async(self, prompt: str, **kwargs: Any) -> AskResult:
        """See `BaseProvider`."""
        if isinstance(self._client, polyvox.Client):
            return await super().ask_async(prompt, **kwargs)
        with speaking_of_keys(self.provider):
            client, said = self._at_async(kwargs)
            return AskResult.of(await client.ask(prompt, **said))

    async def ask_batch_async(self, prompts: list[str], **kwargs: Any) -> list[AskResult]:
        """See `BaseProvider`."""
        if isinstance(self._client, polyvox.Client):
            return await super().ask_batch_async(prompts, **kwargs)
        asked = checked_prompts(prompts)
        with speaking_of_keys(self.provider):
            client, said = self._at_async(kwargs)
            return [self._result(given) for given in await client.ask_batch(asked, **said)]

    def ask_stream_async(self, prompt: str, **kwargs: Any) -> AsyncIterator[str]:
        """See `BaseProvider`."""
        if isinstance(self._client, polyvox.Client):
            return super().ask_stream_async(prompt, **kwargs)
        with speaking_of_keys(self.provider):
            client, said = self._at_async(kwargs)
            stream = client.stream(prompt, **said)
        return AsyncTextStream(
            stream, lambda _: AskResult.of(stream.response), name=self.provider, around=speaking_of_keys
        )

    async def list_models_async(self) -> list[str]:
        """See `BaseProvider`."""
        if isinstance(self._client, polyvox.Client):
            return await super().list_models_async()
        with speaking_of_keys(self.provider):
            return [model.id for model in await self._async.models(self._lister())]

    def _at_async(self, kwargs: dict[str, Any]) -> tuple[polyvox.AsyncClient, dict[str, Any]]:
        named_one, said = self._said(kwargs)
        return (self._everyone_async if named_one else self._async), said

    # ---- the end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the connections made here; a client that was given is its owner's."""
        for place in ("_sync_", "_everyone_"):
            if (client := self.__dict__.pop(place, None)) is not None:
                client.close()

    async def close_async(self) -> None:
        """See `close`."""
        for place in ("_async_", "_everyone_async_"):
            if (client := self.__dict__.pop(place, None)) is not None:
                await client.close()
        await super().close_async()


def _anybody() -> dict[str, Any]:
    return {"registry": shared.EVERYONE}
