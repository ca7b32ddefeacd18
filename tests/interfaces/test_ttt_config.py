"""TTT's configuration: Program > Env > Files > Defaults, with sources of one's own between them, each value with where
it came from, and every change counting from the next call on."""

import asyncio
import json
import logging
import os
import time
from typing import Any

import pytest

import polyvox
from polyvox.compat import ttt
from polyvox.compat.ttt import Config, ConfigLoader, add_loader, configure, get_config
from polyvox.compat.ttt import config as settings
from polyvox.config import sources
from polyvox.errors import CallTimeoutError
from polyvox.testing import Simulator
from tests.interfaces.rows import rows
from tests.interfaces.test_ttt_backends import at


@pytest.fixture(autouse=True)
def fresh():
    """Nothing is configured, and nothing is left behind."""
    settings.reset_config()
    yield
    settings.reset_config()


class CustomConfigLoader(ConfigLoader):
    """As the document has it, from a table."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.asked = 0

    def load(self) -> dict[str, Any]:
        self.asked += 1
        if isinstance(self.values, Exception):
            raise self.values
        return self.values


@rows("S4-123", "S4-124")
def test_a_loader_has_one_member_to_write(row):
    assert ConfigLoader.__abstractmethods__ == {"load"}
    with pytest.raises(TypeError, match="load"):
        ConfigLoader()
    assert CustomConfigLoader({"timeout": 5}).load() == {"timeout": 5}
    assert Config(loaders=[CustomConfigLoader({"timeout": 5})]).get("timeout") == 5


@rows("S4-073", "S4-107", "S4-122", "S4-069", "S4-070", "S4-071", "S4-072")
def test_the_sources_are_peeled_off_one_by_one(place, row, monkeypatch):
    file = place / "home" / "polyvox" / "ttt.yaml"
    file.write_text("models:\n  default: in-file\n")
    monkeypatch.setenv("AI_DEFAULT_MODEL", "in-env")
    configure(models={"default": "in-program"})
    own = CustomConfigLoader({"models": {"default": "in-loader"}})

    def told():
        config = get_config()
        return config.get("models.default"), config.origin("models.default")

    assert told() == ("in-program", "program")
    configure(models={"default": None})
    assert told() == ("in-env", "env AI_DEFAULT_MODEL")
    add_loader(own, priority=150)
    assert told() == ("in-env", "env AI_DEFAULT_MODEL")
    monkeypatch.delenv("AI_DEFAULT_MODEL")
    assert told() == ("in-loader", "loader CustomConfigLoader"), "between the environment and the files"
    settings.remove_loader(own)
    assert told() == ("in-file", f"{file}:2")
    add_loader(own)
    assert told() == ("in-file", f"{file}:2"), "without a priority it stands above the defaults alone"
    file.unlink()
    time.sleep(0.3)  # the file is looked at now and then
    assert told()[0] == "in-loader"
    settings.remove_loader(own)
    assert told() == (None, None)
    assert (get_config().get("backends.default"), get_config().origin("backends.default")) == ("auto", "default")


@rows("S4-122")
def test_a_loader_that_outranks_the_program_and_one_that_fails(place, row):
    configure(timeout=5)
    add_loader(CustomConfigLoader({"timeout": 7}), priority=settings.PRIORITIES["program"] + 1)
    assert get_config().get("timeout") == 7
    for wrong in (OSError("no place, sk-test-0123456789abcdefghij"), 5, {"timeout": "soon"}, {"tiemout": 5}):
        with pytest.raises(ttt.ConfigurationError, match="CustomConfigLoader") as caught:
            add_loader(CustomConfigLoader(wrong))
        assert get_config().get("timeout") == 7 and "0123456789" not in str(caught.value)
    with pytest.raises(ttt.ConfigurationError):
        add_loader({"timeout": 5})


@rows("S4-074")
def test_what_is_said_of_a_backend_counts_before_what_is_said_of_all(world, row):
    with Simulator(latency=4) as simulator:
        at(simulator, retries=0)
        configure(timeout=30, backends={"local": {"timeout": 0.3}})
        began = time.monotonic()
        with pytest.raises(CallTimeoutError, match=r"0\.3 s"):
            ttt.ask("hi", model="llama2")
        assert time.monotonic() - began < 3.5
        assert ttt.ask("hi", model="gpt-4").backend == "cloud"
    assert get_config().of_backend("local")["timeout"] == 0.3 and get_config().of_backend("cloud")["timeout"] == 30


@rows("S4-075", "S4-135")
def test_a_change_by_the_program_and_an_edited_file_count_from_the_next_call(world, row):
    file = world_file()
    file.write_text('[models]\ndefault = "gpt-4"\n')
    assert ttt.ask("hi").model == "gpt-4"
    file.write_text('[models]\ndefault = "gpt-5.4-mini"\n')
    time.sleep(0.3)  # the file is looked at now and then
    assert ttt.ask("hi").model == "gpt-5.4-mini"
    configure({"models.default": "llama2"}, max_tokens=7)
    assert ttt.ask("hi").backend == "local"
    assert json.loads(world.requests[-1].body)["options"]["num_predict"] == 7
    with pytest.raises(ttt.ConfigurationError, match="default"):
        configure(models={"defalut": "x"})
    assert ttt.ask("hi").model == "llama2", "what cannot be changes nothing"


def world_file():
    return polyvox.keys.config_dir() / "ttt.toml"


@rows("S4-134")
def test_neither_a_file_nor_a_loader_is_read_with_every_call(world, row, monkeypatch):
    world_file().write_text('[models]\ndefault = "gpt-4"\n')
    own = CustomConfigLoader({"timeout": 30})
    add_loader(own)
    read = []
    real = sources.read
    monkeypatch.setattr(sources, "read", lambda path: read.append(path) or real(path))
    held = get_config()
    for _ in range(5):
        ttt.ask("hi")
    assert get_config() is held and own.asked == 1 and len(read) <= 1
    assert settings.reload_config().get("timeout") == 30 and own.asked == 2


def test_an_edit_that_cannot_be_used_is_told_once_and_what_held_before_goes_on(world, caplog):
    file = world_file()
    file.write_text('[models]\ndefault = "gpt-4"\n')
    held = get_config()
    file.write_text("[models]\ndefault = \n")
    time.sleep(0.3)  # the file is looked at now and then
    for _ in range(2):
        assert ttt.ask("hi").model == "gpt-4" and get_config() is held
        time.sleep(0.3)
    told = [record.getMessage() for record in caplog.records if record.name == "polyvox.config"]
    assert len(told) == 1 and f"{file}:2" in told[0] and "not used" in told[0]
    with pytest.raises(ttt.ConfigurationError, match=r"ttt\.toml:2"):
        settings.reload_config()
    assert get_config() is held, "who asks for it is told, and nothing changes"
    file.write_text('[models]\ndefault = "llama2"\n')
    time.sleep(0.3)
    assert ttt.ask("hi").backend == "local"


def test_a_variable_that_cannot_be_used_fails_every_call_until_it_is_mended(world, monkeypatch):
    ttt.ask("hi", model="gpt-4")
    monkeypatch.setenv("AI_TIMEOUT", "soon")
    for _ in range(3):
        with pytest.raises(ttt.ConfigurationError, match="env AI_TIMEOUT"):
            ttt.ask("hi", model="gpt-4")
    monkeypatch.setenv("AI_TIMEOUT", "20")
    assert ttt.ask("hi", model="gpt-4") and get_config().get("timeout") == 20


def test_a_source_that_cannot_be_added_leaves_what_held(place):
    configure(timeout=5)
    held = get_config()
    for wrong in (lambda: configure(timeout="soon"), lambda: add_loader(CustomConfigLoader(5))):
        with pytest.raises(ttt.ConfigurationError):
            wrong()
        assert get_config() is held


def test_none_takes_back_a_value_or_a_whole_table(place):
    configure(timeout=5, backends={"local": {"timeout": 1, "retries": 0}, "cloud": {"timeout": 2}})
    configure(backends={"local": {"timeout": None}})
    assert get_config().of_backend("local") == {"timeout": 5, "retries": 0}
    configure(backends={"local": None})
    assert get_config().of_backend("local") == {"timeout": 5} and get_config().get("backends.cloud.timeout") == 2
    configure({"backends": None}, timeout=None)
    assert get_config().of_backend("cloud") == {} and get_config().get("backends.default") == "auto"


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"backends": 5}, "backends: must be a table"), ({"backends": {"local": "x"}}, "backends.local: must be a"),
        ({"models": "gpt-4"}, "models: must be a table"), ({"models": {"aliases": ["a"]}}, "models.aliases: must be a"),
        ({"backends": {"defalut": "local"}}, "did you mean backends.default"), ({5: 1}, "5: is not a setting"),
    ],
    ids=str,
)  # fmt: skip
def test_a_table_that_is_none_is_told_as_that(place, values, what):
    with pytest.raises(ttt.ConfigurationError, match=what) as caught:
        configure(values)
    assert caught.value.hint


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
@rows("S4-142")
def test_a_file_with_a_key_that_others_can_read_is_told(place, row, caplog):
    file = place / "home" / "polyvox" / "ttt.toml"
    file.write_text('[backends.cloud]\napi_key = "sk-canary-0123456789abcdefghijk"\n')
    file.chmod(0o644)
    get_config()
    assert f"{file} holds a key" in caplog.text and "chmod 600" in caplog.text and "canary" not in caplog.text
    caplog.clear()
    file.chmod(0o600)
    settings.reload_config()
    assert caplog.text == ""


def test_a_file_that_is_none_and_one_of_two_are_told(place, caplog):
    folder = place / "home" / "polyvox"
    (folder / "ttt.toml").symlink_to(folder / "nowhere.toml")
    with pytest.raises(ttt.ConfigurationError, match=r"ttt\.toml: there is no such file"):
        get_config()
    (folder / "ttt.toml").unlink()
    (folder / "ttt.toml").write_text("timeout = 5\n")
    (folder / "ttt.yaml").write_text("timeout: 6\n")
    assert get_config().get("timeout") == 5 and f"{folder / 'ttt.yaml'} is not" in caplog.text
    (folder / "ttt.toml").unlink()
    assert settings.reload_config().get("timeout") == 6


@pytest.mark.parametrize(
    ("variable", "value", "model"),
    [("AI_DEFAULT_BACKEND", "clowd", None), ("OLLAMA_BASE_URL", "http://192.0.2.1", "llama2")],
)
def test_a_choice_that_cannot_be_names_where_it_was_made(world, monkeypatch, variable, value, model):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ttt.ConfigurationError, match=f"env {variable}") as caught:
        ttt.ask("hi", model=model)
    assert caught.value.hint and world.counts.requests == 0


def test_a_fallback_that_nobody_is_names_where_it_was_said(world):
    configure(backends={"enable_fallbacks": True, "fallback_order": ["local", "clowd"]})
    with pytest.raises(ttt.ConfigurationError, match=r"backends\.fallback_order \(program\).*'clowd'"):
        ttt.ask("hi", model="gpt-4")
    assert world.counts.requests == 0


def test_a_secret_of_a_backend_of_the_users_own_is_not_shown(place):
    config = Config({"backends": {"mine": {"token": "hunter2", "region": "north"}}})
    assert config.of_backend("mine")["token"] == "hunter2"
    assert "hunter2" not in f"{config!r} {config.shown()}" and config.shown()["backends.mine.region"] == "north"


def test_a_file_is_also_the_one_a_variable_names(place, monkeypatch):
    (place / "mine.json").write_text('{"backends": {"local": {"timeout": 4}}, "models": {"aliases": {"a.b": "demo"}}}')
    monkeypatch.setenv("AI_CONFIG_FILE", str(place / "mine.json"))
    assert get_config().of_backend("local") == {"timeout": 4}
    assert get_config().get("models.aliases.a.b") == "demo"
    assert get_config().origin("models.aliases.a.b") == f"{place / 'mine.json'}:1"
    assert ttt.ask("hi", model="@a.b").metadata["provider"] == "demo"
    monkeypatch.setenv("AI_CONFIG_FILE", str(place / "none.json"))
    with pytest.raises(ttt.ConfigurationError, match="no such file"):
        get_config()


def test_a_key_in_the_configuration_is_not_shown(world, caplog):
    caplog.set_level(logging.DEBUG)
    canary = "sk-canary-0123456789abcdefghijk"
    config = Config({"backends": {"cloud": {"api_key": canary}}})
    backend = ttt.Backend.create("cloud", config)
    assert asyncio.run(backend.ask("hi", model="gpt-4")).backend == "cloud"
    shown = f"{config!r} {config.shown()} {backend!r} {backend.said} {caplog.text}"
    assert canary not in shown and config.get("backends.cloud.api_key").reveal() == canary


@rows("S4-136")
def test_answers_are_kept_only_where_that_is_said(world, row):
    for _ in range(2):
        ttt.ask("hi", model="gpt-4")
    assert world.counts.requests == 2
    configure(backends={"cloud": {"cache": True}})
    both = [ttt.ask("hi", model="gpt-4") for _ in range(2)]
    assert world.counts.requests == 3 and both[0] == both[1]
