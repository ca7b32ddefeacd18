"""Answers without end, in each protocol: refused at the limit, in bounded memory."""

import pytest

from polyvox.dialects import framing
from polyvox.engine import deployment as reading
from polyvox.testing.fault_server import endless, send
from tests.faults.calls import EVERY_DIALECT, MEBI, ONE_FACE, begun, chunked, head_of, peak_of

EVENT = {
    "openai.chat": b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}, "finish_reason": null}]}\n\n',
    "anthropic.messages": b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, '
    b'"delta": {"type": "text_delta", "text": "%s"}}\n\n',
    "ollama.chat": b'{"model": "m", "message": {"role": "assistant", "content": "%s"}, "done": false}\n',
}
BLOCK = chunked(b"x" * 0x10000)


def start_of_a_line(dialect):
    """A stream whose next bytes belong to one event that has no end."""
    start, _, _ = EVENT[dialect].partition(b"%s")
    return send(head_of(dialect) + chunked(start))


@EVERY_DIALECT
def test_a_giant_event_is_refused_at_the_limit_in_less_than_twice_its_memory(told, serve, dialect):
    assert framing.MAX_FRAME == 16 * MEBI
    start, _, end = EVENT[dialect].partition(b"%s")
    mebi, count = send(b"x" * MEBI), 100
    head = head_of(dialect, len(start) + count * MEBI + len(end))
    server = serve(send(head + start), *[mebi] * count, send(end))
    heard, peak = peak_of(lambda: told(server, stream=True, dialect=dialect))
    heard.ended_in("bad_response", sent="yes", tries=2, says="larger than 16777216 bytes")
    assert peak < 2 * framing.MAX_FRAME


@EVERY_DIALECT
def test_a_line_without_end_is_refused_at_the_limit_in_less_than_twice_its_memory(told, serve, dialect):
    server = serve(start_of_a_line(dialect), endless(BLOCK))
    heard, peak = peak_of(lambda: told(server, stream=True, dialect=dialect))
    assert server.connections == 3
    heard.ended_in("bad_response", sent="yes", tries=2, says="larger than 16777216 bytes")
    assert peak < 2 * framing.MAX_FRAME


@ONE_FACE
@EVERY_DIALECT
@pytest.mark.parametrize("limit", ["MAX_TOTAL", "MAX_FRAMES"])
def test_a_stream_of_words_without_end_is_refused_at_the_limit(told, serve, dialect, limit, monkeypatch):
    monkeypatch.setattr(framing, limit, {"MAX_TOTAL": MEBI, "MAX_FRAMES": 2000}[limit])
    many = chunked(EVENT[dialect] % (b"word " * 20) * 50)
    server = serve(begun(dialect), endless(many))
    heard, peak = peak_of(lambda: told(server, stream=True, dialect=dialect))
    assert len(server.requests) == 2  # the last is the client's further call
    assert (heard.error.kind, heard.outcomes, heard.error.sent) == ("bad_response", ["bad_response"], "yes")
    assert ("longer than" if limit == "MAX_TOTAL" else "more than 2000 events") in heard.error.message
    assert heard.error.partial.text == heard.text and heard.text.startswith("Hello, word word ")
    assert peak < 8 * MEBI


@ONE_FACE
@EVERY_DIALECT
def test_a_whole_answer_without_end_is_refused_at_the_limit(told, serve, dialect, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BODY", 16 * MEBI)
    server = serve(send(head_of(dialect)), endless(BLOCK))
    heard, peak = peak_of(lambda: told(server, stream=False, dialect=dialect, retries=0))
    heard.ended_in("bad_response", sent="yes", says="larger than 16777216 bytes")
    assert peak < 2 * reading.MAX_BODY


@ONE_FACE
@EVERY_DIALECT
def test_the_words_of_an_error_without_end_are_refused_too(told, serve, dialect):
    head = b"HTTP/1.1 500 Internal Server Error\r\ntransfer-encoding: chunked\r\n\r\n"
    server = serve(send(head), endless(BLOCK))
    heard, peak = peak_of(lambda: told(server, stream=False, dialect=dialect, retries=0))
    heard.ended_in("server", sent="yes", says="larger than 1048576 bytes")
    assert peak < 8 * MEBI
