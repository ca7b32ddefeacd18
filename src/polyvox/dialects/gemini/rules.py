"""What the protocol's inventor refuses though it can be read: unknown fields, values out of range, turns that do not
fit together. It judges and reads nothing into it.

Sources: the field lists and enumerations of the google-genai SDK 3.4, the API's reference, and what its servers are
recorded to take.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from polyvox.dialects import Endpoint, Wire, client_object
from polyvox.dialects.checks import Check, between, count, filled, members
from polyvox.dialects.gemini.facts import Json, named
from polyvox.dialects.gemini.from_client import decode_request
from polyvox.dialects.gemini.parts_read import KINDS
from polyvox.dialects.shapes import by_name, each, flag, mapping, one_of, sequence, text, whole, wrong
from polyvox.errors import InputError

# What stands under these is the client's own: keys there are names, not fields.
_OPEN = frozenset({
    "args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema", "labels",
    "partMetadata",
})  # fmt: skip
_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_MOST_STOPS = 5
_MOST_CANDIDATES = 8


def _anything(value: Any, where: str) -> None:
    """Some value; what it may be is not known here."""


def _name(value: Any, where: str) -> None:
    if not _FUNCTION_NAME.fullmatch(text(value, where)):
        raise wrong(where, "must begin with a letter or _, and go on with letters, digits, _, ., : and -, 128 at most")


def _word(*words: str) -> Check:
    """One of the words of an enumeration, in letters of either case."""
    fits = one_of(*words)

    def check(value: Any, where: str) -> None:
        fits(text(value, where).upper(), where)

    return check


def _stops(value: Any, where: str) -> None:
    each(text)(filled(value, where, _MOST_STOPS), where)


def _some(*names: str) -> dict[str, Check]:
    return dict.fromkeys(names, _anything)


_FUNCTION = members(
    {"name": _name, "description": text, "behavior": text, "parameters": mapping, "response": mapping,
     **_some("parametersJsonSchema", "responseJsonSchema")},
    "name",
)  # fmt: skip
_TOOL = members(
    {"functionDeclarations": each(_FUNCTION),
     **dict.fromkeys((
         "retrieval", "computerUse", "fileSearch", "googleSearch", "googleMaps", "codeExecution",
         "enterpriseWebSearch", "googleSearchRetrieval", "parallelAiSearch", "urlContext", "exaAiSearch"), mapping),
     "mcpServers": sequence}
)  # fmt: skip
_THINKING = members(
    {"includeThoughts": flag, "thinkingBudget": count(-1),
     "thinkingLevel": _word("THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")}
)  # fmt: skip
_CONFIG = members(
    {
        "temperature": between(0, 2), "topP": between(0, 1), "topK": between(0, 2**31 - 1),
        "candidateCount": count(1, _MOST_CANDIDATES), "maxOutputTokens": count(1), "stopSequences": _stops,
        "responseLogprobs": flag, "logprobs": count(0, 20), "presencePenalty": between(-2, 2),
        "frequencyPenalty": between(-2, 2), "seed": whole, "responseMimeType": text, "responseSchema": mapping,
        "responseModalities": each(_word("MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO", "VIDEO")),
        "mediaResolution": text, "speechConfig": mapping, "thinkingConfig": _THINKING, "imageConfig": mapping,
        "audioTimestamp": flag, "enableAffectiveDialog": flag, "enableEnhancedCivicAnswers": flag,
        **_some("responseJsonSchema", "audioTranscriptionConfig", "routingConfig", "modelSelectionConfig",
                "responseFormat", "translationConfig"),
    }
)  # fmt: skip
_CALLING = members(
    {"mode": _word("MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"), "allowedFunctionNames": each(text),
     "streamFunctionCallArguments": flag}
)  # fmt: skip
_CALL = members(
    {"id": text, "name": _name, "args": mapping, "partialArgs": sequence, "willContinue": flag}, "name"
)  # fmt: skip
_RESPONSE = members(
    {"id": text, "name": _name, "response": mapping, "parts": sequence, "scheduling": text, "willContinue": flag},
    "name", "response",
)  # fmt: skip
_PART = members(
    {
        "text": text, "thought": flag, "thoughtSignature": text, "functionCall": _CALL, "functionResponse": _RESPONSE,
        "inlineData": members({"mimeType": text, "data": text, "displayName": text}, "mimeType", "data"),
        "fileData": members({"mimeType": text, "fileUri": text, "displayName": text}, "fileUri"),
        **dict.fromkeys(("executableCode", "codeExecutionResult", "toolCall", "toolResponse", "videoMetadata",
                         "partMetadata"), mapping),
        **_some("mediaResolution", "audioTranscription", "mediaProcessing", "speechMetadata", "documentMetadata",
                "spreadsheetMetadata", "audioMetadata"),
    }
)  # fmt: skip
_CONTENT = members({"role": one_of("user", "model", "function"), "parts": each(_PART)})
_BODY = members(
    {
        "contents": each(_CONTENT), "systemInstruction": members({"role": text, "parts": each(_PART)}),
        "tools": each(_TOOL), "generationConfig": _CONFIG, "model": text, "cachedContent": text,
        "toolConfig": members({"functionCallingConfig": _CALLING, "retrievalConfig": mapping,
                               "includeServerSideToolInvocations": flag}),
        "safetySettings": each(members({"category": text, "threshold": text, "method": text}, "category", "threshold")),
        "labels": by_name(text), "serviceTier": _word("UNSPECIFIED", "FLEX", "STANDARD", "PRIORITY"),
        "continuationToken": text, "store": flag, "modelArmorConfig": mapping, "generationOutputConfig": mapping,
    },
    "contents",
)  # fmt: skip


def check_request(wire: Wire) -> None:
    """See `ServerSide.check_request`."""
    try:
        body = _spelled(client_object(wire))
        _BODY(body, "")
    except RecursionError:
        raise InputError("the request is nested too deeply") from None
    decode_request(wire, Endpoint())  # what cannot be read is refused too
    _turns(body)
    _tools(body)
    _config(body.get("generationConfig") or {})


def _spelled(value: Any) -> Any:
    """The request with all its fields in camel case."""
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: item if key in _OPEN else _spelled(item) for key, item in named(value).items()}


def _turns(body: Json) -> None:
    """Turns hold parts, parts hold one thing each, and the results in a turn are as many as the calls before it."""
    contents = filled(body["contents"], "contents")
    calls: Counter[str] = Counter()
    for place, content in enumerate(contents):
        where = f"contents[{place}].parts"
        parts = filled(content.get("parts") or [], where)
        results: Counter[str] = Counter()
        made: Counter[str] = Counter()
        for spot, part in enumerate(parts):
            kinds = [kind for kind in KINDS if part.get(kind) is not None]
            if len(kinds) > 1:
                raise wrong(f"{where}[{spot}]", f"must hold one thing, not both {kinds[0]} and {kinds[1]}")
            if "functionCall" in kinds:
                made[part["functionCall"]["name"]] += 1
            if "functionResponse" in kinds:
                results[part["functionResponse"]["name"]] += 1
        if content.get("role") == "model":
            calls += made
            continue
        if results.total() != calls.total() or (calls and results - calls):
            raise wrong(where, "must answer each function call of the turn before it with one functionResponse")
        calls = Counter()
    if calls:
        raise wrong("contents", "must not end with function calls that nothing answers")


def _tools(body: Json) -> None:
    declared: list[str] = []
    for place, tool in enumerate(body.get("tools") or ()):
        for spot, function in enumerate(tool.get("functionDeclarations") or ()):
            where = f"tools[{place}].functionDeclarations[{spot}]"
            if function["name"] in declared:
                raise wrong(f"{where}.name", f"is {function['name']!r}, as another function's is")
            if function.get("parameters") is not None and function.get("parametersJsonSchema") is not None:
                raise wrong(f"{where}.parameters", "must be left out beside parametersJsonSchema")
            declared.append(function["name"])
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    names, where = calling.get("allowedFunctionNames") or [], "toolConfig.functionCallingConfig.allowedFunctionNames"
    if names and (calling.get("mode") or "").upper() not in ("ANY", "VALIDATED"):
        raise wrong(where, "must be left out where the mode is not ANY or VALIDATED")
    for spot, name in enumerate(names):
        if name not in declared:
            raise wrong(f"{where}[{spot}]", "must be the name of a function that is declared")


def _config(config: Json) -> None:
    where = "generationConfig"
    schemas = [key for key in ("responseSchema", "responseJsonSchema") if config.get(key) is not None]
    if len(schemas) > 1:
        raise wrong(f"{where}.responseSchema", "must be left out beside responseJsonSchema")
    if schemas and config.get("responseMimeType") not in ("application/json", "text/x.enum"):
        raise wrong(f"{where}.responseMimeType", "must be application/json or text/x.enum beside a schema")
    thinking = config.get("thinkingConfig") or {}
    if thinking.get("thinkingLevel") is not None and thinking.get("thinkingBudget") is not None:
        raise wrong(f"{where}.thinkingConfig", "must have a level or a budget, not both")
    if config.get("logprobs") is not None and config.get("responseLogprobs") is not True:
        raise wrong(f"{where}.logprobs", "needs responseLogprobs")
