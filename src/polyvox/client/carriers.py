"""The transports of one client: the one it was given, or those made when a provider first needs them. Who is asked,
and what is said, are not its business."""

from __future__ import annotations

import os

from polyvox.catalog import Provider
from polyvox.client.check import shown
from polyvox.config import Settings
from polyvox.errors import InputError
from polyvox.transports import Transport


def given_transport(
    transport: Transport | None, record: str | os.PathLike[str] | None, replay: str | os.PathLike[str] | None
) -> Transport | None:
    """The transport that a client was told to use, or the recording it answers from; InputError for what is none."""
    if transport is not None and not callable(getattr(transport, "send", None)):
        raise InputError(f"transport must have send and close, not {shown(transport)}")
    for name, path in (("record", record), ("replay", replay)):
        if path is not None and not isinstance(path, str | os.PathLike):
            raise InputError(f"{name} must be a path, not {shown(path)}")
    if replay is None:
        return transport
    if transport is not None or record is not None:
        raise InputError("replay carries the requests itself; it goes with neither transport nor record")
    from polyvox.transports.replay import ReplayTransport

    return ReplayTransport.from_jsonl(replay)


class Carriers:
    """Makes transports when they are needed, has them recorded where that is wanted, and closes them.

    given is the caller's own, None where there is none; `fixed` is that one as it is asked, recorded or not.
    """

    def __init__(self, given: Transport | None, record: str | os.PathLike[str] | None) -> None:
        self.given = given
        self._record = record
        self.fixed: Transport | None = given if given is None else self._heard(given)
        self._plain: Transport | None = None
        self._http: Transport | None = None
        self._demo: Transport | None = None
        self._files: Transport | None = None

    def of(self, row: Provider, settings: Settings) -> Transport:
        """What carries the requests to a provider."""
        if self.fixed is not None:
            return self.fixed
        if row.transport == "demo":
            from polyvox.transports.demo import DemoTransport

            self._demo = self._demo or self._heard(DemoTransport())
            return self._demo
        if row.transport == "local":
            from polyvox.transports.local import LocalTransport

            self._files = self._files or self._heard(LocalTransport())
            return self._files
        self._http = self._http or self._heard(self.unheard(settings))
        return self._http

    def unheard(self, settings: Settings) -> Transport:
        """The HTTP transport itself, whatever is recorded of it."""
        if self._plain is None:
            self._plain = _http(settings)
        return self._plain

    def once(self, settings: Settings) -> Transport:
        """A transport of one's own, for whoever closes it."""
        return self._heard(_http(settings))

    def _heard(self, transport: Transport) -> Transport:
        """The transport, recorded where that is wanted."""
        if self._record is None:
            return transport
        from polyvox.transports.record import RecordTransport

        return RecordTransport(transport, self._record)

    async def close(self) -> None:
        """Close the transports made here; one that was passed in is its owner's."""
        for transport in (self._plain, self._demo, self._files):
            if transport is not None:
                await transport.close()


def _http(settings: Settings) -> Transport:
    from polyvox.transports.http import HttpTransport

    return HttpTransport(
        pool_size=settings.pool_size,
        proxy=settings.proxy,
        ca_bundle=settings.ca_bundle,
        allow_http=settings.allow_http,
    )
