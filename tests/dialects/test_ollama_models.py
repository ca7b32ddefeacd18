"""What an Ollama server says of its models, read as values: lists, what is loaded, all of one model, a pull by its
steps. A pull ends well only when the server says so, however its bytes are cut."""

import itertools
import json
from pathlib import Path

import ollama
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.dialects import NAMES, Reply
from polyvox.dialects.model_store import KEEPERS, KeptModel, LoadedModel, PullProgress, store
from polyvox.errors import (
    BadResponseError,
    InputError,
    NotFoundError,
    PolyvoxError,
    ServerError,
    StreamInterruptedError,
)

DATA = Path(__file__).parent / "ollama_models"
STORE = store("ollama.chat")
PULL = (DATA / "pull.ndjson").read_bytes()


def reply(name):
    return Reply(200, {}, (DATA / name).read_bytes())


def body(value):
    return Reply(200, {}, json.dumps(value).encode())


def pulled(*chunks, close=True):
    reader, steps = STORE.pull_reader(), []
    for chunk in chunks:
        steps += reader.feed(chunk)
    if close:
        steps += reader.close()
    return reader, steps


def test_every_keeper_of_models_is_a_dialect():
    assert set(KEEPERS) <= set(NAMES)
    with pytest.raises(KeyError):
        store("openai.chat")


# ---- lists ------------------------------------------------------------------------------------


def test_a_list_is_read_and_what_the_server_leaves_empty_is_not_known():
    first, second = STORE.read_listing(reply("tags.json"))
    assert first == KeptModel(
        name="codellama:13b",
        size=7365960935,
        digest="9f438cb9cd581fc025612d27f7c1a6669ff83a8bb0ed86c94fcf4c5440555697",
        modified=pytest.approx(1699135009.277302),
        format="gguf",
        family="llama",
        parameter_size="13B",
        quantization="Q4_0",
    )
    assert (second.name, second.family, second.quantization) == ("llama3:latest", None, None)


def test_what_is_loaded_is_read_and_a_time_that_means_nothing_is_none():
    first, second = STORE.read_loaded(reply("ps.json"))
    assert first == LoadedModel(
        name="mistral:latest",
        digest="2ae6f6dd7a3dd734790bbbf58b8909a606e0e7e97e94b7604e0aa7ae4490e6d8",
        size=5137025024,
        vram=4000000000,
        context=4096,
        expires=pytest.approx(1717537111.83753),
    )
    assert second == LoadedModel(name="old:latest", size=100)


def test_a_model_is_read_with_its_context_wherever_its_family_puts_it():
    facts = STORE.read_facts(reply("show.json"), "llava")
    assert (facts.name, facts.context, facts.capabilities) == ("llava", 8192, ("completion", "vision"))
    assert facts.parameters.splitlines()[0].split() == ["num_keep", "24"]
    assert (facts.license, facts.parameter_size) == ("LLAMA 3 COMMUNITY LICENSE", "8.0B")
    assert facts.details["general.parameter_count"] == 8030261248 and facts.details["requires"] == "0.9.0"
    assert "tokenizer.ggml.merges" not in facts.details, "lists are no plain values"


def test_of_a_model_that_says_nothing_nothing_is_known():
    facts = STORE.read_facts(body({"details": {}, "model_info": None, "license": ["a", "b"]}), "m")
    assert (facts.context, facts.capabilities, facts.parameters, facts.modified) == (None, (), None, None)
    assert facts.license == "a\n\nb"


def test_the_official_clients_types_take_the_same_bodies():
    listed = ollama.ListResponse.model_validate_json(reply("tags.json").body)
    assert [model.size for model in listed.models] == [model.size for model in STORE.read_listing(reply("tags.json"))]
    loaded = ollama.ProcessResponse.model_validate_json(reply("ps.json").body)
    assert [model.context_length or None for model in loaded.models] == [
        model.context for model in STORE.read_loaded(reply("ps.json"))
    ]
    shown = ollama.ShowResponse.model_validate_json(reply("show.json").body)
    assert tuple(shown.capabilities) == STORE.read_facts(reply("show.json"), "m").capabilities
    steps = [ollama.ProgressResponse.model_validate_json(line) for line in PULL.splitlines()]
    assert [(s.status, s.digest, s.completed, s.total) for s in steps] == [
        (s.status, s.digest, s.completed, s.total) for s in pulled(PULL)[1]
    ]


# ---- requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "method", "path", "said"),
    [
        (STORE.listing(), "GET", "/api/tags", None),
        (STORE.loaded(), "GET", "/api/ps", None),
        (STORE.facts("m"), "POST", "/api/show", {"model": "m"}),
        (STORE.pull("m"), "POST", "/api/pull", {"model": "m", "stream": True}),
        (STORE.delete("m"), "DELETE", "/api/delete", {"model": "m"}),
        (STORE.copy("m", "n"), "POST", "/api/copy", {"source": "m", "destination": "n"}),
        (STORE.load("m", None), "POST", "/api/generate", {"model": "m", "stream": False}),
        (STORE.load("m", 0), "POST", "/api/generate", {"model": "m", "stream": False, "keep_alive": 0}),
    ],
)  # fmt: skip
def test_requests_are_those_of_the_servers_own_page(wire, method, path, said):
    assert (wire.method, wire.path) == (method, path)
    assert (json.loads(wire.body) if wire.body else None) == said


@pytest.mark.parametrize(
    ("said", "sent"),
    [(600, 600), (0.5, 0.5), ("10m", "10m"), ("1h30m", "1h30m"), ("-1", -1), (" 90 ", 90), ("-1m", "-1m")],
)
def test_a_time_to_stay_loaded_goes_as_the_server_reads_it(said, sent):
    assert STORE.keep_alive(said) == sent


@pytest.mark.parametrize("said", ["", "soon", "5 m", "m5", "1d", "nan", float("inf"), True, None, "9" * 40])
def test_what_is_no_time_is_refused_before_it_is_sent(said):
    with pytest.raises(InputError) as caught:
        STORE.keep_alive(said)
    assert caught.value.param == "keep_alive"


@pytest.mark.parametrize(
    ("asked", "kept", "same"),
    [
        ("tiny", "tiny:latest", True),
        ("Tiny", "tiny:latest", True),
        ("tiny:7b", "tiny:7b", True),
        ("tiny", "tiny:7b", False),
        ("hf.co/a/b", "hf.co/a/b:latest", True),
        ("host:5000/a", "host:5000/a:latest", True),
        ("tin", "tiny:latest", False),
    ],
)
def test_a_name_without_a_tag_means_the_usual_one(asked, kept, same):
    assert STORE.fits(asked, kept) is same


# ---- pulls ------------------------------------------------------------------------------------


def test_a_pull_is_told_step_by_step_and_ends_when_the_server_has_the_model():
    reader, steps = pulled(PULL, close=False)
    assert reader.done and reader.error is None
    assert steps[0] == PullProgress("pulling manifest")
    assert (steps[1].completed, steps[1].total) == (None, 4661211424), "nothing told is not 0"
    assert steps[2].completed == 241970 and steps[2].digest.startswith("sha256:8eeb52dfb3bb")
    assert steps[-1] == PullProgress("success")


@given(st.lists(st.integers(0, len(PULL)), max_size=6))
def test_however_its_bytes_are_cut_a_pull_is_the_same(cuts):
    edges = [0, *sorted(cuts), len(PULL)]
    reader, steps = pulled(*(PULL[a:b] for a, b in itertools.pairwise(edges)))
    assert steps == pulled(PULL)[1] and reader.error is None


@given(st.integers(0, len(PULL) - 1))
def test_a_pull_that_is_cut_before_its_end_is_never_a_success(end):
    reader, steps = pulled(PULL[:end])
    whole = PULL[:end].rstrip().endswith(b'"success"}')
    assert reader.done and (reader.error is None) == whole
    if not whole:
        assert isinstance(reader.error, StreamInterruptedError) and reader.error.sent == "yes"
        assert PullProgress("success") not in steps


def test_an_error_midway_is_an_error_after_the_steps_before_it():
    reader, steps = pulled(
        b'{"status":"pulling manifest"}\n{"error":"no space left on device"}\n{"status":"success"}\n'
    )
    assert steps == [PullProgress("pulling manifest")]
    assert type(reader.error) is not StreamInterruptedError and "no space left" in reader.error.message
    assert reader.feed(b'{"status":"success"}\n') == [] and reader.error is not None


def test_a_model_the_library_has_not_is_not_found():
    reader, _ = pulled(b'{"error":"pull model manifest: file does not exist"}\n')
    assert type(reader.error) is NotFoundError and "library" in reader.error.hint


@pytest.mark.parametrize(
    "line", [b"[]", b"null", b'{"status":5}', b"{}", b"<html>", b'{"status":NaN}', b"\xff\xfe", b'{"status"']
)
def test_a_line_that_is_none_is_one_error_of_ours(line):
    reader, steps = pulled(line + b"\n")
    assert steps == [] and isinstance(reader.error, BadResponseError)


def test_a_line_without_an_end_is_bounded_and_later_bytes_are_not_kept():
    reader, _ = pulled(b'{"status":"' + b"x" * (1 << 17), close=False)
    assert isinstance(reader.error, BadResponseError) and reader.done
    assert reader.feed(b"more") == [] == reader.close()


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise(data):
    reader, _ = pulled(data)
    assert reader.done and (reader.error is None or isinstance(reader.error, PolyvoxError))


# ---- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [STORE.read_listing, STORE.read_loaded, lambda r: STORE.read_facts(r, "m")])
@pytest.mark.parametrize(
    "text", [b"", b"[]", b"<html>", b'{"models":5,"capabilities":[5]}', b'{"models":[{"name":5}],"details":7}']
)
def test_an_answer_of_another_shape_is_one_error_of_ours(read, text):
    with pytest.raises(BadResponseError):
        read(Reply(200, {}, text))


def test_an_error_inside_a_good_answer_is_that_error():
    with pytest.raises(PolyvoxError, match="out of memory"):
        STORE.read_loaded(body({"error": "out of memory"}))
    with pytest.raises(PolyvoxError, match="out of memory"):
        STORE.read_done(body({"error": "out of memory"}))


def test_what_has_nothing_to_tell_is_done():
    STORE.read_done(Reply(200, {}, b""))
    STORE.read_done(Reply(200, {}, b"null\n"))


def test_a_refusal_is_the_error_its_status_means():
    missing = STORE.decode_error(Reply(404, {}, b'{"error":"model \'m\' not found"}'))
    assert type(missing) is NotFoundError and missing.status == 404
    assert isinstance(STORE.decode_error(Reply(500, {}, b"oops")), ServerError)
