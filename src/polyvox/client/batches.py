"""Batches of questions that a provider answers in its own time, for a client: `client.batches`. Made, looked at,
stopped, and their answers fetched; nobody waits here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, cast

from msgspec import UNSET
from msgspec.structs import replace

from polyvox import portal
from polyvox.client.check import shown, table
from polyvox.client.files import AsyncFiles, at_home, by_id
from polyvox.client.given import count_or_unset, text_needed, text_or_unset
from polyvox.client.inputs import Prompt, Said
from polyvox.client.operations import Kind, SaidOfCall, operate, prepared
from polyvox.client.urls import fetched, must_fetch
from polyvox.dialects import dialect
from polyvox.dialects.openai_more import operation
from polyvox.dialects.openai_more.batches import BatchFile, decode_lines, encode_lines, spoken_at
from polyvox.engine import Deployment, refuse_losses
from polyvox.errors import InputError, PolyvoxError, UsageError
from polyvox.stored import Batch, BatchLine, BatchPage, BatchRequest, BatchResult, IdRequest, ListRequest
from polyvox.types import File, Loss, Response

if TYPE_CHECKING:
    from polyvox.client import AsyncClient

CREATE: Kind[BatchRequest, Batch] = Kind("batches", partial(operation, "create_batch"), "")
GET: Kind[IdRequest, Batch] = Kind("batches", partial(operation, "batch"), "")
CANCEL: Kind[IdRequest, Batch] = Kind("batches", partial(operation, "cancel_batch"), "")
LIST: Kind[ListRequest, BatchPage] = Kind("batches", partial(operation, "batches"), "")

AnyBatch: TypeAlias = Batch | str
"""A batch that was made or listed, or its id."""

Prompts: TypeAlias = Mapping[str, Prompt] | Iterable[Prompt]
"""Prompts by an id of their own; without one they are "request-1", "request-2" and so on."""

Results: TypeAlias = dict[str, Response | PolyvoxError]
"""By the id of its request, an answer, or the error in its place."""

_OF_THE_CALLS = ("model", "timeout", "headers", "strict")  # what counts for the calls that make a batch


class AsyncBatches:
    """`AsyncClient.batches`: questions handed over now, answers fetched later."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(
        self,
        requests: Prompts,
        *,
        window: str = "24h",
        labels: Mapping[str, str] | None = None,
        **said: Unpack[Said],
    ) -> Batch:
        """Hand over questions, all to one model; what they cannot say is in the batch's losses, by their id.

        Args:
            requests: prompts as `ask` takes them, or a dict of them by ids of their own.
            window: within what time, as the provider writes it.
            labels: of the batch, for the provider's dashboard.
            said: what `ask` takes, for every question; timeout, headers and strict are for the calls made now.
        """
        marks: dict[str, str] | Any = UNSET if labels is None else table("labels", labels, str)
        within = text_needed("window", window)
        file, losses, home = await self._written(requests, said)
        how = cast("SaidOfCall", {name: value for name, value in said.items() if name in _OF_THE_CALLS})
        if not self._client._deployments.is_one_place:
            how["model"] = home.name
        ready = prepared(self._client, CREATE, how)
        if ready.how.strict:
            refuse_losses(losses)
        kept = await AsyncFiles(self._client).upload(
            File(file.data, name="batch.jsonl", media_type="application/jsonl"), purpose="batch", **how
        )
        asked = BatchRequest(
            model=ready.deployment.model, file_id=kept.id or "", endpoint=file.endpoint, window=within, metadata=marks
        )
        batch = await self._client._engine.operate(asked, ready.deployment, ready.how)
        return replace(batch, losses=(*batch.losses, *losses)) if losses else batch

    async def _written(self, requests: Prompts, said: Said) -> tuple[BatchFile, tuple[Loss, ...], Deployment]:
        """The file of the questions, what they cannot say, and who is asked the first of them."""
        client, lines, losses = self._client, [], []
        home: Deployment | None = None
        for custom_id, prompt in _named(requests):
            request, deployment, how = client._prepared(prompt, said)
            if not isinstance(deployment, Deployment):
                raise UsageError(f"the backend {deployment.provider!r} has no batches: it answers at once", sent="no")
            home = home or deployment
            if deployment.provider != home.provider:
                raise InputError(
                    f"the questions of a batch go to one provider, not to {home.provider} and {deployment.provider}",
                    param="requests",
                    hint="make a batch for each",
                )
            if must_fetch(request, deployment) and (rules := client._rules(said, deployment)):
                request, noted, _ = await fetched(request, deployment, how, rules)
                assert isinstance(noted, Deployment)
                deployment = noted
            if deployment.fit is not None:
                request, unfit = deployment.fit(request)
                losses += [_of(custom_id, loss) for loss in unfit]
            lines.append(BatchLine(custom_id, request))
        if home is None:
            raise InputError("there is nothing in the batch", param="requests", hint="give at least one prompt")
        file = encode_lines(lines, home.dialect, home.endpoint)
        losses += [_of(custom_id, loss) for custom_id, found in file.losses.items() for loss in found]
        return file, tuple(losses), home

    async def get(self, batch: AnyBatch, **said: Unpack[SaidOfCall]) -> Batch:
        """How far a batch is."""
        return await by_id(self._client, GET, batch, said)

    async def cancel(self, batch: AnyBatch, **said: Unpack[SaidOfCall]) -> Batch:
        """Have a batch stopped; what is answered already stays so, and costs."""
        return await by_id(self._client, CANCEL, batch, said)

    async def list(
        self, *, after: str | None = None, limit: int | None = None, **said: Unpack[SaidOfCall]
    ) -> BatchPage:
        """A page of the batches; `page.next` is the `after` of the next one, None where there is none."""
        fields: dict[str, Any] = {
            "after": text_or_unset("after", after),
            "limit": count_or_unset("limit", limit),
        }
        return await operate(
            self._client, LIST, said, lambda model, extra: ListRequest(model=model, extra=extra, **fields)
        )

    async def results(self, batch: AnyBatch, **said: Unpack[SaidOfCall]) -> Results:
        """The answers of a batch by the ids of their requests; a request that failed has its error instead.

        A batch that has not ended is looked at first; raises UsageError where it has not ended even then, and
        InvalidRequestError of the provider's words where its file was refused as a whole.
        """
        if isinstance(batch, str) or not batch.over:
            batch = await self.get(batch, **said)
        if not batch.over:
            raise UsageError(
                f"the batch {batch.id} is {batch.status}: it has no results yet",
                hint="ask again later: client.batches.get(batch).over says when",
            )
        if batch.problems and batch.output_file_id is None and batch.error_file_id is None:
            raise _refused(batch)
        found: Results = {}
        spoken = spoken_at(batch.endpoint or "")
        if spoken is None:
            raise UsageError(f"the batch {batch.id} is for {batch.endpoint}, which is no chat")
        ready = prepared(self._client, GET, at_home(self._client, batch, said))
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                content = await AsyncFiles(self._client).content(file_id, **at_home(self._client, batch, said))
                for result in decode_lines(content.data, dialect(spoken), ready.deployment.endpoint):
                    found[result.custom_id] = _whole(result, ready.deployment)
        return found


def _named(requests: Any) -> list[tuple[str, Any]]:
    """The prompts, each with its id."""
    if isinstance(requests, Mapping):
        return [(text_needed("the id of a request", custom_id), prompt) for custom_id, prompt in requests.items()]
    if isinstance(requests, str | bytes) or not isinstance(requests, Iterable):
        raise InputError(f"requests must be a sequence of prompts, not {shown(requests)}", param="requests")
    return [(f"request-{number}", prompt) for number, prompt in enumerate(requests, 1)]


def _of(custom_id: str, loss: Loss) -> Loss:
    return replace(loss, field=f"{custom_id}.{loss.field}")


def _whole(result: BatchResult, deployment: Any) -> Response | PolyvoxError:
    """A result with who gave it."""
    if result.response is None:
        error: PolyvoxError = result.error
        error.provider = error.provider or deployment.provider
        return error
    return replace(result.response, provider=deployment.provider, deployment=deployment.name)


def _refused(batch: Batch) -> PolyvoxError:
    from polyvox.errors import InvalidRequestError

    first = batch.problems[0]
    where = f" (line {first.line})" if first.line is not None else ""
    more = f", and {len(batch.problems) - 1} more" if len(batch.problems) > 1 else ""
    return InvalidRequestError(
        f"the batch {batch.id} {batch.status}: {first.message}{where}{more}", code=first.code, param=first.param,
        provider=batch.provider, sent="yes",
    )  # fmt: skip


class BatchCalls:
    """`Client.batches`: the same from ordinary code; see `AsyncBatches`."""

    def __init__(self, rooms: AsyncBatches) -> None:
        self._async = rooms

    def create(
        self,
        requests: Prompts,
        *,
        window: str = "24h",
        labels: Mapping[str, str] | None = None,
        **said: Unpack[Said],
    ) -> Batch:
        """Hand over questions; see `AsyncBatches.create`."""
        return portal.run(self._async.create(requests, window=window, labels=labels, **said))

    def get(self, batch: AnyBatch, **said: Unpack[SaidOfCall]) -> Batch:
        """How far a batch is; see `AsyncBatches.get`."""
        return portal.run(self._async.get(batch, **said))

    def cancel(self, batch: AnyBatch, **said: Unpack[SaidOfCall]) -> Batch:
        """Have a batch stopped; see `AsyncBatches.cancel`."""
        return portal.run(self._async.cancel(batch, **said))

    def list(self, *, after: str | None = None, limit: int | None = None, **said: Unpack[SaidOfCall]) -> BatchPage:
        """A page of the batches; see `AsyncBatches.list`."""
        return portal.run(self._async.list(after=after, limit=limit, **said))

    def results(self, batch: AnyBatch, **said: Unpack[SaidOfCall]) -> Results:
        """The answers of a batch; see `AsyncBatches.results`."""
        return portal.run(self._async.results(batch, **said))
