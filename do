#!/usr/bin/env python3
"""Everything a developer does, in one word. Needs Python 3.11 or newer with pip; sets up .venv by itself.

python3 do run "question"   ask a model (the built-in offline one, unless a key is set)
python3 do test [args]      all tests but the slow ones; arguments go to pytest
python3 do lint             style, types, import contract
python3 do vectors          the vectors alone, and the share of the dialects' branches they reach
python3 do bench [args]     measure against raw aiohttp and the openai SDK
python3 do docs             build the documentation into site/; a warning fails
python3 do lock             resolve requirements/*.txt anew (needs uv)
python3 do check            lint, vectors and tests
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of a name nobody knows is made in it
ROOM = 2 << 30  # bytes
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")


def call(*command, env=None):
    """Run a command here; stop with its code when it fails."""
    code = subprocess.run([str(word) for word in command], cwd=ROOT, env=env, check=False).returncode
    if code:
        sys.exit(code)


def ready(what):
    """Make .venv hold what requirements/<what>.txt locks, and the project itself."""
    lock = ROOT / "requirements" / f"{what}.txt"
    wanted = hashlib.sha256(lock.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = VENV / f".{what}-installed"
    if stamp.is_file() and stamp.read_text() == wanted and PYTHON.exists():
        return
    if sys.version_info < (3, 11):
        sys.exit("polyvox needs Python 3.11 or newer")
    print(f"setting up .venv ({what}) …", file=sys.stderr)
    if not PYTHON.exists():
        shutil.rmtree(VENV, ignore_errors=True)
        # Without pip inside: some systems ship Python without ensurepip; the outer pip serves both.
        call(sys.executable, "-m", "venv", "--without-pip", VENV)
    pip = (sys.executable, "-m", "pip", "--python", PYTHON, "--disable-pip-version-check", "--quiet", "install")
    call(*pip, "--require-hashes", "-r", lock)
    call(*pip, "--no-deps", "--no-build-isolation", "-e", ROOT)
    stamp.write_text(wanted)


def run(arguments):
    """Ask a model."""
    ready("run")
    call(BIN / "polyvox", *arguments)


def roomy(place):
    """Whether files for tests can be there: many of them, and some that are run."""
    if not os.access(place, os.W_OK):
        return False
    about = os.statvfs(place)
    return about.f_bavail * about.f_frsize > ROOM and not about.f_flag & os.ST_NOEXEC


def test(arguments):
    """Run the tests; all of them by two processes, a file at a time. Their files are in memory where there is room:
    none is for later, so waiting for a disk proves nothing."""
    ready("dev")
    with tempfile.TemporaryDirectory(prefix="polyvox-", dir=MEMORY if roomy(MEMORY) else None) as place:
        Path(place).chmod(0o711)  # a database in it runs as somebody else
        chosen = arguments or ("-n", "2", "--dist", "loadfile")
        call(PYTHON, "-m", "pytest", *chosen, env={**os.environ, "TMPDIR": place})


def lint(arguments):
    """Check style, types and the import contract."""
    ready("dev")
    call(PYTHON, "-m", "ruff", "check", "src", "tests", "benchmarks", "do")
    call(PYTHON, "-m", "ruff", "format", "--check", "src", "tests", "benchmarks", "do")
    call(PYTHON, "-m", "mypy")
    call(BIN / "lint-imports", "--no-cache")


def vectors(arguments):
    """Run the vectors alone; at least 95 % of the dialects' branches must be reached."""
    ready("dev")
    data = {**os.environ, "COVERAGE_FILE": str(VENV / "vectors.coverage")}
    found = VENV / "vectors.json"
    here = ROOT / "tests" / "dialects"
    vectors = [here / "test_vectors.py", here / "test_serving_vectors.py", here / "test_embedding_vectors.py",
               here / "more" / "test_more_vectors.py"]  # fmt: skip
    call(PYTHON, "-m", "coverage", "run", "--branch", "--source=polyvox.dialects", "-m", "pytest", *vectors, env=data)
    call(PYTHON, "-m", "coverage", "json", "--quiet", "--include=src/polyvox/dialects/*", "-o", found, env=data)
    hold(json.loads(found.read_text())["totals"])


def hold(totals):
    """Say which share of the branches was reached; stop where that is less than 95 %."""
    share = 100 * totals["covered_branches"] / totals["num_branches"]
    print(f"vectors alone reach {share:.1f} % of the branches in dialects/")
    if share < 95:
        sys.exit("that is less than 95 %: add vectors for what is missing")


def bench(arguments):
    """Measure."""
    ready("dev")
    call(PYTHON, "-m", "benchmarks", *arguments)


def docs(arguments):
    """Build the documentation; a warning is a failure."""
    ready("docs")
    call(BIN / "zensical", "build", "--clean", "--strict", *arguments)


def lock(arguments):
    """Resolve the locked requirements anew."""
    resolve = ("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
               "--no-emit-index-url", "--no-header", "--no-annotate", "pyproject.toml", *arguments)  # fmt: skip
    for name, groups in {"run": ("build",), "dev": ("dev",), "docs": ("build", "docs")}.items():
        chosen = [word for group in groups for word in ("--group", group)]
        call(*resolve, *chosen, "--output-file", f"requirements/{name}.txt")


def check(arguments):
    """Lint, vectors and tests."""
    lint([])
    vectors([])
    test(arguments)


WORDS = {
    "run": run,
    "test": test,
    "lint": lint,
    "vectors": vectors,
    "bench": bench,
    "docs": docs,
    "lock": lock,
    "check": check,
}

if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word not in WORDS:
        sys.exit(__doc__)
    WORDS[word](sys.argv[2:])
