"""TTT's local backend: models on this machine, asked at their own address and nowhere else. Where nobody answers, that
is an error; nothing of what it is asked ever goes to another machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from polyvox import AsyncClient
from polyvox.catalog import Provider, complete_url, split_name, url_problems
from polyvox.client.model_store import AsyncModelStore
from polyvox.compat.errors import speaking
from polyvox.compat.ttt.backends.asking import SPARE, Asking, Model
from polyvox.compat.ttt.places import rows, stays
from polyvox.dialects.model_store import KEEPERS, ModelFacts, PullProgress
from polyvox.errors import ConfigError, InputError, PolyvoxError
from polyvox.keys import redact
from polyvox.places import located
from polyvox.registry import Entry
from polyvox.registry.reach import is_loopback

if TYPE_CHECKING:
    from polyvox.compat.ttt.backends.cloud import CloudBackend

OnPull = Callable[[PullProgress], object]


class _Place(NamedTuple):
    row: Provider
    base_url: str


class LocalBackend(Asking):
    """Asks a server on this machine, which needs no key.

    Settings: base_url (the server's address, else $OLLAMA_HOST or its usual one), model (asked when none is named),
    timeout in seconds, retries, and pull: whether a model that is not there is fetched first. on_pull is told of each
    step of that.
    """

    def __init__(self, config: Any = None, *, on_pull: OnPull | None = None) -> None:
        super().__init__(config)
        self._on_pull = on_pull
        self._there = True

    @property
    def name(self) -> str:
        """See `BaseBackend`."""
        return "local"

    # ---- where ---------------------------------------------------------------------------------

    def _usual(self) -> Provider:
        """The server that keeps models, which is meant where no other local one is named."""
        return next(row for row in rows().providers.values() if row.local and row.dialect in KEEPERS)

    def _named(self, model: Model) -> tuple[Provider, str]:
        """The local provider a model is asked at, and what it is called there."""
        if not isinstance(model, str | None):
            raise InputError("the local backend is asked for one model at a time", param="model")
        model = (model or self.said.get("model") or "").strip()
        left, separator, rest = split_name(model)
        row = rows().providers.get((left if separator else model).lower())
        if row is not None and row.local:
            usual = row.default_model or ""
            return row, rest or usual
        usual_row = self._usual()
        return usual_row, model or usual_row.default_model or ""

    def _place(self, row: Provider) -> _Place:
        own = self.said.get("base_url") if row.name == self._usual().name else None
        if own is None:
            if row.transport == "http" and not stays(row):
                raise ConfigError(
                    f"{row.title or row.name} is at {redact(located(row).base_url)}, which is another machine",
                    hint=f"name an address of this machine, or say that it is yours: providers.{row.name}.local = true",
                )
            return _Place(row, located(row).base_url.rstrip("/"))
        url = complete_url(str(own), row).rstrip("/")
        problems = url_problems(url)
        if problems:
            raise ConfigError(f"backends.local.base_url {problems[0]}", hint='for example "http://127.0.0.1:11434"')
        if not is_loopback(url):
            where = self.config.origin("backends.local.base_url")
            raise ConfigError(
                f"backends.local.base_url ({where}) is the address of another machine",
                hint="what the local backend is asked stays here: name an address of this machine",
            )
        return _Place(row, url)

    def called(self, model: Model) -> list[str]:
        """See `Asking`: what is asked here stays here."""
        return []

    def as_spare(self, reach: CloudBackend) -> str:
        """See `Asking`."""
        row, model = self._named(None)
        reach.with_spare(Entry(SPARE, model, base_url=self._place(row).base_url, dialect=row.dialect, tier="local"))
        return SPARE

    def _client_at(self, row: Provider) -> AsyncClient:
        at = self._place(row)
        if row.transport != "http":
            return self.client(row.name, {"fetch": False})
        # One address and no registry: there is nothing else that this client could ask.
        return self.client(row.name, {"base_url": at.base_url, "dialect": row.dialect, "fetch": False})

    def meant(self, model: Model) -> tuple[AsyncClient, Model]:
        """See `Asking`."""
        row, name = self._named(model)
        return self._client_at(row), name if row.transport == "http" else f"{row.name}/{name}"

    def noticed(self, there: bool) -> None:
        """See `Asking`."""
        self._there = there

    # ---- BaseBackend ---------------------------------------------------------------------------

    async def models(self) -> list[str]:
        """The names that the server has, as it writes them; its list is kept for five minutes."""
        with speaking():
            return [model.id for model in await self._client_at(self._usual()).models()]

    async def status(self) -> dict[str, Any]:
        """See `BaseBackend`: the server is asked for its list, which costs nothing."""
        began = time.perf_counter()
        told: dict[str, Any] = {"name": self.name, "available": False, "latency": None}
        try:
            found = await self.store.list()
        except PolyvoxError as error:
            self.noticed(False)
            return {**told, "detail": redact(f"{error.message}; {error.hint}")}
        self.noticed(True)
        seconds = time.perf_counter() - began
        return {**told, "available": True, "latency": seconds, "detail": f"{len(found)} models"}

    @property
    def is_available(self) -> bool:
        """See `BaseBackend`: whether somebody was there when it was last asked, and yes before."""
        return self._there

    # ---- the models that the server keeps -------------------------------------------------------

    @property
    def store(self) -> AsyncModelStore:
        """All that can be done with the models of the server; see `polyvox.AsyncClient.model_store`."""
        with speaking():
            return self._client_at(self._usual()).model_store()

    async def ready(self, model: Model) -> None:
        """See `Asking`: a model that is not there is fetched, where that is wanted."""
        if not self.said.get("pull"):
            return
        row, name = self._named(model)
        if row.dialect in KEEPERS and not await self.has_model(name):
            await self.pull(name)

    async def has_model(self, name: str) -> bool:
        """Whether the server has a model; ":latest" may be left out."""
        return bool({name, f"{name}:latest"} & set(await self.models()))

    async def pull(self, name: str, on_pull: OnPull | None = None) -> None:
        """Fetch a model; on_pull is told of each step: a status, and bytes completed of a total."""
        tell = on_pull or self._on_pull
        with speaking():
            async with self.store.pull(name) as pull:
                async for step in pull:
                    if tell is not None:
                        tell(step)

    async def show(self, name: str) -> ModelFacts:
        """All that the server says of a model."""
        with speaking():
            return await self.store.show(name)

    async def delete(self, name: str) -> None:
        """Delete a model from the server's disk."""
        with speaking():
            await self.store.delete(name)
