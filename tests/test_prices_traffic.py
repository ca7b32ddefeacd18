"""Recorded traffic costs what its raw bodies say: each is priced again here, by a reading of its own and in fractions,
from the same table. Needs $POLYVOX_TRAFFIC."""

import base64
import json
import os
import re
from collections import Counter
from datetime import UTC, datetime
from fractions import Fraction
from importlib import resources
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest

from polyvox import catalog
from polyvox.dialects import Endpoint, Reply, Wire, dialect, embeds
from polyvox.dialects.billing import billed
from polyvox.dialects.collect import Collector
from polyvox.errors import PolyvoxError
from polyvox.prices import bound, cost, served
from polyvox.testing.replay import dialect_of, embeddings_of
from polyvox.types import Response

FOLDER = Path(os.environ["POLYVOX_TRAFFIC"]) if os.environ.get("POLYVOX_TRAFFIC") else None
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ROWS = json.loads((resources.files("polyvox") / "data" / "models.json").read_text(encoding="utf-8"))[1:]
OWNERS = {name: row.key_of or name for name, row in catalog.load().providers.items()}


def exchanges():
    """All that were answered, in a protocol that we speak."""
    if FOLDER is None or not (FOLDER / "dev.jsonl").is_file():
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl)")
    for line in (FOLDER / "dev.jsonl").read_text(encoding="utf-8").splitlines():
        exchange = json.loads(line)
        url = exchange["url"] or ""
        if (exchange["status"] or 200) < 400 and (dialect_of(url) or embeddings_of(url)):
            yield exchange


# ---- as polyvox has it ------------------------------------------------------------------------


def body_of(exchange):
    return base64.b64decode(exchange.get("response_base64") or "") or (exchange["response_text"] or "").encode()


def decoded(exchange):
    """The answer and its dialect; None where the stream or the body is broken."""
    url, at = exchange["url"], Endpoint(origin="recorded/recorded")
    headers = {key.lower(): str(value) for key, value in (exchange.get("response_headers") or {}).items()}
    reply = Reply(exchange["status"] or 200, headers, body_of(exchange))
    name = embeddings_of(url) or dialect_of(url)
    try:
        if embeddings_of(url):
            return embeds(name).decode(reply, at), name
        if not exchange["streamed"]:
            return dialect(name).decode_response(reply, at), name
        reader, collector = dialect(name).reader(at), Collector()
        for event in [*reader.feed(reply.body), *reader.close()]:
            collector.add(event)
        return collector.response(), name
    except PolyvoxError:
        return None, name


def asked_of(exchange):
    """The model that was asked for: in the body, or else in the path."""
    body = exchange.get("request_json") if isinstance(exchange.get("request_json"), dict) else {}
    found = re.search(r"/(?:models?|deployments)/([^/?:]+(?:%3A\d+)?)(?=[:/])", exchange["url"])
    return body.get("model") or (unquote(found[1]) if found else "")


def tier_asked(exchange):
    body = exchange.get("request_json") if isinstance(exchange.get("request_json"), dict) else {}
    tier = body.get("service_tier")
    return tier if isinstance(tier, str) else None


def ours(exchange, info):
    response, name = decoded(exchange)
    if response is None:
        return None
    model = served(info, exchange["provider"], response.model, asked_of(exchange))
    when, units = billed(response, name, tier_asked(exchange))
    operation = "chat" if isinstance(response, Response) else "embed"
    return cost(response.usage, model, at=NOON, told=when, units=units, operation=operation)


# ---- as the bodies have it --------------------------------------------------------------------


def event_stream(data):
    """Payloads of AWS's binary framing."""
    while data:
        size, head = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
        yield data[12 + head : size - 4]
        data = data[size:]


def documents(exchange):
    """Every JSON value in a body, in order, however it is framed."""
    data = body_of(exchange)
    if exchange.get("response_base64") and data[:1] == b"\0":
        texts = [payload.decode() for payload in event_stream(data)]
    else:
        text = data.decode("utf-8-sig")
        try:
            return [json.loads(text)]
        except ValueError:
            texts = [line.removeprefix("data:").strip() for line in re.split("\r\n|\r|\n", text)]
    found = []
    for text in texts:
        try:
            value = json.loads(text)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("bytes"), str):
            value = json.loads(base64.b64decode(value["bytes"]))
        found.append(value)
    return [value for value in found if isinstance(value, dict)]


def merged(values):
    """Objects laid over each other: the last value of each key that is not null."""
    made = {}
    for value in values:
        made.update({key: item for key, item in value.items() if item is not None})
    return made


def deep(value, *path):
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def chat_completions(docs):
    use = merged([u for d in docs for u in (deep(d, "x_groq", "usage"), d.get("usage")) if isinstance(u, dict)])
    prompt, completion, total = use.get("prompt_tokens"), use.get("completion_tokens"), use.get("total_tokens")
    thought = deep(use, "completion_tokens_details", "reasoning_tokens") or use.get("reasoning_tokens") or 0
    if thought and total == (prompt or 0) + (completion or 0) + thought:
        completion += thought
    places = (
        deep(use, "prompt_tokens_details", "cached_tokens"), use.get("prompt_cache_hit_tokens"),
        use.get("num_cached_tokens"), use.get("cache_read_input_tokens"), use.get("cached_tokens"),
    )  # fmt: skip
    writes = (deep(use, "prompt_tokens_details", "cache_write_tokens"), use.get("cache_creation_input_tokens"))
    charged = use.get("cost")
    if "cost" not in use and "cost_in_usd_ticks" in use:
        charged = Fraction(use["cost_in_usd_ticks"], 10**10)
    return {
        "in": prompt,
        "out": completion,
        "read": next((n for n in places if n is not None), 0),
        "write": next((n for n in writes if n is not None), 0),
        "thought": thought,
        "audio": deep(use, "prompt_tokens_details", "audio_tokens") or 0,
        "audio_out": deep(use, "completion_tokens_details", "audio_tokens") or 0,
        "image": deep(use, "prompt_tokens_details", "image_tokens") or 0,
        "charged": charged,
        "model": next((d["model"] for d in docs if d.get("model")), None),
        "tier": [d["service_tier"] for d in docs if d.get("service_tier")][-1:],
    }


def responses(docs):
    final = [d for d in docs if d.get("type") in ("response.completed", "response.incomplete", "response.failed")]
    whole = final[0]["response"] if final else next((d for d in docs if d.get("object") == "response"), docs[0])
    if not final and "response" in docs[0]:
        whole = docs[0]["response"]
    use = whole.get("usage") or {}
    items = whole.get("output") or [d["item"] for d in docs if d.get("type") == "response.output_item.done"]
    kinds = Counter(item["type"] for item in items)
    searched = sum(
        item["type"] == "web_search_call" and deep(item, "action", "type") not in ("open_page", "find_in_page", "find")
        for item in items
    )
    ticks = use.get("cost_in_usd_ticks")
    return {
        "in": use.get("input_tokens"),
        "out": use.get("output_tokens"),
        "read": deep(use, "input_tokens_details", "cached_tokens") or 0,
        "write": deep(use, "input_tokens_details", "cache_write_tokens") or 0,
        "thought": deep(use, "output_tokens_details", "reasoning_tokens") or 0,
        "charged": use.get("cost") if use.get("cost") is not None or ticks is None else Fraction(ticks, 10**10),
        "model": whole.get("model"),
        "tier": [whole.get("service_tier")],
        "web": searched,
        "files": kinds["file_search_call"],
        "priceless": kinds["code_interpreter_call"] + kinds["image_generation_call"],
    }


def messages(docs):
    starts = [d["message"] for d in docs if d.get("type") == "message_start"]
    wholes = [d for d in docs if d.get("type") == "message"]
    use = merged([d["usage"] for d in (*starts, *wholes, *docs) if isinstance(d.get("usage"), dict)])
    read, write = use.get("cache_read_input_tokens") or 0, use.get("cache_creation_input_tokens") or 0
    long = deep(use, "cache_creation", "ephemeral_1h_input_tokens") or 0
    fresh = use.get("input_tokens")
    return {
        "in": None if fresh is None else fresh + read + write,
        "out": use.get("output_tokens"),
        "read": read,
        "write": write - long,
        "write_1h": long,
        "thought": deep(use, "output_tokens_details", "thinking_tokens") or 0,
        "model": next((m.get("model") for m in (*starts, *wholes)), None),
        "tier": [use.get("service_tier")],
        "web": deep(use, "server_tool_use", "web_search_requests") or 0,
        "priceless": sum(row.get("type") != "message" for row in use.get("iterations") or ()),
    }


def generate(docs):
    docs = docs[0] if isinstance(docs[0], list) else docs
    # One recorded stream forgets in its last chunk the tokens of the answer that earlier ones told: they count.
    use = merged([d["usageMetadata"] for d in docs if d.get("usageMetadata")])

    def of(field, kind):
        return sum(row.get("tokenCount", 0) for row in use.get(field) or () if row["modality"] == kind)

    prompt, total = use.get("promptTokenCount"), use.get("totalTokenCount")
    brought = use.get("toolUsePromptTokenCount") or 0
    answer, thought = use.get("candidatesTokenCount"), use.get("thoughtsTokenCount")
    out = None if answer is None and thought is None else (answer or 0) + (thought or 0)
    if out is None and total is not None and prompt is not None:
        out = total - prompt - brought
    candidates = [c for d in docs for c in d.get("candidates") or ()]
    queries = [deep(c, "groundingMetadata", "webSearchQueries") for c in candidates]
    pictures = [p for c in candidates for p in deep(c, "content", "parts") or () if "inlineData" in p]
    return {
        "in": None if prompt is None else prompt + brought,
        "out": out,
        "read": use.get("cachedContentTokenCount") or 0,
        "thought": thought or 0,
        "audio": of("promptTokensDetails", "AUDIO"),
        "audio_read": of("cacheTokensDetails", "AUDIO"),
        "image": of("promptTokensDetails", "IMAGE"),
        "video": of("promptTokensDetails", "VIDEO"),
        "image_out": of("candidatesTokensDetails", "IMAGE"),
        "pictures": len(pictures),
        "details": bool(use.get("candidatesTokensDetails")),
        "model": next((d["modelVersion"] for d in docs if d.get("modelVersion")), None),
        "tier": [use.get("serviceTier"), use.get("trafficType")],
        "web": max([len(q) for q in queries if q], default=0),
    }


def converse(docs):
    use = next((d["usage"] for d in reversed(docs) if d.get("usage")), {})
    read, write = use.get("cacheReadInputTokens") or 0, use.get("cacheWriteInputTokens") or 0
    long = sum(row["inputTokens"] for row in use.get("cacheDetails") or () if row["ttl"] == "1h")
    fresh = use.get("inputTokens")
    return {
        "in": None if fresh is None else fresh + read + write,
        "out": use.get("outputTokens"),
        "read": read,
        "write": write - long,
        "write_1h": long,
    }


def cohere(docs):
    use = next((u for d in reversed(docs) if (u := d.get("usage") or deep(d, "delta", "usage"))), {})
    return {
        "in": deep(use, "tokens", "input_tokens"),
        "out": deep(use, "tokens", "output_tokens"),
        "read": use.get("cached_tokens") or 0,
    }


def ollama(docs):
    last = docs[-1]
    return {"in": last.get("prompt_eval_count"), "out": last.get("eval_count"), "model": last.get("model")}


def vectors(docs):
    meta = docs[0].get("usage") or docs[0].get("usageMetadata") or docs[0].get("meta") or docs[0]
    places = (
        meta.get("prompt_tokens"), meta.get("promptTokenCount"), meta.get("prompt_eval_count"),
        deep(meta, "tokens", "input_tokens"), deep(meta, "billed_units", "input_tokens"), meta.get("total_tokens"),
    )  # fmt: skip
    return {"in": next((n for n in places if n is not None), None), "out": 0, "model": docs[0].get("model")}


READERS = {
    "openai.chat": chat_completions, "openai.responses": responses, "anthropic.messages": messages,
    "gemini.generate": generate, "bedrock.converse": converse, "cohere.chat": cohere, "ollama.chat": ollama,
}  # fmt: skip
NO_TIER = {None, "", "auto", "default", "standard", "on_demand", "ON_DEMAND"}
EDGE = 1


def row_named(provider, name):
    """The row of the file for a name, with or without a date at its end."""
    for spelt in (name, re.sub(r"[-@](\d{8}|\d{4}-\d{2}-\d{2}|latest)$", "", name or "")):
        for owner in (provider, OWNERS.get(provider, provider)):
            for row in ROWS:
                if row["provider"] == owner and spelt in (row["id"], *row.get("aliases", ())):
                    return row
    return None


def prices_for(row, asked):
    """The one case that holds at noon, as numbers by name."""
    for case in (row or {}).get("prices", ()):
        begin, end = case.get("hours", ("00:00", "24:00"))
        inside = begin <= "12:00" < end if begin < end else not end <= "12:00" < begin
        if case.get("since", "") <= "2026-11-21" and inside and "when" not in case:
            if not case.get("above") or asked > case["above"] / EDGE:
                amounts = {key: value for key, value in case.items() if key not in ("since", "hours", "above")}
                return {key: Fraction(value) for key, value in {**amounts.pop("other", {}), **amounts}.items()}
    return {}


def theirs(exchange):
    """USD as a fraction, None for unknown."""
    docs = documents(exchange)
    name = dialect_of(exchange["url"])
    said = vectors(docs) if embeddings_of(exchange["url"]) else READERS[name](docs)
    if said.get("charged") is not None:
        charged = said["charged"]
        return charged if isinstance(charged, Fraction) else Fraction(str(charged))
    asked = asked_of(exchange)
    row = row_named(exchange["provider"], said.get("model") or asked)
    if row is None and said.get("model") and said["model"].endswith(asked):
        row = row_named(exchange["provider"], asked)
    price = prices_for(row, said["in"] or 0)
    if not price or said["in"] is None or said["out"] is None or set(said.get("tier", ())) - NO_TIER:
        return None
    return total(said, price)


def total(said, price):
    """Each part once, at its own price or that of what it is part of."""
    n = Counter({key: value for key, value in said.items() if isinstance(value, int)})
    own = {kind: n[kind] for kind in ("audio", "image") if f"{kind}_input" in price}
    own["video"] = n["video"] if "input_video_mtok" in price else 0
    cached_sound = n["audio_read"] if "audio_input" in price else 0
    fresh = n["in"] - n["read"] - n["write"] - n["write_1h"] - sum(own.values()) + cached_sound
    read = price.get("cache_read", price["input"])
    write = price.get("cache_write", price["input"])
    tokens = fresh * price["input"] + (n["read"] - cached_sound) * read + n["write"] * write
    tokens += cached_sound * price.get("cache_audio_read_mtok", read) - cached_sound * price.get("audio_input", 0)
    tokens += n["write_1h"] * price.get("cache_write_1h", write)
    tokens += own.get("audio", 0) * price.get("audio_input", 0) + own.get("image", 0) * price.get("image_input", 0)
    tokens += own["video"] * price.get("input_video_mtok", 0)
    drawn = n["image_out"] if "output_image_mtok" in price else 0
    spoken = n["audio_out"] if "audio_output" in price else 0
    out = n["out"] - n["thought"] - drawn - spoken
    if n["out"]:
        tokens += out * price["output"] + n["thought"] * price.get("reasoning", price["output"])
    tokens += drawn * price.get("output_image_mtok", 0) + spoken * price.get("audio_output", 0)
    amount = Fraction(tokens) / 1_000_000
    for count, unit in ((n["web"], "web_searches_kcount"), (n["files"], "storage_searches_kcount")):
        if count and unit not in price:
            return None
        amount += count * price.get(unit, Fraction(0)) / 1000
    amount += price.get("requests_kcount", Fraction(0)) / 1000
    return None if n["priceless"] else amount


# ---- the promises -----------------------------------------------------------------------------


def compared(info):
    same, different = Counter(), []
    for exchange in exchanges():
        bill = ours(exchange, info)
        if bill is None:
            continue
        wanted, got = theirs(exchange), None if bill.amount is None else Fraction(bill.amount)
        if wanted != got:
            wrong = None if wanted is None else float(wanted)
            different.append((exchange["id"], wrong, bill.amount, bill.why, bill.notes))
            continue
        same[bill.source] += 1
        same.update({line.what for line in bill.lines})
        same["tiered"] += any(line.case.above for line in bill.lines)
        assert bill.source != "catalog" or sum(line.amount for line in bill.lines) == bill.amount
    return same, different


def test_recorded_traffic_costs_what_its_raw_bodies_say():
    same, different = compared(catalog.load().info)
    assert different == []
    assert same["catalog"] > 250 and same["provider"] > 40 and same["unknown"] > 50
    assert min(same[what] for what in ("cache_read", "cache_write", "reasoning", "web_searches_kcount")) > 3


def test_recorded_traffic_costs_the_same_where_a_tier_begins_at_a_few_tokens(monkeypatch):
    # No recording is long enough for a dearer tier, so that the tiers begin earlier: at a hundred tokens or so.
    monkeypatch.setattr("tests.test_prices_traffic.EDGE", 2000)
    low = {}

    def info(provider, name):
        model = catalog.load().info(provider, name)
        if model is not None and model.name not in low:
            prices = [msgspec.structs.replace(price, above=price.above // 2000) for price in model.prices]
            low[model.name] = msgspec.structs.replace(model, prices=tuple(prices))
        return model and low[model.name]

    same, different = compared(info)
    assert different == []
    assert same["tiered"] > 20


def test_no_recorded_answer_cost_more_than_was_bounded_before():
    info, held, boundless = catalog.load().info, 0, Counter()
    for exchange in exchanges():
        response, name = decoded(exchange)
        asked = exchange.get("request_json")
        if not isinstance(response, Response) or not isinstance(asked, dict):
            continue
        bill = ours(exchange, info)
        try:
            request, size = request_in(name, exchange)
        except PolyvoxError:
            continue
        if bill.amount is None:
            continue
        model = served(info, exchange["provider"], response.model, asked_of(exchange))
        if model is not None and model.max_output is None:
            model = msgspec.structs.replace(model, max_output=128_000)
        most = bound(request, model, bytes_out=size, at=NOON)
        if most.amount is None:
            boundless[most.why] += 1
            continue
        held += 1
        assert (response.usage.input or 0) <= most.input, exchange["id"]
        assert (response.usage.output or 0) <= most.output, exchange["id"]
        if bill.source == "catalog":
            assert bill.amount <= most.amount, exchange["id"]
    assert held > 150, boundless


def request_in(name, exchange):
    """The request and the length of its body; where the model is in the path, as in the clouds, it goes where the
    protocol's own server has it."""
    url, asked = exchange["url"], exchange["request_json"]
    size = len(json.dumps(asked, ensure_ascii=False).encode())
    path = url[url.index("/models/") :] if "/models/" in url else url
    wire = Wire(path, json.dumps({"model": asked_of(exchange), **asked}).encode(), {"content-type": "application/json"})
    if name in ("gemini.generate", "bedrock.converse"):
        wire = Wire(path, json.dumps(asked).encode(), {"content-type": "application/json"})
    return dialect(name).decode_request(wire, Endpoint()), size
