"""What the Gemini dialect answers its clients, beyond its vectors: what it reads of an answer it says again, whole and
streamed, errors keep their kind, and nothing of another dialect's answer is lost in silence."""

import json
import os
from pathlib import Path

import pytest
from msgspec import structs

from polyvox.dialects import NAMES, Endpoint, Peek, Reply, dialect
from polyvox.dialects.collect import Collector, as_events
from polyvox.errors import BY_KIND, BadResponseError, PolyvoxError, of_kind
from polyvox.types import (
    Audio,
    Choice,
    ChoiceEnded,
    Citation,
    Ended,
    ExtraAdded,
    Failed,
    File,
    Image,
    Message,
    PartAdded,
    Reasoning,
    ReasoningDelta,
    ReasoningProof,
    Refusal,
    Response,
    Started,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageReported,
    Video,
)
from tests.dialects.test_vectors import CASES, bytes_of, endpoint_of

NAME = "gemini.generate"
GEMINI = dialect(NAME)
AT = Endpoint(origin="home/twin")
TRAFFIC = Path(os.environ.get("POLYVOX_TRAFFIC", ""))


def vectors(case, *dialects):
    return [name for name, vector in CASES.items() if vector["case"] == case and name.split("/")[0] in dialects]


def exchanges():
    if not (TRAFFIC / "dev.jsonl").is_file():
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges")
    lines = (TRAFFIC / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    found = [exchange for exchange in map(json.loads, lines) if "enerateContent" in exchange["url"]]
    assert len(found) > 50
    return found


def read(reader, data):
    collector = Collector()
    events = reader.feed(data) + reader.close()
    for event in events:
        collector.add(event)
    return events, collector


def written(events, framing=""):
    writer = GEMINI.writer(Peek("m", stream=True, framing=framing))
    return b"".join([writer.send(event) for event in events]) + writer.close(), writer


def bare(response):
    return structs.replace(response, raw=b"", request_id=None)


# ---- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", vectors("response", NAME))
def test_a_whole_answer_is_said_as_it_was_read(name):
    try:
        wanted = GEMINI.decode_response(Reply(200, {}, bytes_of(CASES[name])), AT)
    except PolyvoxError:
        return
    reply, losses = GEMINI.encode_response(wanted, Peek("m"))
    assert reply.status == 200 and losses == ()
    assert bare(GEMINI.decode_response(reply, AT)) == bare(wanted)


@pytest.mark.parametrize("framing", ["", "list"])
@pytest.mark.parametrize("name", vectors("stream", NAME))
def test_a_stream_is_written_as_it_was_read(name, framing):
    events, wanted = read(GEMINI.reader(endpoint_of(CASES[name])), bytes_of(CASES[name]))
    data, writer = written(events, framing)
    _, got = read(GEMINI.reader(endpoint_of(CASES[name])), data)
    assert (got.failed and got.failed.error.kind) == (wanted.failed and wanted.failed.error.kind)
    if wanted.failed is None:
        assert writer.losses == []
        assert got.response() == wanted.response()


def test_recorded_answers_are_said_as_they_were_read():
    for exchange in exchanges():
        if exchange["status"] != 200:
            continue
        data = exchange["response_text"].encode()
        if exchange["streamed"]:
            events, wanted = read(GEMINI.reader(AT), data)
            again, writer = written(events)
            assert read(GEMINI.reader(AT), again)[1].response() == wanted.response(), exchange["id"]
            assert writer.losses == []
        else:
            wanted = GEMINI.decode_response(Reply(200, {}, data), AT)
            reply, losses = GEMINI.encode_response(wanted, Peek())
            assert losses == () and bare(GEMINI.decode_response(reply, AT)) == bare(wanted), exchange["id"]
            replayed, _ = written(as_events(wanted))
            got = read(GEMINI.reader(AT), replayed)[1].response()
            assert (got.text, got.finish_reason, got.usage) == (wanted.text, wanted.finish_reason, wanted.usage)


@pytest.mark.parametrize("reason", ["incomplete", "cancelled", None])
def test_an_answer_without_an_end_is_an_error(reason):
    reply, losses = GEMINI.encode_response(Response(Message("assistant", (Text("Hal"),)), reason), Peek())
    assert reply.status >= 400 and [loss.field for loss in losses] == ["message"]
    if reason is not None:
        data, _ = written([Started("a", "m"), TextDelta("Hal"), Ended(reason)])
        assert isinstance(read(GEMINI.reader(AT), data)[0][-1], Failed)


@pytest.mark.parametrize("kind", sorted(BY_KIND))
def test_an_error_keeps_its_kind_and_its_facts(kind):
    facts = {"code": "weird", "param": "p.q", "retry_after": 2.5, "request_id": "r1"}
    for more in ({}, {"status": 418}, {"status": 400}):
        error = of_kind(kind, "It broke.", **facts, **more)
        found = GEMINI.decode_error(GEMINI.encode_error(error), AT)
        assert found.kind == kind and found.message == "It broke."
        assert {name: getattr(found, name) for name in facts} == facts
        data, writer = written([Started("a", "m"), TextDelta("Hi"), Failed(error)])
        events, collector = read(GEMINI.reader(AT), data)
        assert events[-1].error.kind == kind and collector.response().text == "Hi" and writer.done
    assert GEMINI.decode_error(GEMINI.encode_error(of_kind(kind, "")), AT).kind == kind


# ---- a stream as one list -----------------------------------------------------------------------

TALK = [Started("a1", "m"), *[TextDelta(word) for word in ("Let ", "me\n,\n", '"}]')], UsageReported(Usage(3, 5))]


def in_a_list(*events):
    """A stream as one list, with a sign of life around every event."""
    writer = GEMINI.writer(Peek("m", stream=True, framing="list"))
    assert writer.content_type == "application/json"
    data = b"".join([writer.keep_alive() + writer.send(event) for event in events])
    return data + writer.close() + writer.keep_alive()


def test_a_list_is_json_once_the_answer_is_whole():
    data = in_a_list(*TALK, Ended("stop"))
    pieces = json.loads(data)
    assert [piece["candidates"][0]["content"]["parts"][0]["text"] for piece in pieces] == ["Let ", "me\n,\n", '"}]', ""]
    assert pieces[-1]["candidates"][0]["finishReason"] == "STOP"
    for size in (1, 7, len(data)):
        reader, collector = GEMINI.reader(AT), Collector()
        events = [event for at in range(0, len(data), size) for event in reader.feed(data[at : at + size])]
        for event in [*events, *reader.close()]:
            collector.add(event)
        assert collector.failed is None and collector.response().text == 'Let me\n,\n"}]'


def test_an_error_in_a_list_is_its_last_piece():
    for before in ((), TALK):
        data = in_a_list(*before, Failed(of_kind("overloaded", "Busy.")))
        assert json.loads(data)[-1]["error"]["status"] == "UNAVAILABLE"
        assert read(GEMINI.reader(AT), data)[0][-1].error.kind == "overloaded"


def test_a_list_that_was_cut_stays_open():
    for before in ((), TALK):
        data = in_a_list(*before)
        with pytest.raises(ValueError, match="delimiter"):
            json.loads(data)
        assert json.loads(data + b"]")[-1]["error"]["details"][0]["reason"] == "STREAM_INTERRUPTED"
        assert read(GEMINI.reader(AT), data)[0][-1].error.kind == "stream_interrupted"


def test_a_list_without_its_end_is_a_cut_stream_though_all_words_came():
    data = in_a_list(*TALK, Ended("stop"))
    whole, cut = read(GEMINI.reader(AT), data)[1], read(GEMINI.reader(AT), data.rstrip()[:-1])[1]
    assert whole.failed is None and cut.failed.error.kind == "stream_interrupted"
    assert cut.response().text == whole.response().text


# ---- the order of a stream ----------------------------------------------------------------------

TURN = [
    Started("a1", "m"), ReasoningDelta("Hm.", 0), ReasoningProof(0, "c2ln"), TextDelta("Let ", 1), TextDelta("me.", 1),
    ToolCallStarted(2, "c1", "f"), ToolCallDelta(2, '{"a":'), ToolCallDelta(2, "1}"), ToolCallEnded(2),
    UsageReported(Usage(3, 5, reasoning=2, source="provider")), Ended("tool_calls"),
]  # fmt: skip


def test_a_stream_tells_parts_as_they_come_and_the_end_last():
    data, writer = written(TURN)
    pieces = [json.loads(line[6:]) for line in data.decode().split("\n\n")[:-1]]
    parts = [piece["candidates"][0]["content"]["parts"][0] for piece in pieces[:-1]]
    assert parts == [
        {"text": "Hm.", "thought": True}, {"text": "", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "Let "}, {"text": "me."}, {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}},
    ]  # fmt: skip
    assert all(piece["responseId"] == "a1" and piece["modelVersion"] == "m" for piece in pieces)
    assert pieces[-1]["candidates"] == [
        {"index": 0, "content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "STOP"}
    ]
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 8}
    assert pieces[-1]["usageMetadata"] == usage
    assert writer.losses == []


def test_arguments_on_several_lines_stand_on_one_in_a_stream():
    call = ToolCall("c1", "f", '{\n "a": "x\\ny"\r\n}')
    data, _ = written([Started("a1", "m"), PartAdded(0, call), Ended("tool_calls")])
    _, collector = read(GEMINI.reader(AT), data)
    assert collector.failed is None
    assert [(one.id, one.name, one.args) for one in collector.response().tool_calls] == [("c1", "f", {"a": "x\ny"})]


def test_losses_of_a_further_answer_name_it():
    events = [Started("a1", "m"), PartAdded(1, Refusal("No."), choice=2), ChoiceEnded(2, "stop"), Ended("stop")]
    _, writer = written(events)
    assert [loss.field for loss in writer.losses] == ["choices[1].message.parts[1].refusal"]


def test_a_medium_of_nothing_is_left_out_of_an_answer_and_the_rest_is_told():
    answer = Response(Message("assistant", (Text("Hear:"), Audio())), "stop")
    reply, losses = GEMINI.encode_response(answer, Peek("m"))
    assert GEMINI.decode_response(reply, AT).text == "Hear:"
    assert [(loss.field, loss.severity) for loss in losses] == [("message.parts[1].audio", "loss")]
    _, writer = written([Started("a1", "m"), PartAdded(1, Audio()), Ended("stop")])
    assert [loss.field for loss in writer.losses] == ["message.parts[1].audio"]


def test_what_was_written_and_cut_anywhere_is_never_whole():
    data, _ = written([*TURN[:-1], TextDelta("Grüße 🌊", 3), TURN[-1]])
    # Without the ends of the last line every byte of the answer is there.
    for cut in range(len(data) - 2):
        events, _ = read(GEMINI.reader(AT), data[:cut])
        assert isinstance(events[-1], Failed), cut


def test_a_stream_that_was_cut_ends_in_an_error():
    data, writer = written(TURN[:7])
    assert "message.parts[2].tool_call" in [loss.field for loss in writer.losses]
    assert read(GEMINI.reader(AT), data)[0][-1].error.kind == "stream_interrupted"
    assert isinstance(read(GEMINI.reader(AT), written([])[0])[0][-1], Failed)


def test_a_sign_of_life_is_a_blank_line_as_comments_break_the_official_client():
    writer = GEMINI.writer(Peek("m", stream=True))
    data = b"".join([writer.keep_alive(), *[writer.send(event) + writer.keep_alive() for event in TURN]])
    assert data.count(b"\n\n\n") == 6 and b"\n:" not in data
    assert read(GEMINI.reader(AT), data)[1].response() == read(GEMINI.reader(AT), written(TURN)[0])[1].response()


def test_keys_of_ours_cannot_end_or_break_a_stream():
    keys = {"candidates": [], "error": {"code": 1}, "finishReason": "STOP", "novel": 1}
    data, writer = written([Started("a", "m"), TextDelta("x"), ExtraAdded({NAME: keys}), Ended("stop")])
    _, collector = read(GEMINI.reader(AT), data)
    assert collector.failed is None and collector.response().extra == {NAME: {"novel": 1}}
    assert sorted(loss.field for loss in writer.losses) == [
        f"extra.{NAME}.{key}" for key in ("candidates", "error", "finishReason")
    ]


def test_sources_of_another_dialect_become_grounding_that_counts_in_bytes():
    text = Text("Grüße von dort", (Citation(url="https://example.com", title="E", start=6, end=9),))
    reply, losses = GEMINI.encode_response(Response(Message("assistant", (text,)), "stop"), Peek())
    grounds = json.loads(reply.body)["candidates"][0]["groundingMetadata"]
    assert grounds["groundingSupports"][0]["segment"] == {"startIndex": 8, "endIndex": 11, "text": "von"}
    found = GEMINI.decode_response(reply, AT).message.parts[0].citations[0]
    assert (found.url, found.title, found.start, found.end) == ("https://example.com", "E", 6, 9)
    assert losses == ()


def test_several_answers_are_told_each_under_its_number():
    other = Choice(Message("assistant", (Text("B"),)), "length")
    wanted = Response(Message("assistant", (Text("A"),)), "stop", choices=(other,))
    reply, losses = GEMINI.encode_response(wanted, Peek())
    assert [one.message.text for one in GEMINI.decode_response(reply, AT).choices] == ["B"] and losses == ()
    data, writer = written(as_events(wanted))
    got = read(GEMINI.reader(AT), data)[1].response()
    assert (got.text, got.choices[0].message.text, got.choices[0].finish_reason) == ("A", "B", "length")
    assert writer.losses == []


def test_a_value_that_is_no_json_is_an_error_of_ours():
    bad = Response(Message("assistant", (Text("\ud800"),)), "stop")
    with pytest.raises(BadResponseError):
        GEMINI.encode_response(bad, Peek())
    data, writer = written([Started("a", "m"), TextDelta("\ud800"), Ended("stop")])
    assert writer.done and read(GEMINI.reader(AT), data)[0][-1].error.kind == "bad_response"


# ---- other dialects -----------------------------------------------------------------------------

OTHERS = tuple(sorted(set(NAMES) - {NAME}))


def words_of(response):
    """All words of an answer, whichever part has them."""
    return "".join([part.text for part in response.message.parts if isinstance(part, Text | Refusal)])


@pytest.mark.parametrize("name", vectors("stream", *OTHERS))
def test_a_stream_of_another_dialect_is_well_formed_and_whole(name):
    events, theirs = read(dialect(name.split("/")[0]).reader(endpoint_of(CASES[name])), bytes_of(CASES[name]))
    if any(isinstance(event, PartAdded) and isinstance(event.value, Audio) for event in events):
        return
    data, writer = written(events)
    _, ours = read(GEMINI.reader(AT), data)
    wanted, got = theirs.response(), ours.response()
    assert (theirs.failed and theirs.failed.error.kind) == (ours.failed and ours.failed.error.kind)
    assert (got.text, got.reasoning) == (words_of(wanted), wanted.reasoning)
    if ours.failed is None:
        assert [found.name for found in got.tool_calls] == [made.name for made in wanted.tool_calls]
        assert (got.usage.input, got.usage.output) == (wanted.usage.input, wanted.usage.output)
        same = got.finish_reason == wanted.finish_reason
        assert same or "finish_reason" in [loss.field for loss in writer.losses]


@pytest.mark.parametrize("name", vectors("response", *OTHERS))
def test_an_answer_of_another_dialect_loses_nothing_in_silence(name):
    room, at = dialect(name.split("/")[0]), endpoint_of(CASES[name])
    try:
        wanted = room.decode_response(Reply(200, {}, bytes_of(CASES[name])), at)
    except PolyvoxError:
        return
    reply, losses = GEMINI.encode_response(wanted, Peek())
    lost = {loss.field for loss in losses}
    if reply.status != 200:
        assert lost == {"message"}
        return
    got = GEMINI.decode_response(reply, AT)
    assert got.reasoning == wanted.reasoning
    assert got.finish_reason == wanted.finish_reason or "finish_reason" in lost
    assert got.usage.input == wanted.usage.input
    # What nobody counted may be told by the total.
    assert got.usage.output == wanted.usage.output or wanted.usage.output is None
    assert (got.usage.cache_read, got.usage.reasoning) == (wanted.usage.cache_read, wanted.usage.reasoning)
    assert (wanted.usage.cache_write is not None) == ("usage.cache_write" in lost)
    assert len(got.choices) == len(wanted.choices)
    for number, part in enumerate(wanted.message.parts):
        plain = isinstance(part, Text | ToolCall | Reasoning | Image | Audio | Video | File)
        if not plain:
            assert any(field.startswith(f"message.parts[{number}].") for field in lost), part
    assert {f"extra.{key}" for key in wanted.extra} <= lost
