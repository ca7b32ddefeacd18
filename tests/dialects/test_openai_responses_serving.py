"""Serving the Responses protocol: a client's request is read as it was meant, an answer is told as it came, and a
stream ends as it ended, never better."""

import base64
import json
import os
import random
from pathlib import Path

import httpx2
import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import NAMES, Endpoint, Peek, Reply, Wire, dialect
from polyvox.dialects.collect import Collector, as_events
from polyvox.dialects.openai_responses import DIALECT
from polyvox.dialects.openai_responses.answer import citation_of
from polyvox.dialects.openai_responses.facts import minted
from polyvox.errors import BY_KIND, InputError, StreamInterruptedError, of_kind
from polyvox.types import (
    Audio,
    CacheHint,
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
)

NAME = "openai.responses"
AT = Endpoint(origin="here/model", quirks=frozenset({"cache_breakpoint"}))
ASKED = Peek("m", stream=True)
VECTORS = Path(__file__).parent.parent / "vectors"
CASES = {
    f"{path.parent.name}/{path.stem}": json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(VECTORS.glob("*/*.json"))
    if not path.name.startswith("serve-")
}
OTHERS = sorted(set(NAMES) - {NAME})


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
    """Recorded exchanges of this protocol."""
    folder = os.environ.get("POLYVOX_TRAFFIC")
    if not folder or not (Path(folder) / "dev.jsonl").is_file():
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl)")
    lines = (Path(folder) / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines if line.strip()]
    return [exchange for exchange in found if exchange["url"].endswith("/responses") and exchange["status"] == 200]


def wire(body):
    return Wire("/responses", body if isinstance(body, bytes) else json.dumps(body).encode(), {})


def decode(body, at=AT):
    return DIALECT.decode_request(wire(body), at)


# ---- requests: what is asked is what was said -------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
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


ITEM_KEYS = st.fixed_dictionaries(
    {},
    optional={
        "id": IDS,
        "phase": st.sampled_from(["commentary", "final_answer"]),
        "status": st.just("incomplete"),
        "mood": JSON,
    },
).map(lambda keys: minted(keys, AT.origin))
CACHE = st.none() | st.builds(CacheHint, st.sampled_from([None, "30m", "12h"]), extras("scope"))
SOURCES = [
    {"type": "url_citation", "url": "https://a.example", "title": "T", "start_index": 1, "end_index": 4},
    {"type": "file_citation", "file_id": "file-1", "filename": "f.txt", "index": 3},
    {"type": "horoscope", "stars": [1, 2]},
]
CITATIONS = st.sampled_from([citation_of(raw) for raw in SOURCES])
TEXTS = st.builds(Text, ANY_TEXT) | st.builds(Text, ANY_TEXT, cache=CACHE, extra=extras())


def spoken_extra(own, keys):
    found = {**own.get(NAME, {}), **({"item": keys} if keys else {})}
    return {NAME: found} if found else {}


@st.composite
def spoken(draw):
    """The words of one message of the model: pieces that bear the same keys."""
    keys = draw(ITEM_KEYS)
    pieces = []
    for _ in range(draw(st.integers(1, 2))):
        extra = spoken_extra(draw(extras()), keys)
        cited = tuple(draw(st.lists(CITATIONS, max_size=2)))
        pieces.append(draw(st.sampled_from([Text(draw(ANY_TEXT), cited, extra=extra), Refusal(draw(WORDS), extra)])))
    if draw(st.booleans()):
        pieces.append(Opaque(NAME, "message.new", {"type": "new", "x": draw(JSON)}, "here/model"))
    return pieces


PLACES = st.fixed_dictionaries({"cache": CACHE, "extra": extras()})
IMAGE_FACTS = st.one_of(
    st.fixed_dictionaries(
        {"data": st.binary(min_size=1, max_size=9), "media_type": st.sampled_from(["image/png", "image/webp"])}
    ),
    st.fixed_dictionaries({"url": WORDS.map(lambda text: f"https://{text}")}),
    st.fixed_dictionaries({"file_id": ANY_TEXT, "origin": st.just("here/model")}),
)
FILE_FACTS = st.one_of(
    st.fixed_dictionaries(
        {"data": st.binary(min_size=1, max_size=9), "media_type": st.just("application/pdf"), "name": ANY_TEXT}
    ),
    st.fixed_dictionaries({"url": WORDS.map(lambda text: f"https://{text}")}),
    st.fixed_dictionaries({"file_id": ANY_TEXT, "origin": st.just("here/model")}),
)
DETAILS = st.fixed_dictionaries({}, optional={"detail": st.sampled_from(["low", "high", "original"])})
IMAGES = st.builds(lambda facts, more, look: Image(**facts, **more, **look), IMAGE_FACTS, PLACES, DETAILS)
FILES = st.builds(lambda facts, more: File(**facts, **more), FILE_FACTS, PLACES)
SOUNDS = st.builds(
    lambda data, kind, more: Audio(data, media_type=kind, **more),
    st.binary(min_size=1, max_size=9),
    st.sampled_from(["audio/wav", "audio/mpeg", "audio/flac"]),
    PLACES,
)
NEW_CONTENT = st.builds(
    lambda raw: Opaque(NAME, "message.input_video", {**raw, "type": "input_video"}, "here/model"), OBJECTS
)
USER_PARTS = st.one_of(TEXTS, IMAGES, FILES, SOUNDS, NEW_CONTENT)
RESULT_PARTS = st.just(()) | st.lists(st.one_of(TEXTS, IMAGES, FILES), min_size=1, max_size=2).map(tuple).filter(
    lambda parts: parts != (Text(""),)
)
SERVER_ITEMS = st.builds(
    lambda kind, raw: Opaque(NAME, kind, {**raw, "type": kind}, "here/model"),
    st.sampled_from(["web_search_call", "compaction", "item_reference", "brand_new"]),
    OBJECTS,
)
THOUGHTS = st.one_of(
    st.builds(
        lambda words, own: Reasoning(
            "\n\n".join(words),
            encrypted="gAAA",
            origin="here/model",
            extra={NAME: {**own, "summary": [{"type": "summary_text", "text": word} for word in words]}},
        ),
        st.lists(ANY_TEXT, max_size=2),
        st.fixed_dictionaries({}, optional={"id": IDS, "status": st.just("completed")}),
    ),
    st.builds(
        lambda word: Reasoning(
            word,
            origin="here/model",
            extra={NAME: {"summary": [], "content": [{"type": "reasoning_text", "text": word}], "id": "rs_1"}},
        ),
        ANY_TEXT,
    ),
)
PICTURES = st.builds(
    lambda data: Image(
        data,
        media_type="image/webp",
        extra={NAME: {"type": "image_generation_call", "id": "ig_1", "status": "completed", "output_format": "webp"}},
    ),
    st.binary(min_size=1, max_size=9),
)
ARGUMENTS = st.sampled_from(["{ }", '{"n":1.0, "big": 12345678901234567890123, "n":2}', '{"e":"\\u00e9"}', "cut {"])


@st.composite
def turns_of_model(draw, turn):
    """One turn of the model: items of all kinds, and the calls in it."""
    parts, last = [], None
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["words", "thought", "server", "picture", "call"]))
        if kind == "words":
            pieces = draw(spoken())
            keys = pieces[0].extra.get(NAME, {}).get("item", {})
            if last is not None and last == keys:
                continue  # two messages alike in a row are two turns
            parts += pieces
            last = keys
            continue
        last = None
        if kind == "call":
            where = f"{draw(IDS)}-{turn}-{len(parts)}"
            function = draw(st.booleans())
            arguments = draw(ARGUMENTS) if function else draw(ANY_TEXT)
            extra = {room: minted(keys, AT.origin) for room, keys in draw(extras("id", "namespace")).items()}
            parts.append(ToolCall(where, draw(IDS), arguments, "function" if function else "custom", extra=extra))
        else:
            parts.append(draw({"thought": THOUGHTS, "server": SERVER_ITEMS, "picture": PICTURES}[kind]))
    return parts


@st.composite
def conversations(draw):
    """Turns in the one form a conversation has when it was read from the wire."""
    messages = []
    if draw(st.booleans()):
        messages.append(Message("system", (Text(draw(ANY_TEXT)),)))
    if draw(st.booleans()):
        messages.append(Message("developer", tuple(draw(st.lists(TEXTS, min_size=1, max_size=2)))))
    messages.append(
        Message("user", tuple(draw(st.lists(USER_PARTS, min_size=1, max_size=3))), extra=draw(extras("id")))
    )
    for turn in range(draw(st.integers(0, 2))):
        parts = draw(turns_of_model(turn))
        messages.append(Message("assistant", tuple(parts)))
        calls = [part for part in parts if type(part) is ToolCall]
        results = [
            ToolResult(call.id, draw(RESULT_PARTS), extra=draw(extras("status")))
            for call in draw(st.permutations(calls))
        ]
        if results:
            messages.append(Message("tool", tuple(results)))
        messages.append(Message("user", tuple(draw(st.lists(USER_PARTS, min_size=1, max_size=2)))))
    return tuple(messages)


TOOLS = st.one_of(
    st.builds(
        Tool,
        IDS,
        st.none() | ANY_TEXT,
        OBJECTS.filter(bool),
        st.sampled_from([msgspec.UNSET, True]),
        extra=extras("defer_loading"),
    ),
    st.builds(lambda name: Tool(name, extra={NAME: {"strict": None}}), IDS),
    st.builds(Tool, IDS, kind=st.just("custom"), format=st.none() | st.just({"type": "text"}), extra=extras()),
    st.builds(lambda raw: Opaque(NAME, "web_search", {**raw, "type": "web_search"}, "here/model"), OBJECTS),
)
FORMATS = st.one_of(
    st.builds(
        ResponseFormat,
        st.just("schema"),
        OBJECTS,
        IDS,
        st.none() | ANY_TEXT,
        st.sampled_from([msgspec.UNSET, True, False]),
        extra=extras(),
    ),
    st.builds(ResponseFormat, st.sampled_from(["text", "json"]), extra=extras()),
)
THINKING = st.one_of(
    st.builds(Thinking, st.sampled_from(["none", "low", "max"]), extra=extras("summary")),
    st.just(Thinking(extra={NAME: {"summary": "auto"}})),
)
TOP_EXTRA = st.fixed_dictionaries(
    {},
    optional={
        "previous_response_id": IDS,
        "background": st.booleans(),
        "include": st.lists(st.sampled_from(["reasoning.encrypted_content"]), max_size=1),
        "context_management": st.just([{"type": "compaction", "compact_threshold": 1000}]),
        "text": st.just({"x": 1}),
        "tool_choice": st.just({"type": "web_search_preview"}),
        "truncation": st.sampled_from(["auto", None]),
        "x_new": JSON,
    },
)


@st.composite
def chosen(draw, tools):
    """A tool_choice that goes with the tools."""
    names = sorted({tool.name for tool in tools if isinstance(tool, Tool)})
    if not names or draw(st.booleans()):
        return draw(st.sampled_from([{}, {"tool_choice": ToolChoice("none")}, {"tool_choice": ToolChoice("required")}]))
    choices = [ToolChoice("required", (names[0],)), ToolChoice("auto", tuple(names), subset=True)]
    return {"tool_choice": draw(st.sampled_from(choices))}


@st.composite
def requests(draw):
    tools = tuple(draw(st.lists(TOOLS, max_size=3)))
    optional = {
        "thinking": THINKING,
        "response_format": FORMATS,
        "max_tokens": st.integers(1, 10**6),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_logprobs": st.integers(0, 20),
        "logprobs": st.just(True),
        "parallel_tool_calls": st.booleans(),
        "verbosity": st.sampled_from(["low", "high"]),
        "user": ANY_TEXT,
        "metadata": st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=2),
        "service_tier": st.sampled_from(["auto", "flex"]),
        "cache_key": ANY_TEXT,
        "stream": st.booleans(),
    }
    choice = draw(chosen(tools))
    extra = draw(TOP_EXTRA)
    if choice:
        extra.pop("tool_choice", None)
    facts = draw(st.fixed_dictionaries({}, optional=optional))
    if facts.get("logprobs") and extra.get("include") == []:
        del extra["include"]  # an empty list joins the other
    return Request(
        draw(WORDS), draw(conversations()), tools=tools, extra={NAME: extra} if extra else {}, **choice, **facts
    )


@settings(max_examples=300, deadline=None)
@given(requests())
def test_what_the_protocol_can_say_is_read_back_the_same(request_):
    sent, losses = DIALECT.encode_request(request_, AT)
    assert losses == ()
    assert DIALECT.decode_request(sent, AT) == request_


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
    assert {loss.field for loss in losses} <= {"messages[1].parts[0].reasoning"}
    if not losses:
        assert one_spelling(again) == one_spelling(first)


def one_spelling(sent):
    """A body; that a first item of the system's is a message may be said or not."""
    body = json.loads(sent.body)
    for item in body.get("input", ())[:1]:
        item.setdefault("type", "message")
    return body


def test_recorded_requests_are_read_and_said_again():
    seen = 0
    for exchange in exchanges():
        if not isinstance(exchange["request_json"], dict):
            continue
        asked = DIALECT.decode_request(wire(exchange["request_json"]), AT)
        first, losses = DIALECT.encode_request(asked, AT)
        assert losses == (), exchange["id"]
        assert DIALECT.decode_request(first, AT) == asked, exchange["id"]
        if exchange["provider"] == "openai":
            DIALECT.check_request(wire(exchange["request_json"]))
            DIALECT.check_request(first)
        seen += 1
    assert seen > 50


@settings(max_examples=100, deadline=None)
@given(JSON | st.fixed_dictionaries({"model": st.just("m"), "input": JSON | st.lists(OBJECTS)}))
def test_any_json_is_read_or_refused_in_our_words(value):
    read_or_refused(value)


def read_or_refused(value):
    for act in (lambda: decode(value), lambda: DIALECT.check_request(wire(value)), lambda: DIALECT.peek(wire(value))):
        try:
            act()
        except InputError as error:
            assert error.sent == "no" and error.message


def mutated(value, rng, new):
    """A copy of a JSON value with one node replaced."""
    value = json.loads(json.dumps(value))
    places, nodes = [], [value]
    while nodes:
        node = nodes.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in items:
            places.append((node, key))
            nodes.append(child)
    node, key = rng.choice(places)
    node[key] = new
    return value


@settings(max_examples=300, deadline=None)
@given(requests(), JSON, st.integers(0, 2**32))
def test_a_request_with_one_value_replaced_is_read_or_refused_in_our_words(request_, new, seed):
    body = json.loads(DIALECT.encode_request(request_, AT).wire.body)
    read_or_refused(mutated(body, random.Random(seed), new))


def test_what_is_read_names_the_place_of_what_it_refuses():
    with pytest.raises(InputError) as caught:
        decode({"model": "m", "input": [{"role": "user", "content": [{"type": "input_text"}]}]})
    assert caught.value.param == "input[0].content[0].text"
    assert caught.value.code == "missing_required_parameter"


def test_a_reasoning_item_goes_back_exactly_as_it_came():
    item = {
        "type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "a"}],
        "encrypted_content": "gAAA==", "status": None,
    }  # fmt: skip
    body = {"model": "m", "store": False, "input": [{"role": "user", "content": "hi"}, item]}
    sent = DIALECT.encode_request(decode(body), AT).wire
    assert json.loads(sent.body)["input"][1] == item


# ---- whole answers ----------------------------------------------------------------------------


def plain(response):
    """What must come back: all but the bytes, and an id in this protocol's spelling."""
    told = response.id if response.id is None or response.id.startswith("resp_") else f"resp_{response.id}"
    return msgspec.structs.replace(response, raw=b"", id=told)


def told_again(body, at=AT):
    response = DIALECT.decode_response(Reply(200, {}, body), at)
    reply, losses = DIALECT.encode_response(response, ASKED)
    return response, DIALECT.decode_response(reply, at), losses


@pytest.mark.parametrize("name", vectors("response"))
def test_an_answer_is_told_as_it_came(name):
    vector = CASES[name]
    if "error" in vector["expect"] or vector.get("told_otherwise"):
        return
    first, again, _ = told_again(bytes_of(vector))
    assert plain(again) == plain(first)


def test_recorded_answers_are_told_as_they_came():
    seen = 0
    for exchange in exchanges():
        if not exchange["streamed"]:
            first, again, losses = told_again(exchange["response_text"].encode())
            assert plain(again) == plain(first), exchange["id"]
            assert losses == ()
            seen += 1
    assert seen > 20


def foreign(case):
    return [name for room in OTHERS for name in vectors(case, room)]


@pytest.mark.parametrize("name", foreign("response"))
def test_answers_of_other_protocols_are_told_with_their_losses(name):
    try:
        response = dialect(name.split("/")[0]).decode_response(Reply(200, {}, bytes_of(CASES[name])), AT)
    except Exception:
        return  # no answer at all
    reply, losses = DIALECT.encode_response(response, ASKED)
    said = {loss.field for loss in losses}
    if reply.status != 200:
        assert response.finish_reason in (None, "error", "incomplete", "cancelled")
        return
    again = DIALECT.decode_response(reply, AT)
    assert again.text == response.text or any("audio" in field for field in said)
    assert [(call.id, call.name) for call in again.tool_calls] == [(call.id, call.name) for call in response.tool_calls]
    assert (
        again.finish_reason == response.finish_reason or said & {"finish_reason"} or response.finish_reason == "refusal"
    )
    lost = [part for part in response.message.parts if isinstance(part, Opaque) and part.dialect != NAME]
    assert len([field for field in said if field.endswith(".opaque")]) == len(lost)
    if response.extra:
        assert any(field.startswith("extra.") for field in said)
    assert response.usage.input in (None, again.usage.input)


# ---- errors -----------------------------------------------------------------------------------

# Kinds of this machine's making have no status of their own: a client is told that the server failed.
UNTOLD = {"connection", "bad_response", "stream_interrupted", "refusal"}


@pytest.mark.parametrize("kind", sorted(set(BY_KIND) - UNTOLD))
def test_an_error_keeps_its_kind(kind):
    error = of_kind(kind, "it went wrong", param="input", retry_after=3.0, request_id="req_1")
    reply = DIALECT.encode_error(error)
    again = DIALECT.decode_error(reply, AT)
    assert again.kind == kind
    assert (again.message, again.param, again.request_id) == ("it went wrong", "input", "req_1")
    assert again.retry_after == 3.0
    assert again.retryable == error.retryable


@pytest.mark.parametrize("kind", sorted(set(BY_KIND) - UNTOLD))
def test_an_error_in_a_stream_keeps_its_kind(kind):
    for events in ([Started("a", "m")], []):
        _, failure = collected(read(written([*events, Failed(of_kind(kind, "it went wrong"))])[0]))
        assert (failure.error.kind, failure.error.message) == (kind, "it went wrong")


# ---- streams ----------------------------------------------------------------------------------


def read(data, room=DIALECT, at=AT):
    reader = room.reader(at)
    return reader.feed(data) + reader.close()


def collected(events):
    collector = Collector()
    for event in events:
        collector.add(event)
    return collector.response(), collector.failed


def written(events):
    writer = DIALECT.writer(ASKED)
    data = b"".join([writer.send(event) for event in events]) + writer.close()
    assert writer.done
    return data, writer.losses


def frames(data):
    found = []
    for frame in data.decode().split("\n\n")[:-1]:
        name, value = frame.split("\n")
        facts = json.loads(value.removeprefix("data: "))
        assert name == f"event: {facts['type']}"
        found.append(facts)
    return found


OPENS = {
    "response.output_item.added": ("output_index",),
    "response.content_part.added": ("output_index", "content_index"),
    "response.reasoning_summary_part.added": ("output_index", "summary_index"),
}


def well_formed(data):
    """Sequence numbers without gaps, places counted, what began has ended where the response did, and it is whole."""
    found = frames(data)
    assert [facts["sequence_number"] for facts in found] == list(range(len(found)))
    opened, items = set(), []
    for facts in found:
        kind = facts["type"]
        if kind in OPENS:
            key = (kind.removesuffix(".added"), *[facts[name] for name in OPENS[kind]])
            assert key not in opened
            opened.add(key)
            if kind == "response.output_item.added":
                assert facts["output_index"] == len(items)
                items.append(None)
        elif kind.replace(".done", ".added") in OPENS and kind.endswith(".done"):
            opened.remove(
                (kind.removesuffix(".done"), *[facts[name] for name in OPENS[kind.replace(".done", ".added")]])
            )
            if kind == "response.output_item.done":
                items[facts["output_index"]] = facts["item"]
        elif ".delta" in kind or (kind.endswith(".done") and "output_index" in facts):
            assert ("response.output_item", facts["output_index"]) in opened
    last = found[-1]
    if last["type"] in ("response.completed", "response.incomplete"):
        assert not opened
        assert last["response"]["output"] == items
        assert last["response"]["status"] == last["type"].removeprefix("response.")
    else:
        assert last["type"] in ("response.failed", "error")
    return found


def same_again(data, where):
    events = read(data)
    first, failure = collected(events)
    out, _ = written(events)
    again, failed = collected(read(out))
    well_formed(out)
    kind = failure and failure.error.kind
    assert (failed and failed.error.kind) == ("server" if kind in UNTOLD else kind), where
    if failure is None:
        assert plain(again) == plain(first), where


@pytest.mark.parametrize("name", vectors("stream"))
def test_a_stream_is_told_as_it_came(name):
    if not CASES[name].get("told_otherwise"):
        same_again(bytes_of(CASES[name]), name)


def test_recorded_streams_are_told_as_they_came():
    seen = 0
    for exchange in exchanges():
        # One server goes on with a thought beside the words that follow it; here they come one after the other.
        if exchange["streamed"] and exchange["provider"] != "openrouter":
            same_again(exchange["response_text"].encode(), exchange["id"])
            seen += 1
    assert seen > 20


@pytest.mark.parametrize("name", foreign("stream"))
def test_streams_of_other_protocols_are_told_in_good_order(name):
    events = read(bytes_of(CASES[name]), dialect(name.split("/")[0]))
    first, failure = collected(events)
    data, losses = written(events)
    well_formed(data)
    again, failed = collected(read(data))
    bad = failure is not None or first.finish_reason in ("error", "incomplete", "cancelled")
    assert (failed is not None) == bad
    said = {loss.field for loss in losses}
    assert again.text == first.text or any("audio" in field for field in said)
    if not bad:
        assert [(call.id, call.arguments or "{}") for call in again.tool_calls if call.kind == "function"] == [
            (call.id, call.arguments or "{}") for call in first.tool_calls if call.kind == "function"
        ]


@pytest.mark.parametrize("name", vectors("response"))
def test_a_whole_answer_is_told_as_a_stream_too(name):
    vector = CASES[name]
    if "error" in vector["expect"]:
        return
    response = DIALECT.decode_response(Reply(200, {}, bytes_of(vector)), AT)
    data, _ = written(as_events(response))
    well_formed(data)
    again, failure = collected(read(data))
    assert (failure is None) == (response.finish_reason not in ("error", "incomplete", "cancelled"))
    if failure is None and not vector.get("told_otherwise"):
        assert again.message == response.message


TALK = [
    Started("resp_1", "m", 5.0),
    ReasoningProof(0, origin="here/model", extra={NAME: {"id": "rs_1", "summary": []}}),
    ReasoningDelta("hm", 0),
    ReasoningProof(
        0, encrypted="gAAA", origin="here/model",
        extra={NAME: {"id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}},
    ),
    TextDelta("", 1),
    ReasoningProof(1, extra={NAME: {"item": {"id": "msg_1", "phase": "final_answer"}}}),
    TextDelta("Look", 1),
    TextDelta("ing.", 1),
    CitationAdded(1, Citation(url="https://a.example", title="A", start=0, end=4)),
    ToolCallStarted(2, "c1", "f", extra={NAME: {"id": "fc_1"}}),
    ToolCallDelta(2, '{"a": '),
    ToolCallStarted(3, "c2", "g", "custom"),
    ToolCallDelta(2, "1}"),
    ToolCallDelta(3, "free"),
    ToolCallEnded(2),
    ToolCallEnded(3),
    UsageReported(Usage(input=5, output=30, cache_read=0, cache_write=0, reasoning=2, total=35, source="provider")),
    Ended("tool_calls", "completed"),
]  # fmt: skip


def test_items_are_told_from_their_beginning_to_their_end():
    data, losses = written(TALK)
    assert losses == []
    kinds = [facts["type"].removeprefix("response.") for facts in well_formed(data)]
    assert kinds == [
        "created", "in_progress",
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.annotation.added", "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta",
        "output_item.added", "function_call_arguments.delta", "custom_tool_call_input.delta",
        "function_call_arguments.done", "output_item.done", "custom_tool_call_input.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    output = frames(data)[-1]["response"]["output"]
    assert output[0]["encrypted_content"] == "gAAA"
    assert (output[1]["id"], output[1]["phase"]) == ("msg_1", "final_answer")
    assert [item.get("call_id") for item in output[2:]] == ["c1", "c2"]


def test_a_stream_that_is_cut_is_never_an_end():
    data, _ = written(TALK)
    for cut in range(len(data) - 2):
        response, failure = collected(read(data[:cut]))
        if failure is None:
            # The very end of the last event may be missing.
            assert cut > data.index(b"event: response.completed") and response.complete
        else:
            assert failure.error.kind == "stream_interrupted"


PART = st.integers(0, 3)
TOKEN = TokenLogprob("a", -0.5, (97,))
EVENTS = st.one_of(
    st.builds(TextDelta, ANY_TEXT, PART, st.sampled_from([0, 0, 0, 1])),
    st.builds(ReasoningDelta, ANY_TEXT, PART),
    st.builds(RefusalDelta, ANY_TEXT, PART),
    st.builds(
        ReasoningProof, PART, st.none() | ANY_TEXT, st.none() | ANY_TEXT,
        extra=st.sampled_from([{}, {NAME: {"k": 1}}, {NAME: {"item": {"id": "msg_9"}}}, {NAME: {"item": 5, "id": 5}},
                               {"openai.chat": {"k": 1}}]),
    ),
    st.builds(ToolCallStarted, PART, ANY_TEXT, IDS, st.sampled_from(["function", "custom"])),
    st.builds(ToolCallDelta, PART, st.sampled_from(["", "{", "}", '"k": 1', "text"])),
    st.builds(ToolCallEnded, PART),
    st.builds(CitationAdded, PART, CITATIONS | st.just(Citation(url="https://a.example"))),
    st.builds(
        PartAdded, PART,
        st.one_of(TEXTS, spoken().map(lambda pieces: pieces[0]), THOUGHTS, SERVER_ITEMS, PICTURES, NEW_CONTENT,
                  st.builds(ToolCall, ANY_TEXT, IDS), st.just(Image(b"x")), st.just(File(text="x"))),
    ),
    st.just(LogprobsAdded((TOKEN,))),
    st.builds(UsageReported, st.builds(Usage, st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))),
    st.builds(ExtraAdded, st.sampled_from([{NAME: {"fog": {"type": "fog"}, "store": True}}, {"o": {"k": 1}}])),
    st.builds(Started, ANY_TEXT, ANY_TEXT),
)  # fmt: skip
ENDS = st.sampled_from([
    Ended("stop"), Ended("tool_calls"), Ended("unknown", "odd"), Ended("length"), Ended("error"),
    Failed(of_kind("server", "m"), "stop"), Failed(StreamInterruptedError("cut")), None,
])  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(EVENTS, max_size=12), ENDS)
def test_any_events_are_told_in_good_order_and_end_as_they_did(events, end):
    data, _ = written([*events, *([] if end is None else [end])])
    found = well_formed(data)
    fine = isinstance(end, Ended) and end.finish_reason != "error"
    assert (found[-1]["type"] in ("response.completed", "response.incomplete")) == fine
    response, failure = collected(read(data))
    assert (failure is None) == fine
    words = "".join(event.text for event in events if type(event) is TextDelta and not event.choice)
    added = [event.value.text for event in events if type(event) is PartAdded and type(event.value) is Text]
    assert sorted(response.text) == sorted(words + "".join(added))


def test_what_no_json_can_say_ends_the_stream_with_an_error():
    writer = DIALECT.writer(ASKED)
    data = writer.send(Started("a", "m")) + writer.send(TextDelta("fine", 0)) + writer.send(TextDelta("\ud800", 0))
    assert writer.done
    assert well_formed(data)[-1]["response"]["error"]["message"].startswith("the answer holds a value")


def test_a_stream_nobody_ended_says_that_it_was_cut():
    data, _ = written([Started("a", "m"), TextDelta("ha")])
    last = frames(data)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert DIALECT.writer(ASKED).keep_alive() == b": keep-alive\n\n"


def test_an_answer_nobody_can_write_is_a_bad_response():
    with pytest.raises(Exception, match="cannot be written as JSON") as caught:
        DIALECT.encode_response(Response(Message("assistant", (Text("\ud800"),)), "stop"), ASKED)
    assert caught.value.kind == "bad_response"


def test_a_picture_the_model_made_is_an_item_of_its_own():
    reply, losses = DIALECT.encode_response(Response(Message("assistant", (Image(b"png"),)), "stop"), ASKED)
    item = json.loads(reply.body)["output"][0]
    assert (item["type"], base64.b64decode(item["result"])) == ("image_generation_call", b"png")
    assert {loss.field for loss in losses} == {"model"}


# ---- the protocol's own client ----------------------------------------------------------------


def official(data, kind="application/json", status=200):
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, headers={"content-type": kind}, content=data))
    return openai.OpenAI(
        api_key="k", base_url="http://here.example/v1", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


def test_the_protocols_own_client_reads_what_is_streamed():
    data, _ = written(TALK)
    with official(data, "text/event-stream") as client:
        with client.responses.stream(model="m", input="hi") as stream:
            response = stream.get_final_response()
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "custom_tool_call"]
    assert (response.output_text, response.id, response.status) == ("Looking.", "resp_1", "completed")
    assert (response.output[2].arguments, response.output[3].input) == ('{"a": 1}', "free")
    assert response.usage.output_tokens_details.reasoning_tokens == 2


def test_the_protocols_own_client_reads_a_whole_answer():
    response, _ = collected(TALK)
    reply, _ = DIALECT.encode_response(response, ASKED)
    with official(reply.body) as client:
        answer = client.responses.create(model="m", input="hi")
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "custom_tool_call"]
    assert (answer.output_text, answer.output[1].content[0].annotations[0].url) == ("Looking.", "https://a.example")
    assert (answer.tools, answer.tool_choice, answer.usage.input_tokens) == ([], "auto", 5)


def test_the_protocols_own_client_raises_its_own_error():
    reply = DIALECT.encode_error(of_kind("rate_limit", "slow down"))
    with official(reply.body, status=reply.status) as client:
        with pytest.raises(openai.RateLimitError, match="slow down"):
            client.responses.create(model="m", input="hi")


def test_the_protocols_own_client_is_told_that_a_stream_failed():
    data, _ = written([*TALK[:8], Failed(of_kind("overloaded", "busy"))])
    with official(data, "text/event-stream") as client:
        events = list(client.responses.create(model="m", input="hi", stream=True))
    assert (events[-1].type, events[-1].response.status) == ("response.failed", "failed")
    assert events[-1].response.error.message == "busy"
