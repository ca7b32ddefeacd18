"""Who is there: `polyvox status`. Each provider is asked for its list of models, all at once, and nobody is asked
anything that costs money. How the deployments and what is kept stand is told with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from polyvox.cli import output, start
from polyvox.errors import CallTimeoutError, PolyvoxError

if TYPE_CHECKING:
    from polyvox.catalog import Provider
    from polyvox.client import AsyncClient
    from polyvox.config import Settings

_SECONDS = 5.0  # for each provider; they are asked at the same time

State = Literal["there", "failed", "absent", "not asked"]


class Finding(NamedTuple):
    """What came of one provider. milliseconds and models are None where it gave no list; exit_code is what it
    makes the command end with."""

    provider: str
    state: State
    detail: str
    milliseconds: int | None = None
    models: int | None = None
    exit_code: int = output.OK


@click.command(name="status")
@click.option("--provider", "names", multiple=True, metavar="NAME", help="Ask this provider only; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@output.debug_option
def status_command(names: tuple[str, ...], as_json: bool) -> None:
    """Ask every provider that has a key, or runs on this machine, for its list of models, and look at the deployments
    that are configured, and at what is kept: the ledger, the budgets, the cache, where they are switched on.

    A provider is there when its list comes within five seconds; that does not say what else its key may do.
    Exit code 0 when all that were asked are there, else that of the first failure. A server on this
    machine that nobody named or configured may be absent. What is told of the last hour of a deployment is
    from the ledger.
    """
    from polyvox import portal
    from polyvox.cli import deployments
    from polyvox.cli.standing import as_json as kept_as_json
    from polyvox.cli.standing import looking, show

    settings = start.settings()
    kept = looking(settings, wanted=not names)
    findings = portal.run(_look(_candidates(names, settings), names, settings))
    standings = kept()
    readable = "ledger" in standings and standings["ledger"].state in ("ok", "degraded")
    named = [] if names else deployments.deployments(settings, ledger=readable)
    if as_json:
        told = {"deployments": named} if named else {}
        output.data({"providers": [finding._asdict() for finding in findings], **told, **kept_as_json(standings)})
    else:
        cells = ((each.provider, each.state, each.milliseconds, each.models, each.detail) for each in findings)
        output.table(("PROVIDER", "STATE", "MS", "MODELS", "DETAIL"), cells)
        deployments.show(named)
        for row in named:
            if row["detail"] is not None and row["state"] != "off":
                output.warn(f"{row['name']}: {row['detail']}")
        show(standings)
        if named and "ledger" not in standings:
            output.note("what became of calls is told where they are written down: polyvox logs on")
        if not findings:
            output.note("no provider has a key; keep one with: polyvox keys set PROVIDER")
    ends = [*(finding.exit_code for finding in findings), *(each.exit_code for each in standings.values())]
    code = next(filter(None, ends), output.OK)
    if code:
        raise click.exceptions.Exit(code)


def _candidates(names: tuple[str, ...], settings: Settings) -> list[Provider]:
    """The providers to ask: those that are named, else those with a key and those on this machine."""
    from polyvox.keys import find_key

    rows = start.providers(settings)
    if names:
        return [rows.provider(name) for name in dict.fromkeys(names)]
    accounts = [row for row in rows.providers.values() if not row.key_of]
    return [row for row in accounts if row.local or find_key(row, settings) is not None]


async def _look(rows: list[Provider], names: tuple[str, ...], settings: Settings) -> list[Finding]:
    """What came of each, in order; all are asked at once."""
    import asyncio

    from polyvox.client import AsyncClient

    async with AsyncClient(settings=settings) as client:
        return await asyncio.gather(*(_ask(client, row, row.name in names) for row in rows))


async def _ask(client: AsyncClient, row: Provider, named: bool) -> Finding:
    import asyncio

    from polyvox.client.listing import no_list

    why = no_list(row)
    if why is not None:
        return Finding(row.name, "not asked", why)
    begun = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(_SECONDS):
            models = await client.models(row.name)
    except TimeoutError:
        error: PolyvoxError = CallTimeoutError(f"no answer within {_SECONDS:g} s")
    except PolyvoxError as problem:
        error = problem
    else:
        took = asyncio.get_running_loop().time() - begun
        return Finding(row.name, "there", "its list of models came", round(took * 1000), len(models))
    if row.local and row.url_source == "catalog" and not named and error.kind in ("connection", "timeout"):
        return Finding(row.name, "absent", f"nobody answers at {row.base_url}")
    return Finding(row.name, "failed", error.message, exit_code=output.exit_code(error))
