"""Where a call goes: which URLs may be called, and whether a proxy stands between. It connects to nothing."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, urlsplit

from polyvox.errors import ConfigError

if TYPE_CHECKING:
    from yarl import URL


class Target(NamedTuple):
    """A URL made ready: parsed, checked, named for messages, and by which way it is reached."""

    url: URL
    where: str
    proxy: str | None


def http_url(text: str) -> SplitResult | None:
    """The parts of an absolute http or https URL in plain ASCII; None for anything else."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if usable and text.isascii() and text.isprintable() and " " not in text else None


def without_userinfo(text: str) -> str:
    """A URL fit to be shown: without user, password and query."""
    scheme, mark, rest = text.split("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def is_loopback(host: str) -> bool:
    """Whether a host name is this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def environment_proxy(scheme: str, host: str, where: str) -> str | None:
    """The proxy the environment names for a scheme, unless NO_PROXY excepts the host."""
    # Under CGI, HTTP_PROXY is a request header of the visitor: only the lower-case name counts there.
    names = [f"{scheme}_proxy"]
    if not (scheme == "http" and "REQUEST_METHOD" in os.environ):
        names.append(f"{scheme.upper()}_PROXY")
    name = next((name for name in names if os.environ.get(name)), None)
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if name is None or any(
        _excepts(entry.strip().lower(), host.lower(), where.lower()) for entry in excepted.split(",")
    ):
        return None
    check_proxy(os.environ[name], name)
    return os.environ[name]


def _excepts(entry: str, host: str, where: str) -> bool:
    """Whether one NO_PROXY entry covers a host: *, a name and all below it, host:port, an address or network."""
    if not entry:
        return False
    name = entry.removeprefix("*").removeprefix(".")
    if not name or name in (host, where) or host.endswith("." + name) or where.endswith("." + name):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def check_proxy(proxy: str, name: str) -> None:
    """Refuse a proxy that cannot be used; name says where it was given."""
    if http_url(proxy) is None:
        raise ConfigError(
            f"{name} is not a proxy that can be used: {without_userinfo(proxy)!r}",
            hint="give an http:// or https:// URL; SOCKS is not supported",
        )
