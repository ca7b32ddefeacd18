"""What is told of a call, as plain facts by our own names: who is asked, what is asked, and how it ended. Pure; it
knows no convention, and says nothing of what was said. What an engine does not tell is not known, and left out.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import UNSET

from polyvox.telemetry.names import Operation, names
from polyvox.types import Choice, Cost, EmbedRequest, Request, Response, Thinking, Usage

# Facts whose name and value are those of the request's field.
_AS_SAID = ("seed", "top_k", "frequency_penalty", "max_tokens", "presence_penalty", "temperature", "top_p")
_PORTS = {"http": 80, "https": 443}
_CUT = (None, "error", "incomplete", "unknown", "cancelled")


def place_of(info: Any) -> tuple[str, str]:
    """The provider and the model that are asked; from the deployment's name where the info does not say them."""
    provider, slash, model = info.deployment.partition("/")
    if not slash:
        provider, model = info.deployment, ""
    return info.provider or provider, info.model or model or getattr(info.request, "model", "") or ""


def operation_of(info: Any) -> Operation:
    """What kind of call it is."""
    return names().operation(info.operation)


def who(info: Any) -> dict[str, Any]:
    """Who is asked for what: the same for every call of a deployment that streams or does not."""
    operation = operation_of(info)
    provider, model = place_of(info)
    host, port = server_of(info.base_url or "")
    facts: dict[str, Any] = {
        "operation": operation.name,
        "provider": names().provider(provider),
        "request_model": model or None,
        "server_address": host,
        "server_port": port if host is not None else None,
        "stream": True if info.stream else None,
        "output_type": operation.output,
    }
    return {name: value for name, value in facts.items() if value is not None}


def asked(info: Any) -> dict[str, Any]:
    """What is asked for, but not what is said; no value is None."""
    request, facts = info.request, {}
    if isinstance(request, Request):
        facts = _asked(request)
    elif isinstance(request, EmbedRequest):
        if request.dimensions is not UNSET:
            facts["dimensions"] = request.dimensions
        if request.encoding is not UNSET:
            facts["encodings"] = (request.encoding,)
    conversation = info.session
    if conversation is None and request.extra:
        conversation = _in_extra(request.extra, "conversation")
    if conversation is not None:
        facts["conversation"] = conversation
    return facts


def _asked(request: Request) -> dict[str, Any]:
    facts = {name: value for name in _AS_SAID if (value := getattr(request, name)) is not UNSET and value is not None}
    if request.stop is not UNSET and request.stop:
        facts["stop"] = request.stop
    if request.n is not UNSET and request.n != 1:
        facts["choices"] = request.n
    if isinstance(request.thinking, Thinking) and request.thinking.effort is not UNSET:
        facts["reasoning_level"] = request.thinking.effort
    if request.modalities is not UNSET and "audio" in request.modalities:
        facts["output_type"] = "speech"
    elif request.modalities is not UNSET and "image" in request.modalities:
        facts["output_type"] = "image"
    elif request.response_format is not UNSET:
        facts["output_type"] = "text" if request.response_format.kind == "text" else "json"
    if request.extra and (previous := _in_extra(request.extra, "previous_response_id")) is not None:
        facts["previous_response"] = previous
    return facts


def _in_extra(extra: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    """What the caller said under a key of any dialect's own: a word, or an object with an id."""
    for said in extra.values():
        value = said.get(name)
        if isinstance(value, Mapping):
            value = value.get("id")
        if isinstance(value, str) and value:
            return value
    return None


@functools.lru_cache(maxsize=256)
def server_of(base_url: str) -> tuple[str | None, int | None]:
    """The host and the port of an address: never a name or password that stands in it."""
    try:
        parts = urlsplit(base_url)
        return parts.hostname or None, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None, None


# ---- the end ----------------------------------------------------------------------------------


def answer_of(info: Any) -> Any:
    """The answer, or what had come of it; None where nothing had."""
    if info.response is not None:
        return info.response
    return None if info.error is None else getattr(info.error, "partial", None)


def usage_of(info: Any) -> Usage:
    """The tokens that were told, also of an answer that broke off; of all attempts, where the info says them."""
    usage = info.usage
    if usage is None:
        usage = getattr(answer_of(info), "usage", None)
    return usage if isinstance(usage, Usage) else Usage()


def cost_of(info: Any) -> Cost | None:
    """What it cost; None where there was nothing to be paid for."""
    told = info.cost
    if told is None:
        told = getattr(answer_of(info), "cost", None)
    return told if isinstance(told, Cost) else None


def given_again(info: Any) -> bool:
    """Whether the answer is one from our own cache, which used and cost nothing."""
    return bool(info.own_cache)


def attempts_of(info: Any) -> tuple[Any, ...]:
    """The attempts, in order."""
    ended = info.response if info.response is not None else info.error
    return tuple(getattr(ended, "attempts", None) or ())


def decision_of(info: Any) -> Any:
    """How the call chose whom to ask; None where there was no choice."""
    ended = info.response if info.response is not None else info.error
    return getattr(ended, "decision", None)


def outcome_of(info: Any) -> str:
    """How it ended: "ok", "error", or "cancelled" where the caller left."""
    if info.error is None:
        return "ok" if info.response is not None else "cancelled"
    if info.error.kind == "cancelled":
        return "cancelled"
    attempts = attempts_of(info)
    return "cancelled" if attempts and attempts[-1].outcome == "cancelled" else "error"


def error_of(info: Any) -> str | None:
    """The kind of error it ended with; "cancelled" where the caller left, None where it ended well."""
    if info.error is None:
        return None if info.response is not None else "cancelled"
    return "cancelled" if outcome_of(info) == "cancelled" else str(info.error.kind)


def measured(info: Any) -> dict[str, Any]:
    """What is counted of a call that has ended, and by what; numbers that nobody told are None."""
    usage = Usage() if given_again(info) else usage_of(info)
    return {
        "error": error_of(info),
        "response_model": getattr(answer_of(info), "model", None),
        "seconds": info.seconds,
        "first_token": info.first_token,
        "input": usage.input,
        "output": usage.output,
        "cache_read": usage.cache_read,
        "cache_write": usage.cache_write,
        "reasoning": usage.reasoning,
        "audio_input": usage.audio_input,
        "audio_output": usage.audio_output,
        "image_input": usage.image_input,
    }


def ended(info: Any) -> dict[str, Any]:
    """How it ended, beside what is counted; no value is None."""
    answer, facts = answer_of(info), {}
    if answer is not None:
        if answer.id is not None:
            facts["response_id"] = answer.id
        if isinstance(answer, Response):
            facts["finish_reasons"] = finish_reasons(answer)
            if answer.finish_reason == "compaction":
                facts["compacted"] = True
    elif info.error is not None and info.error.kind == "stream_interrupted":
        facts["finish_reasons"] = ("error",)
    return facts


def finish_reasons(answer: Response) -> tuple[str, ...]:
    """Why each of the answers ended; "error" where it did not come to an end."""
    ends: tuple[Response | Choice, ...] = (answer, *answer.choices)
    return tuple("error" if end.finish_reason in _CUT else str(end.finish_reason) for end in ends)
