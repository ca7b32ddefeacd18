"""The ledger's figures, `polyvox usage --json` and the metrics of Prometheus are the same numbers of the same calls."""

import json
import subprocess
import sys
from decimal import Decimal

import pytest

from polyvox import Client
from polyvox.config import Settings
from polyvox.errors import PolyvoxError
from polyvox.ledger import Ledger
from polyvox.telemetry import Prometheus
from polyvox.testing import Simulator

parse = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families

KEY = "sk-simulated-0123456789"
MODEL = "openai/gpt-5.4-mini"
PLAN = [
    {"kind": "status", "status": 500, "at": 2},
    {"kind": "reset", "at": 5, "after": 900},
    {"kind": "status", "status": 400, "at": 7},
]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """(metrics, path of the ledger) of calls: whole, streamed, tried again, failed, broken off, cached."""
    place, metrics = tmp_path_factory.mktemp("numbers") / "calls.db", Prometheus()
    with Ledger(place) as ledger, Simulator(plan=PLAN) as simulator:
        row = {"base_url": simulator.base_url("openai.chat"), "hosts": ["127.0.0.1"], "api_key": KEY}
        settings = Settings(providers={"openai": row})
        with Client(MODEL, settings=settings, ledger=ledger, hooks=[metrics], retries=1, cache=True) as client:
            for number in range(6):
                try:
                    if number % 2:
                        client.stream(f"stream {number}").finish()
                    else:
                        client.ask(f"ask {number}")
                except PolyvoxError:
                    pass
            client.ask("ask 0")
    return metrics, place


def figures(place):
    command = [sys.executable, "-m", "polyvox", "usage", "--by", "model", "--json", "--ledger", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout, parse_float=Decimal)


def samples(metrics, name):
    return [
        (sample.labels, sample.value)
        for family in parse(metrics.text())
        for sample in family.samples
        if sample.name == f"polyvox_{name}"
    ]


def total(metrics, name, **labels):
    found = [value for told, value in samples(metrics, name) if labels.items() <= told.items()]
    return sum(found)


def test_calls_and_failures_are_as_many(told):
    metrics, place = told
    (row,) = figures(place)["rows"]
    assert total(metrics, "requests_total") == row["calls"] == 7
    assert total(metrics, "requests_total", status="error") == row["errors"] > 0


@pytest.mark.parametrize(("type_", "field"), [("input", "input"), ("output", "output")])
def test_tokens_are_as_many(told, type_, field):
    metrics, place = told
    (row,) = figures(place)["rows"]
    assert total(metrics, "tokens_total", type=type_) == row[field] > 0


@pytest.mark.parametrize(("name", "field"), [("cache_hits_total", "own_cache"), ("cost_unknown_total", "unknown_cost")])
def test_answers_of_our_own_cache_and_unknown_costs_are_as_many(told, name, field):
    metrics, place = told
    (row,) = figures(place)["rows"]
    assert total(metrics, name) == row[field]
    assert total(metrics, "cache_hits_total") == 1


def test_the_cost_is_the_same(told):
    metrics, place = told
    (row,) = figures(place)["rows"]
    assert total(metrics, "cost_usd_total") == pytest.approx(float(Decimal(row["cost"])), rel=1e-9)
    assert Decimal(row["cost"]) > 0
