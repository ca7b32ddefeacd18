"""A stream that stalls, drips, breaks, comes in odd pieces or reports an error, in each protocol: what was said is
told once, and nothing short passes for whole."""

import asyncio
import json

import pytest

from polyvox import AsyncClient
from polyvox.errors import PolyvoxError
from polyvox.testing.fault_server import (
    drip,
    endless,
    fin,
    half_close,
    rst,
    send,
    sleep,
    stall,
)
from tests.faults.calls import (
    BODIES,
    CHAT,
    DIALECTS,
    EVERY_DIALECT,
    LAST_CHUNK,
    ONE_FACE,
    QUICK,
    SETTLED,
    TEXT,
    begun,
    chunked,
    client_facts,
    first_events,
    head_of,
)

MESSAGES = "anthropic.messages"
SIGNS_OF_LIFE = {
    "openai.chat": b": keep-alive\n\n",
    "anthropic.messages": b'event: ping\ndata: {"type": "ping"}\n\n',
    "ollama.chat": b"\n",
}


def whole(dialect, body):
    """A stream that HTTP delivers without a fault."""
    return send(head_of(dialect) + chunked(body) + LAST_CHUNK)


# ---- time (35, 36) ----------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "words"), [*((dialect, 2) for dialect in DIALECTS), (CHAT, 0)])
def test_a_stall_ends_at_the_idle_limit_with_what_was_said(told, serve, dialect, words):
    script = begun(dialect, words) if words else send(head_of(dialect))
    server = serve(script, stall)
    heard = told(server, stream=True, dialect=dialect, idle_timeout=QUICK)
    # What has shown nothing yet is begun anew.
    tries, said = (1, "Hello, ") if words else (3, "")
    heard.ended_in("stream_interrupted", sent="yes", text=said, tries=tries, says="idle: nothing more came")
    assert len(server.requests) == tries + 1  # the last is the client's further call
    used = heard.error.partial.usage
    told_before = dialect == MESSAGES  # its first event has a count
    assert (used.source, used.output) == (("provider", 1) if told_before else ("missing", None))


@ONE_FACE
@EVERY_DIALECT
def test_a_stall_inside_an_event_ends_at_the_idle_limit_too(told, serve, dialect):
    torn = first_events(dialect, 3)[:-20]
    server = serve(send(head_of(dialect) + chunked(torn)), stall)
    heard = told(server, stream=True, dialect=dialect, idle_timeout=QUICK)
    heard.ended_in("stream_interrupted", sent="yes", text="Hello, ")


@ONE_FACE
@pytest.mark.parametrize(("dialect", "words"), [*((dialect, 2) for dialect in DIALECTS), (CHAT, 0)])
def test_signs_of_life_put_off_the_idle_limit_and_not_the_total(told, serve, dialect, words):
    script = begun(dialect, words) if words else send(head_of(dialect))
    server = serve(script, endless(chunked(SIGNS_OF_LIFE[dialect]), seconds=0.05))
    heard = told(server, stream=True, dialect=dialect, idle_timeout=0.3, timeout=0.45)
    assert len(server.requests) == 2
    heard.ended_in("timeout", sent="yes", text="".join(["Hello", ", "][:words]), says="0.45 s in all")


@ONE_FACE
@EVERY_DIALECT
def test_a_drip_within_the_idle_limit_is_read_until_the_total_is_over(told, serve, dialect):
    slow = endless(chunked(b" "), seconds=0.05)
    server = serve(begun(dialect), slow)
    heard = told(server, stream=True, dialect=dialect, idle_timeout=0.3, timeout=0.45)
    heard.ended_in("timeout", sent="yes", text="Hello, ", says="0.45 s in all")


def test_a_whole_answer_that_drips_ends_at_the_total(told, serve):
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n"
    server = serve(send(head), endless(b" ", seconds=0.05))
    heard = told(server, stream=False, idle_timeout=0.3, timeout=0.45)
    # Within a read nobody but the transport knows that the head had come.
    heard.ended_in("timeout", sent="unknown", says="0.45 s in all")


# ---- breaks (37, 38) --------------------------------------------------------------------------

CLEAN = send(LAST_CHUNK)  # to HTTP all is well


@EVERY_DIALECT
@pytest.mark.parametrize("ending", [rst, fin, CLEAN, half_close], ids=["rst", "fin", "clean", "half close"])
def test_a_stream_that_breaks_off_is_an_interruption_with_what_was_said(told, serve, dialect, ending):
    server = serve(begun(dialect), sleep(SETTLED), ending)
    heard = told(server, stream=True, dialect=dialect, kept=int(ending is CLEAN))
    heard.ended_in("stream_interrupted", sent="yes", text="Hello, ")
    assert heard.error.retryable and len(server.requests) == 2  # the last is the client's further call


@ONE_FACE
@EVERY_DIALECT
@pytest.mark.parametrize("ending", [fin, CLEAN], ids=["fin", "clean"])
def test_a_stream_that_breaks_off_before_its_first_word_is_begun_anew_and_not_for_ever(told, serve, dialect, ending):
    start = BODIES[dialect][: BODIES[dialect].index(b"Hello") - 20]
    server = serve(send(head_of(dialect) + chunked(start)), sleep(SETTLED), ending)
    told(server, stream=True, dialect=dialect, kept=int(ending is CLEAN)).ended_in(
        "stream_interrupted", sent="yes", tries=3
    )


# A stream is whole once this has come, and not before.
MARKS = {"openai.chat": b'"finish_reason": "stop"}]}', "anthropic.messages": b'{"type": "message_stop"}',
         "ollama.chat": b'"eval_count": 5}'}  # fmt: skip


@EVERY_DIALECT
@pytest.mark.parametrize("endings", [[rst, fin], [CLEAN]], ids=["broken", "clean"])
def test_a_stream_cut_at_any_byte_is_whole_or_an_error_with_what_was_said(serve, dialect, endings):
    body = BODIES[dialect]
    enough = body.index(MARKS[dialect]) + len(MARKS[dialect])
    cuts = iter(range(len(body)))

    async def cut_by_one_more(connection):
        at = next(cuts)
        await send(head_of(dialect) + (chunked(body[:at]) if at else b""))(connection)
        await endings[at % len(endings)](connection)

    async def one(client):
        words = []
        try:
            async for text in client.stream("hi"):
                words.append(text)
        except PolyvoxError as error:
            assert error.kind == "stream_interrupted" or (not words and error.kind == "connection"), error
            assert error.partial is None or (error.partial.text, error.partial.complete) == ("".join(words), False)
            return "".join(words), False
        return "".join(words), True

    async def go():
        async with AsyncClient(**client_facts(server.url, dialect, {"retries": 0})) as client:
            given = [await one(client) for _ in range(len(body))]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return given

    server = serve(cut_by_one_more)
    given = asyncio.run(go())
    assert server.wait_for(lambda it: it.open_connections == 0)
    for at, (text, ended_well) in enumerate(given):
        assert TEXT.startswith(text), at
        assert not ended_well or (at >= enough and text == TEXT), f"cut at {at}: a short answer without an error"
    assert len(given) == len(body) and len({text for text, _ in given}) > 5


# ---- pieces (39, 40, 41) ----------------------------------------------------------------------

LINE_ENDS = {
    "LF": lambda body: body,
    "CRLF": lambda body: body.replace(b"\n", b"\r\n"),
    "CR": lambda body: body.replace(b"\n", b"\r"),
    "mixed": lambda body: b"".join(
        (event + b"\n\n").replace(b"\n", (b"\n", b"\r\n", b"\r")[number % 3])
        for number, event in enumerate(body.split(b"\n\n")[:-1])
    ),
}
ENDS = [
    (dialect, end) for dialect in DIALECTS for end in LINE_ENDS if dialect != "ollama.chat" or end in ("LF", "CRLF")
]

HARDEST = {"openai.chat": "mixed", "anthropic.messages": "mixed", "ollama.chat": "CRLF"}


def events_of(server, dialect):
    """Every event of a stream, in order."""

    async def go():
        async with AsyncClient(**client_facts(server.url, dialect, {"retries": 0})) as client:
            return [event async for event in client.stream("hi").events()]

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("dialect", "end", "size"),
    [*((dialect, end, 11) for dialect, end in ENDS), *((dialect, end, 1) for dialect, end in HARDEST.items())],
)
def test_events_are_the_same_in_pieces_of_any_size_and_with_any_line_end(serve, dialect, end, size):
    body = LINE_ENDS[end](BODIES[dialect])
    pieces = b"".join(chunked(body[at : at + size]) for at in range(0, len(body), size))
    step = len(chunked(b"x" * size))
    server = serve(send(head_of(dialect)), drip(pieces, 0.0002, step), send(LAST_CHUNK))
    found = events_of(server, dialect)
    server = serve(whole(dialect, BODIES[dialect]))
    assert found == events_of(server, dialect)


@ONE_FACE
@pytest.mark.parametrize(("dialect", "end"), ENDS)
def test_a_stream_split_between_two_reads_at_a_line_end_or_inside_a_letter_is_the_same(told, serve, dialect, end):
    body = LINE_ENDS[end](BODIES[dialect])
    letter, line = body.index("🙂".encode()) + 2, body.index(b"Hello")
    edge = min(at for at in (body.find(b"\r", line), body.find(b"\n", line)) if at > 0) + 1
    parts = [body[:edge], body[edge:letter], body[letter:]]
    script = [step for part in parts for step in (send(chunked(part)), sleep(0.02))]
    server = serve(send(head_of(dialect)), *script, send(LAST_CHUNK))
    told(server, stream=True, dialect=dialect).ended_well()


ODD = "a\u2028b\u2029c\x85d"  # line separators to Unicode, letters to JSON; VT and FF it has escaped only


@EVERY_DIALECT
def test_separators_of_unicode_in_a_text_end_no_line(told, serve, dialect):
    raw = json.dumps("Hello" + ODD, ensure_ascii=False)[:-1] + '\\u000b\\u000c"'
    body = BODIES[dialect].replace(b'"Hello"', raw.encode())
    assert body != BODIES[dialect]
    server = serve(whole(dialect, body))
    heard = told(server, stream=True, dialect=dialect)
    assert heard.error is None
    assert (heard.text, heard.response.complete) == (TEXT.replace("Hello", f"Hello{ODD}\x0b\x0c"), True)


@EVERY_DIALECT
@pytest.mark.parametrize("control", [b"\x0b", b"\x0c"], ids=["VT", "FF"])
def test_a_bare_control_character_in_a_text_is_refused_and_not_taken_for_a_line_end(told, serve, dialect, control):
    body = BODIES[dialect].replace(b'"!"', b'"!' + control + b'"')
    server = serve(whole(dialect, body))
    heard = told(server, stream=True, dialect=dialect, kept=1)
    heard.ended_in("bad_response", sent="yes", text=TEXT.removesuffix("!"))


@EVERY_DIALECT
def test_the_last_event_counts_without_the_line_end_after_it(told, serve, dialect):
    server = serve(whole(dialect, BODIES[dialect].rstrip()))
    told(server, stream=True, dialect=dialect).ended_well()


@EVERY_DIALECT
def test_the_last_event_counts_though_the_connection_ends_in_place_of_its_line_end(told, serve, dialect):
    server = serve(send(b"HTTP/1.0 200 OK\r\n\r\n" + BODIES[dialect].rstrip()), fin)
    told(server, stream=True, dialect=dialect, kept=0).ended_well()


# ---- errors in the middle (42) ----------------------------------------------------------------


def event(said, name=None):
    """An event of this JSON, with a name where it has one."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(said).encode() + b"\n\n"


def problem(kind, message):
    return {"type": "error", "error": {"type": kind, "message": message}}


UPSTREAM = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
            "error": {"code": 502, "message": "upstream broke"}}  # fmt: skip
ERRORS = {
    "chat, overloaded": (CHAT, event({"error": {"message": "busy", "code": "overloaded"}}), "overloaded"),
    "chat, rate limit": (CHAT, event({"error": {"message": "slow down", "code": 429}}), "rate_limit"),
    "chat, quota": (CHAT, event({"error": {"message": "no credit", "type": "insufficient_quota"}}, "error"), "quota"),
    "chat, upstream": (CHAT, event(UPSTREAM), "server"),
    "messages, overloaded": (MESSAGES, event(problem("overloaded_error", "Overloaded"), "error"), "overloaded"),
    "messages, server": (MESSAGES, event(problem("api_error", "Internal"), "error"), "server"),
    "messages, nameless": (MESSAGES, event(problem("rate_limit_error", "slow")), "rate_limit"),
    "ollama": ("ollama.chat", b'{"error": "model runner has unexpectedly stopped"}\n', "server"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_in_the_middle_is_told_by_its_type_with_what_was_said(told, serve, error):
    dialect, said, kind = ERRORS[error]
    server = serve(begun(dialect), send(chunked(said)), sleep(SETTLED), send(LAST_CHUNK))
    heard = told(server, stream=True, dialect=dialect, kept=1)
    heard.ended_in(kind, sent="yes", text="Hello, ")
    assert heard.error.status != 200 and len(server.requests) == 2  # the last is the client's further call


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_before_the_first_word_is_tried_again_where_that_may_help(told, serve, error):
    dialect, said, kind = ERRORS[error]
    server = serve(whole(dialect, said))
    heard = told(server, stream=True, dialect=dialect, kept=1)
    heard.ended_in(kind, sent="yes", tries=1 if kind == "quota" else 3)
