"""How many examples a test that makes them up tries: all that it says under `-m slow`, a quarter of them otherwise."""

import pytest
from hypothesis import HealthCheck, settings

LEAST = 25  # so few are not made fewer


def forgive_a_busy_machine():
    """Neither the time of an example nor that of making it up fails a test that does not say so."""
    lenient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("polyvox", settings.default, **lenient)
    settings.load_profile("polyvox")


def tried(said):
    """How many of so many on every day."""
    return max(min(said, LEAST), said // 4)


def with_slow_tests(expression):
    """Whether a marker expression, as `-m` takes it, chooses the slow tests."""
    return "slow" in expression.split() and "not" not in expression.split()


def settle(items, expression):
    """Let each of these tests try as many as it should; those that try them all are slow ones."""
    made_up = [item for item in items if getattr(getattr(item, "function", None), "is_hypothesis_test", False)]
    if with_slow_tests(expression):
        for item in made_up:
            item.add_marker(pytest.mark.slow)
        return
    for test in {item.function for item in made_up}:
        # Where @settings keeps what it was told; there is no way to ask.
        said = getattr(test, "_hypothesis_internal_use_settings", None) or settings.default
        test._hypothesis_internal_use_settings = settings(said, max_examples=tried(said.max_examples))
