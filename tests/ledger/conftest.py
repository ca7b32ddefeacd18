"""Ledgers in either kind of database, which forget all after the test."""

import contextlib

import pytest

from polyvox.ledger import Ledger
from tests.services import postgres, postgres_server, private_postgres  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def _a_home_of_its_own(tmp_path, monkeypatch):
    """Files for the meantime and keys of hashes go into the test's folder."""
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path / "home"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def place(request, tmp_path):
    """Where a database of each kind is."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    return request.getfixturevalue("postgres")


@pytest.fixture
def open_ledger():
    """Opens ledgers that are closed after the test."""
    with contextlib.ExitStack() as opened:

        def make(place, **options):
            ledger = Ledger(place, **options)
            opened.callback(ledger.close)
            return ledger

        yield make
