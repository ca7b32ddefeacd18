"""The table of names agrees with what OpenTelemetry itself last published of them."""

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, server_attributes

from polyvox import catalog
from polyvox.telemetry.names import metrics_of, names, spoken

PUBLISHED = {
    value
    for module in (gen_ai_attributes, error_attributes, server_attributes)
    for value in vars(module).values()
    if isinstance(value, str)
}
NEWER = {"moonshot_ai"}
WELL_KNOWN = NEWER | {one.value for one in gen_ai_attributes.GenAiProviderNameValues}
METRICS = {value for value in vars(gen_ai_metrics).values() if isinstance(value, str)}


def test_every_name_of_the_older_version_was_published():
    said = {name for found in spoken("v1.41").values() for name in found}
    assert len(said) >= 30 and said <= PUBLISHED
    assert {row.older for row in names().attributes.values() if row.older} <= PUBLISHED


def test_every_older_metric_was_published():
    said = {row.name for row in metrics_of("v1.41")}
    assert len(said) == 3 and said <= METRICS


def test_both_is_the_newest_and_the_older_names_together():
    for fact, said in spoken("both").items():
        assert set(spoken("latest").get(fact, ())) | set(spoken("v1.41").get(fact, ())) <= set(said), fact
    assert len(metrics_of("both")) == len(metrics_of("latest")) + len(metrics_of("v1.41"))


def test_every_provider_that_is_named_otherwise_exists_and_has_a_well_known_name():
    rows = catalog.load().providers
    assert set(names().providers) <= set(rows)
    assert set(names().providers.values()) <= WELL_KNOWN


@pytest.mark.parametrize("name", sorted(WELL_KNOWN - {"gcp.gen_ai", "ibm.watsonx.ai", "azure.ai.inference"}))
def test_every_well_known_provider_that_we_have_is_called_so(name):
    assert name in {names().provider(row) for row in catalog.load().providers}
