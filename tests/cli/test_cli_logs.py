"""`polyvox logs` lists, finds, shows and follows calls, and switches writing them down."""

import asyncio
import json
import signal
import tomllib

import pytest
from tests.usage.known import CALLS, HOSTILE, begun, end_of, fill

from polyvox.ledger import Ledger


@pytest.fixture
def ids(home):
    """The ids of the known calls, in the user's own ledger."""
    return fill(str(home / "polyvox" / "ledger.db"))


def told(run, *words):
    done = run("logs", *words, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_calls_are_listed_the_latest_first_page_by_page(run, ids):
    assert [call["id"] for call in told(run)] == ids[::-1]
    first = told(run, "list", "-n", "3")
    assert [call["id"] for call in first] == ids[:4:-1]
    assert [call["id"] for call in told(run, "list", "--after", first[-1]["id"])] == ids[4::-1]
    assert [call["id"] for call in told(run, "--user", "ben", "--until", "2026-03-02")] == [ids[1]]
    assert [call["id"] for call in told(run, "--tag", "night")] == [ids[1]]


def test_what_is_unknown_of_a_call_is_not_there_and_money_is_exact(run, ids):
    calls = {call["id"]: call for call in told(run)}
    assert calls[ids[4]]["cost"] == "0.000000000001"
    assert "cost" not in calls[ids[3]] and "cost" not in calls[ids[2]]
    assert calls[ids[0]]["time"] == "2026-03-01T22:30:00.000000+00:00"
    assert calls[ids[0]]["duration"] == 1_000_000
    assert calls[ids[7]]["state"] == "interrupted"


def test_the_list_has_a_line_for_each_call_and_obeys_no_name(run, ids):
    done = run("logs")
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + len(ids) and lines[0].startswith("ID")
    assert [line.split()[0] for line in lines[1:]] == [id[:18] for id in ids[::-1]]
    assert "overloaded" in lines[-3] and "#web #night" in lines[-2]
    assert "\x1b" not in done.stdout and "\u202e" not in done.stdout
    berlin = run("logs", "--zone", "Europe/Berlin", "-n", "1").stdout
    assert "2026-03-30 01:00:00" in berlin


def test_words_are_found_in_names_errors_and_texts_where_those_are_kept(run, ids):
    assert [call["id"] for call in told(run, "search", "many", "at", "once")] == [ids[2]]
    assert [call["id"] for call in told(run, "search", "answer of deep")] == [ids[5], ids[4], ids[3]]
    assert [call["id"] for call in told(run, "search", "SWIFT", "--user", "ben")] == [ids[1]]
    none = run("logs", "search", "never said")
    assert (none.exit_code, none.stdout) == (0, "") and "no such calls" in none.stderr
    assert told(run, "search", "never said") == []


def test_a_call_is_shown_with_its_attempts_and_texts(run, ids):
    call = told(run, "show", ids[2])
    assert [attempt["outcome"] for attempt in call["attempts"]] == ["overloaded", "ok"]
    assert call["attempts"][0]["waited"] == 500_000 and call["error_message"] == "too many at once"
    assert call["prompt"] == {"messages": ["question for swift"]} and call["answer"] == "answer of swift"
    text = run("logs", "show", ids[2][:18]).stdout
    assert "busy just now" in text and "cost:            unknown" in text and "question for swift" in text
    hostile = run("logs", "show", ids[6]).stdout
    assert "\x1b" not in hostile and "alert(1)" in hostile and HOSTILE not in hostile


@pytest.mark.parametrize(("id", "code"), [("ffff", 3), ("06", 2), ("xyz", 2), ("", 2)])
def test_an_id_of_none_or_of_several_is_told(run, ids, id, code):
    done = run("logs", "show", id)
    assert done.exit_code == code and "hint:" in done.stderr


def test_texts_that_were_not_kept_are_not_shown(run, home):
    ids = fill(str(home / "polyvox" / "ledger.db"), privacy="none")
    call = told(run, "show", ids[2])
    assert not {"prompt", "answer", "error_message"} & set(call)
    assert told(run, "search", "question") == []


def test_the_last_calls_come_in_order_and_as_lines_of_json(run, ids):
    done = run("logs", "tail", "-n", "3", "--json")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ids[5:]
    table = run("logs", "tail", "-n", "3").stdout.splitlines()
    assert [line.split()[0] for line in table[1:]] == [id[:18] for id in ids[5:]]


def test_tail_follows_calls_as_they_begin_and_end_until_it_is_stopped(start, ids, home):
    process = start("logs", "tail", "-f", "--json", "-n", "1", "--user", "zoe", "--user", "ann")
    assert json.loads(process.stdout.readline())["id"] == ids[7]
    with Ledger(str(home / "polyvox" / "ledger.db")) as ledger:
        call, other = begun(ledger, "swift", "north", "zoe"), begun(ledger, "swift", "north", "eve")
        asyncio.run(ledger.begin(other))
        asyncio.run(ledger.begin(call))
        first = json.loads(process.stdout.readline())
        asyncio.run(ledger.finish(end_of(other, CALLS[0])))
        asyncio.run(ledger.finish(end_of(call, CALLS[0])))
        second = json.loads(process.stdout.readline())
    assert [(told["id"], told["state"]) for told in (first, second)] == [(call.id, "open"), (call.id, "ok")]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


def test_without_a_ledger_every_verb_says_how_to_have_one(run, home):
    for words in ((), ("search", "x"), ("show", "ab"), ("tail",)):
        done = run("logs", *words)
        assert done.exit_code == 78 and "polyvox logs on" in done.stderr
    status = told(run, "status")
    assert (status["on"], status["there"]) == (False, False)
    assert not (home / "polyvox" / "ledger.db").exists()


# ---- on and off -------------------------------------------------------------------------------


def table(home):
    return tomllib.loads((home / "polyvox" / "config.toml").read_text())["ledger"]


def test_switching_on_and_off_writes_the_settings_and_leaves_the_rest(run, home):
    config = home / "polyvox" / "config.toml"
    config.write_text('# mine\ntimeout = 30  # seconds\n\n[aliases]\nfast = "demo"\n')
    assert run("logs", "on").exit_code == 0
    assert table(home) == {"enabled": True, "texts": "none"}
    assert "full" in _kept(run, home, "on", "--texts") and "hashed" in _kept(run, home, "on", "--hashed")
    done = run("logs", "off")
    assert done.exit_code == 0 and "no longer" in done.stderr
    assert table(home) == {"enabled": False, "texts": "hashed"}
    assert config.read_text().startswith('# mine\ntimeout = 30  # seconds\n\n[aliases]\nfast = "demo"\n')
    assert told(run, "status")["on"] is False


def _kept(run, home, *words):
    assert run("logs", *words).exit_code == 0
    return table(home)["texts"]


def test_another_place_for_the_ledger_is_kept_as_a_whole_path_and_used(run, home):
    fill(str(home / "mine.db"))
    assert run("logs", "on", "--ledger", "mine.db").exit_code == 0
    assert table(home)["database"] == str(home / "mine.db")
    assert run("logs", "path").stdout.strip() == str(home / "mine.db")
    assert len(told(run)) == 8
    status = told(run, "status")
    assert (status["on"], status["there"], status["calls"], status["state"]) == (True, True, 8, "ok")


def test_a_password_is_neither_written_nor_shown(run, home):
    url = "postgresql://ann:secret-word@db.example/ledger"
    done = run("logs", "on", "--ledger", url)
    assert done.exit_code == 78 and "pgpass" in done.stderr and "secret-word" not in done.output
    assert not (home / "polyvox" / "config.toml").exists()
    (home / "polyvox" / "config.toml").write_text(f'[ledger]\ndatabase = "{url}"\n')
    assert run("logs", "path").stdout.strip() == "postgresql://ann@db.example/ledger"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('enabled = "yes"', "true or false"),
        ('texts = "some"', "none, hashed, full"),
        ("database = 3", "path or URL"),
        ("colour = 1", "is not a setting"),
    ],
)
def test_a_wrong_setting_is_told_with_its_line(run, home, line, said):
    config = home / "polyvox" / "config.toml"
    config.write_text(f"[ledger]\n{line}\n")
    done = run("logs", "status")
    assert done.exit_code == 78 and f"{config}:2" in done.stderr and said in done.stderr


def test_a_configuration_that_is_not_toml_is_not_rewritten(run, home):
    config = home / "polyvox" / "config.json"
    config.write_text("{}")
    done = run("logs", "on")
    assert done.exit_code == 78 and "config.toml" in done.stderr and config.read_text() == "{}"


def test_opposite_words_are_refused(run, ids):
    assert run("logs", "on", "--texts", "--hashed").exit_code == 2
    assert run("logs", "tail", "-f", "--until", "today").exit_code == 2
    assert run("logs", "serch", "x").exit_code == 2
