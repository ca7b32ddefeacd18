"""Recorded traffic decodes to what it must, whole and at random cuts. Needs $POLYVOX_TRAFFIC."""

import json
import os
import random
from pathlib import Path

import pytest

from polyvox.dialects import NAMES
from polyvox.testing.replay import decode, dialect_of

FOLDER = Path(os.environ["POLYVOX_TRAFFIC"]) if os.environ.get("POLYVOX_TRAFFIC") else None
FIELDS = (
    "kind",
    "model",
    "text",
    "reasoning_text",
    "refusal",
    "tool_calls",
    "finish_reason",
    "complete",
    "usage",
    "error",
)
# Protocols that complete a text, and one on trial: nobody who speaks ours meets them.
NO_CHATS = {"ollama.generate", "gemini.interactions"}


def lines(name):
    if FOLDER is None or not (FOLDER / name).is_file():
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl, dev-expected.jsonl)")
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines() if line.strip()]


def meaning(value):
    """JSON by meaning: 1 equals 1.0, key order does not matter."""
    if isinstance(value, dict):
        return {key: meaning(item) for key, item in value.items()}
    if isinstance(value, list):
        return [meaning(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def told(field, wanted, got):
    """Whether got says what is wanted; None in usage and in a call's id is not compared."""
    if field == "usage":
        return all(value is None or (got or {}).get(key) == value for key, value in (wanted or {}).items())
    if field == "tool_calls":
        return [(call["name"], meaning(call["arguments"])) for call in wanted or []] == [
            (call["name"], meaning(call["arguments"])) for call in got or []
        ] and all(a["id"] in (None, b["id"]) for a, b in zip(wanted or [], got or [], strict=True))
    if field == "error":
        return (wanted and wanted["kind"]) == (got and got["kind"])
    if field in ("text", "reasoning_text"):
        return (wanted or "") == (got or "")
    return wanted == got


def check(seed):
    expected = {row["id"]: row for row in lines("dev-expected.jsonl")}
    spoken = set(NAMES)
    rng = None if seed is None else random.Random(seed)
    compared, wrong = 0, []
    for exchange in lines("dev.jsonl"):
        wanted = expected[exchange["id"]]
        if wanted["dialect"] not in spoken or (wanted["judged"] or {}).get("kind") == "any":
            continue
        compared += 1
        got = decode(exchange, rng)
        judged = {path.split(".")[0] for path in wanted["judged"] or {}}
        fields = FIELDS if wanted["kind"] == "chat" else ("kind", "error")
        wrong += [
            (wanted["id"], field, wanted[field], got.get(field))
            for field in fields
            if field not in judged and not told(field, wanted[field], got.get(field))
        ]
    assert compared > 200
    assert wrong == []


def is_chat(row):
    """Whether an exchange is a chat beyond doubt, which one of a legacy endpoint is not."""
    return row["kind"] == "chat" and (row["judged"] or {}).get("kind") != "any"


def test_every_recorded_chat_is_spoken_by_one_of_our_dialects():
    wanted = {row["id"]: row["dialect"] for row in lines("dev-expected.jsonl") if is_chat(row)}
    assert set(wanted.values()) - NO_CHATS == set(NAMES)
    spoken = {exchange["id"]: dialect_of(exchange["url"] or "") for exchange in lines("dev.jsonl")}
    assert [name for name, said in wanted.items() if said not in NO_CHATS and spoken[name] != said] == []


def test_recorded_traffic_decodes_to_what_it_must():
    check(None)


def test_recorded_streams_decode_the_same_at_random_cuts():
    check(7)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_recorded_streams_decode_the_same_at_many_random_cuts(seed):
    check(seed)
