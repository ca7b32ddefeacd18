"""A database of either kind, which forgets all after the test, with a table of the test's own."""

import contextlib

import pytest

from polyvox.database import Database
from tests.database.things import STEPS
from tests.services import postgres, postgres_server, private_postgres  # noqa: F401 - fixtures


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def place(request, tmp_path):
    """Where a database of each kind is."""
    if request.param == "sqlite":
        return str(tmp_path / "things.db")
    return request.getfixturevalue("postgres")


@pytest.fixture
def open_database():
    """Opens databases that are closed after the test."""
    with contextlib.ExitStack() as opened:

        def make(place, **options):
            database = Database(place, **{"steps": STEPS, **options})
            opened.callback(database.close)
            return database

        yield make
