"""A simulator that replays a recording says what was recorded, byte by byte and at its pace, and names what comes
closest to what it has no answer to."""

import base64
import json
import time

import pytest

from polyvox import Client
from polyvox.config import Settings
from polyvox.dialects import NAMES, Endpoint, Reply, dialect
from polyvox.errors import ConfigError, NotFoundError
from polyvox.testing import Fault, Simulator
from tests.testing.asking import HELLO, KEY, ask, exchange, get, question, request, seconds_of

DIALECTS = pytest.mark.parametrize("name", NAMES)


# Where a question stands in a request.
SAID_AT = {
    "openai.responses": "$.input[0].content",
    "gemini.generate": "$.contents[0].parts[0].text",
    "bedrock.converse": "$.messages[0].content[0].text",
}


def asking(simulator, name, **options):
    options = {"dialect": name, "api_key": KEY, "settings": Settings(), "retries": 0, **options}
    return Client("any-model", base_url=simulator.base_url(name), **options)


def recorded(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def body_of(record):
    return b"".join(
        base64.b64decode(chunk["base64"]) if "base64" in chunk else chunk["text"].encode() for chunk in record["chunks"]
    )


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n\n" for record in records), encoding="utf-8")
    return path


def record(name, *chunks, said=HELLO, stream=True, **facts):
    path, body = question(name, stream=stream, said=said)
    return {"url": f"https://api.example{path}", "request": json.loads(body), "chunks": list(chunks), **facts}


# ---- what a client recorded -------------------------------------------------------------------


@DIALECTS
def test_what_was_recorded_through_a_live_one_comes_back_byte_by_byte(tmp_path, name):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"

    def talk(simulator, path):
        with asking(simulator, name, record=path) as client:
            whole = client.ask(HELLO)
            stream = client.stream("and a stream")
            return whole.text, "".join(stream), stream.response.usage.output

    with Simulator() as live:
        said = talk(live, first)
    with Simulator(replay=first) as replaying:
        assert talk(replaying, second) == said
        assert replaying.counts.answers == 2 and replaying.counts.usage_unknown == 0
        assert replaying.counts.tokens_out == live.counts.tokens_out
    for one, other in zip(recorded(first), recorded(second), strict=True):
        assert body_of(one) == body_of(other) and one["status"] == other["status"]
        ids = [header for header in one["headers"] if "request-id" in header]
        assert [one["headers"][header] for header in ids] == [other["headers"][header] for header in ids]


def test_answers_come_in_their_order_and_the_last_again_and_again(tmp_path):
    path = write(tmp_path / "c.jsonl", record("openai.chat", "one"), record("openai.chat", "two"))
    with Simulator(replay=path) as simulator:
        assert [ask(simulator, "openai.chat", stream=True).body for _ in range(3)] == [b"one", b"two", b"two"]
        simulator.reset()
        assert ask(simulator, "openai.chat", stream=True).body == b"one"


def test_pauses_are_kept(tmp_path):
    path = write(tmp_path / "c.jsonl", record("openai.chat", "one", {"text": "two", "pause": 0.3}))
    with Simulator(replay=path) as simulator:
        begun = time.monotonic()
        assert ask(simulator, "openai.chat", stream=True).body == b"onetwo"
        assert 0.3 <= time.monotonic() - begun < 2


def test_a_recorded_break_breaks_and_other_bytes_than_text_are_kept(tmp_path):
    data = base64.b64encode(b"\xff\x00").decode()
    path = write(tmp_path / "c.jsonl", record("openai.chat", {"base64": data}, cut=True))
    with Simulator(replay=path) as simulator:
        got = ask(simulator, "openai.chat", stream=True)
        assert got.body == b"\xff\x00" and not got.whole and got.end == "closed"
        assert simulator.wait_for(lambda it: it.requests[0].outcome == "broken") and simulator.counts.faults == {}


def test_a_recorded_error_is_an_error_with_its_headers(tmp_path):
    headers = {"Retry-After": "9", "content-length": "7", "Transfer-Encoding": "chunked", "x-request-id": "req_theirs"}
    path = write(tmp_path / "c.jsonl", record("openai.chat", "{}", status=429, headers=headers))
    with Simulator(replay=path) as simulator:
        got = ask(simulator, "openai.chat", stream=True)
        assert (got.status, got.body, got.headers["retry-after"]) == (429, b"{}", "9") and got.whole
        assert got.headers["x-request-id"] == "req_theirs" and simulator.counts.errors == {429: 1}


@DIALECTS
def test_what_was_not_recorded_is_a_404_that_names_the_closest(tmp_path, name):
    path = write(tmp_path / "c.jsonl", record(name, "x"), record(name, "y", said="something quite different"))
    with Simulator(replay=path) as simulator:
        got = ask(simulator, name, stream=True, said="hello bee")
        error = dialect(name).decode_error(Reply(got.status, got.headers, got.body), Endpoint())
    assert type(error) is NotFoundError and "record 1 of 2 comes closest" in error.message
    assert f'{SAID_AT.get(name, "$.messages[0].content")}: recorded "hello bees", sent "hello bee"' in error.message


def test_tokens_nobody_told_are_unknown(tmp_path):
    with Simulator(replay=write(tmp_path / "c.jsonl", record("openai.chat", "x", stream=False))) as simulator:
        ask(simulator, "openai.chat")
        assert (simulator.counts.usage_unknown, simulator.counts.tokens_out) == (1, 0)


def test_keys_limits_latency_and_faults_hold_for_recordings_too(tmp_path):
    path = write(tmp_path / "c.jsonl", record("openai.chat", "data: one\n\n", "data: two\n\n"))
    plan = [Fault("cut", at=(2,), after=4)]
    with Simulator(replay=path, keys=(KEY,), rpm=2, latency=0.2, plan=plan) as simulator:
        assert ask(simulator, "openai.chat", stream=True, key="sk-wrong").status == 401
        assert ask(simulator, "openai.chat", stream=True).body == b"data"
        assert seconds_of(lambda: ask(simulator, "openai.chat", stream=True)) >= 0.2
        assert ask(simulator, "openai.chat", stream=True).status == 429


@DIALECTS
def test_the_models_that_were_asked_are_the_models_there_are(tmp_path, name):
    second = {**record(name, "x"), "url": record(name)["url"].replace("any-model", "other-model")}
    if "model" in second["request"]:
        second["request"] |= {"model": "other-model"}
    with Simulator(replay=write(tmp_path / "c.jsonl", record(name, "x"), second, record(name, "y"))) as simulator:
        assert [row["name"] for row in get(simulator, "/api/tags").json["models"]] == ["any-model", "other-model"]


def test_any_path_and_method_that_was_recorded_is_there_and_so_are_our_own(tmp_path):
    other = {"url": "https://api.example/openai/v1/embeddings", "request": {"input": "x"}, "body": {"data": []}}
    listed = {"url": "https://api.example/v1/models", "method": "GET", "body": {"data": ["recorded"]}}
    path = write(tmp_path / "c.jsonl", other, listed, record("openai.chat", "x"))
    with Simulator(replay=path) as simulator:
        assert exchange(simulator, request("POST", "/openai/v1/embeddings", b'{"input":"x"}')).json == {"data": []}
        assert exchange(simulator, request("POST", "/openai/v1/embeddings", b'{"input":"y"}')).status == 404
        assert get(simulator, "/v1/models").json == {"data": ["recorded"]}
        assert get(simulator, "/api/tags").json["models"][0]["name"] == "any-model"
        assert get(simulator, "/health").json == {"status": "ok"}
        assert get(simulator, "/nowhere").status == 404


# ---- recorded traffic -------------------------------------------------------------------------


def traffic(**facts):
    return {
        "id": "x", "provider": "p", "method": "POST", "url": "https://api.example/v1/chat/completions",
        "request_json": json.loads(question("openai.chat", stream=True)[1]), "status": 200,
        "response_headers": {"Content-Type": "text/event-stream"}, "response_text": "data: [DONE]\n\n",
        "response_base64": None, "streamed": True, **facts,
    }  # fmt: skip


def test_recorded_traffic_is_read_as_well_and_what_has_no_request_left_out(tmp_path):
    binary = traffic(url="https://api.example/v1/x", response_text="", response_base64="/wA=", response_headers=None)
    path = write(tmp_path / "t.jsonl", traffic(request_json=None, response_text="no"), traffic(), binary)
    with Simulator(replay=path) as simulator:
        got = ask(simulator, "openai.chat", stream=True)
        assert got.body == b"data: [DONE]\n\n" and got.headers["content-type"] == "text/event-stream"
        assert (
            exchange(simulator, request("POST", "/v1/x", question("openai.chat", stream=True)[1])).body == b"\xff\x00"
        )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (None, "cannot read"),
        ([], "has no exchange"),
        ([traffic(request_json=None)], "has no exchange"),
        ([{"nothing": 1}], "malformed"),
        ([traffic(url=None)], "url must be"),
        ([traffic(), {"nothing": 1}], "malformed"),
    ],
)
def test_what_is_no_recording_is_refused_before_anything_listens(tmp_path, lines, words):
    path = tmp_path / "c.jsonl"
    if lines is not None:
        write(path, *lines)
    with pytest.raises(ConfigError, match=words):
        Simulator(replay=path)
