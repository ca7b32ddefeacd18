"""OpenAI's protocols beside its chats: embeddings (`/embeddings`), as the inventor and its imitators speak them.
Pure: bytes and values; it knows no provider and no model.

Wire facts: openai SDK 3.x types; imitators' fields as their recorded traffic and their documentation show them.
Options of the endpoint: `embeddings_path`, and what an imitator calls a field that the inventor calls otherwise or
does not have: `embed_dimensions` (such as "output_dimension"), `embed_purpose` ("input_type"), `embed_truncate`
("truncation").
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from polyvox.dialects import (
    Embeds,
    Encoded,
    Endpoint,
    Most,
    Reply,
    Wire,
    client_object,
    decode_object,
    guarded,
    integer,
    request_body,
    string,
)
from polyvox.dialects.embedding import (
    Losses,
    check_inputs,
    extra_of,
    most_at,
    one_or_more,
    own_keys,
    put_keys,
    read_vector,
    reply_of,
    unsaid,
    write_vector,
)
from polyvox.dialects.openai_chat.answer import charged, decode_error, error_of, failure_in
from polyvox.dialects.shapes import field, flag, missing, needed, one_of, text, whole
from polyvox.errors import PolyvoxError
from polyvox.types import Embeddings, EmbedRequest, Loss, Usage

NAME = "openai.embeddings"
PATH = "/embeddings"

_HEADERS = {"content-type": "application/json", "accept": "application/json"}
# 2,048 texts and 300,000 tokens in all; text has no fewer than two bytes a token in the long run.
_MOST = Most(2048, 600_000)
# Names that imitators have for a field, the inventor's first; all are read.
_DIMENSIONS = ("dimensions", "output_dimension")
_PURPOSE = "input_type"
_TRUNCATE = "truncation"
_ASKED = frozenset({"model", "input", "encoding_format", "user", _PURPOSE, _TRUNCATE, *_DIMENSIONS})
_ANSWERED = frozenset({"object", "data", "model", "usage", "id"})


class OpenAIEmbeddings:
    """See `Embeds`; it has no state, one object serves every call."""

    name = NAME

    def most(self, at: Endpoint) -> Most:
        """See `Embeds`."""
        return most_at(at, _MOST)

    def encode(self, request: EmbedRequest, at: Endpoint) -> Encoded:
        """See `Embeds`."""
        losses: Losses = []
        own = own_keys(request.extra, NAME, losses)
        check_inputs(request, own, "input")
        body: dict[str, Any] = {"model": request.model, "input": list(request.inputs)}
        names = {
            "dimensions": at.options.get("embed_dimensions", _DIMENSIONS[0]),
            "purpose": at.options.get("embed_purpose"),
            "truncate": at.options.get("embed_truncate"),
            "encoding": "encoding_format",
            "user": "user",
        }
        for name, key in names.items():
            if key is None:
                unsaid(request, losses, name)
            elif (value := getattr(request, name)) is not UNSET:
                body[key] = value
        path = at.options.get("embeddings_path", PATH)
        return Encoded(Wire(path, request_body({**body, **own}), _HEADERS), tuple(losses))

    def decode(self, reply: Reply, at: Endpoint) -> Embeddings:
        """See `Embeds`."""
        body = decode_object(reply.body)
        if (failure := failure_in(body)) is not None:
            raise error_of(failure, 0)
        return guarded(lambda: _embeddings(body, reply.body))

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Embeds`."""
        return decode_error(reply)

    def decode_request(self, wire: Wire, at: Endpoint) -> EmbedRequest:
        """See `Embeds`. Tokens are no text: they stay in extra as they came."""
        body = client_object(wire)
        if body.get("input") is None:
            raise missing("input")
        extra = extra_of(NAME, body, _ASKED)
        inputs: tuple[str, ...] = ()
        if _are_tokens(body["input"]):
            extra = {NAME: {**extra.get(NAME, {}), "input": body["input"]}}
        else:
            inputs = one_or_more(body["input"], "input")
        dimensions = [found for key in _DIMENSIONS if (found := field(body, key, whole)) is not UNSET]
        encoding: Any = field(body, "encoding_format", one_of("float", "base64"))
        return EmbedRequest(
            model=needed(body, "model", text),
            inputs=inputs,
            dimensions=dimensions[0] if dimensions else UNSET,
            purpose=field(body, _PURPOSE, text),
            truncate=field(body, _TRUNCATE, flag),
            encoding=encoding,
            user=field(body, "user", text),
            extra=extra,
        )

    def encode_response(self, embeddings: Embeddings, asked: EmbedRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `Embeds`. A model and counts must be told here: those that nobody knows are "" and 0."""
        losses: Losses = []
        rows = [
            {"object": "embedding", "index": index, "embedding": write_vector(vector, asked)}
            for index, vector in enumerate(embeddings.vectors)
        ]
        body: dict[str, Any] = {"object": "list", "data": rows, "model": embeddings.model or ""}
        body["usage"] = _usage_said(embeddings.usage, losses)
        if embeddings.id is not None:
            body["id"] = embeddings.id
        put_keys(own_keys(embeddings.extra, NAME, losses), body, NAME, losses)
        return reply_of(body), tuple(losses)


def _are_tokens(value: Any) -> bool:
    """Whether the input is a list of numbers, or a list of those."""
    first = value[0] if isinstance(value, list) and value else None
    return type(first) is int or (isinstance(first, list) and bool(first) and type(first[0]) is int)


def _embeddings(body: dict[str, Any], data: bytes) -> Embeddings:
    rows = body["data"]
    places = [integer(row.get("index")) for row in rows]
    if None not in places:
        rows = [row for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0] or 0)]
    return Embeddings(
        vectors=tuple([read_vector(row["embedding"]) for row in rows]),
        model=string(body.get("model")) or None,
        usage=_usage(body.get("usage")),
        id=string(body.get("id")) or None,
        raw=data,
        extra=extra_of(NAME, body, _ANSWERED),
    )


def _usage(raw: Any) -> Usage:
    """The tokens; where only their sum is told, it is the input's: nothing comes out but vectors."""
    if not isinstance(raw, dict) or not raw:
        return Usage()
    total = integer(raw.get("total_tokens"))
    asked = integer(raw.get("prompt_tokens"))
    asked = total if asked is None else asked
    cost = charged(raw)
    return Usage(asked, total=total, cost=cost, source="missing" if asked is None else "provider", raw=raw)


def _usage_said(usage: Usage, losses: Losses) -> dict[str, Any]:
    asked = usage.input
    if asked is None:
        losses.append(Loss("usage", "tokens must be told here; 0 is for none that are known", "note"))
        asked = 0
    total = asked if usage.total is None else usage.total
    return {**(usage.raw if "total_tokens" in usage.raw else {}), "prompt_tokens": asked, "total_tokens": total}


EMBEDS: Embeds = OpenAIEmbeddings()
