"""How the command speaks: data on standard output, everything else on standard error, and one exit code for
each way to end. It knows no verb; what is printed when nothing is wrong is the verbs' business."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from polyvox.errors import InputError, PolyvoxError

if TYPE_CHECKING:
    from polyvox.types import Attempt, Cost

OK, UNEXPECTED, USAGE, REFUSED, UNUSABLE, PROVIDER, LIMIT, KEY, NETWORK = range(9)
CONFIG, INTERRUPTED, PIPE = 78, 130, 141

EXIT_CODES: Final[dict[str, int]] = {
    "usage": USAGE,
    "invalid_request": REFUSED,
    "unsupported_param": REFUSED,
    "context_length": REFUSED,
    "too_large": REFUSED,
    "content_policy": REFUSED,
    "not_found": REFUSED,
    "conflict": REFUSED,
    "bad_response": UNUSABLE,
    "refusal": UNUSABLE,
    "server": PROVIDER,
    "overloaded": PROVIDER,
    "rate_limit": LIMIT,
    "quota": LIMIT,
    "billing": LIMIT,
    "budgets_away": LIMIT,
    "limits_away": LIMIT,
    "auth": KEY,
    "permission": KEY,
    "connection": NETWORK,
    "timeout": NETWORK,
    "stream_interrupted": NETWORK,
    "config": CONFIG,
    "no_deployment": CONFIG,
    "missing_extra": CONFIG,
    "cancelled": INTERRUPTED,
}
"""The exit code of each kind of error; scripts rely on it, so it never changes."""


def exit_code(error: PolyvoxError) -> int:
    """The exit code an error ends with: what never left this machine for being wrong is usage."""
    if isinstance(error, InputError):
        return USAGE
    by_status = {4: REFUSED, 5: PROVIDER}.get((error.status or 0) // 100, UNEXPECTED)
    return EXIT_CODES.get(error.kind, by_status)


class CommandLineError(InputError):
    """The command line itself is wrong."""

    kind = "usage"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)


# ---- how this run speaks ----------------------------------------------------------------------

_debug = False
_json_errors = False
_quiet = False

debug_option: Final = click.option(
    "--debug", is_flag=True, expose_value=False, help="Log everything to standard error, without keys."
)
# Whether it was said is read from the words themselves, so that it also holds for a line that cannot be parsed.


def begin(words: Sequence[str]) -> None:
    """Read how to speak from the command line, before anything else is made of it."""
    global _debug, _json_errors, _quiet
    said = set(words[: words.index("--")] if "--" in words else words)
    _debug = "--debug" in said
    _json_errors = not said.isdisjoint(("--json", "--jsonl"))
    _quiet = False
    _keep_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        # Half an emoji in an answer, or an old terminal's encoding, must not end the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _keep_standard_descriptors() -> None:
    """Open nothing in place of a standard stream that is closed. Else the next socket would take its number,
    and get what was meant for the stream; event loops abort the process rather than close such a one."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def be_quiet() -> None:
    """From now on say errors only."""
    global _quiet
    _quiet = True


def colour(stream: TextIO | None) -> bool:
    """Whether to colour what goes to this stream: NO_COLOR and FORCE_COLOR decide, else whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") != "0":
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_terminal(stream: Any) -> bool:
    """Whether a person is at the other end; a stream that is missing or closed has nobody."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


# ---- characters that are not text -------------------------------------------------------------

_STRING_ENDS = r"(?:\x07|\x1b\\|\x9c)"
# Bounded, so that a flood of sequences that never end is cleaned in linear time.
_STRING_BODY = r"[^\x07\x1b\x9c\n]{0,512}"
# What terminals obey (ECMA-48 sequences and strings, C0 and C1) and what makes text read as something else
# than it is (the bidirectional embeddings and overrides of Unicode).
_CONTROL = re.compile(
    rf"""
      (?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]
    | (?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f]){_STRING_BODY}{_STRING_ENDS}
    | \x1b[ -/]+[0-~]
    | \x1b[0-OQ-WYZ\\`-~]
    | [\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]
    """,
    re.VERBOSE,
)
_UNFINISHED = re.compile(
    rf"(?:\x1b[ -/]*|(?:\x1b\[|\x9b)[0-?]*[ -/]*|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f]){_STRING_BODY}\x1b?)\Z"
)
# Text held back in the hope of a sequence's end; a model that never ends one must not fall silent.
_HELD_AT_MOST = 512


class Cleaner:
    """Takes out of text, in any pieces, what a terminal would obey instead of show."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """The text fit to show; a sequence that has only begun waits for its end."""
        text = self._held + text
        found = _UNFINISHED.search(text, max(0, len(text) - _HELD_AT_MOST))
        cut = found.start() if found else len(text)
        self._held = text[cut:]
        return _CONTROL.sub("", text[:cut])

    def close(self) -> str:
        """What was held back and is text after all."""
        text, self._held = self._held, ""
        return _CONTROL.sub("", text)


def clean(text: str) -> str:
    """Text fit to show, whatever a provider put in it."""
    return _CONTROL.sub("", text)


# ---- standard output --------------------------------------------------------------------------


def _stdout() -> TextIO:
    # Python has None here when the descriptor is closed: nobody can read the answer, so none is asked for.
    if sys.stdout is None:
        raise BrokenPipeError(errno.EPIPE, "standard output is closed")
    return sys.stdout


def ready() -> None:
    """Raise BrokenPipeError when nobody can read the answer, before it is paid for."""
    _stdout()


def line(text: str) -> None:
    """Print a line of data."""
    stream = _stdout()
    stream.write((clean(text) if is_terminal(stream) else text) + "\n")
    stream.flush()


_NOT_IN_JSON = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def json_line(text: str) -> None:
    """Print JSON text, with what terminals obey and what UTF-8 cannot say as escapes."""
    line(_NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def data(value: Any) -> None:
    """Print a value as JSON: indented for a person, on one line for a program."""
    json_line(json.dumps(value, ensure_ascii=False, indent=2 if is_terminal(sys.stdout) else None))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows in columns; None is shown as a dash."""
    cells = [tuple(header), *(tuple("-" if cell is None else clean(str(cell)) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for number, row in enumerate(cells):
        text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        dim = number == 0 and colour(sys.stdout)
        _stdout().write(f"\x1b[2m{text}\x1b[0m\n" if dim else f"{text}\n")
    _stdout().flush()


class Answer:
    """The text of an answer on standard output, each piece at once, and its reasoning on standard error."""

    def __init__(self, *, reasoning: bool = True) -> None:
        self._out = _stdout()
        self._cleaner = Cleaner() if is_terminal(self._out) else None
        self._error_cleaner = Cleaner() if is_terminal(sys.stderr) else None
        self._reasoning = reasoning and not _quiet and sys.stderr is not None
        self._thinking = False
        self._last = "\n"

    def text(self, piece: str) -> None:
        """Show a piece of the answer."""
        self._stop_thinking()
        if self._cleaner is not None:
            piece = self._cleaner.feed(piece)
        if piece:
            self._last = piece[-1]
            self._out.write(piece)
            self._out.flush()

    def thought(self, piece: str) -> None:
        """Show a piece of the reasoning."""
        if not self._reasoning:
            return
        if self._error_cleaner is not None:
            piece = self._error_cleaner.feed(piece)
        if piece:
            start = "\x1b[2m" if not self._thinking and colour(sys.stderr) else ""
            self._thinking = True
            _write_error(start + piece)

    def end(self) -> None:
        """The answer is whole: end its last line."""
        self._stop_thinking()
        if self._cleaner is not None:
            rest = self._cleaner.close()
            self._last = rest[-1:] or self._last
            self._out.write(rest)
        if self._last != "\n":
            self._out.write("\n")
            self._last = "\n"
        self._out.flush()

    def break_off(self) -> None:
        """The answer ends here unfinished: what comes next on a terminal needs a line of its own."""
        self._stop_thinking()
        if self._cleaner is not None:
            self.end()

    def _stop_thinking(self) -> None:
        if self._thinking:
            self._thinking = False
            _write_error("\x1b[0m\n" if colour(sys.stderr) else "\n")


# ---- standard error ---------------------------------------------------------------------------

_STYLES = {"error": "31;1", "warning": "33;1", "hint": "36", "note": "2"}


def _write_error(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # nobody listens; there is nowhere left to say so


def _tell(label: str, text: str) -> None:
    head = f"\x1b[{_STYLES[label]}m{label}:\x1b[0m" if colour(sys.stderr) else f"{label}:"
    _write_error(f"{head} {clean(text)}\n")


def note(text: str, *, always: bool = False) -> None:
    """Say something worth knowing; under -q only what must be known."""
    if always or not _quiet:
        _tell("note", text)


def warn(text: str) -> None:
    """Say that something is not as it should be."""
    if not _quiet:
        _tell("warning", text)


def plain(text: str) -> None:
    """Say a line that was asked for, such as the usage or a prompt."""
    _write_error(clean(text) + "\n")


def shows_progress() -> bool:
    """Whether anybody watches how far things are: a terminal that was not told to be quiet."""
    return not _quiet and is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"


def progress(text: str) -> None:
    """Show how far things are, in place of what was last shown so; "" takes it away. Only on a terminal."""
    if shows_progress():
        _write_error(f"\r\x1b[K{clean(text)}")


def error(problem: PolyvoxError) -> None:
    """Say what went wrong and what to do, as lines or, where data is JSON, as JSON."""
    if _debug:
        _trace()
    if _json_errors:
        facts = {**problem.describe(), "problems": list(getattr(problem, "problems", ()))}
        _write_error(redacted(json.dumps({"error": facts}, ensure_ascii=True)) + "\n")
        return
    # Without the hint, which follows what else there is to say.
    text = PolyvoxError.__str__(problem).removesuffix(f"\nhint: {problem.hint}")
    cut = "incomplete answer: " if problem.partial is not None and problem.partial.message.parts else ""
    _tell("error", redacted(cut + text))
    for each in getattr(problem, "problems", ()):
        _write_error(f"  {clean(redacted(each))}\n")
    if problem.hint:
        _tell("hint", redacted(problem.hint))


def redacted(text: str) -> str:
    """The text without what is secret in it."""
    from polyvox.keys import redact

    return redact(text)


def _trace() -> None:
    import traceback

    _write_error(clean(redacted(traceback.format_exc())))


# ---- the log ----------------------------------------------------------------------------------


def watch_logs() -> None:
    """Show our own log here: warnings, or everything with --debug."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said = redacted(record.getMessage())
            if _debug:
                _write_error(f"{record.levelname.lower()}: {record.name}: {clean(said)}\n")
                if record.exc_info:
                    _write_error(clean(redacted(logging.Formatter().formatException(record.exc_info))) + "\n")
            else:
                warn(said)

    log = logging.getLogger("polyvox")
    log.handlers = [Lines()]
    log.setLevel(logging.DEBUG if _debug else logging.WARNING)


def set_log_level(level: str) -> None:
    """Log from this level on, unless --debug wants all of it."""
    import logging

    if not _debug:
        logging.getLogger("polyvox").setLevel(level)


# ---- the end ----------------------------------------------------------------------------------


def guarded(run: Callable[[], Any]) -> int:
    """Run to the end and give the exit code, whatever happens on the way; nothing escapes as a traceback."""
    try:
        code = _outcome(run)
    except KeyboardInterrupt:
        code = INTERRUPTED
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as problem:
        code = code or (PIPE if isinstance(problem, BrokenPipeError) else UNEXPECTED)
        _let_go_of_stdout()
    return code


def _outcome(run: Callable[[], Any]) -> int:
    try:
        run()
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _let_go_of_stdout()
        return PIPE
    except PolyvoxError as problem:
        error(problem)
        return exit_code(problem)
    except click.exceptions.NoArgsIsHelpError as ending:
        plain(ending.format_message())
        return USAGE
    except click.ClickException as ending:
        context = getattr(ending, "ctx", None)
        error(
            CommandLineError(ending.format_message(), f"{context.command_path} --help" if context else "polyvox --help")
        )
        return USAGE
    except Exception as surprise:  # noqa: BLE001 - the last line of defence: a person gets one line, not a traceback
        return _unexpected(surprise)
    return OK


def _unexpected(surprise: Exception) -> int:
    if isinstance(surprise, OSError):
        _let_go_of_stdout_if_full()
    words = " ".join(str(surprise).split())
    said = f"unexpected error: {type(surprise).__name__}: {words}"
    hint = None if _debug else "run it again with --debug for the details"
    error(PolyvoxError(said, hint=hint, sent="unknown"))
    return UNEXPECTED


def _let_go_of_stdout_if_full() -> None:
    try:
        _stdout().flush()
    except OSError:
        _let_go_of_stdout()


def _let_go_of_stdout() -> None:
    """Point standard output at nothing: the interpreter flushes it at exit and would complain."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        return


def money(cost: Cost) -> dict[str, Any]:
    """A cost as plain JSON values: the amount as exact text, and how it came about where that is known."""
    amount = None if cost.amount is None else f"{cost.amount:f}"
    told = {"amount": amount, "currency": cost.currency, "source": cost.source}
    how = getattr(cost, "how", None) if amount is not None else None
    return {**told, "how": how} if how else told


def attempt(made: Attempt) -> dict[str, Any]:
    """An attempt as plain JSON values."""
    import msgspec

    cost = None if made.cost is None else f"{made.cost:f}"
    return {**msgspec.structs.asdict(made), "cost": cost}
