"""`polyvox status` says who is there: all are asked at once, nobody anything that costs, and no key is shown."""

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.scripted import Answer, Scripted

from polyvox import AsyncClient, Client
from polyvox.cli import output
from polyvox.config import load
from polyvox.dialects import Reply
from polyvox.dialects.model_lists import LISTS, Page, read
from polyvox.errors import AuthError, BadResponseError, InputError, UsageError
from polyvox.testing import Simulator
from polyvox.testing.fault_server import FaultServer, answer, refused_port, stall

KEY = "sk-planted-0123456789abcdef"


def configured(home, **rows):
    """A configuration file with these providers."""
    lines = []
    for name, row in rows.items():
        lines += [f"[providers.{name}]", *(f"{field} = {json.dumps(value)}" for field, value in row.items())]
    file = home / "polyvox" / "config.toml"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)


def found(done):
    return {row["provider"]: row for row in json.loads(done.stdout)["providers"]}


@pytest.fixture
def simulator():
    with Simulator(models=["small", "large"], keys=[KEY]) as server:
        yield server


def test_those_with_a_key_and_those_on_this_machine_are_asked_and_all_there_is_success(
    run, home, simulator, monkeypatch
):
    monkeypatch.delenv("OLLAMA_HOST")
    configured(
        home,
        openai={"base_url": simulator.base_url("openai.chat"), "api_key": KEY},
        anthropic={"base_url": simulator.base_url("anthropic.messages"), "api_key": KEY},
        ollama={"base_url": simulator.base_url("ollama.chat"), "api_key": KEY},
    )
    done = run("status", "--json")
    rows = found(done)
    # Model files are run in this process, which is always there; here are none.
    assert {name: row["models"] for name, row in rows.items() if row["state"] == "there"} == {
        "openai": 2, "anthropic": 2, "ollama": 2, "local": 0,
    }  # fmt: skip
    assert {row["state"] for row in rows.values()} <= {"there", "absent"}
    assert done.exit_code == 0
    assert {asked.path for asked in simulator.requests} == {"/v1/models", "/api/tags"}
    assert KEY not in done.output


def test_a_provider_that_refuses_the_key_fails_with_its_own_exit_code(run, home, simulator):
    configured(home, openai={"base_url": simulator.base_url("openai.chat"), "api_key": "sk-wrong-0123456789abcdef"})
    done = run("status")
    assert done.exit_code == output.KEY
    line = next(line for line in done.stdout.splitlines() if line.startswith("openai "))
    assert "failed" in line and "0123456789abcdef" not in done.output


def test_only_the_named_are_asked_and_a_local_one_that_is_named_must_be_there(run, home, simulator):
    configured(
        home,
        openai={"base_url": simulator.base_url("openai.chat"), "api_key": KEY},
        vllm={"base_url": f"http://127.0.0.1:{refused_port()}/v1"},
    )
    assert set(found(run("status", "--json", "--provider", "openai"))) == {"openai"}
    done = run("status", "--json", "--provider", "vllm", "--provider", "openai")
    assert list(found(done)) == ["vllm", "openai"]
    assert found(done)["vllm"]["state"] == "failed" and done.exit_code == output.NETWORK


def test_a_local_server_nobody_configured_may_be_absent(run, home, monkeypatch):
    env = {"OLLAMA_HOST": f"127.0.0.1:{refused_port()}"}
    configured_there = run("status", "--json", env=env)
    assert (found(configured_there)["ollama"]["state"], configured_there.exit_code) == ("failed", output.NETWORK)
    monkeypatch.delenv("OLLAMA_HOST")
    done = run("status", "--json")
    assert {row["state"] for row in found(done).values()} <= {"absent", "there"} and done.exit_code == 0


def test_what_cannot_be_asked_for_free_is_said(run, home):
    configured(home, perplexity={"api_key": KEY})
    done = run("status", "--json", "--provider", "perplexity")
    row = found(done)["perplexity"]
    assert (row["state"], done.exit_code) == ("not asked", 0) and "cost money" in row["detail"]


def test_a_provider_without_a_key_or_an_address_says_what_is_missing(run, home):
    done = run("status", "--json", "--provider", "groq", "--provider", "azure")
    rows = found(done)
    assert (rows["groq"]["state"], rows["azure"]["state"]) == ("failed", "failed")
    assert "no API key" in rows["groq"]["detail"] and "endpoint" in rows["azure"]["detail"]
    assert done.exit_code == output.KEY


def test_one_that_does_not_answer_costs_five_seconds_for_all_together(run, home, monkeypatch):
    monkeypatch.setattr("polyvox.cli.status._SECONDS", 0.3)
    with FaultServer(stall) as server:
        rows = {f"p{number}": {"base_url": server.url + "v1", "api_key": KEY} for number in range(5)}
        configured(home, **rows)
        begun = time.monotonic()
        done = run("status", "--json", *(word for name in rows for word in ("--provider", name)))
        took = time.monotonic() - begun
    assert {row["state"] for row in found(done).values()} == {"failed"} and done.exit_code == output.NETWORK
    assert took < 1.4, "one after the other they would have taken 1.5 s"


def test_an_unknown_provider_is_a_slip(run, home):
    done = run("status", "--provider", "opnai")
    assert done.exit_code == output.USAGE and "openai" in done.stderr


# ---- what is kept -----------------------------------------------------------------------------

PRICED = '[prices."demo/demo"]\ninput = 0\noutput = 1000\n'
KEEPING = PRICED + "[ledger]\nenabled = true\n[cache]\nenabled = true\n"
BUDGETS = '[budgets.daily]\nlimit = 0.5\nwindow = "day"\n[budgets.users]\nlimit = "0.02"\neach = "user"\nhard = false\n'


@pytest.fixture
def kept(home, run, monkeypatch):
    """Writes a configuration file, and tells how what is kept stands."""
    monkeypatch.setenv("OLLAMA_HOST", "")  # nobody named it, so it may be absent

    def write(text):
        (home / "polyvox" / "config.toml").write_text(text)

    def call(text):
        write(text)
        done = run("status", "--json")
        assert "hunter2" not in done.output
        return {name: part for name, part in json.loads(done.stdout).items() if name != "providers"}, done.exit_code

    call.write = write
    return call


def test_where_nothing_is_kept_status_is_about_providers_alone(kept, run):
    assert kept("") == ({}, 0)
    assert "KEPT" not in run("status").stdout


def test_what_was_not_used_yet_is_not_there_yet_and_looking_makes_no_file(kept, home):
    told, code = kept(KEEPING + BUDGETS)
    assert {name: part["state"] for name, part in told.items()} == dict.fromkeys(told, "not yet") and code == 0
    assert list(told) == ["ledger", "budgets", "cache"]
    assert [row["left"] for row in told["budgets"]["rows"]] == ["0.5"]
    assert [path.name for path in (home / "polyvox").iterdir()] == ["config.toml"]


def test_calls_money_and_answers_are_counted(kept, run):
    kept.write(KEEPING + BUDGETS)
    for _ in range(2):
        assert run("-m", "demo", "-o", "max_tokens=100", "-o", "user=ann", "hi").exit_code == 0
    told, code = kept(KEEPING + BUDGETS)
    ledger, budgets, cache = told.values()
    assert code == 0 and {part["state"] for part in told.values()} == {"ok"}
    assert (ledger["calls"], ledger["open"], ledger["own_cache"], ledger["lost"]) == (2, 0, 1, 0)
    assert ledger["saved"] == budgets["rows"][0]["spent"] == "0.019"
    daily, ann = budgets["rows"]
    assert (daily["limit"], daily["left"], daily["reserved"], daily["hard"]) == ("0.5", "0.481", "0", True)
    assert (ann["name"], ann["scope"], ann["left"], ann["hard"]) == ("users", {"user": "ann"}, "0.001", False)
    assert cache["entries"] == 1
    lines = run("status").stdout.splitlines()
    assert next(line for line in lines if line.startswith("users (soft)")).endswith("$0.001  [#########.]")
    assert "1 call answered from it" in next(line for line in lines if line.startswith("cache "))


def test_one_provider_alone_is_asked_about_nothing_else(kept, run):
    kept.write(KEEPING + BUDGETS)
    assert list(json.loads(run("status", "--json", "--provider", "demo").stdout)) == ["providers"]


def test_what_is_away_is_away_in_words_with_an_exit_code_and_no_traceback(kept):
    port = refused_port()
    redis, postgres = f"redis://:hunter2@127.0.0.1:{port}/0", f"postgresql://ann:hunter2@127.0.0.1:{port}/x"
    told, code = kept(
        f'[ledger]\nenabled = true\ndatabase = "{postgres}"\n[cache]\nenabled = true\nplace = "{redis}"\n'
        f'[budgets]\nplace = "{redis}"\n[budgets.all]\nlimit = 1\n'
    )
    assert {name: part["state"] for name, part in told.items()} == {
        "ledger": "away", "budgets": "away", "cache": "degraded",
    }  # fmt: skip
    assert "hard ones refuse every call" in told["budgets"]["detail"] and code == output.NETWORK
    assert told["ledger"]["place"] == f"postgresql://ann@127.0.0.1:{port}/x"


def test_a_server_that_says_nothing_is_not_waited_for(kept, monkeypatch):
    monkeypatch.setattr("polyvox.cli.standing._SECONDS", 0.2)
    with FaultServer(stall) as server:
        told, code = kept(f'[ledger]\nenabled = true\ndatabase = "postgresql://127.0.0.1:{server.port}/x"\n')
    assert told["ledger"]["state"] == "away" and "0.2 s" in told["ledger"]["detail"] and code == output.NETWORK


def test_a_place_that_cannot_be_one_says_why(kept, home):
    (home / "words.txt").write_text("no database at all")
    told, code = kept(
        '[ledger]\nenabled = true\ndatabase = "words.txt"\n[cache]\nenabled = true\nplace = "./polyvox"\n'
    )
    assert {part["state"] for part in told.values()} == {"failed"} and code == output.CONFIG
    assert "is no SQLite database" in told["ledger"]["detail"] and "is a folder" in told["cache"]["detail"]
    told, code = kept('[cache]\nenabled = true\nplace = "words.txt/cache.db"\n')
    assert "is no folder" in told["cache"]["detail"] and code == output.CONFIG
    assert (home / "words.txt").read_text() == "no database at all"


@pytest.mark.services
def test_servers_tell_how_they_stand(kept, run, private_redis, postgres):
    text = PRICED + (
        f'[ledger]\nenabled = true\ndatabase = "{postgres}"\n[cache]\nenabled = true\nplace = "{private_redis.url}"\n'
        f'[budgets]\nplace = "{private_redis.url}"\n[budgets.all]\nlimit = 1\n'
    )
    kept.write(text)
    for _ in range(2):
        assert run("-m", "demo", "-o", "max_tokens=100", "hi").exit_code == 0
    told, code = kept(text)
    assert {part["state"] for part in told.values()} == {"ok"} and code == 0
    assert (told["ledger"]["calls"], told["ledger"]["own_cache"], told["budgets"]["rows"][0]["left"]) == (2, 1, "0.981")


# ---- lists of models --------------------------------------------------------------------------


def test_the_live_list_is_the_providers_own_with_what_is_known_of_each(run, home):
    with Simulator(models=["gpt-6-luna", "brand-new"], keys=[KEY]) as simulator:
        configured(home, openai={"base_url": simulator.base_url("openai.chat"), "api_key": KEY})
        done = run("models", "list", "--live", "openai", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert set(rows) == {"openai/gpt-6-luna", "openai/brand-new"}
    assert rows["openai/gpt-6-luna"]["context"] and not rows["openai/brand-new"].get("context")


def test_a_live_list_needs_a_name(run, home):
    done = run("models", "list", "--live")
    assert done.exit_code == output.USAGE and "--live PROVIDER" in done.stderr


def client_of(dialect, *answers, **row):
    row = {"dialect": dialect, "base_url": "https://p.test", **row}
    settings = load(arguments={"providers": {"p": row}}, files=[], env={})
    transport = Scripted(*answers)
    return Client("p/m", api_key=KEY, settings=settings, transport=transport), transport


def listing(value, **facts):
    return Answer(json.dumps(value).encode(), **facts)


@pytest.mark.parametrize(
    ("dialect", "value", "path"),
    [
        ("openai.chat", {"object": "list", "data": [{"id": "a"}, {"id": "b"}]}, "/models"),
        ("openai.chat", [{"id": "a"}, {"id": "b"}], "/models"),
        ("anthropic.messages", {"data": [{"id": "a"}, {"id": "b"}], "has_more": False}, "/v1/models?limit=1000"),
        ("ollama.chat", {"models": [{"name": "a"}, {"name": "b"}]}, "/api/tags"),
    ],
)
def test_every_dialect_tells_its_models(dialect, value, path):
    client, transport = client_of(dialect, listing(value))
    assert [model.name for model in client.models()] == ["p/a", "p/b"]
    (sent,) = transport.sent
    assert (sent.method, sent.url, sent.body) == ("GET", f"https://p.test{path}", b"")
    assert any(KEY in value for value in sent.headers.values())


def test_a_list_that_is_elsewhere_is_asked_there():
    transport = Scripted(listing([{"id": "openai/gpt-x"}]))
    client = Client("github/m", api_key=KEY, transport=transport, settings=load(files=[], env={}))
    assert [model.name for model in client.models()] == ["github/openai/gpt-x"]
    assert transport.sent[0].url == "https://models.github.ai/catalog/models"


@pytest.mark.parametrize(
    ("dialect", "first", "second", "path"),
    [
        ("anthropic.messages", {"data": [{"id": "a"}], "has_more": True, "last_id": "a/1"},
         {"data": [{"id": "b"}], "has_more": False, "last_id": "b"}, "/v1/models?limit=1000&after_id=a%2F1"),
    ],
)  # fmt: skip
def test_a_list_in_pages_is_read_to_its_end(dialect, first, second, path):
    client, transport = client_of(dialect, listing(first), listing(second))
    assert [model.id for model in client.models()] == ["a", "b"]
    assert transport.sent[1].url == f"https://p.test{path}"


@pytest.mark.parametrize(
    ("dialect", "body", "page"),
    [
        ("gemini.generate", {"models": [{"name": "models/a"}, {"name": "tunedModels/b"}], "nextPageToken": "t/2"},
         Page(("a", "tunedModels/b"), "/models?pageSize=1000&pageToken=t%2F2")),
        ("gemini.generate", {}, Page(())),
        ("cohere.chat", {"models": [{"name": "a"}], "next_page_token": ""}, Page(("a",))),
        ("cohere.chat", {"models": [{"name": "a"}], "next_page_token": "t"},
         Page(("a",), "/v1/models?page_size=1000&page_token=t")),
        ("openai.responses", {"data": [{"id": "a"}]}, Page(("a",))),
    ],
)  # fmt: skip
def test_each_form_of_a_list_is_read_with_the_way_to_its_next_page(dialect, body, page):
    path = LISTS[dialect].path
    assert read(dialect, path, Reply(200, {}, json.dumps(body).encode())) == page
    if page.next is not None:
        again = read(dialect, page.next, Reply(200, {}, json.dumps(body).encode()))
        assert again.next == page.next, "a token replaces the one before"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "models", "id", "name", "has_more", "last_id"]), inner, max_size=4)
    ),
)


@given(st.sampled_from(sorted(LISTS)), JSON_VALUES)
def test_no_answer_whatever_is_anything_but_a_page_or_an_error_of_ours(dialect, body):
    try:
        page = read(dialect, LISTS[dialect].path, Reply(200, {}, json.dumps(body).encode()))
    except BadResponseError:
        return
    assert all(name.strip() for name in page.names)


def test_a_list_without_end_is_an_error():
    page = {"data": [{"id": "a"}], "has_more": True, "last_id": "a"}
    client, transport = client_of("anthropic.messages", *(listing(page) for _ in range(101)))
    with pytest.raises(BadResponseError, match="more than 100 pages"):
        client.models()
    assert len(transport.sent) == 100


@pytest.mark.parametrize(
    "answered",
    [Answer(b"<html>"), listing({"data": "x"}), listing({"data": [{"name": "a"}]}), listing({"data": [{"id": 5}]}),
     listing({"data": [{"id": " "}]}), listing(5), Answer(b"", status=302)],
)  # fmt: skip
def test_what_is_no_list_is_an_error_of_ours(answered):
    client, _ = client_of("openai.chat", answered)
    with pytest.raises(BadResponseError) as caught:
        client.models()
    assert caught.value.provider == "p"


def test_a_refusal_is_the_providers_own_error_without_the_key():
    refused = listing({"error": {"message": f"bad key {KEY}", "code": "invalid_api_key"}}, status=401)
    client, _ = client_of("openai.chat", refused)
    with pytest.raises(AuthError) as caught:
        client.models()
    assert KEY not in str(caught.value) and caught.value.status == 401


def test_a_list_is_kept_for_a_while_unless_a_fresh_one_is_wanted(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("polyvox.client.deployments.time.monotonic", lambda: clock[0])
    lists = [listing({"data": [{"id": name}]}) for name in "abc"]
    client, transport = client_of("openai.chat", *lists)
    seen = [client.models()[0].id, client.models("p")[0].id, client.models(fresh=True)[0].id]
    clock[0] += 301
    seen.append(client.models()[0].id)
    assert seen == ["a", "a", "b", "c"] and len(transport.sent) == 3


def test_a_server_known_by_its_address_tells_its_models_too(simulator):
    facts = {"base_url": simulator.base_url("openai.chat"), "api_key": KEY}
    with Client(**facts) as client:
        assert [model.id for model in client.models()] == ["small", "large"]
        with pytest.raises(InputError, match="its only provider"):
            client.models("openai")


def test_who_has_no_list_says_so_before_anything_is_sent():
    settings = load(files=[], env={})
    client = Client("perplexity/sonar", api_key=KEY, settings=settings, transport=Scripted())
    with pytest.raises(UsageError, match="no list of models") as caught:
        client.models()
    assert caught.value.sent == "no"


def test_a_closed_client_asks_nobody():
    client, transport = client_of("openai.chat", listing({"data": []}))
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.models()
    assert transport.sent == []


def test_a_backend_has_no_list():
    class Mine:
        name = "mine"

        def ask(self, request):
            return "x"

    with pytest.raises(UsageError, match="backend"):
        Client(backend=Mine()).models()


async def no_need_of_a_thread():
    async with AsyncClient("demo") as client:
        return await client.models()


def test_the_demo_tells_what_it_is():
    assert [model.name for model in asyncio.run(no_need_of_a_thread())] == ["demo/demo"]
    assert [model.name for model in Client("demo").models()] == ["demo/demo"]


def test_a_page_is_asked_with_the_proof_of_its_scheme():
    with FaultServer(answer(b'{"data": [{"id": "a"}]}')) as server:
        row = {"base_url": server.url + "v1", "auth": "query", "auth_header": "key"}
        settings = load(arguments={"providers": {"p": row}}, files=[], env={})
        with Client("p/m", api_key=KEY, settings=settings) as client:
            assert [model.id for model in client.models()] == ["a"]
        assert server.requests[0].startswith(f"GET /v1/models?key={KEY} ".encode())
