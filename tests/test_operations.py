"""Sound, pictures, files, batches, rankings and moderation as real calls: our client asks the simulated provider, and
every call has the losses, the attempts and the errors of a chat."""

import asyncio
import io
import json
import wave

import pytest

from polyvox import AsyncClient, Client, Image, Message, Request, Text
from polyvox import config as configuration
from polyvox.errors import (
    AuthError,
    BadResponseError,
    CallTimeoutError,
    ConflictError,
    InputError,
    InvalidRequestError,
    LossError,
    NotFoundError,
    PolyvoxError,
    UsageError,
)
from polyvox.fetch import Rules
from polyvox.stored import Batch, StoredFile
from polyvox.testing import Simulator
from polyvox.testing.fault_server import FaultServer, answer
from polyvox.types import Audio, File

from .scripted import Answer, Scripted

KEY = "sk-simulated-0123456789"
HELLO = (Message("user", (Text("hi"),)),)
SETTINGS = configuration.Settings()
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def simulator():
    with Simulator() as running:
        yield running


@pytest.fixture
def client(simulator):
    simulator.reset()
    with made(simulator) as found:
        yield found


def made(simulator, dialect="openai.chat", **facts):
    return Client("any-model", base_url=simulator.base_url(dialect), dialect=dialect, api_key=KEY, **facts)


def answering(*bodies):
    return Scripted(*[Answer(json.dumps(body).encode()) for body in bodies])


# ---- sound ------------------------------------------------------------------------------------


def test_what_is_spoken_is_sound_and_can_be_written_down(client):
    speech = client.audio.speak("hello bees", voice="sage", format="wav")
    assert speech.media_type == "audio/wav" and speech.losses == ()
    with wave.open(io.BytesIO(speech.data)) as sound:
        seconds = sound.getnframes() / sound.getframerate()
    found = client.audio.transcribe(speech.data, timestamps=["word", "segment"])
    assert str(found) == found.text and str(len(speech.data)) in found.text
    assert found.duration == seconds and found.segments[-1].end == pytest.approx(seconds)
    assert " ".join(word.text for word in found.words) == found.text
    assert (
        found.attempts[0].outcome == "ok"
        and found.request_id
        and found.model == "any-model" == speech.deployment.partition("/")[2]
    )


def test_a_file_goes_out_under_its_own_name(client, simulator, tmp_path):
    path = tmp_path / "bees.wav"
    path.write_bytes(b"RIFF1234WAVE")
    assert "bees.wav" in client.audio.transcribe(path).text
    assert "bees.wav" in client.audio.transcribe(str(path), language="en", prompt="bees").text
    with path.open("rb") as open_file:
        assert "bees.wav" in client.audio.transcribe(open_file).text
    assert "hum.mp3" in client.audio.translate(Audio(b"x", name="hum.mp3")).text
    assert b'name="language"\r\n\r\nen\r\n' in simulator.requests[1].body


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_subtitles_come_with_their_cues(client, format):
    found = client.audio.transcribe(b"\xff\xfb" * 9000, format=format)
    assert found.subtitles is not None and " ".join(cue.text for cue in found.segments) == found.text
    assert client.audio.transcribe(b"\xff\xfb" * 9000, format="text").text == found.text


def test_a_voice_that_must_be_told_is_told_and_noted(client):
    assert [loss.field for loss in client.audio.speak("hi").losses] == ["voice"]


def test_what_cannot_be_said_is_a_loss_and_an_error_under_strict(client, simulator):
    found = client.moderate("hi", extra_body={"novel": 1})
    assert found.losses == () and json.loads(simulator.requests[-1].body)["novel"] == 1
    with made(simulator, "cohere.chat") as other:
        assert [loss.field for loss in other.rerank("a", ["a"], truncate=True).losses] == ["truncate"]
        with pytest.raises(LossError):
            other.rerank("a", ["a"], truncate=True, strict=True)


# ---- pictures ---------------------------------------------------------------------------------


def test_pictures_come_as_bytes_or_as_urls_and_can_be_changed(client):
    found = client.images.generate("a cat", n=2, size="32x16", format="png")
    assert [image.media_type for image in found.images] == ["image/png"] * 2
    assert all(image.data.startswith(PNG) for image in found.images) and found.images[0] != found.images[1]
    assert found.usage.total == found.usage.input + found.usage.output
    changed = client.images.edit("a dog", list(found.images), mask=found.images[0], delivery="url")
    assert changed.images[0].url.startswith("data:image/png;base64,")
    assert client.images.edit("a dog", found.images[0].data, size="8x8").images[0].data.startswith(PNG)


def test_a_picture_of_a_url_is_not_fetched_behind_the_callers_back(client, simulator):
    for image in (Image(url="https://example.com/a.png"), "https://example.com/a.png"):
        with pytest.raises(InputError) as caught:
            client.images.edit("a dog", image)
        assert "fetch it first" in caught.value.hint
    assert simulator.counts.requests == 0


# ---- rankings and moderation ------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["openai.chat", "cohere.chat"])
def test_documents_are_ranked_by_their_places(simulator, dialect):
    with made(simulator, dialect) as client:
        found = client.rerank("the red fox", ["tax law", "a red fox", "the fox"], top=2)
    assert {row.index for row in found.results} == {1, 2}
    assert found.results[0].score >= found.results[1].score > 0
    assert found.usage.input is None if dialect == "cohere.chat" else found.usage.input > 0


def test_texts_come_back_where_they_are_asked_for(client):
    found = client.rerank("fox", ["tax", "fox"], return_documents=True)
    assert [row.document for row in found.results] == ["fox", "tax"]


def test_each_text_is_judged_by_itself_and_pictures_with_all(client):
    found = client.moderate(["hi", "I will kill it"])
    assert [row.flagged for row in found.results] == [False, True] and found.flagged
    assert found.results[1].categories["violence"] and found.results[1].scores["violence"] > 0.5
    both = client.moderate(["hi", "kill"], images=[PNG, Image(url="https://example.com/a.png")])
    assert len(both.results) == 1 and both.flagged
    assert not client.moderate(images=[PNG]).flagged


# ---- files ------------------------------------------------------------------------------------


def test_files_are_kept_listed_read_and_deleted(client, tmp_path):
    path = tmp_path / 'a"\r\n.csv'
    path.write_bytes(b"a,b\r\n--")
    first = client.files.upload(path, expires_after=60)
    second = client.files.upload(io.BytesIO(b"x"), name="b.txt", purpose="vision")
    third = client.files.upload(File(text="cä"))
    assert (first.name, first.size, first.purpose) == (path.name, 7, "user_data")
    assert first.expires == first.created + 60 and first.origin == first.deployment
    page = client.files.list(limit=2, order="asc")
    rest = client.files.list(after=page.next, order="asc")
    assert [file.id for file in (*page.files, *rest.files)] == [first.id, second.id, third.id]
    assert rest.next is None and client.files.list(purpose="vision").files[0].name == "b.txt"
    assert client.files.get(first).name == first.name
    assert client.files.content(first.id).data == b"a,b\r\n--" and client.files.content(third).data == "cä".encode()
    assert client.files.delete(first).deleted
    with pytest.raises(NotFoundError) as caught:
        client.files.content(first)
    assert "an id counts only where" in caught.value.hint


def test_what_is_not_said_to_be_deleted_is_an_error():
    script = answering({"id": "f", "object": "file", "deleted": False})
    with Client("openai/m", api_key=KEY, transport=script) as client, pytest.raises(BadResponseError):
        client.files.delete("f")


def test_an_id_is_asked_for_where_it_was_minted():
    row = {"id": "file-1", "object": "file", "filename": "a", "bytes": 1, "created_at": 1, "purpose": "user_data"}
    script = answering(row, row)
    settings = configuration.Settings()
    with Client("openai", api_key=KEY, transport=script, settings=settings) as client:
        kept = client.files.upload(b"x", model="openai")
        assert kept.origin == "openai/files"
        assert client.files.get(kept).id == "file-1"
        with pytest.raises(InputError) as caught:
            client.files.get(StoredFile(id="file-1", origin="elsewhere/files"), model="openai")
        assert "elsewhere" in caught.value.message
    assert [sent.url.partition("//")[2].partition("/")[2] for sent in script.sent] == ["v1/files", "v1/files/file-1"]


# ---- batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["openai.chat", "openai.responses"])
def test_a_batch_answers_what_the_client_would_have_asked(simulator, dialect):
    with made(simulator, dialect) as client:
        batch = client.batches.create({"b": "bees", "a": "ants"}, system="Be brief.", labels={"run": "1"})
        assert not batch.over and batch.total == 2 and batch.metadata == {"run": "1"}
        ended = client.batches.get(batch)
        assert ended.over and (ended.status, ended.completed, ended.failed) == ("completed", 2, 0)
        found = client.batches.results(ended)
        assert list(found) == ["b", "a"]
        assert found["a"].text == client.ask("ants", system="Be brief.").text
        assert found["a"].provider == batch.provider and found["a"].usage.input
        assert client.batches.list(limit=1).batches[0].id == batch.id


def test_what_fails_in_a_batch_has_its_error_in_place():
    with Simulator(models=["known"]) as simulator, made(simulator) as client:
        batch = client.batches.create(["hi", "there"], model="unknown")
        found = client.batches.results(batch.id)
        assert {name: error.kind for name, error in found.items()} == {
            "request-1": "not_found",
            "request-2": "not_found",
        }
        assert all(isinstance(error, PolyvoxError) and error.provider for error in found.values())


def test_a_batch_is_stopped(client):
    batch = client.batches.create(["hi"])
    stopped = client.batches.cancel(batch)
    assert stopped.status == "cancelling" and client.batches.get(stopped).status == "cancelled"
    assert client.batches.results(batch.id) == {}
    with pytest.raises(ConflictError):
        client.batches.cancel(batch)


def test_a_batch_that_has_not_ended_has_no_results():
    row = {"id": "b", "status": "validating", "endpoint": "/v1/chat/completions"}
    script = answering(row)
    with Client("openai/m", api_key=KEY, transport=script) as client, pytest.raises(UsageError) as caught:
        client.batches.results("b")
    assert "validating" in caught.value.message


def test_a_batch_whose_file_was_refused_says_why():
    row = {
        "id": "b", "status": "failed", "endpoint": "/v1/chat/completions",
        "errors": {"data": [{"message": "bad line", "code": "invalid_json_line", "line": 3}, {"message": "worse"}]},
    }  # fmt: skip
    script = answering(row)
    with Client("openai/m", api_key=KEY, transport=script) as client, pytest.raises(InvalidRequestError) as caught:
        client.batches.results("b")
    assert "bad line (line 3), and 1 more" in caught.value.message and caught.value.code == "invalid_json_line"


def test_the_questions_of_a_batch_go_to_one_provider():
    with Client("openai/m", api_key=KEY, transport=Scripted()) as client:
        asked = [Request("openai/m", HELLO), Request("demo", HELLO)]
        with pytest.raises(InputError) as caught:
            client.batches.create(asked)
    assert "openai and demo" in caught.value.message


def test_a_batch_goes_to_where_its_questions_go(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    row = {"id": "b", "status": "validating", "endpoint": "/v1/chat/completions"}
    script = answering({"id": "file-1"}, row)
    with Client(transport=script, settings=SETTINGS) as client:
        batch = client.batches.create([Request("openai/m", HELLO)], headers={"x-tag": "1"})
    assert batch.origin == "openai/m" and json.loads(script.sent[1].body)["input_file_id"] == "file-1"
    assert {sent.headers["x-tag"] for sent in script.sent} == {"1"}


def test_what_a_question_names_by_url_is_fetched_and_noted():
    row = {"id": "b", "status": "validating", "endpoint": "/v1/chat/completions"}
    script = answering({"id": "file-1"}, row)
    with FaultServer(answer(b"RIFF1234WAVE", "content-type: audio/wav")) as server:
        asked = Message("user", (Audio(url=f"{server.url}a.wav", media_type="audio/wav"),))
        rules = Rules(allow_http=True, ports=(server.port,), allow_private=("127.0.0.1",))
        with Client("openai/m", api_key=KEY, transport=script, settings=SETTINGS, fetch=rules) as client:
            batch = client.batches.create({"a": asked})
    assert [(loss.field, loss.severity) for loss in batch.losses] == [("a.messages[0].parts[0].url", "note")]
    assert b"UklGRjEyMzRXQVZF" in script.sent[0].body


def test_a_question_that_loses_something_is_told_by_its_id(client):
    batch = client.batches.create({"a": "hi"}, top_k=5)
    assert [loss.field for loss in batch.losses] == ["a.top_k"]
    with pytest.raises(LossError):
        client.batches.create({"a": "hi"}, top_k=5, strict=True)


def test_nothing_leaves_for_a_batch_that_cannot_be(client, simulator):
    for requests in ([], {"": "hi"}, "hi", 5, {"a": ""}):
        with pytest.raises(InputError):
            client.batches.create(requests)
    assert simulator.counts.requests == 0


# ---- any of them ------------------------------------------------------------------------------

CALLS = {
    "transcribe": lambda client: client.audio.transcribe(b"x"),
    "speak": lambda client: client.audio.speak("hi"),
    "image": lambda client: client.images.generate("a cat", size="8x8"),
    "edit": lambda client: client.images.edit("a cat", PNG, size="8x8"),
    "upload": lambda client: client.files.upload(b"x"),
    "moderate": lambda client: client.moderate("hi"),
    "rerank": lambda client: client.rerank("a", ["a"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_failure_that_may_pass_is_tried_again(name):
    with Simulator(plan=[{"kind": "status", "status": 503, "at": [1]}]) as simulator:
        with made(simulator) as client:
            found = CALLS[name](client)
        assert [attempt.outcome for attempt in found.attempts] == ["server", "ok"]
        assert simulator.requests[0].body == simulator.requests[1].body


@pytest.mark.parametrize("fault", ["length_too_big", "no_final_chunk", "reset"])
@pytest.mark.parametrize("name", CALLS)
def test_an_answer_cut_short_is_never_one(name, fault):
    with Simulator(plan=[{"kind": fault}]) as simulator:
        with made(simulator, retries=0) as client, pytest.raises(PolyvoxError) as caught:
            CALLS[name](client)
    assert caught.value.sent == "yes" and caught.value.attempts


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_key_is_told_and_not_shown(name):
    with Simulator(keys=["sk-the-right-one-0123456789"]) as simulator:
        with made(simulator) as client, pytest.raises(AuthError) as caught:
            CALLS[name](client)
    assert KEY not in str(caught.value) and len(caught.value.attempts) == 1


def test_a_deadline_is_for_the_whole_call():
    with Simulator(latency=5.0) as simulator:
        with made(simulator, timeout=0.3) as client, pytest.raises(CallTimeoutError) as caught:
            client.moderate("hi")
    assert "0.3 s in all" in caught.value.message


def test_the_same_is_awaited():
    async def ask(simulator):
        async with AsyncClient("m", base_url=simulator.base_url("openai.chat"), api_key=KEY) as client:
            return await asyncio.gather(
                client.audio.transcribe(b"x"),
                client.images.generate("a cat", size="8x8"),
                client.files.list(),
                client.batches.list(),
                client.moderate("hi"),
                client.rerank("a", ["a"]),
            )

    with Simulator() as simulator:
        found = asyncio.run(ask(simulator))
    assert [type(answer).__name__ for answer in found] == [
        "Transcript", "Pictures", "FilePage", "BatchPage", "Verdicts", "Ranking",
    ]  # fmt: skip


def test_a_session_of_all_kinds_of_bytes_replays_as_it_was(simulator, tmp_path):
    def session(client):
        speech = client.audio.speak("hello bees", voice="sage", format="wav")
        kept = client.files.upload(b"\xff\x00 no text", name="a.bin")
        return (
            speech.data,
            client.audio.transcribe(speech.data, format="srt").subtitles,
            client.files.content(kept).data,
            client.images.generate("a cat", size="8x8").images[0].data,
            {name: answer.text for name, answer in client.batches.results(client.batches.create(["hi"])).items()},
        )

    path = tmp_path / "session.jsonl"
    with made(simulator, record=path) as client:
        live = session(client)
    with made(simulator, replay=path) as client:
        simulator.reset()
        assert session(client) == live
    assert simulator.counts.requests == 0


class Watching:
    def on_attempt(self, info):
        self.request = info.request


def test_hooks_see_what_is_asked_as_they_see_chats(simulator):
    hook = Watching()
    with made(simulator, hooks=[hook]) as client:
        client.moderate("hi")
    assert hook.request.texts == ("hi",)


BAD = {
    "no file": (lambda client: client.audio.transcribe("/no/such/file.wav"), "audio"),
    "a folder": (lambda client: client.audio.transcribe("/"), "audio"),
    "no bytes": (lambda client: client.audio.transcribe(b""), "audio"),
    "a number": (lambda client: client.audio.transcribe(5), "audio"),
    "a text file": (lambda client: client.files.upload(io.StringIO("x")), "file"),
    "an empty text": (lambda client: client.audio.speak(" "), "text"),
    "a wrong speed": (lambda client: client.audio.speak("hi", speed="fast"), "speed"),
    "no number": (lambda client: client.audio.speak("hi", speed=float("nan")), "speed"),
    "no picture": (lambda client: client.images.edit("a cat", []), "images"),
    "a wrong delivery": (lambda client: client.images.generate("a cat", delivery="fax"), "delivery"),
    "no documents": (lambda client: client.rerank("a", []), "documents"),
    "one document": (lambda client: client.rerank("a", "abc"), "documents"),
    "a document that is none": (lambda client: client.rerank("a", ["a", 5]), "documents[1]"),
    "a wrong flag": (lambda client: client.rerank("a", ["a"], truncate="no"), "truncate"),
    "nothing to judge": (lambda client: client.moderate([]), "texts"),
    "nothing at all to judge": (lambda client: client.moderate(), "texts"),
    "one image": (lambda client: client.moderate("a", images="a.png"), "images"),
    "no id": (lambda client: client.files.get(" "), "id"),
    "no thing": (lambda client: client.files.get(5), "id"),
    "a batch without an id": (lambda client: client.batches.get(Batch(status="completed")), "id"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_asked_is_refused_before_anything_is_sent(client, simulator, name):
    ask, param = BAD[name]
    with pytest.raises(InputError) as caught:
        ask(client)
    assert (caught.value.param, caught.value.sent) == (param, "no") and caught.value.hint
    assert simulator.counts.requests == 0


def test_a_provider_without_it_says_who_has(simulator):
    with made(simulator, "ollama.chat") as client:
        for ask in (*CALLS.values(), lambda client: client.batches.create(["hi"])):
            with pytest.raises(InputError) as caught:
                ask(client)
            assert any(name in (caught.value.hint or "") for name in ("openai", "cohere"))


class Own:
    name = "own"

    def ask(self, request):
        return "hi"


def test_a_backend_has_none_of_it():
    with Client(backend=Own()) as client:
        for ask in (*CALLS.values(), lambda client: client.batches.create(["hi"])):
            with pytest.raises(UsageError):
                ask(client)
