"""The stage: servers, replicas of the service behind proxies, the fleet, and a record of who was disturbed when."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg

from liveness.embedded import NatsServer, PostgresServer
from liveness.store import Database, migrate
from liveness.subjects import Subjects
from tests.outages.asking import fetch
from tests.outages.fleet import Fleet, Life
from tests.outages.process import Process
from tests.outages.proxy import Proxy
from tests.pgbouncer import PgBouncer, find_pgbouncer

TTL: Final = 2.0
# An end that never comes is a failure of the test, not of its patience.
SOON: Final = 30.0
LOOK_SECONDS: Final = 0.03
# A look at whether this process runs, and how late it may be on a busy machine.
TICK_SECONDS: Final = 0.1
STALL_SECONDS: Final = 0.5
# About as short as the settings allow, so that the sweep is there to go wrong too.
SETTINGS: Final[Mapping[str, object]] = {
    "heartbeat_timeout": TTL,
    "workflow_stuck_timeout": 3,
    "stale_worker_check_interval": 1,
    "checkpoint_interval": 1,
    "http_listen": "127.0.0.1:0",
    "log_format": "json",
}
POSTGRES_OPTIONS: Final[Mapping[str, str]] = {
    # What was committed has to survive SIGKILL; the end of the whole machine is not among our faults.
    "synchronous_commit": "on",
    # When something was committed, rather than begun, is what a takeover is measured by.
    "track_commit_timestamp": "on",
}
# What befell each row, by the host's own account: a host that keeps an audit trail has one like it. `claimed_by` tells
# processes of one name apart; it is nothing that the service knows of.
_HOST_SIDE: Final = """
    ALTER TABLE workflow_execution ADD COLUMN claimed_by text;
    CREATE TABLE history (
        seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        transaction_id bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
        id uuid NOT NULL, from_status text NOT NULL, from_owner text, from_life text,
        to_status text NOT NULL, to_owner text, to_life text
    );
    CREATE FUNCTION keep_history() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO history (id, from_status, from_owner, from_life, to_status, to_owner, to_life)
        VALUES (NEW.id, OLD.status, OLD.worker_id, OLD.claimed_by, NEW.status, NEW.worker_id, NEW.claimed_by);
        RETURN NULL;
    END $$;
    CREATE TRIGGER keep_history AFTER UPDATE ON workflow_execution FOR EACH ROW EXECUTE FUNCTION keep_history();
"""

# What a look at a server raises that is away for a while.
AWAY: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)

Seen = TypeVar("Seen")


# A pass each second while a reclaim is not finished (`assembly.UNFINISHED_SECONDS`), and the time that it takes.
NEXT_PASS_SECONDS = 3.0


async def eventually(
    look: Callable[[], Awaitable[Seen]], wanted: Callable[[Seen], bool], what: str, seconds: float = SOON
) -> Seen:
    """Look at the real thing until it is as wanted, and return it; fail with what was seen last."""
    seen: object = "nothing"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                try:
                    seen = found = await look()
                    if wanted(found):
                        return found
                except AWAY as error:
                    seen = error
                # Nothing tells that another process has changed a row.
                await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError(f"{what}: not within {seconds:g} s; seen last: {seen!r}")


@dataclass
class Disturbance:
    """A stretch in which something that the service needs was away. Wall clock, seconds."""

    what: str
    begin: float
    end: float | None = None


class Replica:
    """One `liveness serve` behind proxies of its own."""

    def __init__(
        self,
        name: str,
        stage: "Stage",
        inside: tuple[str, ...] = (),
        host: str = "127.0.0.1",
        shard: str = "",
        code: Mapping[str, str] | None = None,
    ) -> None:
        """`code`: the environment of a process that runs other code than ours; that of the stage unless given."""
        self.name: Final = name
        self.to_nats: Final = Proxy(stage.nats.port, host)
        self.to_postgres: Final = Proxy(stage.postgres_port, host)
        self.runs: Final[list[Process]] = []
        self._stage: Final = stage
        self._inside: Final = inside
        self._host: Final = host
        self._shard: Final = shard
        self._code: Final = dict(stage.code if code is None else code)

    @property
    def process(self) -> Process:
        """The newest run."""
        return self.runs[-1]

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return bool(self.runs) and self.process.running

    async def start(self) -> None:
        """Start it, and its proxies the first time. It may not be ready yet."""
        if not self.runs:
            await self.to_nats.start()
            await self.to_postgres.start()
        settings = {
            **SETTINGS,
            "nats_url": f"nats://{self._host}:{self.to_nats.port}",
            "postgres_dsn": f"postgresql://postgres@{self._host}:{self.to_postgres.port}/postgres",
            "shard": self._shard,
            **self._stage.settings,
        }
        environment = self._code | {f"LIVENESS_{name.upper()}": str(value) for name, value in settings.items()}
        log = self._stage.folder / f"{self.name}-{len(self.runs) + 1}.log"
        self.runs.append(Process(["-m", "liveness", "serve"], log, environment, self._inside))

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of one event in the newest run's log."""
        lines = [json.loads(line) for line in self.process.lines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    async def readiness(self) -> str:
        """What `/readyz` says, or the cause while nobody answers."""
        assert self.process.running, "\n".join([f"{self.name} has ended:", *self.process.lines()[-20:]])
        try:
            return await self.fetch("/readyz")
        except OSError as error:
            return str(error)

    async def fetch(self, path: str) -> str:
        """What it answers over HTTP, in the namespace in which it runs. Raises OSError while it does not answer."""
        starting = self.logged("starting")
        if not starting:
            raise ConnectionRefusedError(f"{self.name} does not listen yet")
        return await fetch(starting[0]["http_port"], path, self._inside)

    async def ready(self) -> None:
        """Wait until it says that it is ready."""
        await eventually(self.readiness, lambda said: said == "ready\n", f"{self.name} is ready")

    async def stop(self) -> None:
        """Stop it in good order, or kill it, and its proxies."""
        if self.running:
            with contextlib.suppress(TimeoutError):
                await self.process.stop()
            self.process.kill()
        if self.runs:
            await self.process.gone()
            await self.to_nats.stop()
            await self.to_postgres.stop()


class Stage:
    """Everything in `folder`; `settings` are those of the service that differ from `SETTINGS`.

    `pooled`: the service reaches Postgres through pgbouncer in transaction mode. `shards`: the NATS server divides the
    workers into so many, and there are as many replicas of each as were asked for; 0 for one service that owns all.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 8,
        seed: int = 0,
        nats_config: str = "",
        ttl: float = TTL,
        pooled: bool = False,
        shards: int = 0,
        **settings: object,
    ) -> None:
        self.folder: Final = folder
        self.ttl: Final = ttl
        self.settings: Final = settings
        mapping = f"mappings = {{ {Subjects().mapping(shards)} }}\n" if shards else ""
        self.shards: Final = [f"{index}/{shards}" for index in range(shards)] or [""]
        self.nats: Final = NatsServer(folder / "nats", config=mapping + nats_config)
        self.postgres: Final = PostgresServer(folder / "postgres", options=POSTGRES_OPTIONS)
        self.replicas: Final[list[Replica]] = []
        self.disturbances: Final[list[Disturbance]] = []
        self._noticing: asyncio.Task[None] | None = None
        self.pooler: PgBouncer | None = None
        self.code: Mapping[str, str] = {}
        self._pooled: Final = pooled
        self._workers: Final = workers
        self._seed: Final = seed
        self._fleet: Fleet | None = None
        self._turn: Final = asyncio.Lock()
        self._database: asyncpg.Connection[asyncpg.Record] | None = None

    @property
    def fleet(self) -> Fleet:
        """The workers."""
        assert self._fleet is not None, "the stage has not been started"
        return self._fleet

    @property
    def postgres_port(self) -> int:
        """Where the replicas' proxies lead to."""
        return self.postgres.port if self.pooler is None else self.pooler.port

    async def start(self, *, replicas: int = 1) -> None:
        """Start the servers, the tables, the replicas and the fleet, and wait until every worker holds work."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._noticing = asyncio.create_task(self._notice_stalls())
        async with asyncio.TaskGroup() as starts:
            starts.create_task(self.nats.start())
            starts.create_task(self.postgres.start())
        if self._pooled:
            program = find_pgbouncer()
            assert program is not None, "there is no pgbouncer: apt-get install pgbouncer"
            self.pooler = PgBouncer(self.folder / "pgbouncer", program, self.postgres.port)
            await self.pooler.start()
        await self.migrate()
        names = [f"w{number}" for number in range(self._workers)]
        async with self.database() as connection:
            await connection.execute(_HOST_SIDE)
            await connection.execute("INSERT INTO worker (worker_name) SELECT unnest($1::text[])", names)
            await connection.execute(
                "INSERT INTO workflow_execution (queue) SELECT 'fleet' FROM generate_series(1, $1)", 6 * self._workers
            )
        for number in range(replicas):
            for index, shard in enumerate(self.shards):
                name = f"replica{number}-of-shard{index}" if shard else f"replica{number}"
                await self.add(Replica(name, self, shard=shard))
        self._fleet = Fleet(
            self.folder, postgres=self.postgres.dsn, nats_port=self.nats.port, ttl=self.ttl, seed=self._seed
        )
        for name in names:
            self.fleet.start(name)
        for replica in self.replicas:
            await replica.ready()
        await self.all_working()

    async def migrate(self) -> int:
        """Bring the schema up to date, and return its version."""
        database = Database(self.postgres.dsn)
        await database.connect()
        try:
            return (await migrate(database, "public", host_tables=True)).version
        finally:
            await database.close()

    async def add(self, replica: Replica) -> Replica:
        """Start one more replica. It may not be ready yet."""
        self.replicas.append(replica)
        await replica.start()
        return replica

    async def _notice_stalls(self) -> None:
        """Write down when this process, by whose proxies everything goes, did not run."""
        while True:
            before = time.time()
            await asyncio.sleep(TICK_SECONDS)
            if time.time() - before > TICK_SECONDS + STALL_SECONDS:
                self.disturbances.append(Disturbance("the machine stood still", before, time.time()))

    async def stop(self) -> None:
        """Stop everything."""
        if self._noticing is not None:
            self._noticing.cancel()
        for replica in self.replicas:
            await replica.stop()
        if self._fleet is not None:
            await self._fleet.stop()
        if self._database is not None:
            self._database.terminate()
        if self.pooler is not None:
            await self.pooler.stop()
        await self.nats.stop()
        await self.postgres.stop()

    @contextlib.asynccontextmanager
    async def database(self) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        """Our own connection to Postgres, for one at a time; raises what asyncpg raises while Postgres is away."""
        async with self._turn:
            if self._database is None or self._database.is_closed():
                self._database = await asyncpg.connect(self.postgres.dsn, timeout=5, command_timeout=5)
            yield self._database

    async def value(self, statement: str, *values: object) -> Any:
        """The first value of a statement's answer; raises as `database` does."""
        async with self.database() as connection:
            return await connection.fetchval(statement, *values)

    async def rows(self, statement: str, *values: object) -> "list[asyncpg.Record]":
        """The rows of a statement's answer; raises as `database` does."""
        async with self.database() as connection:
            return await connection.fetch(statement, *values)

    async def holding(self) -> dict[str, list[str]]:
        """The work that is RUNNING, by the incarnation that claimed it."""
        rows = await self.rows(
            "SELECT claimed_by, array_agg(id::text) AS ids FROM workflow_execution WHERE status = 'RUNNING' GROUP BY 1"
        )
        return {row["claimed_by"]: row["ids"] for row in rows}

    async def all_working(self) -> None:
        """Wait until every living worker holds work and the service knows it under an open epoch."""

        async def missing() -> set[str]:
            rows = await self.rows("SELECT incarnation FROM liveness.epoch WHERE ended_at IS NULL")
            known = {row["incarnation"] for row in rows} & (await self.holding()).keys()
            return {life.incarnation for life in self.fleet.living()} - known

        await eventually(missing, lambda names: not names, "every worker works")

    async def leader(self) -> Replica:
        """Wait until one of the running replicas leads, and return it."""

        async def holder() -> Replica | None:
            held = await self.value("SELECT holder FROM liveness.leader")
            running = [replica for replica in self.replicas if replica.running]
            return next((replica for replica in running if str(held).endswith(f":{replica.process.pid}")), None)

        found = await eventually(holder, lambda replica: replica is not None, "a running replica leads")
        assert found is not None
        return found

    async def kill_holding(self, life: Life) -> None:
        """Kill a worker while it holds work."""

        async def holds() -> bool:
            return life.incarnation in await self.holding()

        await eventually(holds, bool, f"{life.incarnation} holds work")
        life.process.kill()

    async def work_is_back(self, life: Life) -> float:
        """Wait until nothing is RUNNING any more that a dead life had claimed; return when that was seen."""

        async def held() -> list[str]:
            return (await self.holding()).get(life.incarnation, [])

        await eventually(
            held, lambda work: not work, f"the work of {life.incarnation}, dead since {life.ended}, is back"
        )
        return time.time()

    async def settled(self) -> None:
        """Wait until everything that was committed is published, and every reclaim is finished."""

        async def owing() -> int:
            return int(await self.value("SELECT count(*) FROM liveness.outbox"))

        async def unfinished() -> int:
            return int(await self.value("SELECT count(*) FROM liveness.expiration WHERE finished_at IS NULL"))

        await eventually(owing, lambda count: count == 0, "the outbox is empty")
        # A row of the registry that somebody had locked is marked by the next pass, and that has no news.
        await eventually(unfinished, lambda count: count == 0, "every reclaim is finished", NEXT_PASS_SECONDS)

    @contextlib.asynccontextmanager
    async def disturbed(self, what: str) -> AsyncIterator[Disturbance]:
        """Write down that something which the service needs is away while the body runs."""
        disturbance = Disturbance(what, time.time())
        self.disturbances.append(disturbance)
        try:
            yield disturbance
        finally:
            disturbance.end = time.time()
