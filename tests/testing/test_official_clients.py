"""The providers' own clients take the simulated provider for the real one: plain, streamed, with tools, and with
each error; and our client, asked the same in each dialect, hears the same."""

import contextlib
import json
import os
import subprocess
import sys

import anthropic
import boto3
import botocore.config
import botocore.exceptions
import cohere
import cohere.core.api_error as cohere_errors
import google.genai
import groq
import mistralai.client
import ollama
import openai
import pytest

from polyvox import Client, Message, Text, Tool, ToolCall, ToolResult
from polyvox.dialects import NAMES
from polyvox.errors import AuthError, PolyvoxError
from polyvox.testing import Simulator
from tests.testing.asking import DENIED, NAMELESS

KEY = "sk-simulated-0123456789"
QUESTION = "What is the weather in Rome?"
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
RESULT = "22 degrees, sunny"
MODEL = "any-model"


@pytest.fixture(scope="module")
def simulator():
    with Simulator() as running:
        yield running


# ---- one way to ask each client ---------------------------------------------------------------
# Each takes a list of neutral turns and gives (text, calls, why it ended), whole or streamed.


class OpenAI:
    dialect = "openai.chat"
    error = openai.OpenAIError

    def __init__(self, simulator, **facts):
        self.client = openai.OpenAI(
            **{"base_url": simulator.base_url(self.dialect), "api_key": KEY, "max_retries": 0, **facts}
        )

    def close(self):
        self.client.close()

    def ask(self, turns, tools=(), stream=False):
        messages = []
        for turn in turns:
            if turn["role"] == "calls":
                calls = [
                    {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
                    for call_id, name, given in turn["calls"]
                ]
                messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            elif turn["role"] == "result":
                messages.append({"role": "tool", "tool_call_id": turn["id"], "content": turn["text"]})
            else:
                messages.append({"role": turn["role"], "content": turn["text"]})
        given = [{"type": "function", "function": {"name": name, "parameters": WEATHER}} for name in tools]
        facts = {"model": MODEL, "messages": messages, **({"tools": given} if given else {})}
        if stream:
            with self.client.chat.completions.stream(**facts, stream_options={"include_usage": True}) as events:
                for _ in events:
                    pass
                answer = events.get_final_completion()
        else:
            answer = self.client.chat.completions.create(**facts)
        choice = answer.choices[0]
        calls = [
            (call.id, call.function.name, json.loads(call.function.arguments))
            for call in choice.message.tool_calls or ()
        ]
        assert answer.model == MODEL and answer.id.startswith("chatcmpl-")
        usage = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
        return choice.message.content or "", calls, choice.finish_reason, usage


class Anthropic:
    dialect = "anthropic.messages"
    error = anthropic.AnthropicError

    def __init__(self, simulator, **facts):
        self.client = anthropic.Anthropic(
            **{"base_url": simulator.base_url(self.dialect), "api_key": KEY, "max_retries": 0, **facts}
        )

    def close(self):
        self.client.close()

    def ask(self, turns, tools=(), stream=False):
        messages = []
        for turn in turns:
            if turn["role"] == "calls":
                blocks = [
                    {"type": "tool_use", "id": call_id, "name": name, "input": given}
                    for call_id, name, given in turn["calls"]
                ]
                messages.append({"role": "assistant", "content": blocks})
            elif turn["role"] == "result":
                block = {"type": "tool_result", "tool_use_id": turn["id"], "content": turn["text"]}
                messages.append({"role": "user", "content": [block]})
            else:
                messages.append({"role": turn["role"], "content": turn["text"]})
        given = [{"name": name, "input_schema": WEATHER} for name in tools]
        facts = {"model": MODEL, "max_tokens": 1000, "messages": messages, **({"tools": given} if given else {})}
        if stream:
            with self.client.messages.stream(**facts) as events:
                for _ in events:
                    pass
                answer = events.get_final_message()
        else:
            answer = self.client.messages.create(**facts)
        text = "".join(block.text for block in answer.content if block.type == "text")
        calls = [(block.id, block.name, block.input) for block in answer.content if block.type == "tool_use"]
        assert answer.model == MODEL and answer.id.startswith("msg_")
        return text, calls, answer.stop_reason, (answer.usage.input_tokens, answer.usage.output_tokens)


class Ollama:
    dialect = "ollama.chat"
    error = ollama.ResponseError

    def __init__(self, simulator, **facts):
        self.client = ollama.Client(host=simulator.base_url(self.dialect), **facts)

    def close(self):
        self.client.close()

    def ask(self, turns, tools=(), stream=False):
        messages = []
        for turn in turns:
            if turn["role"] == "calls":
                calls = [{"function": {"name": name, "arguments": given}} for _, name, given in turn["calls"]]
                messages.append({"role": "assistant", "content": "", "tool_calls": calls})
            elif turn["role"] == "result":
                messages.append({"role": "tool", "tool_name": turn["name"], "content": turn["text"]})
            else:
                messages.append({"role": turn["role"], "content": turn["text"]})
        given = [{"type": "function", "function": {"name": name, "parameters": WEATHER}} for name in tools]
        facts = {"model": MODEL, "messages": messages, **({"tools": given} if given else {})}
        pieces = list(self.client.chat(**facts, stream=True)) if stream else [self.client.chat(**facts)]
        text = "".join(piece.message.content or "" for piece in pieces)
        calls = [
            (None, call.function.name, dict(call.function.arguments))
            for piece in pieces
            for call in piece.message.tool_calls or ()
        ]
        last = pieces[-1]
        assert last.model == MODEL and last.done and last.created_at
        return text, calls, last.done_reason, (last.prompt_eval_count, last.eval_count)


class Cohere:
    dialect = "cohere.chat"
    error = cohere_errors.ApiError

    def __init__(self, simulator, **facts):
        self.client = cohere.ClientV2(**{"base_url": simulator.base_url(self.dialect), "api_key": KEY, **facts})

    def close(self):
        self.client._client_wrapper.httpx_client.httpx_client.close()

    def ask(self, turns, tools=(), stream=False):
        messages = []
        for turn in turns:
            if turn["role"] == "calls":
                calls = [
                    {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
                    for call_id, name, given in turn["calls"]
                ]
                messages.append({"role": "assistant", "tool_calls": calls})
            elif turn["role"] == "result":
                messages.append({"role": "tool", "tool_call_id": turn["id"], "content": turn["text"]})
            else:
                messages.append({"role": turn["role"], "content": turn["text"]})
        given = [{"type": "function", "function": {"name": name, "parameters": WEATHER}} for name in tools]
        facts = {"model": MODEL, "messages": messages, **({"tools": given} if given else {})}
        if not stream:
            answer = self.client.chat(**facts, request_options={"max_retries": 0})
            text = "".join(item.text for item in answer.message.content or () if item.type == "text")
            calls = [
                (call.id, call.function.name, json.loads(call.function.arguments))
                for call in answer.message.tool_calls or ()
            ]
            tokens = answer.usage.tokens
            return text, calls, answer.finish_reason, (tokens.input_tokens, tokens.output_tokens)
        text, calls, last = "", [], None
        for event in self.client.chat_stream(**facts, request_options={"max_retries": 0}):
            if event.type == "content-delta":
                text += event.delta.message.content.text or ""
            elif event.type == "tool-call-start":
                calls.append([event.delta.message.tool_calls.id, event.delta.message.tool_calls.function.name, ""])
            elif event.type == "tool-call-delta":
                calls[-1][2] += event.delta.message.tool_calls.function.arguments
            elif event.type == "message-end":
                last = event.delta
        if last.finish_reason == "ERROR":
            # This client raises nothing for an error inside a stream: its end says so.
            raise self.error(body=last.error)
        found = [(call_id, name, json.loads(given)) for call_id, name, given in calls]
        tokens = last.usage.tokens
        return text, found, last.finish_reason, (tokens.input_tokens, tokens.output_tokens)


class Responses:
    dialect = "openai.responses"
    error = (openai.OpenAIError, RuntimeError)  # of an error inside a stream it only says that no end came

    def __init__(self, simulator, **facts):
        self.client = openai.OpenAI(
            **{"base_url": simulator.base_url(self.dialect), "api_key": KEY, "max_retries": 0, **facts}
        )

    def close(self):
        self.client.close()

    def ask(self, turns, tools=(), stream=False):
        items = []
        for turn in turns:
            if turn["role"] == "calls":
                items += [
                    {"type": "function_call", "call_id": call_id, "name": name, "arguments": json.dumps(given)}
                    for call_id, name, given in turn["calls"]
                ]
            elif turn["role"] == "result":
                items.append({"type": "function_call_output", "call_id": turn["id"], "output": turn["text"]})
            else:
                items.append({"role": turn["role"], "content": turn["text"]})
        given = [{"type": "function", "name": name, "parameters": WEATHER, "strict": False} for name in tools]
        facts = {"model": MODEL, "input": items, **({"tools": given} if given else {})}
        if stream:
            with self.client.responses.stream(**facts) as events:
                for _ in events:
                    pass
                answer = events.get_final_response()
        else:
            answer = self.client.responses.create(**facts)
        calls = [
            (item.call_id, item.name, json.loads(item.arguments))
            for item in answer.output
            if item.type == "function_call"
        ]
        assert answer.model == MODEL and answer.id.startswith("resp_")
        return answer.output_text, calls, answer.status, (answer.usage.input_tokens, answer.usage.output_tokens)


class Gemini:
    dialect = "gemini.generate"
    error = google.genai.errors.APIError

    def __init__(self, simulator, **facts):
        options = google.genai.types.HttpOptions(base_url=simulator.url, api_version="v1beta")
        self.client = google.genai.Client(**{"api_key": KEY, "http_options": options, **facts})

    def close(self):
        self.client.close()

    def ask(self, turns, tools=(), stream=False):
        contents = []
        for turn in turns:
            if turn["role"] == "calls":
                parts = [{"function_call": {"name": name, "args": given}} for _, name, given in turn["calls"]]
                contents.append({"role": "model", "parts": parts})
            elif turn["role"] == "result":
                part = {"function_response": {"name": turn["name"], "response": {"result": turn["text"]}}}
                contents.append({"role": "user", "parts": [part]})
            else:
                role = "model" if turn["role"] == "assistant" else "user"
                contents.append({"role": role, "parts": [{"text": turn["text"]}]})
        given = [{"name": name, "parameters_json_schema": WEATHER} for name in tools]
        config = {"tools": [{"function_declarations": given}]} if given else None
        facts = {"model": MODEL, "contents": contents, "config": config}
        models = self.client.models
        pieces = list(models.generate_content_stream(**facts)) if stream else [models.generate_content(**facts)]
        contents = [piece.candidates[0].content for piece in pieces]
        parts = [part for content in contents if content is not None for part in content.parts or ()]
        text = "".join(part.text or "" for part in parts)
        calls = [(None, part.function_call.name, part.function_call.args) for part in parts if part.function_call]
        last = pieces[-1]
        usage = last.usage_metadata
        assert last.model_version == MODEL
        ended = last.candidates[0].finish_reason.value
        return text, calls, ended, (usage.prompt_token_count, usage.candidates_token_count)


class Bedrock:
    dialect = "bedrock.converse"
    error = (botocore.exceptions.ClientError, botocore.exceptions.EventStreamError)

    def __init__(self, simulator, **facts):
        config = botocore.config.Config(retries={"total_max_attempts": 1})
        self.client = boto3.client(
            "bedrock-runtime",
            endpoint_url=simulator.base_url(self.dialect),
            region_name="us-east-1",
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key=KEY,
            config=config,
        )

    def close(self):
        self.client.close()

    def ask(self, turns, tools=(), stream=False):
        messages = []
        for turn in turns:
            if turn["role"] == "calls":
                blocks = [
                    {"toolUse": {"toolUseId": call_id, "name": name, "input": given}}
                    for call_id, name, given in turn["calls"]
                ]
                messages.append({"role": "assistant", "content": blocks})
            elif turn["role"] == "result":
                block = {"toolResult": {"toolUseId": turn["id"], "content": [{"text": turn["text"]}]}}
                messages.append({"role": "user", "content": [block]})
            else:
                messages.append({"role": turn["role"], "content": [{"text": turn["text"]}]})
        given = [{"toolSpec": {"name": name, "inputSchema": {"json": WEATHER}}} for name in tools]
        facts = {"modelId": MODEL, "messages": messages, **({"toolConfig": {"tools": given}} if given else {})}
        if not stream:
            answer = self.client.converse(**facts)
            blocks = answer["output"]["message"]["content"]
            text = "".join(block.get("text", "") for block in blocks)
            used = [block["toolUse"] for block in blocks if "toolUse" in block]
            calls = [(call["toolUseId"], call["name"], call["input"]) for call in used]
            usage = answer["usage"]
            return text, calls, answer["stopReason"], (usage["inputTokens"], usage["outputTokens"])
        with contextlib.closing(self.client.converse_stream(**facts)["stream"]) as events:
            return self._heard(events)

    def _heard(self, events):
        text, calls, ended, usage = "", [], None, None
        for event in events:
            if start := event.get("contentBlockStart", {}).get("start", {}).get("toolUse"):
                calls.append([start["toolUseId"], start["name"], ""])
            delta = event.get("contentBlockDelta", {}).get("delta", {})
            text += delta.get("text", "")
            if "toolUse" in delta:
                calls[-1][2] += delta["toolUse"]["input"]
            ended = event.get("messageStop", {}).get("stopReason", ended)
            usage = event.get("metadata", {}).get("usage", usage)
        found = [(call_id, name, json.loads(given)) for call_id, name, given in calls]
        return text, found, ended, (usage["inputTokens"], usage["outputTokens"])


class Ours:
    """Our own client in one dialect."""

    error = PolyvoxError

    def __init__(self, simulator, dialect, **facts):
        self.dialect = dialect
        self.separators = (", ", ": ") if dialect in STRINGS else (",", ":")
        facts = {"api_key": KEY, "retries": 0, **facts}
        self.client = Client(MODEL, base_url=simulator.base_url(dialect), dialect=dialect, **facts)

    def close(self):
        self.client.close()

    def ask(self, turns, tools=(), stream=False):
        messages = []
        for turn in turns:
            if turn["role"] == "calls":
                # As the official clients write it: the demo counts its tokens by words.
                calls = tuple(
                    ToolCall(call_id, name, json.dumps(given, separators=self.separators))
                    for call_id, name, given in turn["calls"]
                )
                messages.append(Message("assistant", calls))
            elif turn["role"] == "result":
                result = ToolResult(turn["id"], (Text(turn["text"]),), name=turn["name"])
                messages.append(Message("tool", (result,)))
            else:
                messages.append(Message(turn["role"], (Text(turn["text"]),)))
        facts = {"max_tokens": 1000, **({"tools": [Tool(name, parameters=WEATHER) for name in tools]} if tools else {})}
        answer = self.client.stream(messages, **facts).finish() if stream else self.client.ask(messages, **facts)
        calls = [(call.id, call.name, call.args) for call in answer.tool_calls]
        assert answer.model == (None if self.dialect in NAMELESS else MODEL) and answer.complete
        return answer.text, calls, answer.finish_reason, (answer.usage.input, answer.usage.output)


STRINGS = ("openai.chat", "openai.responses", "cohere.chat", "bedrock.converse")  # whose clients write with spaces
OFFICIAL = {
    client.dialect: client
    for client in (OpenAI, Responses, Anthropic, Gemini, Ollama, Cohere, Bedrock)
    if client.dialect in NAMES
}
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
EACH = pytest.mark.parametrize("dialect", NAMES)


@pytest.fixture
def opened(simulator):
    """Makes clients that are closed after the test."""
    made = []

    def opened(kind, at=None, **facts):
        made.append(kind(at or simulator, **facts))
        return made[-1]

    yield opened
    for each in made:
        each.close()


def transcript(client, stream):
    """A conversation with a tool: what was asked, called, answered and asked again."""
    turns = [{"role": "user", "text": QUESTION}]
    said = []
    text, calls, ended, usage = client.ask(turns, tools=("get_weather",), stream=stream)
    said.append((text, [(name, given) for _, name, given in calls], ended, usage))
    made = [(call_id or f"call_{place}", name, given) for place, (call_id, name, given) in enumerate(calls)]
    turns.append({"role": "calls", "calls": made})
    turns += [{"role": "result", "id": call_id, "name": name, "text": RESULT} for call_id, name, _ in made]
    text, calls, ended, usage = client.ask(turns, tools=("get_weather",), stream=stream)
    said.append((text, calls, ended, usage))
    turns += [{"role": "assistant", "text": text}, {"role": "user", "text": "Thank you, bees."}]
    said.append(client.ask(turns, tools=("get_weather",), stream=stream))
    return said


WORDS_FOR = {
    "openai.chat": {"tool_calls": "tool_calls", "stop": "stop"},
    "anthropic.messages": {"tool_calls": "tool_use", "stop": "end_turn"},
    # This protocol has one word for both; what was called shows in the message.
    "ollama.chat": {"tool_calls": "stop", "stop": "stop"},
    "cohere.chat": {"tool_calls": "TOOL_CALL", "stop": "COMPLETE"},
    "openai.responses": {"tool_calls": "completed", "stop": "completed"},
    "gemini.generate": {"tool_calls": "STOP", "stop": "STOP"},
    "bedrock.converse": {"tool_calls": "tool_use", "stop": "end_turn"},
}


@EACH
@BOTH
def test_an_official_client_talks_and_calls_tools(opened, dialect, stream):
    first, second, third = transcript(opened(OFFICIAL[dialect]), stream)
    assert first[1] and first[1][0][0] == "get_weather" and isinstance(first[1][0][1]["city"], str)
    assert RESULT in second[0] and second[1] == []
    assert third[0].startswith("[demo] You said: Thank you, bees.") and third[1] == []
    assert [said[2] for said in (first, second, third)] == [
        WORDS_FOR[dialect][reason] for reason in ("tool_calls", "stop", "stop")
    ]
    assert all(said[3][0] > 0 and said[3][1] > 0 for said in (first, second, third))


@EACH
@BOTH
def test_our_client_hears_what_the_official_one_hears(opened, dialect, stream):
    theirs = transcript(opened(OFFICIAL[dialect]), stream)
    ours = transcript(opened(Ours, dialect=dialect), stream)
    assert [said[:2] for said in ours] == [said[:2] for said in theirs]
    assert [WORDS_FOR[dialect][said[2]] for said in ours] == [said[2] for said in theirs]
    assert [said[3] for said in ours] == [said[3] for said in theirs]


@BOTH
def test_our_client_hears_the_same_in_every_dialect(opened, stream):
    heard = [[said[:3] for said in transcript(opened(Ours, dialect=name), stream)] for name in NAMES]
    assert heard == heard[:1] * len(NAMES)


# ---- errors -----------------------------------------------------------------------------------

STATUSES = {
    400: ("BadRequestError", "invalid_request"),
    401: ("AuthenticationError", "auth"),
    403: ("PermissionDeniedError", "permission"),
    404: ("NotFoundError", "not_found"),
    409: ("ConflictError", "conflict"),
    422: ("UnprocessableEntityError", "invalid_request"),
    429: ("RateLimitError", "rate_limit"),
    500: ("InternalServerError", "server"),
    503: ("InternalServerError", ("server", "overloaded")),
}
ERROR_OF = {"openai.chat": openai, "openai.responses": openai, "anthropic.messages": anthropic}


def status_of(error):
    """The HTTP status that a client's error has, wherever it keeps it."""
    if isinstance(error, botocore.exceptions.ClientError):
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    return error.code if isinstance(error, google.genai.errors.APIError) else error.status_code


@EACH
@BOTH
@pytest.mark.parametrize("status", STATUSES)
def test_each_error_is_its_own_in_the_official_client_and_in_ours(opened, dialect, stream, status):
    theirs, kind = STATUSES[status]
    with Simulator(plan=[{"kind": "status", "status": status}]) as broken:
        turns = [{"role": "user", "text": QUESTION}]
        official = OFFICIAL[dialect]
        with pytest.raises(official.error) as caught:
            opened(official, broken).ask(turns, stream=stream)
        assert status_of(caught.value) == status
        if dialect in ERROR_OF:
            wanted = getattr(ERROR_OF[dialect], theirs, None) or getattr(ERROR_OF[dialect], "InternalServerError")
            assert isinstance(caught.value, wanted) or type(caught.value).__name__ in ("ServiceUnavailableError",)
            assert caught.value.request_id.startswith("req_sim_")
        with pytest.raises(PolyvoxError) as told:
            opened(Ours, broken, dialect=dialect).ask(turns, stream=stream)
        assert told.value.status == status and told.value.kind in ([kind] if isinstance(kind, str) else kind)


@EACH
def test_an_error_inside_a_stream_reaches_the_official_client_and_ours(opened, dialect):
    with Simulator(plan=[{"kind": "error_event", "status": 529, "after": 300}]) as broken:
        turns = [{"role": "user", "text": QUESTION}]
        official = OFFICIAL[dialect]
        with pytest.raises(official.error):
            opened(official, broken).ask(turns, stream=True)
        with pytest.raises(PolyvoxError) as told:
            opened(Ours, broken, dialect=dialect).ask(turns, stream=True)
        assert told.value.kind == "overloaded" and told.value.partial is not None
        assert broken.counts.faults == {"error_event": 2}


@EACH
def test_a_wrong_key_is_an_error_of_authentication(opened, dialect):
    with Simulator(keys=["sk-the-right-one-0123456789"]) as locked:
        official = OFFICIAL[dialect]
        with pytest.raises(official.error) as caught:
            opened(official, locked).ask([{"role": "user", "text": QUESTION}])
        assert status_of(caught.value) == DENIED.get(dialect, 401)
        if dialect in ERROR_OF:
            assert isinstance(caught.value, ERROR_OF[dialect].AuthenticationError)
        with pytest.raises(AuthError):
            opened(Ours, locked, dialect=dialect).ask([{"role": "user", "text": QUESTION}])


@pytest.mark.parametrize("dialect", ["openai.chat", "anthropic.messages"])
def test_an_official_client_waits_as_it_is_told_and_tries_again(opened, dialect):
    plan = [{"kind": "status", "status": 429, "at": 1, "headers": {"retry-after": "0"}}]
    with Simulator(plan=plan) as limited:
        client = opened(OFFICIAL[dialect], limited, max_retries=2)
        text, *_ = client.ask([{"role": "user", "text": "hello bees"}])
        assert text.startswith("[demo] You said: hello bees.")
        assert limited.counts.errors == {429: 1} and limited.counts.answers == 1


# ---- what else these clients do ---------------------------------------------------------------


def test_the_openai_client_gets_json_of_a_schema_and_lists_models(opened):
    with Simulator(models=["small", "large"]) as simulator:
        client = opened(OpenAI, simulator).client
        answer = client.chat.completions.create(
            model="small",
            messages=[{"role": "user", "content": "Where is it?"}],
            response_format={"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER, "strict": True}},
        )
        assert isinstance(json.loads(answer.choices[0].message.content)["city"], str)
        assert [model.id for model in client.models.list()] == ["small", "large"]
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="none", messages=[{"role": "user", "content": "hi"}])
        assert caught.value.code == "model_not_found" and caught.value.param == "model"


def test_the_anthropic_client_lists_models(opened):
    with Simulator(models=["small", "large"]) as simulator:
        assert [model.id for model in opened(Anthropic, simulator).client.models.list()] == ["small", "large"]


def test_the_ollama_client_lists_models(opened):
    with Simulator(models=["small", "large"]) as simulator:
        assert [model.model for model in opened(Ollama, simulator).client.list().models] == ["small", "large"]


def test_the_gemini_client_lists_models(opened):
    with Simulator(models=["small", "large"]) as simulator:
        found = opened(Gemini, simulator).client.models.list()
        assert [model.name for model in found] == ["models/small", "models/large"]


def test_the_cohere_client_lists_models(opened):
    with Simulator(models=["small", "large"]) as simulator:
        assert [model.name for model in opened(Cohere, simulator).client.models.list().models] == ["small", "large"]
        assert simulator.requests[0].dialect == "cohere.chat"


# Each is told where to ask by its own variable alone; some read it when they are imported.
PROGRAM = """
import anthropic, boto3, cohere, google.genai, ollama, openai

said = "hello bees"
turns = [{"role": "user", "content": said}]
openai.OpenAI().chat.completions.create(model="m", messages=turns)
openai.OpenAI().responses.create(model="m", input=said)
anthropic.Anthropic().messages.create(model="m", max_tokens=50, messages=turns)
ollama.chat(model="m", messages=turns)
with google.genai.Client() as client:
    client.models.generate_content(model="m", contents=said)
cohere.ClientV2().chat(model="m", messages=turns)
boto3.client("bedrock-runtime").converse(modelId="m", messages=[{"role": "user", "content": [{"text": said}]}])
"""
KEYS = (
    "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "CO_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
)  # fmt: skip


def test_its_variables_alone_point_every_official_client_here(tmp_path):
    with Simulator() as simulator:
        environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment |= {**dict.fromkeys(KEYS, KEY), **simulator.environment}
        environment |= {"HOME": str(tmp_path), "AWS_DEFAULT_REGION": "us-east-1"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert {name: numbers.answers for name, numbers in simulator.counts.by_dialect.items()} == dict.fromkeys(
            NAMES, 1
        )


@pytest.mark.parametrize(
    ("dialect", "call"),
    [
        ("openai.chat", lambda it: it.chat.completions.create(model=MODEL, messages=[], temperature=0.5)),
        ("openai.chat", lambda it: it.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x"}], temperature=3)),
        ("openai.chat", lambda it: it.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x"}], extra_body={"top_k": 3})),
        ("anthropic.messages", lambda it: it.messages.create(model=MODEL, max_tokens=10, messages=[])),
        ("anthropic.messages", lambda it: it.messages.create(
            model=MODEL, max_tokens=10, messages=[{"role": "assistant", "content": "x"}])),
        ("anthropic.messages", lambda it: it.messages.create(
            model=MODEL, max_tokens=10, messages=[{"role": "user", "content": "x"}], extra_body={"top_n": 3})),
    ],
)  # fmt: skip
def test_what_the_provider_refuses_is_refused(opened, dialect, call):
    with pytest.raises(ERROR_OF[dialect].BadRequestError):
        call(opened(OFFICIAL[dialect]).client)


@BOTH
def test_the_groq_client_takes_it_for_the_real_one(simulator, stream):
    with groq.Groq(base_url=simulator.url, api_key=KEY, max_retries=0) as client:
        facts = {"model": MODEL, "messages": [{"role": "user", "content": "hello bees"}]}
        if stream:
            pieces = list(client.chat.completions.create(**facts, stream=True))
            text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        else:
            text = client.chat.completions.create(**facts).choices[0].message.content
        assert text.startswith("[demo] You said: hello bees.")


@BOTH
def test_the_mistral_client_takes_it_for_the_real_one(simulator, stream):
    with mistralai.client.Mistral(server_url=simulator.url, api_key=KEY) as client:
        facts = {"model": MODEL, "messages": [{"role": "user", "content": "hello bees"}]}
        if stream:
            pieces = [event.data for event in client.chat.stream(**facts)]
            text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        else:
            text = client.chat.complete(**facts).choices[0].message.content
        assert text.startswith("[demo] You said: hello bees.")
