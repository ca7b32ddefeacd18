"""On the way to the head of an answer: a server that is not there, does not speak, hangs up or is slow."""

import sys
import time

import pytest

from polyvox.testing.fault_server import FaultServer, FullBacklog, endless, fin, refused_port, rst, send, sleep, stall
from tests.faults.calls import AMPLE, CHAT, QUICK, SETTLED, begun, good

PART_OF_A_HEAD = send(b"HTTP/1.1 200 OK\r\nx-a: b\r\nx-")


# ---- no connection (1, 2, 7) ------------------------------------------------------------------


def test_a_refused_connection_is_tried_thrice_and_named_by_host_and_port(told, stream):
    port = refused_port()
    answer = told(f"http://127.0.0.1:{port}", stream=stream)
    answer.ended_in("connection", sent="no", tries=3, says=f"127.0.0.1:{port}: Connection refused")
    assert answer.error.retryable


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog drops packets on Linux only")
def test_a_connection_that_never_comes_ends_at_the_connect_limit_of_each_try_not_at_the_total(told, stream):
    began = time.monotonic()
    with FullBacklog() as port:
        answer = told(f"http://127.0.0.1:{port}", stream=stream, connect_timeout=0.1)
    answer.ended_in("timeout", sent="no", tries=3, says=f"connect: no connection to 127.0.0.1:{port} within 0.1 s")
    assert answer.error.retryable and 0.25 < time.monotonic() - began < AMPLE


def test_a_tls_handshake_that_stalls_ends_at_the_connect_limit(told, stream):
    with FaultServer(stall, read_requests=False) as server:
        answer = told(server.url.replace("http", "https"), stream=stream, connect_timeout=0.1)
        assert server.wait_for(lambda it: it.open_connections == 0)
        assert server.connections == 3
    answer.ended_in("timeout", sent="no", tries=3, says="connect: ")
    assert answer.error.retryable


# ---- a connection from the pool (9) -----------------------------------------------------------


def from_the_second_request(*script, stream):
    """A server that answers its first request and does this at its second; later ones get what was asked for."""
    scripts = iter([[good(CHAT, False)], script])

    async def step(connection):
        for each in next(scripts, [good(CHAT, stream)]):
            await each(connection)

    return step


def pooled(server, count=1):
    """Waits until so many connections are left open by calls that are over."""
    return lambda: server.wait_for(lambda it: it.open_connections == count)


@pytest.mark.parametrize("ending", [rst, fin])
def test_a_pooled_connection_lost_at_its_next_request_costs_one_try_on_a_fresh_one(told, serve, stream, ending):
    server = serve(from_the_second_request(ending, stream=stream))
    answer = told(server, stream=stream, warm=pooled(server))
    answer.ended_well("connection")
    assert answer.response.attempts[0].sent == "unknown"
    assert (server.connections, len(server.requests)) == (2, 4)  # the last is the client's further call


def test_a_pooled_connection_that_was_closed_meanwhile_costs_nothing(told, serve, stream):
    closing = from_the_second_request(good(CHAT, stream), stream=stream)
    server = serve(closing, fin)
    told(server, stream=stream, warm=pooled(server, 0)).ended_well()
    assert (server.connections, len(server.requests)) == (3, 3)


def test_a_pooled_connection_that_breaks_in_the_head_of_an_answer_is_no_answer(told, serve, stream):
    server = serve(from_the_second_request(PART_OF_A_HEAD, sleep(SETTLED), rst, stream=stream))
    told(server, stream=stream, warm=pooled(server)).ended_well("connection")


def test_nothing_is_asked_again_once_words_of_a_pooled_connection_were_seen(told, serve):
    server = serve(from_the_second_request(begun(CHAT), sleep(SETTLED), rst, stream=True))
    answer = told(server, stream=True, warm=pooled(server))
    answer.ended_in("stream_interrupted", sent="yes", text="Hello, ")
    assert len(server.requests) == 3


# ---- before the head (10, 11) -----------------------------------------------------------------


@pytest.mark.parametrize("script", [(rst,), (fin,), (PART_OF_A_HEAD, sleep(SETTLED), rst)], ids=["rst", "fin", "begun"])
def test_a_connection_lost_before_the_head_ended_is_tried_again_and_not_for_ever(told, serve, stream, script):
    server = serve(*script)
    answer = told(server, stream=stream)
    answer.ended_in("connection", sent="unknown", tries=3, says=f"127.0.0.1:{server.port}")
    assert answer.error.retryable and server.connections == 4  # the last is the client's further call
    server = serve(*script)
    told(server, stream=stream, retries=0).ended_in("connection", sent="unknown")


def test_a_head_that_does_not_come_ends_at_the_first_byte_limit_and_is_not_paid_twice(told, serve, stream):
    server = serve(stall)
    answer = told(server, stream=stream, first_byte_timeout=QUICK)
    answer.ended_in("timeout", sent="yes", says=f"first byte: no answer from 127.0.0.1:{server.port} within 0.2 s")
    assert len(server.requests) == 2  # the last is the client's further call


def test_a_head_that_drips_ends_at_the_first_byte_limit_too(told, serve, stream):
    server = serve(send(b"HTTP/1.1 200 OK\r\nx-a: "), endless(b"x", seconds=0.02))
    told(server, stream=stream, first_byte_timeout=QUICK).ended_in("timeout", sent="yes", says="first byte: ")
