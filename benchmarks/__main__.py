"""One run: a cheap server on one CPU, the contestants in turn on another, medians and ratios at the end."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from benchmarks import codecs
from benchmarks.contestants import BASE, FILES, NAMES, OTHERS
from benchmarks.figures import FULL as FULL_SIZE
from benchmarks.figures import QUICK as QUICK_SIZE
from benchmarks.figures import ROOMS, Size, of_room
from benchmarks.report import markdown, replaced
from benchmarks.server import CHUNKS, fastest_loop


class Cell(NamedTuple):
    """One thing measured: the path of the server, the method, how many at once, and what to divide by."""

    path: str
    action: str
    concurrency: int
    per_call: int


CELLS = {
    "chat_c1": Cell("/v1", "chat", 1, 1),
    "chat_c64": Cell("/v1", "chat", 64, 1),
    "burst_c1": Cell("/v1", "stream", 1, CHUNKS),
    "burst_c64": Cell("/v1", "stream", 64, CHUNKS),
    "paced_c16": Cell("/paced/v1", "stream", 16, CHUNKS),
}

FACES = [f"polyvox.compat.{name}" for name in ("creative_services", "ai_utilities", "llm_service", "ttt")]
"""The documented interfaces, each of which a program imports alone."""

INSIDE = (
    "import polyvox.compat.ttt.config",
    "import polyvox.compat.ttt.api",
    "from polyvox.compat.ai_utilities import AiSettings",
    "import polyvox.compat.llm_service.models.llm",
    "import polyvox.compat.llm_service.services.llm",
)
"""What of them programs import directly."""

BESIDE = ("import pydantic.main", "import pydantic_settings")
"""What the values and settings of other libraries cost to load, and AiSettings cannot do without."""

STARTS = {
    "bare python": ["-c", "pass"],
    "import asyncio, msgspec": ["-c", "import asyncio, msgspec"],
    "import polyvox": ["-c", "import polyvox"],
    "import polyvox; polyvox.AsyncClient": ["-c", "import polyvox; polyvox.AsyncClient"],
    **{f"import {name}": ["-c", f"import {name}"] for name in FACES},
    **{code: ["-c", code] for code in (*INSIDE, *BESIDE)},
    "polyvox --version": [str(Path(sys.executable).with_name("polyvox")), "--version"],
}


class Process:
    """A child that answers every order with one line; it ends when its standard input does."""

    def __init__(self, module: str, *arguments: str, cpu: int | None, python: str = sys.executable) -> None:
        pin = [] if cpu is None else ["--cpu", str(cpu)]
        command = [python, "-m", module, *arguments, *pin]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        """The next line it prints; "" when it died."""
        return _pipe(self.child.stdout).readline()

    def order(self, **order: Any) -> dict[str, Any]:
        """Its answer to an order; an `error` when it gave none."""
        try:
            print(json.dumps(order), file=_pipe(self.child.stdin), flush=True)
            answer: dict[str, Any] = json.loads(self.line() or '{"error": "the process died"}')
        except (OSError, ValueError) as error:
            return {"error": f"the process died or printed something else: {error}"}
        return answer

    def close(self) -> None:
        """End it; kill it when it does not end by itself."""
        _pipe(self.child.stdin).close()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        _pipe(self.child.stdout).close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("the child has no pipe")
    return pipe


class Plan(NamedTuple):
    """How long a run takes."""

    rounds: int
    seconds: float
    starts: int
    clients: int
    codec_seconds: float
    size: Size
    uvloop: bool = False
    others: str = sys.executable

    def worker(self, name: str, cpu: int | None) -> Process:
        """A process of a contestant."""
        loop = ["--uvloop"] if self.uvloop else []
        python = self.others if name in OTHERS else sys.executable
        return Process("benchmarks.worker", name, *loop, cpu=cpu, python=python)


FULL = Plan(rounds=5, seconds=0.4, starts=7, clients=500, codec_seconds=0.05, size=FULL_SIZE)
QUICK = Plan(rounds=1, seconds=0.2, starts=3, clients=25, codec_seconds=0.02, size=QUICK_SIZE)


def measure_cpu(names: list[str], url: str, plan: Plan, cpu: int | None, errors: dict[str, str]) -> dict[str, Any]:
    """CPU microseconds a call or chunk: medians over the rounds, in each of which every contestant runs."""
    workers = {name: plan.worker(name, cpu) for name in names}
    samples: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    try:
        for turn in range(plan.rounds):
            for key, cell in CELLS.items():
                # The order turns with the rounds, so that nobody always follows the same neighbour.
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    if name in errors:
                        continue
                    # A paced stream takes a second by itself: one pass of it is a block.
                    seconds = 0 if key.startswith("paced") else plan.seconds
                    answer = workers[name].order(
                        base_url=url + cell.path, action=cell.action, concurrency=cell.concurrency, seconds=seconds
                    )
                    if "error" in answer:
                        errors[name] = f"{key}: {answer['error']}"
                        continue
                    cost = answer["cpu"] / answer["calls"] / cell.per_call * 1e6
                    samples[name].setdefault(key, []).append(cost)
            _tell(f"round {turn + 1} of {plan.rounds}")
    finally:
        for worker in workers.values():
            worker.close()
    return {
        name: {key: round(statistics.median(values), 3) for key, values in found.items()}
        for name, found in samples.items()
        if found
    }


def measure_starts(times: int, errors: dict[str, str]) -> dict[str, dict[str, float]]:
    """Milliseconds from start to end of a fresh process: medians, the kinds in turn."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STARTS}
    for turn in range(times + 1):
        for name, arguments in STARTS.items():
            if name in errors:
                continue
            command = [sys.executable, *arguments] if arguments[0] == "-c" else arguments
            started, before = time.perf_counter(), _children_cpu()
            try:
                done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
            except (OSError, subprocess.TimeoutExpired) as error:
                errors[name] = str(error)
                continue
            wall, used = time.perf_counter() - started, _children_cpu() - before
            if done.returncode:
                errors[name] = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
            elif turn:  # the first turn only warms the disk cache and compiles
                found[name].append((wall * 1e3, used * 1e3))
    return {
        name: {
            "wall_ms": round(statistics.median(wall for wall, _ in rows), 2),
            "cpu_ms": round(statistics.median(cpu for _, cpu in rows), 2),
        }
        for name, rows in found.items()
        if rows
    }


def _children_cpu() -> float:
    """User and system seconds of all children that ended; os.times would count in whole ticks."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_clients(names: list[str], url: str, plan: Plan, cpu: int | None, errors: dict[str, str]) -> dict[str, Any]:
    """Memory and descriptors before and after many clients, each contestant in a fresh process."""
    found = {}
    for name in names:
        if name in errors:
            continue
        worker = plan.worker(name, cpu)
        try:
            clients = plan.clients // 20 if name in FILES else plan.clients
            answer = worker.order(base_url=url + "/v1", clients=max(clients, 1))
        finally:
            worker.close()
        if "error" in answer:
            errors[name] = f"clients: {answer['error']}"
        else:
            found[name] = answer
        _tell(f"clients of {name}")
    return found


def measure_rooms(names: list[str], size: Size, cpu: int | None, errors: dict[str, str]) -> dict[str, Any]:
    """What each room costs by itself, in a process of its own."""
    found = {}
    for name in names:
        try:
            found[name] = [figure._asdict() for figure in of_room(name, size, cpu)]
        except RuntimeError as error:
            errors[name] = str(error)
        _tell(f"room {name}")
    return found


def run(names: list[str], rooms: list[str], plan: Plan, command: str) -> dict[str, Any]:
    """All figures of one run. Codecs, starts and clients are measured where a contestant is beside the yardstick."""
    whole = names != [BASE]
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    ours, theirs = (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)
    server = Process("benchmarks.server", cpu=theirs)
    if ours is not None:
        os.sched_setaffinity(0, {ours})
    errors: dict[str, str] = {}
    try:
        url = f"http://127.0.0.1:{int(server.line())}"
        cpu = measure_cpu(names, url, plan, ours, errors)
        codec = codecs.measure(plan.rounds, plan.codec_seconds) if whole else {}
        _tell("codecs")
        start = measure_starts(plan.starts, errors) if whole else {}
        clients = measure_clients(names, url, plan, ours, errors) if whole else {}
        room = measure_rooms(rooms, plan.size, ours, errors)
    finally:
        server.close()
    pinned = "pinned" if ours is not None else "not pinned"
    return {
        "when": datetime.now(tz=UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": f"{_processor()}, {len(cpus) or os.cpu_count()} CPUs, {pinned}",
        "command": command,
        "rounds": plan.rounds,
        "loop": "uvloop" if plan.uvloop else "asyncio",
        "versions": versions([name for name in names if name in cpu], plan.others),
        "cpu": cpu,
        "codecs": codec,
        "start": start,
        "clients": clients,
        "rooms": room,
        "errors": errors,
    }


def versions(names: list[str], python: str) -> dict[str, str]:
    """The versions of the libraries that took part, by package."""
    packages = [OTHERS[name] for name in names if name in OTHERS]
    if not packages:
        return {}
    code = "import sys, importlib.metadata as m; print(*[m.version(name) for name in sys.argv[1:]])"
    told = subprocess.run([python, "-c", code, *packages], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(packages, told, strict=True))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables and one line of JSON; 1 when a contestant failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What a call costs, against raw aiohttp.")
    parser.add_argument("--quick", action="store_true", help="under half a minute: rough figures")
    parser.add_argument(
        "--only", action="append", choices=(*NAMES, *OTHERS, *ROOMS), metavar="NAME",
        help=f"a contestant ({', '.join((*NAMES, *OTHERS))}) or a room by itself ({', '.join(ROOMS)}); may repeat",
    )  # fmt: skip
    parser.add_argument(
        "--others", metavar="PYTHON",
        help=f"measure other libraries too, by an interpreter that has {', '.join(OTHERS.values())}",
    )  # fmt: skip
    parser.add_argument(
        "--history", type=int, metavar="CALLS", help="calls to load before the usage of a month is asked for: 1,000,000"
    )
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="replace the part between the markers of a Markdown page"
    )
    parser.add_argument("--uvloop", action="store_true", help="run the awaited contestants on uvloop, not asyncio")
    options = parser.parse_args(argv)
    if options.uvloop and fastest_loop() is asyncio.new_event_loop:
        parser.error("uvloop is not installed")
    if options.only and set(options.only) & set(OTHERS) and options.others is None:
        parser.error("say --others PYTHON, the interpreter of an environment that has them")
    there = (*NAMES, *OTHERS) if options.others is not None else NAMES
    wanted = [name for name in there if not options.only or name in options.only or name == BASE]
    rooms = [name for name in ROOMS if not options.only or name in options.only]
    page = options.write.read_text(encoding="utf-8") if options.write else ""
    if options.write:
        try:
            replaced(page, "")
        except ValueError as error:
            parser.error(f"{options.write}: {error}")
    given = sys.argv[1:] if argv is None else argv
    plan = (QUICK if options.quick else FULL)._replace(uvloop=options.uvloop, others=options.others or sys.executable)
    if options.history is not None:
        plan = plan._replace(size=plan.size._replace(history=options.history))
    shown = ["PYTHON" if word == options.others else word for word in given]  # where it is says nothing to others
    results = run(wanted, rooms, plan, " ".join(["python -m benchmarks", *shown]))
    report = markdown(results)
    print(report)
    print(json.dumps(results, separators=(",", ":")))
    if options.write:
        options.write.write_text(replaced(page, report), encoding="utf-8")
    return 1 if results["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
