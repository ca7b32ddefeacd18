"""Fixtures for pytest: a simulated provider, started for a test and stopped after it. Nothing of it loads
before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from polyvox.testing import Simulator


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A running `polyvox.testing.Simulator` that answers everything."""
    from polyvox.testing import Simulator

    with Simulator() as running:
        yield running


@pytest.fixture
def make_simulator() -> Iterator[Callable[..., Simulator]]:
    """Starts simulators with options: `make_simulator(rpm=2)`; all of them stop after the test."""
    from polyvox.testing import Simulator

    with ExitStack() as running:
        yield lambda **options: running.enter_context(Simulator(**options))
