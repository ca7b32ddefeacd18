"""The built-in model answers offline, the same way every time, in the form it was asked for, and says
what it is."""

import asyncio
import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from polyvox.dialects import NAMES, Endpoint, Reply, dialect
from polyvox.dialects.collect import Collector
from polyvox.errors import BadResponseError, CallTimeoutError, InputError, NotFoundError, UsageError
from polyvox.schema import validate
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.demo import DemoTransport
from polyvox.transports.demo.brain import as_words, think
from polyvox.transports.demo.fill import UnfillableError, fill
from polyvox.types import (
    Audio,
    File,
    Image,
    Message,
    Opaque,
    Request,
    Response,
    ResponseFormat,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolResult,
)

ABOUT = "This is polyvox's built-in offline model; no provider was asked."
WEATHER = Tool(
    "get_weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CLOCK = Tool("clock")
SHELL = Tool("shell", kind="custom")


def user(said, *more):
    return Message("user", (Text(said), *more))


def answer(*said, **more):
    """The demo's answer to some messages, plain texts being the user's."""
    messages = [user(one) if isinstance(one, str) else one for one in said or ["hello"]]
    return think(Request("demo", tuple(messages), **more))


def called(said, *tools, **more):
    response = answer(said, tools=tools, **more)
    assert (response.finish_reason == "tool_calls") == bool(response.tool_calls)
    return [(call.name, call.args) for call in response.tool_calls]


# ---- words ------------------------------------------------------------------------------------


def test_an_answer_says_what_was_said_and_what_it_is():
    response = answer("hello there")
    assert response.text == f"[demo] You said: hello there. {ABOUT}"
    assert (response.model, response.created, response.finish_reason) == ("demo", 0.0, "stop")
    assert response.complete and response.extra == {}


def test_the_same_request_has_the_same_answer_and_another_has_another_id():
    assert answer("one") == answer("one")
    assert answer("one").id != answer("two").id
    assert answer("one").id != answer("one", temperature=1.0).id


def test_the_last_thing_the_user_said_counts():
    messages = [Message("system", (Text("be brief"),)), user("first"), Message("assistant", (Text("ok"),))]
    assert answer(*messages, user("sec", Text("ond"))).text == f"[demo] You said: second. {ABOUT}"
    assert answer(*messages[:1]).text.startswith("[demo] You said: . ")


def test_a_long_text_is_quoted_in_part():
    text = answer("x" * 5000).text
    assert "x" * 399 + "…" in text and "x" * 400 not in text


def test_what_came_beside_the_words_is_counted_and_not_looked_at():
    sent = (Image(b"1"), Image(url="https://example.com/2.png"), File(b"%PDF"))
    assert answer(user("look", *sent)).text == (
        f"[demo] You said: look. With that came 2 images and 1 file, which the demo does not look at. {ABOUT}"
    )
    heard = Message("tool", (ToolResult("call_1", (Text("a hum"), Audio(b"mm"))),))
    assert "The tools answered: tool: a hum. With that came 1 audio clip, " in answer("hi", heard).text


def test_tokens_are_words_times_four_thirds_and_say_that_they_are_a_guess():
    usage = answer("one two three").usage
    assert (usage.input, usage.source, usage.raw) == (4, "provider", {"estimated": "words * 4/3"})
    assert usage.total == usage.input + usage.output


def test_all_that_is_said_on_either_side_counts_as_tokens():
    call = ToolCall("call_1", "clock", '{"zone": "UTC"}')
    earlier = [Message("assistant", (call,)), Message("tool", (ToolResult("call_1", (Text("it is noon"),)),))]
    usage = answer("the clock", *earlier).usage
    assert usage.input == 3 + 3 + 4
    assert answer("the weather", tools=[WEATHER]).usage.output == 3
    assert answer(n=2).usage.output > 2 * answer().usage.output


def test_a_limit_cuts_the_answer_and_says_so():
    cut = answer(max_tokens=4)
    assert (cut.text, cut.finish_reason, cut.usage.output) == ("[demo] You said:", "length", 4)
    for limit in (0, 1):
        assert (answer(max_tokens=limit).text, answer(max_tokens=limit).finish_reason) == ("", "length")
    assert answer(max_tokens=1000).finish_reason == "stop"


@pytest.mark.parametrize("stops", [("You",), ("", "nowhere", "said", "You")])
def test_a_stop_sequence_ends_the_answer_before_it_and_is_named(stops):
    cut = answer(stop=stops)
    assert (cut.text, cut.finish_reason, cut.stop_sequence) == ("[demo] ", "stop", "You")
    assert answer(stop=("nowhere",)).stop_sequence is None


def test_a_limit_before_the_stop_sequence_is_what_ended_the_answer():
    cut = answer(stop=("said",), max_tokens=2)
    assert (cut.text, cut.finish_reason, cut.stop_sequence) == ("[demo]", "length", None)


def test_several_answers_are_numbered():
    response = answer(n=3)
    assert "answer" not in response.text
    assert ["(answer 2)" in response.choices[0].message.text, "(answer 3)" in response.choices[1].message.text]
    assert [choice.finish_reason for choice in response.choices] == ["stop", "stop"]


# ---- tools ------------------------------------------------------------------------------------


def test_a_tool_is_called_when_its_name_or_a_word_of_it_is_said():
    assert called("how is the weather?", WEATHER, CLOCK) == [("get_weather", {"city": "demo"})]
    assert called("ask the Clock", WEATHER, CLOCK) == [("clock", {})]
    assert called("can you get me a coffee?", WEATHER, CLOCK) == []


def test_tools_named_together_or_twice_are_called_in_parallel():
    assert called("get_weather and clock", WEATHER, CLOCK) == [("get_weather", {"city": "demo"}), ("clock", {})]
    twice = called("get_weather here, get_weather there", WEATHER, CLOCK)
    assert [name for name, _ in twice] == ["get_weather", "get_weather"]
    assert twice[0] != twice[1]
    alone = called("get_weather and clock", WEATHER, CLOCK, parallel_tool_calls=False)
    assert alone == [("get_weather", {"city": "demo"})]


@pytest.mark.parametrize(
    ("said", "choice", "names"),
    [
        ("hello", ToolChoice("required"), ["get_weather"]),
        ("the weather", ToolChoice("none"), []),
        ("the weather", ToolChoice("auto"), ["get_weather"]),
        ("the weather", ToolChoice("required", ("clock",)), ["clock"]),
        ("the weather", ToolChoice("required", ("clock",), subset=True), ["clock"]),
        ("the weather", ToolChoice("auto", ("clock",), subset=True), []),
        ("the weather", ToolChoice("auto", subset=True), []),
    ],
)
def test_the_choice_of_tools_is_the_callers(said, choice, names):
    assert [name for name, _ in called(said, WEATHER, CLOCK, tool_choice=choice)] == names


def test_a_free_text_tool_gets_text():
    (call,) = answer("run shell", tools=(SHELL,)).tool_calls
    assert (call.kind, call.name, call.arguments) == ("custom", "shell", "demo")


def test_a_tool_that_only_one_dialect_knows_is_not_called():
    assert called("search the web", Opaque("some.dialect", "web_search", {"type": "web_search"})) == []


def test_the_results_of_tools_end_the_round_and_are_quoted():
    call = answer("the weather", tools=(WEATHER,)).message
    result = Message("tool", (ToolResult(call.parts[0].id, (Text("4 degrees"),)), ToolResult("x", (), "clock")))
    text = answer("the weather", call, result, tools=(WEATHER,), tool_choice=ToolChoice("required")).text
    assert text.startswith("[demo] The tools answered: get_weather: 4 degrees; clock: . ")


def test_calls_of_later_rounds_have_ids_of_their_own():
    first = answer("the weather", tools=(WEATHER,)).message
    result = Message("tool", (ToolResult(first.parts[0].id, (Text("4"),)),))
    second = answer("the weather", first, result, "weather again", tools=(WEATHER,))
    assert second.tool_calls[0].id != first.parts[0].id


def test_arguments_too_are_cut_at_the_limit():
    cut = answer("the weather", tools=(WEATHER,), max_tokens=2)
    assert (cut.finish_reason, cut.tool_calls[0].arguments) == ("length", '{"city":')
    fewer = answer("the weather, the clock", tools=(WEATHER, CLOCK), max_tokens=3)
    assert len(fewer.tool_calls) == 1 and fewer.finish_reason == "length"


# ---- structured answers -----------------------------------------------------------------------

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 12},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["name", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
SCHEMAS = [
    {},
    {"type": "object"},
    {"type": ["null", "integer"]},
    {"const": {"a": 1}},
    {"enum": ["red", "green"]},
    {"type": "null"},
    {"type": "boolean"},
    {"type": "integer", "minimum": 5, "maximum": 5},
    {"type": "integer", "exclusiveMinimum": 5, "multipleOf": 4},
    {"type": "integer", "minimum": 1.5, "multipleOf": 0.5},
    {"type": "integer", "maximum": -3},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "minimum": 0.25, "maximum": 0.25},
    {"type": "number", "exclusiveMaximum": 1},
    {"minimum": 3},
    {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 3}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "items": {"type": "string"}, "minItems": 4, "uniqueItems": True},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "uniqueItems": True},
    {"type": "array", "maxItems": 0},
    {"type": "array", "items": False},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
    {"type": "array", "contains": {"const": 7}, "minContains": 2},
    {"items": {"type": "string", "format": "date"}},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "email", "maxLength": 40},
    {"type": "string", "format": "uri", "minLength": 60},
    {"type": "string", "maxLength": 2},
    {"type": "string", "pattern": "^[A-Z]{3}$"},
    {"type": "string", "pattern": "^[0-9]+$", "minLength": 30},
    {"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}},
    {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"], "maxProperties": 1},
    {"type": "object", "properties": {"a": False, "b": {"type": "string"}}},
    {"required": ["a"], "additionalProperties": {"type": "integer"}},
    {"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"a": {"minLength": 9}}, "required": ["a"]}]},
    {"allOf": [{"$ref": "#/$defs/x"}, {"maximum": 3}], "$defs": {"x": {"type": "integer", "minimum": 2}}},
    {"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}, True]},
    {"oneOf": [{"type": "integer"}, {"type": "number", "multipleOf": 0.5}]},
    {"anyOf": [{"type": "null"}, False, {"type": "string"}], "minLength": 7},
    {"anyOf": [{"type": "string", "pattern": "^no such sample \\d+$"}, {"type": "integer"}]},
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}},
    {"$ref": "#/prefixItems/0", "prefixItems": [{"type": "integer"}]},
    {"type": "object", "properties": {"me": {"$ref": "#"}}},
    TREE,
    {"type": "object", "properties": {"t": TREE["$defs"]["node"]}, "$defs": TREE["$defs"]},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_value_for_a_schema_fits_it(schema, number):
    assert validate(fill(schema, number), schema) == []


def test_optional_things_are_filled_in_but_not_for_ever():
    value = fill(TREE)
    assert value["children"][0]["name"].startswith("demo")
    assert len(json.dumps(value)) < 10_000


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$ref": "https://example.com/schema.json"},
        {"type": "string", "pattern": "^no such sample \\d+$"},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "minItems": 1, "items": False},
        {"type": "object", "minProperties": 10**9},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"oneOf": [{"type": "integer"}, {"type": "integer"}]},
        {"anyOf": []},
        {"type": "colour"},
        {"not": {}},
    ],
    ids=json.dumps,
)
def test_a_schema_that_nothing_fits_is_said_to_be_one_in_a_blink(schema):
    start = time.monotonic()
    with pytest.raises(UnfillableError):
        fill(schema)
    assert time.monotonic() - start < 5


def test_a_schema_that_is_too_deep_is_said_to_be():
    deep = {}
    for _ in range(600):
        deep = {"properties": {"a": deep}}
    with pytest.raises(UnfillableError, match="too deep"):
        fill({"allOf": [deep, deep]})


NUMBERS = st.integers(-20, 20) | st.floats(-20, 20).map(lambda number: round(number, 2))
PLAIN = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["string", "boolean", "null"])}),
    st.fixed_dictionaries({"type": st.sampled_from(["integer", "number"])}, optional={"minimum": NUMBERS}),
    st.fixed_dictionaries({"type": st.just("number")}, optional={"exclusiveMaximum": NUMBERS}),
    st.fixed_dictionaries({"type": st.just("string"), "minLength": st.integers(0, 30)}),
    st.fixed_dictionaries({"enum": st.lists(st.integers() | st.text(), min_size=1)}),
)
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner, "minItems": st.integers(0, 3)}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
        st.dictionaries(st.sampled_from("abc"), inner).map(
            lambda named: {"type": "object", "properties": named, "required": sorted(named)[:2]}
        ),
    ),
)


@given(NESTED)
def test_any_ordinary_schema_can_be_filled(schema):
    assert validate(fill(schema), schema) == []


def test_an_answer_of_a_schema_is_json_that_fits_and_nothing_else():
    text = answer(response_format=ResponseFormat("schema", TREE)).text
    assert validate(json.loads(text), TREE) == []
    assert answer(response_format=ResponseFormat("schema")).text == "{}"


def test_any_json_is_an_object_that_says_what_it_is():
    assert json.loads(answer("hi", response_format=ResponseFormat("json")).text) == {"demo": True, "you_said": "hi"}
    assert answer(response_format=ResponseFormat("text")).text.startswith("[demo]")


# ---- requests that have no answer -------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "facts", "param", "code"),
    [
        ((), {}, "messages", "invalid_value"),
        (("hi",), {"n": 0}, "n", "invalid_value"),
        (("hi",), {"n": 9}, "n", "invalid_value"),
        (("hi",), {"max_tokens": -1}, "max_tokens", "invalid_value"),
        (("hi",), {"tool_choice": ToolChoice("required")}, "tool_choice", "invalid_value"),
        (("hi",), {"tools": (CLOCK,), "tool_choice": ToolChoice("auto", ("gone",))}, "tool_choice", "invalid_value"),
        (("x",), {"tools": (Tool("x", parameters={"not": {}}),)}, "tools", "unfillable_schema"),
        (("x",), {"tools": (Tool("x", parameters={"required": 5}),)}, "tools", "invalid_schema"),
        (("hi",), {"response_format": ResponseFormat("schema", {"not": {}})}, "response_format", "unfillable_schema"),
        (("hi",), {"response_format": ResponseFormat("schema", {"enum": 5})}, "response_format", "invalid_schema"),
        (("\ud800",), {}, None, "invalid_value"),
    ],
)
def test_a_request_without_an_answer_is_refused_with_what_is_wrong(said, facts, param, code):
    with pytest.raises(InputError) as caught:
        think(Request("demo", tuple(map(user, said)), **facts))
    assert (caught.value.param, caught.value.code, caught.value.sent) == (param, code, "no")


def test_a_request_that_no_wire_could_bring_is_refused_too():
    deep = {}
    for _ in range(100_000):
        deep = {"a": deep}
    for value in (deep, {(1, 2): 3}, object(), "\udc80"):
        with pytest.raises(InputError, match="no JSON"):
            think(Request("demo", (user("hi"),), extra={"some.dialect": {"some": value}}))


def test_another_model_is_not_found():
    with pytest.raises(NotFoundError, match="'other' does not exist here; there is only 'demo'") as caught:
        think(Request("other", (user("hi"),)))
    assert (caught.value.status, caught.value.param, caught.value.code) == (404, "model", "model_not_found")


# ---- word by word -----------------------------------------------------------------------------

ASKED = st.builds(
    Request,
    st.just("demo"),
    st.lists(st.text(st.characters(codec="utf-8")).map(lambda said: user(f"JSON {said}")), min_size=1, max_size=2).map(
        tuple
    ),
    tools=st.lists(st.sampled_from([WEATHER, CLOCK, SHELL]), unique_by=lambda tool: tool.name, min_size=1).map(tuple),
    tool_choice=st.sampled_from([ToolChoice("auto"), ToolChoice("required"), ToolChoice("none")]),
    n=st.integers(1, 3),
    max_tokens=st.integers(0, 60),
    stop=st.sampled_from([(), ("said",), (" ", "demo")]),
    response_format=st.sampled_from([ResponseFormat("text"), ResponseFormat("json"), ResponseFormat("schema", TREE)]),
)


@given(ASKED)
def test_any_answer_told_word_by_word_is_the_same_answer(request):
    response, collector = think(request), Collector()
    for event in as_words(response):
        collector.add(event)
    assert collector.response() == response


def test_each_word_is_told_with_the_space_before_it():
    told = list(as_words(answer("hello  there\n", max_tokens=9)))
    assert [event.text for event in told if isinstance(event, TextDelta)] == [
        "[demo]", " You", " said:", " hello", "  there", "\n.",
    ]  # fmt: skip
    told = list(as_words(answer("weather", tools=(WEATHER,))))
    assert [event.arguments for event in told if isinstance(event, ToolCallDelta)] == ['{"city":', ' "demo"}']


def test_parts_that_have_no_words_are_told_whole():
    parts = (Image(b"1"), ToolCall("call_1", "f", "{}", signature="proof", origin="somewhere"))
    response, collector = Response(Message("assistant", parts), "stop", extra={"a": {"b": 1}}), Collector()
    for event in as_words(response):
        collector.add(event)
    assert collector.response() == response


# ---- in every dialect -------------------------------------------------------------------------

TALK = (
    Message("system", (Text("be brief"),)),
    user("the weather"),
    Message("assistant", (ToolCall("call_demo_1", "get_weather", '{"city":"demo"}'),)),
    Message("tool", (ToolResult("call_demo_1", (Text("4 degrees"),)),)),
)
QUESTIONS = {
    "words": Request("demo", (user("hello there"),), max_tokens=100),
    "a picture": Request(
        "demo", (user("look", Image(bytes.fromhex("89504e470d0a1a0a"), media_type="image/png")),), max_tokens=100
    ),
    "calls": Request("demo", (user("weather and clock"),), (WEATHER, CLOCK), max_tokens=100),
    "results": Request("demo", TALK, (WEATHER,), max_tokens=100),
    "a limit": Request("demo", (user("hello there"),), max_tokens=16),
    "a stop sequence": Request("demo", (user("hello there"),), max_tokens=100, stop=("there",)),
    "a schema": Request("demo", (user("a tree"),), response_format=ResponseFormat("schema", TREE), max_tokens=100),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_demo_asked_in_any_dialect_answers_the_same(name, question, stream):
    request, room, at = replace(QUESTIONS[question], stream=stream), dialect(name), Endpoint()
    wire, losses = room.encode_request(request, at)
    room.check_request(wire)
    if any(loss.severity == "loss" for loss in losses):
        assert question == "a stop sequence" and name == "openai.responses"  # the one thing a protocol cannot ask for
        return
    expected, thought = think(request), think(room.decode_request(wire, at))
    assert (thought.message, thought.finish_reason) == (expected.message, expected.finish_reason)
    asked = room.peek(wire)
    if stream:
        writer, reader, collector = room.writer(asked), room.reader(at), Collector()
        for event in [*reader.feed(b"".join(map(writer.send, as_words(thought)))), *reader.close()]:
            collector.add(event)
        got = collector.response()
    else:
        got = room.decode_response(room.encode_response(thought, asked)[0], at)
    assert got.complete and got.text == expected.text
    assert got.model in ("demo", None)  # some protocols do not name who answered
    assert [(call.name, call.args) for call in got.tool_calls] == [(c.name, c.args) for c in expected.tool_calls]
    assert got.finish_reason == expected.finish_reason
    assert (got.usage.input, got.usage.output) == (thought.usage.input, thought.usage.output)


# ---- on the wire ------------------------------------------------------------------------------

URL = "http://demo.invalid/v1/chat/completions"
ROOM = dialect("openai.chat")


def body(said="hello", **more):
    return {"model": "demo", "messages": [{"role": "user", "content": said}], **more}


def post(sent, url=URL, method="POST", transport=None, idle=60.0):
    """Status, headers and chunks of one exchange."""

    async def exchange():
        data = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        got = await (transport or DemoTransport()).send(Outgoing(method, url, {}, data), Timeouts(idle=idle))
        chunks = []
        while data := await got.chunk():
            chunks.append(data)
        await got.close()
        return got.status, got.headers, chunks

    return asyncio.run(exchange())


def told(request):
    """A request through the wire and back: the answer as a client decodes it."""
    wire, _ = ROOM.encode_request(request, Endpoint())
    status, headers, chunks = post(wire.body)
    if not request.stream:
        return ROOM.decode_response(Reply(status, headers, b"".join(chunks)), Endpoint()), chunks
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    reader, collector = ROOM.reader(Endpoint()), Collector()
    for event in [event for chunk in chunks for event in reader.feed(chunk)] + reader.close():
        collector.add(event)
    assert collector.failed is None
    return collector.response(), chunks


def test_a_whole_answer_has_the_protocols_own_form():
    status, headers, chunks = post(body("hello there"))
    whole = json.loads(b"".join(chunks))
    assert (status, headers["content-type"], whole["object"]) == (200, "application/json", "chat.completion")
    assert whole["choices"][0]["message"]["content"] == f"[demo] You said: hello there. {ABOUT}"
    assert (whole["model"], whole["created"], whole["system_fingerprint"]) == ("demo", 0, "demo-offline")
    assert whole["id"].startswith("chatcmpl-demo-") and headers["x-request-id"].startswith("req-demo-")
    assert whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + whole["usage"]["completion_tokens"]


@given(ASKED, st.booleans())
def test_the_wire_brings_what_was_thought(request, stream):
    request = replace(request, stream=stream, max_tokens=request.max_tokens + 1)
    thought, (response, _) = think(request), told(request)
    assert response.message == thought.message
    assert [choice.message for choice in response.choices] == [choice.message for choice in thought.choices]
    assert response.finish_reason == thought.finish_reason
    assert (response.usage.input, response.usage.output) == (thought.usage.input, thought.usage.output)
    assert response.extra["openai.chat"]["system_fingerprint"] == "demo-offline"


def test_a_streams_events_come_one_by_one():
    request = Request("demo", (user("hello there, friend"),), stream=True)
    response, chunks = told(request)
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    assert chunks[-1].endswith(b"data: [DONE]\n\n")
    assert len(chunks) >= len(response.text.split())
    words = ["".join(event.text for event in ROOM.reader(Endpoint()).feed(chunk) if isinstance(event, TextDelta))
             for chunk in chunks]  # fmt: skip
    assert [word for word in words if word] == [
        event.text for event in as_words(think(request)) if isinstance(event, TextDelta)
    ]


def test_a_stream_tells_its_usage_only_when_asked():
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    assert b'"prompt_tokens"' not in b"".join(post(body(stream=True))[2])
    assert b'"prompt_tokens"' in b"".join(post(body(**asked))[2])


def test_each_word_waits_as_long_as_told():
    start = time.monotonic()
    _, _, chunks = post(body(stream=True, max_tokens=4), transport=DemoTransport(delay=0.01))
    assert time.monotonic() - start >= 0.01 * len(chunks)


def test_a_word_that_takes_longer_than_allowed_is_a_timeout():
    with pytest.raises(CallTimeoutError) as caught:
        post(body(stream=True), transport=DemoTransport(delay=5), idle=0.01)
    assert caught.value.sent == "yes"


FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {"not": {}}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"not": {}}}}


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        (b"{not json", None),
        (b"\xff", None),
        ([], None),
        ({"model": "demo"}, "messages"),
        (body(messages=[]), "messages"),
        (body(messages="hi"), "messages"),
        (body(messages=[{"role": "boss", "content": "x"}]), "messages"),
        (body(messages=[{"role": "user", "content": 5}]), "messages"),
        (body(messages=[{"role": "user", "content": ["x"]}]), "messages"),
        (body(messages=[{"role": "tool", "content": "x"}]), "messages"),
        (body(messages=[{"role": "assistant", "tool_calls": [{"id": "x"}]}]), "messages"),
        (body(tools=[{"type": "function"}]), "tools"),
        (body(tools=[{"type": "function", "function": {"name": "weather", "parameters": [1]}}]), "tools"),
        (body("weather", tools=[FUNCTION]), "tools"),
        (body(tool_choice="required"), "tool_choice"),
        (body(tool_choice="perhaps"), "tool_choice"),
        (body(tool_choice={"type": "function", "function": {"name": "gone"}}), "tool_choice"),
        (body(tool_choice={"type": "allowed_tools"}), "tool_choice"),
        (body(response_format={"type": "xml"}), "response_format"),
        (body(response_format={"type": "json_schema"}), "response_format"),
        (body(response_format=FORMAT), "response_format"),
        (body(max_tokens=0), "max_tokens"),
        (body(n=99), "n"),
        (body(stop=[1]), "stop"),
        (body(temperature=3), "temperature"),
        (body(top_p=-1), "top_p"),
        (body(stream="yes"), "stream"),
        (body(stream=True, stream_options=[]), "stream_options"),
    ],
    ids=repr,
)
def test_a_wrong_request_is_refused_in_the_protocols_own_form(sent, param):
    status, headers, chunks = post(sent)
    error = json.loads(b"".join(chunks))["error"]
    place = error["param"] and re.split(r"[.\[]", error["param"])[0]
    assert (status, error["type"], place) == (400, "invalid_request_error", param)
    assert error["message"] and headers["content-type"] == "application/json"


def test_another_model_is_not_found_here():
    status, headers, chunks = post({**body(), "model": "other"})
    error = ROOM.decode_error(Reply(status, headers, b"".join(chunks)), Endpoint())
    assert isinstance(error, NotFoundError) and "'other'" in error.message


def test_other_places_are_not_found_but_the_models_are():
    assert post(body(), url="http://demo.invalid/v1/nothing")[0] == 404
    assert post(body(), method="GET")[0] == 404
    status, _, chunks = post(b"", url="http://demo.invalid/v1/models", method="GET")
    assert status == 200 and [model["id"] for model in json.loads(chunks[0])["data"]] == ["demo"]


# ---- the contract of a transport --------------------------------------------------------------


def test_a_body_beyond_the_limit_is_refused():
    async def read(limit):
        outgoing = Outgoing("POST", URL, {}, json.dumps(body()).encode())
        exchange = await DemoTransport().send(outgoing, Timeouts())
        return await exchange.read(limit)

    assert json.loads(asyncio.run(read(10_000)))["model"] == "demo"
    with pytest.raises(BadResponseError):
        asyncio.run(read(10))


def test_what_is_closed_refuses_further_use():
    async def after_close(what):
        transport, outgoing = DemoTransport(), Outgoing("POST", URL, {}, json.dumps(body()).encode())
        exchange = await transport.send(outgoing, Timeouts())
        await (exchange if what == "exchange" else transport).close()
        await (exchange.chunk() if what == "exchange" else transport.send(outgoing, Timeouts()))

    for what in ("exchange", "transport"):
        with pytest.raises(UsageError):
            asyncio.run(after_close(what))


def test_many_calls_may_share_one_transport():
    async def together():
        transport = DemoTransport()

        async def one(i):
            outgoing = Outgoing("POST", URL, {}, json.dumps(body(f"number {i}", stream=True)).encode())
            exchange = await transport.send(outgoing, Timeouts())
            return i, b"".join([data async for data in chunks(exchange)])

        async def chunks(exchange):
            while data := await exchange.chunk():
                yield data

        return await asyncio.gather(*map(one, range(20)))

    for i, data in asyncio.run(together()):
        assert f'" {i}."' in data.decode()
