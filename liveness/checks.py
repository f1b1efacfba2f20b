"""What `liveness check` looks at: one function for each thing, which returns its findings.

A check changes nothing, takes bounded time, and keeps nobody waiting. A new one is a function in `CHECKS`, its place
there how much what it looks at matters: of findings of equal weight, those of the first one are said first. What keeps
the others from being made (Postgres is away) is a finding as well, so that the rest is looked at all the same.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from liveness.addresses import servers_of, shown
from liveness.bus import Bus
from liveness.errors import (
    CannotStartError,
    DatabaseAwayError,
    DatabaseRefusedError,
    LivenessError,
    NatsAwayError,
)
from liveness.eventstream import event_subjects
from liveness.findings import Finding, Weight, ordered, weighed
from liveness.limits import of_clocks, of_dates, of_holder, of_nats, of_postgres, of_settings
from liveness.settings import Settings
from liveness.store import (
    CONNECTIONS_MOST,
    LISTEN_CHECK_SECONDS,
    PATIENT_SECONDS,
    RETRY_MOST,
    Database,
    MissingIndex,
    check_encoding,
    check_schema,
    hidden_tables,
    holders,
    missing_indexes,
    privileges_of,
    read_limits,
    read_pause,
    refused_rows,
    rows_ahead,
    way_here,
)
from liveness.trust import http_on_trust, names_on_trust, postgres_on_trust
from liveness.work import quoted

# Refused rows that are named; of more, only how many they are.
REFUSED_SHOWN: Final = 20
# What does not start, as a person knows it.
SERVE: Final = "liveness serve"
# How long Postgres and NATS may take to let us in.
CONNECT_SECONDS: Final = 5.0


class Checked(msgspec.Struct, frozen=True):
    """What is checked: the surroundings that `settings` name. `seconds`: what one statement may take at most.

    Of `database` and `bus`, a check uses the one that `CHECKS` names. `clock`: this host's, in seconds since 1970.
    """

    settings: Settings
    database: Database
    bus: Bus
    seconds: float
    clock: Callable[[], float] = time.time


Look: TypeAlias = Callable[[Checked], Awaitable[list[Finding]]]


class Of(Enum):
    """What a check asks."""

    SETTINGS = "settings"
    POSTGRES = "postgres"
    NATS = "nats"


async def postgres(checked: Checked) -> list[Finding]:
    """The server is new enough, can be written to, and lets us take the time that we need."""
    limits = await read_limits(checked.database, checked.clock)
    return of_postgres(
        checked.settings, limits, patient=PATIENT_SECONDS, looks=LISTEN_CHECK_SECONDS, pool=CONNECTIONS_MOST
    )


async def schema(checked: Checked) -> list[Finding]:
    """The schema `liveness` is there, in a version that this one can work with."""
    await check_encoding(checked.database)
    await check_schema(checked.database)
    return []


async def privileges(checked: Checked) -> list[Finding]:
    """Our role may do what it has to, and nothing else."""
    return await privileges_of(checked.database, checked.settings)


async def nats(checked: Checked) -> list[Finding]:
    """The server is new enough and near enough, and carries what we have to say."""
    return of_nats(checked.settings, await checked.bus.read_limits(), _where(checked.settings))


async def stream(checked: Checked) -> list[Finding]:
    """The events' stream keeps them, and knows again those that come twice; one that is missing can be made."""
    settings = checked.settings
    return await checked.bus.look_at_stream(
        settings.events_stream, event_subjects(settings), settings.events_max_age, settings.events_max_bytes
    )


async def durations(checked: Checked) -> list[Finding]:
    """The settings do not contradict each other."""
    return of_settings(checked.settings)


async def held(checked: Checked) -> list[Finding]:
    """Nobody keeps rows of work locked for long."""
    found = await holders(checked.database, checked.settings)
    return [of_holder(holder.table, holder.pid, holder.state, holder.age) for holder in found]


async def clocks(checked: Checked) -> list[Finding]:
    """This host's clock and the database's agree, and whoever dates rows goes by the database's."""
    found = of_clocks(await read_limits(checked.database, checked.clock))
    for ahead in await rows_ahead(checked.database, checked.settings):
        found += of_dates(ahead.table, ahead.column, ahead.rows, ahead.seconds)
    return found


async def indexes(checked: Checked) -> list[Finding]:
    """Every index of the host's tables that our statements need is there."""
    missing = await missing_indexes(checked.database, checked.settings, checked.seconds)
    return [_index_finding(checked.settings.postgres_schema, index) for index in missing]


async def paused(checked: Checked) -> list[Finding]:
    """Nobody has paused, and forgotten it."""
    try:
        found, _ = await read_pause(checked.database)
    except DatabaseRefusedError:
        # There is no schema of ours yet.
        return []
    if found is None:
        return []
    return [
        Finding(
            check="paused",
            weight=Weight.BROKEN,
            about="liveness",
            says=str(found),
            why="the work of workers that die stays RUNNING, and nothing is taken, by no replica and no command",
            fix="run `liveness resume` when the reason is over",
        )
    ]


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
                fix="let the table take it: a constraint, a trigger or a right of ours keeps the row as it is",
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
            fix="let our role pass them by",
            statements=(f"ALTER ROLE {quoted(role)} BYPASSRLS;",),
        )
        for called, role in await hidden_tables(checked.database, checked.settings)
    ]


async def trust(checked: Checked) -> list[Finding]:
    """Whoever speaks for a worker had to log in."""
    return names_on_trust(lets_anybody_in=checked.bus.lets_anybody_in)


async def way(checked: Checked) -> list[Finding]:
    """Nobody on the way to Postgres can listen, or stand in for it."""
    client, encrypted = await way_here(checked.database)
    return postgres_on_trust(checked.settings.postgres_dsn, client, encrypted=encrypted)


async def http(checked: Checked) -> list[Finding]:
    """Whoever asks us over the network has to show something."""
    return http_on_trust(checked.settings.http_listen, is_open=checked.settings.http_is_open)


CHECKS: Final[tuple[tuple[Look, Of], ...]] = (
    (postgres, Of.POSTGRES),
    (schema, Of.POSTGRES),
    (privileges, Of.POSTGRES),
    (tables, Of.POSTGRES),
    (nats, Of.NATS),
    (stream, Of.NATS),
    (durations, Of.SETTINGS),
    (paused, Of.POSTGRES),
    (refused, Of.POSTGRES),
    (held, Of.POSTGRES),
    (indexes, Of.POSTGRES),
    (clocks, Of.POSTGRES),
    (trust, Of.NATS),
    (way, Of.POSTGRES),
    (http, Of.SETTINGS),
)


async def check_all(
    settings: Settings,
    seconds: float,
    *,
    clock: Callable[[], float] = time.time,
    checks: Sequence[tuple[Look, Of]] = CHECKS,
) -> list[Finding]:
    """Return what all checks found, the heaviest first; what keeps one from looking is a finding, too.

    `seconds`: what one statement may take at most. Raises SettingsError for settings that cannot be used.
    """
    database = Database.of(settings, settings.lock_timeout)
    bus = Bus(settings.nats_url, name="liveness-command", access=settings.nats_access)
    checked = Checked(settings, database, bus, seconds, clock)
    asked = {of for _, of in checks}
    try:
        found = [await reach(checked) for of, reach in _REACH.items() if of in asked]
        away = {of for of, reached in zip(filter(asked.__contains__, _REACH), found, strict=True) if reached}
        for look, of in checks:
            if of not in away:
                found.append(await _looked(look, checked))
    finally:
        await bus.close()
        await database.close()
    distinct: dict[tuple[str, str], Finding] = {}
    for finding in itertools.chain.from_iterable(found):
        # One table that is not there keeps several from looking.
        distinct.setdefault((finding.about, finding.says), finding)
    return ordered(distinct.values())


async def _looked(look: Look, checked: Checked) -> list[Finding]:
    name = getattr(look, "__name__", "check")
    try:
        return await look(checked)
    except CannotStartError as error:
        # Each of these lines ends with the way out.
        says, _, fix = str(error).rpartition(": ")
        return [Finding(check=name, weight=Weight.BROKEN, about=SERVE, says=says, why="it does not start", fix=fix)]
    except (LivenessError, ConnectionError) as error:
        return [
            Finding(
                check=name,
                weight=Weight.BAD,
                about=name,
                says=f"could not be looked at: {error}",
                why="whatever is wrong with it stays unseen",
                fix="ask again, or give --seconds",
            )
        ]


async def _reach_postgres(checked: Checked) -> list[Finding]:
    def give_up(cause: str) -> None:
        raise DatabaseAwayError(cause)

    why = "no epoch is granted and no work put back until it can be"
    fix = "check postgres_dsn, whether the server runs, and the way there"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await checked.database.connect(give_up)
    except (DatabaseAwayError, CannotStartError, TimeoutError) as error:
        return [_unreached("Postgres", error, why, fix)]
    return []


async def _reach_nats(checked: Checked) -> list[Finding]:
    def give_up(cause: str) -> None:
        raise NatsAwayError(cause)

    why = "no heartbeat is heard and no event told until it can be"
    fix = "check nats_url, how we log in (docs/nats.md), whether the server runs, and the way there"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await checked.bus.connect(give_up)
    except (NatsAwayError, CannotStartError, TimeoutError) as error:
        return [_unreached(f"NATS at {_where(checked.settings)}", error, why, fix)]
    return []


_REACH: Final = {Of.POSTGRES: _reach_postgres, Of.NATS: _reach_nats}


def _unreached(about: str, error: BaseException, why: str, fix: str) -> Finding:
    cause = str(error) or f"no answer within {CONNECT_SECONDS:g} s"
    says = f"cannot be reached: {cause}"
    return Finding(check="reach", weight=Weight.BROKEN, about=about, says=says, why=why, fix=fix)


def _where(settings: Settings) -> str:
    return shown(servers_of(settings.nats_url))


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
        fix="make it; nobody is kept from writing meanwhile",
        statements=index.statements,
        gains=index.gains,
        measured=index.measured,
    )


def _of(index: MissingIndex) -> str:
    return "" if index.need.where is None else f" of {index.need.where[1]} rows"
