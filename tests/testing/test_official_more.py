"""The providers' own clients take the simulated provider for the real one beside chats: sound, pictures, files,
batches, moderation and rankings."""

import io
import json
import wave

import cohere
import httpx
import openai
import pytest

from polyvox import Client
from polyvox.testing import Simulator

KEY = "sk-simulated-0123456789"
MODEL = "any-model"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def simulator():
    with Simulator() as running:
        yield running


@pytest.fixture
def official(simulator):
    simulator.reset()
    with openai.OpenAI(base_url=simulator.base_url("openai.chat"), api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def ours(simulator):
    with Client(MODEL, base_url=simulator.base_url("openai.chat"), api_key=KEY) as client:
        yield client


# ---- sound ------------------------------------------------------------------------------------


def test_sound_is_written_down_in_each_form(official, ours):
    sound = b"\xff\xfb" * 20_000
    file = ("bees.mp3", sound)
    plain = official.audio.transcriptions.create(file=file, model=MODEL)
    assert plain.text == ours.audio.transcribe(sound).text.replace("audio.mp3", "bees.mp3")
    assert (plain.usage.type, plain.usage.seconds) == ("duration", 3)
    marks = ["word", "segment"]
    told = official.audio.transcriptions.create(
        file=file, model=MODEL, response_format="verbose_json", timestamp_granularities=marks, language="en"
    )
    assert (told.language, told.duration) == ("en", 2.5)
    assert " ".join(word.word for word in told.words) == told.text and told.segments[-1].end == 2.5
    words = official.audio.transcriptions.create(file=file, model=MODEL, response_format="text")
    assert words.strip() == told.text
    subtitles = official.audio.transcriptions.create(file=file, model=MODEL, response_format="vtt")
    assert subtitles.startswith("WEBVTT\n\n00:00:00.000 --> ")
    with pytest.warns(DeprecationWarning):
        english = official.audio.translations.create(file=io.BytesIO(sound), model=MODEL)
    assert english.text


@pytest.mark.parametrize("form", ["mp3", "wav", "pcm"])
def test_text_is_spoken_in_each_form(official, ours, form):
    found = official.audio.speech.create(model=MODEL, voice="sage", input="hello bees", response_format=form)
    assert found.content == ours.audio.speak("hello bees", voice="sage", format=form).data
    assert found.response.headers["content-type"].startswith("audio/")
    if form == "wav":
        with wave.open(io.BytesIO(found.content)) as sound:
            assert sound.getnframes() / sound.getframerate() == pytest.approx(0.5)


# ---- pictures ---------------------------------------------------------------------------------


def test_pictures_are_made_and_changed(official, ours):
    import base64

    found = official.images.generate(prompt="a cat", model=MODEL, n=2, size="256x256")
    data = [base64.b64decode(image.b64_json) for image in found.data]
    assert data == [image.data for image in ours.images.generate("a cat", n=2, size="256x256").images]
    assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens
    changed = official.images.edit(
        image=[("a.png", data[0]), ("b.png", data[1])], mask=("m.png", data[0]), prompt="a dog", model=MODEL,
        response_format="url",
    )  # fmt: skip
    assert changed.data[0].url.startswith("data:image/png;base64,")


def test_streams_are_refused_where_they_are_not_simulated(official):
    with pytest.raises(openai.BadRequestError) as caught:
        official.images.generate(prompt="a cat", model=MODEL, stream=True)
    assert caught.value.param == "stream"
    with pytest.raises(openai.BadRequestError):
        official.audio.transcriptions.create(file=("a.mp3", b"x"), model=MODEL, stream=True)


def test_a_picture_that_is_not_simulated_is_refused(official):
    with pytest.raises(openai.BadRequestError) as caught:
        official.images.generate(prompt="a cat", model=MODEL, output_format="webp")
    assert caught.value.param == "output_format"


# ---- files and batches ------------------------------------------------------------------------


def test_files_are_kept(official, ours):
    first = official.files.create(file=("a.txt", b"hello"), purpose="user_data", expires_after={
        "anchor": "created_at", "seconds": 3600,
    })  # fmt: skip
    second = official.files.create(file=("b.txt", b"there"), purpose="user_data")
    assert (first.filename, first.bytes, first.expires_at) == ("a.txt", 5, first.created_at + 3600)
    assert [file.id for file in official.files.list(limit=1)] == [second.id, first.id]  # page by page
    assert official.files.content(first.id).content == b"hello" == ours.files.content(first.id).data
    assert ours.files.get(second.id).name == official.files.retrieve(second.id).filename
    assert official.files.delete(first.id).deleted
    with pytest.raises(openai.NotFoundError):
        official.files.retrieve(first.id)


def lines(*rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def question(custom_id, **body):
    said = {"model": MODEL, "messages": [{"role": "user", "content": "hello bees"}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": said}


def batch_of(official, data, endpoint="/v1/chat/completions"):
    kept = official.files.create(file=("in.jsonl", data), purpose="batch")
    return official.batches.create(
        input_file_id=kept.id, endpoint=endpoint, completion_window="24h", metadata={"a": "b"}
    )


def test_a_batch_of_the_official_client_is_read_by_ours(official, ours):
    batch = batch_of(official, lines(question("a"), question("b", temperature=9), question("c", stream=True)))
    assert (batch.status, batch.request_counts.total, batch.metadata) == ("in_progress", 3, {"a": "b"})
    ended = official.batches.retrieve(batch.id)
    assert (ended.status, ended.request_counts.completed, ended.request_counts.failed) == ("completed", 1, 2)
    row = json.loads(official.files.content(ended.output_file_id).text)
    asked = official.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello bees"}])
    assert row["response"]["body"]["choices"][0]["message"]["content"] == asked.choices[0].message.content
    found = ours.batches.results(ended.id)
    assert found["a"].text == asked.choices[0].message.content
    assert {name: found[name].param for name in "bc"} == {"b": "temperature", "c": "stream"}


def test_a_batch_of_ours_is_read_by_the_official_client(official, ours):
    batch = ours.batches.create({"a": "hello bees"})
    ended = official.batches.retrieve(batch.id)
    row = json.loads(official.files.content(ended.output_file_id).text)
    assert row["custom_id"] == "a" and row["response"]["status_code"] == 200
    assert official.batches.list(limit=1).data[0].id == batch.id


def test_a_batch_of_texts_to_embed(official):
    row = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": MODEL, "input": "bees"}}
    batch = batch_of(official, lines(row), "/v1/embeddings")
    ended = official.batches.retrieve(batch.id)
    told = json.loads(official.files.content(ended.output_file_id).text)["response"]["body"]["data"][0]["embedding"]
    asked = official.embeddings.create(model=MODEL, input="bees", encoding_format="float")
    assert told == pytest.approx(asked.data[0].embedding)


def test_a_batch_is_stopped(official):
    batch = batch_of(official, lines(question("a")))
    assert official.batches.cancel(batch.id).status == "cancelling"
    assert official.batches.retrieve(batch.id).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        official.batches.cancel(batch.id)


@pytest.mark.parametrize("data", [b"{", lines(question("a"), question("a")), lines({"custom_id": "a"}), b"\n"])
def test_a_file_that_is_no_batch_fails_it(official, data):
    batch = batch_of(official, data)
    assert batch.status == "failed" and batch.errors.data[0].message


def test_a_request_for_another_place_fails_alone(official, ours):
    batch = batch_of(official, lines(question("a"), {**question("b"), "url": "/v1/responses"}))
    found = ours.batches.results(batch.id)
    assert found["a"].text and found["b"].code == "mismatched_endpoint"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"endpoint": "/v1/nothing"}, openai.BadRequestError),
        ({"completion_window": "1h"}, openai.BadRequestError),
        ({"input_file_id": "file-none"}, openai.NotFoundError),
    ],
)
def test_a_batch_that_cannot_be_is_refused(official, change, error):
    kept = official.files.create(file=("in.jsonl", lines(question("a"))), purpose="batch")
    with pytest.raises(error):
        official.batches.create(**{
            "input_file_id": kept.id, "endpoint": "/v1/chat/completions", "completion_window": "24h", **change,
        })  # fmt: skip


def test_a_file_for_another_purpose_is_no_batch(official):
    kept = official.files.create(file=("in.jsonl", lines(question("a"))), purpose="user_data")
    with pytest.raises(openai.BadRequestError):
        official.batches.create(input_file_id=kept.id, endpoint="/v1/chat/completions", completion_window="24h")


# ---- judgements -------------------------------------------------------------------------------


def test_texts_are_judged(official, ours):
    found = official.moderations.create(input=["hi", "I will kill it"], model=MODEL)
    assert (
        [row.flagged for row in found.results]
        == [False, True]
        == [row.flagged for row in ours.moderate(["hi", "I will kill it"]).results]
    )
    assert found.results[1].categories.violence and found.results[1].category_applied_input_types.violence == ["text"]
    both = official.moderations.create(
        input=[{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    )
    assert len(both.results) == 1 and both.model == "demo"


def test_documents_are_ranked(simulator, ours):
    documents = ["tax law", "a red fox", "the fox"]
    with httpx.Client() as carrier:
        client = cohere.ClientV2(api_key=KEY, base_url=simulator.base_url("cohere.chat"), httpx_client=carrier)
        found = client.rerank(model=MODEL, query="the red fox", documents=documents, top_n=2)
    mine = ours.rerank("the red fox", documents, top=2)
    assert [(row.index, row.relevance_score) for row in found.results] == [
        (row.index, row.score) for row in mine.results
    ]
    assert found.meta.billed_units.search_units == 1


# ---- what goes for all ------------------------------------------------------------------------


def test_a_method_that_a_place_does_not_take(simulator):
    got = httpx.put(f"{simulator.base_url('openai.chat')}/files", headers={"authorization": f"Bearer {KEY}"})
    assert got.status_code == 405 and "GET" in got.json()["error"]["message"]


def test_a_model_that_is_not_there_and_limits_are_as_for_chats():
    with Simulator(models=["known"], rpm=2) as simulator:
        facts = {"base_url": simulator.base_url("openai.chat"), "api_key": KEY, "max_retries": 0}
        with openai.OpenAI(**facts) as client:
            with pytest.raises(openai.NotFoundError):
                client.moderations.create(input="hi", model="unknown")
            assert not client.moderations.create(input="hi", model="known").results[0].flagged
            with pytest.raises(openai.RateLimitError):
                client.moderations.create(input="hi", model="known")
        assert simulator.counts.by_model["known"].answers == 1


def test_a_fault_is_planned_for_uploads_too():
    with Simulator(plan=[{"kind": "status", "status": 500, "at": [1]}]) as simulator:
        with openai.OpenAI(base_url=simulator.base_url("openai.chat"), api_key=KEY, max_retries=1) as client:
            kept = client.files.create(file=("a.txt", b"hello"), purpose="user_data")
        assert kept.bytes == 5 and simulator.counts.errors == {500: 1}


def test_a_reset_forgets_what_was_kept(simulator, official):
    kept = official.files.create(file=("a.txt", b"hello"), purpose="user_data")
    simulator.reset()
    with pytest.raises(openai.NotFoundError):
        official.files.retrieve(kept.id)
