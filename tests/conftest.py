"""What is true of every test: what one keeps secret is plain text again in the next."""

import pytest

from polyvox import keys


@pytest.fixture(autouse=True)
def _nothing_is_known_to_be_secret(monkeypatch):
    """A word that some test gave as a key would be masked in all that later tests log, record and raise."""
    monkeypatch.setattr(keys, "_known", {})
    monkeypatch.setattr(keys, "_known_forms", ())
