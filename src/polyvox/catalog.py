"""Providers and models as rows of data: which exist, how each is spoken to, and who is meant by a name.
It reads `data/` and knows no key, no environment and no network.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from polyvox import dialects
from polyvox.errors import ConfigError, InputError, UnknownModelError, UnknownProviderError
from polyvox.models import Model as Model
from polyvox.models import problems_of
from polyvox.prices.overrides import Override, overridden

AuthScheme = Literal["bearer", "header", "query", "azure", "google", "sigv4", "none"]
AUTH_SCHEMES: Final[tuple[str, ...]] = get_args(AuthScheme)

# Wide enough for one or two slipped letters, too narrow for a model family named after its maker.
_TYPO_RATIO = 0.75
_TYPO_LENGTH = 2
# How providers mark a snapshot of a model: its date, or the newest one.
_SNAPSHOT = re.compile(r"[-@](20[0-9]{6}|20[0-9]{2}-[0-9]{2}-[0-9]{2}|latest)$")


class Provider(Struct, frozen=True, kw_only=True):
    """A provider: how to speak to it, and where its key may go.

    Attributes:
        name, title, docs: what users type, what they read, and the page where keys are made.
        dialect: a name from `polyvox.dialects.NAMES`; one this version does not speak is refused when it is used.
        base_url: what the dialect's paths are appended to, without a slash at its end; {name} in it is filled
            from the option of that name.
        base_url_at: addresses in its place, by the value of the option that decides.
        needs: the options that its address or its proof needs, and the environment variables that may say them.
        url_source: who said `base_url`: "catalog", "argument", "env NAME" or "file:line".
        auth: a name from `polyvox.auth.SCHEMES`; auth_header names the header of scheme "header", or the
            parameter of scheme "query".
        key_env, base_url_env: environment variables that may hold the key or the address, best first.
        key_parts: variables whose values, with ":" between them, are the key together; the last may be missing.
        key_files: files whose text is the key, each beginning with a variable: "$HOME/login.json".
        key_of: the provider whose key it takes, where it is the same account in another dialect.
        hosts: lower-case host names the key may be sent to, "*.example.com" for all below one; the host of
            `base_url` when not given.
        quirks: names from `polyvox.dialects.QUIRKS`.
        headers: sent with every request; secret_headers too, but never shown; secret_sources: where
            those come from, as `FoundKey.source` says it.
        options: the dialect's own settings.
        default_model: what the provider's bare name means.
        models: glob patterns of bare model names it serves.
        lists_models: whether it tells its models when asked; models_url is where, if not where its dialect has it.
        local: it runs on the user's own machine and works without a key.
        transport: "http", or "demo" for the one that answers by itself, "local" for model files run in this process.
    """

    name: str
    dialect: str
    base_url: str = ""
    base_url_at: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    url_source: str = "catalog"
    auth: AuthScheme = "bearer"
    auth_header: str = ""
    key_env: tuple[str, ...] = ()
    base_url_env: tuple[str, ...] = ()
    key_parts: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    key_of: str = ""
    hosts: tuple[str, ...] = ()
    quirks: frozenset[str] = frozenset()
    headers: dict[str, str] = {}
    secret_headers: dict[str, Any] = {}
    secret_sources: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    default_model: str | None = None
    models: tuple[str, ...] = ()
    lists_models: bool = True
    models_url: str = ""
    local: bool = False
    transport: Literal["http", "demo", "local"] = "http"
    docs: str | None = None
    title: str = ""

    def __post_init__(self) -> None:
        """Refuse rows that cannot work, with ConfigError."""
        problems = tuple(_problems_of(self))
        if problems:
            raise ConfigError(f"the provider {self.name!r} is described wrongly", problems=problems)
        if not self.hosts and self.base_url and "{" not in self.base_url:
            msgspec.structs.force_setattr(self, "hosts", (host_of(self.base_url),))

    def __repr__(self) -> str:
        """Name and address only: headers may be private."""
        return f"Provider({self.name!r}, dialect={self.dialect!r}, base_url={self.base_url!r})"

    __str__ = __repr__

    @property
    def needs_key(self) -> bool:
        """Whether a call without a key is bound to fail."""
        return self.auth != "none" and not self.local


class Target(Struct, frozen=True):
    """Who is meant by a name: the provider, the model exactly as it goes on the wire, what is known of it."""

    provider: Provider
    model: str
    info: Model | None = None

    @property
    def name(self) -> str:
        """The full name, "provider/model"."""
        return f"{self.provider.name}/{self.model}"

    @property
    def known_as(self) -> str:
        """The full name its facts go by: one account in several dialects has the same models."""
        return f"{self.provider.key_of or self.provider.name}/{self.model}"


class Catalog:
    """Providers by name and the models known of them; a value, never changed."""

    __slots__ = ("_bare", "_by_name", "models", "providers")

    def __init__(self, providers: Mapping[str, Provider], models: Iterable[Model] = ()) -> None:
        self.providers: dict[str, Provider] = dict(providers)
        self.models: tuple[Model, ...] = tuple(models)
        self._by_name: dict[tuple[str, str], Model] = {}
        self._bare: dict[str, dict[str, Model]] = {}
        for model in self.models:
            for name in (model.id, *model.aliases):
                self._by_name[model.provider, name] = model
                if model.bare:
                    self._bare.setdefault(name, {})[model.provider] = model

    def _with(self, providers: dict[str, Provider]) -> Catalog:
        """The same models, which are many, at other providers."""
        made = object.__new__(Catalog)
        made.providers, made.models = providers, self.models
        made._by_name, made._bare = self._by_name, self._bare
        return made

    def with_provider(self, provider: Provider) -> Catalog:
        """This catalog with one provider added or replaced."""
        return self._with({**self.providers, provider.name: provider})

    def with_model(self, model: Model) -> Catalog:
        """This catalog with one model added, or in the place of the one with its id at its provider."""
        others = [known for known in self.models if (known.provider, known.id) != (model.provider, model.id)]
        return Catalog(self.providers, (*others, model))

    def with_overrides(
        self, overrides: Mapping[str, Mapping[str, Any]], origins: Mapping[str, str] | None = None
    ) -> Catalog:
        """This catalog with `Settings.providers` applied; origins are `Settings.origins`.

        A name that is not here yet becomes a new provider. ConfigError where the result cannot work.
        """
        providers = dict(self.providers)
        for name, values in overrides.items():
            providers[name] = _overridden(providers.get(name), name, values, origins or {})
        return self._with(providers)

    def with_prices(self, rows: Mapping[str, Iterable[Override]]) -> Catalog:
        """This catalog with prices of the user's own, by the models' full names; one that is not known becomes so."""
        changed: dict[str, Model] = {}
        added: list[Model] = []
        for name, own in rows.items():
            provider, _, model_id = name.partition("/")
            known = self.info(provider, model_id)
            if known is None:
                added.append(overridden(Model(id=model_id, provider=provider), own))
            else:
                changed[known.name] = overridden(changed.get(known.name, known), own)
        if not rows:
            return self
        return Catalog(self.providers, (*[changed.get(model.name, model) for model in self.models], *added))

    def provider(self, name: str) -> Provider:
        """The provider of this name; UnknownProviderError with the nearest names otherwise."""
        try:
            return self.providers[name]
        except KeyError:
            raise _unknown_provider(name, self.providers) from None

    def info(self, provider: str, model: str) -> Model | None:
        """What is known of a model at a provider, or None. A dated snapshot is known as its model is."""
        names = [model]
        if dated := _SNAPSHOT.search(model):
            names.append(model[: dated.start()])
        row = self.providers.get(provider)
        owners = [provider, row.key_of] if row is not None and row.key_of else [provider]
        known = (self._by_name.get((owner, name)) for owner in owners for name in names)
        return next((found for found in known if found is not None), None)

    def successor(self, target: Target, today: date) -> Target:
        """Who to ask instead of a model that is deprecated or retired on a day; the same target where nobody
        is named. Only for names that leave the choice to us, or whoever asks for an upgrade."""
        seen = {target.model}
        while target.info and target.info.successor and target.info.standing(today) != "alive":
            if target.info.successor in seen:
                break
            target = self._at(target.provider, target.info.successor)
            seen.add(target.model)
        return target

    def resolve(
        self,
        name: str,
        aliases: Mapping[str, str] | None = None,
        has_key: Callable[[Provider], bool] | None = None,
    ) -> Target:
        """Who is meant by "provider/model", "provider:model", "@alias" or a bare model name.

        Names split at the first separator only; what follows is the provider's business and goes on
        the wire as typed. A provider's bare name means its default model. Where several providers
        serve a bare name, the only one with a key wins. Raises UnknownModelError or
        UnknownProviderError with the nearest names, ConfigError for aliases that go in circles.

            >>> load().resolve("anthropic/claude-haiku-4-5").model
            'claude-haiku-4-5'
        """
        name = follow(name.strip(), aliases or {})
        left, separator, rest = split_name(name)
        named = self.providers.get(left.lower())
        if separator and named:
            return self._at(named, rest)
        if name.lower() in self.providers:
            return self._default(self.providers[name.lower()])
        found = self._serving(name)
        if not found and separator:
            found = self._serving_tagged(name, left, separator)
        if not found:
            raise self._nothing_serves(name)
        if len(found) > 1 and has_key is not None:
            keyed = [provider for provider in found if not provider.needs_key or has_key(provider)]
            found = keyed if len(keyed) == 1 else found
        if len(found) > 1:
            spellings = ", ".join(f"{provider.name}/{name}" for provider in found)
            raise UnknownModelError(
                f"the model name {name!r} is ambiguous: {len(found)} providers serve it",
                hint=f"say one of: {spellings}",
            )
        return self._at(found[0], name)

    def claims(self, name: str) -> bool:
        """Whether a name that is no alias belongs to somebody: a provider, a model that is known, or one that a
        provider's patterns take. `resolve` may still refuse it, as ambiguous or incomplete."""
        left, separator, _ = split_name(name)
        if not name or (separator and left.lower() in self.providers) or name.lower() in self.providers:
            return True
        try:
            return bool(self._serving(name) or (separator and self._serving_tagged(name, left, separator)))
        except UnknownProviderError:
            return False

    def _at(self, provider: Provider, model: str) -> Target:
        if not model:
            raise UnknownModelError(
                f"no model is named after {provider.name!r}", hint=f"say {provider.name}/MODEL", provider=provider.name
            )
        return Target(provider, model, self.info(provider.name, model))

    def _default(self, provider: Provider) -> Target:
        if provider.default_model is None:
            raise UnknownModelError(
                f"{provider.name!r} is a provider without a default model",
                hint=f"say {provider.name}/MODEL",
                provider=provider.name,
            )
        return self._at(provider, provider.default_model)

    def _serving(self, name: str) -> list[Provider]:
        """Providers of a bare name: those whose model it is, else those whose patterns take it."""
        exact = [self.providers[known] for known in self._bare.get(name, ()) if known in self.providers]
        return exact or self._matching(name, lambda pattern: (":" in pattern) == (":" in name) and pattern != "*:*")

    def _serving_tagged(self, name: str, left: str, separator: str) -> list[Provider]:
        """Providers of "family:tag", the naming of local model stores, unless a provider was misspelt."""
        tagged = self._matching(name, lambda pattern: pattern == "*:*") if separator == ":" else []
        if any(self._takes(provider, left) for provider in tagged):
            return tagged
        if _misspelt(left, self.providers) or separator == "/":
            raise _unknown_provider(left, self.providers, name)
        return tagged

    def _matching(self, name: str, use: Callable[[str], bool]) -> list[Provider]:
        return [
            provider
            for provider in self.providers.values()
            if any(use(pattern) and fnmatchcase(name, pattern) for pattern in provider.models)
        ]

    @staticmethod
    def _takes(provider: Provider, family: str) -> bool:
        return any(pattern != "*:*" and fnmatchcase(family, pattern) for pattern in provider.models)

    def _nothing_serves(self, name: str) -> InputError:
        if not name:
            return UnknownModelError("the model name is empty", hint="say provider/model")
        near = _nearest(name, self._bare, n=3, cutoff=0.6)
        near = near or _nearest(name, self.providers, n=1, cutoff=_TYPO_RATIO)
        full = [self._full(other) for other in near]
        hint = f"did you mean {' or '.join(full)}?" if full else f"say which provider serves it: PROVIDER/{name}"
        return UnknownModelError(f"no provider is known to serve {name!r}", hint=hint)

    def _full(self, name: str) -> str:
        owners = self._bare.get(name)
        return f"{next(iter(owners))}/{name}" if owners else name


# ---- loading ----------------------------------------------------------------------------------


@functools.cache
def _packaged() -> Catalog:
    """What comes with polyvox, read once."""
    import tomllib

    folder = Path(__file__).parent / "data"
    rows = tomllib.loads((folder / "providers.toml").read_text(encoding="utf-8"))
    providers = {name: _provider(name, row) for name, row in rows.items()}
    # The first row of the file is a note on where its facts come from.
    _, *models = msgspec.json.decode((folder / "models.json").read_bytes(), type=list[msgspec.Raw])
    decode = msgspec.json.Decoder(Model).decode
    return Catalog(providers, map(decode, models))


_lock = threading.Lock()
_with_added: Catalog | None = None
_added: tuple[Model, ...] = ()


def load() -> Catalog:
    """The catalog that comes with polyvox, with the models added by the program. The same object until one is added."""
    return _with_added or _packaged()


def added() -> tuple[Model, ...]:
    """The models that the program added, in their order."""
    return _added


def add_model(model: Model | None = None, /, **facts: Any) -> Model:
    """Make a model known to all clients of this program, in the place of what was known of it.

    Takes a Model or its fields; raises ConfigError, with every problem, for facts that cannot be.

        >>> add_model(id="house-7b", provider="vllm", context=8192, bare=True).name
        'vllm/house-7b'
        >>> load().resolve("house-7b").provider.name
        'vllm'
    """
    global _with_added, _added
    if model is None:
        try:
            model = msgspec.convert(facts, Model)
        except msgspec.ValidationError as error:
            raise ConfigError(
                f"the model {str(facts.get('id'))!r} is described wrongly", problems=(str(error),)
            ) from None
    elif facts or not isinstance(model, Model):
        raise InputError("add_model takes a Model, or the fields of one", param="model")
    problems = tuple(problems_of(model))
    if problems:
        raise ConfigError(f"the model {model.id!r} is described wrongly", problems=problems)
    with _lock:
        others = [known for known in _added if (known.provider, known.id) != (model.provider, model.id)]
        _with_added, _added = load().with_model(model), (*others, model)
    return model


def forget_models(*names: str) -> None:
    """Forget the models that were added, or of them those with these full names: what came with polyvox holds again."""
    global _with_added, _added
    with _lock:
        kept = tuple([model for model in _added if names and model.name not in names])
        changed = None
        for model in kept:
            changed = (changed or _packaged()).with_model(model)
        _with_added, _added = changed, kept


def _provider(name: str, row: Mapping[str, Any]) -> Provider:
    try:
        return msgspec.convert({**row, "name": name}, Provider)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the provider {name!r} is described wrongly", problems=(str(error),)) from None


# What settings call by another name than the row does.
_RENAMED = {"model": "default_model", "api_key_env": "key_env"}
# What settings say of a provider that is not the catalog's business.
_ELSEWHERE = frozenset({"api_key", "timeout"})


def _overridden(old: Provider | None, name: str, values: Mapping[str, Any], origins: Mapping[str, str]) -> Provider:
    place = f"providers.{name}"
    changes = {_RENAMED.get(key, key): value for key, value in values.items() if key not in _ELSEWHERE}
    secret = changes.pop("secret_headers", {})
    if isinstance(changes.get("key_env"), str):
        changes["key_env"] = (changes["key_env"],)
    if "base_url" in changes:
        changes["url_source"] = origins.get(f"{place}.base_url", "argument")
    # A new provider without a word on its protocol is what nearly all of them are.
    row: dict[str, Any] = {"dialect": "openai.chat"} if old is None else msgspec.structs.asdict(old)
    secret = {**row.pop("secret_headers", {}), **secret}
    tables = {field: {**row.get(field, {}), **changes.pop(field, {})} for field in ("headers", "options")}
    provider = _provider(name, {**row, **changes, **tables})
    if not secret:
        return provider
    said = [origins.get(f"{place}.secret_headers.{header}", "argument") for header in secret]
    sources = dict.fromkeys(origin if origin in ("argument", "row") else f"config {origin}" for origin in said)
    return msgspec.structs.replace(provider, secret_headers=secret, secret_sources=tuple(sources))


def _problems_of(provider: Provider) -> Iterable[str]:
    for quirk in sorted(provider.quirks - dialects.QUIRKS.keys()):
        yield f"quirks: {quirk!r} is not one of {', '.join(dialects.QUIRKS)}"
    if provider.auth in ("header", "query") and not provider.auth_header:
        yield f"auth_header: is needed with auth = {provider.auth!r}"
    if not provider.base_url and provider.transport == "http":
        yield "base_url: is needed"
    if provider.base_url:
        yield from (f"base_url: {problem}" for problem in url_problems(provider.base_url))


# ---- addresses --------------------------------------------------------------------------------


def url_problems(url: str) -> list[str]:
    """What is wrong with a base URL, in words that never repeat it (it may hold a password)."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError:
        return ["is not a URL"]
    problems = []
    if parts.scheme not in ("http", "https"):
        problems.append("must begin with https:// (or http:// for this machine)")
    elif not parts.hostname:
        problems.append("has no host")
    if parts.username is not None or parts.password is not None:
        problems.append("must not hold a user or password; keys go in the key store")
    if parts.query or parts.fragment:
        problems.append("must not have a query or fragment")
    if any(char.isspace() or not char.isprintable() for char in url):
        problems.append("has spaces or control characters")
    return problems


def host_of(url: str) -> str:
    """The lower-case host name of a URL, without its port; "" where there is none."""
    try:
        return (urlsplit(url).hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def complete_url(text: str, provider: Provider) -> str:
    """A base URL from what people put in variables: "host", "host:port" or a URL.

    Without a scheme, a local provider gets http and its usual port, others https. The wildcard
    address a server listens on becomes the loopback address a client can reach.
    """
    text = text.strip().rstrip("/")
    if "://" not in text:
        text = f"{'http' if provider.local else 'https'}://{text}"
        usual = urlsplit(provider.base_url).port if provider.local and provider.base_url else None
        try:
            parts = urlsplit(text)
            if parts.port is None and usual and parts.hostname:
                text = parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{usual}").geturl()
        except ValueError:
            return text
    return text.replace("://0.0.0.0", "://127.0.0.1", 1).replace("://[::]", "://[::1]", 1)


# ---- names ------------------------------------------------------------------------------------


def follow(name: str, aliases: Mapping[str, str]) -> str:
    """Replace aliases until none is left."""
    seen: list[str] = []
    while name.startswith("@") or name in aliases:
        alias = name.removeprefix("@")
        if alias in seen:
            raise ConfigError(f"the aliases go in a circle: {' -> '.join([*seen, alias])}")
        if alias not in aliases:
            near = _nearest(alias, aliases, n=1)
            hint = f"did you mean @{near[0]}?" if near else "add it under [aliases] in the configuration file"
            raise UnknownModelError(f"there is no alias {alias!r}", hint=hint)
        seen.append(alias)
        name = aliases[alias].strip()
    return name


def split_name(name: str) -> tuple[str, str, str]:
    """Split at the first '/' or ':', whichever comes first."""
    for index, char in enumerate(name):
        if char in "/:":
            return name[:index], char, name[index + 1 :]
    return name, "", ""


def _misspelt(left: str, providers: Mapping[str, Provider]) -> list[str]:
    near = _nearest(left.lower(), providers, n=2, cutoff=_TYPO_RATIO)
    return [name for name in near if abs(len(name) - len(left)) <= _TYPO_LENGTH]


def _unknown_provider(left: str, providers: Mapping[str, Provider], name: str = "") -> UnknownProviderError:
    near = _misspelt(left, providers)
    rest = name[len(left) :]
    spelt = " or ".join(f"{other}{rest}" for other in near)
    hint = f"did you mean {spelt}?" if near else f"known providers: {', '.join(sorted(providers))}"
    return UnknownProviderError(f"there is no provider {left!r}", hint=hint)


def _nearest(word: str, words: Iterable[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
    """The words most like one, best first; difflib is loaded only where somebody erred."""
    import difflib

    return difflib.get_close_matches(word, list(words), n, cutoff)
