"""A vendor's client object asked in the Responses form: its arguments and its answers are those of the dialect, whole
and streamed, from stand-ins and from the real library."""

import json
from types import SimpleNamespace

import pytest

import polyvox
from polyvox import Client, Image, Message, Refusal, Text, ToolCall, ToolResult
from polyvox.backends import register_backend
from polyvox.config import Settings
from polyvox.errors import BadResponseError, RateLimitError, ServerError, StreamInterruptedError
from polyvox.testing.fault_server import FaultServer
from polyvox.types import Citation, Opaque, Reasoning
from tests.test_backends_clients import (
    APIStatusError,
    Method,
    client_of,
    empty_registry,
    hang_up,
    json_answer,
    reply,
    sdk,
    sse,
)

__all__ = ["empty_registry", "sdk"]  # fixtures


def responses_client(*answers):
    create = Method(*answers)
    return SimpleNamespace(responses=SimpleNamespace(create=create)), create


def test_a_conversation_with_tools_in_the_responses_form():
    output = [
        {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "see", "annotations": [
                {"type": "url_citation", "url": "https://x.test", "title": "X", "start_index": 0, "end_index": 3}]},
            {"type": "refusal", "refusal": "but no"},
        ]},
        {"type": "function_call", "call_id": "call_2", "name": "look", "arguments": "{}"},
        {"type": "web_search_call", "id": "ws"},
    ]  # fmt: skip
    client, create = responses_client({"id": "r", "model": "m-1", "status": "completed", "output": output})
    history = [
        Message("user", (Text("look"), Image(b"\x89PNG", media_type="image/png"))),
        Message("assistant", (Text("I "), Text("do"), ToolCall("call_1", "look", '{"at": 1}'))),
        Message("tool", (ToolResult("call_1", (Text("nothing"),)),)),
    ]
    response = client_of(client, system="be kind").ask(
        history, max_tokens=9, effort="low", tools=[polyvox.Tool("look", "Look at it")], seed=1
    )
    assert create.calls[0] == {
        "model": "m",
        "max_output_tokens": 9,
        "reasoning": {"effort": "low"},
        "tools": [
            {"type": "function", "name": "look", "description": "Look at it", "strict": False,
             "parameters": {"type": "object", "properties": {}}},
        ],
        "instructions": "be kind",
        "input": [
            {"role": "user", "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,iVBORw=="},
            ]},
            {"type": "message", "role": "assistant", "content": [
                {"type": "output_text", "text": "I ", "annotations": []},
                {"type": "output_text", "text": "do", "annotations": []}]},
            {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at": 1}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "nothing"},
        ],
    }  # fmt: skip
    assert [loss.field for loss in response.losses] == ["seed"]
    thought, words, refusal, call, search = response.message.parts
    assert isinstance(thought, Reasoning) and thought.text == "hm"
    assert isinstance(words, Text) and isinstance(words.citations[0], Citation)
    assert (words.citations[0].url, words.citations[0].end) == ("https://x.test", 3)
    assert refusal == Refusal("but no")
    assert call == ToolCall("call_2", "look", "{}")
    assert isinstance(search, Opaque) and search.raw == {"type": "web_search_call", "id": "ws"}
    assert response.finish_reason == "tool_calls"


def test_a_schema_and_what_has_no_place_in_the_responses_form():
    client, create = responses_client({"output_text": "{}"})
    response = client_of(client).ask(
        "x", schema={"type": "object"}, verbosity="low", tool_choice="auto", thinking=polyvox.Thinking(budget_tokens=9)
    )
    assert create.calls[0]["text"] == {
        "verbosity": "low",
        "format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}},
    }
    assert [loss.field for loss in response.losses] == ["thinking.budget_tokens"]


def test_what_the_responses_form_told_goes_back_as_it_was():
    output = [
        {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "sealed"},
        {"type": "web_search_call", "id": "ws", "status": "completed"},
        {"type": "custom_tool_call", "call_id": "call_1", "name": "run", "input": "1+1"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}, {"type": "odd"}]},
    ]
    client, create = responses_client({"output": output}, {"output_text": "done"})
    talk = client_of(client).chat(tools=[polyvox.Tool("run", kind="custom", format={"type": "text"})])
    first = talk.ask("hello")
    assert first.finish_reason == "tool_calls" and first.message.parts[0].encrypted == "sealed"
    assert first.tool_calls[0].kind == "custom"
    result = ToolResult("call_1", (Text("2"), Image(url="https://x.test/2.png")), is_error=True)
    second = talk.ask(Message("tool", (result,)))
    assert create.calls[1]["tools"] == [{"type": "custom", "name": "run", "format": {"type": "text"}}]
    assert create.calls[1]["input"] == [
        {"role": "user", "content": "hello"},
        *output[:3],
        output[3],
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": [
            {"type": "input_text", "text": "error: "}, {"type": "input_text", "text": "2"},
            {"type": "input_image", "detail": "auto", "image_url": "https://x.test/2.png"}]},
    ]  # fmt: skip
    assert [(loss.field, loss.severity) for loss in second.losses] == [("messages[2].parts[0].is_error", "note")]


def test_what_the_responses_form_cannot_carry_is_told():
    client, create = responses_client({"output_text": "ok"}, {"output_text": "ok"})
    asked = [
        Message(
            "user",
            (
                Text("see", citations=(Citation(url="https://x.test"),)),
                Image(url="https://x.test/a.png", detail="low"),
                Image(file_id="file_1"),
                polyvox.Audio(b"RIFF", media_type="audio/wav"),
                Reasoning("foreign"),
            ),
            name="ann",
        )
    ]
    response = client_of(client).ask(
        asked,
        tools=[polyvox.Tool("a"), Opaque("openai.responses", "web_search", {"type": "web_search"}),
               Opaque("anthropic.messages", "bash", {"type": "bash"})],
        tool_choice=polyvox.ToolChoice("required", ("a", "b"), subset=True),
        extra={"openai.responses": {"store": False}, "other": {"k": 1}},
        schema={"type": "object"},
    )  # fmt: skip
    body = create.calls[0]
    allowed = [{"type": "function", "name": name} for name in ("a", "b")]
    assert body["store"] is False
    assert body["tool_choice"] == {"type": "allowed_tools", "mode": "required", "tools": allowed}
    assert [tool.get("name", tool["type"]) for tool in body["tools"]] == ["a", "web_search"]
    assert body["input"][0]["content"] == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "detail": "low", "image_url": "https://x.test/a.png"},
        {"type": "input_image", "detail": "auto", "file_id": "file_1"},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]
    assert [(loss.field, loss.severity) for loss in response.losses] == [
        ("messages[0].parts[0].citations", "note"), ("messages[0].parts[4].reasoning", "loss"),
        ("messages[0].name", "note"), ("tools[2]", "loss"), ("extra.other", "note"),
    ]  # fmt: skip
    client_of(client).ask("x", tools=[polyvox.Tool("a")], tool_choice="a", response_format="json")
    assert create.calls[1]["tool_choice"] == {"type": "function", "name": "a"}
    assert create.calls[1]["text"] == {"format": {"type": "json_object"}}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"output": [{"name": "f"}]}, BadResponseError, "without a type"),
        ({"output": [{"type": "function_call", "call_id": "c"}]}, BadResponseError, "without naming it"),
        ({"output": None, "output_text": None}, BadResponseError, "no output"),
        ({"output": 5}, BadResponseError, "no output"),
        (APIStatusError("x", None, status_code=502, response=reply(502, b"<html>bad gateway")), ServerError, "<html>"),
        (
            APIStatusError("x", {"message": "slow", "code": "rate_limit_exceeded"}, status_code=429),
            RateLimitError,
            "sl",
        ),
    ],
)
def test_an_answer_the_responses_form_does_not_know_is_one_clear_error(given, error, words):
    client, _ = responses_client(given)
    with pytest.raises(error, match=words):
        client_of(client).ask("x")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"output_text": "x", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"output_text": "x", "status": "incomplete", "incomplete_details": {"reason": "odd"}}, "unknown"),
        ({"output_text": "x", "status": "in_progress"}, "incomplete"),
        ({"output_text": "x"}, "stop"),
    ],
)
def test_why_an_answer_of_the_responses_form_ended(given, reason):
    client, _ = responses_client(given)
    assert client_of(client).ask("x").finish_reason == reason


def test_a_failed_answer_of_the_responses_form_is_an_error():
    client, _ = responses_client(
        {"output": [], "status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow"}}
    )
    with pytest.raises(RateLimitError, match="slow"):
        client_of(client).ask("x")


def test_a_real_openai_client_speaks_responses_where_that_is_said(sdk):
    body = {
        "id": "resp_1", "object": "response", "created_at": 7, "model": "m-1", "status": "completed", "error": None,
        "incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "output": [{"type": "message", "id": "msg", "role": "assistant", "status": "completed", "content": [
            {"type": "output_text", "text": "hi", "annotations": []}]}],
        "usage": {"input_tokens": 4, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 2,
                  "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 6},
    }  # fmt: skip
    with FaultServer(json_answer(body)) as server:
        real = sdk("OpenAI", server.url)
        register_backend("mine", real, dialect="openai.responses")
        response = Client("mine/m", settings=Settings()).ask("hello", max_tokens=20)
        assert server.requests[0].startswith(b"POST /v1/responses ")
    assert (response.text, response.created, response.finish_reason) == ("hi", 7.0, "stop")
    usage = response.usage
    assert (usage.input, usage.cache_read, usage.output, usage.reasoning, usage.total) == (4, 1, 2, 1, 6)


# ---- streams ----------------------------------------------------------------------------------

THOUGHT = {
    "type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm, café"}],
    "encrypted_content": "c2VhbGVk+/==",
}  # fmt: skip
CALL = {"type": "function_call", "id": "fc", "call_id": "call_1", "name": "look", "arguments": '{"at": 1}',
        "status": "completed"}  # fmt: skip
SPOKEN = {"type": "message", "id": "msg", "role": "assistant", "status": "completed", "content": [
    {"type": "output_text", "text": "see", "annotations": [], "logprobs": []}]}  # fmt: skip
ANSWERED = {
    "id": "resp_1", "object": "response", "created_at": 7.0, "model": "m-1", "status": "completed", "error": None,
    "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True,
    "tool_choice": "auto", "tools": [], "temperature": 1.0, "top_p": 1.0, "output": [THOUGHT, SPOKEN, CALL],
    "usage": {"input_tokens": 4, "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
              "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 13},
}  # fmt: skip


def events():
    """A stream with reasoning, words and a call, as the protocol's inventor sends it."""
    begun = {**ANSWERED, "status": "in_progress", "output": [], "usage": None}
    told = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0,
         "item": {**THOUGHT, "summary": [], "encrypted_content": "c2VhbGVkIGVhcmxpZXI="}},
        *({"type": "response.reasoning_summary_text.delta", "item_id": "rs", "output_index": 0, "summary_index": 0,
           "delta": piece} for piece in ("hm, ", "café")),
        {"type": "response.output_item.done", "output_index": 0, "item": THOUGHT},
        {"type": "response.output_item.added", "output_index": 1, "item": {**SPOKEN, "content": []}},
        {"type": "response.content_part.added", "item_id": "msg", "output_index": 1, "content_index": 0,
         "part": {**SPOKEN["content"][0], "text": ""}},
        *({"type": "response.output_text.delta", "item_id": "msg", "output_index": 1, "content_index": 0,
           "delta": piece, "logprobs": []} for piece in ("se", "e")),
        {"type": "response.output_item.done", "output_index": 1, "item": SPOKEN},
        {"type": "response.output_item.added", "output_index": 2,
         "item": {**CALL, "arguments": "", "status": "in_progress"}},
        *({"type": "response.function_call_arguments.delta", "item_id": "fc", "output_index": 2, "delta": piece}
          for piece in ('{"at"', ": 1}")),
        {"type": "response.output_item.done", "output_index": 2, "item": CALL},
        {"type": "response.completed", "response": ANSWERED},
    ]  # fmt: skip
    return [{**event, "sequence_number": number} for number, event in enumerate(told)]


def check_streamed(stream):
    assert "".join(stream) == "see"
    response = stream.response
    thought, words, call = response.message.parts
    assert (thought.text, thought.encrypted) == ("hm, café", "c2VhbGVk+/==")
    assert (words.text, call.id, call.args, response.finish_reason) == ("see", "call_1", {"at": 1}, "tool_calls")
    assert (response.usage.reasoning, response.usage.total, response.id) == (5, 13, "resp_1")
    return response


def check_went_back(items):
    """The items after the question: the thought exactly as it came, then what was said and called."""
    said = {"type": "message", "id": "msg", "role": "assistant", "status": "completed"}
    words = {"type": "output_text", "text": "see", "annotations": []}
    assert items[1:3] == [THOUGHT, {**said, "content": [words]}]
    assert {**items[3], "status": "completed"} == CALL
    assert items[4] == {"type": "function_call_output", "call_id": "call_1", "output": "seen"}


SEEN = Message("tool", (ToolResult("call_1", (Text("seen"),)),))


@pytest.mark.parametrize("kind", ["OpenAI", "AsyncOpenAI"])
def test_a_real_client_streams_reasoning_and_calls_and_gets_its_proof_back(sdk, kind):
    with FaultServer(sse(*events()), hang_up) as server:
        register_backend("mine", sdk(kind, server.url), dialect="openai.responses")
        talk = Client("mine/m", settings=Settings(), retries=0).chat()
        response = check_streamed(talk.stream("hello"))
        assert response.message.parts[0].origin == "mine/m"
        check_streamed(talk.stream(SEEN))
        asked = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
    assert asked[0] == {"model": "m", "input": [{"role": "user", "content": "hello"}], "stream": True}
    check_went_back(asked[1]["input"])


def as_objects(value):
    """The same as a stand-in would give it: attributes, and no way to be dumped."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: as_objects(item) for key, item in value.items()})
    return [as_objects(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("made", [as_objects, dict], ids=["objects", "tables"])
def test_a_stand_in_streams_reasoning_and_calls(made):
    client, create = responses_client(*(iter([made(event) for event in events()]) for _ in range(2)))
    talk = client_of(client).chat()
    check_streamed(talk.stream("hello"))
    check_streamed(talk.stream(SEEN))
    assert create.calls[0]["stream"] is True
    check_went_back(create.calls[1]["input"])


def test_a_stand_in_that_answers_in_one_piece_is_streamed_all_the_same():
    client, _ = responses_client(ANSWERED)
    check_streamed(client_of(client).stream("hello"))


def test_a_stream_that_ends_before_the_response_is_whole_is_cut():
    client, _ = responses_client(iter(events()[:8]))
    with pytest.raises(StreamInterruptedError) as caught:
        list(client_of(client).stream("hello"))
    assert (caught.value.partial.text, caught.value.partial.reasoning) == ("se", "hm, café")


def test_a_failure_within_a_stream_is_the_error_it_tells():
    failed = {**ANSWERED, "status": "failed", "output": [],
              "error": {"code": "rate_limit_exceeded", "message": "slow"}}  # fmt: skip
    client, _ = responses_client(iter([events()[0], {"type": "response.failed", "response": failed}]))
    with pytest.raises(RateLimitError, match="slow"):
        list(client_of(client).stream("hello"))
