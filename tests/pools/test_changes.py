"""A registry that changes while calls are under way: the next call sees it, those under way end as they began, and what
is known of deployments outlives it."""

import asyncio
import gc
import os
import sys
import threading
from time import sleep

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.errors import MissingKeyError, PolyvoxError
from polyvox.limits import Limits
from polyvox.pools import NoDeploymentError, Routing
from polyvox.registry import Entry
from polyvox.testing.virtual import Virtual
from tests.pools.world import Place, Slow, World, asked, failing, under_time, went
from tests.scripted import failed, said

NO_KEY = MissingKeyError("no key for it")


def named(world):
    return [member.name for member in world.pools.named("*").members]


def hello():
    return said("hello")


# ---- entries that come, change and go ---------------------------------------------------------


@under_time
async def test_an_entry_that_comes_may_be_asked_next_and_one_that_goes_may_not(virtual):
    world = World(virtual, a=Place(then=hello), b=Place(then=hello))
    world.registry.remove("a")
    assert (await world.ask()).deployment == "b"
    world.registry.add(Entry("a", "x/a"))
    assert sorted(named(world)) == ["a", "b"]
    world.registry.update("b", active=False)
    assert (await world.ask()).deployment == "a"
    assert world.pools.named("b") is None


@under_time
async def test_an_entry_that_goes_away_in_the_middle_of_a_call_still_answers_it(virtual):
    world = World(virtual, a=Place(Slow(5, failed(503)), said("after all")))
    task = world.begin()
    await asyncio.sleep(1)
    pool = world.pools.named("*")
    world.registry.remove("a")
    assert world.pools.named("*") is None
    assert (await task).text == "after all"
    assert pool.members[0].standing.in_flight == 0 and world.pools.shared.leases.used("a").in_flight == 0


@under_time
async def test_a_call_that_waits_gets_the_room_of_an_entry_that_changed_meanwhile(virtual):
    world = World(virtual, entries={"a": {"limits": {"concurrency": 1}}}, a=Place(Slow(5, said("one")), said("two")))
    first = world.begin()
    await asyncio.sleep(1)
    waiting = world.begin()
    await asyncio.sleep(1)
    world.registry.update("a", weight=3.0)
    assert [(await task).text for task in (first, waiting)] == ["one", "two"]
    assert world.now == 5 and world.held() == {}


@under_time
async def test_what_is_known_of_a_deployment_outlives_changes_that_do_not_make_it_another(virtual):
    world = World(virtual, a=Place(Slow(2, said("one")), then=lambda: failed(503)))
    await world.ask()
    for _ in range(2):
        await failing(world.ask())
    before = world.member("a")
    world.registry.update("a", weight=2.0, limits=Limits(concurrency=7))
    after = world.pools.named("a").members[0]
    assert after is not before and after.entry.weight == 2.0
    assert (after.standing, after.breaker, after.budget) == (before.standing, before.breaker, before.budget)
    assert after.learned.limits.concurrency == 7
    assert after.breaker.state(virtual.clock()) == "open"


@pytest.mark.parametrize("change", [{"model": "x/other"}, {"base_url": "https://elsewhere.example/v1"}])
def test_another_model_or_address_under_the_same_name_begins_anew(change):
    async def main(virtual):
        world = World(virtual, retries=0, a=Place(*[failed(503)] * 5, then=hello))
        for _ in range(5):
            await failing(world.ask("a"))
        assert world.member("a").breaker.state(virtual.clock()) == "open"
        world.registry.update("a", **change)
        assert world.pools.named("a").members[0].breaker.state(virtual.clock()) == "closed"

    Virtual(1).run(main)


@under_time
async def test_what_is_known_of_models_that_are_only_named_in_a_list_outlives_changes_of_the_registry(virtual):
    world = World(virtual, retries=0, a=Place(then=hello))
    world.places |= {"x/one": Place(*[failed(503)] * 5, then=hello), "x/two": Place(then=hello)}

    async def ask():
        return await world.engine.call(*asked(world.pools.listed(["x/one", "x/two"])))

    for _ in range(5):
        assert went(await ask()) == [("x/one", "server"), ("x/two", "ok")]
    world.registry.update("a", weight=2.0)
    world.pools.forget()
    answer = await ask()
    assert went(answer) == [("x/two", "ok")] and "left alone" in answer.decision.skipped["x/one"]


@under_time
async def test_entries_that_stay_as_they_were_are_not_made_again(virtual):
    world = World(virtual, a=Place(then=hello), b=Place(then=hello))
    await world.ask()
    world.registry.update("b", weight=2.0)
    await world.ask()
    assert world.made == ["a", "b", "b"]
    world.pools.forget()
    await world.ask()
    assert sorted(world.made[3:]) == ["a", "b"]


# ---- entries without a key --------------------------------------------------------------------


@under_time
async def test_an_entry_that_loses_its_key_is_asked_no_more_and_the_others_are(virtual):
    world = World(virtual, a=Place(then=hello), b=Place(then=hello))
    assert (await world.ask()).deployment == "a"
    world.closed["a"] = NO_KEY
    world.registry.update("a", api_key_env="NO_SUCH_VARIABLE")
    for _ in range(3):
        answer = await world.ask()
        assert answer.deployment == "b" and answer.decision.skipped == {"a": "no key for it"}
        assert isinstance(await failing_at(world, "a"), MissingKeyError)
    assert len(world.places["a"].sent) == 1
    del world.closed["a"]
    world.pools.forget()
    assert (await world.ask()).deployment == "a"


async def failing_at(world, name):
    with pytest.raises(PolyvoxError) as caught:
        world.pools.named(name)
    assert caught.value.decision.candidates[0].skipped == caught.value.message
    return caught.value


@under_time
async def test_a_tier_of_which_nobody_has_a_key_says_which_is_missing_and_auto_takes_another(virtual):
    tiers = {"a": {"tier": "economy"}, "b": {"tier": "premium"}}
    world = World(virtual, entries=tiers, a=Place(then=hello), b=Place(then=hello))
    world.closed["a"] = NO_KEY
    with pytest.raises(MissingKeyError):
        world.pools.of_tier("economy")
    answer = await world.engine.call(*asked(world.pools.of_tier("auto")))
    assert answer.deployment == "b"
    world.closed["b"] = NO_KEY
    world.pools.forget()
    with pytest.raises(MissingKeyError):
        await world.engine.call(*asked(world.pools.of_tier("auto")))
    run = world.engine.stream(*asked(world.pools.of_tier("auto")))
    for _ in range(2):
        with pytest.raises(MissingKeyError):
            await run.batch()
    await run.close()
    assert world.held() == {}


@under_time
async def test_a_tier_without_deployments_says_which_tiers_have_any(virtual):
    world = World(virtual, entries={"a": {"tier": "economy"}}, a=Place())
    with pytest.raises(NoDeploymentError) as caught:
        world.pools.of_tier("premium")
    assert "economy" in caught.value.hint


# ---- names ------------------------------------------------------------------------------------


@under_time
async def test_a_list_is_never_taken_for_a_tier_nor_a_name(virtual):
    world = World(virtual, entries={"a": {"tier": "fast"}}, a=Place(then=hello))
    world.places |= {"tier": Place(), "fast": Place(), "auto": Place(), "name": Place()}
    tier, name = world.pools.of_tier("fast"), world.pools.named("a")
    for names, other in ((["tier", "fast"], tier), (["name", "a"], name), (["tier", "auto"], None)):
        listed = world.pools.listed(names)
        assert listed is not other and len(listed.members) == 2
    assert world.pools.of_tier("fast") is tier and world.pools.named("a") is name
    assert len(world.pools.of_tier("auto").pools) == 0


@under_time
async def test_a_name_goes_before_a_model_and_a_model_before_a_pattern(virtual):
    world = World(virtual, entries={"b": {"aliases": ["quick"]}}, a=Place(), b=Place())
    assert [member.name for member in world.pools.named("quick").members] == ["b"]
    assert [member.name for member in world.pools.named("x/a").members] == ["a"]
    assert [member.name for member in world.pools.named("q*").members] == ["b"]
    assert world.pools.named("nobody") is None and world.pools.named("z*") is None


@under_time
async def test_who_is_named_twice_in_a_list_is_there_once_at_its_first_place(virtual):
    world = World(virtual, entries={"b": {"aliases": ["quick"]}}, a=Place(), b=Place())
    pool = world.pools.listed(["b", "quick", "x/*", "a"])
    assert [member.name for member in pool.members] == ["b", "a"]
    assert [group.priority for group in pool.candidates.groups] == [0, 2]


# ---- many changes, many threads ---------------------------------------------------------------


@under_time
async def test_thousands_of_changes_leave_nothing_behind(virtual):
    world = World(virtual, Routing(queue=10), entries={"a": {"limits": {"concurrency": 1}}}, a=Place(then=hello))
    world.places["a"].then = lambda: Slow(1, hello())
    for number in range(300):
        world.registry.update("a", weight=1.0 + number % 7)
        await asyncio.gather(world.ask(), world.ask())
    gc.collect()
    assert world.held() == {} and len(world.pools.members()) == 1
    assert world.member("a").standing.calls == 600


@under_time
async def test_however_many_lists_are_named_few_pools_are_kept_and_what_is_known_stays(virtual):
    world = World(virtual, retries=0, a=Place(failed(503), then=hello), b=Place(then=hello))
    await failing(world.ask("a"))
    for number in range(1200):
        names = ["a", "b"] + ["b"] * (number % 600) + ["a"] * (number // 600)
        assert len(world.pools.listed(names).members) == 2
    assert len(world.pools._pools) <= 1001 and world.member("a").standing.errors == 1


@settings(max_examples=30, deadline=None)
@given(
    changes=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["remove", "add", "edit", "key"])), max_size=8)
)
def test_whatever_changes_while_calls_are_under_way_all_of_them_end_and_hold_nothing(changes):
    async def main(virtual):
        places = {name: Place(then=lambda: Slow(3, hello())) for name in "abc"}
        world = World(virtual, entries={name: {"limits": {"concurrency": 1}} for name in "abc"}, **places)
        tasks = []
        for name, change in changes:
            there = world.registry.get_by_name(name) is not None
            if change == "remove" and there:
                world.registry.remove(name)
            elif change == "add" and not there:
                world.registry.add(Entry(name, f"x/{name}"))
            elif change == "edit" and there:
                world.registry.update(name, weight=virtual.chance() + 1)
            elif change == "key":
                world.closed = {} if world.closed else {name: NO_KEY}
                world.pools.forget()
            try:
                route = world.pools.named("*")
            except PolyvoxError:
                route = None
            if route is not None:
                tasks.append(asyncio.create_task(world.engine.call(*asked(route))))
            await asyncio.sleep(1)
        for answer in await asyncio.gather(*tasks):
            assert answer.text == "hello"
        assert world.pools.shared.leases.watchers == ()
        assert [world.pools.shared.leases.used(name).in_flight for name in "abc"] == [0, 0, 0]
        assert all(member.standing.in_flight == 0 for member in world.pools.members())

    Virtual(str(changes)).run(main)


def test_pools_may_be_asked_for_from_any_thread_while_the_registry_changes():
    virtual = Virtual(1)
    world = World(virtual, **{f"d{number}": Place() for number in range(20)})
    problems, stop = [], threading.Event()

    def look():
        try:
            while not stop.is_set():
                assert len(world.pools.named("*").members) == 20
                assert len({member.name for member in world.pools.members()}) >= 20
        except BaseException as error:
            problems.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=look) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for number in range(200):
            world.registry.update(f"d{number % 20}", weight=1.0 + number)
            if number % 10 == 0:
                world.pools.forget()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert problems == []


def test_a_deployment_is_made_once_whoever_asks_for_it_at_the_same_time():
    class Slowly(World):
        def make(self, entry):
            sleep(0.001)  # lets the others in
            return super().make(entry)

    world = Slowly(Virtual(1), **{f"d{number}": Place() for number in range(10)})
    together, found = threading.Barrier(4), []

    def ask():
        together.wait(30)
        found.append(world.pools.named("*"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(world.made)) == len(world.made) == 10 and len(set(map(id, found))) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is nothing to fork")
def test_a_child_process_holds_nothing_of_what_is_in_flight_in_its_parent():
    async def main(virtual):
        world = World(virtual, entries={"a": {"limits": {"concurrency": 1}}}, a=Place(Slow(5, hello())))
        task = world.begin()
        await asyncio.sleep(1)
        child = os.fork()
        if not child:  # nothing but counting happens here, and nothing of the parent's is run
            os._exit(0 if world.held() == {} and world.pools.named("a").members[0].standing.calls == 0 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert world.held() == {"a": (1, 1)}
        await task

    Virtual(1).run(main)
