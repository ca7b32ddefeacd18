"""The code blocks of the four documents, and how one runs here: as printed, its import root changed by a table and
nothing else. The text is in the file beside $POLYVOX_REQUIREMENTS; what is said of a block stands in blocks.toml."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent

ROOTS = {
    "creative_services": "polyvox.compat.creative_services",
    "ai_utilities": "polyvox.compat.ai_utilities",
    "app": "polyvox.compat.llm_service",
    "ttt": "polyvox.compat.ttt",
}
"""What stands in the place of each documented import root."""

STARS = {"ai_utilities": "polyvox.compat.ai_utilities", "ttt": "polyvox.compat.ttt"}
"""Documents whose blocks import nothing of their package: a block has what a star gives."""


class Block(NamedTuple):
    """One printed block: its id, whose it is, "runs" or the capability it waits for, what is wrong with it as printed,
    and its text ("" where the file with the texts is not at hand)."""

    id: str
    document: str
    state: str
    wrong: str
    code: str

    def run(self, **given: Any) -> dict[str, Any]:
        """Run it among these names and those of its package; the names there are then."""
        return execute(self.code, {**star(self.document), **given}, self.id)


def said() -> dict[str, dict[str, str]]:
    """What blocks.toml says of each block, in its order."""
    tables = tomllib.loads((HERE / "blocks.toml").read_text(encoding="utf-8"))
    return {key: entry for table in tables.values() for key, entry in table.items()}


def source() -> Path | None:
    """The file with the texts; None where $POLYVOX_REQUIREMENTS says nothing."""
    rows = os.environ.get("POLYVOX_REQUIREMENTS")
    return Path(rows).with_name("requirements_blocks.json") if rows else None


def read(path: Path | None) -> list[dict[str, Any]]:
    """The blocks of that file, in the order of the documents; none without it."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path else []
    return found


def rerooted(code: str, roots: Mapping[str, str] = ROOTS) -> str:
    """The same text with other import roots, at the start of import lines and nowhere else.

    >>> rerooted("from app.models.llm import LLMConfig  # app", {"app": "ours"})
    'from ours.models.llm import LLMConfig  # app'
    """
    known = "|".join(map(re.escape, roots))
    return re.sub(rf"(?m)^(\s*(?:from|import) )({known})(?=[. \n]|$)", lambda line: line[1] + roots[line[2]], code)


def execute(code: str, names: dict[str, Any], where: str = "<block>") -> dict[str, Any]:
    """Run a text that may await at its top level, in a loop of its own; `names` are its globals and are given back."""
    # As in a module, so that what it defines knows where it stands.
    names.setdefault("__name__", where)
    # The text's own features only: annotations are evaluated, as they are where it is printed.
    program = compile(rerooted(code), where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if program.co_flags & inspect.CO_COROUTINE:

        async def run() -> None:
            await eval(program, names)

        asyncio.run(run())
    else:
        exec(program, names)
    return names


def star(document: str) -> dict[str, Any]:
    """What `from package import *` gives, for a document whose blocks have no imports."""
    names: dict[str, Any] = {}
    if document in STARS:
        exec(f"from {STARS[document]} import *", names)
    return names
