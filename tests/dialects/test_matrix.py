"""The loss matrix is published as it is, and no crossing between dialects loses anything in silence."""

from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from polyvox.dialects import Peek, dialect
from polyvox.dialects.collect import as_events
from polyvox.types import Text, Thinking, ToolChoice, ToolResult
from tests.dialects import matrix

PAGE = Path(__file__).parent.parent.parent / "docs" / "losses.md"


@pytest.fixture(scope="module")
def asked():
    return matrix.request_cells()


@pytest.fixture(scope="module")
def answered():
    return matrix.response_cells()


def plain(value):
    """A value as builtins, every field in it, without what only says where state is kept."""
    if isinstance(value, msgspec.Struct):
        fields = {key: plain(getattr(value, key)) for key in value.__struct_fields__ if key not in ("origin", "extra")}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def meaning(request):
    """What a request says, apart from the ways of saying it that the page counts as the same."""
    messages = []
    for message in request.messages:
        results = [part for part in message.parts if type(part) is ToolResult]
        pieces = [("tool", (result,)) for result in results]
        rest = tuple(part for part in message.parts if type(part) is not ToolResult)
        for role, parts in [*pieces, *([(message.role, rest)] if rest or not results else [])]:
            if role != "tool" and messages and messages[-1][0] == role:
                messages[-1] = (role, messages[-1][1] + parts, message.name)
            else:
                messages.append((role, parts, message.name))
    said = plain(request)
    said["messages"] = [(role, name, plain(joined(parts))) for role, parts, name in messages]
    for tool in said["tools"]:
        tool["parameters"] = {"type": "object", "properties": {}, **tool["parameters"]}
    if request.tool_choice == ToolChoice():
        said["tool_choice"] = UNSET
    if request.thinking is not UNSET and "none" in (request.thinking.effort,):
        said["thinking"] = plain(Thinking(enabled=False))
    if request.response_format is not UNSET and request.response_format.strict is True:
        said["response_format"]["strict"] = UNSET
    if request.service_tier == "auto":
        said["service_tier"] = UNSET
    return said


def joined(parts):
    """Texts in a row as one, also inside results."""
    found = []
    for part in parts:
        if type(part) is ToolResult:
            part = replace(part, parts=tuple(joined(part.parts)))
        last = found[-1] if found else None
        if type(part) is Text and type(last) is Text and part.cache == last.cache:
            found[-1] = replace(last, text=last.text + part.text)
        else:
            found.append(part)
    return found


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == matrix.page(), (
        "run: python -m tests.dialects.matrix --write docs/losses.md"
    )


def test_within_one_dialect_nothing_is_lost(asked, answered):
    for found in (asked, answered):
        for (source, target, _, name), (sent, cell, got) in found.items():
            if source == target:
                assert cell.word in ("exact", "adapted"), (source, name, cell)
                assert got == replace(sent, **({"raw": got.raw} if hasattr(sent, "raw") else {}))


def test_an_exact_crossing_arrives_as_it_was_sent(asked):
    silent = [
        (source, target, name)
        for (source, target, _, name), (sent, cell, got) in asked.items()
        if cell.word == "exact" and meaning(sent) != meaning(got)
    ]
    assert not silent


def test_an_exact_answer_arrives_as_it_was_given(answered):
    silent = []
    for (source, target, _, name), (sent, cell, got) in answered.items():
        if cell.word != "exact":
            continue
        for field in ("message", "finish_reason", "stop_sequence", "choices", "logprobs", "model"):
            if plain(getattr(sent, field)) != plain(getattr(got, field)):
                silent.append((source, target, name, field, getattr(sent, field), getattr(got, field)))
        for count in ("input", "output", "cache_read", "cache_write", "reasoning", "source"):
            if getattr(sent.usage, count) != getattr(got.usage, count):
                silent.append((source, target, name, count))
    assert not silent


def test_a_stream_loses_what_a_whole_answer_loses(answered):
    for (source, target, _, name), (sent, cell, _) in answered.items():
        if cell.word == "refused":
            continue
        _, whole = dialect(target).encode_response(sent, Peek(sent.model))
        writer = dialect(target).writer(Peek(sent.model, stream=True))
        data = b"".join(writer.send(event) for event in as_events(sent)) + writer.close()
        assert data
        lost = {loss.why for loss in writer.losses if loss.severity == "loss"}
        assert lost == {loss.why for loss in whole if loss.severity == "loss"}, (source, target, name)


def test_every_feature_can_be_said_somewhere(asked, answered):
    for features, found in ((matrix.requests, asked), (matrix.responses, answered)):
        for group, members in features("x").items():
            for name in members:
                assert any(key[2:] == (group, name) for key in found), (group, name)
