"""Asking in the Converse protocol: what is said on the wire, how its frames are read, and what a cut stream is."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import Endpoint, Reply
from polyvox.dialects.bedrock import DIALECT
from polyvox.dialects.collect import Collector
from polyvox.dialects.framing import AwsEventStream, AwsMessage, aws_headers, aws_message
from polyvox.errors import PolyvoxError
from polyvox.types import (
    CacheHint,
    Ended,
    Failed,
    Image,
    Message,
    Reasoning,
    Request,
    Response,
    Text,
    TextDelta,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from tests.dialects.test_bedrock_serving import CASES, PUT_IN, bytes_of, places, vectors

AT = Endpoint(origin="here/model")


def user(*parts):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def sent(request, at=AT):
    wire, losses = DIALECT.encode_request(request, at)
    return json.loads(wire.body), [loss.field for loss in losses]


def frame(kind, payload, sort="event"):
    key = ":event-type" if sort == "event" else ":exception-type"
    return aws_message({key: kind, ":message-type": sort}, json.dumps(payload).encode())


def read(data, at=AT):
    reader, collector = DIALECT.reader(at), Collector()
    events = reader.feed(data) + reader.close()
    for event in events:
        collector.add(event)
    assert reader.done and [type(e) for e in events if isinstance(e, Ended | Failed)] == [type(events[-1])]
    return collector.response(), collector.failed and collector.failed.error


# ---- frames -----------------------------------------------------------------------------------

HEADERS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), st.text(st.characters(codec="utf-8"), max_size=300)
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(HEADERS, st.binary(max_size=50)), max_size=4), st.integers(1, 50))
def test_messages_that_are_written_are_read_back_however_they_are_cut(messages, size):
    data = b"".join([aws_message(headers, payload) for headers, payload in messages])
    stream, found = AwsEventStream(), []
    for at in range(0, len(data), size):
        found += stream.feed(data[at : at + size])
    assert found + stream.close() == [AwsMessage(headers, payload) for headers, payload in messages]


def test_headers_made_once_serve_many_messages():
    known = aws_headers({":event-type": "messageStop"})
    assert aws_message(known, b"{}") == aws_message({":event-type": "messageStop"}, b"{}")


@pytest.mark.parametrize("headers", [{"n" * 256: "v"}, {"n": "v" * 32_768}])
def test_a_header_that_no_message_can_hold_is_refused(headers):
    with pytest.raises(ValueError, match="too long"):
        aws_headers(headers)


# ---- requests ---------------------------------------------------------------------------------


def test_a_cache_hint_is_a_block_behind_its_part():
    body, losses = sent(Request("m", (user(Text("Long.", cache=CacheHint("1h")), "Hi."),)))
    assert body["messages"][0]["content"] == [
        {"text": "Long."}, {"cachePoint": {"type": "default", "ttl": "1h"}}, {"text": "Hi."}
    ]  # fmt: skip
    assert losses == []


def test_a_picture_on_the_web_is_lost_and_one_in_s3_is_not():
    web, s3 = Image(url="https://a.example/a.png"), Image(url="s3://bucket/a.png")
    body, losses = sent(Request("m", (user("Look.", web, s3),)))
    assert body["messages"][0]["content"][1:] == [
        {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/a.png"}}}}
    ]
    assert losses == ["messages[0].parts[1].image"]


def test_results_of_one_turn_go_together_and_first():
    calls = (ToolCall("a", "f", "{}"), ToolCall("b", "f", '{"x": 1.0}'))
    results = (Message("tool", (ToolResult("a", (Text("1"),)),)), Message("tool", (ToolResult("b", is_error=True),)))
    body, losses = sent(
        Request("m", (user("hi"), Message("assistant", calls), *results, user("So?")), tools=(Tool("f"),))
    )
    assert body["messages"][2] == {
        "role": "user",
        "content": [
            {"toolResult": {"toolUseId": "a", "content": [{"text": "1"}]}},
            {"toolResult": {"toolUseId": "b", "content": [], "status": "error"}},
            {"text": "So?"},
        ],
    }
    assert losses == []


def test_fields_that_only_models_know_go_where_the_endpoint_says_or_are_lost():
    request = Request("m", (user("hi"),), top_k=5, thinking=Thinking(enabled=True, budget_tokens=2048))
    body, losses = sent(request)
    assert "additionalModelRequestFields" not in body and losses == ["thinking", "top_k"]
    at = Endpoint(origin="here/model", options={"fields": {"top_k": "inferenceConfig.topK", "thinking": "thinking"}})
    body, losses = sent(request, at)
    assert body["additionalModelRequestFields"] == {
        "inferenceConfig": {"topK": 5}, "thinking": {"type": "enabled", "budget_tokens": 2048}
    }  # fmt: skip
    assert losses == []


def test_reasoning_goes_back_to_who_said_it_and_to_nobody_else():
    thought = Reasoning("Hm.", "sig", origin="here/model")
    request = Request("m", (user("hi"), Message("assistant", (thought, Text("Yes."))), user("So?")))
    body, losses = sent(request)
    assert body["messages"][1]["content"][0] == {
        "reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "sig"}}
    }
    assert losses == []
    body, losses = sent(request, Endpoint(origin="other/model"))
    assert body["messages"][1]["content"] == [{"text": "Yes."}]
    assert losses == ["messages[1].parts[0].reasoning"]


def test_it_never_needs_to_stream():
    assert DIALECT.must_stream(Request("m", (user("hi"),), max_tokens=10**6), AT) is False


# ---- answers ----------------------------------------------------------------------------------

STREAM = b"".join([
    frame("messageStart", {"role": "assistant"}),
    frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm."}}}),
    frame("contentBlockStop", {"contentBlockIndex": 0}),
    frame("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Yes."}, "p": "abc"}),
    frame("contentBlockStop", {"contentBlockIndex": 1}),
    frame("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}),
    frame("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"a": 1}'}}}),
    frame("contentBlockStop", {"contentBlockIndex": 2}),
    frame("messageStop", {"stopReason": "tool_use"}),
])  # fmt: skip
METADATA = frame("metadata", {"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}})


def test_a_stream_and_a_whole_answer_say_the_same():
    streamed, error = read(STREAM + METADATA)
    assert error is None
    content = [
        {"reasoningContent": {"reasoningText": {"text": "Hm."}}},
        {"text": "Yes."},
        {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1}}},
    ]
    body = {"output": {"message": {"content": content}}, "stopReason": "tool_use"}
    whole = DIALECT.decode_response(Reply(200, {}, json.dumps(body).encode()), AT)
    assert streamed.message == whole.message
    assert (streamed.finish_reason, whole.finish_reason) == ("tool_calls", "tool_calls")


def test_a_stream_is_whole_at_its_stop_and_nowhere_before():
    whole, _ = read(STREAM)
    for cut in range(len(STREAM + METADATA)):
        response, error = read((STREAM + METADATA)[:cut])
        if cut == len(STREAM):
            assert error is None and response == whole
        else:
            assert error.kind == "stream_interrupted" and not response.complete


def test_words_are_told_as_they_come():
    reader, found = DIALECT.reader(AT), []
    for at in range(0, len(STREAM), 7):
        found += reader.feed(STREAM[at : at + 7])
    assert TextDelta("Yes.", 1) in found and not reader.done


@pytest.mark.parametrize("place", range(0, len(STREAM), 11))
def test_a_damaged_byte_is_never_an_answer(place):
    data = bytearray(STREAM + METADATA)
    data[place] ^= 1
    response, error = read(bytes(data))
    assert isinstance(error, PolyvoxError) and not response.complete


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(vectors("stream")), st.data())
def test_one_value_of_an_event_replaced_is_read_or_fails_in_our_tree(name, data):
    messages = framed(bytes_of(CASES[name]))
    if not messages:
        return
    number = data.draw(st.integers(0, len(messages) - 1), label="event")
    body = [json.loads(messages[number].payload)]
    container, key = data.draw(st.sampled_from(list(places(body))), label="place")
    container[key] = data.draw(PUT_IN, label="value")
    messages[number] = AwsMessage(messages[number].headers, json.dumps(body[0]).encode())
    response, error = read(b"".join([aws_message(headers, payload) for headers, payload in messages]))
    assert error is None or isinstance(error, PolyvoxError)
    again = msgspec.json.decode(msgspec.json.encode(response), type=Response)
    assert again.message == response.message


def framed(data):
    """The messages of a stream whose payloads are all JSON; none of what is no such stream."""
    try:
        messages = AwsEventStream().feed(data)
    except PolyvoxError:
        return []
    return messages if all(message.payload.startswith(b"{") for message in messages) else []
