"""What a docstring says of a function and of each of its parameters, in Google, numpy or reST style."""

from __future__ import annotations

import inspect


def read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """The opening words of a docstring, and one text a parameter; one that cannot be parsed is all words."""
    from docstring_parser import ParseError, parse

    try:
        parsed = parse(inspect.cleandoc(doc))
    except ParseError:
        return inspect.cleandoc(doc), {}
    found = {param.arg_name.lstrip("*"): " ".join((param.description or "").split()) for param in parsed.params}
    return (parsed.description or "").strip(), {name: text for name, text in found.items() if text}
