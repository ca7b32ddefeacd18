"""The Ollama dialect beyond its vectors: turns go back as they came, thinking goes home, nothing
the wire says leaves our tree of errors."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from polyvox.dialects import Endpoint, Reply, dialect
from polyvox.dialects.collect import Collector
from polyvox.dialects.framing import MAX_FRAME
from polyvox.errors import BadResponseError, InputError, PolyvoxError, ServerError
from polyvox.types import Ended, Failed, Message, Request, Started, Text, ToolResult

OLLAMA = dialect("ollama.chat")
AT = Endpoint(origin="home/pebble")

TURN = (
    '{"role":"assistant","content":"Let me look.","thinking":"Which lake?","mood":"calm","tool_calls":['
    '{"id":"c1","type":"function","function":{"name":"depth","arguments":{ "lake":"Tarn", "n":1.0 },"why":2}}]}'
)


def answer(message=TURN, **facts):
    body = json.dumps({"model": "pebble:7b", "done": True, "done_reason": "stop", **facts})
    return Reply(200, {}, (body[:-1] + f', "message": {message}}}').encode())


def sent(request, at=AT):
    wire, losses = OLLAMA.encode_request(request, at)
    return json.loads(wire.body), wire, losses


def test_an_assistants_turn_goes_back_byte_for_byte_where_it_came_from():
    response = OLLAMA.decode_response(answer(), AT)
    result = Message("tool", (ToolResult("c1", (Text("4 m"),)),))
    body, wire, losses = sent(Request("pebble:7b", (response.message, result)))
    assert body["messages"][0] == json.loads(TURN)
    assert b'"arguments":{ "lake":"Tarn", "n":1.0 }' in wire.body
    assert body["messages"][1] == {"role": "tool", "content": "4 m", "tool_name": "depth", "tool_call_id": "c1"}
    assert losses == ()


def test_a_streamed_turn_goes_back_like_a_whole_one():
    collector, reader = Collector(), OLLAMA.reader(AT)
    for event in reader.feed(answer().body + b"\n") + reader.close():
        collector.add(event)
    whole = OLLAMA.decode_response(answer(), AT)
    assert collector.response().message == structs.replace(whole.message, extra={})
    assert collector.response().finish_reason == whole.finish_reason == "tool_calls"


def test_thinking_stays_at_home_when_the_next_turn_goes_elsewhere():
    turn = OLLAMA.decode_response(answer(), AT).message
    body, _, losses = sent(Request("m", (turn,)), Endpoint(origin="away/boulder"))
    assert "thinking" not in body["messages"][0]
    assert [(loss.field, loss.why) for loss in losses] == [("messages[0].parts[0].reasoning", "bound to home/pebble")]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2026-03-01T09:00:00Z", 1772355600.0),
        ("2026-03-01T10:00:00.123456789+01:00", 1772355600.123456),
        ("2026-03-01T09:00:00", 1772355600.0),
        ("yesterday", None),
        (7, None),
        (None, None),
    ],
)
def test_the_time_of_an_answer_is_epoch_seconds_or_nothing(said, meant):
    response = OLLAMA.decode_response(answer(created_at=said), AT)
    assert response.created == (None if meant is None else pytest.approx(meant, abs=1e-6))


def test_a_stream_starts_with_who_answers():
    first = OLLAMA.reader(AT).feed(answer(created_at="2026-03-01T09:00:00Z").body + b"\n")[0]
    assert first == Started(None, "pebble:7b", 1772355600.0)


def test_an_answer_that_is_not_done_is_handed_over_as_partial():
    with pytest.raises(BadResponseError) as caught:
        OLLAMA.decode_response(answer(done=False), AT)
    partial = caught.value.partial
    assert partial is not None and partial.text == "Let me look."
    assert not partial.complete and partial.finish_reason == "incomplete"


def test_the_body_of_an_answer_is_kept_as_received():
    assert OLLAMA.decode_response(answer(), AT).raw == answer().body


@pytest.mark.parametrize(
    ("body", "status", "hint"),
    [
        (b'{"error":"model \'x\' not found"}', 404, "pull it"),
        (b"404 page not found", 404, "list the models"),
        (b'{"error":"x does not support tools"}', 400, "leave out tools"),
    ],
)
def test_an_error_says_what_to_do_next(body, status, hint):
    error = OLLAMA.decode_error(Reply(status, {}, body), AT)
    assert error.hint is not None and hint in error.hint


def test_an_error_in_a_stream_was_sent_and_came_instead_of_an_end():
    reader = OLLAMA.reader(AT)
    events = reader.feed(b'{"error":"the runner is gone"}\n{"done":true}\n')
    assert len(events) == 1 and isinstance(events[0], Failed)
    assert isinstance(events[0].error, ServerError)
    assert events[0].error.sent == "yes" and reader.done
    assert reader.close() == []


def test_a_line_without_bounds_is_refused():
    reader = OLLAMA.reader(AT)
    events = []
    for _ in range(MAX_FRAME // (1 << 20) + 1):
        events += reader.feed(b" " * (1 << 20))
    assert [type(event) for event in events] == [Failed]
    assert isinstance(events[0].error, BadResponseError)


def test_nothing_needs_to_be_streamed():
    assert OLLAMA.must_stream(Request("m"), AT) is False


def test_what_python_has_and_json_has_not_is_refused_before_sending():
    with pytest.raises(InputError) as caught:
        OLLAMA.encode_request(Request("m", extra={"ollama.chat": {"x": object()}}), AT)
    assert caught.value.sent == "no"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["message", "content", "thinking", "tool_calls", "function", "name", "arguments", "id", "images", "done",
         "done_reason", "error", "logprobs", "token", "logprob", "bytes", "top_logprobs", "eval_count", "created_at"]
    ), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_any_json_is_an_answer_or_an_error_of_ours(value):
    reply = Reply(200, {}, json.dumps(value).encode())
    try:
        OLLAMA.decode_response(reply, AT)
    except PolyvoxError:
        pass
    assert isinstance(OLLAMA.decode_error(structs.replace(reply, status=400), AT), PolyvoxError)


@given(st.lists(JSON, max_size=4) | st.binary(max_size=40))
def test_any_stream_ends_exactly_once(lines):
    data = lines if isinstance(lines, bytes) else "\n".join(map(json.dumps, lines)).encode()
    reader, whole = OLLAMA.reader(AT), OLLAMA.reader(AT)
    events = [event for i in range(len(data)) for event in reader.feed(data[i : i + 1])] + reader.close()
    assert [isinstance(event, Ended | Failed) for event in events].count(True) == 1
    assert isinstance(events[-1], Ended | Failed)
    again = whole.feed(data) + whole.close()
    assert [event for event in again if not isinstance(event, Failed)] == [
        event for event in events if not isinstance(event, Failed)
    ]


@pytest.mark.parametrize("content", ["", None])
def test_an_answer_of_no_words_has_no_parts(content):
    message = json.dumps({"role": "assistant", "content": content})
    assert OLLAMA.decode_response(answer(message), AT).message.parts == ()
