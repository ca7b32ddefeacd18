"""Promises of polyvox.schema: what a model is told about a function or a type, and what it is held to."""

import dataclasses
import enum
import functools
import subprocess
import sys
import time
import typing

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.errors import InputError
from polyvox.schema import format_from, schema_of, strict_form, tool_from, validate, without_nulls
from polyvox.types import UNSET, CacheHint, ResponseFormat, Tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Node(msgspec.Struct):
    """A tree."""

    value: int
    children: list["Node"] = []


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Shape(msgspec.Struct):
    """A shape.

    Attributes:
        name: what it is called
    """

    name: str
    at: Point
    colour: Colour | None = None


class Person(pydantic.BaseModel):
    """A person we know."""

    name: str = pydantic.Field(description="full name")
    age: int = pydantic.Field(ge=0)
    nick: str | None = None


class Crew(msgspec.Struct):
    captain: Person
    others: list[Person] = []


class Query(typing.TypedDict, total=False):
    """A search."""

    text: typing.Required[str]
    limit: int


def google(city: str, days: int = 3, units: typing.Literal["c", "f"] = "c") -> str:
    """Tell the weather.

    It is usually right.

    Args:
        city: the city, with
            its country
        days (int): how many days: at most 7

    Returns:
        str: prose
    """
    return f"{city} {days} {units}"


def numpy_style(a, b=None):
    """Add.

    Parameters
    ----------
    a : int
        the first
    b : int, optional
        the second,
        on two lines

    Returns
    -------
    int
        the sum
    """
    return a, b


def rest_style(a: int, b: str = "x") -> None:
    """Add.

    :param int a: the first
    :param b: the second,
        on two lines
    :returns: nothing
    """


# ---- tools ------------------------------------------------------------------------------------


def test_a_function_becomes_a_tool_with_its_name_words_and_parameters():
    tool = tool_from(google)
    assert (tool.name, tool.description) == ("google", "Tell the weather.\n\nIt is usually right.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "the city, with its country"},
            "days": {"type": "integer", "description": "how many days: at most 7", "default": 3},
            "units": {"enum": ["c", "f"], "default": "c"},
        },
        "additionalProperties": False,
        "required": ["city"],
    }
    assert tool.strict is UNSET


@pytest.mark.parametrize("function", [numpy_style, rest_style])
def test_numpy_and_rest_docstrings_describe_the_parameters_too(function):
    tool = tool_from(function)
    assert tool.description == "Add."
    found = {name: schema["description"] for name, schema in tool.parameters["properties"].items()}
    assert found == {"a": "the first", "b": "the second, on two lines"}


def test_an_unannotated_parameter_takes_anything():
    assert tool_from(numpy_style).parameters["properties"]["a"] == {"description": "the first"}


def test_async_functions_methods_partials_and_callable_objects_are_tools():
    async def look(ctx, thing: str): ...

    class Desk:
        """A desk."""

        def open(self, drawer: int): ...

        def __call__(self, drawer: int): ...

    for thing, names in [
        (look, ["thing"]),
        (Desk().open, ["drawer"]),
        (Desk.open, ["drawer"]),
        (Desk(), ["drawer"]),
        (functools.partial(google, units="f"), ["city", "days", "units"]),
    ]:
        assert list(tool_from(thing).parameters["properties"]) == names
    assert (tool_from(Desk()).name, tool_from(Desk()).description) == ("Desk", "A desk.")


def test_keyword_arguments_open_the_object():
    def free(**rest): ...

    assert tool_from(free).parameters == {"type": "object", "properties": {}, "additionalProperties": True}


def test_a_string_in_annotated_describes_the_parameter():
    def f(n: typing.Annotated[int, "how many"], m: typing.Annotated[int, pydantic.Field(gt=0, description="more")]): ...

    assert tool_from(f).parameters["properties"] == {
        "n": {"type": "integer", "description": "how many"},
        "m": {"type": "integer", "exclusiveMinimum": 0, "description": "more"},
    }


def test_structured_parameters_share_definitions():
    def move(start: Point, end: Point, who: Person): ...

    parameters = tool_from(move).parameters
    assert parameters["properties"]["start"] == parameters["properties"]["end"] == {"$ref": "#/$defs/Point"}
    assert validate({"start": {"x": 1}, "end": {"x": 2}, "who": {"name": "A", "age": 3}}, parameters) == []
    assert validate({"start": {"x": 1}, "end": {"x": "2"}, "who": {"name": "A", "age": 3}}, parameters) == [
        '$.end.x: is "2", not integer'
    ]


def test_two_types_of_one_name_stay_two():
    def g(one, two): ...

    class Local(msgspec.Struct):
        a: int

    g.__annotations__ = {"one": list[Local], "two": list[msgspec.defstruct("Local", [("b", str)])]}
    parameters = tool_from(g).parameters
    assert set(parameters["$defs"]) == {"Local", "Local_"}
    assert validate({"one": [{"a": 1}], "two": [{"b": "x"}]}, parameters) == []
    assert len(validate({"one": [{"b": "x"}], "two": [{"a": 1}]}, parameters)) == 2


def test_arguments_by_position_are_refused():
    def star(*args): ...

    def position(a, /): ...

    for function, word in [(star, r"\*args"), (position, "takes a by position")]:
        with pytest.raises(InputError, match=word) as caught:
            tool_from(function)
        assert caught.value.hint


def test_what_cannot_be_a_tool_is_refused_with_a_hint():
    def unknown(a: "Nowhere"): ...  # noqa: F821

    def odd(a: typing.Callable[[], int]): ...

    things = [unknown, odd, lambda x: x, 7, Colour, list[int], {"description": "nameless"}, {"type": "object"}]
    things += [{"type": "web_search", "name": "w"}, {"name": "f", "parameters": {"type": "array"}}, {"name": "a b"}]
    things += [{"name": "f", "parameters": 3}, {"name": 5}, min, {"name": "f", "input_schema": {}, "novel": 1}]
    for thing in things:
        with pytest.raises(InputError) as caught:
            tool_from(thing)
        assert caught.value.hint, thing


@pytest.mark.parametrize(
    ("cls", "name", "words", "required"),
    [
        (Person, "Person", "A person we know.", ["name", "age"]),
        (Shape, "Shape", "A shape.", ["name", "at"]),
        (Point, "Point", None, ["x"]),
        (Query, "Query", "A search.", ["text"]),
    ],
)
def test_classes_of_fields_become_tools(cls, name, words, required):
    tool = tool_from(cls)
    assert (tool.name, tool.description, tool.parameters["required"]) == (name, words, required)
    assert tool.parameters["type"] == "object"
    assert "title" not in tool.parameters


def test_attributes_in_a_class_docstring_describe_its_fields():
    assert tool_from(Shape).parameters["properties"]["name"] == {"type": "string", "description": "what it is called"}


SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}


@pytest.mark.parametrize(
    "form",
    [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}},
        {"function": {"name": "f", "description": "d", "parameters": SCHEMA}},
        {"type": "function", "name": "f", "description": "d", "parameters": SCHEMA},
        {"name": "f", "description": "d", "parameters": SCHEMA},
        {"name": "f", "description": "d", "input_schema": SCHEMA},
        {"type": "custom", "name": "f", "description": "d", "input_schema": SCHEMA},
        {"name": "f", "description": "d", "inputSchema": SCHEMA},
        {**SCHEMA, "title": "f", "description": "d"},
        Tool(name="f", description="d", parameters=SCHEMA),
    ],
)
def test_every_common_dict_form_means_the_same_tool(form):
    assert tool_from(form) == Tool(name="f", description="d", parameters=SCHEMA)


def test_what_a_dict_says_beyond_the_schema_is_kept():
    assert tool_from({"type": "function", "function": {"name": "f", "strict": False}}) == Tool(
        name="f", parameters={"type": "object", "properties": {}}, strict=False
    )
    assert tool_from(
        {"name": "f", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ).cache == (CacheHint(ttl="1h"))
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /a/"}}
    for form in (
        {"type": "custom", "custom": {"name": "c", "format": grammar}},
        {"type": "custom", "name": "c", "format": grammar},
    ):
        assert tool_from(form) == Tool(name="c", kind="custom", format=grammar)


def test_name_description_and_strict_given_by_hand_win():
    tool = tool_from(lambda x: x, name="same", description="gives it back", strict=True)
    assert (tool.name, tool.description, tool.strict) == ("same", "gives it back", True)


# ---- types and formats ------------------------------------------------------------------------


def test_the_words_json_and_text_are_formats_and_other_words_are_not():
    assert format_from("json").kind == "json"
    assert format_from("text").kind == "text"
    with pytest.raises(InputError, match="xml"):
        format_from("xml")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Person, {"name": "A", "age": 3}, {"name": "A", "age": -1}),
        (Shape, {"name": "s", "at": {"x": 1}, "colour": "red"}, {"name": "s", "at": {"x": 1}, "colour": "green"}),
        (Crew, {"captain": {"name": "A", "age": 3}}, {"captain": {"name": "A"}}),
        (list[Person], [{"name": "A", "age": 3}], [{"name": "A", "age": "3"}]),
        (Node, {"value": 1, "children": [{"value": 2}]}, {"value": 1, "children": [{"value": None}]}),
        (Query, {"text": "x"}, {"limit": 3}),
        (list[int], [1, 2], [1, "2"]),
        (typing.Literal["a", "b"], "a", "c"),
        (Colour, "red", "green"),
        (tuple[int, str], [1, "a"], [1, "a", 2]),
        (dict[str, int], {"a": 1}, {"a": "1"}),
        (int | None, None, "x"),
        (typing.Iterable[int], [1], ["a"]),
    ],
)
def test_the_schema_of_a_type_takes_its_values_and_no_others(kind, good, bad):
    made = format_from(kind)
    assert made.kind == "schema"
    assert "$ref" not in made.schema
    assert validate(good, made.schema) == []
    assert validate(bad, made.schema) != []


def test_a_named_type_gives_its_name_and_words():
    made = format_from(Person, strict=True)
    assert (made.name, made.description, made.strict) == ("Person", "A person we know.", True)
    assert format_from(list[int]).name == "answer"
    assert format_from(list[int], name="numbers").name == "numbers"


def test_a_recursive_type_keeps_the_definition_it_refers_to():
    assert schema_of(Node)["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert "Node" in schema_of(Node)["$defs"]
    assert "$defs" not in schema_of(Point)


def test_titles_that_repeat_the_field_name_are_dropped():
    assert schema_of(Person)["properties"]["name"] == {"type": "string", "description": "full name"}


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
        {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True},
        ResponseFormat(kind="schema", name="n", schema=SCHEMA, strict=True),
    ],
)
def test_wire_forms_of_a_response_format_are_understood(form):
    assert format_from(form) == ResponseFormat(kind="schema", name="n", schema=SCHEMA, strict=True)
    assert format_from({"type": "json_object"}).kind == "json"
    assert format_from({"title": "A b", **SCHEMA}).name == "A_b"


def test_a_type_without_a_schema_is_refused_with_a_hint():
    class Plain:
        pass

    for thing in (Plain, typing.Callable[[], int], {"type": "json_schema", "json_schema": {"name": "n"}}):
        with pytest.raises(InputError) as caught:
            format_from(thing)
        assert caught.value.hint


def test_pydantic_is_loaded_only_when_a_type_needs_it():
    code = (
        "import sys, msgspec; from polyvox.schema import tool_from, schema_of\n"
        "class A(msgspec.Struct):\n  x: int\n"
        "def f(a: A, b: list[int] = []): ...\n"
        "tool_from(f); schema_of(A); print('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# ---- the strict subset ------------------------------------------------------------------------


def objects_in(node):
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield node
        for value in node.values():
            yield from objects_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects_in(value)


@pytest.mark.parametrize("kind", [Person, Shape, Node, Crew, Query])
def test_strict_form_closes_every_object_and_requires_every_property(kind):
    schema = schema_of(kind)
    made, notes = strict_form(schema)
    for found in objects_in(made):
        assert found["additionalProperties"] is False
        assert found["required"] == list(found["properties"])
        assert all("default" not in inner for inner in found["properties"].values())
    assert notes
    assert strict_form(made)[0] == made
    assert schema == schema_of(kind)


def test_optional_properties_become_nullable_and_their_nulls_can_be_taken_out_again():
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {"type": "integer", "default": 3},
            "c": {"enum": ["x"], "type": "string"},
            "d": {"$ref": "#/$defs/D"},
            "e": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "f": {"const": 1, "description": "one"},
        },
        "required": ["a"],
        "$defs": {"D": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    }
    made, notes = strict_form(schema)
    assert made["properties"] == {
        "a": {"type": "string"},
        "b": {"type": ["integer", "null"]},
        "c": {"enum": ["x", None], "type": ["string", "null"]},
        "d": {"anyOf": [{"$ref": "#/$defs/D"}, {"type": "null"}]},
        "e": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "f": {"anyOf": [{"const": 1}, {"type": "null"}], "description": "one"},
    }
    assert "$.b: default removed" in notes
    assert "$.b: required, and null where it was left out" in notes
    answer = {"a": "x", "b": None, "c": None, "d": {"n": None}, "e": None, "f": None}
    assert validate(answer, made) == []
    assert without_nulls(answer, schema) == {"a": "x", "d": {}, "e": None}
    assert validate(without_nulls(answer, schema), schema) == []


def test_nulls_are_taken_out_inside_lists_and_the_fitting_form_of_a_union():
    schema = {
        "type": "array",
        "items": {
            "anyOf": [
                {"type": "object", "properties": {"k": {"const": "a"}, "x": {"type": "integer"}}, "required": ["k"]},
                {"type": "object", "properties": {"k": {"const": "b"}, "x": {"type": "null"}}, "required": ["k", "x"]},
            ]
        },
    }
    assert without_nulls([{"k": "a", "x": None}, {"k": "b", "x": None}], schema) == [{"k": "a"}, {"k": "b", "x": None}]


def test_what_the_subset_cannot_say_is_noted():
    made, notes = strict_form(
        {
            "type": "object",
            "properties": {
                "free": {"type": "object", "additionalProperties": {"type": "integer"}},
                "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
                "any": {},
                "one": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
                "set": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
            },
            "required": ["free", "pair", "any", "one", "set"],
        }
    )
    assert made["properties"]["pair"]["items"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert made["properties"]["one"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert [note.partition(":")[0] for note in notes] == ["$.free", "$.pair", "$.any", "$.one", "$.set"]
    assert strict_form({"type": "array", "items": {"type": "integer"}})[1] == [
        "$: the root is not an object, which the subset asks for"
    ]


def test_words_beside_a_reference_and_all_of_are_written_out_in_place():
    schema = {
        "type": "object",
        "properties": {
            "near": {"$ref": "#/$defs/P", "description": "the near one"},
            "both": {"allOf": [{"$ref": "#/$defs/P"}, {"properties": {"z": {"type": "integer"}}, "required": ["z"]}]},
        },
        "required": ["near", "both"],
        "$defs": {"P": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
    }
    made, _ = strict_form(schema)
    assert made["properties"]["near"] == {
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "required": ["x"],
        "additionalProperties": False,
        "description": "the near one",
    }
    assert made["properties"]["both"]["required"] == ["x", "z"]


def test_a_definition_that_leads_back_to_itself_stays_a_reference():
    node = {
        "type": "object",
        "properties": {
            "next": {"$ref": "#/$defs/N", "description": "the next"},
            "deep": {"allOf": [{"$ref": "#/$defs/N"}]},
        },
        "required": ["next", "deep"],
    }
    made, _ = strict_form({"$ref": "#/$defs/N", "$defs": {"N": node}})
    assert made["type"] == "object"
    assert made["properties"]["next"] == {"$ref": "#/$defs/N"}
    assert made["$defs"]["N"]["properties"]["deep"] == {"$ref": "#/$defs/N"}
    for loop in ({"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"$ref": "#", "title": "t"}):
        strict_form(loop)


# ---- validation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer"}, [1, 1.0, -3], [1.5, True, "1", None]),
        ({"type": "number"}, [1, 1.5], [False, "1"]),
        ({"type": ["string", "null"]}, ["", None], [0, False]),
        ({"type": "boolean"}, [True], [1, 0]),
        ({"enum": [1, "a", [1], {"k": None}]}, [1, 1.0, "a", [1.0], {"k": None}], [True, "b", [True]]),
        ({"const": False}, [False], [0, None]),
        ({"required": ["a"]}, [{"a": 1}, 5], [{}]),
        ({"properties": {"a": False}}, [{}], [{"a": 1}]),
        ({"properties": {"a": {}}, "additionalProperties": False}, [{"a": 1}], [{"b": 1}]),
        (
            {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
            [{"x1": 1}],
            [{"x1": ""}, {"y": 1}],
        ),
        ({"additionalProperties": {"type": "integer"}}, [{"b": 1}], [{"b": "1"}]),
        ({"propertyNames": {"maxLength": 2}}, [{"ab": 1}], [{"abc": 1}]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 1}]),
        ({"items": {"type": "integer"}}, [[], [1]], [["a"]]),
        ({"prefixItems": [{"type": "integer"}], "items": False}, [[], [1]], [["a"], [1, 2]]),
        ({"minItems": 1, "maxItems": 2, "uniqueItems": True}, [[1], [1, True]], [[], [1, 2, 3], [1, 1.0]]),
        ({"anyOf": [{"type": "integer"}, {"minLength": 2}]}, [1, "ab"], ["a"]),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, [1.5], [1, "a"]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1, 2], [0, 3]),
        ({"not": {"type": "string"}}, [1], ["a"]),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5], [0, 1]),
        ({"multipleOf": 0.1}, [0.3, 0, 1e300], [0.35]),
        ({"minLength": 1, "maxLength": 2}, ["é", "👍👍"], ["", "abc"]),
        ({"pattern": "^a+$"}, ["aa", 5], ["b", "a\n"]),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}}, [None], [1]),
        (True, [1], []),
        (False, [], [1]),
        ({"type": "string", "format": "date", "unheard-of": 1}, ["not a date"], [1]),
        ({"minimum": 3, "exclusiveMinimum": True}, [3], [2]),
    ],
)
def test_a_keyword_accepts_and_refuses_what_the_draft_says(schema, good, bad):
    for value in good:
        assert validate(value, schema) == [], value
    for value in bad:
        assert validate(value, schema) != [], value


def test_problems_say_where_and_what():
    schema = {
        "type": "object",
        "properties": {"list": {"type": "array", "items": {"$ref": "#/$defs/item"}}, "odd key": {"minimum": 3}},
        "required": ["id"],
        "$defs": {"item": {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}},
    }
    assert validate({"list": [{"n": 1}, {"n": "1", "m": 2}], "odd key": 1}, schema) == [
        '$.list[1].n: is "1", not integer',
        "$.list[1].m: is not a property of the schema",
        '$["odd key"]: is less than 3',
        "$.id: is missing",
    ]
    assert validate({"list": 3, "id": 1}, schema) == ["$.list: is 3, not array"]


def test_the_problems_of_the_form_that_was_meant_are_told():
    schema = {"anyOf": [{"type": "object", "required": ["a"]}, {"type": "null"}]}
    assert validate({}, schema) == ["$.a: is missing"]
    assert validate(3, schema) == ["$: fits none of the 2 forms allowed"]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]},
        {"not": {"$ref": "#"}},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ],
)
def test_a_schema_without_end_is_given_up_in_time(schema):
    started = time.process_time()
    assert "not checked to the end" in validate({}, schema)[0]
    assert time.process_time() - started < 5


ENDLESS = ["(a+)+$", "^(a|a)*$", "(.*)*x", ".*.*.*.*.*x", r"(\w+)\1+$", "a" * 600, "(unclosed", "^(a|a){30}$"]


@pytest.mark.parametrize("pattern", [*ENDLESS, "^" + "a?" * 40 + "a" * 40 + "$", "^" + "(a|a)" * 40 + "$"])
def test_a_pattern_that_could_run_for_ever_is_passed_over(pattern):
    started = time.process_time()
    assert validate("a" * 5000 + "!", {"pattern": pattern}) == []
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^[\w.+-]+@[\w-]+\.[\w.-]+$", "someone@example.com", "someone"),
        (r"^\d{4}-\d{2}-\d{2}$", "2026-11-21", "2026-11-2"),
        ("^(" + "|".join(f"item{number}" for number in range(40)) + ")$", "item7", "item77"),
        (r"^https?://(?:www\.)?example\.com", "https://example.com/", "ftp://example.com"),
    ],
)
def test_ordinary_patterns_are_tried(pattern, good, bad):
    assert validate(good, {"pattern": pattern}) == []
    assert validate(bad, {"pattern": pattern}) != []


def test_a_long_list_of_problems_is_cut():
    assert len(validate(["x"] * 5000, {"items": {"type": "integer"}})) == 100


def test_a_deep_value_is_no_crash():
    value: object = 1
    for _ in range(5000):
        value = [value]
    schema = {"items": {"$ref": "#"}}
    assert "not checked to the end" in validate(value, schema)[0]
    assert "not checked to the end" in validate(value, {"enum": [1]})[0]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://example.com/x"},
        {"$ref": "#/$defs/missing"},
        {"$ref": 5},
        {"type": 5},
        {"properties": 5},
        {"required": 5},
        {"items": "x"},
        {"anyOf": {"a": 1}},
        {"minimum": "3"},
        {"multipleOf": 0},
        [],
    ],
)
def test_a_malformed_schema_is_an_input_error(schema):
    with pytest.raises(InputError):
        for value in (5, {"a": 1}, [1], "x"):
            validate(value, schema)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(value=json_values, schema=json_values)
@settings(max_examples=200, deadline=None)
def test_no_value_and_no_schema_raises_anything_but_our_error(value, schema):
    for work in (lambda: validate(value, schema), lambda: strict_form(schema), lambda: without_nulls(value, schema)):
        try:
            work()
        except InputError:
            pass


KEYS = (
    "type enum const properties required items prefixItems anyOf oneOf allOf $ref not pattern minimum multipleOf "
    "minLength additionalProperties $defs uniqueItems"
).split()


@given(value=json_values, schema=st.dictionaries(st.sampled_from(KEYS), json_values, max_size=5))
@settings(max_examples=400, deadline=None)
def test_no_keyword_with_any_argument_raises_anything_but_our_error(value, schema):
    for work in (
        lambda: validate(value, schema),
        lambda: strict_form(schema),
        lambda: without_nulls(value, schema),
        lambda: tool_from({"name": "f", "parameters": schema}),
        lambda: format_from(schema),
    ):
        try:
            work()
        except InputError:
            pass


@given(value=json_values)
@settings(max_examples=100, deadline=None)
def test_every_value_fits_the_schema_that_is_its_constant(value):
    assert validate(value, {"const": value}) == []
    assert validate(value, {"enum": [value]}) == []
    assert validate([value, value], {"uniqueItems": True}) != []
