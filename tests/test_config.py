"""Every value comes from the highest source that has it and says which; every mistake is reported, with its line."""

import json
import logging
import os
import stat
import tomllib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox import catalog, config
from polyvox.config import configure, current, load, reset
from polyvox.config.edit import set_value, unset_value
from polyvox.errors import ConfigError, MissingExtraError
from polyvox.keys import Secret, find_key

CANARY = "canary-7f3k9q2m5x8w1z4v"


@pytest.fixture
def file(tmp_path):
    def write(text, name="config.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A process with a home of its own and nothing configured; the clock can be moved."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith("POLYVOX_") or name.endswith("_BASE_URL") or name == "OLLAMA_HOST":
            monkeypatch.delenv(name)
    monkeypatch.setenv("POLYVOX_HOME", str(folder))
    reset()
    yield folder
    reset()


def problems(**sources):
    with pytest.raises(ConfigError) as caught:
        load(**{"env": {}, "files": (), **sources})
    return caught.value.problems


# ---- precedence -------------------------------------------------------------------------------

SAMPLES = {
    "model": ("a", "b", "c", "d", "e", "f"),
    "system": ("a", "b", "c", "d", "e", "f"),
    "retries": ("1", "3", "4", "5", "6", "7"),
    "max_tokens": ("1", "2", "3", "4", "5", "6"),
    "pool_size": ("1", "2", "3", "4", "5", "6"),
    "log_level": ("DEBUG", "INFO", "ERROR", "CRITICAL", "DEBUG", "INFO"),
    "strict": ("yes", "no", "yes", "no", "yes", "no"),
    "allow_http": ("1", "0", "1", "0", "1", "0"),
    "proxy": tuple(f"http://p{number}:1" for number in range(6)),
    "ca_bundle": tuple(f"/ca/{number}" for number in range(6)),
}
SECONDS = ("11", "12", "13", "14", "15", "16")


class Fixed:
    """A loader of a user's own."""

    def __init__(self, data):
        self.data = data

    def load(self):
        return self.data


@pytest.mark.parametrize("name", config.FIELDS)
def test_the_sources_of_every_setting_peeled_off_one_by_one(name, file):
    low, toml, dotenv, env, row, top = SAMPLES.get(name, SECONDS)
    variable = f"POLYVOX_{name.upper()}"
    path, secret = file(f"{name} = {json.dumps(toml)}\n"), file(f"# note\n{variable}={dotenv}\n", ".env")
    sources = {
        "arguments": ({name: top}, "argument", top),
        "row": ({name: row}, "row", row),
        "env": ({variable: env}, f"env {variable}", env),
        "dotenv": (secret, f"{secret}:2", dotenv),
        "files": ([path], f"{path}:1", toml),
        "loaders": ([Fixed({name: low})], "loader Fixed", low),
    }
    given_now = {key: source for key, (source, _, _) in sources.items()}
    for key, (_, origin, text) in sources.items():
        found = load(**{"env": {}, "files": (), **given_now})
        assert found.origin(name) == origin
        assert getattr(found, name) == config.FIELDS[name].parse(text)
        del given_now[key]
    bare = load(env={}, files=())
    assert bare.origin(name) == "default"
    assert getattr(bare, name) == getattr(config.Settings(), name)


def test_tables_are_merged_key_by_key_from_all_sources(file):
    path = file('[aliases]\na = "m1"\nb = "m2"\n[providers.openai]\nmodel = "x"\nheaders = { one = "1", two = "2" }\n')
    found = load(
        files=[path],
        env={"OPENAI_BASE_URL": "https://eu.api.openai.com/v1"},
        arguments={"aliases": {"@b": "m3"}, "providers": {"openai": {"headers": {"Two": "22"}}}},
    )
    assert found.aliases == {"a": "m1", "b": "m3"}
    assert found.providers["openai"] == {
        "model": "x",
        "headers": {"one": "1", "two": "22"},
        "base_url": "https://eu.api.openai.com/v1",
    }
    assert found.origin("aliases.b") == "argument"
    assert found.origin("providers.openai.model") == f"{path}:5"
    assert found.origin("providers.openai.headers.one") == f"{path}:6"
    assert found.origin("providers.openai.base_url") == "env OPENAI_BASE_URL"


def test_of_two_files_the_later_wins(file):
    first, second = file('model = "a"\nretries = 1\n', "a.toml"), file('model = "b"\n', "b.toml")
    found = load(files=[first, second], env={})
    assert (found.model, found.retries) == ("b", 1)


def test_none_and_empty_variables_are_not_given():
    found = load(
        arguments={"model": None}, row={"model": None}, env={"POLYVOX_MODEL": "", "OLLAMA_HOST": " "}, files=()
    )
    assert found.model is None and found.origin("model") == "default" and found.providers == {}


def test_nothing_at_all_gives_the_defaults(home):
    assert load(env={"POLYVOX_HOME": str(home)}) == load(env={}, files=())


def test_a_limit_of_none_is_no_limit():
    assert load(env={"POLYVOX_TIMEOUT": "none"}, files=()).timeout is None
    assert load(arguments={"idle_timeout": float("inf")}, env={}, files=()).idle_timeout is None


def test_the_address_of_a_local_server_is_completed():
    found = load(env={"OLLAMA_HOST": "0.0.0.0"}, files=())
    assert found.providers["ollama"]["base_url"] == "http://127.0.0.1:11434"
    assert found.origin("providers.ollama.base_url") == "env OLLAMA_HOST"


# ---- formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.toml", '\ntimeout = 5\n[providers.openai]\nmodel = "m"\n'),
        ("config.yaml", "\ntimeout: 5\nproviders:\n  openai: {model: m}\n"),
        ("config.yml", "# note\ntimeout: 5\nproviders:\n  openai:\n    model: m\n"),
        ("config.json", '{\n"timeout": 5,\n"providers": {"openai":\n {"model": "m"}}}'),
    ],
)
def test_every_format_is_read_and_lines_are_told(file, name, text):
    path = file(text, name)
    found = load(files=[path], env={})
    assert (found.timeout, found.providers) == (5.0, {"openai": {"model": "m"}})
    assert found.origin("timeout") == f"{path}:2"
    line = int(found.origin("providers.openai.model").rpartition(":")[2])
    assert "model" in text.splitlines()[line - 1]


@pytest.mark.parametrize("name", ["config.toml", "config.yaml", "config.yml", "config.json"])
def test_the_users_own_file_is_found(home, name):
    text = {"toml": 'model = "mine"', "json": '{"model": "mine"}'}.get(name.rpartition(".")[2], "model: mine")
    (home / name).write_text(text)
    assert load(env={"POLYVOX_HOME": str(home)}).model == "mine"


def test_yaml_without_its_package_says_what_to_install(file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(MissingExtraError) as caught:
        load(files=[file("a: 1", "config.yaml")], env={})
    assert caught.value.hint == "pip install 'polyvox[yaml]'"


@pytest.mark.parametrize(
    ("name", "text", "line", "what"),
    [
        ("c.toml", 'model = "a"\ntimeout = = 3\n', 2, "not valid TOML"),
        ("c.toml", 'model = "a"\nmodel = "b"\n', 2, "not valid TOML"),
        ("c.yaml", "model: a\n  bad: [\n", 2, "not valid YAML"),
        ("c.yaml", "- a\n- b\n", 1, "must be a table"),
        ("c.yaml", "!!python/object/apply:os.getcwd []\n", 1, "not valid YAML"),
        ("c.json", '{"model": "a",\n "x" }', 2, "not valid JSON"),
        ("c.json", "[" * 100_000, 1, "not valid JSON"),
        ("c.json", "[]", 1, "must be a table"),
        ("c.ini", "", 1, "the ending must be one of"),
    ],
)
def test_a_broken_file_is_reported_with_its_line(file, name, text, line, what):
    path = file(text, name)
    (problem,) = problems(files=[path])
    assert problem.startswith(f"{path}:{line}: ") and what in problem


def test_files_that_cannot_be_read_are_reported(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b'a = 1\nmodel = "\xe9"\n')
    (tmp_path / "large.toml").write_bytes(b"#" * 1_100_000)
    names = ["missing.toml", "latin.toml", "large.toml"]
    missing, latin, large = problems(files=[tmp_path / name for name in names])
    assert "there is no such file" in missing
    assert latin == f"{tmp_path / 'latin.toml'}:2: is not UTF-8"
    assert "larger than" in large


def test_a_dotenv_file_is_read_only_when_named_and_as_shells_write_it(file, tmp_path, monkeypatch):
    text = """
    # comment
    export POLYVOX_MODEL='single # quoted'
    POLYVOX_SYSTEM="two\\nlines \\"quoted\\"" # said
    POLYVOX_TIMEOUT = 7 # seconds
    POLYVOX_PROXY=http://p#1
    OTHER=$HOME
    """
    path = file(text, ".env")
    monkeypatch.chdir(tmp_path)
    assert load(env={}, files=()).model is None
    found = load(dotenv=path, env={}, files=())
    assert found.model == "single # quoted"
    assert found.system == 'two\nlines "quoted"'
    assert (found.timeout, found.proxy) == (7.0, "http://p#1")
    assert found.origin("timeout") == f"{path}:5"
    assert "OTHER" not in os.environ


def test_keys_in_a_dotenv_file_are_found_below_the_environment(file):
    path = file(f'OPENAI_API_KEY="{CANARY}"\nMINE=other-canary\n', ".env")
    found = load(dotenv=path, env={}, files=(), arguments={"providers": {"groq": {"api_key_env": "MINE"}}})
    openai = catalog.load().providers["openai"]
    assert find_key(openai, found, env={}).source == f"config {path}:1"
    assert find_key(openai, found, env={"OPENAI_API_KEY": "e"}).source == "env OPENAI_API_KEY"


def test_a_dotenv_file_with_bad_lines_names_them_without_showing_them(file):
    path = file(f"GOOD=1\n{CANARY}\nX='open\n", ".env")
    found = problems(dotenv=path)
    assert found == (f"{path}:2: is not NAME=value", f"{path}:3: is not NAME=value")
    assert "no such file" in problems(dotenv=path.with_name("none"))[0]


@given(st.text(max_size=80))
@settings(max_examples=60, deadline=None)
def test_any_text_as_a_dotenv_file_is_read_or_refused_in_our_words(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.env"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load(dotenv=path, env={}, files=())
    except ConfigError as error:
        assert error.problems


# ---- mistakes ---------------------------------------------------------------------------------


def test_all_mistakes_of_all_sources_come_at_once(file):
    path = file('timeout = "soon"\ntiemout = 3\n[aliases]\nx = 3\n[providers.opnai]\nmodel = "m"\n')
    found = problems(
        files=[path],
        env={"POLYVOX_RETRIES": "-1", "OPENAI_BASE_URL": "ftp://x"},
        arguments={"stric": True},
        row={"pool_size": 0},
    )
    assert found == (
        f"{path}:1: timeout: must be a number, not 'soon'",
        f"{path}:2: tiemout: is not a setting; did you mean timeout?",
        f"{path}:4: aliases.x: must be text, not '3'",
        "env POLYVOX_RETRIES: retries: must be a whole number from 0 up, not '-1'",
        "env OPENAI_BASE_URL: providers.openai.base_url: must begin with https:// (or http:// for this machine)",
        (
            "env OPENAI_BASE_URL: providers.openai-responses.base_url: "
            "must begin with https:// (or http:// for this machine)"
        ),
        "row: pool_size: must be a whole number from 1 up, not '0'",
        "argument: stric: is not a setting; did you mean strict?",
        f"{path}:6: providers.opnai: is not a known provider, and a new one needs base_url; did you mean openai?",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", 0), ("timeout", True), ("timeout", "nan"), ("timeout", []), ("retries", 1.5), ("retries", 10**400),
        ("temperature", -0.1), ("temperature", "inf"), ("strict", "maybe"), ("strict", 1), ("log_level", "LOUD"),
        ("model", ""), ("model", 3), ("proxy", "socks5://x"), ("aliases", []), ("aliases", {"": "m"}),
        ("providers", []), ("providers", {"Open AI": {}}), ("providers", {"openai": 3}),
        ("providers", {"openai": {"quirks": ["limps"]}}), ("providers", {"openai": {"dialect": "morse"}}),
        ("providers", {"openai": {"hosts": 3}}), ("providers", {"openai": {"headers": []}}),
        ("providers", {"openai": {"headers": {"a b": "c"}}}), ("providers", {"openai": {"headers": {"a": "b\nc"}}}),
        ("providers", {"openai": {"base_ulr": "https://x"}}), ("providers", {"openai": {"api_key": 3}}),
        ("api_key", "k"), ("base_url", "https://x"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_refused_where_it_was_given(name, value):
    (problem,) = problems(arguments={name: value})
    assert problem.startswith(f"argument: {name}")


def test_a_mistake_never_repeats_a_key(file):
    path = file(
        f'api_key = "{CANARY}"\n[providers.openai]\napi_key_env = "{CANARY}"\nbase_url = "https://u:{CANARY}@x/v1"\n'
        f'apikey = "{CANARY}"\nheaders = {{ "x-api-key" = ["{CANARY}"] }}\n'
    )
    found = problems(files=[path], arguments={"proxy": f"socks5://u:{CANARY}@h"})
    assert len(found) == 6
    assert CANARY not in str(found)


class Broken:
    """A loader that fails."""

    name = "vault"

    def load(self):
        raise OSError("no route to https://u:hunter2@vault")


def test_a_loader_that_fails_is_a_problem_of_its_own():
    failed, odd = problems(loaders=[Broken(), Fixed([])])
    assert failed.startswith("loader vault: failed with OSError") and "hunter2" not in failed
    assert odd == "loader Fixed: gave list, not a table of settings"


# ---- secrets ----------------------------------------------------------------------------------


def test_settings_show_no_secret_in_any_form(file, caplog):
    path = file(
        f'proxy = "http://u:{CANARY}@proxy:1"\n[providers.openai]\napi_key = "{CANARY}"\n'
        f'headers = {{ "X-Api-Key" = "{CANARY}", "x-title" = "shown" }}\noptions = {{ token = "{CANARY}" }}\n'
    )
    found = load(files=[path], env={})
    shown = [
        repr(found), str(found), f"{found}", json.dumps(found.shown()), str(found.origins),
        str(found.providers["openai"]["api_key"]), repr(found.providers["openai"]["secret_headers"]),
    ]  # fmt: skip
    assert not any(CANARY in text for text in shown)
    assert "shown" in repr(found)
    assert isinstance(msgspec.structs.asdict(found)["providers"]["openai"]["api_key"], Secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(found)
    with pytest.raises(TypeError):
        vars(found)
    assert CANARY not in caplog.text


def test_a_configuration_file_with_a_key_that_others_can_read_is_warned_of(file, caplog):
    path = file(f'[providers.openai]\napi_key = "{CANARY}"\n')
    path.chmod(0o644)
    load(files=[path], env={})
    assert f"chmod 600 {path}" in caplog.text and CANARY not in caplog.text


def test_overrides_reach_the_catalog_as_they_are(file):
    path = file(
        '[providers.corp]\nbase_url = "https://llm.corp.test/v1/"\nquirks = ["max_tokens"]\nmodels = ["corp-*"]\n'
    )
    found = load(files=[path], env={})
    target = catalog.load().with_overrides(found.providers, found.origins).resolve("corp-1")
    assert target.provider.base_url == "https://llm.corp.test/v1"
    assert target.provider.quirks == {"max_tokens"}
    assert target.provider.url_source == f"{path}:2"


# ---- the settings of the process ---------------------------------------------------------------


def test_configure_outranks_the_environment_adds_up_and_can_be_forgotten(home, monkeypatch):
    monkeypatch.setenv("POLYVOX_MODEL", "from-env")
    reset()
    assert current().model == "from-env"
    configure(model="mine", aliases={"a": "x"}, providers={"openai": {"model": "y"}})
    configure(aliases={"b": "z"}, providers={"openai": {"timeout": 3}})
    assert current().model == "mine"
    assert current().aliases == {"a": "x", "b": "z"}
    assert current().providers["openai"] == {"model": "y", "timeout": 3.0}
    reset()
    assert current().model == "from-env"


def test_configure_with_a_mistake_changes_nothing(home):
    configure(model="good")
    with pytest.raises(ConfigError):
        configure(model="better", timeout=-1)
    assert current().model == "good"


def test_configure_can_name_other_sources(home, file):
    configure(
        files=[file('model = "file"\n')], dotenv=file("POLYVOX_RETRIES=9\n", ".env"), loaders=[Fixed({"system": "s"})]
    )
    assert (current().model, current().retries, current().system) == ("file", 9, "s")


def test_settings_are_one_object_until_a_file_changes_and_looked_at_once_a_second(home, monkeypatch):
    path = home / "config.toml"
    now = [1000.0]
    monkeypatch.setattr(config.time, "monotonic", lambda: now[0])
    first = current()
    path.write_text('model = "new"\n')
    assert current() is first
    now[0] += 1.1
    assert current().model == "new"
    path.write_text('model = "newer"\n')
    now[0] += 0.5
    assert current().model == "new"
    now[0] += 1.1
    assert current().model == "newer"
    path.unlink()
    now[0] += 1.1
    assert current().model is None


def test_a_change_that_cannot_be_used_is_logged_and_what_held_goes_on(home, monkeypatch, caplog):
    path = home / "config.toml"
    path.write_text('model = "good"\n')
    now = [1000.0]
    monkeypatch.setattr(config.time, "monotonic", lambda: now[0])
    held = current()
    path.write_text("model = 3 # wrong\n")
    now[0] += 1.1
    assert current() is held
    now[0] += 1.1
    assert current() is held
    assert caplog.text.count("is not used") == 1
    path.write_text('model = "mended"\n')
    now[0] += 1.1
    assert current().model == "mended"


def test_a_mistake_at_the_first_look_is_an_error_each_time(home):
    (home / "config.toml").write_text("model = 3\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"config\.toml:1"):
            current()


# ---- writing ----------------------------------------------------------------------------------

KEPT = """\
# my settings
model = "a"   # the usual
timeout = 5

[providers.openai] # work
headers = { "X-Title" = "t" } # shown
hosts = [
  "a.test", # one
  "b.test",
]

# short names
[aliases]
fast = "x/y"
"""


@pytest.mark.parametrize(
    ("key", "value", "old", "new"),
    [
        ("model", "b # c", 'model = "a"   # the usual', 'model = "b # c"   # the usual'),
        ("timeout", "7.5", "timeout = 5\n", "timeout = 7.5\n"),
        ("timeout", "none", "timeout = 5\n", 'timeout = "none"\n'),
        ("strict", "yes", "timeout = 5\n", "timeout = 5\nstrict = true\n"),
        ("aliases.fast", "q", 'fast = "x/y"\n', 'fast = "q"\n'),
        ("aliases.gpt-4.1", "q", 'fast = "x/y"\n', 'fast = "x/y"\n"gpt-4.1" = "q"\n'),
        ("providers.openai.model", "m", '  "b.test",\n]\n', '  "b.test",\n]\nmodel = "m"\n'),
        ("providers.openai.hosts", "c.test, d.test", '[\n  "a.test", # one\n  "b.test",\n]', '["c.test", "d.test"]'),
        ("providers.openai.headers.X-B", "2", '{ "X-Title" = "t" } # shown', '{ X-Title = "t", X-B = "2" } # shown'),
        ("providers.groq.model", "m", 'fast = "x/y"\n', 'fast = "x/y"\n\n[providers.groq]\nmodel = "m"\n'),
    ],
)  # fmt: skip
def test_a_setting_is_written_in_its_place_and_all_else_stays(file, key, value, old, new):
    path = file(KEPT)
    path.chmod(0o640)
    set_value(path, key, value)
    assert KEPT.count(old) == 1
    assert path.read_text() == KEPT.replace(old, new)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == ["config.toml"]


@pytest.mark.parametrize(
    ("key", "gone"),
    [
        ("model", 'model = "a"   # the usual\n'),
        ("aliases.fast", 'fast = "x/y"\n'),
        ("providers.openai.hosts", 'hosts = [\n  "a.test", # one\n  "b.test",\n]\n'),
    ],
)
def test_a_setting_is_removed_with_its_line_and_nothing_more(file, key, gone):
    path = file(KEPT)
    assert unset_value(path, key)
    assert path.read_text() == KEPT.replace(gone, "")
    assert not unset_value(path, key)


def test_a_setting_inside_an_inline_table_is_removed(file):
    path = file(KEPT)
    assert unset_value(path, "providers.openai.headers.X-Title")
    assert path.read_text() == KEPT.replace('{ "X-Title" = "t" }', "{}")


def test_a_key_once_written_by_hand_can_be_removed(file):
    path = file(f'[providers.openai]\napi_key = "{CANARY}"\n')
    assert unset_value(path, "providers.openai.api_key")
    assert path.read_text() == "[providers.openai]\n"


def test_the_first_setting_makes_the_file_for_its_owner_only(tmp_path):
    path = tmp_path / "new" / "config.toml"
    assert not unset_value(path, "model")
    set_value(path, "model", "m")
    assert path.read_text() == 'model = "m"\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ufeffstrict = true\n",
        "strict = true",
        "strict = true\r\n# c\r\n",
        '[aliases]\n"a.b" = "c"',
        "providers.openai.timeout = 3\n",
    ],
)
def test_files_of_every_habit_take_a_setting_at_every_depth(file, text):
    path = file("")
    path.write_bytes(text.encode())
    before = tomllib.loads(text.removeprefix("\ufeff"))
    for key, value in [("model", "m"), ("aliases.x", "y"), ("providers.openai.model", "z")]:
        set_value(path, key, value)
    after = load(files=[path], env={})
    assert (after.model, after.aliases["x"], after.providers["openai"]["model"]) == ("m", "y", "z")
    if "strict" in before:
        assert after.strict
    if "providers" in before:
        assert after.providers["openai"]["timeout"] == 3.0
    if "\r\n" in text:
        assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("timeout", "-1", "must be more than 0"),
        ("tiemout", "1", "did you mean timeout"),
        ("providers.openai", "x", "is a table"),
        ("aliases", "x", "is a table"),
        ("", "x", "is not a setting"),
        ("providers.openai.base_url", "ftp://x", "must begin with"),
        ("providers.openai.headers", "x", "must be a table"),
        ("model.x", "y", "must be text"),
    ],
)
def test_what_load_would_refuse_is_not_written(file, key, value, says):
    path = file(KEPT)
    with pytest.raises(ConfigError, match=says):
        set_value(path, key, value)
    assert path.read_text() == KEPT


@pytest.mark.parametrize(
    "key",
    ["api_key", "providers.openai.api_key", "providers.openai.headers.X-Api-Key", "providers.openai.options.token"],
)
def test_keys_are_not_written_to_a_configuration_file(file, key):
    path = file(KEPT)
    with pytest.raises(ConfigError) as caught:
        set_value(path, key, CANARY)
    assert "polyvox keys set" in caught.value.hint and CANARY not in str(caught.value)
    assert CANARY not in path.read_text()


def test_only_toml_files_that_are_valid_are_edited(file):
    broken = file("model = = 1\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        set_value(broken, "model", "m")
    with pytest.raises(ConfigError, match="not a TOML file"):
        set_value(file("model: a", "config.yaml"), "model", "m")
    assert broken.read_text() == "model = = 1\n"


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=12)


@given(
    st.lists(st.tuples(NAMES, st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)), min_size=1, max_size=4)
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_written_reads_back_and_disturbs_nothing(tmp_path_factory, pairs):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(KEPT)
    expected = {"fast": "x/y"}
    for name, model in pairs:
        try:
            set_value(path, f"aliases.{name}", model)
        except ConfigError:
            continue
        expected[name.removeprefix("@")] = model.strip()
    found = load(files=[path], env={})
    assert found.aliases == expected
    assert path.read_text().startswith(KEPT[: KEPT.index("fast")])


def test_warnings_of_two_files_name_the_one_that_is_read(home, caplog):
    (home / "config.toml").write_text('model = "t"\n')
    (home / "config.json").write_text('{"model": "j"}')
    with caplog.at_level(logging.WARNING):
        assert load(env={"POLYVOX_HOME": str(home)}).model == "t"
    assert "config.json is not" in caplog.text
