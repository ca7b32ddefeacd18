"""Events add up to the response they tell, and a whole response can be told as events."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects.collect import Collector, as_events, merged
from polyvox.errors import ServerError, StreamInterruptedError
from polyvox.types import (
    Audio,
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
    Response,
    Started,
    Text,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageReported,
    Video,
)


def collected(*events, **facts):
    collector = Collector()
    for event in events:
        collector.add(event)
    return collector.response(**facts)


def parts(*events):
    return collected(*events, Ended("stop")).message.parts


# ---- deltas add up ----------------------------------------------------------------------------


def test_an_answer_of_every_kind_of_event():
    source = Citation(url="https://sea.example/")
    token = TokenLogprob("Hi", -0.5)
    response = collected(
        Started("r1", "m1", 1.5),
        ReasoningDelta("Hm", 0),
        ReasoningDelta(".", 0),
        ReasoningProof(0, signature="s", origin="a/b"),
        TextDelta("Hi", 1),
        TextDelta(" there", 1),
        CitationAdded(1, source),
        LogprobsAdded((token,)),
        ToolCallStarted(2, "c1", "f"),
        ToolCallDelta(2, '{"x":'),
        ToolCallDelta(2, "1}"),
        ToolCallEnded(2),
        PartAdded(3, Image(url="https://pictures.example/1.png")),
        RefusalDelta("No", 4),
        RefusalDelta(".", 4),
        UsageReported(Usage(input=1, source="provider")),
        UsageReported(Usage(input=1, output=2, source="provider")),
        ExtraAdded({"d": {"k": 1}}),
        Ended("tool_calls", "tool_use", "###"),
        provider="p",
        deployment="p/m",
    )
    assert response == Response(
        Message(
            "assistant",
            (
                Reasoning("Hm.", signature="s", origin="a/b"),
                Text("Hi there", (source,)),
                ToolCall("c1", "f", '{"x":1}'),
                Image(url="https://pictures.example/1.png"),
                Refusal("No."),
            ),
        ),
        "tool_calls",
        "tool_use",
        "###",
        usage=Usage(input=1, output=2, source="provider"),
        id="r1",
        model="m1",
        created=1.5,
        provider="p",
        deployment="p/m",
        logprobs=(token,),
        extra={"d": {"k": 1}},
    )


def test_nothing_at_all_is_an_incomplete_answer():
    assert collected() == Response(Message("assistant"), "incomplete", complete=False)


def test_before_the_end_the_answer_is_partial_and_grows():
    collector = Collector()
    collector.add(TextDelta("Ha"))
    first = collector.response()
    collector.add(TextDelta("lf"))
    assert (first.text, first.complete, first.finish_reason) == ("Ha", False, "incomplete")
    assert collector.response().text == "Half"


def test_parts_stand_where_their_number_says_however_late_they_are_told():
    told = parts(
        TextDelta("b", 2), ToolCallStarted(3, "c", "f"), PartAdded(1, Refusal("a")), ReasoningProof(0, encrypted="e")
    )
    assert told == (Reasoning("", encrypted="e"), Refusal("a"), Text("b"), ToolCall("c", "f"))


def test_numbers_may_leave_gaps():
    assert parts(TextDelta("b", 7), TextDelta("a", 2)) == (Text("a"), Text("b"))


def test_proofs_of_one_reasoning_join():
    told = parts(
        ReasoningDelta("Hm", 0),
        ReasoningProof(0, signature="s", extra={"d": {"a": 1, "b": 1}}),
        ReasoningProof(0, origin="x/y", extra={"d": {"b": 2}, "e": {"c": 3}}),
    )
    assert told == (Reasoning("Hm", signature="s", origin="x/y", extra={"d": {"a": 1, "b": 2}, "e": {"c": 3}}),)


def test_sources_of_one_text_are_kept_in_order_also_before_its_words():
    one, two = Citation(url="https://a.example/"), Citation(url="https://b.example/")
    assert parts(CitationAdded(0, one), TextDelta("x", 0), CitationAdded(0, two)) == (Text("x", (one, two)),)


def test_a_source_joins_a_text_that_came_whole():
    first, second = Citation(url="https://a.example"), Citation(url="https://b.example")
    whole = PartAdded(0, Text("ab", (first,), signature="s", origin="o"))
    found = parts(whole, PartAdded(1, Image(url="https://p.example")), CitationAdded(0, second))
    assert found[0] == Text("ab", (first, second), signature="s", origin="o") and len(found) == 2


def test_a_call_keeps_its_kind_and_its_keys():
    told = parts(ToolCallStarted(0, "c", "sql", "custom", {"d": {"k": 1}}), ToolCallDelta(0, "select 1;"))
    assert told == (ToolCall("c", "sql", "select 1;", "custom", extra={"d": {"k": 1}}),)


@pytest.mark.parametrize("delta", [TextDelta("more"), ReasoningDelta("more"), RefusalDelta("more")])
def test_a_delta_for_a_part_that_came_whole_is_not_lost(delta):
    told = parts(PartAdded(0, Text("whole")), delta)
    assert told[0] == Text("whole")
    assert told[1].text == "more"


def test_several_answers_grow_side_by_side():
    token = TokenLogprob("b", -1.0)
    response = collected(
        TextDelta("A", 0, 0),
        TextDelta("C", 0, 2),
        TextDelta("B", 0, 1),
        LogprobsAdded((token,), 1),
        TextDelta("b", 0, 1),
        ChoiceEnded(1, "length", "max"),
        Ended("stop"),
    )
    assert response.text == "A"
    assert response.logprobs is None
    assert response.choices == (
        Choice(Message("assistant", (Text("Bb"),)), "length", "max", (token,)),
        Choice(Message("assistant", (Text("C"),))),
    )


def test_later_extra_counts_over_earlier_and_neither_is_changed():
    first, second = {"d": {"a": 1, "b": 1}}, {"d": {"b": 2}, "e": {}}
    assert merged(first, second) == {"d": {"a": 1, "b": 2}, "e": {}}
    assert (first, second) == ({"d": {"a": 1, "b": 1}}, {"d": {"b": 2}, "e": {}})
    assert collected(ExtraAdded(first), ExtraAdded(second), Ended("stop")).extra == merged(first, second)


@pytest.mark.parametrize(
    ("failed", "reason", "raw"),
    [
        (Failed(StreamInterruptedError("cut")), "incomplete", None),
        (Failed(ServerError("down")), "error", None),
        (Failed(ServerError("down"), "length", "max"), "length", "max"),
    ],
)
def test_a_failed_stream_keeps_what_had_come_and_is_not_complete(failed, reason, raw):
    collector = Collector()
    for event in (TextDelta("So far"), UsageReported(Usage(input=3, source="provider")), failed):
        collector.add(event)
    response = collector.response()
    assert collector.failed is failed
    assert (response.text, response.usage.input, response.complete) == ("So far", 3, False)
    assert (response.finish_reason, response.raw_finish_reason, response.stop_sequence) == (reason, raw, None)


# ---- a whole response as events ---------------------------------------------------------------

WORDS = st.text(max_size=6)
MAYBE = st.none() | WORDS
EXTRA = st.dictionaries(WORDS, st.dictionaries(WORDS, st.integers() | WORDS, max_size=2), max_size=2)
CITATIONS = st.lists(st.builds(Citation, url=MAYBE, start=st.none() | st.integers(0, 9)), max_size=2).map(tuple)
MEDIA = {"url": MAYBE, "file_id": MAYBE, "name": MAYBE, "data": st.none() | st.binary(max_size=4), "extra": EXTRA}
PARTS = st.one_of(
    st.builds(Text, WORDS),
    st.builds(Text, WORDS, CITATIONS, signature=MAYBE, origin=MAYBE, extra=EXTRA),
    st.builds(Reasoning, WORDS, signature=MAYBE, encrypted=MAYBE, origin=MAYBE, extra=EXTRA),
    st.builds(Refusal, WORDS, extra=EXTRA),
    st.builds(ToolCall, WORDS, WORDS, WORDS, st.sampled_from(["function", "custom"]), extra=EXTRA),
    st.builds(Image, detail=MAYBE, **MEDIA),
    st.builds(Audio, transcript=MAYBE, **MEDIA),
    st.builds(Video, **MEDIA),
    st.builds(File, text=MAYBE, context=MAYBE, **MEDIA),
    st.builds(Opaque, WORDS, WORDS, st.integers() | WORDS, MAYBE),
)
MESSAGES = st.builds(Message, st.just("assistant"), st.lists(PARTS, max_size=4).map(tuple))
TOKENS = st.builds(TokenLogprob, WORDS, st.floats(-9, 0), st.none() | st.just((1, 2)))
LOGPROBS = st.none() | st.lists(TOKENS, min_size=1, max_size=3).map(tuple)
REASONS = st.sampled_from(["stop", "length", "tool_calls", "refusal", "unknown"])
COUNT = st.none() | st.integers(0, 99)
USAGES = st.just(Usage()) | st.builds(
    Usage,
    COUNT,
    COUNT,
    COUNT,
    source=st.sampled_from(["provider", "estimated", "missing"]),
    raw=EXTRA,
    cost=st.none() | st.just(Decimal("0.01")),
)
CHOICES = st.lists(st.builds(Choice, MESSAGES, REASONS, MAYBE, LOGPROBS), max_size=2).map(tuple)
RESPONSES = st.builds(
    Response,
    MESSAGES,
    REASONS,
    MAYBE,
    MAYBE,
    usage=USAGES,
    id=MAYBE,
    model=MAYBE,
    created=st.none() | st.floats(0, 9),
    choices=CHOICES,
    logprobs=LOGPROBS,
    extra=EXTRA,
)


@settings(deadline=None)
@given(RESPONSES)
def test_a_response_told_as_events_is_the_same_response(response):
    events = as_events(response)
    assert collected(*events) == response
    assert isinstance(events[0], Started)
    assert [event for event in events if isinstance(event, Ended)] == events[-1:]


def test_bare_words_are_told_as_words_and_what_is_more_as_a_part():
    cited = Text("b", (Citation(url="https://a.example/"),))
    events = as_events(Response(Message("assistant", (Text("a"), cited))))
    assert events == [Started(), TextDelta("a", 0), PartAdded(1, cited), Ended("unknown")]


def test_a_choice_without_a_reason_ends_for_an_unknown_one():
    events = as_events(Response(Message("assistant"), "stop", choices=(Choice(Message("assistant", (Text("b"),))),)))
    assert events == [Started(), TextDelta("b", 0, 1), ChoiceEnded(1, "unknown"), Ended("stop")]
