"""What a request needs, what a deployment is able to, and why one cannot serve the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.models import Model
from polyvox.profiles import profile_of
from polyvox.routing.needs import (
    NOTHING_KNOWN,
    Abilities,
    Needs,
    Wanted,
    abilities_of,
    is_prefilled,
    needs_of,
    why_not,
)
from polyvox.tokens import count
from polyvox.types import (
    UNSET,
    Audio,
    EmbedRequest,
    File,
    Image,
    Message,
    Reasoning,
    Request,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Video,
)


def user(*parts, **facts):
    return Request("m", (Message("user", parts or (Text("Hello"),)),), **facts)


@pytest.mark.parametrize(
    ("request_", "needed"),
    [
        (user(Image(data=b"1")), {"images"}),
        (user(Video(data=b"1")), {"images"}),
        (user(Audio(data=b"1")), {"audio"}),
        (user(File(file_id="f")), {"files"}),
        (user(File(text="plain words")), set()),
        (user(tools=(Tool("f"),)), {"tools"}),
        (user(ToolResult("1", (Image(data=b"1"),))), {"tools", "images"}),
        (user(response_format=ResponseFormat("schema", {})), {"structured"}),
        (user(response_format=ResponseFormat("text")), set()),
        (Request("m", (Message("assistant", (ToolCall("1", "f"),)),)), {"tools"}),
        (Request("m", (Message("user", (Text("a"),)), Message("assistant", (Text("Sure"),)))), {"prefill"}),
        (user(), set()),
    ],
)
def test_a_request_needs_what_is_in_it(request_, needed):
    needs = needs_of(request_)
    flags = ("tools", "images", "audio", "files", "structured", "prefill")
    assert {flag for flag in flags if getattr(needs, flag)} == needed


def test_the_limit_to_its_answer_is_what_a_request_wants():
    assert needs_of(user(max_tokens=700)).output_tokens == 700
    assert needs_of(user(max_tokens=UNSET)).output_tokens == 0


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over the lazy dog. " * 100,
        "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 100,
        "東京は日本の首都であり、世界最大の都市圏を形成している。" * 100,
        "def add(a, b):\n    return a + b\n\n" * 100,
    ],
)
def test_an_estimate_is_within_half_of_the_better_one(text):
    request = user(Text(text))
    assert 0.5 < needs_of(request).input_tokens / count(request).tokens < 2.0


def test_whoever_counts_better_is_believed():
    assert needs_of(user(), count=lambda request: 12345).input_tokens == 12345


def test_of_texts_to_embed_the_longest_has_to_fit():
    assert needs_of(EmbedRequest(model="m", inputs=("a" * 400, "b" * 4000))).input_tokens == 1000
    assert needs_of(EmbedRequest(model="m")).input_tokens == 0


def test_an_answer_is_begun_only_by_words_of_the_assistants_at_the_end():
    said, called = Message("assistant", (Text("So"),)), Message("assistant", (Text("So"), ToolCall("1", "f")))
    assert is_prefilled((said,))
    assert not is_prefilled((called,))
    assert not is_prefilled((said, Message("user")))
    assert not is_prefilled(())


PARTS = st.lists(
    st.sampled_from([Text("words \ud800 ж"), Image(url="u"), Audio(data=b""), File(text="t"), Reasoning("r"),
                     ToolCall("1", "f", "{}"), ToolResult("1", (Text("x"),))]),
    max_size=4,
).map(tuple)  # fmt: skip
TURNS = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), PARTS), max_size=6).map(tuple)


@given(TURNS, TURNS)
def test_more_turns_never_need_less(some, more):
    fewer, all_of_them = needs_of(Request("m", some)), needs_of(Request("m", some + more))
    for field in ("input_tokens", "tools", "images", "audio", "files"):
        assert getattr(fewer, field) <= getattr(all_of_them, field)


FLAGS = {flag: st.booleans() for flag in ("tools", "images", "audio", "files", "structured", "prefill", "local_only")}
NEEDS = st.builds(Needs, st.integers(0, 200_000), st.integers(0, 50_000), **FLAGS)
MAYBE = st.none() | st.booleans()
ABLE = st.builds(
    Abilities, st.none() | st.integers(1, 200_000), st.none() | st.integers(1, 50_000), MAYBE, MAYBE, MAYBE, MAYBE,
    MAYBE, MAYBE, st.booleans(),
)  # fmt: skip


@given(NEEDS, ABLE)
def test_what_is_not_known_is_never_a_reason_and_what_is_lacking_always_is(needs, able):
    why = why_not(needs, able)
    lacking = [
        flag
        for flag in ("tools", "images", "audio", "files", "structured", "prefill")
        if getattr(needs, flag) and getattr(able, flag) is False
    ]
    too_long = able.context is not None and 0.8 * needs.input_tokens + needs.output_tokens > able.context
    too_much = able.max_output is not None and needs.output_tokens > able.max_output
    away = needs.local_only and not able.local
    assert (why is not None) is bool(lacking or too_long or too_much or away)


def test_a_reason_is_a_sentence_with_the_numbers():
    needs = Needs(input_tokens=11_000, output_tokens=1000, images=True)
    assert why_not(needs, Abilities(context=8192)) == "its context is 8192 tokens; this needs about 12000"
    assert why_not(needs, Abilities(max_output=500)) == "answers with 500 tokens at most; 1000 are wanted"
    assert why_not(needs, Abilities(images=False)) == "takes no images"


def test_who_might_just_do_by_an_estimate_is_tried():
    assert why_not(Needs(input_tokens=10_000), Abilities(context=8192)) is None
    assert why_not(Needs(input_tokens=10_500), Abilities(context=8192)) is not None


def test_what_must_stay_here_goes_to_nobody_of_whom_that_is_not_known():
    needs = Needs(local_only=True)
    assert why_not(needs, NOTHING_KNOWN) == "is not on this machine, and the request must stay here"
    assert why_not(needs, Abilities(local=True)) is None


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ((), (None, None, None, None)),
        (("tools", "vision"), (True, True, False, None)),
        (("schema",), (False, False, True, None)),
        (("tools", "audio"), (True, False, False, True)),
    ],
)
def test_a_model_that_tells_what_it_has_lacks_the_rest(capabilities, expected):
    able = abilities_of(Model(id="m", provider="p", context=100, max_output=10, capabilities=capabilities))
    assert (able.tools, able.images, able.structured, able.audio) == expected
    assert (able.context, able.max_output, able.local) == (100, 10, False)


def test_what_a_profile_refuses_is_lacking():
    able = abilities_of(Model(id="m", provider="p", capabilities=("vision", "tools")), ("images", "stop"))
    assert (able.images, able.tools) == (False, True)
    assert abilities_of(None, profile_of("nobody/nothing").refuses, local=True) == Abilities(local=True)


def test_a_request_is_not_looked_at_where_nothing_could_stand_against_it():
    looked = []
    wanted = Wanted(user(), count=lambda request: looked.append(request) or 10)
    assert wanted.why_not(NOTHING_KNOWN) is None
    assert not looked
    assert wanted.why_not(Abilities(context=5)) is not None
    assert wanted.why_not(Abilities(context=50)) is None
    assert len(looked) == 1


def test_what_must_stay_here_is_asked_of_everybody():
    assert Wanted(user(), local_only=True).why_not(NOTHING_KNOWN) is not None
