"""The serving side of the Ollama dialect beyond its vectors: what it reads it says again, what it says it reads
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
    ToolResult,
    Usage,
    UsageReported,
)
from tests.dialects.test_vectors import CASES, ROOT, bytes_of, endpoint_of, mutated

OLLAMA = dialect("ollama.chat")
AT = Endpoint(origin="home/pebble")
NOWHERE = Endpoint()
TRAFFIC = Path(os.environ.get("POLYVOX_TRAFFIC", "")) / "dev.jsonl"


def wire_of(body):
    return Wire("/api/chat", body if isinstance(body, bytes) else json.dumps(body).encode(), {})


def asked(at=AT, **body):
    return OLLAMA.decode_request(wire_of({"model": "m", **body}), at)


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
    return st.fixed_dictionaries({}, optional=keys).map(lambda keys: {"ollama.chat": keys} if keys else {})


def inner(*keys):
    return st.dictionaries(st.sampled_from(keys), VALUES, min_size=1)


ARGUMENTS = st.builds(
    lambda value, spaced: json.dumps(value, indent=1 if spaced else None),
    st.dictionaries(WORDS, VALUES | st.none(), max_size=3),
    st.booleans(),
)
PNG = b"\x89PNG\r\n\x1a\n"
# Bytes that begin like no kind of picture, and a picture: the kind is read from the first bytes.
IMAGES = st.builds(Image, data=st.binary(max_size=9).map(lambda data: b"?" + data)) | st.just(
    Image(data=PNG, media_type="image/png")
)


def calls(at, ids):
    extra = extras(type=WORDS, relay=VALUES, function=inner("mood", "why"))
    known = st.builds(
        lambda name, arguments, extra: ToolCall(f"id{next(ids)}", name, arguments, extra=extra), WORDS, ARGUMENTS, extra
    )
    unknown = VALUES.map(
        lambda value: Opaque("ollama.chat", "tool_call", {"tool_calls": [{"relay": value}]}, at.origin)
    )
    return st.lists(known | unknown, max_size=3)


def at_most_one(strategy):
    return st.lists(strategy, max_size=1)


@st.composite
def turns(draw, at):
    """A conversation: turns with everything a message can hold, and after calls some of their results."""
    found, ids = [], iter(range(1000))
    home = {"origin": at.origin} if at.origin else {"extra": {"ollama.chat": {}}}
    for _ in range(draw(st.integers(0, 4))):
        called = draw(calls(at, ids))
        parts = [
            *draw(at_most_one(WORDS.map(lambda words: Reasoning(words, **home)))),
            *draw(at_most_one(WORDS.map(Text))),
            *draw(st.lists(IMAGES, max_size=2)),
            *called,
        ]
        extra = draw(extras(mood=VALUES, name=VALUES, tool_name=WORDS, tool_call_id=WORDS))
        role = draw(st.sampled_from(["system", "developer", "user", "assistant"]))
        if role == "developer":
            extra = {"ollama.chat": {**extra.get("ollama.chat", {}), "role": role}}
        found.append(Message(role, tuple(parts), extra=extra))
        answered = draw(st.permutations([part for part in called if isinstance(part, ToolCall)]))
        for call in answered[: draw(st.integers(0, 3))]:
            name = draw(st.none() | WORDS.filter(lambda word, call=call: word != call.name))
            words = tuple(draw(at_most_one(WORDS.map(Text))))
            result = ToolResult(call.id, words, name, extra=draw(extras(mood=VALUES, thinking=WORDS)))
            found.append(Message("tool", (result,)))
    return tuple(found)


def tools(origin):
    parameters = st.dictionaries(WORDS, VALUES, max_size=2)
    keys = extras(items=VALUES, function=inner("strict", "mood"))
    function = st.builds(Tool, WORDS, st.none() | WORDS, parameters, extra=keys)
    other = st.fixed_dictionaries({}, optional={"uri": VALUES}).map(
        lambda keys: Opaque("ollama.chat", "mcp", {"type": "mcp", **keys}, origin)
    )
    return st.lists(function | other, max_size=3).map(tuple)


def unset(strategy):
    return st.just(UNSET) | strategy


def top_extras():
    options = inner("mirostat", "novel") | st.just({"num_predict": -1})
    options |= st.just({"num_ctx": 8192, "main_gpu": 1, "use_mmap": False})
    return extras(keep_alive=WORDS, truncate=st.booleans(), novel=VALUES, options=options)


FORMATS = st.just(ResponseFormat("json")) | st.dictionaries(WORDS, VALUES).map(
    lambda schema: ResponseFormat("schema", schema)
)
THINKING = st.sampled_from(
    [Thinking(enabled=True), Thinking(enabled=False), Thinking(effort="high"), Thinking(effort="ultra")]
)


@st.composite
def requests(draw, at):
    extra = draw(top_extras())
    endless = "num_predict" in extra.get("ollama.chat", {}).get("options", {})
    whole = unset(st.integers(0, 2**31))
    return Request(
        model=draw(WORDS),
        messages=draw(turns(at)),
        tools=draw(tools(at.origin)),
        response_format=draw(unset(FORMATS)),
        thinking=draw(unset(THINKING)),
        max_tokens=UNSET if endless else draw(whole),
        temperature=draw(unset(NUMBERS)),
        top_p=draw(unset(NUMBERS)),
        top_k=draw(whole),
        stop=draw(unset(st.lists(WORDS, max_size=2).map(tuple))),
        seed=draw(whole),
        presence_penalty=draw(unset(NUMBERS)),
        frequency_penalty=draw(unset(NUMBERS)),
        logprobs=draw(unset(st.booleans())),
        top_logprobs=draw(unset(st.integers(0, 20))),
        stream=draw(st.booleans()),
        extra=extra,
    )


@pytest.mark.parametrize("at", [AT, NOWHERE], ids=["of a deployment", "of nobody"])
@given(st.data())
def test_what_is_asked_in_this_dialect_is_read_as_it_was_meant(at, data):
    request = data.draw(requests(at))
    wire, losses = OLLAMA.encode_request(request, at)
    assert losses == ()
    assert OLLAMA.decode_request(wire, at) == request
    assert OLLAMA.peek(wire) == Peek(request.model, request.stream, usage=True)


def test_what_the_vectors_ask_is_read_and_asked_again_in_the_same_words():
    for name in vectors("request", "ollama.chat"):
        if "refused" in CASES[name]:
            continue
        at = structs.replace(endpoint_of(CASES[name]), options={})
        wire, _ = OLLAMA.encode_request(msgspec.convert(CASES[name]["request"], Request), at)
        request = OLLAMA.decode_request(wire, at)
        again, _ = OLLAMA.encode_request(request, at)
        assert OLLAMA.decode_request(again, at) == request, name
        if "thinking" not in name:
            assert json.loads(again.body) == json.loads(wire.body), name


def test_an_answer_streams_unless_the_client_says_otherwise():
    assert asked().stream is asked(stream=None).stream is asked(stream=True).stream is True
    assert asked(stream=False).stream is False
    for stream, means in ((None, True), (True, True), ("no", True), (False, False)):
        assert OLLAMA.peek(wire_of({"model": "m", "stream": stream})).stream is means
    body = json.loads(OLLAMA.encode_request(Request("m"), AT).wire.body)
    assert body["stream"] is False


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[1]", b'"m"', b'{"model":', b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused_by_all(body):
    for act in (OLLAMA.peek, OLLAMA.check_request, lambda wire: OLLAMA.decode_request(wire, AT)):
        with pytest.raises(InputError) as caught:
            act(wire_of(body))
        assert caught.value.code == "invalid_json" and caught.value.sent == "no"
    with pytest.raises(InputError):
        OLLAMA.edit(wire_of(body), model="n")


def test_a_byte_order_mark_harms_nobody():
    body = b'\xef\xbb\xbf{"model":"m","stream":false,"messages":[{"role":"assistant","tool_calls":[{"function":'
    wire = wire_of(body + b'{"name":"f","arguments":{ "a":1.0 }}}]}]}')
    assert OLLAMA.peek(wire) == Peek("m", False)
    assert OLLAMA.decode_request(wire, AT).messages[0].parts[0].arguments == '{ "a":1.0 }'
    OLLAMA.check_request(wire)


def test_arguments_are_the_clients_own_bytes():
    text = '{ "lake":"T\\u00e4rn", "n":1.0, "big":12345678901234567890123 }'
    body = '{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":%s}}]}]}'
    request = OLLAMA.decode_request(wire_of((body % text).encode()), AT)
    assert request.messages[0].parts[0].arguments == text
    assert text.encode() in OLLAMA.encode_request(request, AT).wire.body


# ---- calls and their results --------------------------------------------------------------------


def call(name, id=None):
    return {"function": {"name": name, "arguments": {}}, **({"id": id} if id else {})}


def calling(*calls):
    return {"role": "assistant", "tool_calls": list(calls)}


def result(**facts):
    return {"role": "tool", "content": "ok", **facts}


def ids_of(request):
    called = [part.id for message in request.messages for part in message.parts if isinstance(part, ToolCall)]
    answered = [part.call_id for message in request.messages for part in message.parts if isinstance(part, ToolResult)]
    return called, answered


def test_calls_without_ids_get_ids_that_stay_when_the_conversation_grows():
    first = [calling(call("f"), call("g")), result(), result()]
    assert ids_of(asked(messages=first)) == (["call_0", "call_1"], ["call_0", "call_1"])
    assert ids_of(asked(messages=[*first, calling(call("f")), result()])) == (
        ["call_0", "call_1", "call_2"],
        ["call_0", "call_1", "call_2"],
    )


def test_an_id_that_comes_again_in_a_later_turn_is_the_clients_own():
    turns = [calling(call("f", "call_0")), result(tool_call_id="call_0")]
    turns += [calling(call("g", "call_0")), result(tool_call_id="call_0"), calling(call("g"))]
    found = asked(messages=turns)
    assert ids_of(found) == (["call_0", "call_0", "call_1"], ["call_0", "call_0"])
    body = json.loads(OLLAMA.encode_request(found, AT).wire.body)
    assert [message.get("tool_name") for message in body["messages"]] == [None, "f", None, "g", None]


# ---- whatever comes -----------------------------------------------------------------------------

KEYS = [
    "model", "messages", "stream", "format", "keep_alive", "tools", "options", "think", "logprobs", "top_logprobs",
    "role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id", "function", "name", "arguments",
    "index", "id", "type", "parameters", "properties", "required", "description", "seed", "stop", "num_predict",
    "temperature", "use_mmap",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["", "user", "tool", "QQ=="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)
FULL = json.loads((ROOT / "ollama.chat" / "serve-checked-everything.json").read_text(encoding="utf-8"))["body"]


def read_or_refused(wire):
    """Read it, or refuse it with a plain message that names the place; what is read can be said again."""
    for act in (OLLAMA.peek, OLLAMA.check_request):
        try:
            act(wire)
        except InputError:
            pass
    try:
        request = OLLAMA.decode_request(wire, AT)
    except InputError as error:
        assert error.param is None or error.message.startswith(error.param)
        return
    assert msgspec.convert(msgspec.to_builtins(request), Request) == request
    again, losses = OLLAMA.encode_request(request, AT)
    if not losses:
        assert OLLAMA.decode_request(again, AT) == request


@given(JSON)
def test_any_json_is_read_or_refused(value):
    read_or_refused(wire_of(value))
    read_or_refused(wire_of({"model": "m", "messages": value}))


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
        ({"messages": [{"role": "user", "images": [7]}]}, "messages[0].images[0]"),
        ({"messages": [calling({"id": 1, "function": {"name": "f"}})]}, "messages[0].tool_calls[0].id"),
        ({"options": []}, "options"),
        ({"options": {"num_ctx": "many"}}, "options.num_ctx"),
        ({"options": {"temperature": True}}, "options.temperature"),
        ({"options": {"use_mmap": 1}}, "options.use_mmap"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"logprobs": 1}, "logprobs"),
        ({"format": False}, "format"),
        ({"think": 1}, "think"),
        ({"keep_alive": True}, "keep_alive"),
        ({"truncate": "no"}, "truncate"),
        ({"tools": [{"function": {"name": "f", "parameters": {"required": "x"}}}]},
         "tools[0].function.parameters.required"),
        ({"tools": [{"function": {"parameters": {"properties": {"a": {"anyOf": [True]}}}}}]},
         "tools[0].function.parameters.properties.a.anyOf[0]"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_refused_by_name(change, param):
    found, message = refused(lambda: OLLAMA.check_request(wire_of({"model": "m", "messages": [], **change})))
    assert found == param
    assert message.startswith(param + " must be ")


@pytest.mark.parametrize(
    "change",
    [
        {"messages": None},
        {"novel": 1, "options": {"novel": "x", "num_predict": -1}},
        {"keep_alive": -1},
        {"keep_alive": "0"},
        {"tools": []},
        {"messages": [{"role": "user", "images": ["QUJD\nREVG"]}]},
    ],
)
def test_what_the_server_takes_is_taken_and_read(change):
    wire = wire_of({"model": "m", **change})
    OLLAMA.check_request(wire)
    OLLAMA.decode_request(wire, AT)


@given(st.data())
def test_what_we_ask_ourselves_the_server_takes(data):
    request = data.draw(requests(AT))
    properties = {"x": {"type": "string", "description": "X."}}
    sensible = structs.replace(
        request,
        tools=tuple([structs.replace(tool, parameters={"type": "object", "properties": properties})
                     for tool in request.tools if isinstance(tool, Tool)]),
        thinking=UNSET if request.thinking == Thinking(effort="ultra") else request.thinking,
        extra={},
    )  # fmt: skip
    OLLAMA.check_request(OLLAMA.encode_request(sensible, AT).wire)


def test_a_schema_nested_deeply_is_taken_or_refused_never_a_crash():
    head, tail = b'{"model":"m","tools":[{"function":{"name":"f","parameters":', b"}}]}"
    for depth in (*range(470, 520), 100_000):
        body = head + b'{"properties":{"a":' * depth + b"{}" + b"}}" * depth + tail
        try:
            OLLAMA.check_request(wire_of(body))
        except InputError as error:
            assert error.sent == "no"


# ---- answers --------------------------------------------------------------------------------------


def plainly(response):
    """A response to compare: without its bytes, with no arguments told in one way, and with the word for an end in
    calls that servers before done_reason left out."""
    parts = tuple(
        [structs.replace(part, arguments=part.arguments or "{}") if isinstance(part, ToolCall) else part
         for part in response.message.parts]
    )  # fmt: skip
    raw = response.raw_finish_reason or ("stop" if response.finish_reason == "tool_calls" else None)
    message = structs.replace(response.message, parts=parts)
    return structs.replace(response, message=message, raw_finish_reason=raw, raw=b"")


def said_and_read(response, at):
    reply, losses = OLLAMA.encode_response(response, Peek())
    if any(loss.field.endswith("arguments") for loss in losses):
        return
    assert all(loss.field == "created" for loss in losses), losses
    assert plainly(OLLAMA.decode_response(reply, at)) == plainly(response)


@pytest.mark.parametrize("name", vectors("response", "ollama.chat"))
def test_an_answer_of_this_dialect_is_said_as_it_was_read(name):
    at = endpoint_of(CASES[name])
    try:
        response = OLLAMA.decode_response(Reply(200, {}, bytes_of(CASES[name])), at)
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
    writer = OLLAMA.writer(Peek(stream=True))
    return b"".join([writer.send(event) for event in events]) + writer.close(), writer


@pytest.mark.parametrize("name", vectors("stream", "ollama.chat"))
def test_a_stream_of_this_dialect_is_said_as_it_was_read(name):
    said_as_read(bytes_of(CASES[name]), endpoint_of(CASES[name]))


def said_as_read(data, at):
    events, first = read(OLLAMA.reader(at), data)
    again, writer = written(events)
    _, second = read(OLLAMA.reader(at), again)
    assert (first.failed and first.failed.error.kind) == (second.failed and second.failed.error.kind)
    if not any(loss.field.endswith("arguments") for loss in writer.losses):
        assert plainly(second.response()) == plainly(first.response())
        assert {loss.field for loss in writer.losses} <= {"created"}


def recorded():
    if not TRAFFIC.is_file():
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl)")
    lines = [json.loads(line) for line in TRAFFIC.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [line for line in lines if "/api/chat" in (line.get("url") or "")]


def test_recorded_requests_are_taken_read_and_asked_again():
    found = recorded()
    assert found
    for line in found:
        wire = wire_of(line["request_json"])
        OLLAMA.check_request(wire)
        request = OLLAMA.decode_request(wire, AT)
        again, losses = OLLAMA.encode_request(request, AT)
        assert losses == () and OLLAMA.decode_request(again, AT) == request
        assert request.stream == bool(line["streamed"])


def test_recorded_answers_are_said_as_they_were_read():
    for line in recorded():
        data = line["response_text"].encode()
        if line["status"] >= 400:
            error = OLLAMA.decode_error(Reply(line["status"], {}, data), AT)
            told = OLLAMA.decode_error(OLLAMA.encode_error(error), AT)
            assert (told.kind, told.message, told.status) == (error.kind, error.message, error.status)
        elif line["streamed"]:
            said_as_read(data, AT)
        else:
            said_and_read(OLLAMA.decode_response(Reply(200, {}, data), AT), AT)


# ---- answers that are none -------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["error", "incomplete", "cancelled"])
def test_an_answer_that_is_not_whole_is_an_error_whole_or_streamed(reason):
    response = Response(Message("assistant", (Text("Hal"),)), reason)
    reply, losses = OLLAMA.encode_response(response, Peek())
    assert reply.status >= 400 and "error" in json.loads(reply.body)
    assert [loss.field for loss in losses] == ["message"]
    _, collector = read(OLLAMA.reader(AT), written(as_events(response))[0])
    assert collector.failed is not None and collector.response().text == "Hal"


@pytest.mark.parametrize("reason", [None, "content_filter", "refusal", "pause", "compaction", "unknown"])
@pytest.mark.parametrize("calls", [(), (ToolCall("a", "f"),)], ids=["words", "call"])
def test_an_end_that_is_no_success_is_not_read_as_one(reason, calls):
    response = Response(Message("assistant", (Text("Hm"), *calls)), reason)
    reply, losses = OLLAMA.encode_response(response, Peek())
    assert OLLAMA.decode_response(reply, AT).finish_reason in (None, "unknown")
    _, collector = read(OLLAMA.reader(AT), written(as_events(response))[0])
    assert collector.response().finish_reason == "unknown"
    if reason not in (None, "unknown"):
        assert ("finish_reason", "loss") in [(loss.field, loss.severity) for loss in losses]


def test_what_json_cannot_say_is_an_error_of_ours():
    odd = Response(Message("assistant", extra={"ollama.chat": {"x": object()}}), "stop")
    with pytest.raises(BadResponseError):
        OLLAMA.encode_response(odd, Peek())
    for event in (TextDelta("\ud800"), ExtraAdded({"ollama.chat": {"x": object()}})):
        data, writer = written([Started(None, "m"), TextDelta("a"), event, Ended("stop")])
        assert writer.done and json.loads(data.splitlines()[-1])["status_code"] == 502
    assert json.loads(OLLAMA.encode_error(of_kind("server", "\ud800")).body)["error"] == "?"


# ---- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_kind_of_error_survives_whole_and_in_a_stream(kind):
    error = of_kind(kind, "m", code="c7", param="options.seed", retry_after=1.5)
    reply = OLLAMA.encode_error(error)
    told = OLLAMA.decode_error(reply, AT)
    assert (told.kind, told.message, told.code, told.param) == (kind, "m", "c7", "options.seed")
    assert told.retryable == error.retryable
    assert "hint" not in json.loads(reply.body)
    events, _ = read(OLLAMA.reader(AT), written([Started(None, "m"), TextDelta("a"), Failed(error)])[0])
    assert (events[-1].error.kind, events[-1].error.message) == (kind, "m")


# ---- streams ---------------------------------------------------------------------------------------

TURN = [
    Started("id-7", "m", 1772355600.5),
    ReasoningDelta("Hm.", 0),
    TextDelta("Let me ", 1),
    ToolCallStarted(2, "a", "f"),
    TextDelta("look.", 1),
    ToolCallDelta(2, '{"x":\n '),
    ToolCallDelta(2, "1}"),
    ToolCallEnded(2),
    UsageReported(Usage(7, 5, source="provider")),
    Ended("tool_calls", "tool_use"),
]


def test_lines_come_in_the_order_of_events_and_calls_come_whole():
    writer = OLLAMA.writer(Peek(stream=True))
    lines = [writer.send(event) for event in TURN]
    messages = [json.loads(line)["message"] if line else None for line in lines]
    assert messages == [
        None,
        {"role": "assistant", "content": "", "thinking": "Hm."},
        {"role": "assistant", "content": "Let me "},
        None,
        {"role": "assistant", "content": "look."},
        None,
        None,
        {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "function": {"name": "f",
                                                                                     "arguments": {"x": 1}}}]},
        None,
        {"role": "assistant", "content": ""},
    ]  # fmt: skip
    assert [json.loads(line)["done"] for line in lines if line] == [False] * 4 + [True]
    assert [loss.field for loss in writer.losses] == ["id"]
    assert writer.keep_alive() == b"" and writer.content_type == "application/x-ndjson"


def test_a_line_is_one_line_for_every_reader():
    words = "a\u2028b\u2029c\u0085d\r\ne"
    data, _ = written([*TURN[:-1], TextDelta(words, 1), ReasoningDelta(words, 0), Ended("tool_calls")])
    lines = data.decode().splitlines()
    assert len(lines) == data.count(b"\n") == 7
    assert json.loads(lines[4])["message"]["content"] == json.loads(lines[5])["message"]["thinking"] == words


def test_a_stream_that_was_cut_ends_in_an_error():
    data, writer = written(TURN[:5])
    assert json.loads(data.splitlines()[-1])["error"] and writer.done
    assert [loss.field for loss in writer.losses] == ["id", "message.parts[2].tool_call"]
    events, _ = read(OLLAMA.reader(AT), data)
    assert events[-1].error.kind == "stream_interrupted"
    nothing, _ = written([])
    assert isinstance(read(OLLAMA.reader(AT), nothing)[0][-1], Failed)


def test_what_was_written_and_cut_anywhere_is_never_whole():
    data, _ = written([*TURN[:-1], TextDelta("Grüße 🌊", 1), TURN[-1]])
    # Without the last end of line every byte of the answer is there.
    for cut in range(len(data) - 1):
        events, _ = read(OLLAMA.reader(AT), data[:cut])
        assert isinstance(events[-1], Failed), cut


def test_keys_of_ours_cannot_end_or_break_a_stream():
    keys = {"done": True, "error": "no", "done_reason": "stop", "novel": 1, "message": {"content": "x", "mood": 2}}
    data, writer = written([Started(None, "m", 1.0), ExtraAdded({"ollama.chat": keys}), TextDelta("a"), Ended("stop")])
    _, collector = read(OLLAMA.reader(AT), data)
    assert collector.response().text == "a"
    assert collector.response().extra == {"ollama.chat": {"novel": 1, "message": {"mood": 2}}}
    assert [loss.field.removeprefix("extra.ollama.chat.") for loss in writer.losses] == [
        "done", "error", "done_reason", "message.content",
    ]  # fmt: skip


OTHERS = tuple(sorted(set(NAMES) - {"ollama.chat"}))


def words_of(response):
    """All words of an answer, whichever part has them."""
    words = {Text: "text", Refusal: "text", Audio: "transcript"}
    return "".join([getattr(part, words[type(part)]) or "" for part in response.message.parts if type(part) in words])


@pytest.mark.parametrize("name", vectors("stream", *OTHERS))
def test_a_stream_of_another_dialect_is_well_formed_and_whole(name):
    events, theirs = read(dialect(name.split("/")[0]).reader(endpoint_of(CASES[name])), bytes_of(CASES[name]))
    data, writer = written(events)
    lines = [json.loads(line) for line in data.decode().split("\n")[:-1]]
    assert [line.get("done", True) for line in lines] == [False] * (len(lines) - 1) + [True]
    assert all(line["message"]["role"] == "assistant" for line in lines[:-1])
    _, ours = read(OLLAMA.reader(AT), data)
    wanted, got = theirs.response(), ours.response()
    assert (theirs.failed and theirs.failed.error.kind) == (ours.failed and ours.failed.error.kind)
    assert got.text == words_of(wanted)
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
    reply, losses = OLLAMA.encode_response(wanted, Peek())
    lost = {loss.field for loss in losses}
    if reply.status != 200:
        assert lost == {"message"}
        return
    got = OLLAMA.decode_response(reply, AT)
    assert (got.text, got.reasoning) == (words_of(wanted), wanted.reasoning)
    assert got.finish_reason == wanted.finish_reason or "finish_reason" in lost
    assert (got.logprobs, got.model, got.created) == (wanted.logprobs, wanted.model, wanted.created or None)
    for field in ("input", "output"):
        assert getattr(got.usage, field) == getattr(wanted.usage, field)
    for field in ("cache_read", "cache_write", "reasoning"):
        assert (getattr(wanted.usage, field) is not None) == (f"usage.{field}" in lost)
    for number, part in enumerate(wanted.message.parts):
        plain = type(part)(part.text) == part if isinstance(part, Text) else isinstance(part, ToolCall)
        if not plain and not (isinstance(part, Reasoning) and part.signature is part.encrypted is None):
            assert any(field.startswith(f"message.parts[{number}].") for field in lost), part
    assert (wanted.choices != ()) == ("choices" in lost) and (wanted.id is not None) == ("id" in lost)
    assert {f"extra.{key}" for key in wanted.extra} <= lost
