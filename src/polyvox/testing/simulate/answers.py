"""What a simulated provider answers when nothing was recorded: the demo model, in every dialect. An answer is
a value with its bytes and their timing; nothing is sent here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from polyvox.dialects import Dialect, Endpoint, Peek, ServerSide, Wire, dialect, encode_json
from polyvox.errors import NotFoundError, PolyvoxError
from polyvox.transports.demo.brain import MODEL, as_words, think
from polyvox.transports.replay import Chunk
from polyvox.types import Loss, ReasoningDelta, RefusalDelta, Request, Response, TextDelta, ToolCallDelta, Usage

_JSON = {"content-type": "application/json"}
SAYS = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta)
"""The events that are words: those that take time to think of."""


class Answer(Struct, frozen=True):
    """One answer: its head, and its body in pieces, each after a pause in seconds.

    Attributes:
        streamed: whether its length is left open until its end.
        wait: seconds before the head.
        cut: whether the connection breaks after the body.
        keep_alive: what may be said in a pause, b"" for nothing.
        usage, losses: what it told, and what it could not.
    """

    status: int
    headers: Mapping[str, str]
    chunks: tuple[Chunk, ...] = ()
    streamed: bool = False
    wait: float = 0.0
    cut: bool = False
    keep_alive: bytes = b""
    usage: Usage = Usage()
    losses: tuple[Loss, ...] = ()

    @property
    def body(self) -> bytes:
        """All of its bytes."""
        return b"".join([chunk.data for chunk in self.chunks])

    @property
    def size(self) -> int:
        """How many bytes these are."""
        return sum(len(chunk.data) for chunk in self.chunks)


def plain_answer(value: Any) -> Answer:
    """An answer of JSON that no dialect encodes, such as a list of models."""
    return Answer(200, _JSON, (Chunk(encode_json(value)),))


def refusal(room: ServerSide, error: PolyvoxError) -> Answer:
    """An error in the form of a dialect."""
    reply = room.encode_error(error)
    return Answer(reply.status, reply.headers, (Chunk(reply.body),))


def check_model(model: str, models: tuple[str, ...] | None) -> None:
    """NotFoundError for a model that is not one of those; None is any."""
    if models is not None and model not in models:
        raise NotFoundError(
            f"the model {model!r} does not exist here; there is {', '.join(map(repr, models))}",
            status=404, code="model_not_found", type="invalid_request_error", param="model",
        )  # fmt: skip


class Demo:
    """Answers as the built-in offline model does, or as `answering` says, under any name, or under some names only.

    token_rate is the speed of streams, in tokens per second; None is as fast as it goes. strict refuses
    whatever the inventor of the dialect would.
    """

    def __init__(
        self,
        models: tuple[str, ...] | None,
        token_rate: float | None,
        *,
        strict: bool,
        answering: Callable[[Request], Response] | None = None,
    ) -> None:
        self._models = models
        self._rate = token_rate
        self._strict = strict
        self._answering = answering

    @property
    def models(self) -> tuple[str, ...]:
        """The names that a list of models shows."""
        return self._models or (MODEL,)

    async def answer(self, wire: Wire, name: str, asked: Peek) -> Answer:
        """The answer to a question in the dialect of this name; raises errors that the dialect can say."""
        room = dialect(name)
        if self._strict:
            room.check_request(wire)
        request = room.decode_request(wire, Endpoint(origin=f"{name}/simulated"))
        check_model(request.model, self._models)
        if self._answering is None:
            response = think(msgspec.structs.replace(request, model=MODEL))
        else:
            response = await asyncio.to_thread(self._answering, request)
        response = msgspec.structs.replace(response, model=request.model)
        return self._streamed(room, response, asked) if asked.stream else _whole(room, response, asked)

    def _streamed(self, room: Dialect, response: Response, asked: Peek) -> Answer:
        writer = room.writer(asked)
        events = list(as_words(response))
        said = sum(isinstance(event, SAYS) for event in events)
        pause = (response.usage.output or 0) / said / self._rate if self._rate and said else 0.0
        chunks, waited = [], 0.0
        for event in events:
            waited += pause if isinstance(event, SAYS) else 0.0
            if data := writer.send(event):
                chunks.append(Chunk(data, waited))
                waited = 0.0
        return Answer(
            200,
            {"content-type": writer.content_type, "cache-control": "no-cache"},
            tuple(chunks),
            streamed=True,
            keep_alive=room.writer(asked).keep_alive(),
            usage=response.usage,
            losses=tuple(writer.losses),
        )


def _whole(room: Dialect, response: Response, asked: Peek) -> Answer:
    reply, losses = room.encode_response(response, asked)
    return Answer(reply.status, reply.headers, (Chunk(reply.body),), usage=response.usage, losses=losses)
