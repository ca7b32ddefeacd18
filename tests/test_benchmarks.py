"""What the benchmark says about codecs: a dialect that costs more than it may says why, or that nobody knows."""

from benchmarks.codecs import LIMIT, REASONS, YARDSTICK, cases
from benchmarks.report import markdown

from polyvox.dialects import NAMES


def report(codecs):
    facts = {"when": "today", "python": "3", "machine": "m", "command": "c", "loop": "asyncio"}
    return markdown({**facts, "cpu": {}, "codecs": codecs, "start": {}, "clients": {}, "errors": {}})


def test_every_reason_is_for_an_operation_that_is_measured():
    assert {name for _, name in REASONS} <= set(NAMES) - {YARDSTICK}
    for operation, name in REASONS:
        assert operation in cases(name)


def test_every_operation_of_every_dialect_can_be_measured():
    for name in NAMES:
        for case in cases(name).values():
            case.ours()
            case.plain()


def test_a_dialect_that_costs_more_than_it_may_says_why_or_that_no_reason_is_stated():
    (operation, name), reason = next(iter(REASONS.items()))
    over = {"us": LIMIT * 10 + 1, "plain_us": 1.0}
    row = {YARDSTICK: {"us": 10.0, "plain_us": 5.0}, name: over}
    shown = report({operation: row, "new": row})
    assert f"| {operation} | 1.00 | 2.10 |" in shown
    assert f"* {operation}, {name}, 2.10: {reason}" in shown
    assert f"* new, {name}, 2.10: no reason is stated" in shown
    assert "stated" not in report({"new": {**row, name: {"us": 20.0, "plain_us": 1.0}}})
