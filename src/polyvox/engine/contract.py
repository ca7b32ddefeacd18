"""What the engine asks of others: a deployment that answers, pieces of a streamed answer, hooks that listen; and
what it is told about one call. Shapes only: nothing here does anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from polyvox.dialects import Reader
from polyvox.errors import PolyvoxError
from polyvox.routing.after import Next
from polyvox.types import Answered, Asked, Attempt, Cost, Event, Loss, Request, Response, Usage

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from polyvox.routing.decision import Decision


class Pieces(Protocol):
    """A streamed answer on its way, in pieces its reader understands: bytes of a wire, or what a backend yields."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The fields of the head; names in lower case."""

    async def chunk(self) -> Any:
        """The next piece; an empty one when the answer has ended."""

    async def close(self) -> None:
        """Let go of the connection, or of the backend's iterator."""


AskedT = TypeVar("AskedT", bound=Request | Asked, contravariant=True)
AnsweredT = TypeVar("AnsweredT", bound=Response | Answered, covariant=True)


class Money(Protocol):
    """What calls of one deployment cost, from a price table. Nothing here raises or waits."""

    def bill(self, request: Any, answer: Response | Answered) -> Cost:
        """What an answer cost; unknown where nobody says."""

    def most(self, request: Any, bytes_out: int) -> Decimal | None:
        """The most that one attempt can cost, USD; None where there is no bound. bytes_out is the body's length."""

    def begun(self, request: Any, partial: Response) -> tuple[Usage, Cost]:
        """What an answer that broke off used and cost, estimated where the provider did not say."""


class Answering(Protocol[AskedT, AnsweredT]):
    """What gives one whole answer to one kind of request. What goes out is its own business.

    timeout is the seconds a whole call may take when the caller names no other; speaks is the key of a
    request's extra that is meant for it; operation is what is done, "chat" or another word; money prices it, None
    where nobody can.
    """

    name: str
    provider: str
    model: str
    timeout: float | None

    @property
    def money(self) -> Money | None:
        """What prices it; None where nobody can."""

    @property
    def operation(self) -> str:
        """What is done: "chat", "embeddings", …"""

    @property
    def speaks(self) -> str:
        """The key of a request's `extra` whose keys go out as they are."""

    def encoded(self, request: AskedT, options: CallOptions) -> tuple[Any, tuple[Loss, ...]]:
        """The request as it goes out, and what it cannot say; raises InputError for what can never be sent."""

    async def answer(self, outgoing: Any) -> tuple[AnsweredT, str | None]:
        """A whole answer, made for this call alone, and the provider's id of the request."""


class AnyDeployment(Answering[Request, Response], Protocol):
    """What can be chatted with: a model at a provider, or a backend."""

    def must_stream(self, request: Request) -> bool:
        """Whether a whole answer to this request can only be had by streaming it."""

    async def open(self, outgoing: Any) -> tuple[Pieces, Reader]:
        """A streamed answer once its head has come, and the reader of its pieces."""


class Taken(Protocol):
    """A deployment that may be asked now, and the request as it is for this one; what was taken for it, such as its
    lease, is given back by `Plan.done`."""

    @property
    def deployment(self) -> AnyDeployment:
        """Who is asked."""

    @property
    def request(self) -> Request:
        """What it is asked."""


class Plan(Protocol):
    """Who answers one call, and who after a failure. It keeps the limits of each, and says why it chose.

    first_token is how many seconds an attempt may take until something of its answer comes, hedge_after after how many
    without anything a second attempt begins elsewhere; None for never. continues is whether an answer that broke off is
    gone on with elsewhere.
    """

    first_token: float | None
    hedge_after: float | None
    continues: bool

    async def take(self, left: float | None) -> Taken:
        """The deployment that is asked next, once it may be. left is the seconds until the deadline. Raises an error of
        our tree where there is none."""

    async def hedge(self) -> Taken | None:
        """Another one that may be asked at the same time, now; None where there is none, or not for this call."""

    def after(self, taken: Taken, error: PolyvoxError, chance: float, left: float | None) -> Next | None:
        """What comes after a failure; None when it is the call's. chance is a random number in [0, 1)."""

    def failed_beside(self, taken: Taken | None, error: PolyvoxError) -> None:
        """An attempt failed while another one was under way, which goes on: nothing comes after it."""

    def heard(self, taken: Taken, seconds: float) -> None:
        """Something of an answer came, so many seconds after its attempt began."""

    def done(
        self, taken: Taken, attempt: Attempt, usage: Usage | None, error: PolyvoxError | None, answer: Any = None
    ) -> None:
        """An attempt is over: what was taken for it goes back. answer is what it ended with where it ended well. Called
        once for each; never waits, never raises."""

    def resume(self, partial: Response) -> None:
        """From here on requests go on with what has come of the answer."""

    @property
    def decision(self) -> Decision:
        """Who could have answered, who was chosen and why."""


class Route(Protocol):
    """What stands where a deployment does, when several could answer: it makes a plan for each call. notes are on what
    was done to a request before."""

    name: str
    provider: str
    model: str
    notes: tuple[Loss, ...]

    @property
    def timeout(self) -> float | None:
        """Seconds that a whole call may take when the caller names no other."""

    @property
    def asked(self) -> Sequence[AnyDeployment]:
        """Everybody who may be asked."""

    @property
    def usual(self) -> Sequence[Mapping[str, Any]]:
        """Fields of the request as they are for each of them where a call says nothing, in the order of `asked`."""

    @property
    def kinds(self) -> Sequence[AnyDeployment]:
        """One of them for each protocol and its habits."""

    def noted(self, notes: tuple[Loss, ...]) -> Route:
        """The same for one call, with notes on what was done to its request before."""

    @property
    def speaks(self) -> str:
        """Empty: each of them speaks its own."""

    def must_stream(self, request: Request) -> bool:
        """Whether any of them gives a whole answer to this request only as a stream."""

    def plan(self, request: Request, options: CallOptions) -> Plan:
        """A plan for one call. Raises an error of our tree where nobody could ever answer it."""


AnyRoute: TypeAlias = "AnyDeployment | Route"


def is_route(target: AnyRoute) -> TypeIs[Route]:
    """Whether several may be asked."""
    return hasattr(target, "plan")


class CallInfo(Struct, frozen=True):
    """What hooks see of a call: never a key, never a header.

    call is the same for all that is told of one call, and no other's. seconds is how long it has taken, first_token how
    long until the caller could see something of a stream. base_url is where the provider is asked. own_cache is True
    for an answer that our own cache gave. usage and cost are those of all attempts together, once the call is over.
    """

    request: Request | Asked
    deployment: str
    attempt: int = 0
    response: Response | Answered | None = None
    error: PolyvoxError | None = None
    call: str = ""
    operation: str = "chat"
    provider: str = ""
    model: str = ""
    stream: bool = False
    seconds: float | None = None
    first_token: float | None = None
    session: str | None = None
    base_url: str | None = None
    own_cache: bool | None = None
    usage: Usage | None = None
    cost: Cost | None = None


class Hooks(Protocol):
    """What a hook object may have; each method is optional. A hook that fails is logged and ignored."""

    def on_call(self, info: CallInfo) -> None:
        """The call begins."""

    def on_attempt(self, info: CallInfo) -> None:
        """An attempt begins."""

    def on_event(self, event: Event) -> None:
        """A stream event passes."""

    def on_done(self, info: CallInfo) -> None:
        """The call ended, with a response or an error."""


class Who(Struct, frozen=True, gc=False):
    """On whose behalf a call is made, in the caller's own words; key is the name of a key, never the key."""

    user: str | None = None
    project: str | None = None
    session: str | None = None
    tenant: str | None = None
    key: str | None = None
    tags: tuple[str, ...] = ()


NOBODY = Who()


class CallOptions(Struct, frozen=True, gc=False):
    """How to make one call, beside what to ask: seconds in all, extra headers, strict, on whose behalf, and fields of
    the request that a plan adds where neither the caller nor whoever is asked says anything."""

    timeout: float | None = None
    headers: Mapping[str, str] = {}
    strict: bool = False
    who: Who = NOBODY
    usual: Mapping[str, Any] = {}


# ---- who keeps account ------------------------------------------------------------------------


class CallFacts(NamedTuple):
    """What is known of a call when it begins. id is no other call's of this process or another's."""

    id: str
    operation: str
    deployment: str
    provider: str
    model: str
    stream: bool
    request: Any
    who: Who


class Spent(NamedTuple):
    """What an attempt used and cost; a cost that nobody knows is unknown, not nothing."""

    usage: Usage
    cost: Cost


class Account(Protocol):
    """Keeps account of one call. An attempt is admitted, made, and said to be over; then the call is closed, once. What
    `admit` gives back belongs to that attempt: there may be two at once."""

    @property
    def counts(self) -> bool:
        """Whether the most that an attempt can cost is wanted."""

    async def admit(self, at_most: Decimal | None, at: Any) -> Any:
        """Before an attempt is sent to a deployment. Raises an error of our tree where it must not be."""

    async def attempted(self, ticket: Any, attempt: Attempt, spent: Spent | None, at: Any) -> None:
        """An attempt that was admitted is over; None: nobody bills it."""

    def dropped(self, ticket: Any, attempt: Attempt, spent: Spent | None, at: Any) -> None:
        """The same, where nobody can wait."""

    async def close(
        self,
        state: Literal["ok", "error", "cancelled"],
        seconds: float,
        answer: Response | Answered | None = None,
        error: PolyvoxError | None = None,
        first_token: float | None = None,
    ) -> None:
        """The call is over. A second time changes nothing."""

    def left(self, seconds: float, first_token: float | None) -> None:
        """The caller went away in the middle, and nobody can wait."""


class Books(Protocol):
    """Makes the accounts of calls."""

    def account(self, facts: CallFacts) -> Account:
        """The account of a call that begins."""
