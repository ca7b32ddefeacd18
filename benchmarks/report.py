"""Measurements as Markdown tables. Pure: numbers in, text out."""

from __future__ import annotations

from typing import Any

from benchmarks.codecs import LIMIT, REASONS, YARDSTICK
from benchmarks.contestants import BASE, LOOPS

CELLS = {
    "chat_c1": "chat c1 µs",
    "chat_c64": "chat c64 µs",
    "burst_c1": "burst c1 µs/chunk",
    "burst_c64": "burst c64 µs/chunk",
    "paced_c16": "paced c16 µs/chunk",
}
"""Every figure of a contestant, and its heading: CPU microseconds a call, or a chunk of a stream."""

BEGIN = "<!-- benchmarks: begin -->"
END = "<!-- benchmarks: end -->"


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    parts = [f"{results['when']}; Python {results['python']}, {results['machine']}; `{results['command']}`."]
    parts += [_costs(results["cpu"], results["loop"]), _codecs(results["codecs"]), _ratios(results["codecs"])]
    parts += [_starts(results["start"]), _clients(results["clients"])]
    parts.append("\n".join(f"* {name} failed: {error}" for name, error in results["errors"].items()))
    return "\n\n".join(part for part in parts if part)


def _costs(cpu: dict[str, dict[str, float]], loop: str) -> str:
    base = cpu.get(BASE, {})
    cells = [cell for cell in CELLS if any(cell in row for row in cpu.values())]
    lines = [["contestant", "loop", *(heading for cell in cells for heading in (CELLS[cell], "× raw"))]]
    for name, row in cpu.items():
        line = [name, LOOPS.get(name, loop)]
        for cell in cells:
            own, raw = row.get(cell), base.get(cell)
            line += ["–" if own is None else _figure(own), "–" if own is None or not raw else f"{own / raw:.2f}"]
        lines.append(line)
    return _table(lines)


def _codecs(codecs: dict[str, dict[str, dict[str, float]]]) -> str:
    names = list(next(iter(codecs.values()), {}))
    lines = [["codec, no network", *(heading for name in names for heading in (f"{name} µs", "× msgspec"))]]
    for operation, row in codecs.items():
        cells = (row[name] for name in names)
        figures = ((_figure(cell["us"]), f"{cell['us'] / cell['plain_us']:.2f}") for cell in cells)
        lines.append([operation, *(figure for pair in figures for figure in pair)])
    return _table(lines)


def _ratios(codecs: dict[str, dict[str, dict[str, float]]]) -> str:
    """Every dialect beside the yardstick, and under the table the reasons for what is more than the limit."""
    names = list(next(iter(codecs.values()), {}))
    if YARDSTICK not in names:
        return ""
    ratios = {
        (operation, name): row[name]["us"] / row[YARDSTICK]["us"] for operation, row in codecs.items() for name in names
    }
    lines = [[f"codec, × {YARDSTICK}", *names]]
    lines += [[operation, *(f"{ratios[operation, name]:.2f}" for name in names)] for operation in codecs]
    reasons = [
        f"* {operation}, {name}, {ratio:.2f}: {REASONS.get((operation, name), 'no reason is stated')}"
        for (operation, name), ratio in ratios.items()
        if ratio > LIMIT or (operation, name) in REASONS
    ]
    return "\n\n".join(part for part in (_table(lines), "\n".join(reasons)) if part)


def _starts(start: dict[str, dict[str, float]]) -> str:
    lines = [["fresh process", "wall ms", "CPU ms"]]
    lines += [[name, f"{row['wall_ms']:.1f}", f"{row['cpu_ms']:.1f}"] for name, row in start.items()]
    return _table(lines)


def _clients(clients: dict[str, dict[str, Any]]) -> str:
    lines = [["contestant", "clients opened and closed", "RSS MiB", "after", "descriptors", "after "]]
    for name, row in clients.items():
        memory, files = row["rss_mib"], row["descriptors"]
        lines.append(
            [name, str(row["clients"]), *(f"{value:.1f}" for value in memory), *(str(count) for count in files)]
        )
    return _table(lines)


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _table(lines: list[list[str]]) -> str:
    if len(lines) < 2:
        return ""
    rule = ["---", *("--:" for _ in lines[0][1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def replaced(page: str, report: str) -> str:
    """The page with the report between its two markers; ValueError when they are not there, once, in order."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{head}{BEGIN}\n{report}\n{END}{tail}"
