"""OpenAI's protocols beside its chats, as the inventor and its imitators speak them: a module an operation.
Pure: bytes and values; they know no provider and no model.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, TypeVar

from polyvox.dialects import Endpoint, Operation, Reply, Wire
from polyvox.types import Answered, Asked, Loss

AskedT = TypeVar("AskedT", bound=Asked)
AnsweredT = TypeVar("AnsweredT", bound=Answered)


class BothSides(Operation[AskedT, AnsweredT], Protocol[AskedT, AnsweredT]):
    """Both sides of an operation. Header names are in lower case."""

    def decode_request(self, wire: Wire, at: Endpoint) -> AskedT:
        """A client's request. Raises InputError, with `param`, for a value of a shape that has no meaning; keys
        without a neutral place go to extra."""

    def encode_response(self, answer: AnsweredT, asked: AskedT) -> tuple[Reply, tuple[Loss, ...]]:
        """A whole answer for a client. Ids, times and the model are the answer's; nothing is made up."""


_OPENAI = ("openai.chat", "openai.responses")
# Where an operation is, by the dialects of the providers that have it.
_ROOMS = {
    "transcribe": (_OPENAI, "audio", "TRANSCRIBE"),
    "translate": (_OPENAI, "audio", "TRANSLATE"),
    "speak": (_OPENAI, "audio", "SPEAK"),
    "image": (_OPENAI, "images", "IMAGES"),
    "upload": (_OPENAI, "files", "UPLOAD"),
    "files": (_OPENAI, "files", "LIST"),
    "file": (_OPENAI, "files", "GET"),
    "delete_file": (_OPENAI, "files", "DELETE"),
    "file_content": (_OPENAI, "files", "CONTENT"),
    "create_batch": (_OPENAI, "batches", "CREATE"),
    "batch": (_OPENAI, "batches", "GET"),
    "cancel_batch": (_OPENAI, "batches", "CANCEL"),
    "batches": (_OPENAI, "batches", "LIST"),
    "moderate": (_OPENAI, "moderation", "MODERATE"),
    "rerank": (_OPENAI, "rerank", "RERANK"),
}
_ELSEWHERE = {("rerank", "cohere.chat"): ("rerank", "COHERE")}
TASKS = tuple(_ROOMS)


def operation(task: str, dialect: str) -> BothSides[Any, Any] | None:
    """The operation of this name beside the dialect of this name, loaded on first use; None where it has none.
    KeyError for a task that is not in TASKS."""
    dialects, module, name = _ROOMS[task]
    if dialect not in dialects:
        module, name = _ELSEWHERE.get((task, dialect), ("", ""))
    if not module:
        return None
    found: BothSides[Any, Any] = getattr(import_module(f"polyvox.dialects.openai_more.{module}"), name)
    return found
