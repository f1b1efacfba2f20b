"""The crash budgets of work: asked in the transaction that ends lives, before their work goes back."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog

from liveness.budgets import DEATHS_SHOWN, OTHERS_SHOWN, Death, Suspect, evidence, guilty, story, whole
from liveness.errors import ContestedError, DatabaseRefusedError
from liveness.store.database import PATIENCE, Connection
from liveness.store.epochs import as_json
from liveness.store.rows import TRIES, savepoint
from liveness.store.statements import Statements
from liveness.work import CrashPolicy, WorkTable

log = structlog.get_logger("liveness.budgets")

# Pieces of one kind of work that one transaction judges at most, the most suspect first. Far more than any bug kills
# workers with; the others are judged when they kill again.
JUDGED_MOST = 2_000


class Budgets:
    """Judges work by the crashes that it has behind it. `policy`: how many are too many, and within which time."""

    def __init__(self, statements: Statements, policy: CrashPolicy) -> None:
        self.policy = policy
        self._statements = statements

    async def judge(
        self, connection: Connection, ended: Sequence[Mapping[str, object]], work: WorkTable
    ) -> tuple[int, int]:
        """Set aside, or tell of, what of `work` killed the lives that have just `ended` and has its budget behind it.

        Return how many had, and how many of those were set aside.

        What the host's table refuses to have set aside is told of, and goes back like all the rest. Raises the
        driver's errors, as everything in a transaction does.
        """
        lives = as_json(ended)
        rows = await connection.fetch(
            self._statements.on(work, "find_suspects"), lives, work.running, self.policy.budget, OTHERS_SHOWN + 1,
            work.work, self.policy.window, JUDGED_MOST, *self._statements.given("find_suspects", work),
            timeout=PATIENCE,
        )  # fmt: skip
        suspects = [Suspect(**row) for row in rows]
        over = [suspect for suspect in suspects if suspect.crash_count >= self.policy.budget]
        if not over:
            # What the history counted was put down to others since.
            return 0, 0
        deaths = await self._deaths(connection, work, over)
        together: dict[tuple[str, int], list[Suspect]] = defaultdict(list)
        for suspect in suspects:
            together[suspect.worker, suspect.epoch].append(suspect)
        told = {
            suspect.id: evidence(
                suspect,
                together[suspect.worker, suspect.epoch],
                deaths[suspect.id],
                key=f"{work.work}_id",
                budget=self.policy.budget,
            )
            for suspect in over
        }
        aside: set[str] = set()
        if work.quarantine is not None:
            blamed = guilty(whole(suspects, JUDGED_MOST), self.policy.budget)
            aside = await self._set_aside(connection, lives, work, blamed, deaths, told)
        left = [suspect for suspect in over if suspect.id not in aside]
        await self._report(connection, lives, work, left, told)
        return len(over), len(aside)

    async def _deaths(
        self, connection: Connection, work: WorkTable, suspects: Sequence[Suspect]
    ) -> Mapping[str, list[Death]]:
        rows = await connection.fetch(
            self._statements["find_deaths"], [suspect.id for suspect in suspects], work.work, self.policy.window,
            DEATHS_SHOWN, timeout=PATIENCE,
        )  # fmt: skip
        deaths: dict[str, list[Death]] = defaultdict(list)
        for row in rows:
            fields = dict(row)
            deaths[fields.pop("id")].append(Death(**fields))
        return deaths

    async def _set_aside(
        self,
        connection: Connection,
        lives: str,
        work: WorkTable,
        blamed: Sequence[Suspect],
        deaths: Mapping[str, list[Death]],
        told: Mapping[str, Mapping[str, Any]],
    ) -> set[str]:
        if not blamed:
            return set()
        rows = [
            {
                "id": suspect.id,
                "worker": suspect.worker,
                "epoch": suspect.epoch,
                "reclaim_count": suspect.reclaim_count,
                "error": story(suspect, deaths[suspect.id], window=self.policy.window),
                "data": told[suspect.id],
            }
            for suspect in blamed
        ]
        aside: set[str] = set()
        parts, tries = [rows], TRIES
        while parts:
            some = parts.pop()
            try:
                aside |= await self._quarantine(connection, lives, work, some)
            except ContestedError:
                raise
            except DatabaseRefusedError as error:
                # Whatever it is: it must not keep the life from its end. And only the guilty rows go back.
                if len(some) > 1 and tries > 0:
                    parts += [some[: len(some) // 2], some[len(some) // 2 :]]
                else:
                    ids = [row["id"] for row in some]
                    log.error("quarantine_refused", work=work.work, ids=ids, status=work.quarantine, cause=str(error))  # noqa: TRY400
            tries -= 1
        for suspect in blamed:
            if suspect.id in aside:
                log.warning("quarantined", work=work.work, id=suspect.id, **_figures(suspect))
        return aside

    async def _quarantine(
        self, connection: Connection, lives: str, work: WorkTable, rows: Sequence[Mapping[str, Any]]
    ) -> set[str]:
        async with savepoint(connection):
            found = await connection.fetch(
                self._statements.on(work, "quarantine"), lives, work.running, work.quarantine, as_json(rows),
                work.work, self.policy.window, *self._statements.given("quarantine", work), timeout=PATIENCE,
            )  # fmt: skip
            await connection.execute("SET CONSTRAINTS ALL IMMEDIATE", timeout=PATIENCE)
        return {row["id"] for row in found}

    async def _report(
        self,
        connection: Connection,
        lives: str,
        work: WorkTable,
        suspects: Sequence[Suspect],
        told: Mapping[str, Mapping[str, Any]],
    ) -> None:
        if not suspects:
            return
        rows = [
            {"id": suspect.id, "worker": suspect.worker, "epoch": suspect.epoch, "data": told[suspect.id]}
            for suspect in suspects
        ]
        await connection.execute(self._statements["report_crashing"], lives, as_json(rows), work.work, timeout=PATIENCE)
        for suspect in suspects:
            log.warning("crashing", work=work.work, id=suspect.id, **_figures(suspect))


def _figures(suspect: Suspect) -> dict[str, Any]:
    fields = msgspec.structs.asdict(suspect)
    return {name: fields[name] for name in ("worker", "epoch", "crash_count", "suspects")}
