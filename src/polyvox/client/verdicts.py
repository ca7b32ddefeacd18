"""Judgements, for a client: which documents answer a query, and whether something harms. Each is one call."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from polyvox.client.check import shown
from polyvox.client.given import count_or_unset, flag_or_unset, text_needed, texts_needed
from polyvox.client.held import held
from polyvox.client.operations import Kind, SaidOfCall, operate
from polyvox.dialects.openai_more import operation
from polyvox.errors import InputError
from polyvox.types import Image
from polyvox.verdicts import ModerateRequest, Ranking, RerankRequest, Verdicts

if TYPE_CHECKING:
    from polyvox.client import AsyncClient

RERANKING: Kind[RerankRequest, Ranking] = Kind("reranking", partial(operation, "rerank"), "rerank_model")
MODERATION: Kind[ModerateRequest, Verdicts] = Kind("moderation", partial(operation, "moderate"), "moderation_model")


async def rerank(
    client: AsyncClient,
    query: str,
    documents: Iterable[str],
    *,
    top: int | None,
    return_documents: bool | None,
    truncate: bool | None,
    said: SaidOfCall,
) -> Ranking:
    """See `AsyncMore.rerank`."""
    fields: dict[str, Any] = {
        "query": text_needed("query", query),
        "documents": texts_needed("documents", documents),
        "top": count_or_unset("top", top),
        "return_documents": flag_or_unset("return_documents", return_documents),
        "truncate": flag_or_unset("truncate", truncate),
    }
    return await operate(
        client, RERANKING, said, lambda model, extra: RerankRequest(model=model, extra=extra, **fields)
    )


async def moderate(client: AsyncClient, texts: Any, *, images: Iterable[Any], said: SaidOfCall) -> Verdicts:
    """See `AsyncMore.moderate`."""
    if isinstance(images, str | bytes) or not isinstance(images, Iterable):
        raise InputError(f"images must be a sequence, not {shown(images)}", param="images")
    given = [each if isinstance(each, Image) and each.url else await held(each, Image, f"images[{place}]")
             for place, each in enumerate(images)]  # fmt: skip
    words = texts_needed("texts", (texts,) if isinstance(texts, str) else texts) if texts != () or not given else ()
    return await operate(
        client,
        MODERATION,
        said,
        lambda model, extra: ModerateRequest(model=model, texts=words, images=tuple(given), extra=extra),
    )
