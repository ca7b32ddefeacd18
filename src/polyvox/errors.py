"""One tree of errors. Each says what happened, where, whether the request was sent and billed,
whether trying again can help, and what to do next; none ever holds a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from polyvox.types import Attempt, Response

Sent = Literal["no", "partly", "yes", "unknown"]
"""How much of the request had left when it failed: what makes a repeat safe or not."""


class PolyvoxError(Exception):
    """Root of every error polyvox raises.

    Attributes:
        message: one line, what happened.
        hint: what to type or change next.
        provider, model: where it happened, or None for errors that never left this machine.
        status: HTTP status, or None.
        code, type, param: the provider's own words for it, verbatim.
        request_id: the provider's id of the request, for its support desk.
        retry_after: seconds the provider asked to wait, or None.
        retryable: whether the same request may succeed later.
        sent: how much of the request had left: "no", "partly", "yes", "unknown".
        billed: whether the provider charges for it: True, False, or None when nobody can know.
        partial: the part of the answer that had arrived, as a `Response`, or None.
        attempts: every attempt made for the call, in order.
        losses: what the request could not say, where that is what went wrong.
        decision: who could have answered and who was chosen, where there was a choice.
    """

    kind: ClassVar[str] = "error"
    retry: ClassVar[bool] = False
    advice: ClassVar[str] = "run it again with --debug, or with logging at DEBUG, for more"  # the hint of last resort

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        code: str | None = None,
        type: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
        sent: Sent = "unknown",
        billed: bool | None = None,
        partial: Response | None = None,
        attempts: tuple[Attempt, ...] = (),
        losses: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint: str = hint or self.advice
        self.provider = provider
        self.model = model
        self.status = status
        self.code = code
        self.type = type
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after
        self.retryable: bool = self.retry if retryable is None else retryable
        self.sent = sent
        self.billed = billed
        self.partial = partial
        self.attempts = attempts
        self.losses = losses
        self.decision: Any = None

    def __str__(self) -> str:
        """The message, where it happened and how often it was tried; who was tried, where that were several, and the
        hint, on lines of their own."""
        text = self.message
        where = "/".join(part for part in (self.provider, self.model) if part)
        notes = [where] if where else []
        if self.status:
            notes.append(f"HTTP {self.status}")
        if self.request_id:
            notes.append(f"request {self.request_id}")
        if len(self.attempts) > 1:
            notes.append(f"{len(self.attempts)} attempts")
        if notes:
            text += f" [{', '.join(notes)}]"
        if len({attempt.deployment for attempt in self.attempts}) > 1:
            # Several were asked: the last one's failure alone would say little.
            tried = [f"{one.deployment} ({one.outcome}, {one.seconds:.2f} s)" for one in self.attempts]
            text += f"\ntried: {', '.join(tried)}"
        return f"{text}\nhint: {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Callable[..., PolyvoxError], tuple[Any, ...]]:
        """Pickle by state, so that errors cross process borders whole."""
        return _revive, (type(self), self.message, dict(self.__dict__))

    def describe(self) -> dict[str, Any]:
        """The error as plain JSON values: the `error` object that `--json` prints."""
        return {
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "provider": self.provider,
            "model": self.model,
            "status": self.status,
            "code": self.code,
            "request_id": self.request_id,
            "retryable": self.retryable,
            "sent": self.sent,
            "attempts": len(self.attempts),
        }


def _revive(cls: type[PolyvoxError], message: str, state: dict[str, Any]) -> PolyvoxError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


# ---- the request ------------------------------------------------------------------------------


class InvalidRequestError(PolyvoxError):
    """The request is wrong, and sending it again will not help."""

    kind = "invalid_request"
    advice = "compare the request with what the provider documents for this model"


class InputError(InvalidRequestError):
    """What the caller passed is unusable; found here, before anything was sent."""

    advice = "see the documentation of the function that was called"

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message, **{"sent": "no", "billed": False, **facts})


class LossError(InputError):
    """Under `strict`, something in the request cannot be said in this dialect."""

    kind = "unsupported_param"


class ContextLengthError(InvalidRequestError):
    """The prompt, or prompt plus answer, is longer than the model's context."""

    kind = "context_length"
    advice = "shorten the conversation, or choose a model with a longer context"


class UnsupportedParamError(InvalidRequestError):
    """The model or provider does not take a parameter, or not this value of it."""

    kind = "unsupported_param"
    advice = "leave the parameter out, or choose a model that takes it"


class TooLargeError(InvalidRequestError):
    """The request body is larger than the provider accepts."""

    kind = "too_large"
    advice = "send less at once: fewer or smaller files and images"


class ContentPolicyError(InvalidRequestError):
    """The provider refused the prompt on policy grounds."""

    kind = "content_policy"
    advice = "the provider will not answer this prompt; rephrase it"


class RefusalError(PolyvoxError):
    """The model refused, and the caller asked for that to be an error."""

    kind = "refusal"
    advice = "rephrase the question, or ask another model"


class NotFoundError(PolyvoxError):
    """The provider does not know the model, deployment or object."""

    kind = "not_found"
    advice = "list what there is with: polyvox models list"


class UnknownModelError(NotFoundError, InputError):
    """No provider we know of has a model of this name, or several have; nothing was sent."""


class UnknownProviderError(NotFoundError, InputError):
    """No provider of this name is known; nothing was sent."""


class ConflictError(PolyvoxError):
    """Another request holds what this one needs."""

    kind = "conflict"
    advice = "wait for the other request to end, then try again"
    retry = True


# ---- who asks, and who pays -------------------------------------------------------------------


class AuthError(PolyvoxError):
    """The key is missing, wrong or revoked."""

    kind = "auth"
    advice = "check that the API key is right, active, and meant for this endpoint"


class MissingKeyError(AuthError):
    """No key was found for the provider; nothing was sent."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message, **{"sent": "no", "billed": False, **facts})


class PermissionDeniedError(PolyvoxError):
    """The key is good, but may not do this."""

    kind = "permission"
    advice = "check the project, region and scopes of the key"


class BillingError(PolyvoxError):
    """The account cannot pay: no credit, or a spending limit."""

    kind = "billing"
    advice = "add credit or raise the spending limit of the account"


class QuotaError(BillingError):
    """The account's quota is used up; waiting a minute will not help."""

    kind = "quota"
    advice = "raise the quota, or use another account or provider"


class RateLimitError(PolyvoxError):
    """Too many requests or tokens for now; `retry_after` says how long, when the provider does."""

    kind = "rate_limit"
    advice = "wait, or send fewer requests at a time"
    retry = True


# ---- the provider -----------------------------------------------------------------------------


class ServerError(PolyvoxError):
    """The provider failed."""

    kind = "server"
    advice = "try again later, or ask another provider; it is the provider's fault"
    retry = True


class OverloadedError(ServerError):
    """The provider, or this deployment of it, has no capacity now."""

    kind = "overloaded"
    advice = "try again later, or name another model"


class BadResponseError(PolyvoxError):
    """The answer is not what the protocol promises: not JSON, HTML, the wrong shape, too large."""

    kind = "bad_response"
    advice = "check that base_url is an API and not a web page; if it is, the provider sent rubbish"


class StreamInterruptedError(PolyvoxError):
    """The stream ended without its end marker. `partial` has what arrived; it is not the answer."""

    kind = "stream_interrupted"
    advice = "ask again; what had arrived is in the partial attribute"
    retry = True


# ---- the way there ----------------------------------------------------------------------------


class ConnectionFailedError(PolyvoxError):
    """No connection, or it broke before any byte of the answer."""

    kind = "connection"
    advice = "check the address, the network and the proxy settings"
    retry = True


class CallTimeoutError(PolyvoxError):
    """A time limit ran out: connect, first byte, idle or total; the message says which."""

    kind = "timeout"
    advice = "give it longer with timeout=SECONDS, or stream"
    retry = True


class CallCancelledError(PolyvoxError):
    """The call was cancelled before it ended."""

    kind = "cancelled"
    advice = "ask again when nothing cancels the call"


# ---- this side --------------------------------------------------------------------------------


class ConfigError(PolyvoxError):
    """Configuration is wrong. `problems` lists all of it, each as `file:line: what`."""

    kind = "config"
    advice = "see what is configured, and where, with: polyvox config list --origin"

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), **facts: Any) -> None:
        super().__init__(message, **{"sent": "no", "billed": False, **facts})
        self.problems = problems

    def __str__(self) -> str:
        """The message with every problem on a line of its own."""
        return "\n".join((super().__str__(), *(f"  {problem}" for problem in self.problems)))


class UsageError(PolyvoxError):
    """polyvox is used in a way that cannot work, such as a sync call inside its own loop."""

    kind = "usage"
    advice = "see the documentation of the function that was called"


class MissingExtraError(UsageError):
    """An optional dependency is not installed; the hint has the command that installs it."""

    kind = "missing_extra"


BY_KIND: dict[str, type[PolyvoxError]] = {
    cls.kind: cls
    for cls in (
        InvalidRequestError,
        ContextLengthError,
        UnsupportedParamError,
        AuthError,
        PermissionDeniedError,
        BillingError,
        NotFoundError,
        ConflictError,
        TooLargeError,
        RateLimitError,
        QuotaError,
        OverloadedError,
        ServerError,
        CallTimeoutError,
        ConnectionFailedError,
        ContentPolicyError,
        RefusalError,
        BadResponseError,
        StreamInterruptedError,
        CallCancelledError,
    )
}
"""The error for each neutral kind; one entry a kind, so that tables may speak of kinds."""


def of_kind(kind: str, message: str, **facts: Any) -> PolyvoxError:
    """Make the error for a neutral kind; a kind nobody knows makes the plain root error."""
    return BY_KIND.get(kind, PolyvoxError)(message, **facts)
