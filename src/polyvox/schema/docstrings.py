"""What a docstring says of a function and of each of its parameters, in Google, numpy or reST style."""

from __future__ import annotations

import inspect
import re

_ARGUMENTS = "Args|Arguments|Parameters|Params|Other Parameters|Keyword Args|Keyword Arguments|Attributes"
_OTHERS = "Returns?|Yields?|Raises|Examples?|Notes?|See Also|References|Warns|Warnings?|Todo"
_HEADER = re.compile(rf"(?:(?P<args>{_ARGUMENTS})|(?:{_OTHERS}))(?P<colon>:?)\s*")
_FIELD = re.compile(r":(?P<kind>\w+)(?:\s+[^:\n]*?(?P<name>\w+))?\s*:\s*(?P<text>.*)")
_GOOGLE_ENTRY = re.compile(r"\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)")
_NUMPY_ENTRY = re.compile(r"\*{0,2}(?P<name>\w+)(?:\s*,\s*\w+)*\s*(?::.*)?")
_REST_PARAMETERS = ("param", "parameter", "arg", "argument", "key", "keyword", "ivar", "cvar")


def read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """What a docstring in Google, numpy or reST style says: the opening words, and one text a parameter."""
    lines = inspect.cleandoc(doc).split("\n")
    words: list[str] = []
    found: dict[str, list[str]] = {}
    style, current, indent = "words", [""], None
    for number, line in enumerate(lines):
        text = line.strip()
        below = lines[number + 1].strip() if number + 1 < len(lines) else ""
        header = _HEADER.fullmatch(line)
        if header and (header["colon"] or re.fullmatch("-{3,}", below)):
            style = ("google" if header["colon"] else "numpy") if header["args"] else "other"
            current, indent = [], None
        elif field := (_FIELD.fullmatch(line) if line.startswith(":") else None):
            style, current = "rest", [field["text"]]
            if field["kind"] in _REST_PARAMETERS and field["name"]:
                found[field["name"]] = current
        elif style == "words":
            words.append(line)
        elif style == "google" and text and not line.startswith(" "):
            style = "other"
        elif style in ("google", "numpy") and text and not re.fullmatch("-{3,}", text):
            depth = len(line) - len(line.lstrip())
            indent = depth if indent is None else indent
            entry = (_GOOGLE_ENTRY if style == "google" else _NUMPY_ENTRY).fullmatch(text)
            if entry and depth <= indent:
                current = [entry.groupdict().get("text") or ""]
                found[entry["name"]] = current
            else:
                current.append(text)
        elif style == "rest":
            current.append(text)
    texts = {name: " ".join(part for part in parts if part) for name, parts in found.items()}
    return "\n".join(words).strip(), {name: text for name, text in texts.items() if text}
