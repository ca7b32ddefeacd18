"""Embeddings of the generateContent protocol: `embedContent` for one text, `batchEmbedContents` for several.
Pure: bytes and values; the model is in the path.

Wire facts: the google-genai SDK 3.4 types and recorded answers. `batch` in extra means that one text came as a batch;
`requests` there holds a batch whose texts are not all asked for alike, or are no texts.
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
    own_keys,
    put_keys,
    read_vector,
    reply_of,
    unsaid,
)
from polyvox.dialects.gemini.answer import decode_error, error_of
from polyvox.dialects.gemini.facts import WHOLE, model_in, path_of
from polyvox.dialects.shapes import each, field, mapping, missing, needed, text, told, whole
from polyvox.errors import PolyvoxError
from polyvox.types import Embeddings, EmbedRequest, Loss, Usage

NAME = "gemini.embed"
ONE, BATCH = "embedContent", "batchEmbedContents"

_HEADERS = {"content-type": "application/json", "accept": "application/json"}
# Its documentation does not say; the server does: "at most 100 requests can be in one batch".
_MOST = Most(100)
_PURPOSES = {
    "query": "RETRIEVAL_QUERY", "document": "RETRIEVAL_DOCUMENT", "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}  # fmt: skip
_MEANT = {word: purpose for purpose, word in _PURPOSES.items()}
_SAID = ("model", "content")
_SETTINGS = frozenset({*_SAID, "taskType", "outputDimensionality"})
_ANSWERED = frozenset({"embedding", "embeddings", "usageMetadata"})


class GeminiEmbeddings:
    """See `Embeds`; it has no state, one object serves every call."""

    name = NAME

    def most(self, at: Endpoint) -> Most:
        """See `Embeds`."""
        return most_at(at, _MOST)

    def encode(self, request: EmbedRequest, at: Endpoint) -> Encoded:
        """See `Embeds`."""
        losses: Losses = []
        own = own_keys(request.extra, NAME, losses)
        check_inputs(request, own, "requests")
        settings: dict[str, Any] = {}
        if request.purpose is not UNSET:
            settings["taskType"] = _PURPOSES.get(request.purpose, request.purpose)
        if request.dimensions is not UNSET:
            settings["outputDimensionality"] = request.dimensions
        unsaid(request, losses, "truncate", "encoding", "user")
        path = path_of(request.model, stream=False).removesuffix(WHOLE)
        batch, rows = own.pop("batch", False), own.pop("requests", None)
        if rows is None:
            asked = [{"content": {"parts": [{"text": words}]}, **settings, **own} for words in request.inputs]
            model = path.strip("/").removesuffix(":")
            rows = [{"model": model, **row} for row in asked] if batch or len(asked) > 1 else asked
        if len(rows) == 1 and not batch:
            return Encoded(Wire(path + ONE, request_body(rows[0]), _HEADERS), tuple(losses))
        return Encoded(Wire(path + BATCH, request_body({"requests": rows}), _HEADERS), tuple(losses))

    def decode(self, reply: Reply, at: Endpoint) -> Embeddings:
        """See `Embeds`. An answer in either form is read."""
        body = decode_object(reply.body)
        if body.get("error"):
            raise error_of(body, 0, {})
        return guarded(lambda: _embeddings(body, reply.body))

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Embeds`."""
        return decode_error(reply)

    def decode_request(self, wire: Wire, at: Endpoint) -> EmbedRequest:
        """See `Embeds`."""
        body = client_object(wire)
        model = _model_of(wire.path) or told(body, "model", text)
        if not model:
            raise missing("model", "put it into the path: /models/MODEL:embedContent")
        alone = body.get("requests") is None
        rows = (body,) if alone else each(mapping)(body["requests"], "requests")
        places = [""] if alone else [f"requests[{place}]" for place in range(len(rows))]
        settings = [{key: value for key, value in row.items() if key not in _SAID} for row in rows]
        inputs = [_text_of(row, place) for row, place in zip(rows, places, strict=True)]
        batch = {"batch": True} if len(rows) == 1 and not alone else {}
        if None in inputs or any(said != settings[0] for said in settings):
            return EmbedRequest(model=model, extra={NAME: {**batch, "requests": list(rows)}})
        first, place = (settings[0], places[0]) if settings else ({}, "")
        purpose = field(first, "taskType", text, place)
        return EmbedRequest(
            model=model,
            inputs=tuple([words for words in inputs if words is not None]),
            dimensions=field(first, "outputDimensionality", whole, place),
            purpose=UNSET if purpose is UNSET else _MEANT.get(purpose, purpose),
            extra=extra_of(NAME, {**first, **batch}, _SETTINGS),
        )

    def encode_response(self, embeddings: Embeddings, asked: EmbedRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `Embeds`. One text that was no batch gets its vector alone."""
        losses: Losses = []
        own = own_keys(embeddings.extra, NAME, losses)
        beside = dict(enumerate(own.pop("beside", ())))
        rows = [{**beside.get(place, {}), "values": list(vector)} for place, vector in enumerate(embeddings.vectors)]
        alone = len(rows) == 1 and not asked.extra.get(NAME, {}).get("batch")
        body: dict[str, Any] = {"embedding": rows[0]} if alone else {"embeddings": rows}
        usage = embeddings.usage
        if usage.input is not None:
            counts = usage.raw if "promptTokenCount" in usage.raw else {}
            total = usage.input if usage.total is None else usage.total
            body["usageMetadata"] = {**counts, "promptTokenCount": usage.input, "totalTokenCount": total}
        for name in ("model", "id"):
            if getattr(embeddings, name) is not None:
                losses.append(Loss(name, "answers do not tell it here", "note"))
        put_keys(own, body, NAME, losses)
        return reply_of(body), tuple(losses)


def _model_of(path: str) -> str | None:
    """The model in the path of a call, None where there is none."""
    head, colon, method = path.partition("?")[0].rpartition(":")
    return model_in(f"{head}:{WHOLE}")[0] if colon and method in (ONE, BATCH) else None


def _text_of(row: dict[str, Any], place: str) -> str | None:
    """The text of a request that is one text of the user and nothing else; None for others. Official clients say
    whose text it is, which is the same as saying nothing."""
    content = needed(row, "content", mapping, place)
    parts = content.get("parts")
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict):
        return None
    if not set(content) <= {"parts", "role"} or content.get("role") not in (None, "user"):
        return None
    return string(parts[0].get("text")) if set(parts[0]) == {"text"} else None


def _embeddings(body: dict[str, Any], data: bytes) -> Embeddings:
    one = body.get("embedding")
    rows = [one] if one is not None else body["embeddings"]
    usage = body.get("usageMetadata")
    counts = usage if isinstance(usage, dict) else {}
    asked, total = integer(counts.get("promptTokenCount")), integer(counts.get("totalTokenCount"))
    extra = extra_of(NAME, body, _ANSWERED)
    beside = [{key: value for key, value in row.items() if key != "values"} for row in rows]
    if any(beside):
        extra = {NAME: {**extra.get(NAME, {}), "beside": beside}}
    return Embeddings(
        vectors=tuple([read_vector(row["values"]) for row in rows]),
        usage=Usage(asked, total=total, source="missing" if asked is None else "provider", raw=counts),
        raw=data,
        extra=extra,
    )


EMBEDS: Embeds = GeminiEmbeddings()
