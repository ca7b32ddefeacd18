"""Models of a server on this machine at the terminal: pulled with a bar, shown, loaded, deleted after a question."""

import json
import re
import signal

import pytest
from cli_terminal import Terminal

from polyvox.cli import output, progress
from polyvox.cli.model_store import _left
from polyvox.cli.progress import Progress, size
from polyvox.testing import Simulator


@pytest.fixture
def simulator(home, monkeypatch):
    with Simulator(models=["small", "large:7b"]) as running:
        monkeypatch.setenv("OLLAMA_HOST", running.base_url("ollama.chat"))
        yield running


def kept(run):
    return [model["id"] for model in json.loads(run("models", "list", "--live", "ollama", "--json").stdout)]


# ---- pull -------------------------------------------------------------------------------------


def test_a_pull_tells_its_steps_a_line_each_where_nobody_watches(run, simulator):
    done = run("models", "pull", "tiny")
    assert done.exit_code == 0 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "pulling manifest" and lines[-1] == "success"
    assert re.fullmatch(r"pulling [0-9a-f]{12}: [0-9.]+ MB", lines[1]) and len(lines) == len(set(lines))
    assert "tiny:latest" in kept(run)


def test_a_pull_as_json_is_a_line_for_each_step_and_nothing_else(run, simulator):
    done = run("models", "pull", "ollama/tiny", "--json")
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert steps[-1] == {"status": "success", "digest": None, "completed": None, "total": None}
    assert done.stderr == "" and any(step["completed"] == step["total"] != None for step in steps)  # noqa: E711


def test_a_quiet_pull_says_nothing_unless_it_fails(run, simulator):
    done = run("models", "pull", "tiny", "-q")
    assert (done.exit_code, done.output) == (0, "")
    assert "file does not exist" in run("models", "pull", "tiny:missing", "-q").stderr


def test_a_pull_shows_a_bar_to_a_person(start, simulator):
    with Terminal(start, "models", "pull", "tiny") as terminal:
        shown = terminal.rest()
    assert "\r" in shown and re.search(r"pulling [0-9a-f]{12}  100% \[#+\] [0-9.]+ MB of [0-9.]+ MB", shown)
    assert terminal.process.wait() == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("pull", "tiny:missing"), output.REFUSED, "check its name and tag"),
        (("pull", "a b"), output.REFUSED, "invalid model name"),
        (("pull", ""), output.USAGE, "a model's name is text"),
        (("pull", "tiny", "--stall", "0"), output.USAGE, "--stall"),
        (("pull", "--provider", "openai", "m"), output.USAGE, "OpenAI keeps no models"),
        (("pull", "openai/gpt-4o"), output.USAGE, "OpenAI keeps no models"),
        (("pull", "ollama/m", "--provider", "vllm"), output.USAGE, "two providers are named"),
        (("pull", "--provider", "olama", "m"), output.USAGE, "olama"),
        (("unload", "nope"), output.REFUSED, "polyvox models pull ollama/nope"),
        (("load", "small", "--keep-alive", "soon"), output.USAGE, "keep_alive"),
        (("delete", "nope", "-y"), output.REFUSED, "polyvox models list --live ollama"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(run, simulator, words, code, said):
    done = run("models", *words)
    assert done.exit_code == code and said in done.stderr and "Traceback" not in done.output


def test_an_error_is_json_where_data_is(run, simulator):
    done = run("models", "pull", "tiny:missing", "--json")
    assert json.loads(done.stderr)["error"]["kind"] == "not_found"


def test_without_a_server_every_command_says_how_to_start_it(run):
    for words in (("pull", "m"), ("running",), ("unload", "m"), ("delete", "m", "-y")):
        done = run("models", *words)
        assert done.exit_code == output.NETWORK and "ollama serve" in done.stderr


def test_an_interrupted_pull_says_that_what_came_is_kept(start, home):
    with Simulator(token_rate=2) as slow:
        process = start("models", "pull", "tiny", env={"OLLAMA_HOST": slow.base_url("ollama.chat")})
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        assert process.returncode == output.INTERRUPTED and b"what has come is kept" in told
        assert slow.wait_for(lambda running: running.requests[0].outcome is not None, 5)
        assert slow.requests[0].outcome == "cut_by_client"


# ---- show, run, delete ------------------------------------------------------------------------


def test_a_model_is_shown_with_what_its_server_says(run, simulator):
    shown = run("models", "show", "ollama/small")
    facts = dict(re.findall(r"^(\w+): +(.*)$", shown.stdout, re.MULTILINE))
    assert facts["context"] == "32768" and facts["capabilities"] == "completion, tools, thinking"
    assert facts["template"] == "{{ .Prompt }}" and facts["license"] and "temperature 0.7" in facts["setting"]
    told = json.loads(run("models", "show", "small", "--json").stdout)
    assert told["name"] == "ollama/small" and told["server"]["parameter_size"] == "1M"
    assert told["server"]["details"]["general.architecture"] == "demo"


def test_a_model_its_server_has_not_is_shown_with_what_is_known_and_how_to_fetch_it(run, simulator):
    shown = run("models", "show", "llama3.2")
    assert shown.exit_code == 0 and "ollama/llama3.2" in shown.stdout
    assert "polyvox models pull ollama/llama3.2" in shown.stderr
    assert json.loads(run("models", "show", "llama3.2", "--json").stdout)["server"] is None


def test_a_server_that_is_away_keeps_nobody_from_showing_what_is_known(run):
    shown = run("models", "show", "llama3.2")
    assert shown.exit_code == 0 and "ollama serve" in shown.stderr and "ollama/llama3.2" in shown.stdout


def test_a_model_of_a_hosted_provider_is_shown_without_asking_anybody(run, simulator):
    assert run("models", "show", "openai/gpt-4o").exit_code == 0
    assert simulator.requests == ()


def test_what_is_loaded_is_listed_with_how_long_it_stays(run, simulator):
    assert "no model is loaded" in run("models", "running").stderr
    assert run("models", "load", "small", "--keep-alive", "2h").exit_code == 0
    assert run("models", "load", "large:7b", "--keep-alive", "-1").exit_code == 0
    lines = run("models", "running").stdout.splitlines()
    assert lines[0].split() == ["MODEL", "MEMORY", "OF", "IT", "GPU", "CONTEXT", "STAYS"]
    assert lines[1].startswith("small") and lines[1].endswith("2 h") and lines[2].endswith("for ever")
    (first, _) = json.loads(run("models", "running", "--json").stdout)
    assert first["name"] == "small" and first["size"] == first["vram"] > 0
    assert "unloaded small" in run("models", "unload", "small").stderr
    assert len(json.loads(run("models", "running", "--json").stdout)) == 1


def test_a_question_may_say_how_long_its_model_stays_loaded(run, simulator):
    assert run("ask", "-m", "small", "--keep-alive", "3h", "hi").exit_code == 0
    assert run("models", "running").stdout.splitlines()[1].endswith("3 h")
    elsewhere = run("ask", "-m", "demo", "--keep-alive", "3h", "hi")
    assert elsewhere.exit_code == 0 and "these keys belong to ollama.chat" in elsewhere.stderr
    assert run("ask", "-m", "demo", "--keep-alive", "soon", "hi").exit_code == output.USAGE


def test_nothing_is_deleted_without_a_yes(run, start, simulator):
    done = run("models", "delete", "small")
    assert done.exit_code == output.USAGE and "--yes" in done.stderr and "small" in kept(run)
    for answer, code in (("n\n", output.INTERRUPTED), ("y\n", 0)):
        with Terminal(start, "models", "delete", "small") as terminal:
            terminal.wait_for("Delete small from the server's disk?")
            terminal.type(answer)
            terminal.rest()
            assert terminal.process.wait() == code
        assert ("small" in kept(run)) == (code != 0)
    assert "deleted large:7b" in run("models", "delete", "large:7b", "--yes").stderr
    assert kept(run) == []


# ---- names ------------------------------------------------------------------------------------


def test_a_bare_name_means_the_model_of_the_server_that_has_it(run, simulator):
    assert json.loads(run("ask", "-m", "small", "--json", "hi").stdout)["deployment"] == "ollama/small"
    missing = run("ask", "-m", "house", "hi")
    assert missing.exit_code == output.USAGE and "polyvox models pull ollama/house" in missing.stderr
    talk = run("chat", "-m", "demo", input="/model small\nhi\n/model house\n")
    assert "model: small" in talk.stderr and "house" in talk.stderr


def test_an_upgrade_is_said_beside_the_answer(run, monkeypatch):
    from polyvox import catalog

    catalog.add_model(id="old", provider="demo", retires="2020-01-01", successor="demo")
    try:
        for words in (("ask", "--upgrade", "-m", "demo/old", "hi"), ("ask", "-m", "demo/old", "hi")):
            done = run(*words)
            assert ("demo/demo is asked in the place of demo/old" in done.stderr) == ("--upgrade" in words)
        shown = json.loads(run("explain", "--upgrade", "-m", "demo/old", "hi").stdout)
        assert shown["body"]["model"] == "demo"
        assert run("chat", "--upgrade", "-m", "demo/old", input="hi\n").exit_code == 0
    finally:
        catalog.forget_models()


# ---- how it is shown --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "?"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (4_661_211_424, "4.7 GB"),
     (10**16, "10000.0 TB")],
)  # fmt: skip
def test_sizes_are_as_people_read_them(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("expires", "text"),
    [(None, None), (99.0, "0 s"), (130.0, "30 s"), (400.0, "5 min"), (7300.0, "2 h"), (10.0**12, "for ever")],
)
def test_how_long_a_model_stays_is_told_in_words(expires, text):
    assert _left(expires, 100.0) == text


class Screen:
    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_a_bar_is_drawn_again_at_most_ten_times_a_second_and_always_at_its_end(monkeypatch):
    screen, now = Screen(), [0.0]
    monkeypatch.setattr(progress.sys, "stderr", screen)
    bar = Progress(lambda: now[0])
    for step in range(1001):
        now[0] = step / 100
        bar.says("pulling x\x1b[2J", step * 1000, 1_000_000)
    bar.says("verifying")
    bar.ends()
    drawn = screen.text.split("\r")[1:]
    assert 90 <= len(drawn) <= 110 and "100% [########################] 1.0 MB of 1.0 MB  100.0 kB/s" in screen.text
    assert "\x1b" not in screen.text and screen.text.endswith("verifying\n")


def test_a_bar_nobody_can_see_any_more_stops_nothing(monkeypatch):
    class Gone(Screen):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(progress.sys, "stderr", Gone())
    bar = Progress()
    bar.says("pulling", 1, 2)
    bar.ends()
    monkeypatch.setattr(progress.sys, "stderr", None)
    Progress().says("pulling", 1, 2)
