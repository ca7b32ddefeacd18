"""Measurements as Markdown tables. Pure: numbers in, text out."""

from __future__ import annotations

from typing import Any

from benchmarks.codecs import LIMIT, REASONS, YARDSTICK
from benchmarks.contestants import BASE, LOOPS
from benchmarks.figures import Figure

CELLS = {
    "chat_c1": "chat c1 µs",
    "chat_c64": "chat c64 µs",
    "burst_c1": "burst c1 µs/chunk",
    "burst_c64": "burst c64 µs/chunk",
    "paced_c16": "paced c16 µs/chunk",
}
"""Every figure of a contestant, and its heading: CPU microseconds a call, or a chunk of a stream."""

MOST_TIMES = {"polyvox_relaxed": 1.6, "polyvox_commit": 1.6}
"""How many times the yardstick's a call of a contestant may cost without a reason."""
_EACH = (
    "the ledger adds most, more than half of it in the thread that writes, which counts here too: three rows of up to "
    "forty columns, and the index that usage is read from; after it come the cache, the budget and Prometheus, each "
    "about as much; the tables below have each by itself"
)
WHY_DEARER = {
    ("polyvox_relaxed", "chat_c1"): _EACH,
    ("polyvox_relaxed", "chat_c64"): _EACH,
    ("polyvox_commit", "chat_c1"): "a call waits for the disk twice, and each time the system takes nearly as "
    f"long as the yardstick's whole call, as for a bare INSERT; for the rest, {_EACH}",
    ("polyvox_commit", "chat_c64"): _EACH,
}
"""Why a call with everything on costs more than that."""

BEGIN = "<!-- benchmarks: begin -->"
END = "<!-- benchmarks: end -->"


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    raw = results["cpu"].get(BASE, {}).get("chat_c1")
    parts = [f"{results['when']}; Python {results['python']}, {results['machine']}; `{results['command']}`."]
    parts += [
        _costs(results["cpu"], results["loop"]),
        _versions(results["versions"]),
        _dearer(results["cpu"]),
        _codecs(results["codecs"]),
        _ratios(results["codecs"]),
    ]
    parts += [_starts(results["start"]), _clients(results["clients"])]
    parts += [_room(name, [Figure(**row) for row in rows], raw) for name, rows in results["rooms"].items()]
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


def _versions(found: dict[str, str]) -> str:
    return f"Versions: {', '.join(f'{name} {version}' for name, version in found.items())}." if found else ""


def _dearer(cpu: dict[str, dict[str, float]]) -> str:
    """The calls that cost more than they may, and why."""
    base, lines = cpu.get(BASE, {}), []
    for name, most in MOST_TIMES.items():
        for cell, own in cpu.get(name, {}).items():
            if cell.startswith("chat") and base.get(cell) and own / base[cell] > most:
                why = WHY_DEARER.get((name, cell), "no reason is stated")
                lines.append(f"* {CELLS[cell]}, {name}, {own / base[cell]:.2f} (at most {most:g}): {why}")
    return "\n".join(lines)


def _room(name: str, figures: list[Figure], raw: float | None) -> str:
    """A room by itself: what each thing takes, how many calls of the yardstick that is, and how many times the least
    that it could cost; and under the table what is not as was promised."""
    lines = [[name, "", "unit", "× raw call", "× bare", "bare", "wanted"]]
    for figure in figures:
        times = f"{figure.value / raw:.2f}" if raw and figure.unit.startswith("µs") else "–"
        bare = f"{figure.value / figure.of:.2f}" if figure.of else "–"
        beside = f"{figure.bare} {_figure(figure.of)}" if figure.of is not None else ""
        lines.append([figure.what, _figure(figure.value), figure.unit, times, bare, beside, _wanted(figure)])
    late = [
        f"* {name}: {figure.what} is {_figure(figure.value)} {figure.unit}, wanted {_wanted(figure)}"
        for figure in figures
        if not figure.kept
    ]
    return "\n\n".join(part for part in (_table(lines), "\n".join(late)) if part)


def _wanted(figure: Figure) -> str:
    if figure.at_most is not None:
        return f"at most {figure.at_most:g}"
    return f"at least {figure.at_least:,g}" if figure.at_least is not None else ""


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
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


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
