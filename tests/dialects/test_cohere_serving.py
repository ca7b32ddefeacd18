"""The serving side of the Cohere dialect beyond its vectors: what it reads it says again, what it says it reads
again, and whatever comes, it answers in our own tree of errors."""

import json
import os
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from polyvox.dialects import NAMES, Endpoint, Peek, Reply, Wire, dialect
from polyvox.dialects.collect import Collector, as_events
from polyvox.errors import BY_KIND, BadResponseError, InputError, PolyvoxError, of_kind
from polyvox.types import (
    Audio,
    Citation,
    CitationAdded,
    Ended,
    ExtraAdded,
    Failed,
    Image,
    Message,
    Opaque,
    Reasoning,
    ReasoningDelta,
    Refusal,
    Request,
    Response,
    ResponseFormat,
    Started,
    Text,
    TextDelta,
    Thinking,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolChoice,
    ToolResult,
    Usage,
    UsageReported,
)
from tests.dialects.test_vectors import CASES, ROOT, bytes_of, endpoint_of, mutated

COHERE = dialect("cohere.chat")
AT = Endpoint(origin="home/pebble")
NOWHERE = Endpoint()
TRAFFIC = Path(os.environ.get("POLYVOX_TRAFFIC", "")) / "dev.jsonl"


def wire_of(body):
    return Wire("/v2/chat", body if isinstance(body, bytes) else json.dumps(body).encode(), {})


def asked(at=AT, **body):
    return COHERE.decode_request(wire_of({"model": "m", "messages": [], **body}), at)


def refused(act):
    with pytest.raises(InputError) as caught:
        act()
    return caught.value.param, caught.value.message


def vectors(case, *dialects):
    return [name for name, vector in CASES.items() if vector["case"] == case and name.split("/")[0] in dialects]


# ---- requests that the dialect can say, as they come out of decoding ---------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner | st.none(), max_size=3),
    max_leaves=6,
)


def extras(**keys):
    """Keys without a neutral place, under the dialect's name."""
    return st.fixed_dictionaries({}, optional=keys).map(lambda keys: {"cohere.chat": keys} if keys else {})


def inner(*keys):
    return st.dictionaries(st.sampled_from(keys), VALUES, min_size=1)


ARGUMENTS = st.builds(
    lambda value, spaced: json.dumps(value, indent=1 if spaced else None),
    st.dictionaries(WORDS, VALUES | st.none(), max_size=3),
    st.booleans(),
)
IMAGES = st.builds(
    Image,
    data=st.binary(min_size=1, max_size=9),
    media_type=st.sampled_from(["image/png", "image/webp"]),
    detail=st.sampled_from([None, "auto", "low"]),
    extra=extras(mood=VALUES, image_url=inner("mood")),
) | st.builds(Image, url=st.just("https://a.example/b.png"), detail=st.sampled_from([None, "high"]))
TEXTS = st.builds(Text, WORDS, extra=extras(mood=VALUES))


def others(at):
    return st.fixed_dictionaries({}, optional={"novel": VALUES}).map(
        lambda keys: Opaque("cohere.chat", "novel", {"type": "novel", **keys}, at.origin)
    )


def citations(index):
    """A citation of the item of content at `index`; that of the first text needs no index."""
    place = {"content_index": st.just(index)} if index else {}
    return st.builds(
        lambda start, text, keys, more: Citation(
            "tool", text=text, start=start, end=start + 1,
            extra={"cohere.chat": {"sources": [{"type": "tool", "id": "a:0", **keys}], **more}},
        ),
        st.integers(0, 9), WORDS, st.fixed_dictionaries({}, optional={"tool_output": inner("x")}),
        st.fixed_dictionaries(place, optional={"type": st.just("TEXT_CONTENT"), "mood": VALUES}),
    )  # fmt: skip


@st.composite
def assistants(draw, at):
    """A turn of the assistant: the plan, content with its citations, calls."""
    home = {"origin": at.origin} if at.origin else {"extra": {"cohere.chat": {}}}
    parts, index, texts = [], 0, 0
    if draw(st.booleans()):
        parts.append(Reasoning(draw(WORDS), origin=at.origin, extra={"cohere.chat": {"type": "tool_plan"}}))
    for kind in draw(st.lists(st.sampled_from("ttho"), max_size=4)):
        if kind == "t":
            text = draw(TEXTS)
            cited = draw(st.lists(citations(index if texts else 0), max_size=2))
            parts.append(structs.replace(text, citations=tuple(cited)))
            texts += 1
        else:
            parts.append(draw(others(at)) if kind == "o" else Reasoning(draw(WORDS), **home))
        index += 1
    extra = extras(type=st.just("novel"), mood=VALUES, function=inner("mood", "why"))
    parts += [
        ToolCall(f"id{i}", draw(WORDS), draw(ARGUMENTS), extra=draw(extra)) for i in range(draw(st.integers(0, 2)))
    ]
    return Message("assistant", tuple(parts), extra=draw(extras(mood=VALUES, name=VALUES)))


def turns(at):
    spoken = st.builds(
        Message,
        st.sampled_from(["system", "user"]),
        st.lists(TEXTS | IMAGES | others(at), max_size=3).map(tuple),
        extra=extras(mood=VALUES, name=VALUES, tool_calls=st.just([])),
    )
    result = st.builds(
        ToolResult,
        WORDS,
        st.lists(TEXTS | st.just(Opaque("cohere.chat", "document", {"type": "document", "document": {"data": {"a": 1}}},
                                        at.origin)), max_size=3).map(tuple),
        extra=extras(mood=VALUES),
    )  # fmt: skip
    told = result.map(lambda part: Message("tool", (part,)))
    return st.lists(spoken | assistants(at) | told, max_size=4).map(tuple)


@st.composite
def tools(draw, origin):
    strict = draw(st.sampled_from([UNSET, True, False]))
    keys = extras(items=VALUES, function=inner("mood"))
    parameters = st.dictionaries(WORDS, VALUES, max_size=2)
    function = st.builds(Tool, WORDS, st.none() | WORDS, parameters, strict=st.just(strict), extra=keys)
    other = st.fixed_dictionaries({}, optional={"uri": VALUES}).map(
        lambda keys: Opaque("cohere.chat", "mcp", {"type": "mcp", **keys}, origin)
    )
    return tuple(draw(st.lists(function | other, max_size=3)))


def unset(strategy):
    return st.just(UNSET) | strategy


FORMATS = st.builds(ResponseFormat, st.sampled_from(["json", "text"]), extra=extras(mood=VALUES)) | st.dictionaries(
    WORDS, VALUES
).map(lambda schema: ResponseFormat("schema", schema))
THINKING = st.builds(
    Thinking, enabled=st.booleans(), budget_tokens=unset(st.integers(1, 9999)), extra=extras(mood=VALUES)
)
BESIDE = extras(
    documents=st.just(["a", {"id": "d", "data": {"x": 1}}]), safety_mode=st.just("STRICT"), priority=st.integers(0, 3),
    citation_options=st.just({"mode": "FAST"}), novel=VALUES,
)  # fmt: skip


@st.composite
def requests(draw, at):
    whole, numbers = unset(st.integers(0, 2**31)), unset(NUMBERS)
    return Request(
        model=draw(WORDS),
        messages=draw(turns(at)),
        tools=draw(tools(at.origin)),
        tool_choice=draw(unset(st.sampled_from([ToolChoice("none"), ToolChoice("required")]))),
        response_format=draw(unset(FORMATS)),
        thinking=draw(unset(THINKING)),
        max_tokens=draw(whole),
        temperature=draw(numbers),
        top_p=draw(numbers),
        top_k=draw(whole),
        stop=draw(unset(st.lists(WORDS, max_size=2).map(tuple))),
        seed=draw(whole),
        presence_penalty=draw(numbers),
        frequency_penalty=draw(numbers),
        logprobs=draw(unset(st.booleans())),
        stream=draw(st.booleans()),
        extra=draw(BESIDE),
    )


@pytest.mark.parametrize("at", [AT, NOWHERE], ids=["of a deployment", "of nobody"])
@given(st.data())
def test_what_is_asked_in_this_dialect_is_read_as_it_was_meant(at, data):
    request = data.draw(requests(at))
    wire, losses = COHERE.encode_request(request, at)
    assert losses == ()
    assert COHERE.decode_request(wire, at) == request
    assert COHERE.peek(wire) == Peek(request.model, request.stream, usage=True)


@pytest.mark.parametrize("name", vectors("request", "cohere.chat"))
def test_what_the_vectors_ask_is_read_and_asked_again_in_the_same_words(name):
    if "refused" in CASES[name]:
        return
    at = structs.replace(endpoint_of(CASES[name]), options={})
    wire, _ = COHERE.encode_request(msgspec.convert(CASES[name]["request"], Request), at)
    request = COHERE.decode_request(wire, at)
    again, losses = COHERE.encode_request(request, at)
    assert losses == () or "arguments" in losses[0].field
    assert COHERE.decode_request(again, at) == request
    assert json.loads(again.body) == json.loads(wire.body)


def test_an_answer_comes_whole_unless_the_client_wants_it_streamed():
    assert asked().stream is asked(stream=None).stream is asked(stream=False).stream is False
    for stream, means in ((None, False), (True, True), ("yes", False), (False, False)):
        assert COHERE.peek(wire_of({"model": "m", "stream": stream})).stream is means


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[1]", b'"m"', b'{"model":', b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused_by_all(body):
    for act in (COHERE.peek, COHERE.check_request, lambda wire: COHERE.decode_request(wire, AT)):
        with pytest.raises(InputError) as caught:
            act(wire_of(body))
        assert caught.value.code == "invalid_json" and caught.value.sent == "no"
    with pytest.raises(InputError):
        COHERE.edit(wire_of(body), model="n")


def test_arguments_are_the_clients_own_words():
    text = '{ "lake":"T\\u00e4rn", "n":1.0, "big":12345678901234567890123 }'
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": text}}
    request = asked(messages=[{"role": "assistant", "tool_calls": [call]}])
    assert request.messages[0].parts[0].arguments == text
    body = json.loads(COHERE.encode_request(request, AT).wire.body)
    assert body["messages"][0]["tool_calls"] == [call]


# ---- whatever comes -----------------------------------------------------------------------------

KEYS = [
    "model", "messages", "stream", "tools", "strict_tools", "tool_choice", "response_format", "json_schema", "thinking",
    "token_budget", "role", "content", "tool_plan", "tool_calls", "tool_call_id", "citations", "sources", "start",
    "function", "name", "arguments", "id", "type", "parameters", "text", "image_url", "url", "document", "documents",
    "end", "data", "stop_sequences", "max_tokens", "k", "p", "content_index",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["", "user", "tool", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)
FULL = json.loads((ROOT / "cohere.chat" / "serve-checked-everything.json").read_text(encoding="utf-8"))["body"]


def read_or_refused(wire):
    """Read it, or refuse it with a plain message that names the place; what is read can be said again."""
    for act in (COHERE.peek, COHERE.check_request):
        try:
            act(wire)
        except InputError:
            pass
    try:
        request = COHERE.decode_request(wire, AT)
    except InputError as error:
        assert error.param is None or error.message.startswith(error.param)
        return
    assert msgspec.convert(msgspec.to_builtins(request), Request) == request
    again, losses = COHERE.encode_request(request, AT)
    if not losses:
        assert COHERE.decode_request(again, AT) == request


@given(JSON)
def test_any_json_is_read_or_refused(value):
    read_or_refused(wire_of(value))
    read_or_refused(wire_of({"model": "m", "messages": value}))
    read_or_refused(wire_of({"model": "m", "messages": [{"role": "assistant", "content": value}]}))


@given(JSON, st.integers(0, 10**6))
def test_a_request_with_one_value_replaced_is_read_or_refused(value, seed):
    body = json.loads(json.dumps(FULL))
    nodes, places = [body], []
    while nodes:
        node = nodes.pop()
        for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
            places.append((node, key))
            if isinstance(child, dict | list):
                nodes.append(child)
    node, key = places[seed % len(places)]
    node[key] = value
    read_or_refused(wire_of(body))


@given(st.integers(0, 10**9))
def test_a_request_changed_at_random_is_read_or_refused(seed):
    read_or_refused(wire_of(mutated(FULL, random.Random(seed))))


# ---- what the server refuses --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": {}}, "messages"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
        ({"temperature": -1}, "temperature"),
        ({"p": 1}, "p"),
        ({"k": 501}, "k"),
        ({"frequency_penalty": 1.5}, "frequency_penalty"),
        ({"stop_sequences": list("abcdef")}, "stop_sequences"),
        ({"thinking": {"type": "enabled", "token_budget": 0}}, "thinking.token_budget"),
        ({"safety_mode": "SOFT"}, "safety_mode"),
        ({"tool_choice": "AUTO"}, "tool_choice"),
        ({"documents": [{"id": "d", "data": 5}]}, "documents[0].data"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_refused_by_name(change, param):
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **change}
    found, message = refused(lambda: COHERE.check_request(wire_of(body)))
    assert found == param
    assert message.startswith(param + " must ")


@given(st.data())
def test_what_we_ask_ourselves_the_server_takes(data):
    request = data.draw(requests(AT))
    limits = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "presence_penalty": 0.1, "frequency_penalty": 1.0}
    tools = tuple([structs.replace(tool, extra={}) for tool in request.tools if isinstance(tool, Tool)])
    turns = tuple([
        structs.replace(message, parts=tuple([
            structs.replace(part, extra={}) if isinstance(part, ToolCall) else part for part in message.parts
            if not isinstance(part, Opaque) and not (isinstance(part, Image) and message.role != "user")
        ])) for message in request.messages
    ])  # fmt: skip
    sensible = structs.replace(
        request, messages=(*turns, Message("user", (Text("Hi"),))), tools=tools, extra={},
        tool_choice=request.tool_choice if tools else UNSET,
        **{field: value for field, value in limits.items() if getattr(request, field) is not UNSET},
    )  # fmt: skip
    COHERE.check_request(COHERE.encode_request(sensible, AT).wire)


# ---- answers --------------------------------------------------------------------------------------


def plainly(response):
    """A response to compare: without its bytes."""
    return structs.replace(response, raw=b"")


def said_and_read(response, at):
    reply, losses = COHERE.encode_response(response, Peek())
    assert losses == ()
    assert plainly(COHERE.decode_response(reply, at)) == plainly(response)


@pytest.mark.parametrize("name", vectors("response", "cohere.chat"))
def test_an_answer_of_this_dialect_is_said_as_it_was_read(name):
    at = endpoint_of(CASES[name])
    try:
        response = COHERE.decode_response(Reply(200, {}, bytes_of(CASES[name])), at)
    except PolyvoxError:
        return
    said_and_read(response, at)


def read(reader, data, size=1 << 30):
    events = [event for i in range(0, len(data), size) for event in reader.feed(data[i : i + size])] + reader.close()
    collector = Collector()
    for event in events:
        collector.add(event)
    return events, collector


def written(events):
    writer = COHERE.writer(Peek(stream=True))
    return b"".join([writer.send(event) for event in events]) + writer.close(), writer


def frames_of(data):
    """The events as [name, value]; [DONE] as itself."""
    found = []
    for frame in data.decode().split("\n\n")[:-1]:
        name, _, text = frame.partition("\n")
        if not text:
            found.append(name)
            continue
        value = json.loads(text.removeprefix("data: "))
        assert name == "event: " + value["type"]
        found.append(value)
    return found


@pytest.mark.parametrize("name", vectors("stream", "cohere.chat"))
def test_a_stream_of_this_dialect_is_said_as_it_was_read(name):
    said_as_read(bytes_of(CASES[name]), endpoint_of(CASES[name]))


def said_as_read(data, at):
    events, first = read(COHERE.reader(at), data)
    again, writer = written(events)
    _, second = read(COHERE.reader(at), again)
    assert (first.failed and first.failed.error.kind) == (second.failed and second.failed.error.kind)
    if first.failed is None:
        assert plainly(second.response()) == plainly(first.response())
        assert writer.losses == []


def recorded():
    if not TRAFFIC.is_file():
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl)")
    lines = [json.loads(line) for line in TRAFFIC.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [line for line in lines if "/v2/chat" in (line.get("url") or "") and line["provider"] == "cohere"]


def test_recorded_requests_are_taken_read_and_asked_again():
    found = [line for line in recorded() if line["request_json"]]
    assert found
    for line in found:
        wire = wire_of(line["request_json"])
        COHERE.check_request(wire)
        request = COHERE.decode_request(wire, AT)
        again, losses = COHERE.encode_request(request, AT)
        assert losses == () and COHERE.decode_request(again, AT) == request
        assert request.stream == bool(line["streamed"])


def test_recorded_answers_are_said_as_they_were_read():
    for line in recorded():
        data = line["response_text"].encode()
        if line["status"] >= 400:
            error = COHERE.decode_error(Reply(line["status"], {}, data), AT)
            told = COHERE.decode_error(COHERE.encode_error(error), AT)
            assert (told.kind, told.message, told.status) == (error.kind, error.message, error.status)
        elif line["streamed"]:
            said_as_read(data, AT)
        else:
            said_and_read(COHERE.decode_response(Reply(200, {}, data), AT), AT)


# ---- answers that are none -------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["incomplete", "cancelled"])
def test_an_answer_that_is_not_whole_is_an_error_whole_or_streamed(reason):
    response = Response(Message("assistant", (Text("Hal"),)), reason)
    reply, losses = COHERE.encode_response(response, Peek())
    assert reply.status >= 400 and isinstance(json.loads(reply.body)["message"], str)
    assert [loss.field for loss in losses] == ["message"]
    _, collector = read(COHERE.reader(AT), written(as_events(response))[0])
    assert collector.failed is not None and collector.response().text == "Hal"


@pytest.mark.parametrize("reason", [None, "error", "content_filter", "refusal", "pause", "compaction", "unknown"])
@pytest.mark.parametrize("calls", [(), (ToolCall("a", "f"),)], ids=["words", "call"])
def test_an_end_that_is_no_success_is_not_read_as_one(reason, calls):
    response = Response(Message("assistant", (Text("Hm"), *calls)), reason)
    reply, losses = COHERE.encode_response(response, Peek())
    kept = reason in (None, "error", "content_filter", "unknown")
    assert COHERE.decode_response(reply, AT).finish_reason == (reason if kept else "unknown")
    _, collector = read(COHERE.reader(AT), written(as_events(response))[0])
    assert collector.response().finish_reason == (reason if kept and reason else "unknown")
    assert kept or ("finish_reason", "loss") in [(loss.field, loss.severity) for loss in losses]


def test_what_json_cannot_say_is_an_error_of_ours():
    odd = Response(Message("assistant", extra={"cohere.chat": {"x": object()}}), "stop")
    with pytest.raises(BadResponseError):
        COHERE.encode_response(odd, Peek())
    data, writer = written([Started("i"), TextDelta("a"), TextDelta("\ud800"), Ended("stop")])
    assert writer.done and frames_of(data)[-1]["delta"]["status_code"] == 502
    data, writer = written([Started("i"), ExtraAdded({"cohere.chat": {"x": object()}}), Ended("stop")])
    assert writer.done and "x" not in frames_of(data)[-2]
    assert [loss.field for loss in writer.losses] == ["extra"]
    data, writer = written([Started("i"), ExtraAdded({"cohere.chat": {"message": {"citations": [object()]}}})])
    assert writer.done and frames_of(data)[-1]["delta"]["error_type"] == "stream_interrupted"
    free = ToolCall("a", "f", "\ud800", "custom")
    reply, _ = COHERE.encode_response(Response(Message("assistant", (free,)), "tool_calls"), Peek())
    assert COHERE.decode_response(reply, AT).tool_calls[0].arguments == '{"input": "\\ud800"}'
    assert json.loads(COHERE.encode_error(of_kind("server", "\ud800")).body)["message"] == "?"


# ---- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_kind_of_error_survives_whole_and_in_a_stream(kind):
    error = of_kind(kind, "m", code="c7", param="seed", retry_after=1.5, request_id="r7")
    reply = COHERE.encode_error(error)
    told = COHERE.decode_error(reply, AT)
    assert (told.kind, told.message, told.code, told.param) == (kind, "m", "c7", "seed")
    assert (told.retryable, told.request_id, told.retry_after) == (error.retryable, "r7", 1.5)
    assert "hint" not in json.loads(reply.body)
    events, _ = read(COHERE.reader(AT), written([Started("i"), TextDelta("a"), Failed(error)])[0])
    assert (events[-1].error.kind, events[-1].error.message) == (kind, "m")


# ---- streams ---------------------------------------------------------------------------------------

TURN = [
    Started("id-7", "m", 1772355600.5),
    ReasoningDelta("Hm.", 0),
    TextDelta("Let me ", 1),
    TextDelta("look.", 1),
    CitationAdded(1, Citation(url="https://a.example", title="A", text="look", start=7, end=11)),
    ToolCallStarted(2, "a", "f"),
    ToolCallDelta(2, '{"x":\n '),
    ToolCallDelta(2, "1}"),
    ToolCallEnded(2),
    UsageReported(Usage(7, 5, source="provider")),
    Ended("tool_calls", "tool_use"),
]


def test_events_come_in_the_protocols_order():
    data, writer = written(TURN)
    found = frames_of(data)
    assert [event if isinstance(event, str) else (event["type"], event.get("index")) for event in found] == [
        ("message-start", None), ("content-start", 0), ("content-delta", 0), ("content-end", 0),
        ("content-start", 1), ("content-delta", 1), ("content-delta", 1), ("citation-start", 0), ("citation-end", 0),
        ("content-end", 1), ("tool-call-start", 0), ("tool-call-delta", 0), ("tool-call-delta", 0),
        ("tool-call-end", 0), ("message-end", None), "data: [DONE]",
    ]  # fmt: skip
    assert found[2]["delta"]["message"]["content"] == {"thinking": "Hm."}
    source = {"type": "document", "document": {"url": "https://a.example", "title": "A"}}
    assert found[7]["delta"]["message"]["citations"] == {
        "start": 7, "end": 11, "text": "look", "sources": [source], "type": "TEXT_CONTENT",
    }  # fmt: skip
    tokens = {"input_tokens": 7, "output_tokens": 5}
    assert found[-2]["delta"] == {"finish_reason": "TOOL_CALL", "usage": {"tokens": tokens}}
    assert [loss.field for loss in writer.losses] == ["model", "created"]
    assert COHERE.writer(Peek()).keep_alive() == b": keep-alive\n\n" and writer.keep_alive() == b""


def test_a_stream_that_was_cut_ends_in_an_error_and_without_the_mark_of_an_end():
    data, writer = written(TURN[:7])
    last = frames_of(data)[-1]
    assert last["delta"]["finish_reason"] == "ERROR" and last["delta"]["error"] and writer.done
    assert [loss.field for loss in writer.losses] == ["model", "created", "message.parts[2].tool_call"]
    events, _ = read(COHERE.reader(AT), data)
    assert events[-1].error.kind == "stream_interrupted"
    nothing, _ = written([])
    assert isinstance(read(COHERE.reader(AT), nothing)[0][-1], Failed)


def test_what_was_written_and_cut_anywhere_is_never_whole():
    data, _ = written([*TURN[:-1], TextDelta("Grüße 🌊", 1), TURN[-1]])
    # Without the ends of lines and the mark behind it every byte of the answer is there.
    for cut in range(data.index(b"\n\ndata: [DONE]")):
        events, _ = read(COHERE.reader(AT), data[:cut])
        assert isinstance(events[-1], Failed), cut


def test_keys_of_ours_cannot_end_or_break_a_stream():
    keys = {"delta": {"finish_reason": "ERROR"}, "type": "debug", "novel": 1, "message": {"mood": 2}}
    data, writer = written([Started("i"), ExtraAdded({"cohere.chat": keys}), TextDelta("a"), Ended("stop")])
    _, collector = read(COHERE.reader(AT), data)
    assert collector.response().text == "a" and collector.response().finish_reason == "stop"
    assert collector.response().extra == {"cohere.chat": {"novel": 1, "message": {"mood": 2}}}
    assert [loss.field for loss in writer.losses] == ["extra.cohere.chat.delta", "extra.cohere.chat.type"]


OTHERS = tuple(sorted(set(NAMES) - {"cohere.chat"}))


def words_of(response):
    """All words of an answer, whichever part has them."""
    words = {Text: "text", Refusal: "text", Audio: "transcript"}
    return "".join([getattr(part, words[type(part)]) or "" for part in response.message.parts if type(part) in words])


@pytest.mark.parametrize("name", vectors("stream", *OTHERS))
def test_a_stream_of_another_dialect_is_well_formed_and_whole(name):
    events, theirs = read(dialect(name.split("/")[0]).reader(endpoint_of(CASES[name])), bytes_of(CASES[name]))
    data, writer = written(events)
    found = frames_of(data)
    assert [event["type"] for event in found if isinstance(event, dict)].count("message-end") == 1
    assert found[0]["type"] == "message-start"
    _, ours = read(COHERE.reader(AT), data)
    wanted, got = theirs.response(), ours.response()
    assert (theirs.failed and theirs.failed.error.kind) == (ours.failed and ours.failed.error.kind)
    assert sorted(got.text) == sorted(words_of(wanted))
    assert got.reasoning == wanted.reasoning
    if ours.failed is None:
        assert [found.name for found in got.tool_calls] == [made.name for made in wanted.tool_calls]
        assert (got.usage.input, got.usage.output) == (wanted.usage.input, wanted.usage.output)
        same = got.finish_reason == wanted.finish_reason
        assert same or "finish_reason" in [loss.field for loss in writer.losses]


@pytest.mark.parametrize("name", vectors("response", *OTHERS))
def test_an_answer_of_another_dialect_loses_nothing_in_silence(name):
    room, at = dialect(name.split("/")[0]), endpoint_of(CASES[name])
    try:
        wanted = room.decode_response(Reply(200, {}, bytes_of(CASES[name])), at)
    except PolyvoxError:
        return
    reply, losses = COHERE.encode_response(wanted, Peek())
    lost = {loss.field for loss in losses}
    if reply.status != 200:
        assert lost == {"message"}
        return
    got = COHERE.decode_response(reply, AT)
    told = [loss.why for loss in losses if loss.field.endswith(".file") and loss.severity == "note"]
    assert got.reasoning == wanted.reasoning
    assert told or got.text == words_of(wanted)  # a file's text is told as words
    assert got.finish_reason == wanted.finish_reason or "finish_reason" in lost
    assert got.id == wanted.id and (wanted.model is not None) == ("model" in lost)
    assert bool(wanted.logprobs) == ("logprobs" in lost) and (wanted.choices != ()) == ("choices" in lost)
    for field in ("input", "output", "cache_read"):
        assert getattr(got.usage, field) == getattr(wanted.usage, field)
    for field in ("cache_write", "reasoning"):
        assert (getattr(wanted.usage, field) is not None) == (f"usage.{field}" in lost)
    said = [part for part in got.message.parts if isinstance(part, Text)]
    for number, part in enumerate(wanted.message.parts):
        if isinstance(part, Text):
            cited = [one for found in said if found.text == part.text for one in found.citations]
            assert [(one.start, one.end, one.url) for one in part.citations] == [
                (one.start, one.end, one.url) for one in cited[: len(part.citations)]
            ]
        elif not isinstance(part, ToolCall) and not (
            isinstance(part, Reasoning) and part.signature is part.encrypted is None
        ):
            assert any(field.startswith(f"message.parts[{number}].") for field in lost), part
    assert {f"extra.{key}" for key in wanted.extra} <= lost
