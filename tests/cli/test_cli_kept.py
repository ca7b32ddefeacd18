"""What the configuration switches on, the command line keeps: answers, budgets, calls. What is broken is one clear
error, or a warning and an answer."""

import json

import pytest

from polyvox.cli import output
from polyvox.testing.fault_server import refused_port

PRICED = '[prices."test/m"]\ninput = 0\noutput = 1000\n'
LEDGER = "[ledger]\nenabled = true\n"
CACHE = "[cache]\nenabled = true\n"


@pytest.fixture
def keeping(provider, home):
    """Adds tables to the configuration of a provider that is there."""

    def add(*tables):
        with (home / "polyvox" / "config.toml").open("a") as file:
            file.write("\n".join(("", *tables)))

    return add


@pytest.fixture
def ask(run):
    def call(*words, **how):
        return run("ask", "-m", "test/m", "-o", "max_tokens=10", *words, **how)

    return call


# ---- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), ("--no-stream",), ("--json",)])
def test_the_next_command_is_given_the_answer_of_the_last_one(ask, keeping, provider, how):
    keeping(CACHE)
    first, again = ask("hi", *how), ask("hi", *how)
    assert first.exit_code == again.exit_code == 0 and len(provider.seen) == 1
    if how == ("--json",):
        assert [json.loads(done.stdout)["cached"] for done in (first, again)] == [False, True]
    else:
        assert first.stdout == again.stdout == "One two three four five.\n"


def test_usage_says_that_an_answer_was_kept_and_cost_nothing(ask, keeping):
    keeping(CACHE, PRICED)
    first, again = ask("hi", "-u"), ask("hi", "-u")
    assert "kept from before" not in first.stderr and "cost 0 USD, kept from before" in again.stderr


def test_refresh_asks_anew_and_keeps_that_and_no_cache_leaves_the_cache_alone(ask, keeping, provider, home):
    keeping(CACHE)
    assert ask("hi", "--no-cache").exit_code == 0 and not list(home.rglob("cache.db"))
    for words, asked in ((("hi",), 2), (("hi",), 2), (("hi", "--refresh"), 3), (("hi",), 3), (("hi", "--no-cache"), 4)):
        assert ask(*words).exit_code == 0
        assert len(provider.seen) == asked, words


def test_without_the_switch_nothing_is_kept(ask, keeping, provider, home):
    keeping("[cache]\nplace = './mine.db'\n")
    assert [ask("hi").exit_code for _ in range(2)] == [0, 0]
    assert len(provider.seen) == 2 and not list(home.rglob("*.db"))


def test_what_is_recorded_is_asked_and_what_is_replayed_is_no_answer_to_keep(ask, keeping, provider, home):
    keeping(CACHE)
    ask("hi")
    assert ask("hi", "--record", "tape.jsonl").exit_code == 0 and len(provider.seen) == 2
    assert ask("hi", "--replay", "tape.jsonl").exit_code == 0 and len(provider.seen) == 2


def test_an_answer_that_did_not_please_is_asked_anew_in_a_chat_and_the_first_is_given_again(run, keeping, provider):
    keeping(CACHE)
    assert run("chat", "-m", "test/m", input="hi\n/clear\nhi\n").exit_code == 0
    assert len(provider.seen) == 1
    assert run("chat", "-m", "test/m", input="hi\n/retry\n").exit_code == 0
    assert len(provider.seen) == 2


def test_a_cache_that_cannot_be_reached_is_said_once_and_the_answer_comes(ask, keeping):
    keeping(CACHE, f'place = "redis://:hunter2-canary@127.0.0.1:{refused_port()}/0"\n')
    done = ask("hi")
    assert (done.exit_code, done.stdout) == (0, "One two three four five.\n")
    assert done.stderr.count("does not work") == 1 and "hunter2" not in done.output


def test_a_bound_that_a_server_has_by_itself_is_refused_with_its_line(ask, keeping, home):
    keeping(CACHE, 'place = "redis://127.0.0.1:9/0"\nmax_entries = 5\n')
    done = ask("hi")
    assert done.exit_code == output.CONFIG and "config.toml:" in done.stderr and "cache.max_entries" in done.stderr


# ---- budgets ----------------------------------------------------------------------------------


def test_a_budget_that_is_spent_is_one_error_with_a_hint_and_nothing_is_sent(ask, keeping, provider):
    keeping(PRICED, "[budgets.daily]\nlimit = 0.012\nwindow = 'day'\n")
    assert ask("hi", "--no-stream").exit_code == 0  # of its 10 tokens, 0.01 USD, it took 5
    done = ask("hi there")
    assert done.exit_code == output.LIMIT and len(provider.seen) == 1 and done.stdout == ""
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
    assert "budget 'daily' has no room: limit 0.012 USD, spent 0.005" in done.stderr
    told = json.loads(ask("hi there", "--json").stderr)["error"]
    assert (told["kind"], told["sent"]) == ("quota", "no") and told["hint"]


def test_a_kept_answer_is_given_though_the_budget_is_spent(ask, keeping, provider):
    keeping(PRICED, CACHE, "[budgets.all]\nlimit = 0.012\n")
    assert ask("hi", "--no-stream").exit_code == 0
    assert ask("ho").exit_code == output.LIMIT
    assert ask("hi").exit_code == 0 and len(provider.seen) == 1


def test_a_soft_budget_warns_when_it_is_spent_and_refuses_nothing(ask, keeping):
    keeping(PRICED, "[budgets.all]\nlimit = 0.001\nhard = false\n")
    first, second = ask("hi", "--no-stream"), ask("hi", "--no-stream")
    assert first.exit_code == second.exit_code == 0
    assert "budget 'all'" in first.stderr and "100 %" in first.stderr


def test_budgets_go_by_tags_and_project(ask, keeping):
    keeping(PRICED, "[budgets.nightly]\nlimit = 0\ntag = 'nightly'\n[budgets.web]\nlimit = 0\nproject = 'web'\n")
    refused = [("--tag", "nightly"), ("--tag", "x", "--tag", "nightly"), ("--project", "web")]
    assert [ask("hi", *words).exit_code for words in refused] == [output.LIMIT] * 3
    assert [ask("hi", *words).exit_code for words in ((), ("--tag", "web"))] == [0, 0]


def test_vectors_count_too(run, keeping):
    keeping('[prices."demo/demo"]\ninput = 1\noutput = 1\n', "[budgets.all]\nlimit = 0\n")
    done = run("embed", "-m", "demo", "hello")
    assert done.exit_code == output.LIMIT and "budget 'all' has no room" in done.stderr


@pytest.mark.parametrize("hard", [True, False])
def test_where_budgets_cannot_be_counted_hard_ones_refuse_and_soft_ones_let_calls_through(ask, keeping, provider, hard):
    place = f"redis://:hunter2-canary@127.0.0.1:{refused_port()}/0"
    keeping(PRICED, f'[budgets]\nplace = "{place}"\n[budgets.all]\nlimit = 1\nhard = {str(hard).lower()}\n')
    done = ask("hi")
    assert done.exit_code == (output.LIMIT if hard else 0) and len(provider.seen) == (0 if hard else 1)
    assert done.stderr.count("error:") == int(hard) and "hunter2" not in done.output


def test_ledger_and_budgets_share_a_file_and_processes_share_a_budget(ask, start, keeping, home):
    keeping(PRICED, LEDGER, "[budgets.all]\nlimit = 0.012\n")
    process = start("ask", "-m", "test/m", "-o", "max_tokens=10", "--no-stream", "hi")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert ask("hi there").exit_code == output.LIMIT
    assert sorted(path.name for path in home.rglob("*.db")) == ["ledger.db"]


# ---- on whose behalf --------------------------------------------------------------------------


def test_tags_project_and_user_are_written_down(ask, run, keeping, provider):
    keeping(LEDGER)
    assert ask("hi", "--tag", "a", "--tag", "b", "--project", "p", "-o", "user=ann").exit_code == 0
    assert "tags" not in provider.seen[0] and "project" not in provider.seen[0]
    for word, values in (("tag", ["a", "b"]), ("project", ["p"]), ("user", ["ann"])):
        rows = json.loads(run("usage", "--by", word, "--json").stdout)["rows"]
        assert sorted(row[word] for row in rows) == values
