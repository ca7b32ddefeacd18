"""How a provider is asked which models it has, and how its answer is read, by dialect. Asking costs nothing; a
dialect that is not in the table has no such list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

from polyvox.dialects import Endpoint, Reply, Wire, decode_json, guarded
from polyvox.dialects.anthropic.facts import NAME as MESSAGES
from polyvox.dialects.anthropic.facts import version_of


class Page(NamedTuple):
    """Some of the models, by the names they are asked by, and the path and query of the next page, if any."""

    names: tuple[str, ...]
    next: str | None = None


class ModelList(NamedTuple):
    """Where a list is, and how a page of it is read; the second argument is the path it came from."""

    path: str
    read: Callable[[Any, str], Page]


def _after(path: str, name: str, token: Any) -> str | None:
    """The path of the page behind a token; the token replaces that of the page before."""
    if not isinstance(token, str) or not token:
        return None
    base = path.partition(f"&{name}=")[0]
    return f"{base}&{name}={quote(token, safe='')}"


def _openai(body: Any, _: str) -> Page:
    """{"data": [{"id": ...}]}; some imitators leave the envelope out."""
    rows = body if isinstance(body, list) else body["data"]
    return Page(tuple(row["id"] for row in rows))


def _anthropic(body: Any, path: str) -> Page:
    last = body.get("last_id") if body.get("has_more") else None
    return Page(tuple(row["id"] for row in body["data"]), _after(path, "after_id", last))


def _gemini(body: Any, path: str) -> Page:
    # A name is "models/NAME" here, and NAME where it is asked.
    names = tuple(row["name"].removeprefix("models/") for row in body.get("models", ()))
    return Page(names, _after(path, "pageToken", body.get("nextPageToken")))


def _ollama(body: Any, _: str) -> Page:
    return Page(tuple(row["name"] for row in body["models"]))


def _cohere(body: Any, path: str) -> Page:
    return Page(tuple(row["name"] for row in body["models"]), _after(path, "page_token", body.get("next_page_token")))


LISTS: dict[str, ModelList] = {
    "openai.chat": ModelList("/models", _openai),
    "openai.responses": ModelList("/models", _openai),
    MESSAGES: ModelList("/v1/models?limit=1000", _anthropic),
    "gemini.generate": ModelList("/models?pageSize=1000", _gemini),
    "ollama.chat": ModelList("/api/tags", _ollama),
    "cohere.chat": ModelList("/v1/models?page_size=1000", _cohere),
}
"""The lists there are. Sources: the official clients' `models.list`, and Ollama's page on its API."""


def asking(dialect: str, at: Endpoint, path: str) -> Wire:
    """The request for the page of the list at a path."""
    headers = {"accept": "application/json"}
    if dialect == MESSAGES:
        headers["anthropic-version"] = version_of(at)
    return Wire(path, b"", headers, "GET")


def read(dialect: str, path: str, reply: Reply) -> Page:
    """The page in an answer with status 200; raises BadResponseError for what is no such list."""
    return guarded(lambda: _checked(LISTS[dialect].read(decode_json(reply.body), path)))


def _checked(page: Page) -> Page:
    if not all(isinstance(name, str) and name.strip() for name in page.names):
        raise TypeError("a model's name is text")
    return page
