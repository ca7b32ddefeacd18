"""Access tokens of Google Cloud: from a service account's key, a user's login or the machine's metadata server to
the header of a request. It opens no file and no connection; what carries its requests is given to it.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit

from polyvox.auth import rs256
from polyvox.dialects import Reply, decode_json, integer, snippet, string
from polyvox.errors import AuthError, BadResponseError, PolyvoxError, ServerError
from polyvox.keys import Secret, redact, remember

METADATA = "metadata-server"
"""The key that stands for the service account of the machine this runs on."""

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
# Plain HTTP to a name that only resolves on Google's machines; there is no other way to ask it.
_METADATA_URL = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_LIFETIME = 3600  # seconds; what Google allows at most
_MARGIN = 300.0  # a token is fetched anew this many seconds before it expires
_NEEDED = {
    "service_account": ("client_email", "private_key"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
}
_SECRET = ("private_key", "client_secret", "refresh_token")


class Carry(Protocol):
    """Sends one request and gives the whole answer; raises errors of our tree."""

    async def __call__(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Method, absolute URL, headers and body; b"" for none."""


class _Held(NamedTuple):
    value: str
    until: float


def is_token(value: str) -> bool:
    """Whether a key is an access token itself: one word, which a JSON file is not."""
    return value != METADATA and not value.lstrip().startswith("{")


class AccessToken:
    """The access token of one account: fetched when it is first needed, kept until shortly before it expires,
    fetched once however many calls wait for it.

    key is METADATA, or the text of a JSON file that Google or `gcloud auth application-default login` made.
    clock gives seconds since 1970. Raises AuthError for a file that cannot be used.
    """

    __slots__ = ("_account", "_carry", "_clock", "_fetch", "_held", "_key")

    def __init__(self, key: str, carry: Carry, clock: Callable[[], float]) -> None:
        self._account = {} if key == METADATA else _account(key)
        self._key = _signing_key(self._account) if self._account.get("type") == "service_account" else None
        self._carry = carry
        self._clock = clock
        self._held: _Held | None = None
        self._fetch: asyncio.Task[_Held] | None = None

    def __repr__(self) -> str:
        """Nothing of it."""
        return "AccessToken(***)"

    async def headers(self) -> dict[str, str]:
        """The headers that prove who asks; raises AuthError or ServerError when no token can be had."""
        held = self._held
        if held is None or self._clock() >= held.until:
            held = await self._fetched()
        project = self._account.get("quota_project_id")
        return {
            "authorization": f"Bearer {held.value}",
            **({"x-goog-user-project": project} if isinstance(project, str) else {}),
        }

    async def _fetched(self) -> _Held:
        loop = asyncio.get_running_loop()
        fetch = self._fetch
        if fetch is None or fetch.done() or fetch.get_loop() is not loop:
            fetch = self._fetch = loop.create_task(self._ask())
            fetch.add_done_callback(_heard)
        try:
            # Shielded: a call that gives up must not take the token from the others who wait for it.
            self._held = await asyncio.shield(fetch)
        except PolyvoxError as error:
            raise copy.copy(error) from None  # every call marks its error with what it tried
        return self._held

    async def _ask(self) -> _Held:
        method, url, headers, body = self._request()
        try:
            reply = await self._carry(method, url, headers, body)
        except PolyvoxError as error:
            error.message = f"no access token: {error.message}"
            error.sent = "no"  # the token's request may have left; the call itself has not
            raise
        if reply.status != 200:
            raise _refused(reply)
        return self._read(reply)

    def _request(self) -> tuple[str, str, Mapping[str, str], bytes]:
        account = self._account
        if not account:
            return "GET", _METADATA_URL, {"metadata-flavor": "Google"}, b""
        if self._key is None:
            form = {name: account[name] for name in _NEEDED["authorized_user"]}
            return "POST", _TOKEN_URL, _FORM, urlencode({"grant_type": "refresh_token", **form}).encode()
        url, now = _token_url(account), int(self._clock())
        claims = {"iss": account["client_email"], "scope": _SCOPE, "aud": url, "iat": now, "exp": now + _LIFETIME}
        head = {"kid": account["private_key_id"]} if isinstance(account.get("private_key_id"), str) else {}
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": rs256.token(self._key, head, claims),
        }
        return "POST", url, _FORM, urlencode(form).encode()

    def _read(self, reply: Reply) -> _Held:
        try:
            answer = decode_json(reply.body)
        except BadResponseError:
            answer = None
        token = string(answer.get("access_token")) if isinstance(answer, dict) else None
        if not token or not token.isascii() or not token.isprintable():
            # Without the body's words: it may hold the token in another shape.
            raise BadResponseError("no access token: the answer holds none", sent="no")
        remember(Secret(token))
        seconds = integer(answer.get("expires_in")) or 0
        # One that is gone before the margin is used for half its time.
        return _Held(token, self._clock() + max(seconds - _MARGIN, seconds / 2))


def _heard(fetch: asyncio.Task[_Held]) -> None:
    """Take note of a failure that every waiter may have left alone."""
    if not fetch.cancelled():
        fetch.exception()


def _account(text: str) -> dict[str, Any]:
    """The account in a JSON key file, its secrets remembered; AuthError, which shows nothing of it, for others."""
    try:
        account = json.loads(text)
    except (ValueError, RecursionError):
        account = None
    if not isinstance(account, dict):
        raise _unusable("is not JSON")
    for name in _SECRET:
        if isinstance(account.get(name), str):
            remember(Secret(account[name]))
    needed = _NEEDED.get(str(account.get("type")))
    if needed is None:
        raise _unusable(f"is of type {redact(str(account.get('type')))[:40]!r}, not one of {', '.join(_NEEDED)}")
    missing = [name for name in needed if not isinstance(account.get(name), str) or not account[name]]
    if missing:
        raise _unusable(f"has no {missing[0]}")
    _token_url(account)
    return account


def _token_url(account: Mapping[str, Any]) -> str:
    """Where a service account's file says tokens are had; an assertion never travels unencrypted."""
    url = account.get("token_uri") or _TOKEN_URL
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")):
        return str(url)
    raise _unusable("has a token_uri that is no https URL")


def _signing_key(account: Mapping[str, Any]) -> rs256.RsaKey:
    try:
        return rs256.read_key(account["private_key"])
    except ValueError as error:
        raise _unusable(f"has a private_key that {error}") from None


def _unusable(what: str) -> AuthError:
    return AuthError(
        f"the Google credentials cannot be used: the file {what}",
        hint="make a key of a service account, or run: gcloud auth application-default login",
        sent="no",
        billed=False,
    )


def _refused(reply: Reply) -> PolyvoxError:
    """Why no token was given: our fault, or the server's."""
    words = redact(snippet(reply.body))
    facts: dict[str, Any] = {"status": reply.status, "sent": "no", "billed": False}
    if reply.status == 429 or reply.status >= 500:
        return ServerError(f"no access token: {words}", **facts)
    return AuthError(
        f"no access token: {words}", hint="check that the account exists, and that its key was not revoked", **facts
    )
