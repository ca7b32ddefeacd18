"""A TCP server that does exactly what a script says, byte by byte, so that a test can name one fault and
see what the transport makes of it. It knows of HTTP only where a request ends."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Self, TypeAlias


class Connection:
    """One accepted connection, as the steps of a script see it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.over = False


Step: TypeAlias = Callable[[Connection], Awaitable[None]]
"""One thing to do on a connection. A script is a list of them, run once for each request that comes."""


def send(data: bytes) -> Step:
    """Write these bytes and wait until they have left."""

    async def step(connection: Connection) -> None:
        connection.writer.write(data)
        await connection.writer.drain()

    return step


def sleep(seconds: float) -> Step:
    """Do nothing for a while, with the connection open."""

    async def step(_: Connection) -> None:
        await asyncio.sleep(seconds)

    return step


def drip(data: bytes, seconds: float, size: int = 1) -> Step:
    """Write so many bytes at a time, with a pause after each."""

    async def step(connection: Connection) -> None:
        for at in range(0, len(data), size):
            connection.writer.write(data[at : at + size])
            await connection.writer.drain()
            await asyncio.sleep(seconds)

    return step


def endless(data: bytes, seconds: float = 0.0) -> Step:
    """Write the same bytes again and again, with a pause after each, until the other side goes away."""

    async def step(connection: Connection) -> None:
        while True:
            connection.writer.write(data)
            await connection.writer.drain()
            await asyncio.sleep(seconds)

    return step


async def stall(connection: Connection) -> None:
    """Do nothing until the other side goes away."""
    while await connection.reader.read(65536):
        pass
    connection.over = True


async def rst(connection: Connection) -> None:
    """Break the connection with a TCP reset."""
    raw = connection.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.writer.transport.abort()
    connection.over = True


async def fin(connection: Connection) -> None:
    """Close the connection in good order, whatever had been promised on it."""
    connection.writer.close()
    connection.over = True


async def half_close(connection: Connection) -> None:
    """End our side only, and wait for the other."""
    connection.writer.write_eof()
    await stall(connection)


def tunnel(host: str, port: int) -> Step:
    """Be a CONNECT proxy from here on: agree, then carry bytes both ways."""

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()

    async def step(connection: Connection) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        connection.writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(carry(connection.reader, writer), carry(reader, connection.writer))
        finally:
            writer.close()
        connection.over = True

    return step


def answer(body: bytes, *headers: str, status: str = "200 OK") -> Step:
    """Write one whole answer with its right length."""
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return send("\r\n".join(head).encode() + body)


class FaultServer:
    """Runs a script for every request on 127.0.0.1, in a thread of its own; use it as a context manager.

    Attributes:
        requests: the raw bytes of every request read, in order of arrival.
        connections: how many connections were accepted.
        read_requests: False to run the script as soon as a connection is there.
    """

    def __init__(
        self, *script: Step, tls: ssl.SSLContext | None = None, read_requests: bool = True, receive_buffer: int = 0
    ) -> None:
        self.script: Sequence[Step] = script
        self.requests: list[bytes] = []
        self.connections: int = 0
        self.read_requests = read_requests
        self._tls = tls
        self._receive_buffer = receive_buffer
        self._open = 0
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self.port: int = 0

    @property
    def url(self) -> str:
        """Where it listens, with a slash at the end."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def wait_for(self, condition: Callable[[FaultServer], bool], seconds: float = 2.0) -> bool:
        """Whether something about this server became true within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self), seconds)

    @property
    def open_connections(self) -> int:
        """How many connections are open now, as far as this side knows."""
        return self._open

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        # asyncio sends small pieces at once only where the socket says that it is TCP.
        listener = socket.socket(proto=socket.IPPROTO_TCP)
        if self._receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, sock=listener, ssl=self._tls, backlog=256)
        )
        self._ready.set()
        self._loop.run_forever()
        # What is still being accepted must be there before the server closes, or nobody would close it.
        self._loop.run_until_complete(asyncio.sleep(0.02))
        server.close()
        for task, writer in self._tasks.items():
            task.cancel()
            writer.transport.abort()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = writer
        self._count(opened=1)
        connection = Connection(reader, writer)
        try:
            while not connection.over:
                if self.read_requests and not await self._request(reader):
                    break
                for step in self.script:
                    await step(connection)
                connection.over = connection.over or not self.read_requests
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            del self._tasks[task]
            self._count(opened=-1)

    async def _request(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
        except asyncio.IncompleteReadError:
            return b""
        with self._changed:
            self.requests.append(head + body)
            self._changed.notify_all()
        return head + body

    def _count(self, opened: int) -> None:
        with self._changed:
            self._open += opened
            self.connections += opened > 0
            self._changed.notify_all()


def refused_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class FullBacklog:
    """A listener that accepts nobody and whose queue is full: connecting to it hangs."""

    def __enter__(self) -> int:
        self._sockets = [socket.socket()]
        self._sockets[0].bind(("127.0.0.1", 0))
        self._sockets[0].listen(0)
        port: int = self._sockets[0].getsockname()[1]
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            self._sockets.append(filler)
        time.sleep(0.05)
        return port

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.close()
