"""The built-in model answers offline, the same way every time, in the form it was asked for, and says
what it is."""

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.dialects import Endpoint, Reply, dialect
from polyvox.dialects.collect import Collector
from polyvox.errors import BadResponseError, CallTimeoutError, NotFoundError, UsageError
from polyvox.schema import validate
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.demo import DemoTransport
from polyvox.transports.demo.brain import DemoRefusalError, think
from polyvox.transports.demo.fill import UnfillableError, fill

URL = "http://demo.invalid/v1/chat/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def request(said="hello", **more):
    return {"model": "demo", "messages": [{"role": "user", "content": said}], **more}


def post(body, url=URL, method="POST", transport=None, idle=60.0):
    """Status, headers and chunks of one exchange."""

    async def exchange():
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        got = await (transport or DemoTransport()).send(Outgoing(method, url, {}, sent), Timeouts(idle=idle))
        chunks = []
        while data := await got.chunk():
            chunks.append(data)
        await got.close()
        return got.status, got.headers, chunks

    return asyncio.run(exchange())


def answer(said="hello", **more):
    status, _, chunks = post(request(said, **more))
    assert status == 200, chunks
    return json.loads(b"".join(chunks))


def words(said="hello", **more):
    return answer(said, **more)["choices"][0]["message"]["content"]


def called(said="hello", **more):
    choice = answer(said, **more)["choices"][0]
    calls = choice["message"].get("tool_calls", [])
    assert (choice["finish_reason"] == "tool_calls") == bool(calls)
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


# ---- words ------------------------------------------------------------------------------------


def test_an_answer_says_what_was_said_and_what_it_is():
    body = answer("hello there")
    assert body["choices"][0]["message"]["content"] == (
        "[demo] You said: hello there. This is polyvox's built-in offline model; no provider was asked."
    )
    assert (body["model"], body["system_fingerprint"], body["object"]) == ("demo", "demo-offline", "chat.completion")
    assert body["choices"][0]["finish_reason"] == "stop"


def test_the_same_request_has_the_same_answer_and_another_has_another_id():
    assert answer("one") == answer("one")
    assert answer("one")["id"] != answer("two")["id"]


def test_the_last_thing_the_user_said_counts_and_parts_are_read():
    said = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "image_url", "image_url": {}}]},
    ]
    assert words(messages=said).startswith("[demo] You said: second. ")


def test_a_long_text_is_quoted_in_part():
    text = words("x" * 5000)
    assert "x" * 399 + "…" in text and "x" * 400 not in text


def test_tokens_are_words_times_four_thirds_and_say_that_they_are_a_guess():
    usage = answer("one two three")["usage"]
    assert usage["prompt_tokens"] == 4
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["estimated"] == "words * 4/3"


def test_a_limit_cuts_the_answer_and_says_so():
    choice = answer(max_tokens=4)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("[demo] You said:", "length")
    assert answer(max_completion_tokens=4)["usage"]["completion_tokens"] <= 4
    assert answer(max_tokens=1)["choices"][0]["message"]["content"] == ""
    assert answer(max_tokens=1000)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stop", ["You", ["nowhere", "You", "said"]])
def test_a_stop_sequence_ends_the_answer_before_it(stop):
    choice = answer(stop=stop)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("[demo] ", "stop")


def test_several_answers_are_numbered():
    choices = answer(n=3)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert "(answer 3)" in choices[2]["message"]["content"]


# ---- tools ------------------------------------------------------------------------------------


def test_a_tool_is_called_when_its_name_or_a_word_of_it_is_said():
    tools = [WEATHER, CLOCK]
    assert called("how is the weather?", tools=tools) == [("get_weather", {"city": "demo"})]
    assert called("ask the Clock", tools=tools) == [("clock", {})]
    assert called("can you get me a coffee?", tools=tools) == []


def test_tools_named_together_or_twice_are_called_in_parallel():
    tools = [WEATHER, CLOCK]
    assert called("get_weather and clock", tools=tools) == [("get_weather", {"city": "demo"}), ("clock", {})]
    twice = called("get_weather here, get_weather there", tools=tools)
    assert [name for name, _ in twice] == ["get_weather", "get_weather"]
    assert twice[0] != twice[1]
    assert called("get_weather and clock", tools=tools, parallel_tool_calls=False) == [
        ("get_weather", {"city": "demo"})
    ]


def test_the_choice_of_tools_is_the_callers():
    tools = [WEATHER, CLOCK]
    named = {"type": "function", "function": {"name": "clock"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [CLOCK]}}
    assert called("hello", tools=tools, tool_choice="required") == [("get_weather", {"city": "demo"})]
    assert called("the weather", tools=tools, tool_choice="none") == []
    assert called("the weather", tools=tools, tool_choice=named) == [("clock", {})]
    assert called("the weather", tools=tools, tool_choice=allowed) == [("clock", {})]


def test_a_free_text_tool_gets_text():
    message = answer("run shell", tools=[{"type": "custom", "custom": {"name": "shell"}}])["choices"][0]["message"]
    assert message["tool_calls"][0]["custom"] == {"name": "shell", "input": "demo"}


def test_the_results_of_tools_end_the_round_and_are_quoted():
    first = answer("the weather", tools=[WEATHER])["choices"][0]["message"]
    messages = [{"role": "user", "content": "the weather"}, first]
    messages += [{"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "4 degrees"}]
    text = words(messages=messages, tools=[WEATHER], tool_choice="required")
    assert text.startswith("[demo] The tools answered: get_weather: 4 degrees. ")


def test_calls_of_later_rounds_have_ids_of_their_own():
    first = answer("the weather", tools=[WEATHER])["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "4"}
    again = [{"role": "user", "content": "the weather"}, first, result, {"role": "user", "content": "weather again"}]
    second = answer(messages=again, tools=[WEATHER])["choices"][0]["message"]
    assert second["tool_calls"][0]["id"] != first["tool_calls"][0]["id"]


def test_arguments_too_are_cut_at_the_limit():
    choice = answer("the weather", tools=[WEATHER], max_tokens=2)["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city":'
    none = answer("the weather, the clock", tools=[WEATHER, CLOCK], max_tokens=3)["choices"][0]
    assert len(none["message"]["tool_calls"]) == 1 and none["finish_reason"] == "length"


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
    wanted = {"type": "json_schema", "json_schema": {"name": "tree", "schema": TREE}}
    assert validate(json.loads(words(response_format=wanted)), TREE) == []


def test_any_json_is_an_object_that_says_what_it_is():
    assert json.loads(words("hi", response_format={"type": "json_object"})) == {"demo": True, "you_said": "hi"}
    assert json.loads(words(response_format={"type": "json_schema", "json_schema": {}})) == {}
    assert words(response_format={"type": "text"}).startswith("[demo]")


# ---- streams ----------------------------------------------------------------------------------


def streamed(said="hello", **more):
    status, headers, chunks = post(request(said, stream=True, **more))
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    reader, collector = dialect("openai.chat").reader(Endpoint()), Collector()
    for chunk in chunks:
        assert chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") and chunk.count(b"\n\n") == 1
        for event in reader.feed(chunk):
            collector.add(event)
    for event in reader.close():
        collector.add(event)
    assert collector.failed is None and chunks[-1] == b"data: [DONE]\n\n"
    return collector.response(), chunks


def test_a_stream_tells_the_same_answer_word_by_word():
    response, chunks = streamed("hello there, friend")
    assert response.text == words("hello there, friend")
    assert len(chunks) >= len(response.text.split())
    assert (response.finish_reason, response.model, response.complete) == ("stop", "demo", True)


def test_a_stream_tells_its_usage_only_when_asked():
    assert streamed()[0].usage.source == "missing"
    response, _ = streamed(stream_options={"include_usage": True})
    assert response.usage.output == answer()["usage"]["completion_tokens"]


def test_a_stream_tells_calls_in_pieces():
    tools = [WEATHER, CLOCK, {"type": "custom", "custom": {"name": "shell"}}]
    response, _ = streamed("weather, clock and shell", tools=tools)
    assert [(call.name, call.arguments) for call in response.tool_calls] == [
        ("get_weather", '{"city": "demo"}'), ("clock", "{}"), ("shell", "demo"),
    ]  # fmt: skip
    assert response.finish_reason == "tool_calls"


def test_a_stream_of_several_answers_tells_all_of_them():
    response, _ = streamed(n=2)
    assert "(answer 2)" in response.choices[0].message.text


def test_each_word_waits_as_long_as_told():
    start = time.monotonic()
    _, _, chunks = post(request(stream=True, max_tokens=4), transport=DemoTransport(delay=0.01))
    assert time.monotonic() - start >= 0.01 * len(chunks)


def test_a_word_that_takes_longer_than_allowed_is_a_timeout():
    with pytest.raises(CallTimeoutError) as caught:
        post(request(stream=True), transport=DemoTransport(delay=5), idle=0.01)
    assert caught.value.sent == "yes"


# ---- requests that are wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{not json", None),
        (b"\xff", None),
        ([], None),
        ({"model": "demo"}, "messages"),
        (request(messages=[]), "messages"),
        (request(messages="hi"), "messages"),
        (request(messages=[{"role": "boss", "content": "x"}]), "messages"),
        (request(messages=[{"role": "user", "content": 5}]), "messages"),
        (request(messages=[{"role": "user", "content": ["x"]}]), "messages"),
        (request(messages=[{"role": "tool", "content": "x"}]), "messages"),
        (request(messages=[{"role": "assistant", "tool_calls": [{"id": "x"}]}]), "messages"),
        (request(tools=[{"type": "function"}]), "tools"),
        (request(tool_choice="required"), "tool_choice"),
        (request(tool_choice="perhaps"), "tool_choice"),
        (request(tool_choice={"type": "function", "function": {"name": "gone"}}), "tool_choice"),
        (request(tool_choice={"type": "allowed_tools"}), "tool_choice"),
        (request(response_format={"type": "xml"}), "response_format"),
        (request(response_format={"type": "json_schema"}), "response_format"),
        (request(response_format={"type": "json_schema", "json_schema": {"schema": {"not": {}}}}), "response_format"),
        (
            request(response_format={"type": "json_schema", "json_schema": {"schema": {"required": 5}}}),
            "response_format",
        ),
        (request("weather", tools=[{"type": "function", "function": {"name": "weather", "parameters": [1]}}]), "tools"),
        (request(max_tokens=0), "max_tokens"),
        (request(n=99), "n"),
        (request(stop=[1]), "stop"),
        (request(temperature=3), "temperature"),
        (request(top_p=-1), "top_p"),
        (request(stream="yes"), "stream"),
        (request(stream_options=[]), "stream_options"),
    ],
    ids=repr,
)
def test_a_wrong_request_is_refused_in_the_protocols_own_form(body, param):
    status, headers, chunks = post(body)
    error = json.loads(b"".join(chunks))["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"] and headers["content-type"] == "application/json"


def test_another_model_is_not_found_here():
    status, headers, chunks = post({**request(), "model": "other"})
    error = dialect("openai.chat").decode_error(Reply(status, headers, b"".join(chunks)), Endpoint())
    assert isinstance(error, NotFoundError)
    with pytest.raises(DemoRefusalError):
        think({**request(), "model": None})


def test_other_places_are_not_found_but_the_models_are():
    assert post(request(), url="http://demo.invalid/v1/embeddings")[0] == 404
    assert post(request(), method="GET")[0] == 404
    status, _, chunks = post(b"", url="http://demo.invalid/v1/models", method="GET")
    assert status == 200 and [model["id"] for model in json.loads(chunks[0])["data"]] == ["demo"]


# ---- the contract of a transport --------------------------------------------------------------


def test_a_body_beyond_the_limit_is_refused():
    async def read(limit):
        outgoing = Outgoing("POST", URL, {}, json.dumps(request()).encode())
        exchange = await DemoTransport().send(outgoing, Timeouts())
        return await exchange.read(limit)

    assert json.loads(asyncio.run(read(10_000)))["model"] == "demo"
    with pytest.raises(BadResponseError):
        asyncio.run(read(10))


def test_what_is_closed_refuses_further_use():
    async def after_close(what):
        transport, outgoing = DemoTransport(), Outgoing("POST", URL, {}, json.dumps(request()).encode())
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
            outgoing = Outgoing("POST", URL, {}, json.dumps(request(f"number {i}", stream=True)).encode())
            exchange = await transport.send(outgoing, Timeouts())
            return i, b"".join([data async for data in chunks(exchange)])

        async def chunks(exchange):
            while data := await exchange.chunk():
                yield data

        return await asyncio.gather(*map(one, range(20)))

    for i, body in asyncio.run(together()):
        assert f'" {i}.' in body.decode() or f" {i}." in body.decode()
