"""Answering in the Converse protocol: what came is told as it came, what cannot be said is told as lost, and
nothing that did not end looks as if it had."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import NAMES, Peek, Reply, dialect
from polyvox.dialects.bedrock import DIALECT
from polyvox.dialects.collect import Collector, as_events
from polyvox.dialects.framing import AwsEventStream
from polyvox.errors import BY_KIND, BadResponseError, PolyvoxError, StreamInterruptedError, of_kind
from polyvox.types import (
    Choice,
    Citation,
    CitationAdded,
    Ended,
    ExtraAdded,
    Failed,
    File,
    Image,
    Message,
    Opaque,
    PartAdded,
    Reasoning,
    ReasoningDelta,
    ReasoningProof,
    RefusalDelta,
    Response,
    Started,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageReported,
    Video,
)
from tests.dialects.test_bedrock_serving import (
    ANY_TEXT,
    AT,
    CASES,
    CITATIONS,
    CITING,
    FILES,
    IDS,
    IMAGES,
    NAME,
    OPAQUE,
    RAN,
    REASONING,
    body_of,
    bytes_of,
    exchanges,
    vectors,
)

ASKED = Peek("asked", stream=True)


def collected(events):
    collector = Collector()
    for event in events:
        collector.add(event)
    return collector.response(), collector.failed and collector.failed.error


def read(data, room=DIALECT):
    reader = room.reader(AT)
    return reader.feed(data) + reader.close()


def written(events):
    writer = DIALECT.writer(ASKED)
    data = b"".join([writer.send(event) for event in events]) + writer.close()
    assert writer.done
    return data, writer.losses


# ---- whole answers ----------------------------------------------------------------------------


def told(response, asked=ASKED):
    reply, losses = DIALECT.encode_response(response, asked)
    assert reply.headers["content-type"] == "application/json"
    return reply, [loss.field for loss in losses]


def same(response):
    """A response without what is not the answer: the bytes it came in, and what the protocol demands of each."""
    usage = msgspec.structs.replace(response.usage, raw={})
    if usage.input is None or usage.output is None or usage.total is None:
        # Nobody counted; a client is told 0, which `test_a_number_nobody_said` holds to be noted.
        total = (usage.input or 0) + (usage.output or 0) if usage.total is None else usage.total
        cached = (usage.cache_read or 0) + (usage.cache_write or 0)
        counts = {"input": cached if usage.input is None else usage.input, "output": usage.output or 0}
        usage = msgspec.structs.replace(usage, **counts, total=total, source="provider")
    return msgspec.structs.replace(response, raw=b"", usage=usage)


def told_the_same(response, place):
    reply, losses = told(response)
    if response.finish_reason == "unknown":
        # It is told as an end, with a loss that says so.
        assert "finish_reason" in losses
        response = msgspec.structs.replace(response, finish_reason="stop", raw_finish_reason="end_turn")
    again = DIALECT.decode_response(reply, AT)
    assert same(again) == same(response), place


@pytest.mark.parametrize("name", vectors("response"))
def test_an_answer_of_this_protocol_is_told_as_it_came(name):
    vector = CASES[name]
    try:
        response = DIALECT.decode_response(Reply(200, vector.get("headers", {}), bytes_of(vector)), AT)
    except PolyvoxError:
        assert "error" in vector["expect"]
        return
    told_the_same(response, name)


def recorded(streamed):
    for exchange in exchanges():
        if "/converse" in (exchange["url"] or "") and exchange["status"] == 200 and exchange["streamed"] is streamed:
            yield exchange["id"], body_of(exchange)


def test_recorded_answers_are_told_as_they_came():
    found = list(recorded(streamed=False))
    assert len(found) > 15
    for place, body in found:
        told_the_same(DIALECT.decode_response(Reply(200, {}, body), AT), place)


def test_usage_is_told_in_the_protocols_own_counting():
    usage = Usage(
        input=100, output=7, cache_read=60, cache_write=30, cache_write_by_ttl={"5m": 30}, reasoning=2, total=107
    )  # fmt: skip
    reply, losses = told(Response(Message("assistant"), "stop", usage=usage))
    assert json.loads(reply.body)["usage"] == {
        "inputTokens": 10,
        "outputTokens": 7,
        "totalTokens": 107,
        "cacheReadInputTokens": 60,
        "cacheWriteInputTokens": 30,
        "cacheDetails": [{"ttl": "5m", "inputTokens": 30}],
    }
    assert losses == ["usage.reasoning", "metrics"]


def test_a_number_nobody_said_is_noted():
    reply, losses = told(Response(Message("assistant"), "stop", usage=Usage(cache_read=4)))
    assert json.loads(reply.body)["usage"] == {
        "inputTokens": 0, "outputTokens": 0, "totalTokens": 0, "cacheReadInputTokens": 4,
    }  # fmt: skip
    assert losses == ["usage.input", "usage.output", "metrics"]


def test_a_time_nobody_measured_is_not_read_as_a_measurement():
    reply, losses = told(Response(Message("assistant"), "stop", usage=Usage(1, 1, total=2)))
    assert json.loads(reply.body)["metrics"] == {"latencyMs": 0} and losses == ["metrics"]
    assert DIALECT.decode_response(reply, AT).extra == {}


@pytest.mark.parametrize("reason", ["error", "incomplete", "cancelled", None])
def test_an_answer_that_did_not_end_is_an_error(reason):
    response = Response(Message("assistant", (Text("half"),)), reason, request_id="r1")
    reply, losses = told(response)
    assert reply.status >= 400 and losses == ["message"]
    assert DIALECT.decode_error(reply, AT).request_id == "r1"
    data, _ = written([*as_events(response)[:-1], Ended(reason)])
    assert isinstance(read(data)[-1], Failed)


def test_a_partial_answer_is_an_error_whatever_reason_had_come():
    reply, _ = told(Response(Message("assistant", (Text("half"),)), "stop", complete=False))
    assert reply.status == 502


def test_a_failure_that_the_protocol_has_a_word_for_is_told_by_it():
    response = Response(Message("assistant", (Text("{"),)), "error", "malformed_tool_use")
    assert json.loads(told(response)[0].body)["stopReason"] == "malformed_tool_use"
    end = read(written(as_events(response))[0])[-1]
    assert end == Ended("error", "malformed_tool_use")


def test_what_has_no_place_in_an_answer_is_told_as_lost():
    parts = (
        Text("cited", (Citation(url="https://a.example", start=1),), signature="g"),
        Reasoning("thought", "p", extra={"gemini.generate": {"k": 1}}),
        Image(url="https://a.example/x.png"),
        ToolCall("functions f:0", "f", "not json", signature="z"),
        Opaque("openai.responses", "web_search_call", {"id": "ws"}),
    )
    response = Response(
        Message("assistant", parts),
        "tool_calls",
        "tool_calls",
        stop_sequence="x",
        id="chatcmpl-1",
        model="m",
        created=5.0,
        usage=Usage(input=1, output=1, total=2),
        choices=(Choice(Message("assistant")),),
        extra={"openai.chat": {"system_fingerprint": "fp"}},
    )
    reply, losses = told(response)
    body = json.loads(reply.body)
    assert body["output"]["message"]["content"] == [
        {"citationsContent": {
            "content": [{"text": "cited"}], "citations": [{"location": {"web": {"url": "https://a.example"}}}],
        }},
        {"reasoningContent": {"reasoningText": {"text": "thought"}}},
        {"toolUse": {"toolUseId": "functions_f:0", "name": "f", "input": {"input": "not json"}}},
    ]  # fmt: skip
    assert body["stopReason"] == "tool_use"
    assert set(losses) == {
        "message.parts[0].citations",
        "message.parts[0].signature",
        "message.parts[1].extra.gemini.generate",
        "message.parts[1].reasoning",
        "message.parts[2].image",
        "message.parts[3].id",
        "message.parts[3].signature",
        "message.parts[3].arguments",
        "message.parts[4].opaque",
        "stop_sequence",
        "choices",
        "id",
        "model",
        "created",
        "metrics",
        "extra.openai.chat",
    }


def test_a_value_that_is_no_json_is_a_bad_response():
    for value in (object(), "\ud800"):
        response = Response(Message("assistant", (Opaque(NAME, "x", {"x": {"v": value}}),)), "stop")
        with pytest.raises(BadResponseError):
            DIALECT.encode_response(response, ASKED)
        data, _ = written(as_events(response))
        assert read(data)[-1].error.kind == "server"


@pytest.mark.parametrize("kind", [Image, Video, File])
def test_a_medium_of_nothing_is_a_loss_and_the_rest_is_told(kind):
    response = Response(Message("assistant", (Text("Here."), kind(), Text("There."))), "stop")
    reply, losses = DIALECT.encode_response(response, ASKED)
    lost = f"message.parts[1].{kind.__struct_config__.tag}"
    assert DIALECT.decode_response(reply, AT).text == "Here.There." and lost in {loss.field for loss in losses}
    data, losses = written(as_events(response))
    assert read(data)[-1] == Ended("stop", "end_turn") and lost in {loss.field for loss in losses}


# ---- errors -----------------------------------------------------------------------------------

# No name or status of the protocol says these; each is told as what a client should make of it.
UNSAYABLE = {
    "refusal": "invalid_request",  # a refusal is an answer here, not an error
    "bad_response": "server",  # somebody else's fault behind us, like all of these
    "connection": "server",
    "stream_interrupted": "server",
}


@pytest.mark.parametrize("kind", BY_KIND)
def test_an_error_keeps_its_kind(kind):
    reply = DIALECT.encode_error(of_kind(kind, "m"))
    again = DIALECT.decode_error(reply, AT)
    assert again.kind == UNSAYABLE.get(kind, kind)
    assert again.message == "m"
    assert again.retryable == of_kind(kind, "m").retryable
    writer = DIALECT.writer(ASKED)
    (failed,) = read(writer.send(Failed(of_kind(kind, "m"))))
    assert failed.error.kind == UNSAYABLE.get(kind, kind)


STATUSES = st.none() | st.sampled_from([200, 400, 401, 402, 403, 404, 409, 413, 422, 429, 498, 499, 500, 503, 504, 529])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(set(BY_KIND) - set(UNSAYABLE))), STATUSES, st.none() | st.sampled_from(["odd_code", "7"]))
def test_an_error_keeps_its_kind_whatever_status_it_came_with(kind, status, code):
    reply = DIALECT.encode_error(of_kind(kind, "m", status=status, code=code))
    assert reply.status >= 400
    assert DIALECT.decode_error(reply, AT).kind == kind


def test_what_is_known_of_an_error_goes_along_and_nothing_else_does():
    error = of_kind(
        "rate_limit", "slow down", code="burst", param="max_tokens", request_id="req_1", retry_after=1.5,
        hint="a hint", provider="p", status=429,
    )  # fmt: skip
    reply = DIALECT.encode_error(error)
    again = DIALECT.decode_error(reply, AT)
    assert (again.message, again.code, again.request_id) == ("slow down", "burst", "req_1")
    assert (again.retry_after, again.type) == (1.5, "ThrottlingException")
    assert json.loads(reply.body) == {"message": "slow down", "code": "burst"}
    assert reply.headers == {
        "content-type": "application/json", "x-amzn-errortype": "ThrottlingException", "retry-after": "2",
        "retry-after-ms": "1500", "x-amz-retry-after": "1500", "x-amzn-requestid": "req_1",
    }  # fmt: skip


# ---- streams ----------------------------------------------------------------------------------


def frames(data):
    """What was written: of each frame its kind and its JSON."""
    stream = AwsEventStream()
    found = []
    for message in stream.feed(data):
        kind = message.headers.get(":event-type") or message.headers[":exception-type"]
        found.append((kind, message.headers[":message-type"], json.loads(message.payload)))
    assert stream.close() == []
    return found


def well_formed(data):
    """The order of events that the protocol promises its clients; gives their kinds."""
    kinds, opened, index = [], None, -1
    for kind, sort, facts in frames(data):
        assert "exception" not in kinds and (kinds[-1:] != ["metadata"] or sort == "exception"), "the end is the end"
        if sort == "exception":
            kinds.append(sort)
            continue
        assert ("messageStart" in kinds) != (kind == "messageStart"), "one start, before everything"
        assert "messageStop" not in kinds or kind == "metadata"
        if kind == "contentBlockStart":
            assert opened is None and facts["contentBlockIndex"] == index + 1
            opened, index = True, index + 1
        elif kind == "contentBlockDelta":
            if opened is None:
                index, opened = index + 1, True
            assert facts["contentBlockIndex"] == index and len(facts["delta"]) == 1
        elif kind == "contentBlockStop":
            assert facts["contentBlockIndex"] == index and opened
            opened = None
        elif kind == "messageStop":
            assert opened is None
        kinds.append(kind)
    assert kinds[-1] == "exception" or kinds[-2:] == ["messageStop", "metadata"]
    return kinds


def streams_the_same(events, place):
    data, losses = written(events)
    well_formed(data)
    before, error = collected(events)
    after, error_after = collected(read(data))
    assert (error is None) == (error_after is None), place
    if error is not None:
        assert error_after.message == error.message
        before = msgspec.structs.replace(
            before, finish_reason=after.finish_reason, raw_finish_reason=None, usage=after.usage
        )  # fmt: skip
    elif before.finish_reason == "unknown":
        assert "finish_reason" in [loss.field for loss in losses]
        before = msgspec.structs.replace(before, finish_reason="stop", raw_finish_reason="end_turn")
    assert same(after) == same(before), place


@pytest.mark.parametrize("name", vectors("stream"))
def test_a_stream_of_this_protocol_is_told_as_it_came(name):
    streams_the_same(read(bytes_of(CASES[name])), name)


@pytest.mark.parametrize("name", vectors("response"))
def test_a_whole_answer_told_as_a_stream_is_the_same_answer(name):
    try:
        response = DIALECT.decode_response(Reply(200, {}, bytes_of(CASES[name])), AT)
    except PolyvoxError:
        return
    data, _ = written(as_events(response))
    well_formed(data)
    again, error = collected(read(data))
    assert error is None
    assert again.text == response.text and again.reasoning == response.reasoning
    assert [call.name for call in again.tool_calls] == [call.name for call in response.tool_calls]


def test_recorded_streams_are_told_as_they_came():
    found = list(recorded(streamed=True))
    assert len(found) > 8
    for place, body in found:
        streams_the_same(read(body), place)


def test_recorded_whole_answers_are_the_same_told_as_streams():
    for place, body in recorded(streamed=False):
        streams_the_same(as_events(DIALECT.decode_response(Reply(200, {}, body), AT)), place)


def tells_what_it_can(events, place):
    """Answers of other protocols: in good order, and the words, calls and ends that can be said are."""
    data, losses = written(events)
    well_formed(data)
    before, error = collected(events)
    after, error_after = collected(read(data))
    ends = error is None and before.finish_reason not in ("error", "incomplete", "cancelled")
    assert (error_after is None) == ends, place
    fields = " ".join(loss.field for loss in losses)
    assert after.text.startswith(before.text) or not ends or {"audio", "refusal"} & set(fields.split(".")), place
    assert after.reasoning == before.reasoning, place
    calls = [(call.name, call.arguments or "{}") for call in before.tool_calls if call.kind == "function"]
    if ends and "arguments" not in fields:
        assert calls == [(call.name, call.arguments) for call in after.tool_calls], place
    for field, value in (("choices", before.choices), ("logprobs", before.logprobs), ("extra", before.extra)):
        assert not value or not ends or field in fields, (place, field)
    if ends:
        assert before.usage.input in (None, after.usage.input), place
        assert before.usage.output in (None, after.usage.output), place


@pytest.mark.parametrize("name", [name for room in NAMES if room != NAME for name in vectors("stream", room)])
def test_streams_of_other_protocols_are_told_in_good_order(name):
    tells_what_it_can(read(bytes_of(CASES[name]), dialect(name.split("/")[0])), name)


MIXED = [
    Started(),
    ReasoningDelta("hm", 0),
    ReasoningProof(0, "sig"),
    TextDelta("Look", 1),
    TextDelta("ing.", 1),
    ToolCallStarted(2, "t1", "f"),
    ToolCallDelta(2, '{"a": '),
    ToolCallStarted(3, "t2", "g"),
    ToolCallDelta(2, "1}"),
    ToolCallEnded(2),
    ToolCallEnded(3),
    UsageReported(Usage(input=5, output=30)),
    Ended("tool_calls"),
]


def test_a_written_stream_that_is_cut_is_never_an_end():
    data, _ = written(MIXED)
    stop = data.index(b"messageStop")
    for cut in range(len(data)):
        response, error = collected(read(data[:cut]))
        if error is None:
            # What is told behind the stop is no part of the answer.
            assert cut > stop and response.complete and response.usage == Usage()
        else:
            assert error.kind == "stream_interrupted"


PART = st.integers(0, 3)
EVENTS = st.one_of(
    st.builds(TextDelta, ANY_TEXT, PART, st.sampled_from([0, 0, 0, 1])),
    st.builds(ReasoningDelta, ANY_TEXT, PART),
    st.builds(RefusalDelta, ANY_TEXT, PART),
    st.builds(
        ReasoningProof, PART, st.none() | ANY_TEXT, st.none() | ANY_TEXT,
        extra=st.sampled_from([{}, {NAME: {"k": 1}}, {"openai.chat": {"k": 1}}]),
    ),
    st.builds(ToolCallStarted, PART, ANY_TEXT, IDS, st.sampled_from(["function", "custom"])),
    st.builds(ToolCallDelta, PART, st.sampled_from(["", "{", "}", '"k": 1', "text"])),
    st.builds(ToolCallEnded, PART),
    st.builds(CitationAdded, PART, CITATIONS | st.just(Citation(url="https://a.example")) | st.just(Citation())),
    st.builds(
        PartAdded, PART,
        st.one_of(CITING, REASONING, OPAQUE, RAN, IMAGES, FILES, st.builds(ToolCall, ANY_TEXT, IDS)),
    ),
    st.builds(UsageReported, st.builds(Usage, st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))),
    st.builds(ExtraAdded, st.sampled_from([{NAME: {"fog": {"k": 1}, "metrics": {"latencyMs": 4}}}, {"o": {"k": 1}}])),
    st.builds(Started, ANY_TEXT, ANY_TEXT),
)  # fmt: skip
ENDS = st.sampled_from([
    Ended("stop"), Ended("tool_calls"), Ended("unknown", "odd"), Ended("error"), Failed(of_kind("server", "m"), "stop"),
    Failed(StreamInterruptedError("cut")), None,
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=12), ENDS)
def test_any_events_are_told_in_good_order_and_end_as_they_did(events, end):
    data, _ = written([*events, *([] if end is None else [end])])
    kinds = well_formed(data)
    fine = isinstance(end, Ended) and end.finish_reason != "error"
    assert kinds[-1] == ("metadata" if fine else "exception")
    response, error = collected(read(data))
    assert (error is None) == fine
    words = "".join(event.text for event in events if type(event) in (TextDelta, RefusalDelta) and not event.choice)
    added = [event.value.text for event in events if type(event) is PartAdded and type(event.value) is Text]
    assert sorted(response.text) == sorted(words + "".join(added))


def order(*events):
    data, losses = written([Started(), *events])
    return [(kind, *shortly(facts)) for kind, _, facts in frames(data)], losses


def shortly(facts):
    if "contentBlockIndex" not in facts:
        return ()
    said = facts.get("delta") or facts.get("start") or {}
    return (facts["contentBlockIndex"], *list(said.values())[:1])


HEAD, TAIL = [("messageStart",)], [("messageStop",), ("metadata",)]


def test_words_and_thoughts_are_not_announced():
    found, _ = order(ReasoningDelta("hm", 0), ReasoningProof(0, "sig"), TextDelta("Yes", 1), Ended("stop"))
    assert found == [
        *HEAD,
        ("contentBlockDelta", 0, {"text": "hm"}), ("contentBlockDelta", 0, {"signature": "sig"}),
        ("contentBlockStop", 0), ("contentBlockDelta", 1, "Yes"), ("contentBlockStop", 1),
        *TAIL,
    ]  # fmt: skip


def test_calls_that_grow_side_by_side_are_told_one_after_the_other():
    found, losses = order(
        ToolCallStarted(0, "a", "f"), ToolCallStarted(1, "b", "g"), ToolCallDelta(0, '{"x'), ToolCallDelta(1, "{"),
        ToolCallDelta(0, '":1}'), ToolCallDelta(1, "}"), ToolCallEnded(0), ToolCallEnded(1), Ended("tool_calls"),
    )  # fmt: skip
    assert found == [
        *HEAD,
        ("contentBlockStart", 0, {"toolUseId": "a", "name": "f"}), ("contentBlockDelta", 0, {"input": '{"x'}),
        ("contentBlockDelta", 0, {"input": '":1}'}), ("contentBlockStop", 0),
        ("contentBlockStart", 1, {"toolUseId": "b", "name": "g"}), ("contentBlockDelta", 1, {"input": "{"}),
        ("contentBlockDelta", 1, {"input": "}"}), ("contentBlockStop", 1),
        *TAIL,
    ]  # fmt: skip
    assert [loss.field for loss in losses] == ["metrics", "usage.input", "usage.output"]


def test_an_error_midway_leaves_its_block_open_and_makes_no_end():
    found, _ = order(TextDelta("ha", 0), UsageReported(Usage(3, 1)), Failed(of_kind("overloaded", "busy")))
    assert found == [*HEAD, ("contentBlockDelta", 0, "ha"), ("metadata",), ("modelNotReadyException",)]


def test_a_stream_nobody_ended_says_that_it_was_cut():
    data, _ = written([Started(), TextDelta("ha")])
    assert frames(data)[-1] == (
        "internalServerException", "exception", {"message": "the answer broke off before its end"}
    )  # fmt: skip


def test_there_are_no_frames_that_mean_nothing():
    assert DIALECT.writer(ASKED).keep_alive() == b""
