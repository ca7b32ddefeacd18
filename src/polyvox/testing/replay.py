"""Decode recorded provider traffic: `python -m polyvox.testing.replay FILE.jsonl` prints one JSON line
an exchange, in neutral form. It talks to nobody."""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from polyvox.dialects import ClientSide, Embeds, Endpoint, Reply, dialect, embeds
from polyvox.dialects.collect import Collector
from polyvox.errors import BadResponseError, PolyvoxError
from polyvox.types import Opaque, Response, ToolCall, Usage

# What a URL's path holds, and the dialect whose embeddings are made there; the first that fits counts.
_EMBEDDINGS = (
    (("/v2/embed",), "cohere.chat"),
    (("/api/embed",), "ollama.chat"),
    ((":embedContent",), "gemini.generate"),
    ((":batchEmbedContents",), "gemini.generate"),
    (("/embeddings",), "openai.chat"),
)
# What a URL's path holds, and the dialect that is spoken there; the first that fits counts.
_PLACES = (
    (("/chat/completions",), "openai.chat"),
    (("/v1/messages/",), None),
    (("/v1/messages",), "anthropic.messages"),
    (("/anthropic/", "awPredict"), "anthropic.messages"),
    (("anthropic.", "/invoke"), "anthropic.messages"),
    (("/api/chat",), "ollama.chat"),
    (("/v2/chat",), "cohere.chat"),
    (("api.cohere.com/v1/chat",), "cohere.chat"),  # the first version's errors are those of the second
    ((":generateContent",), "gemini.generate"),
    ((":streamGenerateContent",), "gemini.generate"),
    (("/responses",), "openai.responses"),
    (("/model/", "/converse"), "bedrock.converse"),
)


def dialect_of(url: str) -> str | None:
    """The dialect spoken at a URL, or None when it is not one of ours."""
    path = url.partition("?")[0]
    return next((name for marks, name in _PLACES if all(mark in path for mark in marks)), None)


def embeddings_of(url: str) -> str | None:
    """The dialect whose embeddings are made at a URL, or None."""
    path = url.partition("?")[0]
    return next((name for marks, name in _EMBEDDINGS if all(mark in path for mark in marks)), None)


def decode(exchange: dict[str, Any], rng: random.Random | None = None) -> dict[str, Any]:
    """One recorded exchange in neutral form; rng cuts a stream's bytes at random places."""
    url = exchange.get("url") or ""
    line: dict[str, Any] = {key: exchange.get(key) for key in ("id", "provider", "endpoint", "status", "streamed")}
    maker = embeds(embeddings_of(url) or "")
    name = maker.name if maker is not None else dialect_of(url)
    line |= {"dialect": name or "other", "kind": "other"}
    if name is None:
        return line
    at = Endpoint(origin=f"{exchange.get('provider')}/recorded")
    reply = _reply(exchange)
    if maker is not None:
        return line | _vectors(maker, reply, at)
    room = dialect(name)
    if reply.status >= 400:
        return line | {"kind": "error", "error": _error(room.decode_error(reply, at))}
    if exchange.get("streamed"):
        response, error = _stream(room, at, _pieces(reply.body, rng))
    else:
        try:
            response, error = room.decode_response(reply, at), None
        except PolyvoxError as caught:
            return line | {"kind": "error", "error": _error(caught)}
    return line | _answer(response, error)


def _reply(exchange: dict[str, Any]) -> Reply:
    """The answer as it came."""
    body = base64.b64decode(exchange["response_base64"]) if exchange.get("response_base64") else b""
    body = body or (exchange.get("response_text") or "").encode()
    headers = {key.lower(): str(value) for key, value in (exchange.get("response_headers") or {}).items()}
    return Reply(exchange.get("status") or 200, headers, body)


def _vectors(maker: Embeds, reply: Reply, at: Endpoint) -> dict[str, Any]:
    """What an exchange with embeddings says."""
    try:
        if reply.status >= 400:
            raise maker.decode_error(reply, at)
        found = maker.decode(reply, at)
    except PolyvoxError as caught:
        return {"kind": "error", "error": _error(caught)}
    return {
        "kind": "embeddings",
        "response_id": found.id,
        "model": found.model,
        "complete": True,
        "usage": _usage(found.usage),
        "error": None,
        "embeddings": {"count": len(found.vectors), "dim": len(found.vectors[0]) if found.vectors else 0},
    }


def _usage(usage: Usage) -> dict[str, int | None]:
    return {key: getattr(usage, key) for key in ("input", "output", "cache_read", "cache_write", "reasoning", "total")}


def _pieces(body: bytes, rng: random.Random | None) -> Iterator[bytes]:
    """The body whole, or in pieces of random length, short ones as likely as long ones."""
    at = 0
    while at < len(body):
        size = len(body) if rng is None else rng.choice((1, 2, 3, 5, 17, 64, 500, 4096))
        yield body[at : at + size]
        at += size


def _stream(room: ClientSide, at: Endpoint, pieces: Iterable[bytes]) -> tuple[Response, PolyvoxError | None]:
    reader, collector = room.reader(at), Collector()
    for piece in pieces:
        for event in reader.feed(piece):
            collector.add(event)
    for event in reader.close():
        collector.add(event)
    return collector.response(), collector.failed.error if collector.failed else None


def _answer(response: Response, error: PolyvoxError | None) -> dict[str, Any]:
    # A stream that was merely cut has no error on the wire: `complete` says it.
    wire_error = error is not None and error.kind != "stream_interrupted"
    return {
        "kind": "chat",
        "response_id": response.id,
        "model": response.model,
        "text": response.text,
        "reasoning_text": response.reasoning,
        "refusal": response.refusal,
        "tool_calls": [_call(call) for call in response.tool_calls],
        "server_tool_calls": sum(
            part.type.endswith("tool_use") for part in response.message.parts if isinstance(part, Opaque)
        ),
        "finish_reason": None if error and not wire_error else response.finish_reason,
        "raw_finish_reason": response.raw_finish_reason,
        "complete": response.complete,
        "usage": _usage(response.usage),
        "error": _error(error) if error and wire_error else None,
        "embeddings": None,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments: Any = call.args
    except BadResponseError:
        arguments = {"__raw__": call.arguments}
    return {"id": call.id, "name": call.name, "arguments": arguments}


def _error(error: PolyvoxError) -> dict[str, Any]:
    return {"kind": error.kind, "message": error.message, "code": error.code, "type": error.type}


def main(arguments: list[str] | None = None) -> int:
    """Decode a file of exchanges to standard output; 2 when the file is not one."""
    parser = argparse.ArgumentParser(prog="python -m polyvox.testing.replay", description=__doc__)
    parser.add_argument("file", help="recorded exchanges, one JSON object a line; - for standard input")
    parser.add_argument("--cut", type=int, metavar="SEED", help="feed each stream in random pieces")
    options = parser.parse_args(arguments)
    rng = None if options.cut is None else random.Random(options.cut)
    try:
        with sys.stdin if options.file == "-" else Path(options.file).open(encoding="utf-8") as lines:
            for number, text in enumerate(lines, 1):
                if not text.strip():
                    continue
                try:
                    exchange = json.loads(text)
                    decoded = decode(exchange, rng)
                except (ValueError, TypeError, AttributeError) as error:
                    print(f"{options.file}:{number}: not a recorded exchange: {error}", file=sys.stderr)
                    return 2
                print(json.dumps(decoded, ensure_ascii=False))
    except OSError as error:
        print(f"cannot read {options.file}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
