"""To whom a call is bound, and who meets the calls that begin alike."""

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from polyvox.dialects import Endpoint, Reply, dialect
from polyvox.dialects.bound import KEPT
from polyvox.routing.affinity import FREE, WORTH, Minted, Pins, key_of, pins_of
from polyvox.routing.needs import Wanted
from polyvox.routing.pick import STRATEGIES, Candidate, Candidates, Order, seed_of
from polyvox.types import (
    CacheHint,
    EmbedRequest,
    File,
    Image,
    Message,
    Opaque,
    Reasoning,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)


def asking(*messages, **facts):
    return Request("m", messages, **facts)


def user(*parts):
    return Message("user", parts)


def assistant(*parts):
    return Message("assistant", parts)


# ---- who minted what --------------------------------------------------------------------------


def test_a_request_of_plain_words_is_bound_to_nobody():
    assert pins_of(asking(user(Text("Hello")), assistant(Text("Hi"), Reasoning("hm", origin="p/a")))) is FREE
    assert pins_of(EmbedRequest(model="m", inputs=("a",))) is FREE


@pytest.mark.parametrize(
    "part",
    [
        Reasoning("hm", signature="s", origin="p/a"),
        Reasoning(encrypted="e", origin="p/a"),
        Text("x", signature="s", origin="p/a"),
        ToolCall("1", "f", signature="s", origin="p/a"),
        Opaque("some.dialect", "block", {}, "p/a"),
        ToolResult("1", (Opaque("some.dialect", "block", {}, "p/a"),)),
        Text("x", extra={"some.dialect": {"id": "msg_1", "minted_by": "p/a"}}),
        Text("x", extra={"some.dialect": {"item": {"id": "msg_1", "minted_by": "p/a"}}}),
    ],
)
def test_whoever_minted_a_proof_or_a_block_is_asked_rather(part):
    assert pins_of(asking(assistant(part))) == Pins(rather=("p/a",))


def test_the_latest_to_mint_comes_first():
    older, newer = (Reasoning("hm", signature="s", origin=name) for name in ("p/a", "p/b"))
    assert pins_of(asking(assistant(older), user(Text("go on")), assistant(newer))).rather == ("p/b", "p/a")


def test_a_file_binds_to_who_keeps_it_alone():
    assert pins_of(asking(user(File(file_id="f", origin="p/a")))) == Pins(only=("p/a",))
    assert pins_of(asking(user(ToolResult("1", (Image(file_id="f", origin="p/a"),))))) == Pins(only=("p/a",))
    assert pins_of(asking(user(File(file_id="f")))) is FREE
    assert pins_of(asking(user(Image(data=b"1", origin="p/a")))) is FREE


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in KEPT.items() for key in keys])
def test_what_a_server_keeps_binds_to_that_server_where_it_is_known_and_else_to_its_dialect(name, key):
    request, minted = asking(extra={name: {key: "id-1"}}), Minted()
    assert pins_of(request) == pins_of(request, minted) == Pins(speaks=(name,))
    minted.add("id-1", "p/a")
    assert pins_of(request, minted) == Pins(only=("p/a",))
    assert pins_of(asking(extra={name: {key: {"id": "id-1"}}}), minted) == Pins(only=("p/a",))
    assert pins_of(asking(extra={name: {key: None}}), minted) is FREE


def test_an_id_that_a_real_answer_brought_leads_back_to_who_gave_it():
    body = (
        b'{"id":"resp_1","object":"response","status":"completed","model":"m","output":[{"type":"message",'
        b'"id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Hi"}]}]}'
    )
    response = dialect("openai.responses").decode_response(Reply(200, {}, body), Endpoint("http://x/v1", "p/a"))
    assert pins_of(asking(response.message)).rather == ("p/a",)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyz")), max_size=60))
def test_the_latest_ids_are_remembered_and_no_more_than_fit(added):
    minted = Minted(most=3)
    for id_, name in added:
        minted.add(id_, name)
        assert minted.get(id_) == name
        assert len(minted) <= 3
    latest = list(dict.fromkeys(id_ for id_, _ in reversed(added)))[:3]
    assert all(minted.get(id_) == dict(added)[id_] for id_ in latest)


# ---- what begins alike ------------------------------------------------------------------------

RULES = Text("Be brief. " * 600)
HELLO, HOWDY = user(Text("Hello")), user(Text("Howdy"))


def test_a_conversation_keeps_its_key_as_it_grows_and_another_has_another():
    begun = asking(Message("system", (RULES,)), HELLO)
    grown = replace(begun, messages=(*begun.messages, assistant(Text("Hi")), user(Text("And now?"))))
    other = asking(Message("system", (RULES,)), HOWDY)
    assert key_of(begun) == key_of(grown) is not None
    assert key_of(other) != key_of(begun)


def test_a_mark_that_moves_along_changes_nothing():
    turns = (Message("system", (replace(RULES, cache=CacheHint()),)), HELLO, assistant(Text("Hi")), HOWDY)
    marked = [
        asking(*turns[:place], user(replace(turns[place].parts[0], cache=CacheHint("1h")))) for place in (1, 3)
    ]  # fmt: skip
    assert key_of(marked[0]) == key_of(marked[1]) is not None


def test_where_the_last_mark_stands_before_the_question_only_what_is_before_it_counts():
    document = Text("A long document.", cache=CacheHint())
    assert key_of(asking(user(document, Text("Who?")))) == key_of(asking(user(document, Text("When?"))))
    tools = (Tool("f", cache=CacheHint()),)
    assert key_of(asking(HELLO, tools=tools)) == key_of(asking(HOWDY, tools=tools)) is not None
    assert key_of(asking(HELLO, tools=tools)) != key_of(asking(HELLO, tools=(Tool("g", cache=CacheHint()),)))


def test_the_callers_own_key_goes_before_everything():
    assert key_of(asking(HELLO, cache_key="k")) == key_of(asking(HOWDY, cache_key="k")) == seed_of("k")


def test_what_is_too_short_to_be_kept_has_no_key_unless_it_is_marked():
    assert key_of(asking(HELLO)) is None
    assert key_of(asking(user(Text("x" * (WORTH - 1))))) is None
    assert key_of(asking(user(Text("x" * WORTH)))) is not None
    assert key_of(asking(HELLO, cache=CacheHint())) is not None
    assert key_of(EmbedRequest(model="m", inputs=("x" * WORTH,))) is None


def test_how_long_a_mark_holds_makes_no_difference():
    keys = {key_of(asking(user(Image(url="u", cache=CacheHint(ttl)), Text("?")))) for ttl in ("5m", "1h")}
    assert len(keys) == 1


@given(st.lists(st.text(max_size=5), min_size=1, max_size=3), st.lists(st.text(max_size=5), min_size=1, max_size=3))
@example(["ab"], ["a", "b"])
@example(["a", "bc"], ["ab", "c"])
def test_two_beginnings_have_one_key_only_if_they_are_the_same(some, others):
    one, other = (
        asking(user(*[Text(text) for text in texts]), cache=CacheHint()) for texts in (some, others)
    )  # fmt: skip
    assert (key_of(one) == key_of(other)) is (some == others)


# ---- who meets them ---------------------------------------------------------------------------

KEYS = [seed_of(f"conversation {number}") for number in range(6000)]


def meets(candidates, key):
    """Names in the order in which a beginning meets them."""
    order = Order(candidates, STRATEGIES["weighted"], Wanted(asking()), 0.5, key=key)
    return [candidates.names[place] for place in order]


def pool(weights):
    return Candidates([Candidate(name, weight) for name, weight in weights.items()])


POOLS = st.dictionaries(st.text(max_size=4), st.sampled_from([0.5, 1.0, 4.0]), min_size=2, max_size=9)


@given(POOLS, st.text(), st.data())
def test_who_leaves_the_pool_moves_only_those_who_met_it(weights, text, data):
    gone = data.draw(st.sampled_from(sorted(weights)))
    key = seed_of(text)
    before = meets(pool(weights), key)
    left = {name: weight for name, weight in weights.items() if name != gone}
    assert meets(pool(left), key) == [name for name in before if name != gone]


@given(POOLS, st.text(), st.randoms(use_true_random=False))
def test_whom_a_beginning_meets_does_not_depend_on_the_order_of_the_registry_nor_on_chance(weights, text, mixed):
    names = list(weights)
    mixed.shuffle(names)
    assert meets(pool(weights), seed_of(text)) == meets(pool({name: weights[name] for name in names}), seed_of(text))


def test_when_one_joins_its_share_moves_to_it_and_nobody_else_moves():
    before, after = pool({"a": 1, "b": 1, "c": 1}), pool({"a": 1, "b": 1, "c": 1, "d": 1})
    moved = [key for key in KEYS if meets(before, key)[0] != meets(after, key)[0]]
    assert {meets(after, key)[0] for key in moved} == {"d"}
    assert 0.22 < len(moved) / len(KEYS) < 0.28


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1, "c": 1, "d": 1}, {"a": 1, "b": 3}, {"x": 5, "y": 1, "z": 2}])
def test_beginnings_are_shared_by_weight(weights):
    candidates, total = pool(weights), sum(weights.values())
    counts = Counter(meets(candidates, key)[0] for key in KEYS)
    for name, weight in weights.items():
        assert abs(counts[name] / len(KEYS) - weight / total) < 0.03
