"""Log records as JSON lines, calls as log records, and the audit of all that is logged."""

import ast
import functools
import json
import logging
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from polyvox import Client
from polyvox.errors import CallCancelledError, ServerError
from polyvox.keys import Secret, remember
from polyvox.telemetry import CallLog, JSONLines, audit
from polyvox.testing import Simulator
from polyvox.types import Usage
from tests.telemetry.helping import KEY, Info, answered, asked, settings

SOURCE = Path(__file__).parent.parent.parent / "src" / "polyvox"
LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR",
          "critical": "CRITICAL"}  # fmt: skip


def line(message="hello", *args, exc=None, name="polyvox.engine", formatter=None, **extra):
    record = logging.getLogger(name).makeRecord(name, 30, "f", 1, message, args, exc, extra=extra)
    text = (formatter or JSONLines()).format(record)
    assert "\n" not in text
    return json.loads(text)


# ---- lines ------------------------------------------------------------------------------------


def test_a_record_is_one_line_of_json():
    said = line("%s: try %d\nagain", "acme", 2, operation="chat", seconds=0.5, cost=Decimal("0.10"), none=None)
    at = datetime.fromisoformat(said.pop("time"))
    assert at.utcoffset().total_seconds() == 0
    assert said == {
        "level": "WARNING", "logger": "polyvox.engine", "message": "acme: try 2\nagain", "operation": "chat",
        "seconds": 0.5, "cost": "0.10", "none": None,
    }  # fmt: skip


def test_no_secret_is_in_it_wherever_it_stood():
    remember(Secret(KEY))
    remember(Secret("a plain passphrase"))
    said = line(
        f"key {KEY}", api_key="anything at all", deep={"authorization": "word", "list": [KEY]}, object=[Secret("x")],
        input_tokens=5, first_token=0.5, note="a plain passphrase",
    )  # fmt: skip
    assert KEY not in json.dumps(said) and "passphrase" not in json.dumps(said)
    assert said["api_key"] == "***" and said["deep"]["authorization"] == "***"
    assert (said["input_tokens"], said["first_token"]) == (5, 0.5)


def test_an_exception_is_told_by_its_kind_and_place_and_its_words_only_when_asked_for():
    try:
        raise ValueError("the prompt was: a wish")
    except ValueError:
        exc = sys.exc_info()
    said = line(exc=exc)
    assert said["exception"]["type"] == "ValueError" and "test_logs.py" in said["exception"]["at"][0]
    assert "wish" not in json.dumps(said)
    assert line(exc=exc, formatter=JSONLines(messages=True))["exception"]["message"] == "the prompt was: a wish"


class Unshowable:
    def __str__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Unshowable(), b"\xff", {1: {2}}, object(), "\ud800"])
def test_no_value_can_keep_a_record_from_being_written(value):
    assert "value" in line(value=value)


def test_arguments_that_do_not_fit_do_not_lose_the_record():
    assert line("%d of %d", "x")["message"] == "%d of %d"


def test_a_field_cannot_pass_for_the_records_own():
    said = line(level="DEBUG", time="never")
    assert said["level"] == "WARNING" and said["extra_level"] == "DEBUG" and said["extra_time"] == "never"


def test_with_a_span_its_ids_are_there():
    assert "trace_id" not in line()
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("s") as span:
        said = line()
    assert said["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert said["span_id"] == f"{span.get_span_context().span_id:016x}"


# ---- calls ------------------------------------------------------------------------------------


def records(caplog):
    formatter = JSONLines()
    return [json.loads(formatter.format(record)) for record in caplog.records if record.name == "polyvox.calls"]


def test_a_call_is_a_line_with_what_it_took(caplog):
    caplog.set_level(logging.INFO, "polyvox.calls")
    log, begin = CallLog(), Info(asked("a wish"), call="c1")
    log.on_call(begin)
    answer = answered("granted", model="m-1-2026", usage=Usage(3, 2, source="provider"), request_id="req_1")
    log.on_done(Info(begin.request, call="c1", response=answer, seconds=1.5, first_token=0.5))
    (said,) = records(caplog)
    del said["time"]
    assert said == {
        "level": "INFO", "logger": "polyvox.calls", "message": "a call ended", "call": "c1", "operation": "chat",
        "provider": "acme", "model": "m-1", "stream": False, "outcome": "ok", "seconds": 1.5, "first_token": 0.5,
        "attempts": 0, "served": "m-1-2026", "finish_reason": "stop", "input_tokens": 3, "output_tokens": 2,
        "losses": 0, "request_id": "req_1",
    }  # fmt: skip


def test_a_call_that_failed_is_an_error_without_the_words_of_its_error(caplog):
    caplog.set_level(logging.INFO, "polyvox.calls")
    log, begin = CallLog(), Info(asked())
    log.on_call(begin)
    log.on_done(Info(begin.request, error=ServerError("you said: a wish", status=503)))
    (said,) = records(caplog)
    assert (said["level"], said["kind"], said["status"], said["outcome"]) == ("ERROR", "server", 503, "error")
    assert "wish" not in json.dumps(said) and "input_tokens" not in said and "cost_usd" not in said


def test_a_call_that_was_left_is_no_error(caplog):
    caplog.set_level(logging.INFO, "polyvox.calls")
    CallLog().on_done(Info(asked(), error=CallCancelledError("left")))
    (said,) = records(caplog)
    assert (said["level"], said["outcome"]) == ("INFO", "cancelled")


def test_at_no_level_is_there_a_key_or_a_word_of_what_was_said(caplog):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "polyvox")
    plan = [{"kind": "status", "status": 503, "at": 1}]
    with Simulator(plan=plan) as simulator:
        where = simulator.base_url("openai.chat")
        with Client("m-1", base_url=where, api_key=KEY, hooks=[CallLog()], settings=settings()) as client:
            client.ask("grant me a wish")
            client.stream("grant me a wish").finish()
    said = records(caplog)
    assert [one["message"] for one in said] == [
        "a call begins", "an attempt begins", "an attempt begins", "a call ended", "a call begins",
        "an attempt begins", "a call ended",
    ]  # fmt: skip
    everything = json.dumps(said) + caplog.text
    assert KEY not in everything and "wish" not in everything


# ---- the audit --------------------------------------------------------------------------------


@functools.cache
def log_calls():
    """Every call of a logger in our source: the file, the logger's name, the level, the call."""
    return tuple(_log_calls())


def _log_calls():
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not any(f".{level}(" in text for level in LEVELS):
            continue  # to parse it would take longer than all the rest
        tree = ast.parse(text)
        logger = None
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Assign | ast.AnnAssign)
                and isinstance(node.value, ast.Call)
                and ast.unparse(node.value.func) == "logging.getLogger"
                and ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target) == "log"
                and node.value.args
            ):
                logger = ast.literal_eval(node.value.args[0])
        borrowed = [
            node.module for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and any(alias.name == "log" for alias in node.names)
        ]  # fmt: skip
        if borrowed:
            logger = ".".join(borrowed[0].split(".")[:2])
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                if ast.unparse(node.func.value) in ("log", "logger", "logging", "_log", "LOG", "self._log"):
                    yield path.relative_to(SOURCE).as_posix(), logger, LEVELS[node.func.attr], node


def test_every_log_call_is_in_the_audit_and_the_audit_has_no_other():
    said = {(logger, level) for _, logger, level, _ in log_calls()}
    assert len(said) >= 15
    assert said == {(row.logger, row.level) for row in audit()}
    assert len(audit()) == len(said), "a row twice"


# Names of things that hold content or credentials; none is handed to a logger.
HELD = {
    "request", "response", "prompt", "messages", "text", "body", "content", "answer", "headers", "partial", "chunk",
    "api_key", "secret", "reveal", "password", "arguments", "raw",
}  # fmt: skip


def test_no_log_call_is_handed_what_was_said_or_a_key():
    found = [
        (path, node.lineno, name)
        for path, _, _, node in log_calls()
        for part in (*node.args[1:], *(word.value for word in node.keywords))
        for inner in ast.walk(part)
        if (name := getattr(inner, "attr", None) or getattr(inner, "id", None)) in HELD
    ]
    assert not found


def test_a_row_of_the_audit_says_when_and_what():
    for row in audit():
        assert row.when and row.values, row.logger


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(KEY) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just(KEY), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.text(max_size=30))
def test_whatever_a_record_holds_is_one_line_of_json_without_the_key(value, message):
    remember(Secret(KEY))
    assert KEY not in json.dumps(line(f"{message}{KEY}".replace("%", ""), value=value))
