"""Parts given by URL for a protocol that takes bytes only: found, fetched as `polyvox.fetch` allows, put in place. It
knows no dialect but by what it says it needs."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from msgspec.structs import replace

from polyvox import fetch
from polyvox.client.check import shown
from polyvox.client.inputs import from_bytes
from polyvox.engine import AnyRoute, CallOptions, Deployment, is_route
from polyvox.errors import CallTimeoutError, InputError
from polyvox.fetch import STRICT, Fetched, Rules
from polyvox.types import Audio, File, Image, Loss, Media, Part, Request, ToolResult, Video

Change: TypeAlias = Callable[[Media, str], Part | None]
"""What stands in the place of a part whose URL must be fetched; the text says where it is. None takes it out."""

_KINDS = {Image: "image/", Audio: "audio/", Video: "video/"}


def fetch_rules(wanted: Any) -> Rules | None:
    """What `fetch=` means: rules, the usual ones for True, None for False; InputError for anything else."""
    if isinstance(wanted, Rules):
        return wanted
    if not isinstance(wanted, bool):
        raise InputError(f"fetch must be True, False or Rules, not {shown(wanted)}", hint="see polyvox.fetch.Rules")
    return STRICT if wanted else None


class _Needed(NamedTuple):
    """What a deployment's protocol takes as bytes only, by tag of the part, and how URLs begin that it takes."""

    tags: frozenset[str] = frozenset()
    places: tuple[str, ...] = ()


_NOTHING = _Needed()


def must_fetch(request: Request, deployment: AnyRoute) -> bool:
    """Whether the request names something by URL that its protocol takes as bytes only."""
    return bool((needed := _needed(deployment)).tags) and any(_urls(request, needed))


def _needed(deployment: AnyRoute) -> _Needed:
    if isinstance(deployment, Deployment):
        return _Needed(deployment.dialect.needs_bytes, deployment.dialect.own_places)
    if is_route(deployment):
        # Bytes are what all of them take, so one that needs them decides.
        needs = [_needed(one) for one in deployment.kinds]
        own = [set(need.places) for need in needs]
        tags = frozenset[str]().union(*(need.tags for need in needs))
        return _Needed(tags, tuple(set.intersection(*own)) if own else ())
    return _NOTHING


def _awaited(part: Part, needed: _Needed) -> str | None:
    """The URL whose bytes a part waits for, if it does."""
    if not isinstance(part, Media) or part.url is None or part.__struct_config__.tag not in needed.tags:
        return None
    # A data: URL is bytes already, spelled as every dialect spells them.
    return None if part.url.startswith(("data:", *needed.places)) else part.url


def _urls(request: Request, needed: _Needed) -> Iterator[str]:
    for message in request.messages:
        for part in message.parts:
            for each in part.parts if isinstance(part, ToolResult) else (part,):
                if (url := _awaited(each, needed)) is not None:
                    yield url


def _changed(request: Request, needed: _Needed, change: Change) -> Request:
    """The request with every part that waits for its bytes changed."""

    def each(parts: tuple[Part, ...], where: str) -> tuple[Part, ...]:
        found: list[Part] = []
        for place, part in enumerate(parts):
            new: Part | None = part
            if isinstance(part, ToolResult):
                new = replace(part, parts=each(part.parts, f"{where}.parts[{place}]"))
            elif isinstance(part, Media) and _awaited(part, needed):
                new = change(part, f"{where}.parts[{place}].url")
            if new is not None:
                found.append(new)
        return tuple(found)

    messages = [
        replace(message, parts=each(message.parts, f"messages[{place}]"))
        for place, message in enumerate(request.messages)
    ]
    return replace(request, messages=tuple(messages))


def without_urls(request: Request, deployment: AnyRoute) -> tuple[Request, tuple[Loss, ...]]:
    """The request without what would be fetched, and a note for each; for looking at a call that is not made."""
    notes: list[Loss] = []

    def leave_out(part: Media, where: str) -> None:
        notes.append(Loss(where, f"fetched from {_host(part)} when the call is made; it is not in this body", "note"))

    return _changed(request, _needed(deployment), leave_out), tuple(notes)


async def fetched(
    request: Request, deployment: AnyRoute, how: CallOptions, rules: Rules
) -> tuple[Request, AnyRoute, CallOptions]:
    """The call with bytes in place of URLs, each fetched once; the time it took is taken from the call's.

    Raises InputError, with the code of `polyvox.fetch.CODES`, or CallTimeoutError; nothing was asked then.
    """
    needed = _needed(deployment)
    clock = asyncio.get_running_loop().time
    begun = clock()
    try:
        async with asyncio.timeout(how.timeout):
            found = await fetch.get_all(_urls(request, needed), rules)
    except TimeoutError:
        raise CallTimeoutError(
            f"no answer within {how.timeout:g} s in all: its URLs were not fetched by then", sent="no", billed=False
        ) from None
    notes: list[Loss] = []

    def put_in(part: Media, where: str) -> Part:
        assert part.url is not None
        came = found[part.url]
        notes.append(Loss(where, f"fetched here: {len(came.data)} bytes from {_host(part)}", "note"))
        return _with_bytes(part, came)

    whole = _changed(request, needed, put_in)
    if how.timeout is not None:
        # Nothing left is told by the engine, in its words.
        how = replace(how, timeout=max(how.timeout - (clock() - begun), math.ulp(1.0)))
    if is_route(deployment):
        return whole, deployment.noted(tuple(notes)), how
    assert isinstance(deployment, Deployment)
    return whole, _noted(deployment, tuple(notes)), how


def _host(part: Media) -> str:
    return urlsplit(part.url or "").hostname or "the URL"


def _with_bytes(part: Media, came: Fetched) -> Part:
    """The part with the bytes that came; a file becomes what the bytes are."""
    prefix = _KINDS.get(type(part), "")
    if not came.media_type.startswith(prefix):
        raise InputError(
            f"the URL of a part for {prefix}* leads to {came.media_type}",
            code="url_content",
            param="url",
            hint="check that the URL leads to the file itself, and not to a page that shows it",
        )
    if isinstance(part, Image | Audio | Video):
        return replace(part, data=came.data, url=None, media_type=came.media_type)
    whole = from_bytes(came.data, came.media_type, part.name)
    if isinstance(whole, File) and isinstance(part, File):
        return replace(whole, cache=part.cache, extra=part.extra, context=part.context)
    assert isinstance(whole, Image | Audio | Video)
    return replace(whole, cache=part.cache, extra=part.extra)


def _noted(of: Deployment, notes: tuple[Loss, ...]) -> Deployment:
    """The deployment for one call, with notes on what was done to its request before."""
    fit = of.fit

    def told(request: Request) -> tuple[Request, tuple[Loss, ...]]:
        request, losses = (request, ()) if fit is None else fit(request)
        return request, notes + losses

    # Of its own kind, so that whoever looks at it (a cache's key) sees the deployment that it is.
    noted = copy.copy(of)
    noted.fit = told
    return noted
