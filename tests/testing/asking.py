"""Asking a simulated provider by hand: the bytes that go out, and those that come back, with nothing in between."""

import json
import re
import socket
import struct
import time
from typing import NamedTuple

from polyvox import Client
from polyvox.config import Settings
from polyvox.dialects import Endpoint, Reply
from polyvox.dialects import dialect as room
from polyvox.testing.simulate.routes import PROVIDERS
from polyvox.types import Message, Request, Text

QUESTIONS = {
    "openai.chat": ("/v1/chat/completions", {}),
    "anthropic.messages": ("/v1/messages", {"max_tokens": 200}),
    "ollama.chat": ("/api/chat", {}),
}
# Of the others our own client asks.
BASES = {"openai.responses": "/v1", "gemini.generate": "/v1beta"}
# Answers that do not say which model gave them.
NAMELESS = ("cohere.chat", "bedrock.converse")
HEADERS = {"anthropic.messages": {"anthropic-version": "2023-06-01"}}
HELLO = "hello bees"
SAYS = "[demo] You said: hello bees."
KEY = "sk-simulated-0123456789"


# Dialects whose providers want a key, and say 429 when too much is asked.
HOSTED = tuple(name for name, facts in PROVIDERS.items() if facts.needs_key)


# What providers answer to a key that is none of theirs, where that is not 401.
DENIED = {"gemini.generate": 400, "bedrock.converse": 403}


class Got(NamedTuple):
    """What came back: status 0 where no head did, headers by lower-case name, and how the connection ended."""

    status: int
    headers: dict
    body: bytes
    raw: bytes
    end: str  # "closed", "reset" or "open"

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def whole(self):
        """Whether the framing of the body is as HTTP has it."""
        if "content-length" in self.headers:
            return len(self.body) == int(self.headers["content-length"])
        return self.raw.endswith(b"0\r\n\r\n")


def question(dialect, stream=False, model="any-model", said=HELLO, **more):
    """The path and the body of a question."""
    if dialect not in QUESTIONS:
        wire = room(dialect).encode_request(
            Request(model, (Message("user", (Text(said),)),), stream=stream), Endpoint()
        )[0]
        return BASES.get(dialect, "") + wire.path, json.dumps({**json.loads(wire.body), **more}).encode()
    path, facts = QUESTIONS[dialect]
    body = {"model": model, "messages": [{"role": "user", "content": said}], "stream": stream, **facts, **more}
    return path, json.dumps(body).encode()


def request(method, path, body=b"", key=KEY, **headers):
    """A request as bytes, after which the connection is not needed any more."""
    said = {"host": "simulated", "connection": "close", "content-length": str(len(body)), **headers}
    if key:
        said["authorization"] = f"Bearer {key}"
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {text}" for name, text in said.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def connect(simulator):
    host, port = simulator.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=5)


def exchange(simulator, sent, quiet=5.0):
    """Send bytes and read until the other side ends, or says nothing for so many seconds."""
    raw, end = b"", "closed"
    with connect(simulator) as link:
        link.settimeout(quiet)
        link.sendall(sent)
        try:
            while data := link.recv(65536):
                raw += data
        except TimeoutError:
            end = "open"
        except ConnectionResetError:
            end = "reset"
    return parsed(raw, end)


def parsed(raw, end):
    head, _, body = raw.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1\.1 (\d+) ", head)
    if found is None:
        return Got(0, {}, b"", raw, end)
    pairs = (line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:])
    headers = {name.lower(): text for name, _, text in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body = unchunked(body)
    return Got(int(found[1]), headers, body, raw, end)


def unchunked(body):
    """The bytes of all chunks that came, whole or not."""
    found = b""
    while (at := body.find(b"\r\n")) >= 0 and re.fullmatch(rb"[0-9a-f]+", body[:at]):
        size = int(body[:at], 16)
        found += body[at + 2 : at + 2 + size]
        body = body[at + 4 + size :]
    return found


def events(dialect, body):
    """The events of a stream as they came, each with its end."""
    if dialect != "bedrock.converse":
        gap = b"\n" if dialect == "ollama.chat" else b"\n\n"
        *found, rest = body.split(gap)
        assert rest == b""
        return [each + gap for each in found]
    found = []
    while body:
        size = struct.unpack_from(">I", body)[0]
        found.append(body[:size])
        assert len(found[-1]) == size >= 16
        body = body[size:]
    return found


def client(simulator, name, **options):
    """Our own client, which asks once."""
    options = {"api_key": KEY, "settings": Settings(), "retries": 0, **options}
    return Client("any-model", base_url=simulator.base_url(name), dialect=name, **options)


def error_of(name, got):
    """What our own client makes of a refusal."""
    return room(name).decode_error(Reply(got.status, got.headers, got.body), Endpoint())


def ask(simulator, dialect, stream=False, quiet=5.0, key=KEY, headers=None, **more):
    """Ask a question and read the answer to its end."""
    path, body = question(dialect, stream, **more)
    return exchange(simulator, request("POST", path, body, key, **HEADERS.get(dialect, {}), **(headers or {})), quiet)


def get(simulator, path, key=KEY, method="GET", **headers):
    return exchange(simulator, request(method, path, b"", key, **headers))


def leave_in_the_middle(simulator, dialect, after=b"\r\n\r\n"):
    """Ask for a stream, wait for some bytes, and break the connection."""
    path, body = question(dialect, stream=True)
    with connect(simulator) as link:
        link.sendall(request("POST", path, body, **HEADERS.get(dialect, {})))
        seen = b""
        while after not in seen:
            seen += link.recv(1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def seconds_of(act):
    """How long something takes."""
    begun = time.monotonic()
    act()
    return time.monotonic() - begun
