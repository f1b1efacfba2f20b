"""Workers that are cut off from NATS: each stops before its work is given away."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from operator import le

import msgspec
from nats.aio.client import Client

from liveness import Heartbeater
from liveness.embedded import NatsServer
from tests.conftest import SOON, HostTables
from tests.outages.proxy import Proxy

from .conftest import Child, Serve, _kept, _start, beating, eventually

TTL = 2.0
OF_EACH = 25
# They live on behind the same server: where nearly all fall silent, the service doubts itself first.
BYSTANDERS = 130

CUTS: dict[str, Callable[[Proxy], None]] = {
    "blackhole": lambda proxy: proxy.vanish(to_server=True, from_server=True),
    "reset": Proxy.shut,
    "to_server": lambda proxy: proxy.vanish(to_server=True),
    "from_server": lambda proxy: proxy.vanish(from_server=True),
}


class Worker:
    """Works until it is told that it is lost, and notes when it had stopped."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.heartbeater = Heartbeater(f"nats://127.0.0.1:{port}", worker=name, ttl=TTL, on_lost=self._stop)
        self.stopped = asyncio.Event()
        # By the clock that Postgres goes by on this machine.
        self.stopped_at: float | None = None
        self._work: asyncio.Task[bool] | None = None

    def begin(self) -> None:
        """Work on something that does not end by itself."""
        self._work = asyncio.create_task(self._carry_out())

    async def _carry_out(self) -> bool:
        try:
            return await asyncio.Event().wait()
        finally:
            self.stopped_at = time.time()
            self.stopped.set()

    def _stop(self) -> None:
        if self._work is not None:
            self._work.cancel()


@contextlib.asynccontextmanager
async def bystanders(client: Client) -> AsyncIterator[None]:
    """Beat for others behind the server that `client` is connected to."""
    via = client._server_info["server_id"]

    async def beat() -> None:
        while True:
            for number in range(BYSTANDERS):
                payload = msgspec.json.encode({"ttl": 10, "via": via})
                await client.publish(f"liveness.heartbeat.bystander-{number}", payload)
            await asyncio.sleep(TTL / 5)

    task = asyncio.create_task(beat())
    yield
    task.cancel()
    await asyncio.wait({task})


async def test_a_hundred_that_are_cut_off_stop_before_their_work_is_pending(
    serve: Serve, host: HostTables, nats: NatsServer, client: Client
) -> None:
    """However they are cut off, all of them: when the work can be claimed by another, nobody works on it any more."""
    await serve()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(bystanders(client))
        proxies = {name: Proxy(nats.port) for name in CUTS}
        workers = []
        for name, proxy in proxies.items():
            await proxy.start()
            stack.push_async_callback(proxy.stop)
            workers += [Worker(f"{name}-{number}", proxy.port) for number in range(OF_EACH)]
        for worker in workers:
            await host.worker(worker.name)
        async with asyncio.TaskGroup() as entering:
            for worker in workers:
                entering.create_task(stack.enter_async_context(worker.heartbeater))
        for worker in workers:
            assert await worker.heartbeater.welcome(SOON)
            await host.workflows(worker.name)
            worker.begin()
            worker.heartbeater.check()
        for name, proxy in proxies.items():
            CUTS[name](proxy)

        await eventually(lambda: host.count("PENDING"), lambda count: count == len(workers))
        rows = await host.connection.fetch(
            "SELECT worker, reason, reclaimed_at FROM liveness.reclaim JOIN liveness.expiration USING (worker, epoch)"
        )
        pending = {row["worker"]: row["reclaimed_at"].timestamp() for row in rows}
        assert {row["reason"] for row in rows} == {"lapsed"}
        stopped = {worker.name: worker.stopped_at for worker in workers}

    slack = {name: pending[name] - (at or float("inf")) for name, at in stopped.items()}
    for name in CUTS:
        least = min(each for worker, each in slack.items() if worker.startswith(name))
        sys.stdout.write(f"{name}: stopped before PENDING by {least:.3f} s at least\n")
    assert len(slack) == len(CUTS) * OF_EACH
    assert min(slack.values()) > 0, slack


async def test_a_service_that_is_away_fences_nobody(
    serve: Serve, host: HostTables, nats: NatsServer, ahead: Callable[[float], None]
) -> None:
    """NATS takes the beats, and nobody is there who could give work away: after two ttls it has not stopped."""
    service = await serve()
    await host.worker("w1")
    async with Heartbeater(nats.url, worker="w1", ttl=60, interval=0.02) as worker:
        assert await worker.welcome(SOON)
        (workflow,) = await host.workflows("w1")
        await service.kill()
        for _ in range(13):
            ahead(10)
            await eventually(lambda: asyncio.sleep(0, worker.beats_sent), partial(le, worker.beats_sent + 2))
        worker.check()
        assert not worker.lost.is_set()
        assert await host.state(workflow) == ("RUNNING", "w1")


SUSPENDED = """
import asyncio, sys, time
import liveness

async def main():
    async with liveness.Heartbeater(sys.argv[1], worker="w1", ttl=2) as worker:
        await worker.welcome(10)
        print("working", flush=True)
        before = time.monotonic()
        while True:
            # A step of the work, which never gives the loop a turn; and the question before what cannot be undone.
            time.sleep(0.001)
            step, before = time.monotonic() - before, time.monotonic()
            try:
                worker.check()
            except liveness.LostError as error:
                print("lost after a step of", step, error, flush=True)
                break
            if step > 1:
                print("not lost after a step of", step, flush=True)
                break

asyncio.run(main())
"""


async def test_a_worker_that_was_stopped_finds_itself_lost_at_once(
    serve: Serve, host: HostTables, nats: NatsServer
) -> None:
    """SIGSTOP until its work was given away: the first question after SIGCONT is answered by the clock alone."""
    await serve()
    await host.worker("w1")
    async with _kept() as children:
        child = Child(await _start(["-c", SUSPENDED, nats.url], {}))
        children.append(child)
        await child.said("working")
        (workflow,) = await host.workflows("w1")
        child.signal(signal.SIGSTOP)
        await eventually(lambda: host.state(workflow), lambda state: state == ("PENDING", None))
        child.signal(signal.SIGCONT)

        said = await child.said("lost after a step of")
        assert float(said.split()[0]) > TTL / 2
        assert "had no beat taken by NATS" in said
        assert await child.end() == 0


async def test_a_command_that_is_cut_off_is_stopped_before_its_work_is_pending(
    serve: Serve, host: HostTables, nats: NatsServer, client: Client
) -> None:
    """`liveness run` asks it to stop, and kills what will not while nobody else can have its work yet."""
    await serve()
    proxy = Proxy(nats.port)
    await proxy.start()
    async with _kept() as children, beating(client, ["v1", "v2", "v3"]):
        for worker, on_term in (("w1", "exit 7"), ("w2", "")):
            await host.worker(worker)
            script = f"trap '{on_term}' TERM; while :; do echo at $(date +%s.%N); sleep 0.01; done"
            arguments = ["-m", "liveness", "run", "--worker", worker, "--ttl", "2", "--", "sh", "-c", script]
            children.append(Child(await _start(arguments, {"LIVENESS_NATS_URL": f"nats://127.0.0.1:{proxy.port}"})))
        for worker, child in zip(("w1", "w2"), children, strict=True):
            await child.said("at")
            await host.workflows(worker)
        proxy.vanish(to_server=True, from_server=True)

        assert [await child.end() for child in children] == [7, 128 + signal.SIGKILL]
        await eventually(lambda: host.count("PENDING"), lambda count: count == 2)
        rows = await host.connection.fetch("SELECT worker, reclaimed_at FROM liveness.reclaim")
        pending = {row["worker"]: row["reclaimed_at"] for row in rows}
        for worker, child in zip(("w1", "w2"), children, strict=True):
            assert "had no beat taken by NATS for 1.6 s of its ttl of 2 s: stopping it" in " ".join(child.lines)
            worked_at = [float(line.split()[1]) for line in child.lines if line.startswith("at ")]
            assert worked_at[-1] < pending[worker].timestamp()
    await proxy.stop()
