"""What an answer says of how it is billed, beside its tokens: the service tier it was served in, and what is counted in
other units. It reads each dialect's words for them and knows no price."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from msgspec import UnsetType

from polyvox.dialects import integer
from polyvox.media import Pictures, Transcript
from polyvox.types import Answered, Image, Opaque, Request, Response, Usage

When: TypeAlias = dict[str, str]
Units: TypeAlias = dict[str, int]
Answer: TypeAlias = Response | Answered


class Billed(NamedTuple):
    """when holds what decides which price holds, as `polyvox.models.Price.when` says it; units counts what is beside
    the tokens of `Usage`, by the names of `polyvox.models.Price.other`: tokens, seconds, or single ones."""

    when: When
    units: Units


# Words for what is served to whoever asks for nothing in particular: they ask for no price of their own.
_USUAL = frozenset(
    {"", "auto", "default", "standard", "standard_only", "on_demand", "unspecified", "global", "not_available"}
)
# The same case by other words; the names are those of the price table.
_SAME = {
    ("service_tier", "batch"): ("processing", "batch"),
    ("service_tier", "on_demand_flex"): ("service_tier", "flex"),
    ("service_tier", "on_demand_priority"): ("service_tier", "priority"),
    ("service_tier", "provisioned_throughput"): ("service_tier", "provisioned"),
}


def billed(response: Answer, dialect: str, asked: str | None = None) -> Billed:
    """How an answer is billed. asked is the tier the request named: what was served goes before it.

    A tier that costs as usual says nothing, so that `when` is {} for nearly all answers.
    """
    said = [
        (condition, value)
        for condition, find in _CONDITIONS.get(dialect, ())
        if isinstance(value := find(response), str) and value
    ]
    # "auto" in an answer is the request come back: nobody has decided yet.
    if asked is not None and not any(name == "service_tier" and word != "auto" for name, word in said):
        said = [("service_tier", asked), *said]
    when: When = {}
    for condition, value in said:
        word = value.lower()
        if word not in _USUAL:
            name, word = _SAME.get((condition, word), (condition, word))
            when[name] = word
    units: Units = {}
    if isinstance(response, Transcript):
        units = _heard(response)
    elif isinstance(response, Pictures):
        units = _drawn(response)
    for count in _UNITS.get(dialect, ()):
        units.update(count(response))
    return Billed(when, units)


# ---- which price ------------------------------------------------------------------------------

Find: TypeAlias = Callable[[Answer], Any]


def _in_usage(*names: str) -> Find:
    return lambda response: next((response.usage.raw[name] for name in names if response.usage.raw.get(name)), None)


def _in_answer(*path: str) -> Find:
    def find(response: Answer) -> Any:
        value: Any = response.extra
        for name in path:
            if not isinstance(value, dict):  # as JSON gives it; asking for any mapping would cost more than the rest
                return None
            value = value.get(name)
        return value

    return find


# The later goes before the earlier. Sources: the service_tier of answers and usage objects in the SDKs' types;
# usage_metadata.traffic_type; serviceTier and performanceConfig of Converse.
_CONDITIONS: dict[str, tuple[tuple[str, Find], ...]] = {
    "openai.chat": (("service_tier", _in_answer("openai.chat", "service_tier")),),
    "openai.responses": (("service_tier", _in_answer("openai.responses", "service_tier")),),
    "anthropic.messages": (
        ("service_tier", _in_usage("service_tier")),
        ("speed", _in_usage("speed")),
        ("inference_geo", _in_usage("inference_geo")),
    ),
    "gemini.generate": (
        ("service_tier", _in_usage("serviceTier", "service_tier")),
        ("service_tier", _in_usage("trafficType", "traffic_type")),
    ),
    "bedrock.converse": (
        ("service_tier", _in_answer("bedrock.converse", "serviceTier", "type")),
        ("latency", _in_answer("bedrock.converse", "performanceConfig", "latency")),
    ),
}

# ---- other units ------------------------------------------------------------------------------


def _of_modality(details: Any, modality: str) -> int | None:
    """The tokens of one modality; None where they are not told apart at all."""
    if not isinstance(details, list) or not details:
        return None
    rows = [row for row in details if isinstance(row, dict) and row.get("modality") == modality]
    counts = [integer(row.get("tokenCount", row.get("token_count"))) for row in rows]
    return sum(count for count in counts if count is not None)


_MODALITIES = (
    ("output_image_mtok", ("candidatesTokensDetails", "candidates_tokens_details"), "IMAGE"),
    ("output_video_mtok", ("candidatesTokensDetails", "candidates_tokens_details"), "VIDEO"),
    ("input_video_mtok", ("promptTokensDetails", "prompt_tokens_details"), "VIDEO"),
    ("cache_audio_read_mtok", ("cacheTokensDetails", "cache_tokens_details"), "AUDIO"),
    ("cache_image_read_mtok", ("cacheTokensDetails", "cache_tokens_details"), "IMAGE"),
)


def _modalities(response: Answer) -> Units:
    raw, units = response.usage.raw, Units()
    for unit, names, modality in _MODALITIES:
        count = _of_modality(next((raw[name] for name in names if raw.get(name)), None), modality)
        # That there is none of a kind matters only where the price depends on knowing it.
        if count is not None and (count or not unit.endswith("_video_mtok")):
            units[unit] = count
    # Where the answer's tokens are not told apart, one without a picture has none of a picture.
    if "output_image_mtok" not in units and isinstance(response, Response):
        messages = [response.message, *[choice.message for choice in response.choices]]
        parts = [part for message in messages for part in message.parts]
        if not any(isinstance(part, Image) for part in parts):
            units["output_image_mtok"] = 0
    return units


def _grounding(response: Answer) -> Units:
    """Searches of the web. Older models are billed for the answer that searched and newer ones for each search; the
    answer does not say which it is, so that each counts: at most too much."""
    found = response.extra.get("gemini.generate", {}).get("groundingMetadata")
    queries = found.get("webSearchQueries") if isinstance(found, Mapping) else None
    return {"web_searches_kcount": len(queries)} if isinstance(queries, list) and queries else {}


# What a tool run by the provider is billed as. Those without a fee of their own are not here. One that has no
# price in the table makes the amount unknown, as it should: containers cost by the session, pictures by another model.
_RUN = {
    "web_search_call": "web_searches_kcount",
    "file_search_call": "storage_searches_kcount",
    "code_interpreter_call": "code_interpreter_kcount",
}


def _tools_run(response: Answer) -> Units:
    units: Units = {}
    for part in response.message.parts if isinstance(response, Response) else ():
        if isinstance(part, Opaque) and (unit := _RUN.get(part.type)) and not _only_read(part.raw):
            units[unit] = units.get(unit, 0) + 1
        elif isinstance(part, Image):
            units["image_generation_kcount"] = units.get("image_generation_kcount", 0) + 1
    return units


def _only_read(raw: Any) -> bool:
    """Whether a call of the search tool opened or looked through a page that was found: searches alone are billed."""
    action = raw.get("action") if isinstance(raw, Mapping) else None
    return isinstance(action, Mapping) and action.get("type") in ("open_page", "find_in_page", "find")


def _counted(response: Answer) -> Units:
    """What search models count beside the tokens of a chat."""
    raw = response.usage.raw
    names = (("citation_tokens", "output_citation_mtok"), ("num_search_queries", "web_searches_kcount"))
    return {unit: count for name, unit in names if (count := integer(raw.get(name)))}


def _heard(response: Transcript) -> Units:
    """The seconds of sound. Begun ones count, so that rounding never makes it cheaper."""
    raw = response.usage.raw
    seconds = raw.get("seconds") if raw.get("type") == "duration" else response.duration
    if not isinstance(seconds, int | float) or not 0 <= seconds < 2**31:
        return {}
    return {"audio_hours": math.ceil(seconds)}


def _drawn(response: Pictures) -> Units:
    """The pictures' part of what came out; where nobody tells it apart from text, all of it."""
    details, output = response.usage.raw.get("output_tokens_details"), response.usage.output
    count = integer(details.get("image_tokens")) if isinstance(details, Mapping) else None
    count = output if count is None else count
    return {} if count is None else {"output_image_mtok": count}


def _further(response: Answer) -> Units:
    """Work of other models and of compaction: the totals leave it out though it is billed. There is no price for this
    unit in any table, so that the amount is unknown rather than too small."""
    rows = response.usage.raw.get("iterations")
    kinds = [row.get("type") for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    count = sum(kind not in ("message", None) for kind in kinds)
    return {"further_models_kcount": count} if count else {}


Count: TypeAlias = Callable[[Answer], Units]
_UNITS: dict[str, Iterable[Count]] = {
    "openai.chat": (_counted,),
    "openai.responses": (_tools_run,),
    "anthropic.messages": (_further,),
    "gemini.generate": (_modalities, _grounding),
}

# Tools that a usage object counts, and their unit. Fetching pages has no fee beside its tokens, and
# counters of calls repeat what each tool counts itself.
TOOLS: dict[str, str | None] = {
    "web_search": "web_searches_kcount",
    "web_search_requests": "web_searches_kcount",
    "file_search": "storage_searches_kcount",
    "web_fetch": None,
    "tool_calls_executed": None,
    "tool_calls_requested": None,
}


def tool_units(usage: Usage) -> Units:
    """The units of the tools that a usage counts; one that nobody knows is a unit of its own."""
    units: Units = {}
    for tool, count in usage.server_tools.items():
        unit = TOOLS.get(tool, f"{tool}_kcount")
        if unit is not None and count:
            units[unit] = units.get(unit, 0) + count
    return units


# ---- before the call --------------------------------------------------------------------------

# Own words of dialects that change nothing in what a call costs at most. Others may: they name further models,
# let the provider search, raise a limit, or ask for what was said before and is kept elsewhere.
_HARMLESS = frozenset(
    {
        "anthropic_version", "store", "metadata", "labels", "usage", "user", "user_id", "safety_identifier",
        "stream_options", "prompt_cache_key", "prompt_cache_retention", "seed", "random_seed", "logprobs",
        "top_logprobs", "parallel_tool_calls", "include", "safetySettings", "safe_prompt", "safety_mode", "moderation",
        "keep_alive", "requestMetadata", "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
        "frequency_penalty", "presence_penalty", "stop",
    }
)  # fmt: skip


def asked_for(request: Request) -> When:
    """What a request asks for that decides its price: its service tier, where that is no usual one."""
    tier = request.service_tier
    if isinstance(tier, UnsetType) or tier.lower() in _USUAL:
        return {}
    name, word = _SAME.get(("service_tier", tier.lower()), ("service_tier", tier.lower()))
    return {name: word}


def without_bound(request: Request) -> str | None:
    """What in a request keeps anyone from saying the most it can cost; None where nothing does."""
    for tool in request.tools:
        if isinstance(tool, Opaque):
            return f"the provider runs {tool.type} itself, as often as it likes"
    own = sorted({key for keys in request.extra.values() for key in keys} - _HARMLESS)
    if own:
        return f"extra says {', '.join(own)}, which may change what it costs"
    return None
