"""OpenAI Chat Completions, the serving side: what a client asks is read whole and can be asked again, what is
answered is read back as it was, a stream cut anywhere is never an answer, and no JSON breaks any of it."""

import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from polyvox.dialects import Endpoint, Peek, Reply, Wire, dialect
from polyvox.dialects.collect import Collector, as_events
from polyvox.errors import BY_KIND, InputError, PolyvoxError, UnknownModelError, of_kind
from polyvox.types import (
    UNSET,
    Audio,
    CacheHint,
    Choice,
    ChoiceEnded,
    Citation,
    CitationAdded,
    Ended,
    ExtraAdded,
    Failed,
    File,
    Image,
    LogprobsAdded,
    Message,
    Opaque,
    PartAdded,
    Reasoning,
    ReasoningDelta,
    ReasoningProof,
    Refusal,
    RefusalDelta,
    Request,
    Response,
    ResponseFormat,
    Started,
    Text,
    TextDelta,
    Thinking,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolChoice,
    ToolResult,
    Usage,
    UsageReported,
    Video,
)

NAME = "openai.chat"
CHAT = dialect(NAME)
ORIGIN = "test/model"
AT = Endpoint(origin=ORIGIN)
VECTORS = Path(__file__).parent.parent / "vectors"
often = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


def wire_of(body):
    return Wire("/chat/completions", json.dumps(body).encode(), {})


def read(*messages, at=AT, **fields):
    return CHAT.decode_request(wire_of({"model": "m", "messages": list(messages), **fields}), at)


def refused(act):
    with pytest.raises(InputError) as caught:
        act()
    return caught.value


# ---- requests that the dialect can say --------------------------------------------------------

words = st.text(max_size=6)
filled = st.text(min_size=1, max_size=6)
names = st.text("abcXYZ019_-", min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(words, values, max_size=2)
unknown = st.dictionaries(names.map("x_{}".format), values, min_size=1, max_size=2)
addresses = names.map("https://pictures.example/{}".format)
some_bytes = st.binary(min_size=1, max_size=5)


def maybe(strategy, default=None):
    return st.just(default) | strategy


def extras(inner=None):
    """Unknown keys, also within the object the part is about."""
    own = unknown if inner is None else unknown | unknown.map(lambda keys: {inner: keys})
    return st.just({}) | own.map(lambda keys: {NAME: keys})


def caches(quirks):
    if "cache_control" in quirks:
        return maybe(st.builds(CacheHint, maybe(filled), extras()))
    if "cache_breakpoint" in quirks:
        return maybe(st.builds(CacheHint, st.sampled_from([None, "30m", "12h"]), extras()))
    return st.none()


def user_parts(quirks):
    cache = caches(quirks)
    kinds = st.sampled_from(["image/png", "image/jpeg", "image/svg+xml;charset=utf-8"])
    located = [{"data": some_bytes, "media_type": kinds}, {"url": addresses}]
    return st.one_of(
        st.builds(Text, words, cache=cache, extra=extras()),
        *[
            st.builds(Image, **where, detail=maybe(filled), cache=cache, extra=extras("image_url"))
            for where in located
        ],
        *[st.builds(Video, **where, cache=cache, extra=extras("video_url")) for where in located],
        st.builds(
            Audio, st.binary(max_size=4), media_type=st.sampled_from(["audio/wav", "audio/mpeg", "audio/x-y"]),
            cache=cache, extra=extras("input_audio"),
        ),
        st.builds(
            File, some_bytes, media_type=st.sampled_from(["application/pdf", "text/plain"]), name=filled, cache=cache,
            extra=extras("file"),
        ),
        st.builds(
            File, file_id=words, name=maybe(words), origin=st.just(ORIGIN), cache=cache, extra=extras("file")
        ),
        addresses.map(lambda url: File(url=url, name="n", extra={NAME: {"file": {"file_data": url}}})),
        objects.map(lambda raw: Opaque(NAME, "map", {**raw, "type": "map"}, ORIGIN)),
    )  # fmt: skip


@st.composite
def thinking_chunks(draw):
    frame = {"type": "thinking", **draw(st.just({}) | st.just({"closed": True}))}
    signature = draw(maybe(words))
    if signature is not None:
        frame["signature"] = signature
    return Reasoning(draw(words), signature, origin=ORIGIN, extra={NAME: {"chunk": frame}})


@st.composite
def reasonings(draw, quirks):
    if "echo_reasoning" in quirks and draw(st.booleans()):
        return [Reasoning(draw(filled))]
    details = [
        {"type": "reasoning.text", "text": text, "index": i}
        for i, text in enumerate(draw(st.lists(filled, max_size=2)))
    ]
    details += draw(st.lists(st.just({"type": "reasoning.encrypted", "data": "ZQ=="}), max_size=1))
    if not details:
        return []
    text = "".join(detail.get("text", "") for detail in details)
    return [Reasoning(text, origin=ORIGIN, extra={NAME: {"reasoning_details": details}})]


@st.composite
def assistants(draw, quirks):
    calls = [
        draw(
            st.builds(ToolCall, st.just(f"c{i}"), filled, filled, extra=extras("function"))
            | st.builds(ToolCall, st.just(f"c{i}"), filled, words, kind=st.just("custom"), extra=extras("custom"))
        )
        for i in range(draw(st.integers(0, 2)))
    ]
    sound = draw(st.lists(st.builds(Audio, file_id=filled, origin=st.just(ORIGIN)), max_size=1))
    if draw(st.booleans()):
        # Several texts and nothing else would be said as one: a list needs something that only it can say.
        chunk = (
            st.builds(Refusal, words, extra=extras())
            | thinking_chunks()
            | st.just(Opaque(NAME, "map", {"type": "map"}, ORIGIN))
            | st.builds(Text, words, cache=caches(quirks), extra=unknown.map(lambda keys: {NAME: keys}))
        )
        content = [*draw(st.lists(st.builds(Text, words) | chunk, max_size=2)), draw(chunk)]
    else:
        content = draw(st.lists(st.builds(Text, words), min_size=0 if calls or sound else 1, max_size=1))
    parts = (*draw(reasonings(quirks)), *content, *sound, *calls)
    return Message("assistant", parts, draw(maybe(words)), draw(extras()))


@st.composite
def results(draw):
    name = draw(maybe(filled))
    extra = {**draw(st.just({}) | unknown), **({} if name is None else {"name": name})}
    result = ToolResult(draw(words), (Text(draw(words)),), name, extra={NAME: extra} if extra else {})
    return Message("tool", (result,))


def messages(quirks):
    roles = ["user", "system"] if "system_role" in quirks else ["user", "system", "developer"]
    parts = st.lists(user_parts(quirks), min_size=1, max_size=3).map(tuple)
    speakers = st.builds(Message, st.sampled_from(roles), parts, maybe(words), extras())
    plain = st.builds(Message, st.sampled_from(roles), st.builds(Text, words).map(lambda text: (text,)))
    return speakers | plain | assistants(quirks) | results()


def tools(quirks):
    cache = caches(quirks)
    schema = objects.map(lambda inner: {**inner, "type": "object"})
    return st.one_of(
        st.builds(
            Tool, filled, maybe(words), st.just({}) | schema, maybe(st.booleans(), UNSET), cache=cache,
            extra=extras("function"),
        ),
        st.builds(
            Tool, filled, maybe(words), kind=st.just("custom"), format=maybe(objects), cache=cache,
            extra=extras("custom"),
        ),
        st.just(Opaque(NAME, "x:search", {"type": "x:search", "parameters": {}}, ORIGIN)),
    )  # fmt: skip


@st.composite
def choices(draw, offered):
    known = sorted({tool.name for tool in offered if isinstance(tool, Tool)})
    mode = draw(st.sampled_from(["auto", "none", "required"]))
    if mode == "none" or not known or draw(st.booleans()):
        return ToolChoice(mode)
    if mode == "required" and draw(st.booleans()):
        return ToolChoice(mode, (draw(st.sampled_from(known)),))
    return ToolChoice(mode, tuple(draw(st.lists(st.sampled_from(known), min_size=1, max_size=2))), subset=True)


@st.composite
def thinkings(draw, quirks):
    facts = {}
    if "thinking_switch" in quirks:
        facts["enabled"] = draw(st.booleans())
        if facts["enabled"] and draw(st.booleans()):
            facts["effort"] = draw(st.sampled_from(["low", "max"]))
    elif "reasoning_object" in quirks and draw(st.booleans()):
        facts["enabled"] = True
    else:
        facts["effort"] = draw(st.sampled_from(["none", "low", "max"]))
    if "reasoning_object" in quirks and "enabled" not in facts and draw(st.booleans()):
        facts["budget_tokens"] = draw(st.integers(0, 2**40))
    if draw(st.booleans()):
        facts["extra"] = {NAME: {draw(st.sampled_from(["reasoning", "thinking"])): draw(unknown)}}
    return Thinking(**facts)


formats = st.one_of(
    st.builds(ResponseFormat, st.just("text"), extra=extras()),
    st.builds(ResponseFormat, st.just("json"), extra=extras()),
    st.builds(
        ResponseFormat, st.just("schema"), objects, words, maybe(words), maybe(st.booleans(), UNSET),
        extra=extras("json_schema"),
    ),
)  # fmt: skip
numbers = st.integers(-9, 9) | st.floats(-9, 9)
counts = st.integers(0, 2**53)
FIELDS = {
    "parallel_tool_calls": st.booleans(), "response_format": formats, "max_tokens": counts, "temperature": numbers,
    "top_p": numbers, "stop": st.lists(words, max_size=3).map(tuple), "seed": counts, "n": counts,
    "presence_penalty": numbers, "frequency_penalty": numbers,
    "logit_bias": st.dictionaries(words, numbers, max_size=2),
    "logprobs": st.booleans(), "top_logprobs": counts, "modalities": st.lists(words, max_size=2).map(tuple),
    "audio": objects, "verbosity": words, "user": words, "metadata": st.dictionaries(words, words, max_size=2),
    "service_tier": words, "cache_key": words, "stream": st.booleans(),
}  # fmt: skip
QUIRKS = ("max_tokens", "system_role", "no_usage_option", "random_seed", "tool_choice_any", "echo_reasoning",
          "reasoning_object", "thinking_switch", "top_k", "cache_breakpoint", "cache_control")  # fmt: skip


@st.composite
def asked(draw):
    """A request in normal form and the endpoint it is for: one wire message a turn, one spelling a fact."""
    quirks = draw(st.sets(st.sampled_from(QUIRKS)))
    options = {"video": True, **draw(st.sampled_from([{}, {"user_field": "safety_identifier"}, {"user_field": "uid"}]))}
    at = Endpoint(origin=ORIGIN, quirks=frozenset(quirks), options=options)
    facts = {field: draw(FIELDS[field]) for field in draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=8))}
    offered = tuple(draw(st.lists(tools(quirks), max_size=3, unique_by=lambda tool: getattr(tool, "name", ""))))
    if offered and draw(st.booleans()):
        facts["tool_choice"] = draw(choices(offered))
    if draw(st.booleans()):
        facts["thinking"] = draw(thinkings(quirks))
    if "top_k" in quirks and draw(st.booleans()):
        facts["top_k"] = draw(counts)
    extra = draw(st.just({}) | unknown)
    if draw(st.booleans()):
        extra = {**extra, "stream_options": {"include_obfuscation": False}}
    turns = tuple(draw(st.lists(messages(quirks), max_size=4)))
    return Request(draw(filled), turns, offered, extra={NAME: extra} if extra else {}, **facts), at


@often
@given(asked())
def test_given_any_request_the_dialect_can_say_then_what_it_asked_is_read_from_its_bytes(case):
    request, at = case
    wire, losses = CHAT.encode_request(request, at)
    assert not losses
    assert CHAT.decode_request(wire, at) == request
    # The mark of an endpoint's habits is not needed to read them.
    told = CHAT.decode_request(wire, Endpoint(origin=ORIGIN, options=at.options))
    assert told == request
    assert CHAT.peek(wire) == Peek(
        request.model, request.stream, not request.stream or "no_usage_option" not in at.quirks
    )


REQUESTS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((VECTORS / NAME).glob("request-*.json"))
}


def endpoint_of(vector):
    facts = {"origin": ORIGIN, **vector.get("endpoint", {})}
    return Endpoint(**{**facts, "quirks": frozenset(facts.get("quirks", ()))})


# One sends a chunk no client would, one says that no usage is wanted, which a request of ours never means.
SAID = [n for n in REQUESTS if "wire" in REQUESTS[n] and n not in ("request-opaque", "request-extra")]


@pytest.mark.parametrize("name", SAID)
def test_given_the_bytes_of_any_vector_when_read_and_said_again_then_they_are_the_same(name):
    vector = REQUESTS[name]
    at = endpoint_of(vector)
    body = vector["wire"]["body"]
    wire, losses = CHAT.encode_request(CHAT.decode_request(wire_of(body), at), at)
    assert json.loads(wire.body) == body
    assert [loss for loss in losses if loss.severity == "loss"] == []


# ---- any JSON at all --------------------------------------------------------------------------

KEYS = st.sampled_from([
    "model", "messages", "role", "content", "type", "text", "image_url", "url", "tool_calls", "function", "name", "id",
    "arguments", "tool_call_id", "tools", "tool_choice", "allowed_tools", "mode", "stream", "stream_options",
    "include_usage", "reasoning", "effort", "response_format", "json_schema", "schema", "strict", "thinking", "audio",
    "file", "file_data", "input_audio", "data", "format", "reasoning_details", "stop", "logit_bias", "metadata",
])  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
)
ANY = st.recursive(
    LEAVES | st.sampled_from(["user", "assistant", "tool", "function", "text", "custom", "data:x;base64,AA=="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def survives(body):
    """Whatever it is, it is taken or refused with one clear error that says where."""
    wire = Wire("/", body if isinstance(body, bytes) else json.dumps(body).encode(), {})
    acts = (
        lambda: CHAT.decode_request(wire, AT),
        lambda: CHAT.check_request(wire),
        lambda: CHAT.peek(wire),
        lambda: CHAT.edit(wire, model="other", usage=True),
    )
    found = []
    for act in acts:
        try:
            found.append(act())
        except InputError as error:
            found.append(error)
            assert error.sent == "no" and error.message and len(error.message) < 400
            assert error.code == "invalid_json" or error.param
    if isinstance(found[0], Request):
        assert msgspec.json.decode(msgspec.json.encode(found[0]), type=Request) == found[0]
        CHAT.encode_request(found[0], Endpoint(origin=ORIGIN, quirks=frozenset(QUIRKS)))


@often
@given(ANY | st.fixed_dictionaries({"model": st.just("m"), "messages": st.lists(ANY, max_size=2)}, optional={}))
def test_given_any_json_then_it_is_read_or_refused_in_our_own_tree(body):
    survives(body)


@often
@given(st.binary(max_size=30))
def test_given_any_bytes_then_they_are_read_or_refused_in_our_own_tree(body):
    survives(body)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from places(child, (*path, key))


def put(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


RICH = {
    "model": "m", "stream": True, "stream_options": {"include_usage": True}, "stop": ["a"], "logit_bias": {"5": 1},
    "metadata": {"a": "b"}, "max_tokens": 5, "user": "u", "temperature": 1, "n": 1, "modalities": ["text"],
    "audio": {"voice": "v", "format": "wav"}, "top_logprobs": 1, "logprobs": True,
    "reasoning_effort": "low", "reasoning": {"effort": "low", "max_tokens": 5}, "thinking": {"type": "enabled"},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}, "cache_control": {"type": "ephemeral"}},
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
    },
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "hi", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ==", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,QQ==", "filename": "a"}},
                {"type": "video_url", "video_url": {"url": "https://films.example/1"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "x"}]},
                {"type": "refusal", "refusal": "no"},
            ],
            "reasoning_content": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
            "audio": {"id": "a"},
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "done"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "done"},
    ],
}  # fmt: skip
SPOTS = list(places(RICH))


@settings(often, max_examples=500)
@given(st.sampled_from(SPOTS), ANY)
def test_given_a_request_with_one_value_replaced_then_it_is_read_or_refused_in_our_own_tree(spot, new):
    survives(put(RICH, spot, new))


def test_given_a_look_ahead_then_what_is_no_model_and_no_flag_counts_as_absent():
    assert CHAT.peek(wire_of({"model": 5, "stream": "yes", "stream_options": [1]})) == Peek(None, False, True)
    assert CHAT.peek(wire_of({"model": "m", "stream": True, "stream_options": "x"})) == Peek("m", True, False)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_given_nesting_without_end_then_it_is_refused_in_our_own_tree(opening):
    survives(opening.encode() * 100_000)
    for key in ("tools", "messages", "response_format", "x"):
        for depth in (100, 400, 900):
            schema = b'{"type":"object","properties":{"a":' * depth + b"{}" + b"}}" * depth
            tool = b'[{"type":"function","function":{"name":"f","strict":true,"parameters":' + schema + b"}}]"
            survives(b'{"model":"m","messages":[{"role":"user","content":"x"}],"%s":%s}' % (key.encode(), tool))


# ---- answers ----------------------------------------------------------------------------------

ALL = {
    f"{path.parent.name}/{path.stem}": json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(VECTORS.glob("*/*.json"))
}


def bytes_of(vector):
    if "hex" in vector:
        return bytes.fromhex(vector["hex"])
    if "text" in vector:
        return vector["text"].encode()
    if "lines" in vector:
        return ("\n".join(vector["lines"]) + "\n").encode()
    return json.dumps(vector["body"], ensure_ascii=False).encode()


def vectors(case, dialects=(NAME,)):
    return [name for name, vector in ALL.items() if vector["case"] == case and name.split("/")[0] in dialects]


def traffic(streamed):
    """Recorded answers of this dialect: (name, body)."""
    folder = os.environ.get("POLYVOX_TRAFFIC")
    file = Path(folder) / "dev.jsonl" if folder else None
    if file is None or not file.is_file():
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl)")
    for line in file.read_text(encoding="utf-8").splitlines():
        exchange = json.loads(line)
        fits = "/chat/completions" in (exchange["url"] or "") and bool(exchange["streamed"]) == streamed
        if fits and (exchange["status"] or 200) < 400:
            yield exchange["id"], (exchange["response_text"] or "").encode()


def decoded(body):
    return CHAT.decode_response(Reply(200, {}, body), AT)


WORDS = {"eos": "stop", "function_call": "tool_calls"}  # imitators' and older spellings, said in the protocol's own


def in_our_words(response):
    """What an answer of this dialect is once it is said by us: with our prefix on the id, a number for the time,
    a name for the model, an object for no arguments, and the protocol's own word for why it ended."""

    def message(old):
        parts = [
            replace(part, arguments=part.arguments or "{}")
            if isinstance(part, ToolCall) and part.kind == "function"
            else part
            for part in old.parts
        ]
        return replace(old, parts=tuple(parts))

    def reason(of):
        exact = of.finish_reason in ("stop", "length", "tool_calls", "content_filter")
        return of.finish_reason if exact and of.raw_finish_reason else of.raw_finish_reason

    told = response.id or "0"
    return replace(
        response,
        raw=b"",
        id=told if told.startswith("chatcmpl-") else f"chatcmpl-{told}",
        created=response.created or 0.0,
        model=response.model or "",
        message=message(response.message),
        raw_finish_reason=reason(response),
        choices=tuple(
            replace(choice, message=message(choice.message), raw_finish_reason=reason(choice))
            for choice in response.choices
        ),
    )


def said_and_read(response):
    reply, losses = CHAT.encode_response(response, Peek())
    assert reply.status == 200 and not losses, losses
    return replace(CHAT.decode_response(reply, AT), raw=b"")


ANSWERS = [name for name in vectors("response") if "error" not in ALL[name]["expect"]]


@pytest.mark.parametrize("name", ANSWERS)
def test_given_an_answer_of_this_dialect_when_said_to_a_client_then_it_reads_the_same(name):
    answer = decoded(bytes_of(ALL[name]))
    assert said_and_read(answer) == in_our_words(answer)


def test_given_recorded_answers_when_said_to_a_client_then_they_read_the_same():
    count = 0
    for name, body in traffic(streamed=False):
        try:
            answer = decoded(body)
        except PolyvoxError:
            continue
        assert said_and_read(answer) == in_our_words(answer), name
        count += 1
    assert count > 50


def body_said(response, **asked):
    reply, losses = CHAT.encode_response(response, Peek(**asked))
    return json.loads(reply.body), {loss.field: loss.severity for loss in losses}


def answered(*parts, **facts):
    return Response(Message("assistant", parts), "stop", **facts)


FOREIGN = ("anthropic.messages", "ollama.chat")


@pytest.mark.parametrize("name", [n for n in vectors("response", FOREIGN) if "error" not in ALL[n]["expect"]])
def test_given_an_answer_of_another_dialect_then_what_is_not_said_is_told(name):
    answer = dialect(name.split("/")[0]).decode_response(Reply(200, {}, bytes_of(ALL[name])), AT)
    reply, losses = CHAT.encode_response(answer, Peek())
    again = CHAT.decode_response(reply, AT)
    assert_same_meaning(answer, again, [loss.field for loss in losses])


def assert_same_meaning(answer, again, lost):
    assert (again.text, again.reasoning) == (answer.text, answer.reasoning)
    calls = [(call.id, call.name, call.arguments or "{}") for call in answer.tool_calls]
    assert [(call.id, call.name, call.arguments) for call in again.tool_calls] == calls
    assert (again.usage.input, again.usage.cache_read, again.usage.total or 0) == (
        0 if answer.usage.input is None and again.usage.input is not None else answer.usage.input,
        answer.usage.cache_read,
        answer.usage.total or (again.usage.total or 0),
    )
    for i, part in enumerate(answer.message.parts):
        if isinstance(part, Opaque):
            assert f"message.parts[{i}].opaque" in lost
    for other in answer.extra:
        assert f"extra.{other}" in lost
    if answer.finish_reason in ("pause", "compaction", "context_overflow"):
        assert again.finish_reason == "length" and "finish_reason" in lost
    elif answer.finish_reason is not None:
        assert again.finish_reason in (answer.finish_reason, "content_filter")


@pytest.mark.parametrize("reason", ["error", "incomplete", "cancelled", None])
def test_given_an_answer_that_failed_then_nothing_says_it_succeeded(reason):
    for raw in (None, "stop", "MALFORMED", "error"):
        reply, losses = CHAT.encode_response(
            replace(answered(Text("half")), finish_reason=reason, raw_finish_reason=raw), Peek()
        )
        if reply.status == 200:
            assert decoded(reply.body).finish_reason in ("error", None)
        else:
            assert json.loads(reply.body)["error"]["message"] and [loss.field for loss in losses] == ["message"]


def test_given_several_texts_then_a_client_gets_one_string_and_citations_keep_their_place():
    cited = Text("cd", (Citation(url="https://a.example", start=0, end=2),))
    body, lost = body_said(answered(Text("ab"), Reasoning("hm"), cited))
    assert body["choices"][0]["message"]["content"] == "abcd"
    assert body["choices"][0]["message"]["annotations"] == [
        {"type": "url_citation", "url_citation": {"url": "https://a.example", "start_index": 2, "end_index": 4}}
    ]
    assert not lost


def test_given_proven_reasoning_of_another_dialect_then_a_client_can_send_it_back_whole():
    thoughts = (Reasoning("one", "sig", origin="a/b"), Reasoning("two", encrypted="ZQ==", origin="a/b"), Reasoning("3"))
    body, lost = body_said(answered(*thoughts, Text("yes")))
    message = body["choices"][0]["message"]
    assert message["reasoning_content"] == "onetwo3"
    assert lost == {"message.parts[0].reasoning": "note", "message.parts[1].reasoning": "note"}
    sent = read(message, at=Endpoint(origin="a/b")).messages[0]
    assert sent.parts == (*thoughts[:2], replace(thoughts[2], origin="a/b"), Text("yes"))


def test_given_usage_that_nobody_told_then_there_is_none():
    assert "usage" not in body_said(answered(Text("x")))[0]
    body, lost = body_said(answered(Text("x"), usage=Usage(output=5, source="estimated")))
    assert body["usage"] == {"prompt_tokens": 0, "completion_tokens": 5, "total_tokens": 5}
    assert lost == {"usage.input": "note", "usage.source": "note"}


def test_given_what_no_json_can_say_then_the_answer_is_an_error_of_ours():
    for extra in ({"x": object()}, {"x": "half \ud83d"}, {"x": {(1, 2): 3}}, {"choice": 5}):
        with pytest.raises(PolyvoxError):
            CHAT.encode_response(answered(Text("x"), extra={NAME: extra}), Peek())
    with pytest.raises(PolyvoxError):
        CHAT.encode_response(answered(Reasoning("x", extra={NAME: {"chunk": 5}})), Peek())


# ---- errors -----------------------------------------------------------------------------------

# What a client is told of these is that the server failed: it cannot see our connection to a provider.
NOT_CARRIED = {
    "connection": "server",
    "bad_response": "server",
    "stream_interrupted": "server",
    "refusal": "invalid_request",
}


@pytest.mark.parametrize("kind", sorted(BY_KIND))
def test_given_an_error_of_any_kind_when_told_to_a_client_then_it_reads_as_that_kind(kind):
    error = of_kind(kind, "m", param="p", retry_after=2.5, request_id="r-1")
    reply = CHAT.encode_error(error)
    again = CHAT.decode_error(reply, AT)
    assert again.kind == NOT_CARRIED.get(kind, kind)
    assert (again.message, again.param, again.retry_after, again.request_id) == ("m", "p", 2.5, "r-1")
    assert set(json.loads(reply.body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("kind", sorted(set(BY_KIND) - set(NOT_CARRIED)))
def test_given_an_error_with_a_code_of_its_own_then_the_code_stays_unless_it_hides_the_kind(kind):
    for code in ("insufficient_quota", "own_code", "context_length_exceeded"):
        reply = CHAT.encode_error(of_kind(kind, "m", code=code))
        again = CHAT.decode_error(reply, AT)
        assert again.kind == kind
        if code == "own_code" and kind not in (
            "context_length",
            "quota",
            "unsupported_param",
            "content_policy",
            "overloaded",
        ):
            assert again.code == code


def test_given_an_error_that_knows_where_it_happened_then_a_client_is_not_told():
    error = of_kind("server", "it failed", provider="acme", model="secret-1", hint="ask bob", attempts=())
    assert json.loads(CHAT.encode_error(error).body) == {
        "error": {"message": "it failed", "type": "server_error", "param": None, "code": None}
    }
    assert json.loads(CHAT.encode_error(UnknownModelError("no model x")).body)["error"]["code"] == "model_not_found"
    assert CHAT.encode_error(UnknownModelError("no model x")).status == 404
    half = json.loads(CHAT.encode_error(of_kind("server", "half \ud83d")).body)
    assert half["error"]["message"] == "half ?", "half a character, which no JSON can say, breaks nothing"


# ---- streams ----------------------------------------------------------------------------------


def events_in(room, body, at=AT):
    reader = room.reader(at)
    return reader.feed(body) + reader.close()


def collected(events):
    collector = Collector()
    for event in events:
        collector.add(event)
    return collector.response(), collector.failed


def written(events, *, usage=True, model=None):
    writer = CHAT.writer(Peek(model, stream=True, usage=usage))
    data = b"".join([writer.send(event) for event in events]) + writer.close()
    assert writer.done and writer.send(TextDelta("x")) == writer.close() == b""
    assert_well_formed(data, usage=usage)
    return data, writer.losses


def chunks_in(data):
    frames = data.decode().split("\n\n")
    assert frames.pop() == ""
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [frame[6:] if frame == "data: [DONE]" else json.loads(frame[6:]) for frame in frames]


def assert_well_formed(data, *, usage):
    """The order of the protocol: who speaks, what is said, why it ended, what it cost, [DONE]; or an error, last."""
    chunks = chunks_in(data)
    ended = chunks[-1] == "[DONE]"
    chunks.pop()
    if not ended:
        assert set(json.loads(data.decode().split("data: ")[-1])) == {"error"}
    assert not any("error" in chunk for chunk in chunks)
    costs = [chunk for chunk in chunks if not chunk["choices"]]
    assert costs == chunks[len(chunks) - len(costs) :] and len(costs) <= usage
    assert all(chunk["usage"] for chunk in costs)
    told = [chunk for chunk in chunks if chunk["choices"]]
    assert all(chunk.get("usage", 0) == (None if usage else 0) for chunk in told)
    assert len({(chunk["id"], chunk["model"], chunk["created"], chunk["object"]) for chunk in chunks}) <= 1
    begun, over = set(), set()
    for chunk in told:
        (choice,) = chunk["choices"]
        index = choice["index"]
        assert index not in over
        if index not in begun:
            begun.add(index)
            assert choice["delta"] == {"role": "assistant", "content": ""} and choice["finish_reason"] is None
        if choice["finish_reason"] is not None:
            over.add(index)
            assert choice["delta"] == {}
    assert (0 in over) == ended


@pytest.mark.parametrize("name", vectors("stream"))
def test_given_a_stream_of_this_dialect_when_written_for_a_client_then_it_reads_the_same(name):
    assert_reads_the_same(bytes_of(ALL[name]))


def test_given_recorded_streams_when_written_for_a_client_then_they_read_the_same():
    assert sum(assert_reads_the_same(body) for _, body in traffic(streamed=True)) > 50


def assert_reads_the_same(body):
    events = events_in(CHAT, body)
    data, losses = written(events)
    assert {loss.field for loss in losses} <= {"usage"}
    (response, failed), (again, failed_again) = collected(events), collected(events_in(CHAT, data))
    if failed:
        # Why a stream failed is told by its error; that it once said why it would end is not.
        kind = failed.error.kind
        assert failed_again.error.kind == NOT_CARRIED.get(kind, kind)
        facts = {"finish_reason": None, "raw_finish_reason": None}
        wanted = in_our_words(response) if len(events) > 1 else response
        assert replace(again, **facts) == replace(wanted, **facts)
    else:
        assert failed_again is None and again == in_our_words(response)
    return True


@pytest.mark.parametrize("name", vectors("stream", FOREIGN))
def test_given_a_stream_of_another_dialect_then_it_is_well_formed_and_what_is_not_said_is_told(name):
    events = events_in(dialect(name.split("/")[0]), bytes_of(ALL[name]))
    data, losses = written(events)
    (response, failed), (again, failed_again) = collected(events), collected(events_in(CHAT, data))
    assert bool(failed) == bool(failed_again)
    if not failed:
        assert_same_meaning(response, again, [loss.field for loss in losses])


@pytest.mark.parametrize("name", ANSWERS + [n for n in vectors("response", FOREIGN) if "error" not in ALL[n]["expect"]])
def test_given_a_whole_answer_when_streamed_then_it_says_the_same(name):
    answer = dialect(name.split("/")[0]).decode_response(Reply(200, {}, bytes_of(ALL[name])), AT)
    data, _ = written(as_events(answer))
    again, failed = collected(events_in(CHAT, data))
    assert failed is None or answer.finish_reason == "error"
    assert (again.text, again.reasoning, again.refusal) == (answer.text, answer.reasoning, answer.refusal)
    assert [call.id for call in again.tool_calls] == [call.id for call in answer.tool_calls]


@pytest.mark.parametrize("name", [n for n in vectors("stream") if "error" not in ALL[n]["expect"]][::4])
def test_given_a_written_stream_cut_before_its_reason_then_it_is_never_an_answer(name):
    data, _ = written(events_in(CHAT, bytes_of(ALL[name])))
    whole = data.index(b"\n\n", data.rindex(b'"finish_reason":"')) if b'"finish_reason":"' in data else len(data)
    for cut in range(whole - 1):
        assert isinstance(events_in(CHAT, data[:cut])[-1], Failed), cut


def test_words_behind_a_refusal_are_told_to_stand_before_it():
    said = [Started("a", "m"), TextDelta("No", 0), RefusalDelta("I will not.", 1), TextDelta(" way", 0)]
    for more, lost in (([], set()), ([TextDelta("But.", 2)], {"message.parts[2].text"})):
        writer = dialect("openai.chat").writer(Peek("m", stream=True, usage=False))
        for event in [*said, *more, Ended("refusal")]:
            writer.send(event)
        assert {loss.field for loss in writer.losses} == lost


def test_given_events_then_the_chunks_come_in_the_protocols_order():
    events = [
        Started("msg_1", "m-1", 5.0), ReasoningDelta("hm", 0), TextDelta("Hi", 1), ToolCallStarted(2, "c1", "f"),
        ToolCallDelta(2, '{"a":'), ToolCallDelta(2, "1}"), ToolCallEnded(2), ToolCallStarted(3, "c2", "now"),
        ToolCallEnded(3),
        UsageReported(Usage(3, 4, source="provider")), Ended("tool_calls", "tool_use"),
    ]  # fmt: skip
    data, losses = written(events)
    chunks = chunks_in(data)
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:-2]] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "Hi"},
        {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "type": "function", "function": {"name": "now", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-2]] == [None] * 8 + ["tool_calls"]
    counts = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert (chunks[-2]["choices"], chunks[-2]["usage"], chunks[-1]) == ([], counts, "[DONE]")
    assert {chunk["id"] for chunk in chunks[:-1]} == {"chatcmpl-msg_1"} and not losses


def test_given_a_client_that_asked_for_no_usage_then_no_chunk_speaks_of_it():
    data, losses = written([Started(), TextDelta("x"), UsageReported(Usage(1, 1)), Ended("stop")], usage=False)
    assert b"usage" not in data and not losses


def test_given_a_stream_that_is_cut_or_fails_then_there_is_no_done():
    for last in ([], [Failed(of_kind("overloaded", "too busy"))], [Ended("cancelled")], [Ended("error", "MALFORMED")]):
        data, _ = written([Started("a", "m"), TextDelta("x"), UsageReported(Usage(1, 1, source="provider")), *last])
        assert b"[DONE]" not in data and b'"finish_reason":"' not in data
        assert b'"usage":{"prompt_tokens":1' in data, "what is known of the usage is told"
        assert isinstance(events_in(CHAT, data)[-1], Failed)
    assert isinstance(events_in(CHAT, written([])[0])[-1], Failed)


def test_given_proven_reasoning_in_a_stream_then_a_client_can_send_it_back_whole():
    events = [
        ReasoningDelta("o", 0),
        ReasoningDelta("ne", 0),
        ReasoningProof(0, "sig", origin="a/b"),
        TextDelta("x", 1),
        Ended("stop"),
    ]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_in(written(events)[0])[:-1]]
    details = [detail for delta in deltas for detail in delta.get("reasoning_details", ())]
    message = {"role": "assistant", "content": "x", "reasoning_content": "one", "reasoning_details": details}
    assert read(message, at=Endpoint(origin="a/b")).messages[0].parts == (
        Reasoning("one", "sig", origin="a/b"),
        Text("x"),
    )


def test_given_what_no_json_can_say_then_the_stream_fails_and_raises_nothing():
    for event in (
        TextDelta("half \ud83d"), PartAdded(0, Opaque(NAME, "x", {"type": object()})),
        ExtraAdded({NAME: {"x": object()}}), ReasoningProof(0, extra={NAME: {"chunk": 5}}),
        UsageReported(Usage(raw={"prompt_tokens": object()}, input=object())),
        PartAdded(0, 5), ToolCallStarted(0, object(), "f"), CitationAdded(0, 5),
    ):  # fmt: skip
        data, _ = written([Started("a", "m"), TextDelta("x"), event, Ended("stop")])
        assert isinstance(events_in(CHAT, data)[-1], Failed) and b"[DONE]" not in data


def test_given_several_choices_then_each_begins_and_ends_for_itself():
    events = [TextDelta("a"), TextDelta("b", choice=1), LogprobsAdded((TokenLogprob("b", float("-inf")),), choice=1),
              ChoiceEnded(1, "length", "length"), Ended("stop", "stop")]  # fmt: skip
    again, failed = collected(events_in(CHAT, written(events)[0]))
    assert failed is None and again.text == "a"
    assert again.choices == (
        Choice(Message("assistant", (Text("b"),)), "length", "length", (TokenLogprob("b", -9999.0),)),
    )


def test_keep_alive_means_nothing():
    writer = CHAT.writer(Peek(stream=True))
    data = writer.send(TextDelta("x")) + writer.keep_alive() + writer.send(Ended("stop"))
    assert collected(events_in(CHAT, data))[0].text == "x" and writer.keep_alive() == b": keep-alive\n\n"


# ---- what the inventor refuses ----------------------------------------------------------------


def test_given_recorded_requests_of_the_inventor_that_were_answered_then_none_is_refused():
    folder = os.environ.get("POLYVOX_TRAFFIC")
    if not folder or not (Path(folder) / "dev.jsonl").is_file():
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl)")
    lines = (Path(folder) / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    count = 0
    for exchange in map(json.loads, lines):
        fits = exchange["provider"] in ("openai", "azure") and exchange["endpoint"] == "chat.completions"
        if fits and exchange["status"] == 200 and isinstance(exchange["request_json"], dict):
            CHAT.check_request(wire_of(exchange["request_json"]))
            count += 1
    assert count > 20


@pytest.mark.parametrize(
    "imitators", ["top_k", "reasoning", "thinking", "random_seed", "min_p", "safe_prompt", "provider"]
)
def test_given_a_field_of_an_imitator_then_it_is_unknown(imitators):
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], imitators: 5}
    error = refused(lambda: CHAT.check_request(wire_of(body)))
    assert (error.param, error.code) == (imitators, "unknown_parameter")


def test_given_a_sensible_request_of_ours_then_nothing_is_refused():
    request = Request(
        "m",
        (
            Message("developer", (Text("Say it in JSON."),)),
            Message("user", (Text("hi"), Image(b"x", media_type="image/png", detail="low"), File(b"x", name="a.pdf"))),
            Message("assistant", (Text("Let me see."), ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "x", "custom"))),
            Message("tool", (ToolResult("c2", (Text("a"),)), ToolResult("c1", (Image(b"x"),)))),
            Message("assistant", (Refusal("No."),), "bo"),
        ),
        tools=(Tool("f", "d", strict=False), Tool("g", kind="custom", format={"type": "text"})),
        tool_choice=ToolChoice("auto", ("f", "g"), subset=True),
        response_format=ResponseFormat("json"),
        thinking=Thinking(effort="low"),
        logit_bias={"5": 1.0},
        stream=True,
        **{key: 1 for key in ("max_tokens", "temperature", "top_p", "seed", "n", "presence_penalty", "top_logprobs")},
        logprobs=True, stop=("a",), user="u", metadata={"a": "b"}, service_tier="flex", cache_key="k",
    )  # fmt: skip
    CHAT.check_request(CHAT.encode_request(request, AT).wire)


# ---- edits ------------------------------------------------------------------------------------


def test_given_an_edit_then_only_what_it_names_changes():
    wire = Wire("/x", b'{ "stream" : true, "model":"a", "t":1.0, "stream_options":{"x":1} }', {"a": "b"}, "PUT")
    assert CHAT.edit(wire) is wire
    edited = CHAT.edit(wire, model='b"', usage=True)
    assert edited.body == b'{ "stream" : true, "model":"b\\"", "t":1.0, "stream_options":{"x":1,"include_usage":true} }'
    assert (edited.path, edited.method, edited.headers) == ("/x", "PUT", {"a": "b"})
    whole = Wire("/x", b'{"model":"a"}', {})
    assert CHAT.edit(whole, usage=True) is whole, "an answer in one piece tells its usage unasked"
    assert refused(lambda: CHAT.edit(Wire("/x", b"[]", {}))).code == "invalid_json"
