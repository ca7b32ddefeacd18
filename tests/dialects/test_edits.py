"""Editing a request's bytes changes what it names and nothing else, however the JSON is written."""

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import Wire, dialect
from polyvox.dialects.edits import set_in
from polyvox.errors import InputError

SPACES = ("", "", "", " ", "\n", "\t", "\r\n", "  \n  ")
NEW_MODEL = "other/model-2"
DIALECT_OF = {"chat.completions": "openai.chat", "messages": "anthropic.messages", "api.chat": "ollama.chat"}


class Hole:
    """A value that is written as it is before the edit, and as `after` behind it."""

    def __init__(self, before, after):
        self.before = before
        self.after = after


class Writing:
    """JSON written in one of its countless spellings: white space, escapes and number forms by chance."""

    def __init__(self, seed, edited, added=""):
        self.rng = random.Random(seed)
        self.inner = random.Random(seed + 1)
        self.edited = edited
        self.added = added

    def space(self):
        return self.rng.choice(SPACES)

    def document(self, members):
        return self.space() + self.members(members, self.added) + self.space()

    def members(self, members, added=""):
        pieces = [
            f"{self.space()}{self.text(key)}{self.space()}:{self.space()}{self.value(value)}" for key, value in members
        ]
        joined = ""
        for number, piece in enumerate(pieces):
            joined += (f"{self.space()}," if number else "") + piece
        if self.edited and added:
            joined += ("," if pieces else "") + added
        return "{" + joined + self.space() + "}"

    def value(self, value):
        if isinstance(value, Hole):
            outer, self.rng = self.rng, self.inner
            before = self.value(value.before)
            self.rng = outer
            return value.after if self.edited else before
        if isinstance(value, dict):
            return self.members(list(value.items()))
        if isinstance(value, list):
            inner = (f"{self.space()},").join(self.space() + self.value(each) for each in value)
            return f"[{inner}{self.space()}]"
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool) or value is None:
            return json.dumps(value)
        return self.number(value)

    def number(self, value):
        plain = json.dumps(value)
        if isinstance(value, int) and abs(value) < 10**15:
            shifted = plain + "0E-1" if value else "-0"
            return self.rng.choice((plain, plain + ".0", plain + "e0", shifted, plain + ".000e+00"))
        return plain

    def text(self, value):
        found = ""
        for char in value:
            escape = json.dumps(char)[1:-1]
            choices = [escape] if char in '"\\' or ord(char) < 32 else [char, char, char, escape]
            if char == "/":
                choices.append("\\/")
            if ord(char) < 0x10000:
                choices.append(f"\\u{ord(char):04X}")
            found += self.rng.choice(choices)
        return f'"{found}"'


def edited_ways(members, seed, added=""):
    """The document before and after the edit, in the same spelling."""
    return tuple(Writing(seed, edited, added).document(members).encode("utf-8", "surrogatepass") for edited in (0, 1))


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(WORDS, JSON), max_size=5), st.integers(0, 10**9), JSON, st.integers(0, 5))
def test_a_value_is_replaced_where_it_stands(members, seed, old, place):
    members = [(key, value) for key, value in members if key != "model"]
    members.insert(min(place, len(members)), ("model", Hole(old, '"new"')))
    before, after = edited_ways(members, seed)
    assert set_in(before, ("model",), b'"new"') == after


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(WORDS, JSON), max_size=5), st.integers(0, 10**9))
def test_a_missing_key_becomes_the_last(members, seed):
    members = [(key, value) for key, value in members if key != "a"]
    before, after = edited_ways(members, seed, '"a":{"b":true}')
    assert set_in(before, ("a", "b"), b"true") == after


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(WORDS, JSON, max_size=3), st.integers(0, 10**9), JSON)
def test_a_key_inside_an_object_is_replaced_there(inner, seed, old):
    inner = {**{key: value for key, value in inner.items() if key != "b"}, "b": Hole(old, "true")}
    before, after = edited_ways([("b", 1), ("a", inner), ("c", "}")], seed)
    assert set_in(before, ("a", "b"), b"true") == after


def test_every_occurrence_of_a_doubled_key_is_set():
    assert set_in(b'{"model":12,"x":{"model":5},"model":1}', ("model",), b'"m"') == (
        b'{"model":"m","x":{"model":5},"model":"m"}'
    )


def test_what_stands_in_the_way_gives_place_to_an_object():
    assert set_in(b'{"a": null}', ("a", "b"), b"1") == b'{"a": {"b":1}}'


def test_a_byte_order_mark_stays():
    assert set_in(b'\xef\xbb\xbf{"a":1}', ("a",), b"2") == b'\xef\xbb\xbf{"a":2}'


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'"{}"', b"{", b'{"a":1', b'{"a":[1,}', b'{"a":1}}', b'{"a" 1}', b'{"a":"\n"}', b"\xff{}",
     b'{"a":' + b"[" * 100_000],
)  # fmt: skip
def test_no_json_object_is_one_clear_error(body):
    with pytest.raises(InputError, match="not a JSON object"):
        set_in(body, ("a",), b"1")


def recorded_requests():
    folder = os.environ.get("POLYVOX_TRAFFIC")
    if not folder:
        pytest.skip("recorded traffic is needed: set POLYVOX_TRAFFIC to its folder")
    with (Path(folder) / "dev.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            exchange = json.loads(line)
            body = exchange["request_json"]
            if isinstance(body, dict) and exchange["endpoint"] in DIALECT_OF and body:
                yield exchange["id"], DIALECT_OF[exchange["endpoint"]], body


@pytest.mark.parametrize("seed", range(3))
def test_a_recorded_request_differs_by_exactly_the_edits(seed):
    """Acceptance: any spelling of a recorded request, for another model and asking for usage."""
    count = 0
    for number, (name, room, body) in enumerate(recorded_requests()):
        rng = random.Random(seed * 100_000 + number)
        members = list(body.items())
        rng.shuffle(members)
        wants_usage = room == "openai.chat" and body.get("stream") is True
        told = body.get("stream_options")
        holes, added = [], []
        for key, value in members:
            if key == "model":
                value = Hole(value, json.dumps(NEW_MODEL))
            elif key == "stream_options" and wants_usage:
                flag = Hole(told.get("include_usage"), "true") if "include_usage" in told else None
                value = {**told, "include_usage": flag} if flag else value
            holes.append((key, value))
        if "model" not in body:
            added.append(f'"model":{json.dumps(NEW_MODEL)}')
        if wants_usage and told is None:
            added.append('"stream_options":{"include_usage":true}')
        before, after = edited_ways(holes, rng.randrange(10**9), ",".join(added))
        wire = Wire("/", before, {"content-type": "application/json"})
        edited = dialect(room).edit(wire, model=NEW_MODEL, usage=True)
        assert edited.body == after, name
        assert (edited.path, edited.method, edited.headers) == (wire.path, wire.method, wire.headers)
        count += 1
    assert count > 100
