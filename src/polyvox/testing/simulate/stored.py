"""What a simulated provider keeps for its callers: files, and batches, whose requests it answers when it is first asked
how far they are. All of it is forgotten with the simulator's state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from polyvox.dialects import Reply, Wire
from polyvox.dialects.openai_more.batches import read_lines, write_line
from polyvox.errors import ConflictError, InputError, NotFoundError
from polyvox.stored import (
    Batch,
    BatchPage,
    BatchProblem,
    BatchRequest,
    Content,
    Deleted,
    FilePage,
    IdRequest,
    ListRequest,
    StoredFile,
    UploadRequest,
)

RowT = TypeVar("RowT", StoredFile, Batch)
Replies = Callable[[Wire, str], Awaitable[Reply]]
"""Answers a request of a batch that is for a path, also where the answer is an error."""

_MOST_FILES, _MOST_BATCHES = 10_000, 100
ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings")


class Store:
    """Files and batches by their ids, in order; times are counts of what was made, so that a run is the same
    each time. reply answers the requests of batches."""

    def __init__(self, reply: Replies) -> None:
        self._reply = reply
        self._files: dict[str, tuple[StoredFile, bytes]] = {}
        self._batches: dict[str, Batch] = {}
        self._made = 0

    # ---- files --------------------------------------------------------------------------------

    async def upload(self, request: UploadRequest) -> StoredFile:
        """Keep a file."""
        data = request.file.data or b""
        if not data:
            raise InputError("file is empty", param="file", code="invalid_value")
        kept = None if request.expires_after is UNSET else request.expires_after
        return self._keep(data, request.file.name or "file", request.purpose, kept)

    def _keep(self, data: bytes, name: str, purpose: str, seconds: int | None = None) -> StoredFile:
        self._made += 1
        file = StoredFile(
            name, len(data), purpose, "processed", created=float(self._made),
            expires=None if seconds is None else float(self._made + seconds), id=f"file-sim-{self._made:06}",
        )  # fmt: skip
        assert file.id is not None
        self._files[file.id] = file, data
        return file

    async def files(self, request: ListRequest) -> FilePage:
        """A page of the files, the latest first unless told otherwise."""
        found = [file for file, _ in self._files.values() if request.purpose in (UNSET, file.purpose)]
        rows, after = _page(found if request.order == "asc" else found[::-1], request, _MOST_FILES)
        return FilePage(tuple(rows), after)

    async def file(self, request: IdRequest) -> StoredFile:
        """What is known of a file."""
        return self._file(request.id)[0]

    async def content(self, request: IdRequest) -> Content:
        """What is in a file."""
        return Content(self._file(request.id)[1], "application/octet-stream")

    async def delete(self, request: IdRequest) -> Deleted:
        """Keep a file no longer."""
        self._file(request.id)
        del self._files[request.id]
        return Deleted(deleted=True, id=request.id)

    def _file(self, file_id: str) -> tuple[StoredFile, bytes]:
        found = self._files.get(file_id)
        if found is None:
            raise NotFoundError(f"there is no file {file_id!r} here", status=404, param="id")
        return found

    # ---- batches ------------------------------------------------------------------------------

    async def create(self, request: BatchRequest) -> Batch:
        """Take the requests of a file; one that cannot be read fails the batch."""
        if request.endpoint not in ENDPOINTS:
            raise InputError(f"endpoint must be one of {', '.join(ENDPOINTS)}", param="endpoint", code="invalid_value")
        if request.window != "24h":
            raise InputError("completion_window must be 24h", param="completion_window", code="invalid_value")
        file, data = self._file(request.file_id)
        if file.purpose != "batch":
            raise InputError("the file's purpose must be batch", param="input_file_id", code="invalid_value")
        self._made += 1
        batch = Batch(
            status="in_progress",
            endpoint=request.endpoint,
            input_file_id=request.file_id,
            created=float(self._made),
            metadata={} if request.metadata is UNSET else request.metadata,
            id=f"batch_sim_{self._made:06}",
        )
        try:
            lines = read_lines(data)
        except InputError as error:
            line = (error.param or "").removeprefix("line ")
            problem = BatchProblem(error.message, error.code, int(line) if line.isdigit() else None)
            batch = replace(batch, status="failed", problems=(problem,), ended=batch.created)
        else:
            batch = replace(batch, total=len(lines), completed=0, failed=0)
        return self._note(batch)

    async def batch(self, request: IdRequest) -> Batch:
        """How far a batch is: the first who asks finds it done."""
        batch = self._batch(request.id)
        if batch.status == "cancelling":
            return self._note(replace(batch, status="cancelled", ended=batch.created))
        return batch if batch.over else await self._run(batch)

    async def cancel(self, request: IdRequest) -> Batch:
        """Stop a batch that has not ended."""
        batch = self._batch(request.id)
        if batch.over:
            raise ConflictError(f"the batch {batch.id} is {batch.status} already", status=409)
        return self._note(replace(batch, status="cancelling"))

    async def batches(self, request: ListRequest) -> BatchPage:
        """A page of the batches, the latest first."""
        rows, after = _page(list(self._batches.values())[::-1], request, _MOST_BATCHES)
        return BatchPage(tuple(rows), after)

    async def _run(self, batch: Batch) -> Batch:
        good: list[bytes] = []
        bad: list[bytes] = []
        for number, (custom_id, wire) in enumerate(read_lines(self._file(batch.input_file_id or "")[1]), 1):
            reply = await self._reply(wire, batch.endpoint or "")
            line = write_line(custom_id, reply, id=f"{batch.id}_{number}", request_id=f"req_{batch.id}_{number}")
            (good if reply.status < 400 else bad).append(line)
        names = [None if not lines else self._keep(b"".join(lines), f"{batch.id}.jsonl", "batch_output").id
                 for lines in (good, bad)]  # fmt: skip
        return self._note(
            replace(
                batch, status="completed", output_file_id=names[0], error_file_id=names[1], completed=len(good),
                failed=len(bad), ended=batch.created,
            )
        )  # fmt: skip

    def _batch(self, batch_id: str) -> Batch:
        found = self._batches.get(batch_id)
        if found is None:
            raise NotFoundError(f"there is no batch {batch_id!r} here", status=404, param="id")
        return found

    def _note(self, batch: Batch) -> Batch:
        assert batch.id is not None
        self._batches[batch.id] = batch
        return batch


def _page(rows: list[RowT], request: ListRequest, most: int) -> tuple[list[RowT], str | None]:
    """The rows of a page, and the id behind which the next ones are."""
    if request.after is not UNSET:
        places = [place for place, row in enumerate(rows) if row.id == request.after]
        if not places:
            raise InputError(f"there is no {request.after!r} to list behind", param="after", code="invalid_value")
        rows = rows[places[0] + 1 :]
    limit = min(request.limit, most) if request.limit is not UNSET else most
    if limit < 1:
        raise InputError("limit must be at least 1", param="limit", code="invalid_value")
    page = rows[:limit]
    return page, page[-1].id if len(rows) > limit else None
