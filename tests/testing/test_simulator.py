"""A simulated provider answers like one in every dialect, tells what it was asked, notices who leaves, and ends
honestly."""

import asyncio
import json
import re
import socket
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyvox import AsyncClient
from polyvox.config import Settings
from polyvox.dialects import NAMES, Endpoint, Reply, dialect
from polyvox.dialects.model_lists import LISTS
from polyvox.errors import AuthError, InputError, NotFoundError, OverloadedError, UsageError
from polyvox.testing import Fault, Simulator
from polyvox.testing.simulate.routes import PROVIDERS
from polyvox.testing.simulate.server import MAX_BODY
from polyvox.types import Message, Response, Text, Usage
from tests.testing.asking import (
    DENIED,
    HEADERS,
    HELLO,
    HOSTED,
    KEY,
    NAMELESS,
    SAYS,
    ask,
    client,
    connect,
    error_of,
    events,
    exchange,
    get,
    leave_in_the_middle,
    question,
    request,
)

DIALECTS = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def shared():
    """One that answers everything, for tests that leave nothing behind."""
    with Simulator() as simulator:
        yield simulator


# ---- it answers -------------------------------------------------------------------------------


def test_every_dialect_is_served():
    assert set(PROVIDERS) == set(NAMES)


@DIALECTS
def test_our_own_client_gets_the_demos_answer_whole_and_streamed(shared, name):
    with client(shared, name) as asking:
        response = asking.ask(HELLO)
        stream = asking.stream(HELLO)
        pieces = list(stream)
    assert response.text.startswith(SAYS) and response.finish_reason == "stop"
    assert "".join(pieces) == response.text and len(pieces) > 5
    assert stream.response.finish_reason == "stop" and stream.response.usage == response.usage
    assert {response.model, stream.response.model} == {None if name in NAMELESS else "any-model"}
    assert [asked.model for asked in shared.requests[-2:]] == ["any-model"] * 2
    assert response.usage.input and response.usage.output


@DIALECTS
def test_tools_are_called_and_their_results_are_read(shared, name):
    def weather(city: str) -> str:
        """The weather in a city."""
        return "sun"

    with client(shared, name) as asking:
        response = asking.ask("What is the weather?", tools=[weather], tool_choice=None)
    assert [call.name for call in response.tool_calls] == ["weather"] and response.finish_reason == "tool_calls"


@DIALECTS
def test_many_clients_at_once_are_all_answered(name):
    async def run(simulator):
        options = {"base_url": simulator.base_url(name), "dialect": name, "api_key": KEY, "settings": Settings()}
        async with AsyncClient("any-model", **options) as asking:
            return await asyncio.gather(*(asking.ask(f"question {number}") for number in range(40)))

    with Simulator() as simulator:
        answers = asyncio.run(run(simulator))
        assert [f"question {number}." in answer.text for number, answer in enumerate(answers)] == [True] * 40
        assert simulator.counts.answers == 40


@DIALECTS
def test_the_same_question_gets_the_same_bytes(shared, name):
    for stream in (False, True):
        assert ask(shared, name, stream).body == ask(shared, name, stream).body


def test_events_of_a_stream_leave_one_by_one(shared):
    got = ask(shared, "openai.chat", stream=True)
    assert got.headers["content-type"].startswith("text/event-stream") and got.whole
    assert got.raw.count(b"data: ") == got.body.count(b"data: ") > 5
    assert got.body.endswith(b"data: [DONE]\n\n")


def test_a_gemini_stream_is_one_list_for_a_client_that_does_not_ask_for_events(shared):
    path, body = question("gemini.generate", stream=True)
    got = exchange(shared, request("POST", path.partition("?")[0], body))
    assert got.headers["content-type"] == "application/json" and got.whole and len(got.json) > 5
    pieces = [json.loads(event[6:]) for event in events("gemini.generate", ask(shared, "gemini.generate", True).body)]
    assert got.json == pieces


def test_the_places_that_are_no_questions(shared):
    assert get(shared, "/health", key=None).json == {"status": "ok"}
    assert get(shared, "/v1/models").json["data"][0]["id"] == "demo"
    listed = get(shared, "/v1/models", anthropic_version="2023-06-01").json
    assert listed["data"][0]["type"] == "model" and listed["first_id"] == "demo"
    assert get(shared, "/api/tags", key=None).json["models"][0]["model"] == "demo"
    assert re.fullmatch(r"\d+\.\d+\.\d+", get(shared, "/api/version", key=None).json["version"])


@pytest.mark.parametrize("name", LISTS)
def test_our_own_client_gets_the_list_of_models_in_every_dialect_that_has_one(name):
    with Simulator(models=("one", "two")) as simulator, client(simulator, name) as asking:
        assert [model.id for model in asking.models()] == ["one", "two"]
        assert simulator.requests[0].dialect in (name, "openai.chat" if name == "openai.responses" else name)


def test_models_that_were_named_are_the_only_ones():
    with Simulator(models=("one", "two")) as simulator:
        assert [row["id"] for row in get(simulator, "/v1/models").json["data"]] == ["one", "two"]
        for name in NAMES:
            got = ask(simulator, name, model="three")
            assert got.status == 404 and "'one', 'two'" in error_of(name, got).message
            assert type(error_of(name, got)) is NotFoundError
            assert ask(simulator, name, model="two").status == 200


@pytest.mark.parametrize(
    ("path", "headers", "name"),
    [
        ("/v1/nothing", {}, "openai.chat"),
        ("/nowhere", {}, "openai.chat"),
        ("/v1/responses/resp_1/cancel", {}, "openai.responses"),
        ("/v1beta/models/any-model:countTokens", {}, "gemini.generate"),
        ("/v1/nothing", {"x-goog-api-key": KEY}, "gemini.generate"),
        ("/v2/nothing", {}, "cohere.chat"),
        ("/v1/nothing", {"x-fern-sdk-name": "cohere"}, "cohere.chat"),
        ("/model/any-model/invoke", {}, "bedrock.converse"),
        ("/v1/complete", {"anthropic-version": "2023-06-01"}, "anthropic.messages"),
        ("/v1/messages/batches", {"anthropic-version": "2023-06-01"}, "anthropic.messages"),
        ("/deployments/x/chat/completions", {}, "openai.chat"),
        ("/api/nothing", {}, "ollama.chat"),
    ],
)
def test_an_unknown_path_is_refused_in_the_words_of_its_client(shared, path, headers, name):
    got = exchange(shared, request("POST", path, b"{}", **headers))
    assert got.status == 404 and path in error_of(name, got).message
    assert shared.requests[-1].dialect == name and shared.requests[-1].outcome == "refused"


@DIALECTS
def test_a_wrong_method_is_refused_in_the_words_of_the_dialect(shared, name):
    got = get(shared, question(name)[0], method="DELETE")
    assert got.status == 405 and "takes POST" in error_of(name, got).message


@DIALECTS
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model": 5}', b'{"model": "m", "messages": 7}'])
def test_a_body_that_is_no_question_is_refused_with_400(shared, name, body):
    got = exchange(shared, request("POST", question(name)[0], body, **HEADERS.get(name, {})))
    assert got.status == 400 and error_of(name, got).kind == "invalid_request"
    assert shared.requests[-1].outcome == "refused" and shared.requests[-1].body == body


def test_a_body_that_waits_to_be_asked_for_is_asked_for(shared):
    path, body = question("openai.chat")
    with connect(shared) as link:
        link.sendall(request("POST", path, body, expect="100-continue")[: -len(body)])
        assert link.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n")
        link.sendall(body)
        assert link.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_body_that_cannot_be_unpacked_is_refused(shared):
    got = exchange(shared, request("POST", "/v1/chat/completions", b"this is no gzip", content_encoding="gzip"))
    assert got.status == 400 and "cannot be read" in error_of("openai.chat", got).message


def test_a_body_that_is_too_large_is_refused(shared):
    path, body = question("openai.chat", said="x" * MAX_BODY)
    got = exchange(shared, request("POST", path, body))
    assert got.status == 413 and error_of("openai.chat", got).kind == "too_large"
    shared.reset()  # let go of it


def test_a_path_says_the_dialect_whatever_the_headers_say(shared):
    got = ask(shared, "openai.chat", headers={"anthropic-version": "2023-06-01"})
    assert got.json["object"] == "chat.completion"


def test_a_question_about_the_head_alone_gets_the_head_alone(shared):
    got = get(shared, "/v1/models", method="HEAD")
    assert got.status == 405 and got.body == b"" and got.end == "closed"


def test_a_client_of_http_1_0_gets_a_stream_to_the_end_of_the_connection(shared):
    path, body = question("openai.chat", stream=True)
    got = exchange(shared, request("POST", path, body).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert got.raw.startswith(b"HTTP/1.0 200 OK\r\n") and got.raw.endswith(b"\n\ndata: [DONE]\n\n")
    assert b"transfer-encoding" not in got.raw.lower()


def test_what_the_inventor_refuses_is_refused_unless_it_is_told_not_to_be_strict(shared):
    assert ask(shared, "openai.chat", top_k=5).status == 400
    with Simulator(strict=False) as simulator:
        assert ask(simulator, "openai.chat", top_k=5).status == 200


# ---- keys -------------------------------------------------------------------------------------


@DIALECTS
def test_a_key_is_demanded_where_the_provider_demands_one(shared, name):
    got = ask(shared, name, key=None)
    assert got.status == (DENIED.get(name, 401) if name in HOSTED else 200)
    if name in HOSTED:
        assert type(error_of(name, got)) is AuthError
    assert ask(shared, name, key=None, headers={"x-api-key": "anything"}).status == 200


@DIALECTS
def test_keys_that_were_named_are_the_only_ones(name):
    denied = DENIED.get(name, 401)
    with Simulator(keys=(KEY, "sk-second-0123456789")) as simulator:
        for key, headers, status in (
            (KEY, {}, 200),
            (None, {"x-api-key": "sk-second-0123456789"}, 200),
            ("sk-wrong-0123456789", {}, denied),
            (None, {"x-api-key": "sk-wrong-0123456789"}, denied),
            (None, {}, denied),
            (None, {"authorization": f"Basic {KEY}"}, denied),
        ):
            assert ask(simulator, name, key=key, headers=headers).status == status
        assert simulator.counts.errors == {denied: 4}


@DIALECTS
def test_no_key_is_needed_where_none_is_demanded(name):
    with Simulator(demand_key=False) as simulator:
        assert ask(simulator, name, key=None).status == 200


def test_keys_stand_nowhere(caplog):
    with Simulator(keys=(KEY,)) as simulator:
        ask(simulator, "openai.chat")
        got = ask(simulator, "openai.chat", key="sk-wrong-0123456789", headers={"x-api-key": "sk-other-0123456789"})
        shown = repr((simulator, vars(simulator), simulator._options, simulator.requests, simulator.counts))
        for key in (KEY, "sk-wrong-0123456789", "sk-other-0123456789"):
            assert key not in shown and key not in caplog.text and key.encode() not in got.raw


# ---- what it tells ----------------------------------------------------------------------------


def test_what_was_asked_can_be_looked_at():
    with Simulator() as simulator:
        ask(simulator, "anthropic.messages", stream=True, headers={"x-mine": "yes"}, model="some-model")
        get(simulator, "/health?x=1")
        first, second = simulator.requests
    assert (first.number, first.call, first.dialect, first.path) == (1, 1, "anthropic.messages", "/v1/messages")
    assert (first.model, first.stream, first.status, first.fault, first.outcome) == (
        "some-model", True, 200, None, "answered",
    )  # fmt: skip
    assert first.headers["x-mine"] == "yes" and "authorization" not in first.headers
    assert first.json["messages"] == [{"role": "user", "content": HELLO}]
    assert first.usage.output and 0 < first.seconds < 5
    assert (second.number, second.call, second.path, second.model) == (2, None, "/health", None)


def test_counts_are_of_everything_and_of_each_dialect_and_model():
    with Simulator() as simulator:
        for name in NAMES:
            ask(simulator, name, model="a")
            ask(simulator, name, stream=True, model="b")
        ask(simulator, "openai.chat", key=None, model="a")
        get(simulator, "/nowhere")
        counts = simulator.counts
    count = len(NAMES)
    assert (counts.requests, counts.answers, counts.streams) == (2 * count + 2, 2 * count, count)
    assert counts.errors == {401: 1, 404: 1} and set(counts.by_dialect) == set(NAMES)
    assert (
        counts.connections == 2 * count + 2
        and counts.cut_by_client == 0
        and counts.faults == {}
        and counts.usage_unknown == 0
    )
    assert counts.by_model["a"].requests == count + 1 and counts.by_model["a"].answers == count
    assert counts.by_model["b"].streams == count and set(counts.by_model) == {"a", "b"}
    assert counts.by_dialect["openai.chat"].errors == {401: 1, 404: 1}
    for of_a_kind in (counts.by_dialect, counts.by_model):
        assert sum(numbers.tokens_out for numbers in of_a_kind.values()) == counts.tokens_out > 0
        assert sum(numbers.tokens_in for numbers in of_a_kind.values()) == counts.tokens_in > 0


def test_an_answer_is_counted_before_whoever_has_it_can_look():
    with Simulator() as simulator, client(simulator, "openai.chat") as asking:
        for number in range(1, 20):
            asking.ask(HELLO)
            assert simulator.counts.answers == number and simulator.requests[-1].outcome == "answered"


def test_connections_that_are_kept_are_counted_once():
    with Simulator() as simulator, client(simulator, "openai.chat") as asking:
        for _ in range(3):
            asking.ask(HELLO)
        assert simulator.counts.connections == 1


def test_a_reset_forgets_what_came():
    with Simulator(plan=[Fault("status", at=(1,))], rpm=2) as simulator:
        assert [ask(simulator, "openai.chat").status for _ in range(4)] == [500, 200, 200, 429]
        simulator.reset()
        assert simulator.requests == () and simulator.counts.requests == 0 and simulator.counts.faults == {}
        assert [ask(simulator, "openai.chat").status for _ in range(4)] == [500, 200, 200, 429]


def test_only_the_latest_requests_are_kept():
    with Simulator(keep=2) as simulator:
        for number in range(4):
            ask(simulator, "ollama.chat", model=f"m{number}")
        assert [asked.model for asked in simulator.requests] == ["m2", "m3"] and simulator.counts.requests == 4


def test_whoever_wants_to_hear_of_each_answer_does():
    heard = []
    with Simulator(on_answer=heard.append) as simulator:
        ask(simulator, "ollama.chat")
        ask(simulator, "openai.chat", key=None)
    assert [(asked.dialect, asked.outcome) for asked in heard] == [
        ("ollama.chat", "answered"),
        ("openai.chat", "refused"),
    ]


def test_a_listener_that_fails_harms_no_answer(caplog):
    def fails(asked):
        raise RuntimeError("oh no")

    with Simulator(on_answer=fails) as simulator:
        assert [ask(simulator, "ollama.chat").status for _ in range(2)] == [200, 200]
    assert caplog.text.count("RuntimeError: oh no") == 2


def test_waiting_for_something_ends_when_it_is_so_and_when_time_is_up():
    with Simulator(latency=0.1) as simulator:
        thread = threading.Thread(target=ask, args=(simulator, "ollama.chat"))
        thread.start()
        assert simulator.wait_for(lambda it: it.counts.requests == 1)
        assert simulator.wait_for(lambda it: it.counts.answers == 1)
        assert not simulator.wait_for(lambda it: it.counts.requests == 2, seconds=0.05)
        thread.join()


# ---- who leaves, and how it ends --------------------------------------------------------------


@DIALECTS
def test_a_client_that_leaves_in_the_middle_is_noticed(name):
    with Simulator(token_rate=10) as simulator:
        leave_in_the_middle(simulator, name)
        assert simulator.wait_for(lambda it: it.counts.cut_by_client == 1)
        assert simulator.requests[0].outcome == "cut_by_client" and simulator.counts.answers == 0


def test_a_client_that_leaves_before_the_head_is_noticed():
    with Simulator(latency=30) as simulator:
        with connect(simulator) as link:
            link.sendall(request("POST", *question("openai.chat")))
            assert simulator.wait_for(lambda it: it.counts.requests == 1)
        assert simulator.wait_for(lambda it: it.counts.cut_by_client == 1)


@DIALECTS
@pytest.mark.parametrize("keep_alive", [0.06, 15.0])
def test_a_stop_tells_open_streams_that_they_end(name, keep_alive):
    heard = []
    simulator = Simulator(token_rate=5, keep_alive=keep_alive)
    with simulator:
        thread = threading.Thread(target=lambda: heard.append(ask(simulator, name, stream=True)))
        thread.start()
        assert simulator.wait_for(lambda it: it.counts.requests == 1)
        time.sleep(0.3)
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
    thread.join()
    reader = dialect(name).reader(Endpoint())
    last = [*reader.feed(heard[0].body), *reader.close()][-1]
    assert last.error.kind in ("overloaded", "server") and "stopping" in last.error.message
    assert heard[0].whole and simulator.requests[0].outcome == "broken"


def test_a_stop_refuses_those_that_wait_and_closes_those_that_stall():
    heard = []
    simulator = Simulator(latency=30, plan=[Fault("stall", at=(2,)), Fault("drip", at=(3,), seconds=1)])
    with simulator:
        threads = [threading.Thread(target=lambda: heard.append(ask(simulator, "openai.chat"))) for _ in range(3)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            assert simulator.wait_for(lambda it, number=number: it.counts.requests == number)
        time.sleep(0.05)
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
    for thread in threads:
        thread.join()
    assert sorted(got.status for got in heard) == [0, 503, 503]


def test_nothing_is_left_running():
    before = threading.active_count()
    with Simulator(token_rate=5) as simulator:
        leave_in_the_middle(simulator, "openai.chat")
        port = int(simulator.url.rpartition(":")[2])
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_asynchronous_code_uses_it_alike():
    async def run():
        async with Simulator() as simulator:
            options = {"dialect": "ollama.chat", "settings": Settings()}
            async with AsyncClient("any-model", base_url=simulator.base_url("ollama.chat"), **options) as asking:
                response = await asking.ask(HELLO)
            return response.text, simulator.counts.answers

    text, answers = asyncio.run(run())
    assert text.startswith(SAYS) and answers == 1


def test_a_port_that_is_taken_is_an_error_that_says_so():
    with Simulator() as simulator:
        port = int(simulator.url.rpartition(":")[2])
        second = Simulator(port=port)
        with pytest.raises(InputError) as caught, second:
            pass
    assert caught.value.param == "port" and str(port) in caught.value.message
    with second:  # it is free now
        assert second.url.endswith(str(port))


def test_what_is_not_running_has_no_address_and_what_was_never_started_no_counts():
    simulator = Simulator()
    for act in (lambda: simulator.url, lambda: simulator.counts, lambda: simulator.requests, simulator.reset):
        with pytest.raises(UsageError):
            act()
    with simulator, pytest.raises(UsageError), simulator:
        pass
    with pytest.raises(UsageError):
        _ = simulator.url


def test_its_addresses_are_what_clients_of_each_dialect_take(shared):
    assert shared.environment == {
        "OPENAI_BASE_URL": shared.url + "/v1", "ANTHROPIC_BASE_URL": shared.url, "OLLAMA_HOST": shared.url,
        "GOOGLE_GEMINI_BASE_URL": shared.url, "CO_API_URL": shared.url,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": shared.url,
    }  # fmt: skip
    with pytest.raises(InputError, match="no dialect"):
        shared.base_url("klingon")


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")])
def test_it_listens_where_it_is_told(host, shown):
    try:
        with Simulator(host=host) as simulator:
            assert simulator.url.startswith(f"http://{shown}:")
            assert simulator.only_here == (host != "0.0.0.0")
            with client(simulator, "ollama.chat") as asking:
                assert asking.ask(HELLO).text.startswith(SAYS)
    except InputError:
        if host != "::1":
            raise
        pytest.skip("this machine has no IPv6")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("host", ""), ("host", 5), ("port", -1), ("port", 70000), ("port", "80"), ("port", True), ("models", "one"),
        ("models", []), ("models", [5]), ("keys", KEY), ("keys", ()), ("keys", 5), ("demand_key", 1), ("strict", None),
        ("latency", "soon"), ("latency", -1), ("latency", None), ("token_rate", 0), ("token_rate", float("nan")),
        ("rpm", 0), ("tpm", 1.5), ("concurrent", 0), ("seed", "x"), ("seed", True), ("keep_alive", 0), ("keep", -1),
        ("replay", 5), ("answering", "hello"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named_and_its_value_shown_only_where_it_is_a_number(option, value):
    with pytest.raises(InputError) as caught:
        Simulator(**{option: value})
    assert caught.value.param == option and option in caught.value.message
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("facts", [{"models": ("a",)}, {"answering": str}])
def test_a_recording_excludes_what_else_would_answer(tmp_path, facts):
    with pytest.raises(InputError, match="exclude"):
        Simulator(**facts, replay=tmp_path / "x")


@DIALECTS
def test_a_function_answers_in_place_of_the_built_in_model_and_its_errors_are_told(name):
    def answering(asked):
        words = asked.messages[-1].text
        if words == "no":
            raise OverloadedError("not now", status=503)
        return Response(Message("assistant", (Text(words[::-1]),)), "stop", usage=Usage(1, 2, source="provider"))

    with Simulator(answering=answering, strict=False) as simulator, client(simulator, name) as asking:
        for response in (asking.ask("abc"), asking.stream("abc").finish()):
            assert response.text == "cba" and (response.usage.input, response.usage.output) == (1, 2)
        with pytest.raises(OverloadedError, match="not now"):
            asking.ask("no")


class Failing:
    """A source of answers with a mistake in it."""

    async def answer(self, *_):
        raise RuntimeError("oh no")


def test_a_failure_of_our_own_is_an_error_of_the_dialect_and_is_logged(caplog):
    with Simulator() as simulator:
        simulator._server.state.demo = Failing()
        got = ask(simulator, "openai.chat")
    assert got.status == 500 and error_of("openai.chat", got).kind == "server"
    assert "oh no" not in got.raw.decode() and "oh no" in caplog.text
    assert simulator.counts.errors == {500: 1}


_WORDS = (
    "messages", "tools", "tool_choice", "response_format", "format", "options", "thinking", "think", "system", "stop",
    "n", "role", "content", "type", "text", "name", "function", "parameters", "stream_options",
)  # fmt: skip
_NAMES = st.sampled_from(_WORDS) | st.text(max_size=3)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@DIALECTS
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(_WORDS), value=_JSON, stream=st.booleans())
def test_whatever_is_asked_the_answer_is_good_or_says_what_is_wrong(shared, name, field, value, stream):
    path, body = question(name, stream=stream, **{field: value})
    got = exchange(shared, request("POST", path, body, **HEADERS.get(name, {})))
    assert got.status in (200, 400) and got.whole
    if got.status == 400:
        assert error_of(name, got).message
    elif got.headers["content-type"].startswith("application/json"):
        assert dialect(name).decode_response(Reply(200, got.headers, got.body), Endpoint()).finish_reason
