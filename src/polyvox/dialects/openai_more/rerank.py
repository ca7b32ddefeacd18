"""Documents in the order in which they answer a query (`/rerank`), in the form that Jina, Together, vLLM and others
share, with Voyage's and llama.cpp's spellings; and as the second version of Cohere's protocol has it (`/v2/rerank`).
Pure: bytes and values; it knows no model.

Wire facts: the cohere SDK 7.3's types, and recorded answers of three providers. Options of the endpoint:
`rerank_path`, and what a server calls a field: `rerank_top` ("top_k"; "top_n" is usual), `rerank_truncate`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET

from polyvox.dialects import (
    Encoded,
    Endpoint,
    Reply,
    Wire,
    client_object,
    decode_json,
    guarded,
    integer,
    request_body,
    string,
)
from polyvox.dialects.cohere.answer import decode_error as decode_cohere_error
from polyvox.dialects.embedding import Losses, extra_of, own_keys, put_keys, reply_of
from polyvox.dialects.openai_chat.answer import decode_error, error_of, failure_in
from polyvox.dialects.openai_more import BothSides
from polyvox.dialects.openai_more.shared import JSON, fields_of, number, path_of, usage_of, usage_said
from polyvox.dialects.shapes import each, field, flag, needed, text, whole
from polyvox.errors import BadResponseError, InputError, PolyvoxError
from polyvox.types import Loss, Usage
from polyvox.verdicts import Ranked, Ranking, RerankRequest

_TOPS = ("top_n", "top_k")
_TRUNCATE = "truncation"
_ASKED = frozenset({"model", "query", "documents", "return_documents", _TRUNCATE, *_TOPS})
_ANSWERED = frozenset({"object", "id", "model", "results", "data", "usage", "meta"})
_RANKED = frozenset({"index", "relevance_score", "score", "document"})
_ROWS = ("results", "data")


class _Rerank(ABC):
    """What the two forms share."""

    name: str
    path: str

    def encode(self, request: RerankRequest, at: Endpoint) -> Encoded:
        """See `Operation`."""
        losses: Losses = []
        own = own_keys(request.extra, self.name, losses)
        if not request.documents and not own.get("documents"):
            raise InputError("there is nothing to rank", param="documents", hint="give at least one document")
        if not request.model:
            raise InputError("no model is named to rank documents", param="model", hint='say model="PROVIDER/MODEL"')
        body = {"model": request.model, "query": request.query, "documents": list(request.documents)}
        body.update(fields_of(request, self._names(at), losses))
        return Encoded(Wire(path_of(at, "rerank_path", self.path), request_body({**body, **own}), JSON), tuple(losses))

    @abstractmethod
    def _names(self, at: Endpoint) -> Mapping[str, str | None]:
        """What its fields are called; None for one that has no place."""

    def decode(self, reply: Reply, at: Endpoint) -> Ranking:
        """See `Operation`. A bare list is the results alone."""
        body = decode_json(reply.body)
        if isinstance(body, list):
            body = {"results": body}
        if not isinstance(body, dict):
            raise BadResponseError("the answer is no ranking")
        if (failure := failure_in(body)) is not None:
            raise error_of(failure, 0)
        return guarded(lambda: _ranking(body, reply.body, self.name))

    def decode_request(self, wire: Wire, at: Endpoint) -> RerankRequest:
        """See `BothSides`."""
        body = client_object(wire)
        tops = [found for key in _TOPS if (found := field(body, key, whole)) is not UNSET]
        return RerankRequest(
            model=needed(body, "model", text),
            query=needed(body, "query", text),
            documents=needed(body, "documents", _documents),
            top=tops[0] if tops else UNSET,
            return_documents=field(body, "return_documents", flag),
            truncate=field(body, _TRUNCATE, flag),
            extra=extra_of(self.name, body, _ASKED),
        )

    def encode_response(self, answer: Ranking, asked: RerankRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`."""
        losses: Losses = []
        body: dict[str, Any] = {"id": answer.id or "", "results": [self._said(row, asked) for row in answer.results]}
        self._tell(answer, body, losses)
        put_keys(own_keys(answer.extra, self.name, losses), body, self.name, losses)
        return reply_of(body), tuple(losses)

    def _said(self, row: Ranked, asked: RerankRequest) -> dict[str, Any]:
        return {"index": row.index, "relevance_score": row.score, **row.extra.get(self.name, {})}

    @abstractmethod
    def _tell(self, answer: Ranking, body: dict[str, Any], losses: Losses) -> None:
        """Put what is known beside the results into the body."""


class CommonRerank(_Rerank):
    """See `BothSides`; the form that most servers share."""

    name = "openai.rerank"
    path = "/rerank"

    def _names(self, at: Endpoint) -> Mapping[str, str | None]:
        return {"top": at.options.get("rerank_top", _TOPS[0]), "return_documents": "return_documents",
                "truncate": at.options.get("rerank_truncate")}  # fmt: skip

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Operation`."""
        return decode_error(reply)

    def _said(self, row: Ranked, asked: RerankRequest) -> dict[str, Any]:
        said = super()._said(row, asked)
        if row.document is not None and asked.return_documents is not False:
            said["document"] = {"text": row.document}
        return said

    def _tell(self, answer: Ranking, body: dict[str, Any], losses: Losses) -> None:
        body["model"] = answer.model or ""
        if (usage := usage_said(answer.usage, "prompt_tokens", "completion_tokens")) is not None:
            body["usage"] = usage


class CohereRerank(_Rerank):
    """See `BothSides`; the second version of the inventor's own, which never gives texts back."""

    name = "cohere.rerank"
    path = "/v2/rerank"

    def _names(self, at: Endpoint) -> Mapping[str, str | None]:
        return {"top": "top_n", "return_documents": None, "truncate": None}

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Operation`."""
        return decode_cohere_error(reply)

    def _tell(self, answer: Ranking, body: dict[str, Any], losses: Losses) -> None:
        if answer.model is not None:
            losses.append(Loss("model", "answers do not tell their model here", "note"))
        if answer.usage.raw.keys() & {"billed_units", "tokens", "api_version"}:
            body["meta"] = answer.usage.raw
        elif answer.usage.input is not None:
            body["meta"] = {"tokens": {"input_tokens": answer.usage.input}}


def _documents(value: Any, where: str) -> tuple[str, ...]:
    """Texts, or objects that hold one under "text"."""
    return each(_document)(value, where)


def _document(value: Any, where: str) -> str:
    return needed(value, "text", text, where) if isinstance(value, dict) else text(value, where)


def _ranking(body: dict[str, Any], data: bytes, name: str) -> Ranking:
    rows = next((body[key] for key in _ROWS if isinstance(body.get(key), list)), None)
    if rows is None:
        raise TypeError("there are no results")
    ranked = [_ranked(row, name) for row in rows]
    # Some servers keep the order of the documents.
    ranked.sort(key=lambda row: -row.score)
    return Ranking(
        tuple(ranked),
        model=string(body.get("model")) or None,
        id=string(body.get("id")) or None,
        usage=_usage(body),
        raw=data,
        extra=extra_of(name, body, _ANSWERED),
    )


def _ranked(row: dict[str, Any], name: str) -> Ranked:
    place, score = integer(row["index"]), number(row.get("relevance_score", row.get("score")))
    if place is None or score is None:
        raise TypeError("a result has no place or no score")
    document = row.get("document")
    said = (
        document if isinstance(document, str) else string(document.get("text")) if isinstance(document, dict) else None
    )
    return Ranked(place, score, said, extra=extra_of(name, row, _RANKED))


def _usage(body: dict[str, Any]) -> Usage:
    """The tokens; where only their sum is told, it is the input's: no words come out. What is billed in searches
    stays in raw."""
    meta = body.get("meta")
    if isinstance(meta, dict) and meta:
        units = [meta.get(key) for key in ("tokens", "billed_units")]
        counts = [integer(told.get("input_tokens")) for told in units if isinstance(told, dict)]
        asked = next((count for count in counts if count is not None), None)
        return Usage(asked, source="missing" if asked is None else "provider", raw=meta)
    usage = usage_of(body.get("usage"))
    if usage.input is None and usage.total is not None:
        return Usage(usage.total, total=usage.total, source="provider", raw=usage.raw)
    return usage


RERANK: BothSides[RerankRequest, Ranking] = CommonRerank()
COHERE: BothSides[RerankRequest, Ranking] = CohereRerank()
