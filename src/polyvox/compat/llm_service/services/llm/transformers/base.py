"""What a provider's client is called with, made from a request of the LLM service. Any provider's wire form is a
dialect of the core, so one transformer writes them all; it calls nobody."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from polyvox.compat import names
from polyvox.compat.errors import named, speaking
from polyvox.errors import InputError, PolyvoxError

if TYPE_CHECKING:
    from polyvox.compat.llm_service.models.llm import LLMCallRequest
    from polyvox.compat.llm_service.models.llm.specs import ModelSpec
    from polyvox.types import Loss, Request

RESPONSES = "openai.responses"
_FOUND = "file_search_call.results"


class Params(dict[str, Any]):
    """Keyword arguments for a client, with what they were made from.

    Attributes:
        asked: the same as a request of the core, before anything was left out.
        fitted: that request as the model takes it, which the arguments say.
        losses: what of the request the model or the protocol does not take.
        fresh: the arguments as they were made; what is other by now, somebody has changed since.
    """

    def __init__(self, made: dict[str, Any], asked: Request, fitted: Request, losses: tuple[Loss, ...]) -> None:
        super().__init__(made)
        self.asked = asked
        self.fitted = fitted
        self.losses = losses
        self.fresh: dict[str, Any] = dict(made)


class ConfigTransformer(ABC):
    """Makes a provider's arguments from a request. A subclass needs `transform` and nothing else.

    model_spec is what is known of the model, where anything is: then values that it does not take are refused before
    anybody is asked.
    """

    def __init__(self, model_spec: ModelSpec | None = None) -> None:
        self.model_spec = model_spec

    # A subclass with an __init__ of its own need not call ours.
    model_spec: ModelSpec | None = None

    @abstractmethod
    def transform(self, request: LLMCallRequest) -> dict[str, Any]:
        """The keyword arguments with which the provider's client is called."""

    def validate(self, request: LLMCallRequest) -> None:
        """ValidationError, with the parameter and what it may be, for values that the model does not take. A parameter
        that it does not have at all is left out later, with a note, as the core does it everywhere."""
        if self.model_spec is not None:
            with speaking():
                self.model_spec.validate_config(request.llm.llm_model_spec, lenient=True)

    def validate_and_transform(self, request: LLMCallRequest) -> dict[str, Any]:
        """`transform`, with what the specification says of the request. TransformationError for a transformer that
        fails, and for one that gives no arguments."""
        from polyvox.compat.llm_service.models.llm.request import checked_request

        self.validate(checked_request(request))
        try:
            made = self.transform(request)
        except PolyvoxError as error:
            named(error)
            raise
        except Exception as error:
            raise _failed(self, f"failed: {type(error).__name__}: {error}", request) from error
        if not isinstance(made, dict):
            raise _failed(self, f"gave {type(made).__name__}, which is no dict of arguments", request)
        return made


def _failed(transformer: ConfigTransformer, what: str, request: LLMCallRequest) -> names.TransformationError:
    spec = request.llm.llm_model_spec
    return named(
        names.TransformationError(
            f"the transformer {type(transformer).__name__} {what}",
            hint="its transform takes the request and returns the keyword arguments of a call",
            provider=spec.provider,
            model=spec.model,
            sent="no",
        )
    )


class DialectTransformer(ConfigTransformer):
    """The arguments in a dialect of the core. What is not set is not sent; what the model refuses is left out and
    told in `Params.losses`.

    Attributes:
        dialect: a name from `polyvox.dialects.NAMES`.
        provider: whose models they are; None is whoever the request names.
    """

    dialect: ClassVar[str] = ""
    provider: ClassVar[str | None] = None

    def transform(self, request: LLMCallRequest) -> Params:
        """See `ConfigTransformer.transform`."""
        with speaking():
            return self._made(request)

    def _made(self, request: LLMCallRequest) -> Params:
        import json
        from datetime import UTC, datetime

        from polyvox import catalog, dialects, profiles
        from polyvox.compat import shared
        from polyvox.compat.llm_service.models.llm.request import checked_request
        from polyvox.types import Loss

        spec = checked_request(request).llm.llm_model_spec
        provider = self.provider or shared.IN_CATALOG.get(spec.provider, spec.provider)
        known = shared.info(spec.model, provider)
        asked = self._asked(request)
        fitted, losses = profiles.fit(asked, profiles.profile_of(f"{provider}/{spec.model}", known))
        fitted, more = self._without_refused(request, fitted)
        if known is not None and (notice := known.notice(datetime.now(UTC).date())):
            losses = (Loss("model", notice, "note"), *losses)
        row = catalog.load().providers.get(provider)
        options = dict(row.options) if row is not None else {}
        if known is not None and known.max_output:
            options = {"max_output": known.max_output, **options}
        at = dialects.Endpoint(quirks=row.quirks if row is not None else frozenset(), options=options)
        wire, unsaid = dialects.dialect(self.dialect).encode_request(fitted, at)
        made = {"model": spec.model, **json.loads(wire.body)}
        return Params(made, asked, fitted, (*losses, *more, *unsaid))

    def _without_refused(self, request: LLMCallRequest, asked: Request) -> tuple[Request, tuple[Loss, ...]]:
        """Without what the specification alone says that the model refuses."""
        from msgspec import UNSET
        from msgspec.structs import replace

        from polyvox.types import Loss

        refused = self.model_spec.not_taken(request.llm.llm_model_spec) if self.model_spec is not None else []
        fields = [_FIELDS.get(name, name) for name in refused]
        said = [name for name in fields if getattr(asked, name, UNSET) is not UNSET]
        losses = tuple([Loss(name, "this model does not take it") for name in said])
        return replace(asked, **dict.fromkeys(said, UNSET)), losses

    def _asked(self, request: LLMCallRequest) -> Request:
        """The request as the core says it."""
        from polyvox.types import Message, Request, Text, Thinking

        spec = request.llm.llm_model_spec
        said = spec.config()
        fields: dict[str, Any] = {name: said[name] for name in _SAME if name in said}
        if "effort" in said:
            fields["thinking"] = Thinking(effort=said["effort"])
        asked = Request(spec.model, (Message("user", (Text(request.llm.prompt),)),), **fields)
        return asked if request.llm.vector_store_id is None else self._searching(asked, request)

    def _searching(self, asked: Request, request: LLMCallRequest) -> Request:
        if self.dialect != RESPONSES:
            raise InputError(
                f"{asked.model} cannot search in {request.llm.vector_store_id!r}: vector stores are OpenAI's",
                param="vector_store_id",
                hint='use a model of the provider "openai", or leave vector_store_id out',
            )
        from msgspec.structs import replace

        from polyvox.types import Opaque

        search = {
            "type": "file_search",
            "vector_store_ids": [request.llm.vector_store_id],
            "max_num_results": request.max_num_results,
        }
        # The passages are told only to whoever asks for them.
        return replace(
            asked, tools=(Opaque(RESPONSES, "file_search", search),), extra={RESPONSES: {"include": [_FOUND]}}
        )


_FIELDS = {"effort": "thinking"}
_SAME = ("max_tokens", "temperature", "top_p", "verbosity")


@functools.cache
def of_dialect(name: str) -> type[DialectTransformer]:
    """The transformer for any dialect."""
    return type("DialectTransformer", (DialectTransformer,), {"dialect": name, "__doc__": DialectTransformer.__doc__})
