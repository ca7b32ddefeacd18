"""How a test says which documented promises it shows: it runs once for each, and coverage.toml names it."""

import pytest


def rows(*ids: str):
    """A case for each id; the test takes it as `row`.

    @rows("S2-048", "S2-084")
    def test_a_cache_in_memory_keeps_what_it_is_given(row): ...
    """
    return pytest.mark.parametrize("row", ids)
