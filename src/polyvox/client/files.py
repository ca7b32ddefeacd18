"""Files that a provider keeps, for a client: `client.files`. An id means something only where it was minted, so what
came from here goes back there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Unpack

from polyvox import portal
from polyvox.client.check import shown
from polyvox.client.given import count_or_unset, text_needed, text_or_unset
from polyvox.client.held import Handed, held
from polyvox.client.operations import AnsweredT, Kind, SaidOfCall, operate, prepared
from polyvox.dialects.openai_more import operation
from polyvox.errors import BadResponseError, InputError
from polyvox.stored import Batch, Content, Deleted, FilePage, IdRequest, ListRequest, StoredFile, UploadRequest
from polyvox.types import File

if TYPE_CHECKING:
    from polyvox.client import AsyncClient

UPLOAD: Kind[UploadRequest, StoredFile] = Kind("files", partial(operation, "upload"), "")
LIST: Kind[ListRequest, FilePage] = Kind("files", partial(operation, "files"), "")
GET: Kind[IdRequest, StoredFile] = Kind("files", partial(operation, "file"), "")
DELETE: Kind[IdRequest, Deleted] = Kind("files", partial(operation, "delete_file"), "")
CONTENT: Kind[IdRequest, Content] = Kind("files", partial(operation, "file_content"), "")

AnyFile: TypeAlias = StoredFile | str
"""A file that was uploaded or listed, or its id."""

PageT = TypeVar("PageT")


class AsyncFiles:
    """`AsyncClient.files`: files kept, listed, read and deleted. Who keeps them is the call's model or its provider
    alone ("openai"), else that of the client."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def upload(
        self,
        file: Handed,
        *,
        purpose: str = "user_data",
        name: str | None = None,
        expires_after: int | None = None,
        **said: Unpack[SaidOfCall],
    ) -> StoredFile:
        """Have a file kept: a path, bytes, an open file, or a `File` with its bytes.

        Args:
            file: at most 512 MiB.
            purpose: "user_data", "batch", "vision" or the provider's own word.
            name: what to call it, where that is not the name it has.
            expires_after: seconds after which it is kept no longer.
            said: model, timeout (seconds in all), headers and extra_body (verbatim), strict.
        """
        part = await held(file, File, "file")
        if name is not None:
            part = File(part.data, name=text_needed("name", name), media_type=part.media_type, text=part.text)
        word, kept = text_needed("purpose", purpose), count_or_unset("expires_after", expires_after)
        return await operate(
            self._client,
            UPLOAD,
            said,
            lambda model, extra: UploadRequest(model=model, file=part, purpose=word, expires_after=kept, extra=extra),
        )

    async def list(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        purpose: str | None = None,
        order: str | None = None,
        **said: Unpack[SaidOfCall],
    ) -> FilePage:
        """A page of the files; `page.next` is the `after` of the next one, None where there is none.

        limit is how many at most, order "asc" or "desc" by time.
        """
        fields: dict[str, Any] = {
            "after": text_or_unset("after", after),
            "limit": count_or_unset("limit", limit),
            "purpose": text_or_unset("purpose", purpose),
            "order": text_or_unset("order", order),
        }
        return await operate(
            self._client, LIST, said, lambda model, extra: ListRequest(model=model, extra=extra, **fields)
        )

    async def get(self, file: AnyFile, **said: Unpack[SaidOfCall]) -> StoredFile:
        """What is known of a file."""
        return await by_id(self._client, GET, file, said)

    async def content(self, file: AnyFile, **said: Unpack[SaidOfCall]) -> Content:
        """The bytes of a file, at most 256 MiB; a provider may refuse those of some purposes."""
        return await by_id(self._client, CONTENT, file, said)

    async def delete(self, file: AnyFile, **said: Unpack[SaidOfCall]) -> Deleted:
        """Have a file kept no longer; BadResponseError where the provider does not say that it is gone."""
        found = await by_id(self._client, DELETE, file, said)
        if not found.deleted:
            raise BadResponseError(
                "the provider does not say that the file is deleted",
                provider=found.provider,
                request_id=found.request_id,
                attempts=found.attempts,
                sent="yes",
            )
        return found


async def by_id(
    client: AsyncClient, kind: Kind[IdRequest, AnsweredT], thing: StoredFile | Batch | str, said: SaidOfCall
) -> AnsweredT:
    """A call about one kept thing, where it is kept."""
    wanted = thing_id(thing)
    named = at_home(client, thing, said)
    ready = prepared(client, kind, named)
    origin = getattr(thing, "origin", None)
    if origin is not None and origin.partition("/")[0] != ready.deployment.provider:
        raise InputError(
            f"{wanted} is kept by {origin.partition('/')[0]}; {ready.deployment.provider} does not know it",
            param="model",
            hint="leave model out: what is kept tells where",
        )
    request = IdRequest(model=ready.deployment.model, id=wanted, extra=ready.extra)
    return await client._engine.operate(request, ready.deployment, ready.how)


def at_home(client: AsyncClient, thing: StoredFile | Batch | str, said: SaidOfCall) -> SaidOfCall:
    """What a call says, with the deployment that minted the id where it names none. A client with a base_url has
    one place only."""
    origin = getattr(thing, "origin", None)
    if origin is None or said.get("model") is not None or client._deployments.is_one_place:
        return said
    return {**said, "model": origin}


def thing_id(thing: Any) -> str:
    """The id of a kept thing; InputError for what has none."""
    found = thing if isinstance(thing, str) else getattr(thing, "id", None)
    if not isinstance(found, str) or not found.strip():
        raise InputError(f"{shown(thing)} has no id", param="id", hint="pass what came back, or its id")
    return found


class FileCalls:
    """`Client.files`: the same from ordinary code; see `AsyncFiles`."""

    def __init__(self, rooms: AsyncFiles) -> None:
        self._async = rooms

    def upload(
        self,
        file: Handed,
        *,
        purpose: str = "user_data",
        name: str | None = None,
        expires_after: int | None = None,
        **said: Unpack[SaidOfCall],
    ) -> StoredFile:
        """Have a file kept; see `AsyncFiles.upload`."""
        return portal.run(self._async.upload(file, purpose=purpose, name=name, expires_after=expires_after, **said))

    def list(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        purpose: str | None = None,
        order: str | None = None,
        **said: Unpack[SaidOfCall],
    ) -> FilePage:
        """A page of the files; see `AsyncFiles.list`."""
        return portal.run(self._async.list(after=after, limit=limit, purpose=purpose, order=order, **said))

    def get(self, file: AnyFile, **said: Unpack[SaidOfCall]) -> StoredFile:
        """What is known of a file; see `AsyncFiles.get`."""
        return portal.run(self._async.get(file, **said))

    def content(self, file: AnyFile, **said: Unpack[SaidOfCall]) -> Content:
        """The bytes of a file; see `AsyncFiles.content`."""
        return portal.run(self._async.content(file, **said))

    def delete(self, file: AnyFile, **said: Unpack[SaidOfCall]) -> Deleted:
        """Have a file kept no longer; see `AsyncFiles.delete`."""
        return portal.run(self._async.delete(file, **said))
