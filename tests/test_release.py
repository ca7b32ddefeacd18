"""What is released: a wheel and a source distribution with nothing in them that surprises, few packages for the core,
and extras that can be had one at a time."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import polyvox

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "polyvox"

OPENED = {
    "": ("polyvox", "polyvox.client", "polyvox.cli", "polyvox.ledger", "polyvox.compat.creative_services",
         "polyvox.compat.llm_service.services.llm", "polyvox.compat.ttt"),
    "uvloop": ("uvloop",),
    "keyring": ("keyring",),
    "yaml": ("yaml",),
    "litellm": ("litellm",),
    "tokens": ("tiktoken",),
    "local": ("xllamacpp",),
    "postgres": ("psycopg",),
    "redis": ("polyvox.stores.redis",),
    "otel": ("opentelemetry.trace",),
    "prometheus": ("polyvox.telemetry.prometheus",),
    "settings": ("polyvox.compat.ai_utilities.config_models",),
}  # fmt: skip
"""What each extra makes importable."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution, built without a network."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_the_wheel_holds_the_source_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    here = {
        f"polyvox/{path.relative_to(SOURCE).as_posix()}"
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == here
    assert {"polyvox/py.typed", "polyvox/data/providers.toml"} <= packed
    assert {Path(name).suffix for name in packed} == {".py", ".toml", ".json", ".typed"}


def test_wheel_and_source_distribution_say_what_they_are_and_their_extras_can_be_had(built):
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        facts = BytesParser().parsebytes(wheel.read(name))
        entries = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    with tarfile.open(built[1]) as source:
        assert any(member.name.endswith("/pyproject.toml") for member in source)
    assert facts["Name"] == "polyvox" and facts["Version"] == polyvox.__version__
    assert all(facts[key] for key in ("Summary", "License-Expression", "Requires-Python", "Keywords", "License-File"))
    assert facts["Description-Content-Type"] == "text/markdown" and "# polyvox" in facts.get_payload()
    assert "polyvox = polyvox.cli:main" in entries
    wanted = [Requirement(line) for line in facts.get_all("Requires-Dist")]
    # litellm is not installed here: it brings more packages than all the rest together.
    extras = set(facts.get_all("Provides-Extra")) - {"all", "litellm"}
    for extra in ["", *sorted(extras)]:
        for want in wanted:
            if want.name != "polyvox" and (want.marker is None or want.marker.evaluate({"extra": extra})):
                assert want.specifier.contains(metadata.version(want.name)), f"{extra}: {want}"


def test_the_source_distribution_holds_what_its_readers_need_and_nothing_of_this_machine(built):
    with tarfile.open(built[1]) as source:
        members = source.getmembers()
        names = {member.name.partition("/")[2] for member in members}
        said = b"".join(source.extractfile(member).read() for member in members if member.name.endswith(".toml"))
    tops = {name.split("/")[0] for name in names}
    assert tops <= {
        "src",
        "tests",
        "docs",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "pyproject.toml",
        "PKG-INFO",
        ".gitignore",
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".pth", ".so"))]
    assert str(ROOT).encode() not in said


def test_nothing_of_the_wheel_runs_by_itself_or_lies_outside_the_package(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names} == {"polyvox", f"polyvox-{polyvox.__version__}.dist-info"}
    assert not [name for name in names if name.endswith(".pth") or "sitecustomize" in name or ".data/" in name]


def needed(name, seen):
    """Every package that a package without extras brings along, itself included."""
    if name in seen:
        return seen
    seen.add(name)
    for line in metadata.requires(name) or ():
        want = Requirement(line)
        if want.marker is None or want.marker.evaluate({"extra": ""}):
            needed(re.sub(r"[-_.]+", "-", want.name).lower(), seen)
    return seen


def test_the_core_brings_few_packages():
    found = needed("polyvox", set())
    assert {"aiohttp", "msgspec", "pydantic"} < found
    assert len(found) <= 25, sorted(found)


def test_each_extra_says_what_it_opens():
    extras = set(metadata.metadata("polyvox").get_all("Provides-Extra"))
    assert set(OPENED) - {""} == extras - {"all"}
    for extra in extras - {"all", "litellm"}:
        for name in OPENED[extra]:
            importlib.import_module(name)


def test_the_documentation_lists_every_extra():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    table = page.partition("## Extras")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE))
    assert listed == set(metadata.metadata("polyvox").get_all("Provides-Extra"))


def test_the_locked_requirements_are_hashed_and_name_no_index():
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in text.splitlines():
            assert re.fullmatch(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+( ; .*?)?(\s+--hash=sha256:[0-9a-f]{64})+", line), line


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted(OPENED))
def test_each_extra_can_be_installed_alone(built, tmp_path, extra):
    # From the wheel, in an environment that has nothing else; the packages come from wherever pip has them from.
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True, timeout=120)
    python = str(tmp_path / "env" / "bin" / "python")
    wanted = f"polyvox[{extra}] @ {built[0].as_uri()}" if extra else str(built[0])
    subprocess.run([python, "-m", "pip", "install", "-q", wanted], check=True, timeout=900, capture_output=True)
    for name in OPENED[extra]:
        subprocess.run([python, "-I", "-c", f"import {name}"], check=True, timeout=120, capture_output=True)
    asked = [python, "-I", "-m", "polyvox", "ask", "-m", "demo", "hello"]
    said = subprocess.run(asked, check=True, timeout=120, capture_output=True, text=True, cwd=tmp_path)
    assert "hello" in said.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pyright") is None, reason="needs pyright on PATH")
def test_nearly_all_that_is_public_has_a_type(built, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True, timeout=120)
    python = str(tmp_path / "env" / "bin" / "python")
    subprocess.run(
        [python, "-m", "pip", "install", "-q", f"polyvox[settings] @ {built[0].as_uri()}"], check=True, timeout=900
    )
    command = ["pyright", "--verifytypes", "polyvox", "--ignoreexternal", "--pythonpath", python]
    # What is installed is judged, not the checkout, and with the libraries that are installed beside it.
    around = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    around["PATH"] = os.pathsep.join((str(Path(python).parent), around["PATH"]))
    said = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=3600, cwd=tmp_path, env=around
    ).stdout
    (score,) = re.findall(r"completeness score: ([\d.]+)%", said)
    assert float(score) >= 99, said[-3000:]
