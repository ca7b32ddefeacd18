"""Client objects of vendors' libraries as backends: the real ones against a server of bytes, honest small ones of
each shape, and the stand-ins people test with."""

import asyncio
import json
import time
from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

import polyvox
import polyvox.portal
from polyvox import AsyncClient, Client, Response, Text, backends
from polyvox.backends import backend_of, litellm, register_backend
from polyvox.config import Settings
from polyvox.errors import (
    AuthError,
    BadResponseError,
    CallTimeoutError,
    ConnectionFailedError,
    InputError,
    LossError,
    NotFoundError,
    OverloadedError,
    PolyvoxError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from polyvox.testing.fault_server import FaultServer, answer, send, stall


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(backends, "registered", {})


def client_of(thing, model="m", **facts):
    return Client(model, backend=thing, **{"settings": Settings(), "retries": 0, **facts})


def plain_values(value):
    """Every value inside a struct, however deep."""
    if hasattr(value, "__struct_fields__"):
        for field in value.__struct_fields__:
            yield from plain_values(getattr(value, field))
    elif isinstance(value, dict):
        for item in value.values():
            yield from plain_values(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from plain_values(item)
    else:
        yield value


# ---- stand-ins --------------------------------------------------------------------------------


def told_by_a_mock():
    client = Mock()
    client.responses.create.return_value = Mock(
        id="resp_123",
        output_text="Test response",
        model="gpt-4",
        usage=Mock(input_tokens=10, output_tokens=20, total_tokens=30),
    )
    return client


def test_a_bare_mock_that_was_given_one_answer_gives_that_answer_and_nothing_of_itself():
    client = told_by_a_mock()
    response = client_of(client, "gpt-4").ask("hello")
    assert response.text == "Test response"
    assert (response.usage.input, response.usage.output, response.usage.total) == (10, 20, 30)
    assert (response.usage.source, response.usage.cache_read) == ("provider", None)
    assert (response.model, response.id, response.finish_reason) == ("gpt-4", "resp_123", "stop")
    assert response.extra == {} and response.request_id is None
    assert not [value for value in plain_values(response) if isinstance(value, Mock)]
    client.responses.create.assert_called_once_with(model="gpt-4", input=[{"role": "user", "content": "hello"}])
    assert len(client.mock_calls) == 1, "no other of its many methods is called"


def test_a_mock_that_is_streamed_tells_its_answer_as_a_stream():
    stream = client_of(told_by_a_mock(), "gpt-4").stream("hello")
    assert list(stream) == ["Test response"]
    assert (stream.response.usage.total, stream.response.id) == (30, "resp_123")


def chat_mock(made):
    made.chat.completions.create.return_value = Mock(
        id="c1",
        model="m-1",
        choices=[Mock(index=0, finish_reason="stop", message=Mock(role="assistant", content="hi"))],
        usage=Mock(prompt_tokens=1, completion_tokens=2, total_tokens=3),
    )
    return made


def messages_mock(made):
    made.messages.create.return_value = Mock(
        id="c1",
        model="m-1",
        stop_reason="end_turn",
        content=[Mock(type="text", text="hi")],
        usage=Mock(input_tokens=1, output_tokens=2),
    )
    return made


def ollama_mock(made):
    made.chat.return_value = {
        "model": "m-1", "message": {"role": "assistant", "content": "hi"}, "done": True, "done_reason": "stop",
        "prompt_eval_count": 1, "eval_count": 2,
    }  # fmt: skip
    return made


@pytest.mark.parametrize("fill", [chat_mock, messages_mock, ollama_mock])
@pytest.mark.parametrize("kind", [Mock, MagicMock])
def test_a_stand_in_is_asked_in_the_shape_it_was_given_an_answer_for(kind, fill):
    response = client_of(fill(kind())).ask("hello", max_tokens=9)
    assert (response.text, response.model, response.finish_reason) == ("hi", "m-1", "stop")
    assert (response.usage.input, response.usage.output) == (1, 2)
    assert not [value for value in plain_values(response) if isinstance(value, Mock)]
    stream = client_of(fill(kind())).stream("hello", max_tokens=9)
    assert "".join(stream) == "hi"
    assert stream.response.usage.output == 2


def test_an_asynchronous_stand_in_is_awaited():
    client = Mock()
    client.messages.create = AsyncMock(return_value=messages_mock(Mock()).messages.create.return_value)
    assert client_of(client).ask("hello").text == "hi"


def test_an_exception_a_stand_in_was_told_to_raise_is_an_error_of_ours():
    client = Mock()
    client.responses.create.side_effect = ConnectionResetError("gone")
    with pytest.raises(ConnectionFailedError):
        client_of(client).ask("hello")


def test_a_stand_in_that_was_given_nothing_holds_no_answer():
    with pytest.raises(BadResponseError, match="holds no answer") as caught:
        client_of(Mock()).ask("hello")
    assert "dialect" in caught.value.hint


def test_a_stand_in_with_an_ask_of_its_own_is_a_backend():
    thing = Mock()
    thing.ask = Mock(return_value="mine")
    register_backend("mine", thing)
    assert polyvox.ask("x", model="mine").text == "mine"


# ---- what libraries raise, in small -----------------------------------------------------------


class APIError(Exception):
    def __init__(self, message, body=None, **facts):
        super().__init__(message)
        self.message = message
        self.body = body
        for name, value in facts.items():
            setattr(self, name, value)


class APIStatusError(APIError):
    pass


class APIConnectionError(APIError):
    pass


class APITimeoutError(APIConnectionError):
    pass


class ResponseError(Exception):
    def __init__(self, error, status_code=-1):
        super().__init__(f"{error} (status code: {status_code})")
        self.error = error
        self.status_code = status_code


def reply(status, body=b"", **headers):
    return SimpleNamespace(status_code=status, headers=headers, content=body)


# ---- honest small ones ------------------------------------------------------------------------


class Chunks:
    """A stream as libraries have them: iterable once, and closed when left."""

    def __init__(self, chunks):
        self._chunks = iter(chunks)
        self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._chunks)

    def close(self):
        self.closed = True


class Method:
    """A method that notes what it was called with and answers in turn."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []

    def __call__(self, **arguments):
        self.calls.append(arguments)
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def chat_client(*answers):
    create = Method(*answers)
    return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create))), create


def chunk(text=None, finish=None, **more):
    delta = {} if text is None else {"content": text}
    return {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


WHOLE = {
    "id": "c1", "model": "m-1", "created": 5,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    "new_key": {"kept": True},
}  # fmt: skip


def test_a_dict_of_the_chat_shape_is_read_as_the_wire_would_be():
    client, create = chat_client(WHOLE)
    response = client_of(client).ask("hello", temperature=0.5, extra_body={"min_p": 0.1})
    assert (response.text, response.usage.total, response.created) == ("hi", 3, 5.0)
    assert response.extra == {"openai.chat": {"new_key": {"kept": True}}}
    assert json.loads(response.raw) == WHOLE
    assert create.calls == [
        {"model": "m", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.5, "min_p": 0.1}
    ]


def test_an_object_of_attributes_is_read_with_all_that_is_plain_in_it():
    message = SimpleNamespace(role="assistant", content="hi", reasoning_content="hm", odd=object())
    client, _ = chat_client(
        SimpleNamespace(
            id="c1",
            model="m-1",
            choices=[SimpleNamespace(index=0, finish_reason="stop", message=message)],
            usage=SimpleNamespace(prompt_tokens=1, completion_tokens=2, total_tokens=3),
            seen_by="nobody",
        )
    )
    response = client_of(client).ask("hello")
    assert response.message.parts[-1] == Text("hi") and response.reasoning == "hm"
    assert response.extra == {"openai.chat": {"seen_by": "nobody"}}


def test_a_dict_that_holds_objects_is_read_too():
    message = SimpleNamespace(role="assistant", content="hi")
    client, _ = chat_client({"id": "c1", "choices": [SimpleNamespace(message=message, finish_reason="stop")]})
    response = client_of(client).ask("hello")
    assert (response.text, response.id) == ("hi", "c1")


def test_a_piece_that_cannot_be_dumped_is_one_clear_error():
    class Undumpable:
        def model_dump(self, **kwargs):
            raise ValueError("no JSON in here")

    client, _ = chat_client(Chunks([chunk("half"), Undumpable()]), Undumpable())
    with pytest.raises(ServerError, match="no JSON in here") as caught:
        list(client_of(client).stream("hello"))
    assert caught.value.partial.text == "half"
    with pytest.raises(BadResponseError, match="no JSON in here"):
        client_of(client).ask("hello")


def test_a_stream_of_the_chat_shape_is_read_by_the_dialect():
    chunks = Chunks(
        [chunk("a"), chunk("b"), chunk(finish="stop"), chunk(usage={"prompt_tokens": 1, "total_tokens": 4})]
    )
    client, create = chat_client(chunks)
    stream = client_of(client).stream("hello")
    assert list(stream) == ["a", "b"]
    assert (stream.response.finish_reason, stream.response.usage.total) == ("stop", 4)
    assert create.calls[0]["stream"] is True
    assert chunks.closed


def test_a_stream_that_just_stops_is_no_success():
    client, _ = chat_client(Chunks([chunk("half")]))
    stream = client_of(client).stream("hello")
    with pytest.raises(StreamInterruptedError) as caught:
        list(stream)
    assert caught.value.partial.text == "half"


def test_a_stream_that_is_left_is_closed():
    chunks = Chunks([chunk("a"), chunk("b"), chunk(finish="stop")])
    client, _ = chat_client(chunks)
    with client_of(client).stream("hello") as stream:
        assert next(stream) == "a"
    assert chunks.closed


def test_a_client_that_answers_a_stream_in_one_piece_is_told_as_one():
    client, _ = chat_client(WHOLE)
    assert list(client_of(client).stream("hello")) == ["hi"]


def test_the_anthropic_shape_both_ways():
    whole = {
        "id": "msg", "model": "m-1", "role": "assistant", "type": "message", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": 3, "output_tokens": 2},
    }  # fmt: skip
    events = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    create = Method(whole, Chunks(events), Chunks(events[:-2]))
    client = client_of(SimpleNamespace(messages=SimpleNamespace(create=create)), max_tokens=50, system="be kind")
    response = client.ask("hello")
    assert (response.text, response.finish_reason, response.usage.input) == ("hi", "stop", 3)
    assert create.calls[0] == {
        "model": "m", "max_tokens": 50, "system": "be kind", "messages": [{"role": "user", "content": "hello"}]
    }  # fmt: skip
    stream = client.stream("hello")
    assert list(stream) == ["hi"] and stream.response.usage.output == 2
    with pytest.raises(StreamInterruptedError):
        list(client.stream("hello"))


def test_the_headers_a_call_chooses_go_along_and_those_of_the_library_stay_its_own():
    create = Method({"role": "assistant", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"})
    client = SimpleNamespace(messages=SimpleNamespace(create=create))
    extra = {"anthropic.messages": {"anthropic-beta": "files-1,context-1"}}
    client_of(client).ask("hello", max_tokens=9, extra=extra, headers={"x-mine": "yes"})
    assert create.calls[0]["extra_headers"] == {"anthropic-beta": "files-1,context-1", "x-mine": "yes"}
    assert "anthropic-beta" not in create.calls[0]


def test_the_ollama_shape_both_ways():
    lines = [
        {"model": "m-1", "message": {"role": "assistant", "content": "h"}, "done": False},
        {"model": "m-1", "message": {"role": "assistant", "content": "i"}, "done": False},
        {"model": "m-1", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop",
         "prompt_eval_count": 3, "eval_count": 2},
    ]  # fmt: skip
    whole = {**lines[2], "message": {"role": "assistant", "content": "hi"}}

    class Ollama:
        def __init__(self, *answers):
            self.method = Method(*answers)

        def chat(self, model="", messages=None, *, tools=None, stream=False, options=None):
            return self.method(model=model, messages=messages, stream=stream, options=options)

    thing = Ollama(whole, Chunks(lines), Chunks(lines[:2]))
    client = client_of(thing, temperature=0.5)
    response = client.ask("hello", headers={"x-a": "1"})
    assert (response.text, response.usage.input, response.usage.output) == ("hi", 3, 2)
    assert [loss.field for loss in response.losses] == ["headers"]
    assert thing.method.calls[0]["options"] == {"temperature": 0.5}
    stream = client.stream("hello")
    assert list(stream) == ["h", "i"] and stream.response.usage.output == 2
    with pytest.raises(StreamInterruptedError):
        list(client.stream("hello"))


def test_an_argument_the_method_has_not_is_a_loss():
    class Small:
        def chat(self, model, messages, stream=False):
            return {"message": {"role": "assistant", "content": "hi"}, "done": True}

    response = client_of(Small()).ask("hello", temperature=0.5)
    assert [loss.field for loss in response.losses] == ["options"]
    with pytest.raises(LossError):
        client_of(Small()).ask("hello", temperature=0.5, strict=True)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (None, BadResponseError),
        ("text", BadResponseError),
        ({"choices": []}, BadResponseError),
        ({"choices": [{"message": 5}]}, BadResponseError),
        ({"unknown": "shape"}, BadResponseError),
        (SimpleNamespace(choices="x"), BadResponseError),
        ({"choices": [], "error": {"message": "no", "code": 429}}, RateLimitError),
        (ValueError("inside"), ServerError),
    ],
)
def test_an_answer_of_no_shape_is_one_clear_error(given, error):
    for ask in (lambda client: client.ask("x"), lambda client: list(client.stream("x"))):
        client, _ = chat_client(given, given)
        with pytest.raises(error):
            ask(client_of(client))


def test_a_model_must_be_named_and_a_dialect_must_be_offered():
    client, _ = chat_client()
    with pytest.raises(InputError, match="no model is named"):
        Client(backend=client, settings=Settings()).ask("x")
    with pytest.raises(InputError, match=r"no method that speaks anthropic\.messages"):
        backend_of(client, dialect="anthropic.messages")
    with pytest.raises(InputError, match="no client library speaks 'gemini'"):
        backend_of(client, dialect="gemini")


# ---- what libraries raise ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "kind", "facts"),
    [
        (
            APIStatusError(
                "slow down", {"message": "slow down"}, status_code=429, response=reply(429, **{"Retry-After": "3"})
            ),
            RateLimitError,
            {"retry_after": 3.0, "status": 429, "retryable": True},
        ),
        (
            APIStatusError("no", None, status_code=401, response=reply(401, b'{"error": {"message": "bad key"}}')),
            AuthError,
            {"message": "bad key", "retryable": False},
        ),
        (APIStatusError("gone", {"error": {"message": "gone"}}, status_code=404, request_id="r9"), NotFoundError,
         {"request_id": "r9"}),
        (APIStatusError("<html>", "text", status_code=503), ServerError, {"message": "<html>", "retryable": True}),
        (APIError("in the stream", {"message": "busy", "code": 503}), ServerError, {"message": "busy"}),
        (APITimeoutError("Request timed out."), CallTimeoutError, {}),
        (APIConnectionError("Connection error."), ConnectionFailedError, {"retryable": True}),
        (ResponseError("model not here", 404), NotFoundError, {"message": "model not here"}),
        (ResponseError("broke off"), ServerError, {"message": "broke off"}),
        (APIError("odd", {"message": object()}), ServerError, {"message": "odd"}),
    ],
)  # fmt: skip
def test_what_a_library_raises_becomes_the_error_it_means(raised, kind, facts):
    client, create = chat_client(raised)
    with pytest.raises(kind) as caught:
        client_of(client).ask("x")
    assert {name: getattr(caught.value, name) for name in facts} == facts
    assert caught.value.__cause__ is raised
    assert caught.value.provider == "openai" and len(create.calls) == 1


# ---- the real ones ----------------------------------------------------------------------------


def json_answer(value, status="200 OK", *headers):
    return answer(json.dumps(value).encode(), "content-type: application/json", *headers, status=status)


def sse(*events, end=b""):
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + end
    return send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req_7\r\nconnection: close\r\n\r\n" + body
    )


async def hang_up(connection):
    connection.writer.close()
    connection.over = True


@pytest.fixture
def sdk():
    """Make a client of a real library, and close it where it was used."""
    made = []

    def make(kind, url, path="v1", **facts):
        module = pytest.importorskip("openai" if "OpenAI" in kind else "anthropic")
        made.append(getattr(module, kind)(api_key="test-key-123", base_url=url + path, **facts))
        return made[-1]

    yield make
    for client in made:
        closing = client.close()
        if closing is not None:
            polyvox.portal.run(closing)


@pytest.mark.parametrize("kind", ["OpenAI", "AsyncOpenAI"])
def test_a_real_openai_client_is_asked_once_and_read_whole(sdk, kind):
    with FaultServer(json_answer({**WHOLE, "object": "chat.completion"}, "200 OK", "x-request-id: req_7")) as server:
        real = sdk(kind, server.url)
        response = client_of(real).ask(
            "hello", top_k=5, extra_body={"min_p": 0.1}, headers={"x-mine": "yes"}, timeout=20
        )
        assert (response.text, response.usage.total, response.request_id) == ("hi", 3, "req_7")
        assert response.extra["openai.chat"]["new_key"] == {"kept": True}
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert b"x-mine: yes" in head.lower()
    assert json.loads(body) == {"model": "m", "messages": [{"role": "user", "content": "hello"}], "min_p": 0.1}
    assert [loss.field for loss in response.losses] == ["top_k"]


@pytest.mark.parametrize("kind", ["OpenAI", "AsyncOpenAI"])
def test_a_real_openai_client_streams(sdk, kind):
    chunks = [chunk("a"), chunk("b"), chunk(finish="stop"), {**chunk(), "choices": [], "usage": {"total_tokens": 3}}]
    with FaultServer(sse(*chunks, end=b"data: [DONE]\n\n"), hang_up) as server:
        real = sdk(kind, server.url)
        stream = client_of(real).stream("hello")
        assert list(stream) == ["a", "b"]
        assert (stream.response.finish_reason, stream.response.usage.total) == ("stop", 3)
        assert stream.response.request_id == "req_7"
        assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("kind", ["OpenAI", "AsyncOpenAI"])
def test_a_stream_of_a_real_client_that_is_left_frees_its_connection(sdk, kind):
    with FaultServer(sse(chunk("a")), stall) as server:
        stream = client_of(sdk(kind, server.url)).stream("hello")
        assert next(iter(stream)) == "a"
        assert server.open_connections == 1
        stream.close()
        assert server.wait_for(lambda each: each.open_connections == 0, 5)


def test_a_real_client_whose_stream_is_cut_gives_the_partial_answer(sdk):
    with FaultServer(sse(chunk("half")), hang_up) as server:
        real = sdk("OpenAI", server.url)
        stream = client_of(real).stream("hello")
        with pytest.raises(PolyvoxError) as caught:
            list(stream)
    assert caught.value.kind in ("stream_interrupted", "connection")
    assert caught.value.partial.text == "half"


@pytest.mark.parametrize("kind", ["OpenAI", "AsyncOpenAI"])
def test_the_tries_of_a_real_client_do_not_multiply_ours(sdk, kind):
    wire = json_answer({"error": {"message": "slow down", "code": "x"}}, "429 Too Many", "retry-after-ms: 1")
    with FaultServer(wire) as server:
        real = sdk(kind, server.url, max_retries=5)
        with pytest.raises(RateLimitError, match="slow down") as caught:
            client_of(real, retries=0).ask("hello")
        assert len(server.requests) == 1
    assert (caught.value.status, caught.value.retry_after) == (429, 0.001)
    assert real.max_retries == 5, "the caller's own client stays as it was"


def test_a_real_client_that_cannot_connect_is_told_so(sdk):
    real = sdk("OpenAI", "http://127.0.0.1:9/")
    with pytest.raises(ConnectionFailedError):
        client_of(real).ask("hello")


def test_the_deadline_ends_a_call_through_a_real_client_and_its_thread_too(sdk):
    with FaultServer(stall) as server:
        real = sdk("OpenAI", server.url)
        began = time.monotonic()
        with pytest.raises(CallTimeoutError):
            client_of(real).ask("hello", timeout=0.4)
        assert time.monotonic() - began < 1.5
        assert server.wait_for(lambda each: each.open_connections == 0, 5), "its own limit lets the thread end"


@pytest.mark.parametrize("kind", ["Anthropic", "AsyncAnthropic"])
def test_a_real_anthropic_client_answers_streams_and_fails(sdk, kind):
    whole = {
        "id": "msg", "model": "m-1", "role": "assistant", "type": "message", "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": "hi"}],
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }  # fmt: skip
    with FaultServer(json_answer(whole, "200 OK", "request-id: req_8")) as server:
        real = sdk(kind, server.url, "")
        response = client_of(real, max_tokens=50).ask("hello")
        assert (response.text, response.usage.input, response.request_id) == ("hi", 3, "req_8")
    events = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    broken = [*events[:3], {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}]
    for script, failure in ((events, None), (broken, OverloadedError)):
        named = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in script)
        with FaultServer(sse(end=named), hang_up) as server:
            real = sdk(kind, server.url, "")
            stream = client_of(real, max_tokens=50).stream("hello")
            if failure is None:
                assert list(stream) == ["hi"] and stream.response.usage.output == 2
                continue
            with pytest.raises(failure) as caught:
                list(stream)
            assert caught.value.partial.text == "hi"
    wire = json_answer({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "529 Busy")
    with FaultServer(wire) as server:
        real = sdk(kind, server.url, "")
        with pytest.raises(OverloadedError, match="Overloaded"):
            client_of(real, max_tokens=50).ask("hello")
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_a_real_ollama_client_answers_streams_and_fails(kind):
    module = pytest.importorskip("ollama")
    last = {"model": "m-1", "message": {"role": "assistant", "content": "i"}, "done": True, "done_reason": "stop",
            "prompt_eval_count": 3, "eval_count": 2}  # fmt: skip
    first = {"model": "m-1", "message": {"role": "assistant", "content": "h"}, "done": False}
    lines = b"".join(json.dumps(line).encode() + b"\n" for line in (first, last))
    missing = json_answer({"error": "model 'm' not found"}, "404 Not Found")
    for wire, ask in (
        (json_answer(last), lambda client: [client.ask("hello", temperature=0.5).text] == ["i"]),
        (
            answer(lines, "content-type: application/x-ndjson"),
            lambda client: list(client.stream("hello")) == ["h", "i"],
        ),
        (missing, lambda client: raises(NotFoundError, lambda: client.ask("hello"))),
        (missing, lambda client: raises(NotFoundError, lambda: list(client.stream("hello")))),
    ):
        with FaultServer(wire) as server:
            real = getattr(module, kind)(host=server.url)
            try:
                assert ask(client_of(real))
                assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["model"] == "m"
            finally:
                closing = real.close()
                if closing is not None:
                    polyvox.portal.run(closing)


def raises(kind, act):
    with pytest.raises(kind):
        act()
    return True


def test_a_real_client_works_in_the_callers_own_loop():
    async def main(server):
        openai = pytest.importorskip("openai")
        async with openai.AsyncOpenAI(api_key="test-key-123", base_url=server.url + "v1") as real:
            async with AsyncClient("m", backend=real, settings=Settings()) as client:
                return [answer.text for answer in await asyncio.gather(client.ask("a"), client.ask("b"))]

    with FaultServer(json_answer({**WHOLE, "object": "chat.completion"})) as server:
        assert asyncio.run(main(server)) == ["hi", "hi"]


# ---- LiteLLM ----------------------------------------------------------------------------------


class ModelResponse:
    """What LiteLLM gives: a model class whose dump it has made its own."""

    def __init__(self, **facts):
        self.facts = facts
        self._hidden_params = {"model_id": "x"}

    def model_dump(self, **kwargs):
        assert "exclude_none" not in kwargs
        return self.facts


def test_the_shape_litellm_has_is_asked_once_with_its_own_retries_off():
    seen = []

    async def acompletion(model, messages=(), timeout=None, stream=None, extra_headers=None, **kwargs):
        seen.append({"model": model, "timeout": timeout, "stream": stream, **kwargs})
        if not stream:
            return ModelResponse(**WHOLE)

        async def chunks():
            for each in (chunk("a"), chunk("b"), chunk(finish="stop")):
                yield ModelResponse(**each)

        return chunks()

    client = client_of(litellm.backend("litellm", acompletion), "maker/model")
    response = client.ask("hello", max_tokens=9, timeout=30)
    assert isinstance(response, Response) and response.text == "hi"
    assert seen[0] == {
        "model": "maker/model", "timeout": 30, "stream": None, "max_tokens": 9, "num_retries": 0, "max_retries": 0
    }  # fmt: skip
    assert list(client.stream("hello")) == ["a", "b"]
    assert "drop_params" not in seen[1]
