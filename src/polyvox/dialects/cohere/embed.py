"""Embeddings as the second version of Cohere's protocol has them (`/v2/embed`). Pure: bytes and values.

Wire facts: the types and comments of the cohere SDK 7.3, and the provider's recorded answers.
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
from polyvox.dialects.cohere.answer import decode_error, error_of
from polyvox.dialects.embedding import (
    Losses,
    Vector,
    check_inputs,
    extra_of,
    most_at,
    own_keys,
    put_keys,
    read_vectors,
    reply_of,
    unsaid,
    write_vector,
)
from polyvox.dialects.shapes import field, missing, needed, text, texts, whole
from polyvox.errors import PolyvoxError
from polyvox.types import Embeddings, EmbedRequest, Extra, Loss, Usage

NAME = "cohere.embed"
PATH = "/v2/embed"

_HEADERS = {"content-type": "application/json", "accept": "application/json"}
_MOST = Most(96)
_PURPOSES = {"query": "search_query", "document": "search_document"}
_MEANT = {word: purpose for purpose, word in _PURPOSES.items()}
_CUTS = {True: "END", False: "NONE"}
_ASKED = frozenset({"model", "texts", "input_type", "output_dimension"})
_ANSWERED = frozenset({"id", "embeddings", "meta"})
# Types of vectors, in the order in which one is taken where there are several.
_TYPES = ("float", "base64", "int8", "uint8", "binary", "ubinary")
_BESIDE = ("images", "inputs")  # what may be embedded instead of texts


class CohereEmbeddings:
    """See `Embeds`; it has no state, one object serves every call."""

    name = NAME

    def most(self, at: Endpoint) -> Most:
        """See `Embeds`."""
        return most_at(at, _MOST)

    def encode(self, request: EmbedRequest, at: Endpoint) -> Encoded:
        """See `Embeds`. What the vectors are for must be told here."""
        losses: Losses = []
        own = own_keys(request.extra, NAME, losses)
        check_inputs(request, own, *_BESIDE)
        purpose = request.purpose
        if purpose is UNSET:
            purpose = "document"
            losses.append(Loss("purpose", "what vectors are for must be told here; search_document is", "note"))
        body: dict[str, Any] = {"model": request.model, "input_type": _PURPOSES.get(purpose, purpose)}
        if request.inputs:
            body["texts"] = list(request.inputs)
        if request.dimensions is not UNSET:
            body["output_dimension"] = request.dimensions
        if request.truncate is not UNSET:
            body["truncate"] = _CUTS[request.truncate]
        if request.encoding is not UNSET:
            body["embedding_types"] = [request.encoding]
        unsaid(request, losses, "user")
        path = at.options.get("embeddings_path", PATH)
        return Encoded(Wire(path, request_body({**body, **own}), _HEADERS), tuple(losses))

    def decode(self, reply: Reply, at: Endpoint) -> Embeddings:
        """See `Embeds`. Of several types of vectors the first is told, the others stay in extra."""
        body = decode_object(reply.body)
        if body.get("embeddings") is None and string(body.get("message")):
            raise error_of(body, 0, {})
        return guarded(lambda: _embeddings(body, reply.body))

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Embeds`."""
        return decode_error(reply)

    def decode_request(self, wire: Wire, at: Endpoint) -> EmbedRequest:
        """See `Embeds`. Pictures and mixed inputs are no text: they stay in extra as they came."""
        body = client_object(wire)
        inputs = field(body, "texts", texts)
        if inputs is UNSET and not any(body.get(key) for key in _BESIDE):
            raise missing("texts")
        purpose = needed(body, "input_type", text)
        known = set(_ASKED)
        encoding: Any = UNSET
        truncate: Any = UNSET
        kinds = field(body, "embedding_types", texts)
        if kinds is not UNSET and kinds in (("float",), ("base64",)):
            encoding = kinds[0]
            known.add("embedding_types")
        cut = field(body, "truncate", text)
        if cut in _CUTS.values():
            truncate = cut == _CUTS[True]
            known.add("truncate")
        return EmbedRequest(
            model=needed(body, "model", text),
            inputs=() if inputs is UNSET else inputs,
            dimensions=field(body, "output_dimension", whole),
            purpose=_MEANT.get(purpose, purpose),
            encoding=encoding,
            truncate=truncate,
            extra=extra_of(NAME, body, frozenset(known)),
        )

    def encode_response(self, embeddings: Embeddings, asked: EmbedRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `Embeds`. Types of vectors beside those that were made cannot be told."""
        losses: Losses = []
        own = own_keys(embeddings.extra, NAME, losses)
        kind = own.pop("embeddings_type", "float")
        if kind != "float":
            vectors: list[Any] = [list(map(int, vector)) for vector in embeddings.vectors]
        else:
            kind = "base64" if asked.encoding == "base64" else kind
            vectors = [write_vector(vector, asked) for vector in embeddings.vectors]
        body: dict[str, Any] = {"id": embeddings.id or ""}
        body["embeddings"] = {kind: vectors, **own.pop("embeddings_by_type", {})}
        if (meta := _meta_said(embeddings.usage)) is not None:
            body["meta"] = meta
        if embeddings.model is not None:
            losses.append(Loss("model", "answers do not tell their model here", "note"))
        wanted = asked.extra.get(NAME, {}).get("embedding_types", ())
        for other in wanted:
            if other not in body["embeddings"]:
                losses.append(Loss("embedding_types", f"there are no vectors of type {other}"))
        put_keys({"response_type": "embeddings_by_type", "texts": list(asked.inputs), **own}, body, NAME, losses)
        return reply_of(body), tuple(losses)


def _embeddings(body: dict[str, Any], data: bytes) -> Embeddings:
    found = body["embeddings"]
    extra = extra_of(NAME, body, _ANSWERED)
    vectors, extra = (read_vectors(found), extra) if isinstance(found, list) else _by_type(found, extra)
    return Embeddings(vectors, usage=_usage(body.get("meta")), id=string(body.get("id")) or None, raw=data, extra=extra)


def _by_type(found: dict[str, Any], extra: Extra) -> tuple[tuple[Vector, ...], Extra]:
    """The vectors of the first type that is there, and extra with what says and holds the others."""
    kinds = [kind for kind in _TYPES if found.get(kind) is not None]
    if not kinds:
        raise TypeError(f"there are no vectors of a type that is known: {', '.join(found)}")
    vectors, keys = read_vectors(found[kinds[0]]), dict(extra.get(NAME, {}))
    rest = {kind: value for kind, value in found.items() if kind != kinds[0] and value is not None}
    if rest:
        keys["embeddings_by_type"] = rest
    if kinds[0] not in ("float", "base64"):
        keys["embeddings_type"] = kinds[0]
    return vectors, {NAME: keys} if keys else {}


def _usage(meta: Any) -> Usage:
    """The tokens that were read; where only billed ones are told, those are they."""
    if not isinstance(meta, dict) or not meta:
        return Usage()
    tokens, billed = meta.get("tokens"), meta.get("billed_units")
    counts = [integer(told.get("input_tokens")) for told in (tokens, billed) if isinstance(told, dict)]
    asked = next((count for count in counts if count is not None), None)
    return Usage(asked, source="missing" if asked is None else "provider", raw=meta)


def _meta_said(usage: Usage) -> dict[str, Any] | None:
    if usage.raw.keys() & {"billed_units", "tokens", "api_version"}:
        return usage.raw
    return None if usage.input is None else {"billed_units": {"input_tokens": usage.input}}


EMBEDS: Embeds = CohereEmbeddings()
