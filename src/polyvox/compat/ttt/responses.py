"""What TTT answers with: a text that knows where it comes from, how long it took and what it cost. It asks nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Self

from polyvox.compat.errors import named
from polyvox.errors import InputError

if TYPE_CHECKING:
    from polyvox.types import Attempt, Response, ToolCall, Usage


class AIResponse(str):  # noqa: SLOT000 - what is known stands in its dict, and pickles with it
    """An answer: the text itself, with what is known of it beside. It compares, prints and dumps as its text, and
    pickles whole.

    Attributes:
        model: the model as it was asked for, or the one that served where nobody named one.
        backend: whose answer it is: "cloud", "local", or the own name of a backend.
        tokens_in, tokens_out: as the provider counted them; None where nobody did.
        time: seconds from the question to the whole answer.
        cost: USD as a Decimal; None is not known, which is never 0.
        tool_calls: the calls that the model asks for, in order.
        finish_reason: why it ended, in the same word for all providers.
        usage: all counts, as `polyvox.Usage`.
        attempts: every try that was made for it, in order.
        metadata: what else is known: provider, the model that served, request_id, the reason of a choice.

    >>> AIResponse("hello", model="demo", tokens_in=3).upper()
    'HELLO'
    """

    model: str | None
    backend: str | None
    tokens_in: int | None
    tokens_out: int | None
    time: float | None
    cost: Decimal | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str | None
    usage: Usage
    attempts: tuple[Attempt, ...]
    metadata: dict[str, Any]

    def __new__(
        cls,
        text: str = "",
        *,
        model: str | None = None,
        backend: str | None = None,
        tokens_in: int | None = None,
        tokens_out: int | None = None,
        time: float | None = None,
        cost: Decimal | float | str | None = None,
        tool_calls: Iterable[ToolCall] = (),
        finish_reason: str | None = None,
        usage: Usage | None = None,
        attempts: Iterable[Attempt] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make one of a text and what is known of it."""
        from polyvox.types import Usage

        given: Any = text
        if not isinstance(given, str):
            hint = "an answer without words is AIResponse()"
            raise named(InputError(f"the text of an answer is text, not {type(given).__name__}", hint=hint))
        _check(
            {"tokens_in": tokens_in, "tokens_out": tokens_out, "time": time},
            {"usage": usage, "tool_calls": tool_calls, "attempts": attempts, "metadata": metadata},
        )
        made = super().__new__(cls, text)
        counted = usage or Usage(tokens_in, tokens_out)
        made.model, made.backend, made.time = model, backend, time
        made.tokens_in = counted.input if tokens_in is None else tokens_in
        made.tokens_out = counted.output if tokens_out is None else tokens_out
        made.cost = _usd(cost)
        made.tool_calls, made.finish_reason = tuple(tool_calls), finish_reason
        made.usage, made.attempts, made.metadata = counted, tuple(attempts), dict(metadata or {})
        return made

    @property
    def text(self) -> str:
        """The text alone."""
        return str.__str__(self)

    @property
    def tokens_total(self) -> int | None:
        """Tokens in and out together; None where one of them is not known."""
        if self.tokens_in is None or self.tokens_out is None:
            return None
        return self.tokens_in + self.tokens_out


def _check(numbers: dict[str, Any], facts: dict[str, Any]) -> None:
    """InputError that names the first fact of an answer which cannot be."""
    from polyvox.types import Usage

    for name, value in numbers.items():
        kinds = int | float if name == "time" else int
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool) or not value >= 0):
            what = "a number of seconds" if name == "time" else "a whole number"
            raise named(InputError(f"{name} is {what} from 0 up, not {value!r}", param=name))
    kind_of = {"usage": Usage, "metadata": Mapping, "tool_calls": Iterable, "attempts": Iterable}
    words = {"usage": "a polyvox.Usage", "metadata": "a table", "tool_calls": "a list", "attempts": "a list"}
    for name, value in facts.items():
        if value is not None and (not isinstance(value, kind_of[name]) or isinstance(value, str)):
            raise named(InputError(f"{name} is {words[name]}, not {value!r}", param=name))


def _usd(cost: Any) -> Decimal | None:
    if cost is None:
        return None
    try:
        found = cost if isinstance(cost, Decimal) else Decimal(str(cost))
    except InvalidOperation:
        found = Decimal("NaN")
    if not (found.is_finite() and found >= 0):
        raise named(InputError(f"cost is an amount of USD, not {cost!r}", hint='for example "0.0021"', param="cost"))
    return found


def response_of(given: Response, *, model: str | None, backend: str, seconds: float, reason: str | None) -> AIResponse:
    """The answer of the core as TTT tells it; model is the name that was asked for, reason why this backend was."""
    own = given.extra.get(backend) if isinstance(given.extra.get(backend), Mapping) else {}
    facts = {
        "provider": given.provider,
        "served_by": given.model,
        "deployment": given.deployment,
        "request_id": given.request_id,
        "reason": reason,
        "reasoning": given.reasoning or None,
        "refusal": given.refusal,
        "losses": given.losses or None,
    }
    return AIResponse(
        given.text,
        model=model or given.model,
        backend=backend,
        time=seconds,
        cost=given.cost.amount,
        tool_calls=given.tool_calls,
        finish_reason=given.finish_reason,
        usage=given.usage,
        attempts=given.attempts,
        metadata={**{name: value for name, value in facts.items() if value is not None}, **(own or {})},
    )


def as_core(given: Any, name: str) -> Any:
    """What a backend of the user's answered, with all that it told, as the core takes it; anything but an `AIResponse`
    as it is."""
    if not isinstance(given, AIResponse):
        return given
    from polyvox.types import Cost, Message, Response, Text

    words = (Text(given.text),) if given else ()
    reason: Any = given.finish_reason or ("tool_calls" if given.tool_calls else "stop")
    return Response(
        Message("assistant", (*words, *given.tool_calls)),
        finish_reason=reason,
        usage=given.usage,
        cost=Cost(given.cost, source="provider") if given.cost is not None else Cost(),
        model=given.model,
        extra={name: given.metadata} if given.metadata else {},
    )
