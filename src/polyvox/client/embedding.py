"""Texts into vectors: one call where a provider takes them all at once, else several side by side, joined in order.
What failed in part has failed, and the error says which texts. It compares no vectors."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from polyvox.client.check import count, shown, text_or_none
from polyvox.client.operations import Kind, Prepared, SaidOfCall, sought
from polyvox.client.progress import Progress, tell
from polyvox.dialects import Most, embeds
from polyvox.errors import BadResponseError, CallTimeoutError, InputError, LossError, PolyvoxError
from polyvox.types import Cost, Embeddings, EmbedRequest, Extra, Loss, Usage

if TYPE_CHECKING:
    from polyvox.client import AsyncClient
    from polyvox.dialects import Embeds
    from polyvox.engine import Engine

EMBEDDINGS: Kind[EmbedRequest, Embeddings] = Kind("embeddings", embeds, "embed_model")

# Calls of one `embed` that are under way at once.
_AT_ONCE = 4
# Seconds by which a timer may be early: whatever ran out so near to the deadline ran out with it.
_EARLY = 0.02


class _Piece(NamedTuple):
    """The texts of one call, and the place of the first among all."""

    first: int
    inputs: tuple[str, ...]


async def embed(
    client: AsyncClient,
    inputs: str | Iterable[str],
    *,
    dimensions: int | None = None,
    purpose: str | None = None,
    truncate: bool | None = None,
    on_progress: Progress | None = None,
    said: SaidOfCall,
) -> Embeddings:
    """See `AsyncClient.embed`."""
    texts = texts_of(inputs)
    wanted = EmbedRequest(
        model="",
        dimensions=UNSET if dimensions is None else count("dimensions", dimensions, 1),
        purpose=text_or_none("purpose", purpose) or UNSET,
        truncate=_flag("truncate", truncate),
    )
    ready = await sought(client, EMBEDDINGS, said)
    # The kind finds nothing but these.
    most = cast("Embeds", ready.deployment.protocol).most(ready.deployment.endpoint)
    wanted = replace(wanted, model=ready.deployment.model, extra=ready.extra)
    return await _Run(client._engine, ready, wanted, on_progress).whole(list(_pieces(texts, most)))


def texts_of(inputs: Any) -> tuple[str, ...]:
    """One text or several as a tuple of them; InputError for anything else."""
    if isinstance(inputs, str):
        return (inputs,)
    if isinstance(inputs, bytes) or not isinstance(inputs, Iterable):
        raise InputError(f"inputs must be a text or a sequence of texts, not {shown(inputs)}", param="inputs")
    texts = tuple(inputs)
    for place, each in enumerate(texts):
        if not isinstance(each, str):
            raise InputError(f"inputs[{place}] must be text, not {shown(each)}", param=f"inputs[{place}]")
    if not texts:
        raise InputError("there is nothing to embed", param="inputs", hint="give at least one text")
    return texts


def _flag(name: str, value: Any) -> bool | UnsetType:
    if value is None:
        return UNSET
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, not {shown(value)}", param=name)
    return value


def _pieces(texts: tuple[str, ...], most: Most) -> Iterator[_Piece]:
    """The texts in order, in as few calls as may hold them. A text that is too long alone is a call alone."""
    most_inputs = math.inf if most.inputs is None else most.inputs
    most_size = math.inf if most.size is None else most.size
    first, size = 0, 0
    for place, each in enumerate(texts):
        length = len(each.encode("utf-8", "surrogatepass"))
        if place > first and (place - first >= most_inputs or size + length > most_size):
            yield _Piece(first, texts[first:place])
            first, size = place, 0
        size += length
    yield _Piece(first, texts[first:])


# ---- the calls of one embed -------------------------------------------------------------------


class _Run:
    """The calls of one `embed`: a few side by side under one deadline, until all are there or one has failed."""

    def __init__(
        self,
        engine: Engine,
        ready: Prepared[EmbedRequest, Embeddings],
        wanted: EmbedRequest,
        on_progress: Progress | None,
    ) -> None:
        self._engine = engine
        self._deployment, self._how, _ = ready
        self._wanted = wanted
        self._on_progress = on_progress
        self._clock = asyncio.get_running_loop().time
        self._deadline = math.inf if self._how.timeout is None else self._clock() + self._how.timeout
        self._failures: dict[int, PolyvoxError] = {}

    async def whole(self, pieces: Sequence[_Piece]) -> Embeddings:
        """The vectors of all pieces; raises what went wrong first, once nothing is under way any more."""
        if len(pieces) == 1:
            answer = await self._one(pieces[0])
            tell(self._on_progress, len(answer.vectors), len(answer.vectors))
            return answer
        total = pieces[-1].first + len(pieces[-1].inputs)
        answers: dict[int, Embeddings] = {}
        waiting = iter(pieces)

        async def work() -> None:
            for piece in waiting:
                try:
                    answers[piece.first] = await self._one(piece)
                except PolyvoxError as error:
                    self._failures[piece.first] = error
                    raise
                tell(self._on_progress, sum(len(done.vectors) for done in answers.values()), total)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_AT_ONCE, len(pieces))):
                    group.create_task(work())
        except ExceptionGroup as failed:
            if not self._failures:
                raise failed.exceptions[0] from None
        if self._failures:
            raise self._told(pieces, answers, total) from None
        return _joined([answers[piece.first] for piece in pieces])

    async def _one(self, piece: _Piece) -> Embeddings:
        """One call, in the time that is left."""
        how = self._how
        if how.timeout is not None:
            how = replace(how, timeout=max(self._deadline - self._clock(), math.ulp(1.0)))
        try:
            answer = await self._engine.operate(replace(self._wanted, inputs=piece.inputs), self._deployment, how)
        except CallTimeoutError as error:
            if self._clock() >= self._deadline - _EARLY:
                _say(error, f"no answer within {self._how.timeout:g} s in all")
            raise
        return self._checked(answer, piece)

    def _checked(self, answer: Embeddings, piece: _Piece) -> Embeddings:
        """The answer, with as many vectors as there are texts; a length nobody asked for is told as a loss."""
        if len(answer.vectors) != len(piece.inputs):
            raise BadResponseError(
                f"the answer has {len(answer.vectors)} vectors for {len(piece.inputs)} texts",
                provider=self._deployment.provider,
                model=self._deployment.model,
                request_id=answer.request_id,
                attempts=answer.attempts,
                sent="yes",
                billed=True,
            )
        asked = self._wanted.dimensions
        others = {len(vector) for vector in answer.vectors} - {asked}
        said = any(loss.field == "dimensions" for loss in answer.losses)
        if asked is UNSET or not others or said:
            return answer
        why = f"the vectors have {min(others)} numbers, not the {asked} that were asked for"
        loss = Loss("dimensions", why)
        if self._how.strict:
            hint = "leave dimensions out, or drop strict to go on without it"
            raise LossError(f"strict: {why}", hint=hint, losses=(loss,), sent="yes", billed=True)
        return replace(answer, losses=(*answer.losses, loss))

    def _told(self, pieces: Sequence[_Piece], answers: dict[int, Embeddings], total: int) -> PolyvoxError:
        """The first failure, with the texts it is about and the attempts of all calls."""
        first, error = min(self._failures.items())
        texts = next(piece.inputs for piece in pieces if piece.first == first)
        _say(error, f"texts {first + 1} to {first + len(texts)} of {total} were not embedded: {error.message}")
        done = [attempt for place in sorted(answers) for attempt in answers[place].attempts]
        error.attempts = (*done, *error.attempts)
        if answers:
            error.billed = True  # other calls were answered, and those cost what they cost
        return error


def _say(error: PolyvoxError, message: str) -> None:
    error.message = message
    error.args = (message,)


# ---- many answers as one ----------------------------------------------------------------------


def _joined(answers: list[Embeddings]) -> Embeddings:
    """The answers of several calls as one: counts and money are sums where every call tells them, and None where one
    does not. What is about one call alone, as its id and its body, is told by none."""
    first = answers[0]
    models = {answer.model for answer in answers}
    return replace(
        first,
        vectors=tuple([vector for answer in answers for vector in answer.vectors]),
        model=first.model if len(models) == 1 else None,
        usage=_usage([answer.usage for answer in answers]),
        cost=_cost([answer.cost for answer in answers]),
        id=None,
        request_id=None,
        attempts=tuple([attempt for answer in answers for attempt in answer.attempts]),
        losses=tuple(dict.fromkeys([loss for answer in answers for loss in answer.losses])),
        raw=b"",
        extra=_extra([answer.extra for answer in answers]),
    )


def _usage(parts: list[Usage]) -> Usage:
    def total(name: str) -> Any:
        counts = [getattr(part, name) for part in parts]
        return None if None in counts else sum(counts[1:], counts[0])

    sources = {part.source for part in parts}
    source = sources.pop() if len(sources) == 1 else "missing" if "missing" in sources else "estimated"
    return Usage(total("input"), total=total("total"), cost=total("cost"), source=source)


def _cost(parts: list[Cost]) -> Cost:
    amounts = [part.amount for part in parts]
    if None in amounts or len({(part.currency, part.source) for part in parts}) > 1:
        return Cost()
    return replace(parts[0], amount=sum([amount for amount in amounts if amount is not None], Decimal(0)))


def _extra(parts: list[Extra]) -> Extra:
    """Keys without a neutral form, a list of them by the dialect: those of each call in order, {} where it has none."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: {"calls": [part.get(name, {}) for part in parts]} for name in names}
