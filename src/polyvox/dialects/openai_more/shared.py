"""What the operations share: forms in and out, answers in JSON, and tokens wherever they are told.
It knows no operation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from polyvox.dialects import Endpoint, Reply, Wire, decode_object, integer
from polyvox.dialects.embedding import Losses
from polyvox.dialects.framing import FormPart, read_form, write_form
from polyvox.dialects.openai_chat.answer import charged, error_of, failure_in
from polyvox.dialects.shapes import missing, wrong_type
from polyvox.errors import InputError
from polyvox.types import Answered, Loss, Media, Usage

JSON = {"content-type": "application/json", "accept": "application/json"}
ACCEPTS = {"accept": "application/json"}


# ---- answers ----------------------------------------------------------------------------------


def answer_in(reply: Reply) -> dict[str, Any]:
    """The object in a reply; raises BadResponseError, or the provider's error where a 200 holds one."""
    body = decode_object(reply.body)
    if (failure := failure_in(body)) is not None:
        raise error_of(failure, 0)
    return body


def number(value: Any) -> float | None:
    """A finite number from the wire, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


_INPUT_DETAILS = ("input_token_details", "input_tokens_details", "prompt_tokens_details")


def usage_of(raw: Any) -> Usage:
    """The tokens, by any of the names in use; what is counted in seconds or searches stays in raw."""
    if not isinstance(raw, dict) or not raw:
        return Usage()
    details: dict[str, Any] = next((raw[name] for name in _INPUT_DETAILS if isinstance(raw.get(name), dict)), {})
    asked, total = _first(raw, "input_tokens", "prompt_tokens"), integer(raw.get("total_tokens"))
    answered = _first(raw, "output_tokens", "completion_tokens")
    told = any(count is not None for count in (asked, answered, total))
    return Usage(
        asked,
        answered,
        cache_read=integer(details.get("cached_tokens")),
        audio_input=integer(details.get("audio_tokens")),
        image_input=integer(details.get("image_tokens")),
        total=total,
        cost=charged(raw),
        source="provider" if told else "missing",
        raw=raw,
    )


def _first(raw: Mapping[str, Any], *names: str) -> int | None:
    return next((count for name in names if (count := integer(raw.get(name))) is not None), None)


def usage_said(usage: Usage, asked: str, answered: str) -> dict[str, Any] | None:
    """The tokens by these names; as they came where they came so, None where nobody knows any."""
    if usage.raw:
        return usage.raw
    counts = {asked: usage.input, answered: usage.output, "total_tokens": usage.total}
    if usage.total is None and usage.input is not None and usage.output is not None:
        counts["total_tokens"] = usage.input + usage.output
    said = {name: count for name, count in counts.items() if count is not None}
    return said or None


# ---- fields -----------------------------------------------------------------------------------


def fields_of(request: Struct, names: Mapping[str, str | None], losses: Losses) -> dict[str, Any]:
    """The fields that are set, by their names on the wire; one whose name is None has no place and is lost."""
    said = {}
    for field, name in names.items():
        value = getattr(request, field)
        if value is UNSET:
            continue
        if name is None:
            losses.append(Loss(field, f"there is no {field} here"))
        else:
            said[name] = value
    return said


def untold(answer: Answered, losses: Losses, *fields: str) -> None:
    """Note what is known of an answer and has no place in it here."""
    losses += [
        Loss(field, f"answers do not tell their {field} here", "note") for field in fields if getattr(answer, field)
    ]


def streaming(keys: Mapping[str, Any]) -> str | None:
    """The key that asks for an answer piece by piece, which is none of an operation's; None where none does."""
    asks = {"stream": (True, "true"), "stream_format": ("sse",)}
    return next((key for key, values in asks.items() if keys.get(key) in values), None)


def refuse_stream(keys: Mapping[str, Any]) -> None:
    """Raises InputError where keys ask for an answer piece by piece."""
    if (key := streaming(keys)) is not None:
        raise InputError(f"{key} asks for pieces, and the answer here is whole", param=key, hint=f"leave {key} out")


def path_of(at: Endpoint, option: str, usual: str) -> str:
    """Where an operation is: where the endpoint's options say, or as usual."""
    return str(at.options.get(option, usual))


# ---- forms ------------------------------------------------------------------------------------


def form_wire(path: str, fields: Mapping[str, Any], files: Iterable[FormPart]) -> Wire:
    """A request as a form: lists repeat their name with [], objects put their keys into brackets."""
    parts = [FormPart(name, _bytes(name, text)) for name, text in _flat(fields)]
    content_type, body = write_form([*parts, *files])
    return Wire(path, body, {"content-type": content_type, **ACCEPTS})


def _bytes(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} holds half a character, which nothing can say", param=name) from None


def _flat(fields: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in fields.items():
        # A name that ends as that of a list is one already: so a form that was read is written as it was.
        yield from _said(name.removesuffix("[]") if isinstance(value, list | tuple) else name, value)


def _said(name: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _said(f"{name}[{key}]", item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _said(f"{name}[]", item)
    elif value is not None:
        yield name, _word(name, value)


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise InputError(f"a form cannot say {name}: it is {type(value).__name__}", param=name)
    return str(value)


def file_part(name: str, media: Media, where: str, usual: str) -> FormPart:
    """A file of a form; raises InputError for one whose bytes are not at hand. usual is its name without one."""
    data = media.data
    if data is None and isinstance(text := getattr(media, "text", None), str):
        data = text.encode("utf-8", "replace")
    if not data:
        raise InputError(
            f"{where} has no bytes, which must be sent here",
            param=where,
            hint="read the file, or fetch its URL, and pass the bytes",
        )
    return FormPart(name, data, media.name or usual, media.media_type or "application/octet-stream")


class Form:
    """A client's form: its files, and its fields, which are taken out one by one; the rest is for extra."""

    def __init__(self, wire: Wire) -> None:
        self._fields: dict[str, list[str]] = {}
        self._files: dict[str, list[FormPart]] = {}
        for part in read_form(wire.headers.get("content-type", ""), wire.body):
            if part.filename is not None:
                self._files.setdefault(part.name.removesuffix("[]"), []).append(part)
            else:
                self._fields.setdefault(part.name, []).append(part.data.decode("utf-8", "replace"))

    def files(self, name: str) -> list[FormPart]:
        """The files of this name, which is the same with [] behind it."""
        return self._files.pop(name, [])

    def file(self, name: str) -> FormPart:
        """The one file of this name; raises InputError where there is none."""
        found = self.files(name)
        if not found:
            raise missing(name)
        return found[0]

    def text(self, name: str) -> str | UnsetType:
        """The last field of this name."""
        found = self._fields.pop(name, None)
        return UNSET if found is None else found[-1]

    def needed(self, name: str) -> str:
        """The field of this name; raises InputError where there is none."""
        found = self.text(name)
        if found is UNSET:
            raise missing(name)
        return found

    def texts(self, name: str) -> tuple[str, ...] | UnsetType:
        """All fields of this name, with [] behind it or without."""
        found = self._fields.pop(f"{name}[]", None) or self._fields.pop(name, None)
        return UNSET if found is None else tuple(found)

    def number(self, name: str) -> float | UnsetType:
        """A field that is a number; raises InputError for another."""
        said = self.text(name)
        if said is UNSET:
            return UNSET
        try:
            value = float(said)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise wrong_type(said, name, "a number")
        return value

    def whole(self, name: str) -> int | UnsetType:
        """A field that is a whole number; raises InputError for another."""
        value = self.number(name)
        if value is UNSET:
            return UNSET
        if not value.is_integer():
            raise wrong_type(value, name, "a whole number")
        return int(value)

    def rest(self, dialect: str) -> dict[str, dict[str, Any]]:
        """What has not been taken, as extra has it; raises InputError for a file nobody knows."""
        for name in self._files:
            raise InputError(f"{name} is no file of this form", param=name)
        keys = {name: values if name.endswith("[]") else values[-1] for name, values in self._fields.items()}
        return {dialect: keys} if keys else {}
