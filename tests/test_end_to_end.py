"""The whole way, over real sockets: every protocol, every cut, every way to call, nothing left behind."""

import asyncio
import gc
import json
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading

import pytest

from polyvox import AsyncClient, Client, ask_batch
from polyvox.config import Settings
from polyvox.dialects import NAMES
from polyvox.dialects.framing import aws_message
from polyvox.errors import PolyvoxError, StreamInterruptedError
from polyvox.testing.fault_server import FaultServer, answer, fin, rst, send, stall

WORDS = ["Hello", ", ", "wörld ", "🙂", "!"]


def sse(*events):
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events)


def chat_stream():
    def chunk(delta, finish=None):
        return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    return (
        sse(chunk({"role": "assistant"}), *(chunk({"content": word}) for word in WORDS), chunk({}, "stop"))
        + "data: [DONE]\n\n"
    )


def messages_stream():
    def event(kind, **facts):
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **facts})}\n\n"

    start = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    return (
        event("message_start", message=start)
        + event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        + "".join(event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in WORDS)
        + event("content_block_stop", index=0)
        + event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5})
        + event("message_stop")
    )


def ollama_stream():
    lines = [{"model": "m", "message": {"role": "assistant", "content": word}, "done": False} for word in WORDS]
    last = {
        "model": "m",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "eval_count": 5,
    }
    return "".join(json.dumps(line) + "\n" for line in [*lines, last])


def responses_stream():
    item = {"type": "message", "id": "i", "role": "assistant", "status": "in_progress", "content": []}
    answer = {"id": "r", "object": "response", "model": "m", "status": "in_progress", "output": []}
    words = [{"type": "output_text", "text": "".join(WORDS), "annotations": []}]
    done = {**item, "status": "completed", "content": words}
    at = {"item_id": "i", "output_index": 0, "content_index": 0}
    return sse(
        {"type": "response.created", "response": answer},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *({"type": "response.output_text.delta", **at, "delta": word} for word in WORDS),
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": {**answer, "status": "completed", "output": [done]}},
    )


def gemini_stream():
    def piece(word, **facts):
        content = {"role": "model", "parts": [{"text": word}]}
        return {"candidates": [{"content": content, **facts}], "responseId": "r", "modelVersion": "m"}

    return sse(*(piece(word) for word in WORDS[:-1]), piece(WORDS[-1], finishReason="STOP"))


def cohere_stream():
    def content(kind, **facts):
        return {"type": kind, "index": 0, "delta": {"message": {"content": facts}}}

    end = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {"output_tokens": 5}}}}
    return sse(
        {"type": "message-start", "id": "r", "delta": {"message": {"role": "assistant"}}},
        content("content-start", type="text", text=""),
        *(content("content-delta", text=word) for word in WORDS),
        {"type": "content-end", "index": 0},
        end,
    )


def converse_stream():
    def frame(kind, **facts):
        headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
        return aws_message(headers, json.dumps(facts).encode())

    return b"".join([
        frame("messageStart", role="assistant"),
        *(frame("contentBlockDelta", contentBlockIndex=0, delta={"text": word}) for word in WORDS),
        frame("contentBlockStop", contentBlockIndex=0),
        frame("messageStop", stopReason="end_turn"),
        frame("metadata", usage={"inputTokens": 1, "outputTokens": 5, "totalTokens": 6}),
    ])  # fmt: skip


STREAMS = {"openai.chat": chat_stream(), "anthropic.messages": messages_stream(), "ollama.chat": ollama_stream()}
# The same words in every protocol there is.
BODIES = {name: text.encode() for name, text in STREAMS.items()} | {
    "openai.responses": responses_stream().encode(), "gemini.generate": gemini_stream().encode(),
    "cohere.chat": cohere_stream().encode(), "bedrock.converse": converse_stream(),
}  # fmt: skip
TYPES = {"ollama.chat": "application/x-ndjson", "bedrock.converse": "application/vnd.amazon.eventstream"}


def client_at(server, dialect="openai.chat", **facts):
    facts = {"retries": 0, "settings": Settings(), "api_key": "test-key-123", **facts}
    base = server.url.rstrip("/") if dialect != "openai.chat" else server.url + "v1"
    return Client("m", base_url=base, dialect=dialect, **facts)


def head_of(dialect, length=None):
    lines = ["HTTP/1.1 200 OK", f"content-type: {TYPES.get(dialect, 'text/event-stream')}"]
    lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def chunked(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_every_protocol_there_is_takes_part():
    assert set(BODIES) == set(NAMES)


@pytest.mark.parametrize("dialect", BODIES)
def test_a_stream_arrives_whole_in_each_protocol(dialect):
    body = BODIES[dialect]
    with (
        FaultServer(send(head_of(dialect) + chunked(body) + b"0\r\n\r\n")) as server,
        client_at(server, dialect) as client,
    ):
        stream = client.stream("hi")
        assert "".join(stream) == "".join(WORDS)
        assert stream.response.complete and stream.response.finish_reason == "stop"


def check_cut(dialect, cut, ending):
    body = BODIES[dialect]
    with (
        FaultServer(send(head_of(dialect) + chunked(body[:cut])), ending) as server,
        client_at(server, dialect) as client,
    ):
        got = []
        try:
            for text in client.stream("hi"):
                got.append(text)
        except PolyvoxError as error:
            assert error.kind in ("stream_interrupted", "connection"), error
            assert "".join(WORDS).startswith("".join(got))
            assert error.partial is None or error.partial.complete is False
        else:
            assert "".join(got) == "".join(WORDS), f"cut at {cut}: a short answer without an error"


def sample(dialect, count):
    size = len(BODIES[dialect])
    return sorted(random.Random(dialect).sample(range(1, size), count))


@pytest.mark.parametrize("dialect", BODIES)
def test_a_connection_that_breaks_anywhere_is_never_a_silent_success(dialect):
    for number, cut in enumerate(sample(dialect, 16)):
        check_cut(dialect, cut, rst if number % 2 else fin)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", BODIES)
def test_a_connection_that_breaks_at_every_byte_is_never_a_silent_success(dialect):
    for cut in range(1, len(BODIES[dialect])):
        check_cut(dialect, cut, fin)


def test_a_clean_end_of_the_body_without_the_end_marker_is_an_interruption():
    half = BODIES["openai.chat"][:400]
    with FaultServer(answer(half, "content-type: text/event-stream")) as server, client_at(server) as client:
        with pytest.raises(StreamInterruptedError) as caught:
            list(client.stream("hi"))
    assert caught.value.partial.text


def test_text_is_delivered_as_it_comes_not_at_the_end():
    first = BODIES["openai.chat"][:300]
    with FaultServer(send(head_of("openai.chat") + chunked(first)), stall) as server, client_at(server) as client:
        stream = client.stream("hi")
        assert next(stream) == "Hello"
        stream.close()
        assert server.wait_for(lambda it: it.open_connections == 0)


def test_leaving_a_stream_by_break_closes_its_connection():
    first = BODIES["openai.chat"][:300]
    with FaultServer(send(head_of("openai.chat") + chunked(first)), stall) as server:

        async def go():
            facts = {"base_url": server.url, "api_key": "test-key-123", "settings": Settings()}
            async with AsyncClient("m", **facts) as client:
                async for _ in client.stream("hi"):
                    break
                return await asyncio.to_thread(server.wait_for, lambda it: it.connections and not it.open_connections)

        assert asyncio.run(go())
        with client_at(server) as client:
            for _ in client.stream("hi"):
                break
            assert server.wait_for(lambda it: it.connections == 2 and not it.open_connections)


def test_cancelling_a_call_reaches_the_server_within_a_second():
    with FaultServer(stall) as server:

        async def go():
            client = AsyncClient("m", base_url=server.url, api_key="test-key-123", settings=Settings())
            task = asyncio.create_task(client.ask("hi"))
            while not server.requests:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gone = await asyncio.to_thread(server.wait_for, lambda it: it.open_connections == 0, 1.0)
            await client.close()
            return gone

        assert asyncio.run(go())


def test_a_transient_failure_is_mended_by_another_try_on_a_fresh_connection():
    body = json.dumps({"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}).encode()
    calls = []

    async def first_breaks(connection):
        calls.append(1)
        await (rst if len(calls) == 1 else answer(body, "content-type: application/json"))(connection)

    with FaultServer(first_breaks) as server, client_at(server, retries=1) as client:
        response = client.ask("hi")
    assert [attempt.outcome for attempt in response.attempts] == ["connection", "ok"]
    assert server.connections == 2


# ---- every way to call ------------------------------------------------------------------------

ANSWER = answer(json.dumps({"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}).encode())


def test_32_threads_share_one_client():
    with FaultServer(ANSWER) as server, client_at(server) as client:
        texts = []
        threads = [threading.Thread(target=lambda: texts.append(client.ask("hi").text)) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert texts == ["ok"] * 32


SCRIPTS = {
    "script": """
        print(client().ask("hi").text)
    """,
    "under a running loop": """
        import asyncio
        async def main():
            print(client().ask("hi").text)
        asyncio.run(main())
    """,
    "fork before first use": """
        import os
        made = client()
        pid = os.fork()
        if pid == 0:
            ok = made.ask("hi").text == "ok"
            os._exit(0 if ok else 1)
        assert os.waitpid(pid, 0)[1] == 0
        print(made.ask("hi").text)
    """,
    "fork after first use": """
        import os
        made = client()
        made.ask("hi")
        pid = os.fork()
        if pid == 0:
            ok = made.ask("hi").text == "ok" and client().ask("hi").text == "ok"
            os._exit(0 if ok else 1)
        assert os.waitpid(pid, 0)[1] == 0
        print(made.ask("hi").text)
    """,
    "prefork workers": """
        import multiprocessing
        made = client()
        made.ask("hi")
        def work(number):
            return made.ask("hi").text
        with multiprocessing.get_context("fork").Pool(3) as pool:
            assert pool.map(work, range(9)) == ["ok"] * 9
        print(made.ask("hi").text)
    """,
    "asyncio.run twice": """
        import asyncio
        made = async_client()
        async def main():
            return (await made.ask("hi")).text
        assert asyncio.run(main()) == asyncio.run(main())
        print(asyncio.run(main()))
    """,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("way", SCRIPTS)
def test_every_way_to_call_answers_and_ends_quietly(way):
    with FaultServer(ANSWER) as server:
        head = f"""
        from polyvox import AsyncClient, Client
        from polyvox.config import Settings
        facts = dict(base_url={server.url!r}, api_key="test-key-123", settings=Settings())
        client = lambda: Client("m", **facts)
        async_client = lambda: AsyncClient("m", **facts)
        """
        code = textwrap.dedent(head) + textwrap.dedent(SCRIPTS[way])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.stdout.strip() == "ok", done.stderr
    assert done.stderr == ""


# ---- nothing left behind ----------------------------------------------------------------------


def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else len(os.listdir("/dev/fd"))


def open_and_close(server, count):
    async def one():
        facts = {"base_url": server.url, "api_key": "test-key-123", "settings": Settings(), "retries": 0}
        async with AsyncClient("m", **facts) as client:
            await client.ask("hi")
            async with client.stream("hi") as stream:
                with pytest.raises(PolyvoxError):
                    await stream.finish()

    async def go():
        await one()
        await asyncio.sleep(0.05)
        gc.collect()
        before = descriptors(), len(asyncio.all_tasks())
        for _ in range(count):
            await one()
        # The other side's closing handshakes and the transports' own clean-up take a turn or two.
        for _ in range(100):
            await asyncio.sleep(0.02)
            gc.collect()
            if (descriptors(), len(asyncio.all_tasks())) <= before:
                break
        return before, (descriptors(), len(asyncio.all_tasks()))

    return asyncio.run(go())


BAD_STREAM = answer(b'{"choices": []}')


def test_clients_opened_and_closed_leave_no_descriptor_and_no_task():
    calls = []

    async def alternate(connection):
        calls.append(1)
        await (ANSWER if len(calls) % 2 else BAD_STREAM)(connection)

    with FaultServer(alternate) as server:
        before, after = open_and_close(server, 50)
    # The server lives in this process: its own sockets come and go with ours.
    assert after[1] == before[1]
    assert after[0] <= before[0] + 2


@pytest.mark.slow
def test_a_thousand_clients_leave_no_descriptor_and_no_task():
    with FaultServer(ANSWER) as server:

        async def go():
            async def one():
                async with AsyncClient("m", base_url=server.url, api_key="test-key-123", settings=Settings()) as client:
                    await client.ask("hi")

            await one()
            before = descriptors(), len(asyncio.all_tasks())
            for _ in range(1000):
                await one()
            await asyncio.sleep(0.5)
            gc.collect()
            return before, (descriptors(), len(asyncio.all_tasks()))

        before, after = asyncio.run(go())
    assert after[1] == before[1] and after[0] <= before[0] + 2


@pytest.mark.slow
def test_no_task_of_ours_blocks_the_loop(caplog):
    """The loop's own watch reports what holds it for 20 ms; the first use of a library is not counted."""
    with FaultServer(ANSWER) as server:

        async def go():
            client = AsyncClient("m", base_url=server.url, api_key="test-key-123", settings=Settings())
            await client.ask("warm")
            gc.collect()
            gc.disable()
            asyncio.get_running_loop().slow_callback_duration = 0.02
            with caplog.at_level(logging.WARNING, logger="asyncio"):
                for _ in range(20):
                    await asyncio.gather(*(client.ask("x" * 10_000) for _ in range(16)))
            gc.enable()
            await client.close()

        asyncio.run(go(), debug=True)
    slow = [record.getMessage() for record in caplog.records if "took" in record.getMessage()]
    assert not [message for message in slow if "/polyvox/" in message]


def test_a_batch_over_a_real_server_keeps_its_bound_and_order():
    with FaultServer(ANSWER) as server, client_at(server) as client:
        answers = client.ask_batch(["a"] * 30, concurrency=5)
    assert [str(one) for one in answers] == ["ok"] * 30
    assert server.connections <= 5
    assert [str(one)[:6] for one in ask_batch(["x"], model="demo")] == ["[demo]"]
