"""One question, one answer: `polyvox ask`, and what `polyvox "…"` means. How the model is reached is the
client's business."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from polyvox.cli import output, start
from polyvox.cli.kept import kept, who
from polyvox.cli.output import CommandLineError

if TYPE_CHECKING:
    from polyvox.client import Client
    from polyvox.types import Response, ResponseFormat


@click.command(name="ask")
@click.argument("words", nargs=-1, metavar="[PROMPT]...")
@click.option("-a", "--attach", "attach", multiple=True, metavar="PATH|URL|-", help="Attach a file; may be repeated.")
@click.option("--schema", metavar="FILE|JSON", help="Ask for JSON of this JSON Schema; exit code 4 if it does not fit.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all that is known of the answer.")
@click.option("--jsonl", is_flag=True, help="Print each event of the stream as a line of JSON.")
@click.option("--no-stream", is_flag=True, help="Wait for the whole answer.")
@start.model_options
def ask_command(words: tuple[str, ...], as_json: bool, jsonl: bool, no_stream: bool, **said: Any) -> None:
    """Ask a model. What is piped in comes after the prompt; "-" says that it must be.

    \b
      polyvox ask "Why is the sky blue?"
      polyvox ask -s @style.txt -o max_tokens=200 "A poem about rain"
      cat notes.txt | polyvox ask "Summarise this:"
      polyvox ask --schema '{"type": "object"}' --json "A book, please"
    """  # noqa: D301 - the backspace is a mark for Click: keep these lines as they are
    if as_json and jsonl:
        raise CommandLineError(
            "--json and --jsonl exclude each other", "--json prints one object, --jsonl one event a line"
        )
    if said["quiet"]:
        output.be_quiet()
    output.ready()
    question = question_of(words, said)
    settings = start.settings()
    choice = start.choose(said, question.key, settings)
    if choice.remark:
        output.note(choice.remark, always=True)
    from polyvox.client import Client

    begun = time.monotonic()
    with (
        kept(settings, said) as keeping,
        Client(
            choice.model,
            **choice.among,
            api_key=question.key,
            timeout=said["timeout"],
            strict=said["strict"] or None,
            upgrade=said["upgrade"],
            settings=settings,
            record=said["record"],
            replay=said["replay"],
            **keeping,
        ) as client,
    ):
        if jsonl:
            response = _print_events(client, question)
        elif as_json:
            response = client.ask(question.prompt, **question.facts)
        else:
            response = _print_text(client, question, no_stream, reasoning=not said["hide_reasoning"])
    seconds = time.monotonic() - begun
    if as_json:
        output.data(_described(response, seconds))
    _remark(response, as_json or jsonl)
    if said["usage"]:
        output.plain(usage_line(response, seconds))
    _check(response, question.form, json_wanted=as_json or jsonl)


# ---- the question -----------------------------------------------------------------------------


class _Question(NamedTuple):
    prompt: str
    facts: dict[str, Any]
    form: ResponseFormat | None
    key: Any


def question_of(words: tuple[str, ...], said: dict[str, Any]) -> _Question:
    """Everything that was typed and piped in; wrong things are found here, before anything is sent."""
    users = [name for name, used in (("the prompt", "-" in words), ("-a", "-" in said["attach"]),
                                     ("--key", said["key"] == "-")) if used]  # fmt: skip
    if len(users) > 1 or said["attach"].count("-") > 1:
        raise CommandLineError(
            f"standard input is wanted more than once: {' and '.join(users)}", "give the others as files"
        )
    attachments: list[Any] = [item for item in said["attach"] if item != "-"]
    form = _form(said["schema"])
    facts: dict[str, Any] = {**start.options_of(said["options"], said["keep_alive"]), **who(said)}
    if form is not None:
        facts["schema"] = form
    facts["system"] = start.text_or_file(said["system"], "-s")
    key = start.key_of(said["key"])
    piped = None
    if "-a" in users:
        attachments.append(start.needed_from_stdin("the attachment"))
    elif "--key" not in users:
        piped = start.needed_from_stdin("the prompt") if "-" in words else start.piped()
    facts["attachments"] = attachments
    text = start.text_of(piped, "standard input").removesuffix("\n") if piped else ""
    prompt = "\n\n".join(part for part in (" ".join(word for word in words if word != "-"), text) if part.strip())
    if not prompt and not attachments:
        raise CommandLineError("there is nothing to ask", 'say it: polyvox "Why is the sky blue?"')
    return _Question(prompt, facts, form, key)


def _form(said: str | None) -> ResponseFormat | None:
    """The form of answer a schema asks for; a schema that is none is found before it is sent."""
    if said is None:
        return None
    from polyvox import schema

    inline = said.lstrip().startswith("{")
    text = said if inline else start.text_of(start.file_bytes(said.removeprefix("@"), "--schema"), said)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandLineError(f"--schema is not JSON: {error}", "give a JSON Schema, or a file with one") from None
    if not isinstance(value, dict):
        raise CommandLineError("--schema is not a JSON object", 'for example {"type": "object", "properties": {}}')
    form = schema.format_from(value)
    if form.schema is not None:
        schema.validate(None, form.schema)
    return form


# ---- the answer -------------------------------------------------------------------------------


def _print_text(client: Client, question: _Question, whole: bool, *, reasoning: bool) -> Response:
    answer = output.Answer(reasoning=reasoning)
    if whole:
        response = client.ask(question.prompt, **question.facts)
        answer.thought(response.reasoning)
        answer.text(response.text or response.refusal or "")
        answer.end()
        return response
    try:
        with client.stream(question.prompt, **question.facts) as stream:
            response = show(stream, answer)
    except BaseException:
        answer.break_off()
        raise
    answer.end()
    return response


def show(stream: Any, answer: output.Answer) -> Response:
    """Print a stream as it comes; the whole response at its end."""
    from polyvox.types import PartAdded, Reasoning, ReasoningDelta, Refusal, RefusalDelta, Text, TextDelta

    ways: dict[type, Callable[[str], None]] = {
        TextDelta: answer.text, RefusalDelta: answer.text, ReasoningDelta: answer.thought,
        Text: answer.text, Refusal: answer.text, Reasoning: answer.thought,
    }  # fmt: skip
    for event in stream.events():
        told: Any = event.value if type(event) is PartAdded else event
        way = ways.get(type(told))
        if way is not None and event.choice == 0:
            way(told.text)
    response: Response = stream.response
    return response


def _print_events(client: Client, question: _Question) -> Response:
    import msgspec

    encode = msgspec.json.Encoder(enc_hook=str).encode
    with client.stream(question.prompt, **question.facts) as stream:
        for event in stream.events():
            output.json_line(encode(event).decode())
    return stream.response


def _described(response: Response, seconds: float) -> dict[str, Any]:
    """A response as plain JSON values; keys are there whether or not anything is known."""
    import msgspec

    built = msgspec.to_builtins
    usage = {name: built(value) for name, value in msgspec.structs.asdict(response.usage).items() if name != "raw"}
    return {
        "text": response.text,
        "model": response.model,
        "provider": response.provider,
        "deployment": response.deployment,
        "demo": _is_demo(response),
        "cached": not response.attempts,
        "finish_reason": response.finish_reason,
        "raw_finish_reason": response.raw_finish_reason,
        "reasoning": response.reasoning,
        "refusal": response.refusal,
        "tool_calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in response.tool_calls],
        "usage": usage,
        "cost": output.money(response.cost),
        "losses": [msgspec.structs.asdict(loss) for loss in response.losses],
        "attempts": [output.attempt(attempt) for attempt in response.attempts],
        "decision": response.decision.describe() if response.decision is not None else None,
        "id": response.id,
        "request_id": response.request_id,
        "created": response.created,
        "seconds": round(seconds, 3),
        "message": built(response.message),
        "choices": [built(choice) for choice in response.choices],
    }


def _is_demo(response: Response) -> bool:
    from polyvox import catalog

    row = catalog.load().providers.get(response.provider or "")
    return row is not None and row.transport == "demo"


_ENDINGS = {
    "length": "the answer was cut off at its token limit",
    "content_filter": "the provider's filter cut the answer off",
    "refusal": "the model refused",
    "context_overflow": "the answer was cut off: the model's context is full",
    "pause": "the model paused, and would go on if asked",
    "incomplete": "the provider calls the answer incomplete",
}


def _remark(response: Response, json_wanted: bool) -> None:
    """Say what the answer alone does not show."""
    for loss in response.losses:
        (output.warn if loss.severity == "loss" else output.note)(f"{loss.field}: {loss.why}")
    ending = _ENDINGS.get(response.finish_reason or "")
    if ending:
        output.warn(ending)
    if not json_wanted and response.choices:
        output.note(f"further answers came: {len(response.choices)}; --json shows them")


def usage_line(response: Response, seconds: float) -> str:
    """What an answer took: tokens, time and money, where anybody said."""
    used = response.usage
    shown = [f"{'?' if used.input is None else used.input} in", f"{'?' if used.output is None else used.output} out"]
    extras = (("cached", used.cache_read, 0), ("reasoning", used.reasoning, 1))
    for word, count, place in extras:
        if count:
            shown[place] += f" ({count} {word})"
    kept = "" if response.attempts else ", kept from before"
    chosen = f", by {response.deployment}" if response.decision is not None else ""
    estimated = ", estimated" if used.source == "estimated" else ""
    return f"usage: {', '.join(shown)} tokens{estimated}, {seconds:.1f} s, cost {response.cost}{kept}{chosen}"


def _check(response: Response, form: ResponseFormat | None, *, json_wanted: bool) -> None:
    """Raise BadResponseError for an answer that is no use."""
    if form is not None and form.kind != "text":
        _check_form(response, form)
    if response.text or response.refusal:
        return
    if response.tool_calls:
        names = ", ".join(call.name for call in response.tool_calls)
        if not json_wanted:
            raise _unusable(response, f"the model answered with tool calls only: {names}", "--json shows them")
    elif not response.message.parts or not json_wanted:
        raise _unusable(response, f"the answer has no text (finish reason {response.finish_reason})", None)


def _check_form(response: Response, form: ResponseFormat) -> None:
    from polyvox import schema

    if response.refusal:
        raise _unusable(response, "the model refused", None)
    if response.tool_calls and not response.text:
        return
    try:
        value = json.loads(response.text)
    except (ValueError, RecursionError) as error:
        raise _unusable(response, f"the answer is not JSON: {error}", "ask again, or another model") from None
    problems = schema.validate(value, form.schema) if form.schema is not None else []
    if problems:
        raise _unusable(response, f"the answer does not fit the schema: {'; '.join(problems[:5])}", "ask again")


def _unusable(response: Response, what: str, hint: str | None) -> Exception:
    from polyvox.errors import BadResponseError

    return BadResponseError(
        what, hint=hint, provider=response.provider, model=response.model, sent="yes", attempts=response.attempts
    )
