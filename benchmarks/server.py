"""A provider that costs next to nothing: pre-rendered chat answers and streams over a bare asyncio protocol.
It reads of a request only its length, whether it asks to stream, and whether to take its time."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import cast

CHUNKS = 200
"""Pieces of text in a stream."""
PACE = 0.005
"""Seconds between the chunks of a paced stream."""
ANSWER = ("The quick brown fox jumps over the lazy dog and back again. " * 8)[:400]
"""The text of a whole answer; the JSON around it brings the body to about 1 KB."""
PIECE = " word"
"""The text of one chunk of a stream."""

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_USAGE = re.compile(rb'"include_usage"\s*:\s*true')

# About as many headers, of about the sizes, as hosted services send.
_HEADERS = b"".join(
    name + b": " + value + b"\r\n"
    for name, value in (
        (b"date", b"Sat, 21 Nov 2026 10:00:00 GMT"),
        (b"connection", b"keep-alive"),
        (b"server", b"bench"),
        (b"access-control-expose-headers", b"X-Request-ID"),
        (b"x-processing-ms", b"412"),
        (b"x-request-id", b"req_0123456789abcdef0123456789abcdef"),
        (b"x-ratelimit-limit-requests", b"10000"),
        (b"x-ratelimit-limit-tokens", b"2000000"),
        (b"x-ratelimit-remaining-requests", b"9999"),
        (b"x-ratelimit-remaining-tokens", b"1999975"),
        (b"x-ratelimit-reset-requests", b"6ms"),
        (b"x-ratelimit-reset-tokens", b"0s"),
        (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
        (b"x-content-type-options", b"nosniff"),
    )
)

_USED = {
    "prompt_tokens": 9,
    "completion_tokens": 200,
    "total_tokens": 209,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _plain() -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": ANSWER, "refusal": None, "annotations": []}
    body = _dump({
        "id": "chatcmpl-B0123456789abcdefghijklmnop",
        "object": "chat.completion",
        "created": 1795255200,
        "model": "bench",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _USED,
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    })  # fmt: skip
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(body)
    return head + _HEADERS + b"\r\n" + body


def _events(usage: bool) -> list[bytes]:
    """The stream as HTTP chunks, one an event: as many pieces of text as CHUNKS, then how it ended."""
    base = {
        "id": "chatcmpl-B0123456789abcdefghijklmnop",
        "object": "chat.completion.chunk",
        "created": 1795255200,
        "model": "bench",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }
    first = {"role": "assistant", "content": PIECE, "refusal": None}
    deltas = [first, *({"content": PIECE} for _ in range(CHUNKS - 1))]
    found = [
        {**base, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]} for delta in deltas
    ]
    found.append({**base, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]})
    if usage:
        found.append({**base, "choices": [], "usage": _USED})
    lines = [b"data: " + _dump(event) + b"\n\n" for event in found] + [b"data: [DONE]\n\n"]
    return [b"%x\r\n" % len(line) + line + b"\r\n" for line in lines]


PLAIN = _plain()
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
    + _HEADERS
    + b"\r\n"
)
END = b"0\r\n\r\n"
EVENTS = {usage: _events(usage) for usage in (False, True)}
BURST = {usage: STREAM_HEAD + b"".join(events) + END for usage, events in EVENTS.items()}


class Provider(asyncio.Protocol):
    """One connection, kept alive for as long as the client likes."""

    def __init__(self) -> None:
        self.buffer = b""
        self.transport: asyncio.Transport | None = None
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = _LENGTH.search(head)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < total:
                return
            body, self.buffer = self.buffer[end + 4 : total], self.buffer[total:]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        """Write the answer the request asks for."""
        if self.transport is None:
            return
        if not _STREAM.search(body):
            self.transport.write(PLAIN)
            return
        usage = _USAGE.search(body) is not None
        if b"/paced/" in head[: head.find(b"\r\n")] or b"\r\nx-pace:" in head.lower():
            self.transport.write(STREAM_HEAD)
            self.pace(EVENTS[usage], 0)
        else:
            self.transport.write(BURST[usage])

    def pace(self, events: list[bytes], place: int) -> None:
        """Write one event, and the next one a little later."""
        if self.transport is None:
            return
        if place == len(events):
            self.transport.write(END)
            return
        self.transport.write(events[place])
        self.loop.call_later(PACE, self.pace, events, place + 1)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes an event loop: uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def main() -> None:
    """Serve on a free port, printed first, until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server")
    parser.add_argument("--cpu", type=int, help="the CPU to stay on")
    cpu = parser.parse_args().cpu
    if cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(_serve())


if __name__ == "__main__":
    main()
