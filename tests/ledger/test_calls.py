"""A call is written down before it is sent and once more when it ends, and reads back as it was said."""

import asyncio
import doctest
import importlib
import os
import re
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.database import STEPS, Database, Together, Unit, run
from polyvox.database.address import address_of
from polyvox.errors import InputError, NotFoundError
from polyvox.keys import Secret, remember
from polyvox.ledger import AttemptEnd, CallEnd, Ledger, default_place
from polyvox.ledger.columns import (
    ATTEMPT,
    BYTES,
    CALL,
    CONTENT,
    TEXTS,
    Manner,
    bucket_of,
    latency_of,
    record_of,
    written_end,
)
from polyvox.ledger.places import spool_folder
from polyvox.types import Attempt, Message, Request, Text, Usage
from tests.ledger.calls import USAGE, begin, call, count, ended, finish, make_calls, starting, states


def test_a_call_that_has_begun_is_there_for_others_before_it_is_sent(open_ledger, place):
    ledger, other = open_ledger(place), open_ledger(place)
    start = begin(ledger, user="ann", stream=True, tags=("a", "b"))
    found = other.history.get(start.id)
    assert (found.state, found.user, found.stream, found.tags) == ("open", "ann", True, ("a", "b"))
    assert found.cost is None and found.usage == Usage() and found.duration is None


def test_all_that_is_said_of_a_call_reads_back_as_it_was(open_ledger, place):
    ledger = open_ledger(place)
    facts = {
        "tenant": "t",
        "user": "ann",
        "project": "p",
        "session": "s",
        "key": "k",
        "tags": ("x",),
        "operation": "embeddings",
    }
    start = begin(ledger, stream=True, **facts)
    usage = Usage(
        input=100, output=20, cache_read=60, cache_write=7, cache_write_by_ttl={"1h": 7}, reasoning=5, audio_input=1,
        audio_output=2, image_input=3, total=120, server_tools={"web_search": 2}, cost=Decimal("0.1"),
        source="estimated",
    )  # fmt: skip
    failed = Attempt("demo/parrot", 0.25, "overloaded", "busy", 529, "yes", "req-0", 0.5)
    finish(
        ledger, start, usage=usage, deployment="other/parrot", provider="other", model="parrot-2",
        cost=Decimal("0.000000000001"), saved=Decimal("1.5"), own_cache=True, losses=2,
        attempts=(AttemptEnd(attempt=failed, usage=USAGE, cost=Decimal("0.5"), cost_source="provider", model="m"),
                  AttemptEnd(attempt=Attempt("other/parrot"))),
    )  # fmt: skip
    found = ledger.history.get(start.id)
    assert {name: getattr(found, name) for name in facts} == facts
    assert found.usage == usage and found.started == start.started and found.stream
    assert (found.state, found.asked, found.model, found.provider, found.deployment) == (
        "ok", "parrot", "parrot-2", "other", "other/parrot",
    )  # fmt: skip
    assert found.cost == Decimal("0.000000000001") and found.saved == Decimal("1.5") and found.own_cache
    assert found.cost_source == "catalog" and found.cost_how == {"since": "2026-01-01", "tier": "flex"}
    assert (found.duration, found.first_token, found.finish_reason, found.losses) == (1_500_000, 300_000, "stop", 2)
    first, second = found.attempts
    assert (first.number, first.outcome, first.status, first.sent, first.request_id) == (
        1, "overloaded", 529, "yes", "req-0",
    )  # fmt: skip
    assert (first.duration, first.waited, first.cost, first.cost_source) == (
        250_000,
        500_000,
        Decimal("0.5"),
        "provider",
    )
    assert first.usage == USAGE and first.model == "m"
    assert (second.number, second.deployment, second.usage, second.cost) == (2, "other/parrot", Usage(), None)


def test_how_a_cost_came_about_is_asked_when_it_is_written_down(open_ledger, place):
    ledger = open_ledger(place)

    class Explained:
        def __init__(self, how):
            self.how = how

    one, other = Explained({"lines": [{"what": "input", "amount": "0.5"}]}), Explained({})
    start = begin(ledger)
    attempts = (
        AttemptEnd(attempt=Attempt("demo/parrot"), cost=Decimal(0), cost_how=other),
        AttemptEnd(attempt=Attempt("demo/parrot"), cost=Decimal("0.5"), cost_how=one),
    )
    finish(ledger, start, cost=Decimal("0.5"), cost_how=one, attempts=attempts)
    found = ledger.history.get(start.id)
    assert found.cost_how == one.how
    assert [attempt.cost_how for attempt in found.attempts] == [None, one.how]


def test_a_call_that_ends_before_its_start_was_written_is_one_whole_row(open_ledger, place):
    ledger = open_ledger(place)
    start = starting(ledger, user="ann", tags=("a",))
    gate = threading.Event()

    class Hold(Unit):
        def apply(self, connection):
            gate.wait(10)

    ledger.database.post(Hold())  # so that both come into the batch after it
    ledger.note(start)
    ledger.note(ended(start))
    gate.set()
    ledger.database.write_sync(Hold())
    found = ledger.history.get(start.id)
    assert (found.state, found.user, found.tags, found.cost) == ("ok", "ann", ("a",), Decimal("0.00125"))
    assert count(ledger, "calls") == 1 and count(ledger, "attempts") == 1


def test_what_is_unknown_stays_unknown(open_ledger, place):
    ledger = open_ledger(place)
    start = begin(ledger)
    asyncio.run(ledger.finish(CallEnd(start=start, state="error", error_kind="timeout")))
    found = ledger.history.get(start.id)
    assert found.cost is None and found.cost_source == "unknown" and found.usage == Usage()
    (row,) = ledger.history.usage()
    assert row.cost is None and row.unknown_cost == 1 and row.input is None and row.p50 is None and row.missing == 1


def test_an_end_is_written_once_however_often_it_is_said(open_ledger, place):
    ledger = open_ledger(place)
    start = begin(ledger)
    for cost in ("0.1", "0.2"):
        finish(ledger, start, cost=Decimal(cost))
    asyncio.run(ledger.begin(start))
    assert states(ledger) == {start.id: "ok"} and ledger.history.get(start.id).cost == Decimal("0.1")
    assert count(ledger, "attempts") == 1


def test_an_end_without_its_start_is_a_whole_row(open_ledger, place):
    ledger = open_ledger(place)
    start = starting(ledger, user="ann")
    finish(ledger, start)
    found = ledger.history.get(start.id)
    assert (found.state, found.user, found.model) == ("ok", "ann", "parrot")


def test_a_call_under_a_budget_begins_with_its_reservation_or_not_at_all(open_ledger, place):
    ledger = open_ledger(place)

    class Reserve(Unit):
        can_fail = True

        def __init__(self, enough):
            self.enough = enough

        def apply(self, connection):
            if not self.enough:
                raise InputError("spent")
            return "reserved"

    first, second = starting(ledger), starting(ledger)
    result = ledger.database.write_sync(Together(Reserve(enough=True), ledger.opening(first)))
    assert result[0] == "reserved"
    with pytest.raises(InputError, match="spent"):
        ledger.database.write_sync(Together(ledger.opening(second), Reserve(enough=False)))
    assert states(ledger) == {first.id: "open"}


def test_without_waiting_rows_are_written_all_the_same(open_ledger, place):
    ledger = open_ledger(place, durability="relaxed")
    ids = make_calls(ledger, 200)
    ledger.close()
    assert states(open_ledger(place)) == dict.fromkeys(ids, "ok")


def test_rows_can_be_noted_from_any_thread(open_ledger, place):
    ledger = open_ledger(place)

    def one(number):
        start = starting(ledger, user=str(number))
        ledger.note(start)
        ledger.note(ended(start))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(100)))
    ledger.close()
    assert list(states(open_ledger(place)).values()) == ["ok"] * 100


def test_two_event_loops_share_one_ledger(open_ledger, place):
    ledger = open_ledger(place)
    with ThreadPoolExecutor(2) as pool:
        ids = [id for some in pool.map(lambda _: make_calls(ledger, 50), range(2)) for id in some]
    assert states(ledger) == dict.fromkeys(ids, "ok")


def test_a_caller_who_is_cancelled_while_it_waits_leaves_a_row_that_can_be_ended(open_ledger, place):
    ledger = open_ledger(place)
    ledger.open()
    start = starting(ledger)

    async def leave():
        task = asyncio.ensure_future(ledger.begin(start))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ledger.finish(ended(start, state="cancelled"))

    asyncio.run(leave())
    assert states(ledger) == {start.id: "cancelled"}


@pytest.mark.parametrize("facts", [{"durability": "none"}, {"privacy": "some"}])
def test_words_that_mean_nothing_are_refused(tmp_path, facts):
    with pytest.raises(InputError):
        Ledger(tmp_path / "x.db", **facts)


# ---- names and numbers ------------------------------------------------------------------------


def test_a_clock_before_the_epoch_still_gives_an_id(tmp_path):
    assert Ledger(Database(tmp_path / "x.db"), wall=lambda: -5.0).start().started == 0


def test_where_a_ledger_is_when_nobody_says(tmp_path):
    assert default_place({"POLYVOX_HOME": str(tmp_path)}) == tmp_path / "ledger.db"
    assert default_place({"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "polyvox" / "ledger.db"
    assert default_place({"XDG_DATA_HOME": "relative"}).is_absolute()
    server = address_of("postgresql://ann:word-of-ann@h/d")
    folder = spool_folder(server, None, {"XDG_STATE_HOME": str(tmp_path)})
    assert folder == tmp_path / "polyvox" / "spool" / server.digest and "word" not in str(folder)
    assert spool_folder(address_of(tmp_path / "x.db"), None, {}) == tmp_path / "x.db.spool"
    assert spool_folder(server, tmp_path / "mine", {}) == tmp_path / "mine"


def test_ids_sort_by_time_and_never_meet(tmp_path):
    clock = iter(number / 1000 for number in range(10_000))
    ledger = Ledger(Database(tmp_path / "x.db"), wall=lambda: next(clock))
    ids = [ledger.start().id for _ in range(5000)]
    assert ids == sorted(ids) and len(set(ids)) == 5000 and {len(id) for id in ids} == {32}


def test_an_id_is_found_by_its_beginning_unless_several_share_it(open_ledger, place):
    ledger = open_ledger(place)
    ids = make_calls(ledger, 3)
    assert ledger.history.get(ids[1][:31]).id == ids[1] or ids[1][:31] in (ids[0][:31], ids[2][:31])
    with pytest.raises(InputError, match="several"):
        ledger.history.get(ids[0][:4])
    with pytest.raises(NotFoundError):
        ledger.history.get("00" * 16)
    for wrong in ("", "xyz", "0" * 33):
        with pytest.raises(InputError):
            ledger.history.get(wrong)


@given(st.integers(1, 10**12))
def test_a_latency_is_exact_to_one_percent(duration):
    assert abs(latency_of(bucket_of(duration)) - duration) <= 0.5 + duration * 0.01


texts = st.text(st.characters() | st.just("\0") | st.characters(categories=["Cs"]), max_size=300)
odd = st.none() | st.integers(-(2**70), 2**70)


@settings(max_examples=50, deadline=None)
@given(texts, texts, odd, st.decimals(), st.integers(-(2**70), 2**70))
def test_nothing_a_provider_says_keeps_a_row_from_being_made(word, message, number, cost, duration):
    ledger = Ledger(Database("unused.db"), spool=False)
    start = ledger.start(model=word, user=word, tags=(word,), prompt={"x": word})
    end = CallEnd(
        start=start, error_kind=word, error_message=message, cost=cost, duration=duration, cost_how={"x": object()},
        usage=Usage(input=number, output=number, source="provider"), request_id=word,
        attempts=(AttemptEnd(attempt=Attempt(word, message=message)),), answer=[message],
    )  # fmt: skip
    written = written_end(end, Manner(1, "full", lambda data: b"x" * 16))
    record = record_of(dict(zip(CALL, written.call, strict=True)))
    for text in (record.model, record.user, record.error_message, *record.tags):
        assert "\0" not in text
        text.encode()
    assert record.usage.input is None or 0 <= record.usage.input < 2**63
    assert record.cost is None or (record.cost.is_finite() and record.cost >= 0)


@pytest.mark.parametrize("word", ["\0", "\ud800", "x" * 100_000, "\U0001f99c" * 5000])
def test_odd_words_are_written_to_either_database(open_ledger, place, word):
    ledger = open_ledger(place, privacy="full")
    start = begin(ledger, model=word, deployment=word, provider=word, user=word, tags=(word,), prompt=word)
    finish(ledger, start, error_message=word, request_id=word, answer=word)
    assert ledger.history.get(start.id).state == "ok" and ledger.health().lost == 0


# ---- what is kept of texts --------------------------------------------------------------------

ASKED = Request("m", (Message("user", (Text("tell me a secret of parrots"),)),))


def everything(ledger):
    """All that the database holds, as text."""
    return str(
        [
            [
                tuple(row)
                for row in ledger.database.read_sync(lambda c, table=table: run(c, f"SELECT * FROM {table}").all())
            ]
            for table in ("calls", "attempts", "contents")
        ]
    )


def said(ledger, **facts):
    start = begin(ledger, prompt=ASKED)
    attempt = Attempt("demo/parrot", outcome="server", message="it said parrots")
    finish(ledger, start, state="error", error_message="it said parrots", answer="parrots do not tell",
           attempts=(AttemptEnd(attempt=attempt),), **facts)  # fmt: skip
    return ledger.history.get(start.id)


def test_no_text_is_kept_unless_asked_for(open_ledger, place):
    ledger = open_ledger(place)
    found = said(ledger)
    assert "parrots" not in everything(ledger)
    assert found.prompt is found.answer is found.prompt_hash is found.error_message is None
    assert count(ledger, "contents") == 0


def test_hashed_keeps_what_tells_prompts_apart_and_no_text_of_them(open_ledger, place):
    ledger = open_ledger(place, privacy="hashed", hash_key=b"k1")
    first, second = said(ledger), said(ledger)
    assert first.prompt_hash == second.prompt_hash and len(first.prompt_hash) == 32
    assert first.prompt is None and "secret of parrots" not in everything(ledger)
    other = open_ledger(place, privacy="hashed", hash_key=b"k2")
    assert said(other).prompt_hash != first.prompt_hash


def test_the_key_of_hashes_is_made_once_and_is_the_owners_alone(open_ledger, tmp_path):
    one = said(open_ledger(tmp_path / "1.db", privacy="hashed"))
    other = said(open_ledger(tmp_path / "2.db", privacy="hashed"))
    assert one.prompt_hash == other.prompt_hash
    key = tmp_path / "home" / "ledger.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32


def test_full_keeps_what_was_said_as_json(open_ledger, place):
    found = said(open_ledger(place, privacy="full", hash_key=b"k"))
    assert "tell me a secret of parrots" in found.prompt and found.answer == '"parrots do not tell"'
    assert found.error_message == "it said parrots" and found.attempts[0].message == "it said parrots"
    assert not found.cut


def test_no_secret_is_kept_whatever_is(open_ledger, place):
    remember(Secret("her-own-long-secret"))
    ledger = open_ledger(place, privacy="full", hash_key=b"k")
    key = "sk-" + "a1" * 12
    start = begin(ledger, prompt={"key": key, "other": "her-own-long-secret"})
    attempt = Attempt("demo/parrot", message=f"bad key {key}")
    finish(ledger, start, error_message=f"no: {key}", answer=f"it is {key}", attempts=(AttemptEnd(attempt=attempt),))
    assert key not in everything(ledger) and "her-own-long-secret" not in everything(ledger)


def test_a_text_too_long_to_keep_is_cut_and_says_so(open_ledger, place):
    ledger = open_ledger(place, privacy="full", hash_key=b"k")
    start = begin(ledger, prompt="x" * 5_000_000)
    found = ledger.history.get(start.id)
    assert found.cut and 1_000_000 < len(found.prompt) <= 1024 * 1024


def test_a_secret_where_a_text_is_cut_is_not_kept_in_part(open_ledger, tmp_path):
    ledger = open_ledger(tmp_path / "x.db", privacy="full", hash_key=b"k")
    key = "sk-" + "a1" * 40
    for before in range(1024 * 1024 - 90, 1024 * 1024 + 10, 33):
        start = begin(ledger, prompt="x " * (before // 2) + key + " y" * 20_000)
        assert "sk-a1" not in ledger.history.get(start.id).prompt


# ---- processes --------------------------------------------------------------------------------


def run_code(code, *arguments, **options):
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, timeout=120, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_child_of_a_fork_is_a_process_of_its_own(open_ledger, place):
    run_code(
        """
        import asyncio, os, sys
        from polyvox.ledger import Ledger
        from tests.ledger.calls import begin, finish, make_calls
        ledger = Ledger(sys.argv[1])
        held = begin(ledger, user="parent")
        child = os.fork()
        if child == 0:
            make_calls(ledger, 20, user="child")
            begin(ledger, user="left open by the child")
            ledger.close()
            os._exit(0)
        make_calls(ledger, 20, user="parent")
        assert os.waitpid(child, 0)[1] == 0
        assert ledger.history.get(held.id).state == "open"
        finish(ledger, held)
        ledger.close()
        """,
        place,
    )
    ledger = open_ledger(place)
    by_user = {row.key["user"]: (row.ok, row.interrupted) for row in ledger.history.usage("user")}
    assert by_user == {"parent": (21, 0), "child": (20, 0), "left open by the child": (0, 1)}


def test_a_program_that_just_ends_loses_nothing_it_noted(open_ledger, place):
    run_code(
        """
        import sys
        from polyvox.ledger import Ledger
        from tests.ledger.calls import ended, starting
        ledger = Ledger(sys.argv[1])
        for number in range(200):
            start = starting(ledger)
            ledger.note(start)
            ledger.note(ended(start))
        """,
        place,
    )
    assert list(states(open_ledger(place)).values()) == ["ok"] * 200


@pytest.mark.parametrize("module", ["database", "database.address", "database.money", "ledger", "ledger.ids"])
def test_examples_in_the_code_are_true(module):
    done = doctest.testmod(importlib.import_module(f"polyvox.{module}"))
    assert done.attempted and not done.failed


def test_importing_the_ledger_loads_no_database(tmp_path):
    loaded = run_code(
        """
        import sys
        import polyvox.ledger, polyvox.database
        print(sorted({"sqlalchemy", "psycopg", "sqlite3._sqlite3", "redis"} & set(sys.modules)))
        """
    )
    assert loaded.strip() == "[]"


def test_its_files_are_the_owners_alone_and_gone_when_it_ended_in_order(open_ledger, tmp_path):
    ledger = open_ledger(tmp_path / "x.db")
    make_calls(ledger, 1)
    folder = tmp_path / "x.db.spool"
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and os.listdir(folder)[0].endswith(".lock")
    ledger.close()
    assert os.listdir(folder) == []


def test_a_call_in_flight_costs_others_no_wait(open_ledger, place):
    ledger = open_ledger(place)

    async def both():
        open_start = starting(ledger)
        await ledger.begin(open_start)
        await asyncio.wait_for(call(ledger), 10)
        return open_start

    start = asyncio.run(both())
    assert sorted(states(ledger).values()) == ["ok", "open"] and ledger.history.get(start.id).state == "open"


def test_every_column_is_bytes_text_or_a_whole_number_as_its_step_says():
    seen = set()
    for statement in STEPS[0].statements:
        if statement.startswith("CREATE TABLE instances"):
            continue
        for name, kind in re.findall(r"(\w+) (\{bytes\}|(?:TEXT|BIGINT|SMALLINT|INTEGER)\b)", statement):
            seen.add(name)
            assert (name in BYTES, name in TEXTS) == (kind == "{bytes}", kind == "TEXT"), name
    assert seen == {*CALL, *ATTEMPT, *CONTENT}


def test_two_ends_of_a_call_in_one_transaction_are_one_row_and_the_first_counts(open_ledger, place):
    ledger = open_ledger(place, privacy="full", hash_key=b"k")
    ledger.open()
    start = starting(ledger, prompt="asked")
    gate = threading.Event()

    class Hold(Unit):
        def apply(self, connection):
            gate.wait(10)

    ledger.database.post(Hold())
    ledger.note(start)
    ledger.note(ended(start, cost=Decimal(1), answer="first"))
    ledger.note(ended(start, cost=Decimal(2)))
    gate.set()
    ledger.open()
    found = ledger.history.get(start.id)
    assert found.cost == 1 and found.prompt == '"asked"' and found.answer == '"first"' and len(found.attempts) == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not list open files")
def test_a_ledger_that_is_closed_right_after_its_first_call_leaves_no_file_open(tmp_path):
    counts = []
    for number in range(12):
        ledger = Ledger(tmp_path / f"{number}.db", durability="relaxed")
        ledger.note(starting(ledger))
        ledger.close()
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[-1] <= counts[2]
