"""Any provider that the core can ask: through an injected client of its library, through a `polyvox.Client`, or by the
core itself, with the deployments and keys that all four interfaces share. What a call is, the core decides."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec.structs import replace

from polyvox import catalog, keys
from polyvox.compat.errors import speaking
from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMCallResponse, LLMModelSpec
from polyvox.compat.llm_service.services.llm.outcomes import told
from polyvox.compat.llm_service.services.llm.providers.base import BaseProvider
from polyvox.compat.llm_service.services.llm.transformers.base import Params
from polyvox.errors import InputError, PolyvoxError
from polyvox.types import Loss, Message, Opaque, Request, Response, Text

if TYPE_CHECKING:
    from polyvox import Client
    from polyvox.registry import Entry

_SEARCH = "file_search_call"


class CoreProvider(BaseProvider):
    """A provider of the core's catalog.

    Attributes:
        provider: its name in the catalog; None is the one it was asked for by.
        row: the row of the catalog that is asked where the core asks by itself, when that is another.
        dialect: what it is spoken to in; "" is what its row says.
    """

    provider: ClassVar[str | None] = None
    row: ClassVar[str | None] = None
    dialect: ClassVar[str] = ""

    def execute(self, request: LLMCallRequest) -> tuple[LLMCallResponse | None, str | None]:
        """See `BaseProvider.execute`. Of faults the error's text is given, and nothing is raised."""
        try:
            with speaking():
                params = self.build_params(request)
                asked = self._asked(request, params)
                with self._client(request, asked) as (client, model):
                    response = client.ask(asked, model=model)
                return self._told(request, params, response), None
        except PolyvoxError as error:
            return None, told(error)

    def stream(self, request: LLMCallRequest) -> Iterator[str | LLMCallResponse]:
        """See `BaseProvider.stream`."""
        with speaking():
            params = self.build_params(request)
            asked = self._asked(request, params)
            with self._client(request, asked) as (client, model), client.stream(asked, model=model) as stream:
                yield from stream
                response = stream.response
            yield self._told(request, params, response)

    # ---- who is asked -------------------------------------------------------------------------

    def _named(self, request: LLMCallRequest) -> str:
        return self.provider or self.name or request.llm.llm_model_spec.provider

    def _speaks(self, request: LLMCallRequest) -> str:
        return self.dialect or catalog.load().provider(self._named(request)).dialect

    @property
    def _is_injected(self) -> bool:
        from polyvox import Client

        return self.client is not None and not isinstance(self.client, Client)

    @contextlib.contextmanager
    def _client(self, request: LLMCallRequest, asked: Request) -> Iterator[tuple[Client, str]]:
        """Whom the core asks, and the name it knows the model by."""
        from polyvox import AsyncClient, Client

        if isinstance(self.client, AsyncClient):
            raise InputError("an AsyncClient cannot be asked here", hint="pass a polyvox.Client")
        if isinstance(self.client, Client):
            yield self.client, self._full(request)
        elif self.client is not None:
            with self._injected(request) as client:
                yield client, request.llm.llm_model_spec.model
        else:
            yield self._own(request, asked)

    def _full(self, request: LLMCallRequest) -> str:
        return f"{self.row or self._named(request)}/{request.llm.llm_model_spec.model}"

    def _injected(self, request: LLMCallRequest) -> Client:
        """A client around that of a vendor's library. It is asked as often as it would try by itself; a stand-in,
        which says nothing about that, once."""
        from polyvox import Client, backends

        key = getattr(self.client, "api_key", None)
        if isinstance(key, str) and key:
            keys.remember(keys.Secret(key))  # so that it is masked in whatever the library says
        tries = getattr(self.client, "max_retries", None)
        backend = backends.backend_of(self.client, name=self._named(request), dialect=self._speaks(request))
        return Client(backend=backend, retries=tries if type(tries) is int and tries >= 0 else 0)

    def _own(self, request: LLMCallRequest, asked: Request) -> tuple[Client, str]:
        """The core's own client: for a deployment that is registered or that the environment describes, else for the
        provider with its own key."""
        provider = self._named(request)
        entry = _deployment(provider, request.llm.llm_model_spec)
        if entry is None:
            return _everyone(), self._full(request)
        if self.row is not None and entry.base_url is None and entry.model.startswith(f"{provider}/"):
            entry = replace(entry, model=f"{self.row}/{entry.model.partition('/')[2]}")
        elif asked.extra.get(self.dialect):  # nothing else takes what is asked
            if entry.base_url is None:
                raise InputError(
                    f"the deployment {entry.name!r} ({entry.model}) does not take what is said in {self.dialect}",
                    hint="name one that does, or leave vector_store_id and transformers of your own out",
                )
            entry = replace(entry, dialect=self.dialect)
        return _client_of(entry), entry.name

    # ---- what is asked and answered -----------------------------------------------------------

    def _asked(self, request: LLMCallRequest, params: dict[str, Any]) -> Request:
        """The arguments as a request of the core. What a transformer of somebody else's says goes along verbatim.
        For models of its own the core leaves out what they refuse; for those of an injected client it is done here."""
        fresh: dict[str, Any] = {}
        asked = Request(request.llm.llm_model_spec.model, (Message("user", (Text(request.llm.prompt),)),))
        if isinstance(params, Params):
            fresh, asked = params.fresh, params.fitted if self._is_injected else params.asked
            if self._is_injected:
                _refuse_if_strict(params.losses)
        own = {name: value for name, value in params.items() if name not in fresh or fresh[name] != value}
        if not own:
            return asked
        dialect = self._speaks(request)
        return replace(asked, extra={**asked.extra, dialect: {**asked.extra.get(dialect, {}), **own}})

    def _told(self, request: LLMCallRequest, params: dict[str, Any], response: Response) -> LLMCallResponse:
        from polyvox.client.money import PriceList

        model, provider = request.llm.llm_model_spec.model, response.provider or self._named(request)
        row = catalog.load().providers.get(provider)
        lost = params.losses if isinstance(params, Params) else ()
        response = replace(response, losses=tuple(dict.fromkeys((*lost, *response.losses))))
        if response.cost.amount is None:
            # Nobody bills what goes through somebody's own client; the catalog has the provider's prices all the same.
            prices = PriceList(catalog.load().info, provider, model, self._speaks(request))
            response = replace(response, cost=prices.bill(self._asked(request, params), response))
        return LLMCallResponse.from_response(
            response,
            message=response.text or response.refusal or "",
            provider=row.key_of or provider if row is not None else provider,
            file_search_results=_found(response),
        )


def _refuse_if_strict(losses: tuple[Loss, ...]) -> None:
    from polyvox import config
    from polyvox.engine import refuse_losses

    if config.current().strict:
        refuse_losses(losses)


# ---- deployments that all four interfaces share ---------------------------------------------------


def _deployment(provider: str, spec: LLMModelSpec) -> Entry | None:
    """The deployment that a model's name means: one of that name, one of that model, or the environment's own, whose
    key holds for all models of its provider. None where none is described."""
    from polyvox.compat import shared

    entry = shared.EVERYONE.get_by_name(spec.model)
    # The provider that holds where nobody says one is no word against a deployment, unless it has that model itself.
    unsaid = provider == LLMModelSpec.model_fields["provider"].default and not catalog.load().info(provider, spec.model)
    if entry is not None and (unsaid or entry.model.startswith(f"{provider}/")):
        return entry
    full = f"{provider}/{spec.model}"
    for entry in shared.EVERYONE.list_active():
        if entry.model == full and entry.base_url is None:
            return entry
    said = shared.said()
    if not said.keys() & {"api_key", "base_url"}:
        return None
    own = shared.deployment()
    theirs = said["provider"].value.lower() if "provider" in said else "openai"
    if own is None or theirs != provider:
        return None
    return replace(own, model=spec.model if own.base_url else full)


@functools.cache
def _everyone() -> Client:
    from polyvox import Client
    from polyvox.compat import shared

    return Client(registry=shared.EVERYONE)


_clients: dict[str, tuple[Entry, Client]] = {}
_lock = threading.Lock()


def _client_of(entry: Entry) -> Client:
    """A client for one deployment; kept, for its connections, until the deployment is another."""
    from polyvox import Client

    with _lock:
        held = _clients.get(entry.name)
        if held is None or held[0] != entry:
            held = _clients[entry.name] = (entry, Client(registry=[entry]))
        return held[1]


# ---- passages -------------------------------------------------------------------------------------


def _found(response: Response) -> list[dict[str, Any]] | None:
    """The passages that searches in files found, as they were told; None where nothing was searched."""
    searches = [
        part.raw for part in response.message.parts
        if type(part) is Opaque and part.type == _SEARCH and isinstance(part.raw, dict)
    ]  # fmt: skip
    if not searches:
        return None
    told_of = [results for search in searches if isinstance(results := search.get("results"), list)]
    found = [one for results in told_of for one in results if isinstance(one, dict)]
    return [
        {**one, "score": float(one["score"])}
        for one in found
        if isinstance(one.get("text"), str) and type(one.get("score")) in (int, float)
    ]
