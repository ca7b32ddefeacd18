"""Frames come out whole and the same however the bytes are cut; what is broken or too large is refused."""

import binascii
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import framing
from polyvox.dialects.framing import NDJSON, SSE, AwsEventStream, AwsMessage, ServerSentEvent
from polyvox.errors import BadResponseError

BOM = b"\xef\xbb\xbf"


def read(framer, *chunks):
    """Every frame of the chunks, those given at the close included."""
    found = []
    for chunk in chunks:
        found += framer.feed(chunk)
    return found + framer.close()


def read_until_error(framer, *chunks):
    """The frames given before the error, and the error's message (None where there was none)."""
    found = []
    try:
        for chunk in chunks:
            found += framer.feed(chunk)
        found += framer.close()
    except BadResponseError as error:
        return found, error.message
    return found, None


def cut(data, places):
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def bytewise(data):
    return [data[i : i + 1] for i in range(len(data))]


CUTS = st.lists(st.integers(0, 10_000), max_size=8)


# ---- server-sent events -----------------------------------------------------------------------


def by_the_book(data):
    """The events of a whole stream, read line by line as the specification has it. The last one counts
    without its blank line."""
    lines = re.split(b"\r\n|\r|\n", data.removeprefix(BOM))
    events, name, held = [], "", []
    for line in [*lines, b""]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if held:
                events.append(ServerSentEvent(name, b"\n".join(held)))
            name, held = "", []
        elif field == b"data":
            held.append(value)
        elif field == b"event":
            name = value.strip().decode("utf-8", "replace")
        elif not field.isascii():
            held.append(line)  # ours, not the book's: a damaged line must not vanish
    return events


PIECES = (
    b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"event", b"x", b"{}", b"id: 1", b": hm", BOM, b"\xe2\x80\xa8",
    b"data: a\n\n", b"event: b\r\n", b"event\ndata: c\n",
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map(b"".join), CUTS)
def test_any_bytes_in_any_cut_give_the_events_of_the_specification(data, places):
    for chunks in ([data], cut(data, places), bytewise(data)):
        assert read(SSE(), *chunks) == by_the_book(data)


EVENTS = st.lists(st.tuples(st.sampled_from(["", "delta", "é"]), st.binary(max_size=20)), max_size=6)


@settings(deadline=None)
@given(EVENTS, st.sampled_from([b"\n", b"\r", b"\r\n"]), CUTS)
def test_what_was_written_as_events_is_read_as_such(events, end, places):
    data = b""
    wanted = []
    for name, value in events:
        lines = re.split(b"\r\n|\r|\n", value)
        data += b"event: " + name.encode() + end if name else b": comment" + end
        data += b"".join(b"data: " + line + end for line in lines) + end
        wanted.append(ServerSentEvent(name, b"\n".join(lines)))
    assert read(SSE(), *cut(data, places)) == wanted


def test_an_event_is_given_as_soon_as_its_blank_line_comes():
    framer = SSE()
    assert framer.feed(b"event: delta\ndata: a\n") == []
    assert framer.feed(b"\n") == [("delta", b"a")]
    assert framer.feed(b"data: b\r\n\r") == []
    assert framer.feed(b"\n") == [("", b"b")]


def test_a_cr_at_the_edge_of_a_read_is_one_line_end_with_the_lf_after_it():
    assert read(SSE(), b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [("", b"a\nb")]


def test_a_cr_at_the_edge_of_a_read_is_a_line_end_of_its_own_where_no_lf_follows():
    assert read(SSE(), b"data: a\r", b"data: b\r", b"\r", b"data: c") == [("", b"a\nb"), ("", b"c")]


def test_a_last_cr_ends_the_last_line():
    assert read(SSE(), b"data: a\r") == [("", b"a")]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_other_separators_end_no_line(separator):
    data = f"data: a{separator}b\n\n".encode()
    assert read(SSE(), data) == [("", f"a{separator}b".encode())]


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\r"])
def test_one_byte_order_mark_is_dropped(end):
    data = BOM + b"data: a" + end
    for chunks in ([data], bytewise(data), [BOM, data[3:]]):
        assert read(SSE(), *chunks) == [("", b"a")]


def test_a_second_byte_order_mark_is_part_of_its_line():
    assert read(SSE(), BOM + BOM + b"data: a\n\ndata: b\n\n") == [("", BOM + b"data: a"), ("", b"b")]
    assert read(SSE(), b"data: a\n\n" + BOM + b"data: b\n\n") == [("", b"a"), ("", BOM + b"data: b")]


def test_a_line_whose_field_was_damaged_does_not_vanish():
    assert read(SSE(), b"data: a\n\nd\x9eta: b\n\ndata: c\n\n") == [("", b"a"), ("", b"d\x9eta: b"), ("", b"c")]


def test_a_stream_that_closes_inside_the_name_of_a_field_is_torn():
    for data, torn in (
        (b"data: a\n\nda", True),
        (b"data: a\n\ndata: b", False),
        (b"data: a\n\n", False),
        (b": hm", False),
    ):
        frames = SSE()
        frames.feed(data)
        frames.close()
        assert frames.torn is torn


@pytest.mark.parametrize("data", [b"", BOM[:1], BOM[:2], BOM, b"\r", b"\n\n\n", b": only a comment"])
def test_nothing_gives_nothing(data):
    assert read(SSE(), data) == [] and read(SSE()) == []


def test_comments_ids_and_unknown_fields_are_passed_over():
    data = b": hello\nid: 7\nretry: 10\ndata\ndata:\ndata:  x\nfoo: bar\ndatab: y\n\n"
    assert read(SSE(), data) == [("", b"\n\n x")]


def test_a_name_without_data_is_no_event_and_names_none():
    assert read(SSE(), b"event: ping\n\ndata: a\n\n") == [("", b"a")]


def test_a_name_that_is_not_unicode_is_replaced_not_refused():
    assert read(SSE(), b"event: \xff\ndata: a\n\n") == [("\ufffd", b"a")]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(framing, "MAX_FRAME", 100)
    monkeypatch.setattr(framing, "MAX_TOTAL", 1000)
    monkeypatch.setattr(framing, "MAX_FRAMES", 5)


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 95],
        [b"data: x\n" * 5, b"data: ", b"y" * 90],
        [b"data: ", *[b"x"] * 95],
        [b"data\n" * 101, b":"],
        [b"data:\n" * 101, b":"],
        [b": " + b"x" * 99],
    ],
)
def test_an_event_past_the_limit_is_refused_however_it_grows(small, chunks):
    with pytest.raises(BadResponseError, match="larger than 100 bytes"):
        read(SSE(), *chunks)


def test_a_stream_past_the_limit_is_refused(small):
    with pytest.raises(BadResponseError, match="longer than 1000 bytes"):
        read(SSE(), *[b": keep-alive\n"] * 100)


@pytest.mark.parametrize(("framer", "frame"), [(SSE, b"data: a\n\n"), (NDJSON, b"{}\n")])
def test_too_many_frames_are_refused(small, framer, frame):
    assert len(read(framer(), *[frame] * 5)) == 5
    with pytest.raises(BadResponseError, match="more than 5 events"):
        read(framer(), *[frame] * 6)


def test_a_stream_within_the_limits_passes(small):
    assert read(SSE(), b"data: " + b"x" * 94 + b"\n", b"\n") == [("", b"x" * 94)]


# ---- lines of JSON ----------------------------------------------------------------------------


LINES = st.lists(st.sampled_from([b'{"a": 1}', b"[]", b"  ", b"", b"\r", b"\xe2\x80\xa8", b"x"]), max_size=8)


@settings(deadline=None)
@given(LINES, CUTS, st.booleans())
def test_lines_in_any_cut_are_the_lines(lines, places, marked):
    data = b"\n".join(lines)
    marked = marked and bool(data)
    wanted = [line for line in lines if line.strip()]
    data = BOM + data if marked else data
    for chunks in ([data], cut(data, places), bytewise(data)):
        assert read(NDJSON(), *chunks) == wanted


def test_a_line_is_given_as_soon_as_it_ends_and_the_last_without_its_end():
    framer = NDJSON()
    assert framer.feed(b'{"a":') == []
    assert framer.feed(b'1}\n{"b"') == [b'{"a":1}']
    assert framer.close() == [b'{"b"']
    assert framer.close() == []


@pytest.mark.parametrize("chunks", [[b"x" * 101], [b"x"] * 101, [b"{}\n" + b"x" * 101]])
def test_a_line_past_the_limit_is_refused(small, chunks):
    with pytest.raises(BadResponseError, match="larger than 100 bytes"):
        read(NDJSON(), *chunks)


def test_lines_past_the_total_are_refused(small):
    with pytest.raises(BadResponseError, match="longer than 1000 bytes"):
        read(NDJSON(), *[b"\n" * 99] * 11)


# ---- AWS event stream -------------------------------------------------------------------------


def header(name, kind, value):
    return bytes([len(name.encode())]) + name.encode() + bytes([kind]) + value


def words(name, text):
    return header(name, 7, struct.pack(">H", len(text.encode())) + text.encode())


def frame(headers=b"", payload=b"", **wrong):
    """A message; `wrong` replaces a length or checksum by another."""
    length = wrong.get("length", 16 + len(headers) + len(payload))
    lengths = struct.pack(">II", length, wrong.get("headers_length", len(headers)))
    start = lengths + struct.pack(">I", wrong.get("prelude_crc", binascii.crc32(lengths))) + headers + payload
    return start + struct.pack(">I", wrong.get("crc", binascii.crc32(start)))


HEADERS = st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=20), max_size=3)
MESSAGES = st.lists(st.tuples(HEADERS, st.binary(max_size=40)), max_size=5)


@settings(deadline=None)
@given(MESSAGES, CUTS)
def test_messages_in_any_cut_are_the_messages(messages, places):
    data = b"".join(frame(b"".join(words(*pair) for pair in headers.items()), payload) for headers, payload in messages)
    for chunks in ([data], cut(data, places), bytewise(data)):
        assert read(AwsEventStream(), *chunks) == [AwsMessage(*message) for message in messages]


def test_a_message_is_given_as_soon_as_it_is_whole():
    framer, data = AwsEventStream(), frame(words("a", "b"), b"{}")
    assert framer.feed(data[:-1]) == []
    assert framer.feed(data[-1:] + data) == [({"a": "b"}, b"{}")] * 2


def test_headers_of_other_types_are_skipped_whatever_their_size():
    sizes = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
    others = b"".join(header(f"h{kind}", kind, b"\x07" * size) for kind, size in sizes.items())
    block = header("bytes", 6, struct.pack(">H", 3) + b"\x00\x01\x02")
    data = frame(others + block + words(":event-type", "chunk"), b"x")
    assert read(AwsEventStream(), data) == [({":event-type": "chunk"}, b"x")]


BAD = {
    "prelude checksum": (frame(prelude_crc=1), "prelude checksum"),
    "message checksum": (frame(payload=b"x", crc=1), "message checksum"),
    "longer headers than message": (frame(b"", b"1234", headers_length=5), "contradict"),
    "shorter than its own frame": (frame(length=15), "contradict"),
    "huge headers": (frame(headers_length=2**32 - 1), "contradict"),
    "huge": (frame(length=2**32 - 1), "larger than"),
    "name past the end": (frame(b"\x09abc"), "malformed"),
    "no type": (frame(b"\x01a"), "malformed"),
    "no size": (frame(b"\x01a\x07\x00"), "malformed"),
    "value past the end": (frame(b"\x01a\x07\x00\x05abc"), "malformed"),
    "number past the end": (frame(b"\x01a\x05\x00\x01"), "malformed"),
    "unknown type": (frame(b"\x01a\x0a\x00\x01x"), "unknown type 10"),
    "value not unicode": (frame(b"\x01a\x07\x00\x01\xff"), "malformed"),
    "name not unicode": (frame(b"\x01\xff\x00"), "malformed"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_message_is_refused_and_those_before_it_are_given_in_any_cut(name):
    data, message = BAD[name]
    good = frame(words("a", "b"), b"{}")
    for chunks in ([good + good + data], bytewise(good + good + data), [good + good, data + good]):
        found, error = read_until_error(AwsEventStream(), *chunks)
        assert found == [({"a": "b"}, b"{}")] * 2
        assert message in error


@settings(deadline=None)
@given(st.binary(max_size=60), CUTS)
def test_any_bytes_give_messages_or_an_error_of_ours(data, places):
    whole = read_until_error(AwsEventStream(), data)
    assert read_until_error(AwsEventStream(), *cut(data, places)) == whole
    assert whole[1] is not None or not data


@pytest.mark.parametrize("size", [1, 11, 12, 15, 20])
def test_a_stream_that_ends_inside_a_message_is_refused(size):
    with pytest.raises(BadResponseError, match="ended inside a message"):
        read(AwsEventStream(), frame(words("a", "b"), b"{}")[:size])


def test_too_many_messages_or_bytes_are_refused(small):
    with pytest.raises(BadResponseError, match="more than 5 events"):
        read(AwsEventStream(), frame() * 6)
    with pytest.raises(BadResponseError, match="longer than 1000 bytes"):
        read(AwsEventStream(), *[frame(payload=b"x" * 80)] * 4, b"\x00" * 700)
