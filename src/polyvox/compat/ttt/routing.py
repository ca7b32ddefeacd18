"""Which of TTT's backends is asked for a model, and who answers where that one fails: the objects behind the names that
`choices` gives. What that needs is loaded with the first choice."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from polyvox import backends as core
from polyvox.compat.errors import speaking
from polyvox.compat.ttt.backends import Backend, BaseBackend
from polyvox.compat.ttt.backends.asking import AUTO, KEPT, Asking, Model
from polyvox.compat.ttt.config import DEFAULTS, Config, get_config
from polyvox.errors import InputError

if TYPE_CHECKING:
    from polyvox.compat.ttt.backends import OwnBackend


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
            self._config = Config(config, loaders=[DEFAULTS])  # type: ignore[arg-type]
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Any, Asking]] = {}
        self._given: list[tuple[object, OwnBackend]] = []

    @property
    def config(self) -> Config:
        """What is configured now."""
        return self._config or get_config()

    def select_backend(self, model: Model = None, query: Any = None) -> BaseBackend:
        """The backend that is asked for a model; query matters where the model is "auto" alone."""
        return self.select(model, query).backend.given

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
        from polyvox.compat.ttt import choices

        unsaid = backend is None or (isinstance(backend, str) and backend == AUTO)
        with speaking():
            if tier is not None:
                if model:
                    raise InputError("a call names a model or a tier, not both", param="tier")
                return Selection(self.backend("cloud" if unsaid else backend), None, f"the tier {tier} is named", tier)
            if not unsaid:
                asker = self.backend(backend)
                return Selection(asker, choices.followed(model, self.config), f"the backend {asker.name} is named")
            if model is None or model == "":
                choice = choices.usual(query, self.config)
            else:
                choice = choices.of_model(model, query, self.config)
            return Selection(self.backend(choice.backend), *choice[1:])

    def backend(self, name: str | BaseBackend | object) -> Asking:
        """A backend by its name or as an object, as one that can be asked through the core."""
        if isinstance(name, Asking):
            return name
        if isinstance(name, type):
            hint = f"make one: backend={name.__name__}()"
            raise InputError(f"a backend is an object or a name, not the class {name.__name__}", hint=hint)
        if not isinstance(name, str):
            from polyvox.compat.ttt.backends.own import OwnBackend

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
        made = Backend.create(name, self._config)
        if isinstance(made, Asking):
            return made
        from polyvox.compat.ttt.backends.own import OwnBackend

        return OwnBackend(made, self._config, core_backend=known)

    # ---- who answers where the first one fails ----------------------------------------------------

    def with_fallbacks(self, chosen: Selection) -> Selection:
        """The same with those who are asked where it fails, if backends.enable_fallbacks says so, in the order of
        backends.fallback_order. What the local backend is asked stays with it."""
        said = self.config
        if not said.get("backends.enable_fallbacks") or chosen.tier:
            return chosen
        first, reach = chosen.backend.called(chosen.model), self.backend("cloud")
        from polyvox.compat.ttt.backends.cloud import CloudBackend
        from polyvox.compat.ttt.choices import check_backend

        if not first or not isinstance(reach, CloudBackend) or reach.is_apart:
            return chosen
        spares = [name for name in said.get("backends.fallback_order", ()) if name != chosen.backend.name]
        for name in spares:
            check_backend(name, "backends.fallback_order", said)
        names = [*first, *[called for name in spares if (called := self.backend(name).as_spare(reach)) is not None]]
        if len(names) == len(first):
            return chosen
        return Selection(reach, names, f"{chosen.reason}; then {', '.join(spares)} where that fails")


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
