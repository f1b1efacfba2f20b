"""What docs/workers.md tells those who write workers does what it says."""

import asyncio
import re
from pathlib import Path

import msgspec
import nats as nats_py
from nats.aio.client import Client
from nats.aio.msg import Msg

from liveness.client import Heartbeater
from liveness.embedded import NatsServer
from liveness.messages import Heartbeat, HelloAnswer, Superseded
from liveness.subjects import Subjects
from tests.conftest import SOON, HostTables, delivered
from tests.integration.beats import spying
from tests.integration.running import Serve
from tests.integration.shares import mapped

PAGE = (Path(__file__).parents[2] / "docs" / "workers.md").read_text(encoding="utf-8")


def block(language: str, words: str) -> str:
    """Return the block of code with these words in it."""
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if words in text]
    return str(found)


async def hello(client: Client, incarnation: str) -> HelloAnswer:
    """Say hello for w1, and wait for the answer."""
    payload = msgspec.json.encode({"incarnation": incarnation})
    return msgspec.json.decode(
        (await client.request("liveness.hello.w1", payload, timeout=SOON)).data, type=HelloAnswer
    )


async def welcome(message: Msg) -> None:
    """Answer a hello."""
    await message.respond(b"welcome")


async def test_a_late_write_changes_nothing(serve: Serve, host: HostTables, client: Client) -> None:
    """A former process of the same name finishes nothing that the new one has claimed, and the new one does."""
    await serve()
    (work,) = await host.workflows(None, status="PENDING")
    claim, finish = block("sql", "-- Claim"), block("sql", "-- Finish")

    former = await hello(client, "a")
    before = await host.connection.fetchrow(claim, "w1", "billing")
    new = await hello(client, "b")
    assert await host.state(work) == ("PENDING", None)
    after = await host.connection.fetchrow(claim, "w1", "billing")

    assert (former.epoch or 0) < (new.epoch or 0)
    assert before is not None
    assert after is not None
    assert str(before["id"]) == str(after["id"]) == work
    assert await host.connection.execute(finish, before["id"], "w1", before["version"]) == "UPDATE 0"
    assert await host.connection.execute(finish, after["id"], "w1", after["version"]) == "UPDATE 1"


async def test_the_permissions_are_enough_and_no_more(tmp_path: Path) -> None:
    """With them a worker beats, answers, hears what concerns it and says goodbye, and cannot speak for another."""
    everybody = "{ user: service, password: secret },"
    config = block("conf", "authorization").replace("users: [", f"users: [ {everybody}")
    server = NatsServer(tmp_path / "nats", jetstream=False, config=config)
    await server.start()
    own, all_of_it = (server.url.replace("nats://", f"nats://{user}:secret@") for user in ("w1", "service"))
    async with spying(all_of_it) as spy:
        async with Heartbeater(own, worker="w1", incarnation="mine", ttl=600) as worker:
            assert (await spy.beat()).seq == 1
            answer = await spy.client.request("liveness.probe.w1", timeout=SOON)
            assert msgspec.json.decode(answer.data, type=Heartbeat).seq == 2
            notice = msgspec.json.encode(Superseded(epoch=1, incarnation="mine", new_epoch=2))
            await spy.client.publish("liveness.superseded.w1", notice)
            async with asyncio.timeout(SOON):
                await worker.superseded.wait()
            await spy.client.subscribe("liveness.hello.w1", cb=welcome)
            await delivered(spy.client)
            forger = await nats_py.connect(own, inbox_prefix="_INBOX.w1")
            assert (await forger.request("liveness.hello.w1", timeout=SOON)).data == b"welcome"
            await forger.publish("liveness.heartbeat.w2")
            await forger.publish("liveness.goodbye.w2")
            await delivered(forger)
            await forger.close()
            assert worker.last_problem is None
        # The next that is heard, so nothing came from the forger.
        assert (await spy.goodbye()).incarnation == "mine"
        assert spy.subjects == {"liveness.heartbeat.w1", "liveness.goodbye.w1"}
    await server.stop()


async def test_the_permissions_are_enough_where_heartbeats_are_divided(tmp_path: Path) -> None:
    """NATS checks where a heartbeat comes out; and still nobody speaks for another, whichever way it tries."""
    everybody = "{ user: service, password: secret },"
    config = block("conf", "authorization").replace("users: [", f"users: [ {everybody}", 1)
    server = NatsServer(tmp_path / "nats", jetstream=False, config=config + mapped(4))
    await server.start()
    own, all_of_it = (server.url.replace("nats://", f"nats://{user}:secret@") for user in ("w1", "service"))
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def note(message: Msg) -> None:
        heard.put_nowait(message.subject)

    service = await nats_py.connect(all_of_it)
    await service.subscribe("liveness.>", cb=note)
    await delivered(service)
    worker = await nats_py.connect(own)
    others = ("heartbeat.w2", "4.0.heartbeat.w2", "goodbye.x.heartbeat.w1", "heartbeat.x.heartbeat.w1")
    for subject in (*others, "heartbeat.w1"):
        await worker.publish(f"liveness.{subject}")
    await delivered(worker)
    async with asyncio.timeout(SOON):
        assert await heard.get() == f"liveness.4.{Subjects().hash_of('w1') % 4}.heartbeat.w1"
    await worker.close()
    await service.close()
    await server.stop()
