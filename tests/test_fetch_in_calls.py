"""What a call names by URL is fetched here where the model's protocol takes bytes only, and only there."""

import asyncio
import base64
import json
import time

import pytest

from polyvox import AsyncClient, Audio, Client, File, Image, Message, Request, Text, ToolCall, ToolResult, Video
from polyvox.cache import ResponseCache
from polyvox.config import Settings
from polyvox.dialects import NAMES, Endpoint, dialect
from polyvox.errors import CallTimeoutError, InputError, LossError, StreamInterruptedError
from polyvox.fetch import Rules
from polyvox.testing.fault_server import FaultServer, answer, fin, send, sleep, stall
from tests.scripted import Answer, Scripted, said, streamed

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
SHOWN = base64.b64encode(PNG).decode()
CONVERSED = (
    b'{"output": {"message": {"role": "assistant", "content": [{"text": "I see."}]}}, "stopReason": "end_turn", '
    b'"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}}'
)


def spoken(text="I see."):
    """A whole answer of a server that takes bytes only."""
    return Answer(
        json.dumps(
            {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": text},
             "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2}
        ).encode() + b"\n"
    )  # fmt: skip


def asking(server, *answers, **facts):
    """A client of a server that takes bytes only, which may fetch from the test's own server."""
    transport = Scripted(*(answers or (spoken(),)))
    usual = {
        "base_url": "http://127.0.0.1:9",
        "dialect": "ollama.chat",
        "settings": Settings(),
        "fetch": Rules(allow_http=True, ports=(server.port,), allow_private=("127.0.0.1",)),
    }
    return Client("m", transport=transport, **{**usual, **facts}), transport


def notes(response):
    return [(loss.field, loss.severity) for loss in response.losses]


@pytest.fixture
def picture():
    with FaultServer(answer(PNG, "content-type: image/png")) as server:
        yield server


def test_given_a_picture_by_url_when_asked_then_its_bytes_go_out_and_a_note_says_so(picture):
    client, transport = asking(picture)
    response = client.ask("Look", attachments=[picture.url + "a.png"])
    assert transport.bodies()[0]["messages"] == [{"role": "user", "content": "Look", "images": [SHOWN]}]
    assert notes(response) == [("messages[0].parts[1].url", "note")]
    assert "48 bytes from 127.0.0.1" in response.losses[0].why
    assert response.text == "I see." and len(picture.requests) == 1


def test_given_a_picture_by_url_when_streamed_then_it_is_fetched_at_the_first_read(picture):
    client, transport = asking(picture)
    stream = client.stream("Look", attachments=[picture.url + "a.png"])
    assert not picture.requests
    assert "".join(stream) == "I see."
    assert transport.bodies()[0]["messages"][0]["images"] == [SHOWN] and transport.bodies()[0]["stream"] is True
    assert notes(stream.response) == [("messages[0].parts[1].url", "note")]


def test_strict_does_not_mind_what_was_fetched(picture):
    client, _ = asking(picture, strict=True)
    assert client.ask("Look", attachments=[picture.url + "a.png"]).text == "I see."


def test_the_same_url_is_fetched_once_a_call_wherever_it_stands(picture):
    client, transport = asking(picture)
    image = Image(url=picture.url + "a.png")
    call, result = ToolCall("c1", "look"), ToolResult("c1", (image,), name="look")
    turns = [Message("user", (image, image)), Message("assistant", (call,)), Message("tool", (result,))]
    response = client.ask([*turns, Message("user", (Text("And?"),))])
    assert len(picture.requests) == 1
    sent = transport.bodies()[0]["messages"]
    assert sent[0]["images"] == [SHOWN, SHOWN] and sent[3]["images"] == [SHOWN]
    assert [field for field, _ in notes(response) if field.endswith("url")] == [
        "messages[0].parts[0].url", "messages[0].parts[1].url", "messages[2].parts[0].parts[0].url",
    ]  # fmt: skip


def test_a_file_by_url_becomes_what_its_bytes_are(picture):
    client, transport = asking(picture)
    client.ask("Look", attachments=[picture.url + "unnamed"])
    assert transport.bodies()[0]["messages"][0]["images"] == [SHOWN]
    with FaultServer(answer("Größe: 5".encode(), "content-type: text/plain")) as server:
        client, transport = asking(server)
        client.ask(["Read: ", File(url=server.url + "a.txt")])
        assert transport.bodies()[0]["messages"][0]["content"] == "Read: Größe: 5"


def test_a_page_in_place_of_a_picture_is_refused_and_nothing_is_asked():
    with FaultServer(answer(b"<html>Log in</html>", "content-type: image/png")) as server:
        client, transport = asking(server)
        with pytest.raises(InputError) as caught:
            client.ask("Look", attachments=[server.url + "a.png"])
    assert caught.value.code == "url_content" and "Log in" not in str(caught.value) and not transport.sent


@pytest.mark.parametrize("url", ["https://127.0.0.1/a.png", "http://127.0.0.1:1/a.png", "https://localhost/a.png"])
def test_by_itself_a_client_fetches_nothing_from_this_machine(picture, url):
    client, transport = asking(picture, fetch=True)
    for call in (client.ask, lambda *args, **more: client.stream(*args, **more).finish()):
        with pytest.raises(InputError) as caught:
            call("Look", attachments=[url])
        assert caught.value.code in ("url_private", "url_scheme") and caught.value.sent == "no"
    assert not transport.sent


@pytest.mark.parametrize(("of_client", "of_call"), [(False, None), (True, False)])
def test_without_fetch_a_url_is_a_loss_as_before(picture, of_client, of_call):
    client, transport = asking(picture, fetch=of_client)
    response = client.ask("Look", attachments=[picture.url + "a.png"], fetch=of_call)
    assert not picture.requests and "images" not in transport.bodies()[0]["messages"][0]
    assert notes(response) == [("messages[0].parts[1].image", "loss")]
    strict, _ = asking(picture, fetch=False, strict=True)
    with pytest.raises(LossError):
        strict.ask("Look", attachments=[picture.url + "a.png"])


def test_a_protocol_that_takes_urls_gets_the_url_and_nothing_is_fetched(picture):
    client, transport = asking(picture, said("ok"), streamed("ok"), dialect="openai.chat")
    client.ask("Look", attachments=[picture.url + "a.png"])
    client.stream("Look", attachments=[picture.url + "a.png"]).finish()
    for body in transport.bodies():
        assert body["messages"][0]["content"][1]["image_url"]["url"] == picture.url + "a.png"
    assert not picture.requests


def test_a_place_only_the_provider_can_read_stays_an_address_and_a_url_beside_it_becomes_bytes(picture):
    client, transport = asking(picture, Answer(CONVERSED), dialect="bedrock.converse")
    kept, fetched_here = Image(url="s3://bucket/a.png", media_type="image/png"), Image(url=picture.url + "b.png")
    response = client.ask(["Look", kept, fetched_here])
    _, first, second = transport.bodies()[0]["messages"][0]["content"]
    assert first["image"]["source"] == {"s3Location": {"uri": "s3://bucket/a.png"}}
    assert second["image"] == {"format": "png", "source": {"bytes": SHOWN}}
    assert len(picture.requests) == 1 and notes(response) == [("messages[0].parts[2].url", "note")]


def test_sound_and_files_by_url_become_bytes_where_the_protocol_links_pictures_only(picture):
    with FaultServer(answer(b"%PDF-1.4 x", "content-type: application/pdf")) as server:
        client, transport = asking(server, said("ok"), dialect="openai.chat")
        response = client.ask(["Read", File(url=server.url + "a.pdf")])
    (_, sent) = transport.bodies()[0]["messages"][0]["content"]
    assert base64.b64decode(sent["file"]["file_data"].partition(",")[2]) == b"%PDF-1.4 x"
    # The protocol demands a name for the file; nobody gave one.
    assert notes(response) == [("messages[0].parts[1].url", "note"), ("messages[0].parts[1].name", "note")]


MEDIA = {
    "image": (Image, "image/png", PNG), "audio": (Audio, "audio/wav", b"RIFF\0\0\0\0WAVEfmt "),
    "video": (Video, "video/mp4", b"\0\0\0\x18ftypmp42"), "file": (File, "text/plain", b"words"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MEDIA)
@pytest.mark.parametrize("name", NAMES)
def test_a_dialect_says_truly_which_media_it_needs_the_bytes_of(name, kind):
    """What it needs by bytes it drops by URL and sends by bytes; of any other, bytes say no more than a URL."""
    make, media_type, data = MEDIA[kind]

    def is_sent(part):
        sound = Text("x"), part
        lost = dialect(name).encode_request(Request("m", (Message("user", sound),)), Endpoint()).losses
        return not any(loss.severity == "loss" for loss in lost)

    by_url = is_sent(make(url=f"https://host.example/a.{media_type[-3:]}", media_type=media_type))
    by_bytes = is_sent(make(data, media_type=media_type))
    assert (by_bytes and not by_url) is (kind in dialect(name).needs_bytes)


def test_a_data_url_goes_out_as_it_is(picture):
    client, transport = asking(picture)
    response = client.ask(["Look", Image(url=f"data:image/png;base64,{SHOWN}")])
    assert transport.bodies()[0]["messages"][0]["images"] == [SHOWN] and not response.losses


def test_the_time_a_fetch_takes_is_the_calls_own():
    with FaultServer(stall) as server:
        client, transport = asking(server)
        begun = time.monotonic()
        for call in (client.ask, lambda *args, **more: client.stream(*args, **more).finish()):
            with pytest.raises(CallTimeoutError):
                call("Look", attachments=[server.url + "a.png"], timeout=0.2)
        assert time.monotonic() - begun < 2 and not transport.sent
    with FaultServer(sleep(0.2), answer(PNG)) as server:
        client, _ = asking(server, 0.3)
        with pytest.raises(CallTimeoutError):
            client.ask("Look", attachments=[server.url + "a.png"], timeout=0.4)


def test_a_stream_whose_fetch_failed_fails_again_and_asks_nothing():
    with FaultServer(send(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"), fin) as server:
        client, transport = asking(server)
        stream = client.stream("Look", attachments=[server.url + "a.png"])
        for _ in range(2):
            with pytest.raises(InputError) as caught:
                stream.finish()
            assert caught.value.code == "url_status"
        assert len(server.requests) == 1 and not transport.sent


def test_a_cancelled_fetch_lets_go_of_its_connection():
    async def run():
        with FaultServer(stall) as server:
            facts = {"base_url": "http://127.0.0.1:9", "dialect": "ollama.chat", "settings": Settings()}
            rules = Rules(allow_http=True, ports=(server.port,), allow_private=("127.0.0.1",))
            async with AsyncClient("m", transport=Scripted(), fetch=rules, **facts) as client:
                for call in (client.ask, lambda *args, **more: client.stream(*args, **more).finish()):
                    task = asyncio.ensure_future(call("Look", attachments=[server.url + "a.png"]))
                    assert await asyncio.to_thread(server.wait_for, lambda it: it.open_connections == 1)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    assert await asyncio.to_thread(server.wait_for, lambda it: it.open_connections == 0)

    asyncio.run(run())


def test_explain_fetches_nothing_and_says_what_would_be_fetched(picture):
    client, transport = asking(picture, strict=True)
    found = client.explain("Look", attachments=[picture.url + "a.png"])
    assert not picture.requests and not transport.sent
    assert [(loss.field, loss.severity) for loss in found.losses] == [("messages[0].parts[1].url", "note")]
    assert json.loads(found.body)["messages"] == [{"role": "user", "content": "Look"}]


@pytest.mark.parametrize("wrong", ["yes", 1, None, ("127.0.0.1",)])
def test_fetch_is_a_switch_or_rules(picture, wrong):
    with pytest.raises(InputError, match="fetch must be"):
        asking(picture, fetch=wrong)


# ---- answers that are given again --------------------------------------------------------------


def talked(*words):
    """A streamed answer of a server that takes bytes only."""
    lines = [{"message": {"role": "assistant", "content": word}, "done": False} for word in words]
    end = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", "prompt_eval_count": 3,
           "eval_count": 2}  # fmt: skip
    return Answer(*[json.dumps({"model": "m", **line}).encode() + b"\n" for line in (*lines, end)])


@pytest.mark.parametrize("second", ["stream", "ask", "bytes"])
def test_a_stream_whose_picture_was_fetched_is_kept_and_given_again(picture, second):
    client, transport = asking(picture, talked("I ", "see."), cache=True)
    shown = [picture.url + "a.png"]
    with client:
        assert list(client.stream("Look", attachments=shown)) == ["I ", "see."]
        if second == "stream":
            again = client.stream("Look", attachments=shown)
            assert list(again) == ["I ", "see."] and again.response.cost.amount == 0 and not again.response.attempts
        else:
            assert client.ask("Look", attachments=[PNG] if second == "bytes" else shown).text == "I see."
    assert len(transport.sent) == 1
    assert len(picture.requests) == (1 if second == "bytes" else 2), "what a URL leads to may have changed"


def test_a_whole_answer_about_a_fetched_picture_is_given_again_as_a_stream(picture):
    client, transport = asking(picture, spoken(), cache=True)
    with client:
        client.ask("Look", attachments=[picture.url + "a.png"])
        assert "".join(client.stream("Look", attachments=[picture.url + "a.png"])) == "I see."
    assert len(transport.sent) == 1


def test_other_bytes_behind_the_same_url_are_another_question():
    with FaultServer(answer(PNG, "content-type: image/png")) as server:
        client, transport = asking(server, talked("one"), talked("two"), cache=True)
        with client:
            for shown, words in ((PNG, "one"), (PNG, "one"), (PNG + b"more", "two")):
                server.script = [answer(shown, "content-type: image/png")]
                assert "".join(client.stream("Look", attachments=[server.url + "a.png"])) == words
    assert len(transport.sent) == 2


def test_two_servers_on_one_machine_share_no_answer_about_a_fetched_picture(picture):
    cache = ResponseCache()
    found = []
    for port in (9, 10):
        client, transport = asking(picture, talked(str(port)), cache=cache, base_url=f"http://127.0.0.1:{port}")
        with client:
            found.append("".join(client.stream("Look", attachments=[picture.url + "a.png"])))
        assert len(transport.sent) == 1
    assert found == ["9", "10"]


@pytest.mark.parametrize("cached", [False, "refresh"])
def test_a_stream_that_wants_no_kept_answer_is_asked_anew_after_its_fetch(picture, cached):
    client, transport = asking(picture, talked("one"), talked("two"), cache=True)
    with client:
        for words in ("one", "two"):
            stream = client.stream("Look", attachments=[picture.url + "a.png"], cached=cached)
            assert "".join(stream) == words
    assert len(transport.sent) == 2


def test_how_the_cache_is_used_is_checked_before_anything_is_fetched(picture):
    client, _ = asking(picture, cache=True)
    with pytest.raises(InputError):
        client.stream("Look", attachments=[picture.url + "a.png"], cached="perhaps")
    assert not picture.requests


@pytest.mark.parametrize("cache", [True, None])
def test_a_stream_cancelled_while_it_fetches_is_over(cache):
    async def test(server):
        rules = Rules(allow_http=True, ports=(server.port,), allow_private=("127.0.0.1",))
        client = AsyncClient(
            "m", base_url="http://127.0.0.1:9", dialect="ollama.chat", settings=Settings(), fetch=rules, cache=cache,
            transport=Scripted(spoken()),
        )  # fmt: skip
        async with client:
            stream = client.stream("Look", attachments=[server.url + "a.png"])
            reading = asyncio.create_task(stream.finish())
            await asyncio.sleep(0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            with pytest.raises(StreamInterruptedError):
                await stream.finish()

    with FaultServer(stall) as server:
        asyncio.run(test(server))
