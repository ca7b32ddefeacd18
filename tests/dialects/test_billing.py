"""How an answer is billed is read from where each protocol says it: the tier that served, and what is counted beside
tokens."""

import json

import pytest

from polyvox.dialects import Endpoint, Reply, dialect
from polyvox.dialects.billing import asked_for, billed, tool_units, without_bound
from polyvox.dialects.collect import Collector
from polyvox.media import Pictures, Transcript
from polyvox.types import Opaque, Request, Response, Tool, Usage


def answer(name, body):
    return dialect(name).decode_response(Reply(200, {}, json.dumps(body).encode()), Endpoint(origin="p/m"))


def chat(**more):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return answer("openai.chat", {"object": "chat.completion", "choices": [choice], "usage": usage, **more})


def responses(*items, **more):
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    said = {"type": "message", "role": "assistant", "id": "m", "content": [{"type": "output_text", "text": "Hi"}]}
    body = {"object": "response", "status": "completed", "output": [*items, said], "usage": usage, **more}
    return answer("openai.responses", body)


def message(**usage):
    body = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
    }
    return answer("anthropic.messages", {**body, "usage": {"input_tokens": 5, "output_tokens": 2, **usage}})


def candidate(parts=({"text": "Hi"},), beside=(), **usage):
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7, **usage}
    one = {"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP", **dict(beside)}
    return answer("gemini.generate", {"candidates": [one], "usageMetadata": counts})


def converse(**more):
    said = {"message": {"role": "assistant", "content": [{"text": "Hi"}]}}
    usage = {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7}
    return answer("bedrock.converse", {"output": said, "stopReason": "end_turn", "usage": usage, **more})


# ---- tiers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "name", "wanted"),
    [
        (chat(service_tier="flex"), "openai.chat", {"service_tier": "flex"}),
        (chat(service_tier="default"), "openai.chat", {}),
        (chat(service_tier="on_demand"), "openai.chat", {}),
        (chat(service_tier=None), "openai.chat", {}),
        (chat(service_tier=7), "openai.chat", {}),
        (responses(service_tier="priority"), "openai.responses", {"service_tier": "priority"}),
        (message(service_tier="standard"), "anthropic.messages", {}),
        (message(service_tier="priority"), "anthropic.messages", {"service_tier": "priority"}),
        (message(service_tier="batch"), "anthropic.messages", {"processing": "batch"}),
        (message(speed="fast"), "anthropic.messages", {"speed": "fast"}),
        (message(inference_geo="us"), "anthropic.messages", {"inference_geo": "us"}),
        (message(inference_geo="global"), "anthropic.messages", {}),
        (candidate(serviceTier="flex"), "gemini.generate", {"service_tier": "flex"}),
        (candidate(trafficType="ON_DEMAND"), "gemini.generate", {}),
        (candidate(trafficType="ON_DEMAND_PRIORITY"), "gemini.generate", {"service_tier": "priority"}),
        (candidate(trafficType="PROVISIONED_THROUGHPUT"), "gemini.generate", {"service_tier": "provisioned"}),
        (converse(serviceTier={"type": "flex"}), "bedrock.converse", {"service_tier": "flex"}),
        (converse(serviceTier={"type": "default"}), "bedrock.converse", {}),
        (converse(performanceConfig={"latency": "optimized"}), "bedrock.converse", {"latency": "optimized"}),
    ],
)  # fmt: skip
def test_the_tier_that_served_is_found_where_the_protocol_says_it(response, name, wanted):
    assert billed(response, name).when == wanted


@pytest.mark.parametrize(
    ("served", "asked", "wanted"),
    [
        ("default", "priority", {}),
        ("flex", None, {"service_tier": "flex"}),
        (None, "flex", {"service_tier": "flex"}),
        ("auto", "flex", {"service_tier": "flex"}),
        (None, "auto", {}),
    ],
)
def test_the_tier_that_served_goes_before_the_one_asked_for(served, asked, wanted):
    assert billed(chat(service_tier=served), "openai.chat", asked).when == wanted


def test_a_stream_says_its_tier_too():
    events = [
        {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}], "service_tier": "flex"},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}, "service_tier": "flex"},
    ]
    reader, collector = dialect("openai.chat").reader(Endpoint(origin="p/m")), Collector()
    data = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    for event in [*reader.feed(data.encode()), *reader.close()]:
        collector.add(event)
    assert billed(collector.response(), "openai.chat").when == {"service_tier": "flex"}


def test_a_request_for_the_usual_tier_asks_for_nothing():
    assert asked_for(Request("m")) == asked_for(Request("m", service_tier="auto")) == {}
    assert asked_for(Request("m", service_tier="Flex")) == {"service_tier": "flex"}


# ---- units ------------------------------------------------------------------------------------


def test_searches_count_and_pages_opened_do_not():
    searched = {"type": "web_search_call", "id": "1", "status": "completed", "action": {"type": "search", "query": "x"}}
    opened = {**searched, "id": "2", "action": {"type": "open_page", "url": "https://a.b"}}
    files = {"type": "file_search_call", "id": "3", "status": "completed", "queries": ["x"]}
    found = billed(responses(searched, opened, searched | {"id": "4"}, files), "openai.responses").units
    assert found == {"web_searches_kcount": 2, "storage_searches_kcount": 1}


def test_containers_and_pictures_are_units_that_no_table_of_tokens_has():
    ran = {"type": "code_interpreter_call", "id": "1", "status": "completed", "code": "1", "container_id": "c"}
    drawn = {"type": "image_generation_call", "id": "2", "status": "completed", "result": "aGk="}
    found = billed(responses(ran, drawn), "openai.responses").units
    assert found == {"code_interpreter_kcount": 1, "image_generation_kcount": 1}


def test_tokens_of_each_kind_are_counted_apart():
    told = candidate(
        candidatesTokensDetails=[{"modality": "IMAGE", "tokenCount": 2}],
        promptTokensDetails=[{"modality": "TEXT", "tokenCount": 1}, {"modality": "VIDEO", "tokenCount": 4}],
        cacheTokensDetails=[{"modality": "AUDIO", "tokenCount": 3}],
    )
    assert billed(told, "gemini.generate").units == {
        "output_image_mtok": 2, "input_video_mtok": 4, "cache_audio_read_mtok": 3, "cache_image_read_mtok": 0,
    }  # fmt: skip


def test_an_answer_without_a_picture_has_no_tokens_of_one_and_one_with_a_picture_may():
    assert billed(candidate(), "gemini.generate").units == {"output_image_mtok": 0}
    picture = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    assert billed(candidate([picture]), "gemini.generate").units == {}


def test_each_search_that_an_answer_is_grounded_in_counts():
    grounded = candidate(beside={"groundingMetadata": {"webSearchQueries": ["a", "b"]}})
    assert billed(grounded, "gemini.generate").units["web_searches_kcount"] == 2


def test_what_search_models_count_beside_tokens():
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "citation_tokens": 9, "num_search_queries": 3}
    assert billed(chat(usage=usage), "openai.chat").units == {"output_citation_mtok": 9, "web_searches_kcount": 3}


def test_work_of_other_models_that_the_totals_leave_out_is_a_unit_without_a_price():
    rows = [{"type": "message", "input_tokens": 5}, {"type": "advisor_message", "input_tokens": 50, "model": "other"}]
    assert billed(message(iterations=rows), "anthropic.messages").units == {"further_models_kcount": 1}
    assert billed(message(iterations=rows[:1]), "anthropic.messages").units == {}


def test_begun_seconds_of_sound_count():
    told = Transcript(usage=Usage(raw={"type": "duration", "seconds": 4.2}))
    assert billed(told, "openai.transcriptions").units == {"audio_hours": 5}
    assert billed(Transcript(duration=3.0), "openai.transcriptions").units == {"audio_hours": 3}
    assert billed(Transcript(), "openai.transcriptions").units == {}
    assert billed(Transcript(duration=float("nan")), "openai.transcriptions").units == {}


def test_what_comes_out_as_pictures_is_told_apart_or_is_all_of_it():
    assert billed(Pictures(usage=Usage(5, 900)), "openai.images").units == {"output_image_mtok": 900}
    raw = {"output_tokens_details": {"image_tokens": 800, "text_tokens": 100}}
    assert billed(Pictures(usage=Usage(5, 900, raw=raw)), "openai.images").units == {"output_image_mtok": 800}
    assert billed(Pictures(), "openai.images").units == {}


def test_tools_that_a_usage_counts_are_units_and_those_without_a_fee_are_none():
    counted = message(server_tool_use={"web_search_requests": 2, "web_fetch_requests": 4})
    assert tool_units(counted.usage) == {"web_searches_kcount": 2}
    assert tool_units(Usage(server_tools={"dig": 1, "web_search": 0})) == {"dig_kcount": 1}


@pytest.mark.parametrize("name", ["openai.chat", "openai.responses", "anthropic.messages", "gemini.generate", "other"])
def test_an_answer_that_says_nothing_is_billed_as_usual(name):
    assert billed(Response(message=chat().message), name).when == {}


# ---- before the call --------------------------------------------------------------------------


def test_what_keeps_anyone_from_saying_the_most_a_request_can_cost():
    assert without_bound(Request("m", tools=(Tool("f"),), extra={"d": {"store": True}})) is None
    assert "as often as it likes" in without_bound(Request("m", tools=(Opaque("d", "web_search"),)))
    assert without_bound(Request("m", extra={"d": {"plugins": [], "models": [], "seed": 1}})) == (
        "extra says models, plugins, which may change what it costs"
    )
