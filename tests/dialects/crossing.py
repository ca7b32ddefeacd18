"""What a request or an answer says, fact by fact and each with its place, so that what a crossing into another dialect
and back has changed can be held against the losses it told. It knows no dialect."""

import base64
import json
import re
from collections import Counter

from msgspec import UNSET
from msgspec.structs import replace

from polyvox.types import (
    Audio,
    File,
    Image,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    ResponseFormat,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
    Video,
)
from tests.dialects import matrix

# The kinds of facts that stand at a place of a conversation, and the words a loss of one has behind that place. A
# medium in a result is lost with the words around it, or goes where they do.
ABOUT = {
    "words": r"^$|text|words|refusal|file|audio|transcript|tool_result|parts|role|content|message",
    "calls": r"^$|tool_call|arguments|id$|name|kind|parts|message",
    "results": r"^$|parts|is_error|result|call_id|image|audio|video|name|file|text|opaque",
    "media": r"^$|image|audio|video|file|url|detail|media_type|name|transcript|text|data|parts|message",
    "thoughts": r"^$|reasoning|thinking|parts|message",
    "proofs": r"^$|reasoning|signature|encrypted|thinking|extra|parts|message",
    "opaque": r"^$|opaque|parts|tools|extra|reasoning|message",
    "citations": r"^$|citation|annotations|parts|text|message",
    "caches": r"^$|cache|text|image|audio|video|file|parts|tool_result",
    "names": r"^$|name|image|audio|video|file|parts|message",
}
JOINED = ("words", "thoughts")
# Facts that stand at no place: the words a loss of one begins with.
SETTING = {"tools": r"tools|tool_choice", "tool_choice": r"tool_choice|tools", "user": r"user|metadata",
           "metadata": r"metadata|user", "cache": r"cache|messages\[", "logprobs": r"logprobs|top_logprobs",
           "top_logprobs": r"top_logprobs|logprobs",
           "choices": r"choices|candidates|n$|finish_reason|logprobs",
           "thinking": r"thinking$|thinking\.(enabled|effort|budget_tokens|mode)$",
           "thinking.effort": r"thinking$|thinking\.effort",
           "thinking.budget_tokens": r"thinking$|thinking\.budget_tokens",
           "thinking.mode": r"thinking$|thinking\.mode"}  # fmt: skip
SETTINGS = [name for name in Request.__struct_fields__ if name not in ("messages", "tools", "extra", "model")]
# What is the case anyway; to leave it out changes nothing.
ASKS_FOR_NOTHING = {
    "n": (1,), "presence_penalty": (0,), "frequency_penalty": (0,), "logprobs": (False,), "top_logprobs": (0,),
    "parallel_tool_calls": (True,), "service_tier": ("auto",),
    "response_format": (ResponseFormat(),), "logit_bias": ({},), "metadata": ({},), "modalities": (("text",),),
    "stop": ((),), "audio": ({},), "verbosity": ("medium",), "user": ("",), "cache_key": ("",),
}  # fmt: skip


def meaning_of_json(text):
    """JSON by what it says: protocols that hold it as an object, not as text, keep no spaces and no order."""
    try:
        return json.dumps(json.loads(text) if text.strip() else {}, sort_keys=True)
    except ValueError:
        return text


EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")


# ---- what stands at a place -------------------------------------------------------------------


def of_parts(parts, where):
    """(kind, place, value) of all that parts say."""
    for number, part in enumerate(parts):
        place = f"{where}.parts[{number}]"
        yield from _FACTS[type(part)](part, place)
        if getattr(part, "cache", None) is not None:
            yield "caches", place, part.cache.ttl


def _text(part, place):
    yield "words", place, part.text
    if part.signature:
        yield "proofs", place, (part.signature, None)
    for citation in part.citations:
        yield "citations", place, (citation.url, citation.title or None)


def _call(part, place):
    yield "calls", place, (part.name, meaning_of_json(part.arguments))
    if part.signature:
        yield "proofs", place, (part.signature, None)


def _result(part, place):
    words = "".join(inner.text for inner in part.parts if type(inner) is Text)
    yield "results", place, (meaning_of_json(words) if words.lstrip().startswith("{") else words, part.is_error)
    rest = ((number, inner) for number, inner in enumerate(part.parts) if type(inner) is not Text)
    for number, inner in rest:
        yield from _FACTS[type(inner)](inner, f"{place}.parts[{number}]")


def _media(part, place):
    # A file of sound is a sound: where both are told by their type alone, that is what tells them apart.
    told = (part.media_type or "").partition("/")[0]
    kind = told if told in ("image", "audio", "video") else type(part).__name__.lower()
    # Whether a link is one to a file that the provider keeps, only that provider knows; bytes may be in the link.
    link, data = part.url if part.url is not None else part.file_id, part.data
    if link is not None and link.startswith("data:"):
        link, data = None, base64.b64decode(link.partition(",")[2])
    if data is not None:
        link = None  # the bytes are all of it
    yield "media", place, (kind, data, link, getattr(part, "text", None))
    if part.name is not None:
        yield "names", place, part.name


def _reasoning(part, place):
    yield "thoughts", place, part.text
    if part.signature or part.encrypted:  # an empty one proves nothing
        yield "proofs", place, (part.signature, part.encrypted)


_FACTS = {
    Text: _text,
    Refusal: lambda part, place: [("words", place, part.text)],
    ToolCall: _call,
    ToolResult: _result,
    Image: _media,
    Audio: _media,
    Video: _media,
    File: _media,
    Reasoning: _reasoning,
    Opaque: lambda part, place: [("opaque", place, part.type)],
}


# ---- what a request or an answer says ---------------------------------------------------------


def said_by_request(request):
    """(facts at places, facts at none) of a request."""
    placed = []
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        placed += of_parts(message.parts, where)
        if message.name is not None:
            placed.append(("names", where, message.name))
    flat = {name: matrix.plain(getattr(request, name)) for name in SETTINGS}
    for name, usual in ASKS_FOR_NOTHING.items():
        if getattr(request, name) in usual:
            flat[name] = UNSET
    if request.response_format is not UNSET:
        # Where nothing is said of it, a schema is kept to; one that asks for nothing is any object.
        strict = UNSET if request.response_format.strict is True else request.response_format.strict
        flat["response_format"] = form = matrix.plain(replace(request.response_format, strict=strict))
        if form["kind"] == "text":
            flat["response_format"] = UNSET
    flat |= _thinking(request)
    flat["tool_choice"] = _choice(request)
    if flat["modalities"] is not UNSET:
        flat["modalities"] = [word.upper() for word in request.modalities]
    # The end user is one of the tags in some protocols.
    tags = dict(request.metadata or {}) | ({"user_id": request.user} if request.user else {})
    flat["user"], flat["metadata"] = tags.get("user_id"), {key: tags[key] for key in tags if key != "user_id"}
    flat["tools"] = [
        (tool.name, tool.description or None, tool.strict is True, tool.kind)
        if not isinstance(tool, Opaque)
        else tool.type
        for tool in request.tools
    ]
    return placed, flat


def _choice(request):
    """Whether to call and what; of one function that must be called it is all the same how that is said."""
    choice = request.tool_choice
    if choice in (UNSET, ToolChoice()):
        return UNSET  # to be free is usual
    return choice.mode, choice.names, choice.subset and (choice.mode, len(choice.names)) != ("required", 1)


def _thinking(request):
    """What is asked of thinking: that it is off, or how it is on; whoever says how need not say that."""
    ask, how = request.thinking, {"effort": UNSET, "budget_tokens": UNSET, "mode": UNSET}
    if ask is UNSET:
        state = "nothing"
    elif ask.enabled is False or ask.effort == "none" or ask.budget_tokens == 0:
        state = "off"
    else:
        how = {"effort": ask.effort, "budget_tokens": ask.budget_tokens,
               "mode": UNSET if ask.mode == "adaptive" else ask.mode}  # fmt: skip
        said = ask.enabled is True or ask.mode is not UNSET or how != dict.fromkeys(how, UNSET)
        state = "on" if said else "nothing"
    flat = {"thinking": state, **{f"thinking.{name}": value for name, value in how.items()}}
    # A word for the effort that is not in the documented list is sent as it is, for whom it may concern; whoever does
    # not know it may read it as a key of its own, and then it is there.
    own = [request.extra, {} if ask is UNSET else ask.extra]
    return flat | {"own words": {word.lower() for word in _words_in(own)}}


def _words_in(value):
    """All text in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _words_in(inner)


def said_by_answer(response):
    """(facts at places, facts at none) of an answer. The word for why it ended is each protocol's own."""
    placed = list(of_parts(response.message.parts, "message"))
    for number, choice in enumerate(response.choices):
        placed += of_parts(choice.message.parts, f"choices[{number}].message")
    usage = response.usage
    flat = {
        "usage": (usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning),
        "finish_reason": (response.finish_reason or "unknown", response.raw_finish_reason),
        "stop_sequence": response.stop_sequence,
        "logprobs": matrix.plain(response.logprobs),
        "choices": [(choice.finish_reason or "unknown", matrix.plain(choice.logprobs)) for choice in response.choices],
    }
    return placed, flat


# ---- what nothing tells of --------------------------------------------------------------------


def silent(sent, got, losses):
    """The facts that did not come back as they went, or came without having been sent, and no loss speaks of them."""
    fields = [loss.field for loss in losses]
    (placed, flat), (placed_back, flat_back) = sent, got
    if "thinking" in flat:
        flat, flat_back = _thinking_compared(dict(flat), dict(flat_back))
    found = [
        name
        for name, value in flat.items()
        if not _same(name, value, flat_back[name])
        and not any(re.match(SETTING.get(name, name), field) for field in fields)
    ]
    for kind in JOINED:
        found += _silent_words(kind, placed, placed_back, fields)
    for kind in sorted(ABOUT.keys() - set(JOINED)):
        places = {}
        for place, value in ((place, value) for each, place, value in placed if each == kind):
            places.setdefault(repr(value), []).append(place)
        heard = Counter(repr(value) for each, _, value in placed_back if each == kind)
        for value, where in places.items():
            # Which of several that say the same is missing cannot be seen: as many must be told of.
            if sum(_is_told(kind, place, fields) for place in where) < len(where) - heard.pop(value, 0):
                found.append((kind, where, value))
        if heard and not any(_speaks_of(kind, field) for field in fields):
            found.append((kind, "made up", sorted(heard)))
    return found


def _thinking_compared(flat, flat_back):
    """Both, without what cannot be compared. A word for the effort that nobody knows is in its place where it came back
    among a dialect's own; how it is on says nothing where it was to be off, and a loss tells that it is not."""
    del flat["own words"]
    word, kept = flat["thinking.effort"], flat_back.pop("own words")
    unknown = word is not UNSET and word not in EFFORTS
    if unknown and flat_back["thinking.effort"] is UNSET and flat_back["thinking"] != "off" and word.lower() in kept:
        flat_back |= {"thinking": "on", "thinking.effort": word}
    if flat["thinking"] == "off":
        flat = {name: value for name, value in flat.items() if not name.startswith("thinking.")}
    return flat, flat_back


def _same(name, sent, got):
    return sent == got or (name == "finish_reason" and sent[0] == got[0])


def _silent_words(kind, placed, placed_back, fields):
    """Words come back in their order, however they were cut into parts; what is missing is told where it stood."""
    said = [(place, value) for each, place, value in placed if each == kind]
    heard = "".join(value for each, _, value in placed_back if each == kind)
    if "".join(value for _, value in said) == heard:
        return []
    # White space at the end of a begun answer is cut where it is refused, which is told of all messages.
    as_sent = str.rstrip if "messages" in fields else str
    missing = [(kind, place, value) for place, value in said if as_sent(value) not in heard]
    untold = [fact for fact in missing if not _is_told(kind, fact[1], fields)]
    if not untold and not any(_speaks_of(kind, field) for field in fields):
        return [(kind, "changed", heard)]
    return untold


def _is_told(kind, place, fields):
    """Whether a loss names the place, or the message around it, and speaks of what stood there."""
    if place.startswith("choices"):
        # Said of all of them; and some streams tell the place in an answer, not in which of several.
        if "choices" in fields or _is_told(kind, place.partition("].")[2], fields):
            return True
    around = place.partition(".parts")[0]
    for field in fields:
        if field.startswith(place) and re.search(ABOUT[kind], field[len(place) :].lstrip(".")):
            return True
        if field == around or (field.startswith(around + ".") and "parts" not in field[len(around) :]):
            return True
        if place.startswith(field + ".") and ".parts[" in field:
            return True
    return False


def _speaks_of(kind, field):
    """Whether a loss may be about facts of this kind wherever they stand."""
    if field in ("choices", "messages") or (kind == "caches" and field == "cache"):
        return True
    return field.startswith(("message", "choices")) and re.search(ABOUT[kind].replace("^$|", ""), field) is not None
