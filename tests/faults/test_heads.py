"""The head of an answer is too large, malformed, or comes after others: it is read or refused, within bounds."""

import pytest

from polyvox.testing.fault_server import endless, send, sleep, stall
from tests.faults.calls import BODIES, CHAT, MEBI, OK, QUICK, WHOLE, good, peak_of


def headed(fields, stream):
    """A good answer with these bytes among the fields of its head."""
    body = (BODIES if stream else WHOLE)[CHAT]
    return send(OK + fields + b"content-length: %d\r\n\r\n" % len(body) + body)


# ---- bombs (12) -------------------------------------------------------------------------------

BAD_FIELDS = {
    "a header of 1 MiB": b"x-big: " + b"a" * MEBI + b"\r\n",
    "10 000 headers": b"a: b\r\n" * 10_000,
    "no colon": b"nonsense\r\n",
    "a NUL in a value": b"x-a: b\0c\r\n",
    "a NUL in a name": b"x-\0a: b\r\n",
}


@pytest.mark.parametrize("fields", BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_a_head_that_is_too_large_or_malformed_is_a_bad_response_and_its_connection_is_cut(told, serve, stream, fields):
    server = serve(headed(fields, stream), stall)
    told(server, stream=stream).ended_in("bad_response", sent="yes", tries=2, says="not HTTP")
    assert server.connections == len(server.requests) == 3  # the last is the client's further call


@pytest.mark.parametrize(
    "script",
    [(send(OK + b"x-big: "), endless(b"a" * 65536)), (send(OK), endless(b"a: b\r\n" * 10_000))],
    ids=["one header", "many headers"],
)
def test_a_head_without_end_is_refused_before_it_fills_the_memory(told, serve, stream, script):
    server = serve(*script)
    answer, peak = peak_of(lambda: told(server, stream=stream))
    answer.ended_in("bad_response", sent="yes", tries=2, says="too large")
    assert peak < 8 * MEBI


def test_a_header_folded_over_two_lines_is_read_as_one(told, serve, stream):
    """RFC 9112, 5.2: whoever is no server reads such a fold as spaces."""
    server = serve(headed(b"x-request-id: one\r\n\t two\r\n", stream))
    answer = told(server, stream=stream)
    answer.ended_well()
    assert answer.response.request_id.split() == ["one", "two"]
    assert not {"\r", "\n"} & set(answer.response.request_id)


# ---- before the real one (13) -----------------------------------------------------------------

HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"


@pytest.mark.parametrize("first", [b"HTTP/1.1 100 Continue\r\n\r\n", HINTS], ids=["100", "103"])
@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_an_informational_answer_is_passed_over(told, serve, stream, first, pause):
    server = serve(send(first), sleep(pause), send(first), good(CHAT, stream))
    told(server, stream=stream).ended_well()


def test_an_offer_to_switch_protocols_that_nobody_asked_for_is_a_bad_response(told, serve, stream):
    offer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    server = serve(send(offer), stall)
    told(server, stream=stream).ended_in("bad_response", sent="yes", tries=2, says="127.0.0.1")


def test_a_flood_of_informational_answers_is_cut_by_its_number(told, serve, stream):
    server = serve(endless(HINTS * 100))
    answer = told(server, stream=stream, first_byte_timeout=1, retries=0)
    answer.ended_in("bad_response", sent="yes", says="127.0.0.1")


def test_a_drip_of_informational_answers_ends_at_the_first_byte_limit(told, serve, stream):
    server = serve(endless(HINTS, seconds=0.05))
    answer = told(server, stream=stream, first_byte_timeout=QUICK)
    answer.ended_in("timeout", sent="yes", says="first byte: ")
