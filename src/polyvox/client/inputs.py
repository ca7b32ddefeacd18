"""What callers pass (text, parts, messages, paths, dicts) as one Request. It finds out what is wrong
with it before anything is sent; it knows no provider."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from polyvox.client.check import answered, shown, sound, table, text_or_none
from polyvox.errors import InputError
from polyvox.fetch import Rules
from polyvox.fetch.kinds import data_url, media_type_of
from polyvox.types import (
    PART_TYPES,
    ROLES,
    Audio,
    CacheHint,
    Extra,
    File,
    Image,
    Media,
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
    Video,
)

Prompt: TypeAlias = str | Part | Message | Request | Sequence[Any]
"""Text, a part, a message, or a sequence of any of these and of {"role", "content"} dicts."""

MAX_ATTACHMENT = 64 * 1024 * 1024


class Options(TypedDict, total=False):
    """Everything a call may say beside its prompt; what is left out never reaches the wire.

    Names are those of `Request`. effort is short for thinking=Thinking(effort=...); schema asks for an
    answer of that type or JSON Schema; tools takes functions, types, schemas and `Tool`s;
    extra_body are keys for the wire body, verbatim.
    """

    tools: Sequence[Any]
    tool_choice: str | ToolChoice
    parallel_tool_calls: bool
    response_format: str | dict[str, Any] | ResponseFormat | type
    schema: dict[str, Any] | type
    thinking: Thinking | bool
    effort: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    stop: str | Sequence[str]
    seed: int
    n: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: dict[str, float]
    logprobs: bool
    top_logprobs: int
    modalities: Sequence[str]
    audio: dict[str, Any]
    verbosity: str
    user: str
    metadata: dict[str, str]
    service_tier: str
    cache_key: str
    prompt_cache: CacheHint | bool | str
    extra: Extra


class Said(Options, total=False):
    """All that one call may say: the options, and how the call is made. See `AsyncClient.ask`."""

    model: str | Sequence[str] | None
    tier: str | None
    system: str | None
    attachments: Iterable[Any]
    timeout: float | None
    headers: Mapping[str, str] | None
    extra_body: Mapping[str, Any] | None
    strict: bool | None
    fetch: bool | Rules | None
    upgrade: bool | None
    cached: bool | Literal["refresh", "only"] | None
    tags: Iterable[str] | None
    project: str | None
    session: str | None
    tenant: str | None


OPTION_NAMES = frozenset(Options.__annotations__)
OF_CALL = frozenset(Said.__annotations__) - OPTION_NAMES
# What is said once, to the client, and not to a call.
_CLIENTS = ("base_url", "api_key", "dialect", "retries", "settings", "transport", "record", "replay", "backend",
            "hooks", "ledger", "budgets", "registry", "routing", "limits")  # fmt: skip


# ---- the prompt -------------------------------------------------------------------------------


def as_messages(
    prompt: Any, system: str | None = None, attachments: Iterable[Any] = (), *, whole: bool = True
) -> tuple[Message, ...]:
    """The prompt as messages, the system text first, attachments on the last user turn. whole says that this
    is all that is sent, so that every tool call must have its result in it."""
    if system is None and type(prompt) is str and not attachments and prompt and not prompt.isspace():
        return (Message("user", (Text(prompt),)),)
    messages = _messages(prompt)
    if isinstance(attachments, str | bytes) or not isinstance(attachments, Iterable):
        raise InputError(f"attachments must be a sequence, not {shown(attachments)}", hint='say attachments=["a.png"]')
    parts = tuple([attachment(thing) for thing in attachments])
    if parts:
        if messages and messages[-1].role == "user":
            messages[-1] = replace(messages[-1], parts=messages[-1].parts + parts)
        else:
            messages.append(Message("user", parts))
    if not any(message.parts for message in messages):
        raise InputError("the prompt is empty", hint="say something, or attach a file")
    if text_or_none("system", system) is not None:
        assert system is not None
        messages.insert(0, Message("system", (Text(system),)))
    found = tuple(messages)
    if whole:
        answered(found)
    return found


def _messages(prompt: Any) -> list[Message]:
    if type(prompt) is str:
        return [Message("user", (Text(prompt),))] if prompt.strip() else []
    if isinstance(prompt, Message):
        return [_checked(prompt)]
    if isinstance(prompt, PART_TYPES):
        return [Message("user", (_checked_part(prompt),))]
    if isinstance(prompt, Mapping):
        return [_from_dict(prompt)]
    if isinstance(prompt, str | bytes | bytearray) or not isinstance(prompt, Iterable):
        if isinstance(prompt, str):
            return _messages(str(prompt))
        raise InputError(
            f"a prompt is text, a part, a message or a sequence of them, not {type(prompt).__name__}",
            hint='for example: ask("What is this?", attachments=["photo.png"])',
        )
    messages: list[Message] = []
    loose: list[Part] = []
    for item in prompt:
        if isinstance(item, Message | Mapping):
            if loose:
                messages.append(Message("user", tuple(loose)))
                loose = []
            messages.append(_checked(item) if isinstance(item, Message) else _from_dict(item))
        elif isinstance(item, str):
            loose.append(Text(item))
        elif isinstance(item, PART_TYPES):
            loose.append(_checked_part(item))
        else:
            raise InputError(f"a prompt cannot hold {type(item).__name__}", hint="use text, parts or messages")
    if loose:
        messages.append(Message("user", tuple(loose)))
    return messages


def _checked(message: Message) -> Message:
    parts: Any = message.parts
    if message.role not in ROLES:
        raise InputError(f"a message cannot have the role {message.role!r}", hint=f"roles are {', '.join(ROLES)}")
    if isinstance(parts, str):
        return replace(message, parts=(Text(parts),))
    if not isinstance(parts, Iterable):
        raise InputError(f"Message.parts is a sequence of parts, not {shown(parts)}")
    return sound(replace(message, parts=tuple([_checked_part(part) for part in parts])))


def _checked_part(part: Any) -> Part:
    if not isinstance(part, PART_TYPES):
        raise InputError(f"a message cannot hold {type(part).__name__}", hint='parts are values such as Text("hello")')
    checked: Part = sound(part)
    if isinstance(checked, Media):
        given = [name for name in ("data", "url", "file_id") if getattr(checked, name) is not None]
        if len(given) != 1 and not (isinstance(checked, File) and checked.text is not None) and not checked.origin:
            raise InputError(f"{type(checked).__name__} needs one of data, url and file_id, not {given or 'none'}")
    if isinstance(checked, ToolResult):
        return replace(checked, parts=tuple([_checked_part(inner) for inner in checked.parts]))
    return checked


def checked_request(request: Request) -> Request:
    """A whole request whose every field is what it promises; InputError otherwise."""
    return replace(sound(request), messages=tuple([_checked(message) for message in request.messages]))


# ---- {"role": ..., "content": ...} ------------------------------------------------------------


def _from_dict(raw: Mapping[str, Any]) -> Message:
    """A message in the form most programs already have: OpenAI's."""
    role, content = raw.get("role"), raw.get("content")
    if role not in ROLES:
        raise InputError(f"a message needs a role, one of {', '.join(ROLES)}; this one has {role!r}")
    unknown = {str(key) for key in raw} - {"role", "content", "name", "tool_calls", "tool_call_id"}
    if unknown:
        raise InputError(
            f"a message has role, content, name, tool_calls and tool_call_id, not {', '.join(sorted(unknown))}",
            hint="pass a polyvox.Message for anything more",
        )
    parts: list[Part] = []
    if isinstance(content, str):
        parts.append(Text(content))
    elif isinstance(content, Sequence):
        parts += [_part_from(item) for item in content]
    elif content is not None:
        raise InputError(f"content is text or a list of parts, not {type(content).__name__}")
    name = text_or_none("name", raw.get("name"))
    if role == "tool":
        return Message("tool", (ToolResult(str(raw.get("tool_call_id") or ""), tuple(parts), name),))
    parts += [_call_from(call) for call in _items("tool_calls", raw.get("tool_calls") or ())]
    return Message(role, tuple(parts), name)


def _part_from(raw: Any) -> Part:
    if isinstance(raw, str):
        return Text(raw)
    if isinstance(raw, PART_TYPES):
        return _checked_part(raw)
    kind = raw.get("type") if isinstance(raw, Mapping) else None
    if kind == "text" and isinstance(raw.get("text"), str):
        return Text(raw["text"])
    if kind == "image_url":
        inner = raw.get("image_url")
        url = inner.get("url") if isinstance(inner, Mapping) else inner
        if isinstance(url, str):
            return from_url(url, Image)
    raise InputError(f"cannot read the part {str(raw)[:80]!r}", hint="pass polyvox parts: Text, Image, Audio, File")


def _call_from(raw: Any) -> ToolCall:
    inner = raw.get("function") if isinstance(raw, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise InputError(f"cannot read the tool call {str(raw)[:80]!r}")
    return ToolCall(str(raw.get("id") or ""), inner["name"], str(inner.get("arguments") or ""))


# ---- attachments ------------------------------------------------------------------------------

_KINDS: tuple[tuple[str, Callable[..., Part]], ...] = (("image/", Image), ("audio/", Audio), ("video/", Video))


def attachment(thing: Any) -> Part:
    """A path, URL, bytes or part as a part; its kind by name, then by its first bytes."""
    if isinstance(thing, PART_TYPES):
        return _checked_part(thing)
    if isinstance(thing, bytes | bytearray):
        return from_bytes(bytes(thing))
    if isinstance(thing, str) and thing.startswith(("http://", "https://", "data:")):
        return from_url(thing)
    if isinstance(thing, str | Path):
        return from_path(Path(thing))
    raise InputError(f"cannot attach {type(thing).__name__}", hint="attach a path, a URL, bytes or a part")


def from_path(path: Path) -> Part:
    """A file as a part, read now; at most 64 MiB."""
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
            raise InputError(f"cannot attach {path}: it {what}", hint="check the path")
        size = path.stat().st_size
        if size > MAX_ATTACHMENT:
            raise InputError(f"cannot attach {path}: {size} bytes are more than {MAX_ATTACHMENT}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot attach {path}: {reason}", hint="check the path and its permissions") from None
    if not data:
        raise InputError(f"cannot attach {path}: it is empty")
    return from_bytes(data, _type_of(path.name), path.name)


def from_bytes(data: bytes, media_type: str | None = None, name: str | None = None) -> Part:
    """Bytes as the part their media type asks for; text becomes a text file."""
    media_type = media_type or media_type_of(data)
    for prefix, make in _KINDS:
        if media_type.startswith(prefix):
            return make(data, media_type=media_type, name=name)
    if media_type.startswith("text/") or media_type in ("application/json", "application/xml", "application/x-sh"):
        try:
            return File(text=data.decode(), media_type=media_type, name=name)
        except UnicodeDecodeError:
            raise InputError(
                f"cannot attach {name or 'the bytes'}: it is not UTF-8 text", hint="convert it first"
            ) from None
    return File(data, media_type=media_type, name=name)


def _type_of(name: str) -> str | None:
    import mimetypes

    return mimetypes.guess_type(name)[0]


def from_url(url: str, make: Callable[..., Part] | None = None) -> Part:
    """A URL as a part; the provider fetches it, or the client where it must. A data: URL becomes its bytes."""
    if url.startswith("data:"):
        held = data_url(url, MAX_ATTACHMENT)
        return make(held.data, media_type=held.media_type) if make else from_bytes(held.data, held.media_type)
    media_type = _type_of(url.partition("?")[0]) or ""
    if make is None:
        make = next((kind for prefix, kind in _KINDS if media_type.startswith(prefix)), File)
    return make(url=url, media_type=media_type or None)


# ---- options ----------------------------------------------------------------------------------


def request_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as fields of a Request, each checked; raises InputError with the nearest name."""
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if name not in OPTION_NAMES:
            raise _unknown_option(name)
        if value is UNSET or value is None:
            continue
        if name == "extra":
            value = {key: table(f"extra[{key!r}]", keys) for key, keys in table("extra", value).items()}
        read = _READERS.get(name)
        fields[name] = _typed(name, value) if read is None else read(value)
    if "schema" in fields:
        if "response_format" in fields:
            raise InputError("schema and response_format both say what form the answer has", hint="keep one")
        fields["response_format"] = fields.pop("schema")
    if "prompt_cache" in fields:
        fields["cache"] = fields.pop("prompt_cache")
    if "effort" in fields:
        thinking = fields.get("thinking", Thinking())
        fields["thinking"] = replace(thinking, effort=fields.pop("effort"))
    return fields


def switch(name: str, value: Any) -> bool:
    """True or False; InputError for anything else."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, not {shown(value)}", param=name)
    return value


def _unknown_option(name: str) -> InputError:
    import difflib

    if name in _CLIENTS:
        return InputError(f"{name} belongs to a client, not to a call", hint=f"say Client({name}=...).ask(...)")
    near = difflib.get_close_matches(name, {*OPTION_NAMES, *Said.__annotations__}, n=1)
    hint = f"did you mean {near[0]}?" if near else "pass keys of the wire body with extra_body={...}"
    return InputError(f"there is no option {name!r}", hint=hint)


_TYPES: dict[str, tuple[type, ...]] = {
    "parallel_tool_calls": (bool,), "logprobs": (bool,), "max_tokens": (int,), "top_k": (int,), "seed": (int,),
    "n": (int,), "top_logprobs": (int,), "temperature": (int, float), "top_p": (int, float),
    "presence_penalty": (int, float), "frequency_penalty": (int, float), "logit_bias": (dict,), "audio": (dict,),
    "verbosity": (str,), "user": (str,), "metadata": (dict,), "service_tier": (str,), "cache_key": (str,),
    "effort": (str,), "extra": (dict,),
}  # fmt: skip
_AT_LEAST: dict[str, float] = {"max_tokens": 0, "top_k": 0, "n": 1, "top_logprobs": 0, "temperature": 0, "top_p": 0}


def _typed(name: str, value: Any) -> Any:
    wanted: Any = _TYPES[name]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        words = " or ".join(kind.__name__ for kind in wanted)
        raise InputError(f"{name} must be {words}, not {shown(value)}")
    if isinstance(value, float) and not -1e308 < value < 1e308:
        raise InputError(f"{name} must be a finite number, not {value}")
    least = _AT_LEAST.get(name)
    if least is not None and value < least:
        raise InputError(f"{name} must be at least {least:g}, not {value}")
    return value


def _items(name: str, value: Any) -> list[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InputError(f"{name} must be a sequence, not {shown(value)}")
    return list(value)


def _read_tools(value: Any) -> tuple[Tool | Opaque, ...]:
    from polyvox import schema

    items = [value] if callable(value) or isinstance(value, Mapping | Tool | Opaque) else _items("tools", value)
    tools = tuple([item if isinstance(item, Opaque) else schema.tool_from(item) for item in items])
    names = [tool.name for tool in tools if isinstance(tool, Tool)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two tools are called {name!r}", hint="give each tool a name of its own")
    return tools


_CHOICES = {
    "auto": ToolChoice("auto"),
    "none": ToolChoice("none"),
    "required": ToolChoice("required"),
    "any": ToolChoice("required"),
}


def _read_tool_choice(value: Any) -> ToolChoice:
    if isinstance(value, ToolChoice):
        return value
    if not isinstance(value, str):
        raise InputError(f"tool_choice is a word, a tool's name or a ToolChoice, not {type(value).__name__}")
    return _CHOICES.get(value) or ToolChoice("required", (value,))


def _read_format(value: Any) -> ResponseFormat:
    from polyvox import schema

    return value if isinstance(value, ResponseFormat) else schema.format_from(value)


def _read_thinking(value: Any) -> Thinking:
    if isinstance(value, bool):
        return Thinking(enabled=value)
    if isinstance(value, str):
        return Thinking(effort=value)
    if not isinstance(value, Thinking):
        raise InputError(f"thinking is True, False, an effort or a Thinking, not {type(value).__name__}")
    return value


def _read_words(value: Any) -> tuple[str, ...]:
    words = (value,) if isinstance(value, str) else tuple(_items("stop and modalities", value))
    if not all(isinstance(word, str) for word in words):
        raise InputError("stop and modalities are words: text or a sequence of text")
    return words


def _read_cache(value: Any) -> CacheHint | UnsetType:
    if isinstance(value, bool):
        return CacheHint() if value else UNSET
    if not isinstance(value, CacheHint):
        raise InputError(f"cache is True or a CacheHint, not {shown(value)}")
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    "tools": _read_tools,
    "tool_choice": _read_tool_choice,
    "response_format": _read_format,
    "schema": _read_format,
    "thinking": _read_thinking,
    "stop": _read_words,
    "modalities": _read_words,
    "prompt_cache": _read_cache,
}
