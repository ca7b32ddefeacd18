"""Calls as events of OpenTelemetry: failures always, inferences where asked for, what was said on opt-in only."""

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LogRecordProcessor

from polyvox import Client
from polyvox.errors import CallCancelledError, PolyvoxError, ServerError
from polyvox.telemetry import content
from polyvox.testing import Simulator
from polyvox.types import Embeddings, EmbedRequest
from tests.telemetry.helping import KEY, Info, Observed, answered, asked, settings
from tests.telemetry.listed import CONTENT

DETAILS, EXCEPTION = "gen_ai.client.inference.operation.details", "gen_ai.client.operation.exception"


@pytest.fixture(autouse=True)
def nobody_asks_for_content(monkeypatch):
    monkeypatch.delenv(content.SWITCH, raising=False)
    monkeypatch.delenv(content.EVENTS_SWITCH, raising=False)


def test_a_failure_is_an_event_that_belongs_to_its_span():
    with Observed() as seen:
        span = seen.call(Info(asked()), error=ServerError("the prompt was: a wish"))
        (event,) = seen.events
    assert (event.event_name, event.severity_number) == (EXCEPTION, SeverityNumber.WARN)
    assert (event.trace_id, event.span_id) == (span.context.trace_id, span.context.span_id)
    assert event.timestamp == span.end_time
    assert dict(event.attributes) == {
        "exception.type": "polyvox.errors.ServerError", "error.type": "server", "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "acme", "gen_ai.request.model": "m-1",
    }  # fmt: skip


def test_its_words_are_told_where_content_is_without_secrets():
    with Observed(content=True) as seen:
        seen.call(Info(asked()), error=ServerError(f"the prompt was: a wish, {KEY}"))
        (event,) = seen.events
    assert event.attributes["exception.message"] == "the prompt was: a wish, ***"


def test_what_ended_well_or_was_left_is_no_event():
    with Observed() as seen:
        seen.call(Info(asked()), response=answered())
        seen.call(Info(asked()), error=CallCancelledError("left"))
        assert not seen.events


def test_an_inference_is_an_event_where_asked_for_with_what_its_span_says_and_nothing_that_was_said():
    with Observed(events=True) as seen:
        span = seen.call(Info(asked("a wish", seed=3)), response=answered("granted"), seconds=1.0)
        (event,) = seen.events
    assert event.event_name == DETAILS and (event.span_id, event.timestamp) == (span.context.span_id, span.end_time)
    assert dict(event.attributes) == dict(span.attributes) and event.attributes["gen_ai.request.seed"] == 3


def test_what_was_said_is_in_it_as_values_and_not_as_json():
    with Observed(events=True, content=True) as seen:
        seen.call(Info(asked(f"a wish {KEY}")), response=answered("granted"))
        (event,) = seen.events
    said = {name: event.attributes[name] for name in CONTENT if name in event.attributes}
    (wish,), (answer,) = said["gen_ai.input.messages"], said["gen_ai.output.messages"]
    assert wish["parts"][0]["content"] == "a wish ***" and answer["parts"][0]["content"] == "granted"
    assert KEY not in repr(event)


def test_what_is_no_inference_is_no_such_event():
    with Observed(events=True) as seen:
        embed = Info(EmbedRequest(model="e-1", inputs=("a",)), "acme/e-1", operation="embeddings")
        seen.call(embed, response=Embeddings())
        assert not seen.events


@pytest.mark.parametrize(
    ("said", "emit", "in_spans", "in_events", "events"),
    [
        (None, None, False, False, False),
        ("no_content", None, False, False, False),
        ("SPAN_ONLY", None, True, False, False),
        ("event_only", None, False, True, True),
        ("Span_And_Event", None, True, True, True),
        ("true", None, True, True, False),
        ("event_only", "false", False, True, False),
        (None, "true", False, False, True),
    ],
)
def test_the_environment_says_where_content_is_told(monkeypatch, said, emit, in_spans, in_events, events):
    for name, value in ((content.SWITCH, said), (content.EVENTS_SWITCH, emit)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert content.wanted(None, None) == (in_spans, in_events, events)
    assert content.wanted(False, False) == (False, False, False)
    assert content.wanted(True, True) == (True, True, True)


def test_content_for_events_alone_is_in_no_span(monkeypatch):
    monkeypatch.setenv(content.SWITCH, "event_only")
    with Observed() as seen:
        span = seen.call(Info(asked("a wish")), response=answered())
        (event,) = seen.events
    assert "wish" not in span.to_json() and "wish" in repr(event.attributes)


def test_content_for_spans_alone_is_in_no_event(monkeypatch):
    monkeypatch.setenv(content.SWITCH, "span_only")
    with Observed(events=True) as seen:
        span = seen.call(Info(asked("a wish")), error=ServerError("about a wish"))
        events = seen.events
    assert "wish" in span.to_json() and len(events) == 2
    assert "wish" not in repr([dict(event.attributes) for event in events])


@pytest.mark.parametrize("said", [False, True])
def test_no_event_has_the_key(said):
    plan = [{"kind": "status", "status": 401, "body": f'{{"error": {{"message": "bad key {KEY}"}}}}', "at": 1}]
    with Simulator(plan=plan) as simulator, Observed(events=True, content=said) as seen:
        where = simulator.base_url("openai.chat")
        with Client("m-1", base_url=where, api_key=KEY, hooks=[seen.hook], settings=settings()) as client:
            for _ in range(2):
                try:
                    client.ask(f"my key is {KEY}")
                except PolyvoxError:
                    pass
        events = seen.events
    assert [event.event_name for event in events] == [EXCEPTION, DETAILS, DETAILS]
    assert KEY not in repr([(event.body, dict(event.attributes)) for event in events])


def test_a_log_that_raises_loses_no_span_and_no_figure_and_is_told_of_once(caplog):
    class Broken(LogRecordProcessor):
        def on_emit(self, log_record):
            raise RuntimeError("no log: a wish")

        def shutdown(self):
            pass

        def force_flush(self, timeout_millis=30000):
            return True

    with Observed(events=True) as seen:
        seen.logger.add_log_record_processor(Broken())
        for number in range(3):
            span = seen.call(Info(asked(), call=f"c{number}"), response=answered(), seconds=1.0)
        assert span.end_time and seen.points["gen_ai.client.inference.duration"][0][2] == 3
    told = [record.getMessage() for record in caplog.records if record.name.startswith("polyvox")]
    assert len(told) == 1 and "RuntimeError at" in told[0] and "wish" not in told[0]
