"""Who is asked for a model's name, and why: by what TTT's configuration, the registered deployments and backends and
the core's catalog say of it, else by what the query says. It makes no backend and asks nobody."""

from __future__ import annotations

from typing import Any, NamedTuple

from polyvox import backends, config
from polyvox.catalog import follow, split_name
from polyvox.client.inputs import as_messages
from polyvox.compat import shared
from polyvox.compat.ttt.backends import Backend
from polyvox.compat.ttt.backends.asking import AUTO, Model
from polyvox.compat.ttt.config import Config
from polyvox.compat.ttt.places import added_as, deployment_named, rows
from polyvox.errors import ConfigError, InputError, NotFoundError, UnknownProviderError
from polyvox.keys import find_key
from polyvox.registry import DictRegistry
from polyvox.routing.tiers import TIERS, score
from polyvox.types import Request


class Choice(NamedTuple):
    """The name of the backend that is asked, for which model (None is its own choice), and why. tier is said where the
    core chooses among deployments by what the request says."""

    backend: str
    model: Model
    reason: str
    tier: str | None = None


def followed(model: Model, said: Config) -> Model:
    """A name behind its aliases, those of TTT before those of the core."""
    if not isinstance(model, str):
        return model
    return follow(model.strip(), {**config.current().aliases, **said.table("models.aliases")})


def check_backend(name: str, setting: str, said: Config) -> None:
    """ConfigError, with where it was said, for a setting that names a backend which nobody has."""
    if name.lower() not in map(str.lower, Backend.names()):
        what = f"{setting} ({said.origin(setting)}) names a backend {name!r}"
        raise ConfigError(f"{what}; there are {', '.join(Backend.names())}", hint="name one of them, or register yours")


def usual(query: Any, said: Config) -> Choice:
    """Who is asked where no model is named: what TTT's configuration says, then the environment's AI_ variables or
    whoever registered a default, then the core."""
    backend, default = said.get("backends.default"), said.get("models.default")
    if backend not in (None, AUTO):
        check_backend(backend, "backends.default", said)
        own = None if "model" in said.of_backend(backend) else followed(default, said)
        return Choice(backend, own, f"backends.default is {backend} ({said.origin('backends.default')})")
    if default is not None:
        found = of_model(default, query, said)
        return found._replace(reason=f"models.default is {default}: {found.reason}")
    entry = shared.EVERYONE.get_default()
    if entry is not None:
        return Choice("cloud", entry.name, f"no model is named: {entry.name} is the usual deployment")
    core = config.current().model
    if core is not None:
        return of_model(core, query, said)
    return Choice("cloud", None, "no model is named: the first provider with a key is asked")


def of_model(model: Model, query: Any, said: Config) -> Choice:
    """Who is asked for a model, or for one of several."""
    model = followed(model, said)
    if not isinstance(model, str):
        if not isinstance(model, list | tuple) or not model or not all(isinstance(each, str) for each in model):
            hint = 'for example model="gpt-4", or model=["gpt-4", "llama2"]'
            raise InputError(f"model is a name, or a list of names, not {model!r}", hint=hint, param="model")
        return Choice("cloud", list(model), "several models are named: each if those before fail")
    if model == AUTO:
        return _by_query(query)
    if deployment_named(model) is not None:
        return Choice("cloud", model, f"a deployment {model} is registered")
    left = split_name(model)[0]
    if backends.registered_as(left) is not None:
        return Choice(left, model, f"a backend {left} is registered")
    return _by_catalog(model)


def _by_catalog(model: str) -> Choice:
    known, settings = rows(), config.current()
    own = next(reversed(added_as(model)), None)
    if own is not None and own.provider not in known.providers:
        if backends.registered_as(own.provider) is None:
            raise UnknownProviderError(
                f"{own.name} was added, but nobody called {own.provider!r} is known who could be asked for it",
                hint=f"register a backend of that name, or configure providers.{own.provider}.base_url",
            )
        return Choice(own.provider, own.id, f"{own.id} was added as a model of {own.provider}")
    try:
        target = known.resolve(shared.in_catalog(model), has_key=lambda row: find_key(row, settings) is not None)
    except NotFoundError:
        # The core says what is near it, after it has looked at the servers of this machine.
        return Choice("cloud", model, f"no provider is known to serve {model}")
    row = target.provider
    if row.local:
        return Choice("local", model, f"{model} is a model of {row.name}, on this machine")
    return Choice("cloud", model, f"{model} is a model of {row.name}")


def _by_query(query: Any) -> Choice:
    """By what a query says: the tier that its points lead to, of the deployments there are, else of the providers with
    a key."""
    points = score(Request(AUTO, as_messages(query, whole=False) if query else ()))
    why = f"tier {points.tier}: {', '.join(points.reasons) or 'nothing demanding'}"
    if shared.EVERYONE.list_active() or config.current().deployments:
        return Choice("cloud", None, why, tier=AUTO)
    there = DictRegistry.from_env()
    at = TIERS.index(points.tier) if points.tier in TIERS else 0
    chosen = [tier for tier in TIERS if tier != "local"]
    for tier in (*chosen[at:], *reversed(chosen[:at])):
        if (entry := there.get_by_tier(tier)) is not None:
            return _by_catalog(entry.model)._replace(reason=f"{why}; {entry.model}")
    return Choice("cloud", None, why)
