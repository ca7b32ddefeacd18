"""The verbs that ask nobody: models, providers, keys, config, doctor, completion, help."""

import json
import stat
import tomllib
from pathlib import Path

import pytest

KEY = "sk-proj-abcdefghijklmnopqrstuvwx"


# ---- models and providers ---------------------------------------------------------------------


def test_models_are_listed_by_full_name_all_or_of_one_provider(run):
    everything = json.loads(run("models", "list", "--json").stdout)
    of_one = json.loads(run("models", "list", "anthropic", "--json").stdout)
    assert 0 < len(of_one) < len(everything)
    assert all(model["name"] == f"anthropic/{model['id']}" for model in of_one)
    assert run("models", "list", "anthropic").stdout.count("\n") == len(of_one) + 1
    assert run("models").stdout == run("models", "list").stdout


def test_a_misspelt_provider_is_met_with_the_nearest(run):
    result = run("models", "list", "opanai")
    assert result.exit_code == 2 and "did you mean openai" in result.stderr


def test_a_model_is_shown_with_what_it_means(run):
    name = json.loads(run("models", "list", "anthropic", "--json").stdout)[0]["name"]
    told = json.loads(run("models", "show", name.partition("/")[2], "--json").stdout)
    assert (told["name"], told["provider"]) == (name, "anthropic")
    assert name in run("models", "show", name).stdout
    unknown = run("models", "show", "anthropic/never-heard-of")
    assert unknown.exit_code == 0 and "knows nothing" in unknown.stderr


def test_providers_tell_where_a_key_was_found_but_not_the_key(run):
    result = run("providers", "list", "--json", env={"OPENAI_API_KEY": KEY})
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert (rows["openai"]["key"], rows["openai"]["key_source"]) == (True, "env OPENAI_API_KEY")
    assert (rows["anthropic"]["key"], rows["ollama"]["local"]) == (False, True)
    assert KEY not in result.output
    assert "missing" in run("providers", "list").stdout


# ---- keys -------------------------------------------------------------------------------------


def test_a_key_piped_in_is_kept_listed_shown_on_request_and_forgotten(run, home):
    kept = run("keys", "set", "openai", input=f"{KEY}\n")
    path = home / "polyvox" / "keys.json"
    assert kept.exit_code == 0 and str(path) in kept.stderr and "uvwx" in kept.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = json.loads(run("keys", "list", "--json").stdout)
    assert rows == [{"name": "openai", "source": "keys file", "fingerprint": "sk-…uvwx", "used": True}]
    assert run("keys", "get", "openai").exit_code == 2
    assert run("keys", "get", "openai", "--reveal").stdout == f"{KEY}\n"
    shown = [run(*words).output for words in (("keys", "list"), ("keys", "get", "openai"), ("providers",), ("doctor",))]
    assert not any(KEY in text for text in shown)
    assert run("keys", "rm", "openai").exit_code == 0
    assert run("keys", "rm", "openai").exit_code == 2
    assert run("keys", "path").stdout.strip() == str(path)


def test_a_key_in_the_environment_hides_the_kept_one_and_that_is_said(run):
    env = {"OPENAI_API_KEY": "sk-another-key-of-some-length"}
    assert "is used before" in run("keys", "set", "openai", input=KEY, env=env).stderr
    rows = json.loads(run("keys", "list", "--json", env=env).stdout)
    assert [(row["source"], row["used"]) for row in rows] == [("env OPENAI_API_KEY", True), ("keys file", False)]


@pytest.mark.parametrize("piped", ["", "\n\n", "two\nlines\n", "wörd-that-is-no-key"])
def test_what_can_be_no_key_is_not_kept(run, home, piped):
    assert run("keys", "set", "openai", input=piped).exit_code == 2
    assert not (home / "polyvox" / "keys.json").exists()


def test_a_key_for_an_unknown_provider_or_from_the_arguments_is_refused(run):
    assert "did you mean openai" in run("keys", "set", "opnai", input=KEY).stderr
    result = run("keys", "set", "openai", "--key", KEY, input="")
    assert result.exit_code == 2 and KEY not in result.output
    result = run("keys", "set", "openai", KEY, input="")
    assert result.exit_code == 2 and KEY not in result.output


def test_a_damaged_key_file_is_a_configuration_error(run, home):
    (home / "polyvox" / "keys.json").write_text("{broken")
    (home / "polyvox" / "keys.json").chmod(0o600)
    assert run("keys", "list").exit_code == 78
    assert run("doctor").exit_code == 78


def test_a_group_with_an_unknown_command_offers_the_nearest(run):
    result = run("keys", "lst")
    assert result.exit_code == 2 and "did you mean: polyvox keys list" in result.stderr


# ---- config -----------------------------------------------------------------------------------


def test_a_setting_is_set_read_with_its_origin_and_removed(run, home):
    path = home / "polyvox" / "config.toml"
    assert run("config", "path").stdout.strip() == str(path)
    assert run("config", "set", "timeout", "30").exit_code == 0
    assert run("config", "set", "aliases.fast", "openai/gpt-6-luna").exit_code == 0
    assert run("config", "get", "timeout").stdout == "30\n"
    told = json.loads(run("config", "list", "--origin", "--json").stdout)
    assert told["timeout"] == {"value": 30.0, "origin": f"{path}:1"}
    assert told["retries"]["origin"] == "default"
    assert "aliases.fast" in run("config").stdout
    assert run("config", "unset", "timeout").exit_code == 0
    assert run("config", "unset", "timeout").exit_code == 2
    assert json.loads(run("config", "list", "--json").stdout)["timeout"] == 600.0


def test_a_change_the_environment_overrules_says_so(run):
    assert "wins" in run("config", "set", "model", "demo", env={"POLYVOX_MODEL": "openai/x"}).stderr


@pytest.mark.parametrize(("key", "value"), [("timeot", "3"), ("retries", "-1"), ("providers.openai.api_key", "x" * 20)])
def test_a_setting_that_cannot_be_is_not_written(run, home, key, value):
    result = run("config", "set", key, value)
    assert result.exit_code == 78 and "x" * 20 not in result.output
    assert not (home / "polyvox" / "config.toml").exists()


def test_a_setting_that_does_not_exist_is_met_with_the_nearest(run):
    result = run("config", "get", "timeot")
    assert result.exit_code == 2 and "did you mean timeout?" in result.stderr


def test_validate_lists_every_problem_of_a_file(run, home):
    (home / "bad.toml").write_text("retries = 'x'\n[providers.openai]\nbase_ulr = 'y'\n")
    result = run("config", "validate", "bad.toml")
    assert result.exit_code == 78
    assert "bad.toml:1" in result.stderr and "did you mean base_url?" in result.stderr
    assert run("config", "validate").exit_code == 0


def test_secrets_in_a_file_are_not_listed(run, home):
    path = home / "polyvox" / "config.toml"
    path.write_text(f'[providers.openai]\napi_key = "{KEY}"\n')
    path.chmod(0o600)
    result = run("config", "list", "--origin")
    assert "providers.openai.api_key" in result.stdout and KEY not in result.output


# ---- doctor, completion, help -----------------------------------------------------------------


def test_doctor_finds_a_healthy_installation_healthy(run):
    result = run("doctor", "--json", env={"OPENAI_API_KEY": KEY, "HTTPS_PROXY": "http://user:pass@proxy.example"})
    told = json.loads(result.stdout)
    found = {finding["what"]: finding for finding in told["findings"]}
    assert result.exit_code == 0 and told["ok"]
    assert found["key openai"]["detail"] == "env OPENAI_API_KEY"
    assert "HTTPS_PROXY" in found["proxy variables"]["detail"]
    assert KEY not in result.output and "user:pass" not in result.output


def test_doctor_looks_at_every_library_and_every_extra(run):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    looked = {finding["what"] for finding in json.loads(run("doctor", "--json").stdout)["findings"]}
    assert {requirement.partition(">=")[0] for requirement in project["dependencies"]} <= looked
    assert {f"extra {name}" for name in project["optional-dependencies"] if name != "all"} <= looked


def test_doctor_names_what_is_wrong(run, home):
    (home / "polyvox" / "config.toml").write_text("timeot = 3\n")
    (home / "polyvox").chmod(0o777)
    result = run("doctor")
    assert result.exit_code == 78
    assert "timeot" in result.stdout and "chmod 755" in result.stdout


def test_doctor_live_knocks_at_the_addresses_of_keyed_providers_and_sends_no_key(run, provider, home):
    config = home / "polyvox" / "config.toml"
    config.write_text(config.read_text().replace('auth = "none"', f'api_key = "{KEY}"'))
    config.chmod(0o600)
    result = run("doctor", "--live")
    assert "reach test:" in result.stdout and "answers (HTTP 200" in result.stdout
    assert provider.keys == [None]
    assert "reach" not in run("doctor").stdout


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete --no-files")]
)
def test_completion_prints_a_shells_script(run, shell, sign):
    result = run("completion", shell)
    assert result.exit_code == 0 and sign in result.stdout and "_POLYVOX_COMPLETE" in result.stdout


def test_help_explains_every_command(run):
    for words in (("ask",), ("chat",), ("models", "show"), ("keys", "set"), ("config", "set"), ("doctor",)):
        assert run("help", *words).stdout == run(*words, "--help").stdout != ""
    assert run("help", "nothing").exit_code == 2
    assert run("help").stdout == run("--help").stdout


def test_help_shows_its_examples_a_line_each(run):
    for words in (("--help",), ("ask", "--help"), ("completion", "--help")):
        text = run(*words).stdout
        assert "\\b" not in text and "\x08" not in text
    assert '\n    polyvox ask "Why is the sky blue?"\n' in run("ask", "--help").stdout


def test_explain_prints_the_request_and_sends_nothing(run):
    shown = json.loads(run("explain", "-m", "anthropic/claude-x", "-o", "max_tokens=5", "hi").stdout)
    assert shown["url"] == "https://api.anthropic.com/v1/messages"
    assert shown["headers"]["x-api-key"] == "$ANTHROPIC_API_KEY"
    assert shown["body"] == {"model": "claude-x", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def test_explain_as_curl_names_the_variable_and_tells_losses(run):
    result = run("explain", "-m", "openai/gpt-x", "--curl", "-o", "top_k=5", "hi")
    assert result.stdout.startswith("curl ") and '"authorization: Bearer $OPENAI_API_KEY"' in result.stdout
    assert "top_k" in result.stderr
