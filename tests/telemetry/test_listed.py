"""Every name that the conventions list is told, or the list says why not; and no other name is."""

import msgspec
import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from polyvox.errors import ServerError
from polyvox.telemetry import Prometheus
from polyvox.telemetry.names import names
from polyvox.telemetry.prometheus import METRICS, WATCHED
from polyvox.types import Attempt, Embeddings, EmbedRequest, Message, Text, Tool, Usage
from tests.telemetry import listed
from tests.telemetry.helping import Info, Observed
from tests.telemetry.test_otel import ALL_OF_IT, EVERYTHING

OURS = {
    "polyvox.attempt.number", "polyvox.attempt.deployment", "polyvox.attempt.outcome", "polyvox.attempt.duration",
    "polyvox.attempt.waited", "polyvox.attempt.sent", "http.response.status_code",
}  # fmt: skip
OF_ERRORS = {"exception.type", "exception.message"}


@pytest.fixture(scope="module")
def seen():
    """(spans, metrics by name, events) of calls that say all there is to say."""
    request = msgspec.structs.replace(
        EVERYTHING.request,
        messages=(Message("system", (Text("be kind"),)), *EVERYTHING.request.messages),
        tools=(Tool("look", "Looks.", {"type": "object"}),),
    )
    embed = EmbedRequest(model="e-1", inputs=("a",), dimensions=256, encoding="base64")
    failed = ServerError("no", attempts=(Attempt("acme/m-1", 0.1, "server", None, 503, waited=0.1),) * 2)
    with Observed(content=True, events=True, tokens_by_call=True) as seen:
        seen.call(msgspec.structs.replace(EVERYTHING, request=request), **ALL_OF_IT)
        seen.call(msgspec.structs.replace(EVERYTHING, call="c2"), error=failed, seconds=0.2)
        seen.call(
            Info(embed, "acme/e-1", operation="embeddings", call="c3"),
            response=Embeddings(usage=Usage(3, source="provider")), seconds=0.5,
        )  # fmt: skip
        return seen.spans, seen.points, seen.events


def test_every_attribute_of_the_list_is_told_or_it_is_said_why_not(seen):
    spans, *_ = seen
    assert {name for span in spans for name in span.attributes} == listed.TOLD
    assert {name for span in spans for event in span.events for name in event.attributes} == OURS


def test_every_metric_of_the_list_is_told_or_it_is_said_why_not(seen):
    _, points, _ = seen
    assert set(points) == (listed.METRICS | listed.OLDER_METRICS) - set(listed.UNTOLD)


def test_every_event_of_the_list_is_told_with_names_of_the_list(seen):
    *_, events = seen
    assert {event.event_name for event in events} == listed.EVENTS
    said = {name for event in events for name in event.attributes}
    assert said <= listed.TOLD | OF_ERRORS and OF_ERRORS <= said


def test_the_dimensions_of_figures_are_names_of_the_list_too(seen):
    _, points, _ = seen
    said = {name for found in points.values() for attributes, *_ in found for name in attributes}
    assert said <= listed.TOLD | {"gen_ai.token.modality", "gen_ai.token.type"} and "server.port" in said


def test_what_a_span_must_have_is_there_when_it_begins():
    begin = {row.latest for row in names().attributes.values() if row.at == "start"}
    assert begin == listed.REQUIRED | {
        "gen_ai.request.model", "gen_ai.request.stream", "gen_ai.output.type", "server.address", "server.port",
    }  # fmt: skip


@pytest.mark.parametrize("need", ["required", "conditional", "recommended", "content"])
def test_the_table_says_of_each_attribute_how_much_it_is_needed(need):
    wanted = {
        "required": listed.REQUIRED,
        "conditional": listed.CONDITIONAL,
        "recommended": listed.RECOMMENDED | listed.EMBEDDINGS,
        "content": listed.CONTENT,
    }[need]
    assert {row.latest for row in names().attributes.values() if row.need == need} == wanted & listed.TOLD


def test_a_name_is_untold_only_if_it_is_listed_and_no_older_name_is_left_out():
    assert set(listed.UNTOLD) <= listed.ATTRIBUTES | listed.METRICS | listed.OLDER_METRICS
    published = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    requests = {name for name in published if name.startswith(("gen_ai.request.", "gen_ai.response.", "gen_ai.usage."))}
    gone = {"gen_ai.usage.completion_tokens", "gen_ai.usage.prompt_tokens"}
    told = {name for row in names().attributes.values() for name in row.names("both")}
    assert requests - gone <= told


def test_every_metric_of_prometheus_is_there_or_can_be_watched():
    assert set(listed.PROMETHEUS) <= set(METRICS) | set(WATCHED)
    for name, labels in listed.PROMETHEUS.items():
        if labels is not None:
            assert labels <= set(METRICS[name][2]), name
    assert "polyvox_build_info" in Prometheus().text()
