"""Two calls that begin alike are encoded alike as far as they do: that is what prompt caches go by."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.dialects import NAMES, Endpoint, dialect
from polyvox.types import Message, Request, Text, Tool, ToolCall, ToolResult

WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() == text
)
ARGUMENTS = st.dictionaries(WORDS, st.integers() | WORDS, max_size=3).map(lambda value: json.dumps(value))


@st.composite
def conversations(draw):
    """Whole exchanges, each a question, now and then a tool's answer, and the model's words."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        found.append(Message("user", (Text(draw(WORDS)),)))
        if draw(st.booleans()):
            call = ToolCall(f"call_{number}", "look", draw(ARGUMENTS))
            found.append(Message("assistant", (call,)))
            found.append(Message("tool", (ToolResult(call.id, (Text(draw(WORDS)),), name="look"),)))
        found.append(Message("assistant", (Text(draw(WORDS)),)))
    return tuple(found)


TOOLS = (Tool("look", "Look something up.", {"type": "object", "properties": {"z": {}, "a": {}}}),)
SYSTEM = Message("system", (Text("Be brief."),))


def encoded(name, messages):
    body = json.loads(dialect(name).encode_request(Request("m", messages, TOOLS), Endpoint()).wire.body)
    turns = next(key for key in ("messages", "contents", "input") if key in body)
    before = {key: msgspec.json.encode(value) for key, value in body.items() if key != turns}
    return before, [msgspec.json.encode(message) for message in body[turns]]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(conversations(), conversations())
def test_what_two_calls_share_is_the_same_bytes(name, shared, more):
    later = tuple([
        msgspec.structs.replace(message, parts=tuple([_renamed(part) for part in message.parts])) for message in more
    ])  # fmt: skip
    first, one = encoded(name, (SYSTEM, *shared, Message("user", (Text("first"),))))
    second, two = encoded(name, (SYSTEM, *shared, *later, Message("user", (Text("second"),))))
    assert first == second
    assert len(one) > 1 and two[: len(one) - 1] == one[:-1]


def _renamed(part):
    """Calls of the second half have ids of their own, as a model's would."""
    if isinstance(part, ToolCall):
        return msgspec.structs.replace(part, id=part.id + "_b")
    if isinstance(part, ToolResult):
        return msgspec.structs.replace(part, call_id=part.call_id + "_b")
    return part
