"""`liveness check`: whether what the service needs is as it should be."""

import asyncio
import sys
from collections.abc import Iterator, Sequence

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from liveness.checks import Checked, check_all
from liveness.cli.alone import connected
from liveness.cli.options import as_json, print_json, settings_for
from liveness.findings import Finding, Gain, Weight
from liveness.logs import configure
from liveness.settings import Settings

# What tells a person at a glance how much it matters.
STYLES = {Weight.BROKEN: "bold red", Weight.BAD: "bold yellow", Weight.BETTER: "bold"}

# Of less than this, hundredths are shown.
SMALL_MILLISECONDS = 10.0


class Report(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    findings: list[Finding]


async def run(settings: Settings, seconds: float) -> list[Finding]:
    """Make all checks. Raises DatabaseAwayError when Postgres does not answer soon."""
    async with connected(settings) as database:
        return await check_all(Checked(settings, database, seconds))


@click.command("check")
@click.option("--postgres-dsn", help="The workflow server's database (LIVENESS_POSTGRES_DSN).")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 3600),
    default=5.0,
    show_default=True,
    help="What one statement may take at most; Postgres breaks off what takes longer.",
)
@as_json
def command(*, postgres_dsn: str | None, seconds: float, json_output: bool) -> None:
    """Look whether the database is as the service needs it.

    Proposes the indexes of the workflow server's tables that are missing, with what each would gain on this database.
    Changes nothing and keeps nobody from writing: the tables are only read, and an index is tried on a temporary copy
    of the rows that it would hold. Exits 1 when there is something to say.
    """
    settings = settings_for(postgres_dsn=postgres_dsn)
    configure(settings.log_format, "warning")
    findings = asyncio.run(run(settings, seconds))
    if json_output:
        print_json(Report(findings))
    else:
        console = Console(emoji=False)
        for line in lines(findings):
            console.print(line, highlight=False, soft_wrap=True)
    sys.exit(1 if findings else 0)


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield what is said to a person, in rich's markup."""
    if not findings:
        yield "nothing to say: everything that was looked at is as it should be"
    for finding in findings:
        style = STYLES[finding.weight]
        yield f"[{style}]{finding.weight.value}[/] {escape(finding.about)}: {escape(finding.says)}"
        if finding.why:
            yield f"  why: {escape(finding.why)}"
        for gain in finding.gains:
            yield f"  {escape(_gained(gain))}"
        if finding.measured:
            yield f"  measured: {escape(finding.measured)}"
        # At the margin, so that it can be copied.
        yield from (escape(statement) for statement in finding.statements)


def _gained(gain: Gain) -> str:
    then = "" if gain.then is None else f", {_milliseconds(gain.then)} with it"
    return f"{gain.use}: {'more than ' if gain.at_least else ''}{_milliseconds(gain.now)} now{then}"


def _milliseconds(seconds: float) -> str:
    shown = seconds * 1000
    return f"{shown:,.2f} ms" if shown < SMALL_MILLISECONDS else f"{shown:,.0f} ms"
