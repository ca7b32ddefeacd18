"""The page on telemetry says what the tables in the data say."""

from pathlib import Path

import pytest

from polyvox.telemetry import audit
from polyvox.telemetry.names import names
from polyvox.telemetry.prometheus import METRICS, WATCHED

PAGE = Path(__file__).parent.parent.parent / "docs" / "telemetry.md"


def named(name):
    return f"`{name}`" if name else "–"


def rows():
    """Every row of every table on the page."""
    for fact in names().attributes.values():
        v1_41 = fact.latest if fact.v1_41 is None else fact.v1_41
        yield f"| `{fact.latest}` | {'same' if v1_41 == fact.latest else named(v1_41)} | {fact.need} | {fact.at} |"
    for metric in names().metrics:
        more = ", only with `tokens_by_call=True`" if metric.choice else ""
        yield f"| `{metric.name}` | {metric.version} | {metric.scope} | {metric.kind} | {metric.says}{more} |"
    for event in names().events.values():
        yield f"| `{event}` |"
    for name, (kind, says, labels, _) in METRICS.items():
        end = "_total" if kind == "counter" else ""
        yield f"| `polyvox_{name}{end}` | {kind} | {', '.join(labels) or '–'} | {says} |"
    for name, (says, label) in WATCHED.items():
        yield f"| `{name}` | {label or '–'} | {says} |"
    for row in audit():
        yield f"| `{row.logger}` | {row.level} | {row.when} | {row.values} |"
    for ours, theirs in names().providers.items():
        yield f"| `{ours}` | `{theirs}` |"


@pytest.mark.skipif(not PAGE.exists(), reason="there is no such page")
def test_the_page_has_every_row_of_the_data():
    lines = set(PAGE.read_text(encoding="utf-8").splitlines())
    missing = [row for row in dict.fromkeys(rows()) if not any(line.startswith(row) for line in lines)]
    assert not missing
