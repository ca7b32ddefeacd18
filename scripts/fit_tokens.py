"""Fits the numbers of `src/polyvox/data/tokens.toml` on recorded requests whose usage their providers told.
Run by hand; patterns, pictures and frames in that file are kept by hand and stay."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from polyvox import tokens
from polyvox.dialects import NAMES, Endpoint, Wire, dialect
from polyvox.errors import PolyvoxError
from polyvox.types import Opaque, Request, Text, ToolCall, ToolResult

FILE = Path(tokens.__file__).parent / "data" / "tokens.toml"
# The halves were drawn among requests in these.
DIALECTS = {"openai.chat", "anthropic.messages", "ollama.chat"}

# What is believed of a family before anything is seen of it, and how many tokens, relatively, it costs to differ:
# families have few requests, and the ones that tell nothing of a field leave it here.
BELIEVED = {
    "base": (4.0, 0.002), "message": (4.0, 0.1), "text": (1.0, 3.0), "call": (8.0, 0.001), "tools": (0.0, 0.000003),
    "tool": (6.0, 0.0002), "json": (1.0, 0.8), "schema": (10.0, 0.00005), "schema_json": (1.0, 0.1),
    "thinking": (0.0, 0.00003),
}  # fmt: skip
# What the makers' own templates put around a conversation, or how they write tools.
_WRITES_TOOLS_SHORT = {"base": 3.0, "tools": 8.0, "tool": 5.0, "json": 0.5}
BELIEVED_OF = {
    "gpt-oss": {"base": 60.0}, "llama-3": {"base": 28.0}, "gpt": _WRITES_TOOLS_SHORT, "gpt-5": _WRITES_TOOLS_SHORT,
}  # fmt: skip
_RATES = {"text", "json", "schema_json"}


class Billed(NamedTuple):
    """A recorded request, and what its provider said went in, in tokens."""

    id: str
    request: Request
    tokens: int

    @property
    def is_held_out(self) -> bool:
        """Whether it is of the half that is not fitted on."""
        return int(hashlib.sha256(self.id.encode()).hexdigest(), 16) % 2 == 1

    @property
    def error(self) -> float:
        """How far the count is from what was billed, relatively."""
        return abs(tokens.count(self.request).tokens - self.tokens) / self.tokens


def billed(folder: Path) -> Iterator[Billed]:
    """The recorded requests that hold words and tools and whose usage is told."""
    lines = (folder / "dev-expected.jsonl").read_text("utf-8").splitlines()
    expected = {row["id"]: row for row in map(json.loads, lines)}
    for row in map(json.loads, (folder / "dev.jsonl").read_text("utf-8").splitlines()):
        told, body = expected[row["id"]], row["request_json"]
        went_in = (told.get("usage") or {}).get("input")
        # What the provider added by itself, or the recorder cut, is nobody's to estimate.
        cut = re.search("elided|scrub", f"{row['fidelity']}{row['tags']}")
        if told["kind"] != "chat" or not isinstance(body, dict) or not went_in or cut or told.get("server_tool_calls"):
            continue
        if told["dialect"] not in DIALECTS & set(NAMES):
            continue
        body = {"model": told.get("model") or "unknown", **body}
        try:
            request = dialect(told["dialect"]).decode_request(Wire("/", json.dumps(body).encode(), {}), Endpoint())
        except PolyvoxError:
            continue
        parts = {type(part) for message in request.messages for part in message.parts}
        if parts <= {Text, ToolCall, ToolResult} and not any(isinstance(tool, Opaque) for tool in request.tools):
            yield Billed(row["id"], request, went_in)


def fitted(name: str, rows: Sequence[Billed]) -> dict[str, float]:
    """The numbers of a family of least relative error, none below 0. Far ones weigh little: least squares, each
    time weighted by the error before, is least absolute error in the end."""
    believed = {field: BELIEVED_OF.get(name, {}).get(field, value) for field, (value, _) in BELIEVED.items()}
    found = dict(believed)
    held = [(tokens.amounts(row.request), row.tokens) for row in rows]
    for _ in range(60):
        pull = []
        for amounts, total in held:
            off = abs(sum(amounts[field] * found[field] for field in BELIEVED) - total) / total
            pull.append(1 / (total * max(off, 0.01) ** 0.5) ** 2)
        free = list(BELIEVED)
        while True:
            left = [
                [sum(w * a[x] * a[y] for (a, _), w in zip(held, pull, strict=True)) + (BELIEVED[x][1] if x == y else 0)
                 for y in free]
                for x in free
            ]  # fmt: skip
            right = [
                sum(w * a[x] * total for (a, total), w in zip(held, pull, strict=True)) + BELIEVED[x][1] * believed[x]
                for x in free
            ]
            solved = dict(zip(free, _solved(left, right), strict=True))
            below = [field for field, value in solved.items() if value < 0]
            if not below:
                break
            free = [field for field in free if field not in below]
        found = {field: solved.get(field, 0.0) for field in BELIEVED}
    return found


def _solved(left: list[list[float]], right: list[float]) -> list[float]:
    """The solution of a linear system, by elimination with pivots."""
    rows = [[*row, value] for row, value in zip(left, right, strict=True)]
    size = len(rows)
    for at in range(size):
        best = max(range(at, size), key=lambda row: abs(rows[row][at]))
        rows[at], rows[best] = rows[best], rows[at]
        for below in range(at + 1, size):
            factor = rows[below][at] / rows[at][at]
            rows[below] = [low - factor * high for low, high in zip(rows[below], rows[at], strict=True)]
    solved = [0.0] * size
    for at in reversed(range(size)):
        known = sum(rows[at][later] * solved[later] for later in range(at + 1, size))
        solved[at] = (rows[at][size] - known) / rows[at][at]
    return solved


def written(text: str, name: str, numbers: dict[str, float]) -> str:
    """The file with the numbers of one family in their places."""
    start = text.index(f'name = "{name}"\n')
    end = text.find("[[family]]", start)
    table = text[start : end if end >= 0 else len(text)]
    new = table
    for field, value in numbers.items():
        shown = f"{value:.2f}".rstrip("0").rstrip(".") if field in _RATES else f"{value:.0f}"
        new = re.sub(rf"(?m)^{field} = .*$", f"{field} = {shown}", new)
    return text.replace(table, new)


def main() -> None:
    """Fit on one half, say how far off the counts of both are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traffic", type=Path, help="a folder with recorded exchanges: dev.jsonl, dev-expected.jsonl")
    parser.add_argument(
        "--write", action="store_true", help="write the numbers; else only measure those that are there"
    )
    options = parser.parse_args()
    rows = list(billed(options.traffic))
    if options.write:
        text = FILE.read_text("utf-8")
        names = re.findall(r'(?m)^name = "(.*)"$', text)
        for name in names:
            own = [row for row in rows if not row.is_held_out and tokens.family_of(row.request.model).name == name]
            text = written(text, name, fitted(name, own))
        FILE.write_text(text, encoding="utf-8")
        tokens._families.cache_clear()
    for half in (False, True):
        errors = sorted(row.error for row in rows if row.is_held_out == half)
        print(
            f"{'held out' if half else 'fitted on'}: {len(errors)} requests, "
            f"median error {statistics.median(errors):.1%}, p90 {errors[int(0.9 * len(errors))]:.1%}"
        )


if __name__ == "__main__":
    main()
