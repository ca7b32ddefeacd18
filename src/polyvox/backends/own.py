"""A backend somebody wrote: an object with a name and an `ask`, and perhaps `stream`, `models` and `status`.
What it takes is read from its signatures; what a request says beside that is a loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import UNSET

from polyvox.backends.failures import failure
from polyvox.backends.pieces import Pieces, Whole
from polyvox.backends.values import EventReader, response_of
from polyvox.backends.worker import called, runs_in_loop
from polyvox.dialects.collect import as_events
from polyvox.errors import InputError, PolyvoxError, UsageError
from polyvox.types import Loss, Message, Request, Response, Text

if TYPE_CHECKING:
    from polyvox.engine import CallOptions

_SAID_ELSEWHERE = frozenset({"model", "messages", "stream", "extra"})
_FIELDS = tuple(field for field in Request.__struct_fields__ if field not in _SAID_ELSEWHERE)
_STREAMS = ("stream", "astream")


class Takes(NamedTuple):
    """What a method takes: the whole request or a prompt, which keywords, and whether any."""

    request: bool
    names: frozenset[str]
    all: bool

    def has(self, name: str) -> bool:
        """Whether it takes a keyword of this name."""
        return self.all or name in self.names


class Asked(NamedTuple):
    """A call to come: the method, and what it is called with."""

    method: Any
    argument: Request | str
    keywords: dict[str, Any]
    model: str


class OwnBackend:
    """Asks an object of the user's; see `polyvox.backends.Backend`."""

    def __init__(self, thing: Any, name: str) -> None:
        self.name = name
        self.speaks: str = name
        self._thing = thing
        self._ask = thing.ask
        self._stream = next((found for word in _STREAMS if callable(found := getattr(thing, word, None))), None)
        self._takes = {method: takes(method, name) for method in (self._ask, self._stream) if method is not None}

    def must_stream(self, request: Request) -> bool:
        """Never: there is always an `ask`."""
        return False

    def encoded(self, request: Request, options: CallOptions) -> tuple[Asked, tuple[Loss, ...]]:
        """See `Backend`."""
        method = self._stream if request.stream and self._stream is not None else self._ask
        wanted = self._takes[method]
        losses = [Loss(f"extra.{key}", "keys of another dialect", "note") for key in request.extra if key != self.name]
        if options.headers:
            losses.append(Loss("headers", "this backend has no headers"))
        keywords: dict[str, Any] = {}
        if options.timeout is not None and "timeout" in wanted.names:
            keywords["timeout"] = options.timeout
        if wanted.request:
            return Asked(method, request, keywords, request.model), tuple(losses)
        prompt, said = _spoken(request, wanted, losses)
        keywords.update(said)
        _fields(request, wanted, self.name, keywords, losses)
        return Asked(method, prompt, keywords, request.model), tuple(losses)

    async def answer(self, asked: Asked) -> tuple[Response, str | None]:
        """See `Backend`."""
        try:
            given = await called(f"polyvox-{self.name}", self._ask, asked.argument, **asked.keywords)
        except PolyvoxError:
            raise
        except Exception as error:
            raise failure(self.name, error) from error
        response = response_of(self.name, asked.model, given)
        return response, response.request_id

    async def open(self, asked: Asked) -> tuple[Pieces | Whole, EventReader]:
        """See `Backend`. Without a `stream` of its own the whole answer is told as a stream."""
        reader = EventReader(self.name, asked.model)
        if self._stream is None:
            response, _ = await self.answer(asked)
            return Whole(as_events(response)), reader
        start = partial(self._stream, asked.argument, **asked.keywords)
        pieces = Pieces(f"polyvox-{self.name}", start, _alone, partial(failure, self.name))
        try:
            if await pieces.open(runs_in_loop(self._stream), _is_whole):
                return pieces, reader
            response = response_of(self.name, asked.model, pieces.given)
        except BaseException:
            await pieces.close()
            raise
        await pieces.close()
        return Whole(as_events(response)), reader

    async def models(self) -> tuple[str, ...]:
        """What its `models` gives; () where it tells none."""
        method = getattr(self._thing, "models", None)
        found = await self._told(method) if callable(method) else ()
        if not isinstance(found, list | tuple) or not all(isinstance(model, str) for model in found):
            raise UsageError(f"the models of the backend {self.name!r} must be a list of names")
        return tuple(found)

    async def status(self) -> dict[str, Any]:
        """What its `status` gives; without one, that it is there."""
        method = getattr(self._thing, "status", None)
        if not callable(method):
            return {"name": self.name, "available": True, "detail": "it has no status of its own"}
        found = await self._told(method)
        if not isinstance(found, Mapping):
            raise UsageError(f"the status of the backend {self.name!r} must be a dict, not {type(found).__name__}")
        return {"name": self.name, **found}

    async def _told(self, method: Any) -> Any:
        try:
            return await called(f"polyvox-{self.name}", method)
        except PolyvoxError:
            raise
        except Exception as error:
            raise failure(self.name, error) from error


def _alone(piece: Any) -> tuple[Any]:
    return (piece,)


def _is_whole(made: Any) -> bool:
    return isinstance(made, str | Message | Response)


# ---- what a method takes ----------------------------------------------------------------------


def takes(method: Any, name: str) -> Takes:
    """The first parameter is the whole request where it is called `request` or annotated `Request`, else the
    prompt as text; keywords are what else it names, or anything under `**`."""
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):
        return Takes(request=False, names=frozenset(), all=False)
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if not positional and not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        raise InputError(f"the backend {name!r} has a method that takes nothing", hint="def ask(self, prompt): ...")
    first = positional[0] if positional else None
    return Takes(
        first is not None and _is_request(first),
        frozenset(each.name for each in parameters if each is not first and each.kind is not each.POSITIONAL_ONLY),
        any(each.kind is each.VAR_KEYWORD for each in parameters),
    )


def _is_request(parameter: inspect.Parameter) -> bool:
    said = parameter.annotation
    if said is inspect.Parameter.empty:
        return parameter.name == "request"
    return said is Request or (isinstance(said, str) and said.rpartition(".")[2] == "Request")


# ---- a request in few words -------------------------------------------------------------------


def _spoken(request: Request, wanted: Takes, losses: list[Loss]) -> tuple[str, dict[str, Any]]:
    """The words of the last user turn, and with them the instructions and the turns where they are taken."""
    turns = [(place, each) for place, each in enumerate(request.messages) if each.role not in ("system", "developer")]
    system = "\n\n".join([each.text for each in request.messages if each.role in ("system", "developer")])
    last = next((number for number in reversed(range(len(turns))) if turns[number][1].role == "user"), len(turns) - 1)
    place, spoken = turns[last] if turns else (0, Message("user"))
    said: dict[str, Any] = {}
    if wanted.has("model"):
        said["model"] = request.model
    others, rest = len(turns) - 1, [part for part in spoken.parts if not isinstance(part, Text)]
    if "messages" in wanted.names or (wanted.all and (others > 0 or rest)):
        said["messages"] = request.messages
    elif others > 0:
        losses.append(Loss("messages", f"this backend takes one prompt: {others} other turns are left out"))
    if "messages" not in said:
        losses += [
            Loss(f"messages[{place}]", f"this backend takes text: no part of kind {type(part).__name__.lower()}")
            for part in rest
        ]
    if system and wanted.has("system"):
        said["system"] = system
    elif system and "messages" not in said:
        losses.append(Loss("system", "this backend takes no instructions"))
    return spoken.text, said


def _fields(request: Request, wanted: Takes, name: str, keywords: dict[str, Any], losses: list[Loss]) -> None:
    """Everything else that is set: as keywords where they are taken, else as losses."""
    if request.model != name and "model" not in keywords:
        losses.append(Loss("model", f"this backend takes no model: {request.model!r} is not asked for"))
    given = {field: getattr(request, field) for field in _FIELDS}
    given = {field: value for field, value in given.items() if value is not UNSET and value != ()}
    for field, value in {**given, **request.extra.get(name, {})}.items():
        if wanted.has(field):
            keywords[field] = value
        else:
            losses.append(Loss(field, "this backend takes no such argument"))
