"""The setup wizard of AI Utilities: asks what is missing, says where keys come from, and writes the AI_ variables to a
.env file. It shows no key, and what it asks and says goes through what it was given."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from msgspec import Struct, structs

from polyvox.compat.ai_utilities.setup import dotenv, probe
from polyvox.compat.ai_utilities.setup.guidance import Guidance, guidance, providers
from polyvox.compat.errors import named, speaking
from polyvox.errors import InputError, PolyvoxError, UnknownProviderError
from polyvox.keys import Secret, secret_of

T = TypeVar("T")

TRIES = 3
"""How often a question is asked again when the answer cannot be."""


class Answers(Struct, frozen=True, kw_only=True):
    """What is known before anybody is asked; None is asked, or left as it is. probe: ask the provider at the end."""

    provider: str | None = None
    model: str | None = None
    base_url: str | None = None
    api_key: Secret | str | None = None
    probe: bool | None = None

    def __repr__(self) -> str:
        """Without the key."""
        return f"Answers(provider={self.provider!r}, model={self.model!r}, base_url={self.base_url!r})"


class SetupResult(Struct, frozen=True, kw_only=True):
    """What came of it. variables are the names that were set, written says whether the file is another now, backup
    is where the text before is; models is how many the provider told of when it was probed, problem why it did not."""

    path: Path
    provider: str
    model: str
    variables: tuple[str, ...] = ()
    written: bool = False
    backup: Path | None = None
    models: int | None = None
    problem: PolyvoxError | None = None


class SetupWizard:
    """Sets up one provider in a .env file, which gets mode 0600 and keeps its other lines; the text before stays
    beside it in a .bak.

    input asks a question and gives the line that is typed, secret does so without an echo; output says a line. Where
    input is given and secret is not, keys are read by it too: whoever gives it sees to the echo.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     wizard = SetupWizard(f"{folder}/.env", input=lambda question: "", output=lambda line: None)
    ...     wizard.run(Answers(provider="ollama", model="llama3.2"), ask=False).variables
    ('AI_PROVIDER', 'AI_MODEL')
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ".env",
        *,
        input: Callable[[str], str] | None = None,
        output: Callable[[str], None] | None = None,
        secret: Callable[[str], str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(path, str | os.PathLike) or not str(path):
            raise named(InputError("path is the name of a file", hint='such as ".env"', param="path"))
        self.path: Path = Path(path).expanduser()
        self._input = input or _typed
        self._output = output or _said
        self._secret = secret or input or getpass.getpass
        self._env = os.environ if env is None else env

    def guidance(self, provider: str) -> Guidance:
        """What a person has to know to use a provider."""
        return guidance(provider, self._env)

    def run(self, answers: Answers | None = None, *, ask: bool = True, dry_run: bool = False) -> SetupResult:
        """Ask, write, and probe where that is wanted; with ask off nobody is asked and a provider must be named.

        dry_run shows what would be written and writes nothing. InputError and ConfigError for what cannot be, before
        anything is written; a probe that fails is told in the result.
        """
        answers = _checked(answers)
        before = self._before()
        found = self._provider(answers.provider, before, ask)
        for line in found.lines:
            self._output(line)
        same = before.get("AI_PROVIDER", "").lower() == found.provider
        key = self._key(answers.api_key, found, ask, kept=same and "AI_API_KEY" in before)
        model = self._model(answers.model, found, before.get("AI_MODEL") if same else None, ask)
        base_url = self._base_url(answers.base_url, found, before.get("AI_BASE_URL") if same else None, ask)
        values = _values(found, model, base_url, key, drops_key=not same)
        self._show(values, before)
        names = tuple(name for name, value in values.items() if value is not None)
        result = SetupResult(path=self.path, provider=found.provider, model=model, variables=names)
        if dry_run or (ask and not self._agreed(f"Write this to {self.path}?", True)):
            self._output("Nothing was written.")
            return result
        return self._probed(self._written(result, values), answers.probe, ask, base_url, key or _kept(before, same))

    # ---- questions ----------------------------------------------------------------------------

    def _provider(self, said: str | None, before: Mapping[str, str], ask: bool) -> Guidance:
        if said is not None or not ask:
            if said is None:
                raise named(InputError("no provider is named", hint=f"name one of {', '.join(providers())}"))
            return self.guidance(said)
        self._output(f"Providers: {', '.join(providers())}")
        return self._until(
            f"Provider [{before.get('AI_PROVIDER') or 'openai'}]: ",
            lambda typed: self.guidance(typed or before.get("AI_PROVIDER") or "openai"),
        )

    def _key(self, said: Secret | str | None, found: Guidance, ask: bool, *, kept: bool) -> Secret | None:
        if said is not None:
            return probe.checked_key(found.provider, said)
        key = None
        if ask and found.needs_key:
            leave = " (Enter leaves it as it is)" if kept or found.found else ""
            key = self._until(f"Key for {found.title}{leave}: ", lambda typed: self._taken(found, typed), self._secret)
        if key is None and found.needs_key and not (kept or found.found):
            self._output(f"No key is set: calls to {found.title} will fail until there is one.")
        return key

    def _taken(self, found: Guidance, typed: str) -> Secret | None:
        return probe.checked_key(found.provider, typed) if typed else None

    def _model(self, said: str | None, found: Guidance, before: str | None, ask: bool) -> str:
        usual = before or found.default_model

        def taken(typed: str) -> str:
            if not (typed or usual):
                raise named(InputError(f"no model of {found.title} is usual", hint="name one", param="model"))
            return typed or usual or ""

        if said is not None or not ask:
            return taken((said or "").strip())
        return self._until(f"Model{f' [{usual}]' if usual else ''}: ", taken)

    def _base_url(self, said: str | None, found: Guidance, before: str | None, ask: bool) -> str | None:
        if said is not None:
            return probe.checked_url(said)
        if not ask or not (found.local or before):
            return before
        usual = before or found.base_url
        typed = self._until(f"Address [{usual}]: ", lambda typed: probe.checked_url(typed or usual))
        # The usual one need not be written: where it is known, it may change.
        return typed if before or typed != found.base_url else None

    def _until(self, question: str, taken: Callable[[str], T], asks: Callable[[str], str] | None = None) -> T:
        """What an answer means; an answer that cannot be is asked again, a few times."""
        for tries in range(TRIES):
            try:
                return taken((asks or self._input)(question).strip())
            except (InputError, UnknownProviderError) as error:
                if tries == TRIES - 1:
                    raise
                self._output(f"{error.message}; {error.hint}")
            except EOFError:
                raise named(InputError(
                    "nobody answers", hint="name a provider and ask nothing: setup --yes --provider NAME"
                )) from None  # fmt: skip
        raise AssertionError("unreachable")

    def _agreed(self, question: str, usual: bool) -> bool:
        typed = self._until(f"{question} [{'Y/n' if usual else 'y/N'}] ", str.lower)
        return usual if not typed else typed in ("y", "yes")

    # ---- the file -----------------------------------------------------------------------------

    def _before(self) -> dict[str, str]:
        """The AI_ variables that the file has."""
        return probe.variables_of(self.path)

    def _show(self, values: Mapping[str, str | None], before: Mapping[str, str]) -> None:
        self._output(f"{self.path}:")
        for name, value in values.items():
            if value is None and name in before:
                self._output(f"  {name} is taken out: it was for another provider")
            elif value is not None:
                self._output(f"  {name}={Secret(value).fingerprint if name == 'AI_API_KEY' else value}")

    def _written(self, result: SetupResult, values: Mapping[str, str | None]) -> SetupResult:
        with speaking():
            change = dotenv.change(self.path, values)
        said = f"Wrote {self.path}, which only you can read." if change.changed else f"{self.path} says so already."
        self._output(said)
        if change.backup is not None:
            self._output(f"What it said before is in {change.backup}.")
        if change.changed and _may_be_shared(self.path):
            self._output(f"Keep {self.path.name} and {self.path.name}.bak out of version control: see .gitignore.")
        return structs.replace(result, written=change.changed, backup=change.backup)

    def _probed(
        self, result: SetupResult, wanted: bool | None, ask: bool, base_url: str | None, key: Secret | None
    ) -> SetupResult:
        if wanted is None:
            wanted = ask and self._agreed(f"Ask {result.provider} for its models now? It costs nothing.", False)
        if not wanted:
            return result
        try:
            count = probe.models_at(result.provider, base_url, key)
        except PolyvoxError as error:
            self._output(f"{result.provider} did not answer as it should: {error.message}; {error.hint}")
            return structs.replace(result, problem=named(error))
        self._output(f"{result.provider} is there and tells of {count} models.")
        return structs.replace(result, models=count)


def _checked(answers: Answers | None) -> Answers:
    if answers is None:
        return Answers()
    if not isinstance(answers, Answers):
        raise named(InputError(f"answers are Answers, not {type(answers).__name__}", hint="Answers(provider=...)"))
    for field, kinds in _TEXTS.items():
        value = getattr(answers, field)
        if value is not None and not isinstance(value, kinds):
            raise named(InputError(f"{field} is text, not {type(value).__name__}", param=field))
    return answers


_TEXTS = {"provider": (str,), "model": (str,), "base_url": (str,), "api_key": (str, Secret)}


def _values(
    found: Guidance, model: str, base_url: str | None, key: Secret | None, *, drops_key: bool
) -> dict[str, str | None]:
    """What the file is to say. A key or an address of another provider does not stay: it would go to this one."""
    values: dict[str, str | None] = {"AI_PROVIDER": found.provider, "AI_MODEL": model}
    if base_url or drops_key:
        values["AI_BASE_URL"] = base_url
    if key is not None or drops_key:
        values["AI_API_KEY"] = None if key is None else key.reveal()
    return values


def _kept(before: Mapping[str, str], same: bool) -> Secret | None:
    return secret_of(before["AI_API_KEY"]) if same and before.get("AI_API_KEY") else None


def _may_be_shared(path: Path) -> bool:
    """Whether the file lies in a Git repository's root that does not say to leave it out."""
    folder = Path(os.path.realpath(path)).parent
    if not (folder / ".git").exists():
        return False
    ignored = dotenv.read(folder / ".gitignore") or ""
    return not any(line.strip().lstrip("/") in (f"{path.name}*", f"{path.name}.*") for line in ignored.splitlines())


def _typed(question: str) -> str:
    return input(question)


def _said(line: str) -> None:
    import click

    click.echo(line, err=True)
