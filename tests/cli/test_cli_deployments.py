"""Deployments by their names at the command line, beside questions: shown, looked after, and asked for vectors."""

import json

import pytest

from polyvox.testing import Simulator

KEY = "sk-not-a-real-key-0123456789"


@pytest.fixture
def told(home):
    """A configuration with deployments of all kinds."""

    def write(there="http://127.0.0.1:9/v1"):
        (home / "polyvox" / "config.toml").write_text(f"""
[deployments.small]
model = "openai/gpt-5.4-mini"
tier = "economy"
max_tokens = 9
aliases = ["quick"]
[deployments.house]
model = "text-embedding-3-small"
base_url = "{there}"
price = {{input = 2, output = 0}}
[deployments.lost]
model = "nobody-knows"
[deployments.resting]
model = "demo"
active = false
""")

    write()
    return write


@pytest.mark.parametrize("name", ["small", "quick"])
def test_a_deployment_is_shown_with_what_is_said_of_it_and_what_is_known_of_its_model(run, told, name):
    shown = json.loads(run("models", "show", name, "--json").stdout)
    assert shown["deployment"].items() >= {"name": "small", "tier": "economy", "max_tokens": 9}.items()
    assert (shown["name"], shown["context"] > 0) == ("openai/gpt-5.4-mini", True)
    lines = run("models", "show", name).stdout.splitlines()
    assert lines[0].startswith("deployment:    small, tier economy") and "name:          openai/gpt-5.4-mini" in lines


def test_one_with_an_address_of_its_own_is_shown_with_that_and_its_price(run, told):
    shown = json.loads(run("models", "show", "house", "--json").stdout)
    assert (shown["deployment"]["name"], shown["base_url"]) == ("house", "http://127.0.0.1:9/v1")
    assert shown["price"] == {"input": "2", "output": "0"}
    said = run("models", "show", "house").stdout
    assert "price:         2 USD per million tokens of input" in said and "deployment:    house" in said


def test_a_name_that_is_nearly_that_of_a_deployment_is_one_clear_error(run, told):
    done = run("ask", "-m", "smal", "hello")
    assert done.exit_code != 0 and "did you mean 'small'?" in done.stderr and "Traceback" not in done.stderr


def test_doctor_says_of_each_deployment_where_it_leads_and_what_it_lacks_without_asking_anybody(run, told):
    def findings(**env):
        said = json.loads(run("doctor", "--json", env=env).stdout)["findings"]
        return {one["what"]: (one["state"], one["detail"]) for one in said if one["what"].startswith("deployment")}

    found = findings()
    assert found["deployment small"] == ("warning", "openai/gpt-5.4-mini, its key is missing")
    assert found["deployment house"] == ("ok", "text-embedding-3-small, key not needed")
    assert found["deployment lost"] == ("warning", "nobody-knows, no provider is known to serve 'nobody-knows'")
    assert found["deployment resting"][0] == "info"
    found = findings(OPENAI_API_KEY=KEY)
    assert found["deployment small"] == ("ok", "openai/gpt-5.4-mini, key env OPENAI_API_KEY")
    assert KEY not in json.dumps(found)


def test_vectors_are_asked_of_a_deployment_by_its_name(run, told):
    with Simulator(demand_key=False) as simulator:
        told(simulator.base_url("openai.chat"))
        done = run("embed", "-m", "house", "--json", "one", "two")
        assert done.exit_code == 0, done.stderr
        found = json.loads(done.stdout)
        (request,) = simulator.requests
    assert (found["deployment"], len(found["vectors"]), request.model) == ("house", 2, "text-embedding-3-small")
    assert float(found["cost"]["amount"]) == found["usage"]["input"] * 2 / 1e6
