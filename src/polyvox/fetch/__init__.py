"""Get what a URL leads to without being turned against our own network: every address is checked, then connected to
as checked; redirects, size and time are bounded. It knows no model, sends no key and no cookie, and uses no proxy."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from polyvox.fetch.kinds import Fetched, data_url, media_type_of
from polyvox.fetch.places import Address, Place, Resolver, check_text, checked_addresses, place_of
from polyvox.fetch.rules import CODES, STRICT, Rules, refusal

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

__all__ = ["CODES", "STRICT", "Fetched", "Resolver", "Rules", "get", "get_all", "get_async"]

MAX_URLS = 32  # different URLs that one call may have fetched
AT_ONCE = 4
MAX_HEADER_BYTES = 16 * 1024
MAX_HEADERS = 128
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def get(url: str, rules: Rules = STRICT, *, resolver: Resolver | None = None) -> Fetched:
    """What a URL leads to; see `get_async`.

    >>> get("data:text/plain,hello").data
    b'hello'
    """
    from polyvox import portal

    return portal.run(get_async(url, rules, resolver=resolver))


async def get_async(url: str, rules: Rules = STRICT, *, resolver: Resolver | None = None) -> Fetched:
    """What an https URL (http where the rules allow it) or a data: URL leads to.

    resolver finds addresses instead of the system's. Raises InputError with a code of `CODES` and param "url"; no
    error tells an address, a body, or more of the URL than its host.
    """
    if isinstance(url, str) and url[:5].lower() == "data:":
        return data_url(url, rules.max_bytes)
    try:
        async with asyncio.timeout(rules.seconds):
            return await _followed(url, rules, resolver or _system)
    except TimeoutError:
        raise refusal("url_timeout", f"the URL gave nothing whole within {rules.seconds:g} s") from None


async def get_all(
    urls: Iterable[str], rules: Rules = STRICT, *, resolver: Resolver | None = None
) -> dict[str, Fetched]:
    """What each URL leads to, fetched once however often it is named; the first failure ends all."""
    wanted = list(dict.fromkeys(urls))
    if len(wanted) > MAX_URLS:
        raise refusal("url_count", f"{len(wanted)} URLs are more than the {MAX_URLS} that one call may have fetched")
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(url: str) -> Fetched:
        async with slots:
            return await get_async(url, rules, resolver=resolver)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(url)) for url in wanted]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return {url: task.result() for url, task in zip(wanted, tasks, strict=True)}


# ---- getting it -------------------------------------------------------------------------------


async def _system(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


async def _followed(url: str, rules: Rules, resolver: Resolver) -> Fetched:
    """The answer of a URL, or of what it redirects to; every hop is checked from the start."""
    for _ in range(rules.redirects + 1):
        place = place_of(url, rules)
        addresses = await checked_addresses(place, rules, resolver)
        async with _session(addresses) as session, await _asked(session, place) as answer:
            if answer.status not in _REDIRECTS:
                data = await _body(answer, place, rules.max_bytes)
                return Fetched(url.partition("#")[0], data, media_type_of(data, answer.headers.get("content-type")))
            location = answer.headers.get("location")
            if not location:
                raise refusal("url_redirects", f"{place.host!r} redirects to nowhere")
        check_text(location)
        try:
            url = urljoin(url, location)
        except ValueError:
            raise refusal("url_invalid", f"{place.host!r} redirects to what is no URL") from None
    raise refusal("url_redirects", f"the URL redirects more than {rules.redirects} times")


def _session(addresses: Sequence[Address]) -> ClientSession:
    """A session that can connect to these addresses and to no others, under the host's own name."""
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Pinned(AbstractResolver):
        """Gives the addresses that were checked; asks nobody again."""

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            return [
                ResolveResult(
                    hostname=host, host=str(one), port=port, proto=0, flags=socket.AI_NUMERICHOST,
                    family=socket.AF_INET if one.version == 4 else socket.AF_INET6,
                )
                for one in addresses
            ]  # fmt: skip

        async def close(self) -> None:
            """Holds nothing."""

    def gate(info: tuple[Any, ...]) -> socket.socket:
        # The last moment before a connection: whatever came in between, only what was checked is reached.
        family, kind, protocol, _, target = info
        if ipaddress.ip_address(target[0]) not in addresses:
            raise OSError("not an address that was checked")
        return socket.socket(family, kind, protocol)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=Pinned(), use_dns_cache=False, socket_factory=gate, force_close=True, limit=1
        ),
        headers={"user-agent": "polyvox", "accept-encoding": "gzip, deflate"},
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        trust_env=False,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=MAX_HEADERS,
    )


async def _asked(session: ClientSession, place: Place) -> ClientResponse:
    import aiohttp
    from yarl import URL

    host = f"[{place.host}]" if ":" in place.host else place.host
    # Built from the parts that were checked, so that no second parser has a say.
    url = URL(f"{place.scheme}://{host}:{place.port}{place.target}", encoded=True)
    try:
        return await session.get(url, allow_redirects=False)
    except (aiohttp.ClientError, OSError, ValueError):
        raise refusal("url_unreachable", f"the server of {place.host!r} cannot be reached") from None


async def _body(answer: ClientResponse, place: Place, limit: int) -> bytes:
    """The body, decoded; never more than `limit` bytes of it, and an inflated piece, are held."""
    import aiohttp

    from polyvox.transports.http.inflate import Inflate

    if not 200 <= answer.status < 300:
        raise refusal("url_status", f"the server of {place.host!r} answered with HTTP {answer.status}")
    too_large = refusal("url_too_large", f"the URL leads to more than {limit} bytes")
    if (answer.content_length or 0) > limit:
        raise too_large
    inflate = Inflate.of(answer.headers.get("content-encoding", ""))
    data, received = bytearray(), 0
    try:
        while raw := await answer.content.readany():
            received += len(raw)
            if inflate is None:
                data += raw
            else:
                inflate.feed(raw)
                while len(data) <= limit and (piece := inflate.more()):
                    data += piece
            # Compressed bytes may outgrow what they say, so both are counted.
            if len(data) > limit or received > limit:
                raise too_large
        if inflate is not None:
            inflate.end()
    except (zlib.error, EOFError):
        raise refusal("url_encoding", f"what {place.host!r} sent is cut off, or not encoded as it says") from None
    except (aiohttp.ClientError, OSError):
        raise refusal("url_unreachable", f"the server of {place.host!r} broke off") from None
    if not data:
        raise refusal("url_content", "the URL leads to nothing: what came is empty")
    return bytes(data)
