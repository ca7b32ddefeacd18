"""Who edits a registry while a client is at work changes what the client's next call does: no restart, no new client. A
file that is broken changes nothing, and says where."""

import asyncio
import logging

import pytest

from polyvox import AsyncClient, Client
from polyvox.config import Settings
from polyvox.database import Database, Unit, run
from polyvox.errors import PolyvoxError
from polyvox.limits import Limits
from polyvox.pools import NoDeploymentError
from polyvox.registry import DictRegistry, Entry, FileRegistry, TableRegistry
from tests import services
from tests.scripted import Scripted, said, streamed

postgres_server, postgres = services.postgres_server, services.postgres

AT = "https://models.example.com/v1"


def entry(name, model, **facts):
    return Entry(name, model, base_url=AT, **facts)


def asking(registry, answers=9, **facts):
    """A client over a transport that answers, and the bodies that it was sent."""
    transport = Scripted(*(said("hi") for _ in range(answers)))
    facts = {"model": "main"} | facts
    return Client(registry=registry, settings=Settings(), transport=transport, **facts), transport


# ---- a file -----------------------------------------------------------------------------------


def table(name, model, *more):
    return "\n".join([f"[deployments.{name}]", f'model = "{model}"', f'base_url = "{AT}"', *more]) + "\n"


def put(path, text):
    """What an editor does: a finished file takes the place of the old one."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "deployments.toml"
    put(path, table("main", "one"))
    return path


def test_an_edit_of_the_file_acts_on_the_next_call(path):
    client, transport = asking(path)
    with client:
        client.ask("hello")
        put(path, table("main", "two", "max_tokens = 7"))
        client.ask("hello")
        client.ask("hello", max_tokens=3)
    assert [body["model"] for body in transport.bodies()] == ["one", "two", "two"]
    assert [body.get("max_completion_tokens") for body in transport.bodies()] == [None, 7, 3]


def test_it_acts_on_the_next_stream_and_not_on_the_one_under_way(path):
    transport = Scripted(streamed("a", "b"), streamed("c"))
    with Client("main", registry=path, settings=Settings(), transport=transport) as client:
        with client.stream("hello") as stream:
            first = next(stream)
            put(path, table("other", "two", "aliases = ['main']"))
            text = first + "".join(stream)
        assert (text, stream.response.deployment) == ("ab", "main")
        later = client.stream("hello").finish()
    assert (later.text, later.deployment) == ("c", "other")
    assert [body["model"] for body in transport.bodies()] == ["one", "two"]


def test_a_deployment_that_comes_is_asked_and_one_that_goes_is_not(path):
    client, transport = asking(path)
    with client:
        with pytest.raises(PolyvoxError):
            client.ask("hello", tier="economy")
        put(path, table("main", "one") + table("cheap", "small", 'tier = "economy"'))
        assert client.ask("hello", tier="economy").deployment == "cheap"
        put(path, table("cheap", "small", 'tier = "premium"'))
        with pytest.raises(NoDeploymentError, match="economy"):
            client.ask("hello", tier="economy")
        assert client.ask("hello", tier="premium").deployment == "cheap"
        assert [one.name for one in client.route("hello", tier="premium").candidates] == ["cheap"]
        assert [one["name"] for one in client.standing()] == ["cheap"]
    assert len(transport.sent) == 2


def test_a_broken_file_keeps_what_held_before_and_says_file_and_line(path, caplog):
    registry = FileRegistry(path, settings=Settings())
    client, transport = asking(registry)
    with client, caplog.at_level(logging.WARNING, "polyvox.registry"):
        client.ask("hello")
        put(path, table("main", "two", "weight = 'heavy'"))
        for _ in range(3):
            assert client.ask("hello").deployment == "main"
        assert f"{path}:4: deployments.main.weight" in registry.problem
        put(path, table("main", "two") + "this is no TOML\n")
        client.ask("hello")
        assert f"{path}:4" in registry.problem
        path.unlink()
        client.ask("hello")
        assert str(path) in registry.problem
        put(path, table("main", "two"))
        client.ask("hello")
        assert registry.problem is None
    assert [body["model"] for body in transport.bodies()] == ["one"] * 6 + ["two"]
    told = [record.getMessage() for record in caplog.records if record.name == "polyvox.registry"]
    assert len([line for line in told if "weight" in line]) == 1  # once, however many calls see it


def test_limits_that_are_edited_hold_from_the_next_call_on(path):
    client, transport = asking(path)
    with client:
        client.ask("hello")
        put(path, table("main", "one", "[deployments.main.limits]", "requests_per_minute = 2"))
        client.ask("hello")
        with pytest.raises(PolyvoxError, match="2 requests a minute are used up") as caught:
            client.ask("hello", timeout=1)
        put(path, table("main", "one"))
        client.ask("hello")
    assert (caught.value.kind, caught.value.sent) == ("rate_limit", "no")
    assert len(transport.sent) == 3


def test_what_is_known_of_a_deployment_outlives_an_edit_and_ends_with_its_model(path):
    client, _ = asking(path)
    with client:
        client.ask("hello")
        put(path, table("main", "one", "weight = 5"))
        client.ask("hello")
        assert [one["calls"] for one in client.standing()] == [2]
        put(path, table("main", "two"))
        client.ask("hello")
        assert [one["calls"] for one in client.standing()] == [1]


# ---- a table ----------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def tables(request, tmp_path):
    """The registry of a table, and one over a connection of its own, as another program has it."""
    place = str(tmp_path / "rows.db") if request.param == "sqlite" else request.getfixturevalue("postgres")
    # The slowest machine is no server that is away.
    databases = Database(place, patience=20), Database(place, patience=20)
    mine, other = (TableRegistry(database, settings=Settings()) for database in databases)
    other.save_sync(entry("main", "one"))
    yield mine, other
    for registry in (mine, other):
        registry.close()
    for database in databases:
        database.close()


def test_an_edit_of_the_table_by_another_program_acts_on_the_next_call(tables):
    mine, other = tables

    async def test():
        transport = Scripted(*(said("hi") for _ in range(9)))
        async with AsyncClient("main", registry=mine, settings=Settings(), transport=transport) as client:
            await client.ask("hello")
            await asyncio.to_thread(other.save_sync, entry("main", "two", max_tokens=7))
            await client.ask("hello")
            await asyncio.to_thread(other.save_sync, entry("cheap", "small", tier="economy"))
            await client.ask("hello", tier="economy")
            await asyncio.to_thread(other.save_sync, entry("cheap", "small", tier="economy", active=False))
            with pytest.raises(NoDeploymentError):
                await client.ask("hello", tier="economy")
            await asyncio.to_thread(other.save_sync, entry("late", "late", tier="economy"))
            await client.ask("hello", tier="economy")
            await asyncio.to_thread(other.remove_sync, "late")
            with pytest.raises(NoDeploymentError):
                await client.ask("hello", tier="economy")
        return transport.bodies()

    bodies = asyncio.run(test())
    assert [body["model"] for body in bodies] == ["one", "two", "small", "late"]
    assert [body.get("max_completion_tokens") for body in bodies] == [None, 7, None, None]


def test_a_row_that_cannot_be_used_keeps_its_last_state_and_no_call_fails(tables):
    mine, other = tables
    client, transport = asking(mine)
    with client:
        client.ask("hello")
        other.database.write_sync(_Broken())
        client.ask("hello")
        assert "main" in mine.problem and "weight" in mine.problem
        other.save_sync(entry("main", "two"))
        client.ask("hello")
        assert mine.problem is None
    assert [body["model"] for body in transport.bodies()] == ["one", "one", "two"]


class _Broken(Unit):
    """What a person may write by hand."""

    def apply(self, connection):
        run(connection, "UPDATE deployments SET model = ?, weight = ? WHERE name = ?", ("two", -1.0, "main"))


# ---- a program --------------------------------------------------------------------------------


def test_an_edit_by_the_program_itself_acts_on_the_next_call_also_amid_many():
    registry = DictRegistry([entry("main", "one", limits=Limits(concurrency=4))], settings=Settings())

    async def test():
        transport = Scripted(*(said("hi") for _ in range(200)))
        async with AsyncClient("main", registry=registry, settings=Settings(), transport=transport) as client:

            async def calls(number):
                found = []
                for turn in range(10):
                    found.append((await client.ask("hello")).deployment)
                    if number == 3 and turn == 4:
                        registry.update("main", model="two")
                return found

            found = await asyncio.gather(*(calls(number) for number in range(20)))
        return found, [body["model"] for body in transport.bodies()]

    found, models = asyncio.run(test())
    assert {name for names in found for name in names} == {"main"}
    turn = models.index("two")
    assert set(models[:turn]) == {"one"} and len(models) == 200
    # Calls that had been prepared before went where they were meant to go; later ones did not.
    assert "one" not in models[turn + 20 :]
