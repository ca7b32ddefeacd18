"""The tier local is a promise: whatever a call of it meets, nothing of it leaves this machine, and nobody hosted is
asked in its place. Each case runs in a process of its own, in which a hook sees and refuses every way out."""

import json
import subprocess
import sys
import textwrap

import pytest

from polyvox import catalog
from polyvox.testing.fault_server import FaultServer, answer, fin, refused_port, rst, send, stall
from tests.scripted import piece

ROWS = catalog.load().providers
KEY = "sk-a-key-of-a-hosted-provider"
HEAD = send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
STREAM = send(piece({"role": "assistant", "content": "hel"}))
REST = send(piece({"content": "lo"}) + piece({}, "stop") + b"data: [DONE]\n\n")
WHOLE = answer(
    json.dumps({
        "id": "c", "object": "chat.completion", "created": 1, "model": "small",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }).encode(),
    "content-type: application/json",
)  # fmt: skip

PRELUDE = """
import ipaddress, os, sys
sys.modules["uvloop"] = None  # its sockets are not seen by the hook
out = []

def here(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", None)

def hook(event, facts):
    # A server that is asked for names counts, too: what it is asked tells who is to be talked to.
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = facts[1]
        host = address[0] if isinstance(address, tuple) else "localhost"
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = facts[0]
    else:
        return
    if not here(host):
        out.append((event, host))
        raise PermissionError(f"{event} {host}")

sys.addaudithook(hook)
import polyvox
from polyvox import Client, Image, PolyvoxError
from polyvox.errors import ConfigError
from polyvox.keys import Secret
from polyvox.registry import DictRegistry, Entry

def local(name, port, **facts):
    return Entry(name, "small", base_url=f"http://127.0.0.1:{port}/v1", tier="local", **facts)

HOSTED = [
    Entry("hosted", "openai/gpt-5.4-mini", tier="standard", default=True, api_key=Secret("sk-hosted-0123456789")),
    Entry("elsewhere", "m", base_url="https://models.example.com/v1", tier="economy"),
]

def tried(ask):
    try:
        answer = ask()
        print(answer.text, answer.deployment)
    except PolyvoxError as error:
        print(error.kind, sorted({attempt.deployment for attempt in error.attempts}))
"""


def ran(tmp_path, code, *ports, **env):
    """What a process printed, and the ways out that it tried."""
    keys = {row.key_env[0]: KEY for row in ROWS.values() if row.key_env and row.needs_key}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code) + "\nprint(out)\n", *map(str, ports)],
        capture_output=True, text=True, timeout=120, check=False, env={"POLYVOX_HOME": str(tmp_path), **keys, **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *lines, out = done.stdout.splitlines()
    return lines, out


def test_the_hook_sees_a_call_that_goes_out(tmp_path):
    code = """
    with Client(tier="economy", registry=HOSTED, retries=0) as client:
        tried(lambda: client.ask("private"))
    """
    lines, out = ran(tmp_path, code)
    assert lines == ["connection ['elsewhere']"]
    assert "models.example.com" in out


def test_a_local_call_is_answered_here_whole_and_streamed(tmp_path):
    code = """
    with Client(tier="local", registry=[*HOSTED, local("here", sys.argv[1])]) as client:
        tried(lambda: client.ask("private"))
    with Client(tier="local", registry=[*HOSTED, local("here", sys.argv[2])]) as client:
        tried(lambda: client.stream("private").finish())
    with Client("hosted", registry=[*HOSTED, local("here", sys.argv[1])]) as client:
        tried(lambda: client.ask("private", tier="local"))
    """
    with FaultServer(WHOLE) as whole, FaultServer(HEAD, STREAM, REST, fin) as streams:
        lines, out = ran(tmp_path, code, whole.port, streams.port)
    assert lines == ["hello here"] * 3
    assert out == "[]"


def test_while_the_local_server_is_down_calls_fail_and_nobody_else_is_asked(tmp_path):
    code = """
    with Client(tier="local", registry=[*HOSTED, local("here", sys.argv[1])], retries=1) as client:
        for _ in range(8):  # its breaker opens meanwhile
            tried(lambda: client.ask("private"))
            tried(lambda: client.stream("private").finish())
        print(client.standing()[0]["breaker"], [one["name"] for one in client.standing()])
    """
    lines, out = ran(tmp_path, code, refused_port())
    assert lines == ["connection ['here']"] * 16 + ["open ['here']"]
    assert out == "[]"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([stall], "hello second"),
        ([HEAD, STREAM, rst], "stream_interrupted ['first']"),
        ([HEAD, rst], "hello second"),
        (
            [answer(b'{"error": {"message": "busy"}}', "content-type: application/json", status="503 Busy")],
            "hello second",
        ),
    ],
    ids=["silent", "cut in the middle", "cut at the head", "busy"],
)
def test_however_a_local_server_fails_only_another_local_one_takes_its_place(tmp_path, script, said):
    code = """
    registry = [*HOSTED, local("first", sys.argv[1]), local("second", sys.argv[2], priority=1)]
    routing = {"first_token": 0.5, "after_refusal": True}
    with Client(tier="local", registry=registry, routing=routing, retries=0) as client:
        tried(lambda: client.stream("private").finish())
    """
    with FaultServer(*script) as first, FaultServer(HEAD, STREAM, REST, fin) as second:
        lines, out = ran(tmp_path, code, first.port, second.port)
    assert lines == [said]
    assert out == "[]"


def test_an_entry_that_has_left_this_machine_is_refused_or_left_out(tmp_path):
    code = """
    registry = DictRegistry([*HOSTED, Entry("moved", "ollama/llama3.2", tier="local"), local("here", sys.argv[1])])
    try:
        registry.update("here", base_url="https://models.example.com/v1")
    except ConfigError as error:
        print("another machine" in str(error.problems))
    polyvox.configure(providers={"ollama": {"base_url": "http://models.example.com:11434"}})
    with Client(tier="local", registry=registry, retries=0) as client:
        print(client.route("private").skipped)
        tried(lambda: client.ask("private"))
        registry.remove("here")
        tried(lambda: client.ask("private"))
    """
    lines, out = ran(tmp_path, code, refused_port())
    assert lines[0] == "True"
    assert "moved" in lines[1]
    assert lines[2] == "connection ['here']"
    assert lines[3].endswith("[]")
    assert out == "[]"


def test_what_a_local_call_names_by_address_is_not_fetched_from_elsewhere(tmp_path):
    code = """
    entry = Entry("here", "small", base_url=f"http://127.0.0.1:{sys.argv[1]}", dialect="ollama.chat", tier="local")
    with Client(tier="local", registry=[*HOSTED, entry], retries=0) as client:
        tried(lambda: client.ask(["look", Image(url="https://pictures.example.com/a.png")]))
    """
    lines, out = ran(tmp_path, code, refused_port())
    assert lines == ["connection ['here']"]
    assert out == "[]"
