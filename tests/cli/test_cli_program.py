"""The command as a program: how fast it starts, what a pipe and a terminal see, and how signals end it."""

import os
import subprocess
import sys
import time

import pytest
from cli_terminal import Terminal

HEAVY = ("aiohttp", "pydantic", "msgspec", "rich", "asyncio", "polyvox.types", "polyvox.client", "polyvox.catalog")


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("ask", "--help"), ("completion", "zsh")])
def test_help_and_version_load_no_provider_and_no_heavy_library(home, words):
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: sys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules)))\n"
        f"sys.argv = ['polyvox', *{words!r}]\n"
        "from polyvox.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_version_is_one_line(start):
    process = start("--version")
    assert process.communicate()[0].decode().startswith("polyvox 0.") and process.returncode == 0


def test_text_comes_token_by_token_through_a_pipe(start, provider):
    process = start("-m", "test/slow", "hi")
    times = []
    while piece := os.read(process.stdout.fileno(), 4096):
        times.append((time.monotonic(), piece))
    assert b"".join([piece for _, piece in times]) == b"One two three four five.\n"
    assert len(times) >= 4
    assert times[-1][0] - times[0][0] > 0.3


def test_a_reader_that_leaves_ends_it_quietly(start, provider):
    process = start("-m", "test/endless", "hi")
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr.read() == b""


def test_without_a_standard_output_nothing_is_asked(start, provider):
    process = start("-m", "test/x", "hi", stdout=None, preexec_fn=lambda: os.close(1))
    assert process.wait(20) == 141
    assert process.stderr.read() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_in_a_line(start, provider):
    with open("/dev/full", "wb") as full:
        process = start("-m", "test/x", "hi", stdout=full)
        assert process.wait(20) == 1
    said = process.stderr.read().decode()
    assert "No space left" in said and "Traceback" not in said


def test_ctrl_c_in_a_terminal_ends_with_130_and_no_traceback(start, provider):
    with Terminal(start, "-m", "test/hangs", "hi") as terminal:
        terminal.wait_for("One ")
        terminal.type("\x03")
        assert terminal.process.wait(20) == 130
        assert "Traceback" not in terminal.rest()


def test_a_terminal_sees_no_control_characters_of_the_model(start, provider):
    with Terminal(start, "-m", "test/escapes", "hi") as terminal:
        assert terminal.process.wait(20) == 0
        assert "aredb\r\nc\r\n" in terminal.rest()


def test_a_key_that_is_typed_is_not_shown(start, home):
    with Terminal(start, "keys", "set", "openai") as terminal:
        terminal.wait_for("Key for OpenAI")
        terminal.type("sk-typed-by-hand-and-kept\n")
        assert terminal.process.wait(20) == 0
        shown = terminal.rest()
    assert "sk-…kept" in shown and "by-hand" not in shown
    assert "sk-typed-by-hand-and-kept" in (home / "polyvox" / "keys.json").read_text()


def test_alone_in_a_terminal_it_explains_itself(start):
    with Terminal(start) as terminal:
        assert terminal.process.wait(20) == 0
        assert "Usage: polyvox" in terminal.rest()


def test_in_a_chat_ctrl_c_stops_the_answer_and_ctrl_d_the_conversation(start, provider):
    with Terminal(start, "chat", "-m", "test/hangs", env={"TERM": "dumb"}) as terminal:
        terminal.wait_for("> ")
        terminal.type("hello\n")
        terminal.wait_for("One ")
        terminal.type("\x03")
        terminal.wait_for("stopped")
        terminal.wait_for("> ")
        terminal.type("/model test/x\n")
        terminal.wait_for("model: test/x")
        terminal.type("/retry\n")
        terminal.wait_for("five.")
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.process.wait(20) == 0
    assert [message["content"] for message in provider.seen[-1]["messages"]] == ["hello"]
