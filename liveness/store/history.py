"""What Postgres knows of one piece of work, or of one worker: what was, and how the host's rows stand.

It is read as of one moment, in a transaction that can write nothing.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import msgspec

from liveness.answers import Moved
from liveness.facts import End, Instant, Leaked, LeftOut, Life, Move, Owner, Piece, Row, WhyAnswer, WorkerTold
from liveness.store.database import PATIENCE, Connection, Database
from liveness.store.statements import Statements
from liveness.subjects import name_fault

# Our own tables may have grown by millions of rows since Postgres counted them last: they are read row by row by their
# indexes, whatever the planner believes. Its costs mean nothing then, so nothing is compiled for them.
_BY_INDEX: Final = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;"
    " SET LOCAL jit = off"
)
# For how long it is counted what lives gave back, the last ones first. A life takes a millisecond; but of the history's
# index by time what came since the last VACUUM is looked through for each, 0.2 s for a million rows.
COUNT_SECONDS: Final = 0.5
_ONE_MOMENT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


class History:
    """Reads. Raises DatabaseAwayError, DatabaseRefusedError."""

    def __init__(self, database: Database, statements: Statements) -> None:
        self._database = database
        self._statements = statements
        self._up = list(statements.registry.up)

    async def of_work(self, work_id: str, limit: int) -> WhyAnswer:
        """Return what is known of the piece of work `work_id`, of whatever kind, with its last `limit` moves."""
        tables = {work.work: self._statements.table(work) for work in self._statements.works}
        if "\0" in work_id:
            # No text of Postgres' holds it.
            return WhyAnswer(known=False, looked_in=list(tables.values()))
        pieces = []
        async with self._reading() as (connection, now):
            forgotten = await self._forgotten(connection, now)
            found = await self._rows(connection, work_id)
            ids = sorted({work_id, *(row["id"] for row in found.values())})
            moves = await self._moves(connection, ids, limit)
            for work in [*found, *(kind for kind in moves if kind not in found)]:
                record = found.get(work)
                row = None if record is None or not record["there"] else _row(record, now)
                if row is None and work not in moves:
                    continue
                told = moves.get(work, [])
                pieces.append(
                    Piece(
                        work=work,
                        id=work_id if record is None else record["id"],
                        table=tables.get(work, ""),
                        row=row,
                        moves=[_move(one, now) for one in reversed(told[:limit])],
                        more=len(told) > limit,
                        owner=await self._owner(connection, row.owner, now)
                        if row is not None and row.running and row.owner
                        else None,
                        elsewhere=record is not None and record["elsewhere"],
                        forgotten=forgotten,
                    )
                )
        return WhyAnswer(known=bool(pieces), looked_in=list(tables.values()), pieces=pieces, forgotten=forgotten)

    async def of_worker(self, worker: str, limit: int) -> WhyAnswer:
        """Return what is known of the name `worker`, with its last `limit` lives."""
        tables = [self._statements.table(work) for work in self._statements.works]
        if "\0" in worker:
            return WhyAnswer(known=False, looked_in=tables)
        async with self._reading() as (connection, now):
            owner = await self._owner(connection, worker, now)
            holds: dict[str, int] = {}
            for work in self._statements.works:
                statement = self._statements.on(work, "running_counts")
                given = self._statements.given("running_counts", work)
                for row in await connection.fetch(statement, [worker], work.running, *given, timeout=PATIENCE):
                    holds[work.work] = holds.get(work.work, 0) + row["items"]
            records = await connection.fetch(self._statements["why_lives"], worker, limit + 1, timeout=PATIENCE)
            lives = [_life(record, now) for record in reversed(records[:limit])]
            gave_back = await self._gave_back(connection, lives)
        return WhyAnswer(
            known=bool(records or owner.registered or holds),
            looked_in=tables,
            worker=WorkerTold(
                owner=owner,
                lives=[msgspec.structs.replace(life, gave_back=gave_back.get(life.epoch)) for life in lives],
                more=len(records) > limit,
                holds=holds,
            ),
            forgotten=owner.forgotten,
        )

    async def recent(self, limit: int) -> tuple[list[Life], list[Moved]]:
        """Return the last lives that ended, and the last pieces of work that were taken back, the last ones first."""
        async with self._reading() as (connection, now):
            ends = await connection.fetch(self._statements["recent_ends"], limit, timeout=PATIENCE)
            moves = await connection.fetch(self._statements["recent_moves"], limit, timeout=PATIENCE)
        return [_life(record, now) for record in ends], [
            Moved(
                work=record["work"],
                id=record["id"],
                worker=record["worker"],
                epoch=record["epoch"],
                reason=record["reason"],
                at=_known(record["reclaimed_at"], now).at,
                ago=_known(record["reclaimed_at"], now).ago,
                observed=record["observed"],
                outcome=record["outcome"],
            )
            for record in moves
        ]

    async def acting(self) -> str | None:
        """Return which replica acts, of any shard; None: none was seen lately."""
        rows = await self._database.fetch(self._statements["why_acting"])
        holder: str | None = rows[0]["holder"]
        return None if holder is None else holder.removesuffix(" (shard none)")

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[tuple[Connection, datetime]]:
        async with self._database.transaction(patient=True) as connection:
            await connection.execute(f"{_ONE_MOMENT}; {_BY_INDEX}")
            yield connection, await connection.fetchval("SELECT now()")

    async def _rows(self, connection: Connection, work_id: str) -> Mapping[str, asyncpg.Record]:
        """Return, by kind of work, what its table says of the id; those whose ids are of another type are left out."""
        found = {}
        for work in self._statements.works:
            await connection.execute("SAVEPOINT looked")
            try:
                record = await connection.fetchrow(
                    self._statements.on(work, "why_row"), work_id, work.work, work.running, work.waiting,
                    *self._statements.given("why_row", work), timeout=PATIENCE,
                )  # fmt: skip
            except asyncpg.DataError:
                # Not of the column's type, so it is not there.
                await connection.execute("ROLLBACK TO SAVEPOINT looked")
                continue
            if record is not None:
                found[work.work] = record
        return found

    async def _moves(self, connection: Connection, ids: Sequence[str], limit: int) -> Mapping[str, list[Any]]:
        """Return by kind of work the last moves, the last one first; one more than `limit` if there are more."""
        moves: dict[str, list[Any]] = {}
        for record in await connection.fetch(self._statements["why_moves"], ids, limit + 1, timeout=PATIENCE):
            moves.setdefault(record["work"], []).append(record)
        return moves

    async def _owner(self, connection: Connection, worker: str, now: datetime) -> Owner:
        registered = await connection.fetchrow(self._statements["why_owner"], worker, self._up, timeout=PATIENCE)
        others = await connection.fetch(self._statements["ambiguous_names"], [worker], self._up, timeout=PATIENCE)
        lives = await connection.fetch(self._statements["why_lives"], worker, 1, timeout=PATIENCE)
        assert registered is not None  # noqa: S101 - an aggregate has a row
        return Owner(
            worker=worker,
            fault=name_fault(worker),
            differs_in_case_from=others[0]["other"] if others else None,
            registered=registered["registered"],
            up=registered["up"],
            registry_heartbeat=_instant(registered["beat_at"], now),
            life=_life(lives[0], now) if lives else None,
            forgotten=await self._forgotten(connection, now),
        )

    async def _forgotten(self, connection: Connection, now: datetime) -> Instant | None:
        return _instant(await connection.fetchval(self._statements["why_forgotten"], timeout=PATIENCE), now)

    async def _gave_back(self, connection: Connection, lives: Sequence[Life]) -> Mapping[int, Mapping[str, int]]:
        """Return by epoch, and kind of work, how much went back at its end; of those that there was time for."""
        back: dict[int, Mapping[str, int]] = {}
        until = time.monotonic() + COUNT_SECONDS
        for life in reversed(lives):
            if time.monotonic() > until:
                break
            rows = await connection.fetch(self._statements["why_gave_back"], life.worker, life.epoch, timeout=PATIENCE)
            back[life.epoch] = {row["work"]: row["items"] for row in rows}
        return back


def _row(record: asyncpg.Record, now: datetime) -> Row:
    return Row(
        status=record["status"] or "",
        running=record["running"],
        waiting=record["waiting"],
        owner=record["owner"],
        touched=_instant(record["touched_at"], now),
        kind=record["kind"],
        queue=record["queue"],
        fixed=record["fixed"],
        refused=record["refused"],
        left_out=None
        if record["leak_evidence"] is None
        else LeftOut(found=_known(record["leak_found_at"], now), epoch=record["leak_epoch"], leaked=_leaked(record)),
    )


def _move(record: asyncpg.Record, now: datetime) -> Move:
    return Move(
        worker=record["worker"],
        epoch=record["epoch"],
        reclaim_count=record["reclaim_count"],
        observed=record["observed"],
        reclaimed=_known(record["reclaimed_at"], now),
        life=None if record["life"] is None else _life(record, now),
        outcome=record["outcome"],
        crash=record["crash"],
        leaked=None if record["leak_evidence"] is None else _leaked(record),
    )


def _leaked(record: asyncpg.Record) -> Leaked:
    return Leaked(
        incarnation=record["leak_incarnation"],
        decided_by=record["leak_decided_by"],
        transaction_id=record["leak_transaction_id"],
        evidence=_evidence(record["leak_evidence"]),
    )


def _life(record: asyncpg.Record, now: datetime) -> Life:
    return Life(
        worker=record["worker"],
        epoch=record["epoch"],
        incarnation=record["incarnation"],
        ttl=record["ttl"],
        granted=_known(record["granted_at"], now),
        end=None if record["ended"] is None else _end(record, now),
    )


def _end(record: asyncpg.Record, now: datetime) -> End:
    return End(
        reason=record["reason"],
        incarnation=record["ended_incarnation"],
        ttl=record["ended_ttl"],
        last_heartbeat=_instant(record["last_heartbeat_at"], now),
        lapsed=_instant(record["lapsed_at"], now),
        expired=_known(record["expired_at"], now),
        untouched_for=record["untouched_for"],
        observed=record["ended_observed"],
        decided_by=record["decided_by"],
        transaction_id=record["transaction_id"],
        evidence=_evidence(record["evidence"]),
        finished=_instant(record["finished_at"], now),
        recovered=_instant(record["recovered_at"], now),
        crash=record["ended_crash"],
        killers={} if record["killers"] is None else msgspec.json.decode(record["killers"], type=dict[str, str]),
    )


def _evidence(text: str) -> Mapping[str, Any]:
    evidence = msgspec.json.decode(text)
    return evidence if isinstance(evidence, dict) else {"why": str(evidence)}


def _instant(moment: datetime | None, now: datetime) -> Instant | None:
    return None if moment is None else _known(moment, now)


def _known(moment: datetime, now: datetime) -> Instant:
    if moment.tzinfo is None:
        # Not a moment but an infinity, which has none.
        moment = moment.replace(tzinfo=UTC)
    shown = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return Instant(shown, (now - moment).total_seconds())
