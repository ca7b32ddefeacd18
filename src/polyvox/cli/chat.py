"""A conversation, line by line: `polyvox chat`. What was said is kept by the client's chat; this knows lines,
commands and files."""

from __future__ import annotations

import difflib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polyvox.cli import output, routes, start
from polyvox.cli.ask import show, usage_line
from polyvox.cli.kept import kept, who
from polyvox.cli.output import CommandLineError
from polyvox.errors import InputError, PolyvoxError

if TYPE_CHECKING:
    from polyvox.client import Chat
    from polyvox.config import Settings
    from polyvox.types import Response

_PROMPT = "> "
_FORMAT = 1


@click.command(name="chat")
@start.model_options
def chat_command(**said: Any) -> None:
    """Talk with a model: a line is a turn, /help lists the commands.

    Ctrl-C stops an answer and keeps the conversation, Ctrl-D ends it. Lines that are piped in are turns
    too; then the first error ends the conversation.
    """
    if said["quiet"]:
        output.be_quiet()
    if said["key"] == "-":
        raise CommandLineError(
            "standard input holds the conversation, so it cannot hold the key", "say --key @env:NAME"
        )
    options = {**start.options_of(said["options"], said["keep_alive"]), **who(said)}
    system = start.text_or_file(said["system"], "-s")
    key = start.key_of(said["key"])
    settings = start.settings()
    choice = start.choose(said, key, settings)
    if choice.remark:
        output.note(choice.remark, always=True)
    from polyvox.client import Client

    with (
        kept(settings, said) as keeping,
        Client(
            choice.model,
            **choice.among,
            api_key=key,
            timeout=said["timeout"],
            strict=said["strict"] or None,
            upgrade=said["upgrade"],
            settings=settings,
            record=said["record"],
            replay=said["replay"],
            **keeping,
        ) as client,
    ):
        talk = client.chat(model=choice.model if isinstance(choice.model, str) else None, system=system, **options)
        began = f"tier {said['tier']}" if said["tier"] else ", ".join(said["models"])
        Conversation(talk, settings, began, usage=said["usage"], reasoning=not said["hide_reasoning"]).run()


class Conversation:
    """The loop over lines. A line is a command or a turn; an error ends neither, unless nobody is there."""

    def __init__(self, talk: Chat, settings: Settings, began: str, *, usage: bool, reasoning: bool) -> None:
        self._talk = talk
        self._settings = settings
        self._began = began or settings.model or "the one it began with"
        self._usage = usage
        self._reasoning = reasoning
        self._person = output.is_terminal(sys.stdin)
        self._asked: Any = None
        self._over = False

    def run(self) -> None:
        """Take lines until there are no more."""
        if self._person:
            output.note("/help lists the commands, Ctrl-D ends")
        while not self._over:
            try:
                text = self._next_line()
                if text is None:
                    break
                self._take(text.strip())
            except KeyboardInterrupt:
                if not self._person:
                    raise
                output.plain("")
            except PolyvoxError as error:
                if not self._person:
                    raise
                output.error(error)

    def _next_line(self) -> str | None:
        """The next line, or None at the end. The prompt goes where the answers do not."""
        if not self._person:
            return sys.stdin.readline() or None if sys.stdin is not None else None
        try:
            if output.is_terminal(sys.stdout):
                import contextlib

                with contextlib.suppress(ImportError):
                    import readline  # noqa: F401 - importing it gives input() editing and history
                return input(_PROMPT)
            sys.stderr.write(_PROMPT)
            sys.stderr.flush()
            text = sys.stdin.readline()
        except EOFError:
            text = ""
        if not text:
            output.plain("")
        return text or None

    def _take(self, text: str) -> None:
        if not text:
            return
        if text.startswith("//"):
            self._turn(text[1:])
        elif text.startswith("/"):
            word, _, rest = text[1:].partition(" ")
            self._command(word, rest.strip())
        else:
            self._turn(text)

    def _command(self, word: str, rest: str) -> None:
        known = _COMMANDS.get(word)
        if known is None:
            near = difflib.get_close_matches(word, _COMMANDS, n=1)
            hint = f"did you mean /{near[0]}?" if near else "/help lists them; // begins a turn with a slash"
            raise CommandLineError(f"there is no command /{word}", hint)
        known[0](self, rest)

    # ---- turns --------------------------------------------------------------------------------

    def _turn(self, prompt: Any, **how: Any) -> None:
        """Ask and show. The turn joins the conversation only when the answer is whole."""
        self._asked = prompt
        answer = output.Answer(reasoning=self._reasoning)
        begun = time.monotonic()
        try:
            with self._talk.stream(prompt, **how) as stream:
                response = show(stream, answer)
        except KeyboardInterrupt:
            answer.break_off()
            if not self._person:
                raise
            output.note("stopped; the turn is not kept, /retry asks it again")
            return
        except BaseException:
            answer.break_off()
            raise
        answer.end()
        self._remark(response, time.monotonic() - begun)

    def _remark(self, response: Response, seconds: float) -> None:
        for loss in response.losses:
            (output.warn if loss.severity == "loss" else output.note)(f"{loss.field}: {loss.why}")
        if response.finish_reason not in ("stop", None):
            output.note(f"the answer ended with {response.finish_reason}")
        if self._usage:
            output.plain(usage_line(response, seconds))

    # ---- commands -----------------------------------------------------------------------------

    def _help(self, rest: str) -> None:
        for name, (_, words) in _COMMANDS.items():
            output.plain(f"/{name:<8} {words}")

    def _model(self, rest: str) -> None:
        if rest:
            self._know(rest)
            self._talk.model = rest
        output.plain(f"model: {self._talk.model or self._began}")

    def _know(self, name: str) -> None:
        """Raise what is wrong with a name that nobody is known by."""
        if not routes.is_known(name, self._settings):
            start.target(name, self._settings)

    def _system(self, rest: str) -> None:
        if rest:
            self._talk.system = start.text_or_file(rest, "/system")
        output.plain(f"system: {self._talk.system or self._settings.system or '(none)'}")

    def _clear(self, rest: str) -> None:
        self._talk.clear()
        output.plain("the conversation is empty")

    def _undo(self, rest: str) -> None:
        if not self._talk.messages:
            raise InputError("there is no turn to take back")
        self._talk.undo()
        output.plain(f"{len(self._talk.messages)} messages are left")

    def _retry(self, rest: str) -> None:
        """Ask the last question again: the one that failed, or the one whose answer did not please."""
        asked = self._asked
        messages = self._talk.messages
        last = next((message for message in reversed(messages) if message.role == "user"), None)
        answered = last is not None and (asked is None or last.text == asked)
        if last is not None and answered:
            asked = last
        if asked is None:
            raise InputError("nothing was asked yet")
        if answered:
            self._talk.undo()
        try:
            # An answer that did not please is not given again, even where answers are kept.
            self._turn(asked.text if answered and len(asked.parts) == 1 else asked, cached="refresh")
        finally:
            if answered and len(self._talk.messages) < len(messages):
                # The second try failed: the first one stands.
                self._talk.messages = messages

    def _save(self, rest: str) -> None:
        if not rest:
            raise CommandLineError("/save needs a file", "/save talk.json")
        import msgspec

        from polyvox.keys import write_atomically

        talk = {
            "polyvox": _FORMAT,
            "model": self._talk.model,
            "system": self._talk.system,
            "messages": msgspec.to_builtins(self._talk.messages),
        }
        path = Path(rest).expanduser()
        try:
            # Conversations are private: for their owner's eyes only.
            write_atomically(path, json.dumps(talk, indent=2).encode() + b"\n", 0o600)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None
        output.plain(f"saved {len(self._talk.messages)} messages in {path}")

    def _load(self, rest: str) -> None:
        if not rest:
            raise CommandLineError("/load needs a file", "/load talk.json")
        path = str(Path(rest).expanduser())
        model, system, messages = _read_talk(start.file_bytes(path, "/load"), path)
        if model is not None:
            self._know(model)
        self._talk.model, self._talk.system, self._talk.messages = model or self._talk.model, system, messages
        self._asked = None
        output.plain(f"loaded {len(messages)} messages from {path}")

    def _exit(self, rest: str) -> None:
        self._over = True


def _read_talk(raw: bytes, path: str) -> tuple[str | None, str | None, tuple[Any, ...]]:
    """What /save wrote: model, system and messages; InputError for anything else."""
    import msgspec

    from polyvox.types import Message

    try:
        saved = msgspec.json.decode(raw, type=dict[str, Any])
        version = saved.get("polyvox")
        if version == _FORMAT:
            messages = msgspec.convert(saved["messages"], tuple[Message, ...])
            model, system = (msgspec.convert(saved.get(name), str | None) for name in ("model", "system"))
            return model, system, messages
    except (msgspec.MsgspecError, KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a saved conversation: {error}", hint="load what /save has written") from None
    raise InputError(f"{path} is not a conversation this version can load (format {version!r})")


_COMMANDS: dict[str, tuple[Any, str]] = {
    "help": (Conversation._help, "this list"),
    "model": (Conversation._model, "[NAME]  ask another model from here on, or say which it is"),
    "system": (Conversation._system, "[TEXT|@FILE]  change the instructions, or show them"),
    "clear": (Conversation._clear, "forget what was said"),
    "undo": (Conversation._undo, "take the last turn back"),
    "retry": (Conversation._retry, "ask the last question again"),
    "save": (Conversation._save, "FILE  write the conversation to a file"),
    "load": (Conversation._load, "FILE  go on with a saved conversation"),
    "exit": (Conversation._exit, "end; Ctrl-D does the same"),
}
