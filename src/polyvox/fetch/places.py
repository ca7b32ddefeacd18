"""Which URLs may be connected to, and which addresses: taken apart once, in one spelling, and checked. It connects to
nothing, and asks the resolver it is given."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote, urlsplit

from polyvox.fetch.rules import STRICT, Rules, network_of, refusal

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host name, as text; OSError where it has none."""

MAX_URL = 8192


# ---- the URL ----------------------------------------------------------------------------------


class Place(NamedTuple):
    """A URL made ready: what is connected to, and what is asked for there. literal is the host's address where the
    URL names one."""

    scheme: str
    host: str
    port: int
    target: str
    literal: Address | None


_DEFAULT_PORTS = {"https": 443, "http": 80}
# Labels as the DNS of the public web has them; an underscore is tolerated by every resolver.
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.ASCII)
# A host whose last label is a number is an IPv4 address to resolvers, however it is spelled (WHATWG URL, 3.5).
_NUMERIC = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)", re.ASCII)
_TARGET_SAFE = "/:?#[]@!$&'()*+,;=-._~%"


def place_of(url: str, rules: Rules = STRICT) -> Place:
    """A URL taken apart by the one parser whose parts are then connected to; raises InputError.

    Whatever two parsers might read differently is refused: control characters, spaces, backslashes, users, escapes
    in the host, odd spellings of addresses.
    """
    check_text(url)
    try:
        parts = urlsplit(url)
        port, raw = parts.port, parts.hostname or ""
    except ValueError:
        raise refusal("url_invalid", "the URL cannot be read") from None
    if parts.scheme not in (_DEFAULT_PORTS if rules.allow_http else ("https",)):
        raise refusal("url_scheme", f"URLs of the scheme {parts.scheme[:20]!r} are not fetched")
    if "@" in parts.netloc or "@" in parts.fragment:
        raise refusal("url_userinfo", "the URL names a user, or can be read as if it did")
    host, literal = _host(raw, "[" in parts.netloc)
    port = _DEFAULT_PORTS[parts.scheme] if port is None else port
    if port not in rules.ports:
        raise refusal("url_port", f"port {port} is not among those that are fetched from")
    target = quote(parts.path or "/", _TARGET_SAFE) + (f"?{quote(parts.query, _TARGET_SAFE)}" if parts.query else "")
    return Place(parts.scheme, host, port, target, literal)


def check_text(url: Any) -> None:
    """Refuse text that parsers clean up, each in its own way, before they read it; raises InputError."""
    if not isinstance(url, str) or not url or len(url) > MAX_URL:
        raise refusal("url_invalid", f"a URL is text of at most {MAX_URL} characters")
    if any(char in " \\" or not char.isprintable() for char in url):
        raise refusal("url_invalid", "the URL has spaces, control characters or backslashes")


def _host(raw: str, bracketed: bool) -> tuple[str, Address | None]:
    """The host in the one spelling that is resolved and connected to, and its address where it is one."""
    try:
        if bracketed:
            if "%" in raw:
                raise refusal("url_private", "the URL names an address of one network card")
            address = ipaddress.IPv6Address(raw)
            return str(address), address
        name = _ascii(raw)
        if _NUMERIC.fullmatch(name):
            return name, ipaddress.IPv4Address(name)
    except ipaddress.AddressValueError:
        raise refusal("url_invalid", "the host of the URL is an address in an unusual spelling") from None
    if not _HOST.fullmatch(name) or len(name) > 253:
        raise refusal("url_invalid", "the host of the URL is not a name")
    return name, None


def _ascii(raw: str) -> str:
    """A host name normalised once: compatibility forms, full stops of other scripts, one dot at its end, IDNA."""
    name = unicodedata.normalize("NFKC", raw).replace("\u3002", ".").lower().removesuffix(".")
    if name.isascii():
        return name
    import idna

    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError:
        raise refusal("url_invalid", "the host of the URL is not a name") from None


# ---- addresses --------------------------------------------------------------------------------

# Where clouds answer a machine's questions about itself, with its credentials among the answers.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200", "192.0.0.192",
        "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
    )
)  # fmt: skip
# Not for the public, though some Python's `is_global` says so (IANA special-purpose registries).
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "100.64.0.0/10", "168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15",
        "240.0.0.0/4", "2001::/23", "2001:db8::/32", "3fff::/20",
    )
)  # fmt: skip
# All that IANA has given out for global unicast; whatever else IPv6 has is local, reserved or a wrapping.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Names of the machine, the site and the cloud it runs in, wherever they lead.
_OWN_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home.arpa", "localdomain")


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, whatever it is wrapped in.

    >>> is_public(ipaddress.ip_address("::ffff:127.0.0.1"))
    False
    """
    inner = _wrapped(address)
    if inner is not None:
        return is_public(inner)
    if not address.is_global or address.is_multicast or address in _METADATA:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def _wrapped(address: Address) -> Address | None:
    """The IPv4 address that an IPv6 one carries (mapped, 6to4, NAT64), or None. Other wrappings, Teredo among them,
    are not public as a whole."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _allowed(address: Address, host: str, rules: Rules) -> bool:
    """Whether the rules let this address of this host be reached although it is not public."""
    metadata = address in _METADATA or _wrapped(address) in _METADATA
    for one in rules.allow_private:
        network = network_of(one)
        if network is None:
            if one.lower().removesuffix(".") == host and not metadata:
                return True
        elif address in network and (network.num_addresses == 1 or not metadata):
            return True
    return False


async def checked_addresses(place: Place, rules: Rules, resolver: Resolver) -> list[Address]:
    """The addresses of a host, asked for once and every one of them checked; raises InputError where one is neither
    public nor allowed."""
    refused = refusal("url_private", f"{place.host!r} does not lead to the public internet")
    own = place.literal is None and (
        "." not in place.host or any(f".{place.host}".endswith(f".{name}") for name in _OWN_NAMES)
    )
    if own and not rules.allow_private:
        raise refused
    found = [place.literal] if place.literal is not None else await _resolved(place, resolver)
    for address in found:
        if not (_allowed(address, place.host, rules) or (is_public(address) and not own)):
            raise refused
    return found


async def _resolved(place: Place, resolver: Resolver) -> list[Address]:
    try:
        found = [ipaddress.ip_address(text) for text in await resolver(place.host, place.port)]
    except (OSError, ValueError):
        found = []
    if not found:
        raise refusal("url_unresolved", f"the host {place.host!r} has no address")
    return found
