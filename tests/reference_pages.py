"""The reference, made from the docstrings and signatures in the source; it imports a module only to learn where a name
is defined. `python -m tests.docs_pages --write` writes the pages."""

import ast
import functools
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import polyvox
from polyvox import errors


class Room(NamedTuple):
    """A module, and which of its names are shown; none means all that are public and its own."""

    module: str
    names: str = ""


class Page(NamedTuple):
    """One page: its file under docs/reference, its title, one sentence, and the rooms it shows."""

    file: str
    title: str
    about: str
    rooms: tuple[Room, ...]


ASKING = """ask stream chat embed ask_batch ask_async stream_async achat embed_async Client AsyncClient Stream
AsyncStream Chat AsyncChat configure add_model register_backend unregister_backend"""

PAGES = (
    Page("asking", "Asking", "The functions and clients that ask models.",
         (Room("polyvox", ASKING), Room("polyvox.client.inputs", "Options Said"), Room("polyvox.engine", "Hooks"))),
    Page("values", "Values", "What goes in and what comes out: frozen values, each with the units of its fields.",
         (Room("polyvox.types"), Room("polyvox.media", "Transcript Word Segment Speech Pictures"),
          Room("polyvox.stored", "StoredFile FilePage Batch BatchResult"),
          Room("polyvox.verdicts", "Ranking Ranked Verdicts Verdict"))),
    Page("errors", "Errors", "Every error says what happened and what to do next.", (Room("polyvox.errors"),)),
    Page("settings", "Settings and keys", "Where settings and keys come from.",
         (Room("polyvox.config", "Settings Loader load configure current reset default_files"),
          Room("polyvox.keys", "Secret KeyStore FoundKey find_key redact"))),
    Page("models", "Models", "What is known of models: limits, abilities, prices, what they take.",
         (Room("polyvox.catalog", "Provider Target Catalog load add_model"), Room("polyvox.models", "Model Price"),
          Room("polyvox.profiles", "Profile profile_of Spec Parameter spec validate"),
          Room("polyvox.tokens", "Count count"))),
    Page("deployments", "Deployments and routing", "Who may answer, in which order, and how much each may be asked.",
         (Room("polyvox.registry", "Entry DictRegistry FileRegistry Registry"),
          Room("polyvox.pools", "Routing Decision"), Room("polyvox.limits", "Limits"),
          Room("polyvox.routing", "RetryRule RetryBudget"))),
    Page("money", "Money and caches", "What calls cost and may cost, and what need not be asked again.",
         (Room("polyvox.ledger", "Ledger CallRecord AttemptRecord UsageRow"),
          Room("polyvox.budgets", "Budget Budgets BudgetExceededError BudgetState BudgetNotice"),
          Room("polyvox.usage", "UsageTracker UsageStats"), Room("polyvox.prices", "cost bound Bill Line"),
          Room("polyvox.cache", "ResponseCache CacheStats"), Room("polyvox.stores", "Store open_store"))),
    Page("telemetry", "Telemetry", "Observers for `Client(hooks=[...])`.",
         (Room("polyvox.telemetry", "OpenTelemetry Prometheus CallLog JSONLines audit"),)),
    Page("backends", "Backends and helpers", "Answerers that are no wire, URLs that become bytes, and schemas.",
         (Room("polyvox.backends", "backend_of discovered"), Room("polyvox.fetch", "Rules get get_async Fetched"),
          Room("polyvox.schema", "schema_of tool_from format_from validate"))),
    Page("testing", "Testing", "For the tests of your own program.", (Room("polyvox.testing"),)),
)  # fmt: skip

COMPAT = Page(
    "compat", "The documented interfaces", "Four packages with the names that their documents print.",
    (Room("polyvox.compat.creative_services"), Room("polyvox.compat.creative_services.adapters"),
     Room("polyvox.compat.ai_utilities"), Room("polyvox.compat.llm_service.models.llm"),
     Room("polyvox.compat.llm_service.services.llm"), Room("polyvox.compat.ttt"), Room("polyvox.compat.names")),
)  # fmt: skip


def pages():
    """The text of each page by its path under docs/."""
    return {f"reference/{page.file}.md": text(page) for page in PAGES} | {"reference/compat.md": brief(COMPAT)}


def brief(page):
    """A page with a line a name."""
    lines = [f"# {page.title}", page.about]
    for room in page.rooms:
        rows = ["| name | |", "| --- | --- |"]
        for name in shown(room):
            value = getattr(importlib.import_module(room.module), name)
            said = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ").replace("|", "/")
            rows.append(f"| `{name}` | {said if inspect.isroutine(value) or inspect.isclass(value) else 'A value.'} |")
        lines += [f"## `{room.module}`", "\n".join(rows)]
    return "\n\n".join(lines) + "\n"


def text(page):
    """A whole page."""
    lines = [f"# {page.title}", page.about]
    lines += [tree()] if page.file == "errors" else []
    for room in page.rooms:
        lines += [f"## `{room.module}`"] if len(page.rooms) > 1 else []
        lines += [entry for name in shown(room) for entry in entries(room.module, name)]
    return "\n\n".join(lines) + "\n"


def shown(room):
    """The names of a room that its page shows."""
    module = importlib.import_module(room.module)
    return room.names.split() or list(getattr(module, "__all__", ())) or own(module)


def own(module):
    """The public classes and functions that a module defines, in their order."""
    found = parsed(module.__name__)
    return [name for name, node in found.items() if not name.startswith("_") and isinstance(node, DEFINED)]


DEFINED = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def parsed(module):
    """The definitions at the top of a module's source, by name."""
    source = Path(importlib.import_module(module).__file__).read_text(encoding="utf-8")
    return {node.name: node for node in ast.parse(source).body if isinstance(node, DEFINED)}


def entries(module, name):
    """A name's own entry, and those of its public methods."""
    value = getattr(importlib.import_module(module), name)
    home = getattr(value, "__module__", None)
    node = parsed(home).get(name) if home else None
    if node is None:
        raise LookupError(f"{module}.{name} is no class or function with a source")
    yield f"### {name}"
    if isinstance(node, ast.ClassDef):
        made = next((method for method in functions(node) if method.name == "__init__"), None)
        yield code(f"{name}{arguments(made)}" if made else f"{name}{fields(value)}")
        yield prose(ast.get_docstring(node) or "")
        for method in functions(node):
            if not method.name.startswith("_") and (said := ast.get_docstring(method)):
                is_property = any(ast.unparse(mark).endswith("property") for mark in method.decorator_list)
                kind = f".{method.name}: {ast.unparse(method.returns)}" if is_property else signature(method, ".")
                yield from (f"#### {name}.{method.name}", code(kind), prose(said))
    else:
        yield code(signature(node))
        yield prose(ast.get_docstring(node) or "")


def functions(node):
    return [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]


def signature(node, before=""):
    """A function as it is called: `await` stands before what must be awaited."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{'await ' * isinstance(node, ast.AsyncFunctionDef)}{before}{node.name}{arguments(node)}{returns}"


def arguments(node):
    """The arguments of a function as they are written, without self."""
    said = node.args
    plain = [*said.posonlyargs, *said.args]
    given = [one(*pair) for pair in zip(plain, [None] * (len(plain) - len(said.defaults)) + said.defaults, strict=True)]
    if said.posonlyargs:
        given.insert(len(said.posonlyargs), "/")
    if plain and plain[0].arg in ("self", "cls"):
        given = [word for word in given[1:] if word != "/"]
    if said.vararg or said.kwonlyargs:
        given.append(f"*{ast.unparse(said.vararg) if said.vararg else ''}")
    given += [one(*pair) for pair in zip(said.kwonlyargs, said.kw_defaults, strict=True)]
    return bracketed([*given, *([f"**{ast.unparse(said.kwarg)}"] if said.kwarg else [])])


def one(argument, default):
    """An argument with its type and what holds without it."""
    said = ast.unparse(argument)
    return said if default is None else f"{said}{' = ' if argument.annotation else '='}{ast.unparse(default)}"


def fields(value):
    """The fields of a value, those of what it is made from first; nothing for what has none."""
    found = {}
    for part in reversed(value.__mro__):
        if part.__module__.startswith("polyvox."):
            node = parsed(part.__module__).get(part.__name__)
            for line in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    if not line.target.id.startswith("_") and not ast.unparse(line.annotation).startswith("ClassVar"):
                        found[line.target.id] = ast.unparse(line)
    return bracketed(list(found.values())) if found else ""


def bracketed(given):
    """In one line where it fits."""
    line = f"({', '.join(given)})"
    return line if len(line) <= 80 else "(\n" + "".join(f"    {word},\n" for word in given) + ")"


def code(shown_there):
    return f"```py\n{shown_there}\n```"


def prose(docstring):
    """A docstring as Markdown: sections become lists, examples become blocks."""
    blocks = []
    for paragraph in re.split(r"\n\s*\n", docstring):
        lines = paragraph.split("\n")
        if re.fullmatch(r"(Attributes|Args|Raises|Returns|Example|Examples):", lines[0].strip()):
            if not lines[0].startswith("Example"):
                blocks.append(f"**{lines[0].strip(': ')}**")
            paragraph = textwrap.dedent("\n".join(lines[1:]))
            blocks.append(example(paragraph) if ">>>" in paragraph else listed(paragraph))
        elif paragraph.lstrip().startswith(">>>"):
            blocks.append(example(textwrap.dedent(paragraph)))
        else:
            blocks.append(paragraph)
    return "\n\n".join(block for block in blocks if block)


def listed(paragraph):
    """Lines "name: what it is", further lines of each indented, as a list."""
    items = []
    for line in paragraph.split("\n"):
        if line.startswith(" ") and items:
            items[-1] += f" {line.strip()}"
        else:
            name, colon, what = line.partition(": ")
            items.append(f"* `{name}`: {what}" if colon else f"* {line}")
    return "\n".join(items)


def example(lines):
    return f"```pycon\n{lines}\n```"


def tree():
    """Every error under the one it is a kind of."""
    rows = ["| error | kind | is worth another try | also caught as |", "| --- | --- | --- | --- |"]
    for name in own(errors):
        value = getattr(errors, name)
        if inspect.isclass(value):
            above = ", ".join(f"`{base.__name__}`" for base in value.__mro__[1:-3] if base is not errors.PolyvoxError)
            rows.append(f"| `{name}` | {value.kind} | {'yes' if value.retry else 'no'} | {above or '-'} |")
    return "\n".join(rows)


def missing():
    """Public names that no page shows."""
    named = {name for page in PAGES for room in page.rooms for name in shown(room)}
    return sorted(set(polyvox.__all__) - named)
