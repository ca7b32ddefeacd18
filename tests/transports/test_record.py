"""What was carried is on file: it replays byte for byte without the server, keeps no secret, and comes in
whole lines."""

import asyncio
import base64
import gc
import json
import logging
import os
import stat
import subprocess
import sys
import threading

import pytest
from tests.scripted import Answer, Scripted, failed, said, streamed

from polyvox import AsyncClient
from polyvox.errors import (
    BadResponseError,
    ConfigError,
    ConnectionFailedError,
    RateLimitError,
    StreamInterruptedError,
)
from polyvox.keys import Secret, remember
from polyvox.testing.fault_server import FaultServer, answer, fin, send, sleep
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.http import HttpTransport
from polyvox.transports.record import RecordTransport
from polyvox.transports.replay import ReplayTransport

URL = "https://api.example/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hé"}]}
PLANTED = "sk-planted-0123456789abcdefghij"
UNSHAPED = "correct horse battery"  # a key that no pattern would find
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture
def tape(tmp_path):
    return tmp_path / "tape.jsonl"


def on_wire(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


async def listen(transport, url=URL, headers=(), body=None, limit=None):
    """Status, kept headers, chunks (or the whole body) and the kind of error of one exchange."""
    data = json.dumps(ASK).encode() if body is None else body
    got = await transport.send(Outgoing("POST", url, dict(headers), data), Timeouts())
    chunks, error = [], None
    try:
        if limit is not None:
            chunks.append(await got.read(limit))
        else:
            while piece := await got.chunk():
                chunks.append(piece)
    except (StreamInterruptedError, BadResponseError) as caught:
        error = caught.kind
    await got.close()
    return got.status, dict(got.headers), chunks, error


def recorded(tape, *answers, clock=None, **facts):
    """Let a scripted transport answer through a recorder; what the callers got."""

    async def run():
        transport = RecordTransport(Scripted(*answers), tape, clock=clock)
        return [await listen(transport, **facts) for _ in answers]

    return asyncio.run(run())


def replayed(tape, **facts):
    return asyncio.run(listen(ReplayTransport.from_jsonl(tape), **facts))


def lines(tape):
    return [json.loads(line) for line in tape.read_bytes().splitlines() if line]


def over_http(tape, *script, path="v1/x", **facts):
    """Ask a real server through a recorder, take the server away, ask the recording: both answers."""

    async def ask(url):
        transport = RecordTransport(HttpTransport(), tape)
        try:
            return await listen(transport, url, {"authorization": f"Bearer {PLANTED}"}, **facts)
        finally:
            await transport.close()

    with FaultServer(*script) as server:
        url = server.url + path
        first = asyncio.run(ask(url))
    return first, replayed(tape, url=url, **facts)


# ---- what was recorded replays ----------------------------------------------------------------


def test_a_plain_answer_replays_with_the_server_gone(tape):
    body = '{"text": "déjà vu \\u0000 \u2028"}'.encode()
    first, again = over_http(tape, answer(body, "content-type: application/json", "x-request-id: r1"), limit=999)
    assert first[0] == again[0] == 200
    assert first[2] == again[2] == [body]
    assert again[1] == {"content-type": "application/json", "x-request-id": "r1"}


def test_a_body_of_any_bytes_replays(tape):
    body = bytes(range(256)) * 3
    first, again = over_http(tape, answer(body, "content-type: audio/mpeg"), limit=9999)
    assert first[2] == again[2] == [body]


def test_a_stream_replays_in_its_pieces_with_its_pauses(tape):
    pieces = [
        b"data: one\n\n",
        "data: zw\u00f6lf\n\n".encode()[:9],
        "data: zw\u00f6lf\n\n".encode()[9:],
        b"data: [DONE]\n\n",
    ]
    script = [step for piece in pieces for step in (sleep(0.03), send(on_wire(piece)))]
    first, again = over_http(tape, send(STREAM_HEAD), *script, sleep(0.03), send(b"0\r\n\r\n"))
    assert first[2] == again[2] == pieces
    assert all(0.01 <= chunk["pause"] < 2 for chunk in lines(tape)[0]["chunks"])


def test_an_error_replays_with_its_headers_and_body(tape):
    body = b'{"error": {"message": "slow down"}}'
    script = answer(
        body, "retry-after: 7", "x-ratelimit-remaining-tokens: 0", "set-cookie: a=b", status="429 Too Many Requests"
    )
    first, again = over_http(tape, script, limit=999)
    assert first[0] == again[0] == 429
    assert first[2] == again[2] == [body]
    assert again[1] == {"retry-after": "7", "x-ratelimit-remaining-tokens": "0"}


def test_a_cut_stream_replays_up_to_its_break(tape):
    first, again = over_http(tape, send(STREAM_HEAD + on_wire(b"data: one\n\n")), sleep(0.02), fin)
    assert first[2:] == again[2:] == ([b"data: one\n\n"], "stream_interrupted")
    assert lines(tape)[0]["cut"] is True


def test_a_client_hears_the_same_from_the_recording(tape):
    async def hear(transport):
        client = AsyncClient("m-1", base_url="http://127.0.0.1:9/v1", transport=transport, retries=0)
        whole = await client.ask("hello")
        words = [piece async for piece in client.stream("hello")]
        try:
            await client.ask("more")
        except RateLimitError as error:
            return whole.text, words, error.message, error.retry_after
        raise AssertionError("the third answer is an error")

    answers = said("hi"), streamed("a", "b"), failed(429, "later", headers={"retry-after": "3"})
    live = asyncio.run(hear(RecordTransport(Scripted(*answers), tape)))
    assert len(lines(tape)) == 3
    assert asyncio.run(hear(ReplayTransport.from_jsonl(tape))) == live
    assert live[0] == "hi" and live[3] == 3.0


def test_an_answer_beyond_the_limit_is_refused_live_and_replayed(tape):
    first = recorded(tape, Answer(b"12345", b"67890"), limit=7)[0]
    assert first[3] == "bad_response"
    assert replayed(tape, limit=7)[3] == "bad_response"
    assert replayed(tape, limit=99)[3] == "stream_interrupted"


def test_a_stream_that_is_closed_early_keeps_what_was_read(tape):
    async def run():
        got = await RecordTransport(Scripted(Answer(b"a", b"b", b"c")), tape).send(
            Outgoing("POST", URL, {}, b""), Timeouts()
        )
        await got.chunk()
        await got.close()
        await got.close()

    asyncio.run(run())
    assert [(line["chunks"], "cut" in line) for line in lines(tape)] == [([{"text": "a"}], False)]


def test_a_stream_that_nobody_closes_is_recorded_all_the_same(tape):
    async def run():
        got = await RecordTransport(Scripted(Answer(b"a", b"b")), tape).send(Outgoing("POST", URL, {}, b""), Timeouts())
        await got.chunk()

    asyncio.run(run())
    gc.collect()
    assert lines(tape)[0]["chunks"] == [{"text": "a"}]


def test_a_cancelled_read_is_recorded_as_a_break(tape):
    async def run():
        got = await RecordTransport(Scripted(Answer(b"a", 60)), tape).send(Outgoing("POST", URL, {}, b""), Timeouts())
        await got.chunk()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(got.chunk(), 0.01)
        await got.close()

    asyncio.run(run())
    assert [(line["chunks"], line["cut"]) for line in lines(tape)] == [([{"text": "a"}], True)]


def test_an_exchange_that_fails_before_its_head_leaves_no_line(tape):
    with pytest.raises(ConnectionFailedError):
        recorded(tape, ConnectionFailedError("refused", sent="no"))
    assert tape.read_bytes() == b""


def test_pauses_are_those_of_the_clock_in_milliseconds(tape):
    ticks = iter([10.0, 10.25349, 11.0, 11.0001, 20.0, 99999.0, 0.0])
    recorded(tape, Answer(b"a", b"b", b"c"), clock=lambda: next(ticks))
    assert lines(tape)[0]["chunks"] == [{"text": "a", "pause": 0.253}, {"text": "b"}, {"text": "c", "pause": 3600.0}]


def test_another_question_than_the_recorded_one_gets_no_answer(tape):
    recorded(tape, said("hi"))
    assert lines(tape)[0]["request"] == ASK
    with pytest.raises(Exception, match='recorded "hé", sent "no"'):
        replayed(tape, body=json.dumps({**ASK, "messages": [{"role": "user", "content": "no"}]}).encode())


def test_closing_closes_the_inner_transport(tape):
    inner = Scripted()
    asyncio.run(RecordTransport(inner, tape).close())
    assert inner.closed


# ---- secrets ----------------------------------------------------------------------------------


def spoken(tape):
    """All that the file says, also behind base64."""
    found = tape.read_bytes()
    for line in lines(tape):
        found += b"".join(base64.b64decode(chunk.get("base64", "")) for chunk in line["chunks"])
    return found


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        (URL, {"Authorization": f"Bearer {PLANTED}"}),
        (URL, {"x-api-key": UNSHAPED}),
        (f"{URL}?key={PLANTED}&alt=sse#{PLANTED}", {}),
        (f"https://me:{PLANTED}@api.example/v1", {}),
        (URL, {"cookie": f"session={PLANTED}"}),
    ],
)
def test_no_credential_of_the_request_is_kept_even_where_the_answer_repeats_it(tape, url, headers):
    key = (UNSHAPED if UNSHAPED in headers.values() else PLANTED).encode()
    echo = Answer(
        b'{"error": "bad key ' + key + b'"}',
        b" \xff " + key[:9],
        key[9:] + b" and on",
        status=401,
        headers={"x-request-id": key.decode(), "set-cookie": "k=" + key.decode(), "x-account": "org-1"},
    )
    got = recorded(tape, echo, url=url, headers=headers)[0]
    assert key in got[2][0], "the caller hears what was said"
    assert key not in spoken(tape) and key[9:] not in spoken(tape)
    line = lines(tape)[0]
    assert line["headers"] == {"content-type": "application/json", "x-request-id": "***"}
    assert line["chunks"][0] == {"text": '{"error": "bad key ***"}'}
    assert line["chunks"][2] == {"text": " and on"}, "pieces stay pieces"
    assert "?" not in line["url"] and "@" not in line["url"]


def test_known_and_shaped_secrets_are_masked_in_what_was_asked(tape):
    remember(Secret("swordfish-of-the-day"))
    ask = {
        "q": f"is {PLANTED} mine?",
        "api_key": "hunter2hunter2",
        "max_tokens": 12345678,
        "n": ["swordfish-of-the-day"],
    }
    recorded(tape, Answer(b"ok"), body=json.dumps(ask).encode())
    assert lines(tape)[0]["request"] == {"q": "is *** mine?", "api_key": "***", "max_tokens": 12345678, "n": ["***"]}


def test_pieces_are_cut_alike_around_many_masks(tape):
    key = PLANTED.encode()
    pieces = [b"<1>" + key + b"<2>" + key[:4], key[4:] + key, key + b"<3>***", b"<4>" + key, b"<5>"]
    recorded(tape, Answer(*pieces), headers={"x-api-key": PLANTED})
    found = [chunk["text"] for chunk in lines(tape)[0]["chunks"]]
    assert "".join(found) == "<1>***<2>*********<3>***<4>***<5>"
    assert found[0].startswith("<1>***<2>***") and found[2:] == ["<3>***", "<4>***", "<5>"]


def test_the_file_is_for_its_owner_only(tape):
    if sys.platform == "win32":
        pytest.skip("no file modes here")
    RecordTransport(Scripted(), tape)
    assert stat.S_IMODE(tape.stat().st_mode) == 0o600
    tape.chmod(0o644)
    RecordTransport(Scripted(), tape)
    assert stat.S_IMODE(tape.stat().st_mode) == 0o600


# ---- the file ---------------------------------------------------------------------------------


def test_exchanges_at_once_from_many_threads_leave_whole_lines(tape):
    async def many(name):
        transport = RecordTransport(Scripted(*[streamed(*[f"{name}-{i}-" * 500] * 3) for i in range(20)]), tape)
        await asyncio.gather(*[listen(transport, body=b'"%s"' % name.encode()) for _ in range(20)])

    threads = [threading.Thread(target=lambda name=name: asyncio.run(many(name))) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = lines(tape)
    assert sorted(line["request"] for line in found) == sorted("abcd" * 20)
    assert all(f"{line['request']}-" in line["chunks"][1]["text"] for line in found)
    assert len(ReplayTransport.from_jsonl(tape).unused) == 80


def test_a_recording_is_added_to_even_where_its_last_line_has_no_end(tape):
    tape.write_bytes(b'{"url": "https://api.example/old"}')
    recorded(tape, said("hi"))
    assert [line["url"] for line in lines(tape)] == ["https://api.example/old", URL]


def test_a_file_that_another_program_holds_makes_nobody_wait(tape):
    fcntl = pytest.importorskip("fcntl")
    with tape.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        recorded(tape, said("hi"))
    assert len(lines(tape)) == 1


@pytest.mark.parametrize("bad", ["missing/tape.jsonl", ".", "nul\0.jsonl"])
def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path, bad):
    with pytest.raises(ConfigError, match="cannot write the recording") as caught:
        RecordTransport(Scripted(), tmp_path / bad)
    assert "folder" in caught.value.hint


def test_a_pipe_is_refused_without_waiting_for_its_reader(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        RecordTransport(Scripted(), tmp_path / "pipe")


def test_a_file_that_cannot_be_written_later_is_logged_and_harms_no_call(tmp_path, caplog):
    folder = tmp_path / "gone"
    folder.mkdir()
    transport = RecordTransport(Scripted(Answer(b"fine")), folder / "tape.jsonl")
    (folder / "tape.jsonl").unlink()
    folder.rmdir()
    with caplog.at_level(logging.WARNING, "polyvox"):
        assert asyncio.run(listen(transport))[2] == [b"fine"]
    assert "not recorded in" in caplog.text and "No such file" in caplog.text


def test_an_exchange_that_replay_would_refuse_is_not_written(tape, caplog):
    with caplog.at_level(logging.WARNING, "polyvox"):
        assert recorded(tape, Answer(b"odd", status=999))[0][0] == 999
    assert tape.read_bytes() == b"" and "HTTP status" in caplog.text


def test_a_line_that_does_not_fit_on_the_disk_is_taken_back(tape):
    pytest.importorskip("resource")
    code = f"""
import asyncio, resource
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.record import RecordTransport
from tests.scripted import Answer, Scripted
async def run():
    transport = RecordTransport(Scripted(Answer(b"short"), Answer(b"long" * 999), Answer(b"again")), {str(tape)!r})
    for _ in range(3):
        got = await transport.send(Outgoing("POST", {URL!r}, {{}}, b""), Timeouts())
        print(len(await got.read(9999)))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
asyncio.run(run())
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["5", "3996", "5"]
    assert [line["chunks"] for line in lines(tape)] == [[{"text": "short"}], [{"text": "again"}]]
