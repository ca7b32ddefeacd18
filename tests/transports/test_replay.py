"""A recording answers what was recorded, in order, with its pauses and breaks; and says how a request
differs when it has no answer."""

import asyncio
import json
import time

import pytest

from polyvox.errors import BadResponseError, CallTimeoutError, ConfigError, StreamInterruptedError, UsageError
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.replay import Chunk, Record, ReplayTransport, record_of

URL = "https://api.example/v1/chat"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": 1}


def ask(transport, body=ASK, url=URL, method="POST", idle=60.0, limit=None):
    """Status, headers and chunks of one exchange, or the body read whole up to a limit."""

    async def exchange():
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        got = await transport.send(Outgoing(method, url, {"authorization": "Bearer secret"}, data), Timeouts(idle=idle))
        if limit is not None:
            return await got.read(limit)
        chunks = []
        while data := await got.chunk():
            chunks.append(data)
        await got.close()
        return got.status, got.headers, chunks

    return asyncio.run(exchange())


def replay(*records, **options):
    return ReplayTransport([{"url": URL, "request": ASK, **record} for record in records], **options)


def refused(transport, **sent):
    with pytest.raises(UsageError) as caught:
        ask(transport, **sent)
    assert caught.value.sent == "no"
    return caught.value.message


# ---- answers ----------------------------------------------------------------------------------


def test_a_recorded_request_gets_its_recorded_answer():
    transport = replay({"status": 418, "headers": {"X-Request-Id": "r1"}, "body": "tea"})
    assert ask(transport) == (418, {"x-request-id": "r1"}, [b"tea"])


def test_chunks_arrive_one_by_one_and_a_whole_read_joins_them():
    record = {"chunks": ["one ", "", {"base64": "dHdv"}, {"text": " three"}]}
    assert ask(replay(record))[2] == [b"one ", b"two", b" three"]
    assert ask(replay(record), limit=100) == b"one two three"


def test_a_body_may_be_text_json_base64_or_nothing():
    assert ask(replay({"body": {"a": [1]}}), limit=99) == b'{"a":[1]}'
    assert ask(replay({"body_base64": "/w=="}), limit=99) == b"\xff"
    assert ask(replay({"body": b"\xfe"}), limit=99) == b"\xfe"
    assert ask(replay({"chunks": [b"\xfe"]}), limit=99) == b"\xfe"
    assert ask(replay({}), limit=99) == b""


def test_records_may_be_values_too():
    transport = ReplayTransport([Record(URL, request=ASK, chunks=(Chunk(b"x"),))])
    assert ask(transport, limit=9) == b"x"


def test_a_body_beyond_the_limit_is_refused():
    with pytest.raises(BadResponseError):
        ask(replay({"body": "long"}), limit=3)


def test_pauses_are_kept():
    start = time.monotonic()
    ask(replay({"chunks": [{"text": "a", "pause": 0.02}, {"text": "b", "pause": 0.02}]}))
    assert time.monotonic() - start >= 0.04


def test_a_pause_longer_than_allowed_is_a_timeout():
    with pytest.raises(CallTimeoutError) as caught:
        ask(replay({"chunks": [{"text": "a", "pause": 9}]}), idle=0.01)
    assert caught.value.sent == "yes"


@pytest.mark.parametrize("limit", [None, 99])
def test_a_cut_answer_breaks_after_its_chunks(limit):
    with pytest.raises(StreamInterruptedError) as caught:
        ask(replay({"chunks": ["half an"], "cut": True}), limit=limit)
    assert caught.value.sent == "yes"


def test_what_arrived_before_the_break_was_given():
    async def first_then_break():
        exchange = await replay({"body": "half", "cut": True}).send(
            Outgoing("POST", URL, {}, json.dumps(ASK).encode()), Timeouts()
        )
        first = await exchange.chunk()
        with pytest.raises(StreamInterruptedError):
            await exchange.chunk()
        return first

    assert asyncio.run(first_then_break()) == b"half"


# ---- what matches -----------------------------------------------------------------------------


def test_key_order_query_and_kind_of_number_do_not_matter():
    transport = replay({"body": "x"})
    same = b'{"n": 1.0, "messages": [{"content": "hi", "role": "user"}], "model": "m"}'
    assert ask(transport, same, url="http://other.example/v1/chat?key=k", method="post", limit=9) == b"x"


def test_a_record_without_a_request_answers_any_body():
    assert ask(ReplayTransport([{"url": URL, "body": "x"}]), b"--multipart", limit=9) == b"x"
    assert ask(ReplayTransport([{"url": URL, "method": "GET", "body": "x"}]), b"", method="GET", limit=9) == b"x"


def test_a_body_that_is_no_json_matches_as_text():
    transport = ReplayTransport([{"url": URL, "request": "a=1&b=2", "body": "x"}])
    assert ask(transport, b"a=1&b=2", limit=9) == b"x"


def test_records_that_match_answer_in_order_each_once():
    transport = replay({"body": "first"}, {"request": {"other": 1}, "body": "elsewhere"}, {"body": "second"})
    assert [ask(transport, limit=99), ask(transport, limit=99)] == [b"first", b"second"]
    assert [record.request for record in transport.unused] == [{"other": 1}]
    assert "used up" in refused(transport)


def test_the_last_record_may_repeat():
    transport = replay({"body": "first"}, {"body": "last"}, repeat=True)
    assert [ask(transport, limit=99) for _ in range(4)] == [b"first", b"last", b"last", b"last"]


def test_a_request_without_an_answer_is_told_what_differs_from_the_closest():
    transport = replay(
        {"url": "https://api.example/v1/other", "request": {**ASK, "model": "x"}},
        {"request": {**ASK, "model": "x", "n": True, "stream": True}},
        {"request": {**ASK, "model": "x"}},
    )
    words = refused(transport, body={**ASK, "seed": 1})
    assert "record 3 of 3" in words and "POST /v1/chat" in words
    assert '$.model: recorded "x", sent "m"' in words and "$.seed: sent 1, not recorded" in words
    assert "secret" not in words


@pytest.mark.parametrize(
    ("sent", "difference"),
    [
        ({"method": "PUT"}, "method: recorded POST, sent PUT"),
        ({"url": "https://api.example/v2/chat"}, "path: recorded /v1/chat, sent /v2/chat"),
        ({"body": {**ASK, "n": True}}, "$.n: recorded 1, sent true"),
        ({"body": {**ASK, "messages": []}}, "$.messages: recorded 1 items, sent 0"),
        ({"body": {**ASK, "messages": [{"role": "user", "content": "ho"}]}}, '$.messages[0].content: recorded "hi"'),
        ({"body": {"model": "m", "n": 1}}, "$.messages: recorded [{"),
        ({"body": b"{oops"}, 'sent "{oops"'),
        ({"body": b""}, "sent null"),
        ({"body": {**ASK, "model": "m" * 500}}, "mmm…"),
        ({"body": {**ASK, **{f"x{i}": i for i in range(9)}}}, "and 4 more"),
    ],
)
def test_each_difference_is_told_by_its_place(sent, difference):
    assert difference in refused(replay({}), **sent)


def test_an_empty_recording_says_so():
    assert "empty" in refused(ReplayTransport([]))


def test_what_is_closed_refuses_further_use():
    async def after_close(what):
        transport, outgoing = replay({"body": "x"}), Outgoing("POST", URL, {}, json.dumps(ASK).encode())
        exchange = await transport.send(outgoing, Timeouts())
        await (exchange if what == "exchange" else transport).close()
        await (exchange.chunk() if what == "exchange" else transport.send(outgoing, Timeouts()))

    for what in ("exchange", "transport"):
        with pytest.raises(UsageError):
            asyncio.run(after_close(what))


# ---- files ------------------------------------------------------------------------------------


def test_a_file_of_records_is_replayed(tmp_path):
    file = tmp_path / "calls.jsonl"
    lines = [{"url": URL, "request": ASK, "body": "é", "note": "why"}, {"url": URL, "request": ASK, "chunks": ["2"]}]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(map(json.dumps, lines)).encode())
    transport = ReplayTransport.from_jsonl(file)
    assert [ask(transport, limit=9), ask(transport, limit=9)] == ["é".encode(), b"2"]
    assert ask(ReplayTransport.from_jsonl(str(file), repeat=True), limit=9) == "é".encode()


def test_each_malformed_line_is_named(tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"url": "/x"}\n{oops\n\n{"status": 5}\n')
    with pytest.raises(ConfigError) as caught:
        ReplayTransport.from_jsonl(file)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [f"{file}:2", f"{file}:4"]


def test_a_file_of_nothing_but_errors_is_not_told_line_by_line(tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text("[]\n" * 50)
    with pytest.raises(ConfigError) as caught:
        ReplayTransport.from_jsonl(file)
    assert len(caught.value.problems) == 21 and caught.value.problems[-1] == "and 30 more"


def test_a_missing_file_is_told_by_its_name(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.jsonl"):
        ReplayTransport.from_jsonl(tmp_path / "no.jsonl")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([], "JSON object"),
        ({}, "url is missing"),
        ({"url": 5}, "url must be a text"),
        ({"url": "/x", "chunk": []}, "unknown key 'chunk'"),
        ({"url": "/x", "status": "200"}, "status must be a whole number"),
        ({"url": "/x", "status": True}, "status must be a whole number"),
        ({"url": "/x", "status": 42}, "HTTP status"),
        ({"url": "/x", "method": None}, "method must be a text"),
        ({"url": "/x", "headers": []}, "headers must be an object"),
        ({"url": "/x", "headers": {"a": 1}}, "headers must be texts"),
        ({"url": "/x", "cut": 1}, "cut must be true or false"),
        ({"url": "/x", "body": "a", "chunks": []}, "both given"),
        ({"url": "/x", "body": "\ud800"}, "cannot be written"),
        ({"url": "/x", "body": 3.5j}, "cannot be written"),
        ({"url": "/x", "body_base64": "a"}, "base64 is malformed"),
        ({"url": "/x", "body_base64": 5}, "base64 is malformed"),
        ({"url": "/x", "chunks": {}}, "chunks must be a list"),
        ({"url": "/x", "chunks": [5]}, "a chunk must be"),
        ({"url": "/x", "chunks": [{}]}, "a chunk must be"),
        ({"url": "/x", "chunks": [{"text": 5}]}, "text must be a text"),
        ({"url": "/x", "chunks": [{"text": "", "base64": ""}]}, "a chunk must be"),
        ({"url": "/x", "chunks": [{"text": "", "pause": -1}]}, "a pause must be"),
        ({"url": "/x", "chunks": [{"text": "", "pause": "1"}]}, "a pause must be"),
    ],
    ids=repr,
)
def test_a_malformed_record_says_what_is_wrong_with_it(record, words):
    with pytest.raises(ConfigError, match=words) as caught:
        record_of(record)
    assert caught.value.sent == "no"
