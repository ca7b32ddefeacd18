"""Where a provider's key is found, and to which hosts it may go. It sends nothing and knows no provider by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from polyvox.catalog import Provider, host_of
from polyvox.errors import AuthError, MissingKeyError
from polyvox.keys.secret import Secret, secret_of
from polyvox.keys.store import KeyStore

log: logging.Logger = logging.getLogger("polyvox.keys")


class FoundKey(Struct, frozen=True):
    """A key and where it was found: "argument", "row", "env NAME", "config FILE:LINE", "file PATH", "keys file" or
    "keyring"."""

    secret: Secret
    source: str


class _Settings(Protocol):
    """The part of `config.Settings` that keys need."""

    @property
    def providers(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def origins(self) -> Mapping[str, str]: ...


def find_key(
    provider: Provider,
    settings: _Settings | None = None,
    explicit: str | Secret | None = None,
    *,
    env: Mapping[str, str] | None = None,
    store: KeyStore | None = None,
) -> FoundKey | None:
    """The key for a provider, or None: argument, environment, configuration file, key store, the files that other
    programs keep keys in, in this order."""
    env = os.environ if env is None else env
    if explicit:
        return FoundKey(secret_of(explicit), "argument")
    own: Mapping[str, Any] = settings.providers.get(provider.name, {}) if settings else {}
    given, origin = _configured(provider, settings)
    if given and origin in ("argument", "row"):
        return FoundKey(secret_of(given), origin)
    named = own.get("api_key_env", provider.key_env)
    found = _in_environment((named,) if isinstance(named, str) else tuple(named), env)
    found = found or key_of_parts(provider.key_parts, env)
    if found:
        return found
    if given:
        return FoundKey(secret_of(given), f"config {origin}")
    if provider.auth == "none":
        return None
    stored = (store or KeyStore(env=env)).find(provider.key_of or provider.name)
    return FoundKey(*stored) if stored else _in_files(provider, env)


def _configured(provider: Provider, settings: _Settings | None) -> tuple[Any, str]:
    """The key that the settings give a provider, or else the one whose account it shares; and where it stands.
    A key that was given together with an address is for that address alone."""
    if settings is None:
        return None, ""
    name = provider.name
    own: Mapping[str, Any] = settings.providers.get(name, {})
    shared: Mapping[str, Any] = settings.providers.get(provider.key_of, {})
    if provider.key_of and not own.get("api_key") and own.get("base_url") == shared.get("base_url"):
        name = provider.key_of
    given = settings.providers.get(name, {}).get("api_key")
    return given, settings.origins.get(f"providers.{name}.api_key", "argument")


def key_of_parts(names: tuple[str, ...], env: Mapping[str, str]) -> FoundKey | None:
    """A key whose parts lie in several variables, ":" between them; None unless all but the last are there."""
    parts = [env.get(name, "").strip() for name in names]
    if not names or not all(parts[:-1]):
        return None
    for part in parts[1:]:  # the first is an id, which is no secret
        secret_of(part)
    return FoundKey(secret_of(":".join(filter(None, parts))), f"env {names[0]}")


_LARGEST_KEY_FILE = 64 * 1024


def _in_files(provider: Provider, env: Mapping[str, str]) -> FoundKey | None:
    """The text of the first key file that can be read."""
    for variable, path in _key_files(provider, env):
        text = _key_text(path)
        if text is not None:
            return FoundKey(secret_of(text), f"env {variable}" if variable else f"file {path}")
    return None


def _key_files(provider: Provider, env: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Where a provider's key file may be, best first, with the variable that names it alone, or ""."""
    for template in provider.key_files:
        variable, _, rest = template.removeprefix("$").partition("/")
        base = env.get(variable, "").strip()
        if base:
            yield "" if rest else variable, Path(base, rest)


def _key_text(path: Path) -> str | None:
    """What is in a key file; None for one that is not there, cannot be read or is too large to be one."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_KEY_FILE + 1)
    except (OSError, ValueError):
        return None
    return data.decode("utf-8", "replace") if len(data) <= _LARGEST_KEY_FILE else None


_warned: set[tuple[str, ...]] = set()


def _in_environment(names: tuple[str, ...], env: Mapping[str, str]) -> FoundKey | None:
    present = tuple(name for name in names if env.get(name, "").strip())
    if not present:
        return None
    if len({env[name].strip() for name in present}) > 1 and present not in _warned:
        _warned.add(present)
        log.warning("%s is used; %s differs and is ignored", present[0], ", ".join(present[1:]))
    return FoundKey(secret_of(env[present[0]]), f"env {present[0]}")


def missing_key_error(provider: Provider) -> MissingKeyError:
    """The error for a provider without a key: which variable to set, which command to run."""
    ways = [f"set {provider.key_env[0]}"] if provider.key_env else []
    if provider.key_parts:
        ways.append(f"set {' and '.join(provider.key_parts[:-1])}")
    if provider.key_files:
        ways.append(f"let {provider.key_files[0].removeprefix('$')} name a key file")
    ways.append(f"run: polyvox keys set {provider.key_of or provider.name}")
    where = f" (keys are made at {provider.docs})" if provider.docs else ""
    named = next(((variable, path) for variable, path in _key_files(provider, os.environ) if variable), None)
    why = f": {named[0]} names {named[1]}, which cannot be read" if named else ""
    return MissingKeyError(
        f"no API key for {provider.title or provider.name}{why}",
        hint=" or ".join(ways) + where,
        provider=provider.name,
    )


def allowed_host(provider: Provider, url: str, key_source: str) -> bool:
    """True when a key may go to this URL; raises AuthError otherwise.

    A key goes only to the hosts bound to it (`provider.hosts`), or to an address that came from the
    same hand as the key itself: both as arguments, both in one database row or both in one file.
    A base URL from the environment never takes along a key that lies elsewhere.
    """
    host = host_of(url)
    if host and any(_covers(pattern, host) for pattern in provider.hosts):
        return True
    if host and host == host_of(provider.base_url) and _same_hand(provider.url_source, key_source):
        return True
    where = f" (the address comes from {provider.url_source})" if provider.url_source != "catalog" else ""
    # What is said replaces the list, so the hosts that are bound already are part of what to say.
    hosts = ", ".join(f'"{name}"' for name in (*provider.hosts, host) if name)
    raise AuthError(
        f"the {provider.name} key from {key_source} is not sent to {host or 'an address without a host'}{where}",
        hint=f"allow it with hosts = [{hosts}] under [providers.{provider.name}] in the configuration, "
        "or pass api_key and base_url together",
        provider=provider.name,
        sent="no",
        billed=False,
    )


def _covers(pattern: str, host: str) -> bool:
    """Whether a host is the one that is bound, or below it where "*." says so."""
    return host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _same_hand(url_source: str, key_source: str) -> bool:
    if key_source in ("argument", "row"):
        return url_source == key_source
    if not key_source.startswith("config "):
        return False
    return url_source.rpartition(":")[0] == key_source.removeprefix("config ").rpartition(":")[0]
