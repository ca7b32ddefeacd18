"""What may be fetched, and the one form of every refusal. It fetches nothing itself."""

from __future__ import annotations

import ipaddress
from typing import Any

from msgspec import Struct

from polyvox.errors import InputError


class Rules(Struct, frozen=True, kw_only=True):
    """What may be fetched.

    Attributes:
        allow_http: plain http too, and not https alone.
        ports: the only ports that are connected to.
        allow_private: what is reached although it is not public: host names, addresses, networks ("10.1.0.0/16").
            Addresses of cloud metadata only where the very address is named.
        max_bytes: of one answer, decoded.
        seconds: for one URL in all: names, redirects and the body.
        redirects: how many are followed, each checked like the first URL.
    """

    allow_http: bool = False
    ports: tuple[int, ...] = (443, 80)
    allow_private: tuple[str, ...] = ()
    max_bytes: int = 20 * 1024 * 1024
    seconds: float = 30.0
    redirects: int = 3

    def __post_init__(self) -> None:
        """Refuse rules that mean nothing, with InputError."""
        numbers = {"max_bytes": (self.max_bytes, 1), "redirects": (self.redirects, 0)}
        numbers.update({f"ports[{place}]": (port, 1) for place, port in enumerate(self.ports)})
        for name, (value, least) in numbers.items():
            if type(value) is not int or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}", param=name)
        if type(self.seconds) not in (int, float) or not 0 < self.seconds < 1e6:
            raise InputError(f"seconds must be a number above 0, not {self.seconds!r}", param="seconds")
        hosts: Any = self.allow_private
        if isinstance(hosts, str) or not all(isinstance(one, str) for one in hosts):
            raise InputError("allow_private must be a sequence of hosts and networks", param="allow_private")
        for one in hosts:
            if "/" in one and network_of(one) is None:
                raise InputError(f"allow_private: {one!r} is no network", param="allow_private")


STRICT = Rules()


CODES = {
    "url_invalid": "it is not a URL, or one that programs read in different ways",
    "url_scheme": "its scheme is not allowed",
    "url_userinfo": "it names a user or a password",
    "url_port": "its port is not allowed",
    "url_private": "it leads to an address that is not public",
    "url_unresolved": "its host has no address",
    "url_redirects": "it redirects too often, or to nowhere",
    "url_unreachable": "its server cannot be reached, or broke off",
    "url_status": "its server answered with an error",
    "url_too_large": "it leads to more than is allowed",
    "url_encoding": "what came is not encoded as it says",
    "url_content": "what came is empty, or not what was asked for",
    "url_timeout": "it took too long",
    "url_count": "there are too many URLs in one call",
}
"""Every code of a refusal, and what it means."""

_HINTS = {
    "url_invalid": "check the URL as it was typed",
    "url_scheme": "use an https URL; Rules(allow_http=True) allows http",
    "url_port": "Rules(ports=...) names the ports that are allowed",
    "url_private": "Rules(allow_private=...) names hosts and networks that may be reached all the same",
    "url_too_large": "Rules(max_bytes=...) says how much is allowed",
    "url_timeout": "Rules(seconds=...) says how long it may take",
}


def refusal(code: str, message: str) -> InputError:
    """The error for one of `CODES`; raised by whoever made it."""
    return InputError(message, code=code, param="url", hint=_HINTS.get(code, "fetch it yourself and attach the bytes"))


def network_of(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """An address or a network as a network; None for anything else, such as a name."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
