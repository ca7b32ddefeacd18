"""From a model's name to a deployment that can be asked: provider, key, address and transport, or a backend.
Kept, so that a second call of the same name costs a dictionary look-up."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from msgspec.structs import replace

from polyvox import backends, catalog, config, keys, profiles
from polyvox.auth import Tools, credentials, prover, query
from polyvox.backends import Backend, BackendDeployment
from polyvox.catalog import Catalog, Provider, Target, follow, split_name
from polyvox.client import seeking
from polyvox.client.access import Access, proof_carrier
from polyvox.client.carriers import Carriers, given_transport
from polyvox.client.check import shown, text_or_none
from polyvox.client.explain import key_variable, shown_headers
from polyvox.client.listing import listed
from polyvox.client.model_store import Reached
from polyvox.client.money import PriceList
from polyvox.client.operations import AnsweredT, AskedT, Kind, Naming, operation_of, target_for
from polyvox.client.seeking import KeeperDeployment
from polyvox.config import Settings
from polyvox.dialects import NAMES, Endpoint, dialect
from polyvox.dialects.model_store import KEEPERS, store
from polyvox.engine import AnyDeployment, Deployment, OperationDeployment
from polyvox.errors import ConfigError, InputError, MissingKeyError, NotFoundError, UsageError
from polyvox.models import Model
from polyvox.places import located
from polyvox.prices import overrides_of
from polyvox.transports import Timeouts, Transport
from polyvox.types import Loss, Request

log: logging.Logger = logging.getLogger("polyvox.client")

Fit: TypeAlias = Callable[[Request], tuple[Request, tuple[Loss, ...]]]

# A server on this machine may have to load the model first.
_LOCAL_FIRST_BYTE = 600.0
_LIST_SECONDS = 300.0


class Deployments:
    """Makes and keeps the deployments of one client, and the transports they share."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        model: str | None = None,
        base_url: str | None = None,
        api_key: Any = None,
        dialect: str = "openai.chat",
        transport: Transport | None = None,
        record: str | os.PathLike[str] | None = None,
        replay: str | os.PathLike[str] | None = None,
        backend: Any = None,
        carriers: Carriers | None = None,
    ) -> None:
        if settings is not None and not isinstance(settings, Settings):
            raise InputError(f"settings must be Settings, not {shown(settings)}", hint="see polyvox.config.load()")
        self._fixed = settings
        self._base_url = text_or_none("base_url", base_url)
        self._api_key = None if api_key is None else keys.secret_of(_checked_key(api_key))
        if dialect not in NAMES:
            raise InputError(f"there is no dialect {dialect!r}", hint=f"dialects are {', '.join(NAMES)}")
        self._dialect = dialect
        self._model = model
        self._owner: str | None = None  # the provider an explicit key belongs to
        self._wired = [
            name
            for name, value in (
                ("base_url", base_url), ("api_key", api_key), ("record", record), ("replay", replay),
                ("transport", transport),
            )
            if value is not None
        ]  # fmt: skip
        if backend is not None and (self._wired or dialect != "openai.chat"):
            raise InputError(
                f"backend goes without {self._wired[0] if self._wired else 'dialect'}: it is asked in this process",
                hint="for a client object that speaks several: backend=backend_of(client, dialect=...)",
            )
        self._backend = None if backend is None else backends.backend_of(backend)
        self._replays = replay is not None
        self._shares = carriers is not None
        self._carriers = carriers or Carriers(given_transport(transport, record, replay), record)
        self._closed = False
        self._made_for: Settings | None = None
        self._known = backends.registered
        self._catalog: Catalog | None = None
        self._made: dict[str | tuple[str | None] | None, AnyDeployment] = {}
        self._operating: dict[tuple[Kind[Any, Any], str | None], OperationDeployment[Any, Any]] = {}
        self._sought: dict[str, Target] = {}  # models that only a server knows, by the names they were asked by
        self._accesses: dict[str, Access] = {}
        self._lists: dict[str, tuple[float, tuple[Model, ...]]] = {}
        self.settings: Settings = settings or config.Settings()
        self.fields: dict[str, Any] = {}
        keys.install_redaction()

    def get(self, name: str | None, upgrade: bool = False) -> AnyDeployment:
        """The deployment a name means; None means the configured or the only possible one. upgrade puts the named
        successor in the place of a model that is deprecated or retired, and says so with every call."""
        settings = self._fixed or config.current()
        known = backends.registered is self._known and catalog.load() is self._catalog
        if settings is not self._made_for or not known:
            self._renew(settings)
        if name is not None and not isinstance(name, str):
            raise InputError(f"model must be a name, not {shown(name)}")
        kept_as = (name,) if upgrade else name
        found = self._made.get(kept_as)
        if found is None:
            self._refuse_closed()
            if self._api_key is not None and self._owner is None:
                owner = self._meant(self._model or name, settings)
                assert isinstance(owner, Target)  # a backend takes no key
                self._owner = owner.provider.name
            meant = self._meant(name, settings)
            if isinstance(meant, Target):
                asked = self._upgraded(meant, settings) if upgrade else meant
                found = self._deployment(asked, settings, meant)
            else:
                found = meant
            self._made[kept_as] = found
        return found

    @property
    def fixed(self) -> Settings | None:
        """The settings that the client was given; None for those of this process, as they change."""
        return self._fixed

    def apart(self, model: str, base_url: str | None, api_key: Any, dialect: str | None) -> Deployments:
        """Deployments with an address and a key of their own, over the same connections."""
        made = Deployments(
            self._fixed,
            model=model,
            base_url=base_url,
            api_key=api_key,
            dialect=dialect or "openai.chat",
            carriers=self._carriers,
        )
        made._replays = self._replays
        return made

    @property
    def replays(self) -> bool:
        """Whether a recording answers, for which nobody needs a key."""
        return self._replays

    @property
    def is_one_place(self) -> bool:
        """Whether all models are at one address, which the client was given."""
        return self._base_url is not None

    def _refuse_closed(self) -> None:
        if self._closed:
            raise UsageError("the client is closed", hint="make a new one, or use `with Client() as client:`")

    def _meant(self, name: str | None, settings: Settings) -> Target | BackendDeployment:
        """Who is meant by a name: a registered backend, a provider's model, then a backend of a package."""
        backed = self._backed(name, settings, backends.registered_as)
        if backed is not None:
            return backed
        try:
            return self._target(name, settings)
        except NotFoundError:
            # Only here, because it asks every installed package what it brings along.
            found = self._sought.get(name or "") or self._backed(name, settings, backends.discovered)
            if found is None:
                raise
            return found

    def _upgraded(self, target: Target, settings: Settings) -> Target:
        """The successor of a model that is at its end, where its provider names one."""
        return self._rows(settings).successor(target, datetime.now(UTC).date())

    # ---- models that only a server knows ------------------------------------------------------

    def can_seek(self, name: str | None) -> bool:
        """Whether `seek` would ask anybody for a name that `get` does not know."""
        name = name or self.settings.model
        # A key is not told to a server that nobody named.
        unclaimed = self._api_key is not None and self._owner is None
        if not name or unclaimed or self._base_url is not None or self._backend is not None:
            return False
        try:
            return seeking.can_seek(self._rows(self.settings), follow(name.strip(), self.settings.aliases))
        except (NotFoundError, ConfigError):
            return False

    async def seek(self, name: str | None, unknown: NotFoundError) -> None:
        """Look for a model that nobody is known to serve on servers that keep models, so that `get` finds it. Raises
        the error with which it is unknown where there is none, with what would help."""
        if not self.can_seek(name):
            raise unknown
        settings = self.settings
        name = name or settings.model or ""
        rows, wanted = self._rows(settings), follow(name.strip(), settings.aliases)

        # A transport of its own: a name that nobody has leaves nothing open.
        given = self._carriers.fixed
        carrier = given or self._carriers.once(settings)

        async def models_at(row: Provider) -> tuple[Model, ...]:
            was_held = row.name in self._lists
            models = await self._listed(row, rows, settings, carrier=carrier)
            if was_held and not any(store(row.dialect).fits(wanted, model.id) for model in models):
                models = await self._listed(row, rows, settings, True, carrier)  # it may have come since
            return models

        try:
            row = await seeking.seek(rows, wanted, models_at, unknown)
        finally:
            if given is None:
                await carrier.close()
        self._sought[name] = Target(row, wanted, rows.info(row.name, wanted))

    async def target(self, name: str) -> Target:
        """The provider and the model that a name means, looked for where nobody is known to serve it."""
        settings = self.settled()
        try:
            meant = self._meant(name, settings)
        except NotFoundError as unknown:
            await self.seek(name, unknown)
            meant = self._meant(name, settings)
        if not isinstance(meant, Target):
            raise UsageError(f"{name!r} is a backend, which tells nothing of its models", sent="no")
        return meant

    def keeper(self, name: str | None) -> Reached:
        """The server that keeps models, by its provider's name; None means the client's own, or this machine's."""
        self._refuse_closed()
        settings = self.settled()
        rows = self._rows(settings)
        text_or_none("provider", name)
        alone = self._base_url is not None
        own = None
        if alone or (name is None and self._model is not None):
            with contextlib.suppress(NotFoundError):  # a model that only a server knows: the first that keeps any
                own = self._asked(name, rows, settings)
        row = seeking.keeper(rows, None if alone else name, own)
        access = self._access(row, settings)
        return Reached(access, store(row.dialect), self._carriers.of(access.row, settings), settings.connect_timeout)

    def settled(self) -> Settings:
        """The settings that hold now."""
        settings = self._fixed or config.current()
        if settings is not self._made_for:
            self._renew(settings)
        return settings

    def models_changed(self, provider: str) -> None:
        """A provider has other models than it had: the list of them that is kept is forgotten."""
        self._lists.pop(provider, None)

    def _backed(
        self, name: str | None, settings: Settings, find: Callable[[str], Backend | None]
    ) -> BackendDeployment | None:
        """The backend a name means, as "name", "name/model" or "@alias"; None where it means something else."""
        if self._backend is not None:
            return BackendDeployment(self._backend, name, settings.timeout)
        name = name or settings.model
        if name is None or self._base_url is not None:
            return None
        left, _, model = split_name(follow(name.strip(), settings.aliases))
        backend = find(left)
        if backend is None:
            return None
        if self._wired:
            raise InputError(
                f"the backend {backend.name!r} is asked in this process: {self._wired[0]} is for a wire it has not",
                hint=f"leave {self._wired[0]} out, or name another model",
            )
        return BackendDeployment(backend, model or None, settings.timeout)

    def _renew(self, settings: Settings) -> None:
        """Settings or backends changed: what was made from the old ones is forgotten, open connections are kept."""
        self._made, self._operating, self._accesses, self._lists, self._sought = {}, {}, {}, {}, {}
        self._known = backends.registered
        self._catalog = catalog.load()
        self._made_for = self.settings = settings
        self.fields = {
            field: value
            for field in ("temperature", "max_tokens")
            if (value := getattr(settings, field, None)) is not None
        }

    def explained(self, name: str | None, upgrade: bool = False) -> Deployment:
        """The same deployment as `get` gives, for looking at: it needs no key, holds none, and cannot send."""
        from polyvox.transports.replay import ReplayTransport

        settings = self.settled()
        target = self._meant(name, settings)
        if not isinstance(target, Target):
            raise UsageError(
                f"the backend {target.provider!r} is asked in this process: it has no wire, so there is no request",
                hint="explain a model of a provider",
                sent="no",
            )
        row = located(target.provider)
        access = Access(row, shown_headers(row), query(row, keys.Secret(f"${key_variable(row)}")))
        asked = self._upgraded(target, settings) if upgrade else target
        return self._deployed(asked, settings, access, self._carriers.fixed or ReplayTransport(()), target)

    def operating(self, kind: Kind[AskedT, AnsweredT], name: str | None) -> OperationDeployment[AskedT, AnsweredT]:
        """The deployment for an operation that is no chat. None means the client's own model, or the provider's
        usual one for this; so does a model that is known to write text. InputError where there is none."""
        settings = self._fixed or config.current()
        if settings is not self._made_for or backends.registered is not self._known:
            self._renew(settings)
        text_or_none("model", name)
        found = self._operating.get((kind, name))
        if found is None:
            self._refuse_closed()
            naming = Naming(
                name,
                self._model,
                settings,
                self._rows(settings),
                one_place=self._base_url is not None or self._backend is not None,
                own_key=self._api_key is not None,
                meant=lambda given: self._meant(given, settings),
                has_key=lambda row: self._key(row, settings) is not None,
            )
            target, notes = target_for(kind, naming)
            if self._api_key is not None and self._owner is None:
                self._owner = naming.own_provider(target).name
            if (notice := _notice(target)) is not None:
                notes = (*notes, Loss("model", notice, "note"))
            operation = operation_of(kind, target.provider, naming.rows)
            chat = self._deployment(target, settings)
            helped = chat.help if isinstance(chat, KeeperDeployment) else None
            money = chat.money.of(kind.what) if isinstance(chat.money, PriceList) else None
            found = OperationDeployment(chat, operation, kind.what, notes, helped, money)
            self._operating[kind, name] = found
        return found

    def _rows(self, settings: Settings) -> Catalog:
        return (
            catalog.load()
            .with_overrides(settings.providers, settings.origins)
            .with_prices(overrides_of(settings.prices, settings.origins))
        )

    async def models(self, name: str | None, fresh: bool = False) -> tuple[Model, ...]:
        """The models a provider says it has, with what the catalog knows of each; None means the provider of the
        client's own model. A list is kept for five minutes, unless a fresh one is wanted."""
        self._refuse_closed()
        settings = self.settled()
        rows = self._rows(settings)
        try:
            row = self._asked(name, rows, settings)
        except NotFoundError as unknown:
            await self.seek(self._model, unknown)
            row = self._asked(name, rows, settings)
        return await self._listed(row, rows, settings, fresh)

    async def _listed(
        self,
        row: Provider,
        rows: Catalog,
        settings: Settings,
        fresh: bool = False,
        carrier: Transport | None = None,
    ) -> tuple[Model, ...]:
        held = self._lists.get(row.name)
        if held is None or fresh or time.monotonic() >= held[0]:
            if row.transport == "demo":
                return tuple(model for model in rows.models if model.provider == row.name)
            access = self._access(row, settings)
            carrier = carrier or self._carriers.of(access.row, settings)
            names = await listed(access, carrier, settings.connect_timeout)
            models = tuple(_known_as(rows.info(row.name, each), each, row.name) for each in names)
            held = self._lists[row.name] = (time.monotonic() + _LIST_SECONDS, models)
        return held[1]

    def _asked(self, name: str | None, rows: Catalog, settings: Settings) -> Provider:
        """The provider whose models are asked for."""
        if self._base_url is not None:
            if name is not None:
                raise InputError("this client has a base_url, which is its only provider", hint="leave provider out")
            return self._own(self._model or "any", rows).provider
        if name is not None and not isinstance(name, str):
            raise InputError(f"provider must be a name, not {shown(name)}")
        own = self._meant(self._model, settings) if name is None or self._model else None
        if own is not None and not isinstance(own, Target):
            raise UsageError("a backend tells no list of its models", hint="ask a client without one", sent="no")
        row = own.provider if name is None and own is not None else rows.provider(str(name))
        if self._api_key is not None and self._owner is None:
            self._owner = (own.provider if own is not None else row).name
        return row

    def _target(self, name: str | None, settings: Settings) -> Target:
        rows = self._rows(settings)
        name = name or settings.model
        if self._base_url is not None:
            return self._own(name, rows)
        if name is None:
            return self._usual(rows, settings)
        return rows.resolve(name, settings.aliases, lambda provider: self._key(provider, settings) is not None)

    def _own(self, name: str | None, rows: Catalog) -> Target:
        """The server at base_url; the model goes there as it was typed."""
        if name is None:
            raise InputError("no model is named for this base_url", hint='say Client("MODEL", base_url=...)')
        assert self._base_url is not None
        url = self._base_url.rstrip("/")
        problems = catalog.url_problems(url)
        if problems:
            raise InputError(f"base_url {problems[0]}", hint='for example "https://llm.example.com/v1"')
        host = catalog.host_of(url)
        known = [
            row for row in rows.providers.values() if catalog.host_of(row.base_url) == host and row.base_url == url
        ]
        # Of several at one address it is the one that speaks what was said.
        known.sort(key=lambda row: row.dialect != self._dialect)
        if known:
            # The address and the key are of the same hand, also where a variable names that address too.
            own = known[0] if self._api_key is None else replace(known[0], url_source="argument")
            return Target(own, name, rows.info(own.name, name))
        # An unknown server: it may do without a key, and may have to load its model first.
        row = Provider(
            name=host,
            dialect=self._dialect,
            base_url=url,
            url_source="argument",
            auth="bearer" if self._dialect != "anthropic.messages" else "header",
            auth_header="x-api-key" if self._dialect == "anthropic.messages" else "",
            local=True,
        )
        return Target(row, name)

    def _usual(self, rows: Catalog, settings: Settings) -> Target:
        """The default model of the first provider that has a key."""
        if self._api_key is not None:
            raise InputError(
                "an api_key without a model or base_url: it is not clear whose key it is",
                hint='name the model, for example Client("PROVIDER/MODEL", api_key=...)',
            )
        for row in rows.providers.values():
            if row.needs_key and row.default_model and self._key(row, settings) is not None:
                return rows.resolve(row.name, settings.aliases)
        variables = [row.key_env[0] for row in rows.providers.values() if row.needs_key and row.key_env]
        raise MissingKeyError(
            "no model is named, and no provider has a key",
            hint=f'set {variables[0]} or another provider\'s key, run "polyvox keys set PROVIDER", '
            'or try the built-in offline model with model="demo"',
        )

    def _key(self, row: Provider, settings: Settings) -> keys.FoundKey | None:
        # A call may name another provider than the client: the key that was passed in is not for that one.
        explicit = self._api_key if self._owner in (None, row.name) else None
        return keys.find_key(row, settings, explicit)

    def _deployment(self, target: Target, settings: Settings, named: Target | None = None) -> Deployment:
        access = self._access(target.provider, settings)
        return self._deployed(target, settings, access, self._carriers.of(access.row, settings), named)

    def _access(self, row: Provider, settings: Settings) -> Access:
        """How the provider is reached; kept, so that all its models share one token."""
        found = self._accesses.get(row.name)
        if found is None:
            found = self._accesses[row.name] = self._opened(located(row), settings)
        return found

    def _opened(self, row: Provider, settings: Settings) -> Access:
        key = self._key(row, settings) if row.auth != "none" else None
        if key is None and row.needs_key and not self._replays:
            raise keys.missing_key_error(row)
        if key is not None:
            keys.allowed_host(row, row.base_url, key.source)
        secret = key.secret if key else None
        # Nobody checks the proof of what is replayed, and a token would have to be fetched for it.
        tools = Tools(proof_carrier(self._carriers.given, lambda: self._carriers.unheard(settings)), time.time)
        prove = None if self._replays else prover(row, secret, tools)
        return Access(row, {**row.headers, **credentials(row, secret)}, query(row, secret), prove)

    def _deployed(
        self, target: Target, settings: Settings, access: Access, transport: Transport, named: Target | None = None
    ) -> Deployment:
        """The deployment of a target; named is who was asked for, where that is not the same."""
        row = access.row
        if row.dialect not in NAMES:
            raise ConfigError(
                f"{row.title or row.name} speaks {row.dialect}, which this version of polyvox does not",
                hint=f"it speaks {', '.join(NAMES)}",
                provider=row.name,
            )
        info: Mapping[str, Any] = (
            {"max_output": target.info.max_output} if target.info and target.info.max_output else {}
        )
        make = KeeperDeployment if row.dialect in KEEPERS else Deployment
        return make(
            row.name,
            target.model,
            dialect=dialect(row.dialect),
            endpoint=Endpoint(row.base_url.rstrip("/"), target.name, row.quirks, {**info, **row.options}),
            headers=access.headers,
            query=access.query,
            prove=access.prove,
            transport=transport,
            timeouts=Timeouts(
                settings.connect_timeout,
                _first_byte(row, settings),
                settings.idle_timeout,
            ),
            timeout=settings.providers.get(row.name, {}).get("timeout", settings.timeout),
            fit=_fit(target, named),
            money=PriceList(self._rows(settings).info, row.name, target.model, row.dialect),
        )

    async def close(self) -> None:
        """Close the transports made here; one that was passed in is its owner's."""
        self._closed = True
        self._made, self._operating = {}, {}
        if not self._shares:
            await self._carriers.close()


def _known_as(known: Model | None, name: str, provider: str) -> Model:
    """What is known of a model, under the name its provider lists it by."""
    if known is None:
        return Model(id=name, provider=provider)
    if (known.id, known.provider) == (name, provider):
        return known
    return replace(known, id=name, provider=provider, aliases=())


def _fit(target: Target, named: Target | None = None) -> Fit | None:
    """What makes a request one the model takes, and says with every call that the model is at its end, or that it is
    asked in the place of the one that was named."""
    fit = profiles.fitting(profiles.profile_of(target.known_as, target.info))
    notices = [_notice(target)]
    if named is not None and named.model != target.model:
        notices.insert(0, f"{target.name} is asked in the place of {named.name}, whose successor it is")
    notes = tuple([Loss("model", notice, "note") for notice in notices if notice is not None])
    if not notes:
        return fit

    def told(request: Request) -> tuple[Request, tuple[Loss, ...]]:
        request, losses = (request, ()) if fit is None else fit(request)
        return request, notes + losses

    return told


def _notice(target: Target) -> str | None:
    """What whoever asks this model should know, said once in this program; None for one that is alive."""
    notice = target.info.notice(datetime.now(UTC).date()) if target.info else None
    if notice is not None:
        _warn(notice)
    return notice


@functools.cache
def _warn(notice: str) -> None:
    """Say it once in this program."""
    log.warning(notice)


def _first_byte(row: Provider, settings: Settings) -> float | None:
    limit = settings.first_byte_timeout
    # Only what nobody set is raised.
    return _LOCAL_FIRST_BYTE if row.local and limit == config.Settings().first_byte_timeout else limit


def _checked_key(key: Any) -> Any:
    text = key.reveal() if isinstance(key, keys.Secret) else key
    if not isinstance(text, str) or not text.strip():
        raise InputError("api_key must be text that is not empty", hint="leave it out to use the configured key")
    return key
