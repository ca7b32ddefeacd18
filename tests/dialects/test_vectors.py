"""Every vector under tests/vectors holds: requests encode, answers and streams decode as written,
and a stream decodes the same however its bytes are cut."""

import json
import os
import random
from pathlib import Path

import msgspec
import pytest

from polyvox.dialects import Endpoint, Reply, dialect
from polyvox.dialects.collect import Collector
from polyvox.errors import PolyvoxError
from polyvox.types import Ended, Failed, Request

ROOT = Path(__file__).parent.parent / "vectors"
FILES = sorted(path for path in ROOT.glob("*/*.json") if not path.name.startswith("serve-"))
VECTORS = {f"{path.parent.name}/{path.stem}": path for path in FILES}
CASES = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in VECTORS.items()}


def names(case):
    return [name for name, vector in CASES.items() if vector["case"] == case]


def room_of(name):
    return dialect(name.split("/")[0])


def endpoint_of(vector):
    facts = {"origin": "test/model", **vector.get("endpoint", {})}
    return Endpoint(**{**facts, "quirks": frozenset(facts.get("quirks", ()))})


def bytes_of(vector):
    if "hex" in vector:
        return bytes.fromhex(vector["hex"])
    if "text" in vector:
        return vector["text"].encode()
    if "lines" in vector:
        return ("\n".join(vector["lines"]) + "\n").encode()
    return json.dumps(vector["body"], ensure_ascii=False).encode()


def read(room, at, chunks):
    """Feed the chunks, give the response and the error (or None); the end must come exactly once."""
    reader, collector, events = room.reader(at), Collector(), []
    for chunk in chunks:
        events += reader.feed(chunk)
    events += reader.close()
    for event in events:
        collector.add(event)
    ends = [event for event in events if isinstance(event, Ended | Failed)]
    assert len(ends) == 1 and ends[0] is events[-1], f"a stream ends exactly once, last: {ends}"
    assert reader.done
    assert reader.feed(b"data: {}\n\n") == [] and reader.close() == []
    return collector.response(), collector.failed.error if collector.failed else None


def check(expect, response, error):
    if "error" in expect:
        assert error is not None, "an error was expected"
        for key, value in expect["error"].items():
            assert getattr(error, key) == value, (key, getattr(error, key))
    else:
        assert error is None, error
    if response is None:
        return
    plain = json.loads(msgspec.json.encode(response))
    for key in ("text", "reasoning", "refusal"):
        if key in expect:
            assert getattr(response, key) == expect[key], key
    for key in ("finish_reason", "raw_finish_reason", "stop_sequence", "model", "id", "complete"):
        if key in expect:
            assert getattr(response, key) == expect[key], key
    if "tool_calls" in expect:
        calls = response.tool_calls
        assert [(call.id, call.name) for call in calls] == [(c["id"], c["name"]) for c in expect["tool_calls"]]
        for call, wanted in zip(calls, expect["tool_calls"], strict=True):
            text = isinstance(wanted["arguments"], str)
            assert (call.arguments if text else call.args) == wanted["arguments"]
    for key, value in expect.get("usage", {}).items():
        assert getattr(response.usage, key) == value, ("usage", key)
    if "parts" in expect:
        assert plain["message"].get("parts", []) == expect["parts"]
    for key in ("logprobs", "extra", "choices"):
        if key in expect:
            assert plain.get(key) == expect[key], key


@pytest.mark.parametrize("name", names("request"))
def test_a_request_encodes_to_exactly_these_bytes_and_losses(name):
    vector, room = CASES[name], room_of(name)
    request = msgspec.convert(vector["request"], Request)
    if "refused" in vector:
        with pytest.raises(PolyvoxError) as caught:
            room.encode_request(request, endpoint_of(vector))
        assert caught.value.kind == vector["refused"]
        assert caught.value.sent == "no"
        return
    wire, losses = room.encode_request(request, endpoint_of(vector))
    assert json.loads(wire.body) == vector["wire"]["body"]
    if "path" in vector["wire"]:
        assert wire.path == vector["wire"]["path"]
    for key, value in vector["wire"].get("headers", {}).items():
        assert wire.headers[key] == value
    assert sorted(loss.field for loss in losses) == sorted(vector.get("losses", []))


@pytest.mark.parametrize("name", names("response"))
def test_an_answer_decodes_to_what_it_says(name):
    vector, room = CASES[name], room_of(name)
    reply = Reply(vector.get("status", 200), vector.get("headers", {}), bytes_of(vector))
    response = error = None
    try:
        response = room.decode_response(reply, endpoint_of(vector))
    except PolyvoxError as caught:
        error = caught
    check(vector["expect"], response, error)


@pytest.mark.parametrize("name", names("error"))
def test_an_error_is_told_by_its_structured_fields(name):
    vector, room = CASES[name], room_of(name)
    reply = Reply(vector.get("status", 400), vector.get("headers", {}), bytes_of(vector))
    check(vector["expect"], None, room.decode_error(reply, endpoint_of(vector)))


@pytest.mark.parametrize("name", names("stream"))
def test_a_stream_decodes_the_same_however_it_is_cut(name):
    vector, room = CASES[name], room_of(name)
    at, data = endpoint_of(vector), bytes_of(vector)
    whole, error = read(room, at, [data])
    check(vector["expect"], whole, error)
    rng = random.Random(name)
    cuttings = [[data[i : i + 1] for i in range(len(data))]]
    for _ in range(5):
        cuts = sorted(rng.choices(range(len(data) + 1), k=8))
        cuttings.append([data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)])
    for chunks in cuttings:
        again, error_again = read(room, at, chunks)
        assert again == whole
        assert (error_again and error_again.kind) == (error and error.kind)


def cut_points(data, every):
    if every or len(data) <= 60:
        return range(len(data))
    return sorted(random.Random(len(data)).sample(range(len(data)), 60))


def check_cuts(name, every):
    vector, room = CASES[name], room_of(name)
    at, data = endpoint_of(vector), bytes_of(vector)
    whole, error = read(room, at, [data])
    for cut in cut_points(data, every):
        response, failure = read(room, at, [data[:cut]])
        if failure is None:
            # What goes wrong behind a whole answer cannot be seen where the cut is just before it.
            assert error is None or vector.get("whole_before"), f"cut at {cut}: silently incomplete"
            assert response.message == whole.message, f"cut at {cut}: silently incomplete"
        else:
            assert isinstance(failure, PolyvoxError)
            assert failure.kind == "stream_interrupted" or failure.kind == (error and error.kind), (cut, failure)
            assert whole.text.startswith(response.text)


@pytest.mark.parametrize("name", names("stream"))
def test_a_stream_cut_off_is_whole_or_interrupted_never_silently_short(name):
    check_cuts(name, every=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", names("stream"))
def test_a_stream_cut_off_at_every_byte_is_whole_or_interrupted(name):
    check_cuts(name, every=True)


MUTANTS = (5, None, [], {}, "x", -1, 1.5, True, [None], [[]], {"x": 1}, "\ud7ff")


def mutated(value, rng):
    """A copy of a JSON value with one node replaced, deleted or doubled."""
    value = json.loads(json.dumps(value))
    nodes = [(value, None)]
    places = []
    while nodes:
        node, _ = nodes.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in items:
            places.append((node, key))
            nodes.append((child, key))
    if not places:
        return rng.choice(MUTANTS)
    node, key = rng.choice(places)
    action = rng.random()
    if action < 0.7:
        node[key] = rng.choice(MUTANTS)
    elif action < 0.9 or isinstance(node, dict):
        del node[key]
    else:
        node.insert(key, node[key])
    return value


def mutations():
    return int(os.environ.get("POLYVOX_MUTATIONS", "40"))


@pytest.mark.parametrize("name", [n for n in names("response") + names("error") if "body" in CASES[n]])
def test_a_mutated_answer_decodes_or_fails_in_our_tree(name):
    vector, room, rng = CASES[name], room_of(name), random.Random(name)
    for _ in range(mutations()):
        body = json.dumps(mutated(vector["body"], rng)).encode()
        reply = Reply(vector.get("status", 200), {}, body)
        try:
            if vector["case"] == "error":
                assert isinstance(room.decode_error(reply, endpoint_of(vector)), PolyvoxError)
            else:
                check_types(room.decode_response(reply, endpoint_of(vector)))
        except PolyvoxError:
            pass


def check_types(response):
    """What was decoded is what the types promise: it survives a typed round trip."""
    again = msgspec.json.decode(msgspec.json.encode(response), type=type(response))
    assert again.message == response.message


def mutated_stream(data, rng):
    lines = data.split(b"\n")
    spots = [i for i, line in enumerate(lines) if line.startswith((b"data: {", b"{"))]
    if not spots:
        return data
    spot = rng.choice(spots)
    prefix = b"data: " if lines[spot].startswith(b"data: ") else b""
    try:
        value = json.loads(lines[spot][len(prefix) :])
    except ValueError:
        return data
    lines[spot] = prefix + json.dumps(mutated(value, rng)).encode()
    return b"\n".join(lines)


@pytest.mark.parametrize("name", names("stream"))
def test_a_mutated_stream_ends_or_fails_in_our_tree(name):
    vector, room, rng = CASES[name], room_of(name), random.Random(name)
    for _ in range(mutations()):
        response, error = read(room, endpoint_of(vector), [mutated_stream(bytes_of(vector), rng)])
        assert error is None or isinstance(error, PolyvoxError)
        check_types(response)


def test_each_dialect_has_thirty_vectors():
    for folder in sorted(path for path in ROOT.iterdir() if path.is_dir()):
        assert len(list(folder.glob("*.json"))) >= 30, folder.name
