"""A model that is built in: it answers Chat Completions and embeds in process, offline, the same way every time,
and says so in each answer. It opens no socket and reads no clock; what to answer is `brain`'s business, vectors are
those of `vectors`, and how it is said is the dialect's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from polyvox.dialects import Endpoint, Reply, Wire, dialect, embeds, encode_json
from polyvox.errors import BadResponseError, CallTimeoutError, NotFoundError, PolyvoxError, UsageError
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.demo.brain import MODEL, as_words, think
from polyvox.transports.demo.vectors import embed

_DIALECT = "openai.chat"
_OFFLINE = {"system_fingerprint": "demo-offline"}
_EXTRA = {_DIALECT: _OFFLINE}
_MODELS = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "polyvox"}]}


class DemoTransport:
    """Answers `/chat/completions`, `/embeddings` and `/models` itself; its vectors have no meaning. delay is the
    pause before each word of a stream, in seconds. Every answer carries system_fingerprint "demo-offline".
    """

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay
        self._closed = False

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> DemoExchange:
        """Think and give the head of the answer; UsageError once closed."""
        if self._closed:
            raise UsageError("this transport is closed", hint="make a new one, or close it later", sent="no")
        reply, events = _respond(outgoing)
        return DemoExchange(reply, events, self._delay, timeouts.idle)

    async def close(self) -> None:
        """Nothing is held; only further use is refused."""
        self._closed = True


class DemoExchange:
    """See `transports.Exchange`. A stream's events come one by one, a whole answer in one piece."""

    def __init__(self, reply: Reply, events: list[bytes], delay: float, idle: float | None) -> None:
        self.status: int = reply.status
        self._chunks = events or [reply.body]
        self._delay = delay if events else 0.0
        self._idle = idle
        self._next = 0
        digest = hashlib.sha256(b"".join(self._chunks)).hexdigest()[:12]
        self.headers: Mapping[str, str] = {**reply.headers, "x-request-id": f"req-demo-{digest}"}

    async def read(self, limit: int) -> bytes:
        """See `transports.Exchange.read`."""
        body = b""
        while data := await self.chunk():
            body += data
            if len(body) > limit:
                raise BadResponseError(f"the answer is longer than {limit} bytes", status=self.status, sent="yes")
        return body

    async def chunk(self) -> bytes:
        """See `transports.Exchange.chunk`."""
        if self._next < 0:
            raise UsageError("this answer is closed; nothing more can be read from it", sent="yes")
        if self._idle is not None and self._delay > self._idle:
            await asyncio.sleep(self._idle)
            raise CallTimeoutError(f"no byte came for {self._idle:g} seconds (idle timeout)", sent="yes")
        await asyncio.sleep(self._delay)
        if self._next == len(self._chunks):
            return b""
        self._next += 1
        return self._chunks[self._next - 1]

    async def close(self) -> None:
        """See `transports.Exchange.close`."""
        self._next = -1


def _respond(outgoing: Outgoing) -> tuple[Reply, list[bytes]]:
    """The answer; for a stream its head, and its events apart."""
    room, path = dialect(_DIALECT), urlsplit(outgoing.url).path
    if outgoing.method == "GET" and path.endswith("/models"):
        return Reply(200, {"content-type": "application/json"}, encode_json(_MODELS)), []
    wire = Wire(path, outgoing.body, outgoing.headers, outgoing.method)
    try:
        if outgoing.method == "POST" and path.endswith("/embeddings"):
            return _embedded(wire), []
        if outgoing.method != "POST" or not path.endswith("/chat/completions"):
            raise NotFoundError(f"the demo does not know {outgoing.method} {path}", code="unknown_url", status=404)
        room.check_request(wire)
        response = msgspec.structs.replace(think(room.decode_request(wire, Endpoint())), extra=_EXTRA)
    except PolyvoxError as error:
        return room.encode_error(error), []
    asked = room.peek(wire)
    # What the dialect cannot say, such as which stop sequence it was, no server of it tells: the losses go unread.
    if not asked.stream:
        return room.encode_response(response, asked)[0], []
    writer = room.writer(asked)
    events = [said for event in as_words(response) if (said := writer.send(event))]
    return Reply(200, {"content-type": writer.content_type}, b""), events


def _embedded(wire: Wire) -> Reply:
    """The vectors that are asked for; raises errors that the dialect can say."""
    room = embeds(_DIALECT)
    assert room is not None
    request = room.decode_request(wire, Endpoint())
    embeddings = msgspec.structs.replace(embed(request), extra={room.name: _OFFLINE})
    # An answer tells no more than vectors and tokens here, so nothing is lost.
    return room.encode_response(embeddings, request)[0]
