"""Batches (`/batches`): made, looked at, stopped and listed; and the lines of their files, a request or an answer each.
Pure: bytes and values; it knows no provider.

Wire facts: openai SDK 3.x types, and the inventor's guide to batches. Options of the endpoint: `batches_path`, and
`batch_prefix`, what stands before a dialect's path in a line ("/v1").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from polyvox.dialects import (
    ClientSide,
    Encoded,
    Endpoint,
    Reply,
    Wire,
    client_object,
    decode_json,
    encode_json,
    guarded,
    integer,
    request_body,
    string,
)
from polyvox.dialects.embedding import Losses, extra_of, own_keys, put_keys, reply_of
from polyvox.dialects.openai_chat.answer import decode_error, error_of
from polyvox.dialects.openai_more import BothSides
from polyvox.dialects.openai_more.files import behind, id_in, listed, listing, not_kept, of_id, page_said
from polyvox.dialects.openai_more.shared import JSON, answer_in, number, path_of, usage_of
from polyvox.dialects.shapes import by_name, field, needed, text
from polyvox.errors import BadResponseError, InputError, PolyvoxError, of_kind
from polyvox.stored import (
    Batch,
    BatchLine,
    BatchPage,
    BatchProblem,
    BatchRequest,
    BatchResult,
    IdRequest,
    ListRequest,
)
from polyvox.types import Asked, Loss

NAME = "openai.batches"
_PATH = "/batches"
_ASKED = frozenset({"input_file_id", "endpoint", "completion_window", "metadata"})
_ENDS = ("completed_at", "failed_at", "expired_at", "cancelled_at")
_SAME = ("input_file_id", "output_file_id", "error_file_id", "endpoint")
_KNOWN = frozenset({"id", "object", "status", "errors", "request_counts", "metadata", "created_at", "expires_at",
                    "model", "usage", *_SAME})  # fmt: skip
_PAGE = frozenset({"object", "data", "has_more", "first_id", "last_id"})

A = TypeVar("A", bound=Asked)


class _OneBatch(Generic[A]):
    """What all that is done with one batch has in common."""

    name = NAME

    def decode(self, reply: Reply, at: Endpoint) -> Batch:
        """See `Operation`."""
        body = answer_in(reply)
        return guarded(lambda: _batch(body, at, reply.body))

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Operation`."""
        return not_kept(decode_error(reply))

    def encode_response(self, answer: Batch, asked: A) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`."""
        losses: Losses = []
        return reply_of(_batch_said(answer, losses)), tuple(losses)


class BatchMaking(_OneBatch[BatchRequest]):
    """See `BothSides`: answer the requests of a kept file."""

    def encode(self, request: BatchRequest, at: Endpoint) -> Encoded:
        """See `Operation`."""
        losses: Losses = []
        body: dict[str, Any] = {"input_file_id": request.file_id, "endpoint": request.endpoint,
                                "completion_window": request.window}  # fmt: skip
        if request.metadata is not UNSET:
            body["metadata"] = request.metadata
        body.update(own_keys(request.extra, NAME, losses))
        return Encoded(Wire(path_of(at, "batches_path", _PATH), request_body(body), JSON), tuple(losses))

    def decode_request(self, wire: Wire, at: Endpoint) -> BatchRequest:
        """See `BothSides`."""
        body = client_object(wire)
        return BatchRequest(
            model="",
            file_id=needed(body, "input_file_id", text),
            endpoint=needed(body, "endpoint", text),
            window=needed(body, "completion_window", text),
            metadata=field(body, "metadata", by_name(text)),
            extra=extra_of(NAME, body, _ASKED),
        )


class BatchById(_OneBatch[IdRequest]):
    """See `BothSides`: look at a batch, or stop it."""

    def __init__(self, method: str, behind: str = "") -> None:
        self._method, self._behind = method, behind

    def encode(self, request: IdRequest, at: Endpoint) -> Encoded:
        """See `Operation`."""
        return of_id(request, path_of(at, "batches_path", _PATH), NAME, method=self._method, behind=self._behind)

    def decode_request(self, wire: Wire, at: Endpoint) -> IdRequest:
        """See `BothSides`."""
        return id_in(wire, "batches")


class BatchList:
    """See `BothSides`: a page of the batches."""

    name = NAME

    def encode(self, request: ListRequest, at: Endpoint) -> Encoded:
        """See `Operation`."""
        return listing(request, path_of(at, "batches_path", _PATH), NAME, ("after", "limit"))

    def decode(self, reply: Reply, at: Endpoint) -> BatchPage:
        """See `Operation`."""
        body = answer_in(reply)
        return guarded(
            lambda: BatchPage(
                tuple([_batch(row, at) for row in body["data"]]),
                next=behind(body),
                raw=reply.body,
                extra=extra_of(NAME, body, _PAGE),
            )
        )

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Operation`."""
        return not_kept(decode_error(reply))

    def decode_request(self, wire: Wire, at: Endpoint) -> ListRequest:
        """See `BothSides`."""
        return listed(wire, NAME)

    def encode_response(self, answer: BatchPage, asked: ListRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`."""
        losses: Losses = []
        body = page_said([_batch_said(batch, losses) for batch in answer.batches], answer.next)
        put_keys(own_keys(answer.extra, NAME, losses), body, NAME, losses)
        return reply_of(body), tuple(losses)


def _batch(row: dict[str, Any], at: Endpoint, raw: bytes = b"") -> Batch:
    if not all(isinstance(row[key], str) and row[key] for key in ("id", "status")):
        raise TypeError("a batch has no id or no status")
    counts = row.get("request_counts") or {}
    errors = row.get("errors") or {}
    tags = row.get("metadata") or {}
    return Batch(
        status=row["status"],
        endpoint=string(row.get("endpoint")),
        input_file_id=string(row.get("input_file_id")),
        output_file_id=string(row.get("output_file_id")),
        error_file_id=string(row.get("error_file_id")),
        total=integer(counts.get("total")),
        completed=integer(counts.get("completed")),
        failed=integer(counts.get("failed")),
        created=number(row.get("created_at")),
        ended=next((time for key in _ENDS if (time := number(row.get(key))) is not None), None),
        expires=number(row.get("expires_at")),
        problems=tuple([_problem(problem) for problem in errors.get("data") or ()]),
        metadata={key: value for key, value in tags.items() if isinstance(value, str)},
        origin=at.origin,
        id=row["id"],
        model=string(row.get("model")) or None,
        usage=usage_of(row.get("usage")),
        raw=raw,
        extra=extra_of(NAME, row, _KNOWN),
    )


def _problem(row: dict[str, Any]) -> BatchProblem:
    message = string(row.get("message")) or string(row.get("code")) or "no reason is given"
    return BatchProblem(message, string(row.get("code")), integer(row.get("line")), string(row.get("param")))


def _batch_said(batch: Batch, losses: Losses) -> dict[str, Any]:
    """A batch; its time must be told here. When it ended is told under the name of how."""
    if batch.created is None:
        losses.append(Loss("created_at", "must be told here; 0 is for what is not known", "note"))
    body: dict[str, Any] = {"id": batch.id or "", "object": "batch", "status": batch.status, "completion_window": "24h",
                            "created_at": int(batch.created or 0), "metadata": batch.metadata or None}  # fmt: skip
    body.update({key: getattr(batch, key) for key in _SAME})
    own = own_keys(batch.extra, NAME, losses)
    body["completion_window"] = own.pop("completion_window", body["completion_window"])
    if batch.ended is not None and (how := f"{batch.status}_at") in _ENDS:
        body[how] = int(own.pop(how, batch.ended))
    elif batch.ended is not None:
        losses.append(Loss("ended", f"a batch that is {batch.status} tells no end here", "note"))
    if batch.expires is not None:
        body["expires_at"] = int(batch.expires)
    counts = {"total": batch.total, "completed": batch.completed, "failed": batch.failed}
    if None not in counts.values():
        body["request_counts"] = counts
    if batch.problems:
        problems = [{"message": problem.message, "code": problem.code, "line": problem.line, "param": problem.param}
                    for problem in batch.problems]  # fmt: skip
        body["errors"] = {"object": "list", "data": problems}
    if batch.model is not None:
        body["model"] = batch.model
    if batch.usage.raw:
        body["usage"] = batch.usage.raw
    put_keys(own, body, NAME, losses)
    return body


# ---- the lines of a batch's files -------------------------------------------------------------

_KINDS = {"batch_expired": "timeout", "batch_cancelled": "cancelled"}
"""Why a request of a batch was never answered, as kinds of errors."""


_SPOKEN = {"/chat/completions": "openai.chat", "/responses": "openai.responses"}


def spoken_at(endpoint: str) -> str | None:
    """The dialect of the chats that go to a path, which stands behind the prefix; None where none do."""
    return next((name for path, name in _SPOKEN.items() if endpoint.endswith(path)), None)


class BatchFile(NamedTuple):
    """The file of a batch, the path all its requests are for, and what each of them could not say, by its id."""

    data: bytes
    endpoint: str
    losses: dict[str, tuple[Loss, ...]]


def encode_lines(lines: Sequence[BatchLine], room: ClientSide, at: Endpoint) -> BatchFile:
    """The file with these requests, in a dialect; none of them is streamed.

    Raises InputError where there is none, where two share an id, and where they go to different places.
    """
    if not lines:
        raise InputError("there is nothing in the batch", param="requests", hint="give at least one request")
    prefix, written = str(at.options.get("batch_prefix", "/v1")), []
    losses: dict[str, tuple[Loss, ...]] = {}
    places: dict[str, None] = {}
    for line in lines:
        if not line.custom_id or line.custom_id in losses:
            raise InputError(
                f"each request of a batch needs an id of its own, not {line.custom_id!r}", param="custom_id",
                hint="answers come in any order: the id tells whose they are",
            )  # fmt: skip
        request = replace(line.request, stream=False)
        if room.must_stream(request, at):
            raise InputError(f"the request {line.custom_id!r} can only be streamed, which a batch cannot do")
        wire, losses[line.custom_id] = room.encode_request(request, at)
        places[prefix + wire.path] = None
        row = {"custom_id": line.custom_id, "method": wire.method, "url": prefix + wire.path}
        written.append(request_body({**row, "body": msgspec.Raw(wire.body)}) + b"\n")
    if len(places) > 1:
        raise InputError(f"the requests of a batch go to one place, not to {', '.join(places)}")
    return BatchFile(b"".join(written), next(iter(places)), losses)


def decode_lines(data: bytes, room: ClientSide, at: Endpoint) -> tuple[BatchResult, ...]:
    """What a file of answers or of errors says, in its order, which is any. An answer that cannot be read is an
    error in its place; BadResponseError for a line that does not say whose it is."""
    return tuple([_result(line, room, at) for line in _lines(data)])


def _lines(data: bytes) -> list[dict[str, Any]]:
    rows = [decode_json(line) for line in data.split(b"\n") if line.strip()]
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
            raise BadResponseError("a line of the batch's file does not say whose it is")
    return rows


def _result(row: dict[str, Any], room: ClientSide, at: Endpoint) -> BatchResult:
    try:
        return guarded(lambda: _read(row, room, at))
    except PolyvoxError as error:
        return BatchResult(row["custom_id"], error=error)


def _read(row: dict[str, Any], room: ClientSide, at: Endpoint) -> BatchResult:
    answer, failure = row.get("response"), row.get("error")
    if not answer:
        facts = failure if isinstance(failure, dict) else {"message": "the batch says neither an answer nor an error"}
        kind = _KINDS.get(string(facts.get("code")) or "")
        if kind is None:
            raise error_of({"error": facts}, 0)
        raise of_kind(kind, string(facts.get("message")) or kind, code=facts["code"], sent="yes", billed=False)
    status = integer(answer.get("status_code")) or 0
    request_id = string(answer.get("request_id"))
    reply = Reply(status, {"x-request-id": request_id} if request_id else {}, encode_json(answer["body"]))
    if status >= 400:
        raise room.decode_error(reply, at)
    response = room.decode_response(reply, at)
    return BatchResult(row["custom_id"], replace(response, request_id=response.request_id or request_id))


def read_lines(data: bytes) -> tuple[tuple[str, Wire], ...]:
    """The requests in a client's file, each under its id; raises InputError, with the line in `param`, for one that
    is none, and for an id that comes twice."""
    found: dict[str, Wire] = {}
    for place, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"line {place}"
        try:
            row = client_object(Wire("", line, {}))
        except InputError as error:
            raise InputError(f"{where}: {error.message}", param=where, code="invalid_json_line") from None
        custom_id = needed(row, "custom_id", text, where)
        if custom_id in found:
            raise InputError(f"{where} has the id {custom_id!r} a second time", param=where, code="duplicate_custom_id")
        if not isinstance(row.get("body"), dict):
            raise InputError(f"{where} has no body", param=where, code="invalid_json_line")
        headers = {"content-type": "application/json"}
        url, method = needed(row, "url", text, where), needed(row, "method", text, where)
        found[custom_id] = Wire(url, encode_json(row["body"]), headers, method)
    if not found:
        raise InputError("the file has no requests", code="empty_file")
    return tuple(found.items())


def write_line(custom_id: str, reply: Reply, *, id: str, request_id: str) -> bytes:
    """An answer, or the error of a request, as a line of a file for a client."""
    answer = {"status_code": reply.status, "request_id": request_id, "body": decode_json(reply.body)}
    return encode_json({"id": id, "custom_id": custom_id, "response": answer, "error": None}) + b"\n"


CREATE: BothSides[BatchRequest, Batch] = BatchMaking()
GET: BothSides[IdRequest, Batch] = BatchById("GET")
CANCEL: BothSides[IdRequest, Batch] = BatchById("POST", "/cancel")
LIST: BothSides[ListRequest, BatchPage] = BatchList()
