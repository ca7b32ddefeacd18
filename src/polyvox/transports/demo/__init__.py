"""A model that is built in: it answers Chat Completions in process, offline, the same way every time,
and says so in each answer. It opens no socket and reads no clock; what to answer is `brain`'s business.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from polyvox.errors import BadResponseError, CallTimeoutError, UsageError
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.demo.brain import MODEL, DemoAnswer, DemoCall, DemoPlan, DemoRefusalError, pieces, think

Json = dict[str, Any]


class DemoTransport:
    """Answers `/chat/completions` and `/models` itself. delay is the pause before each word of a
    stream, in seconds. Every answer carries system_fingerprint "demo-offline".
    """

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay
        self._closed = False

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> DemoExchange:
        """Think and give the head of the answer; UsageError once closed."""
        if self._closed:
            raise UsageError("this transport is closed", hint="make a new one, or close it later", sent="no")
        status, body = _respond(outgoing)
        return DemoExchange(status, body, self._delay, timeouts.idle)

    async def close(self) -> None:
        """Nothing is held; only further use is refused."""
        self._closed = True


class DemoExchange:
    """See `transports.Exchange`. A stream's events come one by one, a whole answer in one piece."""

    def __init__(self, status: int, body: Json | list[bytes], delay: float, idle: float | None) -> None:
        self.status = status
        streamed = isinstance(body, list)
        self._chunks = body if isinstance(body, list) else [_json(body)]
        self._delay = delay if streamed else 0.0
        self._idle = idle
        self._next = 0
        digest = hashlib.sha256(b"".join(self._chunks)).hexdigest()[:12]
        kind = "text/event-stream" if streamed else "application/json"
        self.headers: Mapping[str, str] = {"content-type": kind, "x-request-id": f"req-demo-{digest}"}

    async def read(self, limit: int) -> bytes:
        """See `transports.Exchange.read`."""
        body = b""
        while data := await self.chunk():
            body += data
            if len(body) > limit:
                raise BadResponseError(f"the answer is longer than {limit} bytes", status=self.status, sent="yes")
        return body

    async def chunk(self) -> bytes:
        """See `transports.Exchange.chunk`."""
        if self._next < 0:
            raise UsageError("this answer is closed; nothing more can be read from it", sent="yes")
        if self._idle is not None and self._delay > self._idle:
            await asyncio.sleep(self._idle)
            raise CallTimeoutError(f"no byte came for {self._idle:g} seconds (idle timeout)", sent="yes")
        await asyncio.sleep(self._delay)
        if self._next == len(self._chunks):
            return b""
        self._next += 1
        return self._chunks[self._next - 1]

    async def close(self) -> None:
        """See `transports.Exchange.close`."""
        self._next = -1


def _respond(outgoing: Outgoing) -> tuple[int, Json | list[bytes]]:
    """Status and body: a whole one, or a stream's events."""
    path = urlsplit(outgoing.url).path
    try:
        if outgoing.method == "GET" and path.endswith("/models"):
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "polyvox"}
            return 200, {"object": "list", "data": [model]}
        if outgoing.method != "POST" or not path.endswith("/chat/completions"):
            raise DemoRefusalError(f"the demo does not know {outgoing.method} {path}", code="unknown_url", status=404)
        try:
            request = msgspec.json.decode(outgoing.body)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise DemoRefusalError(f"the body is not valid JSON: {error}", code="invalid_json") from None
        plan = think(request)
    except DemoRefusalError as refusal:
        facts = {"message": str(refusal), "type": "invalid_request_error", "param": refusal.param, "code": refusal.code}
        return refusal.status, {"error": facts}
    head = {
        "id": "chatcmpl-demo-" + hashlib.sha256(outgoing.body).hexdigest()[:12],
        "created": 0,
        "model": MODEL,
        "system_fingerprint": "demo-offline",
    }
    return 200, list(_events(plan, head, request)) if request.get("stream") else _whole(plan, head)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _usage(plan: DemoPlan) -> Json:
    return {
        "prompt_tokens": plan.prompt_tokens,
        "completion_tokens": plan.completion_tokens,
        "total_tokens": plan.prompt_tokens + plan.completion_tokens,
        "estimated": "words * 4/3",
    }


def _tool_call(call: DemoCall, arguments: str) -> Json:
    key = "input" if call.kind == "custom" else "arguments"
    return {"id": call.id, "type": call.kind, call.kind: {"name": call.name, key: arguments}}


def _whole(plan: DemoPlan, head: Json) -> Json:
    choices = []
    for index, answer in enumerate(plan.answers):
        message: Json = {"role": "assistant", "content": answer.text or (None if answer.calls else ""), "refusal": None}
        if answer.calls:
            message["tool_calls"] = [_tool_call(call, call.arguments) for call in answer.calls]
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason})
    return {**head, "object": "chat.completion", "choices": choices, "usage": _usage(plan)}


def _events(plan: DemoPlan, head: Json, request: Json) -> Iterator[bytes]:
    """The stream, an event for each word, with usage only where it was asked for."""
    with_usage = bool((request.get("stream_options") or {}).get("include_usage"))

    def event(choices: list[Json], **more: Any) -> bytes:
        unasked = {"usage": None} if with_usage else {}
        return (
            b"data: "
            + _json({**head, "object": "chat.completion.chunk", "choices": choices, **unasked, **more})
            + b"\n\n"
        )

    for index, answer in enumerate(plan.answers):
        for delta in _deltas(answer):
            yield event([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])
        yield event([{"index": index, "delta": {}, "logprobs": None, "finish_reason": answer.finish_reason}])
    if with_usage:
        yield event([], usage=_usage(plan))
    yield b"data: [DONE]\n\n"


def _deltas(answer: DemoAnswer) -> Iterator[Json]:
    yield {"role": "assistant", "content": None if answer.calls else ""}
    for piece in pieces(answer.text):
        yield {"content": piece}
    for index, call in enumerate(answer.calls):
        yield {"tool_calls": [{"index": index, **_tool_call(call, "")}]}
        key = "input" if call.kind == "custom" else "arguments"
        for piece in pieces(call.arguments):
            yield {"tool_calls": [{"index": index, call.kind: {key: piece}}]}
