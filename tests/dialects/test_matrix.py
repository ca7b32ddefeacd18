"""The loss matrix is published as it is, and no crossing between dialects loses anything in silence."""

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from polyvox.dialects import NAMES, Peek, dialect
from polyvox.dialects.collect import as_events
from polyvox.types import PART_TYPES, CacheHint, Request, ResponseFormat, Thinking, Tool, ToolChoice
from tests.dialects import matrix

PAGE = Path(__file__).parent.parent.parent / "docs" / "losses.md"


@pytest.fixture(scope="module")
def asked():
    return matrix.request_cells()


@pytest.fixture(scope="module")
def answered():
    return matrix.response_cells()


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
        if cell.word == "exact" and matrix.meaning(sent) != matrix.meaning(got)
    ]
    assert not silent


def test_an_exact_answer_arrives_as_it_was_given(answered):
    silent = []
    for (source, target, _, name), (sent, cell, got) in answered.items():
        if cell.word != "exact":
            continue
        if matrix.content(sent) != matrix.content(got):
            silent.append((source, target, name))
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


def values_in(value):
    """A value and all that it holds."""
    if isinstance(value, msgspec.Struct):
        yield value
        for name in value.__struct_fields__:
            yield from values_in(getattr(value, name))
    elif isinstance(value, tuple):
        for each in value:
            yield from values_in(each)


def test_every_field_of_a_request_and_every_kind_of_part_is_a_feature():
    said = [value for group in matrix.requests("x").values() for asked in group.values() for value in values_in(asked)]
    assert set(PART_TYPES) <= {type(value) for value in said}
    for kind in (Request, Tool, ToolChoice, ResponseFormat, Thinking, CacheHint):
        plain = kind(*("x" for name in ("model", "name") if name == kind.__struct_fields__[0]))
        changed = {
            name
            for value in said
            if type(value) is kind
            for name in kind.__struct_fields__
            if getattr(value, name) != getattr(plain, name)
        }
        # Keys of one dialect are told with every crossing; the name of a tool and of a model is no choice.
        assert changed >= set(kind.__struct_fields__) - {"extra"}, kind


def test_every_dialect_asks_and_answers(asked, answered):
    for found in (asked, answered):
        assert {(source, target) for source, target, *_ in found} == {(a, b) for a in NAMES for b in NAMES}
