"""What clients do beside chats and embeddings: sound, pictures, files, batches, rankings, moderation. Each room is
loaded when it is first touched; what is asked is asked there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Unpack, cast

from polyvox import portal

if TYPE_CHECKING:
    from polyvox.client import AsyncClient
    from polyvox.client.audio import AsyncAudio, AudioCalls
    from polyvox.client.batches import AsyncBatches, BatchCalls
    from polyvox.client.files import AsyncFiles, FileCalls
    from polyvox.client.images import AsyncImages, ImageCalls
    from polyvox.client.operations import SaidOfCall
    from polyvox.verdicts import Ranking, Verdicts


class AsyncMore:
    """The part of an `AsyncClient` that is no chat."""

    @property
    def audio(self) -> AsyncAudio:
        """Sound: `transcribe`, `translate`, `speak`."""
        from polyvox.client.audio import AsyncAudio

        return AsyncAudio(cast("AsyncClient", self))

    @property
    def images(self) -> AsyncImages:
        """Pictures: `generate`, `edit`."""
        from polyvox.client.images import AsyncImages

        return AsyncImages(cast("AsyncClient", self))

    @property
    def files(self) -> AsyncFiles:
        """Files that a provider keeps: `upload`, `list`, `get`, `content`, `delete`."""
        from polyvox.client.files import AsyncFiles

        return AsyncFiles(cast("AsyncClient", self))

    @property
    def batches(self) -> AsyncBatches:
        """Questions handed over now and answered later: `create`, `get`, `results`, `cancel`, `list`."""
        from polyvox.client.batches import AsyncBatches

        return AsyncBatches(cast("AsyncClient", self))

    async def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top: int | None = None,
        return_documents: bool | None = None,
        truncate: bool | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Ranking:
        """The documents in the order in which they answer a query, the best first, each by its place among them.

        Args:
            query: what is looked for.
            documents: texts.
            top: how many of the best come back; without it all do.
            return_documents: whether their texts come back too, where the provider can.
            truncate: whether a document that is too long is cut, rather than refused, where the provider can be told.
            said: model, timeout (seconds in all), headers and extra_body (verbatim), strict.
        """
        from polyvox.client.verdicts import rerank

        return await rerank(
            cast("AsyncClient", self),
            query,
            documents,
            top=top,
            return_documents=return_documents,
            truncate=truncate,
            said=said,
        )

    async def moderate(
        self,
        texts: str | Iterable[str] = (),
        *,
        images: Iterable[Any] = (),
        **said: Unpack[SaidOfCall],
    ) -> Verdicts:
        """Whether a text harms, or each of several; with images (paths, bytes, parts), all of it together as one.

        `verdicts.flagged` says whether anything does, `verdicts.results` what and how much. said is model, timeout
        (seconds in all), headers and extra_body (verbatim), strict.
        """
        from polyvox.client.verdicts import moderate

        return await moderate(cast("AsyncClient", self), texts, images=images, said=said)


class More:
    """The part of a `Client` that is no chat; see `AsyncMore`."""

    _async: AsyncClient

    @property
    def audio(self) -> AudioCalls:
        """Sound: `transcribe`, `translate`, `speak`."""
        from polyvox.client.audio import AudioCalls

        return AudioCalls(self._async.audio)

    @property
    def images(self) -> ImageCalls:
        """Pictures: `generate`, `edit`."""
        from polyvox.client.images import ImageCalls

        return ImageCalls(self._async.images)

    @property
    def files(self) -> FileCalls:
        """Files that a provider keeps: `upload`, `list`, `get`, `content`, `delete`."""
        from polyvox.client.files import FileCalls

        return FileCalls(self._async.files)

    @property
    def batches(self) -> BatchCalls:
        """Questions handed over now and answered later: `create`, `get`, `results`, `cancel`, `list`."""
        from polyvox.client.batches import BatchCalls

        return BatchCalls(self._async.batches)

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top: int | None = None,
        return_documents: bool | None = None,
        truncate: bool | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Ranking:
        """The documents in the order in which they answer a query; see `AsyncMore.rerank`."""
        return portal.run(
            self._async.rerank(query, documents, top=top, return_documents=return_documents, truncate=truncate, **said)
        )

    def moderate(
        self,
        texts: str | Iterable[str] = (),
        *,
        images: Iterable[Any] = (),
        **said: Unpack[SaidOfCall],
    ) -> Verdicts:
        """Whether something harms; see `AsyncMore.moderate`."""
        return portal.run(self._async.moderate(texts, images=images, **said))
