"""A client object of a vendor's library as a backend: the request goes in as keyword arguments, the answer is read
by the dialect it belongs to. It holds no key: the client has its own."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from polyvox.backends.failures import client_failure, headers_of
from polyvox.backends.pieces import Pieces, Whole
from polyvox.backends.reading import as_json, is_stand_in
from polyvox.backends.shapes import Create, Shape, chosen, offered
from polyvox.backends.values import EventReader
from polyvox.backends.worker import called, runs_in_loop
from polyvox.dialects import Dialect, Endpoint, Reader, Reply, encode_json, guarded, snippet
from polyvox.dialects.collect import as_events
from polyvox.errors import BadResponseError, InputError, PolyvoxError
from polyvox.types import Loss, Request, Response

if TYPE_CHECKING:
    from polyvox.engine import CallOptions

Json = dict[str, Any]


class Asked(NamedTuple):
    """A call to come: in which shape, what is called with which arguments, and how its answer is read."""

    shape: Shape
    codec: Dialect
    create: Create
    arguments: Json
    at: Endpoint

    def failure(self, name: str, error: Exception) -> PolyvoxError:
        """What an exception of the library means."""
        return client_failure(name, error, lambda reply: self.codec.decode_error(reply, self.at))


class ClientBackend:
    """Asks a client object; see `polyvox.backends.Backend`. methods are the shapes it offers, fixed are arguments
    of every call, quirks as in `dialects.Endpoint`."""

    def __init__(
        self,
        name: str,
        methods: tuple[tuple[Shape, Create], ...],
        *,
        fixed: Mapping[str, Any] | None = None,
        quirks: frozenset[str] = frozenset(),
    ) -> None:
        self.name = name
        self._methods = methods
        self._fixed = dict(fixed or {})
        self._quirks = quirks

    @property
    def speaks(self) -> str:
        """The dialect it is asked in."""
        return chosen(self._methods)[0].dialect

    def _at(self, request: Request) -> Endpoint:
        return Endpoint(origin=f"{self.name}/{request.model}", quirks=self._quirks)

    def must_stream(self, request: Request) -> bool:
        """See `Backend`."""
        return chosen(self._methods)[0].codec().must_stream(request, self._at(request))

    def encoded(self, request: Request, options: CallOptions) -> tuple[Asked, tuple[Loss, ...]]:
        """See `Backend`."""
        if request.model == self.name:
            raise InputError(
                f"no model is named for the client {self.name!r}",
                hint=f'say model="{self.name}/MODEL", or Client("MODEL", backend=...)',
            )
        shape, create = chosen(self._methods)
        codec, at = shape.codec(), self._at(request)
        wire, losses = codec.encode_request(request, at)
        body: Json = json.loads(wire.body)
        chosen_headers = {name: wire.headers[name] for name in shape.headers if name in wire.headers}
        arguments, more = _arguments(create, body, {**chosen_headers, **options.headers}, options.timeout)
        return Asked(shape, codec, create, {**arguments, **self._fixed}, at), losses + more

    async def answer(self, asked: Asked) -> tuple[Response, str | None]:
        """See `Backend`."""
        try:
            given = await called(f"polyvox-{self.name}", asked.create, **asked.arguments)
        except PolyvoxError:
            raise
        except Exception as error:
            raise asked.failure(self.name, error) from error
        return self._read(asked, given)

    def _read(self, asked: Asked, given: Any) -> tuple[Response, str | None]:
        body = guarded(lambda: asked.shape.read(given))
        if body is None:
            raise BadResponseError(
                f"the client {self.name!r} answered with {type(given).__name__}, which holds no answer of "
                f"{asked.shape.method}: {snippet(repr(given))}",
                hint="name what it speaks: register_backend(NAME, client, dialect=...)",
                sent="yes",
            )
        response = asked.codec.decode_response(Reply(200, {}, encode_json(body)), asked.at)
        request_id = None if is_stand_in(given) else getattr(given, "_request_id", None)
        return response, request_id if isinstance(request_id, str) else None

    async def open(self, asked: Asked) -> tuple[Pieces | Whole, Reader]:
        """See `Backend`. A client that answers in one piece all the same is told as a stream."""
        start = partial(asked.create, **asked.arguments)
        failed = partial(asked.failure, self.name)
        pieces = Pieces(f"polyvox-{self.name}", start, partial(_framed, asked.shape), failed)
        try:
            if await pieces.open(runs_in_loop(asked.create), lambda made: asked.shape.read(made) is not None):
                pieces.headers = headers_of(pieces.source)
                return pieces, asked.codec.reader(asked.at)
            response, _ = self._read(asked, pieces.given)
        except BaseException:
            await pieces.close()
            raise
        await pieces.close()
        return self._whole(asked, response)

    def _whole(self, asked: Asked, response: Response) -> tuple[Whole, EventReader]:
        return Whole(as_events(response)), EventReader(self.name, asked.arguments["model"])

    async def models(self) -> tuple[str, ...]:
        """None are told: its own library lists them."""
        return ()

    async def status(self) -> dict[str, Any]:
        """Only that it is there: nothing is asked."""
        return {"name": self.name, "available": True, "detail": "a client object; nothing was asked of it"}


def _framed(shape: Shape, piece: Any) -> bytes:
    """A piece of a stream as its bytes on the wire."""
    found = as_json(piece, shape.template)
    if found is None:
        raise BadResponseError(f"the stream holds {type(piece).__name__}, which is no piece of an answer", sent="yes")
    return shape.frame(found)


def _arguments(
    create: Create, body: Json, headers: Mapping[str, str], timeout: float | None
) -> tuple[Json, tuple[Loss, ...]]:
    """The body as keyword arguments, with what goes beside it: in `extra_body` and `extra_headers` where the method
    has them. What it has no place for is lost."""
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(create).parameters
    except (TypeError, ValueError):
        parameters = {}
    takes_all = not parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    arguments = {name: value for name, value in body.items() if takes_all or name in parameters}
    rest = {name: value for name, value in body.items() if name not in arguments}
    losses: list[Loss] = []
    if rest and "extra_body" in parameters:
        arguments["extra_body"] = rest
    else:
        losses += [Loss(name, "this client's method takes no such argument") for name in rest]
    if headers and (takes_all or "extra_headers" in parameters):
        arguments["extra_headers"] = dict(headers)
    elif headers:
        losses.append(Loss("headers", "this client's method takes no headers"))
    if timeout is not None and "timeout" in parameters:
        # Ours ends the call; this one lets a thread that nobody waits for end too.
        arguments["timeout"] = timeout
    return arguments, tuple(losses)


def client_backend(client: Any, name: str | None, speaks: str | None) -> ClientBackend:
    """The backend of a client object; InputError for one that offers no shape we know."""
    client = _without_retries(client)
    methods = offered(client, speaks)
    if not methods:
        what = "ask" if speaks is None else f"method that speaks {speaks}"
        raise InputError(
            f"{type(client).__name__} cannot be asked: it has no {what}",
            hint="pass an object with a name and an ask, or a client of a vendor's library",
        )
    return ClientBackend(name or methods[0][0].dialect.partition(".")[0], methods)


def _without_retries(client: Any) -> Any:
    """The same client, which tries once: retries are counted in one place only."""
    copy: Callable[..., Any] | None = getattr(type(client), "with_options", None)
    if copy is None or is_stand_in(client):
        return client
    once = client.with_options(max_retries=0)
    return once if isinstance(once, type(client)) else client
