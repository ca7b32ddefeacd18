"""Requests and answers in neutral values, made up: every field and every kind of part, in any company. They know no
dialect, so each finds things among them that it cannot say."""

import json

from hypothesis import strategies as st
from msgspec.structs import replace

from polyvox.types import (
    UNSET,
    Audio,
    CacheHint,
    Choice,
    Citation,
    File,
    Image,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    Response,
    ResponseFormat,
    Text,
    Thinking,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
    Video,
)
from tests.dialects.features import PDF, PNG, SCHEMA, SEARCHED, WAV

ORIGINS = ("anthropic.messages", "gemini.generate", "elsewhere")

words = st.text("abc äß€😀{}\"'\\\n.", min_size=1, max_size=10)
blank = st.sampled_from(["", " ", "\n"])
names = st.sampled_from(["look_up", "wave", "add"])
numbers = st.sampled_from([0, 0.5, 1, 1.5])
counts = st.integers(1, 5000)


def maybe(strategy):
    """The value, or as often nothing."""
    return st.none() | strategy


def unset(strategy):
    """The value, or twice as often what the caller did not set."""
    return st.one_of(st.just(UNSET), st.just(UNSET), strategy)


extras = st.sampled_from([{}, {}, {}, {"openai.chat": {"x_mood": 1}}, {"elsewhere": {"k": [1]}}])
caches = st.sampled_from([None, None, None, CacheHint(), CacheHint("5m"), CacheHint("1h"), CacheHint("30m")])
origins = st.sampled_from(ORIGINS)
signatures = maybe(st.sampled_from(["c2ln", "c2lnbmVk", "not base64!"]))


# ---- parts ------------------------------------------------------------------------------------

citations = st.lists(
    st.sampled_from([
        Citation("url", "https://example.com/a", "A", start=0, end=1), Citation("url", "https://example.com/b"),
        SEARCHED, Citation("document", title="D", text="d", document=0),
    ]),
    max_size=2,
).map(tuple)  # fmt: skip
plain = st.builds(Text, words)
texts = st.one_of(plain, plain, st.builds(Text, words | blank, cache=caches, extra=extras))
cited = st.one_of(plain, st.builds(Text, words, citations, caches, signature=signatures, origin=origins, extra=extras))
refusals = st.builds(Refusal, words, extra=extras)
# Of a kind that can be read by its type and by its key, as either protocol does.
opaque = st.builds(
    lambda room, kind: Opaque(room, kind, {"type": kind, kind: {}}, room),
    origins,
    st.sampled_from(["executableCode", "toolCall"]),
)


def media(make, kinds, **facts):
    """A medium as bytes, by URL or by file id."""
    beside = {"name": maybe(st.just("a name")), "cache": caches, "extra": extras, **facts}
    held = st.one_of(
        st.sampled_from([{"data": data, "media_type": kind} for data, kind in kinds]),
        st.sampled_from([{"url": url} for url in ("https://example.com/a", f"https://example.com/a.{kinds[0][2]}")]
                        if len(kinds[0]) > 2 else [{"url": "https://example.com/a"}]),
        st.sampled_from([{"file_id": "file-1", "origin": origin} for origin in ORIGINS]),
        st.sampled_from([{}, {"data": b"", "media_type": kinds[0][1]}, {"url": f"data:{kinds[0][1]};base64,"}]),
    )  # fmt: skip
    return st.builds(lambda held, more: make(**held, **more), held, st.fixed_dictionaries(beside))


images = media(
    Image, [(PNG, "image/png"), (PNG, None), (b"??", "image/bmp"), (b"??", None)],
    detail=st.sampled_from([None, None, "auto", "low", "high", "original"]),
)  # fmt: skip
sounds = media(Audio, [(WAV, "audio/wav"), (b"??", "audio/mpeg"), (b"??", None)], transcript=maybe(words))
films = media(Video, [(b"??", "video/mp4"), (b"??", None)])
files = st.one_of(
    media(File, [(PDF, "application/pdf"), (PDF, None), (b"a,b", "text/csv"), (b"\xff", "text/plain"),
                 (WAV, "audio/wav")], context=maybe(words)),
    st.builds(File, text=words, name=maybe(words), context=maybe(words), cache=caches),
)  # fmt: skip
# What a thought is proved by is one thing, never two.
thoughts = st.builds(
    lambda text, proof, origin, extra: Reasoning(text, *proof, origin=origin, extra=extra),
    words | st.just(""),
    st.tuples(signatures, st.none()) | st.tuples(st.none(), st.just("b3BhcXVl")),
    maybe(origins),
    extras,
)
arguments = st.one_of(
    st.dictionaries(words, st.integers(-9, 9) | words | st.none(), max_size=2).map(json.dumps),
    st.sampled_from(["", " ", '{"cut":', "[1]", '{ "a" : 1.0 }', '{\n "a": 1\r\n}']),
)


@st.composite
def calls(draw, number):
    free = draw(st.integers(0, 4)) == 0
    return ToolCall(
        draw(st.sampled_from([f"call_{number}", f"call {number}"])),
        draw(names),
        draw(words) if free else draw(arguments),
        "custom" if free else "function",
        draw(signatures),
        draw(origins),
        draw(extras),
    )


inner = st.lists(st.one_of(texts, texts, images, files, sounds, opaque), max_size=3).map(tuple)


@st.composite
def results(draw, call):
    return ToolResult(
        call.id, draw(inner), draw(st.sampled_from([None, call.name])), draw(st.booleans()), draw(caches), draw(extras)
    )


# ---- a conversation ---------------------------------------------------------------------------

speakers = st.sampled_from([None, None, "ada"])
asked_parts = st.lists(st.one_of(texts, texts, images, sounds, films, files, opaque), min_size=1, max_size=3)
told_parts = st.lists(st.one_of(cited, cited, refusals, thoughts, images, sounds, opaque), max_size=3)


@st.composite
def conversations(draw):
    """Turns in any order in which they make sense: nearly always each call has its result behind it."""
    found, made = [Message("user", (Text("Well?"),))] if draw(st.integers(0, 3)) else [], 0
    for _ in range(draw(st.integers(1, 4))):
        role = draw(st.sampled_from(["system", "developer", "user", "user", "assistant", "assistant"]))
        if role in ("system", "developer"):
            parts = tuple(draw(st.lists(texts, min_size=1, max_size=2)))
            found.append(Message(role, parts, draw(speakers), draw(extras)))
        elif role == "user":
            found.append(Message(role, tuple(draw(asked_parts)), draw(speakers), draw(extras)))
        else:
            asked = [draw(calls(made + number)) for number in range(draw(st.sampled_from([0, 0, 1, 2])))]
            made += len(asked)
            parts = (*draw(told_parts), *asked) or (Text("Well."),)
            found.append(Message(role, parts, draw(speakers), draw(extras)))
            answers = [draw(results(call)) for call in draw(st.permutations(asked))]
            if draw(st.booleans()):
                found += [Message("tool", (answer,)) for answer in answers]
            elif answers:
                found.append(Message("tool", tuple(answers)))
    if draw(st.integers(0, 3)):
        found.append(Message("user", (Text("And?"),)))
    return tuple(found)


# ---- what else a request says -----------------------------------------------------------------

schemas = st.sampled_from([{}, SCHEMA, {"type": "object", "properties": {}}])
functions = st.builds(Tool, names, maybe(words), schemas, unset(st.booleans()), cache=caches, extra=extras)
free_text = st.builds(
    Tool, names, maybe(words), kind=st.just("custom"), cache=caches,
    format=maybe(st.just({"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}})),
)  # fmt: skip
own_tools = st.sampled_from([
    Opaque("anthropic.messages", "web_search", {"type": "web_search", "name": "web_search"}, "anthropic.messages"),
    Opaque("gemini.generate", "googleSearch", {"googleSearch": {}}, "gemini.generate"),
    Opaque("elsewhere", "web_search", {"type": "web_search"}, "elsewhere"),
])  # fmt: skip


@st.composite
def choices(draw, tools):
    offered = sorted({tool.name for tool in tools if isinstance(tool, Tool)})
    mode = draw(st.sampled_from(["auto", "none", "required"]))
    if not offered or mode == "none" or draw(st.booleans()):
        return ToolChoice(mode)
    chosen = tuple(draw(st.lists(st.sampled_from(offered), min_size=1, max_size=2, unique=True)))
    return ToolChoice(mode, chosen, subset=mode == "auto" or len(chosen) > 1 or draw(st.booleans()))


formats = st.one_of(
    st.builds(ResponseFormat, st.sampled_from(["text", "json"]), extra=extras),
    st.builds(ResponseFormat, st.just("schema"), st.just(SCHEMA), st.sampled_from(["answer", "place"]), maybe(words),
              unset(st.booleans()), extra=extras),
)  # fmt: skip
thinking = st.one_of(
    st.sampled_from([Thinking(enabled=False), Thinking(effort="none"), Thinking(enabled=False, budget_tokens=0)]),
    st.builds(
        Thinking,
        unset(st.sampled_from(["minimal", "low", "medium", "high", "xhigh", "max", "novel"])),
        unset(st.just(True)),
        unset(st.sampled_from([1024, 4096])),
        unset(st.sampled_from(["adaptive", "between_tools"])),
        extras,
    ),
    # What contradicts itself: off in one word, on in another.
    st.builds(
        Thinking,
        unset(st.sampled_from(["none", "low", "high"])),
        unset(st.booleans()),
        unset(st.sampled_from([0, 1024])),
        unset(st.just("adaptive")),
    ),
)
SETTINGS = {
    "parallel_tool_calls": st.booleans(), "response_format": formats, "thinking": thinking, "max_tokens": counts,
    "temperature": numbers, "top_p": numbers, "top_k": counts, "stop": st.lists(words, max_size=2).map(tuple),
    "seed": counts, "n": st.integers(1, 3), "presence_penalty": numbers, "frequency_penalty": numbers,
    "logit_bias": st.sampled_from([{}, {"50256": -100}]), "logprobs": st.booleans(), "top_logprobs": st.integers(0, 5),
    "modalities": st.sampled_from([("text",), ("text", "audio")]),
    "audio": st.sampled_from([{}, {"voice": "alloy"}, {"voice": "alloy", "format": "wav"}]),
    "verbosity": st.sampled_from(["low", "medium", "high"]), "user": words,
    "metadata": st.sampled_from([{}, {"job": "7"}, {"user_id": "u", "job": "7"}]),
    "service_tier": st.sampled_from(["auto", "default", "flex", "priority", "standard_only", "fast"]),
    "cache_key": words, "cache": caches.filter(bool), "stream": st.booleans(),
}  # fmt: skip


@st.composite
def requests(draw):
    """A request: a conversation, and a few of all settings."""
    tools = tuple(draw(st.lists(st.one_of(functions, functions, free_text, own_tools), max_size=3,
                                unique_by=lambda tool: getattr(tool, "name", ""))))  # fmt: skip
    chosen = draw(st.sets(st.sampled_from(sorted(SETTINGS)), max_size=6))
    return Request(
        "test-model",
        draw(conversations()),
        tools,
        draw(unset(choices(tools))),
        extra=draw(extras),
        **{name: draw(SETTINGS[name]) for name in sorted(chosen)},
    )


# ---- answers ----------------------------------------------------------------------------------

tokens = st.builds(TokenLogprob, words, st.sampled_from([-0.5, 0.0]), st.none() | st.just((72, 105)))
logprobs = st.none() | st.lists(
    tokens | tokens.map(lambda token: TokenLogprob(token.token, token.logprob, token.bytes, (token,))),
    min_size=1, max_size=2,
).map(tuple)  # fmt: skip
TOLD = ("stop", "length", "tool_calls", "content_filter", "refusal", "context_overflow", "pause")
REASONS = (*TOLD, "unknown", "error")
# Words for why it ended: those of several protocols, and one of none.
RAW = ("stop", "STOP", "end_turn", "length", "max_output_tokens", "content_filter", "COMPLETE", "incomplete", "novel")
answer_parts = st.lists(st.one_of(cited, cited, thoughts, images, sounds, opaque), max_size=3)


@st.composite
def answers(draw, first=0, reasons=REASONS):
    """What was said, and a reason to end that goes with it: nobody stops for nothing behind calls or a refusal."""
    calling = [draw(calls(first + number)) for number in range(draw(st.sampled_from([0, 0, 1, 2])))]
    parts = [as_answered(part) for part in draw(answer_parts)]
    reason = draw(st.sampled_from(reasons))
    if calling:
        reason = "tool_calls" if reason in ("stop", "refusal") else reason
    elif draw(st.integers(0, 4)) == 0:
        # Behind what was said: where a protocol has a place of its own for a refusal, it is told there, and of where it
        # stood among the words nothing is left but the order.
        parts, reason = [*parts, draw(refusals)], "refusal"
    elif reason == "tool_calls":
        reason = "stop"
    return Message("assistant", (*parts, *calling), extra=draw(extras)), reason


def as_answered(part):
    """A part as a model gives it: marks for a cache are the client's to set."""
    return replace(part, cache=None) if getattr(part, "cache", None) is not None else part


@st.composite
def usages(draw):
    """Counts that a model can have: what is part of another is no more than it."""
    if draw(st.integers(0, 3)) == 0:
        return Usage()
    read, written, thought = (draw(maybe(st.integers(0, 9))) for _ in range(3))
    facts = {"cache_write_by_ttl": draw(st.sampled_from([{}, {"1h": written or 0}]))} if written else {}
    return Usage(
        draw(st.integers(18, 99)),
        draw(st.integers(9, 99)),
        read,
        written,
        reasoning=thought,
        source="provider",
        **facts,
    )


@st.composite
def responses(draw):
    """A whole answer, now and then one of several."""
    further = []
    for number in range(1, draw(st.sampled_from([1, 1, 1, 3]))):
        message, reason = draw(answers(10 * number, (*TOLD, "unknown")))
        further.append(Choice(message, reason, draw(maybe(st.just("raw"))), draw(logprobs)))
    message, reason = draw(answers())
    return Response(
        message,
        reason,
        draw(maybe(st.sampled_from(RAW))),
        draw(maybe(words)),
        usage=draw(usages()),
        id="answer-1",
        model="test-model",
        created=draw(st.none() | st.just(1_700_000_000.0)),
        choices=tuple(further),
        logprobs=draw(logprobs),
        extra=draw(extras),
    )
