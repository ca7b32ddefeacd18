"""What the embeddings of all dialects share: vectors as the wire has them, and keys and fields that find no place.
It knows no protocol and compares no vectors.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET

from polyvox.dialects import Endpoint, Most, Reply, encode_json
from polyvox.dialects.shapes import each, text
from polyvox.errors import BadResponseError, ConfigError, InputError
from polyvox.types import EmbedRequest, Extra, Loss

Vector: TypeAlias = tuple[float, ...]
Losses: TypeAlias = list[Loss]

_FLOAT = 4  # bytes of a number in base64: IEEE 754 single precision, little endian
_UNWRITABLE = (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError)


def read_vector(value: Any) -> Vector:
    """A vector from the wire: a list of numbers, or base64 of single-precision floats; TypeError or ValueError,
    for `guarded`, for anything else."""
    if isinstance(value, str):
        data = base64.b64decode(value, validate=True)
        if len(data) % _FLOAT:
            raise ValueError(f"a vector of {len(data)} bytes is none")
        vector: Vector = struct.unpack(f"<{len(data) // _FLOAT}f", data)
    elif isinstance(value, list) and all(type(number) is float or type(number) is int for number in value):
        vector = tuple(map(_float, value))
    else:
        raise TypeError("a vector is neither numbers nor base64")
    if not all(map(math.isfinite, vector)):
        raise ValueError("a vector holds what is no number")
    return vector


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def read_vectors(values: Any) -> tuple[Vector, ...]:
    """A list of vectors."""
    if not isinstance(values, list):
        raise TypeError("the vectors are no list")
    return tuple([read_vector(value) for value in values])


def write_vector(vector: Vector, request: EmbedRequest) -> list[float] | str:
    """A vector in the encoding that the request asks for; raises BadResponseError for numbers that do not fit."""
    if request.encoding != "base64":
        return list(vector)
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
    except (struct.error, OverflowError):
        raise BadResponseError("a vector holds a number that is too large for base64") from None


def own_keys(extra: Extra, name: str, losses: Losses) -> dict[str, Any]:
    """The keys that are those of the embeddings of this name; those of others are noted as lost."""
    losses += [Loss(f"extra.{other}", "keys of another dialect", "note") for other in extra if other != name]
    return dict(extra.get(name, {}))


def extra_of(name: str, values: Mapping[str, Any], known: frozenset[str]) -> Extra:
    """The keys beside those that are known, as extra has them."""
    keys = {key: value for key, value in values.items() if key not in known and value is not None}
    return {name: keys} if keys else {}


def unsaid(request: EmbedRequest, losses: Losses, *fields: str) -> None:
    """Note fields that have no place in the dialect."""
    notes = ("user", "encoding")
    for field in fields:
        value = getattr(request, field)
        if value is not UNSET and (field, value) != ("encoding", "float"):
            why = f"there is no {field} of embeddings here"
            losses.append(Loss(field, why, "note" if field in notes else "loss"))


def check_inputs(request: EmbedRequest, own: Mapping[str, Any], *places: str) -> None:
    """Raises InputError where there is nothing to embed, in the request and in the keys that may hold it instead."""
    if not request.inputs and not any(own.get(place) for place in places):
        raise InputError("there is nothing to embed", param="inputs", hint="give at least one text")


def most_at(at: Endpoint, usual: Most) -> Most:
    """What one call may hold at an endpoint: its options, else what is usual."""
    return Most(_limit(at, "embed_inputs", usual.inputs), _limit(at, "embed_bytes", usual.size))


def _limit(at: Endpoint, option: str, usual: int | None) -> int | None:
    value = at.options.get(option, usual)
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigError(f"the option {option} must be a whole number of at least 1, not {value!r:.40}")
    return value


def one_or_more(value: Any, where: str) -> tuple[str, ...]:
    """One text, or a list of them; raises InputError, with `param`, for anything else."""
    return (value,) if type(value) is str else each(text)(value, where)


def reply_of(body: Mapping[str, Any]) -> Reply:
    """An answer to a client; raises BadResponseError for values JSON cannot say."""
    try:
        return Reply(200, {"content-type": "application/json"}, encode_json(body))
    except _UNWRITABLE as error:
        raise BadResponseError(f"the answer cannot be written as JSON: {error}") from None


def put_keys(own: Mapping[str, Any], body: dict[str, Any], name: str, losses: Losses) -> None:
    """Put keys without a neutral form beside those of an answer, never in place of one."""
    for key, value in own.items():
        if key in body:
            losses.append(Loss(f"extra.{name}.{key}", "the answer itself says it", "note"))
        else:
            body[key] = value
