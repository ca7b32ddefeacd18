"""Forms: what is written is read again, nothing in a part can end it or its head, and the same form is the same
bytes."""

import re

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polyvox.dialects.framing import FormPart, read_form, write_form
from polyvox.errors import InputError

# A percent sign before what a quote is written as cannot be told from it: browsers write it so, too.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="%"), min_size=1, max_size=20)
TYPES = st.sampled_from(["audio/wav", "application/x-ndjson", "text/plain; charset=utf-8", None])
PARTS = st.lists(
    st.builds(FormPart, NAMES, st.binary(max_size=60), st.none() | NAMES, TYPES), min_size=1, max_size=5
)  # fmt: skip


@given(PARTS)
@example([FormPart("a", b"\r\n--", 'x"; name="b', None)])
@example([FormPart("a\r\nX-Key: 1\r\n\r\n", b"", "\r\n\r\n--", "text/plain")])
def test_what_is_written_is_read_again(parts):
    content_type, body = write_form(parts)
    assert read_form(content_type, body) == parts
    assert write_form(parts) == (content_type, body)


@given(PARTS)
def test_the_boundary_stands_at_the_parts_ends_alone(parts):
    content_type, body = write_form(parts)
    boundary = content_type.partition("boundary=")[2].encode()
    assert re.fullmatch(rb"[0-9a-f]{40}", boundary)
    assert body.count(boundary) == len(parts) + 1


def test_a_part_that_holds_the_boundary_gets_another():
    parts = [FormPart("a", b"x")]
    boundary = write_form(parts)[0].partition("boundary=")[2].encode()
    # The digest of this form is another: what matters is that whatever it is, no part has it.
    content_type, body = write_form([FormPart("a", b"x"), FormPart("b", boundary)])
    assert content_type.partition("boundary=")[2].encode() != boundary
    assert read_form(content_type, body)[1].data == boundary


def test_a_name_cannot_begin_a_header():
    _, body = write_form([FormPart("file", b"", 'a"\r\nX-Evil: 1\r\n\r\nbody\x00\x7f', "text/plain")])
    assert b"\r\nX-Evil" not in body
    assert b'filename="a%22%0D%0AX-Evil: 1%0D%0A%0D%0Abody%00%7F"' in body


@pytest.mark.parametrize("kind", ["", "wav", "audio/wav\r\nX: 1", "audio/wav; x", "ä/b", "a/b; c=d\n"])
def test_what_is_no_media_type_is_refused(kind):
    with pytest.raises(InputError):
        write_form([FormPart("file", b"", "a", kind)])


WHOLE = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--\r\n'


@pytest.mark.parametrize("cut", range(len(WHOLE) - 4))
def test_a_form_that_is_cut_off_is_none(cut):
    with pytest.raises(InputError):
        read_form("multipart/form-data; boundary=b", WHOLE[:cut])


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=b"],
)
def test_a_body_without_a_boundary_is_no_form(content_type):
    with pytest.raises(InputError):
        read_form(content_type, WHOLE)


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="b"',
        "Multipart/Form-Data; charset=utf-8; BOUNDARY=b",
        "multipart/form-data;boundary=b",
    ],
)
def test_a_boundary_may_be_told_in_several_ways(content_type):
    assert read_form(content_type, WHOLE) == [FormPart("a", b"x")]


@pytest.mark.parametrize(
    "part", [b"x", b"Content-Disposition: form-data\r\n\r\nx", b'Content-Disposition: form-data; filename="a"\r\n\r\nx']
)
def test_a_part_without_a_name_is_refused(part):
    with pytest.raises(InputError):
        read_form("multipart/form-data; boundary=b", b"--b\r\n" + part + b"\r\n--b--\r\n")


def test_a_form_of_more_parts_than_anybody_needs_is_refused():
    content_type, body = write_form([FormPart("a", b"x")] * 1001)
    with pytest.raises(InputError):
        read_form(content_type, body)


def test_a_name_in_another_alphabet_is_read_as_some_clients_send_it():
    part = b"Content-Disposition: form-data; name=\"file\"; filename*=utf-8''%C3%A4%20b.wav\r\n\r\nx"
    assert read_form("multipart/form-data; boundary=b", b"--b\r\n" + part + b"\r\n--b--\r\n") == [
        FormPart("file", b"x", "ä b.wav")
    ]


def test_another_writer_of_forms_is_read():
    files = [("image[]", ('ä".png', b"\x89\r\n--\xff", "image/png")), ("mask", ("m.png", b""))]
    asked = httpx.Request("POST", "http://x", data={"model": "m", "n": 2}, files=files)
    assert read_form(asked.headers["content-type"], asked.read()) == [
        FormPart("model", b"m"),
        FormPart("n", b"2"),
        FormPart("image[]", b"\x89\r\n--\xff", 'ä".png', "image/png"),
        FormPart("mask", b"", "m.png", "image/png"),
    ]
