"""What of Postgres, of NATS and of the settings does not go together: versions, durations, sizes and clocks. Pure."""

from typing import Final

import msgspec

from liveness.figures import seconds
from liveness.findings import Finding, Weight
from liveness.settings import Settings
from liveness.work import quoted

# Below the first, the schema cannot be made (`pg_current_xact_id`); below the second, its makers mend nothing any more,
# and none of our tests ever ran.
POSTGRES_LEAST, POSTGRES_TESTED = 13, 15
# The oldest that the tests run with.
NATS_TESTED: Final = (2, 12)
# Events, and beats that list what runs, are below this; so is a page of `liveness status` with long names.
LEAST_PAYLOAD_BYTES: Final = 65_536
# To begin a transaction takes a millisecond, and a busy server or network some more.
LEAST_STATEMENT_SECONDS: Final = 0.25
# What may wait for a lock behind a trigger of the host's, whatever `lock_timeout` says.
TRIGGER_LOCK_SECONDS: Final = 0.2
# A renewal of the lead is three round trips, and has to come several times before it is too late.
RENEWAL_ROUND_TRIPS: Final = 10
# Clocks that are kept by NTP are some milliseconds apart.
SKEW_SECONDS: Final = 1.0


class PostgresLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a session of our role begins with. Durations in seconds, 0: no limit. `version`: the major one.

    `unwritable` says why nothing can be written, or is empty. `connections`: how many our role may have, None for any
    number. `skew` is how far its clock is ahead of this host's, give or take `skew_error`.
    """

    version: int
    role: str
    unwritable: str = ""
    statement_timeout: float = 0.0
    transaction_timeout: float = 0.0
    idle_session_timeout: float = 0.0
    deadlock_timeout: float = 1.0
    connections: int | None = None
    round_trip: float = 0.0
    skew: float = 0.0
    skew_error: float = 0.0


class NatsLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a NATS server says of itself, and how long a round trip takes (seconds)."""

    version: tuple[int, int]
    max_payload: int
    round_trip: float


def of_settings(settings: Settings) -> list[Finding]:
    """Return which of the settings' durations contradict each other."""
    findings = []
    for warning in settings.warnings():
        says, _, why = warning.partition(": ")
        findings.append(
            Finding(
                check="durations", weight=Weight.BAD, about="settings", says=says, why=why, fix="change one of both"
            )
        )
    return findings


def of_postgres(
    settings: Settings, limits: PostgresLimits, *, patient: float, looks: float, pool: int
) -> list[Finding]:
    """Return what of the server is too old, too slow, too short or too few for us.

    `patient`: what a statement of ours may take; `looks`: how often a connection that listens is looked after; `pool`:
    the connections that a replica has at most.
    """
    found = []
    if limits.unwritable:
        found.append(
            _of_postgres(
                Weight.BROKEN,
                f"nothing can be written: {limits.unwritable}",
                "no epoch is granted and no work put back",
                "let postgres_dsn lead to the primary, with target_session_attrs=read-write where several are named",
            )
        )
    if limits.version < POSTGRES_TESTED:
        found.append(
            _of_postgres(
                Weight.BROKEN if limits.version < POSTGRES_LEAST else Weight.BAD,
                f"it is version {limits.version}; the oldest that liveness is tested with is {POSTGRES_TESTED}",
                "nobody knows what works there"
                if limits.version >= POSTGRES_LEAST
                else "the schema liveness cannot be made there",
                "upgrade Postgres",
            )
        )
    found += _of_time_limits(settings, limits, patient, looks)
    if limits.connections is not None and limits.connections < 2 * pool:
        found.append(
            _of_postgres(
                Weight.BAD,
                f"our role may have {limits.connections} connections, and two replicas have up to {2 * pool}",
                "when much is to be put back at once, duties and whole replicas are refused a connection",
                f"allow {pool} for each replica, by the role's CONNECTION LIMIT or the database's",
            )
        )
    if limits.round_trip * RENEWAL_ROUND_TRIPS > settings.leader_timeout:
        found.append(
            _of_postgres(
                Weight.BAD,
                f"a round trip takes {_short(limits.round_trip)}, and a leader is succeeded that was not seen for "
                f"leader_timeout ({settings.leader_timeout:g} s)",
                "replicas may take the lead from each other for nothing",
                f"run the service nearer to Postgres, or set leader_timeout to {RENEWAL_ROUND_TRIPS} round trips",
            )
        )
    return found


def _of_time_limits(settings: Settings, limits: PostgresLimits, patient: float, looks: float) -> list[Finding]:
    """Return which of the server's time limits are against ours. Those that a transaction of ours sets are not."""
    found = []
    if 0 < limits.transaction_timeout < patient:
        found.append(
            _of_postgres(
                Weight.BAD,
                f"transaction_timeout ({limits.transaction_timeout:g} s) ends transactions that may take longer",
                f"a reclaim of much work, or a sweep of a large table (each statement may take {patient:g} s), is "
                "broken off each time, and begun again for ever",
                "let our role have none: each statement of ours has a limit of its own",
                _without(limits, "transaction_timeout"),
            )
        )
    if 0 < limits.statement_timeout < LEAST_STATEMENT_SECONDS:
        found.append(
            _of_postgres(
                Weight.BAD,
                f"statement_timeout ({limits.statement_timeout:g} s) counts until a transaction has set its own",
                "on a busy server transactions are broken off before they have begun",
                "let our role have none: each transaction of ours sets one",
                _without(limits, "statement_timeout"),
            )
        )
    if 0 < limits.idle_session_timeout <= looks:
        found.append(
            _of_postgres(
                Weight.BETTER,
                f"idle_session_timeout ({limits.idle_session_timeout:g} s) ends connections of ours that wait",
                f"events are found by polling, and connections made again and again; ours wait for {looks:g} s",
                "let our role have none",
                _without(limits, "idle_session_timeout"),
            )
        )
    waits = max(settings.lock_timeout, TRIGGER_LOCK_SECONDS)
    if waits > limits.deadlock_timeout:
        found.append(
            _of_postgres(
                Weight.BAD,
                f"we wait for a lock for up to {waits:g} s (lock_timeout), and after deadlock_timeout "
                f"({limits.deadlock_timeout:g} s) Postgres looks for deadlocks",
                "it may end the workflow server's transaction instead of ours, which would have given way",
                f"set lock_timeout to {limits.deadlock_timeout:g} at most"
                if limits.deadlock_timeout >= TRIGGER_LOCK_SECONDS
                else "raise deadlock_timeout to its default, 1 s",
            )
        )
    return found


def _of_postgres(weight: Weight, says: str, why: str, fix: str, *statements: str) -> Finding:
    return Finding(
        check="postgres", weight=weight, about="Postgres", says=says, why=why, fix=fix, statements=statements
    )


def _without(limits: PostgresLimits, name: str) -> str:
    return f"ALTER ROLE {quoted(limits.role)} SET {name} = 0;"


def of_nats(settings: Settings, limits: NatsLimits, where: str) -> list[Finding]:
    """Return what of the NATS server (at `where`) is too old, too slow or too small for us."""

    def finding(weight: Weight, says: str, why: str, fix: str) -> Finding:
        return Finding(check="nats", weight=weight, about=f"NATS at {where}", says=says, why=why, fix=fix)

    found = []
    if limits.round_trip > settings.max_gap / 2:
        found.append(
            finding(
                Weight.BAD,
                f"a round trip takes {_short(limits.round_trip)}, and an echo that takes longer than max_gap "
                f"({settings.max_gap:g} s) is a gap in hearing",
                "silence in a gap counts against nobody: dead work comes back late",
                "run the service nearer to NATS, or raise max_gap",
            )
        )
    if limits.max_payload < LEAST_PAYLOAD_BYTES:
        found.append(
            finding(
                Weight.BAD,
                f"max_payload is {limits.max_payload} bytes",
                "events, beats that list what runs and answers to commands may be longer, and are not carried then",
                f"set max_payload to {LEAST_PAYLOAD_BYTES} at least; its default is 1 MiB",
            )
        )
    if limits.version < NATS_TESTED:
        found.append(
            finding(
                Weight.BETTER,
                f"it is version {_dotted(limits.version)}; the oldest that liveness is tested with is "
                f"{_dotted(NATS_TESTED)}",
                "nobody knows what works there",
                "upgrade nats-server",
            )
        )
    return found


def of_clocks(limits: PostgresLimits) -> list[Finding]:
    """Return whether this host's clock and the database's are apart."""
    if abs(limits.skew) - limits.skew_error <= SKEW_SECONDS:
        return []
    way = "ahead of" if limits.skew > 0 else "behind"
    return [
        Finding(
            check="clocks",
            weight=Weight.BETTER,
            about="clocks",
            says=f"the database's clock is {seconds(abs(limits.skew))} {way} this host's",
            why=(
                "nothing is taken for that, because ages go by the database's clock alone; but the log and `liveness "
                "why` do not fit together, and certificates may count as expired"
            ),
            fix="keep both by NTP",
        )
    ]


def of_dates(table: str, column: str, rows: int, ahead: float) -> list[Finding]:
    """Return whether `rows` of a table are dated up to `ahead` seconds in the future, by the database's clock."""
    if not rows:
        return []
    return [
        Finding(
            check="clocks",
            weight=Weight.BAD,
            about=table,
            says=f"{column} lies up to {seconds(ahead)} in the future; rows: {rows}",
            why="who writes it goes by a clock of its own, and dead work looks so much younger to the sweep than it is",
            fix=f"write it by the database's clock: {column} = now()",
        )
    ]


def of_holder(table: str, pid: int, state: str, age: float) -> Finding:
    """Return that a session has held rows of a table of work for `age` seconds."""
    return Finding(
        check="held",
        weight=Weight.BAD,
        about=table,
        says=f"session {pid} ({state}) has had rows of it locked for up to {seconds(age)}",
        why="what is locked is put back by a later pass, so that it waits for as long as this goes on",
        fix="end it unless it is at work, and give the workflow server's role an idle_in_transaction_session_timeout",
        statements=(f"SELECT pg_terminate_backend({pid});",),
    )


def _short(span: float) -> str:
    return f"{span * 1000:.0f} ms"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
