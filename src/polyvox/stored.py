"""The values of what a provider keeps for its callers: files, and batches of requests that it answers in its own time.
Frozen; they know no protocol and no provider, and open no file. Times are epoch seconds.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType, field

from polyvox.types import Answered, Asked, File, Request, Response, Value

# ---- files ------------------------------------------------------------------------------------


class UploadRequest(Asked, frozen=True):
    """A file to keep. purpose is "batch", "user_data", "vision" or the provider's own word; expires_after is how many
    seconds it is kept."""

    file: File
    purpose: str
    expires_after: int | UnsetType = UNSET


class ListRequest(Asked, frozen=True):
    """What is kept, a page at a time: limit is how many at most, after the id that the page before ended with.
    purpose and order ("asc", "desc") are for files."""

    after: str | UnsetType = UNSET
    limit: int | UnsetType = UNSET
    purpose: str | UnsetType = UNSET
    order: str | UnsetType = UNSET


class IdRequest(Asked, frozen=True):
    """One kept thing, by its id."""

    id: str


class StoredFile(Answered, frozen=True):
    """A file that a provider keeps. origin is the deployment that minted its id: only there does it mean anything.
    size is in bytes; status is the provider's word, such as "processed"."""

    name: str | None = None
    size: int | None = None
    purpose: str | None = None
    status: str | None = None
    created: float | None = None
    expires: float | None = None
    origin: str | None = None


class FilePage(Answered, frozen=True):
    """Some of the files, and the id behind which the next ones are; None where these were the last."""

    files: tuple[StoredFile, ...] = ()
    next: str | None = None


class Deleted(Answered, frozen=True):
    """Whether what the id named is gone."""

    deleted: bool = False


class Content(Answered, frozen=True):
    """The bytes of a file, and what they are, as an IANA type; None where nobody says."""

    data: bytes = b""
    media_type: str | None = None


# ---- batches ----------------------------------------------------------------------------------

OVER = ("failed", "completed", "expired", "cancelled")
"""The states in which nothing more happens to a batch."""


class BatchRequest(Asked, frozen=True):
    """Requests to answer within a time: file_id is a kept file with one on each line, endpoint the path that all of
    them are for, window the time as the provider writes it."""

    file_id: str
    endpoint: str
    window: str = "24h"
    metadata: dict[str, str] | UnsetType = UNSET


class BatchProblem(Value, frozen=True):
    """What is wrong with the file of a batch. line counts from 1; None where nobody says."""

    message: str
    code: str | None = None
    line: int | None = None
    param: str | None = None


class Batch(Answered, frozen=True):
    """How far a batch is. status is "validating", "in_progress", "finalizing", "completed", "failed", "expired",
    "cancelling", "cancelled" or the provider's own word; total, completed and failed count requests. Answers are in
    the file output_file_id, errors in error_file_id. origin is the deployment that minted the ids.
    """

    status: str = ""
    endpoint: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    created: float | None = None
    ended: float | None = None
    expires: float | None = None
    problems: tuple[BatchProblem, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    origin: str | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more happens to it, well or ill."""
        return self.status in OVER


class BatchPage(Answered, frozen=True):
    """Some of the batches, and the id behind which the next ones are; None where these were the last."""

    batches: tuple[Batch, ...] = ()
    next: str | None = None


class BatchLine(Value, frozen=True):
    """A request of a batch under the id that its answer will carry."""

    custom_id: str
    request: Request


class BatchResult(Value, frozen=True):
    """What became of a request of a batch: an answer, or an error of `polyvox.errors`."""

    custom_id: str
    response: Response | None = None
    error: Any = None
