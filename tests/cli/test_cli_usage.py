"""`polyvox usage` shows one set of numbers as a table, JSON, CSV and a page; what is unknown is never 0."""

import asyncio
import contextlib
import csv
import io
import json
import re
import sqlite3
import stat

import pytest
from cli_terminal import Terminal
from tests.usage.known import CALLS, HOSTILE, begun, fill, sums
from tests.usage.test_page import check

from polyvox.cli import usage as command
from polyvox.ledger import CallEnd, Ledger, UsageRow
from polyvox.usage import FIELDS, Figures, Question


@pytest.fixture
def filled(home):
    """The ids of the known calls, in the user's own ledger."""
    return fill(str(home / "polyvox" / "ledger.db"))


def told(run, *words):
    done = run("usage", "--json", *words)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_json_has_a_row_for_each_key_and_the_total(run, filled):
    answer = told(run, "--by", "user", "--state", "ok", "--state", "error", "--state", "cancelled")
    assert answer["by"] == ["user"] and answer["currency"] == "USD"
    for row in [*answer["rows"], {**answer["total"], "user": "all"}]:
        chosen = [call for call in CALLS if row["user"] in (call[3], "all")]
        wanted = sums(chosen)
        wanted["cost"] = None if wanted["cost"] is None else f"{wanted['cost'].normalize():f}"
        assert {name: row[name] for name in wanted} == wanted


def test_csv_and_json_and_the_page_have_the_same_numbers(run, filled, home):
    answer = told(run, "--by", "model,user", "--by", "day", "--zone", "Europe/Berlin")
    rows = list(csv.DictReader(io.StringIO(
        run("usage", "--csv", "--by", "model,user,day", "--zone", "Europe/Berlin").stdout
    )))  # fmt: skip
    said = [{name: "" if row[name] is None else str(row[name]) for name in FIELDS} for row in answer["rows"]]
    assert [{name: row[name] for name in FIELDS} for row in rows] == said
    page = home / "usage.html"
    done = run("usage", "--html", str(page), "--by", "model,user,day", "--zone", "Europe/Berlin")
    assert (done.exit_code, done.stdout) == (0, "") and str(page) in done.stderr
    check(page.read_text("utf-8"), answer)


def test_a_span_and_filters_choose_calls(run, filled):
    def calls(*words):
        return told(run, *words)["total"]["calls"]

    assert calls("--since", "2026-03-02", "--until", "2026-03-03") == 3
    assert calls("--since", "2026-03-02", "--until", "2026-03-03", "--zone", "Europe/Berlin") == 4
    assert calls("--since", "7d") == 0
    assert calls("--model", "deep", "--user", "ann") == 1
    assert calls("--user", "ann", "--user", "ben") == 6
    assert calls("--user", "") == 1
    assert calls("--tag", "web") == 3 and calls("--tag", "") == 3
    assert calls("--error", "overloaded") == calls("--state", "interrupted") == 1
    assert calls("--provider", "north", "--project", "demo", "--session", "s1") == 4


def test_the_table_shows_cost_failures_and_a_bar_and_says_what_is_in_no_sum(run, filled):
    done = run("usage", "--by", "model", env={"COLUMNS": "140"})
    head, deep, swift, hostile, total = done.stdout.splitlines()
    assert head.split()[:5] == ["MODEL", "CALLS", "COST", "UNPRICED", "FAILED"]
    assert deep.split()[:5] == ["deep", "3", "$1.00", "1", "0"]
    assert swift.split()[:5] == ["swift", "4", "$0.30", "2", "2"]
    assert total.split()[:5] == ["total", "8", "$1.35", "3", "2"]
    lengths = [line.count("█") for line in (deep, swift, hostile, total)]
    assert lengths[0] > lengths[1] > lengths[2] >= lengths[3] == 0
    assert "\x1b" not in done.stdout and "\u202e" not in done.stdout
    assert "3 calls is unknown" in done.stderr and "1 call are an estimate" in done.stderr


@pytest.mark.parametrize("width", range(40, 200, 7))
def test_no_line_is_wider_than_the_terminal(run, filled, width):
    lines = run("usage", "--by", "model", env={"COLUMNS": str(width)}).stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split()[:3] == ["MODEL", "CALLS", "COST"]


def figures_of(**keys):
    rows = tuple(UsageRow(key={"model": name}, calls=calls) for name, calls in keys.items())
    return Figures(question=Question(by=("model",)), rows=rows, total=UsageRow(key={}, calls=sum(keys.values())))


def test_wide_letters_keep_the_columns_straight_and_bars_are_of_calls_where_no_cost_is_known():
    lines = list(command.table(figures_of(模型=1, abcd=4), command.Screen(120, False, True)))
    at = lines[0].index("CALLS") + 5
    assert lines[1].index("1") + 1 == at - 2 and lines[2].index("4") + 1 == at  # each of the two letters is two wide
    assert (lines[1].count("█"), lines[2].count("█")) == (10, 40)
    plain = list(command.table(figures_of(a=1), command.Screen(None, False, False)))
    assert plain[1].endswith("#" * 20) and "█" not in "".join(plain)


def test_a_terminal_gets_colours_unless_it_must_not(start, filled):
    def seen(**env):
        with Terminal(start, "usage", env=env) as terminal:
            text = terminal.rest()
            assert terminal.process.wait(20) == 0
            return text

    assert "\x1b[36m█" in seen(TERM="xterm")
    plain = seen(TERM="xterm", NO_COLOR="1")
    assert "█" in plain and "\x1b" not in plain
    assert "\x1b" not in start("usage").communicate()[0].decode()


def test_a_call_in_flight_is_counted_as_such_and_is_not_taken_for_dead(start, home):
    with Ledger(str(home / "polyvox" / "ledger.db")) as ledger:
        call = begun(ledger, "swift", "north")
        asyncio.run(ledger.begin(call))
        total = json.loads(start("usage", "--json").communicate()[0])["total"]
        asyncio.run(ledger.finish(CallEnd(start=call)))
    assert (total["calls"], total["open"], total["interrupted"], total["unknown_cost"]) == (1, 1, 0, 0)


def test_an_empty_ledger_is_said_and_is_no_failure(run, home):
    with Ledger(str(home / "polyvox" / "ledger.db")):
        pass
    done = run("usage")
    assert (done.exit_code, done.stdout) == (0, "") and "no calls there yet" in done.stderr
    answer = told(run)
    assert answer["rows"] == [] and answer["total"]["cost"] is None
    assert run("usage", "--csv").stdout.splitlines() == [",".join(["model", *FIELDS])]


def test_where_no_ledger_is_it_says_how_to_have_one_and_makes_none(run, home):
    done = run("usage")
    assert done.exit_code == 78 and "polyvox logs on" in done.stderr
    assert not (home / "polyvox" / "ledger.db").exists()
    done = run("usage", "--ledger", "other.db", "--json")
    assert done.exit_code == 78 and json.loads(done.stderr)["error"]["kind"] == "config"
    assert not (home / "other.db").exists()


def test_another_ledger_can_be_named(run, home):
    fill(str(home / "other.db"))
    assert told(run, "--ledger", "other.db")["total"]["calls"] == 8


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(run, home):
    with contextlib.closing(sqlite3.connect(home / "theirs.db")) as theirs:
        theirs.execute("CREATE TABLE notes (text)")
        theirs.commit()
    (home / "letter.txt").write_text("Dear Ann, " * 100)
    (home / "empty").write_bytes(b"")
    for name in ("theirs.db", "letter.txt", "empty", "."):
        before = (home / name).read_bytes() if name != "." else b""
        done = run("usage", "--ledger", name, "--json")
        assert done.exit_code != 0 and json.loads(done.stderr)["error"]["hint"]
        assert name == "." or (home / name).read_bytes() == before
    assert {path.name for path in home.iterdir() if path.is_file()} == {"theirs.db", "letter.txt", "empty"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--by", "colour"), "group by model"),
        (("--since", "soon"), "2026-11-01"),
        (("--since", "today", "--until", "yesterday"), "not before"),
        (("--zone", "Mars/Base"), "Europe/Berlin"),
        (("--json", "--csv"), "exclude"),
        (("--html", "."), "folder"),
        (("--html", "nowhere/usage.html"), "no folder"),
        (("--state", "broken"), "interrupted"),
    ],
)
def test_a_wrong_word_is_one_clear_error(run, filled, words, said):
    done = run("usage", *words)
    assert (done.exit_code, done.stdout) == (2, "") and said in done.stderr


def test_the_page_replaces_a_file_in_one_step_and_is_private_unless_it_was_not(run, filled, home):
    page = home / "usage.html"
    assert run("usage", "--html", "usage.html").exit_code == 0
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    page.write_text("old")
    page.chmod(0o644)
    assert run("usage", "--html", "usage.html").exit_code == 0
    assert stat.S_IMODE(page.stat().st_mode) == 0o644
    text = page.read_text("utf-8")
    assert text.endswith("</html>\n") and HOSTILE not in text
    assert [path.name for path in home.glob("*usage*")] == ["usage.html"]


def test_help_lists_the_words(run):
    text = re.sub(r"\s+", " ", run("usage", "--help").stdout)
    assert "model, provider, day, hour, month, user" in text
