"""`polyvox embed`: which texts are embedded, how the vectors are written, and how it ends."""

import base64
import csv
import errno
import io
import json
import os
import signal
import stat
import struct

import pytest

from polyvox.cli import output
from polyvox.testing import Simulator
from polyvox.transports.demo.vectors import embed
from polyvox.types import EmbedRequest

KEY = "sk-proj-abcdefghijklmnopqrstuvwx"
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and modes as POSIX has them")


def vectors(*texts, dimensions=3):
    found = embed(EmbedRequest(model="demo", inputs=texts, dimensions=dimensions)).vectors
    return [list(vector) for vector in found]


def offline(run, *words, **facts):
    return run("embed", "-m", "demo", "--dimensions", "3", *words, **facts)


@pytest.fixture
def house(home):
    """A simulated provider that the configuration calls "house"; it takes two texts a call."""
    with Simulator(keys=[KEY]) as simulator:
        (home / "polyvox" / "config.toml").write_text(
            f'retries = 0\n[providers.house]\nbase_url = "{simulator.base_url("openai.chat")}"\n'
            'api_key_env = "HOUSE_KEY"\noptions = { embed_inputs = 2, embed_model = "usual" }\n'
        )
        yield simulator


# ---- the texts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "piped", "texts"),
    [
        (("a red fox", "tax law"), None, ["a red fox", "tax law"]),
        ((), "all of\nit\n", ["all of\nit"]),
        (("-",), "notes", ["notes"]),
        (("first", "-", "last"), "notes", ["first", "notes", "last"]),
        (("--lines",), "one\n\n two\r\nthree", ["one", " two", "three"]),
        (("word",), "is not read", ["word"]),
        (("--file", "a.txt", "--file", "b.txt"), None, ["1\n2", "x"]),
        (("--lines", "first", "--file", "a.txt", "--file", "-"), "3\n4", ["first", "1", "2", "3", "4"]),
    ],
)
def test_texts_are_words_files_and_what_is_piped_in_in_their_order(run, home, words, piped, texts):
    (home / "a.txt").write_text("1\n2\n")
    (home / "b.txt").write_bytes(b"\xef\xbb\xbfx")
    result = offline(run, *words, "--format", "ndjson", input=piped)
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["text"] for row in rows] == texts and [row["index"] for row in rows] == list(range(len(texts)))
    assert [row["vector"] for row in rows] == vectors(*texts)


@pytest.mark.parametrize(
    ("words", "piped", "what"),
    [
        ((), "", "there is nothing to embed"),
        (("--lines",), "\n \n", "there is nothing to embed"),
        (("a", ""), None, "text 2 is empty"),
        (("-", "--file", "-"), "x", "wanted more than once"),
        (("--file", "missing.txt"), None, "missing.txt cannot be read"),
        (("--file", "picture"), None, "is not UTF-8 text"),
        (("a", "--format", "csv", "--json"), None, "exclude each other"),
        (("a", "--dimensions", "0"), None, "dimensions must be"),
        (("a", "--format", "xml"), None, "xml"),
        (("--key", "-"), "x", "standard input is wanted for the texts and for --key"),
        (("a", "--key", KEY), None, "can be read by every user"),
        (("a", "-o", "no/such/folder.json"), None, "there is no such folder"),
        (("a", "-o", "."), None, "it is a folder"),
        (("a", "-o", "x" * 300), None, "cannot be written"),
        (("a", "-o", "\0"), None, "cannot be written"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(run, home, words, piped, what):
    (home / "picture").write_bytes(b"\x89PNG\xff")
    result = run("embed", "-m", "demo", *words, input=piped)
    assert result.exit_code == 2 and result.stdout == ""
    assert what in result.stderr and "hint" in result.stderr and KEY not in result.stderr


# ---- the vectors ------------------------------------------------------------------------------


def test_json_is_one_object_with_all_that_is_known(run):
    for words in ((), ("--json",)):
        result = offline(run, "a red fox", "tax law", *words)
        found = json.loads(result.stdout)
        assert result.exit_code == 0 and result.stderr == "" and found["vectors"] == vectors("a red fox", "tax law")
        assert (found["model"], found["deployment"], found["dimensions"]) == ("demo", "demo/demo", 3)
        assert found["usage"]["input"] == 7 and found["usage"]["output"] is None and found["cost"]["amount"] is None
        assert [attempt["outcome"] for attempt in found["attempts"]] == ["ok"]


def test_csv_is_a_table_that_holds_any_text(run):
    texts = ['say "no", please', "two\nlines", "old\rmac", "=cmd"]
    result = offline(run, *texts, "--format", "csv")
    header, *rows = csv.reader(io.StringIO(result.stdout_bytes.decode(), newline=""))
    assert header == ["index", "text", "0", "1", "2"]
    assert [row[1] for row in rows] == texts
    assert [[float(cell) for cell in row[2:]] for row in rows] == vectors(*texts)


def test_base64_is_a_line_for_each_text_in_single_precision(run):
    lines = offline(run, "a", "b", "--format", "base64").stdout.splitlines()
    assert [list(struct.unpack("<3f", base64.b64decode(line))) for line in lines] == vectors("a", "b")


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "base64"])
def test_a_file_gets_what_would_be_printed(run, home, form):
    printed = offline(run, "a", "b ❄", "--format", form).stdout
    result = offline(run, "a", "b ❄", "--format", form, "-o", "out")
    assert result.exit_code == 0 and result.stdout == ""
    written = (home / "out").read_text(encoding="utf-8")
    assert [json.loads(line) for line in written.splitlines()] if form == "ndjson" else written
    assert written == printed or form == "json"  # times are told there
    assert offline(run, "a", "b ❄", "--format", form, "-o", "-").stdout.splitlines()[1:] == printed.splitlines()[1:]


@POSIX
def test_a_file_that_is_there_is_replaced_whole_and_keeps_its_mode_and_links(run, home):
    (home / "old").write_text("old")
    (home / "old").chmod(0o640)
    (home / "link").symlink_to("old")
    assert offline(run, "a", "--format", "base64", "-o", "link").exit_code == 0
    assert (home / "link").is_symlink() and (home / "old").read_text() != "old"
    assert stat.S_IMODE((home / "old").stat().st_mode) == 0o640
    assert sorted(each.name for each in home.iterdir() if each.name not in ("polyvox",)) == ["link", "old"]


@POSIX
def test_a_new_file_is_as_readable_as_any_other(run, home):
    before = os.umask(0o027)
    try:
        assert offline(run, "a", "-o", "new").exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((home / "new").stat().st_mode) == 0o640


def test_nothing_is_written_when_it_fails(run, home, house):
    (home / "out").write_text("old")
    result = run("embed", "-m", "house", "a", "-o", "out", env={"HOUSE_KEY": "sk-wrong"})
    assert result.exit_code == 7 and (home / "out").read_text() == "old"
    assert sorted(each.name for each in home.iterdir()) == ["out", "polyvox"]


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_beside_it(run, home, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (home / "out").write_text("old")
    monkeypatch.setattr(os, "replace", full)
    result = offline(run, "a", "-o", "out")
    assert result.exit_code == 2 and "No space left on device" in result.stderr
    assert (home / "out").read_text() == "old"
    assert sorted(each.name for each in home.iterdir()) == ["out", "polyvox"]


@POSIX
def test_nothing_half_written_is_left_behind_by_ctrl_c(start, home):
    with Simulator(latency=30) as simulator:
        (home / "polyvox" / "config.toml").write_text(
            f'[providers.house]\nbase_url = "{simulator.base_url("openai.chat")}"\nauth = "none"\n'
        )
        process = start("embed", "-m", "house/m", "a", "-o", "out", env={"HOUSE_KEY": KEY})
        assert simulator.wait_for(lambda it: it.counts.requests == 1, 30)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert sorted(each.name for each in home.iterdir()) == ["polyvox"]


# ---- who is asked -----------------------------------------------------------------------------


def test_a_provider_is_asked_for_its_usual_model_in_as_many_calls_as_it_takes(run, house):
    result = run("embed", "-m", "house", "a", "b", "c", "--purpose", "query", "-u", env={"HOUSE_KEY": KEY})
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and len(found["vectors"]) == 3 and found["deployment"] == "house/usual"
    assert [sorted(asked.json) for asked in house.requests] == [["input", "model"]] * 2
    assert "warning: purpose: " in result.stderr and "usage: 3 texts, 6 tokens, " in result.stderr
    quiet = run("embed", "-m", "house", "a", "--purpose", "query", "-q", env={"HOUSE_KEY": KEY})
    assert quiet.stderr == ""
    strict = run("embed", "-m", "house", "a", "--purpose", "query", "--strict", env={"HOUSE_KEY": KEY})
    assert strict.exit_code == 2 and "strict: " in strict.stderr


def test_the_key_may_be_piped_in(run, house):
    assert run("embed", "-m", "house/m", "a", "--key", "-", input=KEY + "\n").exit_code == 0
    assert house.requests[-1].model == "m"


@pytest.mark.parametrize(
    ("model", "code", "what"),
    [
        ("anthropic/claude-haiku-4-5", 2, "knows none"),
        ("deepseek", 2, "no model for embeddings is named"),
        ("nobody/m", 2, "nobody"),
        ("house/m", 7, "house"),
    ],
)
def test_how_it_fails_is_told_by_the_exit_code(run, house, model, code, what):
    result = run("embed", "-m", model, "a", env={"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": ""})
    assert result.exit_code == code and what in result.stderr and "hint: " in result.stderr and result.stdout == ""


def test_without_a_model_and_a_key_nothing_is_made_up(run):
    result = run("embed", "a")
    assert result.exit_code == 7 and 'model="demo"' in result.stderr


def test_errors_are_json_where_data_is(run, house):
    result = run("embed", "-m", "house/m", "a", "--json")
    assert json.loads(result.stderr)["error"]["kind"] == "auth"


def test_the_progress_of_many_texts_is_shown_to_a_person_only(run, house, monkeypatch):
    texts = [f"text {number}" for number in range(40)]
    assert run("embed", "-m", "house", *texts, env={"HOUSE_KEY": KEY}).stderr == ""
    shown = []
    monkeypatch.setattr(output, "shows_progress", lambda: True)
    monkeypatch.setattr(output, "progress", shown.append)
    assert run("embed", "-m", "house", *texts, env={"HOUSE_KEY": KEY}).exit_code == 0
    assert shown[0].endswith("0 of 40") and shown[-1] == "" and "embedding [############" in "".join(shown)
    assert any(text.endswith("40 of 40") for text in shown)
    shown.clear()
    assert run("embed", "-m", "house", "a", env={"HOUSE_KEY": KEY}).exit_code == 0 and shown == []


@POSIX
def test_on_a_terminal_the_progress_is_gone_when_the_vectors_are_shown(start):
    from cli_terminal import Terminal

    texts = [f"text {number}" for number in range(40)]
    with Terminal(start, "embed", "-m", "demo", "--dimensions", "1", "--format", "csv", *texts) as terminal:
        terminal.wait_for("embedding [........................] 0 of 40")
        terminal.wait_for("embedding [########################] 40 of 40\r\x1b[K")
        assert terminal.rest().startswith("index,text,0")
        assert terminal.process.wait(20) == 0


def test_the_help_says_what_each_format_is(run):
    result = run("embed", "--help")
    assert result.exit_code == 0 and all(word in result.stdout for word in ("ndjson", "base64", "--lines", "-o,"))
