"""The serving side of the Gemini dialect beyond its vectors: what it reads it says again, what it says it reads
again, and whatever comes, it answers in our own tree of errors."""

import json
import os
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, structs

from polyvox.dialects import Endpoint, Peek, Wire, dialect
from polyvox.errors import InputError
from polyvox.types import (
    Audio,
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
from tests.dialects.test_gemini_serving_answers import exchanges, vectors
from tests.dialects.test_vectors import CASES, ROOT, endpoint_of, mutated

NAME = "gemini.generate"
GEMINI = dialect(NAME)
AT = Endpoint(origin="home/twin")
NOWHERE = Endpoint()
SLOWLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TRAFFIC = Path(os.environ.get("POLYVOX_TRAFFIC", ""))
PATH = "/v1beta/models/m:generateContent"


def wire_of(body, path=PATH):
    return Wire(path, body if isinstance(body, bytes) else json.dumps(body).encode(), {})


def said(*parts, role="user", **facts):
    return {"role": role, "parts": [{"text": part} if isinstance(part, str) else part for part in parts], **facts}


def asked(*contents, at=AT, **body):
    return GEMINI.decode_request(wire_of({"contents": list(contents), **body}), at)


# ---- requests that the dialect can say, as they come out of decoding ---------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner | st.none(), max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=3)
SIGNATURES = st.binary(max_size=9).map(lambda data: msgspec.json.encode(data).decode().strip('"'))


def extras(**keys):
    """Keys without a neutral place, under the dialect's name."""
    return st.fixed_dictionaries({}, optional=keys).map(lambda keys: {NAME: keys} if keys else {})


def signed(at):
    return st.just({}) | SIGNATURES.map(lambda proof: {"signature": proof, "origin": at.origin})


def texts(at):
    return st.builds(
        lambda words, facts, extra: Text(words, **facts, extra=extra), WORDS, signed(at), extras(mood=VALUES)
    )


def media(at, proofs=True):
    def made(kind, held, name, extra):
        make, media_type = kind
        facts = {"media_type": media_type, "name": name, **held, "extra": extra}
        if "file_id" in held or "thoughtSignature" in extra.get(NAME, {}):
            facts["origin"] = at.origin
        return make(**facts)

    kinds = [(Image, "image/png"), (Audio, "audio/wav"), (Video, "video/mp4"), (File, "application/pdf")]
    held = (
        st.binary(max_size=9).map(lambda data: {"data": data})
        | st.sampled_from(["https://example.com/a.png", "gs://bucket/a", "https://youtu.be/x"]).map(
            lambda u: {"url": u}
        )
        | st.sampled_from(["files/a1", "https://host/v1beta/files/a1"]).map(lambda u: {"file_id": u})
    )
    more = {"thoughtSignature": SIGNATURES} if proofs else {}
    extra = extras(videoMetadata=OBJECTS.filter(bool), **more)
    return st.builds(made, st.sampled_from(kinds), held, st.none() | WORDS, extra)


def thoughts(at):
    def made(words, proof, more):
        extra = {NAME: more} if more else {}
        if at.origin is None:
            extra = extra or {NAME: {}}
        return Reasoning(words, proof, origin=at.origin, extra=extra)

    return st.builds(made, WORDS, st.none() | SIGNATURES, st.just({}) | st.just({"mood": 1}))


def opaque(at):
    return st.sampled_from(["executableCode", "codeExecutionResult", "toolCall"]).flatmap(
        lambda kind: OBJECTS.map(lambda value: Opaque(NAME, kind, {kind: value}, at.origin))
    )


ARGUMENTS = OBJECTS.map(lambda value: msgspec.json.encode(value).decode())
RESULT_WORDS = WORDS | ARGUMENTS.filter(lambda text: text != "{}") | st.just('{"result":"x"}') | st.just(" {}")


@st.composite
def turns(draw, at):
    """A conversation: turns with everything a message can hold, and after calls their results."""
    found, ids = [], iter(range(1000))
    if draw(st.booleans()):
        parts = draw(st.lists(WORDS.map(Text), min_size=1, max_size=2))
        found.append(Message("system", tuple(parts), extra=draw(extras(role=WORDS))))
    for _ in range(draw(st.integers(1, 3))):
        user = draw(st.lists(texts(at) | media(at), min_size=1, max_size=3))
        found.append(Message("user", tuple(user), extra=draw(extras(mood=VALUES))))
        parts = draw(st.lists(thoughts(at) | texts(at) | media(at) | opaque(at), min_size=1, max_size=3))
        calls = [
            ToolCall(f"id{next(ids)}", draw(WORDS), draw(ARGUMENTS), **draw(signed(at)),
                     extra=draw(extras(mood=VALUES, functionCall=st.just({"novel": 1}))))
            for _ in range(draw(st.integers(0, 2)))
        ]  # fmt: skip
        found.append(Message("assistant", (*parts, *calls), extra=draw(extras(mood=VALUES))))
        if calls:
            found.append(Message("tool", tuple([draw(results(at, call)) for call in draw(st.permutations(calls))])))
    return tuple(found)


@st.composite
def results(draw, at, call):
    words = draw(RESULT_WORDS | st.just(""))
    is_error = draw(st.booleans())
    told = (Text(words),) if words or is_error or draw(st.booleans()) else ()
    if words.strip() == "{}" and not is_error:
        told = ()
    kept = draw(st.lists(media(at, proofs=False), max_size=1))
    name = draw(st.none() | WORDS.filter(lambda word: word != call.name))
    extra = draw(extras(mood=VALUES, functionResponse=st.just({"scheduling": "SILENT"})))
    return ToolResult(call.id, (*told, *kept), name, is_error, extra=extra)


def tools(at):
    function = st.builds(Tool, WORDS, st.none() | WORDS, OBJECTS, extra=extras(behavior=WORDS, response=OBJECTS))
    server = st.sampled_from(["googleSearch", "codeExecution", "novelTool"]).map(
        lambda key: Opaque(NAME, key, {key: {}}, at.origin)
    )
    return st.lists(function | server, max_size=4).map(tuple)


def unset(strategy):
    return st.just(UNSET) | strategy


THINKING = st.builds(
    lambda thinking, extra: structs.replace(thinking, extra=extra),
    st.sampled_from([Thinking(effort="xhigh"), Thinking(enabled=False), Thinking(enabled=True),
                     Thinking(enabled=True, budget_tokens=512)]),
    extras(includeThoughts=st.booleans()),
)  # fmt: skip
FORMATS = st.sampled_from([ResponseFormat("text"), ResponseFormat("json")]) | OBJECTS.map(
    lambda schema: ResponseFormat("schema", schema)
)


@st.composite
def choices(draw, offered):
    names = [tool.name for tool in offered if isinstance(tool, Tool)]
    chosen = tuple(draw(st.lists(st.sampled_from(names), max_size=2, unique=True))) if names else ()
    mode = draw(st.sampled_from(["auto", "none", "required"]))
    if not chosen or mode == "none":
        return ToolChoice(mode)
    return ToolChoice(mode, chosen, subset=mode == "auto" or len(chosen) > 1)


@st.composite
def requests(draw, at):
    whole, offered = unset(st.integers(0, 2**31)), draw(tools(at))
    return Request(
        model=draw(st.sampled_from(["m", "publishers/google/models/m", "tunedModels/x-1", "a:b ü?", "vendor/m"])),
        messages=draw(turns(at)),
        tools=offered,
        tool_choice=draw(unset(choices(offered))),
        response_format=draw(unset(FORMATS)),
        thinking=draw(unset(THINKING)),
        max_tokens=draw(whole),
        temperature=draw(unset(NUMBERS)),
        top_p=draw(unset(NUMBERS)),
        top_k=draw(whole),
        stop=draw(unset(st.lists(WORDS, max_size=2).map(tuple))),
        seed=draw(whole),
        n=draw(whole),
        presence_penalty=draw(unset(NUMBERS)),
        frequency_penalty=draw(unset(NUMBERS)),
        logprobs=draw(unset(st.booleans())),
        top_logprobs=draw(unset(st.integers(0, 20))),
        modalities=draw(unset(st.just(("text", "audio")))),
        audio=draw(unset(st.just({"voice": "Kore"}))),
        metadata=draw(unset(st.just({"team": "lake"}))),
        service_tier=draw(unset(st.sampled_from(["flex", "standard", "priority"]))),
        stream=draw(st.booleans()),
        extra=draw(extras(
            cachedContent=WORDS, safetySettings=st.just([{"category": "X", "threshold": "OFF"}]), novel=VALUES,
            generationConfig=st.just({"mediaResolution": "MEDIA_RESOLUTION_LOW", "imageConfig": {"a": 1}}),
            toolConfig=st.just({"includeServerSideToolInvocations": True}),
        )),
    )  # fmt: skip


@pytest.mark.parametrize("at", [AT, NOWHERE], ids=["of a deployment", "of nobody"])
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_what_is_asked_in_this_dialect_is_read_as_it_was_meant(at, data):
    request = data.draw(requests(at))
    wire, losses = GEMINI.encode_request(request, at)
    assert losses == ()
    assert GEMINI.decode_request(wire, at) == request
    assert GEMINI.peek(wire) == Peek(request.model, request.stream, usage=True)


@pytest.mark.parametrize("options", [{"schema": "openapi"}, {"include_thoughts": True}])
def test_what_an_endpoint_asks_by_itself_is_not_read_as_the_clients_wish(options):
    schema = {
        "type": "object",
        "properties": {"city": {"type": ["string", "null"]}},
        "$defs": {"a": {"type": "string"}},
    }
    request = Request(
        "m", (Message("user", (Text("Hi"),)),), (Tool("f", parameters=schema),), thinking=Thinking(effort="low"),
        response_format=ResponseFormat("schema", schema),
    )  # fmt: skip
    at = structs.replace(AT, options=options)
    assert GEMINI.decode_request(GEMINI.encode_request(request, at).wire, at) == request


def test_what_the_vectors_ask_is_read_and_asked_again_in_the_same_words():
    for name in vectors("request", NAME):
        if "refused" in CASES[name]:
            continue
        at = structs.replace(endpoint_of(CASES[name]), options={})
        wire, _ = GEMINI.encode_request(msgspec.convert(CASES[name]["request"], Request), at)
        request = GEMINI.decode_request(wire, at)
        again, _ = GEMINI.encode_request(request, at)
        assert GEMINI.decode_request(again, at) == request, name
        assert json.loads(again.body) == json.loads(wire.body), name


# ---- the model is in the path -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "framing"),
    [("", "list"), ("?alt=sse", ""), ("?key=k&alt=sse", ""), ("?$alt=sse", ""), ("?%24alt=sse", ""),
     ("?alt=json", "list"), ("?alt=", "list"), ("?malt=sse", "list")],
)  # fmt: skip
def test_a_stream_is_one_list_unless_the_query_asks_for_events(query, framing):
    peek = GEMINI.peek(wire_of({"contents": []}, f"/v1beta/models/m:streamGenerateContent{query}"))
    assert peek == Peek("m", stream=True, framing=framing)
    assert GEMINI.peek(wire_of({"contents": []}, f"/v1beta/models/m:generateContent{query}")) == Peek("m")


@pytest.mark.parametrize(
    ("path", "model", "stream", "moved"),
    [
        ("/v1beta/models/m:generateContent", "m", False, "/v1beta/models/n%3A1:generateContent"),
        ("/models/m:streamGenerateContent?alt=sse", "m", True, "/models/n%3A1:streamGenerateContent?alt=sse"),
        ("/v1/tunedModels/x:generateContent", "tunedModels/x", False, "/v1/models/n%3A1:generateContent"),
        (
            "/v1/projects/p/locations/l/publishers/google/models/m:streamGenerateContent",
            "publishers/google/models/m", True, "/v1/projects/p/locations/l/models/n%3A1:streamGenerateContent",
        ),
        ("/v1beta/models/vendor/a%20b:generateContent", "vendor/a b", False, "/v1beta/models/n%3A1:generateContent"),
    ],
)  # fmt: skip
def test_the_model_is_read_from_the_path_and_set_there(path, model, stream, moved):
    wire = wire_of({"contents": [said("Hi")]}, path)
    assert GEMINI.peek(wire) == Peek(model, stream, framing="list" if stream and "alt=" not in path else "")
    assert GEMINI.decode_request(wire, AT).model == model
    edited = GEMINI.edit(wire, model="n:1", usage=True)
    assert (edited.path, edited.body) == (moved, wire.body)
    assert GEMINI.edit(wire, usage=True) is wire


def test_a_model_in_the_body_counts_where_the_path_has_none():
    wire = wire_of({"model": "m", "contents": []}, "/call")
    assert GEMINI.peek(wire) == Peek("m") and GEMINI.decode_request(wire, AT).model == "m"
    assert json.loads(GEMINI.edit(wire, model="n").body)["model"] == "n"
    with pytest.raises(InputError) as caught:
        GEMINI.decode_request(wire_of({}, "/call"), AT)
    assert caught.value.param == "model"


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[1]", b'"m"', b'{"model":', b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused_by_all(body):
    for act in (GEMINI.peek, GEMINI.check_request, lambda wire: GEMINI.decode_request(wire, AT)):
        with pytest.raises(InputError) as caught:
            act(wire_of(body))
        assert caught.value.code == "invalid_json" and caught.value.sent == "no"
    with pytest.raises(InputError):
        GEMINI.edit(wire_of(body), model="n")


def test_what_is_nested_too_deeply_is_refused():
    schema = b'{"items":' * 900 + b"{}" + b"}" * 900
    tool = b'{"contents":[{"parts":[{"text":"Hi"}]}],"tools":[{"functionDeclarations":[{"name":"f","parameters":%s}]}]}'
    for act in (GEMINI.check_request, lambda wire: GEMINI.decode_request(wire, AT)):
        with pytest.raises(InputError) as caught:
            act(wire_of(tool % schema))
        assert caught.value.sent == "no"


# ---- calls and their results --------------------------------------------------------------------


def call(name, **facts):
    return {"functionCall": {"name": name, "args": {}, **facts}}


def result(name, words="ok", **facts):
    return {"functionResponse": {"name": name, "response": {"result": words}, **facts}}


def ids_of(request):
    parts = [part for message in request.messages for part in message.parts]
    called = [part.id for part in parts if isinstance(part, ToolCall)]
    return called, [part.call_id for part in parts if isinstance(part, ToolResult)]


def test_calls_without_ids_get_ids_that_stay_when_the_conversation_grows():
    first = [said(call("f"), call("g"), role="model"), said(result("g"), result("f"))]
    assert ids_of(asked(*first)) == (["call_0", "call_1"], ["call_1", "call_0"])
    longer = asked(*first, said(call("f"), role="model"), said(result("f")))
    assert ids_of(longer) == (["call_0", "call_1", "call_2"], ["call_1", "call_0", "call_2"])


def test_results_and_words_in_one_content_are_two_messages():
    found = asked(said(call("f"), role="model"), said(result("f"), "And now?"))
    assert [message.role for message in found.messages] == ["assistant", "tool", "user"]


def test_all_results_of_a_turn_go_into_one_content():
    calls = Message("assistant", (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}")))
    answers = [Message("tool", (ToolResult(id, (Text(id),)),)) for id in "ab"]
    body = json.loads(GEMINI.encode_request(Request("m", (calls, *answers)), AT).wire.body)
    assert [content["role"] for content in body["contents"]] == ["model", "user"]
    assert [part["functionResponse"]["name"] for part in body["contents"][1]["parts"]] == ["f", "g"]


def test_signatures_in_either_alphabet_are_the_same():
    for proof in ("-_8=", "+/8=", "-_8"):
        found = asked(said({"text": "a", "thought_signature": proof}, role="model"))
        assert found.messages[0].parts == (Text("a", signature="+/8=", origin="home/twin"),)


# ---- whatever comes -----------------------------------------------------------------------------

KEYS = [
    "contents", "role", "parts", "text", "thought", "thoughtSignature", "inlineData", "fileData", "mimeType", "data",
    "fileUri", "functionCall", "functionResponse", "name", "args", "id", "response", "systemInstruction", "tools",
    "functionDeclarations", "parameters", "generationConfig", "thinkingConfig", "thinkingLevel", "thinkingBudget",
    "responseMimeType", "responseSchema", "speechConfig", "toolConfig", "functionCallingConfig", "mode",
    "allowedFunctionNames", "labels", "serviceTier", "stopSequences", "inline_data", "function_call", "model",
    "mediaResolution", "displayName", "type", "nullable", "items", "properties", "voiceConfig", "result", "error",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2)
    | st.sampled_from(["", "user", "model", "QQ==", "image/png", "AUTO", "ANY", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)  # fmt: skip
FULL = json.loads((ROOT / NAME / "serve-checked-everything.json").read_text(encoding="utf-8"))["body"]


def read_or_refused(wire):
    """Read it, or refuse it with a plain message that names the place; what is read can be said again."""
    for act in (GEMINI.peek, GEMINI.check_request):
        try:
            act(wire)
        except InputError as error:
            assert error.param is None or error.message.startswith(error.param)
    try:
        request = GEMINI.decode_request(wire, AT)
    except InputError as error:
        assert error.param is None or error.message.startswith(error.param)
        return
    assert msgspec.convert(msgspec.to_builtins(request), Request) == request
    try:
        again, losses = GEMINI.encode_request(request, AT)
    except InputError:
        return
    if not losses:
        assert GEMINI.decode_request(again, AT).messages == request.messages


@SLOWLY
@given(JSON)
def test_any_json_is_read_or_refused(value):
    read_or_refused(wire_of(value))
    read_or_refused(wire_of({"contents": value}))
    read_or_refused(wire_of({"contents": [{"parts": value}], "generationConfig": value}))


@SLOWLY
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


@SLOWLY
@given(st.integers(0, 10**9))
def test_a_request_changed_at_random_is_read_or_refused(seed):
    read_or_refused(wire_of(mutated(FULL, random.Random(seed))))


# ---- what the inventor refuses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temprature": 1}, "temprature"),
        ({"contents": []}, "contents"),
        ({"contents": [{"role": "system", "parts": [{"text": "x"}]}]}, "contents[0].role"),
        ({"contents": [{"role": "user", "parts": []}]}, "contents[0].parts"),
        ({"contents": [said({"text": "a", "function_call": {"name": "f"}}, role="model")]}, "contents[0].parts[0]"),
        ({"contents": [said(result("f"))]}, "contents[0].parts"),
        ({"contents": [said(call("f"), role="model")]}, "contents"),
        ({"contents": [said(call("f"), role="model"), said(result("g"))]}, "contents[1].parts"),
        ({"contents": [said({"inlineData": {"mimeType": "image/png", "data": "@"}})]},
         "contents[0].parts[0].inlineData.data"),
        ({"generationConfig": {"temperature": 3}}, "generationConfig.temperature"),
        ({"generation_config": {"top_p": 2}}, "generationConfig.topP"),
        ({"generationConfig": {"stopSequences": list("abcdef")}}, "generationConfig.stopSequences"),
        ({"generationConfig": {"logprobs": 2}}, "generationConfig.logprobs"),
        ({"generationConfig": {"responseSchema": {}}}, "generationConfig.responseMimeType"),
        ({"generationConfig": {"responseSchema": {}, "responseJsonSchema": {}}}, "generationConfig.responseSchema"),
        ({"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW", "thinkingBudget": 1}}},
         "generationConfig.thinkingConfig"),
        ({"tools": [{"functionDeclarations": [{"name": "1f"}]}]}, "tools[0].functionDeclarations[0].name"),
        ({"tools": [{"functionDeclarations": [{"name": "f"}, {"name": "f"}]}]},
         "tools[0].functionDeclarations[1].name"),
        ({"tools": [{"functionDeclarations": [{"name": "f", "parameters": {}, "parametersJsonSchema": {}}]}]},
         "tools[0].functionDeclarations[0].parameters"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}}, "toolConfig.functionCallingConfig.mode"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "AUTO", "allowedFunctionNames": ["f"]}}},
         "toolConfig.functionCallingConfig.allowedFunctionNames"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}},
         "toolConfig.functionCallingConfig.allowedFunctionNames[0]"),
    ],
)  # fmt: skip
def test_what_the_inventor_refuses_is_refused_by_name(change, param):
    with pytest.raises(InputError) as caught:
        GEMINI.check_request(wire_of({"contents": [said("Hi")], **change}))
    assert caught.value.param == param and caught.value.message.startswith(param)


# Vectors that say more than sensible requests do: keys nobody knows, a history without its beginning.
SENSELESS = {
    f"{NAME}/request-{name}"
    for name in ("format-schema", "results", "results-with-words", "result-of-a-call-cut-off", "thoughts", "media")
}


def test_what_we_ask_ourselves_is_taken():
    for name in set(vectors("request", NAME)) - SENSELESS:
        if "refused" not in CASES[name]:
            asks = GEMINI.encode_request(msgspec.convert(CASES[name]["request"], Request), endpoint_of(CASES[name]))
            GEMINI.check_request(asks.wire)


def test_recorded_requests_are_read_said_again_and_taken():
    for exchange in exchanges():
        wire = wire_of(exchange["request_json"], exchange["url"].partition(".com")[2])
        request = GEMINI.decode_request(wire, AT)
        again, losses = GEMINI.encode_request(request, AT)
        assert [loss.severity for loss in losses] == ["note"] * len(losses)
        if not losses:
            assert GEMINI.decode_request(again, AT) == request, exchange["id"]
        # How the stream came tells how it had been asked for.
        framing = "list" if exchange["response_text"].startswith("[") else ""
        assert exchange["status"] != 200 or GEMINI.peek(wire) == Peek(request.model, request.stream, framing=framing)
        if exchange["status"] == 200:
            GEMINI.check_request(wire)
