"""Answering in the Messages protocol: what came is told as it came, what cannot be said is told as lost, and
nothing that did not end looks as if it had."""

import json
import re

import anthropic
import httpx2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import NAMES, Peek, Reply, dialect
from polyvox.dialects.anthropic import DIALECT
from polyvox.dialects.collect import Collector, as_events
from polyvox.errors import BY_KIND, BadResponseError, InputError, PolyvoxError, StreamInterruptedError, of_kind
from polyvox.testing.replay import dialect_of
from polyvox.types import (
    Choice,
    Citation,
    CitationAdded,
    Ended,
    ExtraAdded,
    Failed,
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
)
from tests.dialects.test_anthropic_serving import (
    ANY_TEXT,
    AT,
    CASES,
    CITATIONS,
    CITING,
    IDS,
    IMAGES,
    NAME,
    OPAQUE,
    REASONING,
    ask,
    body_of,
    bytes_of,
    exchanges,
    said,
    vectors,
    wire,
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
    new_id = "msg_unknown" if response.id is None else "msg_" + response.id.removeprefix("msg_")
    usage = msgspec.structs.replace(response.usage, raw={})
    if usage.input is None or usage.output is None:
        # Nobody counted; a client is told 0, which `test_a_number_nobody_said` holds to be noted.
        usage = msgspec.structs.replace(usage, input=usage.input or 0, output=usage.output or 0, source="provider")
    parts = tuple(signed(part) for part in response.message.parts)
    message = msgspec.structs.replace(response.message, parts=parts)
    return msgspec.structs.replace(
        response, raw=b"", id=new_id, model=response.model or "asked", usage=usage, message=message
    )


def signed(part):
    if type(part) is Reasoning and part.encrypted is None and part.signature is None:
        return msgspec.structs.replace(part, signature="")
    return part


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


def test_recorded_answers_are_told_as_they_came():
    seen = 0
    for exchange in exchanges():
        if dialect_of(exchange["url"] or "") != NAME or exchange["status"] != 200 or exchange["streamed"]:
            continue
        body = body_of(exchange)
        if b'"content"' in body:  # an older protocol shares the URL
            told_the_same(DIALECT.decode_response(Reply(200, {}, body), AT), exchange["id"])
            seen += 1
    assert seen > 30


def test_usage_is_told_in_the_protocols_own_counting():
    usage = Usage(input=100, output=7, cache_read=60, cache_write=30, cache_write_by_ttl={"5m": 30}, reasoning=2)
    reply, losses = told(Response(Message("assistant"), "stop", id="a", model="m", usage=usage))
    assert json.loads(reply.body)["usage"] == {
        "input_tokens": 10,
        "output_tokens": 7,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 60,
        "cache_creation": {"ephemeral_5m_input_tokens": 30},
        "output_tokens_details": {"thinking_tokens": 2},
    }
    assert losses == []


def test_a_number_nobody_said_is_noted():
    reply, losses = told(Response(Message("assistant"), "stop", model="m", usage=Usage(cache_read=4)))
    assert json.loads(reply.body)["usage"] == {"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 4}
    assert losses == ["usage.input", "usage.output"]


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


def test_what_has_no_place_in_an_answer_is_told_as_lost():
    parts = (
        Text("cited", (Citation(url="https://a.example"),), signature="g"),
        Reasoning("thought", "p", extra={"gemini.generate": {"k": 1}}),
        Image(data=b"x"),
        ToolCall("functions.f:0", "f", "not json", signature="z"),
        Opaque("openai.responses", "web_search_call", {"id": "ws"}),
    )
    response = Response(
        Message("assistant", parts),
        "tool_calls",
        "tool_calls",
        id="chatcmpl-1",
        model="m",
        created=5.0,
        usage=Usage(input=1, output=1),
        choices=(Choice(Message("assistant")),),
        extra={"openai.chat": {"system_fingerprint": "fp"}},
    )
    reply, losses = told(response)
    body = json.loads(reply.body)
    assert body["content"] == [
        {"type": "text", "text": "cited"},
        {"type": "thinking", "thinking": "thought", "signature": ""},
        {"type": "tool_use", "id": "functions_f_0", "name": "f", "input": {"input": "not json"}},
    ]
    assert (body["id"], body["stop_reason"]) == ("msg_chatcmpl-1", "tool_use")
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
        "choices",
        "created",
        "extra.openai.chat",
    }


def test_a_value_that_is_no_json_is_a_bad_response():
    for value in (object(), "\ud800"):
        response = Response(Message("assistant", (Opaque(NAME, "x", {"type": "x", "v": value}),)), "stop")
        with pytest.raises(BadResponseError):
            DIALECT.encode_response(response, ASKED)
        data, _ = written(as_events(response))
        assert read(data)[-1].error.kind == "server"


# ---- errors -----------------------------------------------------------------------------------

# No type or status of the protocol says these; each is told as what a client should make of it.
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
        "rate_limit", "max_tokens: slow down", code="burst", param="max_tokens", request_id="req_1", retry_after=1.5,
        hint="a hint", provider="p", status=429,
    )  # fmt: skip
    reply = DIALECT.encode_error(error)
    again = DIALECT.decode_error(reply, AT)
    assert (again.message, again.code, again.request_id) == ("max_tokens: slow down", "burst", "req_1")
    assert again.retry_after == 1.5
    assert json.loads(reply.body) == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "max_tokens: slow down", "details": {"error_code": "burst"}},
        "request_id": "req_1",
    }


def test_the_param_of_a_refused_request_is_told_in_the_words_of_its_message():
    with pytest.raises(InputError) as caught:
        DIALECT.check_request(wire(ask(said("x"), temperature=2)))
    body = json.loads(DIALECT.encode_error(caught.value).body)
    assert body["error"] == {"type": "invalid_request_error", "message": "temperature must be at most 1"}


# ---- streams ----------------------------------------------------------------------------------


def frames(data):
    found = []
    for frame in data.decode().split("\n\n")[:-1]:
        name, facts = frame.split("\n")
        facts = json.loads(facts.removeprefix("data: "))
        assert name == f"event: {facts['type']}"
        found.append(facts)
    assert data.endswith(b"\n\n") or not data
    return found


OF_BLOCKS = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
}


def well_formed(data):
    """The order of events that the protocol promises its clients; gives their types."""
    kinds, block, index = [], None, -1
    for facts in frames(data):
        kind = facts["type"]
        assert not {"message_stop", "error"} & set(kinds), "nothing comes behind the end"
        if kind not in ("ping", "error"):
            assert ("message_start" in kinds) != (kind == "message_start"), "one start, before everything"
        if kind == "content_block_start":
            index += 1
            assert block is None and facts["index"] == index and "message_delta" not in kinds
            block = facts["content_block"]["type"]
            if block == "tool_use":
                assert re.fullmatch(r"[a-zA-Z0-9_-]+", facts["content_block"]["id"])
        elif kind == "content_block_delta":
            assert facts["index"] == index and facts["delta"]["type"] in OF_BLOCKS[block]
        elif kind == "content_block_stop":
            assert facts["index"] == index and block is not None
            block = None
        elif kind == "message_stop":
            assert block is None and kinds.count("message_delta") == 1
        kinds.append(kind)
    assert kinds[-1] in ("message_stop", "error")
    return kinds


def streams_the_same(events, place):
    data, losses = written(events)
    well_formed(data)
    before, error = collected(events)
    after, error_after = collected(read(data))
    assert (error is None) == (error_after is None), place
    if error is not None:
        assert error_after.message == error.message
        wanted = {"finish_reason": after.finish_reason} if before.raw_finish_reason is None else {}
        before = msgspec.structs.replace(before, **wanted)
    elif before.finish_reason == "unknown":
        assert "finish_reason" in [loss.field for loss in losses]
        before = msgspec.structs.replace(before, finish_reason="stop", raw_finish_reason="end_turn")
    if b"event: message_start" in data:
        before, after = same(before), same(after)
    assert after == before, place


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


def recorded_events():
    for exchange in exchanges():
        name = dialect_of(exchange["url"] or "")
        if name is None or exchange["status"] != 200:
            continue
        body = body_of(exchange)
        if exchange["streamed"]:
            yield exchange["id"], name, read(body, dialect(name))
            continue
        try:
            yield exchange["id"], name, as_events(dialect(name).decode_response(Reply(200, {}, body), AT))
        except PolyvoxError:
            continue


def test_recorded_answers_are_told_as_streams():
    own = others = 0
    for place, name, events in recorded_events():
        if name == NAME:
            own += 1
            streams_the_same(events, place)
        else:
            others += 1
            tells_what_it_can(events, place)
    assert own > 50 and others > 100


def tells_what_it_can(events, place):
    """Answers of other protocols: in good order, and the words, calls and ends that can be said are."""
    data, losses = written(events)
    well_formed(data)
    before, error = collected(events)
    after, error_after = collected(read(data))
    ends = error is None and before.finish_reason not in ("error", "incomplete", "cancelled")
    assert (error_after is None) == ends, place
    fields = " ".join(loss.field for loss in losses)
    assert after.text.startswith(before.text) or "audio" in fields, place
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


@pytest.mark.parametrize("name", ["stream-reasoning-text-tool", "stream-parallel-tool-calls", "stream-refusal"])
def test_a_written_stream_that_is_cut_is_never_an_end(name):
    data, _ = written(read(bytes_of(CASES[f"{NAME}/{name}"])))
    for cut in range(len(data) - 2):
        response, error = collected(read(data[:cut]))
        if error is None:
            # The very end of the last event may be missing.
            assert cut > data.index(b"event: message_stop") and response.complete
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
    st.builds(CitationAdded, PART, CITATIONS | st.just(Citation(url="https://a.example"))),
    st.builds(PartAdded, PART, st.one_of(CITING, REASONING, OPAQUE, IMAGES, st.builds(ToolCall, ANY_TEXT, IDS))),
    st.builds(UsageReported, st.builds(Usage, st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))),
    st.builds(ExtraAdded, st.sampled_from([{NAME: {"fog": {"type": "fog"}, "stop_details": 1}}, {"o": {"k": 1}}])),
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
    assert kinds[-1] == ("message_stop" if fine else "error")
    response, error = collected(read(data))
    assert (error is None) == fine
    words = "".join(event.text for event in events if type(event) is TextDelta and not event.choice)
    added = [event.value.text for event in events if type(event) is PartAdded and type(event.value) is Text]
    assert sorted(response.text) == sorted(words + "".join(added))


def order(*events):
    data, losses = written([Started("msg_1", "m"), *events])
    return [shortly(facts) for facts in frames(data)], losses


def shortly(facts):
    match facts["type"]:
        case "content_block_start":
            return "start", facts["index"], facts["content_block"]["type"]
        case "content_block_delta":
            delta = facts["delta"]
            return "delta", facts["index"], next(value for key, value in delta.items() if key != "type")
        case "content_block_stop":
            return "stop", facts["index"]
        case kind:
            return (kind,)


HEAD, TAIL = [("message_start",)], [("message_delta",), ("message_stop",)]


def test_a_signature_comes_just_before_its_thought_ends():
    found, _ = order(
        ReasoningDelta("hm", 0), ReasoningProof(0, "sig"), ReasoningDelta(" so", 0), TextDelta("Yes", 1), Ended("stop")
    )  # fmt: skip
    assert found == [
        *HEAD,
        ("start", 0, "thinking"), ("delta", 0, "hm"), ("delta", 0, " so"), ("delta", 0, "sig"), ("stop", 0),
        ("start", 1, "text"), ("delta", 1, "Yes"), ("stop", 1),
        *TAIL,
    ]  # fmt: skip


def test_calls_that_grow_side_by_side_are_told_one_after_the_other():
    found, losses = order(
        ToolCallStarted(0, "a", "f"), ToolCallStarted(1, "b", "g"), ToolCallDelta(0, '{"x'), ToolCallDelta(1, "{"),
        ToolCallDelta(0, '":1}'), ToolCallDelta(1, "}"), ToolCallEnded(0), ToolCallEnded(1), Ended("tool_calls"),
    )  # fmt: skip
    assert found == [
        *HEAD,
        ("start", 0, "tool_use"), ("delta", 0, '{"x'), ("delta", 0, '":1}'), ("stop", 0),
        ("start", 1, "tool_use"), ("delta", 1, "{"), ("delta", 1, "}"), ("stop", 1),
        *TAIL,
    ]  # fmt: skip
    assert [loss.field for loss in losses] == ["usage.input", "usage.output"]


def test_a_call_whose_arguments_are_whole_does_not_keep_the_next_waiting():
    writer = DIALECT.writer(ASKED)
    for event in (ToolCallStarted(0, "a", "f"), ToolCallDelta(0, '{"x": 1}')):
        writer.send(event)
    assert b'"name":"g"' in writer.send(ToolCallStarted(1, "b", "g"))


def test_the_start_waits_for_the_first_words_and_tells_the_usage_known_by_then():
    writer = DIALECT.writer(ASKED)
    assert writer.send(Started("msg_1", "m")) == b""
    assert writer.send(UsageReported(Usage(input=9, output=1, cache_read=4, source="provider"))) == b""
    start, *_ = frames(writer.send(TextDelta("a")))
    assert start["message"]["usage"] == {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 4}
    assert writer.keep_alive() == b'event: ping\ndata: {"type":"ping"}\n\n'
    writer.send(UsageReported(Usage(input=9, output=6, cache_read=4, source="provider")))
    delta = next(facts for facts in frames(writer.send(Ended("length"))) if facts["type"] == "message_delta")
    assert delta["usage"]["output_tokens"] == 6
    assert delta["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert writer.keep_alive() == b""


def test_an_error_midway_leaves_its_block_open_and_makes_no_end():
    found, _ = order(TextDelta("ha", 0), Failed(of_kind("overloaded", "busy", request_id="req_9")))
    assert found == [*HEAD, ("start", 0, "text"), ("delta", 0, "ha"), ("error",)]


def test_a_stream_nobody_ended_says_that_it_was_cut():
    data, _ = written([Started("a", "m"), TextDelta("ha")])
    assert frames(data)[-1]["error"] == {"type": "api_error", "message": "the answer broke off before its end"}


# ---- the protocol's own client ----------------------------------------------------------------


def official(data, kind="application/json", status=200):
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, headers={"content-type": kind}, content=data))
    return anthropic.Anthropic(
        api_key="k", base_url="http://here.example", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


MIXED = [
    Started("a", "m"),
    UsageReported(Usage(input=5, output=1)),
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


def test_the_protocols_own_client_reads_what_is_streamed():
    data, _ = written(MIXED)
    with official(data, "text/event-stream") as client:
        with client.messages.stream(model="m", max_tokens=9, messages=[said("hi")]) as stream:
            message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert (message.content[0].signature, message.content[1].text) == ("sig", "Looking.")
    assert [block.input for block in message.content[2:]] == [{"a": 1}, {}]
    assert (message.id, message.stop_reason, message.usage.output_tokens) == ("msg_a", "tool_use", 30)


def test_the_protocols_own_client_reads_a_whole_answer():
    response, _ = collected(MIXED)
    reply, _ = DIALECT.encode_response(response, ASKED)
    with official(reply.body) as client:
        message = client.messages.create(model="m", max_tokens=9, messages=[said("hi")])
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert (message.usage.input_tokens, message.stop_reason) == (5, "tool_use")


def test_the_protocols_own_client_raises_what_failed_midway():
    data, _ = written([*MIXED[:6], Failed(of_kind("overloaded", "busy"))])
    with official(data, "text/event-stream") as client:
        with pytest.raises(anthropic.APIStatusError, match="busy"):
            with client.messages.stream(model="m", max_tokens=9, messages=[said("hi")]) as stream:
                stream.get_final_message()


def test_the_protocols_own_client_raises_its_own_error_for_an_overload():
    reply = DIALECT.encode_error(of_kind("overloaded", "busy", code="no_room"))
    with official(reply.body, status=reply.status) as client:
        with pytest.raises(anthropic.InternalServerError) as caught:
            client.messages.create(model="m", max_tokens=9, messages=[said("hi")])
    assert caught.value.status_code == 529
