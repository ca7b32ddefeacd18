"""Runs one acceptance script in a process of its own: `python -m tests.interfaces.run_script SCRIPT PROVIDERS`, where
PROVIDERS is JSON for `polyvox.configure(providers=...)`. It changes the import root and calls main(), which may be
asynchronous; the environment is the caller's."""

import asyncio
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType

import polyvox

from . import blocks


def main(script: str, providers: str) -> None:
    polyvox.configure(providers=json.loads(providers))
    path = Path(script)
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    # Where pickle and type hints look for what the script defines.
    sys.modules[path.stem] = module
    text = blocks.rerooted(path.read_text(encoding="utf-8"))
    exec(compile(text, str(path), "exec", dont_inherit=True), module.__dict__)
    ended = module.main()
    if inspect.isawaitable(ended):
        asyncio.run(ended)


if __name__ == "__main__":
    main(*sys.argv[1:])
