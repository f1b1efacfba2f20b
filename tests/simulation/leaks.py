"""liveness.store.Leaks on the model of Postgres."""

from collections.abc import Mapping, Sequence

from liveness.reports import Leak, Unreported
from liveness.store import Leaked
from tests.simulation.parts import Parts


class Leaks(Parts):
    """Rows that their workers do not list."""

    async def unreported(self, listed: Mapping[str, Sequence[str]], *, told: bool) -> list[Unreported]:
        """See find_unreported.sql."""
        # Here all go back, and none is only told of.
        assert told

        def body(_now: float) -> list[Unreported]:
            left = {(one.worker, number) for one in self.postgres.unfinished() for number in one.remainder}
            return [
                Unreported(owner, "workflow", row.id, str(row.mark))
                for row in self.postgres.rows.values()
                if row.status == "RUNNING"
                and (owner := row.owner or "") in listed
                and row.id not in listed[owner]
                and (owner, row.id) not in left
            ]

        return await self.read(body)  # type: ignore[no-any-return]

    async def reclaim(self, leaks: Sequence[Leaked]) -> int:
        """See reclaim_leaks.sql."""

        def body(now: float) -> int:
            return sum(self._reclaim(one.leak, now) for one in leaks)

        return await self.act(body)  # type: ignore[no-any-return]

    def _reclaim(self, leak: Leak, now: float) -> bool:
        postgres = self.postgres
        life, row = postgres.open.get(leak.worker), postgres.rows[leak.id]
        is_its = life is not None and life.epoch == leak.epoch and row.status == "RUNNING" and row.owner == leak.worker
        if not is_its or str(row.mark) != leak.mark or row.locked_until > postgres.world.now:
            return False
        postgres.put_back_leaked(row, now)
        return True
