"""TTT's cloud backend: every provider the core knows, and every deployment that is registered, through one object. With
engine="litellm" LiteLLM is asked instead, where it is installed. It knows no provider by name."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from polyvox import AsyncClient, backends, config
from polyvox.catalog import Provider
from polyvox.compat import shared
from polyvox.compat.errors import speaking
from polyvox.compat.ttt.backends.asking import SPARE, Asking, Model
from polyvox.compat.ttt.config import Config
from polyvox.compat.ttt.places import instead, is_local_answer, rows
from polyvox.errors import NotFoundError, PolyvoxError, UsageError
from polyvox.keys import find_key, redact
from polyvox.registry import DictRegistry, Entry, Registries, Registry
from polyvox.types import Response

_LITELLM = "litellm"


def _litellm() -> backends.Backend:
    """LiteLLM as the core asks it; MissingExtraError where it is not installed."""
    found = backends.discovered(_LITELLM)
    assert found is not None
    return found


class CloudBackend(Asking):
    """Asks providers over the network.

    Settings: model (asked when none is named), timeout in seconds, retries, base_url and api_key (one server alone),
    cache (whether answers are given again, or where they are kept), and engine: "polyvox", or "litellm" for LiteLLM,
    with models as it spells them.
    """

    def __init__(self, config: Mapping[str, Any] | Config | None = None) -> None:
        super().__init__(config)
        self._spare: tuple[Entry, ...] = ()
        self._registry: Registry = shared.EVERYONE

    @property
    def name(self) -> str:
        """See `BaseBackend`."""
        return "cloud"

    def label(self, response: Response) -> str:
        """See `Asking`: a model that is asked on this machine all the same is told as local."""
        if response.deployment == SPARE:
            return "local"
        if response.provider and backends.registered_as(response.provider) is not None:
            return response.provider
        return "local" if is_local_answer(response) else self.name

    def failed(self, error: PolyvoxError) -> None:
        """See `Asking`."""
        super().failed(error)
        if isinstance(error, NotFoundError) and error.status == 404 and error.provider and error.model:
            error.hint = instead(error.provider, error.model) or error.hint

    def as_spare(self, reach: CloudBackend) -> str | None:
        """See `Asking`."""
        model = self.said.get("model") or self.config.get("models.default")
        return None if model is None else str(model)

    def meant(self, model: Model) -> tuple[AsyncClient, Model]:
        """See `Asking`."""
        said = self.said
        model = model or said.get("model")
        if said.get("engine") == _LITELLM:
            names = [model] if isinstance(model, str) else model or []
            if not names:
                raise UsageError("LiteLLM must be told which model to ask", hint="say model=...", sent="no")
            wired = [name if name.startswith(f"{_LITELLM}/") else f"{_LITELLM}/{name}" for name in names]
            return self.client(_LITELLM, {}), wired[0] if isinstance(model, str) else wired
        facts: dict[str, Any] = {name: said[name] for name in ("base_url", "api_key") if name in said}
        if "base_url" in facts:
            return self.client("", facts), model  # one server alone knows its own names
        if model is not None:
            model = shared.in_catalog(model) if isinstance(model, str) else [shared.in_catalog(name) for name in model]
        registry = self._registry if isinstance(model, list) and SPARE in model else shared.EVERYONE
        place = "" if registry is shared.EVERYONE else SPARE
        return self.client(place, {"registry": registry, **facts}), model

    def with_spare(self, spare: Entry) -> None:
        """Let a deployment on this machine be asked too, by the name SPARE."""
        if self._spare != (spare,):
            self._spare = (spare,)
            self._registry = Registries(shared.EVERYONE, DictRegistry([spare]))

    @property
    def is_apart(self) -> bool:
        """Whether it can ask nobody but one server, or LiteLLM."""
        said = self.said
        return "base_url" in said or said.get("engine") == _LITELLM

    async def models(self) -> list[str]:
        """The names that every provider with a key tells, each with its provider before it; a list is kept for five
        minutes. What only one of several providers fails to tell is left out."""
        with speaking():
            if self.said.get("engine") == _LITELLM:
                return list(await _litellm().models())
            client, _ = self.meant("any")
            if "base_url" in self.said:
                return [model.id for model in await client.models()]
            able = [row for row in self._keyed() if row.lists_models]
            lists = await asyncio.gather(*(client.models(row.name) for row in able), return_exceptions=True)
            told = [found for found in lists if isinstance(found, tuple)]
            if lists and not told and isinstance(lists[0], BaseException):
                raise lists[0]
            return [model.name for found in told for model in found]

    async def status(self) -> dict[str, Any]:
        """See `BaseBackend`: one provider with a key is asked for its models, which costs nothing."""
        began = time.perf_counter()
        told: dict[str, Any] = {"name": self.name, "available": False, "latency": None}
        if self.said.get("engine") == _LITELLM:
            try:
                return {**told, **await _litellm().status(), "name": self.name}
            except PolyvoxError as error:
                return {**told, "detail": redact(f"{error.message}; {error.hint}")}
        row = next((row for row in self._keyed() if row.lists_models), None)
        if row is None and "base_url" not in self.said:
            return {**told, "detail": "no provider has a key"}
        try:
            client, _ = self.meant("any")
            found = await client.models(None if row is None or "base_url" in self.said else row.name, fresh=True)
        except PolyvoxError as error:
            return {**told, "detail": redact(error.message)}
        where = "the server" if row is None else row.title or row.name
        seconds = time.perf_counter() - began
        return {**told, "available": True, "latency": seconds, "detail": f"{where} tells {len(found)} models"}

    @property
    def is_available(self) -> bool:
        """See `BaseBackend`: whether any provider has a key."""
        if self.said.get("engine") == _LITELLM:
            return _LITELLM in sys.modules or find_spec(_LITELLM) is not None
        return self.is_apart or bool(self._keyed())

    def _keyed(self) -> list[Provider]:
        """The providers on the network that have a key."""
        settings = config.current()
        explicit = self.said.get("api_key")
        asked = [row for row in rows().providers.values() if row.needs_key and not row.local]
        keyed = [row for row in asked if find_key(row, settings) is not None]
        return asked[:1] if explicit is not None and not keyed else keyed
