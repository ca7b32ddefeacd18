"""Every fault of a plan shows on the wire as it is named, is counted, and is never an answer that looks whole to
a client that reads carefully."""

import json
import re
import struct
import zlib

import pytest

from polyvox import Client
from polyvox.config import Settings
from polyvox.dialects import NAMES, Endpoint, Reply, dialect
from polyvox.dialects.collect import Collector
from polyvox.errors import ConfigError, PolyvoxError
from polyvox.testing import Fault, Simulator
from polyvox.transports.demo import DemoTransport
from polyvox.transports.fault_plan import KINDS, plan_file
from polyvox.transports.faults import FaultTransport
from tests.testing.asking import HELLO, KEY, ask, events, get, seconds_of

DIALECTS = pytest.mark.parametrize("name", NAMES)
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
NOT_HERE = ("refuse", "connect_timeout")
PLAYED = [kind for kind in KINDS if kind not in NOT_HERE]

# What each kind needs to show itself quickly.
ROWS = {
    "delay": {"seconds": 0.05},
    "slow_head": {"seconds": 0.0005},
    "cut": {"after": 40},
    "reset": {"after": 40},
    "stall": {"after": 40},
    "half_close": {"after": 40},
    "bad_chunk": {"after": 40},
    "garble": {"after": 40},
    "huge_line": {"size": 1 << 25},
    "endless": {"size": 4000},
    "header_bomb": {"size": 100_000},
    "gzip_bomb": {"size": 100_000},
}
HARMLESS = ("delay", "drip", "split", "slow_head", "gzip_bomb")
ONLY_STREAMS = ("error_event", "no_end", "endless")
# Where the events of a stream have all come, what is wrong behind them harms nobody,
BEHIND_THE_END = ("length_too_big", "no_final_chunk")
# but where no event is the last: there the usage may come behind the reason to finish, and the body's end is the end.
ENDS_WITH_ITS_BODY = ("gemini.generate",)


def row(kind, **more):
    return {"kind": kind, **ROWS.get(kind, {}), **more}


def simulating(kind, **more):
    return Simulator(plan=[row(kind, **more)])


def good(name, stream):
    with Simulator() as simulator:
        return ask(simulator, name, stream)


@pytest.fixture(scope="module")
def answers():
    """What each dialect answers when nothing is broken."""
    return {(name, stream): good(name, stream) for name in NAMES for stream in (False, True)}


def last_event(name, body):
    reader = dialect(name).reader(Endpoint())
    return [*reader.feed(body), *reader.close()][-1]


def ask_broken(name, stream, kind, quiet=5.0, **more):
    with simulating(kind, **more) as simulator:
        got = ask(simulator, name, stream, quiet=quiet)
        assert simulator.counts.faults == {kind: 1} and simulator.requests[0].fault == kind
    return got


# ---- every kind, in every dialect -------------------------------------------------------------


@pytest.mark.parametrize("kind", PLAYED)
@BOTH
@DIALECTS
def test_a_fault_is_an_error_of_our_tree_or_harmless_and_never_a_short_answer(answers, kind, stream, name):
    with simulating(kind, **({"status": 503} if kind == "status" else {})) as simulator:
        # A server on this machine is given long for its first byte: only the time for all of it ends that.
        seconds = 0.5 if kind == "first_byte_timeout" else 10.0
        settings = Settings(idle_timeout=0.2)
        options = {"dialect": name, "api_key": KEY, "settings": settings, "retries": 0, "timeout": seconds}
        with Client("any-model", base_url=simulator.base_url(name), **options) as client:
            text, error = outcome(client, stream)
        applies = stream or kind not in ONLY_STREAMS
        assert simulator.counts.faults == ({kind: 1} if applies else {})
        assert simulator.counts.answers == (kind in ("delay", "drip", "split") or not applies)
    whole = text_of(name, answers[name, stream], stream)
    behind = stream and kind in BEHIND_THE_END
    if kind in HARMLESS or not applies or (behind and name not in ENDS_WITH_ITS_BODY):
        assert error is None and text == whole
    elif behind:
        assert error.kind == "stream_interrupted" and text == whole == error.partial.text
    else:
        assert isinstance(error, PolyvoxError)
        assert whole.startswith(text) or kind == "endless"


def outcome(client, stream):
    """The words that came, and the error that ended them."""
    text = ""
    try:
        if not stream:
            return client.ask(HELLO).text, None
        for words in client.stream(HELLO):
            text += words
    except PolyvoxError as error:
        return text, error
    return text, None


def text_of(name, got, stream):
    room = dialect(name)
    if not stream:
        return room.decode_response(Reply(200, got.headers, got.body), Endpoint()).text
    reader, collector = room.reader(Endpoint()), Collector()
    for event in (*reader.feed(got.body), *reader.close()):
        collector.add(event)
    return collector.response().text


# ---- instead of asking ------------------------------------------------------------------------


@DIALECTS
@pytest.mark.parametrize(("status", "kind"), [(429, "rate_limit"), (500, "server"), (529, "overloaded"), (401, "auth")])
def test_a_status_is_said_in_the_dialects_own_form(name, status, kind):
    got = ask_broken(name, False, "status", status=status, headers={"Retry-After": "7"})
    error = dialect(name).decode_error(Reply(got.status, got.headers, got.body), Endpoint())
    assert got.status == status and got.headers["retry-after"] == "7"
    assert error.kind == kind and error.message.startswith("planned fault") and got.whole


def test_a_status_with_a_body_says_just_that():
    got = ask_broken("openai.chat", True, "status", status=503, body={"error": {"message": "busy"}})
    assert got.status == 503 and got.json == {"error": {"message": "busy"}}


@pytest.mark.parametrize("status", [200, 204, 304])
def test_a_status_that_is_no_error_has_no_body_but_the_planned_one(status):
    body = {} if status == 200 else {"body": "HTTP allows none"}
    got = ask_broken("openai.chat", False, "status", status=status, **body)
    assert (got.status, got.body, got.end) == (status, b"", "closed")


def test_a_login_page_comes_with_200():
    got = ask_broken("openai.chat", False, "html")
    assert got.status == 200 and got.headers["content-type"].startswith("text/html") and b"Sign in" in got.body


def test_an_empty_answer_has_a_head_and_no_body():
    got = ask_broken("openai.chat", True, "empty")
    assert got.status == 200 and got.headers["content-length"] == "0" and got.body == b""


def test_no_head_is_a_connection_that_closes_without_a_word():
    assert ask_broken("openai.chat", False, "no_head")[3:] == (b"", "closed")
    assert ask_broken("openai.chat", False, "reset_head")[3:] == (b"", "reset")


def test_no_first_byte_is_silence():
    assert ask_broken("openai.chat", False, "first_byte_timeout", quiet=0.2)[3:] == (b"", "open")


def test_rubbish_is_no_http():
    got = ask_broken("openai.chat", False, "rubbish")
    assert got.raw and not got.raw.startswith(b"HTTP/") and got.end == "closed"
    assert ask_broken("openai.chat", False, "rubbish", body="SSH-2.0-x\r\n").raw == b"SSH-2.0-x\r\n"


# ---- before and in the head -------------------------------------------------------------------


@BOTH
def test_a_delay_comes_before_the_head_and_changes_nothing_else(answers, stream):
    taken = seconds_of(lambda: answers.update(got=ask_broken("openai.chat", stream, "delay", seconds=0.3)))
    assert 0.3 <= taken < 2 and answers.pop("got").body == answers["openai.chat", stream].body


@BOTH
def test_a_slow_head_comes_byte_by_byte(answers, stream):
    taken = seconds_of(lambda: answers.update(got=ask_broken("openai.chat", stream, "slow_head", seconds=0.002)))
    got = answers.pop("got")
    assert taken > 0.2 and got.body == answers["openai.chat", stream].body and got.whole


def test_bad_heads():
    bomb = ask_broken("openai.chat", False, "header_bomb", size=70_000)
    assert len(bomb.headers["x-bomb"]) == 70_000 and bomb.whole
    assert b"\r\nthis line has no colon\r\n" in ask_broken("openai.chat", False, "bad_header").raw


@BOTH
def test_a_length_is_too_big_or_too_small(answers, stream):
    body = answers["openai.chat", stream].body
    big = ask_broken("openai.chat", stream, "length_too_big")
    small = ask_broken("openai.chat", stream, "length_too_small")
    assert int(big.headers["content-length"]) > len(big.body) and big.body == body and big.end == "closed"
    assert int(small.headers["content-length"]) < len(small.body) and small.body == body


@BOTH
def test_what_is_said_to_be_compressed_is_not_or_is_a_bomb(answers, stream):
    body = answers["openai.chat", stream].body
    bad = ask_broken("openai.chat", stream, "bad_gzip")
    bomb = ask_broken("openai.chat", stream, "gzip_bomb", size=1_000_000)
    assert bad.headers["content-encoding"] == bomb.headers["content-encoding"] == "gzip"
    assert bad.body == body and len(bomb.body) < 5000
    assert zlib.decompress(bomb.body, wbits=31) == b"\n" * 1_000_000 + body


@BOTH
@DIALECTS
def test_the_blanks_of_a_bomb_are_such_as_every_reader_of_the_dialect_passes_over(answers, name, stream):
    whole = answers[name, stream]
    bomb = ask_broken(name, stream, "gzip_bomb", size=200_000)
    body = zlib.decompress(bomb.body, wbits=31)
    front = body.removesuffix(whole.body)
    assert len(front) < len(body)
    if stream and name == "bedrock.converse":
        assert sum(map(len, re.findall(rb'(?<="p":") *(?="})', front))) == 200_000
    else:
        assert front == b"\n" * 200_000
    assert text_of(name, bomb._replace(body=body), stream) == text_of(name, whole, stream)


# ---- in the body ------------------------------------------------------------------------------


@BOTH
@DIALECTS
@pytest.mark.parametrize("after", [0, 1, 57])
def test_a_cut_ends_as_if_well_after_exactly_so_many_bytes(answers, name, stream, after):
    got = ask_broken(name, stream, "cut", after=after)
    assert got.body == answers[name, stream].body[:after] and got.whole and got.end == "closed"


@BOTH
@pytest.mark.parametrize("kind", ["reset", "bad_chunk", "half_close", "stall", "no_final_chunk"])
@pytest.mark.parametrize("after", [0, 57])
def test_a_break_comes_after_exactly_so_many_bytes(answers, kind, stream, after):
    body = answers["openai.chat", stream].body
    more = {} if kind == "no_final_chunk" else {"after": after}
    got = ask_broken("openai.chat", stream, kind, quiet=0.2, **more)
    assert got.body == (body if kind == "no_final_chunk" else body[:after]) and not got.whole
    assert got.end == {"reset": "reset", "stall": "open"}.get(kind, "closed")
    assert (b"this is no size of a chunk\r\n" in got.raw) == (kind == "bad_chunk")


def test_a_half_closed_connection_is_still_open_on_our_side():
    with simulating("half_close") as simulator:
        got = ask(simulator, "openai.chat")
        assert got.end == "closed"
        assert simulator.wait_for(lambda it: it.requests[0].outcome == "cut_by_client")


@pytest.mark.parametrize(
    "kind", ["cut", "reset", "stall", "half_close", "bad_chunk", "garble", "huge_line", "error_event", "endless"]
)
@BOTH
def test_a_body_too_short_for_a_fault_is_left_alone_and_nothing_is_counted(answers, kind, stream):
    with simulating(kind, after=100_000) as simulator:
        got = ask(simulator, "openai.chat", stream)
        assert simulator.counts.faults == {} and simulator.counts.answers == 1
        assert simulator.requests[0].fault is None
    assert got.body == answers["openai.chat", stream].body


@BOTH
def test_one_byte_is_garbled(answers, stream):
    body, got = answers["openai.chat", stream].body, ask_broken("openai.chat", stream, "garble", after=57)
    assert [at for at in range(len(body)) if got.body[at] != body[at]] == [57] and got.body[57] == body[57] ^ 0xFF


def test_a_drip_is_one_byte_a_chunk_and_a_split_pieces_by_seed(answers):
    body = answers["openai.chat", True].body
    drip = ask_broken("openai.chat", True, "drip")
    assert drip.body == body and drip.raw.count(b"\r\n1\r\n") == len(body)
    pieces = []
    for seed in (1, 1, 2):
        with Simulator(plan=[Fault("split")], seed=seed) as simulator:
            got = ask(simulator, "openai.chat", stream=True)
        assert got.body == body and got.whole
        pieces.append(got.raw.partition(b"\r\n\r\n")[2])
    assert pieces[0] == pieces[1] != pieces[2]


def test_a_drip_has_a_pause_before_each_byte():
    with simulating("drip", seconds=0.001) as simulator:
        taken = seconds_of(lambda: ask(simulator, "ollama.chat"))
        assert taken >= 0.001 * 200


def test_a_drip_has_its_pauses_in_process_too():
    transport = FaultTransport(DemoTransport(), [Fault("drip", seconds=0.002)])
    with Client("demo", transport=transport, retries=0, settings=Settings()) as client:
        assert seconds_of(lambda: client.ask(HELLO)) >= 0.002 * 200


# ---- in the events ----------------------------------------------------------------------------


@DIALECTS
@pytest.mark.parametrize(("status", "kind"), [(500, "server"), (529, "overloaded"), (429, "rate_limit")])
def test_an_error_comes_inside_the_stream_in_the_dialects_own_form(answers, name, status, kind):
    body = answers[name, True].body
    got = ask_broken(name, True, "error_event", status=status, after=len(body) // 2)
    last = last_event(name, got.body)
    assert last.error.kind == kind and last.error.message.startswith("planned fault")
    *front, _ = events(name, got.body)
    length = len(b"".join(front))
    assert events(name, body)[: len(front)] == front and length - len(front[-1]) < len(body) // 2 <= length
    assert text_of(name, got, True) and got.whole


@DIALECTS
def test_an_error_may_be_the_first_thing_in_a_stream(name):
    got = ask_broken(name, True, "error_event")
    assert last_event(name, got.body).error.kind == "server" and text_of(name, got, True) == ""


@DIALECTS
def test_without_its_end_a_stream_has_all_its_words_and_is_not_whole(answers, name):
    got = ask_broken(name, True, "no_end")
    assert last_event(name, got.body).error.kind == "stream_interrupted"
    assert text_of(name, got, True) == text_of(name, answers[name, True], True)
    assert answers[name, True].body.startswith(got.body) and got.whole and got.end == "closed"


@DIALECTS
def test_an_endless_stream_says_a_word_again_and_again_for_so_many_bytes(answers, name):
    got = ask_broken(name, True, "endless", size=20_000, after=600)
    assert 20_000 <= len(got.body) < 23_000
    assert len(text_of(name, got, True)) > 5 * len(text_of(name, answers[name, True], True))
    assert last_event(name, got.body).error.kind == "stream_interrupted"


@BOTH
@DIALECTS
def test_a_huge_line_is_so_many_bytes_without_an_end(answers, name, stream):
    got, whole = ask_broken(name, stream, "huge_line", size=300_000, after=3), answers[name, stream].body
    front = got.body.rstrip(b"x")
    assert len(got.body) - len(front) == 300_000
    if not stream:
        assert front == whole[:3]
    elif name == "bedrock.converse":
        # An event begins with its length, and has another checksum at its end, which does not come.
        length, fields, _ = struct.unpack(">III", front[-12:])
        assert (length, fields) == (12 + 300_000 + 4, 0) and front[:-12] == events(name, whole)[0]
    else:
        assert front == events(name, whole)[0]


@pytest.mark.parametrize("kind", ONLY_STREAMS)
def test_a_whole_answer_has_no_events_to_break(answers, kind):
    with simulating(kind) as simulator:
        assert ask(simulator, "openai.chat").body == answers["openai.chat", False].body
        assert simulator.counts.faults == {}


# ---- which calls ------------------------------------------------------------------------------


def test_only_the_calls_that_are_meant_are_broken():
    plan = [Fault("status", at=(2, 4)), {"kind": "status", "status": 503, "times": 1}]
    with Simulator(plan=plan) as simulator:
        statuses = []
        for _ in range(5):
            get(simulator, "/health")  # no call
            statuses.append(ask(simulator, "openai.chat").status)
        assert statuses == [503, 500, 200, 500, 200]
        assert simulator.counts.faults == {"status": 3} and simulator.counts.errors == {500: 2, 503: 1}
        assert [asked.call for asked in simulator.requests] == [None, 1, None, 2, None, 3, None, 4, None, 5]


def test_chance_is_by_seed_and_the_same_in_process_and_on_a_socket():
    def broken(seed):
        with Simulator(plan=[Fault("status", share=0.4)], seed=seed) as simulator:
            return [ask(simulator, "openai.chat").status for _ in range(12)]

    def broken_in_process(seed):
        found = []
        transport = FaultTransport(DemoTransport(), [Fault("status", share=0.4)], seed=seed)
        with Client("demo", transport=transport, retries=0, settings=Settings()) as client:
            for _ in range(12):
                found.append(500 if outcome(client, stream=False)[1] else 200)
        return found

    assert broken(1) == broken(1) == broken_in_process(1) != broken(2)
    assert 0 < broken(1).count(500) < 12


def test_a_fault_breaks_a_refusal_too():
    with simulating("cut", after=5) as simulator:
        got = ask(simulator, "openai.chat", key=None)
        assert got.status == 401 and len(got.body) == 5
        assert simulator.counts.errors == {401: 1} and simulator.requests[0].outcome == "broken"


# ---- plans ------------------------------------------------------------------------------------


def test_a_plan_may_be_a_file(tmp_path):
    toml, data = tmp_path / "plan.toml", tmp_path / "plan.json"
    toml.write_text('[[fault]]\nkind = "cut"\nafter = 10\nat = 1\n', encoding="utf-8")
    data.write_text(json.dumps([{"kind": "cut", "after": 10, "at": 1}]), encoding="utf-8-sig")
    assert plan_file(toml) == plan_file(str(data)) == (Fault("cut", (1,), after=10),)
    for path in (toml, str(data)):
        with Simulator(plan=path) as simulator:
            assert len(ask(simulator, "openai.chat").body) == 10


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "fault = [", "is not TOML"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "\udc80", "cannot read"),
        ("a.toml", '[[fault]]\nkind = "melt"\n', "the plan of faults is wrong"),
        ("a.toml", None, "cannot read"),
    ],
)
def test_a_plan_file_that_is_none_is_an_error_that_names_it(tmp_path, name, text, words):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=words):
        Simulator(plan=path)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_played_here_or_refused_with_a_reason(kind):
    try:
        Simulator(plan=[row(kind)])
    except ConfigError as error:
        assert kind in NOT_HERE and f"fault 1: {kind} leaves the server no request" in error.problems[0]
    else:
        assert kind not in NOT_HERE


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_played_in_process_or_refused_with_a_reason(kind):
    try:
        FaultTransport(DemoTransport(), [row(kind)])
    except ConfigError as error:
        assert f"fault 1: {kind} needs a socket" in error.problems[0]
    else:
        assert "*" not in Fault.__doc__.split(f'"{kind}"')[1][:1]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "no_end", "after": 1}, "no_end has no after"),
        ({"kind": "endless", "size": 0}, "size must be"),
        ({"kind": "endless", "size": 1 << 40}, "size must be"),
        ({"kind": "drip", "seconds": -1}, "seconds must be"),
        ({"kind": "status", "headers": {"x-a": "b\r\nx-c: d"}}, "headers must be"),
    ],
)
def test_a_wrong_fault_says_what_is_wrong_with_it(fault, words):
    with pytest.raises(ConfigError) as caught:
        Simulator(plan=[fault])
    assert words in caught.value.problems[0]
