"""Calls as OpenTelemetry spans and metrics: names and values are those the GenAI conventions list."""

import asyncio
import json
import threading
import time

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult

from polyvox import AsyncClient, Client
from polyvox.errors import InputError, PolyvoxError, ServerError, StreamInterruptedError
from polyvox.telemetry import OpenTelemetry
from polyvox.telemetry.underway import MOST
from polyvox.testing import Simulator
from polyvox.types import (
    Attempt,
    Embeddings,
    EmbedRequest,
    File,
    Image,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from tests.telemetry import listed
from tests.telemetry.helping import KEY, Info, Observed, answered, asked, awaited, settings
from tests.telemetry.listed import CHOICE, CONDITIONAL, CONTENT, RECOMMENDED, REQUIRED, UNTOLD

V1_41 = {"gen_ai.usage.cache_creation.input_tokens"}
LISTED = REQUIRED | CONDITIONAL | RECOMMENDED

EVERYTHING = Info(
    asked(
        n=2, seed=3, top_k=4, frequency_penalty=0.1, max_tokens=50, presence_penalty=0.2, stop=("END",),
        temperature=0.3, top_p=0.4, thinking=Thinking(effort="high"), response_format=ResponseFormat("json"),
        extra={"a.dialect": {"previous_response_id": "resp_1"}}, stream=True,
    ),
    call="c1", base_url="https://llm.example/v1", session="s1", stream=True,
)  # fmt: skip
ALL_OF_IT = {
    "response": answered(
        id="r1", model="m-1-2026", reason="compaction",
        usage=Usage(100, 50, 40, 30, reasoning=20, audio_input=10, audio_output=5, image_input=7, source="provider"),
    ),
    "first_token": 0.25, "seconds": 1.25,
}  # fmt: skip


@pytest.fixture(autouse=True)
def nobody_asks_for_content(monkeypatch):
    monkeypatch.delenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", raising=False)


class Nowhere(SpanExporter):
    def export(self, spans):
        return SpanExportResult.SUCCESS


# ---- attributes -------------------------------------------------------------------------------


def test_all_that_can_be_known_has_the_names_of_the_list_and_no_others():
    with Observed() as seen:
        span = seen.call(EVERYTHING, **ALL_OF_IT)
    assert set(span.attributes) == LISTED - set(UNTOLD) - {"error.type"}  # no call fails and has all of an answer
    assert span.name == "chat m-1" and span.kind is trace.SpanKind.CLIENT
    told = {name: span.attributes[name] for name in span.attributes}
    assert told == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "acme", "gen_ai.request.model": "m-1",
        "server.address": "llm.example", "server.port": 443, "gen_ai.conversation.id": "s1",
        "gen_ai.output.type": "json", "gen_ai.request.choice.count": 2, "gen_ai.request.seed": 3,
        "gen_ai.request.stream": True, "gen_ai.request.top_k": 4, "gen_ai.request.frequency_penalty": 0.1,
        "gen_ai.request.max_tokens": 50, "gen_ai.request.presence_penalty": 0.2,
        "gen_ai.request.previous_response.id": "resp_1", "gen_ai.request.reasoning.level": "high",
        "gen_ai.request.stop_sequences": ("END",), "gen_ai.request.temperature": 0.3, "gen_ai.request.top_p": 0.4,
        "gen_ai.conversation.compacted": True, "gen_ai.response.finish_reasons": ("compaction",),
        "gen_ai.response.id": "r1", "gen_ai.response.model": "m-1-2026",
        "gen_ai.response.time_to_first_chunk": 0.25, "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 50, "gen_ai.usage.cache_read.input_tokens": 40,
        "gen_ai.usage.cache_write.input_tokens": 30, "gen_ai.usage.reasoning.output_tokens": 20,
        "gen_ai.usage.audio.input_tokens": 10, "gen_ai.usage.audio.output_tokens": 5,
        "gen_ai.usage.image.input_tokens": 7,
    }  # fmt: skip


def test_the_older_version_has_the_older_names():
    with Observed(semconv="v1.41") as seen:
        span = seen.call(EVERYTHING, **ALL_OF_IT)
    newer = {
        "gen_ai.usage.cache_write.input_tokens", "gen_ai.request.reasoning.level", "gen_ai.conversation.compacted",
        "gen_ai.request.previous_response.id", "gen_ai.usage.audio.input_tokens", "gen_ai.usage.audio.output_tokens",
        "gen_ai.usage.image.input_tokens",
    }  # fmt: skip
    assert not set(span.attributes) & newer
    assert set(span.attributes) <= LISTED | V1_41
    assert span.attributes["gen_ai.usage.cache_creation.input_tokens"] == 30


def test_both_has_the_names_of_all_versions_with_the_same_values():
    with Observed(semconv="both") as seen:
        span = seen.call(EVERYTHING, **ALL_OF_IT)
    said = span.attributes
    assert said["gen_ai.usage.cache_creation.input_tokens"] == said["gen_ai.usage.cache_write.input_tokens"] == 30
    assert said["gen_ai.system"] == said["gen_ai.provider.name"] == "acme"
    assert said["gen_ai.usage.prompt_tokens"] == 100 and said["gen_ai.usage.completion_tokens"] == 50


@pytest.mark.parametrize("name", ["semconv", "metrics"])
def test_a_version_that_is_none_is_refused(name):
    with pytest.raises(InputError, match=r"v1\.40") as told:
        OpenTelemetry(**{name: "v1.40"})
    assert "latest, v1.41, both" in told.value.hint and told.value.param == name


def test_a_sampler_sees_who_is_asked_before_anything_is():
    seen_by_sampler = []

    class Looking(Sampler):
        def should_sample(self, parent, trace_id, name, kind=None, attributes=None, links=None, trace_state=None):
            seen_by_sampler.append((name, kind, dict(attributes)))
            return SamplingResult(Decision.DROP)

        def get_description(self):
            return "looking"

    with Observed(sampler=Looking()) as seen:
        seen.hook.on_call(EVERYTHING)
        seen.hook.on_done(Info(EVERYTHING.request, call="c1", **ALL_OF_IT))
        assert not seen.spans
        # What is not sampled is counted all the same.
        assert seen.points["gen_ai.client.inference.duration"][0][1] == 1.25
    ((name, kind, attributes),) = seen_by_sampler
    assert (name, kind) == ("chat m-1", trace.SpanKind.CLIENT)
    wanted = REQUIRED | {"gen_ai.request.model", "server.address", "server.port"}
    assert wanted <= set(attributes)


def test_of_a_call_that_is_not_sampled_nothing_is_looked_at_but_what_is_counted(caplog):
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(f"{name} was looked at")

    with Observed(sampler=ALWAYS_OFF) as seen:
        begin = Info(Untouchable(), call="c1")
        seen.hook.on_call(begin)
        seen.hook.on_done(Info(begin.request, call="c1", response=answered(), seconds=1.5))
        assert seen.points["gen_ai.client.inference.duration"][0][1] == 1.5
    assert not caplog.records


def test_a_sampler_and_a_processor_do_not_see_what_was_said_at_the_start():
    begun = []

    class Looking(SimpleSpanProcessor):
        def on_start(self, span, parent_context=None):
            begun.append(dict(span.attributes))

    with Observed(Looking(Nowhere()), content=True) as seen:
        seen.hook.on_call(Info(asked("a wish")))
    assert begun and "wish" not in repr(begun)


def test_an_answer_from_our_own_cache_used_no_tokens():
    with Observed() as seen:
        span = seen.call(EVERYTHING, **ALL_OF_IT, own_cache=True)
        points = seen.points
    assert not [name for name in (*span.attributes, *points) if "usage" in name]
    assert span.attributes["gen_ai.response.model"] == "m-1-2026"


def test_an_embedding_says_its_length_and_form():
    request = EmbedRequest(model="e-1", inputs=("a",), dimensions=256, encoding="base64")
    with Observed() as seen:
        span = seen.call(
            Info(request, "acme/e-1", operation="embeddings"),
            response=Embeddings(usage=Usage(3, source="provider")),
            seconds=0.5,
        )
        points = seen.points
    assert span.name == "embeddings e-1"
    assert span.attributes["gen_ai.embeddings.dimension.count"] == 256
    assert span.attributes["gen_ai.request.encoding_formats"] == ("base64",)
    assert "gen_ai.response.finish_reasons" not in span.attributes
    assert set(points) == {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}
    assert points["gen_ai.client.operation.duration"][0][1:] == (0.5, 1)


def test_an_error_has_its_kind_and_nothing_of_its_words():
    error = ServerError("the prompt was: a secret wish", attempts=(Attempt("acme/m-1", 0.1, "server", "wish", 503),))
    with Observed() as seen:
        span = seen.call(Info(asked()), error=error)
    assert span.attributes["error.type"] == "server"
    assert span.status.status_code is trace.StatusCode.ERROR and span.status.description is None
    assert "wish" not in span.to_json()
    assert span.events[0].attributes["http.response.status_code"] == 503


def test_attempts_are_events_where_there_was_more_than_one_each_at_its_time():
    attempts = (Attempt("a/m", 0.5, "server", None, 500), Attempt("b/m", 0.25, "ok", waited=2.0))
    with Observed(time_ns=lambda: 1_000_000_000) as seen:
        span = seen.call(Info(asked()), response=answered(attempts=attempts))
        alone = seen.call(Info(asked()), response=answered(attempts=attempts[1:]))
    first, second = span.events
    assert (first.name, first.timestamp, second.timestamp) == ("polyvox.attempt", 1_000_000_000, 3_500_000_000)
    assert dict(first.attributes) == {
        "polyvox.attempt.number": 1, "polyvox.attempt.deployment": "a/m", "polyvox.attempt.outcome": "server",
        "polyvox.attempt.duration": 0.5, "polyvox.attempt.waited": 0.0, "polyvox.attempt.sent": "unknown",
        "http.response.status_code": 500,
    }  # fmt: skip
    assert second.attributes["polyvox.attempt.waited"] == 2.0
    assert not alone.events


# ---- metrics ----------------------------------------------------------------------------------

KEYS = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "acme", "gen_ai.request.model": "m-1",
    "gen_ai.response.model": "m-1-2026", "server.address": "llm.example", "server.port": 443,
}  # fmt: skip
NEW = listed.INFERENCE_METRICS - set(UNTOLD)
OLD = listed.OLDER_METRICS - set(UNTOLD)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, NEW | OLD),
        ({"metrics": "latest"}, NEW),
        ({"metrics": "v1.41"}, OLD),
        ({"metrics": "latest", "tokens_by_call": True}, NEW | CHOICE),
        ({"metrics": None}, set()),
    ],
)
def test_metrics_have_the_names_that_are_set(options, wanted):
    with Observed(**options) as seen:
        seen.call(EVERYTHING, **ALL_OF_IT)
        assert set(seen.points) == wanted


def test_the_figures_are_those_of_the_call():
    with Observed() as seen:
        seen.call(EVERYTHING, **ALL_OF_IT)
        points = seen.points
    one = {name: points[name] for name in NEW | OLD if len(points[name]) == 1}
    assert one["gen_ai.client.inference.duration"] == [(KEYS, 1.25, 1)]
    assert one["gen_ai.client.operation.duration"] == [(KEYS, 1.25, 1)]
    assert one["gen_ai.client.inference.time_to_first_chunk"] == [(KEYS, 0.25, 1)]
    assert one["gen_ai.client.inference.usage.cache_read.input_tokens"] == [(KEYS, 40, None)]
    typed = {attributes["gen_ai.token.type"]: value for attributes, value, _ in points["gen_ai.client.token.usage"]}
    assert typed == {"input": 100, "output": 50}


def test_tokens_of_known_modalities_are_told_apart_and_add_up():
    with Observed() as seen:
        seen.call(EVERYTHING, **ALL_OF_IT)
        points = seen.points
    went_in = {
        attributes.get("gen_ai.token.modality"): value
        for attributes, value, _ in points["gen_ai.client.inference.usage.input_tokens"]
    }
    assert went_in == {"audio": 10, "image": 7, None: 83}


def test_the_figures_of_a_stream_that_was_cut_have_its_error():
    with Observed() as seen:
        cut = StreamInterruptedError("cut", partial=answered("ha", None))
        seen.call(EVERYTHING, error=cut, first_token=0.1, seconds=9.0)
        points = seen.points
    assert points["gen_ai.client.inference.duration"][0][0]["error.type"] == "stream_interrupted"


def test_invented_names_of_models_make_no_series():
    with Observed() as seen:
        for number in range(700):
            request = asked()
            seen.hook.on_call(Info(request, f"acme/m-{number}"))
            seen.hook.on_done(Info(request, f"acme/m-{number}", response=answered(), seconds=1.0))
            if not number % 100:
                seen.hook.flush()
        points = seen.points["gen_ai.client.inference.duration"]
        found = {attributes["gen_ai.request.model"] for attributes, *_ in points}
    assert len(found) == 501 and "other" in found


# ---- content ----------------------------------------------------------------------------------

SPOKEN = asked("a wish", tools=(Tool("look", "Looks.", {"type": "object", "properties": {"k": {"default": KEY}}}),))
TURNS = (
    Message("system", (Text("be kind"),)),
    *SPOKEN.messages,
    Message("user", (Image(data=b"\x89PNG-bytes", media_type="image/png"), Image(url="https://pics.example/a.png"))),
    Message(
        "user",
        (
            Image(url="data:image/png;base64,UE5H"),
            File(file_id="file-7", media_type="application/pdf"),
            Opaque("a.dialect", "server_tool", {"raw": "PNG"}),
            Refusal("no"),
        ),
        name="ann",
    ),
    Message("assistant", (Reasoning("hm"), ToolCall("t1", "look", f'{{"api_key": "{KEY}"}}'))),
    Message("tool", (ToolResult("t1", (Text("found"),)),)),
)
REQUEST = asked(tools=SPOKEN.tools)


def with_turns():
    from msgspec.structs import replace

    return replace(REQUEST, messages=TURNS)


def test_nothing_that_was_said_is_told_unless_asked_for():
    with Observed() as seen:
        span = seen.call(Info(with_turns()), response=answered("granted"))
    assert not set(span.attributes) & CONTENT
    for words in ("wish", "be kind", "granted", "look", KEY):
        assert words not in span.to_json()


@pytest.mark.parametrize("how", ["argument", "true", "SPAN_ONLY"])
def test_what_was_said_is_told_where_asked_for_without_secrets_and_without_bytes(how, monkeypatch):
    if how != "argument":
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", how)
    with Observed(content=True if how == "argument" else None) as seen:
        span = seen.call(Info(with_turns()), response=answered("granted"))
    said = {name: json.loads(span.attributes[name]) for name in CONTENT}
    assert said["gen_ai.system_instructions"] == [{"type": "text", "content": "be kind"}]
    assert said["gen_ai.output.messages"] == [
        {"role": "assistant", "parts": [{"type": "text", "content": "granted"}], "finish_reason": "stop"}
    ]
    user, pictures, others, model, tool = said["gen_ai.input.messages"]
    assert user == {"role": "user", "parts": [{"type": "text", "content": "a wish"}]}
    assert pictures["parts"] == [
        {"type": "blob", "modality": "image", "mime_type": "image/png", "size": 10},
        {"type": "uri", "modality": "image", "mime_type": None, "uri": "https://pics.example/a.png"},
    ]
    assert others["name"] == "ann" and others["parts"] == [
        {"type": "blob", "modality": "image", "mime_type": None, "size": 26},
        {"type": "file", "modality": "file", "mime_type": "application/pdf", "file_id": "file-7"},
        {"type": "server_tool"},
        {"type": "text", "content": "no"},
    ]
    assert [part["type"] for part in model["parts"]] == ["reasoning", "tool_call"]
    assert tool["parts"][0] == {
        "type": "tool_call_response", "id": "t1", "response": [{"type": "text", "content": "found"}],
    }  # fmt: skip
    assert said["gen_ai.tool.definitions"][0]["name"] == "look"
    assert KEY not in span.to_json() and "PNG" not in span.to_json()


def test_a_text_that_is_no_unicode_can_be_told_all_the_same():
    with Observed(content=True) as seen:
        span = seen.call(Info(asked("lone \ud800"), "acme/m\ud800"), response=answered("\ud800"))
    assert span.name == "chat m?" and "lone ?" in span.attributes["gen_ai.input.messages"]


def test_the_texts_of_an_embedding_are_told_and_its_vectors_are_not():
    request = EmbedRequest(model="e-1", inputs=("a wish", f"key {KEY}"))
    with Observed(content=True) as seen:
        span = seen.call(Info(request, "acme/e-1", operation="embeddings"), response=Embeddings(vectors=((0.125,),)))
    (said,) = json.loads(span.attributes["gen_ai.input.messages"])
    assert [part["content"] for part in said["parts"]] == ["a wish", "key ***"]
    assert "gen_ai.output.messages" not in span.attributes and "0.125" not in span.to_json()


def test_an_argument_outranks_the_environment(monkeypatch):
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    with Observed(content=False) as seen:
        assert not set(seen.call(Info(asked()), response=answered()).attributes) & CONTENT


# ---- parents and children ---------------------------------------------------------------------


def test_a_span_is_the_child_of_the_one_where_the_call_was_made():
    with Observed() as seen, Client("demo", hooks=[seen.hook], settings=settings()) as client:
        with seen.tracer.get_tracer("program").start_as_current_span("outer") as outer:
            client.ask("hello")
            client.stream("hello").finish()
        spans = [span for span in seen.spans if span.name == "chat demo"]
    assert [span.parent.span_id for span in spans] == [outer.get_span_context().span_id] * 2


@awaited
async def test_while_a_whole_answer_is_awaited_its_span_is_the_current_one_and_then_no_more():
    with Observed() as seen:
        with seen.tracer.get_tracer("program").start_as_current_span("outer") as outer:
            begin = Info(asked(), call="c1")
            seen.hook.on_call(begin)
            inside = trace.get_current_span().get_span_context().span_id
            seen.hook.on_done(Info(begin.request, call="c1", response=answered()))
            assert trace.get_current_span() is outer
        assert {span.name: span.context.span_id for span in seen.spans}["chat m-1"] == inside


@awaited
async def test_between_the_pieces_of_a_stream_the_callers_own_span_is_the_current_one():
    with Observed() as seen:
        before = trace.get_current_span()
        seen.hook.on_call(Info(asked(stream=True), call="c1", stream=True))
        assert trace.get_current_span() is before


@awaited
async def test_an_end_told_in_another_task_disturbs_nobody(caplog):
    with Observed() as seen:
        begin = Info(asked(), call="c1")

        async def start():
            seen.hook.on_call(begin)

        await asyncio.create_task(start())
        seen.hook.on_done(Info(begin.request, call="c1", response=answered()))
        assert len(seen.spans) == 1
    assert not caplog.records


# ---- over the simulated provider ---------------------------------------------------------------


def run(plan, make, **options):
    """What is seen of what a client does with a simulated provider."""
    with Simulator(plan=plan) as simulator, Observed(**options) as seen:
        with Client(
            "m-1", base_url=simulator.base_url("openai.chat"), api_key=KEY, hooks=[seen.hook], settings=settings()
        ) as client:
            try:
                make(client)
            except PolyvoxError:
                pass
        spans, points = seen.spans, seen.points
        return spans, points, simulator.counts


def test_a_chat_is_told_as_the_provider_counted_it():
    spans, points, counts = run([], lambda client: [client.ask("hello", max_tokens=400) for _ in range(3)])
    assert len(spans) == counts.answers == 3
    for span in spans:
        assert REQUIRED <= set(span.attributes) <= LISTED
        assert span.attributes["gen_ai.request.max_tokens"] == 400
        assert span.status.status_code is trace.StatusCode.UNSET and not span.events
    assert points["gen_ai.client.inference.usage.input_tokens"][0][1] == counts.tokens_in
    assert points["gen_ai.client.inference.usage.output_tokens"][0][1] == counts.tokens_out
    assert points["gen_ai.client.inference.duration"][0][2] == 3


def test_a_stream_says_that_it_is_one():
    (span,), _, counts = run([], lambda client: client.stream("hello").finish())
    assert span.attributes["gen_ai.request.stream"] is True
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert span.attributes["gen_ai.usage.output_tokens"] == counts.tokens_out


def test_a_tool_call_is_why_it_ended():
    def weather(city: str) -> str:
        """The weather."""
        return city

    tool = Tool("weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
    (span,), *_ = run([], lambda client: client.ask("weather in Rome?", tools=[tool], tool_choice="required"))
    assert span.attributes["gen_ai.response.finish_reasons"] == ("tool_calls",)
    assert "weather" not in span.to_json()


def test_a_retry_is_one_span_with_both_attempts():
    (span,), points, counts = run([{"kind": "status", "status": 503, "at": 1}], lambda client: client.ask("hello"))
    assert counts.requests == 2
    assert [event.attributes["polyvox.attempt.outcome"] for event in span.events] == ["server", "ok"]
    assert "error.type" not in span.attributes
    assert points["gen_ai.client.inference.duration"][0][2] == 1


def test_an_error_is_told_by_its_kind():
    (span,), points, _ = run([{"kind": "status", "status": 400}], lambda client: client.ask("hello"))
    assert span.attributes["error.type"] == "invalid_request"
    assert "gen_ai.response.finish_reasons" not in span.attributes
    assert points["gen_ai.client.inference.duration"][0][0]["error.type"] == "invalid_request"


def test_a_cut_stream_ended_with_an_error():
    plan = [{"kind": "cut", "after": 600}]
    (span,), *_ = run(plan, lambda client: client.stream("hello").finish())
    assert span.attributes["error.type"] == "stream_interrupted"
    assert span.attributes["gen_ai.response.finish_reasons"] == ("error",)


def test_embeddings_are_told_as_such():
    (span,), points, counts = run([], lambda client: client.embed("hello", model="m-1"))
    assert span.name == "embeddings m-1"
    assert span.attributes["gen_ai.usage.input_tokens"] == counts.tokens_in
    assert "gen_ai.client.inference.duration" not in points


@pytest.mark.parametrize("content", [False, True])
def test_no_span_and_no_figure_has_the_key(content):
    plan = [{"kind": "status", "status": 401, "body": f'{{"error": {{"message": "bad key {KEY}"}}}}', "at": 1}]
    spans, points, _ = run(plan, lambda client: client.ask(f"my key is {KEY}"), content=content)
    spans += run([], lambda client: client.ask(f"my key is {KEY}"), content=content)[0]
    assert len(spans) == 2
    assert KEY not in "".join(span.to_json() for span in spans) + repr(points)


@awaited
async def test_many_calls_at_a_time_have_a_span_each():
    async with Simulator() as simulator:
        with Observed() as seen:
            async with AsyncClient(
                "m-1", base_url=simulator.base_url("openai.chat"), api_key=KEY, hooks=[seen.hook], settings=settings()
            ) as client:
                await asyncio.gather(*[client.ask(f"hello {number}") for number in range(20)])
            assert len({span.context.span_id for span in seen.spans}) == 20
            assert repr(seen.hook) == "<OpenTelemetry, 0 calls under way>"


# ---- observers that fail ----------------------------------------------------------------------


class Raising(SpanExporter):
    def export(self, spans):
        raise RuntimeError("the collector is on fire: a wish")


class Hanging(SpanExporter):
    def __init__(self):
        self.go_on = threading.Event()

    def export(self, spans):
        self.go_on.wait()


def test_an_exporter_that_raises_harms_no_call(caplog):
    with Observed(SimpleSpanProcessor(Raising())) as seen:
        with Client("demo", hooks=[seen.hook], settings=settings()) as client:
            assert client.ask("a wish").text
        assert seen.points["gen_ai.client.inference.duration"][0][2] == 1
    assert "polyvox" not in {record.name for record in caplog.records}


def test_a_processor_that_raises_harms_no_call_and_is_told_of_once(caplog):
    class Broken(SimpleSpanProcessor):
        def on_start(self, span, parent_context=None):
            raise RuntimeError("no start: a wish")

    with Observed(Broken(Raising())) as seen, Client("demo", hooks=[seen.hook], settings=settings()) as client:
        for _ in range(3):
            assert client.ask("a wish").text
    told = [record.getMessage() for record in caplog.records if record.name.startswith("polyvox")]
    assert len(told) == 1 and "RuntimeError at" in told[0] and "wish" not in told[0]


def test_an_exporter_that_hangs_holds_up_no_call_and_what_waits_is_bounded():
    hanging = Hanging()
    with Observed(SimpleSpanProcessor(hanging)) as seen:
        with Client("demo", hooks=[seen.hook], settings=settings()) as client:
            began = time.monotonic()
            for _ in range(3):
                assert client.ask("hello").text
            for _ in range(2100):
                begin = Info(asked())
                seen.hook.on_call(begin)
                seen.hook.on_done(Info(begin.request, response=answered()))
            assert time.monotonic() - began < 5
        assert not seen.hook.flush(0.05)
        assert seen.hook.dropped >= 50
        hanging.go_on.set()
        assert seen.hook.flush(20)


def test_a_key_that_stands_where_none_belongs_is_masked(caplog):
    request = asked(stop=(KEY,), thinking=Thinking(effort=KEY), extra={"d": {"previous_response_id": KEY}})
    with Observed() as seen:
        span = seen.call(Info(request, f"acme/{KEY}", session=KEY), response=answered(attempts=(
            Attempt(f"acme/{KEY}", outcome="server"), Attempt(f"acme/{KEY}"),
        )))  # fmt: skip
        assert KEY not in span.to_json() + repr(seen.points)
    assert span.attributes["gen_ai.request.stop_sequences"] == ("***",) and span.name == "chat ***"


def test_a_call_whose_end_is_never_told_is_let_go_of_in_time():
    with Observed() as seen:
        for number in range(MOST + 2):
            seen.hook.on_call(Info(asked(), call=f"c{number}", stream=True))
        spans = seen.spans
    assert [span.attributes["error.type"] for span in spans] == ["_OTHER"] * 2
    assert repr(seen.hook) == f"<OpenTelemetry, {MOST} calls under way>"


def test_a_request_that_cannot_be_told_leaves_no_span_open(caplog):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with Observed(content=True) as seen:
        span = seen.call(Info(asked(tools=(Tool("t", None, {"deep": deep}),), seed=3)), response=answered())
    assert (
        span.end_time
        and span.attributes["gen_ai.request.seed"] == 3
        and "gen_ai.tool.definitions" not in span.attributes
    )
    assert "RecursionError" in caplog.text
    while deep:  # freed one by one: its own end would be as deep
        deep = deep[0]


def test_an_end_without_a_beginning_and_a_beginning_without_an_end_are_harmless():
    with Observed() as seen:
        seen.hook.on_done(Info(asked(), response=answered()))
        assert not seen.spans
        seen.hook.on_call(Info(asked()))
    assert repr(seen.hook) == "<OpenTelemetry, 1 calls under way>"


def test_after_close_nothing_is_told():
    with Observed() as seen:
        seen.call(Info(asked()), response=answered())
        assert seen.hook.close()
        seen.hook.on_call(begin := Info(asked()))
        seen.hook.on_done(Info(begin.request, response=answered()))
        assert len(seen.exporter.get_finished_spans()) == 1


# ---- what only an engine can tell --------------------------------------------------------------


def test_the_time_to_the_first_chunk_is_that_of_the_stream():
    with Simulator(latency=0.1) as simulator, Observed() as seen:
        where = simulator.base_url("openai.chat")
        with Client("m-1", base_url=where, api_key=KEY, hooks=[seen.hook], settings=settings()) as client:
            began = time.monotonic()
            client.stream("hello").finish()
            took = time.monotonic() - began
        (span,), points = seen.spans, seen.points
    assert 0.09 <= span.attributes["gen_ai.response.time_to_first_chunk"] <= took
    assert points["gen_ai.client.inference.time_to_first_chunk"][0][2] == 1


@awaited
async def test_a_call_that_is_cancelled_has_an_end_and_its_span_is_current_no_more():
    async with Simulator(latency=30.0) as simulator:
        with Observed() as seen:
            async with AsyncClient(
                "m-1", base_url=simulator.base_url("openai.chat"), api_key=KEY, hooks=[seen.hook], settings=settings()
            ) as client:
                before = trace.get_current_span()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await client.ask("hello")
                assert trace.get_current_span() is before
            (span,) = seen.spans
    assert span.attributes["error.type"] == "cancelled"


@awaited
async def test_a_stream_that_is_left_has_an_end():
    async with Simulator(token_rate=20) as simulator:
        with Observed() as seen:
            async with AsyncClient(
                "m-1", base_url=simulator.base_url("openai.chat"), api_key=KEY, hooks=[seen.hook], settings=settings()
            ) as client:
                async with client.stream("hello") as words:
                    async for _ in words:
                        break
            (span,) = seen.spans
    assert span.attributes["error.type"] == "cancelled"
    assert span.attributes["gen_ai.response.finish_reasons"] == ("error",)


def test_what_is_done_for_a_call_is_below_its_span():
    class Answering:
        name = "mine"

        def __init__(self, tracer):
            self.tracer = tracer

        async def ask(self, request):
            with self.tracer.start_as_current_span("inner"):
                return "hi"

    with Observed() as seen:
        backend = Answering(seen.tracer.get_tracer("program"))
        with Client("any", backend=backend, hooks=[seen.hook], settings=settings()) as client:
            client.ask("hello")
        spans = {span.name: span for span in seen.spans}
    assert spans["inner"].parent.span_id == spans["chat any"].context.span_id
