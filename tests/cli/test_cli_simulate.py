"""`polyvox simulate` as a program: its address is the first line, everything else is told on standard error, and
it ends well however it is ended."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from polyvox import Client
from polyvox.config import Settings

KEY = "sk-simulated-0123456789"


@pytest.fixture
def simulate(start):
    """The program on a free port: the process and its address."""

    def call(*words, **facts):
        process = start("simulate", "--port", "0", *words, **facts)
        url = process.stdout.readline().decode().strip()
        assert re.fullmatch(r"http://\S+:\d+", url), process.stderr.read().decode()
        return process, url

    return call


def client(url, **options):
    options = {"api_key": KEY, "settings": Settings(), "retries": 0, **options}
    return Client("any-model", base_url=url + "/v1", **options)


def ended(process, number=signal.SIGINT):
    """What it says when it is told to end."""
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_line_is_the_address_and_it_ends_well_when_told(simulate, number):
    process, url = simulate()
    with client(url) as asking:
        assert asking.ask("hello").text.startswith("[demo] You said: hello")
    code, out, err = ended(process, number)
    assert (code, out) == (0, "")
    assert {line.strip() for line in err.splitlines() if "export " in line} == {
        f"export OPENAI_BASE_URL={url}/v1",
        f"export ANTHROPIC_BASE_URL={url}",
        f"export OLLAMA_HOST={url}",
        f"export GOOGLE_GEMINI_BASE_URL={url}",
        f"export AWS_ENDPOINT_URL_BEDROCK_RUNTIME={url}",
        f"export CO_API_URL={url}",
    }
    assert "requests 1, answers 1 (0 streams), errors none, faults none" in err and "Traceback" not in err


TOLD_AT_ANY_MOMENT = """
import os, signal, sys, threading
from polyvox.cli import simulate

def each_line(frame, event, argument):
    if frame.f_globals["__name__"] in ("threading", "queue"):
        signal.raise_signal(signal.SIGTERM)
        return each_line

with simulate._signals() as told:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    sys.settrace(each_line)
    simulate._until(told)
sys.settrace(None)
print("ended")
"""


def test_it_ends_whatever_it_does_in_the_moment_in_which_it_is_told():
    done = subprocess.run(
        [sys.executable, "-c", TOLD_AT_ANY_MOMENT], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("ended", 0), done.stderr


def test_each_request_is_a_line_when_that_is_wanted_and_keys_are_in_none(simulate):
    process, url = simulate("--log", "--key", KEY, "--model", "one-model")
    with client(url) as asking:
        list(asking.stream("hello", model="one-model"))
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url + "/v1/models", headers={"x-api-key": "sk-wrong-0123456789"}))
    _, _, err = ended(process)
    lines = [re.sub(r"[\d.]+s", "1s", line) for line in err.splitlines()]
    assert "POST /v1/chat/completions one-model stream 200 answered 1s" in lines
    assert "GET /v1/models - whole 401 refused 1s" in lines
    assert KEY not in err and "sk-wrong" not in err


def test_nothing_is_said_of_requests_otherwise(simulate):
    process, url = simulate()
    urllib.request.urlopen(url + "/health").close()
    assert "/health" not in ended(process)[2]


def test_the_counts_are_json_for_programs(simulate, home):
    (home / "plan.toml").write_text('[[fault]]\nkind = "status"\nstatus = 503\nat = 1\n')
    process, url = simulate("--json", "--plan", "plan.toml")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(url + "/v1/chat/completions", data=b"{}")
    code, out, _ = ended(process)
    counts = json.loads(out)
    assert code == 0 and counts["faults"] == {"status": 1} and counts["errors"] == {"503": 1}
    assert counts["by_dialect"]["openai.chat"]["requests"] == 1


def test_its_options_reach_the_simulator(simulate, home):
    process, url = simulate("--rpm", "1", "--any-key", "--latency", "0.01..0.02", "--token-rate", "1000", "--seed", "3")
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    for status in (200, 429):
        request = urllib.request.Request(url + "/v1/chat/completions", body)
        try:
            got = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            got = error
        with got:
            assert got.status == status and got.headers["x-ratelimit-limit-requests"] == "1"
    assert "errors 1 x 429" in ended(process)[2]


def test_a_recording_is_replayed(simulate, start, home):
    process, url = simulate()
    with client(url, record=home / "c.jsonl") as asking:
        said = asking.ask("hello").text
    ended(process)
    process, url = simulate("--replay", "c.jsonl")
    with client(url) as asking:
        assert asking.ask("hello").text == said
    assert ended(process)[0] == 0


def test_a_key_may_come_from_a_variable(simulate):
    process, url = simulate("--key", "@env:MY_KEY", env={"MY_KEY": KEY})
    with client(url) as asking:
        assert asking.ask("hello").text
    assert KEY not in ended(process)[2]


def test_whoever_opens_it_to_others_is_warned(simulate):
    process, _ = simulate("--host", "0.0.0.0")
    assert "warning: whoever can reach this machine" in ended(process)[2]


def test_open_streams_are_told_and_do_not_hold_up_the_end(simulate):
    process, url = simulate("--token-rate", "1")
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(url + "/v1/chat/completions", body, {"x-api-key": KEY})
    with urllib.request.urlopen(request) as stream:
        stream.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        rest = stream.read().decode()
    assert '"error"' in rest and "[DONE]" not in rest


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--rpm", "0"), 2, "rpm must be"),
        (("--latency", "soon"), 2, "no latency"),
        (("--key", KEY, "--any-key"), 2, "exclude each other"),
        (("--key", "@env:NOT_SET"), 2, "NOT_SET"),
        (("--plan", "missing.toml"), 78, "cannot read"),
        (("--replay", "missing.jsonl"), 78, "cannot read"),
        (("--host", "256.0.0.1"), 2, "cannot listen"),
        (("--host", "a..b"), 2, "cannot listen"),
        (("--nonsense",), 2, "--nonsense"),
    ],
)
def test_what_is_wrong_with_the_command_line_is_said_before_anything_listens(run, words, code, said):
    result = run("simulate", "--port", "0", *words)
    assert result.exit_code == code and said in result.stderr and result.stdout == ""
    assert "hint:" in result.stderr and KEY not in result.stderr


def test_a_port_that_is_taken_is_said(simulate, run):
    _, url = simulate()
    result = run("simulate", "--port", url.rpartition(":")[2])
    assert result.exit_code == 2 and "cannot listen on 127.0.0.1" in result.stderr
