"""What a type checker must accept of the public API, and what it must refuse. Checked by mypy, never run."""

from typing import assert_type

import polyvox
from polyvox import AsyncClient, AsyncStream, Client, Embeddings, PolyvoxError, Response, Stream, Text, ToolCall
from polyvox.backends import backend_of, register_backend, unregister_backend


def weather(city: str) -> str:
    return city


def sync() -> None:
    assert_type(polyvox.ask("hi", model="demo", temperature=0.5), Response)
    assert_type(polyvox.stream("hi"), Stream)
    assert_type(polyvox.ask_batch(["a"], concurrency=2), list[Response | PolyvoxError])
    with Client("demo", timeout=3, retries=0, max_tokens=5) as client:
        answer = client.ask(["look", Text("x")], tools=[weather], tool_choice="auto", attachments=[b"x"])
        assert_type(answer.text, str)
        assert_type(answer.tool_calls, tuple[ToolCall, ...])
        assert_type(answer.usage.input, int | None)
        for text in client.stream("hi", system="s"):
            assert_type(text, str)
        assert_type(client.chat(system="s").ask("x"), Response)
        assert_type(client.embed(["a", "b"], dimensions=3, timeout=5.0), Embeddings)
        assert_type(client.embed("a", model="demo").vectors, tuple[tuple[float, ...], ...])


async def awaited() -> None:
    async with AsyncClient("demo", api_key="k") as client:
        assert_type(await client.ask("hi"), Response)
        assert_type(await client.embed(word for word in ("a", "b")), Embeddings)
        assert_type(client.stream("hi"), AsyncStream)
        async for text in client.stream("hi"):
            assert_type(text, str)
    assert_type(await polyvox.ask_async("hi"), Response)
    assert_type(await polyvox.embed_async("hi"), Embeddings)
    assert_type(await polyvox.achat(model="demo").ask("x"), Response)


@register_backend
class Echo:
    name = "echo"

    def ask(self, prompt: str) -> str:
        return prompt


async def backed() -> None:
    assert_type(Echo(), Echo)
    assert_type(register_backend("other", Echo()), Echo)
    assert_type(Client("m", backend=Echo()).ask("hi"), Response)
    assert_type(await backend_of(Echo).models(), tuple[str, ...])
    unregister_backend("other")


def refused() -> None:
    polyvox.ask("hi", temprature=1)  # type: ignore[call-arg]
    polyvox.ask("hi", temperature="hot")  # type: ignore[arg-type]
    polyvox.ask(5)  # type: ignore[arg-type]
    polyvox.embed([5])  # type: ignore[list-item]
    polyvox.embed("a", temperature=0.5)  # type: ignore[call-arg]
    Client("demo", tiemout=3)  # type: ignore[call-arg]
    unregister_backend(Echo)  # type: ignore[arg-type]
    Client("demo").ask("x", api_key="k")  # type: ignore[call-arg]
