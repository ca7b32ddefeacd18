"""What is true of every test: what one keeps secret is plain text again in the next."""

import pytest

from polyvox.keys import secret
from tests.engines import write_models


@pytest.fixture(autouse=True)
def _nothing_is_known_to_be_secret(monkeypatch):
    """A word that some test gave as a key would be masked in all that later tests log, record and raise."""
    monkeypatch.setattr(secret, "_known", {})
    monkeypatch.setattr(secret, "_known_forms", ())


@pytest.fixture(scope="session")
def model_files(tmp_path_factory):
    """A folder with model files for a real engine, which nobody changes; see `tests.engines`."""
    folder = tmp_path_factory.mktemp("engine")
    write_models(folder)
    return folder
