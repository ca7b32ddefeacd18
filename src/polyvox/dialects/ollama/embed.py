"""Embeddings as Ollama servers make them: `/api/embed`, and the older `/api/embeddings` for one prompt.
Pure: bytes and values.

Wire facts: the ollama SDK 0.6 types and recorded answers. A key `prompt` in extra, or an endpoint whose
`embeddings_path` is the older one, means the older form.
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
    read_vectors,
    reply_of,
    unsaid,
)
from polyvox.dialects.ollama.answer import METRICS, decode_error, error_of, usage_of
from polyvox.dialects.shapes import field, flag, missing, needed, text, whole
from polyvox.errors import InputError, PolyvoxError
from polyvox.types import Embeddings, EmbedRequest, Loss, Usage

NAME = "ollama.embed"
PATH = "/api/embed"
OLDER = "/api/embeddings"

_HEADERS = {"content-type": "application/json", "accept": "application/json"}
_ASKED = frozenset({"model", "input", "truncate", "dimensions"})
_ANSWERED = frozenset({"model", "embeddings", "embedding", *METRICS})


class OllamaEmbeddings:
    """See `Embeds`; it has no state, one object serves every call."""

    name = NAME

    def most(self, at: Endpoint) -> Most:
        """See `Embeds`."""
        return most_at(at, Most(1 if at.options.get("embeddings_path") == OLDER else None))

    def encode(self, request: EmbedRequest, at: Endpoint) -> Encoded:
        """See `Embeds`."""
        losses: Losses = []
        own = own_keys(request.extra, NAME, losses)
        check_inputs(request, own)
        path = at.options.get("embeddings_path", PATH)
        body: dict[str, Any] = {"model": request.model}
        if "prompt" in own or path == OLDER:
            if len(request.inputs) > 1:
                raise InputError("one text a call is embedded here", param="inputs")
            path = OLDER
            body["prompt"] = request.inputs[0]
            unsaid(request, losses, "dimensions", "truncate")
        else:
            body["input"] = list(request.inputs)
            for name in ("dimensions", "truncate"):
                if (value := getattr(request, name)) is not UNSET:
                    body[name] = value
        if "keep_alive" in at.options:
            body["keep_alive"] = at.options["keep_alive"]
        unsaid(request, losses, "purpose", "encoding", "user")
        return Encoded(Wire(path, request_body({**body, **own}), _HEADERS), tuple(losses))

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
        """See `Embeds`. The older form is told by its prompt, which stays in extra to say so."""
        body = client_object(wire)
        prompt = field(body, "prompt", text)
        if prompt is not UNSET:
            inputs: tuple[str, ...] = (prompt,)
        elif body.get("input") is None:
            raise missing("input")
        else:
            inputs = one_or_more(body["input"], "input")
        return EmbedRequest(
            model=needed(body, "model", text),
            inputs=inputs,
            dimensions=field(body, "dimensions", whole),
            truncate=field(body, "truncate", flag),
            extra=extra_of(NAME, body, _ASKED),
        )

    def encode_response(self, embeddings: Embeddings, asked: EmbedRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `Embeds`. The older form has one vector and nothing else."""
        losses: Losses = []
        usage = embeddings.usage
        vectors = [list(vector) for vector in embeddings.vectors]
        if "prompt" in asked.extra.get(NAME, {}):
            body: dict[str, Any] = {"embedding": vectors[0] if vectors else []}
            said = {"model": embeddings.model, "usage": usage.input}
            losses += [
                Loss(name, "it cannot be told in the older form", "note") for name in said if said[name] is not None
            ]
        else:
            counts = {key: usage.raw[key] for key in METRICS if key in usage.raw}
            if usage.input is not None:
                counts["prompt_eval_count"] = usage.input
            body = {"model": embeddings.model or "", "embeddings": vectors, **counts}
        if embeddings.id is not None:
            losses.append(Loss("id", "answers have no ids here", "note"))
        put_keys(own_keys(embeddings.extra, NAME, losses), body, NAME, losses)
        return reply_of(body), tuple(losses)


def _embeddings(body: dict[str, Any], data: bytes) -> Embeddings:
    one = body.get("embedding")
    return Embeddings(
        vectors=read_vectors(body["embeddings"]) if one is None else (read_vector(one),),
        model=string(body.get("model")) or None,
        usage=usage_of(body) or Usage(),
        raw=data,
        extra=extra_of(NAME, body, _ANSWERED),
    )


EMBEDS: Embeds = OllamaEmbeddings()
