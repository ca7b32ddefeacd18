"""What a call would send, to the byte, without sending it. Keys stand as variables, never as themselves."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

import msgspec

from polyvox.auth import credentials
from polyvox.catalog import Provider
from polyvox.keys import Secret, redact
from polyvox.types import Loss, Value


class Explanation(Value, frozen=True):
    """The wire request of a call. headers name variables where keys would stand; body is exactly what goes
    out; losses are what it cannot say."""

    deployment: str
    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    losses: tuple[Loss, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The explanation as plain JSON values."""
        return {
            "deployment": self.deployment,
            "method": self.method,
            "url": self.url,
            "headers": self.headers,
            "body": json.loads(self.body),
            "losses": [msgspec.to_builtins(loss) for loss in self.losses],
        }

    def curl(self) -> str:
        """The same request as a command for a shell; it takes the key from its variable."""
        lines = [f"curl -sS -X {self.method} {_quoted(self.url)}"]
        lines += [f"-H {_quoted(f'{name}: {value}')}" for name, value in self.headers.items()]
        lines.append(f"--data-raw {shlex.quote(self.body.decode())}")
        return " \\\n  ".join(lines)


_VARIABLE = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*$")


def _quoted(header: str) -> str:
    """A header or URL for a shell: in double quotes where it ends in a variable, which the shell must fill in."""
    found = _VARIABLE.search(header)
    if found is None:
        return shlex.quote(header)
    head = re.sub(r'(["\\`$])', r"\\\1", header[: found.start()])
    return f'"{head}{found[0]}"'


def shown_headers(row: Provider) -> dict[str, str]:
    """The headers of a provider with a variable in place of each secret."""
    names = {name: "$" + re.sub(r"\W", "_", name).upper() for name in row.secret_headers}
    masked = msgspec.structs.replace(row, secret_headers={name: Secret(value) for name, value in names.items()})
    key = None if row.auth == "none" or (row.local and not row.key_env) else Secret(f"${key_variable(row)}")
    return {**row.headers, **credentials(masked, key)}


def key_variable(row: Provider) -> str:
    """The variable that customarily holds a provider's key."""
    return row.key_env[0] if row.key_env else "API_KEY"


def safe(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers with everything masked that is a known secret or looks like one."""
    masked = {}
    for name, value in headers.items():
        text = redact(f"{name}: {value}").partition(": ")[2]
        masked[name] = value if _VARIABLE.search(value) else text
    return masked
