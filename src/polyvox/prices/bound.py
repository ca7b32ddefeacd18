"""The most that one attempt can cost, told before it is sent, so that as much can be reserved. It counts no tokens: it
bounds them by what cannot be exceeded, and says so where nothing bounds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from msgspec import UnsetType

from polyvox.dialects.billing import asked_for, without_bound
from polyvox.models import Model
from polyvox.prices.sheet import EXACT, Rates, sheet
from polyvox.prices.values import Bound
from polyvox.types import (
    Asked,
    Audio,
    CacheHint,
    EmbedRequest,
    File,
    Image,
    Media,
    Opaque,
    Request,
    ResponseFormat,
    Text,
    ToolResult,
    Video,
)

# A token of the vocabularies in use stands for at least one byte of text: they are built from bytes, or fall back to
# them. JSON only makes text longer (a quote is two bytes, é may be six), and the frame of a message in it (27 bytes at
# the least) is longer than the few marks that a model puts around a message. So no more tokens go in than the body has
# bytes. Not covered: a vocabulary that first spells out compatibility characters, where U+FDFA becomes 18 letters.
_FRAME = 1024
"""Tokens a provider puts before any request: marks, the date, a standing instruction."""
_TOOLS = 2048
"""Tokens of instructions that come with tools or a form to fill: the longest published are below 1,000."""
_REWRITTEN = 2
"""How often more than once tools and schemas may count: models see them rewritten, some with indentation."""
_PICTURE = 50_000
"""Tokens of one picture. The most that a published rule gives is 48,169: 2,833 and 8 tiles of 5,667."""

_UNCERTAIN_INPUT = ("input", "cache_read", "cache_write")
_BESIDE = frozenset({"requests_kcount", "web_searches_kcount", "storage_searches_kcount"})
"""Units that a request without the provider's own tools uses once or never."""
_INPUT_UNITS = frozenset({"cache_audio_read_mtok", "cache_image_read_mtok", "input_video_mtok"})
_OUTPUT_UNITS = frozenset({"output_image_mtok", "output_video_mtok"})
_INPUT = frozenset({*_UNCERTAIN_INPUT, "audio_input", "image_input", *_INPUT_UNITS})
_DAY = timedelta(days=1)
_NOTHING = Decimal(0)


def most(
    request: Asked | Request,
    model: Model | None,
    *,
    bytes_out: int,
    at: datetime,
    told: Mapping[str, str] | None = None,
) -> Decimal | None:
    """The most USD that one attempt can cost, or None where nothing bounds it; see `bound`, which says why."""
    return bound(request, model, bytes_out=bytes_out, at=at, told=told).amount


def bound(
    request: Asked | Request,
    model: Model | None,
    *,
    bytes_out: int,
    at: datetime,
    told: Mapping[str, str] | None = None,
) -> Bound:
    """The most that one attempt can cost, and by which counts.

    Input is at most the bytes of the body, with something added for pictures, tools and what providers say first; a
    document or a film can be more than its bytes, so that the model's context bounds it. Output, in which reasoning
    counts, is at most `max_tokens`, else what the model can write, for each answer asked for. Prices are the dearest
    of any tier, hour or day the call can fall into. There is no bound without a price or a maximum, nor where the
    provider runs tools itself or `extra` says what may change the price.

    bytes_out is the length of the encoded body. told is as in `cost`; without it the request's service tier counts. A
    request for the project's usual tier is taken to be served in the standard one.
    """
    if model is None:
        return Bound(why="nobody says what this model costs")
    asking = _asking(request, model, bytes_out)
    if isinstance(asking, str):
        return Bound(why=asking)
    when = (asked_for(request) if isinstance(request, Request) else {}) if told is None else dict(told)
    tops = _tops(model, at, asking, when)
    if isinstance(tops, str):
        return Bound(None, asking.input, asking.output, tops)
    return Bound(max([top.amount(asking) for top in tops]), asking.input, asking.output)


class _Asking(NamedTuple):
    """The most that goes in and comes out, and of which kinds it may be."""

    input: int
    output: int
    inputs: frozenset[str]
    lives_longer: bool
    sounds: bool


def _asking(request: Asked | Request, model: Model, bytes_out: int) -> _Asking | str:
    if isinstance(request, EmbedRequest):
        return _Asking(bytes_out + _FRAME, 0, _WORDS, False, False)
    if not isinstance(request, Request):
        return "nothing bounds what an operation costs that is neither a chat nor an embedding"
    if (why := without_bound(request)) is not None:
        return why
    limit = model.max_output if isinstance(request.max_tokens, UnsetType) else request.max_tokens
    if limit is None:
        return f"nobody says how much {model.name} can write; say max_tokens"
    thinking = request.thinking
    budget = 0 if isinstance(thinking, UnsetType) or isinstance(thinking.budget_tokens, UnsetType) else (
        thinking.budget_tokens
    )  # fmt: skip
    # A budget within the limit is part of it; one beyond it is for thoughts between tools, which the limit leaves out.
    limit = max(limit, 0) + (budget if budget >= limit else 0)
    if _only_words(request):
        asking = _Asking(bytes_out + _FRAME, limit, _WORDS, False, False)
        return asking if isinstance(request.n, UnsetType) else asking._replace(output=limit * max(request.n, 1))
    holding = _Holding(request)
    taken = holding.tokens(request, bytes_out)
    if taken is None:
        if model.context is None:
            return f"a document, a film or a kept file can be any length, and nobody says how much {model.name} reads"
        taken = max(model.context, holding.floor)
    answers = 1 if isinstance(request.n, UnsetType) else max(request.n, 1)
    asked_sound = not isinstance(request.audio, UnsetType) or (
        not isinstance(request.modalities, UnsetType) and "audio" in request.modalities
    )
    return _Asking(taken, limit * answers, holding.kinds, holding.lives_longer, asked_sound)


_WORDS = frozenset(_UNCERTAIN_INPUT)


def _only_words(request: Request) -> bool:
    """Whether it is the plainest of requests, as most are: text in, text out, with nothing that counts otherwise."""
    if request.tools or request.extra or request.cache or request.response_format or request.audio:
        return False
    if not isinstance(request.modalities, UnsetType):
        return False
    for message in request.messages:
        for part in message.parts:
            if type(part) is not Text or part.cache is not None or part.extra:
                return False
    return True


class _Holding:
    """What a request holds beside words."""

    def __init__(self, request: Request) -> None:
        kinds = _WORDS
        self.pictures = self.encoded = self.floor = 0
        self.boundless = False
        hints: list[CacheHint | UnsetType | None] = [
            request.cache,
            *[getattr(tool, "cache", None) for tool in request.tools],
        ]
        self.opaque = bool(request.extra)
        for part in _parts(request):
            if type(part) is Text and part.cache is None and not part.extra:
                continue
            hints.append(getattr(part, "cache", None))
            self.opaque = self.opaque or isinstance(part, Opaque) or bool(part.extra)
            if isinstance(part, Image):
                self.pictures += 1
                self.encoded += _base64(part.data)
                kinds |= {"image_input", "cache_image_read_mtok"}
            elif isinstance(part, Audio):
                # Sound has some 32 tokens a second and never so few bytes; by its address it can be any length.
                self.boundless = self.boundless or part.data is None
                kinds |= {"audio_input", "cache_audio_read_mtok"}
            elif isinstance(part, Opaque | Video) or (isinstance(part, File) and not _is_plain(part)):
                self.boundless = True
                kinds |= _INPUT
        self.kinds = kinds
        ttls = [hint.ttl for hint in hints if isinstance(hint, CacheHint)]
        self.lives_longer = self.opaque or any(ttl is not None and ttl != "5m" for ttl in ttls)

    def tokens(self, request: Request, bytes_out: int) -> int | None:
        """The most tokens it can be; None where its bytes do not bound it. `floor` is what its words alone are."""
        words = bytes_out
        if self.pictures:
            # Whatever became of a picture on its way, the words went.
            said = sum(len(text.encode("utf-8", "replace")) for text in _texts(request))
            words = max(bytes_out - self.encoded, said)
        forms: list[Any] = [tool.parameters for tool in request.tools if not isinstance(tool, Opaque)]
        form = request.response_format
        if isinstance(form, ResponseFormat) and form.schema:
            forms.append(form.schema)
        if forms:
            words += _TOOLS + _REWRITTEN * min(_length(forms, bytes_out), bytes_out)
        self.floor = _FRAME + self.pictures * _PICTURE
        return None if self.boundless else words + self.floor


def _parts(request: Request) -> Iterator[Any]:
    for message in request.messages:
        for part in message.parts:
            yield part
            if isinstance(part, ToolResult):
                yield from part.parts


def _texts(request: Request) -> Iterator[str]:
    return (text for part in _parts(request) if isinstance(text := getattr(part, "text", None), str))


def _base64(data: bytes | None) -> int:
    return 0 if data is None else (len(data) + 2) // 3 * 4


def _is_plain(part: Media) -> bool:
    """Whether a document is plain text, which is as long as it is."""
    if part.url is not None or part.file_id is not None:
        return False
    return part.data is None or (part.media_type or "").startswith("text/")


def _length(forms: Iterable[Any], otherwise: int) -> int:
    try:
        return sum(len(msgspec.json.encode(form)) for form in forms)
    except (TypeError, ValueError, RecursionError):
        return otherwise


# ---- prices -----------------------------------------------------------------------------------


class _Top(NamedTuple):
    """The dearest there is in one case: USD for one token in, for one out, and for the request."""

    input: Decimal
    output: Decimal
    once: Decimal

    def amount(self, asking: _Asking) -> Decimal:
        """The most that such a request can cost in it."""
        amount = EXACT.fma(self.output, asking.output, EXACT.multiply(self.input, asking.input))
        return EXACT.add(amount, self.once) if self.once else amount


_MANY = 1024
_found: dict[tuple[Any, ...], tuple[Model, tuple[_Top, ...] | str]] = {}


def _tops(model: Model, at: datetime, asking: _Asking, when: Mapping[str, str]) -> tuple[_Top, ...] | str:
    """The dearest of every case the call can fall into, or why there is none; kept for the next call like it."""
    table = sheet(model)
    place = None if table.timeless else at.replace(second=0, microsecond=0)
    reached = table.reached(asking.input)
    # What is found holds the model, so that while it is kept no other has its id.
    key = (
        id(model), place, reached, tuple(sorted(when.items())) if when else (), asking.inputs, asking.lives_longer,
        asking.sounds, not asking.output,
    )  # fmt: skip
    found = _found.get(key)
    if found is None:
        if len(_found) >= _MANY:
            _found.clear()
        found = _found[key] = model, _every(model, at, asking, when)
    return found[1]


def _every(model: Model, at: datetime, asking: _Asking, when: Mapping[str, str]) -> tuple[_Top, ...] | str:
    cases = list(_cases(model, at, asking.input, when))
    tops = [_dearest(rates, asking) for rates in cases if rates is not None]
    unknown = next((top for top in tops if isinstance(top, str)), None)
    if unknown is not None or not tops or None in cases:
        return unknown or f"the table has no price of {model.name}"
    return tuple({top for top in tops if isinstance(top, _Top)})


def _cases(model: Model, at: datetime, tokens: int, when: Mapping[str, str]) -> Iterator[Rates | None]:
    """Every case that the call can fall into: each tier it can reach, as asked and as usual, and where prices change by
    the hour or the day each of those until a day later."""
    now = at.astimezone(UTC) if at.tzinfo is not None else at
    for said in ({}, when) if when else ({},):
        table = sheet(model, said)
        clocks = [(int(clock[:2]), int(clock[3:])) for clock in table.hours]
        for day in (now, now + _DAY):
            for moment in (day, *[day.replace(hour=hour, minute=minute) for hour, minute in clocks]):
                yield from (table.rates(moment, step) for step in table.steps() if step <= tokens)


def _dearest(rates: Rates, asking: _Asking) -> _Top | str:
    """The most in one case, or why there is none."""
    if rates.unspoken:
        return f"the table has no price for {', '.join(rates.unspoken)}"
    prices = rates.prices
    inputs = [rate.one for name, rate in prices.items() if name in asking.inputs]
    if asking.lives_longer:
        inputs += [rate.one for name, rate in prices.items() if name.startswith("cache_write_")]
    outputs = [rate.one for name, rate in prices.items() if name in _OUTPUT_UNITS or name in ("output", "reasoning")]
    if asking.sounds and "audio_output" in prices:
        outputs.append(prices["audio_output"].one)
    strange = [name for name in prices if name not in _KNOWN and not name.startswith("cache_write_")]
    if strange:
        return f"nothing bounds {', '.join(sorted(strange))}"
    if "input" not in prices:
        return "the table has no price for input"
    if "output" not in prices and asking.output:
        return "the table has no price for output"
    once = prices["requests_kcount"].one if "requests_kcount" in prices else _NOTHING
    return _Top(max(inputs), max(outputs, default=_NOTHING) if asking.output else _NOTHING, once)


_KNOWN = frozenset({*_INPUT, *_OUTPUT_UNITS, *_BESIDE, "output", "reasoning", "audio_output"})
