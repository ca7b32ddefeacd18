"""Whom a question goes among is shown before it is asked, and told after: tiers, patterns, several models, and how the
deployments stand."""

import asyncio
import itertools
import json
import re
import time

import pytest
from click.shell_completion import ShellComplete

from polyvox import Client, config
from polyvox.cli import cli, output
from polyvox.ledger import Ledger, default_place
from polyvox.limits import Limits, RedisLeases

KEYS = "OPENAI_API_KEY", "ANTHROPIC_API_KEY"


@pytest.fixture
def deployed(home, provider):
    """Writes deployments at the provider into the configuration; those of a name with "hosted" are a vendor's."""

    def write(text="", **rows):
        lines = [text] if text else []
        for name, row in rows.items():
            row = {"model": "x"} | row
            if "hosted" not in name:
                row["base_url"] = f"http://127.0.0.1:{provider.server_port}/v1"
            lines += [f"[deployments.{name}]", *(f"{field} = {_toml(value)}" for field, value in row.items())]
        file = home / "polyvox" / "config.toml"
        file.write_text("retries = 0\n" + "\n".join(lines) + "\n")
        file.chmod(0o600)
        return provider

    return write


def _toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + " }"
    return json.dumps(value)


def table(done):
    """The rows of the table of deployments, by their first cell."""
    lines = iter(done.stdout.splitlines())
    header = next(line for line in lines if line.startswith("DEPLOYMENT"))
    starts = [0, *(found.end() for found in re.finditer(" {2,}", header)), len(header) + 99]
    rows = {}
    for line in lines:
        if not line:
            break
        first, *cells = [line[one:other].strip() for one, other in itertools.pairwise(starts)]
        rows[first] = cells
    return rows


# ---- before it is asked -----------------------------------------------------------------------


def test_the_route_shows_who_is_first_who_is_left_out_and_why_and_sends_nothing(run, deployed):
    provider = deployed(
        "[routing]\nstrategy = 'cheapest'",
        dear={"tier": "economy", "price": {"input": 9, "output": 9}},
        cheap={"tier": "economy", "price": {"input": 1, "output": 1}},
        later={"tier": "economy", "priority": 1},
        hosted={"model": "openai/gpt-5.4-mini", "tier": "economy"},
    )
    done = run("explain", "--route", "--tier", "economy", "hi")
    assert done.exit_code == 0 and provider.seen == []
    rows = table(done)
    assert list(rows) == ["cheap", "dear", "later", "hosted"]
    assert [cells[4] for cells in rows.values()] == ["first", "after a failure", "after a failure", "no"]
    assert rows["hosted"][5] == "no API key for OpenAI" and float(rows["cheap"][3]) < float(rows["dear"][3])
    assert "strategy:  cheapest" in done.stdout


def test_the_route_as_json_is_the_record_that_an_answer_carries(run, deployed):
    deployed(one={"tier": "economy"}, two={"tier": "premium"})
    asked = "--json", "--tier", "auto", "Prove by induction that 2 is prime"
    said = json.loads(run("explain", "--route", *asked).stdout)
    assert (said["tier"], said["named"], said["asked"]) == ("standard", "tier premium", ["two"])
    assert said["points"] == sum(int(reason.rpartition(":")[2]) for reason in said["reasons"])
    answered = json.loads(run("ask", *asked).stdout)
    assert answered["decision"] == said and answered["deployment"] == "two"


def test_where_nobody_can_be_asked_the_route_is_shown_and_the_command_fails_as_the_call_would(run, deployed):
    deployed(hosted={"model": "openai/gpt-5.4-mini", "tier": "economy"})
    shown, asked = (run(*words, "--tier", "economy", "hi") for words in (("explain", "--route"), ("ask",)))
    assert table(shown)["hosted"][4:] == ["no", "no API key for OpenAI"]
    assert shown.exit_code == asked.exit_code == output.KEY
    assert shown.stderr == asked.stderr


def test_the_request_to_a_deployment_is_explained_without_its_key_and_with_its_own_defaults(run, deployed):
    deployed(hosted={"model": "openai/gpt-5.4-mini", "tier": "economy", "max_tokens": 7})
    for words in (("-m", "hosted"), ("--tier", "economy"), ("--tier", "auto")):
        done = run("explain", *words, "hi")
        said = json.loads(done.stdout)
        assert said["headers"]["authorization"] == "Bearer $OPENAI_API_KEY"
        assert 7 in said["body"].values()


def test_the_request_that_is_explained_is_the_one_to_whom_the_prompt_would_go(run, deployed):
    deployed(small={"model": "s", "tier": "economy"}, big={"model": "b", "tier": "premium"})
    hard = "Prove by induction, step-by-step, that this class compiles: def f(): return 1 == 2"
    bodies = [json.loads(run("explain", "--tier", "auto", prompt).stdout)["body"] for prompt in ("hi", hard)]
    assert [body["model"] for body in bodies] == ["s", "b"]


def test_a_route_of_a_single_model_says_that_there_is_nothing_to_choose(run, home):
    done = run("explain", "--route", "-m", "demo", "hi")
    assert done.exit_code == output.USAGE and "nothing to choose" in done.stderr and "a tier" in done.stderr
    assert run("explain", "--route", "--curl", "--tier", "local", "hi").exit_code == output.USAGE


# ---- asked ------------------------------------------------------------------------------------


def test_a_tier_goes_on_to_the_next_and_says_who_answered_and_what_each_attempt_cost(run, deployed):
    price = {"input": 1, "output": 1}
    provider = deployed(
        ill={"model": "status-503", "tier": "economy"},
        well={"model": "x", "tier": "economy", "priority": 1, "price": price},
    )
    done = run("--tier", "economy", "-u", "hi")
    assert done.exit_code == 0 and done.stdout == "One two three four five.\n"
    assert "ill: server; next try elsewhere" in done.stderr and "by well" in done.stderr
    assert [body["model"] for body in provider.seen] == ["status-503", "x"]
    said = json.loads(run("ask", "--json", "--tier", "economy", "hi").stdout)
    assert [(made["deployment"], made["outcome"]) for made in said["attempts"]] == [
        ("ill", "server"), ("well", "ok"),
    ]  # fmt: skip
    assert [made["cost"] for made in said["attempts"]] == ["0", "0.000012"] == ["0", said["cost"]["amount"]]
    assert said["decision"]["asked"] == ["ill", "well"]
    assert said["decision"]["steps"] == ["after server at ill: elsewhere"]


def test_of_several_models_each_is_asked_when_those_before_it_fail(run, deployed):
    provider = deployed('[providers.test]\nbase_url = "http://127.0.0.1:1/v1"\nauth = "none"\nlocal = true\n')
    done = run("-m", "test/x", "-m", "demo", "-u", "hi")
    assert done.exit_code == 0 and "[demo] You said: hi" in done.stdout and "by demo" in done.stderr
    assert provider.seen == []


def test_a_pattern_means_the_deployments_of_such_names_and_one_that_nobody_has_is_told(run, deployed):
    provider = deployed(fast_a={"model": "a"}, fast_b={"model": "b"}, slow={"model": "c"})
    assert run("-m", "fast_*", "hi").exit_code == 0
    assert provider.seen[0]["model"] in "ab"
    done = run("-m", "quick*", "hi")
    assert done.exit_code == output.CONFIG and "no deployment matches 'quick*'" in done.stderr


def test_the_default_deployment_answers_where_nobody_says_which(run, deployed):
    deployed(one={"model": "a"}, two={"model": "b", "default": True})
    assert json.loads(run("ask", "--json", "hi").stdout)["deployment"] == "two"


@pytest.mark.parametrize(
    "words",
    ["-m demo --tier local", "--tier local --key @env:K", "-m a -m b --key @env:K"],
)
def test_what_does_not_go_together_is_told(run, home, words):
    assert run("ask", *words.split(), "hi", env={"K": "sk-0123456789abcdef0123"}).exit_code == output.USAGE


def test_without_deployments_a_tier_means_the_providers_that_have_a_key(run, home):
    done = run("explain", "--route", "--json", "--tier", "premium", "hi", env=dict.fromkeys(KEYS, "sk-none-0123456789"))
    names = [one["name"] for one in json.loads(done.stdout)["candidates"]]
    assert names == ["openai-premium", "anthropic-premium"]
    assert run("keys", "set", "anthropic", input="sk-kept-0123456789abcdef").exit_code == 0
    done = run("explain", "--route", "--json", "--tier", "premium", "hi")
    assert [one["name"] for one in json.loads(done.stdout)["candidates"]] == ["anthropic-premium"]


def test_a_tier_without_deployments_is_asked_with_the_key_that_was_found(run, deployed):
    provider = deployed()
    url = f"http://127.0.0.1:{provider.server_port}/v1"
    deployed(f"[providers.openai]\nbase_url = '{url}'\nhosts = ['127.0.0.1']")
    assert run("keys", "set", "openai", input="sk-kept-0123456789abcdef").exit_code == 0
    assert run("--tier", "economy", "hi").exit_code == 0
    assert provider.keys == ["Bearer sk-kept-0123456789abcdef"]


def test_without_deployments_and_keys_a_tier_says_what_to_do_and_local_means_this_machine(run, home):
    done = run("--tier", "standard", "hi")
    assert done.exit_code == output.KEY and "keys set" in done.stderr
    done = run("explain", "--route", "--json", "--tier", "local", "hi")
    assert [one["name"] for one in json.loads(done.stdout)["candidates"]] == ["ollama-local"]


def test_a_conversation_keeps_to_its_tier_and_may_go_to_a_deployment(run, deployed):
    provider = deployed(small={"model": "s", "tier": "economy"}, big={"model": "b"})
    done = run("chat", "--tier", "economy", input="/model\none\n/model b*\ntwo\n/model small\nthree\n")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == ["model: tier economy", "model: b*", "model: small"]
    assert [body["model"] for body in provider.seen] == ["s", "b", "s"]


def test_deployments_aliases_and_tiers_are_completed(deployed):
    deployed("[aliases]\nmine = 'demo'", night={"tier": "nightly", "aliases": ["nocturne"]}, day={})
    shell = ShellComplete(cli, {}, "polyvox", "_POLYVOX_COMPLETE")

    def completed(option, begun):
        return [item.value for item in shell.get_completions(["ask", option], begun)]

    assert completed("-m", "n") == ["night", "nocturne"]
    assert completed("-m", "d") == ["day", "demo"]
    assert completed("-m", "@") == ["@mine"]
    assert "anthropic/claude-haiku-4-5" in completed("-m", "anthropic/claude-haiku")
    assert completed("--tier", "") == ["economy", "standard", "premium", "local", "auto", "nightly"]


def test_a_broken_configuration_completes_nothing_and_says_nothing(home, capfd):
    (home / "polyvox" / "config.toml").write_text("timeout = 'soon'\n")
    assert ShellComplete(cli, {}, "polyvox", "_POLYVOX_COMPLETE").get_completions(["ask", "-m"], "d") == []
    assert capfd.readouterr() == ("", "")


# ---- how they stand ---------------------------------------------------------------------------


def stands(run):
    done = run("status", "--json")
    return {row["name"]: row for row in json.loads(done.stdout)["deployments"]}


def test_status_says_of_each_deployment_what_is_configured_and_whether_its_key_is_there(run, deployed):
    deployed(
        here={"tier": "economy", "weight": 3, "limits": {"concurrency": 4, "tokens_per_minute": 9000}, "default": True},
        hosted={"model": "openai/gpt-5.4-mini", "priority": 2},
        hosted_own={"model": "openai/gpt-5.4-mini", "api_key_env": "TEAM_KEY"},
        hosted_lost={"model": "nobody/none"},
        spare={"active": False},
    )
    done = run("status", env={"TEAM_KEY": "sk-team-0123456789abcdef"})
    rows = table(done)
    assert rows["here (default)"][:7] == [
        "ready", "x", "economy", "0", "3", "not needed", "4 at a time, 9000 tokens/min",
    ]  # fmt: skip
    assert (rows["hosted"][0], rows["hosted"][5]) == ("no key", "missing")
    assert (rows["hosted_own"][0], rows["hosted_own"][5]) == ("ready", "env TEAM_KEY")
    assert rows["hosted_lost"][0] == "unknown" and "nobody" in done.stderr
    assert rows["spare"][0] == "off"
    assert "sk-team" not in done.output
    found = stands(run)
    assert (found["here"]["limits"], found["here"]["in_use"]) == ({"concurrency": 4, "tokens_per_minute": 9000}, None)
    assert (found["here"]["calls"], found["here"]["breaker"]) == (None, None), "there is no ledger to tell"


def test_status_without_deployments_says_nothing_of_any(run, home):
    assert "deployments" not in json.loads(run("status", "--json").stdout)
    assert "DEPLOYMENT" not in run("status").stdout


def test_status_tells_attempts_failures_and_speed_of_the_last_hour_where_they_were_made(run, deployed):
    deployed(
        "[ledger]\nenabled = true",
        ill={"model": "status-503", "tier": "economy"},
        well={"model": "x", "tier": "economy", "priority": 1},
        idle={},
    )
    for _ in range(2):
        assert run("--tier", "economy", "hi").exit_code == 0
    found = stands(run)
    told = {name: (row["calls"], row["errors"], row["last_error"], row["state"]) for name, row in found.items()}
    assert told == {
        "ill": (2, 2, "server", "ready"), "well": (2, 0, None, "ready"), "idle": (0, 0, None, "ready"),
    }  # fmt: skip
    assert found["ill"]["p50"] is None and 0 < found["well"]["p50"] < 60
    assert {row["breaker"] for row in found.values()} == {"closed"}


def test_a_deployment_that_failed_again_and_again_is_failing_until_it_is_well(run, deployed):
    deployed("[ledger]\nenabled = true", ill={"model": "status-500", "tier": "economy"}, well={"model": "x"})
    for _ in range(5):
        assert run("-m", "ill", "hi").exit_code == output.PROVIDER
    row = stands(run)["ill"]
    assert (row["state"], row["calls"], row["errors"]) == ("failing", 5, 5) and row["breaker"] != "closed"
    assert "server" in row["detail"]


def test_what_was_asked_more_than_an_hour_ago_is_not_told(run, deployed):
    deployed("[ledger]\nenabled = true", well={})
    settings, hours = config.load(), 0

    def wall():
        return time.time() - hours * 3600

    for hours in (2, 0):
        with Ledger(default_place(), wall=wall) as ledger, Client("well", settings=settings, ledger=ledger) as client:
            client.ask("hi")
    assert stands(run)["well"]["calls"] == 1


def test_status_shows_what_all_processes_use_of_limits_that_are_counted_in_redis(run, deployed, private_redis):
    deployed(
        f"[routing]\nlimits = '{private_redis.url}'",
        shared={"limits": {"concurrency": 4, "requests_per_minute": 10}},
        other={"limits": {"concurrency": 2}},
    )

    async def hold():
        leases = RedisLeases(private_redis.url)
        held = [await leases.take("shared", Limits(concurrency=4, requests_per_minute=10)) for _ in range(3)]
        await leases.close()
        return held

    asyncio.run(hold())
    rows = table(run("status"))
    assert rows["shared"][6] == "3 of 4 at a time, 3 of 10 requests/min" and rows["other"][6] == "0 of 2 at a time"


def test_a_redis_server_that_is_away_leaves_limits_without_what_is_used(run, deployed):
    deployed("[routing]\nlimits = 'redis://127.0.0.1:1'", shared={"limits": {"concurrency": 4}})
    assert table(run("status"))["shared"][6] == "4 at a time"
