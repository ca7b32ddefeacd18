"""A model file answers in this process as a server would: whole, streamed, held to a schema, as vectors."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from polyvox import AsyncClient, Client
from polyvox.config import Settings
from polyvox.errors import (
    CallTimeoutError,
    ContextLengthError,
    InputError,
    InvalidRequestError,
    NotFoundError,
    StreamInterruptedError,
    UsageError,
)
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.local import LocalTransport, model_file, models_folder, open_server

pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")

URL = "http://local.invalid/v1"
LONG = {"max_tokens": 15_000, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def folder(model_files, tmp_path_factory):
    """A folder of models: a tiny one, one that can go on for a long time, and two that are none."""
    path = tmp_path_factory.mktemp("models")
    for name in ("tiny.gguf", "endless.gguf"):
        (path / name).write_bytes((model_files / name).read_bytes())
    (path / "broken.gguf").write_bytes((path / "tiny.gguf").read_bytes()[:20_000])
    (path / "picture.gguf").write_bytes(b"\x89PNG\r\n\x1a\n")
    return path


@pytest.fixture
def carrier(folder):
    transport = LocalTransport(folder)
    yield transport
    asyncio.run(transport.close())


def asking(carrier, model="tiny", kind=Client, **facts):
    usual = {"base_url": URL, "api_key": "none", "settings": Settings(), "retries": 0, "timeout": 60}
    return kind(model, transport=carrier, **{**usual, **facts})


def running():
    """The answers being made now."""
    return [thread for thread in threading.enumerate() if thread.name == "polyvox-local"]


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_given_a_model_file_when_asked_then_it_answers_with_its_usage(carrier):
    response = asking(carrier).ask("hello", max_tokens=8, seed=7)
    assert response.text and response.finish_reason == "length" and response.complete
    assert response.usage.output == 8 and response.usage.input > 0 and response.usage.source == "provider"
    assert response.model == "tiny" and response.id and not response.losses


def test_given_a_model_file_when_streamed_then_words_come_one_by_one_and_end_once(carrier):
    client = asking(carrier)
    stream = client.stream("hello", max_tokens=12, seed=7)
    texts = list(stream)
    assert len(texts) > 2 and "".join(texts) == stream.response.text
    assert stream.response.usage.output == 12 and stream.response.finish_reason == "length"


def test_the_same_seed_says_the_same_whole_and_streamed(carrier):
    client = asking(carrier)
    words = {"max_tokens": 16, "seed": 5, "temperature": 0.0}
    assert client.ask("hello", **words).text == client.stream("hello", **words).finish().text


def test_an_answer_is_held_to_a_schema(carrier):
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "size": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["ok", "size"],
        "additionalProperties": False,
    }
    client = asking(carrier)
    for response in (
        client.ask("hello", schema=schema, max_tokens=400),
        client.stream("hello", schema=schema, max_tokens=400).finish(),
    ):
        found = json.loads(response.text)
        assert set(found) == {"ok", "size"} and type(found["ok"]) is bool and 0 <= found["size"] <= 9


def post(carrier, path, body, model="tiny"):
    async def run():
        outgoing = Outgoing("POST", f"{URL}/{path}", {}, json.dumps({"model": model, **body}).encode())
        exchange = await carrier.send(outgoing, Timeouts(5, 30, 30))
        return exchange.status, json.loads(await exchange.read(10_000_000))

    return asyncio.run(run())


def test_texts_become_vectors(carrier):
    status, answer = post(carrier, "embeddings", {"input": ["hello", "hello", "something else"]})
    assert post(carrier, "embeddings", {"input": "hello", "stream": True})[1]["object"] == "list"
    first, same, other = [row["embedding"] for row in answer["data"]]
    assert status == 200 and len(first) == 64 and first == pytest.approx(same, abs=1e-4) and first != other
    assert answer["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize("wrong", [{}, {"input": 5}, {"input": []}])
def test_vectors_of_nothing_are_refused_as_the_protocol_refuses(carrier, wrong):
    status, answer = post(carrier, "embeddings", wrong)
    assert status == 400 and answer["error"]["message"]


def test_two_are_answered_at_once_by_one_model_loaded_once(carrier):
    order = []

    async def one(client, number):
        async for _ in client.stream(f"hello {number}", max_tokens=200, extra_body={"ignore_eos": True}):
            order.append(number)

    async def both():
        async with asking(carrier, kind=AsyncClient) as client:
            await asyncio.gather(one(client, 0), one(client, 1))

    asyncio.run(both())
    # Neither waits for the other's end.
    assert order.index(1) < len(order) - 1 - order[::-1].index(0)
    assert order.index(0) < len(order) - 1 - order[::-1].index(1)
    assert len(carrier._engines) == 1


def test_the_event_loop_goes_on_while_a_model_is_loaded_and_answers(carrier):
    gaps = []

    async def tick():
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    async def run():
        ticking = asyncio.create_task(tick())
        async with asking(carrier, "endless", AsyncClient) as client:
            begun = time.monotonic()
            await client.ask("hello", max_tokens=1500, extra_body={"ignore_eos": True})
            took = time.monotonic() - begun
        ticking.cancel()
        return took

    took = asyncio.run(run())
    assert len(gaps) > 10 and max(gaps) < max(0.2, took / 4)


@pytest.mark.parametrize("how", ["closed", "dropped", "cancelled", "cancelled whole", "deadline", "transport closed"])
def test_an_answer_nobody_wants_any_more_is_stopped_between_two_tokens(folder, how):
    async def run():
        carrier = LocalTransport(folder)
        client = asking(carrier, "endless", AsyncClient)
        if how == "deadline":
            with pytest.raises(CallTimeoutError):
                await client.ask("hello", timeout=0.5, **LONG)
        elif how == "cancelled whole":
            task = asyncio.create_task(client.ask("hello", **LONG))
            await asyncio.sleep(0.5)
            assert running()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            stream = client.stream("hello", **LONG)
            assert await anext(stream)
            assert running()
            if how == "closed":
                await stream.close()
            elif how == "dropped":
                del stream
            elif how == "transport closed":
                await carrier.close()
                with pytest.raises(StreamInterruptedError):
                    await stream.finish()
            else:
                task = asyncio.create_task(stream.finish())
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        await asyncio.to_thread(wait_until, lambda: not running(), 1.5)
        await carrier.close()

    asyncio.run(run())


def test_a_long_answer_takes_longer_than_the_tests_of_stopping_wait(carrier):
    begun = time.monotonic()
    asking(carrier, "endless").ask("hello", max_tokens=3_000, extra_body={"ignore_eos": True})
    assert time.monotonic() - begun > 1.5


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("nothing", NotFoundError, "cannot be read"),
        ("/nonexistent/model.gguf", NotFoundError, "cannot be read"),
        ("picture", InputError, "not a model file"),
        ("broken", InputError, "cannot be loaded"),
        ("../models/tiny", NotFoundError, "cannot be read"),
        ("sub/../../tiny", InputError, "cannot be called"),
        ("a\x00b", NotFoundError, "cannot be read"),
    ],
)
def test_a_wrong_file_is_one_clear_error_and_nothing_was_asked(carrier, model, error, words):
    client = asking(carrier, model)
    for call in (client.ask, lambda prompt: client.stream(prompt).finish()):
        with pytest.raises(error, match=words) as caught:
            call("hello")
        assert caught.value.hint and caught.value.sent == "no" and not caught.value.retryable
        assert len(caught.value.attempts) == 1


def test_a_model_is_named_by_file_name_or_path(folder, monkeypatch):
    tiny = folder / "tiny.gguf"
    assert model_file("tiny", folder) == model_file("tiny.gguf", folder) == model_file(str(tiny), folder / "x") == tiny
    monkeypatch.setenv("HOME", str(folder))
    assert model_file("~/tiny.gguf", folder / "x") == tiny
    monkeypatch.chdir(folder)
    assert model_file("./tiny.gguf", folder / "x").resolve() == tiny.resolve()


def test_models_lie_in_the_folder_for_data():
    assert str(models_folder({"POLYVOX_HOME": "/srv/p"})) == "/srv/p/models"
    if sys.platform != "win32":
        assert str(models_folder({"XDG_DATA_HOME": "/data"})) == "/data/polyvox/models"
        assert models_folder({"XDG_DATA_HOME": "here"}).is_absolute() and models_folder({}).is_absolute()


def test_the_models_of_the_folder_are_listed(carrier):
    async def run():
        exchange = await carrier.send(Outgoing("GET", f"{URL}/models", {}, b""), Timeouts())
        return json.loads(await exchange.read(10_000))

    assert [row["id"] for row in asyncio.run(run())["data"]] == ["broken", "endless", "picture", "tiny"]


def test_what_the_model_cannot_take_is_told_in_the_errors_of_the_tree(carrier):
    client = asking(carrier)
    with pytest.raises(ContextLengthError):
        client.ask("x " * 3000)
    with pytest.raises(ContextLengthError):
        client.stream("x " * 3000).finish()
    for call in (client.ask, lambda *args, **more: client.stream(*args, **more).finish()):
        with pytest.raises(InvalidRequestError):
            call("hello", schema={"type": "no such type"})
    status, answer = post(carrier, "chat/completions", {"messages": 5})
    assert status == 400 and "messages" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "images", b"{}", 404),
        ("POST", "completions", b"{}", 404),
        ("GET", "chat/completions", b"", 404),
        ("POST", "chat/completions", b"[", 400),
    ],
)
def test_what_is_no_call_of_the_protocol_is_answered_as_a_server_would(carrier, method, path, body, status):
    async def run():
        exchange = await carrier.send(Outgoing(method, f"{URL}/{path}", {}, body), Timeouts())
        return exchange.status, json.loads(await exchange.read(10_000))

    found, answer = asyncio.run(run())
    assert found == status and answer["error"]["message"]


def test_a_closed_transport_refuses_and_a_client_leaves_it_to_its_owner(folder):
    carrier = LocalTransport(folder)
    with asking(carrier) as client:
        assert client.ask("hello", max_tokens=2).text is not None
    with asking(carrier) as client:
        assert client.ask("hello", max_tokens=2).complete
        asyncio.run(carrier.close())
        with pytest.raises(UsageError, match="closed"):
            client.ask("hello")


def test_nothing_is_printed_and_no_answer_is_larger_than_its_reader_takes(carrier, capfd):
    asking(carrier).ask("hello", max_tokens=4)
    assert capfd.readouterr() == ("", "")

    async def run():
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
        exchange = await carrier.send(
            Outgoing("POST", f"{URL}/chat/completions", {}, json.dumps(body).encode()), Timeouts()
        )
        with pytest.raises(Exception, match="larger than 10 bytes"):
            await exchange.read(10)

    asyncio.run(run())


def test_the_port_the_engine_listens_on_is_shut_to_everybody(folder):
    server = open_server(folder / "tiny.gguf")
    for path, data in (("/v1/models", None), ("/props", None), ("/v1/chat/completions", b"{}")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(server.listening_address + path, data=data, timeout=5)
        assert caught.value.code == 401
        caught.value.close()


SCRIPT = """
import gc, os, sys
from polyvox import Client
from polyvox.config import Settings
from polyvox.transports.local import LocalTransport
client = Client("endless", base_url="http://local.invalid/v1", api_key="x", settings=Settings(),
                transport=LocalTransport(sys.argv[1]))
stream = client.stream("hello", max_tokens=15000, extra_body={"ignore_eos": True})
next(stream)
if sys.argv[2] == "fork":
    child = os.fork()
    if child == 0:
        del stream, client
        gc.collect()
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    print("left")
"""


@pytest.mark.parametrize(("how", "said"), [("leave", "left"), ("fork", "7")])
def test_a_program_ends_and_a_child_goes_on_though_an_answer_is_being_made(folder, how, said):
    if how == "fork" and not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), how], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout.split() == [said] and done.returncode == 0, done.stderr


def test_without_its_package_the_error_says_how_to_install_it(folder):
    code = """
import sys
sys.modules["xllamacpp"] = None
from polyvox import Client, PolyvoxError
from polyvox.config import Settings
from polyvox.transports.local import LocalTransport
try:
    Client("tiny", base_url="http://local.invalid/v1", api_key="x", settings=Settings(),
           transport=LocalTransport(sys.argv[1])).ask("hello")
except PolyvoxError as error:
    print(type(error).__name__, error.hint)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "MissingExtraError pip install 'polyvox[local]'"
