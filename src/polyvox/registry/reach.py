"""Where an entry leads: whether that is on this machine, which key it takes, and what it costs. It asks the settings,
the catalog and the places where keys lie, and sends nothing."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal

from polyvox import backends, catalog
from polyvox.catalog import Catalog, Target, follow, host_of, split_name
from polyvox.config import Settings
from polyvox.errors import ConfigError, NotFoundError
from polyvox.keys import FoundKey, KeyStore, find_key, secret_of
from polyvox.models import Model
from polyvox.places import located
from polyvox.prices import overrides_of
from polyvox.prices.overrides import overridden
from polyvox.registry.values import LOCAL, Entry

_held: tuple[Settings, Catalog, Catalog] | None = None


def _rows(settings: Settings) -> Catalog:
    """The catalog under these settings; kept for the last ones, which nearly all who ask have."""
    global _held
    held, known = _held, catalog.load()
    if held is None or held[0] is not settings or held[1] is not known:
        rows = known.with_overrides(settings.providers, settings.origins)
        held = _held = (settings, known, rows)
    return held[2]


def target_of(entry: Entry, settings: Settings) -> Target | None:
    """The provider and the model that an entry without a base_url means; None where that is a backend. NotFoundError
    for what nobody is known to serve."""
    name = follow(entry.model.strip(), settings.aliases)
    if backends.registered_as(split_name(name)[0]) is not None:
        return None
    return _rows(settings).resolve(name, has_key=lambda row: find_key(row, settings) is not None)


# ---- this machine -----------------------------------------------------------------------------


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine, by its host's name alone: nobody is asked what a name stands for."""
    host = host_of(url)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    inner = getattr(address, "ipv4_mapped", None)
    return bool((inner or address).is_loopback)


def why_not_local(entry: Entry, settings: Settings) -> str | None:
    """Why an entry cannot be in the tier local, in a sentence; None for one that stays on this machine."""
    if entry.base_url is not None:
        return None if is_loopback(entry.base_url) else f"{host_of(entry.base_url)} is another machine"
    try:
        target = target_of(entry, settings)
        if target is None:
            return "nobody can know where a backend sends what it is asked"
        row = target.provider
        # Who writes it of a provider of his own knows where it is; a variable may have moved any other.
        said = settings.providers.get(row.name, {}).get("local") is True
        if row.transport != "http" or said or (row.local and is_loopback(located(row).base_url)):
            return None
    except (NotFoundError, ConfigError) as error:
        return f"nobody can know where it is: {error.message}"
    where = f"is at {host_of(row.base_url)} ({row.url_source})" if row.local else "is hosted elsewhere"
    return f"{row.title or row.name} {where}"


def local_problem(entry: Entry, settings: Settings) -> str | None:
    """What is wrong with an entry's tier, if anything: local is a promise that nothing leaves this machine."""
    why = why_not_local(entry, settings) if entry.tier == LOCAL else None
    return None if why is None else f"tier: is local, but {why}"


# ---- keys and prices --------------------------------------------------------------------------


def key_of(
    entry: Entry, settings: Settings, *, env: Mapping[str, str] | None = None, store: KeyStore | None = None
) -> FoundKey | None:
    """The key that an entry's calls take: its own, else its provider's; None where there is none."""
    env = os.environ if env is None else env
    own = _in_variable(entry.api_key_env, env)
    if entry.api_key is not None:
        said = entry.origin in ("argument", "row") or entry.origin.startswith("env ")
        return FoundKey(secret_of(entry.api_key), entry.origin if said else f"config {entry.origin}")
    if own is not None:
        return own
    if entry.api_key_of is not None:
        stored = (store or KeyStore(env=env)).find(entry.api_key_of)
        return FoundKey(*stored) if stored else None
    if entry.api_key_env is not None or entry.base_url is not None:
        return None  # a key is for the address it was given for
    try:
        target = target_of(entry, settings)
    except NotFoundError:
        return None
    return None if target is None else find_key(target.provider, settings, env=env, store=store)


def _in_variable(name: str | None, env: Mapping[str, str]) -> FoundKey | None:
    value = env.get(name, "").strip() if name is not None else ""
    return FoundKey(secret_of(value), f"env {name}") if value else None


def usable(entry: Entry, settings: Settings) -> bool:
    """Whether an entry's calls would have the key they need."""
    if entry.api_key is None and entry.api_key_env is None and entry.api_key_of is None:
        if entry.base_url is not None:
            return True  # an unknown server, which may do without
        try:
            target = target_of(entry, settings)
        except (NotFoundError, ConfigError):
            return False
        if target is None or not target.provider.needs_key:
            return True
    try:
        return key_of(entry, settings) is not None
    except ConfigError:  # a damaged key store
        return False


def known_of(entry: Entry, settings: Settings) -> Model | None:
    """What is known of an entry's model, with its own price before all others; None where nothing is."""
    try:
        target = target_of(entry, settings) if entry.base_url is None else None
    except (NotFoundError, ConfigError):
        target = None
    model = target.info if target is not None else None
    if target is not None and settings.prices:
        own = overrides_of(settings.prices, settings.origins).get(target.name)
        if own:
            model = overridden(model or Model(id=target.model, provider=target.provider.name), own)
    if entry.price is None:
        return model
    name = f"{entry.name}/{entry.model}"
    rows = overrides_of({name: entry.price}, {f"prices.{name}": entry.origin})[name]
    return overridden(model or Model(id=entry.model, provider=entry.name), rows)


def usual_price(entry: Entry, settings: Settings, at: datetime) -> Decimal | None:
    """What a million tokens cost in USD when three go in for one that comes out; None is not known."""
    model = known_of(entry, settings)
    price = model.price(at) if model is not None else None
    if price is None or price.input is None or price.output is None:
        return None
    return (3 * price.input + price.output) / 4


def thrift(entry: Entry, settings: Settings, at: datetime | None = None) -> tuple[bool, bool, Decimal]:
    """What sorts entries so that the cheapest whose model is alive is the first. An unknown price is not cheap."""
    now = at or datetime.now(UTC)
    model = known_of(entry, settings)
    today: date = now.date()
    price = usual_price(entry, settings, now)
    return model is not None and model.standing(today) != "alive", price is None, price or Decimal(0)
