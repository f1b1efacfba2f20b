"""The reclaim: the transaction that ends epochs and puts their work back.

Order of locks, always: our epoch rows, then the host's work rows (by id, one table a statement, never waiting), the
host's registry rows last (never waiting). A host that locks in any order finds us waiting for nothing of its own, so
there is no cycle that it could lose.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import msgspec

from liveness.errors import ContestedError, DatabaseRefusedError
from liveness.store.began import aged
from liveness.store.budgets import Budgets
from liveness.store.database import PATIENCE, Connection, Database, contested, milliseconds
from liveness.store.epochs import as_json
from liveness.store.leader import Leader
from liveness.store.rows import Left, Rows, Walk, reasons_in, savepoint
from liveness.store.statements import Statements
from liveness.subjects import Subjects
from liveness.tallies import Tallies, mode_of
from liveness.traced import note_verdicts, reclaim_span
from liveness.verdicts import Case, Outcome, Verdict
from liveness.work import WorkTable

# Reclaims of which one transaction takes hold to finish them. Far more than are ever unfinished at once, unless the
# host keeps rows locked.
UNFINISHED_AT_ONCE = 1_000
# Refused rows that are read at once, of whatever share.
REFUSED_READ = 1_000


class Progress(msgspec.Struct):
    """How far a pass over unfinished reclaims has come: per kind of work, behind which row to go on."""

    behind: dict[tuple[str, bool], tuple[str, int, str]] = {}
    items: int = 0
    # Rows that the last chunk looked at; 0 ends the pass.
    looked_at: int = 0
    # Reclaims that the last chunk found unfinished.
    unfinished: int = 0
    # Of the reclaims that were found unfinished (W3C).
    traceparents: set[str] = set()
    # What the last chunk put back, by work, reason and mode.
    reasons: Counter[tuple[str, str, str]] = msgspec.field(default_factory=Counter)


class Reclaims:
    """Ends epochs. `chunk`: rows of one work table that one transaction puts back at most.

    Cases were measured by the loop's monotonic time.
    """

    def __init__(
        self,
        database: Database,
        leader: Leader,
        statements: Statements,
        *,
        decided_by: str,
        observed: bool,
        chunk: int,
        budgets: Budgets,
        subjects: Subjects,
    ) -> None:
        self.tallies = Tallies()
        self._database = database
        self._leader = leader
        self._clock: Callable[[], float] = time.monotonic
        self._statements = statements
        self._decided_by = decided_by
        self._observed = observed
        self._chunk = chunk
        self._budgets = budgets
        self._subjects = subjects
        self._up = list(statements.registry.up)
        self._rows = Rows(statements, chunk, budgets.policy, lambda: self._clock())  # noqa: PLW0108 - tests let another one run

    @property
    def kinds(self) -> set[str]:
        """The kinds of work that there are."""
        return {work.work for work in self._statements.works}

    async def settle(self, cases: Sequence[Case]) -> list[Verdict]:
        """Offer `cases` to Postgres, in one transaction, and return a verdict for each.

        An epoch that ends has its rows fixed here, and as many of them put back as a chunk holds; `finish` does the
        rest. Raises DatabaseAwayError (nothing was decided, or it was and we cannot know: offer them again),
        NotLeaderError (nothing was decided) and DatabaseRefusedError. A life alone is refused only if its end is: where
        a table refuses one of its rows, none is put back here, and whoever finishes it finds out which.
        """
        lives = ((case.worker, case.reason) for case in cases)
        with reclaim_span(lives, mode=mode_of(observed=self._observed)) as told:
            try:
                verdicts = await self._settle(cases, self._chunk)
            except ContestedError:
                raise
            except DatabaseRefusedError:
                if len(cases) != 1:
                    raise
                told.note({"liveness.retries": 1})
                verdicts = await self._settle(cases, 0)
            return note_verdicts(told, cases, verdicts)

    async def _settle(self, cases: Sequence[Case], chunk: int) -> list[Verdict]:
        asked_at, asked, judged = self._clock(), cases, dict[str, tuple[int, int]]()
        async with self._leader.dated_transaction(patient=True) as (connection, began):
            await self._lock_tables(connection)
            cases = [aged(case, began) for case in cases]
            with contested():
                opened = await self._open_unheard(connection, cases)
                offered = [case for case in (_numbered(case, opened) for case in cases) if case.epoch is not None]
                rows = await connection.fetch(
                    self._statements["end_epochs"],
                    as_json(offered),
                    self._decided_by,
                    self._observed,
                    self._up,
                    timeout=PATIENCE,
                )
                await self._close_unheard(connection, opened, {row["worker"] for row in rows if row["ended"]})
                ended = [{"worker": row["worker"], "epoch": row["epoch"]} for row in rows if row["ended"]]
                crashed = any(case.crash for case in offered)
                items = await self._put_back_judged(connection, ended, chunk, judged, crashed=crashed) if ended else {}
        found = {row["worker"]: row for row in rows}
        verdicts = []
        for case in cases:
            row = found.get(case.worker)
            if row is None:
                verdicts.append(Verdict(worker=case.worker, epoch=case.epoch, outcome=Outcome.OVER))
            elif row["ended"]:
                verdicts.append(
                    Verdict(
                        worker=case.worker,
                        epoch=row["epoch"],
                        outcome=Outcome.ENDED,
                        items=items.get((case.worker, row["epoch"]), {}),
                    )
                )
            else:
                outcome = Outcome.HELD if row["held"] else Outcome.OVER if row["heard_ago"] is None else Outcome.SPARED
                verdicts.append(
                    Verdict(worker=case.worker, epoch=case.epoch, outcome=outcome, heard_ago=row["heard_ago"])
                )
        self.tallies.settled(asked, verdicts, self._clock(), asked_at=asked_at, mode=mode_of(observed=self._observed))
        self.tallies.judged(judged)
        return verdicts

    async def count(self, worker: str, epoch: int) -> int:
        """Return how many pieces of work of that life were put back so far."""
        rows = await self._database.fetch(self._statements["count_reclaimed"], worker, epoch)
        return int(rows[0]["items"])

    async def unfinished(self) -> list[str]:
        """Return names with reclaims that are not finished."""
        rows = await self._database.fetch(self._statements["unfinished_names"], UNFINISHED_AT_ONCE, self._observed)
        return [row["worker"] for row in rows if self._subjects.owns(row["worker"])]

    async def owing(self, names: Sequence[str]) -> set[str]:
        """Return those of `names` that have work which a reclaim fixed and has not put back yet.

        As the leader: what depends on it is told to workers. Raises NotLeaderError, DatabaseAwayError.
        """
        rows = await self._leader.fetch(self._statements["unreturned_names"], list(names))
        return {row["worker"] for row in rows}

    async def finish(self, progress: Progress, names: Sequence[str]) -> None:
        """Put back the next chunk of what unfinished reclaims of `names` have left, and advance `progress`.

        Raises NotLeaderError, DatabaseAwayError, DatabaseRefusedError.
        """
        async with self._leader.transaction(patient=True) as connection:
            await self._lock_tables(connection)
            rows = await connection.fetch(
                self._statements["lock_unfinished"], UNFINISHED_AT_ONCE, list(names), self._observed
            )
            progress.looked_at = 0
            progress.reasons.clear()
            progress.unfinished = len(rows)
            progress.traceparents.update(row["traceparent"] for row in rows if row["traceparent"] is not None)
            for observed in (False, True):
                held = [{"worker": row["worker"], "epoch": row["epoch"]} for row in rows if row["observed"] == observed]
                if held:
                    with contested():
                        await self._put_back_next(connection, held, progress, observed=observed)
                        await self._mark_offline(connection, held, observed=observed)
        self.tallies.items.update(progress.reasons)

    async def finish_apart(self, walk: Walk, worker: str) -> None:
        """Put back what unfinished reclaims of `worker` have left and its tables take, row by row where it has to be.

        What they refuse is left, with the cause; `walk` is advanced, and there is nothing more once all of its kinds of
        work are done. Raises NotLeaderError, DatabaseAwayError, DatabaseRefusedError.
        """
        async with self._leader.transaction(patient=True) as connection:
            await self._lock_tables(connection)
            rows = await connection.fetch(
                self._statements["lock_unfinished"], UNFINISHED_AT_ONCE, [worker], self._observed
            )
            held: list[dict[str, object]] = [
                {"worker": row["worker"], "epoch": row["epoch"]} for row in rows if not row["observed"]
            ]
            if not held:
                walk.done.update(work.work for work in self._statements.works)
                return
            with contested():
                walk.reasons.clear()
                await self._rows.put_back(connection, worker, held, walk)
                walk.unmarked = await self._mark_if_taken(connection, held)
        self.tallies.went_back(walk.reasons)
        self.tallies.refused.update(left.work for left, _ in walk.refused)

    async def retry(self) -> int:
        """Try rows again that their tables refused; return how many are not left any more. Raises as `finish` does."""
        due = [
            Left(row["work"], row["worker"], row["epoch"], row["id"])
            for row in await self._database.fetch(self._statements["refused_due"], REFUSED_READ, list(self.kinds))
            if self._subjects.owns(row["worker"])
        ]
        if not due:
            return 0
        async with self._leader.transaction(patient=True) as connection:
            await self._lock_tables(connection)
            reasons: Counter[tuple[str, str]] = Counter()
            gone = await self._rows.retry(connection, due, reasons)
            await self._wake_relay(connection)
        self.tallies.went_back(reasons)
        return gone

    async def _lock_tables(self, connection: Connection) -> None:
        # All at once and hardly waiting: a host that locks whole tables one after another, to migrate them, must not
        # find us holding one and waiting for the next.
        if not self._observed:
            await connection.execute(self._statements.lock_tables)

    async def _open_unheard(self, connection: Connection, cases: Sequence[Case]) -> dict[str, int]:
        unheard = [case for case in cases if case.epoch is None]
        if not unheard:
            return {}
        hashed = [
            {
                "worker": case.worker,
                "ttl": case.ttl,
                "must_be_up": case.must_be_up,
                "spare_within": case.spare_within,
                "hash": self._subjects.kept_hash_of(case.worker),
            }
            for case in unheard
        ]
        rows = await connection.fetch(self._statements["open_unheard"], as_json(hashed), self._up, timeout=PATIENCE)
        return {row["worker"]: row["epoch"] for row in rows}

    async def _close_unheard(self, connection: Connection, opened: dict[str, int], ended: set[str]) -> None:
        vain = [{"worker": worker, "epoch": epoch} for worker, epoch in opened.items() if worker not in ended]
        if vain:
            await connection.execute(self._statements["close_unheard"], as_json(vain))

    async def _put_back_judged(
        self,
        connection: Connection,
        ended: list[dict[str, object]],
        chunk: int,
        judged: dict[str, tuple[int, int]],
        *,
        crashed: bool,
    ) -> dict[tuple[str, int], dict[str, int]]:
        """Put back what the lives held, but for work that keeps killing its workers. Return how much, by life and kind.

        `judged` is added, by work, how many rows had their budget behind them, and how many were set aside.

        Hardly ever has anything its crash budget behind it, and that is seen while it goes back. Then this is undone
        (nobody can have seen it), the work is judged, and what is left goes back.
        """
        watch = crashed and self._budgets.policy.budget > 0 and not self._observed
        if watch:
            await connection.execute("SAVEPOINT work")
        items, over = await self._put_back_first(connection, ended, chunk)
        if watch and over:
            await connection.execute("ROLLBACK TO SAVEPOINT work")
            for work in over:
                judged[work.work] = await self._budgets.judge(connection, ended, work)
            items, _ = await self._put_back_first(connection, ended, chunk)
        if chunk:
            await self._mark_offline(connection, ended, observed=self._observed)
        else:
            # Tried again by whoever puts back what was left here.
            await self._mark_if_taken(connection, ended)
        return items

    async def _put_back_first(
        self, connection: Connection, ended: list[dict[str, object]], chunk: int
    ) -> tuple[dict[tuple[str, int], dict[str, int]], list[WorkTable]]:
        """Return besides the kinds of work of which something may have its crash budget behind it."""
        items: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
        over = []
        for work in self._statements.works:
            rows = await connection.fetch(
                self._statements.on(work, "reclaim_first", observed=self._observed),
                as_json(ended),
                work.running,
                work.waiting,
                chunk,
                work.work,
                f"{work.work}_id",
                self._observed,
                self._budgets.policy.window,
                work.failed,
                *self._statements.given("reclaim_first", work, observed=self._observed),
                # It fixes all rows of a life, however many.
                timeout=PATIENCE,
            )
            for row in rows:
                if row["items"]:
                    items[row["worker"], row["epoch"]][work.work] = row["items"]
            if any((row["crashes"] or 0) >= self._budgets.policy.budget for row in rows):
                over.append(work)
        return items, over

    async def _put_back_next(
        self, connection: Connection, held: list[dict[str, object]], progress: Progress, *, observed: bool
    ) -> None:
        for work in self._statements.works:
            row = await connection.fetchrow(
                self._statements.on(work, "reclaim_next", observed=observed),
                as_json(held),
                work.running,
                work.waiting,
                self._chunk,
                work.work,
                f"{work.work}_id",
                observed,
                self._budgets.policy.window,
                work.failed,
                *progress.behind.get((work.work, observed), ("", 0, "")),
                *self._statements.given("reclaim_next", work, observed=observed),
                timeout=PATIENCE,
            )
            if row is not None:
                progress.behind[work.work, observed] = (row["worker"], row["epoch"], row["id"])
                progress.items += row["items"]
                progress.looked_at += row["looked_at"]
                mode = mode_of(observed=observed)
                progress.reasons.update({(*key, mode): items for key, items in reasons_in(row, work).items()})

    async def _mark_if_taken(self, connection: Connection, ended: list[dict[str, object]]) -> str | None:
        """Mark the ended lives, and return why the registry refuses it, if it does: that must not keep their work."""
        try:
            async with savepoint(connection):
                await self._mark_offline(connection, ended, observed=self._observed)
        except ContestedError:
            raise
        except DatabaseRefusedError as error:
            return str(error)
        return None

    async def _mark_offline(self, connection: Connection, ended: list[dict[str, object]], *, observed: bool) -> None:
        registry = self._statements.registry
        if registry.status is None:
            await connection.execute(self._statements["mark_finished"], as_json(ended), timeout=PATIENCE)
        else:
            await connection.execute(
                self._statements["mark_offline"], as_json(ended), self._up, registry.offline, observed,
                registry.degraded, registry.online, timeout=PATIENCE,
            )  # fmt: skip
        await self._wake_relay(connection)

    async def _wake_relay(self, connection: Connection) -> None:
        # What the host checks at the end only is checked here, where it can be told whose row it is. And the relay is
        # woken when this transaction commits, and not before. The commit takes a lock for it, which everybody who
        # notifies holds until his own commit is on the disk: that is no lock of a row, and is waited for.
        await connection.execute(
            "SET CONSTRAINTS ALL IMMEDIATE; SELECT pg_notify('liveness_outbox', '');"
            f" SET LOCAL lock_timeout = '{milliseconds(self._database.lock_timeout)}'",
            timeout=PATIENCE,
        )


def _numbered(case: Case, opened: dict[str, int]) -> Case:
    if case.epoch is not None:
        return case
    return msgspec.structs.replace(case, epoch=opened.get(case.worker))
