"""Any provider that the core can ask: through an injected client of its library, through a `polyvox.Client`, or by the
core itself, with the deployments and keys that all four interfaces share. What a call is, the core decides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from polyvox.compat.errors import speaking
from polyvox.compat.llm_service.services.llm.outcomes import told
from polyvox.compat.llm_service.services.llm.providers.base import BaseProvider
from polyvox.compat.llm_service.services.llm.transformers.base import Params
from polyvox.errors import InputError, PolyvoxError

if TYPE_CHECKING:
    from polyvox import Client
    from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMCallResponse
    from polyvox.types import Loss, Request, Response

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
        from polyvox import catalog

        return self.dialect or catalog.load().provider(self._named(request)).dialect

    @property
    def _is_injected(self) -> bool:
        from polyvox import Client

        return self.client is not None and not isinstance(self.client, Client)

    @contextlib.contextmanager
    def _client(self, request: LLMCallRequest, asked: Request) -> Iterator[tuple[Client, str]]:
        """Whom the core asks, and the name it knows the model by."""
        from polyvox import AsyncClient, Client

        if isinstance(self.client, type):
            raise InputError(
                f"the class {self.client.__name__} is no client",
                param="client",
                hint=f"{self.client.__name__}(...) makes one",
            )
        if isinstance(self.client, AsyncClient):
            raise InputError("an AsyncClient cannot be asked here", hint="pass a polyvox.Client")
        from polyvox.compat.llm_service.services.llm.providers import deployments

        spec, how = request.llm.llm_model_spec, deployments.Speaking(self._named(request), self.row or "")
        if isinstance(self.client, Client):
            yield self.client, deployments.within(self.client, how, spec, asked)
        elif self.client is not None:
            with self._injected(request) as client:
                yield client, spec.model
        else:
            yield deployments.own(how, spec, self.dialect if asked.extra.get(self.dialect) else "")

    def _injected(self, request: LLMCallRequest) -> Client:
        """A client around that of a vendor's library. It is asked as often as it would try by itself; a stand-in,
        which says nothing about that, once."""
        from polyvox import Client, backends, keys

        key = getattr(self.client, "api_key", None)
        if isinstance(key, str) and key:
            keys.remember(keys.Secret(key))  # so that it is masked in whatever the library says
        tries = getattr(self.client, "max_retries", None)
        backend = backends.backend_of(self.client, name=self._named(request), dialect=self._speaks(request))
        return Client(backend=backend, retries=tries if type(tries) is int and tries >= 0 else 0)

    # ---- what is asked and answered -----------------------------------------------------------

    def _asked(self, request: LLMCallRequest, params: dict[str, Any]) -> Request:
        """The arguments as a request of the core. What a transformer of somebody else's says goes along verbatim.
        For models of its own the core leaves out what they refuse; for those of an injected client it is done here."""
        from msgspec.structs import replace

        from polyvox.types import Message, Request, Text

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
        from msgspec.structs import replace

        from polyvox import catalog
        from polyvox.client.money import PriceList
        from polyvox.compat.llm_service.models.llm import LLMCallResponse

        model, provider = request.llm.llm_model_spec.model, response.provider or self._named(request)
        row = catalog.load().providers.get(provider)
        lost = params.losses if isinstance(params, Params) else ()
        response = replace(response, losses=tuple(dict.fromkeys((*lost, *response.losses))))
        if response.cost.amount is None and self._is_injected:
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


# ---- passages -------------------------------------------------------------------------------------


def _found(response: Response) -> list[dict[str, Any]] | None:
    """The passages that searches in files found, as they were told; None where nothing was searched."""
    from polyvox.types import Opaque

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
