"""What the demo model answers, and to what: a request's body in, a plan of answers out. It knows no
wire, no clock and no chance.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from polyvox.errors import InputError
from polyvox.transports.demo.fill import UnfillableError, fill, is_number
from polyvox.types import ROLES

MODEL = "demo"
QUOTE = 400  # characters of the user's text that an answer repeats
MAX_ANSWERS = 8
MAX_CALLS = 8
_ABOUT = "This is polyvox's built-in offline model; no provider was asked."

Json = dict[str, Any]


# ---- what comes out of thinking ---------------------------------------------------------------


class DemoCall(NamedTuple):
    """A tool the demo wants called: JSON arguments for a function, free text for a custom tool."""

    id: str
    name: str
    arguments: str
    kind: Literal["function", "custom"] = "function"


class DemoAnswer(NamedTuple):
    """One answer: its words, its calls, and why it ends."""

    text: str
    calls: tuple[DemoCall, ...]
    finish_reason: Literal["stop", "length", "tool_calls"]


class DemoPlan(NamedTuple):
    """All answers to a request, with tokens estimated as words times 4/3."""

    answers: tuple[DemoAnswer, ...]
    prompt_tokens: int
    completion_tokens: int


class DemoRefusalError(Exception):
    """The request is wrong: what a provider would say with an HTTP status of 4xx."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status


# ---- the brain --------------------------------------------------------------------------------


def think(request: Json) -> DemoPlan:
    """What the demo answers to the body of a Chat Completions request; DemoRefusalError when it is wrong.

    >>> think({"model": "demo", "messages": [{"role": "user", "content": "hi"}]}).answers[0].text[:18]
    '[demo] You said: h'
    """
    _check(request)
    answers = tuple([_answer(request, number) for number in range(request.get("n") or 1)])
    asked = sum(_tokens(word) for message in request["messages"] for word in _all_text(message))
    said = sum(_tokens(answer.text) + sum(_tokens(call.arguments) for call in answer.calls) for answer in answers)
    return DemoPlan(answers, asked, said)


def pieces(text: str) -> list[str]:
    """A text in words, each with the space before it; together they are the text."""
    return re.findall(r"\s*\S+|\s+$", text)


def _tokens(text: str) -> int:
    return math.ceil(len(text.split()) * 4 / 3)


def _answer(request: Json, number: int) -> DemoAnswer:
    messages = request["messages"]
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    said = _text(messages[last]) if last >= 0 else ""
    results = [message for message in messages[last + 1 :] if message["role"] == "tool"]
    calls = () if results else _calls(request, said, sum(len(m.get("tool_calls") or ()) for m in messages))
    if calls:
        return _within(request, "", calls)
    wanted = (request.get("response_format") or {}).get("type", "text")
    if wanted == "json_schema":
        return _within(request, _structured(request["response_format"]["json_schema"]), ())
    if wanted == "json_object":
        return _within(request, json.dumps({"demo": True, "you_said": said[:QUOTE]}, ensure_ascii=False), ())
    text = _about_results(results, messages) if results else f"You said: {_quote(said)}"
    end = "" if text.endswith((".", "!", "?", "…")) else "."
    again = f" (answer {number + 1})" if number else ""
    return _within(request, f"[demo] {text}{end}{again} {_ABOUT}", ())


def _quote(text: str) -> str:
    return text if len(text) <= QUOTE else text[: QUOTE - 1] + "…"


def _about_results(results: list[Json], messages: list[Json]) -> str:
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    names = {call["id"]: _inner(call)["name"] for call in calls}
    found = [f"{names.get(result['tool_call_id'], 'tool')}: {_quote(_text(result))}" for result in results]
    return "The tools answered: " + "; ".join(found)


def _within(request: Json, text: str, calls: tuple[DemoCall, ...]) -> DemoAnswer:
    """The answer as far as stop sequences and the token limit let it come."""
    stops = request.get("stop") or []
    cuts = [at for stop in ([stops] if isinstance(stops, str) else stops) if stop and (at := text.find(stop)) >= 0]
    text = text[: min(cuts, default=len(text))]
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    words = math.inf if limit is None else limit * 3 // 4
    whole, (text, *arguments) = _cut([text, *(call.arguments for call in calls)], words)
    calls = tuple([call._replace(arguments=said) for call, said in zip(calls, arguments, strict=False)])
    return DemoAnswer(text, calls, "length" if not whole else "tool_calls" if calls else "stop")


def _cut(texts: list[str], words: float) -> tuple[bool, list[str]]:
    """The texts until the words are used up, and whether that is all of them; what has begun stays."""
    found: list[str] = []
    for text in texts:
        if words < 1 and found and text:
            return False, found
        part = pieces(text)
        found.append("".join(part[: int(min(words, len(part)))]))
        words -= len(part)
        if words < 0:
            return False, found
    return True, found


# ---- tools ------------------------------------------------------------------------------------


def _calls(request: Json, said: str, before: int) -> tuple[DemoCall, ...]:
    """The calls the user's words ask for, or the caller's tool_choice; `before` were made earlier."""
    tools = {_inner(tool)["name"]: tool for tool in request.get("tools") or ()}
    mode, names = _choice(request.get("tool_choice"), tools)
    wanted: list[str] = []
    for name in names if mode != "none" else ():
        times = len(re.findall(rf"(?<!\w){re.escape(name)}(?!\w)", said, re.IGNORECASE))
        wanted += [name] * (times or int(_mentions(said, name)))
    if mode == "required" and not wanted:
        wanted = names[:1]
    if request.get("parallel_tool_calls") is False:
        wanted = wanted[:1]
    calls = []
    for i, name in enumerate(wanted[:MAX_CALLS]):
        custom = tools[name].get("type") == "custom"
        arguments = "demo" if custom else _arguments(tools[name], name, i)
        calls.append(DemoCall(f"call_demo_{before + i + 1}", name, arguments, "custom" if custom else "function"))
    return tuple(calls)


def _choice(choice: Any, tools: Iterable[str]) -> tuple[str, list[str]]:
    """The mode and the tools that may be called, as tool_choice has it."""
    if isinstance(choice, str) or choice is None:
        return choice or "auto", list(tools)
    if choice["type"] == "allowed_tools":
        allowed = choice["allowed_tools"]
        return allowed.get("mode", "auto"), [_inner(tool)["name"] for tool in allowed["tools"]]
    return "required", [_inner(choice)["name"]]


def _inner(tool: Json) -> Json:
    found: Json = tool[tool["type"]]
    return found


def _mentions(said: str, name: str) -> bool:
    """Whether the text has a telling word of a tool's name: "weather" for get_weather or getWeather."""
    words = re.findall(r"[A-Z]?[a-z]{3,}|[A-Z]{4,}|[^\W\d_A-Za-z]{2,}", name)
    said = said.lower()
    return any(
        re.search(rf"\b{re.escape(word.lower())}s?\b", said) for word in words if len(word) > 3 or not word.isascii()
    )


def _arguments(tool: Json, name: str, number: int) -> str:
    return _filled(_inner(tool).get("parameters") or {"type": "object"}, f"the parameters of {name!r}", "tools", number)


def _structured(wanted: Json) -> str:
    return _filled(wanted.get("schema") or {"type": "object"}, "the schema", "response_format", 0)


def _filled(schema: Any, what: str, param: str, number: int) -> str:
    """JSON text that fits a schema."""
    try:
        return json.dumps(fill(schema, number), ensure_ascii=False)
    except InputError as error:
        raise DemoRefusalError(f"{what} cannot be used: {error.message}", param, "invalid_schema") from None
    except UnfillableError as error:
        raise DemoRefusalError(
            f"the demo model finds no value for {what}: {error}", param, "unfillable_schema"
        ) from None


# ---- what a request must be -------------------------------------------------------------------


def _text(message: Json) -> str:
    """The words of a message, whichever way they are written."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join([part["text"] for part in content or () if isinstance(part.get("text"), str)])


def _all_text(message: Json) -> Iterator[str]:
    yield _text(message)
    for call in message.get("tool_calls") or ():
        yield str(_inner(call).get("arguments") or "")


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        return False
    content, calls = value.get("content"), value.get("tool_calls")
    if value["role"] == "tool" and not isinstance(value.get("tool_call_id"), str):
        return False
    if not (calls is None or _all(_is_call, calls)):
        return False
    return content is None or isinstance(content, str) or _all(lambda part: isinstance(part, dict), content)


def _all(good: Callable[[Any], bool], value: Any) -> bool:
    return isinstance(value, list) and all(map(good, value))


def _is_call(value: Any) -> bool:
    return _is_tool(value) and isinstance(value.get("id"), str)


def _is_tool(value: Any) -> bool:
    inner = value.get(value.get("type")) if isinstance(value, dict) and isinstance(value.get("type"), str) else None
    return isinstance(inner, dict) and isinstance(inner.get("name"), str) and bool(inner["name"])


def _is_count(value: Any, most: float = math.inf) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_choice(value: Any) -> bool:
    if isinstance(value, dict) and value.get("type") == "allowed_tools":
        allowed = value.get("allowed_tools")
        return isinstance(allowed, dict) and _all(_is_tool, allowed.get("tools"))
    return value in ("auto", "none", "required") if isinstance(value, str) else _is_tool(value)


def _is_format(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("type") not in ("text", "json_object", "json_schema"):
        return False
    return value["type"] != "json_schema" or isinstance(value.get("json_schema"), dict)


# Field -> whether its value will do, and what it must be. Only messages may not be left out.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "messages": (lambda v: _all(_is_message, v) and bool(v), "a list of messages"),
    "tools": (lambda v: _all(_is_tool, v), "a list of tools with names"),
    "tool_choice": (_is_choice, '"auto", "none", "required" or a tool'),
    "response_format": (_is_format, "an object with a type, and a json_schema where the type is one"),
    "stream": (lambda v: isinstance(v, bool), "true or false"),
    "stream_options": (lambda v: isinstance(v, dict), "an object"),
    "parallel_tool_calls": (lambda v: isinstance(v, bool), "true or false"),
    "max_tokens": (_is_count, "a whole number from 1"),
    "max_completion_tokens": (_is_count, "a whole number from 1"),
    "n": (lambda v: _is_count(v, MAX_ANSWERS), f"a whole number from 1 to {MAX_ANSWERS}"),
    "stop": (
        lambda v: isinstance(v, str) or _all(lambda one: isinstance(one, str), v),
        "a text or a list of texts",
    ),
    "temperature": (lambda v: is_number(v) and 0 <= v <= 2, "a number from 0 to 2"),
    "top_p": (lambda v: is_number(v) and 0 <= v <= 1, "a number from 0 to 1"),
}


def _check(request: Json) -> None:
    """Refuse what the protocol does not allow, as its inventor's servers do."""
    if not isinstance(request, dict):
        raise DemoRefusalError("the body must be a JSON object")
    if request.get("model") != MODEL:
        raise DemoRefusalError(f"the model {request.get('model')!r} does not exist here; there is only {MODEL!r}",
                          "model", "model_not_found", 404)  # fmt: skip
    for field, (will_do, what) in _FIELDS.items():
        value = request.get(field)
        if (value is not None or field == "messages") and not will_do(value):
            raise DemoRefusalError(f"Invalid value for {field!r}: it must be {what}.", field, "invalid_value")
    offered = {_inner(tool)["name"] for tool in request.get("tools") or ()}
    _, names = _choice(request.get("tool_choice"), offered)
    for name in names:
        if name not in offered:
            raise DemoRefusalError(
                f"tool_choice names {name!r}, which is not among the tools.", "tool_choice", "invalid_value"
            )
    if request.get("tool_choice") == "required" and not offered:
        raise DemoRefusalError("tool_choice is 'required', but there are no tools.", "tool_choice", "invalid_value")
