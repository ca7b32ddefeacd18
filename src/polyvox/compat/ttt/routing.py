"""Which of TTT's backends is asked for a model, and why: by what the core's catalog, the registered deployments and the
registered backends say of the name. It asks nobody; the core routes what a backend is asked."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from polyvox import backends as core
from polyvox import config
from polyvox.catalog import added, follow, split_name
from polyvox.client.inputs import as_messages
from polyvox.compat import shared
from polyvox.compat.errors import speaking
from polyvox.compat.ttt.backends import Backend, BaseBackend, CloudBackend, LocalBackend, OwnBackend
from polyvox.compat.ttt.backends.asking import KEPT, SPARE, Asking, Model
from polyvox.compat.ttt.config import Config, DefaultsLoader, get_config
from polyvox.compat.ttt.places import deployment_named, rows
from polyvox.errors import InputError, NotFoundError, UnknownProviderError
from polyvox.keys import find_key
from polyvox.registry import DictRegistry
from polyvox.routing.tiers import TIERS, score
from polyvox.types import Request

AUTO = "auto"
"""The model that leaves the choice to what the query says."""


class Selection(NamedTuple):
    """Who is asked, for which model (None is the backend's own choice), and why. tier is said where the core chooses
    among deployments by what the request says."""

    backend: Asking
    model: Model
    reason: str
    tier: str | None = None


class Router:
    """Chooses a backend; the one it gives for a name is the same each time. config, a `Config` or tables of settings,
    takes the place of the configuration of the process.

    >>> Router().select_backend("llama2", "a private question").name
    'local'
    """

    def __init__(self, config: Mapping[str, Any] | Config | None = None) -> None:
        self._config = config if isinstance(config, Config) else None
        if config is not None and self._config is None:
            self._config = Config(config, loaders=[DefaultsLoader()])  # type: ignore[arg-type]
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Any, Asking]] = {}
        self._given: list[tuple[object, OwnBackend]] = []

    @property
    def config(self) -> Config:
        """What is configured now."""
        return self._config or get_config()

    def select_backend(self, model: Model = None, query: Any = None) -> BaseBackend:
        """The backend that is asked for a model; query matters where the model is "auto" alone."""
        found = self.select(model, query).backend
        own = found.thing if isinstance(found, OwnBackend) else None
        return own if isinstance(own, BaseBackend) else found

    def select(
        self,
        model: Model = None,
        query: Any = None,
        *,
        backend: str | BaseBackend | object | None = None,
        tier: str | None = None,
    ) -> Selection:
        """The same with the model that it will be asked for and the reason; backend is the caller's own choice, and so
        is tier, which stands in the place of a model."""
        unsaid = backend is None or (isinstance(backend, str) and backend == AUTO)
        with speaking():
            if tier is not None:
                if model:
                    raise InputError("a call names a model or a tier, not both", param="tier")
                return Selection(self.backend("cloud" if unsaid else backend), None, f"the tier {tier} is named", tier)
            if not unsaid:
                asker = self.backend(backend)
                return Selection(asker, self._followed(model), f"the backend {asker.name} is named")
            if model is None or model == "":
                return self._usual(query)
            return self._for_model(model, query)

    def backend(self, name: str | BaseBackend | object) -> Asking:
        """A backend by its name or as an object, as one that can be asked through the core."""
        if isinstance(name, Asking):
            return name
        if isinstance(name, type):
            hint = f"make one: backend={name.__name__}()"
            raise InputError(f"a backend is an object or a name, not the class {name.__name__}", hint=hint)
        if not isinstance(name, str):
            with self._lock:
                found = next((own for given, own in self._given if given is name), None)
                if found is None:
                    thing = name if isinstance(name, BaseBackend) else core.backend_of(name)
                    found = OwnBackend(thing, self._config)
                    # A few are kept for calls to come; no more, for each may hold much.
                    self._given = [*self._given[-KEPT:], (name, found)]
                return found
        known = core.registered_as(name)
        with self._lock:
            held = self._held.get(name.lower())
            if held is None or held[0] is not known:
                held = self._held[name.lower()] = (known, self._made(name, known))
            return held[1]

    def _made(self, name: str, known: core.Backend | None) -> Asking:
        if known is None:
            made = Backend.create(name, self._config)
            assert isinstance(made, Asking)
            return made
        theirs = Backend.create(name, self._config)
        return theirs if isinstance(theirs, Asking) else OwnBackend(theirs, self._config, core_backend=known)

    # ---- by what is known of a name -------------------------------------------------------------

    def _followed(self, model: Model) -> Model:
        """A name behind its aliases, those of TTT before those of the core."""
        if not isinstance(model, str):
            return model
        aliases = {**config.current().aliases, **self.config.table("models.aliases")}
        return follow(model.strip(), aliases)

    def _usual(self, query: Any) -> Selection:
        """Who is asked where no model is named: what TTT's configuration says, then the environment's AI_ variables or
        whoever registered a default, then the core."""
        said, default = self.config.get("backends.default"), self.config.get("models.default")
        if said not in (None, AUTO):
            asker = self.backend(said)
            own = None if "model" in asker.said else self._followed(default)
            return Selection(asker, own, f"backends.default is {said} ({self.config.origin('backends.default')})")
        if default is not None:
            found = self._for_model(default, query)
            return found._replace(reason=f"models.default is {default}: {found.reason}")
        entry = shared.EVERYONE.get_default()
        if entry is not None:
            why = f"no model is named: {entry.name} is the usual deployment"
            return Selection(self.backend("cloud"), entry.name, why)
        usual = config.current().model
        if usual is not None:
            return self._for_model(usual, query)
        return Selection(self.backend("cloud"), None, "no model is named: the first provider with a key is asked")

    def _for_model(self, model: Model, query: Any) -> Selection:
        model = self._followed(model)
        if not isinstance(model, str):
            if not isinstance(model, list | tuple) or not model or not all(isinstance(each, str) for each in model):
                raise InputError("model is a name, or a list of names", param="model")
            return Selection(self.backend("cloud"), list(model), "several models are named: each if those before fail")
        if model == AUTO:
            return self._by_query(query)
        if deployment_named(model) is not None:
            return Selection(self.backend("cloud"), model, f"a deployment {model} is registered")
        left = split_name(model)[0]
        if core.registered_as(left) is not None:
            return Selection(self.backend(left), model, f"a backend {left} is registered")
        return self._by_catalog(model)

    def _by_catalog(self, model: str) -> Selection:
        known, settings = rows(), config.current()
        own = next((one for one in added() if model in (one.name, one.id, *one.aliases)), None)
        if own is not None and own.provider not in known.providers:
            if core.registered_as(own.provider) is None:
                raise UnknownProviderError(
                    f"{own.name} was added, but nobody called {own.provider!r} is known who could be asked for it",
                    hint=f"register a backend of that name, or configure providers.{own.provider}.base_url",
                )
            return Selection(self.backend(own.provider), own.id, f"{own.id} was added as a model of {own.provider}")
        try:
            target = known.resolve(model, has_key=lambda row: find_key(row, settings) is not None)
        except NotFoundError:
            # The core says what is near it, after it has looked at the servers of this machine.
            return Selection(self.backend("cloud"), model, f"no provider is known to serve {model}")
        row = target.provider
        if row.local:
            return Selection(self.backend("local"), model, f"{model} is a model of {row.name}, on this machine")
        return Selection(self.backend("cloud"), model, f"{model} is a model of {row.name}")

    def _by_query(self, query: Any) -> Selection:
        """By what a query says: the tier that its points lead to, of the deployments there are, else of the providers
        with a key."""
        points = score(Request(AUTO, as_messages(query, whole=False) if query else ()))
        why = f"tier {points.tier}: {', '.join(points.reasons) or 'nothing demanding'}"
        if shared.EVERYONE.list_active() or config.current().deployments:
            return Selection(self.backend("cloud"), None, why, tier=AUTO)
        there = DictRegistry.from_env()
        at = TIERS.index(points.tier) if points.tier in TIERS else 0
        chosen = [tier for tier in TIERS if tier != "local"]
        for tier in (*chosen[at:], *reversed(chosen[:at])):
            if (entry := there.get_by_tier(tier)) is not None:
                return self._by_catalog(entry.model)._replace(reason=f"{why}; {entry.model}")
        return Selection(self.backend("cloud"), None, why)

    # ---- who answers where the first one fails ----------------------------------------------------

    def with_fallbacks(self, chosen: Selection) -> Selection:
        """The same with those who are asked where it fails, if backends.enable_fallbacks says so, in the order of
        backends.fallback_order. What the local backend is asked stays with it."""
        cloud, said = chosen.backend, self.config
        if not said.get("backends.enable_fallbacks") or isinstance(cloud, LocalBackend) or chosen.tier:
            return chosen
        first = self._callable_name(chosen)
        reach = self.backend("cloud")
        if not first or not isinstance(reach, CloudBackend) or reach.is_apart:
            return chosen
        spares = [name for name in said.get("backends.fallback_order", ()) if name != chosen.backend.name]
        names = [*first, *[called for name in spares if (called := self._spare(name, reach)) is not None]]
        if len(names) == len(first):
            return chosen
        return Selection(reach, names, f"{chosen.reason}; then {', '.join(spares)} where that fails")

    @staticmethod
    def _callable_name(chosen: Selection) -> list[str]:
        """What the core calls the one that was chosen."""
        if isinstance(chosen.backend, OwnBackend):
            own = chosen.backend.name
            return [own] if core.registered_as(own) is not None else []
        return [chosen.model] if isinstance(chosen.model, str) else list(chosen.model or ())

    def _spare(self, name: str, reach: CloudBackend) -> str | None:
        """What the core calls a backend that answers for others; None where nothing says which model."""
        spare = self.backend(name)
        if isinstance(spare, LocalBackend):
            reach.with_spare(spare.entry(None, SPARE))
            return SPARE
        if isinstance(spare, CloudBackend):
            model = spare.said.get("model") or self.config.get("models.default")
            return str(model) if model is not None else None
        return spare.name


_router: Router | None = None
_lock = threading.Lock()


def default_router() -> Router:
    """The router of this process, made when it is first needed."""
    global _router
    with _lock:
        if _router is None:
            _router = Router()
        return _router


def select(model: Model, query: Any, backend: Any = None, tier: str | None = None) -> Selection:
    """Who is asked, by the router of this process, with those who are asked where that fails."""
    router = default_router()
    with speaking():
        return router.with_fallbacks(router.select(model, query, backend=backend, tier=tier))
