"""Which paths a simulated provider has, and how the provider of each dialect behaves beside its messages:
keys, ids, model lists. Facts only; who answers there is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from polyvox.errors import InvalidRequestError, NotFoundError, PolyvoxError
from polyvox.testing.replay import dialect_of

What = Literal["ask", "models", "version", "health"]


class Route(Struct, frozen=True):
    """What is at a path: which method it takes, what is asked for, and in which dialect; None is whoever asks."""

    method: str
    what: What
    dialect: str | None = None


class ProviderFacts(Struct, frozen=True):
    """How the provider of a dialect behaves.

    Attributes:
        base: what its clients want at the end of the root URL.
        variable: the environment variable that points its official clients elsewhere.
        needs_key: whether it refuses a request without a key.
        request_id: the header with the id of the request, None where it gives none.
        limits: whose rate-limit headers it sends, None where it sends none.
        busy: the kind of error when too much is asked of it.
        models: the body of its list of models, by their names.
    """

    base: str
    variable: str
    needs_key: bool
    request_id: str | None
    limits: Literal["openai", "anthropic"] | None
    busy: Literal["rate_limit", "overloaded"]
    models: Callable[[Sequence[str]], Any]


_NO_TIME = "1970-01-01T00:00:00Z"  # of models that were never released


def _openai_models(names: Sequence[str]) -> Any:
    rows = [{"id": name, "object": "model", "created": 0, "owned_by": "polyvox"} for name in names]
    return {"object": "list", "data": rows}


def _anthropic_models(names: Sequence[str]) -> Any:
    rows = [
        {"type": "model", "id": name, "display_name": name, "created_at": _NO_TIME, "lifecycle": "active"}
        for name in names
    ]
    return {"data": rows, "has_more": False, "first_id": names[0], "last_id": names[-1]}


def _ollama_models(names: Sequence[str]) -> Any:
    rows = [
        {"name": name, "model": name, "modified_at": _NO_TIME, "size": 0, "digest": "0" * 64,
         "details": {"parent_model": "", "format": "gguf", "family": "", "families": None,
                     "parameter_size": "", "quantization_level": ""}}
        for name in names
    ]  # fmt: skip
    return {"models": rows}


OPENAI, ANTHROPIC, OLLAMA = "openai.chat", "anthropic.messages", "ollama.chat"

# Sources: the official clients, and the providers' pages on limits and errors.
PROVIDERS: dict[str, ProviderFacts] = {
    OPENAI: ProviderFacts("/v1", "OPENAI_BASE_URL", True, "x-request-id", "openai", "rate_limit", _openai_models),
    ANTHROPIC: ProviderFacts(
        "", "ANTHROPIC_BASE_URL", True, "request-id", "anthropic", "rate_limit", _anthropic_models
    ),
    OLLAMA: ProviderFacts("", "OLLAMA_HOST", False, None, None, "overloaded", _ollama_models),
}

ROUTES: dict[str, Route] = {
    "/v1/chat/completions": Route("POST", "ask", OPENAI),
    "/chat/completions": Route("POST", "ask", OPENAI),
    "/v1/messages": Route("POST", "ask", ANTHROPIC),
    "/api/chat": Route("POST", "ask", OLLAMA),
    "/v1/models": Route("GET", "models"),
    "/models": Route("GET", "models"),
    "/api/tags": Route("GET", "models", OLLAMA),
    "/api/version": Route("GET", "version", OLLAMA),
    "/health": Route("GET", "health"),
}

VERSION = {"version": "0.13.0"}
"""What the local server says of itself: a version that its clients know."""


def dialect_at(path: str, headers: Mapping[str, str]) -> str:
    """The dialect spoken at a path, or by whoever asks there: also a refusal is in the words of its client."""
    route = ROUTES.get(path)
    if route is not None and route.dialect is not None:
        return route.dialect
    if "anthropic-version" in headers:
        return ANTHROPIC
    return dialect_of(path) or (OLLAMA if path.startswith("/api/") else OPENAI)


def route_of(method: str, path: str) -> Route:
    """What is asked at a path; NotFoundError for a path nobody has, InvalidRequestError (405) for a method."""
    route = ROUTES.get(path)
    if route is None:
        raise _wrong(NotFoundError, 404, f"there is nothing at {method} {path}", "unknown_url")
    if method != route.method:
        raise _wrong(InvalidRequestError, 405, f"{path} takes {route.method}, not {method}", "method_not_allowed")
    return route


def _wrong(make: type[PolyvoxError], status: int, message: str, code: str) -> PolyvoxError:
    return make(message, status=status, code=code, type="invalid_request_error")
