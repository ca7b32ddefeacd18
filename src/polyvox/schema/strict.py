"""The strict subset of JSON Schema that constrained decoding takes: closed objects, every property
required, no defaults. It tells what it changed, and undoes the one change that an answer shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyvox.errors import InputError
from polyvox.schema.check import BoundError, Run, resolve, well_formed
from polyvox.schema.derive import Schema

MAX_DEPTH = 100

# Source: OpenAI, "Structured model outputs", supported schemas and keywords that are refused.
_REFUSED = frozenset({
    "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties", "propertyNames",
    "minProperties", "maxProperties", "unevaluatedProperties", "unevaluatedItems", "contains", "minContains",
    "maxContains", "uniqueItems", "contentEncoding", "contentMediaType", "contentSchema",
})  # fmt: skip
_SILENT = frozenset({"$schema", "$id", "$comment", "examples", "deprecated", "readOnly", "writeOnly", "discriminator"})


def strict_form(schema: Schema) -> tuple[Schema, list[str]]:
    """The schema in the strict subset, and a note ("path: what") for each change of meaning or form.

    Optional properties become required and nullable; `without_nulls` takes those nulls out of the answer.
    """
    rewrite = _Rewrite(schema)
    with well_formed():
        made = rewrite.node(schema, "$", 0)
    if made.get("type") != "object":
        rewrite.note("$", "the root is not an object, which the subset asks for")
    return made, rewrite.notes


class _Rewrite:
    """One pass over one schema, with the notes it takes."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self.notes: list[str] = []
        self.open: list[str] = []

    def note(self, path: str, what: str) -> None:
        self.notes.append(f"{path}: {what}")

    def node(self, schema: Any, path: str, depth: int) -> Schema:
        """One schema and all below it."""
        if depth > MAX_DEPTH:
            raise InputError(f"the schema is nested deeper than {MAX_DEPTH} levels", hint="use $defs and $ref")
        if not isinstance(schema, dict):
            if schema is not True:
                raise InputError(f"{path} of the schema is {schema!r}, not a schema")
            schema = {}
        schema, opened = self._flattened(schema, path)
        self.open += opened
        made: Schema = {}
        for key, value in schema.items():
            if key in _SILENT or key in ("required", "additionalProperties"):
                continue
            if key == "default" or key in _REFUSED:
                self.note(path, f"{key} removed")
            elif key in _BELOW:
                _BELOW[key](self, made, value, path, depth)
            else:
                made[key] = value
        del self.open[len(self.open) - len(opened) :]
        if _is_object(schema):
            self._close(schema, made, path)
        elif not made.keys() & {"type", "enum", "const", "anyOf", "$ref"}:
            self.note(path, "any value is allowed, which the subset cannot say")
        if made.get("type") == "array" and "items" not in made:
            self.note(path, "the items are of any type, which the subset cannot say")
        return made

    def _flattened(self, schema: Schema, path: str) -> tuple[Schema, list[str]]:
        """Without allOf and without words beside a $ref: both written out in place. Also gives the
        references followed, so that one that leads back to itself is left standing.
        """
        opened: list[str] = []
        for _ in range(MAX_DEPTH):
            beside = {key: value for key, value in schema.items() if key not in ("$ref", "$defs", "definitions")}
            ref = schema.get("$ref")
            if ref is not None and (beside or ("$defs" in schema and path == "$")):
                if ref in self.open or ref in opened:
                    self.note(path, f"{', '.join(beside)} beside a reference removed")
                    return {"$ref": ref}, opened
                opened.append(ref)
                kept: Schema = {key: value for key, value in schema.items() if key in ("$defs", "definitions")}
                schema = {**_as_dict(resolve(self.root, ref), path), **beside, **kept}
            elif "allOf" in schema:
                self.note(path, "allOf merged")
                rest = {key: value for key, value in schema.items() if key != "allOf"}
                schema = self._merged(rest, schema["allOf"], path, opened)
            else:
                return schema, opened
        raise InputError(f"{path} of the schema refers to itself without end")

    def _merged(self, rest: Schema, members: list[Any], path: str, opened: list[str]) -> Schema:
        """One schema of several that all hold; a single reference stays one."""
        if len(members) == 1 and "$ref" not in rest:
            return {**_as_dict(members[0], path), **rest}
        merged = dict(rest)
        for member in members:
            while "$ref" in _as_dict(member, path):
                if member["$ref"] in self.open or member["$ref"] in opened:
                    self.note(path, "an allOf that leads back to itself removed")
                    member = {}
                    break
                opened.append(member["$ref"])
                member = {**resolve(self.root, member["$ref"]), **{k: v for k, v in member.items() if k != "$ref"}}
            properties = {**merged.get("properties", {}), **member.get("properties", {})}
            required = [*merged.get("required", []), *member.get("required", [])]
            nested = [*merged.get("allOf", []), *member.get("allOf", [])]
            merged |= {key: value for key, value in member.items() if key not in merged}
            parts = (("properties", properties), ("required", list(dict.fromkeys(required))), ("allOf", nested))
            merged |= {key: value for key, value in parts if value}
        return merged

    def accepts_null(self, schema: Schema) -> bool:
        """Whether null fits already, as far as that can be told within the bounds."""
        try:
            return not Run(self.root).check(None, schema, "$", 0)
        except BoundError:
            return False

    def _close(self, schema: Schema, made: Schema, path: str) -> None:
        """All properties required, optional ones nullable, no others."""
        properties = made.setdefault("properties", {})
        wanted = schema.get("required", [])
        for name, inner in properties.items():
            if name not in wanted:
                nullable = inner if self.accepts_null(inner) else _nullable(inner)
                properties[name] = nullable
                changed = "required, and null where it was left out" if nullable is not inner else "required"
                self.note(f"{path}.{name}", changed)
        made["required"] = list(properties)
        if schema.get("additionalProperties") not in (None, False):
            self.note(path, "no keys beyond the named ones, though the schema allows them")
        made["additionalProperties"] = False

    def _map(self, key: str, made: Schema, value: Any, path: str, depth: int) -> None:
        place = path if key == "properties" else f"{path}.{key}"
        made[key] = {
            name: self.node(inner, f"{place}.{name}", depth + 1) for name, inner in _as_dict(value, path).items()
        }

    def _items(self, made: Schema, value: Any, path: str, depth: int) -> None:
        if isinstance(value, dict) or value is True:
            made.setdefault("items", self.node(value, f"{path}[]", depth + 1))

    def _tuple(self, made: Schema, value: Any, path: str, depth: int) -> None:
        self.note(path, "prefixItems became items of any of its forms, in any order")
        forms: list[Schema] = []
        for place, inner in enumerate(value):
            form = self.node(inner, f"{path}[{place}]", depth + 1)
            if form not in forms:
                forms.append(form)
        made["items"] = forms[0] if len(forms) == 1 else {"anyOf": forms}

    def _union(self, made: Schema, value: Any, path: str, depth: int) -> None:
        forms = [self.node(inner, f"{path}|{place}", depth + 1) for place, inner in enumerate(value)]
        if "anyOf" in made:
            self.note(path, "anyOf and oneOf stand side by side; only the first is kept")
        made.setdefault("anyOf", forms)

    def _exclusive(self, made: Schema, value: Any, path: str, depth: int) -> None:
        self.note(path, "oneOf became anyOf")
        self._union(made, value, path, depth)


_Below = Callable[[_Rewrite, Schema, Any, str, int], None]


def _mapping(key: str) -> _Below:
    return lambda rewrite, made, value, path, depth: rewrite._map(key, made, value, path, depth)


_BELOW: dict[str, _Below] = {
    "properties": _mapping("properties"),
    "$defs": _mapping("$defs"),
    "definitions": _mapping("definitions"),
    "items": _Rewrite._items,
    "prefixItems": _Rewrite._tuple,
    "anyOf": _Rewrite._union,
    "oneOf": _Rewrite._exclusive,
}


def _as_dict(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path} of the schema holds {value!r} where a schema belongs")
    return value


def _is_object(schema: Schema) -> bool:
    kind = schema.get("type")
    return (
        kind == "object" or (isinstance(kind, list) and "object" in kind) or (kind is None and "properties" in schema)
    )


def _nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    null: Schema = {"type": "null"}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], null]}
    if "$ref" in schema or "const" in schema or "type" not in schema:
        words: Schema = {key: schema[key] for key in ("description", "title") if key in schema}
        return {"anyOf": [{key: value for key, value in schema.items() if key not in words}, null], **words}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    made = {**schema, "type": [*kinds, "null"]} if "null" not in kinds else dict(schema)
    if "enum" in schema:
        made["enum"] = [*schema["enum"], None]
    return made


def without_nulls(value: Any, schema: Schema) -> Any:
    """An answer to `strict_form(schema)` as `schema` has it: optional properties that are null, and may
    not be null there, are left out.
    """
    try:
        with well_formed():
            return _Prune(schema).value(value, schema, 0)
    except (BoundError, RecursionError):
        return value


class _Prune(Run):
    """Takes nulls out of one value, with the validator's bounds."""

    def value(self, value: Any, schema: Any, depth: int) -> Any:
        """The value as the schema has it."""
        self.step(depth)
        if not isinstance(schema, dict):
            return value
        if "$ref" in schema:
            value = self.value(value, resolve(self.root, schema["$ref"]), depth + 1)
        for member in schema.get("allOf", ()):
            value = self.value(value, member, depth + 1)
        for form in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            made = self.value(value, form, depth + 1)
            if not self.check(made, form, "$", depth + 1):
                value = made
                break
        if isinstance(value, list) and "items" in schema:
            return [self.value(item, schema["items"], depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        properties, required = schema.get("properties", {}), schema.get("required", ())
        return {
            key: self.value(item, properties.get(key), depth + 1)
            for key, item in value.items()
            if item is not None
            or key not in properties
            or key in required
            or not self.check(None, properties[key], "$", 0)
        }
