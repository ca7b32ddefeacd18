"""Rules an import graph cannot say: sizes, names where they do not belong, lightness of import."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "polyvox"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(path.relative_to(SOURCE)) for path in FILES]


def limit_of(name):
    return 800 if name.startswith("dialects/") else 700


@pytest.mark.parametrize("name", NAMES)
def test_a_file_stays_small_and_says_what_it_is_for(name):
    text = (SOURCE / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= limit_of(name)
    assert ast.get_docstring(ast.parse(text)), "a module opens with what it is for"


@pytest.mark.parametrize("name", NAMES)
def test_a_function_stays_readable(name):
    tree = ast.parse((SOURCE / name).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno - body[0].lineno + 1) if body else 0
            assert lines <= 60, f"{name}:{node.lineno} {node.name} has {lines} lines"
            parameters = [*node.args.posonlyargs, *node.args.args]
            assert len(parameters) <= 10, (
                f"{name}:{node.lineno} {node.name} has {len(parameters)} positional parameters"
            )


def provider_names():
    rows = tomllib.loads((SOURCE / "data" / "providers.toml").read_text(encoding="utf-8"))
    # Words of the dialects' and auth schemes' own names, and words that mean other things in plain English.
    return sorted(set(rows) - {"openai", "anthropic", "ollama", "demo", "together", "gemini", "azure", "local"})


def strings_of(tree):
    """String literals of code: no docstrings, no comments."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "name", [name for name in NAMES if not name.startswith(("dialects/", "auth", "keys", "testing/", "compat/"))]
)
def test_no_provider_or_model_is_named_outside_the_data(name):
    names = re.compile(rf"\b({'|'.join(provider_names())})\b|\b(gpt|claude|gemini|llama)-?[0-9]", re.IGNORECASE)
    tree = ast.parse((SOURCE / name).read_text(encoding="utf-8"))
    found = [(line, text) for line, text in strings_of(tree) if names.search(text)]
    assert not found


def test_the_engine_names_no_dialect():
    for path in [*(SOURCE / "engine").rglob("*.py"), *(SOURCE / "routing").rglob("*.py")]:
        assert not re.search(r"openai|anthropic|ollama", path.read_text(encoding="utf-8").lower()), path.name


def modules_after(statement):
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = {
    "aiohttp",
    "pydantic",
    "rich",
    "click",
    "yaml",
    "keyring",
    "platformdirs",
    "ssl",
    "uvloop",
    "openai",
    "anthropic",
}


def test_importing_polyvox_loads_nothing_heavy():
    loaded = modules_after("import polyvox")
    assert not loaded & HEAVY
    assert "asyncio" not in loaded and "msgspec" not in loaded


def test_a_client_that_has_not_asked_loads_no_transport():
    loaded = modules_after("import polyvox; polyvox.Client('demo')")
    assert not loaded & (HEAVY - {"ssl"})


def test_importing_polyvox_opens_no_file_of_the_user_and_no_socket():
    code = """
import sys
opened = []
def hook(event, args):
    if event.startswith("socket.") or (event == "open" and isinstance(args[1], str) and "w" in args[1]):
        opened.append((event, str(args[0])))
sys.addaudithook(hook)
import polyvox
for name in polyvox.__all__:
    getattr(polyvox, name)
print(opened)
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


ELSEWHERE = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "uvloop", "readline"}


def test_every_module_loads_where_there_is_no_posix_and_no_extra():
    modules = [
        "polyvox." + name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for name in NAMES
        if name not in ("__init__.py", "__main__.py")
    ]
    code = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ELSEWHERE | {"yaml", "keyring", "openai", "anthropic"}!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
for gone in {ELSEWHERE!r}:
    sys.modules.pop(gone, None)
import os
for gone in ("fork", "register_at_fork", "getuid", "geteuid"):
    if hasattr(os, gone):
        delattr(os, gone)
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        if type(error).__name__ != "NotYetError":  # what a document names and this version does not have says so
            raise
import polyvox
print(polyvox.ask("hello", model="demo").model)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == "demo", done.stderr
