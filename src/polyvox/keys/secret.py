"""The `Secret` value, and the masking of every secret that is known or looks like one. It finds and keeps no keys."""

from __future__ import annotations

import base64
import functools
import hmac
import json
import re
import threading
from collections.abc import Iterator
from typing import Any, Final, NoReturn
from urllib.parse import quote, quote_plus

from polyvox.errors import UsageError

MASK: Final = "***"


class Secret:
    """A value that shows itself only to `reveal()`. Printing, formatting and logging give '***';
    pickling is refused and JSON encoders do not know it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; for the line that puts it on the wire, and nothing else."""
        return self._value

    def __repr__(self) -> str:
        """Never the value."""
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        """Never the value."""
        return MASK

    def __format__(self, spec: str) -> str:
        """Never the value."""
        return format(MASK, spec)

    def __bool__(self) -> bool:
        """Whether there is a value."""
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time, with other secrets only."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(utf8(self._value), utf8(other._value))

    def __hash__(self) -> int:
        """Fit for sets and dict keys; salted by the process."""
        return hash((Secret, self._value))

    def __copy__(self) -> Secret:
        """The same secret: there is nothing in it to change."""
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        """The same secret."""
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse: a pickle is a copy in clear."""
        self.__getstate__()

    def __getstate__(self) -> NoReturn:
        """Refuse, likewise."""
        raise UsageError("a Secret cannot be pickled", hint="pass the key's name and look it up on the other side")

    @property
    def fingerprint(self) -> str:
        """Enough to tell keys apart: "sk-…1234" for those of 20 characters and more in one line, "…" for others."""
        if len(self._value) < 20 or not self._value.isprintable():
            return "…"
        prefix = re.match(r"[A-Za-z]{2,4}[-_]", self._value)
        return f"{prefix[0] if prefix else ''}…{self._value[-4:]}"


def secret_of(value: str | Secret) -> Secret:
    """A remembered secret of what people paste: without the white space around it."""
    secret = value if isinstance(value, Secret) else Secret(value.strip())
    remember(secret)
    return secret


def utf8(text: str) -> bytes:
    """Text as bytes, lone surrogates too: a key is compared and kept as it was pasted."""
    return text.encode("utf-8", "surrogatepass")


# ---- redaction --------------------------------------------------------------------------------

# Shorter values are words ("ollama", "EMPTY") given where a key is asked for but not needed;
# masking them would black out ordinary text.
_SHORTEST = 8
_MOST = 256
_lock = threading.Lock()
_known: dict[str, None] = {}
_known_forms: tuple[str, ...] = ()


def remember(secret: Secret) -> None:
    """Mask this secret in all that `redact` sees from now on. The latest 256 are kept."""
    global _known_forms
    value = secret.reveal()
    if len(value) < _SHORTEST or value in _known:
        return
    with _lock:
        _known[value] = None
        while len(_known) > _MOST:
            del _known[next(iter(_known))]
        forms = {form for known in _known for form in _forms(known)}
        # Longest first: a secret that begins like another must not leave its tail behind.
        _known_forms = tuple(sorted(forms, key=len, reverse=True))


def _forms(value: str) -> Iterator[str]:
    """The value as it looks in text, JSON, URLs and base64."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    data = utf8(value)
    yield quote(data, safe="")
    yield quote_plus(data)
    yield base64.b64encode(data).decode().rstrip("=")
    yield base64.urlsafe_b64encode(data).decode().rstrip("=")


# Every alternative starts with a literal and runs through one character class; where something must
# follow, the run is bounded or can start only once in a word. So matching is linear, whatever the text.
# After a word like "bearer", a word of prose is told from a token by its digits or its length.
_SHAPES = r"""
      -----BEGIN\ [^-\n]{0,40}PRIVATE\ KEY-----[^-]*(?:-----END[^-\n]{0,60}-----)?
    | (?<![A-Za-z0-9])(?:
          sk-[A-Za-z0-9_*\-]{16,}
        | AIza[A-Za-z0-9_\-]{20,}
        | (?-i:AKIA|ASIA)[A-Z0-9]{16}
        | (?:gsk|hf|fw|ghp|gho|ghs)_[A-Za-z0-9]{16,}
        | (?:xai|csk|pplx|nvapi|xox[abprs])-[A-Za-z0-9\-_]{16,}
        | (?:tgp_v1|github_pat)_[A-Za-z0-9_\-]{16,}
        | ya29\.[A-Za-z0-9_\-.]{16,}
      )
    | (?<![A-Za-z0-9_\-])eyJ[A-Za-z0-9_\-]{10,4096}\.[A-Za-z0-9_\-]{4,}(?:\.[A-Za-z0-9_\-]+)?
    | (?P<url>://)[^\s/@:'"<>]{0,256}:[^\s/@'"<>]{1,256}(?=@)
    | (?P<query>[?&;](?:key|api[_-]?key|(?:access_|auth_|id_)?token|sig|signature|(?:client_)?secret|password)=)
        [^&\s"'<>\#;]+
    | (?P<signed>Signature=)[0-9a-f]{64}
    | (?P<scheme>(?<![A-Za-z])(?:bearer|basic)\ {1,4})
        (?:(?=[A-Za-z+/_=.~\-]{0,64}[0-9])[A-Za-z0-9+/_=.~\-]{8,} | [A-Za-z0-9+/_=.~\-]{24,})
    | (?P<field>(?<![A-Za-z0-9_\-])
        (?:x-api-key|x-goog-api-key|api[-_]?key|(?:proxy-)?authorization|x-amz-security-token|(?:set-)?cookie)
        ['"]?\ {0,3}[:=,]\ {0,3}b?['"(]{0,2}(?:(?:bearer|basic)\ {1,4})?)
        (?:(?=[^\s0-9'",)}\]]{0,64}[0-9])[^\s'",)}\]]{8,} | [^\s'",)}\]]{24,})
    """
_KEPT = ("url", "query", "signed", "scheme", "field")


@functools.cache
def _shapes() -> re.Pattern[str]:
    return re.compile(_SHAPES, re.VERBOSE | re.IGNORECASE)


def redact(text: str) -> str:
    """The text with every known secret, and all that is shaped like one, masked."""
    for form in _known_forms:
        if form in text:
            # What goes on behind a known secret is a longer one that nobody remembered.
            text = re.sub(re.escape(form) + r"[A-Za-z0-9_-]*", MASK, text)
    return _shapes().sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    kept = match.lastgroup
    return f"{match[kept]}{MASK}" if kept in _KEPT and kept is not None else MASK


_SECRET_WORDS = re.compile(r"key|token|secret|auth|cookie|password|passwd|credential", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a header or field of this name is bound to hold a secret."""
    return bool(_SECRET_WORDS.search(name))
