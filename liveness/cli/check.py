"""`liveness check`: whether what the service needs is as it should be."""

import asyncio
import sys
from collections.abc import Iterator, Sequence

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from liveness.checks import check_all
from liveness.cli.options import as_json, print_json, servers, settings_for
from liveness.findings import Finding, Gain, Weight, matters
from liveness.logs import configure
from liveness.shown import printable

# What tells a person at a glance how much it matters.
STYLES = {Weight.BROKEN: "bold red", Weight.BAD: "bold yellow", Weight.BETTER: "bold"}

# Of less than this, hundredths are shown.
SMALL_MILLISECONDS = 10.0


class Report(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    findings: list[Finding]


@click.command("check")
@servers
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 3600),
    default=5.0,
    show_default=True,
    help="What one statement may take at most; Postgres breaks off what takes longer.",
)
@click.option(
    "--least",
    type=click.Choice([weight.value for weight in Weight]),
    default=Weight.BETTER.value,
    show_default=True,
    help="Exit 1 only for what matters so much at least; all of it is said in any case.",
)
@as_json
def command(*, seconds: float, least: str, json_output: bool, **overrides: str | None) -> None:
    """Look whether Postgres, NATS and the settings are as the service needs them.

    Says what is wrong in order of importance, each with what it does and what mends it: what cannot be reached, is too
    old, or cannot be written to; schema and tables; the stream of the events; durations that contradict each other;
    indexes that are missing, with what each would gain on this database; clocks.

    Changes nothing and keeps nobody from writing: the tables are only read, and an index is tried on a temporary copy
    of the rows that it would hold. Exits 1 when there is something to say that matters as much as --least.
    """
    settings = settings_for(**overrides)
    configure(settings.log_format, "warning")
    findings = asyncio.run(check_all(settings, seconds))
    if json_output:
        print_json(Report(findings))
    else:
        console = Console(emoji=False)
        for line in lines(findings):
            console.print(line, highlight=False, soft_wrap=True)
    sys.exit(1 if matters(findings, Weight(least)) else 0)


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield what is said to a person, in rich's markup."""
    if not findings:
        yield "nothing to say: everything that was looked at is as it should be"
    for finding in findings:
        style = STYLES[finding.weight]
        yield f"[{style}]{finding.weight.value}[/] {_shown(finding.about)}: {_shown(finding.says)}"
        if finding.why:
            yield f"  why: {_shown(finding.why)}"
        if finding.fix:
            yield f"  fix: {_shown(finding.fix)}"
        for gain in finding.gains:
            yield f"  {_shown(_gained(gain))}"
        if finding.measured:
            yield f"  measured: {_shown(finding.measured)}"
        # At the margin, so that it can be copied.
        yield from (_shown(statement) for statement in finding.statements)


def _shown(text: str) -> str:
    # Names and ids in it were chosen by others.
    return escape(printable(text))


def _gained(gain: Gain) -> str:
    then = "" if gain.then is None else f", {_milliseconds(gain.then)} with it"
    return f"{gain.use}: {'more than ' if gain.at_least else ''}{_milliseconds(gain.now)} now{then}"


def _milliseconds(seconds: float) -> str:
    shown = seconds * 1000
    return f"{shown:,.2f} ms" if shown < SMALL_MILLISECONDS else f"{shown:,.0f} ms"
