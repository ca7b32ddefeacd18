"""How TTT's own backends ask: through one client of the core each, made anew when their configuration changes. The
core chooses, retries and counts; here stand only names and what is said of a backend."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from polyvox.compat.errors import named, speaking
from polyvox.compat.ttt.backends.base import BaseBackend
from polyvox.compat.ttt.config import Config, get_config
from polyvox.compat.ttt.responses import AIResponse, response_of
from polyvox.errors import ConfigError, ConnectionFailedError, PolyvoxError

if TYPE_CHECKING:
    from polyvox import AsyncClient
    from polyvox.client import AsyncChat
    from polyvox.compat.ttt.backends.cloud import CloudBackend
    from polyvox.types import Response

Model = str | list[str] | tuple[str, ...] | None
AUTO = "auto"
"""The model that leaves the choice to what the query says, and the backend that leaves it to the model."""
SPARE = "ttt-local-fallback"
"""The deployment that the local backend is where it answers for others."""
KEPT = 15
"""How many earlier clients, and objects that were given as backends, are kept beside the newest."""


def said_of(name: str, config: Any) -> Config | None:
    """What somebody gave as a backend's configuration: a Config, the backend's own settings, or whole tables of
    settings. None where nothing was given, which means the configuration of the process at each moment."""
    if config is None or isinstance(config, Config):
        return config
    if not isinstance(config, Mapping):
        what = f"a backend is configured by a table or a Config, not {type(config).__name__}"
        raise named(ConfigError(what, hint='for example {"timeout": 5}'))
    if {"backends", "models"} & set(config):
        return Config(config, loaders=())
    return Config({"backends": {name: dict(config)}}, loaders=())


class Asking(BaseBackend):
    """A backend that asks through a client of the core. config is a table of its settings, or a `Config`; without one
    the configuration of the process holds, as it changes."""

    def __init__(self, config: Mapping[str, Any] | Config | None = None) -> None:
        self._config = said_of(self.name, config)
        self._lock = threading.Lock()
        self._clients: list[tuple[str, dict[str, Any], AsyncClient]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @property
    def config(self) -> Config:
        """What is configured now."""
        return self._config or get_config()

    @property
    def said(self) -> dict[str, Any]:
        """What holds for this backend now."""
        return self.config.of_backend(self.name)

    @property
    def given(self) -> BaseBackend:
        """The backend as whoever wrote it gave it."""
        return self

    # ---- what each of them says ---------------------------------------------------------------

    @abstractmethod
    def meant(self, model: Model) -> tuple[AsyncClient, Model]:
        """The client that is asked for a model, and how the model is called there."""

    def label(self, response: Response) -> str:
        """Whose answer it is."""
        return self.name

    async def ready(self, model: Model) -> None:
        """Whatever must be done before a model can be asked."""

    def called(self, model: Model) -> list[str]:
        """What the core calls a model of this backend; nothing where nobody else may be asked for it."""
        return [model] if isinstance(model, str) else list(model or ())

    @abstractmethod
    def as_spare(self, reach: CloudBackend) -> str | None:
        """What the core calls this backend where it answers for others through `reach`; None where nothing says which
        model."""

    def client(self, place: str, facts: dict[str, Any]) -> AsyncClient:
        """The client for a place, made anew when the facts are others than before."""
        said = self.said
        facts = facts | {name: said[name] for name in ("timeout", "retries", "cache") if name in said}
        with self._lock:
            # Those of earlier configurations are kept a while: calls may be under way, and many are changed back.
            for held_place, held_facts, held in self._clients:
                if held_place == place and held_facts == facts:
                    return held
            from polyvox import AsyncClient

            made = AsyncClient(**facts)
            self._clients = [*self._clients[-KEPT:], (place, facts, made)]
            return made

    # ---- BaseBackend --------------------------------------------------------------------------

    async def ask(self, prompt: Any, *, model: Model = None, **kwargs: Any) -> AIResponse:
        """The whole answer; keywords are those of `polyvox.AsyncClient.ask`."""
        return await self.answer(prompt, model, kwargs)

    async def answer(
        self, prompt: Any, model: Model, options: Mapping[str, Any], *, asked: str | None = None, reason: Any = None
    ) -> AIResponse:
        """The whole answer, under the name that was asked for, with the reason why this backend was."""
        began = time.perf_counter()
        with speaking():
            await self.ready(model)
            client, wire = self.meant(model)
            try:
                response = await client.ask(prompt, model=wire, **options)
            except PolyvoxError as error:
                self.failed(error)
                raise
            self.noticed(True)
        return self.told(response, asked or model, wire, time.perf_counter() - began, reason)

    def told(self, response: Response, asked: Any, wire: Model, seconds: float, reason: str | None) -> AIResponse:
        """An answer of the core as one of TTT."""
        if not isinstance(asked, str):
            asked = None
        if isinstance(wire, list | tuple) and response.deployment != wire[0]:
            # Another than the first answered: its own name is told.
            asked = None if response.deployment == SPARE else response.deployment
        return response_of(response, model=asked, backend=self.label(response), seconds=seconds, reason=reason)

    async def astream(self, prompt: Any, *, model: Model = None, **kwargs: Any) -> AsyncIterator[str]:
        """The answer as it comes; leaving it early ends it at the provider."""
        with speaking():
            await self.ready(model)
            client, wire = self.meant(model)
            async with client.stream(prompt, model=wire, **kwargs) as stream:
                try:
                    async for piece in stream:
                        yield piece
                except PolyvoxError as error:
                    self.failed(error)
                    raise

    def chat(self, model: Model, system: str | None, messages: Any, options: Mapping[str, Any]) -> AsyncChat:
        """A conversation of the core with a model."""
        with speaking():
            client, wire = self.meant(model)
            said: Any = {"model": wire, "system": system, "messages": messages, **options}
            return client.chat(**said)

    def failed(self, error: PolyvoxError) -> None:
        """A call failed: whether anybody was there is remembered, and the error says which model to ask instead."""
        self.noticed(not (isinstance(error, ConnectionFailedError) and error.sent == "no"))

    def noticed(self, there: bool) -> None:
        """Somebody was there, or nobody."""

    async def aclose(self) -> None:
        """See `BaseBackend`."""
        with self._lock:
            clients, self._clients = [client for _, _, client in self._clients], []
        for client in clients:
            await client.aclose()
