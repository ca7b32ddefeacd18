"""One call of a client to a server that breaks something on purpose, and all that comes of it: the words, the
answer or the error, and whether anything is left open. It knows no fault."""

import asyncio
import json
import time
import tracemalloc

import pytest

from polyvox import AsyncClient, Client, config, portal
from polyvox.errors import PolyvoxError
from polyvox.testing.fault_server import FaultServer, answer, send
from tests.test_end_to_end import STREAMS, TYPES, WORDS, chunked, head_of
from tests.test_promises import SAYS

KEY = "test-key-0123456789"
TEXT = "".join(WORDS)
CHAT = "openai.chat"
DIALECTS = tuple(STREAMS)
QUICK = 0.2  # seconds; long enough for a busy machine to hear from itself
SETTLED = 0.05  # seconds in which what was sent on a loopback has come
AMPLE = 10.0  # seconds; a limit that must not be the one that ends a call

# Letters of several bytes stand as they are, so that a cut may fall inside one.
BODIES = {name: text.replace("\\u00f6", "ö").replace("\\ud83d\\ude42", "🙂").encode() for name, text in STREAMS.items()}
WHOLE = {name: json.dumps(says(TEXT), ensure_ascii=False).encode() for name, says in SAYS.items()}
OK = b"HTTP/1.1 200 OK\r\n"
MEBI = 1024 * 1024
EVERY_DIALECT = pytest.mark.parametrize("dialect", DIALECTS)
ONE_FACE = pytest.mark.parametrize("told", ["AsyncClient"], indirect=True)  # where it takes long
LAST_CHUNK = b"0\r\n\r\n"


def good(dialect, stream, *headers):
    """A good answer, whole or streamed."""
    kind = TYPES.get(dialect, "text/event-stream") if stream else "application/json"
    return answer((BODIES if stream else WHOLE)[dialect], f"content-type: {kind}", *headers)


def first_events(dialect, words):
    """The bytes of a stream up to the event with so many of its words."""
    body, at = BODIES[dialect], 0
    for word in WORDS[:words]:
        at = body.index(json.dumps(word, ensure_ascii=False).encode(), at)
        at = body.index(b"\n", at) + 1
    return body[: at if dialect == "ollama.chat" else at + 1]


def begun(dialect, words=2):
    """A stream that has said so many words, and goes on."""
    return send(head_of(dialect) + chunked(first_events(dialect, words)))


def peak_of(ask):
    """What it gives, and the most memory there was meanwhile, in bytes."""
    tracemalloc.start()
    try:
        return ask(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class Told:
    """What a caller got: the words, then the answer or the error."""

    def __init__(self):
        self.words = []
        self.response = None
        self.error = None

    @property
    def text(self):
        return "".join(self.words)

    @property
    def outcomes(self):
        return [attempt.outcome for attempt in (self.error or self.response).attempts]

    def ended_well(self, *outcomes):
        """The whole answer, once, after the outcomes that went before it."""
        assert self.error is None, self.error
        assert (self.text, self.response.complete) == (TEXT, True)
        assert self.outcomes == [*outcomes, "ok"]

    def ended_in(self, kind, *, sent, tries=1, text="", says=""):
        """One error of ours, with what there was of the answer and nothing that passes for one."""
        assert self.error is not None, f"an answer: {self.text!r}"
        assert (self.error.kind, self.outcomes) == (kind, [kind] * tries), self.error
        assert {self.error.sent, *(attempt.sent for attempt in self.error.attempts)} == {sent}
        assert self.text == text and says in self.error.message, self.error
        assert self.error.hint and self.error.provider == "house" and KEY not in str(self.error)
        assert len(self.error.message) < 600
        if text:
            assert self.error.partial.text == text and not self.error.partial.complete


def client_facts(url, dialect, given):
    """What makes a client of a server that is no local one, with one place in its pool and settings as given."""
    house = {"base_url": url.rstrip("/") + "/v1" * (dialect == CHAT), "dialect": dialect, "api_key": KEY}
    limits = {"connect_timeout": AMPLE, "first_byte_timeout": AMPLE, "idle_timeout": AMPLE, "timeout": 2 * AMPLE}
    arguments = {**limits, "pool_size": 1, "providers": {"house": house}, **given}
    return {"model": "house/m", "settings": config.load(env={}, files=(), arguments=arguments)}


def tell(face, where, *, stream, dialect=CHAT, kept=None, warm=None, **given):
    """Ask once and see what is told; `where` is a server or a URL, `given` are settings.

    With `warm`, a call goes well before, and then `warm` waits for what that has to bring about. After the call that
    counts `kept` connections may stay open for the next one: one after an answer, none after a failure, unless it
    is said. Then the server is made a good one, and the client gets an answer in the same place of its pool. When
    it is closed no task and no connection is left.
    """
    server = where if isinstance(where, FaultServer) else None
    facts = client_facts(where if server is None else server.url, dialect, given)
    told = Told()

    def mended():
        if server is None:
            return False
        most = kept if kept is not None else 1 if told.error is None else 0
        assert server.wait_for(lambda it: it.open_connections <= most), "a connection is left"
        server.script = (good(dialect, False),)
        return server.read_requests

    if face == "Client":
        _by_client(told, facts, stream, warm, mended)
    else:
        asyncio.run(_by_async_client(told, facts, stream, warm, mended))
    assert server is None or server.wait_for(lambda it: it.open_connections == 0), "a connection is left"
    return told


def _by_client(told, facts, stream, warm, mended):
    loop = portal._portal._running_loop()
    before = asyncio.all_tasks(loop)
    with Client(**facts) as client:
        if warm:
            assert client.ask("first").text == TEXT and warm()
            time.sleep(SETTLED)
        try:
            if stream:
                running = client.stream("hi")
                for words in running:
                    told.words.append(words)
                told.response = running.response
            else:
                told.response = client.ask("hi")
                told.words.append(told.response.text)
        except PolyvoxError as error:
            told.error = error
        if mended():
            assert client.ask("again", timeout=AMPLE).text == TEXT
    until = time.monotonic() + 2
    while asyncio.all_tasks(loop) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert not asyncio.all_tasks(loop) - before, "a task is left"


async def _by_async_client(told, facts, stream, warm, mended):
    async with AsyncClient(**facts) as client:
        if warm:
            assert (await client.ask("first")).text == TEXT and await asyncio.to_thread(warm)
            await asyncio.sleep(SETTLED)
        try:
            if stream:
                running = client.stream("hi")
                async for words in running:
                    told.words.append(words)
                told.response = running.response
            else:
                told.response = await client.ask("hi")
                told.words.append(told.response.text)
        except PolyvoxError as error:
            told.error = error
        if await asyncio.to_thread(mended):
            assert (await client.ask("again", timeout=AMPLE)).text == TEXT
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left"
