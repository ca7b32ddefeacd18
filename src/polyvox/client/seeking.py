"""Models that only a server knows: who keeps one that no provider is known to serve, and what helps where it is not
there. It asks such servers for their lists, quickly and all at once, and asks nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from polyvox.catalog import Catalog, Provider
from polyvox.client.streams import Run
from polyvox.dialects import Reader
from polyvox.dialects.model_store import KEEPERS, KeepsModels, store
from polyvox.engine import Deployment, StreamRun
from polyvox.errors import (
    CallTimeoutError,
    ConnectionFailedError,
    NotFoundError,
    PolyvoxError,
    StreamInterruptedError,
    UnknownModelError,
    UnknownProviderError,
    UsageError,
)
from polyvox.keys import redact
from polyvox.models import Model
from polyvox.transports import Exchange, Outgoing
from polyvox.types import Event, Response

_SECONDS = 0.5  # a server that is there has its list at hand


def helped(error: PolyvoxError, keeps: KeepsModels, provider: str, base_url: str, model: str | None) -> None:
    """Say in an error of a server that keeps models what helps: to start it, or to fetch the model."""
    if isinstance(error, ConnectionFailedError) and error.sent == "no":
        error.hint = f"is the server running at {redact(base_url)}? start it there with: {keeps.start}"
    elif isinstance(error, NotFoundError) and error.status == 404 and model is not None:
        if "model" in error.message.lower():
            error.hint = (
                f"what is there: polyvox models list --live {provider}; "
                f"to fetch it: polyvox models pull {provider}/{model}"
            )


class KeeperDeployment(Deployment):
    """A model on a server that keeps models: an error says what helps."""

    __slots__ = ()

    async def answer(self, outgoing: Outgoing) -> tuple[Response, str | None]:
        """See `AnyDeployment`."""
        try:
            return await super().answer(outgoing)
        except PolyvoxError as error:
            self.help(error)
            raise

    async def open(self, outgoing: Outgoing) -> tuple[Exchange, Reader]:
        """See `AnyDeployment`."""
        try:
            return await super().open(outgoing)
        except PolyvoxError as error:
            self.help(error)
            raise

    def help(self, error: PolyvoxError) -> None:
        """Put into an error what would help."""
        helped(error, store(self.speaks), self.provider, self.endpoint.base_url, self.model)


def keeper(rows: Catalog, name: str | None, own: Provider | None) -> Provider:
    """The server whose models are meant: the one that is named, else the client's own, else the first on this machine.
    UsageError for a provider that keeps none, or where there is none."""
    if name is not None:
        own = rows.provider(name)
    elif own is None or own.dialect not in KEEPERS:
        own = next((row for row in rows.providers.values() if row.local and row.dialect in KEEPERS), own)
    if own is not None and own.dialect in KEEPERS:
        return own
    able = ", ".join(row.name for row in rows.providers.values() if row.dialect in KEEPERS)
    raise UsageError(
        f"{own.title or own.name} keeps no models to fetch or delete" if own else "no provider keeps models here",
        hint=f"these do: {able}" if able else f"add a provider that speaks {' or '.join(KEEPERS)}",
        sent="no",
    )


def can_seek(rows: Catalog, name: str) -> bool:
    """Whether a name may be that of a model which only a server knows."""
    return not rows.claims(name) and any(_candidates(rows))


def _candidates(rows: Catalog) -> list[Provider]:
    return [row for row in rows.providers.values() if row.local and row.dialect in KEEPERS and row.transport == "http"]


async def seek(
    rows: Catalog, name: str, models_at: Callable[[Provider], Awaitable[tuple[Model, ...]]], unknown: NotFoundError
) -> Provider:
    """The server on this machine that keeps a model nobody is known to serve.

    Raises the error with which it is unknown, with what would help where that can be told, or UnknownModelError where
    several servers keep it.
    """
    asked = _candidates(rows)
    answers = await asyncio.gather(*(_list_of(row, models_at) for row in asked))
    holding = [
        row
        for row, models in zip(asked, answers, strict=True)
        if isinstance(models, tuple) and any(store(row.dialect).fits(name, model.id) for model in models)
    ]
    if len(holding) == 1:
        return holding[0]
    if holding:
        spellings = ", ".join(f"{row.name}/{name}" for row in holding)
        raise UnknownModelError(
            f"the model name {name!r} is ambiguous: {len(holding)} servers keep it", hint=f"say one of: {spellings}"
        )
    if not isinstance(unknown, UnknownProviderError):
        remarks = [_remark(row, models, name) for row, models in zip(asked, answers, strict=True)]
        unknown.hint = "; ".join([*([unknown.hint] if unknown.hint else []), *filter(None, remarks)]).replace(
            "?; ", "? "
        )
    raise unknown


async def _list_of(
    row: Provider, models_at: Callable[[Provider], Awaitable[tuple[Model, ...]]]
) -> tuple[Model, ...] | PolyvoxError:
    """A server's models, or why they are not to be had."""
    try:
        async with asyncio.timeout(_SECONDS):
            return await models_at(row)
    except TimeoutError:
        return CallTimeoutError(f"no list within {_SECONDS:g} s")
    except PolyvoxError as error:
        return error


def _remark(row: Provider, models: tuple[Model, ...] | PolyvoxError, name: str) -> str | None:
    title = row.title or row.name
    if isinstance(models, tuple):
        return f"{title} is running and has no such model; to fetch it: polyvox models pull {row.name}/{name}"
    if isinstance(models, ConnectionFailedError | CallTimeoutError):
        start = store(row.dialect).start
        return f"{title}, which may have it, does not answer at {redact(row.base_url)}; to start it: {start}"
    return None


class LateRun(StreamRun):
    """A stream for which something must be found or fetched first; that begins with the first read."""

    __slots__ = ("_find", "_run")

    def __init__(self, find: Callable[[], Awaitable[Run]]) -> None:
        # Nothing of the base is made: all that is asked goes to the run that is found.
        self._find = find
        self._run: Run | None = None
        self._error = None
        self.on_response: Callable[[Response], None] | None = None
        self.response = None

    def __del__(self) -> None:
        """Nothing: there is no call here that could have been left in the middle."""

    async def _found(self) -> Run:
        if self._error is not None:
            raise self._error
        if self._run is None:
            try:
                self._run = await self._find()
            except PolyvoxError as error:
                self._error = error
                raise
            except asyncio.CancelledError:
                self._error = StreamInterruptedError("the stream was cancelled before it began", sent="no")
                raise
            self._run.on_response = self.on_response
        return self._run

    async def batch(self) -> list[Event]:
        """See `StreamRun.batch`."""
        run = await self._found()
        try:
            return await run.batch()
        finally:
            self.response = run.response

    async def finish(self) -> Response:
        """See `StreamRun.finish`."""
        self.response = await (await self._found()).finish()
        return self.response

    async def close(self) -> None:
        """See `StreamRun.close`."""
        if self._run is not None:
            await self._run.close()
        elif self._error is None:
            self._error = UsageError("the stream was closed before it began", hint="begin another one", sent="no")
