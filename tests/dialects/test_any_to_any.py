"""Any dialect into any other and back: what does not come back as it went is in the losses, at its place, for every
recorded request and answer and for generated ones, whole and streamed. The loss matrix tells it feature by feature;
here it is whole traffic."""

import base64
import json
import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyvox.dialects import NAMES, Peek, Reply, Wire, dialect
from polyvox.dialects.collect import Collector, as_events
from polyvox.errors import InputError, PolyvoxError
from polyvox.testing.replay import dialect_of
from tests.dialects import (
    generated,
    matrix,
    test_anthropic_serving,
    test_bedrock_serving,
    test_cohere_serving,
    test_gemini_serving,
    test_ollama_serving,
    test_openai_chat_serving,
    test_openai_responses_serving,
)
from tests.dialects.crossing import said_by_answer, said_by_request, silent

# ---- what has been said -----------------------------------------------------------------------


def recorded():
    folder = os.environ.get("POLYVOX_TRAFFIC")
    if not folder:
        pytest.skip("recorded traffic is needed: set POLYVOX_TRAFFIC to its folder")
    with (Path(folder) / "dev.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            exchange = json.loads(line)
            name = dialect_of(exchange.get("url") or "")
            if name in NAMES:
                yield name, exchange


@cache
def recorded_requests():
    """(dialect, id, request) of every recorded request that can be read; what is refused has nothing to carry over."""
    found = []
    for name, exchange in recorded():
        if not isinstance(exchange["request_json"], dict):
            continue
        path = "/" + exchange["url"].split("://", 1)[-1].partition("/")[2]
        wire = Wire(path, json.dumps(exchange["request_json"]).encode(), {})
        try:
            found.append((name, exchange["id"], dialect(name).decode_request(wire, matrix.endpoint(name))))
        except InputError:
            continue
    return found


@cache
def recorded_answers():
    """(dialect, id, answer) of every recorded answer, also of those that were streamed to their end."""
    found = []
    for name, exchange in recorded():
        if exchange["status"] != 200:
            continue
        body = base64.b64decode(exchange.get("response_base64") or "") or exchange["response_text"].encode()
        try:
            if exchange["streamed"]:
                answer = collected(name, body).response()
            else:
                answer = dialect(name).decode_response(Reply(200, {}, body), matrix.endpoint(name))
        except PolyvoxError:
            continue
        if answer.complete:
            found.append((name, exchange["id"], answer))
    return found


def collected(name, data):
    """All that a stream said, added up."""
    reader, collector = dialect(name).reader(matrix.endpoint(name)), Collector()
    for event in [*reader.feed(data), *reader.close()]:
        collector.add(event)
    return collector


# ---- into another dialect and back ------------------------------------------------------------

NO_ANSWER = ("error", None)  # why an answer may be told as an error: it failed, or does not say that it ended


def untold_of_request(request, target):
    """What a request loses in silence on its way into a dialect; None where it is refused aloud."""
    room, at = dialect(target), matrix.endpoint(target)
    try:
        wire, losses = room.encode_request(request, at)
    except InputError as error:
        assert error.message and error.sent == "no"
        return None
    return silent(said_by_request(request), said_by_request(room.decode_request(wire, at)), losses)


def untold_of_answer(answer, target):
    """What an answer loses in silence on its way into a dialect; None where it is told as an error."""
    room = dialect(target)
    reply, losses = room.encode_response(answer, Peek(answer.model))
    if reply.status != 200:
        assert losses and answer.finish_reason in NO_ANSWER
        return None
    return silent(said_by_answer(answer), said_by_answer(room.decode_response(reply, matrix.endpoint(target))), losses)


def untold_of_stream(answer, target):
    """The same for an answer that is streamed."""
    writer = dialect(target).writer(Peek(answer.model, stream=True))
    data = b"".join([writer.send(event) for event in as_events(answer)]) + writer.close()
    back = collected(target, data)
    if back.failed is not None:
        # The error that the stream ends with is for the client to see: no loss tells of it once more.
        assert answer.finish_reason in NO_ANSWER and back.failed.error.kind != "stream_interrupted"
        return None
    return silent(said_by_answer(answer), said_by_answer(back.response()), writer.losses)


@pytest.mark.parametrize("target", NAMES)
def test_a_recorded_request_in_another_dialect_loses_only_what_it_says(target):
    found = [(name, untold_of_request(request, target)) for _, name, request in recorded_requests()]
    assert [(name, untold) for name, untold in found if untold] == []
    assert len([name for name, untold in found if untold is not None]) > 300


@pytest.mark.parametrize("target", NAMES)
def test_a_recorded_answer_in_another_dialect_loses_only_what_it_says(target):
    found = [(name, untold_of_answer(answer, target)) for _, name, answer in recorded_answers()]
    assert [(name, untold) for name, untold in found if untold] == []
    assert len([name for name, untold in found if untold is not None]) > 300


@pytest.mark.parametrize("target", NAMES)
def test_a_recorded_answer_streamed_in_another_dialect_loses_only_what_it_says(target):
    found = [(name, untold_of_stream(answer, target)) for _, name, answer in recorded_answers()]
    assert [(name, untold) for name, untold in found if untold] == []
    assert len([name for name, untold in found if untold is not None]) > 300


@pytest.mark.parametrize("target", NAMES)
def test_a_loss_that_is_not_told_is_noticed(target):
    """What the promises above rest on: the same requests, with their losses held back."""
    room, at = dialect(target), matrix.endpoint(target)
    noticed = []
    for _, _, request in recorded_requests():
        try:
            wire, losses = room.encode_request(request, at)
        except InputError:
            continue
        # Keys of other dialects are compared by nothing but the loss that tells of them.
        if any(loss.severity == "loss" and not loss.field.startswith("extra") for loss in losses):
            noticed.append(bool(silent(said_by_request(request), said_by_request(room.decode_request(wire, at)), ())))
    assert len(noticed) > 40
    assert sum(noticed) > 0.95 * len(noticed)


# ---- made up: all that neutral values can say, and all that each dialect can ------------------

OWN = {
    "openai.chat": test_openai_chat_serving.asked().map(lambda case: case[0]),
    "anthropic.messages": test_anthropic_serving.requests(strict=False),
    "ollama.chat": test_ollama_serving.requests(matrix.endpoint("ollama.chat")),
    "cohere.chat": test_cohere_serving.requests(matrix.endpoint("cohere.chat")),
    "gemini.generate": test_gemini_serving.requests(matrix.endpoint("gemini.generate")),
    "openai.responses": test_openai_responses_serving.requests(),
    "bedrock.converse": test_bedrock_serving.requests(),
}


def asked_by(source):
    """Requests as a client of this dialect asks them: those that only it can, and as it says those of all."""
    room, at = dialect(source), matrix.endpoint(source)

    def as_said(request):
        try:
            return room.decode_request(room.encode_request(request, at).wire, at)
        except InputError:
            return None

    common = generated.requests().map(as_said).filter(lambda request: request is not None)
    return st.one_of(common, common, OWN[source])


def answered_by(source):
    """Answers as a provider of this dialect gives them, whole or streamed."""
    room = dialect(source)

    def as_said(answer, streamed):
        if streamed:
            writer = room.writer(Peek(answer.model, stream=True))
            back = collected(source, b"".join([writer.send(event) for event in as_events(answer)]) + writer.close())
            return back.response() if back.failed is None else None
        reply, _ = room.encode_response(answer, Peek(answer.model))
        return room.decode_response(reply, matrix.endpoint(source)) if reply.status == 200 else None

    return st.builds(as_said, generated.responses(), st.booleans()).filter(lambda answer: answer is not None)


def request_goes_anywhere(request):
    assert [(target, untold) for target in NAMES if (untold := untold_of_request(request, target))] == []


def answer_goes_anywhere(answer):
    assert [(target, untold) for target in NAMES if (untold := untold_of_answer(answer, target))] == []
    assert [(target, untold) for target in NAMES if (untold := untold_of_stream(answer, target))] == []


def often(count, *, looking=False):
    """So many examples: the same ones in every run, unless it looks for new ones."""
    return settings(max_examples=count, deadline=None, derandomize=not looking, suppress_health_check=list(HealthCheck))


@often(120)
@given(generated.requests())
def test_any_request_in_any_dialect_loses_only_what_it_says(asked):
    request_goes_anywhere(asked)


@often(120)
@given(generated.responses())
def test_any_answer_in_any_dialect_loses_only_what_it_says(answer):
    answer_goes_anywhere(answer)


@pytest.mark.parametrize("source", NAMES)
@often(50)
@given(data=st.data())
def test_what_a_client_of_one_dialect_asks_loses_in_another_only_what_it_says(source, data):
    request_goes_anywhere(data.draw(asked_by(source)))


@pytest.mark.parametrize("source", NAMES)
@often(40)
@given(data=st.data())
def test_what_a_provider_of_one_dialect_answers_loses_in_another_only_what_it_says(source, data):
    answer_goes_anywhere(data.draw(answered_by(source)))


@pytest.mark.slow
@pytest.mark.parametrize("source", NAMES)
@often(3000, looking=True)
@given(data=st.data())
def test_many_requests_go_anywhere(source, data):
    request_goes_anywhere(data.draw(asked_by(source)))


@pytest.mark.slow
@pytest.mark.parametrize("source", NAMES)
@often(3000, looking=True)
@given(data=st.data())
def test_many_answers_go_anywhere(source, data):
    answer_goes_anywhere(data.draw(answered_by(source)))


@pytest.mark.slow
@often(10_000, looking=True)
@given(generated.requests(), generated.responses())
def test_many_neutral_requests_and_answers_go_anywhere(asked, answer):
    request_goes_anywhere(asked)
    answer_goes_anywhere(answer)
