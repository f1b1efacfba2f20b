"""What `liveness check` looks at: one function for each thing, which returns its findings.

A check changes nothing, takes bounded time, and keeps nobody waiting. A new one is a function in `CHECKS`, its place
there the order in which they are made.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from liveness.errors import DatabaseRefusedError
from liveness.findings import Finding, Weight, ordered, weighed
from liveness.settings import Settings
from liveness.store import RETRY_MOST, Database, MissingIndex, hidden_tables, missing_indexes, refused_rows
from liveness.trust import names_on_trust
from liveness.work import quoted

# Refused rows that are named; of more, only how many they are.
REFUSED_SHOWN: Final = 20
# How long NATS may take to greet us.
TRUST_SECONDS: Final = 2.0


class Checked(msgspec.Struct, frozen=True):
    """What is checked: the surroundings that `settings` name. `seconds`: what one statement may take at most."""

    settings: Settings
    database: Database
    seconds: float


Check: TypeAlias = Callable[[Checked], Awaitable[list[Finding]]]


async def indexes(checked: Checked) -> list[Finding]:
    """Every index of the host's tables that our statements need is there."""
    missing = await missing_indexes(checked.database, checked.settings, checked.seconds)
    return [_index_finding(checked.settings.postgres_schema, index) for index in missing]


async def refused(checked: Checked) -> list[Finding]:
    """No row is left over that its table refuses to put back."""
    try:
        found, total = await refused_rows(checked.database, REFUSED_SHOWN)
    except DatabaseRefusedError:
        # There is no schema of ours yet: nothing was ever put back.
        return []
    tables = {work.work: work for work in checked.settings.tables.works}
    findings = []
    for left, cause in found:
        work = tables.get(left.work)
        schema = "" if work is None else f"{work.schema or checked.settings.postgres_schema}.{work.table} "
        findings.append(
            Finding(
                check="refused",
                weight=Weight.BROKEN,
                about=f"{schema}{left.work} {left.id}",
                says=f"its table refuses to put it back: {cause}",
                why=(
                    f"{left.worker}, whose it was, is over (epoch {left.epoch}); it stays as it is and is tried again, "
                    f"{RETRY_MOST:g} s later at most; {total} in all are refused"
                ),
            )
        )
    return findings


async def tables(checked: Checked) -> list[Finding]:
    """The host's tables are as the settings say, or CannotStartError is raised, and show all their rows."""
    return [
        Finding(
            check="tables",
            weight=Weight.BAD,
            about=called,
            says="row security applies to our role",
            why="what its policies hide is neither found nor put back",
            statements=(f"ALTER ROLE {quoted(role)} BYPASSRLS;",),
        )
        for called, role in await hidden_tables(checked.database, checked.settings)
    ]


async def trust(checked: Checked) -> list[Finding]:
    """Whoever speaks for a worker had to log in; where NATS is away, others say so."""
    return await names_on_trust(checked.settings, min(checked.seconds, TRUST_SECONDS))


CHECKS: Final[tuple[Check, ...]] = (tables, indexes, refused, trust)


async def check_all(checked: Checked, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Return what all checks found, the heaviest first. Raises what keeps a check from looking at all."""
    return ordered([finding for check in checks for finding in await check(checked)])


def _index_finding(schema: str, index: MissingIndex) -> Finding:
    says = f"no index leads to {index.need.column}{_of(index)}"
    if index.detour:
        says = f"the index that leads to {index.need.column}{_of(index)} does so by a detour: other rows are read, too"
    if index.invalid:
        says += (
            f"; not valid, so of no use: {', '.join(index.invalid)} (it is being built just now, or that failed and it "
            "is to be dropped first: DROP INDEX CONCURRENTLY)"
        )
    return Finding(
        check="indexes",
        weight=weighed(index.gains),
        about=f"{index.need.schema or schema}.{index.need.table}",
        says=says,
        why=index.need.why,
        statements=index.statements,
        gains=index.gains,
        measured=index.measured,
    )


def _of(index: MissingIndex) -> str:
    return "" if index.need.where is None else f" of {index.need.where[1]} rows"
