"""Backends somebody wrote: found by name, asked through the same engine as every provider, and told apart from
what they cannot be told."""

import asyncio
import gc
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyvox
from polyvox import AsyncClient, Client, Image, Message, Request, Response, Text, Usage, backends
from polyvox.backends import BackendDeployment, backend_of, register_backend, unregister_backend
from polyvox.config import Settings
from polyvox.engine import CallOptions, Engine
from polyvox.errors import (
    BadResponseError,
    CallTimeoutError,
    ConfigError,
    ConnectionFailedError,
    InputError,
    LossError,
    MissingExtraError,
    PolyvoxError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
    UnknownModelError,
    UsageError,
)
from polyvox.types import Cost, Ended, Failed, PartAdded, Reasoning, ReasoningDelta, Started, TextDelta, UsageReported

HELLO = (Message("user", (Text("hello"),)),)


class Echo:
    """Ten lines: a name and an ask."""

    name = "echo"

    def ask(self, prompt):
        return f"you said {prompt}"


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(backends, "registered", {})
    monkeypatch.setattr(backends, "_discovered", {})


def client_of(thing, **facts):
    return Client(backend=thing, **{"settings": Settings(), "retries": 0, **facts})


def asks(answer, name="b"):
    """A backend whose ask is this function."""

    class Backend:
        ask = staticmethod(answer)

    Backend.name = name
    return Backend()


def streams(source, name="b"):
    """A backend whose stream is this function."""

    class Backend:
        ask = staticmethod(lambda prompt: "whole")
        stream = staticmethod(source)

    Backend.name = name
    return Backend()


# ---- ten lines --------------------------------------------------------------------------------


def test_ten_lines_are_a_model_for_ask_stream_and_chat():
    register_backend(Echo)
    answer = polyvox.ask("hello", model="echo")
    assert (answer.text, answer.finish_reason) == ("you said hello", "stop")
    assert (answer.provider, answer.model, answer.deployment) == ("echo", "echo", "echo")
    assert answer.usage == Usage() and answer.usage.source == "missing"
    assert answer.cost == Cost() and answer.cost.amount is None
    assert [attempt.outcome for attempt in answer.attempts] == ["ok"]
    stream = polyvox.stream("hello", model="echo")
    assert list(stream) == ["you said hello"]
    assert stream.response.finish_reason == "stop"
    talk = polyvox.chat(model="echo")
    assert talk.ask("one").text == "you said one"
    assert talk.ask("two").text == "you said two"
    assert [message.text for message in talk.messages] == ["one", "you said one", "two", "you said two"]


def test_the_same_backend_answers_awaited_calls_and_batches():
    register_backend(Echo)

    async def main():
        async with AsyncClient("echo", settings=Settings()) as client:
            return await client.ask("a"), [text async for text in client.stream("b")]

    answer, texts = asyncio.run(main())
    assert (answer.text, texts) == ("you said a", ["you said b"])
    assert [each.text for each in polyvox.ask_batch(["x", "y"], model="echo")] == ["you said x", "you said y"]


def test_an_asynchronous_ask_answers_both_faces():
    async def ask(prompt):
        await asyncio.sleep(0)
        return prompt[::-1]

    assert client_of(asks(ask)).ask("abc").text == "cba"
    assert list(client_of(asks(ask)).stream("abc")) == ["cba"]


def test_a_message_is_an_answer_and_a_response_is_taken_whole():
    message = Message("assistant", (Reasoning("hm"), Text("yes")))
    assert client_of(asks(lambda prompt: message)).ask("x").message == message
    given = Response(
        message, "length", "cut", usage=Usage(input=3, output=2), id="r1", model="big", extra={"b": {"k": 1}}
    )
    answer = client_of(asks(lambda prompt: given)).ask("x")
    assert (answer.message, answer.finish_reason, answer.raw_finish_reason) == (message, "length", "cut")
    assert (answer.id, answer.model, answer.extra) == ("r1", "big", {"b": {"k": 1}})
    assert (answer.usage.input, answer.usage.source) == (3, "provider")
    assert given.deployment is None and given.attempts == (), "what the backend keeps stays as it was"
    stream = client_of(asks(lambda prompt: given)).stream("x")
    assert list(stream) == ["yes"]
    assert (stream.response.message, stream.response.usage.input, stream.response.id) == (message, 3, "r1")


def test_a_loss_told_by_the_backend_stands_beside_ours():
    told = polyvox.Loss("tone", "it has one tone only")
    given = Response(Message("assistant", (Text("ok"),)), "stop", losses=(told,))
    losses = client_of(asks(lambda prompt: given)).ask("x", temperature=1.0).losses
    assert [loss.field for loss in losses] == ["temperature", "tone"]


# ---- what a method takes ----------------------------------------------------------------------


def test_a_parameter_called_request_or_annotated_so_gets_the_whole_request():
    seen = []

    def named(request):
        seen.append(request)
        return "ok"

    def annotated(what: Request):
        seen.append(what)
        return "ok"

    def in_words(what: "polyvox.Request"):
        seen.append(what)
        return "ok"

    for ask in (named, annotated, in_words):
        answer = client_of(asks(ask), system="be kind").ask("hi", temperature=0.5, model="m")
        assert answer.losses == ()
    for request in seen:
        assert isinstance(request, Request)
        assert (request.model, request.temperature) == ("m", 0.5)
        assert [message.role for message in request.messages] == ["system", "user"]


def test_a_prompt_annotated_as_text_is_text_whatever_its_name():
    def ask(request: str):
        return request.upper()

    assert client_of(asks(ask)).ask("hi").text == "HI"


def test_keywords_a_method_names_are_given_and_the_others_are_losses():
    seen = {}

    def ask(prompt, *, system=None, temperature=None, timeout=None):
        seen.update(prompt=prompt, system=system, temperature=temperature, timeout=timeout)
        return "ok"

    answer = client_of(asks(ask)).ask("hi", system="be kind", temperature=0.5, top_p=0.9, timeout=7)
    assert seen == {"prompt": "hi", "system": "be kind", "temperature": 0.5, "timeout": 7}
    assert [loss.field for loss in answer.losses] == ["top_p"]


def test_a_method_with_double_star_gets_all_that_was_said_and_nothing_else():
    calls = []

    async def ask(prompt, **kwargs):
        calls.append((prompt, kwargs))
        return "ok"

    client = client_of(asks(ask))
    assert client.ask("hi").losses == ()
    assert client.ask("hi", model="m", system="s", max_tokens=5, extra_body={"mirostat": 2}).losses == ()
    assert calls == [
        ("hi", {"model": "b"}),
        ("hi", {"model": "m", "system": "s", "max_tokens": 5, "mirostat": 2}),
    ]
    talk = client.chat()
    talk.ask("one")
    talk.ask("two")
    assert [message.text for message in calls[-1][1]["messages"]] == ["one", "ok", "two"]


def test_what_a_prompt_cannot_say_is_a_loss_and_an_error_under_strict():
    client = client_of(asks(lambda prompt: "ok"))
    history = [Message("user", (Text("a"),)), Message("assistant", (Text("b"),)), Message("user", (Text("c"),))]
    picture = Image(b"\x89PNG", media_type="image/png")
    losses = client.ask(history, model="m", system="s", attachments=[picture], headers={"x-a": "1"}).losses
    assert [loss.field for loss in losses] == ["headers", "messages", "messages[3]", "system", "model"]
    with pytest.raises(LossError, match="system"):
        client.ask("hi", system="s", strict=True)


def test_the_prompt_is_the_last_turn_of_the_user():
    seen = []
    client = client_of(asks(lambda prompt: seen.append(prompt) or "ok"))
    client.ask([Message("user", (Text("first"),)), Message("assistant", (Text("so"),))])
    assert seen == ["first"]


def test_keys_of_another_dialect_are_noted():
    answer = client_of(asks(lambda request: "ok")).ask("hi", extra={"anthropic.messages": {"k": 1}})
    assert [(loss.field, loss.severity) for loss in answer.losses] == [("extra.anthropic.messages", "note")]


# ---- streams ----------------------------------------------------------------------------------


def words():
    yield "a"
    yield "b"


async def awaited_words():
    yield "a"
    await asyncio.sleep(0)
    yield "b"


async def later():
    return words()


@pytest.mark.parametrize(
    "source",
    [
        lambda prompt: words(),
        lambda prompt: awaited_words(),
        lambda prompt: later(),
        lambda prompt: ["a", "b"],
        lambda prompt: iter(("a", "", "b")),
    ],
    ids=["generator", "async generator", "awaited generator", "list", "iterator"],
)
def test_text_from_any_iterator_is_a_whole_stream_when_it_ends(source):
    stream = client_of(streams(source)).stream("x")
    assert list(stream) == ["a", "b"]
    assert stream.response.text == "ab"
    assert stream.response.finish_reason == "stop"


def test_a_method_that_is_an_asynchronous_generator_streams():
    class Backend:
        name = "b"

        async def ask(self, prompt):
            return "whole"

        async def astream(self, prompt):
            for word in prompt.split():
                yield word

    assert list(client_of(Backend()).stream("x y")) == ["x", "y"]
    assert client_of(Backend()).ask("x y").text == "whole"


def test_events_are_passed_on_and_must_say_the_end():
    def whole(prompt):
        yield Started("r1", "big")
        yield ReasoningDelta("hm", 0)
        yield "yes"
        yield UsageReported(Usage(input=1, output=2, source="provider"))
        yield Ended("length", "cut")
        yield "never read"

    stream = client_of(streams(whole)).stream("x")
    assert list(stream) == ["yes"]
    assert stream.response.message.parts == (Reasoning("hm"), Text("yes"))
    assert (stream.response.id, stream.response.model, stream.response.usage.output) == ("r1", "big", 2)
    assert (stream.response.finish_reason, stream.response.raw_finish_reason) == ("length", "cut")

    def cut(prompt):
        yield TextDelta("half")

    stream = client_of(streams(cut)).stream("x")
    with pytest.raises(StreamInterruptedError, match="without saying so") as caught:
        list(stream)
    assert caught.value.partial.text == "half" and not caught.value.partial.complete


def test_text_after_a_part_of_another_kind_is_a_part_of_its_own():
    def source(prompt):
        yield "a"
        yield PartAdded(1, Image(url="https://x.test/a.png"))
        yield "b"
        yield Ended("stop")

    stream = client_of(streams(source)).stream("x")
    assert list(stream) == ["a", "b"]
    assert [type(part).__name__ for part in stream.response.message.parts] == ["Text", "Image", "Text"]


def test_a_generator_that_breaks_keeps_what_it_had_said():
    def source(prompt):
        yield "half"
        raise ConnectionResetError("gone")

    stream = client_of(streams(source), retries=2).stream("x")
    said = []
    with pytest.raises(ConnectionFailedError, match="'b' failed: ConnectionResetError: gone") as caught:
        said.extend(stream)
    assert caught.value.partial.text == "half"
    assert caught.value.partial.complete is False
    assert len(caught.value.attempts) == 1, "what the caller has seen is never begun anew"


def test_a_failure_a_backend_yields_is_raised():
    for error, kind in ((RateLimitError("slow"), RateLimitError), (ValueError("x"), ServerError), ("no", PolyvoxError)):
        stream = client_of(streams(lambda prompt, error=error: iter(["half", Failed(error)]))).stream("x")
        with pytest.raises(kind):
            list(stream)


@pytest.mark.parametrize("bad", [5, None, TextDelta(5), PartAdded(0, "x"), b"bytes"])
def test_a_piece_that_is_none_is_one_clear_error(bad):
    stream = client_of(streams(lambda prompt: iter(["ok", bad]))).stream("x")
    with pytest.raises(UsageError, match="'b' yielded"):
        list(stream)


@given(
    st.lists(
        st.one_of(
            st.text(max_size=3),
            st.builds(TextDelta, st.text(max_size=3), st.integers(0, 3)),
            st.builds(ReasoningDelta, st.text(max_size=3), st.integers(0, 3)),
            st.builds(PartAdded, st.integers(0, 3), st.just(Image(url="https://x.test/i.png"))),
        ),
        max_size=8,
    )
)
def test_no_word_of_a_stream_is_lost_whatever_it_is_mixed_with(pieces):
    from polyvox.backends.values import EventReader
    from polyvox.dialects.collect import Collector

    reader, collector = EventReader("b", "m"), Collector()
    for event in reader.feed([*pieces, Ended("stop")]):
        collector.add(event)
    assert reader.done
    spoken = [piece if isinstance(piece, str) else piece.text for piece in pieces if not isinstance(piece, PartAdded)]
    parts = collector.response().message.parts
    held = [part.text for part in parts if isinstance(part, Text | Reasoning)]
    assert sorted("".join(held)) == sorted("".join(spoken))
    thought = "".join(piece.text for piece in pieces if isinstance(piece, ReasoningDelta))
    assert sorted("".join(part.text for part in parts if isinstance(part, Reasoning))) == sorted(thought)
    pictures = [piece for piece in pieces if isinstance(piece, PartAdded)]
    assert len([part for part in parts if isinstance(part, Image)]) == len(pictures)


@pytest.mark.parametrize("kind", ["thread", "loop"])
def test_an_abandoned_stream_closes_the_generator(kind):
    closed = threading.Event()

    def in_thread(prompt):
        try:
            while True:
                yield "more"
        finally:
            closed.set()

    async def in_loop(prompt):
        try:
            while True:
                yield "more"
        finally:
            closed.set()

    stream = client_of(streams(in_thread if kind == "thread" else in_loop)).stream("x")
    assert next(iter(stream)) == "more"
    stream.close()
    assert closed.is_set()


def test_a_stream_that_is_only_forgotten_closes_the_generator_too():
    closed = threading.Event()

    def source(prompt):
        try:
            while True:
                yield "more"
        finally:
            closed.set()

    stream = client_of(streams(source)).stream("x")
    assert next(iter(stream)) == "more"
    del stream
    gc.collect()
    assert closed.wait(5)


def test_a_generator_runs_in_one_thread_from_first_to_last_and_in_the_callers_context():
    from contextvars import ContextVar

    who = ContextVar("who", default="nobody")
    threads = []

    def source(prompt):
        for _ in range(3):
            threads.append((threading.get_ident(), who.get()))
            yield "x"

    who.set("me")
    list(client_of(streams(source)).stream("x"))
    assert len(set(threads)) == 1 and threads[0][1] == "me"


# ---- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [lambda prompt: time.sleep(3), lambda prompt: asyncio.sleep(3)])
def test_a_slow_ask_ends_at_the_deadline(ask):
    began = time.monotonic()
    with pytest.raises(CallTimeoutError, match=r"0\.2 s") as caught:
        client_of(asks(ask)).ask("x", timeout=0.2)
    assert time.monotonic() - began < 1.5
    assert [attempt.outcome for attempt in caught.value.attempts] == ["timeout"]
    assert caught.value.sent == "unknown", "it may still be at work"


def test_a_slow_stream_ends_at_the_deadline_and_is_closed_once_its_thread_is_free():
    closed = threading.Event()

    def source(prompt):
        try:
            yield "half"
            time.sleep(0.6)
            yield "late"
        finally:
            closed.set()

    stream = client_of(streams(source)).stream("x", timeout=0.3)
    began = time.monotonic()
    with pytest.raises(CallTimeoutError) as caught:
        list(stream)
    assert time.monotonic() - began < 0.55
    assert caught.value.partial.text == "half"
    assert not closed.is_set()
    assert closed.wait(5)


def test_a_stream_that_begins_after_the_deadline_is_closed_unread():
    closed = threading.Event()

    class Late:
        def __iter__(self):
            return self

        def __next__(self):
            raise AssertionError("nobody waits any more")

        def close(self):
            closed.set()

    def source(prompt):
        time.sleep(0.5)
        return Late()

    with pytest.raises(CallTimeoutError):
        list(client_of(streams(source)).stream("x", timeout=0.1))
    assert closed.wait(5)


def test_a_cancelled_call_does_not_wait_for_its_thread():
    done = threading.Event()

    def ask(prompt):
        time.sleep(0.5)
        done.set()
        return "late"

    async def main():
        client = AsyncClient(backend=asks(ask), settings=Settings())
        task = asyncio.ensure_future(client.ask("x"))
        await asyncio.sleep(0.1)
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(main()) < 0.3
    assert done.wait(5), "a thread cannot be stopped: it ends with what it runs"


def test_a_generator_that_will_not_close_holds_nobody_up(monkeypatch):
    monkeypatch.setattr("polyvox.backends.pieces.CLOSE_SECONDS", 0.2)

    def source(prompt):
        try:
            yield "x"
            yield "y"
        finally:
            time.sleep(0.8)

    stream = client_of(streams(source)).stream("x")
    next(iter(stream))
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 0.7


def test_a_generator_that_fails_to_close_is_logged_and_harms_nobody(caplog):
    def in_thread(prompt):
        try:
            yield "x"
            yield "y"
        finally:
            raise ValueError("cannot close")

    async def in_loop(prompt):
        try:
            yield "x"
            yield "y"
        finally:
            raise ValueError("cannot close")

    for source in (in_thread, in_loop):
        caplog.clear()
        stream = client_of(streams(source)).stream("x")
        next(iter(stream))
        stream.close()
        assert "closing its iterator failed" in caplog.text


def test_a_call_that_hangs_does_not_keep_the_interpreter_from_ending():
    import subprocess

    code = """
import time, polyvox
class Slow:
    name = "slow"
    def ask(self, prompt):
        time.sleep(60)
try:
    polyvox.Client(backend=Slow()).ask("x", timeout=0.2)
except polyvox.PolyvoxError as error:
    print(error.kind)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (done.stdout.strip(), done.returncode) == ("timeout", 0), done.stderr


# ---- errors and tries -------------------------------------------------------------------------


def run(thing, *, stream=False, options=None, hooks=()):
    """One call through an engine whose waits are only noted."""
    waits = []

    async def slept(seconds):
        waits.append(seconds)

    async def main():
        engine = Engine(sleep=slept, chance=lambda: 0.5, hooks=hooks)
        deployment = BackendDeployment(backend_of(thing), None, None)
        request = Request("b", HELLO)
        if stream:
            return await engine.stream(request, deployment, options or CallOptions()).finish()
        return await engine.call(request, deployment, options or CallOptions())

    return asyncio.run(main()), waits


class Flaky:
    """Fails as told, then answers."""

    name = "b"

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def ask(self, prompt):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "at last"


@pytest.mark.parametrize("stream", [False, True])
def test_a_flaky_backend_is_asked_again_after_growing_waits(stream):
    flaky = Flaky(RateLimitError("slow down"), RateLimitError("slow down", retry_after=7.0))
    answer, waits = run(flaky, stream=stream)
    assert answer.text == "at last" and flaky.calls == 3
    assert [attempt.outcome for attempt in answer.attempts] == ["rate_limit", "rate_limit", "ok"]
    assert waits == [1.0, 7.0]


def test_a_lost_connection_is_tried_again_and_a_timeout_may_have_been_billed():
    answer, _ = run(Flaky(ConnectionRefusedError("no")))
    assert [attempt.outcome for attempt in answer.attempts] == ["connection", "ok"]
    flaky = Flaky(TimeoutError("slow"))
    with pytest.raises(CallTimeoutError, match="'b' failed: TimeoutError: slow") as caught:
        run(flaky)
    assert caught.value.retryable and flaky.calls == 1


@pytest.mark.parametrize("error", [ValueError("boom"), KeyError("k"), StopIteration(), OSError("disk"), RuntimeError()])
def test_any_other_exception_is_one_error_with_its_cause_and_is_not_repeated(error):
    flaky = Flaky(error)
    with pytest.raises(ServerError, match="the backend 'b' failed") as caught:
        run(flaky)
    assert flaky.calls == 1
    assert not caught.value.retryable
    assert caught.value.provider == "b"
    cause = caught.value.__cause__
    assert cause is error or cause.__cause__ is error


def test_an_error_of_our_own_tree_is_raised_as_it_is():
    mine = BadResponseError("rubbish", code="x")
    with pytest.raises(BadResponseError) as caught:
        run(Flaky(mine, mine, mine))
    assert caught.value is mine
    assert len(caught.value.attempts) == 2, "rubbish is asked for once more"


@pytest.mark.parametrize("answer", [None, 5, b"x", {"text": "x"}, ["x"]])
def test_an_answer_that_is_none_is_one_clear_error_and_not_asked_for_again(answer):
    calls = []
    words = f"the backend 'b' answered with {type(answer).__name__}"
    with pytest.raises(UsageError, match=words):
        run(asks(lambda prompt: calls.append(1) or answer))
    assert len(calls) == 1
    if not isinstance(answer, list):
        with pytest.raises(UsageError, match=words):
            run(streams(lambda prompt: answer), stream=True)


@pytest.mark.parametrize(
    "given",
    [
        Response("text"),
        Response(Message("assistant", ("text",))),
        Response(Message("assistant", (Text(5),))),
        Response(Message("nobody", ())),
        Response(Message("assistant", ()), usage=Usage(input="many")),
        Response(Message("assistant", ()), usage=None),
        Response(Message("assistant", ()), finish_reason="whenever"),
    ],
)
def test_a_response_of_wrong_types_is_refused(given):
    with pytest.raises(UsageError, match="wrong type"):
        run(asks(lambda prompt: given))


def test_an_answer_that_is_not_complete_or_failed_is_no_success():
    half = Response(Message("assistant", (Text("half"),)), complete=False)
    with pytest.raises(StreamInterruptedError) as caught:
        client_of(asks(lambda prompt: half)).ask("x")
    assert caught.value.partial.text == "half"
    failed = Response(Message("assistant", (Text("half"),)), "error")
    with pytest.raises(StreamInterruptedError):
        client_of(asks(lambda prompt: failed)).ask("x")


def test_hooks_see_a_backend_as_they_see_a_provider():
    seen = []

    class Hook:
        def on_call(self, info):
            seen.append(("call", info.deployment))

        def on_attempt(self, info):
            seen.append(("attempt", info.attempt))

        def on_event(self, event):
            seen.append(("event", type(event).__name__))

        def on_done(self, info):
            seen.append(("done", info.response.text if info.response else info.error.kind))

    run(Flaky(RateLimitError("slow")), hooks=(Hook(),))
    assert seen == [("call", "b"), ("attempt", 1), ("attempt", 2), ("done", "at last")]
    seen.clear()
    run(streams(lambda prompt: words()), stream=True, hooks=(Hook(),))
    assert [what for what in seen if what[0] == "event"] == [
        ("event", "Started"), ("event", "TextDelta"), ("event", "TextDelta"), ("event", "Ended"),
    ]  # fmt: skip
    seen.clear()
    with pytest.raises(ServerError):
        run(asks(lambda prompt: 1 / 0), hooks=(Hook(),))
    assert seen[-1] == ("done", "server")


def test_a_secret_in_an_exception_is_not_shown():
    from polyvox.keys import Secret, remember

    remember(Secret("planted-secret-key-123"))
    with pytest.raises(ServerError) as caught:
        run(Flaky(ValueError("refused planted-secret-key-123")))
    assert "planted-secret-key-123" not in str(caught.value)


# ---- by name ----------------------------------------------------------------------------------


def test_a_name_and_a_model_after_it():
    def ask(prompt, model):
        return model

    register_backend("mine", asks(ask))
    client = Client(settings=Settings(aliases={"fast": "mine/small"}))
    assert client.ask("x", model="mine").text == "mine"
    assert client.ask("x", model="mine/a/b").text == "a/b"
    assert client.ask("x", model="mine:a").text == "a"
    assert client.ask("x", model="MINE/a").text == "a"
    assert client.ask("x", model="@fast").text == "small"
    assert client.ask("x", model="mine/a").deployment == "mine/a"


def test_a_class_decorated_is_registered_and_still_itself():
    @register_backend
    class Decorated:
        name = "decorated"

        def ask(self, prompt):
            return "yes"

    assert isinstance(Decorated(), Decorated)
    assert polyvox.ask("x", model="decorated").text == "yes"


def test_a_name_may_be_a_property():
    class Custom:
        @property
        def name(self) -> str:
            return "custom"

        async def ask(self, prompt: str, **kwargs):
            return "made by " + self.name

    register_backend(Custom)
    assert polyvox.ask("x", model="custom").text == "made by custom"


def test_a_backend_registered_again_is_replaced_for_clients_that_exist():
    client = Client(settings=Settings())
    register_backend("b", asks(lambda prompt: "old"))
    assert client.ask("x", model="b").text == "old"
    register_backend("b", asks(lambda prompt: "new"))
    assert client.ask("x", model="b").text == "new"
    unregister_backend("B")
    with pytest.raises(UnknownModelError):
        client.ask("x", model="b")


def test_a_registered_name_counts_before_the_catalog_until_it_is_taken_back():
    register_backend("demo", asks(lambda prompt: "not the demo"))
    client = Client("demo", settings=Settings())
    assert client.ask("x").text == "not the demo"
    unregister_backend("demo")
    assert client.ask("x").model == "demo"
    with pytest.raises(InputError, match="no registered backend 'demo'"):
        unregister_backend("demo")


class Unmakeable:
    name = "x"

    def __init__(self, needed):
        pass

    def ask(self, prompt):
        return ""


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: register_backend("x"), "which backend"),
        (lambda: register_backend(Echo(), Echo()), "name comes first"),
        (lambda: register_backend("a/b", Echo()), "a backend needs a name"),
        (lambda: register_backend("", Echo()), "a backend needs a name"),
        (lambda: register_backend(asks(lambda prompt: "", name=None)), "a backend needs a name"),
        (lambda: register_backend("x", object()), "object cannot be asked"),
        (lambda: register_backend("x", 5), "int cannot be asked"),
        (lambda: register_backend("x", Unmakeable), "Unmakeable cannot be made"),
        (lambda: register_backend("x", asks(lambda: "")), "takes nothing"),
        (lambda: register_backend("x", Echo(), dialect="openai.chat"), "speaks none"),
        (lambda: Client(backend=Echo(), base_url="http://127.0.0.1:9/v1"), "backend goes without base_url"),
        (lambda: Client(backend=Echo(), api_key="k-123456"), "backend goes without api_key"),
        (lambda: Client(backend=Echo(), record="tape.jsonl"), "backend goes without record"),
        (lambda: Client(backend=Echo(), dialect="ollama.chat"), "backend goes without dialect"),
    ],
)
def test_what_is_no_backend_is_refused_with_words(wrong, words):
    with pytest.raises(InputError, match=words):
        wrong()
    assert not backends.registered


def test_there_is_nothing_to_explain_record_or_replay_without_a_wire(tmp_path):
    register_backend(Echo)
    with pytest.raises(UsageError, match="no wire"):
        Client("echo", settings=Settings()).explain("x")
    with pytest.raises(UsageError, match="no wire"):
        client_of(Echo()).explain("x")
    tape = tmp_path / "tape.jsonl"
    with pytest.raises(InputError, match="record is for a wire"):
        Client("echo", settings=Settings(), record=tape).ask("x")
    tape.write_text("")
    with pytest.raises(InputError, match="replay is for a wire"):
        Client("echo", settings=Settings(), replay=tape).ask("x")
    with pytest.raises(InputError, match="api_key is for a wire"):
        Client("echo", settings=Settings(), api_key="test-key-123").ask("x")


def test_a_server_of_ones_own_is_asked_whatever_its_models_are_called():
    from tests.scripted import Scripted, said

    register_backend(Echo)
    transport = Scripted(said("from the wire"))
    client = Client("echo", base_url="http://127.0.0.1:9/v1", transport=transport, settings=Settings())
    assert client.ask("x").text == "from the wire"


def test_models_and_status_have_defaults_and_may_be_told():
    plain = backend_of(Echo())
    assert asyncio.run(plain.models()) == ()
    assert asyncio.run(plain.status())["available"] is True

    class Telling(Echo):
        async def models(self):
            return ["a", "b"]

        def status(self):
            return {"available": False, "detail": "asleep"}

    telling = backend_of(Telling())
    assert asyncio.run(telling.models()) == ("a", "b")
    assert asyncio.run(telling.status()) == {"name": "echo", "available": False, "detail": "asleep"}

    class Lying(Echo):
        def models(self):
            return "many"

        def status(self):
            raise ValueError("no")

    with pytest.raises(UsageError, match="list of names"):
        asyncio.run(backend_of(Lying()).models())
    with pytest.raises(ServerError, match="ValueError: no"):
        asyncio.run(backend_of(Lying()).status())


# ---- packages ---------------------------------------------------------------------------------

PLUGIN = """
class Plugged:
    name = "whatever it calls itself"
    def ask(self, prompt):
        return "plugged " + prompt
ready = Plugged()
raise_on_touch = None
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a package of this name with these entry points, as an installer would."""

    def install(name, points, source=PLUGIN):
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[polyvox.backends]\n" + points)
        sys.modules.pop(module, None)

    monkeypatch.syspath_prepend(str(tmp_path))
    return install


def test_a_package_brings_backends_by_entry_point(package):
    package("polyvox-plug-a", "plug = polyvox_plug_a:Plugged\nplug-ready = polyvox_plug_a:ready\n")
    client = Client(settings=Settings())
    assert client.ask("x", model="plug").text == "plugged x"
    assert client.ask("x", model="plug-ready/m").deployment == "plug-ready/m"
    assert [text for text in client.stream("x", model="plug")] == ["plugged x"]
    with pytest.raises(UsageError, match="no wire"):
        client.explain("x", model="plug")


def test_a_broken_package_is_named_and_harms_no_other(package):
    package("polyvox-plug-b", "broken = polyvox_plug_b:Missing\nfine = polyvox_plug_b:Plugged\n")
    package("polyvox-plug-c", "exploding = polyvox_plug_c:Plugged\n", "raise ImportError('a library is gone')")
    package("polyvox-plug-d", "nonsense = polyvox_plug_d:raise_on_touch\n")
    assert polyvox.ask("x", model="fine").text == "plugged x"
    for name, words in (("broken", "Missing"), ("exploding", "a library is gone"), ("nonsense", "cannot be asked")):
        with pytest.raises(ConfigError, match=rf"(?s)'{name}' of polyvox-plug-\w 1.0.*{words}"):
            polyvox.ask("x", model=name)
    assert polyvox.ask("x", model="demo").model == "demo"


def test_two_packages_with_one_name_are_both_told(package):
    package("polyvox-plug-e", "twice = polyvox_plug_e:Plugged\n")
    package("polyvox-plug-f", "twice = polyvox_plug_f:Plugged\n")
    with pytest.raises(ConfigError, match=r"several packages.*plug-e 1\.0.*plug-f 1\.0"):
        polyvox.ask("x", model="twice")


def test_packages_are_looked_through_only_for_a_name_nobody_else_knows(monkeypatch):
    def never(**_):
        raise AssertionError("nobody asked for a package")

    monkeypatch.setattr("importlib.metadata.entry_points", never)
    register_backend(Echo)
    assert polyvox.ask("x", model="echo").text == "you said x"
    assert polyvox.ask("x", model="demo").model == "demo"
    with pytest.raises(AssertionError):
        polyvox.ask("x", model="nobody-knows-this")


def test_a_missing_library_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(MissingExtraError) as caught:
        polyvox.ask("x", model="litellm/some-model")
    assert caught.value.hint == "pip install 'polyvox[litellm]'"
