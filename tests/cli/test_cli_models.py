"""The catalog at the terminal: what a model costs, can and how long it lives; filters that keep what is known."""

import json

import pytest


def listed(run, *words):
    result = run("models", "list", *words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_filter_keeps_what_is_known_to_pass_it_and_nothing_else(run):
    for model in listed(run, "--max-price", "1"):
        assert float(model["price"]["input"]) <= 1 and float(model["price"]["output"]) <= 1
    assert all(model["context"] >= 500_000 for model in listed(run, "--min-context", "500000"))
    assert all(
        {"tools", "vision"} <= set(model["capabilities"]) for model in listed(run, "--can", "tools", "--can", "vision")
    )
    assert listed(run, "--can", "json") == listed(run, "--can", "schema") != []


def test_the_dead_and_the_dying_are_left_out_on_request(run):
    everything, alive = listed(run, "--provider", "openai"), listed(run, "openai", "--alive")
    assert {model["standing"] for model in everything} == {"alive", "deprecated", "retired"}
    assert alive == [model for model in everything if model["standing"] == "alive"]


def test_filters_together_narrow(run):
    both = listed(run, "anthropic", "--can", "vision", "--alive", "--max-price", "5")
    assert 0 < len(both) < len(listed(run, "anthropic"))


def test_the_places_of_backends_stand_for_all_providers_there(run):
    cloud, everything = listed(run, "cloud"), listed(run)
    local = [model for model in everything if model not in cloud]
    assert listed(run, "local") == local
    assert {model["provider"] for model in cloud} >= {"openai", "anthropic", "gemini", "openrouter"}
    assert not {"ollama", "vllm", "local"} & {model["provider"] for model in cloud}
    assert listed(run, "cloud", "--can", "vision", "--alive") == listed(run, "--can", "vision", "--alive")
    assert "polyvox models list --live NAME" in run("models", "list", "local").stderr
    refused = run("models", "list", "--live", "cloud")
    assert refused.exit_code == 2 and "--live PROVIDER" in refused.stderr and refused.stdout == ""


def test_a_provider_that_is_called_like_a_place_is_meant_itself(run, home):
    (home / "polyvox" / "config.toml").write_text('[providers.cloud]\nbase_url = "http://127.0.0.1:9"\n')
    assert listed(run, "cloud") == []


def test_what_is_not_known_is_not_there_and_never_zero(run):
    rows = listed(run, "openai")
    assert any("price" not in model for model in rows) and any("context" not in model for model in rows)
    line = next(line for line in run("models", "list", "openai").stdout.splitlines() if "openai/gpt-6-astra" in line)
    assert " - " in line and " 0 " not in line


def test_a_model_is_shown_with_price_and_life(run):
    shown = run("models", "show", "openai/gpt-4o")
    assert "2.5 USD per million tokens of input" in shown.stdout and "128000" in shown.stdout
    assert "its last day is 2027-01-14" in shown.stderr
    told = json.loads(run("models", "show", "gpt-4o", "--json").stdout)
    assert told["price"]["cache_read"] == "1.25" and told["standing"] in ("deprecated", "retired")
    assert isinstance(told["prices"], list)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-price", "cheap"), "'cheap' is not an amount from 0 up"),
        (("--max-price", "-1"), "not an amount"),
        (("--max-price", "NaN"), "not an amount"),
        (("--can", "fly"), "nothing is known of 'fly'"),
        (("--min-context", "0"), "--min-context"),
        (("openai", "--provider", "xai"), "two providers are named: openai and xai"),
        (("--provider", "opanai"), "did you mean openai"),
    ],
)
def test_a_filter_that_means_nothing_is_one_clear_error(run, words, said):
    result = run("models", "list", *words)
    assert result.exit_code == 2 and said in result.stderr and result.stdout == ""
