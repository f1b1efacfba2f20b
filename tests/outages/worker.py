"""A worker as a process of its own: it beats, claims, holds and completes work, and writes down what it saw.

One argument, a JSON object (`Orders`). Everything goes to the file `diary`, a JSON object a line, `t` by the wall
clock: `began`, `beat` (with `sent` false while there is no connection), `connected`, `cut_off`, `stall` (with the
seconds that this process did not run), `claimed`, `completed`, `gone` (a claim that was not its own any more), `hello`,
`superseded`. It ends itself when its parent has ended. What it does to the tables a host would do for its workers.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from typing import Any, Final

import asyncpg
import msgspec

from tests.outages.wire import HOST, Wire

# Above this a late tick is a stall worth noting; below it is the noise of a busy machine.
STALL_SECONDS: Final = 0.25
# A server that does not answer for so long is left for a new connection.
PONG_SECONDS: Final = 3.0
# Between an answer of the server and the next question: as a rule, and until the first beat is known to be there.
PING_SECONDS: Final = 0.5
GREETED_SECONDS: Final = 0.01
AGAIN_SECONDS: Final = 0.1

_CLAIM: Final = """
    UPDATE workflow_execution
    SET status = 'RUNNING', worker_id = $1, claimed_by = $2, version = version + 1, updated_at = now()
    WHERE id = (
        SELECT id FROM workflow_execution WHERE status = 'PENDING' AND queue = 'fleet'
        ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id::text
"""
# What is done makes room for something new, so that the queue never dries up.
_COMPLETE: Final = """
    WITH done AS (
        UPDATE workflow_execution SET status = 'COMPLETED', version = version + 1, updated_at = now()
        WHERE id = $1::uuid AND status = 'RUNNING' AND worker_id = $2 RETURNING 1
    )
    INSERT INTO workflow_execution (queue) SELECT 'fleet' FROM done RETURNING id
"""
# Claims whose answer was lost with the connection.
_FOUND: Final = (
    "SELECT id::text FROM workflow_execution WHERE status = 'RUNNING' AND worker_id = $1 AND claimed_by = $2"
)


class Orders(msgspec.Struct, kw_only=True):
    """What a worker is told. Durations in seconds; it holds each piece of work between `shortest` and `longest`."""

    worker: str
    incarnation: str
    nats_port: int
    nats_host: str = HOST
    postgres: str
    diary: str
    ttl: float = 2.0
    interval: float = 0.4
    slots: int = 2
    shortest: float = 0.3
    longest: float = 3.0
    hello: bool = False
    uptime: bool = True
    seed: int = 0


class Worker:
    """One life."""

    def __init__(self, orders: Orders) -> None:
        self._orders: Final = orders
        self._began: Final = time.monotonic()
        self._diary = open(orders.diary, "a", buffering=1, encoding="utf-8")  # noqa: SIM115, PTH123 - open while it lives
        self._wire: Wire | None = None
        self._beaten = False
        # Nobody claims before it was heard: a process that was not looks like the one before it.
        self._greeted = asyncio.Event()
        self._beat_now = asyncio.Event()
        self._database: asyncpg.Connection[asyncpg.Record] | None = None
        self._turn = asyncio.Lock()
        # Which slot holds what: a piece of work that was taken and claimed again belongs to the newer claim.
        self._held: dict[str, object] = {}
        self._chance = random.Random(orders.seed)

    def note(self, what: str, **fields: Any) -> None:
        """Write one line of the diary."""
        self._diary.write(json.dumps({"t": time.time(), "what": what} | fields) + "\n")

    async def run(self) -> None:
        """Live until killed, or until the parent has ended."""
        self.note("began", pid=os.getpid())
        async with asyncio.TaskGroup() as duties:
            duties.create_task(self._stay_connected())
            duties.create_task(self._beat())
            for _ in range(self._orders.slots):
                duties.create_task(self._work())

    async def _beat(self) -> None:
        orders, parent = self._orders, os.getppid()
        due = time.monotonic()
        seq = 0
        while os.getppid() == parent:
            late = time.monotonic() - due
            if late > STALL_SECONDS:
                self.note("stall", seconds=late)
                due = time.monotonic()
            seq += 1
            beat: dict[str, Any] = {
                "incarnation": orders.incarnation,
                "ttl": orders.ttl,
                "interval": orders.interval,
                "seq": seq,
            }
            if orders.uptime:
                beat["uptime"] = time.monotonic() - self._began
            sent = False
            with contextlib.suppress(ConnectionError):
                if self._wire is not None:
                    beat["via"] = self._wire.server_id
                    self._wire.publish(f"liveness.heartbeat.{orders.worker}", json.dumps(beat).encode())
                    self._beaten = sent = True
            self.note("beat", sent=sent)
            due += orders.interval
            self._beat_now.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._beat_now.wait(), max(0.0, due - time.monotonic()))
                # At once on a new connection.
                due = time.monotonic()
        # The parent is gone: nobody will look at the rest.
        os._exit(0)

    async def _stay_connected(self) -> None:
        while True:
            try:
                wire = await Wire.open(self._orders.nats_port, self._orders.nats_host)
            except (OSError, TimeoutError):
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            try:
                wire.subscribe(f"liveness.superseded.{self._orders.worker}", self._superseded)
                self._wire, self._beaten = wire, False
                self.note("connected", via=wire.server_id)
                if self._orders.hello and not self._greeted.is_set():
                    await self._hello(wire)
                self._beat_now.set()
                while True:
                    beaten = self._beaten
                    async with asyncio.timeout(PONG_SECONDS):
                        await wire.delivered()
                    if beaten:
                        self._greeted.set()
                    # Only an answer tells that the connection is not half open, so it is asked for again and again.
                    await asyncio.sleep(PING_SECONDS if self._greeted.is_set() else GREETED_SECONDS)
            except (OSError, TimeoutError) as error:
                self.note("cut_off", why=repr(error))
            finally:
                self._wire = None
                await wire.close()

    async def _hello(self, wire: Wire) -> None:
        orders = self._orders
        hello = {"incarnation": orders.incarnation, "ttl": orders.ttl, "uptime": time.monotonic() - self._began}
        answer: bytes | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PONG_SECONDS):
                answer = await wire.request(f"liveness.hello.{orders.worker}", json.dumps(hello).encode())
        self.note("hello", answer=None if answer is None else answer.decode(errors="replace"))
        if answer is None or b"epoch" not in answer:
            await asyncio.sleep(AGAIN_SECONDS)
            raise ConnectionError("no epoch yet")

    def _superseded(self, _: str, payload: bytes) -> None:
        self.note("superseded", payload=payload.decode(errors="replace"))

    async def _work(self) -> None:
        await self._greeted.wait()
        while True:
            _, work = await self._ask(_CLAIM, self._orders.worker, self._orders.incarnation)
            if work is None:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            await self._carry_out(work)

    async def _carry_out(self, work: str) -> None:
        mine = object()
        if work in self._held:
            # It was taken from this very process, given back, and claimed again.
            self.note("gone", id=work, found="claimed again")
        self._held[work] = mine
        self.note("claimed", id=work)
        await asyncio.sleep(self._chance.uniform(self._orders.shortest, self._orders.longest))
        if self._held.get(work) is not mine:
            return
        unsure, accepted = await self._ask(_COMPLETE, work, self._orders.worker)
        if self._held.get(work) is mine:
            del self._held[work]
        self.note("completed" if accepted is not None else "gone", id=work, unsure=unsure)

    async def _ask(self, statement: str, *values: str) -> tuple[bool, Any]:
        """Return whether an earlier attempt may have been carried out unheard, and the answer; as often as it takes."""
        unsure = False
        while True:
            async with self._turn:
                try:
                    connection = await self._connection()
                    return unsure, await connection.fetchval(statement, *values)
                except asyncpg.PostgresError:
                    pass
                except (OSError, asyncpg.InterfaceError, TimeoutError):
                    unsure = True
                    self._database = None
            await asyncio.sleep(AGAIN_SECONDS)

    async def _connection(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._database is None or self._database.is_closed():
            settings = {"application_name": f"worker {self._orders.worker}"}
            self._database = await asyncpg.connect(self._orders.postgres, timeout=5, server_settings=settings)
            for row in await self._database.fetch(_FOUND, self._orders.worker, self._orders.incarnation):
                if row["id"] not in self._held:
                    task = asyncio.create_task(self._carry_out(row["id"]))
                    self._strays.add(task)
                    task.add_done_callback(self._strays.discard)
        return self._database

    _strays: Final[set[asyncio.Task[None]]] = set()


if __name__ == "__main__":
    asyncio.run(Worker(msgspec.json.decode(sys.argv[1], type=Orders)).run())
