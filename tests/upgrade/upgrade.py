"""An upgrade and the way back under load: old and new replicas side by side on the schema of the new one."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from liveness.store.migrations import known_migrations
from tests.outages.checker import Violation, check
from tests.outages.fleet import lingers
from tests.outages.history import read_history
from tests.outages.stage import Replica, Stage, eventually

OURS: Final = known_migrations()[-1]
_DECIDED: Final = "SELECT decided_by FROM liveness.expiration WHERE worker = $1 ORDER BY expired_at DESC LIMIT 1"


class NotBesideError(Exception):
    """The new schema says that older services have to be stopped before; the text says so, too."""


class Step(msgspec.Struct, frozen=True):
    """What was done, who leads then, and after how many seconds the work of a worker that was killed was back."""

    done: str
    leads: str
    seconds: float


class UpgradeStage(Stage):
    """A stage that the older code (`code`: the environment in which a process runs it) has made the schema of."""

    def __init__(self, folder: Path, code: Mapping[str, str], **settings: object) -> None:
        super().__init__(folder, **settings)  # type: ignore[arg-type]
        self.code = code
        self.version = 0

    async def migrate(self) -> int:
        """Bring the schema up to what the older code knows, and return its version."""
        answer = await run(self.code, "migrate", "--host-tables", "--json", "--postgres-dsn", self.postgres.dsn)
        self.version = json.loads(answer)["version"]
        return self.version

    async def migrate_anew(self) -> int:
        """Bring it up to what this code knows."""
        return await super().migrate()


async def run(code: Mapping[str, str], *arguments: str) -> str:
    """Run a command of liveness by other code, or ours, and return what it printed. Raises AssertionError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "liveness", *arguments),
        env=os.environ | dict(code),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


class Upgrade:
    """One run: `steps` are what was seen, in their order."""

    def __init__(self, folder: Path, code: Mapping[str, str]) -> None:
        self.stage: Final = UpgradeStage(folder, code)
        self.steps: Final[list[Step]] = []
        self._next = 0

    async def go(self) -> list[Violation]:
        """Upgrade, and go back; return what of the whole was not as it has to be. Raises NotBesideError."""
        stage = self.stage
        try:
            await stage.start()
            (old,) = stage.replicas
            await self._step("the older code leads, on its own schema", old)

            if OURS.compatible_from > stage.version:
                raise NotBesideError(
                    f"schema {OURS.version} needs services that know version {OURS.compatible_from}, and the older "
                    f"code knows {stage.version}: it has to be stopped before"
                )
            assert await stage.migrate_anew() == OURS.version
            await self._step(f"migrated under it, from version {stage.version} to {OURS.version}", old)
            await self._asked_by({})

            new = await stage.add(Replica("new", stage, code={}))
            await new.ready()
            await self._step("the new one follows", old)

            async with stage.disturbed("the lead goes from old to new"):
                assert await old.process.stop() == 0
                await self._leads(new)
            await self._step("the old one was stopped", new)
            await self._asked_by(stage.code)

            back = await stage.add(Replica("back", stage))
            await back.ready()
            await self._step("an old one follows", new)

            async with stage.disturbed("the lead goes from new to old"):
                new.process.kill()
                await self._leads(back)
            await self._step("the new one was killed: the way back", back)

            await stage.settled()
            return check(await read_history(stage))
        finally:
            await stage.stop()

    async def _leads(self, replica: Replica) -> None:
        async def leading() -> bool:
            return await self.stage.leader() is replica

        await eventually(leading, bool, f"{replica.name} leads")

    async def _asked_by(self, code: Mapping[str, str]) -> None:
        """Have the status shown by a command of that code, whichever the service is of."""
        answer = json.loads(await run(code, "status", "--json", "--nats-url", self.stage.nats.url))
        assert answer["leases"], answer

    async def _step(self, done: str, leads: Replica) -> None:
        """Kill a worker, see its work come back by the replica that leads, and let the next process begin."""
        stage = self.stage
        life = stage.fleet.living()[self._next % len(stage.fleet.living())]
        self._next += 1
        await stage.kill_holding(life)
        killed = time.time()
        seconds = await stage.work_is_back(life) - killed
        decided = str(await stage.value(_DECIDED, life.worker))
        assert decided.endswith(f":{leads.process.pid}"), f"{done}: {decided} ended {life.worker}, not {leads.name}"

        async def over() -> bool:
            async with stage.database() as database:
                return not await lingers(database, life.worker)

        await eventually(over, bool, f"nothing of {life.worker} lingers")
        stage.fleet.start(life.worker)
        await stage.all_working()
        self.steps.append(Step(done, "new" if leads.name == "new" else "old", seconds))
