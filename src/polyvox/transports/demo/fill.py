"""A value for a JSON Schema, the same one every time: what the demo model writes where an answer must
have a form. It knows nothing of requests; what it cannot fill it says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from polyvox.schema import validate
from polyvox.schema.check import well_formed

Json = dict[str, Any]

MAX_DEPTH = 40
MAX_STEPS = 5000
ROOMY = 4  # down to this depth optional things are filled in too

_FORMATS = {
    "date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z", "time": "12:00:00Z", "duration": "P1D",
    "email": "demo@example.com", "idn-email": "demo@example.com", "hostname": "example.com",
    "uri": "https://example.com/demo", "uri-reference": "/demo", "iri": "https://example.com/demo",
    "url": "https://example.com/demo", "uuid": "00000000-0000-4000-8000-000000000000", "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1", "json-pointer": "/demo", "regex": "demo", "byte": "ZGVtbw==",
}  # fmt: skip
# Tried in order where a schema has a pattern; none of them is anybody's.
_SAMPLES = (
    "demo", "Demo", "DEMO", "a", "A", "1", "12", "123", "1234", "12345", "000000", "ab", "AB", "ABC", "A1", "a1",
    "demo-1", "demo_1", "DEMO-1", "AB-123", "AB12", "1.0", "1.0.0", "v1.0.0", "2026", "2026-01", "2026-01-31", "12:00",
    "12:00:00", "2026-01-31T12:00:00Z", "+15550100", "555-0100", "#a1b2c3", "$1.00", "1.00", "en", "en-US", "USD",
    "demo@example.com", "https://example.com/demo", "/demo", "00000000-0000-4000-8000-000000000000",
)  # fmt: skip
_TYPES = (
    ("object", ("properties", "required", "additionalProperties", "minProperties")),
    ("array", ("items", "prefixItems", "minItems", "contains", "uniqueItems")),
    ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
)


class UnfillableError(Exception):
    """No value was found; the message says for what."""


def fill(schema: Any, number: int = 0) -> Any:
    """A value that validates, always the same one; the richest first, then the barest.

    `number` tells the values of parallel calls apart. Raises UnfillableError when none is found, and
    InputError when the schema is none.

    >>> fill({"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2})
    ['a', 'b']
    """
    why = ""
    for roomy, which in ((ROOMY, number), (0, number), (ROOMY, 0)):
        try:
            with well_formed():
                value = _Filler(schema, roomy).fill(schema, 0, which)
        except UnfillableError as error:
            why = str(error)
            continue
        except RecursionError:
            why = "it is nested too deeply"
            continue
        problems = validate(value, schema)
        if not problems:
            return value
        why = problems[0]
    raise UnfillableError(why)


class _Filler:
    """Makes values for one schema, always the same ones. `number` tells parallel values apart."""

    def __init__(self, root: Any, roomy: int) -> None:
        self.root = root
        self.roomy = roomy
        self.steps = 0

    def fill(self, schema: Any, depth: int, number: int) -> Any:
        """A value for the schema, as far as can be told without looking at the whole."""
        self.steps += 1
        if self.steps > MAX_STEPS or depth > MAX_DEPTH:
            raise UnfillableError("it is too large or never ends")
        if isinstance(schema, bool):
            if not schema:
                raise UnfillableError("nothing is allowed")
            schema = {}
        if "$ref" in schema:
            return self.fill(_joined(self.target(schema["$ref"]), _without(schema, "$ref")), depth + 1, number)
        for key in ("allOf", "anyOf", "oneOf"):
            if key in schema:
                return self.combined(key, schema, depth, number)
        if "const" in schema:
            return schema["const"]
        if choices := schema.get("enum"):
            return choices[number % len(choices)]
        return self.typed(schema, depth, number)

    def target(self, ref: str) -> Any:
        """What a reference inside this schema points to."""
        if not ref.startswith("#"):
            raise UnfillableError(f"{ref} is outside the schema")
        found = self.root
        for step in ref.removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            found = found[int(step)] if isinstance(found, list) else found[step]
        return found

    def combined(self, key: str, schema: Json, depth: int, number: int) -> Any:
        """A value for a schema made of several: all of them, or the first that can be filled."""
        rest, options = _without(schema, key), schema[key]
        if key == "allOf":
            for option in options:
                while isinstance(option, dict) and "$ref" in option:
                    self.steps += 1
                    if self.steps > MAX_STEPS:
                        raise UnfillableError("it refers to itself")
                    option = _joined(self.target(option["$ref"]), _without(option, "$ref"))
                rest = _joined(rest, option)
            return self.fill(rest, depth + 1, number)
        # Deep down, what ends soonest comes first, or a recursive schema never would.
        options = sorted(options, key=_weight) if depth > self.roomy else sorted(options, key=_is_null)
        why = "it has no options"
        for option in options:
            try:
                value = self.fill(_joined(rest, option), depth + 1, number)
            except UnfillableError as error:
                why = str(error)
                continue
            if key == "anyOf" or not validate(value, {**self.definitions(), key: schema[key]}):
                return value
            why = "its options overlap"
        raise UnfillableError(why)

    def definitions(self) -> Json:
        """What references may point to, for checking a piece of the schema on its own."""
        return {key: self.root[key] for key in ("$defs", "definitions") if key in self.root}

    def typed(self, schema: Json, depth: int, number: int) -> Any:
        """A value by the schema's type, or by what its keywords are about."""
        kind = schema.get("type") or next(
            (kind for kind, keys in _TYPES if not schema.keys().isdisjoint(keys)), "string"
        )
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        match kind:
            case "object":
                return self.object(schema, depth, number)
            case "array":
                return self.array(schema, depth, number)
            case "integer" | "number":
                return _number(schema, kind, number)
            case "boolean":
                return number % 2 == 0
            case "null":
                return None
            case "string":
                return _string(schema, number)
        raise UnfillableError(f"there is no type {kind!r}")

    def object(self, schema: Json, depth: int, number: int) -> Json:
        """An object: what is required, and down to some depth what is not."""
        properties, required = schema.get("properties", {}), schema.get("required", [])
        others = schema.get("additionalProperties", True)
        most = schema.get("maxProperties", math.inf)
        found: Json = {}
        for name in [*required, *(properties if depth < self.roomy else ())]:
            if name in found or (name not in required and len(found) >= most):
                continue
            try:
                found[name] = self.fill(properties.get(name, others), depth + 1, number)
            except UnfillableError:
                if name in required:
                    raise
        names = (name for i in range(2 * MAX_STEPS) if (name := f"demo{i + 1}") not in properties)
        while len(found) < schema.get("minProperties", 0):
            found[next(names)] = self.fill(others, depth + 1, number)
        return found

    def array(self, schema: Json, depth: int, number: int) -> list[Any]:
        """An array: as short as allowed, but not empty where it need not be."""
        first = schema.get("prefixItems", [])
        items = schema.get("items", True)
        if "contains" in schema:
            items = _joined(schema["contains"], items)
        least = max(schema.get("minItems", 0), schema.get("minContains", 1) if "contains" in schema else 0)
        if depth < self.roomy:
            least = min(max(least, len(first), 1), schema.get("maxItems", math.inf))
        found: list[Any] = []
        try:
            while len(found) < least:
                inner = first[len(found)] if len(found) < len(first) else items
                found.append(self.fill(inner, depth + 1, number + len(found)))
        except UnfillableError:
            if len(found) < schema.get("minItems", 0):
                raise
        return found


def _without(schema: Json, key: str) -> Json:
    return {name: value for name, value in schema.items() if name != key}


def _joined(first: Any, second: Any) -> Any:
    """Both schemas in one, as far as their keywords can be told apart; booleans are all or nothing."""
    if isinstance(first, bool) or isinstance(second, bool):
        return False if first is False or second is False else (second if isinstance(first, bool) else first)
    both = {**first, **second}
    for key in first.keys() & second.keys():
        join = _JOINS.get(key)
        if join is not None:
            both[key] = join(first[key], second[key])
    return both


_JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "properties": lambda a, b: {**a, **{name: _joined(a[name], b[name]) if name in a else b[name] for name in b}},
    "required": lambda a, b: [*a, *b],
    "allOf": lambda a, b: [*a, *b],
    "enum": lambda a, b: [value for value in a if value in b],
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}


def _is_null(option: Any) -> bool:
    return isinstance(option, dict) and option.get("type") == "null"


def _weight(option: Any) -> int:
    """How far from done an option is: null, plain values, then what has others inside."""
    if not isinstance(option, dict) or "$ref" in option or option.get("type") in ("object", "array"):
        return 2
    return 0 if _is_null(option) else 1


def _number(schema: Json, kind: str, number: int) -> int | float:
    """One of the numbers that the bounds allow, counted in steps from the first (1 where none is)."""
    step = Fraction(str(schema.get("multipleOf", 1)))
    if kind == "integer":
        step *= step.denominator
    low, above = _bound(schema, "minimum", "exclusiveMinimum", max)
    high, below = _bound(schema, "maximum", "exclusiveMaximum", min)
    first = last = None
    if low is not None:
        first = (math.floor(low / step) + 1 if above else math.ceil(low / step)) * step
    if high is not None:
        last = (math.ceil(high / step) - 1 if below else math.floor(high / step)) * step
    if first is None:
        first = step if last is None else min(step, last)
    value = first + number * step
    if last is not None and first <= last:
        value = first + number % ((last - first) // step + 1) * step
    elif low is not None and high is not None and kind == "number" and "multipleOf" not in schema:
        value = (low + high) / 2
    return int(value) if value.denominator == 1 else float(value)


def _bound(
    schema: Json, inclusive: str, exclusive: str, tighter: Callable[..., Fraction]
) -> tuple[Fraction | None, bool]:
    """The bound that binds, and whether it is itself excluded."""
    found = {name: Fraction(str(schema[name])) for name in (inclusive, exclusive) if _is_number(schema.get(name))}
    if not found:
        return None, False
    bound = tighter(found.values())
    return bound, found.get(exclusive) == bound


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _string(schema: Json, number: int) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    if least > 100_000:
        raise UnfillableError("its text is too long")
    if "pattern" in schema:
        return _sample(schema, least, number)
    text: str = _FORMATS.get(schema.get("format", "")) or ("demo" if not number else f"demo {number + 1}")
    if len(text) < least:
        text = (text + " demo" * math.ceil(least / 5))[:least]
    return text[: int(most)] if len(text) > most else text


def _sample(schema: Json, least: int, number: int) -> str:
    """One of the sample texts that match the pattern, repeated where it must be longer."""
    bounds: Json = {key: schema[key] for key in ("pattern", "minLength", "maxLength") if key in schema}
    longer = [sample * math.ceil(least / len(sample)) for sample in _SAMPLES] if least else []
    fits = [sample for sample in (*_SAMPLES, *longer) if not validate(sample, bounds)]
    if not fits:
        raise UnfillableError(f"no sample text matches the pattern {schema['pattern']!r}")
    return fits[number % len(fits)]
