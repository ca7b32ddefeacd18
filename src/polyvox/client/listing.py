"""Asks a provider what costs nothing: which models it has. It keeps nothing, and leaves the shapes to the dialects."""

from __future__ import annotations

from msgspec.structs import replace

from polyvox.catalog import Provider
from polyvox.client.access import Access
from polyvox.dialects import NAMES, Endpoint, Reply, Wire, dialect
from polyvox.dialects.model_lists import LISTS, asking, read
from polyvox.errors import BadResponseError, PolyvoxError, UsageError
from polyvox.keys import redact
from polyvox.transports import Outgoing, Timeouts, Transport

_SECONDS = 30.0  # to wait for a list: nothing has to be thought about
_LARGEST = 64 << 20
_MOST_PAGES = 100


def no_list(row: Provider) -> str | None:
    """Why a provider cannot be asked for its models; None where it can."""
    if row.lists_models and row.dialect in LISTS:
        return None
    return "it has no list of models, and anything else would cost money"


async def listed(access: Access, transport: Transport, connect: float | None) -> tuple[str, ...]:
    """The names of a provider's models, in its order; connect is the limit on connecting, in seconds.

    Raises UsageError for a provider without a list, the provider's own error, or one of the way there.
    """
    row = access.row
    why = no_list(row)
    if why is not None:
        raise UsageError(
            f"{row.title or row.name}: {why}",
            hint=f"what the catalog knows: polyvox models list {row.name}",
            provider=row.name,
            sent="no",
        )
    try:
        return await _pages(access, transport, connect)
    except PolyvoxError as error:
        told_by(row, error)
        raise


def told_by(row: Provider, error: PolyvoxError) -> None:
    """Say in an error which provider it is about, and nothing in it that is secret."""
    error.provider = row.name
    error.message = redact(error.message)
    error.args = (error.message,)


async def outgoing(access: Access, wire: Wire, url: str = "") -> Outgoing:
    """A request to a provider with all that proves who asks; url is where, if not where its dialect has it."""
    row = access.row
    url = url or row.base_url.rstrip("/") + wire.path
    if access.query:
        url += f"{'&' if '?' in url else '?'}{access.query}"
    made = Outgoing(wire.method, url, {**wire.headers, **access.headers}, wire.body)
    if access.prove is not None:
        made = replace(made, headers={**made.headers, **await access.prove(made)})
    return made


async def _pages(access: Access, transport: Transport, connect: float | None) -> tuple[str, ...]:
    row = access.row
    names: dict[str, None] = {}
    path = LISTS[row.dialect].path
    for _ in range(_MOST_PAGES):
        page = read(row.dialect, path, await _page(access, transport, connect, path))
        names.update(dict.fromkeys(page.names))
        if page.next is None:
            return tuple(names)
        path = page.next
    raise BadResponseError(f"the list of models has more than {_MOST_PAGES} pages", sent="yes")


async def _page(access: Access, transport: Transport, connect: float | None, path: str) -> Reply:
    row = access.row
    at = Endpoint(row.base_url.rstrip("/"), row.name, row.quirks, row.options)
    wire = asking(row.dialect, at, path)
    exchange = await transport.send(await outgoing(access, wire, row.models_url), Timeouts(connect, _SECONDS, _SECONDS))
    try:
        reply = Reply(exchange.status, dict(exchange.headers), await exchange.read(_LARGEST))
    finally:
        await exchange.close()
    if reply.status == 200:
        return reply
    if reply.status >= 400 and row.dialect in NAMES:
        raise dialect(row.dialect).decode_error(reply, at)
    raise BadResponseError(
        f"asked for its models it answered with HTTP {reply.status}", status=reply.status, sent="yes"
    )
