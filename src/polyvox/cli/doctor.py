"""What may be wrong with this installation: `polyvox doctor`. It looks and changes nothing; without --live it
sends nothing, and with it no key and no prompt."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import click

from polyvox.cli import output, start
from polyvox.errors import ConfigError, PolyvoxError

if TYPE_CHECKING:
    from polyvox.catalog import Provider
    from polyvox.config import Settings

_LIVE_SECONDS = 3.0
_LIBRARIES = ("aiohttp", "msgspec", "click", "pydantic", "docstring-parser", "sqlalchemy")
_EXTRAS = {
    "uvloop": "uvloop", "keyring": "keyring", "yaml": "yaml", "litellm": "litellm", "tokens": "tiktoken",
    "local": "xllamacpp", "postgres": "psycopg", "redis": "redis", "otel": "opentelemetry",
    "prometheus": "prometheus_client", "settings": "pydantic_settings",
}  # fmt: skip
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


State: TypeAlias = Literal["ok", "info", "warning", "problem"]


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    state: State
    detail: str


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--live", is_flag=True, help="See whether the providers with a key can be reached; costs nothing.")
@output.debug_option
def doctor_command(as_json: bool, live: bool) -> None:
    """Look for what may be wrong: versions, configuration, keys (by name only), extras, proxies, file modes.

    Exit code 78 when the configuration or the key file cannot be used.
    """
    findings = [*_versions(), *_extras(), *_proxies()]
    settings, problems = _configuration()
    findings += problems
    reachable: list[Provider] = []
    if settings is not None:
        keyed, found = _keys(settings)
        findings += found
        findings += _deployments(settings)
        reachable = keyed
    findings += _modes()
    if live and settings is not None:
        findings += _reach(reachable, settings)
    if as_json:
        output.data({"ok": not _broken(findings), "findings": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            output.line(f"{_MARKS[finding.state]} {finding.what + ':':<17} {finding.detail}")
    if _broken(findings):
        raise click.exceptions.Exit(output.CONFIG)


def _broken(findings: list[Finding]) -> bool:
    return any(finding.state == "problem" for finding in findings)


_MARKS = {"ok": "ok", "info": "--", "warning": "!!", "problem": "XX"}


# ---- what is looked at ------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    yield Finding("polyvox", "ok", f"{metadata.version('polyvox')}, in {Path(__file__).parents[1]}")
    yield Finding("python", "ok", f"{platform.python_version()} ({platform.platform(terse=True)})")
    for name in _LIBRARIES:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "warning", "is not installed")


def _extras() -> Iterator[Finding]:
    there = {extra: util.find_spec(module) is not None for extra, module in _EXTRAS.items()}
    for extra, found in there.items():
        yield Finding(f"extra {extra}", "ok" if found else "info", "installed" if found else "not installed")
    yield Finding("event loop", "ok", "uvloop" if there["uvloop"] else "asyncio")


def _proxies() -> Iterator[Finding]:
    names = [name for upper in _PROXIES for name in (upper, upper.lower()) if os.environ.get(name)]
    yield Finding("proxy variables", "info", ", ".join(names) if names else "none are set")


def _configuration() -> tuple[Settings | None, list[Finding]]:
    from polyvox import config

    files = ", ".join(str(path) for path in config.default_files()) or "no file, defaults and environment only"
    try:
        settings = start.settings()
        start.providers(settings)
    except ConfigError as error:
        said = error.problems or (error.message,)
        return None, [Finding("configuration", "problem", " ".join(problem.split())) for problem in said]
    return settings, [Finding("configuration", "ok", files), Finding("model", "info", settings.model or "none is set")]


def _keys(settings: Settings) -> tuple[list[Provider], list[Finding]]:
    """The providers that have a key, and what is to say of them."""
    from polyvox.keys import find_key

    keyed: list[Provider] = []
    findings: list[Finding] = []
    for row in start.providers(settings).providers.values():
        try:
            found = find_key(row, settings)
        except PolyvoxError as error:
            return keyed, [*findings, Finding("keys", "problem", error.message)]
        if found is not None:
            keyed.append(row)
            findings.append(Finding(f"key {row.name}", "ok", found.source))
    if not findings:
        findings.append(Finding("keys", "warning", "none; keep one with: polyvox keys set PROVIDER"))
    return keyed, findings


def _deployments(settings: Settings) -> list[Finding]:
    """The configured deployments: whether each leads somewhere and has its key."""
    from polyvox.cli.deployments import states

    findings: list[Finding] = []
    try:
        for entry, state, why, source in states(settings):
            of: State = "info" if state == "off" else "ok" if state == "ready" else "warning"
            said = why or (f"its key is {source}" if state == "no key" else f"key {source}")
            findings.append(Finding(f"deployment {entry.name}", of, f"{entry.model}, {said}"))
    except PolyvoxError as error:  # such as a file of keys that cannot be read
        findings.append(Finding("deployments", "problem", error.message))
    return findings


def _modes() -> Iterator[Finding]:
    """Files that others may read or write; what to do about it is in the detail."""
    from polyvox.config import default_files
    from polyvox.keys import KeyStore, config_dir

    if os.name != "posix":
        return
    for path, forbidden in ((config_dir(), 0o022), (KeyStore().path, 0o077), *((p, 0o022) for p in default_files())):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        wrong = mode & forbidden
        fix = f"; run: chmod {mode & ~forbidden:o} {path}" if wrong else ""
        yield Finding(f"mode {path.name}", "warning" if wrong else "ok", f"{mode:o}{fix}")


# ---- who answers ------------------------------------------------------------------------------


def _reach(rows: list[Provider], settings: Settings) -> list[Finding]:
    """Whether each provider's address answers at all: any HTTP status will do."""
    import asyncio

    from polyvox import portal
    from polyvox.places import located
    from polyvox.transports import Outgoing, Timeouts
    from polyvox.transports.http import HttpTransport

    limits = Timeouts(_LIVE_SECONDS, _LIVE_SECONDS, _LIVE_SECONDS)

    async def knock(transport: HttpTransport, row: Provider) -> Finding:
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_LIVE_SECONDS):
                exchange = await transport.send(Outgoing("GET", located(row).base_url, {}, b""), limits)
                await exchange.close()
        except TimeoutError:
            return Finding(f"reach {row.name}", "warning", f"no answer within {_LIVE_SECONDS:g} s")
        except PolyvoxError as error:
            return Finding(f"reach {row.name}", "warning", error.message)
        took = asyncio.get_running_loop().time() - begun
        return Finding(f"reach {row.name}", "ok", f"answers (HTTP {exchange.status}, {took * 1000:.0f} ms)")

    async def knock_everywhere() -> list[Finding]:
        transport = HttpTransport(proxy=settings.proxy, ca_bundle=settings.ca_bundle, allow_http=settings.allow_http)
        try:
            return await asyncio.gather(*(knock(transport, row) for row in rows if row.transport == "http"))
        finally:
            await transport.close()

    return portal.run(knock_everywhere())
