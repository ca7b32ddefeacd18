"""The Responses protocol keeps its promises: what it said goes back as it came, an end is never made up, and no bytes
make it raise anything but our own errors."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import Endpoint, Reply
from polyvox.dialects.collect import Collector
from polyvox.dialects.framing import MAX_FRAME
from polyvox.dialects.openai_responses import DIALECT
from polyvox.dialects.openai_responses.answer import decode_response
from polyvox.dialects.openai_responses.plain import plain_response
from polyvox.errors import PolyvoxError
from polyvox.types import (
    Ended,
    Failed,
    Message,
    Reasoning,
    ReasoningDelta,
    Request,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolResult,
)

NAME = "openai.responses"
AT = Endpoint(origin="here/model")
HELLO = Message("user", (Text("hello"),))

# Every kind of item an answer can hold, each as the server would write it.
ITEMS = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Wind first."}],
        "encrypted_content": "gAAA",
    },
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "phase": "commentary",
        "content": [{"type": "output_text", "text": "Searching ☂.", "annotations": []}],
    },
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "wind"}},
    {"type": "hologram", "beams": [1, 2]},
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "sail", "arguments": '{"course": 270.0}'},
    {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "sing", "input": "la la"},
]
ANSWER = {
    "id": "resp_1",
    "object": "response",
    "created_at": 5,
    "model": "m-1",
    "status": "completed",
    "output": ITEMS,
    "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
    "store": True,
}


def decode(body, at=AT):
    return DIALECT.decode_response(Reply(200, {}, json.dumps(body).encode()), at)


def encode(request, at=AT):
    wire, losses = DIALECT.encode_request(request, at)
    return json.loads(wire.body), [loss.field for loss in losses]


def read(data, at=AT):
    reader, collector, events = DIALECT.reader(at), Collector(), []
    for piece in data if isinstance(data, list) else [data]:
        events += reader.feed(piece)
    events += reader.close()
    for event in events:
        collector.add(event)
    assert [type(event) in (Ended, Failed) for event in events].count(True) == 1
    assert type(events[-1]) in (Ended, Failed)
    return collector.response(), collector.failed, events


def sse(*events):
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n".encode()
        for number, event in enumerate(events)
    )


def streamed(answer):
    """The answer as the stream that would have told it, by the items alone."""
    begun = {**answer, "status": "in_progress", "output": [], "usage": None}
    events = [{"type": "response.created", "response": begun}]
    for place, item in enumerate(answer["output"]):
        events.append({"type": "response.output_item.done", "output_index": place, "item": item})
    return sse(*events, {"type": "response.completed", "response": answer})


def test_an_answer_goes_back_item_by_item_as_it_came():
    answer = decode(ANSWER)
    results = Message("tool", (ToolResult("call_1", (Text("done"),)), ToolResult("call_2", (Text("lovely"),))))
    body, losses = encode(Request("m", (HELLO, answer.message, results)))
    assert losses == []
    assert body["input"][1:7] == ITEMS
    assert [item["type"] for item in body["input"][7:]] == ["function_call_output", "custom_tool_call_output"]


def test_a_stream_gives_the_same_answer_as_the_whole():
    response, failure, _ = read(streamed(ANSWER))
    whole = decode(ANSWER)
    assert failure is None
    assert (response.message, response.usage, response.finish_reason) == (whole.message, whole.usage, "tool_calls")
    assert response.extra == whole.extra == {NAME: {"store": True}}


def test_encrypted_reasoning_goes_nowhere_but_to_who_minted_it():
    answer = decode(ANSWER)
    body, losses = encode(Request("m", (HELLO, answer.message)), Endpoint(origin="other/model"))
    assert "messages[1].parts[0].reasoning" in losses
    text = json.dumps(body)
    assert "gAAA" not in text and "rs_1" not in text
    # Nor do the ids of items that are refused without it.
    assert "msg_1" not in text and "fc_1" not in text
    assert body["input"][1] == {"role": "assistant", "content": "Searching ☂.", "phase": "commentary"}


def test_the_ids_of_items_go_to_who_minted_them_and_to_nobody_else():
    answer = {**ANSWER, "output": [item for item in ITEMS if item["type"] in ("message", "function_call")]}
    whole, (streamed_too, _, _) = decode(answer), read(streamed(answer))
    assert whole.message == streamed_too.message
    for message in (whole.message, streamed_too.message):
        home, losses = encode(Request("m", (HELLO, message)))
        assert home["input"][1:] == answer["output"] and losses == []
        elsewhere, losses = encode(Request("m", (HELLO, message)), Endpoint(origin="other/model"))
        assert not any("id" in item for item in elsewhere["input"])
        assert "minted_by" not in json.dumps([home, elsewhere])
        assert [field for field in losses if field.endswith(".id")] == losses != []


def test_the_first_whole_item_is_the_one_source_of_what_is_encrypted():
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "first"}
    again = {**item, "encrypted_content": "second"}
    response, _, _ = read(
        sse(
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {**ANSWER, "output": [again]}},
        )
    )
    assert [part.encrypted for part in response.message.parts] == ["first"]


def test_whether_a_response_is_stored_is_never_decided_here():
    body, _ = encode(Request("m", (HELLO,)))
    assert body == {"model": "m", "input": [{"role": "user", "content": "hello"}]}


def test_a_tool_is_not_made_strict_unasked():
    body, _ = encode(Request("m", (HELLO,), tools=(Tool("f"), Tool("g", strict=True))))
    assert [tool["strict"] for tool in body["tools"]] == [False, True]


def test_a_thought_is_words_apart_where_it_has_several_parts():
    item = {**ITEMS[0], "summary": [{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}]}
    assert decode({**ANSWER, "output": [item]}).reasoning == "One.\n\nTwo."


@pytest.mark.parametrize("key", ["content", "summary"])
def test_a_thought_in_a_stream_is_told_as_it_comes(key):
    kind = "reasoning_text" if key == "content" else "reasoning_summary_text"
    delta = {"type": f"response.{kind}.delta", "output_index": 0, f"{key}_index": 0, "item_id": "rs_1"}
    reader = DIALECT.reader(AT)
    events = reader.feed(sse({**delta, "delta": "Wi"}, {**delta, "delta": "nd"}))
    assert [event.text for event in events if type(event) is ReasoningDelta] == ["Wi", "nd"]


def test_words_in_a_stream_are_told_as_they_come():
    delta = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "item_id": "msg_1"}
    reader = DIALECT.reader(AT)
    for word in ("Wi", "nd", " ☂"):
        events = reader.feed(sse({**delta, "delta": word, "logprobs": [], "obfuscation": "xyz"}))
        assert [event.text for event in events if type(event) is TextDelta][-1] == word


def test_a_background_response_that_goes_on_is_no_answer_yet():
    response = decode({**ANSWER, "status": "queued", "output": []})
    assert (response.complete, response.finish_reason, response.raw_finish_reason) == (False, "incomplete", "queued")


def test_an_endpoint_that_only_streams_is_asked_to():
    assert DIALECT.must_stream(Request("m"), Endpoint(options={"stream_only": True}))
    assert not DIALECT.must_stream(Request("m"), AT)


def test_what_is_read_quickly_is_what_is_read_slowly():
    item = {
        "type": "message", "id": "msg_1", "phase": "final_answer", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
    }  # fmt: skip
    plain = {**ANSWER, "output": [item], "tools": [], "temperature": 1.0, "metadata": {}, "instructions": "Be brief."}
    quick = plain_response(Reply(200, {}, json.dumps(plain).encode()), AT.origin)
    slow = decode_response(Reply(200, {}, json.dumps({**plain, "output_text": "Hi"}).encode()), AT)
    assert quick is not None
    assert (quick.message, quick.usage, quick.extra, quick.created) == (
        slow.message,
        slow.usage,
        slow.extra,
        slow.created,
    )
    assert (quick.finish_reason, quick.raw_finish_reason) == (slow.finish_reason, slow.raw_finish_reason)


@pytest.mark.parametrize("answer", [ANSWER, {**ANSWER, "output": []}])
def test_a_stream_that_is_cut_is_never_an_end(answer):
    data = streamed(answer)
    whole, _, _ = read(data)
    for cut in range(len(data)):
        response, failure, _ = read([data[:cut]])
        if failure is None:
            assert response.message == whole.message
        else:
            assert failure.error.kind == "stream_interrupted"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_end_or_fail_and_never_raise(pieces):
    _, failure, _ = read(pieces)
    assert failure is not None and isinstance(failure.error, PolyvoxError)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.sampled_from(["", "a", "message"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "id", "item", "content", "text", "delta", "output", "output_index", "part"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
KINDS = st.sampled_from([
    "response.created", "response.output_item.added", "response.output_item.done", "response.content_part.added",
    "response.content_part.done", "response.output_text.delta", "response.output_text.done", "response.refusal.delta",
    "response.output_text.annotation.added", "response.function_call_arguments.delta", "response.audio.delta",
    "response.reasoning_text.delta", "response.custom_tool_call_input.delta", "response.completed", "response.failed",
    "error", "response.new",
])  # fmt: skip
PIECES = st.fixed_dictionaries({"type": st.just("output_text")}, optional={"text": JSON})
SOME_ITEMS = st.sampled_from(ITEMS) | st.fixed_dictionaries({"type": st.sampled_from([item["type"] for item in ITEMS])})
SHAPES = st.fixed_dictionaries(
    {"type": KINDS},
    optional={
        "output_index": JSON, "content_index": JSON, "item_id": JSON, "delta": JSON, "text": JSON, "annotation": JSON,
        "logprobs": JSON, "part": JSON | PIECES,
        "item": JSON | SOME_ITEMS,
        "response": JSON | st.just(ANSWER) | st.fixed_dictionaries({"output": JSON, "status": JSON}),
    },
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(SHAPES, max_size=6))
def test_events_of_any_shape_end_or_fail_in_our_tree(events):
    _, failure, _ = read(sse(*events))
    assert failure is None or isinstance(failure.error, PolyvoxError)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*ANSWER, "error", "incomplete_details"]), JSON | st.just(ITEMS)))
def test_an_answer_of_any_shape_is_read_or_fails_in_our_tree(changes):
    try:
        assert decode({**ANSWER, **changes}).message.role == "assistant"
    except PolyvoxError as error:
        assert error.message


def test_blank_lines_before_a_stream_are_nothing():
    response, failure, _ = read([b"\n" * 100, b"\n" * 10_000, streamed(ANSWER)])
    assert failure is None and response.message == decode(ANSWER).message


def test_a_body_without_end_is_refused():
    reader = DIALECT.reader(AT)
    events = reader.feed(b'{"id": "' + b"x" * (MAX_FRAME + 1))
    assert [event.error.kind for event in events] == ["bad_response"]


def test_a_call_without_arguments_is_called_with_none():
    body, _ = encode(Request("m", (HELLO, Message("assistant", (Reasoning("x"), ToolCall("c", "f"))))))
    assert body["input"][1] == {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


def test_calls_of_a_server_that_counts_nothing_are_told_apart_by_their_ids():
    said = {n: f'{{"n":{n}}}' for n in (1, 2)}
    calls = [{"type": "function_call", "call_id": f"fc_{n}", "name": "look", "arguments": said[n]} for n in said]
    begun = [{"type": "response.output_item.added", "item": {**call, "arguments": ""}} for call in calls]
    delta = {"type": "response.function_call_arguments.delta"}
    pieces = [(n, piece) for piece in (slice(0, 3), slice(3, None)) for n in said]
    grown = [{**delta, "item_id": f"fc_{n}", "delta": said[n][piece]} for n, piece in pieces]
    done = [{"type": "response.output_item.done", "item": call} for call in calls]
    ended = {"type": "response.completed", "response": {**ANSWER, "status": "completed", "output": calls}}
    for events in ([*begun, *grown, *done, ended], [*begun, *grown, ended], [*done, ended], [ended]):
        response, failed, _ = read(sse(*events))
        assert failed is None and response.finish_reason == "tool_calls"
        assert [(call.id, call.arguments) for call in response.tool_calls] == [("fc_1", said[1]), ("fc_2", said[2])]
