"""Serving the Converse protocol: a client's request is read as it was meant, and what the protocol's inventor
refuses is refused by the name of its place."""

import base64
import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import Endpoint, Peek, Wire, encode_json
from polyvox.dialects.bedrock import DIALECT
from polyvox.dialects.bedrock.answer import citation_of
from polyvox.errors import InputError
from polyvox.types import (
    Audio,
    CacheHint,
    File,
    Image,
    Message,
    Opaque,
    Reasoning,
    Request,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Video,
)

NAME = "bedrock.converse"
HERE = "here/model"
AT = Endpoint(origin=HERE)
FIELDS = {
    "top_k": "inferenceConfig.topK",
    "thinking": "thinking",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "parallel_tool_calls": "tools.parallel",
    "verbosity": "verbosity",
}
WITH_FIELDS = Endpoint(origin=HERE, options={"fields": FIELDS})
VECTORS = Path(__file__).parent.parent / "vectors"
CASES = {
    f"{path.parent.name}/{path.stem}": json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(VECTORS.glob("*/*.json"))
    if not path.name.startswith("serve-")
}


def vectors(case, room=NAME):
    return [name for name, vector in CASES.items() if vector["case"] == case and name.startswith(f"{room}/")]


def bytes_of(vector):
    if "hex" in vector:
        return bytes.fromhex(vector["hex"])
    if "text" in vector:
        return vector["text"].encode()
    if "lines" in vector:
        return ("\n".join(vector["lines"]) + "\n").encode()
    return json.dumps(vector["body"], ensure_ascii=False).encode()


def exchanges():
    folder = os.environ.get("POLYVOX_TRAFFIC")
    if not folder or not (Path(folder) / "dev.jsonl").is_file():
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl)")
    lines = (Path(folder) / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def body_of(exchange):
    if exchange.get("response_base64"):
        return base64.b64decode(exchange["response_base64"])
    return (exchange.get("response_text") or "").encode()


def asked_of(exchange):
    path = exchange["url"].partition("amazonaws.com")[2]
    return Wire(path, json.dumps(exchange["request_json"]).encode(), {})


def recorded_requests():
    return [
        exchange
        for exchange in exchanges()
        if exchange["endpoint"] in ("converse", "converse-stream") and exchange["status"] == 200
    ]


def wire(body, path="/model/m/converse"):
    return Wire(path, body if isinstance(body, bytes) else json.dumps(body).encode(), {})


def said(*blocks, role="user"):
    return {"role": role, "content": [{"text": block} if isinstance(block, str) else block for block in blocks]}


def ask(*messages, **fields):
    return {"messages": list(messages), **fields}


def decode(body, at=AT):
    return DIALECT.decode_request(wire(body), at)


# ---- requests: what is asked is what was said -------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
SPOKEN = WORDS.map(str.strip).filter(bool)
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
SOMETHING = JSON.filter(lambda value: value is not None)
OBJECTS = st.dictionaries(ANY_TEXT, JSON, max_size=3)
IDS = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
TITLES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9()\[\]-]{0,9}( [a-z]{1,4})?", fullmatch=True)


def extras(*keys):
    """Keys without a neutral place, at one level."""
    known = st.dictionaries(st.sampled_from([*keys, "mood", "x_trace"]), SOMETHING, min_size=1, max_size=2)
    return st.just({}) | known.map(lambda found: {NAME: found})


CACHE = st.none() | st.builds(CacheHint, st.sampled_from([None, "5m", "1h"]), extras("scope"))
CITED = (
    {"title": "T", "location": {"web": {"url": "https://a.example", "domain": "a.example"}}},
    {"title": "D", "source": "s", "location": {"documentChar": {"documentIndex": 2, "start": 0, "end": 4}}},
    {"sourceContent": [{"text": "a"}, {"text": "b"}], "location": {"searchResultLocation": {"searchResultIndex": 1}}},
    {"location": {"stars": {"sign": 3}}},
    {"title": "nowhere"},
)
CITATIONS = st.sampled_from([citation_of(raw) for raw in CITED])
TEXTS = st.builds(Text, WORDS) | st.builds(Text, WORDS, cache=CACHE, extra=extras())
CITING = TEXTS | st.builds(Text, WORDS, st.lists(CITATIONS, min_size=1, max_size=2).map(tuple), CACHE, extra=extras())
BUCKET = IDS.map(lambda key: f"s3://bucket/{key}")


def media(make, *types):
    kind = st.sampled_from(types)
    inline = st.builds(lambda data, kind, **more: make(data=data, media_type=kind, **more), st.binary(max_size=9), kind)
    linked = st.builds(lambda url, kind, **more: make(url=url, media_type=kind, **more), BUCKET, kind)
    held = st.one_of(inline, linked)
    return st.builds(
        lambda part, cache, extra: msgspec.structs.replace(part, cache=cache, extra=extra), held, CACHE, extras("error")
    )


IMAGES = media(Image, "image/png", "image/webp")
SOUNDS = media(Audio, "audio/mpeg", "audio/wav", "audio/x-mka")
FILMS = media(Video, "video/mp4", "video/3gpp")
FILES = st.builds(
    lambda part, text, name, context: msgspec.structs.replace(
        part, name=name, context=context, **({} if text is None else {"data": None, "url": None} | text)
    ),
    media(File, "application/pdf", "text/csv", "text/markdown"),
    st.none() | st.builds(lambda text: {"text": text, "media_type": None}, ANY_TEXT),
    TITLES,
    st.none() | ANY_TEXT,
)
OPAQUE = st.one_of(
    st.builds(
        lambda kind, value: Opaque(NAME, kind, {kind: value}, HERE),
        st.sampled_from(["guardContent", "searchResult", "toolAddition"]),
        OBJECTS,
    ),
    st.builds(lambda value: Opaque(NAME, "novel", {"novel": value}, HERE), SOMETHING),
    st.just(Opaque(NAME, "image", {"image": {"format": "png", "source": {"s3Location": {"o": 1}}}}, HERE)),
)  # fmt: skip
RAN = st.builds(
    lambda raw: Opaque(NAME, "server_tool_use", {"toolUse": {**raw, "type": "server_tool_use"}}, HERE), OBJECTS
)
REASONING = st.one_of(
    st.builds(Reasoning, ANY_TEXT, st.none() | WORDS, origin=st.just(HERE), extra=extras()),
    st.builds(Reasoning, st.just(""), encrypted=WORDS, origin=st.just(HERE)),
)
ARGUMENTS = st.one_of(
    OBJECTS.map(json.dumps),
    OBJECTS.map(lambda value: json.dumps(value, indent=2, ensure_ascii=False)),
    st.sampled_from(["{ }", '{"n":1.0, "big": 12345678901234567890123, "n":2}', '{"e":"\\u00e9"}']),
)  # fmt: skip
USER_PARTS = st.one_of(TEXTS, IMAGES, SOUNDS, FILMS, FILES, OPAQUE)
AS_JSON = JSON.filter(lambda value: value is not None).map(
    lambda value: Text(encode_json(value).decode(), extra={NAME: {"json": True}})
)
INNER = st.one_of(
    st.builds(Text, ANY_TEXT), AS_JSON, IMAGES, FILES, FILMS, OPAQUE.filter(lambda p: p.type == "novel")
).map(lambda part: msgspec.structs.replace(part, cache=None) if hasattr(part, "cache") else part)
RESULT_PARTS = st.lists(INNER, max_size=2).map(tuple)
POINT = Opaque(NAME, "cachePoint", {"cachePoint": {"type": "default"}}, HERE)


@st.composite
def conversations(draw):
    """Turns in the one form a conversation has when it was read from the wire."""
    messages = draw(st.lists(st.builds(Message, st.just("system"), st.lists(TEXTS, min_size=1).map(tuple)), max_size=1))
    messages.append(
        Message("user", tuple(draw(st.lists(USER_PARTS, min_size=1, max_size=3))), extra=draw(extras("name")))
    )
    for turn in range(draw(st.integers(0, 2))):
        parts = draw(st.lists(st.one_of(CITING, REASONING, OPAQUE, RAN, IMAGES), min_size=1, max_size=3))
        names = draw(st.lists(IDS, max_size=2, unique=True))
        calls = [ToolCall(f"{name}.{turn}", draw(IDS), draw(ARGUMENTS), extra=draw(extras("type"))) for name in names]
        points = (POINT,) if calls and draw(st.booleans()) else ()
        messages.append(Message("assistant", (*parts, *calls, *points), extra=draw(extras())))
        results = tuple(
            ToolResult(
                call.id, draw(RESULT_PARTS), is_error=draw(st.booleans()), cache=draw(CACHE), extra=draw(extras())
            )
            for call in draw(st.permutations(calls))
        )
        more = tuple(draw(st.lists(USER_PARTS, min_size=0 if results else 1, max_size=2)))
        extra = draw(extras())
        if results:
            messages.append(Message("tool", results, extra=extra))
        if more:
            messages.append(Message("user", more, extra={} if results else extra))
        if draw(st.booleans()):
            messages.append(Message("system", (draw(TEXTS),), extra=draw(extras())))
    if draw(st.booleans()):
        messages.append(Message("assistant", (Text(draw(WORDS) + "."),)))
    return tuple(messages)


EFFORT = st.fixed_dictionaries({}, optional={"effort": st.sampled_from(["none", "low", "high", "max", "deep"])})
THOUGHT = st.one_of(
    st.builds(lambda budget: {"enabled": True, "budget_tokens": budget}, st.integers(1, 10**6)),
    st.sampled_from([{"enabled": True}, {"enabled": False}, {"mode": "between_tools"}]),
)
THINKING = EFFORT.filter(bool).map(lambda effort: Thinking(**effort))
MODEL_THINKING = THINKING | st.builds(
    lambda said, effort, extra: Thinking(**said, **effort, extra=extra), THOUGHT, EFFORT, extras("display")
)
FORMATS = st.builds(
    ResponseFormat, st.just("schema"), OBJECTS, ANY_TEXT.filter(bool), st.none() | ANY_TEXT, extra=extras()
)
TOOLS = st.one_of(
    st.builds(
        Tool,
        IDS,
        st.none() | ANY_TEXT.filter(bool),
        OBJECTS.map(lambda schema: {"type": "object", **schema}),
        st.just(msgspec.UNSET) | st.booleans(),
        cache=CACHE,
        extra=extras(),
    ),
    st.builds(lambda name: Opaque(NAME, "systemTool", {"systemTool": {"name": name}}, HERE), IDS),
)
TAGS = st.dictionaries(
    st.from_regex(r"[a-z0-9:]{1,9}", fullmatch=True), st.from_regex(r"[a-z0-9 @.-]{0,9}", fullmatch=True),
    min_size=1, max_size=3,
)  # fmt: skip
TOP_EXTRA = st.fixed_dictionaries(
    {},
    optional={
        "guardrailConfig": OBJECTS,
        "performanceConfig": st.just({"latency": "optimized"}),
        "promptVariables": OBJECTS,
        "inferenceConfig": st.builds(lambda value: {"minP": value}, SOMETHING),
        "additionalModelRequestFields": st.builds(lambda value: {"own": value}, SOMETHING),
        "serviceTier": st.just({"type": "turbo"}),
        "toolConfig": st.just({"toolChoice": {"novel": {}, "mood": 1}}),
        "x_new": SOMETHING,
    },
)
SETTINGS = {
    "response_format": FORMATS,
    "max_tokens": st.integers(1, 10**6),
    "temperature": st.floats(0, 1),
    "top_p": st.floats(0, 1),
    "stop": st.lists(ANY_TEXT, max_size=2).map(tuple),
    "user": st.from_regex(r"[a-z0-9@.-]{1,9}", fullmatch=True),
    "metadata": TAGS,
    "stream": st.booleans(),
    "thinking": THINKING,
    "service_tier": st.sampled_from(["default", "priority", "flex", "reserved"]),
    "extra": TOP_EXTRA.filter(bool).map(lambda extra: {NAME: extra}),
}
MODEL_SETTINGS = {
    "thinking": MODEL_THINKING,
    "top_k": st.integers(0, 500),
    "seed": st.integers(0, 500),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "parallel_tool_calls": st.booleans(),
    "verbosity": st.sampled_from(["low", "high"]),
}
MODELS = ANY_TEXT.filter(lambda name: name not in ("", ".", "..")) | st.sampled_from([
    "us.maker.model-v1:0", "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.maker.model-v1:0", "a%2Fb/c?d",
])  # fmt: skip


@st.composite
def requests(draw, more=None):
    messages = draw(conversations())
    needs = any(type(part) is ToolCall for message in messages for part in message.parts)
    tools = tuple(draw(st.lists(TOOLS, min_size=1 if needs else 0, max_size=3)))
    optional = draw(st.fixed_dictionaries({}, optional={**SETTINGS, **(more or {})}))
    own = optional.get("extra", {}).get(NAME, {})
    if "service_tier" in optional or not tools:
        own = {key: value for key, value in own.items() if key not in ("serviceTier", "toolConfig")}
        optional["extra"] = {NAME: own} if own else {}
    choice = {}
    if tools and "toolConfig" not in own and draw(st.booleans()):
        names = [tool.name if isinstance(tool, Tool) else tool.raw["systemTool"]["name"] for tool in tools]
        named = ToolChoice("required", (draw(st.sampled_from(names)),))
        choice = {"tool_choice": draw(st.sampled_from([ToolChoice("auto"), ToolChoice("required"), named]))}
    return Request(draw(MODELS), messages, tools=tools, **choice, **optional)


@settings(max_examples=60, deadline=None)
@given(requests())
def test_what_can_be_said_is_read_back_the_same(request_):
    sent, losses = DIALECT.encode_request(request_, AT)
    assert losses == ()
    assert DIALECT.decode_request(sent, AT) == request_
    assert DIALECT.peek(sent) == Peek(request_.model, request_.stream)


@settings(max_examples=40, deadline=None)
@given(requests(MODEL_SETTINGS))
def test_fields_of_the_model_are_read_back_from_where_the_endpoint_says_they_stand(request_):
    sent, losses = DIALECT.encode_request(request_, WITH_FIELDS)
    assert losses == ()
    assert DIALECT.decode_request(sent, WITH_FIELDS) == request_


@pytest.mark.parametrize("name", vectors("request"))
def test_a_request_that_was_sent_is_sent_again_in_the_same_words(name):
    vector = CASES[name]
    at = Endpoint(**{"origin": HERE, **vector.get("endpoint", {})})
    try:
        first = DIALECT.encode_request(msgspec.convert(vector["request"], Request), at).wire
    except InputError:
        assert "refused" in vector
        return
    again, losses = DIALECT.encode_request(DIALECT.decode_request(first, at), at)
    assert losses == ()
    assert json.loads(again.body) == json.loads(first.body) and again.path == first.path


def test_recorded_requests_are_read_and_said_again():
    seen = 0
    for exchange in recorded_requests():
        first, losses = DIALECT.encode_request(DIALECT.decode_request(asked_of(exchange), AT), AT)
        assert losses == ()
        assert DIALECT.encode_request(DIALECT.decode_request(first, AT), AT).wire == first
        assert plain(json.loads(first.body)) == plain(exchange["request_json"]), exchange["id"]
        seen += 1
    assert seen > 20


def plain(body):
    """A request in one spelling: what says nothing is left out, turns of one role are one."""
    body = {key: value for key, value in body.items() if value not in (None, {}, [])}
    if "outputConfig" in body:
        schema = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
        schema["schema"] = json.loads(schema["schema"])
    turns = []
    for message in body["messages"]:
        content = [plain_block(block) for block in message["content"]]
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1]["content"] += content
        else:
            turns.append({"role": message["role"], "content": content})
    return {**body, "messages": turns}


def plain_block(block):
    result = block.get("toolResult")
    if result is None or result.get("status") != "success" or "type" in result:
        return block
    return {"toolResult": {key: value for key, value in result.items() if key != "status"}}


def test_a_tools_json_is_text_to_others_and_json_again_here():
    result = {"toolResult": {"toolUseId": "t", "content": [{"json": {"a": [1.0]}}], "status": "error"}}
    call = {"toolUse": {"toolUseId": "t", "name": "f", "input": {}, "type": "tool_use"}}
    request_ = decode(ask(said("hi"), said(call, role="assistant"), said(result, "so?")))
    (found,) = request_.messages[2].parts
    assert found.is_error and [part.text for part in found.parts] == ['{"a":[1.0]}']
    assert json.loads(DIALECT.encode_request(request_, AT).wire.body)["messages"][2]["content"][0] == result


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (ask(said("x", role="tool")), "messages[0].role", "messages[0].role must be one of user, assistant, system"),
        (ask(said({})), "messages[0].content[0]", "messages[0].content[0] must have one member"),
        (ask("x"), "messages[0]", "messages[0] must be an object"),
        (ask({"role": "user"}), "messages[0].content", "messages[0].content is missing"),
        ({"messages": 5}, "messages", "messages must be a list"),
        (ask(inferenceConfig={"maxTokens": "5"}), "inferenceConfig.maxTokens", None),
    ],
)
def test_a_shape_without_meaning_is_refused_by_its_place(body, param, message):
    with pytest.raises(InputError) as caught:
        decode(body)
    assert (caught.value.param, caught.value.sent) == (param, "no")
    assert message in (None, caught.value.message)


# ---- requests: any bytes ----------------------------------------------------------------------

PUT_IN = st.one_of(JSON, st.sampled_from([[], {}, [[]], [None], {"text": 5}, {"toolUse": {}}, "5m", 2**80]))


def places(value):
    """Every place in a JSON value, as (container, key)."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield value, key
        yield from places(child)


WHOLE_REQUEST = {
    **ask(
        said(
            "a", {"cachePoint": {"type": "default", "ttl": "1h"}},
            {"image": {"format": "png", "source": {"bytes": "AAAA"}}},
            {"document": {"format": "pdf", "name": "a b", "source": {"s3Location": {"uri": "s3://bucket/a"}}}},
            {"document": {"name": "t", "source": {"text": "d"}, "context": "c", "citations": {"enabled": True}}},
            {"audio": {"format": "mp3", "source": {"bytes": "AAAA"}}},
            {"video": {"format": "mp4", "source": {"bytes": "AAAA"}}},
            {"searchResult": {"source": "s", "title": "t", "content": [{"text": "x"}]}},
            {"guardContent": {"text": {"text": "g"}}},
        ),
        said(
            {"reasoningContent": {"reasoningText": {"text": "t", "signature": "s"}}},
            {"reasoningContent": {"redactedContent": "AAAA"}},
            {"citationsContent": {"content": [{"text": "c"}], "citations": [{"location": {"web": {"url": "u"}}}]}},
            {"toolUse": {"toolUseId": "r", "name": "run", "input": {}, "type": "server_tool_use"}},
            {"toolResult": {"toolUseId": "r", "content": [{"json": {}}], "type": "run_result"}},
            {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": 1}}},
            {"toolUse": {"toolUseId": "t2", "name": "g", "input": {}}},
            role="assistant",
        ),
        said(
            {"toolResult": {"toolUseId": "t1", "content": [{"text": "r"}, {"json": [1]}], "status": "success"}},
            {"toolResult": {"toolUseId": "t2", "content": [], "status": "error"}},
            "go on",
        ),
    ),
    "system": [{"text": "s"}, {"cachePoint": {"type": "default"}}],
    "toolConfig": {
        "tools": [
            {"toolSpec": {"name": "f", "description": "d", "inputSchema": {"json": {}}, "strict": True}},
            {"systemTool": {"name": "run"}},
            {"cachePoint": {"type": "default"}},
        ],
        "toolChoice": {"tool": {"name": "f"}},
    },
    "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "topP": 1, "stopSequences": ["x"]},
    "outputConfig": {
        "effort": "low",
        "textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{}", "name": "n"}}},
    },
    "guardrailConfig": {"guardrailIdentifier": "a", "guardrailVersion": "1", "trace": "enabled"},
    "additionalModelRequestFields": {"inferenceConfig": {"topK": 5}, "thinking": {"type": "enabled"}},
    "additionalModelResponseFieldPaths": ["/stop_sequence"],
    "requestMetadata": {"job": "7", "user_id": "u"},
    "serviceTier": {"type": "flex"},
    "performanceConfig": {"latency": "optimized"},
}  # fmt: skip


def reads_or_refuses(asked, at=AT):
    """Every way to look at a client's request gives what it promises or an InputError."""
    try:
        request = DIALECT.decode_request(asked, at)
        assert msgspec.convert(msgspec.to_builtins(request), Request).model == request.model
    except InputError as error:
        assert error.message
        if at is AT:
            with pytest.raises(InputError):
                DIALECT.check_request(asked)
    for look in (DIALECT.check_request, DIALECT.peek, lambda one: DIALECT.edit(one, model="n")):
        try:
            look(asked)
        except InputError as error:
            assert error.message


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_one_value_replaced_is_read_or_refused(data):
    body = json.loads(json.dumps(WHOLE_REQUEST))
    container, key = data.draw(st.sampled_from(list(places(body))), label="place")
    container[key] = data.draw(PUT_IN, label="value")
    reads_or_refuses(wire(body), data.draw(st.sampled_from([AT, WITH_FIELDS])))


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=30), JSON.map(lambda value: json.dumps(value).encode())), ANY_TEXT)
def test_any_bytes_are_read_or_refused(body, path):
    reads_or_refuses(wire(body))
    reads_or_refuses(wire(b'{"messages":[]}', f"/model/{path}/converse"))


def test_blocks_nested_beyond_reason_are_read_or_refused():
    block = {"text": "deep"}
    for _ in range(300):
        block = {"toolResult": {"toolUseId": "t", "content": [block]}}
    reads_or_refuses(wire(ask(said(block))))


def test_the_whole_request_used_here_is_accepted():
    DIALECT.check_request(wire(WHOLE_REQUEST))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/model/us.maker.m-v1%3A0/converse", Peek("us.maker.m-v1:0")),
        ("/base/model/m/converse-stream?x=1", Peek("m", True)),
        ("/model/arn:aws:bedrock:us-east-1:1:inference-profile/m/converse", Peek(
            "arn:aws:bedrock:us-east-1:1:inference-profile/m")),
        ("/model/arn%3Aaws%3Ax%2Fm/converse", Peek("arn:aws:x/m")),
        ("/model/../converse", Peek(None)),
        ("/model/%2e/converse", Peek(None)),
        ("/model//converse", Peek(None)),
        ("/v1/messages", Peek(None)),
    ],
)  # fmt: skip
def test_a_peek_reads_the_path(path, expected):
    assert DIALECT.peek(wire({}, path)) == expected


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"{", b"", b'{"x":' + b"[" * 100_000])
def test_what_is_no_object_is_no_request(body):
    for look in (DIALECT.peek, lambda one: DIALECT.edit(one, model="m"), lambda one: DIALECT.decode_request(one, AT)):
        with pytest.raises(InputError) as caught:
            look(wire(body))
        assert caught.value.code == "invalid_json"


def test_an_edit_changes_the_model_in_the_path_and_nothing_else():
    before = wire(b'{ "messages" : [],  "n": 1.0 }', "/base/model/a%3A0/converse-stream?x=1")
    after = DIALECT.edit(before, model="arn:x/y", usage=True)
    assert (after.path, after.body) == ("/base/model/arn%3Ax%2Fy/converse-stream?x=1", before.body)
    assert DIALECT.edit(before, usage=True) is before


@pytest.mark.parametrize("model", ["", ".", ".."])
def test_a_model_that_would_be_another_path_is_refused(model):
    with pytest.raises(InputError) as caught:
        DIALECT.edit(wire({}), model=model)
    assert caught.value.param == "model"
    with pytest.raises(InputError):
        DIALECT.encode_request(Request(model, (Message("user", (Text("x"),)),)), AT)


def test_a_path_without_a_model_cannot_be_edited():
    with pytest.raises(InputError) as caught:
        DIALECT.edit(wire({}, "/v1/messages"), model="m")
    assert caught.value.param == "model"


# ---- requests: the rules ----------------------------------------------------------------------


def test_every_recorded_request_that_was_answered_is_accepted():
    answered = recorded_requests()
    assert len(answered) > 20
    for exchange in answered:
        DIALECT.check_request(asked_of(exchange))


@st.composite
def sensible(draw):
    """Requests that keep to what the protocol's users are told."""
    words = SPOKEN
    messages = [Message("system", (Text(draw(words)),))] if draw(st.booleans()) else []
    file = File(text="t", name=draw(ANY_TEXT) or None)
    messages.append(Message("user", (Text(draw(words)), Image(data=b"x", media_type="image/png"), file)))
    for turn in range(draw(st.integers(0, 3))):
        calls = tuple(
            ToolCall(f"{name}/{turn}", "f", "{}") for name in draw(st.lists(WORDS, max_size=2, unique=True))
        )  # fmt: skip
        thought = (Reasoning("t", "s", origin=HERE),) if draw(st.booleans()) else ()
        messages.append(Message("assistant", (*thought, Text(draw(WORDS)), *calls)))
        results = tuple(ToolResult(call.id, draw(st.sampled_from([(), (Text("r"),)]))) for call in calls)
        messages += [Message("tool", results)] if results else []
        messages += [Message("user", (Text(draw(words)),))] if not results or draw(st.booleans()) else []
        messages += [Message("system", (Text(draw(words)),))] if draw(st.booleans()) else []
    messages += [Message("assistant", (Text(draw(WORDS)),))] if draw(st.booleans()) else []
    tools = tuple(Tool(name, "d") for name in draw(st.lists(IDS, max_size=3, unique=True)))
    return Request(
        "m",
        tuple(messages),
        tools=tools,
        tool_choice=draw(st.sampled_from([msgspec.UNSET, ToolChoice("auto"), ToolChoice("none")])),
        thinking=Thinking(effort="high"),
        cache=CacheHint("5m"),
        max_tokens=draw(st.integers(1, 9000)),
        temperature=draw(st.floats(0, 1)),
        stop=("x",),
        user=draw(ANY_TEXT),
        metadata=draw(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=2)),
        service_tier=draw(st.sampled_from(["auto", "default", "fast"])),
        stream=draw(st.booleans()),
    )


@settings(max_examples=100, deadline=None)
@given(sensible())
def test_what_we_send_the_inventor_is_what_we_accept(request_):
    DIALECT.check_request(DIALECT.encode_request(request_, AT).wire)
