"""A client that records, and one that answers from what was recorded: the same words, no network, no key."""

import os
import subprocess
import sys

import pytest

from polyvox import Client
from polyvox.config import Settings
from polyvox.errors import InputError, MissingKeyError, RateLimitError, UsageError
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
