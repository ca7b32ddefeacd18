"""The words of the generateContent protocol: its name, paths, enumerations and the tables from its terms to ours.
It knows no value of a particular request or answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from polyvox.errors import InputError
from polyvox.types import Extra, FinishReason

NAME = "gemini.generate"

Json = dict[str, Any]

# ---- paths ------------------------------------------------------------------------------------

WHOLE, STREAM = "generateContent", "streamGenerateContent"
_COLLECTIONS = ("models/", "tunedModels/", "publishers/", "endpoints/")
_PATH = re.compile(
    rf"(?P<before>/(?:v\d\w*/)?(?:projects/[^/]+/locations/[^/]+/)?)(?P<model>.+):(?P<method>{WHOLE}|{STREAM})"
    r"(?P<after>\?.*)?"
)


def path_of(model: str, stream: bool) -> str:
    """The path of a call; raises InputError for a name that would lead elsewhere."""
    if not model or any(piece in ("", ".", "..") for piece in model.split("/")):
        raise InputError(f"{model!r} is no name of a model", param="model")
    return f"/{_resource(model)}:{STREAM}?alt=sse" if stream else f"/{_resource(model)}:{WHOLE}"


def model_in(path: str) -> tuple[str | None, bool]:
    """The model in a client's path, None where there is none, and whether its answer is to be streamed."""
    # What stands behind the path may be a key, which nobody is to remember.
    return _model_in(path.partition("?")[0])


@lru_cache(maxsize=256)
def _model_in(path: str) -> tuple[str | None, bool]:
    found = _PATH.fullmatch(path)
    if found is None:
        return None, f":{STREAM}" in path
    return unquote(found["model"].removeprefix("models/")), found["method"] == STREAM


LIST = "list"  # how a stream is framed for a client that does not ask for events: as one list of JSON


def framing_in(path: str) -> str:
    """How the client at this path has a stream framed; "" is as server-sent events, which the query asks for."""
    query = parse_qs(path.partition("?")[2])
    return "" if "sse" in (query.get("alt") or query.get("$alt") or ()) else LIST


def with_model(path: str, model: str) -> str | None:
    """The same path for another model; None where it has none."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    return f"{found['before']}{_resource(model)}:{found['method']}{found['after'] or ''}"


def _resource(model: str) -> str:
    return quote(model if model.startswith(_COLLECTIONS) else f"models/{model}")


# ---- how an answer ends -----------------------------------------------------------------------

# Never `stop` for what failed: a malformed call is no answer.
FINISH: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "IMAGE_OTHER": "content_filter",
    "NO_IMAGE": "error",
    "LANGUAGE": "error",
    "OTHER": "error",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "TOO_MANY_TOOL_CALLS": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
}


def finish_of(raw: str, has_calls: bool) -> FinishReason:
    """The neutral finish reason; calls under a plain stop are tool calls, as the protocol has no word for them."""
    reason = FINISH.get(raw, "unknown")
    return "tool_calls" if has_calls and reason == "stop" else reason


# ---- words of a request -----------------------------------------------------------------------

LEVELS = ("minimal", "low", "medium", "high", "xhigh")
TIERS = ("flex", "standard", "priority")
DYNAMIC = -1  # the thinking budget that leaves it to the model
# Fields of ours that go over as they are, and their names in generationConfig.
SETTINGS = (
    ("max_tokens", "maxOutputTokens"),
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("top_k", "topK"),
    ("stop", "stopSequences"),
    ("seed", "seed"),
    ("n", "candidateCount"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
    ("logprobs", "responseLogprobs"),
    ("top_logprobs", "logprobs"),
)
FREE_TEXT: dict[str, Any] = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}

# Files kept by the provider, for the project that sent them. Every other link is one to us.
FILE = re.compile(r"(?:https://[^/]+/v\d\w*/)?files/[^/?#]+")

# ---- keys in either spelling ------------------------------------------------------------------

# Each of these is also read in snake case, as the JSON form of protocol buffers is.
CAMEL = (
    "systemInstruction", "generationConfig", "safetySettings", "toolConfig", "cachedContent", "serviceTier",
    "continuationToken", "topP", "topK", "candidateCount", "maxOutputTokens", "stopSequences", "responseLogprobs",
    "presencePenalty", "frequencyPenalty", "responseMimeType", "responseSchema", "responseJsonSchema",
    "responseModalities", "mediaResolution", "speechConfig", "thinkingConfig", "includeThoughts", "thinkingBudget",
    "thinkingLevel", "imageConfig", "audioTranscriptionConfig", "enableEnhancedCivicAnswers", "audioTimestamp",
    "routingConfig", "modelSelectionConfig", "modelArmorConfig", "functionDeclarations", "parametersJsonSchema",
    "googleSearch", "googleSearchRetrieval", "codeExecution", "urlContext", "googleMaps", "computerUse", "fileSearch",
    "mcpServers", "enterpriseWebSearch", "functionCallingConfig", "allowedFunctionNames", "retrievalConfig",
    "includeServerSideToolInvocations", "streamFunctionCallArguments", "inlineData", "fileData", "functionCall",
    "functionResponse", "executableCode", "codeExecutionResult", "toolCall", "toolResponse", "thoughtSignature",
    "videoMetadata", "partMetadata", "mimeType", "displayName", "fileUri", "partialArgs", "willContinue", "jsonPath",
    "stringValue", "numberValue", "boolValue", "nullValue", "voiceConfig", "prebuiltVoiceConfig", "voiceName",
    "finishReason", "finishMessage", "safetyRatings", "citationMetadata", "groundingMetadata", "groundingChunks",
    "groundingSupports", "groundingChunkIndices", "startIndex", "endIndex", "partIndex", "retrievedContext",
    "urlContextMetadata", "avgLogprobs", "logprobsResult", "chosenCandidates", "topCandidates", "logProbability",
    "tokenCount", "promptFeedback", "blockReason", "blockReasonMessage", "usageMetadata", "promptTokenCount",
    "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount", "cachedContentTokenCount",
    "totalTokenCount", "promptTokensDetails", "candidatesTokensDetails", "modelVersion", "responseId", "modelStatus",
    "createTime", "responseFormat", "translationConfig", "enableAffectiveDialog", "generationOutputConfig",
    "labels", "retrieval",
)  # fmt: skip
_SNAKE = {re.sub("[A-Z]", lambda m: "_" + m[0].lower(), name): name for name in CAMEL if name != name.lower()}
_KNOWN_SNAKE = frozenset(_SNAKE)


def named(values: Json) -> Json:
    """An object with its known keys in camel case. A key that stands there in both spellings keeps both: the
    one in snake case means nothing then."""
    if _KNOWN_SNAKE.isdisjoint(values):
        return values
    return {key if (name := _SNAKE.get(key, key)) in values else name: value for key, value in values.items()}


def rest_of(values: Mapping[str, Any], known: frozenset[str]) -> Extra:
    """The keys without a neutral place, as extra."""
    if values.keys() <= known:
        return {}
    return {NAME: {key: value for key, value in values.items() if key not in known}}
