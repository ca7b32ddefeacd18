"""A small JSON Schema validator (the core of draft 2020-12): says what is wrong with a value, and where.
Bounded in depth, steps and pattern cost; keywords it does not know, and `format`, it passes over.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from polyvox.errors import InputError
from polyvox.schema.derive import Schema

MAX_DEPTH = 100
MAX_STEPS = 100_000
MAX_PROBLEMS = 100
MAX_PATTERN = 512
MAX_MATCH_COST = 10_000_000


def validate(value: Any, schema: Schema | bool) -> list[str]:
    """What is wrong with a value as decoded from JSON, each problem as "path: what"; [] when it fits.

    Paths start at $. Raises InputError when the schema itself is no schema.

    >>> validate({"age": "7"}, {"properties": {"age": {"type": "integer"}}})
    ['$.age: is "7", not integer']
    """
    try:
        with well_formed():
            return Run(schema).check(value, schema, "$", 0)[:MAX_PROBLEMS]
    except BoundError as error:
        return [f"$: not checked to the end: {error}"]
    except RecursionError:
        return ["$: not checked to the end: it is nested too deeply"]


@contextmanager
def well_formed() -> Iterator[None]:
    """Around work on somebody's schema: what a malformed one makes Python raise becomes InputError."""
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        raise InputError(f"the JSON Schema is malformed ({type(error).__name__}: {error})") from error


class BoundError(Exception):
    """A bound was reached."""


class Run:
    """One validation: the root that references start from, and the steps taken."""

    def __init__(self, root: Schema | bool) -> None:
        self.root = root
        self.steps: int = 0

    def step(self, depth: int) -> None:
        """Count one step; BoundError past a bound."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise BoundError(f"more than {MAX_STEPS} steps")
        if depth > MAX_DEPTH:
            raise BoundError(f"deeper than {MAX_DEPTH} levels")

    def check(self, value: Any, schema: Any, path: str, depth: int) -> list[str]:
        """The problems of one value with one schema."""
        self.step(depth)
        if schema is True:
            return []
        if schema is False:
            return [f"{path}: is not allowed"]
        if not isinstance(schema, dict):
            raise TypeError(f"{path} has {schema!r} for a schema")
        at = Place(self, schema, path, depth)
        if "type" in schema and (wrong := _check_type(at, value, schema["type"])):
            return wrong
        kind = kind_of(value)
        problems: list[str] = []
        for keyword, wanted in schema.items():
            rule = _RULES.get(keyword)
            if rule and (rule[0] is None or rule[0] == kind):
                problems += rule[1](at, value, wanted)
                if len(problems) >= MAX_PROBLEMS:
                    break
        return problems


class Place(NamedTuple):
    """Where a rule is at work: the run, the schema around its keyword, the value's path, the depth."""

    run: Run
    schema: Schema
    path: str
    depth: int

    def check(self, value: Any, schema: Any, path: str) -> list[str]:
        """The problems of a value one level down."""
        return self.run.check(value, schema, path, self.depth + 1)

    def name(self, name: str) -> str:
        """The path of a property."""
        return f"{self.path}.{name}" if name.isidentifier() else f"{self.path}[{shown(name)}]"


def kind_of(value: Any) -> str:
    """The JSON type of a decoded value: object, array, string, number, boolean or null."""
    return _KINDS.get(type(value)) or next((name for cls, name in _KINDS.items() if isinstance(value, cls)), "unknown")


_KINDS: dict[type, str] = {
    dict: "object", list: "array", tuple: "array", str: "string", bool: "boolean", int: "number", float: "number",
    type(None): "null",
}  # fmt: skip


_PERCENT = re.compile("%([0-7][0-9A-Fa-f])")


def resolve(root: Any, ref: Any) -> Any:
    """What a local reference ("#", "#/$defs/x") points to; InputError when nothing is there."""
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        raise InputError(f"the schema refers to {ref!r}, outside itself", hint="put the definition under $defs")
    found = root
    for step in ref[2:].split("/") if ref != "#" else ():
        step = _PERCENT.sub(lambda code: chr(int(code[1], 16)), step).replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise InputError(f"the schema refers to {ref!r}, which it does not define") from None
    return found


def canonical(value: Any) -> Any:
    """A hashable stand-in, equal for what JSON Schema calls equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, dict):
        return ("object", frozenset((key, canonical(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return ("array", tuple([canonical(item) for item in value]))
    return value


def shown(value: Any) -> str:
    """A value as JSON, cut to fit an error line."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


# ---- the rules, each (where, value, what the keyword says) -> problems ----------


def _fits_type(value: Any, name: str) -> bool:
    if name == "integer":
        return kind_of(value) == "number" and (isinstance(value, int) or value.is_integer())
    return kind_of(value) == name


def _check_type(at: Place, value: Any, wanted: Any) -> list[str]:
    names = wanted if isinstance(wanted, list) else [wanted]
    return [] if any(_fits_type(value, name) for name in names) else [
        f"{at.path}: is {shown(value)}, not {' or '.join(names)}"
    ]  # fmt: skip


def _check_enum(at: Place, value: Any, wanted: Any) -> list[str]:
    if canonical(value) in [canonical(item) for item in wanted]:
        return []
    return [f"{at.path}: is {shown(value)}, not one of {', '.join(shown(item) for item in wanted[:20])}"]


def _check_const(at: Place, value: Any, wanted: Any) -> list[str]:
    return [] if canonical(value) == canonical(wanted) else [f"{at.path}: is {shown(value)}, not {shown(wanted)}"]


def _check_required(at: Place, value: Any, wanted: Any) -> list[str]:
    return [f"{at.name(name)}: is missing" for name in wanted if name not in value]


def _check_properties(at: Place, value: Any, wanted: Any) -> list[str]:
    problems: list[str] = []
    for name, inner in wanted.items():
        if name in value:
            problems += at.check(value[name], inner, at.name(name))
    return problems


def _check_patterned(at: Place, value: Any, wanted: Any) -> list[str]:
    problems: list[str] = []
    for pattern, inner in wanted.items():
        for name in value:
            if matches(pattern, name):
                problems += at.check(value[name], inner, at.name(name))
    return problems


def _check_others(at: Place, value: Any, wanted: Any) -> list[str]:
    named, patterns = at.schema.get("properties", {}), at.schema.get("patternProperties", {})
    problems: list[str] = []
    for name, item in value.items():
        if name in named or any(matches(pattern, name) is not False for pattern in patterns):
            continue
        if wanted is False:
            problems.append(f"{at.name(name)}: is not a property of the schema")
        else:
            problems += at.check(item, wanted, at.name(name))
    return problems


def _check_names(at: Place, value: Any, wanted: Any) -> list[str]:
    return [problem for name in value for problem in at.check(name, wanted, f"{at.name(name)} (its name)")]


def _check_prefix(at: Place, value: Any, wanted: Any) -> list[str]:
    pairs = enumerate(zip(value, wanted, strict=False))
    return [line for place, (item, inner) in pairs for line in at.check(item, inner, f"{at.path}[{place}]")]


def _check_items(at: Place, value: Any, wanted: Any) -> list[str]:
    problems: list[str] = []
    for place in range(len(at.schema.get("prefixItems", ())), len(value)):
        problems += at.check(value[place], wanted, f"{at.path}[{place}]")
        if len(problems) >= MAX_PROBLEMS:
            break
    return problems


def _check_unique(at: Place, value: Any, wanted: Any) -> list[str]:
    same = wanted is True and len({canonical(item) for item in value}) < len(value)
    return [f"{at.path}: has the same item twice"] if same else []


def _check_any(at: Place, value: Any, wanted: Any) -> list[str]:
    near: list[list[str]] = []
    for inner in wanted:
        problems = at.check(value, inner, at.path)
        if not problems:
            return []
        if not any(problem.startswith(f"{at.path}: is ") for problem in problems):
            near.append(problems)
    # The one form that is wrong only further down is what was meant: its problems say most.
    return near[0] if len(near) == 1 else [f"{at.path}: fits none of the {len(wanted)} forms allowed"]


def _check_one(at: Place, value: Any, wanted: Any) -> list[str]:
    fitting = sum(not at.check(value, inner, at.path) for inner in wanted)
    if fitting == 0:
        return _check_any(at, value, wanted)
    return [] if fitting == 1 else [f"{at.path}: fits {fitting} of {len(wanted)} forms, and only one may fit"]


def _check_all(at: Place, value: Any, wanted: Any) -> list[str]:
    return [problem for inner in wanted for problem in at.check(value, inner, at.path)]


def _check_not(at: Place, value: Any, wanted: Any) -> list[str]:
    return [] if at.check(value, wanted, at.path) else [f"{at.path}: fits a form that is excluded"]


def _check_ref(at: Place, value: Any, wanted: Any) -> list[str]:
    return at.check(value, resolve(at.run.root, wanted), at.path)


def _check_multiple(at: Place, value: Any, wanted: Any) -> list[str]:
    # Through text, so that 0.3 is a multiple of 0.1 as it is on paper.
    whole = isfinite(value) and Fraction(str(value)) % Fraction(str(wanted)) == 0
    return [] if whole else [f"{at.path}: is {shown(value)}, not a multiple of {shown(wanted)}"]


def _check_pattern(at: Place, value: Any, wanted: Any) -> list[str]:
    return [f"{at.path}: is {shown(value)}, which does not match {wanted}"] if matches(wanted, value) is False else []


def _bound(measure: Callable[[Any], Any], fits: Callable[[Any, Any], bool], words: str) -> _Rule:
    def rule(at: Place, value: Any, wanted: Any) -> list[str]:
        # Draft 4 has booleans for the exclusive bounds: they say nothing by themselves.
        if isinstance(wanted, bool) or fits(measure(value), wanted):
            return []
        return [f"{at.path}: {words.format(shown(wanted))}"]

    return rule


_Rule = Callable[[Place, Any, Any], list[str]]

_RULES: Mapping[str, tuple[str | None, _Rule]] = {
    "$ref": (None, _check_ref),
    "enum": (None, _check_enum),
    "const": (None, _check_const),
    "anyOf": (None, _check_any),
    "oneOf": (None, _check_one),
    "allOf": (None, _check_all),
    "not": (None, _check_not),
    "required": ("object", _check_required),
    "properties": ("object", _check_properties),
    "patternProperties": ("object", _check_patterned),
    "additionalProperties": ("object", _check_others),
    "propertyNames": ("object", _check_names),
    "minProperties": ("object", _bound(len, operator.ge, "has fewer than {} properties")),
    "maxProperties": ("object", _bound(len, operator.le, "has more than {} properties")),
    "prefixItems": ("array", _check_prefix),
    "items": ("array", _check_items),
    "uniqueItems": ("array", _check_unique),
    "minItems": ("array", _bound(len, operator.ge, "has fewer than {} items")),
    "maxItems": ("array", _bound(len, operator.le, "has more than {} items")),
    "minLength": ("string", _bound(len, operator.ge, "is shorter than {} characters")),
    "maxLength": ("string", _bound(len, operator.le, "is longer than {} characters")),
    "pattern": ("string", _check_pattern),
    "minimum": ("number", _bound(operator.pos, operator.ge, "is less than {}")),
    "maximum": ("number", _bound(operator.pos, operator.le, "is more than {}")),
    "exclusiveMinimum": ("number", _bound(operator.pos, operator.gt, "is not more than {}")),
    "exclusiveMaximum": ("number", _bound(operator.pos, operator.lt, "is not less than {}")),
    "multipleOf": ("number", _check_multiple),
}


# ---- patterns ---------------------------------------------------------------------------------

_CLASS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
_GROUP = re.compile(r"\((?:\?[:=!<>P\w]*)?([^()]*)\)")
_GROUP_REPEATED = re.compile(r"\)[*+{]")
_OPTIONAL = re.compile(r"(?<![*+?}(])\?")
_REPEAT = re.compile(r"[*+]|\{\d*,\d*\}")
_BACKREFERENCE = re.compile(r"\\[1-9]|\(\?P=|\\k<")


def matches(pattern: str, text: str) -> bool | None:
    """Whether the pattern is found in the text; None when finding out could take too long.

    Python's engine backtracks, so a pattern of somebody else's may run for ever. What cannot be bounded
    is not tried: repeated groups, back-references, and many repeats on a long text.
    """
    if len(pattern) > MAX_PATTERN or _BACKREFERENCE.search(pattern):
        return None
    bare = _CLASS.sub("c", pattern)
    if _GROUP_REPEATED.search(bare):
        return None
    if _match_cost(bare, max(len(text), 1)) > MAX_MATCH_COST:
        return None
    try:
        # In JSON Schema's ECMA dialect $ is the very end; in Python a newline may still follow.
        ended = pattern[:-1] + r"\Z" if pattern.endswith("$") and not pattern.endswith(r"\$") else pattern
        return re.search(ended, text) is not None
    except (re.error, RecursionError, OverflowError):
        return None


def _match_cost(bare: str, length: int) -> int:
    """At most so many ways to try a pattern (character classes and escapes taken out) on a text."""
    anchored = bare.startswith("^") and "|" not in bare
    cost: int = length ** (len(_REPEAT.findall(bare)) + (not anchored)) * 2 ** len(_OPTIONAL.findall(bare))
    while group := _GROUP.search(bare):
        cost *= group[1].count("|") + 1
        bare = bare[: group.start()] + "c" + bare[group.end() :]
    return cost * (bare.count("|") + 1)
