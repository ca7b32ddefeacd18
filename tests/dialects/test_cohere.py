"""The Cohere dialect beyond its vectors: turns go back as they came, thinking goes home, nothing the wire says
leaves our tree of errors."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from polyvox.dialects import Endpoint, Reply, dialect
from polyvox.dialects.collect import Collector
from polyvox.dialects.framing import MAX_FRAME
from polyvox.errors import BadResponseError, InputError, PolyvoxError
from polyvox.types import Ended, Failed, Message, Request, Started, Text, TextDelta, ToolResult

COHERE = dialect("cohere.chat")
AT = Endpoint(origin="home/pebble")

TURN = {
    "role": "assistant",
    "tool_plan": "I will measure.",
    "content": [{"type": "thinking", "thinking": "Which lake?"}, {"type": "text", "text": "Let me look."}],
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "depth", "arguments": '{ "n":1.0 }'}}],
    "citations": [
        {"start": 0, "end": 3, "text": "Let", "sources": [{"type": "document", "id": "d:0"}], "content_index": 1},
        {"start": 2, "end": 6, "text": "will", "sources": [], "type": "PLAN"},
    ],
    "mood": "calm",
}


def answer(message=TURN, **facts):
    return Reply(200, {}, json.dumps({"id": "a", "finish_reason": "TOOL_CALL", "message": message, **facts}).encode())


def sent(request, at=AT):
    wire, losses = COHERE.encode_request(request, at)
    return json.loads(wire.body), losses


def test_an_assistants_turn_goes_back_word_for_word_where_it_came_from():
    response = COHERE.decode_response(answer(), AT)
    result = Message("tool", (ToolResult("c1", (Text("4 m"),)),))
    body, losses = sent(Request("m", (response.message, result)))
    assert body["messages"][0] == TURN
    assert body["messages"][1] == {"role": "tool", "tool_call_id": "c1", "content": "4 m"}
    assert losses == ()


def test_thinking_stays_at_home_when_the_next_turn_goes_elsewhere():
    turn = COHERE.decode_response(answer(), AT).message
    body, losses = sent(Request("m", (turn,)), Endpoint(origin="away/boulder"))
    assert "tool_plan" not in body["messages"][0] and body["messages"][0]["content"] == "Let me look."
    assert [loss.field for loss in losses] == ["messages[0].parts[0].reasoning", "messages[0].parts[1].reasoning"]


def test_a_plan_is_reasoning_that_knows_its_place():
    response = COHERE.decode_response(answer(), AT)
    assert response.reasoning == "I will measure.Which lake?" and response.text == "Let me look."
    assert [cited.text for cited in response.message.parts[2].citations] == ["Let"]


def test_units_that_are_billed_are_kept_beside_the_tokens():
    usage = {"billed_units": {"input_tokens": 5, "search_units": 1}, "tokens": {"input_tokens": 70, "output_tokens": 2}}
    found = COHERE.decode_response(answer(usage=usage), AT).usage
    assert (found.input, found.output, found.total, found.source) == (70, 2, None, "provider")
    assert found.raw == usage


def test_the_body_of_an_answer_is_kept_as_received():
    assert COHERE.decode_response(answer(), AT).raw == answer().body


def event(kind, **facts):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **facts})}\n\n".encode()


def words(index, text):
    return event("content-delta", index=index, delta={"message": {"content": {"text": text}}})


START = event("message-start", id="a", delta={"message": {"role": "assistant"}})
OPEN = event("content-start", index=0, delta={"message": {"content": {"type": "text", "text": ""}}})
END = event("message-end", delta={"finish_reason": "COMPLETE"})


def test_a_stream_tells_its_words_as_they_come():
    reader = COHERE.reader(AT)
    assert reader.feed(START) == [Started("a")]
    assert reader.feed(OPEN) == []
    assert reader.feed(words(0, "Hi")) == [TextDelta("Hi")]
    assert reader.feed(words(0, " you")) == [TextDelta(" you")]
    assert reader.feed(END) == [Ended("stop", "COMPLETE")]
    assert reader.done and reader.feed(words(0, "!")) == reader.close() == []


def test_a_model_that_failed_without_words_ended_in_an_error():
    failed = event("message-end", delta={"finish_reason": "ERROR"})
    assert COHERE.reader(AT).feed(START + failed)[-1] == Ended("error", "ERROR")


def test_an_event_that_begins_inside_another_is_not_taken_for_words():
    reader = COHERE.reader(AT)
    reader.feed(START + OPEN + b"event: debug\n")
    assert reader.feed(words(0, "Hi")) == [TextDelta("Hi")]
    assert reader.feed(b"data: {") == []
    assert isinstance(reader.feed(words(0, "Hi"))[0], Failed)


def test_an_event_nobody_can_read_is_not_passed_over():
    reader = COHERE.reader(AT)
    events = reader.feed(START + b"event: content-delta\ndata: {\n\n" + END)
    assert isinstance(events[-1].error, BadResponseError) and events[-1].error.sent == "yes"


def test_a_stream_without_bounds_is_refused():
    reader, events = COHERE.reader(AT), []
    for _ in range(MAX_FRAME // (1 << 20) + 1):
        events += reader.feed(b" " * (1 << 20))
    assert [type(event) for event in events] == [Failed]
    assert isinstance(events[0].error, BadResponseError)


def test_nothing_needs_to_be_streamed():
    assert COHERE.must_stream(Request("m"), AT) is False


def test_what_python_has_and_json_has_not_is_refused_before_sending():
    with pytest.raises(InputError) as caught:
        COHERE.encode_request(Request("m", extra={"cohere.chat": {"x": object()}}), AT)
    assert caught.value.sent == "no"


KEYS = [
    "id", "finish_reason", "message", "usage", "tokens", "billed_units", "role", "content", "tool_plan", "tool_calls",
    "citations", "start", "end", "text", "sources", "type", "content_index", "thinking", "function", "name",
    "arguments", "logprobs", "token_ids", "delta", "index", "error", "error_type", "code", "status_code", "detail",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["", "x", "text", "thinking"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=15,
)
KINDS = st.sampled_from([
    "message-start", "content-start", "content-delta", "content-end", "tool-plan-delta", "tool-call-start",
    "tool-call-delta", "tool-call-end", "citation-start", "citation-end", "message-end", "debug",
])  # fmt: skip


@given(JSON)
def test_any_json_is_an_answer_or_an_error_of_ours(value):
    for body in (value, {"message": value}, {"message": {"content": [value], "citations": [value]}, "usage": value}):
        reply = Reply(200, {}, json.dumps(body).encode())
        try:
            COHERE.decode_response(reply, AT)
        except PolyvoxError:
            pass
        assert isinstance(COHERE.decode_error(structs.replace(reply, status=400), AT), PolyvoxError)


@given(st.lists(st.tuples(KINDS, JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))))
def test_any_events_end_once_or_fail_in_our_tree(said):
    reader, collector, events = COHERE.reader(AT), Collector(), []
    for kind, value in said:
        facts = value if isinstance(value, dict) else {"delta": {"message": value}}
        events += reader.feed(event(kind, **{key: item for key, item in facts.items() if key != "type"}))
    events += reader.close()
    for one in events:
        collector.add(one)
    ends = [one for one in events if isinstance(one, Ended | Failed)]
    assert len(ends) == 1 and ends[0] is events[-1]
    assert collector.failed is None or isinstance(collector.failed.error, PolyvoxError)
