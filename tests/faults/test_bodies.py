"""The body of an answer is shorter, longer or other than its head says: an error, never a short answer, and never
an answer to another question."""

import gzip
import threading
import zlib

import pytest

from polyvox.dialects import framing
from polyvox.engine import deployment as reading
from polyvox.testing.fault_server import answer, endless, fin, rst, send, sleep, stall
from polyvox.transports.http import clock
from tests.faults.calls import (
    AMPLE,
    BODIES,
    CHAT,
    EVERY_DIALECT,
    KEY,
    MEBI,
    OK,
    ONE_FACE,
    QUICK,
    SETTLED,
    TEXT,
    WHOLE,
    chunked,
    first_events,
    good,
    head_of,
    peak_of,
)

HALF = {False: WHOLE[CHAT][:100], True: first_events(CHAT, 2)}
SAID = {False: "", True: "Hello, "}
TRIES = {False: 3, True: 1}  # once a caller has seen words nothing is asked again


def sized(length, body, fields=b""):
    return send(OK + fields + b"content-length: %d\r\n\r\n" % length + body)


def body_of(stream, dialect=CHAT):
    return (BODIES if stream else WHOLE)[dialect]


# ---- content-length (15) ----------------------------------------------------------------------


@pytest.mark.parametrize("ending", [fin, rst])
def test_a_body_shorter_than_its_length_is_an_interruption(told, serve, stream, ending):
    server = serve(sized(5000, HALF[stream]), sleep(SETTLED), ending)
    heard = told(server, stream=stream)
    heard.ended_in("stream_interrupted", sent="yes", tries=TRIES[stream], text=SAID[stream])
    assert heard.error.retryable and server.connections == len(server.requests)


def test_a_stream_that_said_its_end_is_whole_though_its_length_is_not_and_its_connection_is_cut(told, serve):
    server = serve(sized(5000, BODIES[CHAT]), stall)
    told(server, stream=True, kept=0).ended_well()


def test_json_that_is_whole_before_its_length_is_not_an_answer(told, serve):
    server = serve(sized(5000, WHOLE[CHAT]), stall)
    told(server, stream=False, idle_timeout=QUICK).ended_in("timeout", sent="yes", says="idle: ")


def test_a_body_longer_than_its_length_is_a_bad_response_and_its_connection_is_cut(told, serve, stream):
    server = serve(sized(len(body_of(stream)) - 30, body_of(stream)), stall)
    told(server, stream=stream).ended_in("bad_response", sent="yes", tries=2)
    assert server.connections == len(server.requests)


@pytest.mark.parametrize("together", [True, False])
def test_what_follows_an_answer_is_never_the_answer_to_the_next_question(told, serve, stream, together):
    stale = WHOLE[CHAT].replace(b"Hello", b"STALE")
    surplus = OK + b"content-length: %d\r\n\r\n" % len(stale) + stale
    first = OK + b"content-length: %d\r\n\r\n" % len(body_of(False)) + body_of(False)
    said = threading.Event()

    async def told_all(connection):
        said.set()

    parts = [send(first + surplus)] if together else [send(first), sleep(0.01), send(surplus)]
    scripts = iter([[*parts, told_all]])

    async def step(connection):
        for each in next(scripts, [good(CHAT, stream)]):
            await each(connection)

    server = serve(step)
    told(server, stream=stream, warm=lambda: said.wait(AMPLE)).ended_well()
    assert server.connections == 2


# ---- chunks (16) ------------------------------------------------------------------------------


@pytest.fixture
def looks_often(monkeypatch):
    """The transport looks for connections that were given up ten times as often as it does."""
    monkeypatch.setattr(clock, "LOOK_SECONDS", 0.05)


def in_chunks(stream, *then):
    """The first half of an answer in a chunk of its own, and after a while these bytes or steps."""
    steps = [send(each) if isinstance(each, bytes) else each for each in then]
    return [send(head_of(CHAT) + chunked(HALF[stream])), sleep(SETTLED), *steps]


BAD_CHUNKS = {
    "no number": b"zz\r\n",
    "a huge size": b"f" * 100_000 + b"\r\n",
    "a negative size": b"-5\r\n",
    "no line end after the data": b"5\r\nhelloXX5\r\n",
    "too many trailers": b"0\r\n" + b"a: b\r\n" * 10_000,
}


@pytest.mark.parametrize("chunk", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_a_malformed_chunk_is_an_interruption(told, serve, stream, looks_often, chunk):
    server = serve(*in_chunks(stream, chunk, stall))
    heard = told(server, stream=stream, retries=0)
    heard.ended_in("stream_interrupted", sent="yes", text=SAID[stream])
    assert heard.error.retryable and server.connections == len(server.requests) == 2


def test_a_malformed_chunk_is_tried_again_and_not_for_ever(told, serve, stream, looks_often):
    server = serve(*in_chunks(stream, b"zz\r\n", stall))
    told(server, stream=stream).ended_in("stream_interrupted", sent="yes", tries=TRIES[stream], text=SAID[stream])


def test_a_malformed_chunk_that_comes_with_the_head_is_a_bad_response(told, serve, stream):
    server = serve(send(head_of(CHAT) + b"zz\r\n"), stall)
    told(server, stream=stream).ended_in("bad_response", sent="yes", tries=2)


@pytest.mark.parametrize("ending", [fin, rst])
def test_a_body_without_its_last_chunk_is_an_interruption(told, serve, stream, ending):
    server = serve(*in_chunks(stream, ending))
    told(server, stream=stream).ended_in("stream_interrupted", sent="yes", tries=TRIES[stream], text=SAID[stream])


def test_json_that_is_whole_before_its_last_chunk_is_not_an_answer(told, serve):
    server = serve(send(head_of(CHAT) + chunked(WHOLE[CHAT])), fin)
    told(server, stream=False).ended_in("stream_interrupted", sent="yes", tries=3)


@ONE_FACE
@pytest.mark.parametrize("line", [b"0", b"5;a=b"], ids=["a size", "an extension"])
def test_a_size_line_without_end_ends_at_the_idle_limit_and_fills_no_memory(told, serve, stream, line):
    server = serve(*in_chunks(stream, line, endless(line[-1:] * 10_000)))
    heard, peak = peak_of(lambda: told(server, stream=stream, idle_timeout=QUICK))
    kind = "stream_interrupted" if stream else "timeout"
    heard.ended_in(kind, sent="yes", text=SAID[stream], says="idle: ")
    assert peak < 8 * MEBI


@pytest.mark.parametrize("size", [3, 10_000])
def test_the_extensions_of_a_chunk_are_passed_over(told, serve, stream, size):
    """RFC 9112, 7.1.1."""
    body = body_of(stream)
    said = b'%x;a=%s;c="d"\r\n%s\r\n0;last\r\n\r\n' % (len(body), b"b" * size, body)
    server = serve(send(head_of(CHAT) + said))
    told(server, stream=stream).ended_well()


# ---- compressed (17, 18) ----------------------------------------------------------------------


def zipped(data, *, said="gzip"):
    return answer(data, f"content-encoding: {said}")


@EVERY_DIALECT
def test_a_compressed_answer_is_read(told, serve, stream, dialect):
    server = serve(zipped(gzip.compress(body_of(stream, dialect))))
    told(server, stream=stream, dialect=dialect).ended_well()


@pytest.mark.parametrize("left", [0.5, 0.9])
def test_compressed_data_that_end_early_are_an_interruption_though_http_is_content(told, serve, stream, left):
    data = gzip.compress(body_of(stream))
    server = serve(zipped(data[: int(len(data) * left)]))
    heard = told(server, stream=stream, kept=1)
    assert heard.error.kind == "stream_interrupted" and heard.error.sent == "yes"
    assert TEXT.startswith(heard.text) and heard.outcomes == ["stream_interrupted"] * (1 if heard.text else 3)
    assert heard.error.partial is None or not heard.error.partial.complete


def test_json_without_the_check_sum_of_its_compressed_data_is_not_an_answer(told, serve):
    server = serve(zipped(gzip.compress(WHOLE[CHAT])[:-8]))
    told(server, stream=False, kept=1).ended_in("stream_interrupted", sent="yes", tries=3, says="gzip")


def test_a_bomb_is_stopped_at_the_limit_of_decoded_bytes(told, serve, stream, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BODY", 4 * MEBI)
    monkeypatch.setattr(framing, "MAX_FRAME", 4 * MEBI)
    bomb = gzip.compress(bytes(64 * MEBI)) * 16  # a gibibyte
    server = serve(zipped(bomb))
    heard, peak = peak_of(lambda: told(server, stream=stream))
    heard.ended_in("bad_response", sent="yes", tries=2, says="larger than 4194304 bytes")
    assert peak < 2 * 4 * MEBI + len(bomb)


MISLABELLED = {
    "not compressed": lambda body: zipped(body),
    "another compression": lambda body: zipped(zlib.compress(body)),
    "one that nobody asked for": lambda body: zipped(body, said="br"),
    "twice and said twice": lambda body: zipped(gzip.compress(gzip.compress(body)), said="gzip, gzip"),
}


@pytest.mark.parametrize("wrong", MISLABELLED)
def test_data_that_are_not_compressed_as_they_say_are_a_bad_response(told, serve, stream, wrong):
    server = serve(MISLABELLED[wrong](body_of(stream)))
    told(server, stream=stream, kept=1).ended_in("bad_response", sent="yes", tries=2)


@EVERY_DIALECT
@pytest.mark.parametrize("said", ["identity", "gzip"], ids=["not said", "said once too few"])
def test_what_is_still_compressed_is_no_answer(told, serve, stream, dialect, said):
    data = gzip.compress(body_of(stream, dialect), mtime=0)
    server = serve(zipped(data if said == "identity" else gzip.compress(data, mtime=0), said=said))
    heard = told(server, stream=stream, dialect=dialect, kept=1)
    # Of bytes that are no event at all a reader of events cannot tell whether they are rubbish or a torn event.
    kind = heard.error.kind if stream and heard.error.kind == "stream_interrupted" else "bad_response"
    heard.ended_in(kind, sent="yes", tries=2 if kind == "bad_response" else 3)


@ONE_FACE
@EVERY_DIALECT
def test_the_words_of_a_compressed_stream_are_there_as_soon_as_they_were_flushed(told, serve, dialect):
    packing = zlib.compressobj(wbits=31)
    flushed = packing.compress(first_events(dialect, 2)) + packing.flush(zlib.Z_SYNC_FLUSH)
    head = head_of(dialect).replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    server = serve(send(head + chunked(flushed)), stall)
    heard = told(server, stream=True, dialect=dialect, idle_timeout=QUICK)
    heard.ended_in("stream_interrupted", sent="yes", text="Hello, ", says="idle: ")


# ---- until the connection ends (19) -----------------------------------------------------------

UNTIL_EOF = {"1.0": b"HTTP/1.0 200 OK\r\n\r\n", "1.1": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"}


@EVERY_DIALECT
@pytest.mark.parametrize("version", UNTIL_EOF)
def test_an_answer_that_ends_with_its_connection_counts_when_it_is_whole(told, serve, stream, dialect, version):
    server = serve(send(UNTIL_EOF[version] + body_of(stream, dialect)), fin)
    told(server, stream=stream, dialect=dialect, kept=0).ended_well()


@EVERY_DIALECT
def test_a_stream_that_ends_with_its_connection_and_without_its_mark_is_an_interruption(told, serve, dialect):
    server = serve(send(UNTIL_EOF["1.0"] + first_events(dialect, 2)), sleep(SETTLED), fin)
    told(server, stream=True, dialect=dialect).ended_in("stream_interrupted", sent="yes", text="Hello, ")


@EVERY_DIALECT
def test_json_that_ends_with_its_connection_must_be_whole(told, serve, dialect):
    server = serve(send(UNTIL_EOF["1.0"] + WHOLE[dialect][:-1]), fin)
    told(server, stream=False, dialect=dialect).ended_in("bad_response", sent="yes", tries=2)


# ---- pages (20) -------------------------------------------------------------------------------

LOGIN = b"<!DOCTYPE html>\n<html><title>Log in</title><form>key %s</form>%s</html>" % (KEY.encode(), b"<p>hi" * 5000)
GATE = b"\n<html><head><title>Access denied by proxy</title></head></html>"
PAGES = {"login": LOGIN, "proxy": GATE}


@pytest.mark.parametrize("page", PAGES)
@EVERY_DIALECT
def test_a_page_in_place_of_an_answer_is_a_bad_response_with_its_start_and_no_key(told, serve, stream, dialect, page):
    server = serve(answer(PAGES[page], "content-type: text/html; charset=utf-8"))
    heard = told(server, stream=stream, dialect=dialect, kept=1)
    heard.ended_in("bad_response", sent="yes", tries=2, says="html")
    assert len(server.requests) == 3 and "base_url" in heard.error.hint
