"""OpenAI Chat Completions: what the vectors cannot say of it. Only what was set is sent, what was decoded can
be sent back, streams end once and in order, and nothing but errors of our own tree ever comes out."""

import json
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import Endpoint, Reply, dialect
from polyvox.dialects.collect import Collector
from polyvox.dialects.openai_chat import stream as stream_module
from polyvox.errors import BadResponseError, InputError, PolyvoxError
from polyvox.types import (
    UNSET,
    Ended,
    Failed,
    Message,
    Reasoning,
    Request,
    Response,
    Started,
    Text,
    TextDelta,
    Thinking,
    Tool,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolChoice,
    ToolResult,
    UsageReported,
)

CHAT = dialect("openai.chat")
AT = Endpoint(origin="test/model")
USER = Message("user", (Text("hi"),))
FOLDER = Path(__file__).parent.parent / "vectors" / "openai.chat"
VECTORS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
STREAMS = [name for name, vector in VECTORS.items() if vector["case"] == "stream" and "hex" not in vector]
ANSWERS = [name for name, vector in VECTORS.items() if vector["case"] == "response" and "error" not in vector["expect"]]


def body_of(request, at=AT):
    return json.loads(CHAT.encode_request(request, at).wire.body)


def answer(**message):
    return decode({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def decode(body):
    return CHAT.decode_response(Reply(200, {}, json.dumps(body).encode()), AT)


def bytes_of(name):
    vector = VECTORS[name]
    return vector["text"].encode() if "text" in vector else ("\n".join(vector["lines"]) + "\n").encode()


def events_of(*chunks):
    reader = CHAT.reader(AT)
    return [event for chunk in chunks for event in reader.feed(chunk)] + reader.close()


def collected(events):
    collector = Collector()
    for event in events:
        collector.add(event)
    return collector.response()


def chunk(delta, finish=None, **more):
    return (
        f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}], **more})}\n\n".encode()
    )


# ---- only what was set is sent ----------------------------------------------------------------

FIELDS = {
    "tools": ((Tool("f"),), "tools"),
    "tool_choice": (ToolChoice(), "tool_choice"),
    "parallel_tool_calls": (False, "parallel_tool_calls"),
    "thinking": (Thinking(effort="low"), "reasoning_effort"),
    "max_tokens": (1, "max_completion_tokens"),
    "temperature": (0.0, "temperature"),
    "top_p": (0.0, "top_p"),
    "stop": ((), "stop"),
    "seed": (0, "seed"),
    "n": (1, "n"),
    "presence_penalty": (0.0, "presence_penalty"),
    "frequency_penalty": (0.0, "frequency_penalty"),
    "logit_bias": ({}, "logit_bias"),
    "logprobs": (False, "logprobs"),
    "top_logprobs": (0, "top_logprobs"),
    "modalities": ((), "modalities"),
    "audio": ({}, "audio"),
    "verbosity": ("", "verbosity"),
    "user": ("", "user"),
    "metadata": ({}, "metadata"),
    "service_tier": ("", "service_tier"),
    "cache_key": ("", "prompt_cache_key"),
}


@settings(deadline=None)
@given(st.sets(st.sampled_from(sorted(FIELDS))))
def test_the_body_has_exactly_the_fields_that_were_set_even_to_nothing(chosen):
    body = body_of(Request("m", (USER,), **{field: FIELDS[field][0] for field in chosen}))
    assert set(body) == {"model", "messages"} | {FIELDS[field][1] for field in chosen}


def test_every_field_of_a_request_is_sent_or_told():
    quiet = {"model", "messages", "stream", "extra"}
    told = {"cache", "top_k", "response_format"}
    assert {field.name for field in msgspec.structs.fields(Request)} == quiet | told | set(FIELDS)


@pytest.mark.parametrize("kind", ["text", "json", "schema"])
def test_unset_is_on_no_level_of_the_wire(kind):
    request = msgspec.convert(
        {"model": "m", "response_format": {"kind": kind}, "thinking": {}, "tools": [{"part": "tool", "name": "f"}]},
        Request,
    )
    wire, losses = CHAT.encode_request(request, AT)
    assert b"strict" not in wire.body and b"reasoning" not in wire.body and b"UNSET" not in wire.body
    assert losses == () and request.tools[0].strict is UNSET


@pytest.mark.parametrize("value", [object(), "half a character: \ud83d", {1: {2, 3}, "x": object()}, {(1, 2): 3}])
def test_what_is_no_json_is_refused_before_anything_is_sent(value):
    with pytest.raises(InputError) as caught:
        CHAT.encode_request(Request("m", (USER,), extra={"openai.chat": {"key": value}}), AT)
    assert caught.value.sent == "no"


def test_no_request_has_to_stream():
    assert CHAT.must_stream(Request("m", (USER,)), AT) is False


# ---- what was decoded can be sent back --------------------------------------------------------


def sent_back(response, at=AT):
    """The assistant's message as it goes back in the next request, results for its calls behind it."""
    results = tuple(ToolResult(call.id, (Text("done"),)) for call in response.tool_calls)
    turns = (USER, response.message, *([Message("tool", results)] if results else []), USER)
    body = body_of(Request("m", turns), at)
    assert [message["tool_call_id"] for message in body["messages"][2:-1]] == [call.id for call in response.tool_calls]
    return body["messages"][1]


def check_calls(wire, response):
    calls = wire.get("tool_calls", [])
    assert [call["id"] for call in calls] == [call.id for call in response.tool_calls]
    for call, decoded in zip(calls, response.tool_calls, strict=True):
        inner = call[decoded.kind]
        assert inner["name"] == decoded.name
        assert inner["arguments" if decoded.kind == "function" else "input"] == (decoded.arguments or "{}")


def words_of(content):
    if not isinstance(content, list):
        return content or ""
    texts = [piece.get("text") for piece in content if piece.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


@pytest.mark.parametrize("name", ANSWERS)
def test_a_decoded_answer_can_be_sent_back(name):
    vector = VECTORS[name]
    body = json.dumps(vector["body"]).encode() if "body" in vector else bytes_of(name)
    response = CHAT.decode_response(Reply(200, {}, body), AT)
    wire = sent_back(response)
    check_calls(wire, response)
    assert words_of(wire["content"]) == response.text


@pytest.mark.parametrize("name", STREAMS)
def test_a_decoded_stream_can_be_sent_back_whole_or_cut(name):
    response = collected(events_of(bytes_of(name)))
    check_calls(sent_back(response), response)


BOUND = ["openrouter-reasoning-details", "mistral-thinking", "calls-extra-keys"]


@pytest.mark.parametrize("name", BOUND)
def test_proofs_go_back_exactly_as_they_came(name):
    message = VECTORS[name]["body"]["choices"][0]["message"]
    wire = sent_back(decode(VECTORS[name]["body"]))
    assert wire.get("reasoning_details") == message.get("reasoning_details")
    if isinstance(message["content"], list):
        assert wire["content"] == message["content"]
    for sent, came in zip(wire.get("tool_calls", []), message.get("tool_calls", []), strict=True):
        assert sent == {key: value for key, value in came.items() if key != "index"}


@pytest.mark.parametrize("name", BOUND[:2])
def test_proofs_do_not_go_to_another_deployment(name):
    response = decode(VECTORS[name]["body"])
    wire, losses = CHAT.encode_request(Request("m", (response.message,)), Endpoint(origin="other/model"))
    assert b"sig-A" not in wire.body and b"signature" not in wire.body
    assert "messages[0].parts[0].reasoning" in [loss.field for loss in losses if loss.severity == "loss"]


def test_reasoning_is_echoed_where_it_must_come_back():
    response = answer(content="42", reasoning_content="Six times seven.")
    wire = sent_back(response, Endpoint(origin="test/model", quirks=frozenset({"echo_reasoning"})))
    assert wire == {"role": "assistant", "content": "42", "reasoning_content": "Six times seven."}


def test_unknown_keys_of_a_message_go_back_and_those_only_shown_do_not():
    response = answer(content="x", mood="calm", nothing=None, executed_tools=[1], token_ids=None)
    assert response.message.extra == {"openai.chat": {"mood": "calm"}}
    assert response.extra == {"openai.chat": {"choice": {"executed_tools": [1]}}}
    assert sent_back(response) == {"role": "assistant", "content": "x", "mood": "calm"}


# ---- an answer's facts ------------------------------------------------------------------------


def test_an_empty_answer_has_no_parts():
    assert answer(content="").message.parts == answer(content=None).message.parts == answer().message.parts == ()


def test_the_body_is_kept_as_received_and_a_stream_has_none():
    body = b' {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]} '
    assert CHAT.decode_response(Reply(200, {}, body), AT).raw == body
    assert collected(events_of(chunk({"content": "x"}, "stop"))).raw == b""


@pytest.mark.parametrize(
    ("created", "wanted"),
    [(1790000000, 1790000000.0), (1.5, 1.5), ("soon", None), (True, None), (10**400, None), (None, None)],
)
def test_the_time_is_a_number_or_unknown(created, wanted):
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "created": created}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    assert decode(body).created == decode({**body, "usage": usage}).created == wanted
    assert collected(events_of(chunk({"content": "x"}, "stop", id="a", created=created))).created == wanted


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost": 0.0012}, Decimal("0.0012")),
        ({"cost": "0.5"}, Decimal("0.5")),
        ({"cost": 0}, Decimal(0)),
        ({"cost_in_usd_ticks": 1654500}, Decimal("0.00016545")),
        ({"cost": None, "cost_in_usd_ticks": 1}, None),
        ({"cost": -1}, None),
        ({"cost": True}, None),
        ({"cost": "NaN"}, None),
        ({"cost": "much"}, None),
        ({"cost": {"total": 1}}, None),
        ({"cost": {"total_cost": 0.0061, "request_cost": 0.005}}, Decimal("0.0061")),
        ({"cost": {"total_cost": "lots"}}, None),
        ({}, None),
    ],
)
def test_what_it_cost_is_exact_or_unknown_never_zero_for_unknown(usage, cost):
    response = decode(
        {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, **usage}}
    )
    assert response.usage.cost == cost
    assert response.usage.raw == {"prompt_tokens": 1, **usage}


COUNT = st.integers(0, 3)
MAYBE = st.none() | COUNT
ASKED = ("cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens")
ANSWERED = ("reasoning_tokens", "audio_tokens")
COUNTED = {
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), COUNT),
    "prompt_tokens_details": st.none() | st.fixed_dictionaries(dict.fromkeys(ASKED, MAYBE)),
    "completion_tokens_details": st.none() | st.fixed_dictionaries(dict.fromkeys(ANSWERED, MAYBE)),
}
PLAIN = st.fixed_dictionaries({"id": st.just("r1"), "usage": st.fixed_dictionaries(COUNTED)})
ODDITIES = (
    ("top", "id", ("", None, 5)),
    ("top", "model", ("m", "", None)),
    ("top", "usage", (None, {}, 5)),
    ("top", "created", (1790000000, 1.5, -1, 2**60, 2**53 + 1, 10**400, None, True)),
    ("top", "service_tier", ("flex", None, 1)),
    ("top", "system_fingerprint", ("fp", None)),
    ("top", "mood", ("calm",)),
    ("choice", "finish_reason", ("length", "content_filter", "", None)),
    ("choice", "index", (1, None, True, 0.0)),
    ("choice", "logprobs", (None, {})),
    ("choice", "mood", ("calm",)),
    ("message", "content", ("", "é \u2028", None, 5)),
    ("message", "role", ("assistant", "user", None)),
    ("message", "refusal", (None, "No.")),
    ("message", "annotations", ([], None)),
    ("message", "tool_calls", (None, [])),
    ("message", "mood", ("calm",)),
    ("usage", "total_tokens", (None, 2.0, -1, "3", 10**30)),
    ("usage", "prompt_tokens_details", (5, {"odd": 1})),
    ("usage", "cost", (0.5,)),
)
CHANGES = st.sampled_from([(place, key, value) for place, key, values in ODDITIES for value in values])


@settings(max_examples=600, deadline=None)
@given(PLAIN, st.lists(CHANGES, max_size=2))
def test_a_plain_answer_says_the_same_with_an_unknown_key_beside_it(top, changes):
    places = {"top": top, "usage": dict(top["usage"]), "message": {"content": "Hi"}}
    places["choice"] = {"index": 0, "message": places["message"], "finish_reason": "stop"}
    top["usage"] = places["usage"]
    for place, key, value in changes:
        places[place][key] = value
    plain = decode({**top, "choices": [places["choice"]]})
    general = decode({**top, "choices": [places["choice"]], "unknown": 1})
    own = {key: value for key, value in general.extra["openai.chat"].items() if key != "unknown"}
    assert plain == msgspec.structs.replace(general, raw=plain.raw, extra={"openai.chat": own} if own else {})


def test_ids_of_calls_are_all_different_however_often_one_is_repeated():
    calls = [{"id": name, "function": {"name": "f"}} for name in ("x", "x_2", "x", "x", "y", "x_2")]
    ids = [call.id for call in answer(tool_calls=calls).tool_calls]
    assert ids == ["x", "x_2", "x_3", "x_4", "y", "x_2_2"]
    many = [{"id": "x", "function": {"name": "f"}}] * 20_000
    assert len({call.id for call in answer(tool_calls=many).tool_calls}) == 20_000


# ---- streams, event by event ------------------------------------------------------------------


def test_words_are_told_as_soon_as_their_event_is_whole_and_the_end_last():
    reader = CHAT.reader(AT)
    assert reader.feed(chunk({"role": "assistant", "content": ""}, id="r", model="m", created=5)) == [
        Started("r", "m", 5.0)
    ]
    assert reader.feed(chunk({"content": "Hi"})[:-1]) == []
    assert reader.feed(b"\n") == [TextDelta("Hi")]
    assert reader.feed(chunk({"content": " there"}) + chunk({"content": "!"})) == [TextDelta(" there"), TextDelta("!")]
    assert reader.feed(chunk({}, "stop")) == []
    [usage] = reader.feed(b'data: {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3}}\n\n')
    assert isinstance(usage, UsageReported) and usage.usage.output == 3
    assert not reader.done
    assert reader.feed(b"data: [DONE]\n\n") == [Ended("stop", "stop")]
    assert reader.done and reader.feed(chunk({"content": "late"})) == [] and reader.close() == []


def call(index, **more):
    return chunk({"tool_calls": [{"index": index, **more}]})


def test_a_call_is_told_to_be_whole_only_when_the_stream_is():
    data = call(0, id="c", function={"name": "f", "arguments": '{"x":'}) + call(0, function={"arguments": "1}"})
    begun = [ToolCallStarted(0, "c", "f"), ToolCallDelta(0, '{"x":'), ToolCallDelta(0, "1}")]
    assert events_of(data, chunk({}, "tool_calls")) == [*begun, ToolCallEnded(0), Ended("tool_calls", "tool_calls")]
    cut = events_of(data)
    assert cut[:3] == begun and [type(event) for event in cut[3:]] == [Failed]
    failed = events_of(data, b'data: {"error": {"message": "down", "type": "server_error"}}\n\n')
    assert failed[:3] == begun and [type(event) for event in failed[3:]] == [Failed]


WORDS = st.lists(st.text(max_size=5), max_size=6)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_chunks_of_words_tell_the_same_by_the_quick_and_by_the_general_path(first, second):
    def told(**unusual):
        texts = [chunk({"content": text, **unusual}) for text in first]
        thoughts = [chunk({"reasoning": text}) for text in second]
        return events_of(*texts, *thoughts, *texts, chunk({}, "stop"))

    assert told() == told(annotations=None)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 5000), max_size=6))
def test_a_stream_tells_the_same_events_however_it_is_cut(name, places):
    data = bytes_of(name)
    ends = sorted({place % (len(data) + 1) for place in places})
    chunks = [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
    whole, again = events_of(data), events_of(*chunks)
    assert again[:-1] == whole[:-1]
    assert type(again[-1]) is type(whole[-1])
    if isinstance(whole[-1], Failed):
        assert (again[-1].error.kind, again[-1].error.message) == (whole[-1].error.kind, whole[-1].error.message)
    else:
        assert again[-1] == whole[-1]


def test_an_answer_in_one_piece_past_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(stream_module, "MAX_FRAME", 1000)
    [failed] = events_of(b'{"choices": "' + b"x" * 900, b"x" * 900, b'"}')
    assert isinstance(failed.error, BadResponseError) and "1000 bytes" in failed.error.message


@pytest.mark.parametrize("space", [b" " * 5000, b"\n" * 5000, b"\xef\xbb\xbf" + b"\n" * 5000])
def test_a_stream_may_open_with_much_space(space):
    assert collected(events_of(space + b"\n", chunk({"content": "x"}, "stop"))).text == "x"


def test_thinking_that_streams_in_very_many_pieces_is_joined_once():
    piece = chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "ab"}]}]})
    detail = chunk({"reasoning_details": [{"type": "reasoning.text", "text": "cd", "index": 0}]})
    for data, key in ((piece, "chunk"), (detail, "reasoning_details")):
        [part] = collected(events_of(data * 5000, chunk({}, "stop"))).message.parts
        assert isinstance(part, Reasoning) and len(part.text) == 10_000
        assert key in part.extra["openai.chat"]
    [detail] = part.extra["openai.chat"]["reasoning_details"]
    assert detail == {"type": "reasoning.text", "text": "cd" * 5000, "index": 0}


# ---- nothing but our own errors ---------------------------------------------------------------

KEYS = st.sampled_from(
    """choices message delta content tool_calls function custom name arguments id index type text thinking usage
    prompt_tokens error code detail metadata raw finish_reason logprobs audio data images image_url url citations
    reasoning_details annotations x_groq function_call refusal signature""".split()
)
LEAVES = st.sampled_from(
    [None, True, 0, -1, 5, 1.5, 10**30, "", "x", "text", "thinking", "stop", "data:image/png;base64,%", "url_citation"]
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={"message": OBJECTS, "delta": OBJECTS, "finish_reason": LEAVES, "index": LEAVES, "logprobs": VALUES},
    ),
    max_size=2,
)
BODIES = VALUES | st.fixed_dictionaries(
    {"choices": ENTRIES}, optional={"usage": VALUES, "error": VALUES, "citations": VALUES, "id": LEAVES}
)


@settings(max_examples=400, deadline=None)
@given(BODIES)
def test_any_json_decodes_or_fails_in_our_tree(body):
    reply = Reply(500, {}, json.dumps(body).encode())
    assert isinstance(CHAT.decode_error(reply, AT), PolyvoxError)
    try:
        response = CHAT.decode_response(reply, AT)
    except PolyvoxError:
        return
    assert msgspec.json.decode(msgspec.json.encode(response), type=Response).message == response.message
    CHAT.encode_request(Request("m", (response.message,)), AT)


@settings(max_examples=400, deadline=None)
@given(st.lists(BODIES, max_size=4), st.booleans())
def test_any_stream_of_json_ends_once_and_in_our_tree(bodies, done):
    data = b"".join(b"data: " + json.dumps(body).encode() + b"\n\n" for body in bodies)
    events = events_of(data + b"data: [DONE]\n\n" * done)
    assert [event for event in events if isinstance(event, Ended | Failed)] == events[-1:]
    assert isinstance(events[-1], Ended) or isinstance(events[-1].error, PolyvoxError)
    message = collected(events).message
    assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([200, 400, 404, 429, 500]))
def test_any_bytes_fail_in_our_tree(data, status):
    reply = Reply(status, {}, data)
    assert isinstance(CHAT.decode_error(reply, AT), PolyvoxError)
    with pytest.raises(PolyvoxError):
        CHAT.decode_response(reply, AT)
    assert isinstance(events_of(data)[-1], Failed)


@pytest.mark.parametrize("depth", [10, 500, 5000])
def test_deep_nesting_fails_in_our_tree(depth):
    body = b'{"error": ' + b"[" * depth + b"]" * depth + b"}"
    assert isinstance(CHAT.decode_error(Reply(400, {}, body), AT), PolyvoxError)
    with pytest.raises(PolyvoxError):
        CHAT.decode_response(Reply(200, {}, body), AT)
    assert isinstance(events_of(b"data: " + body + b"\n\n")[-1], Failed)


def test_a_stream_that_breaks_inside_the_event_behind_the_finish_reason_is_interrupted_with_all_its_words():
    body = b'data: {"choices": [{"delta": {"content": "all the words"}}]}\n\n'
    body += b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
    for torn in (b"da", b'data: {"choices": [], "usa', b'data: {"choices": []'):
        reader, collector = dialect("openai.chat").reader(Endpoint()), Collector()
        for event in [*reader.feed(body + torn), *reader.close()]:
            collector.add(event)
        assert collector.failed.error.kind == "stream_interrupted"
        assert (collector.response().text, collector.response().complete) == ("all the words", False)
    for whole in (b"", b"data: [DO", b"data: [DONE]", b'data: {"choices": []}'):
        reader, collector = dialect("openai.chat").reader(Endpoint()), Collector()
        for event in [*reader.feed(body + whole), *reader.close()]:
            collector.add(event)
        assert collector.failed is None and collector.response().complete
