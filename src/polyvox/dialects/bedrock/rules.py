"""What the protocol's inventor refuses with 400 though it can be read. Where nobody is sure what it refuses,
nothing is refused here: fields nobody knows among them, and two turns of one role in a row.

Sources: the service model of the official client (botocore 1.44.5, bedrock-runtime 2023-09-30: required members,
unions, ranges, patterns, enumerations), and the messages of its recorded and documented validation errors.
"""

from __future__ import annotations

import re
from typing import Any

from polyvox.dialects import Endpoint, Wire, client_object
from polyvox.dialects.bedrock.answer import is_call
from polyvox.dialects.bedrock.facts import (
    CACHE_TTLS,
    DOCUMENT_NAME,
    FORMATS,
    KINDS,
    SERVER_TOOL,
    TAG,
    TIERS,
    kind_in,
    model_in,
)
from polyvox.dialects.bedrock.from_client import decode
from polyvox.dialects.bedrock.scope import Block
from polyvox.dialects.checks import between, count, filled, members, name
from polyvox.dialects.shapes import each, mapping, missing, needed, one_of, sequence, text, told, wrong

# The name of a stored prompt stands for its messages, so such a request needs none.
_PROMPT = re.compile(r"arn:aws[^:]*:bedrock:.*:prompt/.*")
_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_S3 = re.compile(r"s3://[a-z0-9][.\-a-z0-9]{1,61}[a-z0-9](/.*)?", re.DOTALL)
_MOST_TAGS, _MOST_STOPS, _LONGEST_EFFORT, _MOST_PATHS = 16, 2500, 16, 10
_TOOL_NAME = name(64)
_FORM = {kind: one_of(*formats) for kind, formats in FORMATS.items()}


def check(wire: Wire) -> None:
    """Raises InputError, with `param`, for what the protocol's inventor refuses, unreadable requests included."""
    decode(wire, Endpoint())
    body, (model, _) = client_object(wire), model_in(wire.path)
    _VALUES(body, "")
    _tools(body)
    if body.get("messages") or not _PROMPT.fullmatch(model or ""):
        _messages(body)


# ---- fields -----------------------------------------------------------------------------------


def _words(value: Any, where: str) -> None:
    if not text(value, where):
        raise wrong(where, "must not be empty")


def _stops(value: Any, where: str) -> None:
    each(_words)(value, where)
    if len(value) > _MOST_STOPS:
        raise wrong(where, f"must have at most {_MOST_STOPS} items")


def _effort(value: Any, where: str) -> None:
    if len(text(value, where)) > _LONGEST_EFFORT:
        raise wrong(where, f"must have at most {_LONGEST_EFFORT} characters")


def _paths(value: Any, where: str) -> None:
    each(_words)(value, where)
    if len(value) > _MOST_PATHS:
        raise wrong(where, f"must have at most {_MOST_PATHS} items")


def _tags(value: Any, where: str) -> None:
    if not value:
        raise wrong(where, "must not be empty")
    if len(value) > _MOST_TAGS:
        raise wrong(where, f"must have at most {_MOST_TAGS} tags")
    for key, said in value.items():
        if not key or not TAG.fullmatch(key) or not TAG.fullmatch(said):
            raise wrong(f"{where}.{key}", "must be of letters, digits, spaces and :_@$#=/+,.-, at most 256")


_VALUES = members(
    {
        "inferenceConfig": members(
            {"maxTokens": count(1), "temperature": between(0, 1), "topP": between(0, 1), "stopSequences": _stops},
            others=True,
        ),
        "outputConfig": members({"effort": _effort}, others=True),
        "serviceTier": members({"type": one_of(*TIERS)}, "type", others=True),
        "performanceConfig": members({"latency": one_of("standard", "optimized")}, others=True),
        "guardrailConfig": members(
            {
                "guardrailIdentifier": text,
                "guardrailVersion": text,
                "trace": one_of("enabled", "disabled", "enabled_full"),
                "streamProcessingMode": one_of("sync", "async"),
            },
            others=True,
        ),
        "additionalModelResponseFieldPaths": _paths,
        "promptVariables": mapping,
        "requestMetadata": _tags,
    },
    others=True,
)


def _one_member(union: Any, where: str) -> str:
    """The member of a union; one with several is none."""
    said = [key for key, value in mapping(union, where).items() if value is not None]
    if len(said) != 1:
        raise wrong(where, f"must have one member, not {' and '.join(said) or 'none'}")
    return said[0]


_POINT = members({"type": one_of("default"), "ttl": one_of(*CACHE_TTLS)}, "type", others=True)


def _tools(body: Block) -> None:
    config = body.get("toolConfig")
    if config is None:
        return
    for place, tool in enumerate(filled(config.get("tools"), "toolConfig.tools")):
        where = f"toolConfig.tools[{place}]"
        kind = _one_member(tool, where)
        inside = f"{where}.{kind}"
        if kind == "cachePoint":
            _POINT(tool[kind], inside)
        elif kind in ("toolSpec", "systemTool"):
            needed(mapping(tool[kind], inside), "name", _TOOL_NAME, inside)
            told(tool[kind], "description", _words, inside)
    choice = config.get("toolChoice")
    if choice is not None and _one_member(choice, "toolConfig.toolChoice") not in ("auto", "any", "tool"):
        raise wrong("toolConfig.toolChoice", "must be auto, any or tool")


# ---- turns ------------------------------------------------------------------------------------


def _messages(body: Block) -> None:
    for place, block in enumerate(body.get("system") or ()):
        _block(block, f"system[{place}]", "instructions")
    messages = filled(body.get("messages"), "messages")
    if messages[0]["role"] == "assistant":
        raise wrong("messages[0].role", "must be user: the user's turn comes first")
    for place, message in enumerate(messages):
        where = f"messages[{place}].content"
        for number, block in enumerate(filled(message["content"], where)):
            _block(block, f"{where}[{number}]", message["role"])
            if not body.get("toolConfig") and not block.keys().isdisjoint(("toolUse", "toolResult")):
                raise missing("toolConfig", hint="offer the tools that the messages call")
    _calls(messages)


def _block(block: Block, where: str, role: str) -> None:
    """One block of a turn of this role, of the "instructions" before all turns, or of a tool's "result"."""
    kind = _one_member(block, where)
    inside, value = f"{where}.{kind}", block[kind]
    known = _KNOWN.get(role, KINDS)
    if kind not in known:
        raise wrong(where, f"must have one of {', '.join(sorted(known))}")
    if kind == "text" and not value and role != "result":
        raise wrong(inside, "must not be empty")
    if kind in FORMATS:
        _medium(kind, value, inside)
    elif kind == "cachePoint":
        _POINT(value, inside)
    elif kind == "toolUse":
        _identity(value, inside)
        needed(value, "name", _TOOL_NAME, inside)
        told(value, "type", one_of(SERVER_TOOL, "tool_use"), inside)
    elif kind == "toolResult":
        _identity(value, inside)
        for place, part in enumerate(needed(value, "content", sequence, inside)):
            _block(part, f"{inside}.content[{place}]", "result")
    if role != "assistant" and (kind == "reasoningContent" or is_call(block)):
        raise wrong(inside, "is only for turns of the assistant")


def _identity(value: Block, where: str) -> None:
    if not _ID.fullmatch(needed(value, "toolUseId", text, where)):
        raise wrong(f"{where}.toolUseId", "must be of letters, digits and _.:-, at most 64 of them")


def _medium(kind: str, value: Any, where: str) -> None:
    mapping(value, where)
    if kind != "document" or value.get("format") is not None:
        needed(value, "format", _FORM[kind], where)
    if kind == "document" and not DOCUMENT_NAME.fullmatch(needed(value, "name", text, where)):
        raise wrong(f"{where}.name", "must be of letters, digits, single spaces, hyphens, parentheses and brackets")
    held = needed(value, "source", mapping, where)
    source = _one_member(held, f"{where}.source")
    if source == "bytes" and not text(held[source], f"{where}.source.bytes"):
        raise wrong(f"{where}.source.bytes", "must not be empty")
    if source == "s3Location":
        place = f"{where}.source.s3Location"
        if not _S3.fullmatch(needed(mapping(held[source], place), "uri", text, place)):
            raise wrong(f"{place}.uri", "must be an s3:// address")


_KNOWN = {
    "instructions": frozenset({"text", "guardContent", "cachePoint"}),
    "result": frozenset({"json", "text", "image", "document", "video", "searchResult"}),
}


def _calls(messages: list[Block]) -> None:
    """Results answer calls of the turn before, each call once; and every call is answered in the next turn."""
    open_calls: dict[str, str] = {}
    for place, message in enumerate(messages):
        blocks = [(f"messages[{place}].content[{i}]", block) for i, block in enumerate(message["content"])]
        if message["role"] == "assistant":
            open_calls |= {block["toolUse"]["toolUseId"]: where for where, block in blocks if is_call(block)}
            continue
        for where, block in blocks:
            if kind_in(block) != "toolResult" or "type" in block["toolResult"]:
                continue
            identity = block["toolResult"]["toolUseId"]
            if open_calls.pop(identity, None) is None:
                raise wrong(f"{where}.toolResult.toolUseId", f"is {identity!r}, which no call of the turn before has")
        if open_calls and message["role"] == "user":
            identity, where = next(iter(open_calls.items()))
            raise wrong(
                where, f"is a call, {identity!r}, without its toolResult in the next message",
                hint="answer every toolUse in the user's message right behind it",
            )  # fmt: skip
