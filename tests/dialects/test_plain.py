"""The cheap way through a codec says exactly what the general way says: for requests of words, for whole answers, for
the words of a stream, and for the frames they travel in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from polyvox.dialects import Endpoint, Reply, dialect
from polyvox.dialects.anthropic import plain as anthropic
from polyvox.dialects.anthropic.blocks import Scope
from polyvox.dialects.bedrock import plain as bedrock
from polyvox.dialects.bedrock.frames import Frames
from polyvox.dialects.framing import aws_headers, aws_message
from polyvox.errors import PolyvoxError
from polyvox.types import CacheHint, Citation, Failed, Message, Request, Text

CHEAP = ("anthropic.messages", "bedrock.converse", "ollama.chat")
WRITES = (*CHEAP, "cohere.chat")
BOM = b"\xef\xbb\xbf"
WORDS = st.one_of(st.text(max_size=8), st.sampled_from(["hello", " ", "", "\x1c", "end \n", "\ud800"]))
NUMBERS = st.sampled_from([0, 1, 0.5, 7, "odd"])


def outcome(act):
    """What came of it: the value, or the error as everybody sees it."""
    try:
        return act()
    except PolyvoxError as error:
        # The start of the body is shown in it, a byte order mark too.
        return error.kind, error.message.replace("?", "")[:60], error.param


# ---- requests ---------------------------------------------------------------------------------

PARTS = st.one_of(
    st.builds(Text, WORDS),
    st.builds(Text, WORDS, cache=st.just(CacheHint())),
    st.builds(Text, WORDS, citations=st.just((Citation(url="https://a.example"),))),
    st.builds(Text, WORDS, signature=st.just("s"), origin=st.just("other/m")),
    st.builds(Text, WORDS, extra=st.just({"gemini.generate": {"a": 1}})),
)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["user", "assistant", "system", "developer"]),
    st.one_of(st.tuples(st.builds(Text, WORDS)), st.lists(PARTS, max_size=2).map(tuple)),
    name=st.sampled_from([None, None, None, "Ann"]),
)


@st.composite
def talks(draw):
    """Messages in any order, or as most conversations are."""
    if draw(st.booleans()):
        return tuple(draw(st.lists(MESSAGES, max_size=4)))
    said = draw(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=5))
    turns = [Message("user" if at % 2 == 0 else "assistant", (Text(text),)) for at, text in enumerate(said)]
    lead = [Message("system", (Text(text),)) for text in draw(st.lists(st.text(min_size=1, max_size=6), max_size=2))]
    return (*lead, *turns)


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.sampled_from([0, 100]), "temperature": NUMBERS, "top_p": NUMBERS, "top_k": NUMBERS,
        "stop": st.sampled_from([(), ("a",)]), "seed": st.just(3), "stream": st.booleans(), "user": st.just("u"),
    },
)  # fmt: skip
PLACES = st.builds(
    Endpoint,
    quirks=st.sampled_from([frozenset(), frozenset({"no_sampling"})]),
    options=st.sampled_from([{}, {"version": "2026-10-21"}, {"num_ctx": 9, "keep_alive": "5m"}]),
)


@pytest.mark.parametrize("name", WRITES)
@given(talk=talks(), settings=SETTINGS, at=PLACES)
def test_a_request_is_written_the_same_whichever_way_it_goes(name, talk, settings, at):
    # Keys of the dialect's own, none of them: they say nothing, and are enough to leave the cheap way.
    def marked(message):
        return replace(message, extra={name: {}})

    request = Request("m", talk, **settings)
    general = replace(request, extra={name: {}}, messages=tuple(map(marked, talk)))
    if name in ("anthropic.messages", "bedrock.converse") and any(message.role == "system" for message in talk):
        general = replace(general, messages=talk)  # there, keys of a message of the system are noted as lost
    room = dialect(name)
    assert outcome(lambda: room.encode_request(request, at)) == outcome(lambda: room.encode_request(general, at))


USUAL = {
    anthropic: b'{"id":"m1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hi"}],'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":2}}',
    bedrock: b'{"output":{"message":{"role":"assistant","content":[{"text":"hi"}]}},"stopReason":"end_turn",'
    b'"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3},"metrics":{"latencyMs":9}}',
}


@pytest.mark.parametrize("room", USUAL, ids=["anthropic", "bedrock"])
def test_usual_requests_and_answers_do_go_the_cheap_way(room):
    asked = Request("m", (Message("system", (Text("s"),)), Message("user", (Text("u"),))), max_tokens=5, stream=True)
    scope = (Scope(Endpoint()),) if room is anthropic else ()
    assert room.plain_body(asked, *scope) is not None
    assert room.plain_body(replace(asked, user="x"), *scope) is None
    assert room.plain_response(Reply(200, {}, USUAL[room])) is not None
    assert room.plain_response(Reply(200, {}, BOM + USUAL[room])) is None


# ---- whole answers ----------------------------------------------------------------------------

ODD = st.sampled_from([None, 0, -1, 1.5, 2.0, True, "", "x", [], {}, [1], {"a": 1}, 2**70])
COUNT = st.one_of(st.integers(0, 9), ODD)


def like(required, optional):
    """Objects near those that most answers hold: a key missing, odd or too many now and then."""
    return st.one_of(
        st.fixed_dictionaries(required, optional=optional),
        st.fixed_dictionaries({}, optional={**required, **optional, "news": ODD}),
    )


def or_odd(usual):
    return st.one_of(usual, usual, usual, ODD)


def texts(required):
    return or_odd(st.lists(like(required, {}), max_size=2) | st.tuples(st.fixed_dictionaries(required)).map(list))


ROLE = {"role": or_odd(st.just("assistant"))}
ANSWERS = {
    "anthropic.messages": like(
        {
            "content": texts({"type": st.just("text"), "text": or_odd(st.text(max_size=5))}),
            "stop_reason": or_odd(st.sampled_from(["end_turn", "max_tokens", "stop_sequence", "refusal"])),
            "usage": or_odd(
                like(
                    {"input_tokens": COUNT, "output_tokens": COUNT},
                    {
                        "cache_read_input_tokens": COUNT, "cache_creation_input_tokens": COUNT, "service_tier": ODD,
                        "cache_creation": or_odd(
                            like({"ephemeral_5m_input_tokens": COUNT, "ephemeral_1h_input_tokens": COUNT}, {})
                        ),
                        "server_tool_use": ODD, "output_tokens_details": or_odd(like({"thinking_tokens": COUNT}, {})),
                    },
                )
            ),
        },
        {"id": ODD, "type": st.just("message"), "model": ODD, **ROLE, "stop_sequence": ODD, "stop_details": ODD},
    ),
    "bedrock.converse": like(
        {
            "output": or_odd(
                like({"message": like({"content": texts({"text": or_odd(st.text(max_size=5))})}, ROLE)}, {})
            ),
            "stopReason": or_odd(st.sampled_from(["end_turn", "max_tokens", "stop_sequence", "tool_use"])),
            "usage": or_odd(
                like(
                    {"inputTokens": COUNT, "outputTokens": COUNT, "totalTokens": COUNT},
                    {
                        "cacheReadInputTokens": COUNT, "cacheWriteInputTokens": COUNT, "cacheDetails": ODD,
                        "serverToolUsage": ODD,
                    },
                )
            ),
        },
        {"metrics": or_odd(like({"latencyMs": COUNT}, {}))},
    ),
    "ollama.chat": like(
        {
            "message": or_odd(like({"content": or_odd(st.text(max_size=5))}, {**ROLE, "thinking": ODD})),
            "done": or_odd(st.just(True)),
            "done_reason": or_odd(st.sampled_from(["stop", "length", "load"])),
            "prompt_eval_count": COUNT, "eval_count": COUNT,
        },
        {
            "model": or_odd(st.just("m")), "created_at": or_odd(st.just("2026-01-01T00:00:00.5Z")),
            "total_duration": COUNT, "eval_duration": COUNT, "logprobs": ODD,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHEAP)
@given(data=st.data())
def test_an_answer_is_read_the_same_whichever_way_it_goes(name, data):
    body = json.dumps(data.draw(ANSWERS[name])).encode()
    headers = {"x-amzn-requestid": "r-1", "request-id": "r-2"}
    room, at = dialect(name), Endpoint(origin="p/m")
    found = outcome(lambda: replace(room.decode_response(Reply(200, headers, body), at), raw=b""))
    # A byte order mark says nothing, and is enough to leave the cheap way.
    assert found == outcome(lambda: replace(room.decode_response(Reply(200, headers, BOM + body), at), raw=b""))


# ---- streams ----------------------------------------------------------------------------------

INDEX = st.one_of(st.integers(0, 2), ODD)
BLOCKS = st.sampled_from(
    [{"type": "text", "text": ""}, {"type": "thinking", "thinking": ""}, {"type": "text", "text": "a"}, {"type": "new"}]
)
DELTAS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text_delta"), "text": or_odd(st.text(max_size=4))}),
    st.sampled_from([{"type": "thinking_delta", "thinking": "b"}, {"type": "new_delta"}, {}]),
)
EVENTS = st.one_of(
    st.fixed_dictionaries({"type": st.just("content_block_start"), "index": INDEX, "content_block": BLOCKS}),
    st.fixed_dictionaries({"type": st.just("content_block_delta"), "index": INDEX, "delta": DELTAS}),
    st.fixed_dictionaries({"type": st.just("content_block_stop"), "index": INDEX}),
)
BEGIN = {"type": "message_start", "message": {"id": "m1", "model": "m"}}
OPEN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}


# A key that nobody knows says nothing, and is enough to leave the cheap way.
OBSCURE = ", 'obscure': 1"


def shown(event):
    return repr(event.error.kind) if isinstance(event, Failed) else repr(event).replace(OBSCURE, "")


@given(events=st.lists(EVENTS, max_size=12))
def test_words_of_a_stream_are_read_the_same_whichever_way_they_go(events):
    def read(beside):
        reader = dialect("anthropic.messages").reader(Endpoint(origin="p/m"))
        told = [BEGIN, OPEN, *[{**event, **beside} if "delta" in event else event for event in events]]
        frames = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in told]
        return [shown(event) for frame in frames for event in reader.feed(frame)] + list(map(shown, reader.close()))

    assert read({}) == read({"obscure": 1})


LINES = like(
    {
        "message": or_odd(
            like({"role": st.just("assistant"), "content": or_odd(st.text(max_size=4))}, {"thinking": ODD})
        ),
        "done": st.sampled_from([False, False, False, None, True, 0]),
    },
    {"model": or_odd(st.just("m")), "created_at": or_odd(st.just("2026-01-01T00:00:00Z")), "eval_count": COUNT},
)


@given(lines=st.lists(LINES, max_size=12))
def test_lines_of_a_stream_are_read_the_same_whichever_way_they_go(lines):
    def read(beside):
        reader = dialect("ollama.chat").reader(Endpoint(origin="p/m"))
        told = [{"model": "m", "message": {"role": "assistant", "content": "a"}, "done": False}, *lines]
        found = [event for line in told for event in reader.feed(json.dumps({**line, **beside}).encode() + b"\n")]
        return list(map(shown, found + reader.close()))

    # The log-probabilities that are not told say nothing, and are enough to leave the cheap way.
    assert read({}) == read({"logprobs": None})


@given(words=st.binary(max_size=40) | st.integers(0, 600).map(bytes), again=st.binary(max_size=40))
def test_a_frame_is_the_same_whether_or_not_its_length_was_seen(words, again):
    headers = aws_headers({":event-type": "contentBlockDelta"})
    frames = Frames(headers, b'{"a":', b"}}")
    for middle in (words, words, again, words):
        assert frames.message(middle) == aws_message(headers, b'{"a":' + middle + b"}}")
