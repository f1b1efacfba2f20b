"""liveness.store.Store on the model of Postgres: the interface that the duties use, statement by statement."""

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from liveness.store import Ended, Former, Found, Granted, Life, Progress, Walk
from liveness.verdicts import Case, Outcome, Recovery, Verdict
from tests.simulation.leader import Leader
from tests.simulation.leaks import Leaks
from tests.simulation.outbox import Outbox
from tests.simulation.parts import Parts
from tests.simulation.postgres import Epoch, Expiration, Postgres, Process, Row

# Rows that one transaction puts back: few, so that reclaims are often left to finish.
CHUNK = 2


class Epochs(Parts):
    """Grants and recoveries."""

    async def grant(self, lives: Iterable[Life]) -> Granted:
        """See grant_epochs.sql."""
        wanting = list(lives)

        def body(_now: float) -> Granted:
            epochs, others = {}, []
            for life in wanting:
                found = self.postgres.open.get(life.worker)
                if found is None:
                    ttl = life.ttl or 10.0
                    found = self.postgres.new_epoch(life.worker, life.incarnation, ttl, self.leader.term)
                elif None not in (found.incarnation, life.incarnation) and found.incarnation != life.incarnation:
                    others.append(_life(found))
                    continue
                found.greeted(life.incarnation, life.hello_uptime)
                found.ttl = life.ttl or found.ttl
                found.incarnation = life.incarnation or found.incarnation
                epochs[life.worker] = found.epoch
            return Granted(epochs, others)

        return await self.act(body)  # type: ignore[no-any-return]

    async def known(self, names: list[str]) -> set[str]:
        """See known_names.sql."""
        return set(names)

    async def update(self, lives: Iterable[Life]) -> None:
        """See update_lives.sql."""
        changed = list(lives)

        def body(_now: float) -> None:
            for life in changed:
                found = self.postgres.open.get(life.worker)
                if found is not None and found.epoch == life.epoch:
                    found.greeted(life.incarnation, life.hello_uptime)
                    found.ttl, found.incarnation = life.ttl or found.ttl, life.incarnation or found.incarnation

        await self.act(body)

    async def recover(self, heard: Mapping[str, int]) -> list[Recovery]:
        """See recover.sql."""

        def body(_now: float) -> list[Recovery]:
            newest: dict[str, Expiration] = {}
            for worker, epoch in heard.items():
                for one in self.postgres.expirations[worker]:
                    if one.epoch < epoch and not one.recovered:
                        one.recovered = True
                        newest[worker] = one
            return [
                Recovery(one.worker, one.epoch, one.incarnation, one.reason, heard[worker], False)  # noqa: FBT003
                for worker, one in newest.items()
            ]

        return await self.act(body)  # type: ignore[no-any-return]

    async def set_back(self) -> None:
        """See set_back.sql."""

        def body(now: float) -> None:
            for worker, some in self.postgres.expirations.items():
                for one in some:
                    if one.offlined and one.recovered and worker in self.postgres.open:
                        one.offlined = False
                        self.postgres.registry[worker] = ("ONLINE", now)

        if any(one.offlined and one.recovered for some in self.postgres.expirations.values() for one in some):
            await self.act(body)

    async def open_lives(self, names: list[str] | None) -> list[Life]:
        """See restore_epochs.sql."""

        def body(_now: float) -> list[Life]:
            return [_life(one) for one in self.postgres.open.values() if names is None or one.worker in names]

        return await self.read(body)  # type: ignore[no-any-return]

    async def ended_ago(self, names: Sequence[str]) -> Mapping[str, Ended]:
        """See ended_ago.sql."""

        def body(now: float) -> Mapping[str, Ended]:
            found = {}
            for name in names:
                lives = self.postgres.epochs[name]
                if lives and name not in self.postgres.open:
                    last = self.postgres.expirations[name][-1]
                    restarted = last.reason == "restarted"
                    found[name] = Ended(last.epoch, now - (lives[-1].ended_at or 0.0), restarted, last.incarnation)
            return found

        return await self.read(body)  # type: ignore[no-any-return]

    async def formers(self, names: list[str] | None) -> list[Former]:
        """See former_incarnations.sql."""

        def body(_now: float) -> list[Former]:
            opened = self.postgres.open
            return [
                Former(worker, one.incarnation, one.epoch)
                for worker, some in self.postgres.expirations.items()
                if (worker in opened or (some and some[-1].reason == "restarted"))
                and (names is None or worker in names)
                for one in some
                if one.reason == "restarted"
                and one.incarnation is not None
                and (worker not in opened or one.incarnation != opened[worker].incarnation)
            ]

        return await self.read(body)  # type: ignore[no-any-return]

    async def restorable(self) -> tuple[list[Life], list[Life]]:
        """See restore_epochs.sql and restore_names.sql."""

        def body(_now: float) -> tuple[list[Life], list[Life]]:
            postgres = self.postgres
            lives = [_life(one) for one in postgres.open.values()]
            names = {name for name, (status, _) in postgres.registry.items() if status == "ONLINE"}
            names |= {row.owner for row in postgres.rows.values() if row.status == "RUNNING" and row.owner}
            unfinished = {one.worker for one in postgres.unfinished()}
            others = [
                Life(name, None, None, postgres.epochs[name][-1].ttl if postgres.epochs[name] else None)
                for name in sorted(names)
                if name not in postgres.open and name not in unfinished
            ]
            return lives, others

        return await self.read(body)  # type: ignore[no-any-return]


class Reclaims(Parts):
    """Ends epochs."""

    async def settle(self, cases: Sequence[Case]) -> list[Verdict]:
        """See open_unheard.sql, end_epochs.sql, reclaim_first.sql and mark_offline.sql."""

        def body(now: float) -> list[Verdict]:
            self.postgres.refuse([case.worker for case in cases])
            settled = [self._settle(case, now) for case in sorted(cases, key=lambda case: case.worker)]
            ended = [one for one in settled if not isinstance(one, Verdict)]
            if self.postgres.history.budget:
                self._judge(ended, now)
            return [one if isinstance(one, Verdict) else self._put_back(*one, now) for one in settled]

        return await self.act(body)  # type: ignore[no-any-return]

    def _judge(self, ended: list[tuple[Expiration, list[Row]]], now: float) -> None:
        """See liveness/store/budgets.py: before anything goes back."""
        postgres, history = self.postgres, self.postgres.history
        held = [(expiration, row) for expiration, mine in ended for row in mine]
        # What somebody locks is left to the reclaim.
        aside = {row for row in history.judge(held, now) if row.locked_until <= postgres.world.now}
        history.on_judged(held, aside)
        for expiration, mine in ended:
            for row in [row for row in mine if row in aside]:
                mine.remove(row)
                postgres.set_aside(row, expiration, now)

    def _settle(self, case: Case, now: float) -> Verdict | tuple[Expiration, list[Row]]:
        postgres = self.postgres
        status, beat_at = postgres.registry.get(case.worker, ("", -1e9))
        up = status == "ONLINE"
        spared = case.spare_within is not None and beat_at > now - case.spare_within
        found = postgres.open.get(case.worker)
        if case.epoch is None:
            if found is not None or spared or (case.must_be_up is not None and case.must_be_up != up):
                return Verdict(worker=case.worker, epoch=None, outcome=Outcome.OVER)
            found = postgres.new_epoch(case.worker, None, case.ttl, self.leader.term)
        elif found is None or found.epoch != case.epoch:
            return Verdict(worker=case.worker, epoch=case.epoch, outcome=Outcome.OVER)
        elif spared:
            return Verdict(worker=case.worker, epoch=case.epoch, outcome=Outcome.SPARED, heard_ago=now - beat_at)
        untouched_for = case.untouched_for
        if untouched_for is not None and case.measured_at is not None:
            untouched_for += now - case.measured_at
        incarnation = case.incarnation
        if case.reason != "restarted":
            incarnation = incarnation or found.incarnation
        expiration = postgres.end(found, case.reason, incarnation, now)
        mine = [
            row
            for row in postgres.held_by(case.worker)
            if (untouched_for is None or row.touched < now - untouched_for) and not self._is_left(row, case.worker)
        ]
        expiration.crash = case.crash
        if up and case.reason != "restarted":
            postgres.registry[case.worker] = ("OFFLINE", beat_at)
            expiration.offlined = True
        return expiration, mine

    def _put_back(self, expiration: Expiration, mine: list[Row], now: float) -> Verdict:
        postgres = self.postgres
        free = [row for row in mine if row.locked_until <= postgres.world.now][:CHUNK]
        for row in mine:
            if row in free:
                postgres.put_back(row, expiration, now)
            else:
                expiration.remainder[row.id] = row.mark
        postgres.note_left(expiration)
        items = {"workflow": len(free)} if free else {}
        return Verdict(worker=expiration.worker, epoch=expiration.epoch, outcome=Outcome.ENDED, items=items)

    def _is_left(self, row: Row, worker: str) -> bool:
        return any(one.remainder.get(row.id) == row.mark for one in self.postgres.expirations[worker])

    async def count(self, worker: str, epoch: int) -> int:
        """Nobody asks in a simulation."""
        raise NotImplementedError

    @property
    def kinds(self) -> set[str]:
        """The one kind of work."""
        return {"workflow"}

    async def unfinished(self) -> list[str]:
        """See unfinished_names.sql."""
        return await self.read(lambda _: sorted({one.worker for one in self.postgres.unfinished()}))  # type: ignore[no-any-return]

    async def owing(self, names: Sequence[str]) -> set[str]:
        """See owing in reclaims: names with rows left in the remainder."""
        return await self.act(lambda _: {one.worker for one in self.postgres.unfinished() if one.worker in names})  # type: ignore[no-any-return]

    async def finish(self, progress: Progress, names: Sequence[str]) -> None:
        """See reclaim_next.sql; one go looks at everything."""

        def body(now: float) -> None:
            self.postgres.refuse(names)
            for one in self.postgres.unfinished():
                if one.worker in names:
                    self._finish(one, progress, now)

        await self.act(body)
        progress.looked_at = 0

    async def finish_apart(self, walk: Walk, worker: str) -> None:
        """As where everything of a name is refused: what the simulation poisons is the name, not a row of it."""
        await self.finish(Progress(), [worker])
        walk.done.update(self.kinds)

    def _finish(self, one: Expiration, progress: Progress, now: float) -> None:
        postgres = self.postgres
        lived_on = any(epoch.epoch > one.epoch for epoch in postgres.epochs[one.worker])
        for number, mark in list(one.remainder.items()):
            row = postgres.rows[number]
            if row.status != "RUNNING" or row.owner != one.worker or (row.mark != mark and lived_on):
                del one.remainder[number]
            elif row.locked_until <= postgres.world.now:
                postgres.put_back(row, one, now)
                progress.items += 1
                del one.remainder[number]
        postgres.note_left(one)


class Host(Parts):
    """The host's tables."""

    async def stale(self, silent_for: float) -> list[Found]:
        """See find_stale.sql."""

        def body(now: float) -> list[Found]:
            busy = {one.worker for one in self.postgres.unfinished()}
            return [
                Found(name, self._ttl(name), now - beat_at)
                for name, (status, beat_at) in self.postgres.registry.items()
                if status == "ONLINE" and beat_at < now - silent_for and name not in busy
            ]

        return await self.read(body)  # type: ignore[no-any-return]

    async def orphaned(self, untouched_for: float) -> list[Found]:
        """See find_orphans.sql."""

        def body(now: float) -> list[Found]:
            left = {number for one in self.postgres.unfinished() for number in one.remainder}
            names = {
                row.owner
                for row in self.postgres.rows.values()
                if row.status == "RUNNING" and row.owner and row.touched < now - untouched_for and row.id not in left
            }
            registry = self.postgres.registry
            return [Found(name, self._ttl(name)) for name in sorted(names) if registry.get(name, ("",))[0] != "ONLINE"]

        return await self.read(body)  # type: ignore[no-any-return]

    def _ttl(self, name: str) -> float | None:
        return self.postgres.epochs[name][-1].ttl if self.postgres.epochs[name] else None

    async def ownerless(self, _untouched_for: float) -> Mapping[str, int]:
        """There is no such work here."""
        return {}

    async def ambiguous(self, _names: Sequence[str]) -> Mapping[str, str]:
        """There are no such names here."""
        return {}

    async def holding(self, ages: Mapping[str, tuple[str, float]]) -> Mapping[str, float]:
        """See holding_names.sql."""

        def body(now: float) -> Mapping[str, float]:
            found = {}
            for name, (incarnation, age) in ages.items():
                known = [one.at for one in self.postgres.expirations[name] if one.incarnation == incarnation]
                begun = min([now - age, *known])
                if any(row.touched < begun for row in self.postgres.held_by(name)):
                    found[name] = now - begun
            return found

        return await self.act(body)  # type: ignore[no-any-return]


def _life(one: Epoch) -> Life:
    return Life(one.worker, one.epoch, one.incarnation, one.ttl, one.hello_uptime)


def store_on(postgres: Postgres, process: Process, holder: str) -> Any:
    """Return what the duties take for a Store."""
    leader = Leader(postgres, process, holder)
    parts = (postgres, process, leader)
    return SimpleNamespace(
        leader=leader,
        epochs=Epochs(*parts),
        reclaims=Reclaims(*parts),
        host=Host(*parts),
        outbox=Outbox(*parts),
        leaks=Leaks(*parts),
    )
