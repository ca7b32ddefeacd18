"""The Gemini dialect beyond its vectors: turns go back as they came, what is signed goes home, nothing the wire says
leaves our tree of errors."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from polyvox.dialects import Endpoint, Reply, dialect
from polyvox.dialects.collect import Collector
from polyvox.dialects.framing import MAX_FRAME
from polyvox.errors import BadResponseError, InputError, PolyvoxError
from polyvox.types import (
    Ended,
    Failed,
    Message,
    PartAdded,
    Request,
    Started,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    UsageReported,
)

GEMINI = dialect("gemini.generate")
AT = Endpoint(origin="home/twin")
PARTS = [
    {"text": "Which lake?", "thought": True},
    {"text": "Let me look."},
    {"functionCall": {"id": "c1", "name": "depth", "args": {"lake": "Tarn", "n": 1.0}}, "thoughtSignature": "c2ln"},
]


def piece(*parts, finish=None, **facts):
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "twin-1", "responseId": "r1", **facts}


def answer(**facts):
    return Reply(200, {}, json.dumps(piece(*PARTS, finish="STOP", **facts)).encode())


def sse(*pieces):
    return b"".join([b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in pieces])


def read(data, at=AT):
    reader, collector = GEMINI.reader(at), Collector()
    events = reader.feed(data) + reader.close()
    for event in events:
        collector.add(event)
    return events, collector


def sent(request, at=AT):
    wire, losses = GEMINI.encode_request(request, at)
    return json.loads(wire.body), losses


def test_an_assistants_turn_goes_back_as_it_came():
    turn = GEMINI.decode_response(answer(), AT).message
    body, losses = sent(Request("m", (turn, Message("tool", (ToolResult("c1", (Text("4 m"),)),)))))
    assert body["contents"][0] == {"role": "model", "parts": PARTS}
    assert body["contents"][1]["parts"] == [
        {"functionResponse": {"id": "c1", "name": "depth", "response": {"result": "4 m"}}}
    ]
    assert losses == ()


def test_a_streamed_turn_goes_back_like_a_whole_one():
    _, collector = read(sse(*[piece(part) for part in PARTS], piece(finish="STOP")))
    assert collector.response().message == GEMINI.decode_response(answer(), AT).message


def test_a_turn_that_goes_elsewhere_leaves_its_thoughts_and_signatures_at_home():
    turn = GEMINI.decode_response(answer(), AT).message
    result = Message("tool", (ToolResult("c1", (Text("4 m"),)),))
    body, losses = sent(Request("m", (turn, result)), Endpoint(origin="away/m"))
    assert [list(part) for part in body["contents"][0]["parts"]] == [["text"], ["functionCall"]]
    assert [(loss.field, loss.why) for loss in losses] == [
        ("messages[0].parts[0].reasoning", "bound to home/twin"),
        ("messages[0].parts[2].signature", "bound to home/twin"),
    ]


def test_calls_without_ids_are_named_alike_whole_and_streamed_and_otherwise_in_every_answer():
    call = {"functionCall": {"name": "f"}}
    whole = GEMINI.decode_response(Reply(200, {}, json.dumps(piece(call, call, finish="STOP")).encode()), AT)
    streamed = read(sse(piece(call), piece(call, finish="STOP")))[1].response()
    assert [made.id for made in whole.tool_calls] == ["call_r1_0", "call_r1_1"]
    assert whole.tool_calls == streamed.tool_calls
    other = read(sse(piece(call, finish="STOP", responseId="r2")))[1].response()
    assert other.tool_calls[0].id == "call_r2_0"


def test_the_same_id_twice_in_an_answer_is_two_calls():
    call = {"functionCall": {"id": "a", "name": "f"}}
    found = GEMINI.decode_response(Reply(200, {}, json.dumps(piece(call, call, finish="STOP")).encode()), AT)
    assert [made.id for made in found.tool_calls] == ["a", "a_"]


def test_arguments_go_out_in_the_models_own_bytes():
    call = ToolCall("c", "f", '{ "n":1.0, "big":12345678901234567890123 }')
    turns = (Message("assistant", (call,)), Message("tool", (ToolResult("c"),)))
    wire, _ = GEMINI.encode_request(Request("m", turns), AT)
    assert b'"args":{ "n":1.0, "big":12345678901234567890123 }' in wire.body


@pytest.mark.parametrize(
    ("words", "is_error", "response"),
    [
        ("4 m", False, {"result": "4 m"}),
        ("4 m", True, {"error": "4 m"}),
        ('{"depth":4}', False, {"depth": 4}),
        ('{"depth":4}', True, {"error": '{"depth":4}'}),
        ('{"error":"x"}', False, {"result": '{"error":"x"}'}),
        ('{"result":"x"}', False, {"result": '{"result":"x"}'}),
        ("[4]", False, {"result": "[4]"}),
        ("{4", False, {"result": "{4"}),
        ("{}", False, {"result": "{}"}),
    ],
)
def test_what_a_tool_gave_is_an_object_on_the_wire(words, is_error, response):
    result = Message("tool", (ToolResult("c", (Text(words),), is_error=is_error),))
    body, _ = sent(Request("m", (Message("assistant", (ToolCall("c", "f"),)), result)))
    assert body["contents"][1]["parts"][0]["functionResponse"]["response"] == response


def growing(*values, more=True, **call):
    return piece({"functionCall": {"partialArgs": list(values), "willContinue": more, **call}})


def test_arguments_that_come_value_by_value_are_one_object():
    found = read(
        sse(
            growing({"jsonPath": "$.lake", "stringValue": "Ta", "willContinue": True}, id="c1", name="f"),
            growing({"jsonPath": "$.lake", "stringValue": "rn"}, {"jsonPath": "$.at[0].n", "numberValue": 1.5}),
            growing({"jsonPath": "$.at[1]", "boolValue": False}, {"jsonPath": "$['a.b']", "nullValue": "NULL_VALUE"}),
            piece({"functionCall": {}}, finish="STOP"),
        )
    )[1].response()
    assert found.finish_reason == "tool_calls"
    assert [(call.id, call.name) for call in found.tool_calls] == [("c1", "f")]
    assert found.tool_calls[0].args == {"lake": "Tarn", "at": [{"n": 1.5}, False], "a.b": None}


def test_a_signed_text_of_a_stream_has_the_sources_that_come_behind_it():
    grounds = {
        "groundingChunks": [{"web": {"uri": "https://e.com", "title": "E"}}],
        "groundingSupports": [{"segment": {"endIndex": 2, "text": "Hi"}, "groundingChunkIndices": [0]}],
    }
    end = {"candidates": [{"index": 0, "finishReason": "STOP", "groundingMetadata": grounds}]}
    signed = piece({"text": "Hi", "thoughtSignature": "c2ln"})
    events, _ = read(sse(signed, end))
    (said,) = [event.value for event in events if isinstance(event, PartAdded)]
    assert (said.text, said.signature) == ("Hi", "c2ln")
    assert [(one.url, one.start, one.end) for one in said.citations] == [("https://e.com", 0, 2)]
    # Where the stream is cut, or goes on with another part, the words are told all the same.
    for rest in ((), (piece({"text": "More"}, finish="STOP"),)):
        words = [event.value.text for event in read(sse(signed, *rest))[0] if isinstance(event, PartAdded)]
        assert words == ["Hi"]


def test_usage_behind_the_end_is_told():
    events, collector = read(sse(piece({"text": "Hi"}, finish="STOP"), {"usageMetadata": {"promptTokenCount": 3}}))
    assert [type(event) for event in events] == [Started, TextDelta, UsageReported, Ended]
    assert collector.response().usage.input == 3


def test_an_error_behind_the_end_is_an_error():
    error = {"error": {"code": 500, "message": "Broke.", "status": "INTERNAL"}}
    events, _ = read(sse(piece({"text": "Hi"}, finish="STOP")) + json.dumps(error, indent=2).encode())
    assert isinstance(events[-1], Failed) and events[-1].error.kind == "server"
    assert events[-1].finish_reason == "stop" and events[-1].error.sent == "yes"


def test_words_that_look_like_bare_json_are_words():
    text = '\n{"error": {"code": 500}}\n[1]'
    assert read(sse(piece({"text": text}), piece({"text": text}, finish="STOP")))[1].response().text == text * 2


def test_the_wait_of_an_error_is_in_its_details():
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    body = {"error": {"code": 429, "message": "Slow.", "status": "RESOURCE_EXHAUSTED", "details": details}}
    error = GEMINI.decode_error(Reply(429, {}, json.dumps([body]).encode()), AT)
    assert (error.kind, error.retry_after, error.code, error.type) == ("rate_limit", 34.5, "429", "RESOURCE_EXHAUSTED")


def test_an_answer_that_does_not_say_its_end_is_handed_over_as_partial():
    with pytest.raises(BadResponseError) as caught:
        GEMINI.decode_response(Reply(200, {}, json.dumps(piece({"text": "Hal"})).encode()), AT)
    partial = caught.value.partial
    assert partial is not None and partial.text == "Hal"
    assert not partial.complete and partial.finish_reason == "incomplete"


@pytest.mark.parametrize(("said", "meant"), [("2026-03-01T09:00:00Z", 1772355600.0), ("yesterday", None), (7, None)])
def test_the_time_of_an_answer_is_epoch_seconds_or_nothing(said, meant):
    assert GEMINI.decode_response(answer(createTime=said), AT).created == meant


def test_the_body_of_an_answer_is_kept_as_received():
    assert GEMINI.decode_response(answer(), AT).raw == answer().body


@pytest.mark.parametrize("start", [b"data: ", b"[{", b" "])
def test_a_piece_without_bounds_is_refused(start):
    reader, events = GEMINI.reader(AT), GEMINI.reader(AT).feed(b"")
    events += reader.feed(start)
    for _ in range(MAX_FRAME // (1 << 20) + 1):
        events += reader.feed(b" " * (1 << 20))
    events += reader.close()
    assert [type(event) for event in events] == [Failed]


def test_nothing_needs_to_be_streamed():
    assert GEMINI.must_stream(Request("m"), AT) is False


def test_what_python_has_and_json_has_not_is_refused_before_sending():
    hello = (Message("user", (Text("Hi"),)),)
    for extra in ({"x": object()}, {"x": "\ud800"}):
        with pytest.raises(InputError) as caught:
            GEMINI.encode_request(Request("m", hello, extra={"gemini.generate": extra}), AT)
        assert caught.value.sent == "no"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["candidates", "content", "parts", "text", "thought", "thoughtSignature", "functionCall", "name", "args", "id",
         "partialArgs", "jsonPath", "stringValue", "willContinue", "inlineData", "mimeType", "data", "fileData",
         "finishReason", "index", "groundingMetadata", "groundingChunks", "groundingSupports", "segment", "endIndex",
         "citationMetadata", "citations", "logprobsResult", "chosenCandidates", "usageMetadata", "promptTokenCount",
         "promptTokensDetails", "promptFeedback", "blockReason", "error", "details", "createTime"]
    ), inner, max_size=5),
    max_leaves=15,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_any_json_is_an_answer_or_an_error_of_ours(value):
    for body in (value, {"candidates": value}, {"candidates": [{"content": {"parts": value}, "finishReason": "STOP"}]}):
        reply = Reply(200, {}, json.dumps(body).encode())
        try:
            GEMINI.decode_response(reply, AT)
        except PolyvoxError:
            pass
        assert isinstance(GEMINI.decode_error(structs.replace(reply, status=400), AT), PolyvoxError)
        events, _ = read(sse(body, body))
        assert isinstance(events[-1], Ended | Failed)
        assert isinstance(read(json.dumps([body]).encode())[0][-1], Ended | Failed)
