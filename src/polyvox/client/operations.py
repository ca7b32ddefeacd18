"""Everything a client asks that is no chat: from what a call says to one whole answer, by the engine's own path.
What an operation's bytes are is its dialect's business; this room knows none by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypedDict, TypeVar

from polyvox.catalog import Catalog, Provider, Target, follow
from polyvox.client.check import table
from polyvox.client.keeping import who_of
from polyvox.dialects import NAMES, Operation
from polyvox.engine import CallOptions, OperationDeployment
from polyvox.errors import InputError, MissingKeyError, NotFoundError, UsageError
from polyvox.types import Answered, Asked, Extra, Loss

if TYPE_CHECKING:
    from polyvox.backends import BackendDeployment
    from polyvox.client import AsyncClient
    from polyvox.config import Settings

_MOST_NAMES = 8  # of providers, in a hint

AskedT = TypeVar("AskedT", bound=Asked)
AnsweredT = TypeVar("AnsweredT", bound=Answered)


class Kind(NamedTuple, Generic[AskedT, AnsweredT]):
    """An operation beside chats, as a client knows it.

    what names it in errors, as "embeddings"; find gives the operation that belongs to the dialect of a name, None
    where it has none; model is the option of a provider's row that names the usual model for it, "" where no model
    does it, as with files: then a provider alone is enough, and the deployment is called "PROVIDER/WHAT".
    """

    what: str
    find: Callable[[str], Operation[AskedT, AnsweredT] | None]
    model: str


class SaidOfCall(TypedDict, total=False):
    """What any call may say of itself: who is asked, and how the call is made. See `AsyncClient.embed`."""

    model: str | None
    timeout: float | None
    headers: Mapping[str, str] | None
    extra_body: Mapping[str, Any] | None
    strict: bool | None
    tags: Iterable[str] | None
    project: str | None
    session: str | None
    tenant: str | None


class Prepared(NamedTuple, Generic[AskedT, AnsweredT]):
    """A call that can be made: who is asked, how, and the keys that go into its body verbatim."""

    deployment: OperationDeployment[AskedT, AnsweredT]
    how: CallOptions
    extra: Extra


def prepared(client: AsyncClient, kind: Kind[AskedT, AnsweredT], said: SaidOfCall) -> Prepared[AskedT, AnsweredT]:
    """Who is asked and how; raises what stands in the way, before anything is sent.

    The client's timeout, headers and strictness hold; its extra_body is for chats, and the call's own for this one.
    """
    deployment = client._pooling.operating(kind, said.get("model"), client._model)
    how = client._how(deployment, said.get("timeout"), said.get("headers"), said.get("strict"), who_of(said))
    keys = table("extra_body", said.get("extra_body"))
    return Prepared(deployment, how, {deployment.speaks: keys} if keys else {})


async def sought(client: AsyncClient, kind: Kind[AskedT, AnsweredT], said: SaidOfCall) -> Prepared[AskedT, AnsweredT]:
    """The same, with a model that nobody is known to serve looked for on servers that keep models."""
    try:
        return prepared(client, kind, said)
    except NotFoundError as unknown:
        await client._deployments.seek(said.get("model") or client._model, unknown)
        return prepared(client, kind, said)


async def operate(
    client: AsyncClient,
    kind: Kind[AskedT, AnsweredT],
    said: SaidOfCall,
    make: Callable[[str, Extra], AskedT],
) -> AnsweredT:
    """One call: make gives the request, from the model's name and the extra keys. Retries, deadline, hooks, losses
    and errors are those of a chat."""
    ready = await sought(client, kind, said)
    return await client._engine.operate(make(ready.deployment.model, ready.extra), ready.deployment, ready.how)


# ---- who is asked -----------------------------------------------------------------------------


class Naming(NamedTuple):
    """What decides who is asked: the model a call names, the client's own, what is configured and what is known.

    one_place is whether there is but one to ask, whatever the model is called; own_key whether the client was given
    a key; meant says who a name means, has_key whether there is a key for a provider.
    """

    name: str | None
    own: str | None
    settings: Settings
    rows: Catalog
    one_place: bool
    own_key: bool
    meant: Callable[[str | None], Target | BackendDeployment]
    has_key: Callable[[Provider], bool]

    def own_provider(self, asked: Target) -> Provider:
        """The provider that the client's own key belongs to, where one is asked."""
        if self.own is None or self.one_place:
            return asked.provider
        row = self.provider(self.own)
        meant = None if row is not None else self.meant(self.own)
        return row or (meant.provider if isinstance(meant, Target) else asked.provider)

    def provider(self, name: str) -> Provider | None:
        """The provider whose bare name this is, or stands for."""
        return self.rows.providers.get(follow(name.strip(), self.settings.aliases).lower())


def target_for(kind: Kind[Any, Any], naming: Naming) -> tuple[Target, tuple[Loss, ...]]:
    """Who is asked for an operation, and a note where that is not who was named: a client's own model that is known
    to write text. A model that the call itself names is asked, whatever is known of it."""
    given = naming.name or naming.own or (None if naming.one_place else naming.settings.model)
    if not naming.one_place:
        named = naming.provider(given) if given is not None else None
        if given is None or named is not None:
            return _usual_at(kind, named or _first_with_key(kind, naming), naming.rows), ()
    meant = naming.meant(given or (None if kind.model else kind.what))
    if not isinstance(meant, Target):
        raise UsageError(
            f"the backend {meant.provider!r} has no {kind.what}: it answers chats only",
            hint="name a model of a provider",
            sent="no",
        )
    writes_text = meant.info is not None and meant.info.max_output is not None
    if naming.name is not None or not kind.model or not writes_text:
        return meant, ()
    usual = _usual_at(kind, meant.provider, naming.rows)
    note = f"{meant.name} writes text: {usual.name} is asked, its provider's usual model for {kind.what}"
    return usual, (Loss("model", note, "note"),)


def operation_of(kind: Kind[AskedT, AnsweredT], asked: Provider, rows: Catalog) -> Operation[AskedT, AnsweredT]:
    """The operation of a provider's protocol; InputError, with those that have it, where there is none."""
    operation = kind.find(asked.dialect)
    if operation is not None:
        return operation
    able = [row for row in rows.providers.values() if row.dialect in NAMES and kind.find(row.dialect) is not None]
    # Speaking a protocol that has it is not yet having it: those with a usual model for it surely do.
    sure = [row for row in able if kind.model in row.options] or able
    names = [row.name for row in sure]
    more = ", ..." if len(names) > _MOST_NAMES else ""
    raise InputError(
        f"{asked.title or asked.name} has no {kind.what}: its protocol, {asked.dialect}, knows none",
        hint=f"ask a provider that has: {', '.join(names[:_MOST_NAMES])}{more}",
        param="model",
        provider=asked.name,
    )


def _usual_at(kind: Kind[Any, Any], row: Provider, rows: Catalog) -> Target:
    """The usual model of a provider: the one its row names for this; else, where no key is needed, its default model,
    as what runs on the user's own machine embeds with the model it writes with."""
    operation_of(kind, row, rows)
    named = row.options.get(kind.model) if kind.model else kind.what
    model = named if isinstance(named, str) else None if row.needs_key else row.default_model
    if model is None:
        raise InputError(
            f"no model for {kind.what} is named, and none is known of {row.title or row.name}",
            hint=f"name one, as {row.name}/MODEL",
            param="model",
            provider=row.name,
        )
    return Target(row, model, rows.info(row.name, model))


def _first_with_key(kind: Kind[Any, Any], naming: Naming) -> Provider:
    """The first provider that has a key and a usual model for an operation."""
    if naming.own_key:
        raise InputError(
            "an api_key without a model or base_url: it is not clear whose key it is",
            hint='name the model, for example Client("PROVIDER/MODEL", api_key=...)',
        )
    for row in naming.rows.providers.values():
        able = kind.find(row.dialect) is not None and (not kind.model or kind.model in row.options)
        if able and row.needs_key and naming.has_key(row):
            return row
    raise MissingKeyError(
        f"no model for {kind.what} is named, and no provider that has a usual one has a key",
        hint='name one: model="PROVIDER/MODEL"; the built-in offline model is model="demo"',
    )
