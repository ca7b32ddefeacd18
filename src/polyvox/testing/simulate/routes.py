"""Which paths a simulated provider has, and how the provider of each dialect behaves beside its messages:
keys, ids, model lists. Facts only; who answers there is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import parse_qs

from msgspec import Struct

from polyvox.errors import InvalidRequestError, NotFoundError, PolyvoxError
from polyvox.testing.replay import dialect_of
from polyvox.testing.simulate import models_kept

What = Literal["ask", "embed", "more", "models", "kept", "version", "health"]


class Route(Struct, frozen=True):
    """What is at a path: which method it takes ("*": that is known elsewhere), what is asked for, and in which
    dialect; None is whoever asks."""

    method: str
    what: What
    dialect: str | None = None


class ProviderFacts(Struct, frozen=True):
    """How the provider of a dialect behaves.

    Attributes:
        base: what our clients want at the end of the root URL, and official ones too where nothing else is said.
        variable: the environment variable that points its official clients elsewhere.
        models: the body of its list of models, by their names.
        official: what its official clients want at the end of the root URL, where that is another thing.
        needs_key: whether it refuses a request without a key.
        denies: status and code of its refusal of a key.
        request_id: the header with the id of the request, None where it gives none.
        limits: whose rate-limit headers it sends, None where it sends none.
        busy: the kind of error when too much is asked of it.
        keeps: whether its models are kept by the server itself: they come and go, and are loaded when they are asked.
    """

    base: str
    variable: str
    models: Callable[[Sequence[str]], Any]
    official: str | None = None
    needs_key: bool = True
    denies: tuple[int, str] = (401, "invalid_api_key")
    request_id: str | None = None
    limits: Literal["openai", "anthropic"] | None = None
    busy: Literal["rate_limit", "overloaded"] = "rate_limit"
    keeps: bool = False


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


def _gemini_models(names: Sequence[str]) -> Any:
    methods = ["generateContent", "streamGenerateContent", "embedContent", "batchEmbedContents"]
    return {
        "models": [
            {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods} for name in names
        ]
    }


def _cohere_models(names: Sequence[str]) -> Any:
    return {"models": [{"name": name, "endpoints": ["chat", "embed"], "is_deprecated": False} for name in names]}


OPENAI, ANTHROPIC, OLLAMA = "openai.chat", "anthropic.messages", "ollama.chat"
RESPONSES, GEMINI, BEDROCK, COHERE = "openai.responses", "gemini.generate", "bedrock.converse", "cohere.chat"

# Sources: the official clients, and the providers' pages on limits and errors.
PROVIDERS: dict[str, ProviderFacts] = {
    OPENAI: ProviderFacts("/v1", "OPENAI_BASE_URL", _openai_models, request_id="x-request-id", limits="openai"),
    RESPONSES: ProviderFacts("/v1", "OPENAI_BASE_URL", _openai_models, request_id="x-request-id", limits="openai"),
    ANTHROPIC: ProviderFacts("", "ANTHROPIC_BASE_URL", _anthropic_models, request_id="request-id", limits="anthropic"),
    # Its official clients add the version themselves.
    GEMINI: ProviderFacts(
        "/v1beta", "GOOGLE_GEMINI_BASE_URL", _gemini_models, official="", denies=(400, "API_KEY_INVALID")
    ),
    # Its models are listed by another service.
    BEDROCK: ProviderFacts(
        "", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME", _openai_models,
        request_id="x-amzn-requestid", denies=(403, "UnrecognizedClientException"),
    ),
    COHERE: ProviderFacts("", "CO_API_URL", _cohere_models),
    OLLAMA: ProviderFacts("", "OLLAMA_HOST", models_kept.listing, needs_key=False, busy="overloaded", keeps=True),
}  # fmt: skip

ROUTES: dict[str, Route] = {
    "/v1/chat/completions": Route("POST", "ask", OPENAI),
    "/chat/completions": Route("POST", "ask", OPENAI),
    "/openai/v1/chat/completions": Route("POST", "ask", OPENAI),  # where the root has other dialects too
    "/v1/messages": Route("POST", "ask", ANTHROPIC),
    "/api/chat": Route("POST", "ask", OLLAMA),
    "/v1/embeddings": Route("POST", "embed", OPENAI),
    "/embeddings": Route("POST", "embed", OPENAI),
    "/openai/v1/embeddings": Route("POST", "embed", OPENAI),
    "/api/embed": Route("POST", "embed", OLLAMA),
    "/api/embeddings": Route("POST", "embed", OLLAMA),
    "/v2/embed": Route("POST", "embed", COHERE),
    "/v2/rerank": Route("*", "more", COHERE),
    "/v1/models": Route("GET", "models"),
    "/models": Route("GET", "models"),
    "/api/tags": Route("GET", "models", OLLAMA),
    "/api/ps": Route("GET", "kept", OLLAMA),
    "/api/show": Route("POST", "kept", OLLAMA),
    "/api/pull": Route("POST", "kept", OLLAMA),
    "/api/delete": Route("DELETE", "kept", OLLAMA),
    "/api/copy": Route("POST", "kept", OLLAMA),
    "/api/generate": Route("POST", "kept", OLLAMA),
    "/api/version": Route("GET", "version", OLLAMA),
    "/v1/responses": Route("POST", "ask", RESPONSES),
    "/responses": Route("POST", "ask", RESPONSES),
    "/v2/chat": Route("POST", "ask", COHERE),
    "/v1beta/models": Route("GET", "models", GEMINI),
    "/health": Route("GET", "health"),
}
# Where the model stands in the path.
_PATTERNS = (
    (re.compile(r"/v1(?:beta1?)?/(?:[^:]+/)?models/[^:/]+:(?:g|streamG)enerateContent"), Route("POST", "ask", GEMINI)),
    (
        re.compile(r"/v1(?:beta1?)?/(?:[^:]+/)?models/[^:/]+:(?:embedContent|batchEmbedContents)"),
        Route("POST", "embed", GEMINI),
    ),
    (
        re.compile(
            r"(?:/openai)?(?:/v1)?/(?:audio/(?:transcriptions|translations|speech)|images/(?:generations|edits)"
            r"|moderations|rerank|files(?:/[^/]+(?:/content)?)?|batches(?:/[^/]+(?:/cancel)?)?)"
        ),
        Route("*", "more", OPENAI),
    ),
    (re.compile(r"/model/[^/]+/converse(?:-stream)?"), Route("POST", "ask", BEDROCK)),
)

# Where a path says no dialect, the first of these says who asks: a header and how its text begins, a parameter
# (one lists its models by another name than all others), and how the path begins.
_CLIENTS = (("anthropic-version", "", ANTHROPIC), ("x-goog-api-key", "", GEMINI), ("x-fern-sdk-name", "cohere", COHERE))
_PARAMETERS = (("page_size", COHERE),)
_ROOTS = (("/api/", OLLAMA), ("/v1beta", GEMINI), ("/v2/", COHERE), ("/model/", BEDROCK))

VERSION = {"version": "0.13.0"}
"""What the local server says of itself: a version that its clients know."""


def route_at(path: str) -> Route | None:
    """What is at a path, which may have a query; None where nothing is."""
    path = path.partition("?")[0]
    return ROUTES.get(path) or next((route for pattern, route in _PATTERNS if pattern.fullmatch(path)), None)


def dialect_at(path: str, headers: Mapping[str, str]) -> str:
    """The dialect spoken at a path, or by whoever asks there: also a refusal is in the words of its client."""
    route = route_at(path)
    if route is not None and route.dialect is not None:
        return route.dialect
    place, _, query = path.partition("?")
    by_headers = (name for header, text, name in _CLIENTS if header in headers and headers[header].startswith(text))
    by_query = (name for parameter, name in _PARAMETERS if parameter in parse_qs(query))
    by_root = (name for root, name in _ROOTS if place.startswith(root))
    return next(by_headers, None) or next(by_query, None) or dialect_of(place) or next(by_root, OPENAI)


def route_of(method: str, path: str) -> Route:
    """What is asked at a path; NotFoundError for a path nobody has, InvalidRequestError (405) for a method."""
    route = route_at(path)
    if route is None:
        raise _wrong(NotFoundError, 404, f"there is nothing at {method} {path}", "unknown_url")
    if route.method not in ("*", method):
        raise _wrong(InvalidRequestError, 405, f"{path} takes {route.method}, not {method}", "method_not_allowed")
    return route


def _wrong(make: type[PolyvoxError], status: int, message: str, code: str) -> PolyvoxError:
    return make(message, status=status, code=code, type="invalid_request_error")
