"""A real engine to test against: model files that the tool named by the environment writes, tiny and the same every
time. They answer gibberish, but through the real tokenizer, chat template, sampler, streaming and grammar code."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = "make_tiny_gguf.py"
_CONTEXT = b"llama.context_length" + struct.pack("<I", 4)  # a key of the file's head, and the type of its value


def write_models(folder):
    """A tiny model, `tiny`, and one that can go on for a long time, `endless`; skips where they cannot be made."""
    tool = Path(os.environ.get("POLYVOX_TOOLS", "")) / TOOL
    if not tool.is_file():
        pytest.skip(f"a model file is needed: set POLYVOX_TOOLS to the folder of {TOOL}")
    pytest.importorskip("gguf", reason=f"{TOOL} writes model files with gguf, which is not installed")
    tiny = folder / "tiny.gguf"
    subprocess.run([sys.executable, str(tool), str(tiny)], check=True, capture_output=True, timeout=120)
    (folder / "endless.gguf").write_bytes(with_context(tiny.read_bytes(), 16_384))


def with_context(model, tokens):
    """The bytes of a model file whose model takes so many tokens."""
    at = model.index(_CONTEXT) + len(_CONTEXT)
    return model[:at] + struct.pack("<I", tokens) + model[at + 4 :]
