"""A client's generateContent call as a neutral request, the mirror of `request`, `turns` and `parts`; and what can
be read or changed of it without that. It leaves it to `rules` to be as strict as the protocol's inventor."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from polyvox.dialects import Endpoint, Peek, Wire, client_object, encode_json, string
from polyvox.dialects.checks import Check, members
from polyvox.dialects.edits import set_in
from polyvox.dialects.gemini.facts import (
    DYNAMIC,
    LEVELS,
    NAME,
    SETTINGS,
    TIERS,
    Json,
    framing_in,
    model_in,
    named,
    rest_of,
    with_model,
)
from polyvox.dialects.gemini.parts_read import call_from, fresh_id, part_from, standard
from polyvox.dialects.gemini.results import words_of
from polyvox.dialects.gemini.schema import json_schema
from polyvox.dialects.shapes import (
    Reader,
    by_name,
    field,
    flag,
    mapping,
    missing,
    needed,
    number,
    one_of,
    sequence,
    take,
    text,
    texts,
    told,
    whole,
    wrong,
)
from polyvox.errors import InputError
from polyvox.types import (
    Extra,
    Message,
    Opaque,
    Part,
    Request,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

# ---- without decoding -------------------------------------------------------------------------


class _Seen(Struct):
    model: Any = None


_see = msgspec.json.Decoder(_Seen).decode


def peek(wire: Wire) -> Peek:
    """See `ServerSide.peek`. All stands in the path; some put the model into the body."""
    try:
        seen = _see(wire.body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        seen = _Seen(client_object(wire).get("model"))
    model, stream = model_in(wire.path)
    framing = framing_in(wire.path) if stream else ""
    return Peek(model or string(seen.model) or None, stream, usage=True, framing=framing)


def edit(wire: Wire, model: str | None) -> Wire:
    """See `ServerSide.edit`. The model is in the path, and usage is always told."""
    peek(wire)
    if model is None:
        return wire
    path = with_model(wire.path, model)
    if path is not None:
        return msgspec.structs.replace(wire, path=path)
    return msgspec.structs.replace(wire, body=set_in(wire.body, ("model",), encode_json(model)))


# ---- the request ------------------------------------------------------------------------------

_TOP = frozenset({
    "model", "contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "labels", "serviceTier",
})  # fmt: skip
_SETTING: dict[str, Reader[Any]] = {
    "max_tokens": whole, "temperature": number, "top_p": number, "top_k": whole, "stop": texts, "seed": whole,
    "n": whole, "presence_penalty": number, "frequency_penalty": number, "logprobs": flag, "top_logprobs": whole,
}  # fmt: skip


def decode_request(wire: Wire, at: Endpoint) -> Request:
    """See `ServerSide.decode_request`. Null is as good as nothing here, as in all JSON of protocol buffers."""
    try:
        return _request(named(client_object(wire)), wire, at)
    except RecursionError:
        raise InputError("the request is nested too deeply") from None


def _request(body: Json, wire: Wire, at: Endpoint) -> Request:
    model, stream = model_in(wire.path)
    model = model or told(body, "model", text)
    if not model:
        raise missing("model", "put it into the path: /models/MODEL:generateContent")
    extra = {key: value for key, value in body.items() if key not in _TOP and value is not None}
    reading = _Conversation(at)
    messages = reading.system(body) + reading.contents(told(body, "contents", sequence) or [])
    said: Json = {}
    if (config := told(body, "generationConfig", mapping)) is not None:
        said = _config(dict(named(config)), extra, at)
    if (choice := told(body, "toolConfig", mapping)) is not None:
        said["tool_choice"] = _tool_choice(dict(named(choice)), extra)
    return Request(
        model=model,
        messages=tuple(messages),
        tools=tuple(_tools(told(body, "tools", sequence) or [], at)),
        metadata=field(body, "labels", by_name(text)),
        service_tier=_tier(body, extra),
        stream=stream,
        extra={NAME: extra} if extra else {},
        **said,
    )


def _tier(body: Json, extra: Json) -> str | UnsetType:
    tier = told(body, "serviceTier", text)
    if tier is None:
        return UNSET
    if tier.lower() in TIERS:
        return tier.lower()
    extra["serviceTier"] = tier
    return UNSET


# ---- tools ------------------------------------------------------------------------------------

_FUNCTION = frozenset({"name", "description", "parameters", "parametersJsonSchema"})
_MODES = {"AUTO": "auto", "NONE": "none", "ANY": "required", "VALIDATED": "auto"}


def _tools(raws: list[Any], at: Endpoint) -> list[Tool | Opaque]:
    """The tools, one by one: an entry may hold many functions, and tools that the server runs beside them."""
    found: list[Tool | Opaque] = []
    for place, raw in enumerate(raws):
        where = f"tools[{place}]"
        entry = named(mapping(raw, where))
        functions = told(entry, "functionDeclarations", sequence, where) or []
        found += [_function(one, f"{where}.functionDeclarations[{i}]") for i, one in enumerate(functions)]
        others = ((key, value) for key, value in entry.items() if key != "functionDeclarations" and value is not None)
        found += [Opaque(NAME, key, {key: value}, at.origin) for key, value in others]
    return found


def _function(raw: Any, where: str) -> Tool:
    function = named(mapping(raw, where))
    schema = told(function, "parametersJsonSchema", mapping, where)
    older = told(function, "parameters", mapping, where)
    known = _FUNCTION
    if schema is not None and older is not None:
        known -= {"parameters"}
    return Tool(
        name=needed(function, "name", text, where),
        description=told(function, "description", text, where),
        parameters=(json_schema(older) if older is not None else {}) if schema is None else schema,
        extra=rest_of({key: value for key, value in function.items() if value is not None}, known),
    )


def _tool_choice(config: Json, extra: Json) -> ToolChoice | UnsetType:
    """Whether tools must be called, and which; what else configures them goes to extra."""
    where = "toolConfig.functionCallingConfig"
    calling = dict(named(take(config, "functionCallingConfig", mapping, "toolConfig") or {}))
    mode, names = take(calling, "mode", text, where), take(calling, "allowedFunctionNames", texts, where) or ()
    said = (mode or "").upper()
    choice: ToolChoice | UnsetType = UNSET
    if said in _MODES:
        choice = ToolChoice(_MODES[said])  # type: ignore[arg-type]  # the table's values are modes
        if names and said in ("ANY", "VALIDATED"):
            choice = ToolChoice(choice.mode, names, subset=said == "VALIDATED" or len(names) > 1)
        elif names:
            calling["allowedFunctionNames"] = list(names)
        elif said == "VALIDATED":
            calling["mode"] = said
    elif mode is not None or names:
        calling |= {"mode": mode, "allowedFunctionNames": list(names)}
    left = {key: value for key, value in calling.items() if value is not None}
    if left:
        config["functionCallingConfig"] = left
    if config:
        extra["toolConfig"] = config
    return choice


# ---- generationConfig -------------------------------------------------------------------------


def _config(config: Json, extra: Json, at: Endpoint) -> Json:
    """The fields of ours that a generationConfig says; what has no field of ours goes to extra."""
    where = "generationConfig"
    said: Json = {}
    for name, key in SETTINGS:
        if key in config and (value := take(config, key, _SETTING[name], where)) is not None:
            said[name] = value
    modalities = take(config, "responseModalities", texts, where)
    if modalities is not None:
        said["modalities"] = tuple([modality.lower() for modality in modalities])
    if (thinking := take(config, "thinkingConfig", mapping, where)) is not None:
        said["thinking"] = _thinking(dict(named(thinking)), at)
    said["response_format"] = _format(config)
    if (voice := _voice(config.get("speechConfig"))) is not None:
        del config["speechConfig"]
        said["audio"] = {"voice": voice}
    if left := {key: value for key, value in config.items() if value is not None}:
        extra["generationConfig"] = left
    return said


def _format(config: Json) -> ResponseFormat | UnsetType:
    where = "generationConfig"
    kind = told(config, "responseMimeType", text, where)
    schema = told(config, "responseJsonSchema", mapping, where)
    older = told(config, "responseSchema", mapping, where)
    if kind not in (None, "application/json"):
        if kind != "text/plain" or schema is not None or older is not None:
            return UNSET  # of a kind that is its inventor's own: all of it goes to extra
        del config["responseMimeType"]
        return ResponseFormat("text")
    config.pop("responseMimeType", None)
    if schema is not None:
        return ResponseFormat("schema", config.pop("responseJsonSchema"))
    if older is not None:
        return ResponseFormat("schema", json_schema(config.pop("responseSchema")))
    return UNSET if kind is None else ResponseFormat("json")


def _thinking(config: Json, at: Endpoint) -> Thinking | UnsetType:
    where = "generationConfig.thinkingConfig"
    level = told(config, "thinkingLevel", text, where)
    budget = told(config, "thinkingBudget", whole, where)
    told(config, "includeThoughts", flag, where)
    facts: Json = {}
    if level is not None and level.lower() in LEVELS:
        del config["thinkingLevel"]
        facts["effort"] = level.lower()
    elif level is None and budget is not None:
        del config["thinkingBudget"]
        facts["enabled"] = budget != 0
        if budget not in (0, DYNAMIC):
            facts["budget_tokens"] = budget
    if facts.get("enabled") is not False and facts and at.options.get("include_thoughts") is True:
        # The endpoint asks for them by itself.
        if config.get("includeThoughts") is True:
            del config["includeThoughts"]
    left = {key: value for key, value in config.items() if value is not None}
    return Thinking(**facts, extra={NAME: left} if left else {}) if facts or left else UNSET


def _voice(speech: Any) -> str | None:
    """The voice, where that is all that is said of speech."""
    for key in ("voiceConfig", "prebuiltVoiceConfig", "voiceName"):
        if not isinstance(speech, dict) or len(speech) != 1:
            return None
        speech = named(speech).get(key)
    return string(speech)


# ---- contents ---------------------------------------------------------------------------------

_ROLE = one_of("user", "model", "function")
_CONTENT = frozenset({"role", "parts"})
_RESULT = frozenset({"id", "name", "response", "parts"})
_FITS: dict[str, Check] = {
    "text": text,
    "thought": flag,
    "thoughtSignature": text,
    "inlineData": mapping,
    "fileData": mapping,
    "functionCall": mapping,
    "functionResponse": mapping,
}
_INLINE = members({"mimeType": text, "data": text, "displayName": text}, "mimeType", "data", others=True)
_LINKED = members({"mimeType": text, "fileUri": text, "displayName": text}, "fileUri", others=True)


class _Waiting(NamedTuple):
    """A call without a result yet: the id the client knows it by, None where it gave none, and its name."""

    given: str | None
    call_id: str
    name: str


class _Conversation:
    """What reading a conversation carries along: names for calls without ids, and the calls that results answer."""

    def __init__(self, at: Endpoint) -> None:
        self._at = at
        self._names: dict[str, str] = {}
        self._turn: set[str] = set()
        self._waiting: list[_Waiting] = []

    def system(self, body: Json) -> list[Message]:
        """The instructions, as the message they are."""
        said = told(body, "systemInstruction", mapping)
        if said is None:
            return []
        where = "systemInstruction"
        parts = [self._part(raw, f"{where}.parts[{i}]") for i, raw in enumerate(_parts(said, where))]
        extra = rest_of({key: value for key, value in said.items() if value is not None}, frozenset({"parts"}))
        return [Message("system", tuple(parts), extra=extra)] if parts or extra else []

    def contents(self, contents: list[Any]) -> list[Message]:
        """The turns; what tools gave is a message of its own."""
        found: list[Message] = []
        for place, raw in enumerate(contents):
            where = f"contents[{place}]"
            content = mapping(raw, where)
            role = told(content, "role", _ROLE, where) or "user"
            parts: list[Part] = []
            results: list[Part] = []
            if role == "model" and found and found[-1].role != "assistant":
                self._turn, self._waiting = set(), []
            for spot, wire in enumerate(_parts(content, where)):
                part = self._part(wire, f"{where}.parts[{spot}]")
                (results if isinstance(part, ToolResult) else parts).append(part)
            extra = rest_of(content, _CONTENT)
            if results:
                found.append(Message("tool", tuple(results), extra={} if parts else extra))
            if parts or not results:
                found.append(Message("assistant" if role == "model" else "user", tuple(parts), extra=extra))
        return found

    def _part(self, raw: Any, where: str) -> Part:
        if type(raw) is dict and len(raw) == 1 and type(words := raw.get("text")) is str:
            return Text(words)  # the common case
        part = {key: value for key, value in named(mapping(raw, where)).items() if value is not None}
        for key, fits in _FITS.items():
            if key in part:
                fits(part[key], f"{where}.{key}")
        if "thoughtSignature" in part:
            part["thoughtSignature"] = standard(part["thoughtSignature"])
        if "functionCall" in part:
            return self._call(part, f"{where}.functionCall")
        if "functionResponse" in part:
            return self._result(part, f"{where}.functionResponse")
        if "inlineData" in part:
            _INLINE(named(part["inlineData"]), f"{where}.inlineData")
        if "fileData" in part:
            _LINKED(named(part["fileData"]), f"{where}.fileData")
        made = part_from(part, raw, self._at)
        if isinstance(made, Opaque) and made.type == "inlineData":
            raise wrong(f"{where}.inlineData.data", "must be base64")
        return made

    def _call(self, part: Json, where: str) -> ToolCall:
        call = {key: value for key, value in named(part["functionCall"]).items() if value is not None}
        name, given = needed(call, "name", text, where), told(call, "id", text, where) or None
        told(call, "args", mapping, where)
        if given is None:
            # Numbered through the conversation, so that the ids stay when it grows.
            made = fresh_id(f"call_{len(self._names)}", self._names)
        else:
            made = fresh_id(given, self._turn)
        self._names[made] = name
        self._turn.add(made)
        self._waiting.append(_Waiting(given, made, name))
        return call_from(part, call, made, self._at)

    def _result(self, part: Json, where: str) -> ToolResult:
        """What a tool gave; its name is left out where the call tells it, as it is told again from there."""
        made = {key: value for key, value in named(part["functionResponse"]).items() if value is not None}
        name, given = told(made, "name", text, where), told(made, "id", text, where) or None
        call = self._answered(given, name)
        words, is_error = words_of(told(made, "response", mapping, where) or {})
        raws = told(made, "parts", sequence, where) or []
        media = [self._part(raw, f"{where}.parts[{i}]") for i, raw in enumerate(raws)]
        extra: Extra = rest_of(part, frozenset({"functionResponse"}))
        if beside := rest_of(made, _RESULT):
            extra = {NAME: {**extra.get(NAME, {}), "functionResponse": beside[NAME]}}
        return ToolResult(
            call.call_id if call is not None else given or "",
            (*words, *media),
            name=None if call is not None and name == call.name else name,
            is_error=is_error,
            extra=extra,
        )

    def _answered(self, given: str | None, name: str | None) -> _Waiting | None:
        """The call a result is for: the one it names by id, else the first of its name that waits."""
        for place, call in enumerate(self._waiting):
            if given in (call.given, call.call_id) if given is not None else name in (None, call.name):
                return self._waiting.pop(place)
        return None


def _parts(content: Json, where: str) -> list[Any]:
    return told(content, "parts", sequence, where) or []
