"""A planted key is in nothing that leaves the process but the request's own header: no log, repr, error,
traceback, JSON, event, hook, file."""

import asyncio
import copy
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback

import msgspec
import pytest

from polyvox import AsyncClient, Client, Secret
from polyvox.config import load
from polyvox.errors import PolyvoxError
from polyvox.keys import KeyStore
from tests.scripted import Answer, Scripted, failed, said, streamed

CANARY = "sk-canary-0123456789abcdefghij"
URL = "http://127.0.0.1:9/v1"


@pytest.fixture
def everything_logged():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


def clean(*things):
    for thing in things:
        text = thing if isinstance(thing, str) else repr(thing) + str(thing)
        assert CANARY not in text and CANARY[3:] not in text


class Spy:
    def __init__(self):
        self.seen = []

    def on_call(self, info):
        self.seen.append(repr(info))

    on_attempt = on_event = on_done = on_call


ECHOES = [
    lambda: failed(401, f"Incorrect API key provided: {CANARY}"),
    lambda: failed(500, f"upstream said Authorization: Bearer {CANARY}"),
    lambda: Answer(f"<html>{CANARY}</html>".encode()),
    lambda: Answer(f'data: {{"error": {{"message": "bad key {CANARY}"}}}}\n\n'.encode()),
    lambda: RuntimeError("a transport that breaks its contract"),
]


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("streaming", [False, True])
def test_no_error_log_or_hook_shows_the_key_even_when_the_provider_echoes_it(echo, streaming, everything_logged):
    spy = Spy()
    transport = Scripted(*(echo() for _ in range(3)))
    client = Client(
        "m", base_url=URL, api_key=CANARY, transport=transport, hooks=[spy], retries=1, settings=load(files=[], env={})
    )
    try:
        if streaming:
            list(client.stream("hi"))
        else:
            client.ask("hi")
    except PolyvoxError as error:
        clean(
            error, json.dumps(error.describe()), "".join(traceback.format_exception(error)), vars(error), error.partial
        )
        clean(*(attempt for attempt in error.attempts))
        clean(pickle.loads(pickle.dumps(error)))
    except RuntimeError as error:
        clean("".join(traceback.format_exception(error)))
    clean(everything_logged.getvalue(), *spy.seen, client, vars(client), vars(client._async))
    assert transport.sent[0].headers["authorization"] == f"Bearer {CANARY}"


def test_no_answer_shows_the_key(everything_logged):
    client = Client(
        "m",
        base_url=URL,
        api_key=CANARY,
        transport=Scripted(said("fine"), streamed("x")),
        settings=load(files=[], env={}),
    )
    response = client.ask("hi")
    events = list(client.stream("hi").events())
    clean(response, msgspec.json.encode(response).decode(), *events, everything_logged.getvalue())


def test_settings_and_providers_never_show_a_key(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(f'[providers.openai]\napi_key = "{CANARY}"\nheaders = {{ x-api-token = "{CANARY}" }}\n')
    file.chmod(0o600)
    settings = load(files=[file], env={"ANTHROPIC_API_KEY": CANARY})
    clean(settings, settings.providers, settings.origins)
    with pytest.raises((TypeError, PolyvoxError)):
        clean(msgspec.json.encode(settings).decode())
        raise TypeError("the encoding held no key")


def test_a_secret_shows_itself_only_when_asked():
    secret = Secret(CANARY)
    clean(secret, f"{secret}", f"{secret:>40}", [secret], {"k": secret}, copy.copy(secret), copy.deepcopy(secret))
    with pytest.raises(Exception) as caught:
        pickle.dumps(secret)
    clean(caught.value)
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert secret.reveal() == CANARY


def test_the_key_store_lists_no_key_and_its_file_is_private(tmp_path):
    store = KeyStore(tmp_path / "keys.json", keyring=False, env={})
    store.set("openai", CANARY)
    clean(store.list(), store, *map(repr, store.list()))
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0


def run(arguments, home, **env):
    clean_env = {
        k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_BASE_URL")) and not k.startswith("POLYVOX")
    }
    return subprocess.run(
        [sys.executable, "-m", "polyvox", *arguments],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        env={**clean_env, "POLYVOX_HOME": str(home), "OPENAI_API_KEY": CANARY, **env},
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "-m", "openai/gpt-x", "--debug", "--json", "--timeout", "2", "hello"],
        ["ask", "-m", "openai/gpt-x", "--debug", "--no-stream", "--timeout", "2", "hello"],
        ["keys", "list"],
        ["config", "list", "--origin"],
        ["config", "list", "--json"],
        ["providers", "list", "--json"],
        ["doctor"],
        ["doctor", "--json"],
    ],
)
def test_no_command_prints_the_key(arguments, tmp_path):
    # A refused connection at a bound host is as far as a call gets here.
    done = run(arguments, tmp_path, POLYVOX_PROXY="http://127.0.0.1:9", POLYVOX_RETRIES="0")
    clean(done.stdout, done.stderr)
    assert done.stdout + done.stderr


def test_a_real_call_at_debug_level_logs_no_key(everything_logged):
    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        writer.write(
            b"HTTP/1.1 401 No\r\ncontent-type: application/json\r\ncontent-length: 60\r\nconnection: close\r\n\r\n"
        )
        writer.write(b'{"error": {"message": "bad", "type": "x", "code": "y"}}'.ljust(60))
        await writer.drain()
        writer.close()

    seen = []

    async def go():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with AsyncClient(
            "m", base_url=f"http://127.0.0.1:{port}/v1", api_key=CANARY, retries=0, settings=load(files=[], env={})
        ) as client:
            with pytest.raises(PolyvoxError) as caught:
                await client.ask("hi")
        server.close()
        return caught.value

    error = asyncio.run(go(), debug=True)
    assert CANARY.encode() in seen[0]
    clean(error, everything_logged.getvalue(), "".join(traceback.format_exception(error)))
