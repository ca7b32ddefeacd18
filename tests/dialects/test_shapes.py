"""What reads a client's JSON by shape says one clear thing of every value: what it is, or what is wrong where.
Only protocols that tell codes tell them."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from polyvox.dialects import NAMES, Endpoint, Wire, dialect
from polyvox.dialects.checks import between, count, filled, members, name, short, text_or
from polyvox.dialects.shapes import (
    UnfitError,
    by_name,
    each,
    field,
    flag,
    mapping,
    needed,
    number,
    one_of,
    sequence,
    take,
    text,
    texts,
    told,
    whole,
)
from polyvox.errors import InputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
KINDS = {text: str, flag: bool, number: (int, float), whole: int, mapping: dict, sequence: list, texts: tuple}
CHECKS = (
    between(-1, 2.5), count(1, 3), count(0), short(2), name(2), name(), filled, one_of("a", "b"), each(whole),
    by_name(text), text_or(filled), members({"a": text, "b": members({"c": flag}, "c")}, "a"),
)  # fmt: skip


def refused(read, value, where="n"):
    with pytest.raises(UnfitError) as caught:
        read(value, where)
    error = caught.value
    assert (error.sent, error.code) == ("no", None)
    return error.param, error.message.removeprefix(error.param), error.fault


@pytest.mark.parametrize("read", [*KINDS, *CHECKS])
@given(JSON)
def test_given_any_json_then_it_is_what_the_reader_says_or_refused_by_its_place(read, value):
    try:
        found = read(value, "spot")
    except UnfitError as error:
        assert error.param.startswith("spot") and error.message.startswith(error.param + " ") and error.fault
    else:
        assert read not in KINDS or (isinstance(found, KINDS[read]) and (type(found) is bool) == (read is flag))


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (text, 5, ("n", " must be a string", "invalid_type")),
        (flag, 1, ("n", " must be true or false", "invalid_type")),
        (number, True, ("n", " must be a number", "invalid_type")),
        (whole, 5.5, ("n", " must be a whole number", "invalid_type")),
        (mapping, [], ("n", " must be an object", "invalid_type")),
        (sequence, {}, ("n", " must be a list", "invalid_type")),
        (text, None, ("n", " is missing", "missing_required_parameter")),
        (texts, ["a", None], ("n[1]", " must be a string", "invalid_type")),
        (by_name(number), {"a": 1, "b": "x"}, ("n.b", " must be a number", "invalid_type")),
        (one_of("a", "b"), "c", ("n", " must be one of a, b", "invalid_value")),
        (one_of("a"), "c", ("n", " must be a", "invalid_value")),
        (between(0, 1), -0.1, ("n", " must be at least 0", "decimal_below_min_value")),
        (between(0, 1), 1.1, ("n", " must be at most 1", "decimal_above_max_value")),
        (count(1, 3), 0, ("n", " must be at least 1", "integer_below_min_value")),
        (count(1, 3), 4, ("n", " must be at most 3", "integer_above_max_value")),
        (short(2), "abc", ("n", " must have at most 2 characters", "string_above_max_length")),
        (name(2), "abc", ("n", " must be of letters, digits, _ and -, at most 2 of them", "invalid_value")),
        (name(), "a b", ("n", " must be of letters, digits, _ and -", "invalid_value")),
        (filled, [], ("n", " must not be empty", "empty_array")),
        (text_or(filled), [], ("n", " must not be empty", "empty_array")),
        (members({}), {"a": None}, ("n.a", " is no field of this protocol", "unknown_parameter")),
        (members({"a": text}, "a"), {"a": None}, ("n.a", " is missing", "missing_required_parameter")),
        (members({"a": text}, others=True), {"b": 1, "a": 1}, ("n.a", " must be a string", "invalid_type")),
    ],
)
def test_given_what_does_not_fit_then_the_refusal_says_where_and_why(read, value, expected):
    assert refused(read, value) == expected


def test_given_a_whole_number_written_with_a_point_then_it_is_whole():
    assert (whole(5.0, "n"), type(whole(5.0, "n"))) == (5, int)
    assert type(number(5, "n")) is int


@pytest.mark.parametrize("look", [told, field, take, needed])
def test_given_a_member_of_an_object_then_its_place_is_told_at_the_top_and_below(look):
    assert look({"a": "x"}, "a", text) == "x"
    assert refused(lambda value, where: look(value, "a", text), {"a": 1})[0] == "a"
    assert refused(lambda value, where: look(value, "a", text, where), {"a": 1}, "b[0]")[0] == "b[0].a"


@pytest.mark.parametrize("value", [{}, {"a": None}])
def test_given_nothing_or_null_then_each_look_up_has_its_own_word_for_none(value):
    assert told(value, "a", text) is None
    assert field(value, "a", text) is UNSET
    assert refused(lambda value, where: needed(value, "a", text), value)[1] == " is missing"
    assert take(value, "a", text) is None and "a" not in value


def test_given_what_was_taken_then_it_is_not_there_any_more():
    rest = {"a": "x", "b": 1}
    assert (take(rest, "a", text), rest) == ("x", {"b": 1})


def test_given_an_empty_key_at_the_top_then_it_still_has_a_name():
    assert refused(members({}), {"": 1}, "") == ('""', " is no field of this protocol", "unknown_parameter")


def test_given_a_refusal_then_it_crosses_process_borders_whole():
    with pytest.raises(UnfitError) as caught:
        text(1, "model")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.param, again.fault, str(again)) == (
        UnfitError,
        "model",
        "invalid_type",
        str(caught.value),
    )


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize("act", ["decode_request", "check_request"])
def test_given_a_refused_request_then_only_the_protocol_that_has_codes_tells_one(protocol, act):
    room = dialect(protocol)
    wire = Wire("/", b'{"model": 1, "messages": 1, "contents": 1}', {"anthropic-version": "2023-06-01"})
    arguments = (wire, Endpoint()) if act == "decode_request" else (wire,)
    with pytest.raises(InputError) as caught:
        getattr(room, act)(*arguments)
    code = "invalid_type" if protocol.startswith("openai.") else None
    assert caught.value.param in ("model", "messages", "contents") and caught.value.code == code
    told_to_client = json.dumps(json.loads(room.encode_error(caught.value).body))
    assert ("invalid_type" in told_to_client) == (code is not None)
