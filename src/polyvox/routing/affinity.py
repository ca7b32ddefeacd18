"""To whom a call is bound: who minted what it sends back, who keeps what it names, and who may still have its
beginning at hand. It reads requests; who of the bound is fit to be asked, it does not know."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from polyvox.dialects.bound import KEPT
from polyvox.routing.needs import size_of
from polyvox.routing.pick import seed_of
from polyvox.types import CacheHint, Media, Opaque, Part, Request, Text, ToolResult

# ---- who minted what --------------------------------------------------------------------------


class Pins(NamedTuple):
    """To whom a request is bound, by the names of deployments.

    only: a file that each of these keeps, or an answer that it goes on from: nobody else can serve it. Where it names
        several, no one can serve all of it.
    rather: who minted proofs or blocks in it, the latest first: elsewhere they are left out.
    speaks: dialects whose servers keep something that it names, where nobody knows which server does.
    """

    only: tuple[str, ...] = ()
    rather: tuple[str, ...] = ()
    speaks: tuple[str, ...] = ()


FREE = Pins()
# The key that a dialect puts beside an id: the deployment that made it.
_MINTED_BY = "minted_by"
_PROOFS = ("signature", "encrypted")


class Minted:
    """Who answered under which id, for the latest of them: what `previous_response_id` and the like lead back to."""

    __slots__ = ("_most", "_names")

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._names: dict[str, str] = {}

    def add(self, id: str, name: str) -> None:
        """The deployment of this name gave this id."""
        self._names.pop(id, None)
        self._names[id] = name
        if len(self._names) > self._most:
            del self._names[next(iter(self._names))]

    def get(self, id: str) -> str | None:
        """The deployment that gave an id; None where nobody remembers."""
        return self._names.get(id)

    def __len__(self) -> int:
        return len(self._names)


def pins_of(request: Any, minted: Minted | None = None) -> Pins:
    """To whom a request is bound. minted knows the ids of answers and of what else servers keep."""
    only: dict[str, None] = {}
    rather: dict[str, None] = {}
    speaks: dict[str, None] = {}
    for dialect, keys in (request.extra or {}).items():
        for key in KEPT.get(dialect, ()):
            if (value := keys.get(key)) is not None:
                name = minted.get(_id_of(value)) if minted is not None else None
                if name is None:
                    speaks[dialect] = None
                else:
                    only[name] = None
    if isinstance(request, Request):
        for message in reversed(request.messages):
            _bind(message.parts, only, rather)
            if message.extra:
                _bind_ids(message.extra, rather)
    return Pins(tuple(only), tuple(rather), tuple(speaks)) if only or rather or speaks else FREE


def _id_of(value: Any) -> str:
    found = value.get("id") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""


def _bind(parts: Iterable[Part], only: dict[str, None], rather: dict[str, None]) -> None:
    for part in parts:
        if type(part) is Text and part.signature is None and not part.extra:
            continue  # which most are, and every call comes here
        origin = getattr(part, "origin", None)
        if origin is not None:
            if isinstance(part, Media):
                if part.file_id is not None:
                    only[origin] = None
            elif isinstance(part, Opaque) or any(getattr(part, proof, None) is not None for proof in _PROOFS):
                rather[origin] = None
        if isinstance(part, ToolResult):
            _bind(part.parts, only, rather)
        if not isinstance(part, Opaque) and part.extra:
            _bind_ids(part.extra, rather)


def _bind_ids(extra: dict[str, dict[str, Any]], rather: dict[str, None]) -> None:
    """Ids that a dialect put beside a part, with who made them."""
    for keys in extra.values():
        item = keys.get("item")
        for held in (keys, item if isinstance(item, dict) else {}):
            if isinstance(origin := held.get(_MINTED_BY), str):
                rather[origin] = None


# ---- who may have its beginning at hand -------------------------------------------------------

WORTH = 4096
"""Bytes of text from which on providers keep the beginning of a prompt: about 1024 tokens."""


def key_of(request: Any) -> int | None:
    """The number of the beginning that a request has in common with those that should meet the same deployment, as
    `polyvox.routing.pick.Order` takes it; None where there is no point in that.

    It is that of the caller's `cache_key` where there is one. Else it covers tools, instructions and the turns up to
    the first of the user's, so that it stays the same while a conversation grows, and conversations differ; where the
    last cache mark stands before that, it ends there. Without a key or a mark, a request below `WORTH` has none.
    """
    if not isinstance(request, Request):
        return None
    if isinstance(request.cache_key, str) and request.cache_key:
        return seed_of(request.cache_key)
    last = _last_mark(request)
    if last is None and request.cache is UNSET and not _is_worth_it(request):
        return None
    return _hashed(request, last)


_TOOLS = (-1, 0)
"""Where a mark on a tool stands: before all messages."""


def _last_mark(request: Request) -> tuple[int, int] | None:
    """The message and the part that the last cache mark stands at; None where there is none."""
    for place in range(len(request.messages) - 1, -1, -1):
        parts = request.messages[place].parts
        for index in range(len(parts) - 1, -1, -1):
            if isinstance(getattr(parts[index], "cache", None), CacheHint):
                return place, index
    return _TOOLS if any(getattr(tool, "cache", None) is not None for tool in request.tools) else None


def _is_worth_it(request: Request) -> bool:
    size = 0
    for message in request.messages:
        for part in message.parts:
            size += size_of(getattr(part, "text", None) or "")
        if size >= WORTH:
            return True
    return False


def _hashed(request: Request, last: tuple[int, int] | None) -> int:
    seen = blake2b(digest_size=16)
    for tool in request.tools:
        _feed(seen.update, tool)
    end = len(request.messages) if last is None else last[0] + 1
    for place, message in enumerate(request.messages[:end]):
        seen.update(message.role.encode())
        for index, part in enumerate(message.parts):
            _feed(seen.update, part)
            if (place, index) == last:
                break
        if message.role == "user":
            break
    return seed_of(seen.digest())


def _feed(update: Any, value: Any) -> None:
    """What a part or a tool says, without its cache mark, and with its length so that no two run together."""
    if type(value) is Text:
        said = value.text.encode("utf-8", "surrogatepass")
    elif isinstance(value, Media) and value.data is not None:
        said = value.data
    else:
        if getattr(value, "cache", None) is not None:
            value = msgspec.structs.replace(value, cache=None)
        said = msgspec.json.encode(value, enc_hook=str)
    update(len(said).to_bytes(8))
    update(said)
