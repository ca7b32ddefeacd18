"""The HTTP transport against a server that misbehaves on purpose: given these bytes on the wire, then this
answer or this one error, with an honest word on what was sent, and no connection left behind."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import gzip
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from polyvox.errors import (
    BadResponseError,
    CallTimeoutError,
    ConfigError,
    ConnectionFailedError,
    InputError,
    StreamInterruptedError,
    UsageError,
)
from polyvox.testing.fault_server import (
    FaultServer,
    FullBacklog,
    Step,
    answer,
    fin,
    half_close,
    refused_port,
    rst,
    send,
    sleep,
    stall,
    tunnel,
)
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.http import MAX_INFLATED, HttpExchange, HttpTransport

T = TypeVar("T")

KEY = "sk-very-secret"
SHORT = Timeouts(connect=0.3, first_byte=0.3, idle=0.3)
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
PROXY_NAMES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUEST_METHOD")


@pytest.fixture(autouse=True)
def no_proxy_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Runs a coroutine on each kind of loop: their sockets fail in different ways."""
    if request.param == "asyncio":
        return asyncio.run
    return pytest.importorskip("uvloop").run  # type: ignore[no-any-return]


def outgoing(url: str, body: bytes = b"{}", method: str = "POST", **headers: str) -> Outgoing:
    return Outgoing(method, url, {"Authorization": f"Bearer {KEY}", **headers}, body)


async def using(work: Callable[[HttpTransport], Awaitable[T]], **settings: Any) -> T:
    transport = HttpTransport(**settings)
    try:
        return await work(transport)
    finally:
        await transport.close()


async def fetch(url: str, timeouts: Timeouts = Timeouts(), limit: int = 1 << 20, **settings: Any) -> tuple[int, bytes]:
    async def work(transport: HttpTransport) -> tuple[int, bytes]:
        exchange = await transport.send(outgoing(url), timeouts)
        try:
            return exchange.status, await exchange.read(limit)
        finally:
            await exchange.close()

    return await using(work, **settings)


async def chunks(url: str, timeouts: Timeouts = SHORT) -> tuple[list[bytes], Exception | None]:
    """What a reader of the stream sees: the bytes it got, and the error that ended them."""
    seen: list[bytes] = []

    async def work(transport: HttpTransport) -> Exception | None:
        exchange = await transport.send(outgoing(url), timeouts)
        try:
            while data := await exchange.chunk():
                seen.append(data)
        except Exception as error:
            return error
        finally:
            await exchange.close()
        return None

    error = await using(work)
    return seen, error


# ---- what goes out and comes in ---------------------------------------------------------------


def test_a_call_sends_its_bytes_and_headers_and_reads_the_answer(run: Callable[[Any], Any]) -> None:
    async def work(transport: HttpTransport) -> tuple[HttpExchange, bytes]:
        exchange = await transport.send(outgoing(server.url + "v1/m%3A0?a=%2F", b'{"x":1}', **{"X-A": "b"}), Timeouts())
        return exchange, await exchange.read(100)

    with FaultServer(answer(b"hello", "X-Request-ID: r1", "Set-A: 1", "Set-A: 2", "X-Bad: \xff")) as server:
        exchange, body = run(using(work))
    head, _, sent = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/m%3A0?a=%2F HTTP/1.1"
    assert {b"Authorization: Bearer sk-very-secret", b"X-A: b", b"Content-Length: 7"} <= set(lines)
    assert {b"user-agent: polyvox", b"accept-encoding: gzip, deflate"} <= set(lines)
    assert (sent, body, exchange.status) == (b'{"x":1}', b"hello", 200)
    assert exchange.headers["x-request-id"] == "r1" and exchange.headers["set-a"] == "1, 2"
    "".join(exchange.headers.values()).encode()


def test_our_own_user_agent_gives_way_to_the_callers() -> None:
    async def work(transport: HttpTransport) -> None:
        headers = {"User-Agent": "mine", "Accept-Encoding": "identity"}
        await (await transport.send(Outgoing("GET", server.url, headers, b""), Timeouts())).read(10)

    with FaultServer(answer(b"")) as server:
        asyncio.run(using(work))
    head = server.requests[0].lower()
    assert head.count(b"user-agent:") == 1 and b"user-agent: mine" in head
    assert head.count(b"accept-encoding:") == 1 and b"accept-encoding: identity" in head


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_bodies_of_every_size_arrive_whole(size: int) -> None:
    body = os.urandom(size)

    async def work(transport: HttpTransport) -> None:
        await (await transport.send(outgoing(server.url, body), Timeouts())).read(10)

    with FaultServer(answer(b"")) as server:
        asyncio.run(using(work))
    head, _, sent = server.requests[0].partition(b"\r\n\r\n")
    assert sent == body and f"\r\ncontent-length: {size}" in head.decode().lower()


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_broken_connection_is_never_tried_again_by_this_layer(method: str) -> None:
    async def work(transport: HttpTransport) -> None:
        with pytest.raises(ConnectionFailedError):
            await transport.send(outgoing(server.url, b"", method), SHORT)

    with FaultServer(fin) as server:
        asyncio.run(using(work))
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_is_an_answer_and_is_not_followed(status: str) -> None:
    with FaultServer(answer(b"", "location: /elsewhere", status=status)) as server:
        assert asyncio.run(fetch(server.url)) == (int(status[:3]), b"")
        assert len(server.requests) == 1


def test_cookies_are_not_kept() -> None:
    async def work(transport: HttpTransport) -> None:
        for _ in range(2):
            await (await transport.send(outgoing(server.url), Timeouts())).read(10)

    with FaultServer(answer(b"x", "set-cookie: a=b")) as server:
        asyncio.run(using(work))
    assert b"ookie" not in server.requests[1]


def test_a_line_break_in_a_key_is_refused_without_showing_the_key() -> None:
    async def work(transport: HttpTransport) -> None:
        await transport.send(Outgoing("POST", server.url, {"authorization": f"Bearer {KEY}\n"}, b""), Timeouts())

    with FaultServer(answer(b"")) as server, pytest.raises(InputError) as caught:
        asyncio.run(using(work))
    assert caught.value.sent == "no" and caught.value.hint is not None
    assert KEY not in str(caught.value) and server.requests == []


# ---- before the head --------------------------------------------------------------------------


def test_a_refused_connection_says_where_and_that_nothing_was_sent(run: Callable[[Any], Any]) -> None:
    port = refused_port()
    with pytest.raises(ConnectionFailedError, match=rf"127\.0\.0\.1:{port}.*refused") as caught:
        run(fetch(f"http://127.0.0.1:{port}/"))
    assert caught.value.sent == "no" and caught.value.retryable and KEY not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog drops packets on Linux only")
def test_a_connection_that_never_comes_is_a_connect_timeout(run: Callable[[Any], Any]) -> None:
    with FullBacklog() as port, pytest.raises(CallTimeoutError, match=r"connect: .*0\.3 s") as caught:
        run(fetch(f"http://127.0.0.1:{port}/", Timeouts(connect=0.3, first_byte=30)))
    assert caught.value.sent == "no"


def test_a_name_that_cannot_be_resolved_is_a_dns_error() -> None:
    with pytest.raises(ConnectionFailedError, match=r"^DNS: .*nowhere\.invalid:443") as caught:
        asyncio.run(fetch("https://nowhere.invalid/"))
    assert caught.value.sent == "no"


def test_a_stalled_head_is_a_first_byte_timeout_counted_from_the_sending(run: Callable[[Any], Any]) -> None:
    began = time.monotonic()
    with (
        FaultServer(stall) as server,
        pytest.raises(CallTimeoutError, match=r"first byte: .*0\.3 s") as caught,
    ):
        run(fetch(server.url, Timeouts(connect=5, first_byte=0.3)))
    assert caught.value.sent == "yes" and 0.25 < time.monotonic() - began < 2


def test_an_upload_nobody_reads_is_a_first_byte_timeout_and_leaves_no_connection(run: Callable[[Any], Any]) -> None:
    async def work(transport: HttpTransport) -> None:
        with pytest.raises(CallTimeoutError, match="first byte"):
            await transport.send(outgoing(server.url, bytes(24 << 20)), Timeouts(first_byte=0.3))
        await asyncio.sleep(0.05)
        assert sockets_to(server.port) == 0

    with FaultServer(sleep(5), read_requests=False, receive_buffer=4096) as server:
        run(using(work))


def test_a_slow_answer_within_the_limit_is_no_timeout_although_connect_has_a_shorter_one() -> None:
    with FaultServer(sleep(0.4), answer(b"late")) as server:
        assert asyncio.run(fetch(server.url, Timeouts(connect=0.1, first_byte=5))) == (200, b"late")


def test_no_limits_means_none() -> None:
    with FaultServer(sleep(0.1), send(CHUNKED), sleep(0.1), send(b"1\r\nx\r\n0\r\n\r\n")) as server:
        assert asyncio.run(fetch(server.url, Timeouts(None, None, None))) == (200, b"x")


@pytest.mark.parametrize(
    ("script", "sent"),
    [((rst,), "unknown"), ((fin,), "unknown"), ((send(b"HTTP/1.1 200 O"), rst), "unknown")],
    ids=["reset", "closed", "reset inside the head"],
)
def test_a_connection_lost_before_the_head_ended(
    script: tuple[Step, ...], sent: str, run: Callable[[Any], Any]
) -> None:
    with FaultServer(*script) as server, pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1") as caught:
        run(fetch(server.url))
    assert caught.value.sent == sent and caught.value.retryable


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"<html>not found</html>",
        b"HTTP/1.1 200 OK\r\nx-big: " + b"a" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ],
    ids=["ssh", "html", "giant header", "5000 headers", "bad length", "two lengths"],
)
def test_a_head_that_is_not_http_or_too_large_is_a_bad_response(head: bytes) -> None:
    with FaultServer(send(head), stall) as server:
        with pytest.raises(BadResponseError) as caught:
            asyncio.run(fetch(server.url, SHORT))
        assert caught.value.sent == "yes"
        assert server.wait_for(lambda server: server.open_connections == 0)


def test_an_informational_answer_before_the_real_one_is_passed_over() -> None:
    with FaultServer(send(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"), answer(b"real")) as server:
        assert asyncio.run(fetch(server.url)) == (200, b"real")


# ---- in the body ------------------------------------------------------------------------------

PARTS = send(CHUNKED + b"3\r\nabc\r\n")


@pytest.mark.parametrize(
    "script",
    [
        (PARTS, sleep(0.05), rst),
        (PARTS, sleep(0.05), fin),
        (PARTS, sleep(0.05), half_close),
        (PARTS, sleep(0.05), send(b"zz\r\n"), stall),
        (send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), sleep(0.05), fin),
        (send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), sleep(0.05), rst),
        (send(b"HTTP/1.1 200 OK\r\n\r\nabc"), sleep(0.05), rst),
    ],
    ids=["reset", "no last chunk", "half closed", "bad chunk size", "short", "short reset", "until eof, reset"],
)
def test_a_body_that_breaks_off_gives_what_came_and_then_an_interruption(
    script: tuple[Step, ...], run: Callable[[Any], Any]
) -> None:
    with FaultServer(*script) as server:
        seen, error = run(chunks(server.url, Timeouts()))
        assert b"".join(seen) == b"abc"
        assert isinstance(error, StreamInterruptedError) and error.sent == "yes" and error.retryable
        with pytest.raises(StreamInterruptedError):
            run(fetch(server.url))
        assert server.wait_for(lambda server: server.open_connections == 0)


def test_bytes_that_came_together_with_the_reset_are_not_lost() -> None:
    async def work(transport: HttpTransport) -> None:
        exchange = await transport.send(outgoing(server.url), SHORT)
        assert await exchange.chunk() == b"abc"
        await asyncio.sleep(0.2)
        assert await exchange.chunk() == b"de"
        for _ in range(2):
            with pytest.raises(StreamInterruptedError):
                await exchange.chunk()

    with FaultServer(PARTS, sleep(0.1), send(b"2\r\nde\r\n"), rst) as server:
        asyncio.run(using(work))


def test_a_body_that_ends_with_the_connection_is_whole_when_that_ends_well(run: Callable[[Any], Any]) -> None:
    with FaultServer(send(b"HTTP/1.1 200 OK\r\n\r\nabc"), sleep(0.05), send(b"def"), fin) as server:
        assert run(fetch(server.url)) == (200, b"abcdef")


def test_a_stall_in_the_body_is_an_idle_timeout(run: Callable[[Any], Any]) -> None:
    with FaultServer(PARTS, stall) as server:
        seen, error = run(chunks(server.url, Timeouts(idle=0.2)))
        assert seen == [b"abc"]
        assert isinstance(error, CallTimeoutError) and "idle" in error.message and error.sent == "yes"
        assert server.wait_for(lambda server: server.open_connections == 0)


def test_the_idle_limit_starts_anew_with_every_chunk_and_not_while_nobody_reads() -> None:
    async def work(transport: HttpTransport) -> bytes:
        exchange = await transport.send(outgoing(server.url), SHORT)
        seen = await exchange.chunk()
        await asyncio.sleep(0.5)
        while data := await exchange.chunk():
            seen += data
        return seen

    tick = (sleep(0.15), send(b"1\r\nx\r\n"))
    with FaultServer(send(CHUNKED), *tick * 6, send(b"0\r\n\r\n")) as server:
        assert asyncio.run(using(work)) == b"xxxxxx"


def test_a_body_beyond_the_limit_is_refused_and_the_connection_cut() -> None:
    with FaultServer(answer(b"x" * 1000)) as server:
        assert asyncio.run(fetch(server.url, limit=1000))[1] == b"x" * 1000
        with pytest.raises(BadResponseError, match="larger than 999 bytes"):
            asyncio.run(fetch(server.url, limit=999))
    with FaultServer(send(CHUNKED + b"10000\r\n" + b"x" * 65536 + b"\r\n"), stall) as server:
        with pytest.raises(BadResponseError, match="larger"):
            asyncio.run(fetch(server.url, limit=60000))
        assert server.wait_for(lambda server: server.open_connections == 0)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("gzip", gzip.compress(b"hello " * 1000)),
        ("GZIP", gzip.compress(b"hello " * 400) + gzip.compress(b"hello " * 600) + b"\0\0"),
        ("deflate", zlib.compress(b"hello " * 1000)),
        ("deflate", zlib.compress(b"hello " * 1000)[2:-4]),
        ("identity", b"hello " * 1000),
    ],
    ids=["gzip", "two members and padding", "deflate", "bare deflate", "identity"],
)
def test_a_compressed_body_is_decoded_in_one_piece_or_byte_by_byte(name: str, body: bytes) -> None:
    with FaultServer(answer(body, f"content-encoding: {name}")) as server:
        assert asyncio.run(fetch(server.url)) == (200, b"hello " * 1000)
    single = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    head = CHUNKED[:-2] + f"content-encoding: {name}\r\n\r\n".encode()
    with FaultServer(send(head + single + b"0\r\n\r\n")) as server:
        assert asyncio.run(fetch(server.url)) == (200, b"hello " * 1000)


@pytest.mark.parametrize("cut", [1, 8, 12])
def test_gzip_data_cut_short_is_an_interruption_even_when_http_is_content(cut: int) -> None:
    with FaultServer(answer(gzip.compress(b"hello " * 1000)[:-cut], "content-encoding: gzip")) as server:
        with pytest.raises(StreamInterruptedError, match="gzip"):
            asyncio.run(fetch(server.url))


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "rot13"])
def test_data_that_is_not_what_its_encoding_says_is_a_bad_response(name: str) -> None:
    with FaultServer(answer(b"plain text, honestly", f"content-encoding: {name}")) as server:
        with pytest.raises(BadResponseError, match=name):
            asyncio.run(fetch(server.url))


def test_a_compressed_bomb_is_stopped_at_the_limit_and_comes_in_bounded_pieces() -> None:
    async def work(transport: HttpTransport) -> list[int]:
        exchange = await transport.send(outgoing(server.url), Timeouts())
        sizes = [len(await exchange.chunk()) for _ in range(20)]
        await exchange.close()
        return sizes

    with FaultServer(answer(gzip.compress(bytes(64 << 20)), "content-encoding: gzip")) as server:
        with pytest.raises(BadResponseError, match="larger"):
            asyncio.run(fetch(server.url, limit=1 << 20))
        assert max(asyncio.run(using(work))) <= MAX_INFLATED


# ---- where to ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["http://example.com/", "http://10.0.0.1:80/", "http://128.0.0.1/", "http://localhost.io/"]
)
def test_plain_http_to_another_machine_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(InputError, match="unencrypted") as caught:
        asyncio.run(fetch(url))
    assert caught.value.hint is not None and "https" in caught.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3"])
def test_plain_http_to_this_machine_is_fine(host: str) -> None:
    with FaultServer(answer(b"here")) as server:
        if host == "127.1.2.3" and sys.platform != "linux":
            pytest.skip("only Linux listens on all of 127/8")
        target = server.url.replace("127.0.0.1", host)
        if host == "127.1.2.3":
            with pytest.raises(ConnectionFailedError):
                asyncio.run(fetch(target))
        else:
            assert asyncio.run(fetch(target)) == (200, b"here")


@pytest.mark.parametrize(
    "url",
    ["", "example.com/v1", "ftp://example.com/", "https:///v1", "https://exa mple.com/", "https://bücher.example/",
     "https://example.com/a b", "https://example.com:0/", "https://example.com:99999/", "https://[::1/", "https://a\r\nb/"],
)  # fmt: skip
def test_what_is_not_a_callable_url_is_refused(url: str) -> None:
    with pytest.raises(InputError) as caught:
        asyncio.run(fetch(url))
    assert caught.value.sent == "no"


def test_a_password_in_a_url_is_never_shown() -> None:
    with pytest.raises(InputError) as caught:
        asyncio.run(fetch("ftp://me:hunter2@example.com/?key=hunter3"))
    assert "hunter" not in str(caught.value)
    with pytest.raises(ConfigError) as refused:
        HttpTransport(proxy="socks5://me:hunter2@example.com:1080")
    assert "hunter" not in str(refused.value) and "SOCKS" in str(refused.value)


def test_the_proxy_of_the_environment_carries_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(answer(b"by proxy")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//me:pass@"))
        assert asyncio.run(fetch("http://models.example:8080/v1", allow_http=True)) == (200, b"by proxy")
    assert proxy.requests[0].startswith(b"POST http://models.example:8080/v1 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6cGFzcw==" in proxy.requests[0]


def test_the_lower_case_name_wins_and_under_cgi_the_upper_case_one_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FaultServer(answer(b"lower")) as lower:
        monkeypatch.setenv("http_proxy", lower.url)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
        assert asyncio.run(fetch("http://models.invalid/", allow_http=True)) == (200, b"lower")
        monkeypatch.delenv("http_proxy")
        monkeypatch.setenv("REQUEST_METHOD", "GET")
        with pytest.raises(ConnectionFailedError, match="DNS"):
            asyncio.run(fetch("http://models.invalid/", allow_http=True))


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("models.invalid", True), (".invalid", True), ("invalid", True), ("*.invalid", True), ("*", True),
        ("other, MODELS.INVALID ", True), ("models.invalid:80", True), ("models.invalid:81", False),
        ("odels.invalid", False), ("", False), (",", False), ("10.0.0.0/8", False),
    ],
)  # fmt: skip
def test_no_proxy_excepts_hosts(no_proxy: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(answer(b"by proxy")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        if direct:
            with pytest.raises(ConnectionFailedError, match="DNS"):
                asyncio.run(fetch("http://models.invalid/", allow_http=True))
        else:
            assert asyncio.run(fetch("http://models.invalid/", allow_http=True)) == (200, b"by proxy")
        assert bool(proxy.requests) is not direct


@pytest.mark.parametrize(("no_proxy", "direct"), [("192.0.2.0/24", True), ("192.0.2.7", True), ("192.0.3.0/24", False)])
def test_no_proxy_excepts_networks(no_proxy: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(answer(b"by proxy")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        try:
            asyncio.run(fetch("http://192.0.2.7/", Timeouts(connect=0.1), allow_http=True))
        except (CallTimeoutError, ConnectionFailedError):
            pass
        assert bool(proxy.requests) is not direct


def test_loopback_is_never_proxied_whoever_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{refused_port()}/")
    with FaultServer(answer(b"direct")) as server:
        assert asyncio.run(fetch(server.url)) == (200, b"direct")
        assert asyncio.run(fetch(server.url, proxy=f"http://127.0.0.1:{refused_port()}/")) == (200, b"direct")


def test_an_empty_proxy_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(answer(b"by proxy")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(ConnectionFailedError, match="DNS"):
            asyncio.run(fetch("https://models.invalid/", proxy=""))
    assert proxy.requests == []


def test_a_proxy_that_refuses_a_tunnel_or_is_not_there_is_named_without_its_password() -> None:
    with FaultServer(answer(b"", status="407 Proxy Authentication Required")) as proxy:
        named = rf"models\.invalid:443 .*127\.0\.0\.1:{proxy.port}.* 407"
        with pytest.raises(ConnectionFailedError, match=named) as caught:
            asyncio.run(fetch("https://models.invalid/", proxy=proxy.url.replace("//", "//me:hunter2@")))
    assert not caught.value.retryable and caught.value.sent == "no" and "hunter" not in str(caught.value)
    assert KEY.encode() not in b"".join(proxy.requests)
    with pytest.raises(ConnectionFailedError, match="refused") as caught:
        asyncio.run(fetch("https://models.invalid/", proxy=f"http://me:hunter2@127.0.0.1:{refused_port()}"))
    assert "hunter" not in str(caught.value)


# ---- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh self-signed certificate for localhost and 127.0.0.1, with its key in one file."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.DNSName("models.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_server_is_trusted_by_the_given_bundle_only(certificate: Path, run: Callable[[Any], Any]) -> None:
    with FaultServer(answer(b"secret"), tls=server_context(certificate)) as server:
        assert run(fetch(server.url, ca_bundle=certificate)) == (200, b"secret")
        with pytest.raises(ConnectionFailedError, match=rf"TLS with 127.0.0.1:{server.port} .*certificate") as caught:
            run(fetch(server.url))
    assert not caught.value.retryable and caught.value.sent == "no"
    assert caught.value.hint is not None and "ca_bundle" in caught.value.hint


def test_a_server_that_does_not_speak_tls_is_a_tls_error() -> None:
    with FaultServer(send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), fin, read_requests=False) as server:
        with pytest.raises(ConnectionFailedError, match="TLS") as caught:
            asyncio.run(fetch(server.url.replace("http", "https")))
    assert not caught.value.retryable


def test_a_bundle_that_is_not_there_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        asyncio.run(fetch("https://127.0.0.1:9/", ca_bundle=tmp_path / "missing.pem"))


def test_an_https_call_goes_through_the_proxys_tunnel_and_the_proxy_sees_no_key(certificate: Path) -> None:
    with FaultServer(answer(b"deep"), tls=server_context(certificate)) as server:
        with FaultServer(tunnel("127.0.0.1", server.port)) as proxy:
            got = asyncio.run(fetch("https://models.test:444/", ca_bundle=certificate, proxy=proxy.url))
    assert got == (200, b"deep")
    assert proxy.requests[0].startswith(b"CONNECT models.test:444 HTTP/1.1\r\n")
    assert KEY.encode() not in proxy.requests[0] and KEY.encode() in server.requests[0]


# ---- connections ------------------------------------------------------------------------------


def sockets_to(port: int) -> int:
    """How many sockets of this process are connected to a port of this machine."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as copy:
                count += copy.getpeername()[1] == port
        except (OSError, IndexError, TypeError):
            continue
    return count


def test_twenty_calls_in_turn_share_one_connection(run: Callable[[Any], Any]) -> None:
    async def work(transport: HttpTransport) -> None:
        for turn in range(20):
            exchange = await transport.send(outgoing(server.url), Timeouts())
            if turn % 2:
                await exchange.read(10)
            await exchange.close()

    with FaultServer(answer(b"x")) as server:
        run(using(work))
        assert (server.connections, len(server.requests)) == (1, 20)


@pytest.mark.parametrize("size", [1, 3])
def test_calls_beyond_the_pool_wait_and_their_wait_is_no_connect_timeout(size: int) -> None:
    async def work(transport: HttpTransport) -> list[bytes]:
        async def one() -> bytes:
            return await (await transport.send(outgoing(server.url), Timeouts(connect=0.15))).read(10)

        return await asyncio.gather(*(one() for _ in range(size * 4)))

    with FaultServer(sleep(0.1), answer(b"x")) as server:
        assert asyncio.run(using(work, pool_size=size)) == [b"x"] * (size * 4)
        assert server.connections == size


def test_failed_dropped_and_cancelled_calls_give_their_place_in_the_pool_back() -> None:
    async def work(transport: HttpTransport) -> None:
        with pytest.raises(ConnectionFailedError):
            await transport.send(outgoing(f"http://127.0.0.1:{refused_port()}/"), SHORT)
        with pytest.raises(BadResponseError):
            await (await transport.send(outgoing(server.url), SHORT)).read(1)
        await transport.send(outgoing(server.url), SHORT)
        gc.collect()
        task = asyncio.create_task(transport.send(outgoing(quiet.url), Timeouts()))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(2):
            assert await (await transport.send(outgoing(server.url), SHORT)).read(10) == b"xyz"

    with FaultServer(answer(b"xyz")) as server, FaultServer(stall) as quiet:
        asyncio.run(using(work, pool_size=1))


def test_closing_keeps_the_connection_when_the_end_is_at_hand_and_cuts_it_otherwise() -> None:
    async def work(transport: HttpTransport) -> None:
        for _ in range(3):
            exchange = await transport.send(outgoing(server.url), Timeouts())
            assert await exchange.chunk() == b"abc"
            began = time.monotonic()
            await exchange.close()
            assert time.monotonic() - began < 0.2
            with pytest.raises(UsageError):
                await exchange.chunk()

    with FaultServer(PARTS, sleep(0.02), send(b"0\r\n\r\n")) as server:
        asyncio.run(using(work))
        assert server.connections == 1
    with FaultServer(PARTS, sleep(0.3), send(b"0\r\n\r\n")) as server:
        asyncio.run(using(work))
        assert server.connections == 3
    flood = send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
    with FaultServer(PARTS, sleep(0.01), flood, flood, flood, stall) as server:
        asyncio.run(using(work))
        assert server.connections == 3


@pytest.mark.parametrize("script", [(stall,), (PARTS, stall)], ids=["before the head", "in the body"])
def test_cancelling_reaches_the_server_within_a_second(script: tuple[Step, ...], run: Callable[[Any], Any]) -> None:
    async def work(transport: HttpTransport) -> None:
        async def call() -> None:
            exchange = await transport.send(outgoing(server.url), Timeouts())
            await exchange.read(100)

        task = asyncio.create_task(call())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.wait_for, lambda server: server.open_connections == 0, 1.0)

    with FaultServer(*script) as server:
        run(using(work))


def test_a_callers_own_timeout_stays_the_callers() -> None:
    async def work(transport: HttpTransport) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await transport.send(outgoing(server.url), Timeouts(first_byte=5))
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        with pytest.raises(CallTimeoutError):
            await transport.send(outgoing(server.url), SHORT)
        assert task.cancelling() == 0

    with FaultServer(stall) as server:
        asyncio.run(using(work))


def test_one_transport_serves_two_event_loops_in_turn_and_leaves_nothing_open(run: Callable[[Any], Any]) -> None:
    transport = HttpTransport()

    async def call() -> bytes:
        return await (await transport.send(outgoing(server.url), Timeouts())).read(10)

    with FaultServer(answer(b"x")) as server:
        assert [run(call()), run(call())] == [b"x", b"x"]
        assert server.connections == 2
        assert server.wait_for(lambda server: server.open_connections == 0)
    run(transport.close())
    gc.collect()


def test_a_transport_nobody_closed_is_closed_by_the_end_of_its_loop() -> None:
    async def call() -> bytes:
        return await (await HttpTransport().send(outgoing(server.url), Timeouts())).read(10)

    with FaultServer(answer(b"x")) as server:
        assert asyncio.run(call()) == b"x"
        gc.collect()
        assert server.wait_for(lambda server: server.open_connections == 0)


def test_closing_from_another_loop_closes_the_connections_of_the_first() -> None:
    transport = HttpTransport()

    async def call() -> None:
        await (await transport.send(outgoing(server.url), Timeouts())).read(10)
        await asyncio.to_thread(asyncio.run, transport.close())
        assert await asyncio.to_thread(server.wait_for, lambda server: server.open_connections == 0)
        with pytest.raises(UsageError, match="closed"):
            await transport.send(outgoing(server.url), Timeouts())

    with FaultServer(answer(b"x")) as server:
        asyncio.run(call())


def test_sockets_send_at_once_and_probe_a_silent_peer() -> None:
    async def work(transport: HttpTransport) -> None:
        exchange = await transport.send(outgoing(server.url), Timeouts())
        connection = exchange._reply.connection
        assert connection is not None and connection.transport is not None
        raw = connection.transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        await exchange.close()

    with FaultServer(PARTS, stall) as server:
        asyncio.run(using(work))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_two_hundred_transports_leave_as_many_descriptors_as_there_were(run: Callable[[Any], Any]) -> None:
    def count() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    async def work() -> tuple[int, int]:
        await fetch(server.url)
        before = count()
        for _ in range(200):
            await fetch(server.url)
        await asyncio.sleep(0.2)
        return before, count()

    with FaultServer(answer(b"x")) as server:
        before, after = run(work())
    assert after <= before


FORK = """
import asyncio, os, sys
from polyvox.portal import run
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.http import HttpTransport
transport = HttpTransport()
request = Outgoing("POST", sys.argv[1], {}, b"{}")
async def call():
    return await (await transport.send(request, Timeouts())).read(10)
assert run(call()) == b"x"
child = os.fork()
if child == 0:
    assert run(call()) == b"x" and run(call()) == b"x"
    run(transport.close())
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert run(call()) == b"x" and run(call()) == b"x"
run(transport.close())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("standard", [False, True], ids=["uvloop if there is one", "asyncio"])
def test_a_forked_child_opens_its_own_connection_and_the_parents_lives_on(standard: bool) -> None:
    prefix = "import sys; sys.modules['uvloop'] = None\n" if standard else ""
    with FaultServer(answer(b"x")) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", prefix + FORK, server.url],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert (server.connections, len(server.requests)) == (2, 5)


def test_importing_the_module_loads_no_http_library() -> None:
    code = "import sys, polyvox.transports.http; print({'aiohttp', 'yarl', 'multidict'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "set()\n"
