"""Sound, pictures, files, batches, moderation and rankings beside the vectors: there and back, what was recorded, and
which dialect has what."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from polyvox.dialects import NAMES, Endpoint, Reply, Wire
from polyvox.dialects.framing import read_form
from polyvox.dialects.openai_more import TASKS, operation
from polyvox.errors import PolyvoxError
from polyvox.media import ImageRequest, Segment, SpeakRequest, TranscribeRequest, Transcript
from polyvox.stored import BatchRequest, IdRequest, ListRequest, UploadRequest
from polyvox.types import Audio, File, Image
from polyvox.verdicts import ModerateRequest, RerankRequest

TRAFFIC = Path(os.environ.get("POLYVOX_TRAFFIC", ""))
AT = Endpoint(origin="test/model")


ROOMS = {task: operation(task, "openai.chat") for task in TASKS}  # here, so that no example waits for an import


def room_of(task, dialect="openai.chat"):
    return ROOMS[task] if dialect == "openai.chat" else operation(task, dialect)


def test_a_dialect_without_an_operation_has_none():
    for name in NAMES:
        found = {task for task in TASKS if operation(task, name) is not None}
        has = {"openai.chat": set(TASKS), "openai.responses": set(TASKS), "cohere.chat": {"rerank"}}
        assert found == has.get(name, set()), name
    assert room_of("rerank").name != room_of("rerank", "cohere.chat").name


# ---- there and back ---------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="%"), min_size=1, max_size=12)
SAID = WORDS.filter(str.strip)
IDS = SAID.filter(lambda said: said not in (".", ".."))
BYTES = st.binary(min_size=1, max_size=40)
MEDIA = {"data": BYTES, "name": WORDS, "media_type": st.sampled_from(["audio/wav", "image/png", "text/csv"])}


def maybe(strategy):
    return st.just(UNSET) | strategy


ASKED = {
    "transcribe": st.builds(
        TranscribeRequest, audio=st.builds(Audio, **MEDIA), language=maybe(WORDS), prompt=maybe(WORDS),
        temperature=maybe(st.floats(0, 1)), format=maybe(WORDS),
        timestamps=maybe(st.lists(WORDS, min_size=1, max_size=2).map(tuple)), model=WORDS, extra=st.just({}),
    ),
    "translate": st.builds(
        TranscribeRequest, audio=st.builds(Audio, **MEDIA), prompt=maybe(WORDS), format=maybe(WORDS), model=WORDS,
        extra=st.just({}), language=st.just(UNSET), timestamps=st.just(UNSET), temperature=st.just(UNSET),
    ),
    "speak": st.builds(
        SpeakRequest, text=SAID, voice=WORDS, format=maybe(WORDS), speed=maybe(st.floats(0.25, 4)),
        instructions=maybe(WORDS), model=WORDS, extra=st.just({"openai.speech": {"novel": 1}}),
    ),
    "image": st.builds(
        ImageRequest, prompt=SAID, images=st.lists(st.builds(Image, **MEDIA), max_size=2).map(tuple),
        mask=st.none(), n=maybe(st.integers(1, 10)), size=maybe(WORDS), quality=maybe(WORDS), format=maybe(WORDS),
        background=maybe(WORDS), delivery=maybe(st.sampled_from(["data", "url"])), user=maybe(WORDS),
        model=st.just("") | WORDS, extra=st.just({}),
    ),
    "upload": st.builds(
        UploadRequest, file=st.builds(File, **MEDIA), purpose=WORDS, expires_after=maybe(st.integers(1, 10**6)),
        model=st.just(""), extra=st.just({}),
    ),
    "files": st.builds(
        ListRequest, after=maybe(WORDS), limit=maybe(st.integers(1, 10**6)), purpose=maybe(WORDS), order=maybe(WORDS),
        model=st.just(""), extra=st.just({}),
    ),
    "batches": st.builds(
        ListRequest, after=maybe(WORDS), limit=maybe(st.integers(1, 10**6)), purpose=st.just(UNSET),
        order=st.just(UNSET), model=st.just(""), extra=st.just({}),
    ),
    **{
        task: st.builds(IdRequest, id=IDS, model=st.just(""), extra=st.just({}))
        for task in ("file", "delete_file", "file_content", "batch", "cancel_batch")
    },
    "create_batch": st.builds(
        BatchRequest, file_id=WORDS, endpoint=WORDS, window=WORDS,
        metadata=maybe(st.dictionaries(WORDS, WORDS, max_size=2)), model=st.just(""), extra=st.just({}),
    ),
    "moderate": st.builds(
        ModerateRequest, texts=st.lists(WORDS, min_size=1, max_size=3).map(tuple),
        images=st.lists(st.builds(Image, url=st.just("https://example.com/a.png")), max_size=1).map(tuple),
        model=st.just("") | WORDS, extra=st.just({}),
    ),
    "rerank": st.builds(
        RerankRequest, query=WORDS, documents=st.lists(WORDS, min_size=1, max_size=3).map(tuple),
        top=maybe(st.integers(1, 9)), return_documents=maybe(st.booleans()), truncate=maybe(st.booleans()), model=WORDS,
        extra=st.just({}),
    ),
}  # fmt: skip
OPTIONS = {"rerank": {"rerank_truncate": "truncation"}}


@pytest.mark.parametrize("task", TASKS)
@given(st.data())
def test_what_is_asked_is_read_as_it_was_meant(task, data):
    request = data.draw(ASKED[task])
    wire, losses = room_of(task).encode(request, Endpoint(options=OPTIONS.get(task, {})))
    assert losses == ()
    assert room_of(task).decode_request(wire, AT) == request


TIMES = st.integers(0, 10**7).map(lambda thousandths: thousandths / 1000)
LINE = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
CUES = st.lists(st.builds(Segment, text=LINE, start=TIMES, end=TIMES, speaker=st.none(), extra=st.just({})), min_size=1)


@pytest.mark.parametrize("form", ["srt", "vtt"])
@given(CUES)
def test_subtitles_read_are_those_that_were_said(form, cues):
    asked = TranscribeRequest(Audio(b"x"), model="m", format=form)
    answer = Transcript(" ".join([cue.text for cue in cues]), segments=tuple(cues))
    reply, _ = room_of("transcribe").encode_response(answer, asked)
    found = room_of("transcribe").decode(reply, AT)
    assert (found.text, found.segments) == (answer.text, answer.segments)


@pytest.mark.parametrize("task", ["transcribe", "translate"])
@given(st.binary(max_size=80), st.sampled_from(["", "text/plain", "text/vtt", "application/json", "audio/wav"]))
def test_any_answer_is_a_transcript_or_an_error_of_ours(task, body, kind):
    try:
        found = room_of(task).decode(Reply(200, {"content-type": kind}, body), AT)
    except PolyvoxError:
        return
    assert found.raw == body


@pytest.mark.parametrize("task", TASKS)
@given(st.binary(max_size=60))
def test_any_bytes_are_an_error_or_a_request_in_our_tree(task, body):
    for content_type in ("application/json", "multipart/form-data; boundary=b"):
        try:
            room_of(task).decode_request(Wire("/x", body, {"content-type": content_type}), AT)
        except PolyvoxError:
            continue
    assert isinstance(room_of(task).decode_error(Reply(400, {}, body), AT), PolyvoxError)


# ---- what was recorded ------------------------------------------------------------------------

PLACES = {
    "/audio/transcriptions": "transcribe", "/images/generations": "image", "/files": "upload",
    "/moderations": "moderate", "/rerank": "rerank",
}  # fmt: skip


def recorded():
    if not (TRAFFIC / "dev.jsonl").is_file():
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl)")
    for line in (TRAFFIC / "dev.jsonl").read_text(encoding="utf-8").splitlines():
        exchange = json.loads(line)
        path = exchange["url"].partition("?")[0]
        task = next((task for place, task in PLACES.items() if path.endswith(place)), None)
        if task is not None and "anthropic" not in exchange["id"]:
            dialect = "cohere.chat" if path.endswith("/v2/rerank") else "openai.chat"
            yield exchange, room_of(task, dialect), dialect


def test_what_providers_answered_is_read():
    seen = set()
    for exchange, room, _ in recorded():
        body = exchange["response_text"].encode()
        headers = {"content-type": "application/json"}
        if exchange["status"] >= 400:
            assert room.decode_error(Reply(exchange["status"], headers, body), AT).kind == "unsupported_param"
            continue
        if exchange["id"].startswith("groq"):
            # Recorded inside an envelope of the recorder's own.
            inner = json.loads(body)
            headers, body = inner["headers"], inner["body"].encode()
        found = room.decode(Reply(200, headers, body), AT)
        assert found.raw == body
        seen.add(type(found).__name__)
        told = json.loads(body) if headers["content-type"] == "application/json" else {"text": body.decode()}
        check_recorded(found, told)
    assert seen >= {"Transcript", "Pictures", "StoredFile", "Verdicts", "Ranking"}


def check_recorded(found, told):
    kind = type(found).__name__
    if kind == "Transcript":
        assert found.text == told["text"] and len(found.words) == len(told.get("words") or ())
        assert found.duration == told.get("duration")
        assert [cue.start for cue in found.segments] == [row["start"] for row in told.get("segments") or ()]
    elif kind == "Pictures":
        assert [image.url for image in found.images] == [row["url"] for row in told["data"]]
    elif kind == "StoredFile":
        assert (found.id, found.name, found.size, found.origin) == (
            told["id"],
            told["filename"],
            told["bytes"],
            "test/model",
        )
    elif kind == "Verdicts":
        assert [row.scores for row in found.results] == [row["category_scores"] for row in told["results"]]
        assert found.flagged
    else:
        rows = told.get("results") or told["data"]
        assert [(row.index, row.score) for row in found.results] == [
            (row["index"], row["relevance_score"]) for row in rows
        ]


def test_what_clients_asked_is_read_and_asked_again():
    count = 0
    for exchange, room, _ in recorded():
        if not exchange["request_json"]:
            continue
        body = json.dumps(exchange["request_json"]).encode()
        request = room.decode_request(Wire("/", body, {"content-type": "application/json"}), AT)
        options = {"rerank_top": "top_k", "rerank_truncate": "truncation"} if "voyage" in exchange["id"] else {}
        wire, losses = room.encode(request, Endpoint(options=options))
        again = room.decode_request(Wire("/", wire.body, wire.headers), AT)
        assert losses == () and again == request
        count += 1
    assert count


def test_the_same_request_is_the_same_bytes():
    request = TranscribeRequest(Audio(b"x", name="a.wav"), model="m")
    first, second = (room_of("transcribe").encode(request, AT).wire for _ in range(2))
    assert first == second
    other = room_of("transcribe").encode(structs.replace(request, audio=Audio(b"y", name="a.wav")), AT).wire
    assert other.headers["content-type"] != first.headers["content-type"]
    assert [part.name for part in read_form(first.headers["content-type"], first.body)] == ["model", "file"]
