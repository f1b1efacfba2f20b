"""Rows that a living worker holds by the database, and does not list: found, told of, and put back."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from liveness.reports import Leak, Unreported, folded_id
from liveness.store.database import PATIENCE, Connection, Database, contested
from liveness.store.epochs import as_json
from liveness.store.leader import Leader
from liveness.store.statements import Statements
from liveness.tallies import mode_of
from liveness.traced import note_items, reclaim_span
from liveness.work import LISTED, CrashPolicy, WorkTable

# Rows of one table in one look. Where more were forgotten, the others are found when these are back, or told of.
FOUND_MOST = 5_000


class Leaked(msgspec.Struct, frozen=True):
    """A leak, and what is kept of it: for how many seconds its worker was silent, and the evidence."""

    leak: Leak
    silent_for: float | None
    evidence: Mapping[str, object]


class Leaks:
    """Finds rows that their workers do not list. `decided_by` names this process, `chunk` bounds a statement's rows."""

    def __init__(
        self,
        database: Database,
        leader: Leader,
        statements: Statements,
        *,
        decided_by: str,
        observed: bool,
        chunk: int,
        crashes: CrashPolicy,
    ) -> None:
        # Rows put back, by work.
        self.items: Counter[str] = Counter()
        self._database = database
        self._leader = leader
        self._statements = statements
        self._decided_by = decided_by
        self._observed = observed
        self._chunk = chunk
        self._window = crashes.window

    async def unreported(self, listed: Mapping[str, Sequence[str]], *, told: bool = True) -> list[Unreported]:
        """Return the RUNNING rows of the names in `listed` that these do not list: one statement for each table.

        Those that were `told` of, and nobody has touched since, are among them unless that is False.
        Raises DatabaseAwayError, DatabaseRefusedError.
        """
        # Postgres cannot read U+0000, and no id has it. As it stands and folded: other alphabets fold otherwise there.
        pairs = {
            (worker, spelling)
            for worker, ids in listed.items()
            for one in ids
            for spelling in (one.replace("\0", ""), folded_id(one))
        }
        workers, ids = [worker for worker, _ in pairs], [one for _, one in pairs]
        found = []
        for work in self._statements.works:
            if work.id_base not in LISTED:
                # 1.2 is 1.20: nobody can say what is not in a list.
                continue
            rows = await self._database.fetch(
                self._statements.on(work, "find_unreported"), list(listed), workers, ids, work.running, work.work,
                FOUND_MOST, not told, *self._statements.given("find_unreported", work), patient=True,
            )  # fmt: skip
            found += [Unreported(row["worker"], work.work, row["id"], row["mark"]) for row in rows]
        return found

    async def report(self, leaks: Sequence[Leaked]) -> int:
        """Tell of rows that leaked, each once; return of how many that was. Raises as `reclaim` does."""
        told = 0
        async with self._leader.transaction(patient=True) as connection:
            for work, some in self._by_work(leaks):
                rows = await connection.fetch(
                    self._statements.on(work, "report_leaks", observed=self._observed), _offered(some), work.running,
                    self._observed, self._decided_by, work.work,
                    *self._statements.given("report_leaks", work, observed=self._observed), timeout=PATIENCE,
                )  # fmt: skip
                told += len(rows)
        return told

    async def reclaim(self, leaks: Sequence[Leaked]) -> int:
        """Put rows back that leaked, in one transaction, and return how many; the others were touched, or are held.

        Never in mode observe. Raises NotLeaderError, DatabaseAwayError and DatabaseRefusedError.
        """
        back: Counter[str] = Counter()
        # Of each worker once, and no life ends.
        workers = dict.fromkeys(one.leak.worker for one in leaks)
        with reclaim_span(((worker, "leaked") for worker in workers), mode=mode_of(observed=False)) as told:
            async with self._leader.transaction(patient=True) as connection:
                # As for every reclaim.
                await connection.execute(self._statements.lock_tables)
                with contested():
                    for work, some in self._by_work(leaks):
                        back[work.work] += await self._put_back(connection, work, some)
                    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE", timeout=PATIENCE)
            note_items(told, back)
        self.items.update(back)
        return back.total()

    async def _put_back(self, connection: Connection, work: WorkTable, leaks: Sequence[Leaked]) -> int:
        rows = await connection.fetch(
            self._statements.on(work, "reclaim_leaks"), _offered(leaks), work.running, work.waiting, self._chunk,
            work.work, f"{work.work}_id", self._observed, self._window, work.failed, self._decided_by,
            *self._statements.given("reclaim_leaks", work), timeout=PATIENCE,
        )  # fmt: skip
        return len(rows)

    def _by_work(self, leaks: Sequence[Leaked]) -> list[tuple[WorkTable, list[Leaked]]]:
        some: defaultdict[str, list[Leaked]] = defaultdict(list)
        for one in leaks:
            some[one.leak.work].append(one)
        return [(work, some[work.work]) for work in self._statements.works if some[work.work]]


def _offered(leaks: Sequence[Leaked]) -> str:
    return as_json(
        {
            "worker": one.leak.worker,
            "epoch": one.leak.epoch,
            "incarnation": one.leak.incarnation,
            "id": one.leak.id,
            "mark": one.leak.mark,
            "silent_for": one.silent_for,
            "evidence": one.evidence,
        }
        for one in leaks
    )
