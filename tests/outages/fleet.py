"""The fleet: worker processes under lasting names, each with the lives it has had."""

import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from tests.outages.process import Process
from tests.outages.wire import HOST
from tests.outages.worker import Orders


@dataclass
class Silence:
    """A stretch in which a worker could not be heard through no fault of the service."""

    begin: float
    why: str
    end: float | None = None


@dataclass
class Life:
    """One process of a worker name, as its killer knows it. Times are by the wall clock, in seconds."""

    worker: str
    incarnation: str
    process: Process
    diary: Path
    silences: list[Silence] = field(default_factory=list)

    @property
    def began(self) -> float:
        """When its process was started."""
        return self.process.began

    @property
    def ended(self) -> float | None:
        """When it was killed, or None while it lives."""
        return None if self.process.running else self.process.ended

    def pause(self) -> None:
        """Freeze it with SIGSTOP, and write down since when."""
        self.silences.append(Silence(time.time(), "it was stopped with SIGSTOP"))
        self.process.pause()

    def resume(self) -> None:
        """Let it go on."""
        self.process.resume()
        for silence in self.silences:
            if silence.end is None:
                silence.end = time.time()

    def notes(self) -> list[dict[str, Any]]:
        """What it has written down; a last line that was cut short by its death is left out."""
        found = []
        for line in self.diary.read_text(encoding="utf-8").splitlines() if self.diary.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found


class Fleet:
    """Workers `w0`, `w1`, ... on one NATS and one Postgres."""

    def __init__(self, folder: Path, *, postgres: str, nats_port: int, ttl: float, seed: int) -> None:
        self.lives: Final[list[Life]] = []
        self._folder: Final = folder
        self._postgres: Final = postgres
        self._nats_port: Final = nats_port
        self._ttl: Final = ttl
        self._chance: Final = random.Random(seed)

    def start(
        self,
        worker: str,
        *,
        hello: bool = False,
        holds: tuple[float, float] = (0.3, 3.0),
        nats: tuple[str, int] | None = None,
        postgres: str = "",
        inside: tuple[str, ...] = (),
    ) -> Life:
        """Start a life of `worker` that `holds` work for so many seconds, by another address if one is given."""
        number = sum(life.worker == worker for life in self.lives) + 1
        incarnation = f"{worker}#{number}"
        diary = self._folder / f"{worker}-{number}.diary"
        host, port = nats or (HOST, self._nats_port)
        orders = Orders(
            worker=worker,
            incarnation=incarnation,
            nats_host=host,
            nats_port=port,
            postgres=postgres or self._postgres,
            diary=str(diary),
            ttl=self._ttl,
            interval=self._ttl / 5,
            hello=hello,
            shortest=holds[0],
            longest=holds[1],
            seed=self._chance.getrandbits(32),
        )
        command = ["-m", "tests.outages.worker", msgspec.json.encode(orders).decode()]
        life = Life(worker, incarnation, Process(command, self._folder / f"{worker}-{number}.log", {}, inside), diary)
        self.lives.append(life)
        return life

    def living(self) -> list[Life]:
        """The lives that have not ended, paused ones too."""
        return [life for life in self.lives if life.process.running]

    def life_of(self, worker: str) -> Life | None:
        """The newest life of a name, ended or not."""
        return next((life for life in reversed(self.lives) if life.worker == worker), None)

    async def stop(self) -> None:
        """Kill what still lives."""
        for life in self.living():
            life.process.kill()
        for life in self.lives:
            await life.process.gone()


async def lingers(database: "asyncpg.Connection[asyncpg.Record]", worker: str) -> bool:
    """Say whether Postgres still carries out something for a process of `worker`, dead or alive.

    A statement that was under way when its process was killed may commit after that. A host that starts the next
    process of a name has to wait for it: by name alone nobody could tell whose claim that is.
    """
    asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
    return bool(await database.fetchval(asked, f"worker {worker}"))
