"""What is true of every test: what one keeps secret is plain text again in the next, and what one wants logged is not
what the next logs."""

import gc
import logging
import signal

import pytest

from polyvox.keys import secret
from tests import examples, left_behind
from tests.engines import write_models
from tests.interfaces.ran import note_them

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What runs in the background of a shell ignores Ctrl-C, and so would every program that a test starts and stops.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """Where POLYVOX_RAN names a file, it is told there how each test ended."""
    examples.forgive_a_busy_machine()
    note_them(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """What makes up its examples tries a quarter of them on every day."""
    examples.settle(items, config.getoption("markexpr"))


def pytest_collection_finish(session):
    """Twenty thousand tests are millions of objects, which every collection in any of them would walk through."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left_behind(request):
    """Whatever the tests of a module said to the process, the next module does not hear: an error that names both."""
    before = left_behind.state()
    yield
    if left := left_behind.changes(before):
        left_behind.put_back(before)
        pytest.fail(f"{request.node.nodeid} leaves in the process: {'; '.join(left)}", pytrace=False)


@pytest.fixture(autouse=True)
def _nothing_is_known_to_be_secret(monkeypatch):
    """A word that some test gave as a key would be masked in all that later tests log, record and raise."""
    monkeypatch.setattr(secret, "_known", {})
    monkeypatch.setattr(secret, "_known_forms", ())


@pytest.fixture(autouse=True)
def _logs_at_its_own_level():
    """The command line sets the level for the rest of its program, which here goes on."""
    logs = [log for name, log in logging.root.manager.loggerDict.items() if name.partition(".")[0] == "polyvox"]
    levels = [(log, log.level) for log in logs if isinstance(log, logging.Logger)]
    yield
    for log, level in levels:
        if log.level != level:
            log.setLevel(level)


@pytest.fixture(scope="session")
def model_files(tmp_path_factory):
    """A folder with model files for a real engine, which nobody changes; see `tests.engines`."""
    folder = tmp_path_factory.mktemp("engine")
    write_models(folder)
    return folder
