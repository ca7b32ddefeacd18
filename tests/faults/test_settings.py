"""A configuration file breaks, or changes all the time, under a client at work: what held goes on, what is wrong is
told with its line, and every call is made under one state of it or the other."""

import asyncio
import gc
import os
import threading

import pytest

from polyvox import AsyncClient, Client, config
from polyvox.errors import ConfigError
from polyvox.testing.fault_server import FaultServer
from tests.faults.calls import CHAT, KEY, TEXT, good
from tests.test_end_to_end import descriptors


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The user's own configuration file, looked at before every call."""
    for name in [name for name in os.environ if name.startswith("POLYVOX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path))
    monkeypatch.setattr(config, "_CHECK_EVERY", 0.0)
    config.reset()
    yield tmp_path / "config.toml"
    config.reset()


def text(server, model="m"):
    """A configuration whose calls go to a server."""
    lines = [f'model = "house/{model}"', "retries = 0", "[providers.house]", f'base_url = "{server.url}v1"']
    return "\n".join([*lines, f'api_key = "{KEY}"', ""])


def put(file, text):
    file.write_text(text, "utf-8")
    file.chmod(0o600)


# ---- it breaks (73) ---------------------------------------------------------------------------

BROKEN = {
    "no TOML": ("model = \n", "config.toml:1"),
    "half written": ('model = "house/m"\n[providers.ho', "config.toml:2"),
    "a wrong type": ("# mine\ntimeout = []\n", "config.toml:2"),
    "a key nobody knows": ('modle = "house/m"\n', "config.toml:1"),
    "bytes": (b"\xff\xfe\x00", "config.toml"),
}


def break_with(file, said):
    file.write_bytes(said if isinstance(said, bytes) else said.encode())


@pytest.mark.parametrize(("said", "where"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_breaks_changes_nothing_for_a_client_at_work_and_is_told_once(serve, file, caplog, said, where):
    server = serve(good(CHAT, False))
    put(file, text(server))
    with Client() as client:
        assert client.ask("hi").text == TEXT
        break_with(file, said)
        for _ in range(3):
            assert client.ask("hi").deployment == "house/m"
        told = [record.getMessage() for record in caplog.records if "is not used" in record.getMessage()]
        assert len(told) == 1 and where in told[0] and KEY not in caplog.text
        put(file, text(server, "m-2"))
        assert client.ask("hi").deployment == "house/m-2"
    assert len(server.requests) == 5


@pytest.mark.parametrize(("said", "where"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_broken_from_the_first_is_refused_with_its_place(file, said, where):
    break_with(file, said)
    with Client() as client, pytest.raises(ConfigError, match=where) as caught:
        client.ask("hi")
    assert caught.value.sent == "no"


@pytest.mark.parametrize("where", ["config.toml", "nowhere.toml"], ids=["itself", "nowhere"])
def test_a_link_that_leads_nowhere_changes_nothing_for_a_client_at_work(serve, file, caplog, where):
    put(file, text(serve(good(CHAT, False))))
    with Client() as client:
        assert client.ask("hi").text == TEXT
        file.unlink()
        file.symlink_to(file.with_name(where))
        assert client.ask("hi").text == TEXT and "config.toml" in caplog.text


def test_an_empty_file_says_nothing_and_so_does_none(serve, file):
    put(file, text(serve(good(CHAT, False))))
    with Client() as client:
        assert client.ask("hi").text == TEXT
        for gone in (lambda: put(file, ""), file.unlink):
            gone()
            assert config.current().model is None and config.problem() is None


def test_a_variable_that_is_not_there_is_named_before_anything_is_sent(serve, file, monkeypatch):
    monkeypatch.delenv("HOUSE_KEY", raising=False)
    server = serve(good(CHAT, False))
    put(file, text(server).replace(f'api_key = "{KEY}"', 'api_key_env = "HOUSE_KEY"'))
    with Client() as client, pytest.raises(Exception, match="HOUSE_KEY") as caught:
        client.ask("hi")
    assert caught.value.kind == "auth" and server.requests == []


def test_a_file_that_others_can_read_now_is_warned_of_and_its_calls_go_on(serve, file, caplog):
    server = serve(good(CHAT, False))
    put(file, text(server))
    with Client() as client:
        assert client.ask("hi").text == TEXT and "others" not in caplog.text
        file.write_text(text(server, "m-2"))
        file.chmod(0o666)
        assert client.ask("hi").deployment == "house/m-2"
    assert "config.toml" in caplog.text and "others" in caplog.text and KEY not in caplog.text


# ---- it changes all the time (74) -------------------------------------------------------------


@pytest.mark.parametrize("times", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_calls_during_changes_are_made_under_one_state_or_the_other(file, times):
    with FaultServer(good(CHAT, False)) as one, FaultServer(good(CHAT, False)) as other:
        states = [text(one, "m-one"), text(other, "m-other")]
        put(file, states[0])
        told, done = [], threading.Event()

        def ask(client):
            while not done.is_set():
                told.append(client.ask("hi").deployment)

        with Client() as client:
            threads = [threading.Thread(target=ask, args=(client,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for turn in range(times):
                new = file.with_suffix(".new")
                put(new, states[turn % 2])
                new.replace(file)
            while len(told) < 8:
                done.wait(0.01)
            done.set()
            for thread in threads:
                thread.join()
        assert set(told) <= {"house/m-one", "house/m-other"}
        # Model and address were changed together, so no server was asked for the other's model.
        for server, own in ((one, b'"m-one"'), (other, b'"m-other"')):
            assert all(own in request for request in server.requests)
        assert len(one.requests) + len(other.requests) == len(told)
        assert one.wait_for(lambda it: it.open_connections == 0)
        assert other.wait_for(lambda it: it.open_connections == 0)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_a_call_under_way_ends_under_the_state_it_began_with_and_nothing_is_left_behind(file):
    go_on = threading.Event()

    async def waiting(connection):
        while not go_on.is_set():
            await asyncio.sleep(0.01)

    async def go(one, other):
        async with AsyncClient() as client:
            first = asyncio.create_task(client.ask("hi"))
            while not one.requests:
                await asyncio.sleep(0.01)
            for turn in range(100):
                put(file, text(other, f"m-{turn}"))
                assert (await client.ask("hi")).deployment == f"house/m-{turn}"
            gc.collect()
            open_before = descriptors()
            for turn in range(100):
                put(file, text(other, f"m-{turn}"))
                await client.ask("hi")
            gc.collect()
            assert descriptors() <= open_before + 2
            go_on.set()
            return (await first).deployment

    with FaultServer(waiting, good(CHAT, False)) as one, FaultServer(good(CHAT, False)) as other:
        put(file, text(one, "m-first"))
        assert asyncio.run(go(one, other)) == "house/m-first"
        assert len(one.requests) == 1
