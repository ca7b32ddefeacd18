"""The key of an answer holds everything that shapes it, and nothing that does not."""

import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from polyvox.cache import ResponseCache, fingerprint
from polyvox.cache.keys import NOT_SHAPING, VERSION, key_of
from polyvox.dialects import QUIRKS, Endpoint
from polyvox.errors import InputError
from polyvox.types import (
    UNSET,
    Audio,
    CacheHint,
    File,
    Image,
    Message,
    Opaque,
    Reasoning,
    Request,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

OF = fingerprint("demo", "small", "openai.chat")
ASKED = Request("small", (Message("user", (Text("Hi"),)),))


def key(request=ASKED, of=OF, **where):
    return key_of(request, of, **where)


# ---- what differs in one thing ----------------------------------------------------------------

WORDS = ["", "a", "b", "a b", "a ", "A", "ä", "😀", "{}", '"', "\\", "\n", "null", "0"]


class Maker:
    """Requests and fingerprints at random, and others that differ from them in exactly one thing."""

    def __init__(self, seed):
        self.chance = random.Random(seed)

    def word(self):
        return self.chance.choice(WORDS) + str(self.chance.randrange(1000))

    def unset(self, make):
        return UNSET if self.chance.random() < 0.5 else make()

    def schema(self):
        return {"type": "object", "properties": {self.word(): {"type": self.chance.choice(["string", "number"])}}}

    def extra(self):
        return {} if self.chance.random() < 0.7 else {self.chance.choice(["openai.chat", "x"]): {self.word(): 1}}

    def hint(self):
        return self.chance.choice([None, None, CacheHint(), CacheHint("1h")])

    def part(self):
        data = self.chance.randbytes(5)
        made = [
            lambda: Text(self.word(), cache=self.hint(), extra=self.extra()),
            lambda: Image(data=data, media_type="image/png", detail=self.chance.choice([None, "low"])),
            lambda: Image(url=f"https://x/{self.word()}"),
            lambda: Audio(data=data, media_type="audio/wav"),
            lambda: File(data=data, name=self.word()),
            lambda: File(file_id=self.word(), origin="demo/small"),
            lambda: Reasoning(self.word(), signature=self.word()),
            lambda: ToolCall(self.word(), "f", '{"a": 1}'),
            lambda: ToolResult(self.word(), (Text(self.word()),), is_error=self.chance.random() < 0.5),
            lambda: Opaque("openai.chat", "web", {"q": [self.word(), None, 1.5]}),
        ]
        return self.chance.choice(made)()

    def message(self):
        parts = tuple(self.part() for _ in range(self.chance.randrange(1, 4)))
        return Message(self.chance.choice(["user", "assistant", "system"]), parts, name=self.chance.choice([None, "n"]))

    FIELDS = {
        "model": lambda self: self.word(),
        "messages": lambda self: tuple(self.message() for _ in range(self.chance.randrange(1, 4))),
        "tools": lambda self: tuple(
            Tool(self.word(), self.word(), self.schema(), strict=self.chance.choice([UNSET, True, False]))
            for _ in range(self.chance.randrange(3))
        ),
        "tool_choice": lambda self: self.unset(lambda: ToolChoice("required", (self.word(),))),
        "parallel_tool_calls": lambda self: self.chance.choice([UNSET, True, False]),
        "response_format": lambda self: self.unset(lambda: ResponseFormat("schema", self.schema(), self.word())),
        "thinking": lambda self: self.unset(lambda: Thinking(self.chance.choice(["low", "high"]), budget_tokens=7)),
        "max_tokens": lambda self: self.unset(lambda: self.chance.randrange(5000)),
        "temperature": lambda self: self.unset(lambda: self.chance.choice([0, 0.5, 1, 1.0, 2.0])),
        "top_p": lambda self: self.unset(lambda: self.chance.choice([0, 0.5, 1])),
        "top_k": lambda self: self.unset(lambda: self.chance.randrange(50)),
        "stop": lambda self: self.unset(lambda: tuple(self.word() for _ in range(self.chance.randrange(3)))),
        "seed": lambda self: self.unset(lambda: self.chance.randrange(9999)),
        "n": lambda self: self.unset(lambda: self.chance.randrange(1, 5)),
        "presence_penalty": lambda self: self.unset(lambda: self.chance.choice([0, 0.5, 1])),
        "frequency_penalty": lambda self: self.unset(lambda: self.chance.choice([0, 0.5, 1])),
        "logit_bias": lambda self: self.unset(lambda: {self.word(): self.chance.choice([1, 2.0, -5])}),
        "logprobs": lambda self: self.chance.choice([UNSET, True, False]),
        "top_logprobs": lambda self: self.unset(lambda: self.chance.randrange(20)),
        "modalities": lambda self: self.unset(lambda: (self.word(),)),
        "audio": lambda self: self.unset(lambda: {"voice": self.word()}),
        "verbosity": lambda self: self.unset(self.word),
        "service_tier": lambda self: self.unset(self.word),
        "cache_key": lambda self: self.unset(self.word),
        "cache": lambda self: self.unset(lambda: CacheHint(self.chance.choice([None, "5m", "1h"]))),
        "extra": lambda self: {"openai.chat": {self.word(): self.chance.choice([None, 1, "1", [1], {}])}},
    }  # fmt: skip
    WHERE = {
        "provider": lambda self: self.word(),
        "model": lambda self: self.word(),
        "dialect": lambda self: self.word(),
        "base_url": lambda self: f"https://{self.chance.randrange(99)}.example/v{self.chance.randrange(99)}",
        "origin": lambda self: self.chance.choice([None, "demo/small", "demo/large"]),
        "quirks": lambda self: frozenset(self.chance.sample(sorted(QUIRKS), 2)),
        "options": lambda self: {"version": self.word(), "max_output": self.chance.randrange(99)},
        "fixed": lambda self: {"X-Beta": self.word()},
        "query": lambda self: f"api-version={self.chance.randrange(99)}",
        "more": lambda self: self.chance.choice([None, {"refuses": ["temperature"]}, [1]]),
        "tenant": lambda self: self.chance.choice([None, self.word() + "t"]),
        "namespace": lambda self: self.word(),
        "headers": lambda self: self.chance.choice([None, {"X-Mood": self.word()}]),
    }  # fmt: skip

    def some(self, table):
        return {name: make(self) for name, make in table.items()}

    def other(self, table, values):
        while True:
            name = self.chance.choice(list(table))
            value = table[name](self)
            if value != values[name]:
                return {**values, name: value}


def made(asked, where):
    of = fingerprint(
        where["provider"],
        where["model"],
        where["dialect"],
        endpoint=Endpoint(where["base_url"], where["origin"], where["quirks"], where["options"]),
        headers=where["fixed"],
        query=where["query"],
        more=where["more"],
    )
    return key_of(Request(**asked), of, tenant=where["tenant"], namespace=where["namespace"], headers=where["headers"])


def test_every_field_of_a_request_is_among_those_that_are_varied():
    assert {field.name for field in fields(Request)} == {*Maker.FIELDS, *NOT_SHAPING}


def test_ten_thousand_pairs_of_requests_that_differ_in_one_thing_never_share_a_key():
    maker = Maker(20)
    for turn in range(10_000):
        asked, where = maker.some(Maker.FIELDS), maker.some(Maker.WHERE)
        if turn % 3:
            other = made(maker.other(Maker.FIELDS, asked), where)
        else:
            other = made(asked, maker.other(Maker.WHERE, where))
        found = made(asked, where)
        assert found is not None
        assert other is not None
        assert found.digest != other.digest, (asked, where)


def shuffled(value, chance):
    """The same, with its dictionaries in another order."""
    if isinstance(value, dict):
        pairs = [(name, shuffled(inner, chance)) for name, inner in value.items()]
        chance.shuffle(pairs)
        return dict(pairs)
    return value


def test_equal_requests_have_one_key_however_they_were_made():
    maker = Maker(7)
    for _ in range(500):
        asked, where = maker.some(Maker.FIELDS), maker.some(Maker.WHERE)
        same = {name: shuffled(value, maker.chance) for name, value in reversed(asked.items())}
        same["temperature"] = asked["temperature"] if asked["temperature"] is UNSET else float(asked["temperature"])
        assert made(same, shuffled(where, maker.chance)) == made(asked, where)


@given(st.integers(-(10**6), 10**6))
@settings(max_examples=50)
def test_a_whole_number_is_one_number_whether_it_has_a_point_or_not(number):
    assert key(replace(ASKED, temperature=number)) == key(replace(ASKED, temperature=float(number)))
    assert key(replace(ASKED, logit_bias={"1": number})) == key(replace(ASKED, logit_bias={"1": float(number)}))


def test_zero_is_not_unset_and_a_default_that_was_said_is_not_silence():
    assert key(replace(ASKED, temperature=-0.0)) == key(replace(ASKED, temperature=0))
    assert key(replace(ASKED, temperature=0)) != key()
    assert key(replace(ASKED, tool_choice=ToolChoice())) != key()
    assert key(replace(ASKED, tools=())) == key()


def test_how_an_answer_comes_and_who_is_told_of_it_shape_nothing():
    for changes in ({"stream": True}, {"user": "ann"}, {"metadata": {"tag": "x"}}):
        assert key(replace(ASKED, **changes)) == key()


def test_the_order_of_keys_says_nothing_but_that_of_messages_and_tools_does():
    one, two = Tool("a", parameters={"x": 1, "y": 2}), Tool("b")
    assert key(replace(ASKED, tools=(one,))) == key(replace(ASKED, tools=(Tool("a", parameters={"y": 2, "x": 1}),)))
    assert key(replace(ASKED, tools=(one, two))) != key(replace(ASKED, tools=(two, one)))


# ---- tenants, namespaces ----------------------------------------------------------------------


@given(st.none() | st.text(min_size=1), st.none() | st.text(min_size=1))
def test_two_tenants_never_share_a_key_or_a_space(one, other):
    found, others = key(tenant=one), key(tenant=other)
    assert (found.digest == others.digest) is (one == other)
    assert (found.space == others.space) is (one == other)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_two_namespaces_never_share_a_key_or_a_space(one, other):
    found, others = key(namespace=one), key(namespace=other)
    assert ((found.digest, found.space) == (others.digest, others.space)) is (one == other)


def test_the_name_of_a_tenant_stands_nowhere():
    found = key(tenant="ann@example.com")
    assert "ann" not in repr(found)


@pytest.mark.parametrize("where", [{"tenant": ""}, {"tenant": 5}, {"namespace": ""}, {"namespace": None},
                                   {"namespace": "x" * 201}])  # fmt: skip
def test_names_that_are_none_are_refused(where):
    with pytest.raises(InputError):
        key(**where)
    with pytest.raises(InputError):
        ResponseCache(**where)


# ---- secrets ----------------------------------------------------------------------------------


def test_credentials_are_no_part_of_a_key():
    def of(base_url="https://api.example/v1", query="", headers=None):
        return fingerprint("p", "m", "d", endpoint=Endpoint(base_url=base_url), query=query, headers=headers)

    assert of("https://user:secret@api.example/v1/") == of()
    assert of("https://API.example/v1") == of()
    assert of(query="key=secret") == of(query="key=other") == of()
    assert of(query="api-version=1") != of(query="api-version=2")
    for name in ("Authorization", "x-api-key", "X-Goog-Api-Key", "api-key", "Cookie", "X-My-Token"):
        assert of(headers={name: "secret"}) == of()
        assert key(headers={name: "one"}) == key(headers={name: "two"})
    assert of(headers={"anthropic-beta": "x"}) != of()
    assert key(headers={"OpenAI-Project": "a"}) != key(headers={"OpenAI-Project": "b"})
    assert key(headers={"X-Mood": "good"}) == key(headers={"x-mood": "good"})


def test_headers_that_differ_from_call_to_call_are_no_part_of_a_key():
    for name in ("traceparent", "X-Request-Id", "Idempotency-Key", "User-Agent"):
        assert key(headers={name: "1"}) == key(headers={name: "2"})


# ---- stability --------------------------------------------------------------------------------

PROGRAM = """
import json
from polyvox.cache import fingerprint
from polyvox.cache.keys import key_of
from polyvox.dialects import Endpoint
from polyvox.types import Message, Request, Text, Tool
at = Endpoint("https://api.example/v1", None, frozenset({"top_k", "system_role", "max_tokens"}), {"b": 1, "a": 2})
request = Request("small", (Message("user", (Text("Hi"),)),), (Tool("f", parameters={"b": 1, "a": {"d": 1, "c": 2}}),))
found = key_of(request, fingerprint("demo", "small", "openai.chat", endpoint=at), tenant="t", namespace="n")
print(json.dumps([found.space, found.digest]))
"""


def test_the_same_key_is_made_in_every_process():
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(found) == 1
    space, digest = json.loads(found.pop())
    assert len(digest) == 64
    # Counted up with VERSION, or answers would be found under keys that mean something else by now.
    assert (VERSION, digest[:16]) == (1, "b467cfacaee294b7")
    assert space == "answers.e3b98a4da31a127d4bde6e43033f66ba.n"


@pytest.mark.parametrize(
    "value", [object(), {1, object()}, "\ud800", 10**5000], ids=["object", "set", "surrogate", "n"]
)
def test_a_request_that_json_cannot_say_has_no_key(value):
    assert key(replace(ASKED, extra={"openai.chat": {"x": value}})) is None
