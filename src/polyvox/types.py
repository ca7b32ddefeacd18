"""The values every room speaks in: what is asked, what answers, what streams past and what was lost.
Frozen and without behaviour beyond reading themselves; they know no protocol and no provider."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Struct, UnsetType

from polyvox.errors import BadResponseError, Sent

Extra: TypeAlias = dict[str, dict[str, Any]]
"""Unknown keys by the dialect that said them: they go back to that dialect and are a Loss in others."""

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
ROLES = ("system", "developer", "user", "assistant", "tool")

FinishReason: TypeAlias = Literal[
    "stop", "length", "tool_calls", "content_filter", "refusal", "context_overflow",
    "pause", "compaction", "error", "cancelled", "incomplete", "unknown",
]  # fmt: skip


class Value(Struct, frozen=True, omit_defaults=True, gc=False):
    """Base of all values: frozen, compared by content, printed as JSON by msgspec.

    Untracked by the garbage collector: a frozen value can only hold what was there before it.
    """


# ---- parts of a message -----------------------------------------------------------------------


class CacheHint(Value, frozen=True):
    """A prompt-cache breakpoint: everything up to and including its part may be cached.

    ttl is the provider's own word ("5m", "1h", "30m"), None for its default.
    """

    ttl: str | None = None
    extra: Extra = {}


class Citation(Value, frozen=True):
    """Where a piece of text comes from. start and end are code points in the text it hangs on."""

    kind: str = "url"
    url: str | None = None
    title: str | None = None
    text: str | None = None
    start: int | None = None
    end: int | None = None
    document: int | None = None
    file_id: str | None = None
    extra: Extra = {}


class Text(Value, frozen=True, tag_field="part", tag="text"):
    """Words, with the sources they cite. signature is a provider's opaque proof, bound to origin."""

    text: str
    citations: tuple[Citation, ...] = ()
    cache: CacheHint | None = None
    signature: str | None = None
    origin: str | None = None
    extra: Extra = {}


class Media(Value, frozen=True):
    """What image, audio, video and file share: exactly one of data (raw bytes), url or file_id.

    media_type is the IANA type. origin names the deployment a file_id belongs to.
    """

    data: bytes | None = None
    url: str | None = None
    file_id: str | None = None
    media_type: str | None = None
    name: str | None = None
    cache: CacheHint | None = None
    origin: str | None = None
    extra: Extra = {}


class Image(Media, frozen=True, tag_field="part", tag="image"):
    """A picture. detail is how closely to look: "auto", "low", "high" or the provider's own word."""

    detail: str | None = None


class Audio(Media, frozen=True, tag_field="part", tag="audio"):
    """Sound, going in or coming out; transcript is what is said in it, where the provider tells."""

    transcript: str | None = None


class Video(Media, frozen=True, tag_field="part", tag="video"):
    """Moving pictures."""


class File(Media, frozen=True, tag_field="part", tag="file"):
    """A document: PDF, text or what the provider takes. text is the content of a plain-text one."""

    text: str | None = None
    context: str | None = None


class Reasoning(Value, frozen=True, tag_field="part", tag="reasoning"):
    """What the model thought, as far as shown, with the proof that must go back unchanged.

    signature or encrypted mean something only to origin, the deployment that minted them.
    """

    text: str = ""
    signature: str | None = None
    encrypted: str | None = None
    origin: str | None = None
    extra: Extra = {}


class ToolCall(Value, frozen=True, tag_field="part", tag="tool_call"):
    """A call the caller must run. arguments is the JSON text as the model wrote it (kind "function")
    or free text (kind "custom"); "" means no arguments."""

    id: str
    name: str
    arguments: str = ""
    kind: Literal["function", "custom"] = "function"
    signature: str | None = None
    origin: str | None = None
    extra: Extra = {}

    @property
    def args(self) -> dict[str, Any]:
        """The arguments as a dict; raises BadResponseError when the model wrote something else."""
        try:
            value = msgspec.json.decode(self.arguments) if self.arguments.strip() else {}
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadResponseError(f"the model called {self.name} with arguments that are not JSON: {error}") from None
        if not isinstance(value, dict):
            raise BadResponseError(f"the model called {self.name} with arguments that are not an object")
        return value


class ToolResult(Value, frozen=True, tag_field="part", tag="tool_result"):
    """What running a tool call gave."""

    call_id: str
    parts: tuple[Part, ...] = ()
    name: str | None = None
    is_error: bool = False
    cache: CacheHint | None = None
    extra: Extra = {}


class Refusal(Value, frozen=True, tag_field="part", tag="refusal"):
    """The model's own words for why it will not answer."""

    text: str
    extra: Extra = {}


class Opaque(Value, frozen=True, tag_field="part", tag="opaque"):
    """Anything a dialect says that has no neutral form; it goes back to the same dialect verbatim."""

    dialect: str
    type: str
    raw: Any = None
    origin: str | None = None


Part: TypeAlias = Text | Image | Audio | Video | File | Reasoning | ToolCall | ToolResult | Refusal | Opaque
PART_TYPES = (Text, Image, Audio, Video, File, Reasoning, ToolCall, ToolResult, Refusal, Opaque)


class Message(Value, frozen=True):
    """One turn. name is the speaker's, where the dialect has such a thing."""

    role: Role
    parts: tuple[Part, ...] = ()
    name: str | None = None
    extra: Extra = {}

    @property
    def text(self) -> str:
        """All visible text, joined with nothing in between."""
        return "".join([part.text for part in self.parts if type(part) is Text])


# ---- the request ------------------------------------------------------------------------------


class Tool(Value, frozen=True, tag_field="part", tag="tool"):
    """A tool offered to the model. parameters is a JSON Schema object; format is the grammar of a
    custom (free text) tool. strict is UNSET unless the caller decides."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = {}
    strict: bool | UnsetType = UNSET
    kind: Literal["function", "custom"] = "function"
    format: dict[str, Any] | None = None
    cache: CacheHint | None = None
    extra: Extra = {}


class ToolChoice(Value, frozen=True):
    """Whether the model may, must or must not call tools, and which.

    ("auto",) may · ("none",) must not · ("required",) must, any · ("required", names=("f",)) must call f ·
    subset=True keeps the tools but allows only names.
    """

    mode: Literal["auto", "none", "required"] = "auto"
    names: tuple[str, ...] = ()
    subset: bool = False


class ResponseFormat(Value, frozen=True):
    """The form the answer must have: free text, any JSON object, or JSON of a schema."""

    kind: Literal["text", "json", "schema"] = "text"
    schema: dict[str, Any] | None = None
    name: str = "answer"
    description: str | None = None
    strict: bool | UnsetType = UNSET
    extra: Extra = {}


class Thinking(Value, frozen=True):
    """How much to reason. effort is none, minimal, low, medium, high, xhigh or max; budget_tokens is
    for providers that count; mode is a provider's own word ("adaptive", "between_tools")."""

    effort: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    budget_tokens: int | UnsetType = UNSET
    mode: str | UnsetType = UNSET
    extra: Extra = {}


class Request(Value, frozen=True):
    """One call to one model. A field left UNSET never reaches the wire.

    Limits are in tokens; seed, n, top_logprobs are counts; temperature and top_p as the provider
    defines them. user is an opaque end-user id; metadata are tags for the provider's dashboard.
    """

    model: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool | Opaque, ...] = ()
    tool_choice: ToolChoice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    response_format: ResponseFormat | UnsetType = UNSET
    thinking: Thinking | UnsetType = UNSET
    max_tokens: int | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    stop: tuple[str, ...] | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    n: int | UnsetType = UNSET
    presence_penalty: float | UnsetType = UNSET
    frequency_penalty: float | UnsetType = UNSET
    logit_bias: dict[str, float] | UnsetType = UNSET
    logprobs: bool | UnsetType = UNSET
    top_logprobs: int | UnsetType = UNSET
    modalities: tuple[str, ...] | UnsetType = UNSET
    audio: dict[str, Any] | UnsetType = UNSET
    verbosity: str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    cache_key: str | UnsetType = UNSET
    cache: CacheHint | UnsetType = UNSET
    stream: bool = False
    extra: Extra = {}


# ---- the response -----------------------------------------------------------------------------


class Usage(Value, frozen=True):
    """Tokens, as inclusive totals: input counts cached ones, output counts reasoning.

    None means nobody said; source says who did: the provider, an estimate, or nobody.
    cost is what the provider says the call cost, in USD, with what a user's own key behind it pays; few say.
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_by_ttl: dict[str, int] = {}
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    total: int | None = None
    server_tools: dict[str, int] = {}
    cost: Decimal | None = None
    source: Literal["provider", "estimated", "missing"] = "missing"
    raw: dict[str, Any] = {}


class Cost(Value, frozen=True):
    """Money for one call. amount None means unknown, which is never 0."""

    amount: Decimal | None = None
    currency: str = "USD"
    source: Literal["provider", "catalog", "unknown"] = "unknown"

    def __str__(self) -> str:
        """The amount without an exponent, or "unknown"."""
        return "unknown" if self.amount is None else f"{self.amount:f} {self.currency}"


class Loss(Value, frozen=True):
    """Something the request said that the dialect could not, and what became of it.

    severity "note" changes nothing in meaning, "loss" drops or bends it.
    """

    field: str
    why: str
    severity: Literal["note", "loss"] = "loss"


class Attempt(Value, frozen=True):
    """One try at one deployment. seconds is wall time from sending to the end or the error, waited what passed before
    it, cost USD: None where nobody knows, 0 where nobody bills."""

    deployment: str
    seconds: float = 0.0
    outcome: str = "ok"
    message: str | None = None
    status: int | None = None
    sent: Sent = "unknown"
    request_id: str | None = None
    waited: float = 0.0
    cost: Decimal | None = None


class TokenLogprob(Value, frozen=True):
    """A token with its natural-log probability and the likeliest alternatives at its place."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple[TokenLogprob, ...] = ()


class Choice(Value, frozen=True):
    """A further answer, where the request asked for more than one."""

    message: Message
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None


class Response(Value, frozen=True):
    """One answer. model is the one that served; raw is the body as received (empty for a stream);
    complete is False only on the `partial` of an error; decision, a
    `polyvox.routing.decision.Decision`, says who could have answered and why this one did, where there was a choice."""

    message: Message
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage = Usage()
    cost: Cost = Cost()
    id: str | None = None
    model: str | None = None
    provider: str | None = None
    deployment: str | None = None
    request_id: str | None = None
    created: float | None = None
    choices: tuple[Choice, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    attempts: tuple[Attempt, ...] = ()
    losses: tuple[Loss, ...] = ()
    complete: bool = True
    raw: bytes = b""
    extra: Extra = {}
    decision: Any = None

    def __str__(self) -> str:
        """The visible text, so that a response prints as its answer."""
        return self.message.text

    @property
    def text(self) -> str:
        """All visible text."""
        return self.message.text

    @property
    def reasoning(self) -> str:
        """All visible reasoning; "" where none is shown."""
        return "".join([part.text for part in self.message.parts if type(part) is Reasoning])

    @property
    def refusal(self) -> str | None:
        """The model's refusal, or None."""
        words = [part.text for part in self.message.parts if type(part) is Refusal]
        return "".join(words) if words else None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls the caller must run, in order."""
        return tuple([part for part in self.message.parts if type(part) is ToolCall])


# ---- beside chats -----------------------------------------------------------------------------


class Asked(Value, frozen=True, kw_only=True):
    """Base of what is asked of a model beside chats, in one call. A field left UNSET never reaches the wire."""

    model: str
    extra: Extra = {}


class Answered(Value, frozen=True, kw_only=True):
    """Base of a whole answer to what is no chat. model is the one that served; raw is the body as received."""

    model: str | None = None
    usage: Usage = Usage()
    cost: Cost = Cost()
    id: str | None = None
    provider: str | None = None
    deployment: str | None = None
    request_id: str | None = None
    attempts: tuple[Attempt, ...] = ()
    losses: tuple[Loss, ...] = ()
    raw: bytes = b""
    extra: Extra = {}


class EmbedRequest(Asked, frozen=True):
    """Texts to turn into vectors, in one call to one model.

    dimensions is the length each vector is to have. purpose is "query", "document", "classification",
    "clustering" or the provider's own word. truncate says whether a text that is too long is cut rather
    than refused. encoding is how the numbers travel; a vector is floats all the same.
    """

    inputs: tuple[str, ...] = ()
    dimensions: int | UnsetType = UNSET
    purpose: str | UnsetType = UNSET
    truncate: bool | UnsetType = UNSET
    encoding: Literal["float", "base64"] | UnsetType = UNSET
    user: str | UnsetType = UNSET


class Embeddings(Answered, frozen=True):
    """The vectors, one for each input and in the same order."""

    vectors: tuple[tuple[float, ...], ...] = ()


# ---- the stream -------------------------------------------------------------------------------


class Event(Struct, frozen=True, gc=False):
    """Base of the one stream vocabulary. part counts the parts of the answer from 0; a delta
    belongs to the part it names; choice counts answers, nearly always 0."""


class Started(Event, frozen=True, tag_field="event", tag="start"):
    """The answer begins: who answers. Anything not known yet is None."""

    id: str | None = None
    model: str | None = None
    created: float | None = None


class TextDelta(Event, frozen=True, tag_field="event", tag="text_delta"):
    """More visible text."""

    text: str
    part: int = 0
    choice: int = 0


class ReasoningDelta(Event, frozen=True, tag_field="event", tag="reasoning_delta"):
    """More visible reasoning."""

    text: str
    part: int = 0
    choice: int = 0


class ReasoningProof(Event, frozen=True, tag_field="event", tag="reasoning_proof"):
    """The signature or ciphertext of a reasoning part, or what else must go back with it."""

    part: int
    signature: str | None = None
    encrypted: str | None = None
    origin: str | None = None
    extra: Extra = {}
    choice: int = 0


class RefusalDelta(Event, frozen=True, tag_field="event", tag="refusal_delta"):
    """More of the model's refusal."""

    text: str
    part: int = 0
    choice: int = 0


class ToolCallStarted(Event, frozen=True, tag_field="event", tag="tool_call_start"):
    """A call begins: its id and name are known."""

    part: int
    id: str
    name: str
    call_kind: Literal["function", "custom"] = "function"
    extra: Extra = {}
    choice: int = 0


class ToolCallDelta(Event, frozen=True, tag_field="event", tag="tool_call_delta"):
    """More of the call's arguments, as JSON text."""

    part: int
    arguments: str
    choice: int = 0


class ToolCallEnded(Event, frozen=True, tag_field="event", tag="tool_call_end"):
    """The call is whole."""

    part: int
    choice: int = 0


class CitationAdded(Event, frozen=True, tag_field="event", tag="citation"):
    """A source for the text part it names."""

    part: int
    citation: Citation
    choice: int = 0


class PartAdded(Event, frozen=True, tag_field="event", tag="part"):
    """A part that came whole: an opaque block, a server tool, a picture."""

    part: int
    value: Part
    choice: int = 0


class LogprobsAdded(Event, frozen=True, tag_field="event", tag="logprobs"):
    """Log-probabilities of the tokens just streamed."""

    tokens: tuple[TokenLogprob, ...]
    choice: int = 0


class UsageReported(Event, frozen=True, tag_field="event", tag="usage"):
    """The usage so far; a later one replaces an earlier one."""

    usage: Usage


class ExtraAdded(Event, frozen=True, tag_field="event", tag="extra"):
    """Keys or whole events without a neutral form; merged into the response's extra."""

    extra: Extra


class ChoiceEnded(Event, frozen=True, tag_field="event", tag="choice_end"):
    """One of several answers is whole; choice 0 is told by Ended."""

    choice: int
    finish_reason: FinishReason
    raw_finish_reason: str | None = None


class Ended(Event, frozen=True, tag_field="event", tag="end"):
    """The answer is whole. Comes exactly once, last, or the stream failed."""

    finish_reason: FinishReason
    raw_finish_reason: str | None = None
    stop_sequence: str | None = None


class Failed(Event, frozen=True, gc=True, tag_field="event", tag="error"):
    """The stream failed; error says how. Comes instead of Ended, last. A finish reason that had
    already come is kept. Once raised, the error holds frames that hold this: only the collector of
    garbage undoes that."""

    error: Any
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
