"""A client that records, and one that answers from what was recorded: the same words, no network, no key."""

import os
import subprocess
import sys

import pytest

from polyvox import Client
from polyvox.config import Settings
from polyvox.dialects import NAMES
from polyvox.errors import InputError, MissingKeyError, PolyvoxError, RateLimitError, UsageError
from polyvox.testing import Simulator
from polyvox.transports.http import HttpTransport
from polyvox.transports.replay import ReplayTransport
from tests.scripted import Scripted, failed, said, streamed

KEY = "sk-planted-0123456789abcdef"


def recorded(path, *answers):
    facts = {"api_key": KEY, "settings": Settings(), "retries": 0}
    return Client("openai/gpt-x", transport=Scripted(*answers), record=path, **facts)


def test_what_was_recorded_is_answered_again_without_a_key(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path = tmp_path / "cassette.jsonl"
    live = recorded(path, said("hello"), streamed("one ", "two"), failed(429, "slow down", {"retry-after": "7"}))
    first, second = live.ask("hi"), live.stream("stream").finish()
    with pytest.raises(RateLimitError):
        live.ask("too fast")
    with pytest.raises(MissingKeyError):
        Client("openai/gpt-x", settings=Settings()).ask("hi")
    again = Client("openai/gpt-x", replay=path, settings=Settings(), retries=0)
    assert again.ask("hi").raw == first.raw
    assert list(again.stream("stream")) == ["one ", "two"] and second.text == "one two"
    with pytest.raises(RateLimitError) as caught:
        again.ask("too fast")
    assert caught.value.retry_after == 7


def test_a_cassette_holds_no_key_even_where_the_provider_or_the_prompt_says_it(tmp_path):
    path = tmp_path / "cassette.jsonl"
    live = recorded(path, said(f"your key is {KEY}"))
    live.ask(f"my key is {KEY}")
    assert KEY not in path.read_text() and path.stat().st_mode & 0o077 == 0
    assert "***" in Client("openai/gpt-x", replay=path, settings=Settings()).ask(f"my key is {KEY}").text


def test_a_request_nobody_recorded_says_what_was_closest(tmp_path):
    path = tmp_path / "cassette.jsonl"
    recorded(path, said("hello")).ask("hi there")
    with pytest.raises(UsageError) as caught:
        Client("openai/gpt-x", replay=path, settings=Settings(), retries=0).ask("hi you")
    assert "hi there" in str(caught.value)


@pytest.mark.parametrize("facts", [{"record": 5}, {"replay": 5}, {"record": "a", "replay": "b"}])
def test_what_cannot_be_recorded_or_replayed_is_told(facts):
    with pytest.raises(InputError):
        Client("demo", settings=Settings(), **facts)


def test_the_command_line_records_and_replays(tmp_path):
    env = {**os.environ, "POLYVOX_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "polyvox", "ask", "-m", "demo"]
    made = [
        subprocess.run([*command, how, str(tmp_path / "c.jsonl"), "hello"], capture_output=True, text=True, env=env,
                       stdin=subprocess.DEVNULL, timeout=60, check=True).stdout
        for how in ("--record", "--replay")
    ]  # fmt: skip
    assert made[0] == made[1] and made[0].startswith("[demo]")


class Tapped:
    """A transport that keeps the bytes of every answer that passes through it."""

    def __init__(self, inner):
        self.inner = inner
        self.passed = []

    async def send(self, outgoing, timeouts):
        exchange = await self.inner.send(outgoing, timeouts)
        self.passed.append([exchange.status])
        read, chunk, passed = exchange.read, exchange.chunk, self.passed[-1]

        async def read_and_keep(limit):
            whole = await read(limit)
            passed[1:] = [whole]  # some read by asking for chunks
            return whole

        async def chunk_and_keep():
            passed.append(await chunk())
            return passed[-1]

        exchange.read, exchange.chunk = read_and_keep, chunk_and_keep
        return exchange

    async def close(self):
        await self.inner.close()

    def answers(self):
        return [(status, b"".join(pieces)) for status, *pieces in self.passed]


@pytest.mark.parametrize("dialect", NAMES)
def test_a_session_with_a_live_provider_replays_byte_for_byte_when_it_is_gone(dialect, tmp_path):
    """Acceptance: streams and errors included, and the key is not in the file."""
    path = tmp_path / "cassette.jsonl"

    def session(transport, base_url, **facts):
        tapped = Tapped(transport)
        facts = {"api_key": KEY, "retries": 0, "settings": Settings(), "dialect": dialect, **facts}
        with Client("any-model", base_url=base_url, transport=tapped, **facts) as client:
            # What a recording holds instead of the key is all that may differ.
            heard = [client.ask(f"my key is {KEY}").text.replace(KEY, "***")]
            heard.append(client.stream("say it in pieces").finish().message)
            heard.append(client.ask("What is the weather?", tools=[weather]).tool_calls)
            with pytest.raises(PolyvoxError) as caught:
                client.stream("broken").finish()
        return heard, caught.value.kind, caught.value.partial.text, tapped.answers()

    def weather(city: str) -> str:
        """Tells the weather of a city."""
        return city

    with Simulator(plan=[{"kind": "error_event", "at": 4, "after": 400}], token_rate=400) as simulator:
        base_url = simulator.base_url(dialect)
        live = session(HttpTransport(allow_http=True), base_url, record=path)
        assert [asked.status for asked in simulator.requests] == [200] * 4
    again = session(ReplayTransport.from_jsonl(path), base_url)
    assert again[:3] == live[:3]
    assert [body.replace(KEY.encode(), b"***") for _, body in live[3]] == [body for _, body in again[3]]
    assert KEY not in path.read_text() and "pieces" in path.read_text()
