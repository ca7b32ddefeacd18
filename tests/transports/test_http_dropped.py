"""A transport that nobody closes and nobody holds: its connections are closed and not a word is said, in whatever order
the collector comes to its parts and in whatever thread it runs."""

import asyncio
import gc
import warnings

import pytest

from polyvox.testing.fault_server import FaultServer, answer, send, stall
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.http import HttpExchange, HttpTransport

BEGUN = send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"), stall


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine on each kind of loop."""
    return asyncio.run if request.param == "asyncio" else pytest.importorskip("uvloop").run


@pytest.fixture
def said():
    """What is warned of, and what a loop hears of in the test's own handler."""
    gc.collect()  # what others left is theirs
    heard = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: heard.append(str(message))
        yield heard


async def let_go(server, said, read):
    """A transport that only a ring holds, with an answer from it. Collections that it outlived have turned its parts
    about: the collector comes to the session before it comes to the connector."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
    transport = HttpTransport()
    exchange = await transport.send(Outgoing("POST", server.url, {}, b"{}"), Timeouts())
    ring = [transport, exchange]
    ring.append(ring)
    assert await read(exchange) in (b"x", b"abc")
    for _ in range(4):
        gc.collect()


def whole(exchange):
    return exchange.read(10)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in its thread", "in another thread"])
@pytest.mark.parametrize(
    ("script", "read"), [([answer(b"x")], whole), (BEGUN, HttpExchange.chunk)], ids=["answered", "amid an answer"]
)
def test_in_a_ring_it_is_closed_without_a_word_while_its_loop_goes_on(run, said, script, read, elsewhere):
    async def work():
        await let_go(server, said, read)
        if elsewhere:
            await asyncio.to_thread(gc.collect)
        else:
            gc.collect()
        assert await asyncio.to_thread(server.wait_for, lambda it: it.connections == 1 and it.open_connections == 0)

    with FaultServer(*script) as server:
        run(work())
    gc.collect()
    assert said == []


def test_in_a_ring_that_outlives_its_loop_it_goes_without_a_word(run, said):
    async def work():
        await let_go(server, said, whole)

    with FaultServer(answer(b"x")) as server:
        run(work())
        gc.collect()
        assert server.wait_for(lambda it: it.connections == 1 and it.open_connections == 0)
    assert said == []
