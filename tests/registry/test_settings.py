"""Deployments of the configuration: from every source, with their origin, and followed as they change."""

import json
import logging
import os
import subprocess
import sys
import tomllib

import pytest

from polyvox import config
from polyvox.config import configure, load
from polyvox.config.edit import set_value, unset_value
from polyvox.errors import ConfigError
from polyvox.registry import Registry, SettingsRegistry

KEY = "canary-8h3j6k1l4z7x"
FAST = '[deployments.fast]\nmodel = "demo"\ntier = "economy"\nlimits = { concurrency = 4 }\n'


@pytest.fixture
def file(home):
    return home / "config.toml"


def put(file, text):
    new = file.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(file)


def names(registry):
    return [entry.name for entry in registry.list_active()]


def test_a_changed_configuration_file_acts_on_the_next_call(file):
    put(file, FAST)
    registry = SettingsRegistry()
    assert isinstance(registry, Registry) and registry.get_by_name("fast").limits.concurrency == 4
    assert registry.get_by_name("fast").origin == f"{file}:2"
    for number in range(20):
        put(file, FAST.replace("fast", f"fast{number}"))
        assert names(registry) == [f"fast{number}"]


def test_another_change_of_the_configuration_makes_nothing_anew(file):
    put(file, FAST)
    registry = SettingsRegistry()
    version = registry.version
    put(file, FAST + "[aliases]\nx = 'demo'\n")
    assert registry.version is version
    configure(timeout=5)
    assert registry.version is version


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (FAST + 'weight = "heavy"\n', ":5: deployments.fast.weight: must be a number"),
        (FAST + "wieght = 1\n", ":5: deployments.fast.wieght: is not a setting of a deployment; did you mean weight?"),
        (FAST + "limits.rpm = 1\n", ":5: is not valid TOML"),
        (FAST + '[deployments.b]\ntier = "x"\n', ":6: deployments.b: needs a model"),
        (FAST + '[deployments.b]\nmodel = "openai/gpt-5.4"\ntier = "local"\n', ":6: deployments.b.tier: is local, but"),
        (FAST + '[deployments.b]\nmodel = "demo"\naliases = "fast"\n', ":6: deployments.b: 'fast' means 'fast' too"),
        ("timeout = 0\n", ":1: timeout: must be more than 0"),
    ],
)
def test_a_broken_configuration_changes_nothing_and_says_file_and_line_once(file, text, problem, caplog):
    put(file, FAST)
    registry = SettingsRegistry()
    version = registry.version
    with caplog.at_level(logging.WARNING, "polyvox"):
        put(file, text)
        for _ in range(3):
            assert registry.version is version
            assert registry.problem.startswith(f"{file}{problem}")
    assert len(caplog.records) == 1 and str(file) in caplog.text
    put(file, FAST.replace("fast", "b"))
    assert names(registry) == ["b"] and registry.problem is None
    put(file, text)
    assert registry.problem
    put(file, FAST.replace("fast", "b"))
    assert registry.problem is None and names(registry) == ["b"]


def test_a_configuration_that_is_broken_from_the_first_is_refused(file):
    put(file, FAST + '[deployments.b]\nmodel = "openai/gpt-5.4"\ntier = "local"\n')
    with pytest.raises(ConfigError) as caught:
        SettingsRegistry()
    assert caught.value.problems[0].startswith(f"{file}:6: deployments.b.tier: is local")


def test_each_setting_comes_from_the_highest_source_that_has_it(file):
    put(file, FAST + 'description = "of the file"\n')
    settings = load(
        arguments={"deployments": {"fast": {"tier": "premium"}, "own": {"model": "demo"}}}, files=[file], env={}
    )
    assert settings.origin("deployments.fast.tier") == "argument"
    assert settings.origin("deployments.fast.limits.concurrency") == f"{file}:4"
    registry = SettingsRegistry(settings)
    fast = registry.get_by_name("fast")
    assert (fast.tier, fast.limits.concurrency, fast.description) == ("premium", 4, "of the file")
    assert sorted(names(registry)) == ["fast", "own"] and registry.get_by_name("own").origin == "argument"


def test_what_was_configured_in_parts_is_one_deployment():
    configure(deployments={"a": {"model": "demo", "limits": {"concurrency": 1}}})
    configure(deployments={"a": {"limits": {"tokens_per_minute": 9}}, "b": {"model": "demo"}})
    limits = SettingsRegistry().get_by_name("a").limits
    assert (limits.concurrency, limits.tokens_per_minute) == (1, 9)


def test_a_key_in_the_configuration_is_never_shown(file):
    put(file, FAST + f'api_key = "{KEY}"\nprice = {{ input = 0.5 }}\n')
    settings = load(files=[file], env={})
    shown = settings.shown()
    assert shown["deployments.fast.api_key"] == "***" and KEY not in repr(settings) + str(shown)
    assert shown["deployments.fast.limits.concurrency"] == 4
    assert str(shown["deployments.fast.price.input"]) == "0.5"
    done = subprocess.run(
        [sys.executable, "-m", "polyvox", "config", "list", "--origin"],
        capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "deployments.fast.tier" in done.stdout and f"{file}:3" in done.stdout and KEY not in done.stdout


def test_a_key_in_a_file_that_others_can_read_is_warned_of(file, caplog):
    put(file, FAST + f'api_key = "{KEY}"\n')
    file.chmod(0o644)
    load(files=[file], env={})
    assert "chmod 600" in caplog.text and KEY not in caplog.text


@pytest.mark.parametrize(
    ("place", "value", "is_now"),
    [
        ("deployments.fast.model", "openai/gpt-5.4", "openai/gpt-5.4"),
        ("deployments.fast.weight", "2", 2),
        ("deployments.fast.active", "false", False),
        ("deployments.fast.aliases", "a, b", ["a", "b"]),
        ("deployments.fast.limits.tokens_per_minute", "90000", 90000),
        ("deployments.fast.price.input", "0.25", "0.25"),
        ("deployments.of.two.model", "demo", "demo"),
        ("deployments.of.two.limits.concurrency", "3", 3),
        ("deployments.fast.api_key_env", "HOUSE_KEY", "HOUSE_KEY"),
    ],
)
def test_a_setting_of_a_deployment_is_written_and_taken_out_again(file, place, value, is_now):
    put(file, FAST + "# a word\n")
    set_value(file, place, value)
    found = tomllib.loads(file.read_text())["deployments"]["of.two" if ".of.two." in place else "fast"]
    for part in place.removeprefix("deployments.fast.").removeprefix("deployments.of.two.").split("."):
        found = found[part]
    assert found == is_now and "# a word" in file.read_text()
    if "of.two.limits" not in place:  # that one has no model
        load(files=[file], env={})
    assert unset_value(file, place) and not unset_value(file, place)
    assert "# a word" in file.read_text()


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        ("deployments", "x", "is a table; name a setting in it"),
        ("deployments.fast", "x", "is a table; name a setting in it"),
        ("deployments.fast.limits", "x", "is a table; name a setting in it"),
        ("deployments.fast.price", "x", "is a table; name a setting in it"),
        ("deployments.fast.weight", "0", "must be a number above 0"),
        ("deployments.fast.limits.concurency", "1", "did you mean concurrency?"),
        ("deployments.fast.api_key", KEY, "is not written to a configuration file"),
    ],
)
def test_what_cannot_be_a_setting_is_not_written(file, place, value, what):
    put(file, FAST)
    with pytest.raises(ConfigError) as caught:
        set_value(file, place, value)
    assert what in str(caught.value) and KEY not in str(caught.value)
    assert file.read_text() == FAST
    if "api_key" in place:
        assert "deployments.fast.api_key_env" in caught.value.hint


def test_the_problem_of_the_configuration_is_told_until_it_is_mended(file, monkeypatch):
    put(file, "timeout = 5\n")
    assert config.current().timeout == 5 and config.problem() is None
    put(file, "timeout = 0\n")
    assert config.current(at_once=True).timeout == 5
    assert config.problem().startswith(f"{file}:1: timeout:")
    put(file, "timeout = 6\n")
    assert config.current(at_once=True).timeout == 6 and config.problem() is None


def test_json_and_arguments_say_the_same(home, tmp_path):
    table = {
        "model": "demo",
        "price": {"input": 1, "cases": [{"input": 2, "above": 100}]},
        "limits": {"concurrency": 2},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"deployments": {"a": table}}))
    one = SettingsRegistry(load(files=[path], env={})).get_by_name("a")
    two = SettingsRegistry(load(arguments={"deployments": {"a": table}}, files=(), env={})).get_by_name("a")
    assert one.describe() | {"origin": ""} == two.describe() | {"origin": ""}
