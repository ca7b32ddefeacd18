"""What a tool gave, as the object the protocol wants, and back. It knows no ids and no names of tools.

Words are sent as {"result": words}, those of a failure as {"error": words}; words that are a JSON object are sent
as that object. What is read is read such that sending it again says the same.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from polyvox.dialects import encode_json
from polyvox.dialects.gemini.facts import Json
from polyvox.types import Text


def response_of(words: str, is_error: bool) -> Json | Raw:
    """The object that says these words."""
    if is_error:
        return {"error": words}
    found = _object(words)
    return {"result": words} if found is None or _is_words(found) else Raw(words.encode())


def words_of(response: Json) -> tuple[tuple[Text, ...], bool]:
    """The words an object says, as parts, and whether they are those of a failure."""
    if not response:
        return (), False
    if _is_words(response):
        (key,) = response
        return (Text(response[key]),), key == "error"
    return (Text(encode_json(response).decode()),), False


def _is_words(response: Json) -> bool:
    """Whether an object is no more than words under a key of the protocol's."""
    if len(response) != 1:
        return False
    if isinstance(response.get("error"), str):
        return True
    words = response.get("result")
    if not isinstance(words, str):
        return False
    inner = _object(words)
    return inner is None or _is_words(inner)


def _object(words: str) -> dict[str, Any] | None:
    if not words.lstrip().startswith("{"):
        return None
    try:
        found = msgspec.json.decode(words)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found else None
