"""The Messages protocol keeps its promises: what it says comes back as it came, what cannot be sent is
refused here, and no bytes make it raise anything but our own errors."""

import json
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import Endpoint, Reply, dialect
from polyvox.dialects.anthropic import DIALECT
from polyvox.dialects.collect import Collector
from polyvox.dialects.framing import MAX_FRAME
from polyvox.errors import BadResponseError, InputError, PolyvoxError
from polyvox.types import (
    Ended,
    Failed,
    Image,
    Message,
    Opaque,
    Reasoning,
    Request,
    Response,
    Text,
    TextDelta,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

AT = Endpoint(origin="here/model")
STRICT = Endpoint(origin="here/model", options={"version": "2026-10-21"})
HELLO = Message("user", (Text("hello"),))

# Every kind of block an answer can hold, each as the server would write it.
BLOCKS = [
    {"type": "thinking", "thinking": "Wind first.", "signature": "c2lnLys9"},
    {"type": "redacted_thinking", "data": "aGlkZGVu"},
    {"type": "text", "text": "Searching ☂."},
    {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "wind"}},
    {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"type": "x", "encrypted_content": "ZQ=="}]},
    {
        "type": "text",
        "text": "West.",
        "citations": [{"type": "web_search_result_location", "url": "https://wind.example", "encrypted_index": "aQ=="}],
    },
    {"type": "hologram", "beams": [1, 2]},
    {"type": "tool_use", "id": "toolu_1", "name": "sail", "input": {"course": 270.0}, "caller": {"type": "direct"}},
    {"type": "tool_use", "id": "toolu_2", "name": "rest", "input": {}},
]
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-test-1",
    "content": BLOCKS,
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 4},
    "container": {"id": "box"},
}


def decode(body):
    return DIALECT.decode_response(Reply(200, {}, json.dumps(body).encode()), AT)


def encode(request, at=AT):
    wire, losses = DIALECT.encode_request(request, at)
    return json.loads(wire.body), [loss.field for loss in losses]


def ask(*messages, **fields):
    return Request("m", messages, max_tokens=64, **fields)


def event(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


# How each kind of block is streamed: what its start leaves out, and the deltas that bring it.
DELTAS = {
    "thinking": [("thinking", "thinking_delta", "thinking"), ("signature", "signature_delta", "signature")],
    "text": [("citations", "citations_delta", "citation"), ("text", "text_delta", "text")],
    "tool_use": [("input", "input_json_delta", "partial_json")],
    "server_tool_use": [("input", "input_json_delta", "partial_json")],
}


def streamed(answer):
    """The bytes a server streams for a whole answer: every text in two pieces."""
    out = event("message_start", message={**answer, "content": [], "stop_reason": None})
    for index, block in enumerate(answer["content"]):
        deltas = [row for row in DELTAS.get(block["type"], []) if row[0] in block]
        empty = {"input": {}, "citations": []}
        first = {**block, **{key: empty.get(key, "") for key, _, _ in deltas}}
        out += event("content_block_start", index=index, content_block=first)
        for key, kind, name in deltas:
            value = block[key]
            text = json.dumps(value) if key == "input" else value
            pieces = value if key == "citations" else [text] if key == "signature" else [text[:2], text[2:]]
            for piece in pieces:
                out += event("content_block_delta", index=index, delta={"type": kind, name: piece})
        out += event("content_block_stop", index=index)
    out += event("message_delta", delta={"stop_reason": answer["stop_reason"]}, usage=answer["usage"])
    return out + event("message_stop")


def read(data, at=AT):
    reader, collector = DIALECT.reader(at), Collector()
    events = reader.feed(data) + reader.close()
    for one in events:
        collector.add(one)
    return collector.response(), events


def test_the_dialect_is_found_by_its_name():
    assert dialect("anthropic.messages") is DIALECT
    assert DIALECT.name == "anthropic.messages"


def test_an_answer_sent_back_is_the_same_content_in_the_same_order():
    answer = decode(ANSWER)
    results = Message("tool", (ToolResult("toolu_1", (Text("ok"),)), ToolResult("toolu_2")))
    body, losses = encode(ask(HELLO, answer.message, results))
    assert body["messages"][1] == {"role": "assistant", "content": BLOCKS}
    assert losses == []


def test_a_streamed_answer_is_the_message_the_whole_one_is():
    whole = decode(ANSWER)
    response, _ = read(streamed(ANSWER))
    assert response.message == whole.message
    assert response.extra == whole.extra == {"anthropic.messages": {"container": {"id": "box"}}}
    assert (response.id, response.model, response.finish_reason) == (whole.id, whole.model, whole.finish_reason)
    assert (response.usage.input, response.usage.output) == (whole.usage.input, whole.usage.output) == (3, 4)


def test_arguments_go_back_in_the_bytes_the_model_wrote():
    written = '{"b":  1.0, "a": 12345678901234567890123, "b2":"\\u00e9"}'
    call = Message("assistant", (ToolCall("t", "f", written),))
    wire, _ = DIALECT.encode_request(ask(HELLO, call, Message("tool", (ToolResult("t"),))), AT)
    assert written.encode() in wire.body


def test_the_body_opens_with_model_limit_and_instructions():
    request = Request("m", (Message("system", (Text("s"),)), HELLO), max_tokens=5, tools=(Tool("f"),), stream=True)
    body, _ = encode(request)
    assert list(body) == ["model", "max_tokens", "system", "messages", "tools", "stream"]


def test_one_beta_feature_may_be_a_plain_string():
    wire, _ = DIALECT.encode_request(ask(HELLO), Endpoint(options={"beta": "files-1"}))
    assert wire.headers["anthropic-beta"] == "files-1"
    assert "anthropic-beta" not in DIALECT.encode_request(ask(HELLO), AT).wire.headers


@pytest.mark.parametrize(
    ("request_", "at", "must"),
    [
        (ask(HELLO), AT, False),
        (Request("m", (HELLO,), max_tokens=21_333), AT, False),
        (Request("m", (HELLO,), max_tokens=21_334), AT, True),
        (Request("m", (HELLO,)), AT, False),
        (Request("m", (HELLO,)), Endpoint(options={"max_output": 64_000}), True),
        (Request("m", (HELLO,), thinking=Thinking(budget_tokens=30_000)), AT, True),
    ],
)
def test_a_limit_too_large_to_wait_for_must_stream(request_, at, must):
    assert DIALECT.must_stream(request_, at) is must


def test_the_hint_of_an_unanswered_call_names_it():
    request = ask(HELLO, Message("assistant", (ToolCall("call_9", "f"),)), HELLO, Message("assistant", (Text("x"),)))
    with pytest.raises(InputError, match=re.escape("messages[1].parts[0]")) as caught:
        DIALECT.encode_request(request, AT)
    assert "call_9" in caught.value.hint
    assert caught.value.sent == "no"


@pytest.mark.parametrize(
    "request_",
    [
        ask(Message("user", (Text("\ud800"),))),
        ask(Message("user", (Text(5),))),
        ask(Message("captain", (Text("x"),))),
        ask(HELLO, tools=(Tool("f", parameters={"x": object()}),)),
        ask(HELLO, tools=(Tool("f"),), tool_choice=ToolChoice("maybe")),
        ask(HELLO, tools=(5,)),
    ],
)
def test_values_that_cannot_be_sent_are_refused_as_input(request_):
    with pytest.raises(InputError):
        DIALECT.encode_request(request_, AT)


def test_bytes_after_the_end_say_nothing():
    reader = DIALECT.reader(AT)
    events = reader.feed(streamed(ANSWER) + event("message_delta", delta={"stop_reason": "max_tokens"}))
    assert isinstance(events[-1], Ended)
    assert reader.done
    assert reader.feed(streamed(ANSWER)) == reader.close() == []


def test_what_came_before_a_failure_is_given_with_it():
    data = streamed({**ANSWER, "content": [{"type": "text", "text": "half"}]})
    data = data[: data.index(b"event: content_block_stop")] + b"data: {nonsense\n\n"
    _, events = read(data)
    assert [one.text for one in events if isinstance(one, TextDelta)] == ["ha", "lf"]
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, BadResponseError)


def test_a_damaged_aws_message_is_a_bad_response():
    _, events = read(b"\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00" + b"x" * 20)
    assert [type(one) for one in events] == [Failed]
    assert events[0].error.kind == "bad_response"


def test_an_aws_message_cut_inside_is_an_interruption():
    _, events = read(b"\x00\x00\x00\x20")
    assert events[0].error.kind == "stream_interrupted"


def test_an_answer_in_one_piece_may_not_grow_without_end():
    reader = DIALECT.reader(AT)
    assert reader.feed(b'{"content": "') == []
    (failed,) = reader.feed(b"x" * MAX_FRAME)
    assert failed.error.kind == "bad_response"


def test_json_nested_beyond_reason_is_a_bad_response():
    _, events = read(b'data: {"type": ' + b"[" * 100_000 + b"\n\n")
    assert events[-1].error.kind == "bad_response"


# ---- properties -------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["type", "text", "id", "name", "input", "citations", "content", "error", "usage", "message", "index", "delta",
     "content_block", "stop_details", "partial_json", "data", "signature"]
)  # fmt: skip
NAMES = ["text", "thinking", "tool_use", "redacted_thinking", "message_start", "content_block_start", "error",
         "content_block_delta", "message_delta", "text_delta", "input_json_delta", "citations_delta"]  # fmt: skip
WIRE = st.recursive(
    st.sampled_from([*NAMES, None, 0, 1, "", True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)


FIELDS = st.dictionaries(KEYS.filter(lambda key: key != "type"), WIRE, max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, WIRE, max_size=6) | JSON)
def test_any_json_decodes_or_is_an_error_of_ours(body):
    reply = Reply(200, {}, json.dumps(body).encode())
    assert isinstance(DIALECT.decode_error(Reply(400, {}, reply.body), AT), PolyvoxError)
    try:
        assert isinstance(DIALECT.decode_response(reply, AT), Response)
    except PolyvoxError as error:
        assert error.message


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*NAMES, "ping", "odd"]), FIELDS), max_size=6))
def test_any_events_end_once_and_never_raise(events):
    _, found = read(b"".join(event(kind, **fields) for kind, fields in events))
    assert [type(one) for one in found if isinstance(one, Ended | Failed)] == [type(found[-1])]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.builds(lambda tail: b"\x00" + tail, st.binary(max_size=60)))
def test_any_bytes_end_once_and_never_raise(data):
    _, found = read(data)
    assert isinstance(found[-1], Failed)


IDS = st.sampled_from(["a", "b", "functions.f:0", ""])
PARTS = st.one_of(
    st.builds(Text, st.sampled_from(["", " ", "word", "end \n"])),
    st.builds(Reasoning, signature=st.sampled_from([None, "s"]), origin=st.sampled_from([None, "x", "here/model"])),
    st.builds(ToolCall, IDS, st.just("f"), st.sampled_from(["", "{}", "[", '{"k": 1}'])),
    st.builds(ToolResult, IDS, st.sampled_from([(), (Text("r"),), (Text(""), Image(url="https://a.example/i.png"))])),
    st.builds(Opaque, st.sampled_from(["anthropic.messages", "other"]), st.just("t"), st.just({"type": "t", "id": "o"}))
)  # fmt: skip
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
MESSAGES = st.builds(Message, ROLES, st.lists(PARTS, max_size=3).map(tuple))


def answered(messages):
    """The messages with a result right behind every call that has none of its own."""
    for message in messages:
        parts = tuple(part for part in message.parts if type(part) is not ToolResult)
        yield msgspec.structs.replace(message, parts=parts)
        calls = [part for part in parts if type(part) is ToolCall] if message.role == "assistant" else []
        if calls:
            yield Message("tool", tuple(ToolResult(call.id, (Text("done"),)) for call in calls))


@settings(max_examples=200, deadline=None)
@given(st.lists(MESSAGES, max_size=6), st.booleans(), st.sampled_from([AT, STRICT]))
def test_any_conversation_is_refused_here_or_goes_out_in_good_form(messages, answer, at):
    try:
        body, _ = encode(ask(*(answered(messages) if answer else messages)), at)
    except InputError as error:
        assert error.hint
        assert not answer or not any(
            block for message in messages if message.role not in ("system", "developer") for block in message.parts
            if type(block) is Text and block.text.strip()
        )  # fmt: skip
        return
    turns = body["messages"]
    seen, waiting = set(), set()
    for before, turn in zip([None, *turns], turns, strict=False):
        assert before is None or before["role"] != turn["role"]
        content = turn["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        assert blocks
        kinds = [block["type"] for block in blocks]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        assert kinds[: len(results)] == ["tool_result"] * len(results)
        assert waiting <= set(results)
        assert all(block["text"].strip() for block in blocks if block["type"] == "text")
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", call) for call in calls)
        assert len(set(calls)) == len(calls) and not seen & set(calls)
        assert turn["role"] == "assistant" or not calls
        seen |= set(calls)
        waiting = set(calls)
    assert not waiting
