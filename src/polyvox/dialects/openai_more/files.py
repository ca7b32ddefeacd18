"""Files that a provider keeps (`/files`): uploaded, listed, looked at, deleted and read, as the inventor and its
imitators speak them. Pure: bytes and values; it knows no provider.

Wire facts: openai SDK 3.x types, and recorded answers of two providers. Option of the endpoint: `files_path`.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode

from msgspec import UNSET, UnsetType

from polyvox.dialects import Encoded, Endpoint, Reply, Wire, guarded, integer, string
from polyvox.dialects.embedding import Losses, extra_of, own_keys, put_keys, reply_of
from polyvox.dialects.openai_chat.answer import decode_error
from polyvox.dialects.openai_more import BothSides
from polyvox.dialects.openai_more.shared import ACCEPTS, Form, answer_in, file_part, form_wire, number, path_of
from polyvox.dialects.shapes import wrong
from polyvox.errors import BadResponseError, InputError, NotFoundError, PolyvoxError
from polyvox.stored import Content, Deleted, FilePage, IdRequest, ListRequest, StoredFile, UploadRequest
from polyvox.types import Answered, Asked, File, Loss

NAME = "openai.files"
_PATH = "/files"
_FILE = frozenset({"id", "object", "filename", "bytes", "purpose", "status", "created_at", "expires_at"})
_PAGE = frozenset({"object", "data", "has_more", "first_id", "last_id"})
_BY = ("after", "limit", "order", "purpose")

A = TypeVar("A", bound=Asked)
B = TypeVar("B", bound=Answered)


class OfFiles(Generic[A, B]):
    """What all that is done with files has in common."""

    name = NAME

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Operation`."""
        return not_kept(decode_error(reply))


def not_kept(error: PolyvoxError) -> PolyvoxError:
    """The error, with what to do about an id that nobody knows."""
    if isinstance(error, NotFoundError):
        error.hint = "list what is kept there: an id counts only where, and for whom, it was made, and until its end"
    return error


class Upload(OfFiles[UploadRequest, StoredFile]):
    """See `BothSides`: keep a file."""

    def encode(self, request: UploadRequest, at: Endpoint) -> Encoded:
        """See `Operation`."""
        losses: Losses = []
        said: dict[str, Any] = {"purpose": request.purpose}
        if request.expires_after is not UNSET:
            said["expires_after"] = {"anchor": "created_at", "seconds": request.expires_after}
        said.update(own_keys(request.extra, NAME, losses))
        file = file_part("file", request.file, "file", "file")
        return Encoded(form_wire(path_of(at, "files_path", _PATH), said, [file]), tuple(losses))

    def decode(self, reply: Reply, at: Endpoint) -> StoredFile:
        """See `Operation`."""
        return _file_in(reply, at)

    def decode_request(self, wire: Wire, at: Endpoint) -> UploadRequest:
        """See `BothSides`."""
        form = Form(wire)
        file = form.file("file")
        kept = form.whole("expires_after[seconds]")
        anchor = form.text("expires_after[anchor]")
        if anchor not in (UNSET, "created_at"):
            raise wrong("expires_after.anchor", "must be created_at")
        return UploadRequest(
            model="",
            file=File(file.data, name=file.filename or None, media_type=file.media_type),
            purpose=form.needed("purpose"),
            expires_after=kept,
            extra=form.rest(NAME),
        )

    def encode_response(self, answer: StoredFile, asked: UploadRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`."""
        losses: Losses = []
        return reply_of(_file_said(answer, losses)), tuple(losses)


class FileList(OfFiles[ListRequest, FilePage]):
    """See `BothSides`: a page of the files."""

    def encode(self, request: ListRequest, at: Endpoint) -> Encoded:
        """See `Operation`."""
        return listing(request, path_of(at, "files_path", _PATH), NAME)

    def decode(self, reply: Reply, at: Endpoint) -> FilePage:
        """See `Operation`."""
        body = answer_in(reply)
        return guarded(
            lambda: FilePage(
                tuple([_file(row, at) for row in body["data"]]),
                next=behind(body),
                raw=reply.body,
                extra=extra_of(NAME, body, _PAGE),
            )
        )

    def decode_request(self, wire: Wire, at: Endpoint) -> ListRequest:
        """See `BothSides`."""
        return listed(wire, NAME)

    def encode_response(self, answer: FilePage, asked: ListRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`."""
        losses: Losses = []
        body = page_said([_file_said(file, losses) for file in answer.files], answer.next)
        put_keys(own_keys(answer.extra, NAME, losses), body, NAME, losses)
        return reply_of(body), tuple(losses)


class FileFacts(OfFiles[IdRequest, StoredFile]):
    """See `BothSides`: what is known of a file."""

    def encode(self, request: IdRequest, at: Endpoint) -> Encoded:
        """See `Operation`."""
        return of_id(request, path_of(at, "files_path", _PATH), NAME)

    def decode(self, reply: Reply, at: Endpoint) -> StoredFile:
        """See `Operation`."""
        return _file_in(reply, at)

    def decode_request(self, wire: Wire, at: Endpoint) -> IdRequest:
        """See `BothSides`."""
        return id_in(wire, "files")

    def encode_response(self, answer: StoredFile, asked: IdRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`."""
        losses: Losses = []
        return reply_of(_file_said(answer, losses)), tuple(losses)


class FileDeletion(OfFiles[IdRequest, Deleted]):
    """See `BothSides`: keep a file no longer."""

    def encode(self, request: IdRequest, at: Endpoint) -> Encoded:
        """See `Operation`."""
        return of_id(request, path_of(at, "files_path", _PATH), NAME, method="DELETE")

    def decode(self, reply: Reply, at: Endpoint) -> Deleted:
        """See `Operation`. Some servers say so by an object of that name instead of a flag."""
        body = answer_in(reply)
        gone = body.get("deleted") is True or body.get("type") == "file_deleted"
        known = frozenset({"id", "object", "deleted"})
        return Deleted(gone, id=string(body.get("id")), raw=reply.body, extra=extra_of(NAME, body, known))

    def decode_request(self, wire: Wire, at: Endpoint) -> IdRequest:
        """See `BothSides`."""
        return id_in(wire, "files")

    def encode_response(self, answer: Deleted, asked: IdRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`."""
        losses: Losses = []
        body: dict[str, Any] = {"id": answer.id or asked.id, "object": "file", "deleted": answer.deleted}
        put_keys(own_keys(answer.extra, NAME, losses), body, NAME, losses)
        return reply_of(body), tuple(losses)


class FileBytes(OfFiles[IdRequest, Content]):
    """See `BothSides`: what is in a file."""

    def encode(self, request: IdRequest, at: Endpoint) -> Encoded:
        """See `Operation`."""
        return of_id(request, path_of(at, "files_path", _PATH), NAME, behind="/content", accept="*/*")

    def decode(self, reply: Reply, at: Endpoint) -> Content:
        """See `Operation`. Whatever it is, it is the content: a file may hold what looks like an error."""
        kind = reply.headers.get("content-type", "").strip()
        return Content(reply.body, kind or None, raw=reply.body)

    def decode_request(self, wire: Wire, at: Endpoint) -> IdRequest:
        """See `BothSides`."""
        return id_in(wire, "files")

    def encode_response(self, answer: Content, asked: IdRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`."""
        losses: Losses = []
        own = own_keys(answer.extra, NAME, losses)
        losses += [Loss(f"extra.{NAME}.{key}", "an answer is the bytes alone", "note") for key in own]
        return Reply(200, {"content-type": answer.media_type or "application/octet-stream"}, answer.data), tuple(losses)


# ---- ids and pages, which batches have too ----------------------------------------------------


def of_id(
    request: IdRequest, path: str, name: str, *, method: str = "GET", behind: str = "", accept: str = "application/json"
) -> Encoded:
    """A request about one kept thing; raises InputError where the id is none."""
    if not request.id.strip() or request.id in (".", ".."):
        raise InputError("the id is empty", param="id", hint="pass the id that the provider gave")
    losses: Losses = []
    _no_keys(request, name, losses)
    return Encoded(Wire(f"{path}/{quote(request.id, safe='')}{behind}", b"", {"accept": accept}, method), tuple(losses))


def _no_keys(request: Asked, name: str, losses: Losses) -> None:
    """Note that keys of ours have no place where there is no body."""
    own = own_keys(request.extra, name, losses)
    losses += [Loss(f"extra.{name}.{key}", "this request has no body to hold it") for key in own]


def listing(request: ListRequest, path: str, name: str, by: tuple[str, ...] = _BY) -> Encoded:
    """A request for a page; keys of ours go into its query."""
    losses: Losses = []
    said: dict[str, Any] = {}
    for field in _BY:
        value = getattr(request, field)
        if value is not UNSET and field not in by:
            losses.append(Loss(field, f"this list knows no {field}"))
        elif value is not UNSET:
            said[field] = value
    said.update(own_keys(request.extra, name, losses))
    query = urlencode(said)
    return Encoded(Wire(f"{path}?{query}" if query else path, b"", ACCEPTS, "GET"), tuple(losses))


def id_in(wire: Wire, place: str) -> IdRequest:
    """The id in a path, which stands behind the name of what is kept; raises InputError where there is none."""
    steps = wire.path.partition("?")[0].split("/")
    found = steps[steps.index(place) + 1 :] if place in steps else []
    if not found or not found[0]:
        raise InputError("the path names no id", param="id")
    return IdRequest(model="", id=unquote(found[0]))


def listed(wire: Wire, name: str) -> ListRequest:
    """The page that a path asks for."""
    said = dict(parse_qsl(wire.path.partition("?")[2]))
    limit: int | UnsetType = UNSET
    if "limit" in said:
        if not said["limit"].isascii() or not said["limit"].isdigit():
            raise wrong("limit", "must be a whole number", "invalid_type")
        limit = int(said["limit"][:9])
    return ListRequest(
        model="",
        after=said.get("after", UNSET),
        limit=limit,
        purpose=said.get("purpose", UNSET),
        order=said.get("order", UNSET),
        extra=extra_of(name, said, frozenset(_BY)),
    )


def behind(body: dict[str, Any]) -> str | None:
    """The id behind which the next page is; None where this was the last."""
    rows = body["data"]
    if body.get("has_more") is not True:
        return None
    last = string(body.get("last_id")) or (string(rows[-1]["id"]) if rows else None)
    if not last:
        raise BadResponseError("the list goes on, and does not say from where")
    return last


def page_said(rows: list[dict[str, Any]], after: str | None) -> dict[str, Any]:
    """A page of rows, as the inventor lists them."""
    ids = [row["id"] for row in rows]
    ends = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
    return {"object": "list", "data": rows, **ends, "has_more": after is not None}


def _file_in(reply: Reply, at: Endpoint) -> StoredFile:
    body = answer_in(reply)
    return guarded(lambda: _file(body, at, reply.body))


def _file(row: dict[str, Any], at: Endpoint, raw: bytes = b"") -> StoredFile:
    if not isinstance(row["id"], str) or not row["id"]:
        raise TypeError("a file has no id")
    return StoredFile(
        name=string(row.get("filename")),
        size=integer(row.get("bytes")),
        purpose=string(row.get("purpose")),
        status=string(row.get("status")),
        created=number(row.get("created_at")),
        expires=number(row.get("expires_at")),
        origin=at.origin,
        id=row["id"],
        raw=raw,
        extra=extra_of(NAME, row, _FILE),
    )


def _file_said(file: StoredFile, losses: Losses) -> dict[str, Any]:
    """A file; its size and time must be told here."""
    told = {"bytes": file.size, "created_at": file.created}
    losses += [
        Loss(name, "must be told here; 0 is for what is not known", "note") for name, v in told.items() if v is None
    ]
    body: dict[str, Any] = {"id": file.id or "", "object": "file", "filename": file.name or "",
                            **{name: int(value or 0) for name, value in told.items()},
                            "purpose": file.purpose or "", "status": file.status or "processed"}  # fmt: skip
    if file.expires is not None:
        body["expires_at"] = int(file.expires)
    put_keys(own_keys(file.extra, NAME, losses), body, NAME, losses)
    return body


UPLOAD: BothSides[UploadRequest, StoredFile] = Upload()
LIST: BothSides[ListRequest, FilePage] = FileList()
GET: BothSides[IdRequest, StoredFile] = FileFacts()
DELETE: BothSides[IdRequest, Deleted] = FileDeletion()
CONTENT: BothSides[IdRequest, Content] = FileBytes()
