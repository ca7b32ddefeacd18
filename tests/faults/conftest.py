"""Both faces of the client, answers in one piece and streamed, and no pause between tries."""

from functools import partial

import pytest

from polyvox.engine import Engine
from polyvox.testing.fault_server import FaultServer
from tests.faults.calls import tell


async def _no_wait(seconds):
    """Time limits between tries pass at once."""


@pytest.fixture(autouse=True)
def no_pause_between_tries(monkeypatch):
    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "sleep", _no_wait)
    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "chance", lambda: 0.5)


@pytest.fixture(autouse=True)
def no_proxy_outside(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["Client", "AsyncClient"])
def told(request):
    """Asks once, and gives what is told; see `calls.tell`."""
    return partial(tell, request.param)


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request):
    """Whether the answer is streamed."""
    return request.param


@pytest.fixture(scope="session")
def _server():
    with FaultServer() as server:
        yield server


@pytest.fixture
def serve(_server):
    """Gives a server of this script, on which nothing is open and nothing was asked."""

    def serve(*script):
        assert _server.wait_for(lambda it: it.open_connections == 0), "an earlier test left a connection"
        _server.script = script
        _server.requests.clear()
        _server.connections = 0
        return _server

    return serve
