"""What a simulated provider answers beside chats and vectors: sound, pictures, judgements, files and batches. Which
operation a path is, and who answers it; nothing is sent here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from polyvox.dialects import Endpoint, Peek, Reply, Wire, dialect
from polyvox.dialects.openai_more import operation
from polyvox.dialects.openai_more.batches import spoken_at
from polyvox.dialects.openai_more.shared import streaming
from polyvox.errors import InputError, InvalidRequestError, PolyvoxError
from polyvox.testing.simulate.answers import Answer, Demo, check_model, refusal
from polyvox.testing.simulate.embeddings import embedded
from polyvox.testing.simulate.made import pictures, ranking, speech, transcript, verdicts
from polyvox.testing.simulate.stored import Store
from polyvox.transports.demo.brain import MODEL
from polyvox.transports.replay import Chunk
from polyvox.types import Answered, Asked, Usage

_PLACES = (
    ("POST", r"/audio/transcriptions", "transcribe"),
    ("POST", r"/audio/translations", "translate"),
    ("POST", r"/audio/speech", "speak"),
    ("POST", r"/images/(?:generations|edits)", "image"),
    ("POST", r"/moderations", "moderate"),
    ("POST", r"/rerank", "rerank"),
    ("POST", r"/files", "upload"),
    ("GET", r"/files", "files"),
    ("GET", r"/files/[^/]+", "file"),
    ("DELETE", r"/files/[^/]+", "delete_file"),
    ("GET", r"/files/[^/]+/content", "file_content"),
    ("POST", r"/batches", "create_batch"),
    ("GET", r"/batches", "batches"),
    ("GET", r"/batches/[^/]+", "batch"),
    ("POST", r"/batches/[^/]+/cancel", "cancel_batch"),
)
_AT = [(method, re.compile(rf"(?:/openai)?(?:/v[12])?{path}"), task) for method, path, task in _PLACES]
# What is made by a model, which has to be one that there is.
_MADE: dict[str, Callable[[Any], Answered]] = {
    "transcribe": transcript,
    "translate": transcript,
    "speak": speech,
    "image": pictures,
    "moderate": verdicts,
    "rerank": ranking,
}
_VECTORS = "/v1/embeddings"


def task_at(method: str, path: str) -> str:
    """The operation at a path; InvalidRequestError (405) for a method that it does not take."""
    path = path.partition("?")[0]
    found = {way: task for way, pattern, task in _AT if pattern.fullmatch(path)}
    if method not in found:
        raise InvalidRequestError(
            f"{path} takes {' and '.join(found)}, not {method}",
            status=405, code="method_not_allowed", type="invalid_request_error",
        )  # fmt: skip
    return found[method]


def peek_more(name: str, wire: Wire) -> Peek:
    """What a request says of itself; one that says nothing is refused later, in its turn."""
    try:
        room = operation(task_at(wire.method, wire.path), name)
        assert room is not None  # the routes name no others
        return Peek(room.decode_request(wire, Endpoint()).model or None)
    except PolyvoxError:
        return Peek()


class More:
    """Answers, and keeps what it was given. known gives the names of models that there are, None for any; demo gives
    what answers the requests of batches; strict is whether what the inventor refuses is refused there too."""

    def __init__(self, demo: Callable[[], Demo], known: Callable[[], tuple[str, ...] | None], *, strict: bool) -> None:
        self._demo = demo
        self._known = known
        self._strict = strict
        kept = Store(self._reply)
        self._kept: dict[str, Callable[[Any], Awaitable[Answered]]] = {
            "upload": kept.upload, "files": kept.files, "file": kept.file, "delete_file": kept.delete,
            "file_content": kept.content, "create_batch": kept.create, "batch": kept.batch, "batches": kept.batches,
            "cancel_batch": kept.cancel,
        }  # fmt: skip

    async def answer(self, wire: Wire, name: str) -> Answer:
        """The answer to a request beside the dialect of this name; raises errors that the dialect can say."""
        task = task_at(wire.method, wire.path)
        room = operation(task, name)
        assert room is not None  # the routes name no others
        asked = room.decode_request(wire, Endpoint())
        if (key := streaming(asked.extra.get(room.name, {}))) is not None:
            raise InputError(f"{key}: no streams are simulated here", param=key, code="unsupported_value")
        found = await self._kept[task](asked) if task in self._kept else self._made(task, asked, name)
        reply, losses = room.encode_response(found, asked)
        return Answer(reply.status, reply.headers, (Chunk(reply.body),), usage=found.usage, losses=losses)

    def _made(self, task: str, asked: Asked, name: str) -> Answered:
        if asked.model:
            check_model(asked.model, self._known())
        found = _MADE[task](asked)
        if name == "cohere.chat":
            found = replace(found, usage=Usage(raw={"billed_units": {"search_units": 1}}))
        return replace(found, model=asked.model or MODEL, id=f"sim-{task}")

    async def _reply(self, wire: Wire, endpoint: str) -> Reply:
        """The answer to a request of a batch that is for an endpoint, or the refusal of it."""
        name = spoken_at(endpoint) or "openai.chat"
        try:
            if wire.path != endpoint:
                raise InputError(f"{wire.path} is not what the batch is for", param="url", code="mismatched_endpoint")
            if endpoint == _VECTORS:
                answer = embedded(name, wire, self._known(), strict=self._strict)
            else:
                asked = dialect(name).peek(wire)
                if asked.stream:
                    raise InputError("a batch does not stream", param="stream", code="invalid_value")
                answer = await self._demo().answer(wire, name, asked)
        except PolyvoxError as error:
            answer = refusal(dialect(name), error)
        return Reply(answer.status, answer.headers, answer.body)
