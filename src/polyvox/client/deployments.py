"""From a model's name to a deployment that can be asked: provider, key, address and transport, or a backend.
Kept, so that a second call of the same name costs a dictionary look-up."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from polyvox import backends, catalog, config, keys
from polyvox.auth import credentials
from polyvox.backends import Backend, BackendDeployment
from polyvox.catalog import Catalog, Provider, Target, follow, split_name
from polyvox.client.check import shown, text_or_none
from polyvox.client.explain import shown_headers
from polyvox.config import Settings
from polyvox.dialects import NAMES, Endpoint, dialect
from polyvox.engine import AnyDeployment, Deployment
from polyvox.errors import InputError, MissingKeyError, NotFoundError, UsageError
from polyvox.transports import Timeouts, Transport

# A server on this machine may have to load the model first.
_LOCAL_FIRST_BYTE = 600.0


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
    ) -> None:
        if settings is not None and not isinstance(settings, Settings):
            raise InputError(f"settings must be Settings, not {shown(settings)}", hint="see polyvox.config.load()")
        if transport is not None and not callable(getattr(transport, "send", None)):
            raise InputError(f"transport must have send and close, not {shown(transport)}")
        self._fixed = settings
        self._base_url = text_or_none("base_url", base_url)
        self._api_key = None if api_key is None else keys.secret_of(_checked_key(api_key))
        if dialect not in NAMES:
            raise InputError(f"there is no dialect {dialect!r}", hint=f"dialects are {', '.join(NAMES)}")
        self._dialect = dialect
        self._model = model
        self._owner: str | None = None  # the provider an explicit key belongs to
        for name, path in (("record", record), ("replay", replay)):
            if path is not None and not isinstance(path, str | os.PathLike):
                raise InputError(f"{name} must be a path, not {shown(path)}")
        if replay is not None:
            if transport is not None or record is not None:
                raise InputError("replay carries the requests itself; it goes with neither transport nor record")
            from polyvox.transports.replay import ReplayTransport

            transport = ReplayTransport.from_jsonl(replay)
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
        self._record = record
        self._transport = transport if transport is None else self._heard(transport)
        self._http: Transport | None = None
        self._demo: Transport | None = None
        self._closed = False
        self._made_for: Settings | None = None
        self._known = backends.registered
        self._made: dict[str | None, AnyDeployment] = {}
        self.settings = settings or config.Settings()
        self.fields: dict[str, Any] = {}
        keys.install_redaction()

    def get(self, name: str | None) -> AnyDeployment:
        """The deployment a name means; None means the configured or the only possible one."""
        settings = self._fixed or config.current()
        if settings is not self._made_for or backends.registered is not self._known:
            self._renew(settings)
        if name is not None and not isinstance(name, str):
            raise InputError(f"model must be a name, not {shown(name)}")
        found = self._made.get(name)
        if found is None:
            if self._closed:
                raise UsageError("the client is closed", hint="make a new one, or use `with Client() as client:`")
            if self._api_key is not None and self._owner is None:
                owner = self._meant(self._model or name, settings)
                assert isinstance(owner, Target)  # a backend takes no key
                self._owner = owner.provider.name
            meant = self._meant(name, settings)
            found = self._deployment(meant, settings) if isinstance(meant, Target) else meant
            self._made[name] = found
        return found

    def _meant(self, name: str | None, settings: Settings) -> Target | BackendDeployment:
        """Who is meant by a name: a registered backend, a provider's model, then a backend of a package."""
        backed = self._backed(name, settings, backends.registered_as)
        if backed is not None:
            return backed
        try:
            return self._target(name, settings)
        except NotFoundError:
            # Only here, because it asks every installed package what it brings along.
            backed = self._backed(name, settings, backends.discovered)
            if backed is None:
                raise
            return backed

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
        self._made = {}
        self._known = backends.registered
        self._made_for = self.settings = settings
        self.fields = {
            field: value
            for field in ("temperature", "max_tokens")
            if (value := getattr(settings, field, None)) is not None
        }

    def explained(self, name: str | None) -> Deployment:
        """The same deployment as `get` gives, for looking at: it needs no key, holds none, and cannot send."""
        from polyvox.transports.replay import ReplayTransport

        settings = self._fixed or config.current()
        if settings is not self._made_for:
            self._renew(settings)
        target = self._meant(name, settings)
        if not isinstance(target, Target):
            raise UsageError(
                f"the backend {target.provider!r} is asked in this process: it has no wire, so there is no request",
                hint="explain a model of a provider",
                sent="no",
            )
        headers = shown_headers(target.provider)
        return self._deployed(target, settings, headers, self._transport or ReplayTransport(()))

    def _target(self, name: str | None, settings: Settings) -> Target:
        rows = catalog.load().with_overrides(settings.providers, settings.origins)
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
        if known:
            return Target(known[0], name, rows.info(known[0].name, name))
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

    def _deployment(self, target: Target, settings: Settings) -> Deployment:
        row = target.provider
        key = self._key(row, settings) if row.auth != "none" else None
        if key is None and row.needs_key and not self._replays:
            raise keys.missing_key_error(row)
        if key is not None:
            keys.allowed_host(row, row.base_url, key.source)
        headers = {**row.headers, **credentials(row, key.secret if key else None)}
        return self._deployed(target, settings, headers, self._carrier(row, settings))

    def _deployed(
        self, target: Target, settings: Settings, headers: Mapping[str, str], transport: Transport
    ) -> Deployment:
        row = target.provider
        info: Mapping[str, Any] = (
            {"max_output": target.info.max_output} if target.info and target.info.max_output else {}
        )
        return Deployment(
            row.name,
            target.model,
            dialect=dialect(row.dialect),
            endpoint=Endpoint(row.base_url.rstrip("/"), target.name, row.quirks, {**info, **row.options}),
            headers=headers,
            transport=transport,
            timeouts=Timeouts(
                settings.connect_timeout,
                _first_byte(row, settings),
                settings.idle_timeout,
            ),
            timeout=settings.providers.get(row.name, {}).get("timeout", settings.timeout),
        )

    def _carrier(self, row: Provider, settings: Settings) -> Transport:
        if self._transport is not None:
            return self._transport
        if row.transport == "demo":
            from polyvox.transports.demo import DemoTransport

            self._demo = self._demo or self._heard(DemoTransport())
            return self._demo
        if self._http is None:
            from polyvox.transports.http import HttpTransport

            self._http = self._heard(
                HttpTransport(
                    pool_size=settings.pool_size,
                    proxy=settings.proxy,
                    ca_bundle=settings.ca_bundle,
                    allow_http=settings.allow_http,
                )
            )
        return self._http

    def _heard(self, transport: Transport) -> Transport:
        """The transport, recorded where that is wanted."""
        if self._record is None:
            return transport
        from polyvox.transports.record import RecordTransport

        return RecordTransport(transport, self._record)

    async def close(self) -> None:
        """Close the transports made here; one that was passed in is its owner's."""
        self._closed = True
        self._made = {}
        for transport in (self._http, self._demo):
            if transport is not None:
                await transport.close()


def _first_byte(row: Provider, settings: Settings) -> float | None:
    limit = settings.first_byte_timeout
    # Only what nobody set is raised.
    return _LOCAL_FIRST_BYTE if row.local and limit == config.Settings().first_byte_timeout else limit


def _checked_key(key: Any) -> Any:
    text = key.reveal() if isinstance(key, keys.Secret) else key
    if not isinstance(text, str) or not text.strip():
        raise InputError("api_key must be text that is not empty", hint="leave it out to use the configured key")
    return key
