"""Places for ledgers of either kind, which forget all after the test."""

import pytest

from tests.services import postgres, postgres_server  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def _a_home_of_its_own(tmp_path, monkeypatch):
    """Keys of hashes, settings and files for the meantime go into the test's folder."""
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path / "home"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def place(request, tmp_path):
    """Where a ledger of each kind is."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    return request.getfixturevalue("postgres")


@pytest.fixture
def ledger_file(tmp_path):
    """A file for a ledger."""
    return str(tmp_path / "ledger.db")
