"""Serving the Messages protocol: a client's request is read as it was meant, and what the protocol's inventor
refuses is refused by the name of its place."""

import base64
import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import Endpoint, Peek, Wire
from polyvox.dialects.anthropic import DIALECT
from polyvox.dialects.anthropic.answer import citation_of
from polyvox.errors import InputError
from polyvox.types import (
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
)

NAME = "anthropic.messages"
AT = Endpoint(origin="here/model")
STRICT = Endpoint(origin="here/model", options={"version": "2026-10-21"})
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
    """The request of a recorded exchange. Some recorders dropped the headers that a request cannot do without."""
    headers = {key.lower(): str(value) for key, value in (exchange["request_headers"] or {}).items()}
    if "anthropic-version" not in headers:
        headers |= {"anthropic-version": "2023-06-01", "anthropic-beta": "recorded"}
    return Wire("/v1/messages", json.dumps(exchange["request_json"]).encode(), headers)


def recorded_requests():
    return [
        exchange
        for exchange in exchanges()
        if exchange["provider"] == "anthropic" and exchange["endpoint"] == "messages" and exchange["request_json"]
    ]


def wire(body, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Wire("/v1/messages", data, {"anthropic-version": "2023-06-01", **headers})


def ask(*messages, **fields):
    return {"model": "m", "max_tokens": 64, "messages": list(messages), **fields}


def said(text, role="user"):
    return {"role": role, "content": text}


def decode(body, at=AT):
    return DIALECT.decode_request(wire(body), at)


# ---- requests: what is asked is what was said -------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda text: text.strip())
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
OBJECTS = st.dictionaries(ANY_TEXT, JSON, max_size=3)
IDS = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)


def extras(*keys):
    """Keys without a neutral place, at one level."""
    known = st.dictionaries(st.sampled_from([*keys, "mood", "x_trace"]), JSON, min_size=1, max_size=2)
    return st.just({}) | known.map(lambda found: {NAME: found})


CACHE = st.none() | st.builds(CacheHint, st.sampled_from([None, "5m", "1h"]), extras("scope"))
SOURCES = {
    "char_location": {"cited_text": "a", "document_index": 0, "document_title": None, "start_char_index": 1},
    "web_search_result_location": {"cited_text": "b", "url": "https://a.example", "title": "T", "encrypted_index": "e"},
    "search_result_location": {"cited_text": "c", "source": "s", "search_result_index": 2, "title": None},
    "horoscope": {"stars": [1, 2]},
}
CITATIONS = st.sampled_from([citation_of({"type": kind, **raw}) for kind, raw in SOURCES.items()])
PLAIN = st.builds(Text, WORDS)
TEXTS = PLAIN | st.builds(Text, WORDS, cache=CACHE, extra=extras())
CITING = st.builds(Text, WORDS, st.lists(CITATIONS, max_size=2).map(tuple), CACHE, extra=extras())
PLACES = st.fixed_dictionaries({"cache": CACHE, "extra": extras("transformations", "citations")})
IMAGE_FACTS = st.one_of(
    st.fixed_dictionaries({"data": st.binary(max_size=9), "media_type": st.sampled_from(["image/png", "image/webp"])}),
    st.fixed_dictionaries({"url": WORDS.map(lambda text: f"https://{text}")}),
    st.fixed_dictionaries({"file_id": ANY_TEXT, "origin": st.just("here/model")}),
)
FILE_FACTS = st.one_of(
    st.fixed_dictionaries({"data": st.binary(max_size=9), "media_type": st.just("application/pdf")}),
    st.fixed_dictionaries({"text": ANY_TEXT}),
    st.fixed_dictionaries({"url": WORDS.map(lambda text: f"https://{text}")}),
    st.fixed_dictionaries({"file_id": ANY_TEXT, "origin": st.just("here/model")}),
)
NAMED = st.fixed_dictionaries({}, optional={"name": ANY_TEXT, "context": ANY_TEXT})
IMAGES = st.builds(lambda facts, more: Image(**facts, **more), IMAGE_FACTS, PLACES)
FILES = st.builds(lambda facts, named, more: File(**facts, **named, **more), FILE_FACTS, NAMED, PLACES)
OPAQUE_KINDS = st.sampled_from(
    ["search_result", "server_tool_use", "web_search_tool_result", "container_upload", "new"]
)
OPAQUE = st.builds(
    lambda kind, raw: Opaque(NAME, kind, {**raw, "type": kind}, "here/model"), OPAQUE_KINDS, OBJECTS
).filter(lambda part: "id" not in part.raw)  # fmt: skip
BLOCK_DOCUMENT = st.builds(
    lambda raw: Opaque(NAME, "document", {"type": "document", "source": {"type": "content", **raw}}, "here/model"),
    OBJECTS.map(lambda raw: {key: value for key, value in raw.items() if key != "type"}),
)
REASONING = st.one_of(
    st.builds(Reasoning, ANY_TEXT, signature=WORDS, origin=st.just("here/model"), extra=extras()),
    st.builds(Reasoning, st.just(""), encrypted=ANY_TEXT, origin=st.just("here/model"), extra=extras()),
)
ARGUMENTS = st.one_of(
    OBJECTS.map(json.dumps),
    OBJECTS.map(lambda value: json.dumps(value, indent=2, ensure_ascii=False)),
    st.sampled_from(['{ }', '{"n":1.0, "big": 12345678901234567890123, "n":2}', '{"e":"\\u00e9"}']),
)  # fmt: skip
USER_PARTS = st.one_of(TEXTS, IMAGES, FILES, OPAQUE, BLOCK_DOCUMENT)
RESULT_PARTS = st.lists(st.one_of(TEXTS, IMAGES, FILES), max_size=2).map(tuple)


@st.composite
def conversations(draw, strict):
    """Turns in the one form a conversation has when it was read from the wire."""
    messages = draw(st.lists(st.builds(Message, st.just("system"), st.lists(TEXTS, min_size=1).map(tuple)), max_size=1))
    user = USER_PARTS if strict else st.one_of(USER_PARTS, CITING)
    spoken = [CITING, REASONING, OPAQUE, IMAGES] + ([] if strict else [FILES])
    opening = draw(st.lists(user, min_size=1, max_size=3))
    messages.append(Message("user", tuple(opening), extra=draw(extras("name"))))
    for turn in range(draw(st.integers(0, 2))):
        parts = draw(st.lists(st.one_of(spoken), min_size=1, max_size=3))
        names = draw(st.lists(IDS, max_size=2, unique=True))
        calls = [ToolCall(f"{name}-{turn}", draw(IDS), draw(ARGUMENTS), extra=draw(extras("caller"))) for name in names]
        messages.append(Message("assistant", (*parts, *calls), extra=draw(extras())))
        results = tuple(
            ToolResult(
                call.id, draw(RESULT_PARTS), is_error=draw(st.booleans()), cache=draw(CACHE), extra=draw(extras())
            )
            for call in draw(st.permutations(calls))
        )
        more = tuple(draw(st.lists(user, min_size=0 if results else 1, max_size=2)))
        extra = draw(extras())
        if results:
            messages.append(Message("tool", results, extra=extra))
        if more:
            messages.append(Message("user", more, extra={} if results else extra))
        if strict and draw(st.booleans()):
            messages.append(Message("system", (draw(TEXTS),), extra=draw(extras())))
    if draw(st.booleans()):
        messages.append(Message("assistant", (Text(draw(WORDS).strip() + "."),)))
    return tuple(messages)


EFFORT = st.fixed_dictionaries({}, optional={"effort": st.sampled_from(["low", "medium", "high", "xhigh", "max"])})
THOUGHT = st.one_of(
    st.builds(lambda budget: {"enabled": True, "budget_tokens": budget}, st.integers(1, 10**6)),
    st.sampled_from([{"enabled": True}, {"enabled": False}, {"enabled": True, "mode": "between_tools"}]),
    st.just({"mode": "by_moonlight"}),
)
THINKING = st.one_of(
    st.builds(lambda said, effort, extra: Thinking(**said, **effort, extra=extra), THOUGHT, EFFORT, extras("display")),
    EFFORT.filter(bool).map(lambda effort: Thinking(**effort)),
)
FORMATS = st.builds(ResponseFormat, st.just("schema"), OBJECTS, extra=extras())
CUSTOM_TOOLS = st.builds(
    Tool,
    IDS,
    st.none() | ANY_TEXT,
    OBJECTS.map(lambda schema: {"type": "object", **schema}),
    st.just(msgspec.UNSET) | st.booleans(),
    cache=CACHE,
    extra=extras("defer_loading", "input_examples") | st.just({NAME: {"type": "custom"}}),
)
BUILT_IN = st.builds(
    lambda raw, name: Opaque(
        NAME, "web_search_20250305", {**raw, "type": "web_search_20250305", "name": name}, "here/model"
    ),
    OBJECTS,
    IDS,
)
SAMPLING = st.fixed_dictionaries(
    {}, optional={"temperature": st.floats(0, 1), "top_p": st.floats(0, 1), "top_k": st.integers(0, 500)}
)
TOP_EXTRA = st.fixed_dictionaries(
    {},
    optional={
        "container": ANY_TEXT,
        "inference_geo": st.none() | ANY_TEXT,
        "mcp_servers": st.lists(OBJECTS, max_size=2),
        "metadata": st.builds(lambda value: {"tag": value}, JSON),
        "output_config": st.builds(lambda value: {"task_budget": value}, JSON),
        "x_new": JSON,
    },
)


@st.composite
def chosen(draw, tools):
    """A tool_choice that goes with the tools, and whether calls may be parallel."""
    names = [tool.name if isinstance(tool, Tool) else tool.raw["name"] for tool in tools]
    if not names or draw(st.booleans()):
        return {}
    named = ToolChoice("required", (draw(st.sampled_from(names)),))
    choice = draw(st.sampled_from([ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"), named]))
    parallel = {} if choice.mode == "none" else draw(st.sampled_from([{}, {"parallel_tool_calls": False}]))
    return {"tool_choice": choice, **(parallel or draw(st.sampled_from([{}, *_parallel(choice)])))}


def _parallel(choice):
    return [] if choice.mode == "none" else [{"parallel_tool_calls": True}]


@st.composite
def requests(draw, strict):
    tools = tuple(draw(st.lists(st.one_of(CUSTOM_TOOLS, BUILT_IN), max_size=3)))
    optional = {
        "thinking": THINKING,
        "response_format": FORMATS,
        "stop": st.lists(ANY_TEXT, max_size=2).map(tuple),
        "user": ANY_TEXT,
        "service_tier": st.sampled_from(["auto", "standard_only", "fast"]),
        "cache": CACHE.filter(bool),
        "stream": st.booleans(),
        "extra": TOP_EXTRA.filter(bool).map(lambda extra: {NAME: extra}),
    }
    return Request(
        draw(WORDS),
        draw(conversations(strict)),
        tools=tools,
        max_tokens=draw(st.integers(0, 10**6)),
        **draw(chosen(tools)),
        **draw(st.fixed_dictionaries({}, optional=optional)),
        **({} if strict else draw(SAMPLING)),
    )


@settings(max_examples=80, deadline=None)
@given(requests(strict=False))
def test_what_the_first_version_can_say_is_read_back_the_same(request_):
    sent, losses = DIALECT.encode_request(request_, AT)
    assert losses == ()
    assert DIALECT.decode_request(sent, AT) == request_


@settings(max_examples=60, deadline=None)
@given(requests(strict=True))
def test_what_the_strict_version_can_say_is_read_back_the_same(request_):
    sent, losses = DIALECT.encode_request(request_, STRICT)
    assert losses == ()
    assert DIALECT.decode_request(sent, STRICT) == request_


@pytest.mark.parametrize("name", vectors("request"))
def test_a_request_that_was_sent_is_sent_again_in_the_same_bytes(name):
    vector = CASES[name]
    facts = {"origin": "here/model", **vector.get("endpoint", {})}
    at = Endpoint(**{**facts, "quirks": frozenset(facts.get("quirks", ()))})
    try:
        first = DIALECT.encode_request(msgspec.convert(vector["request"], Request), at).wire
    except InputError:
        assert "refused" in vector
        return
    again, losses = DIALECT.encode_request(DIALECT.decode_request(first, at), at)
    if name.endswith("request-reasoning-bound"):
        # An empty signature proves nothing, so the thought is not claimed to be this protocol's.
        assert [loss.field for loss in losses] == ["messages[1].parts[0].reasoning"]
        return
    assert losses == ()
    assert json.loads(again.body) == json.loads(first.body)


def test_recorded_requests_are_read_and_said_again():
    seen = 0
    for exchange in recorded_requests():
        if exchange["status"] != 200:
            continue
        asked = exchange["request_json"]
        at = STRICT if any(message["role"] == "system" for message in asked["messages"]) else AT
        first, losses = DIALECT.encode_request(DIALECT.decode_request(asked_of(exchange), at), at)
        assert losses == ()
        assert DIALECT.encode_request(DIALECT.decode_request(first, at), at).wire == first
        again = json.loads(first.body)
        assert plain(again) == plain(asked), exchange["id"]
        seen += 1
    assert seen > 50


def plain(body):
    """A request in one spelling: texts alone as strings, defaults unsaid, the current name of a format."""
    body = {key: value for key, value in body.items() if value is not None and value is not False}
    if "output_format" in body:
        body["output_config"] = {**body.get("output_config", {}), "format": body.pop("output_format")}
    body["messages"] = [dict(message, content=plain_content(message["content"])) for message in body["messages"]]
    if "system" in body:
        body["system"] = plain_content(body["system"])
    return body


def plain_content(content):
    if isinstance(content, str):
        return content
    if len(content) == 1 and content[0].keys() == {"type", "text"}:
        return content[0]["text"]
    blocks = []
    for block in content:
        if block["type"] == "tool_result":
            block = {key: value for key, value in block.items() if value not in (False, None)}
            if "content" in block:
                block["content"] = plain_content(block["content"])
        blocks.append({key: value for key, value in block.items() if value is not None})
    return blocks


def test_results_that_open_a_turn_are_a_message_of_their_own():
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "done", "is_error": True}
    request = decode(ask(said("hi"), said([call], "assistant"), said([result, {"type": "text", "text": "and?"}])))
    assert [message.role for message in request.messages] == ["user", "assistant", "tool", "user"]
    assert request.messages[2].parts == (ToolResult("t1", (Text("done"),), is_error=True),)
    assert request.messages[3].parts == (Text("and?"),)


def test_arguments_stay_in_the_bytes_the_client_wrote():
    body = b"""\xef\xbb\xbf{"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"},
      {"content": [{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "input": { "n":1.0,
        "e": "\\u00e9" }, "name": "f"}, {"type": "tool_use", "id": "u", "name": "g", "input": {}}],
       "role": "assistant"}]}"""
    parts = decode(body).messages[1].parts
    assert parts[1].arguments == '{ "n":1.0,\n        "e": "\\u00e9" }'
    assert parts[2].arguments == "{}"


def test_opaque_state_is_bound_to_the_deployment_it_came_through():
    blocks = [
        {"type": "thinking", "thinking": "t", "signature": "s"},
        {"type": "thinking", "thinking": "shown", "signature": ""},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
    ]
    parts = decode(ask(said("x"), said(blocks, "assistant"))).messages[1].parts
    assert [part.origin for part in parts] == ["here/model", None, "here/model", "here/model", "here/model"]
    assert parts[1] == Reasoning("shown")


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (ask(said("x", "tool")), "messages[0].role", "messages[0].role must be one of user, assistant, system"),
        (ask(said([{"text": "x"}])), "messages[0].content[0].type", "messages[0].content[0].type is missing"),
        (ask("x"), "messages[0]", "messages[0] must be an object"),
        ({"model": "m"}, "messages", "messages is missing"),
        (ask(said("x"), model=None), "model", "model is missing"),
    ],
)
def test_a_shape_without_meaning_is_refused_by_its_place(body, param, message):
    with pytest.raises(InputError) as caught:
        decode(body)
    assert (caught.value.param, caught.value.message, caught.value.sent) == (param, message, "no")


# ---- requests: any bytes ----------------------------------------------------------------------

PUT_IN = st.one_of(JSON, st.sampled_from([[], {}, [[]], [None], {"type": "text"}, {"type": "tool_use"}, "5m", 2**80]))


def places(value):
    """Every place in a JSON value, as (container, key)."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield value, key
        yield from places(child)


WHOLE_REQUEST = {
    **ask(
        said([
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}, "citations": [{}]},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "title": "t"},
            {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]},
        ]),
        said([
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
        ], "assistant"),
        said([
            {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "r"}], "is_error": False},
            {"type": "tool_result", "tool_use_id": "t2", "content": "r"},
            {"type": "text", "text": "go on"},
        ]),
    ),
    "system": [{"type": "text", "text": "s"}],
    "tools": [
        {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True},
        {"type": "web_search_20250305", "name": "web_search"},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "adaptive", "display": "summarized"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "temperature": 0.5, "top_p": 1, "top_k": 4, "stop_sequences": ["x"], "metadata": {"user_id": "u"},
    "service_tier": "auto", "speed": "fast", "cache_control": {"type": "ephemeral"}, "stream": True,
}  # fmt: skip


def reads_or_refuses(asked):
    """Every way to look at a client's request gives what it promises or an InputError."""
    try:
        request = DIALECT.decode_request(asked, AT)
        assert msgspec.convert(msgspec.to_builtins(request), Request).model == request.model
    except InputError as error:
        assert error.message
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
    beta = {"anthropic-beta": "x"} if data.draw(st.booleans()) else {}
    version = data.draw(st.sampled_from(["2023-06-01", "2026-10-21"]))
    reads_or_refuses(wire(body, **{"anthropic-version": version}, **beta))


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=30), JSON.map(lambda value: json.dumps(value).encode())))
def test_any_bytes_are_read_or_refused(body):
    reads_or_refuses(wire(body))


@pytest.mark.parametrize("kind", ["tool_result", "search_result"])
def test_blocks_nested_beyond_reason_are_read_or_refused(kind):
    block = {"type": "text", "text": "deep"}
    for _ in range(300):
        block = {"type": kind, "tool_use_id": "t", "content": [block]}
    reads_or_refuses(wire(ask(said([block])), **{"anthropic-beta": "x"}))


def test_the_whole_request_used_here_is_accepted():
    body = {key: value for key, value in WHOLE_REQUEST.items()}
    DIALECT.check_request(wire(body))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model": "a", "stream": true}', Peek("a", True)),
        (b'{"stream": 1, "model": ["a"]}', Peek(None, False)),
        (b"{}", Peek(None, False)),
    ],
)
def test_a_peek_takes_what_it_can(body, expected):
    assert DIALECT.peek(wire(body)) == expected


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"{", b"", b'{"x":' + b"[" * 100_000])
def test_what_is_no_object_is_no_request(body):
    for look in (DIALECT.peek, lambda one: DIALECT.edit(one, model="m"), lambda one: DIALECT.decode_request(one, AT)):
        with pytest.raises(InputError) as caught:
            look(wire(body))
        assert caught.value.code == "invalid_json"


def test_a_model_that_is_no_text_cannot_be_peeked_at():
    with pytest.raises(InputError):
        DIALECT.peek(wire(b'{"model": "\xff"}'))


def test_an_edit_changes_the_model_and_nothing_else():
    before = wire(b'{ "model" : "a", "stream":true,  "n": 1.0 }')
    assert DIALECT.edit(before, model="b", usage=True).body == b'{ "model" : "b", "stream":true,  "n": 1.0 }'
    assert DIALECT.edit(before, usage=True) is before


# ---- requests: the rules ----------------------------------------------------------------------


def test_every_recorded_request_that_was_answered_is_accepted():
    answered = [exchange for exchange in recorded_requests() if exchange["status"] == 200]
    assert len(answered) > 50
    for exchange in answered:
        DIALECT.check_request(asked_of(exchange))


@st.composite
def sensible(draw, strict):
    """Requests that keep to what the protocol's users are told."""
    words = WORDS.map(str.strip)
    tools = tuple(Tool(name, "d") for name in draw(st.lists(IDS, max_size=3, unique=True)))
    messages = [Message("system", (Text(draw(words)),))] if draw(st.booleans()) else []
    messages.append(Message("user", (Text(draw(words)), Image(data=b"x", media_type="image/png"), File(text="t"))))
    for turn in range(draw(st.integers(0, 3))):
        calls = tuple(ToolCall(f"{name}-{turn}", "f", "{}") for name in draw(st.lists(IDS, max_size=2, unique=True)))
        thought = (Reasoning("t", "s", origin="here/model"),) if draw(st.booleans()) else ()
        messages.append(Message("assistant", (*thought, Text(draw(WORDS)), *calls)))
        results = tuple(ToolResult(call.id, draw(st.sampled_from([(), (Text("r"),)]))) for call in calls)
        messages += [Message("tool", results)] if results else []
        messages += [Message("user", (Text(draw(words)),))] if not results or draw(st.booleans()) else []
        messages += [Message("system", (Text(draw(words)),))] if draw(st.booleans()) else []
    messages += [Message("assistant", (Text(draw(WORDS)),))] if draw(st.booleans()) else []
    thinking = st.sampled_from([{}, {"enabled": True}, {"enabled": False}, {"budget_tokens": 1024}, {"effort": "max"}])
    sampling = {} if strict else {"top_k": draw(st.integers(0, 9)), "temperature": draw(st.floats(0, 1))}
    asked = draw(thinking)
    return Request(
        "m",
        tuple(messages),
        tools=tools,
        tool_choice=ToolChoice("auto") if tools else msgspec.UNSET,
        parallel_tool_calls=draw(st.booleans()),
        thinking=Thinking(**asked) if asked else msgspec.UNSET,
        cache=CacheHint("5m"),
        max_tokens=draw(st.integers(2000, 9000)),
        stop=("x",),
        user="u",
        stream=draw(st.booleans()),
        **({} if "budget_tokens" in asked else sampling),
    )


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([AT, STRICT]).flatmap(lambda at: st.tuples(st.just(at), sensible(at is STRICT))))
def test_what_we_send_the_inventor_is_what_we_accept(asked):
    at, request_ = asked
    DIALECT.check_request(DIALECT.encode_request(request_, at).wire)
