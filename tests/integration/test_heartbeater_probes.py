"""The heartbeater is asked whether it is there, by the service and by anybody."""

import asyncio

import msgspec
import nats as nats_py
import pytest

from liveness.bus import Bus
from liveness.client import Heartbeater
from liveness.embedded import NatsServer
from liveness.link import Link
from liveness.messages import Heartbeat
from tests.conftest import SOON, delivered
from tests.integration.beats import spying

PROBE = "liveness.probe.w1"


def beating_once(url: str, worker: str = "w1") -> Heartbeater:
    """Return a heartbeater whose next beat is due long after the test: whatever else it says is an answer."""
    return Heartbeater(url, worker=worker, incarnation="mine", ttl=6000, interval=1000)


async def test_probe_is_answered_with_a_beat(nats: NatsServer) -> None:
    """A beat says that probes are answered; a probe is, at once, with what the next beat would say."""
    async with spying(nats.url) as spy, beating_once(nats.url) as worker:
        beat = await spy.beat()
        answer, another = [
            msgspec.json.decode((await spy.client.request(PROBE, timeout=SOON)).data, type=Heartbeat) for _ in range(2)
        ]
        assert beat.probe
        assert (beat.seq, answer.seq, another.seq) == (1, 2, 3)
        assert (answer.uptime or 0) > (beat.uptime or 0)
        # All else is the same, whatever else a beat may come to say.
        assert msgspec.structs.replace(answer, seq=beat.seq, uptime=beat.uptime) == beat
        assert worker.beats_sent == 1


async def test_the_service_is_answered(nats: NatsServer) -> None:
    """The service asks as it does before a verdict, and hears that somebody is there."""
    bus = Bus(nats.url)
    await bus.connect()
    async with beating_once(nats.url, "host.example.w1"):
        answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        assert bus.ask("liveness.probe.host.example.w1", b"", answers.put_nowait, SOON)
        async with asyncio.timeout(SOON):
            answer = await answers.get()
        assert msgspec.json.decode(answer or b"", type=Heartbeat).incarnation == "mine"
    await bus.close()


@pytest.mark.parametrize("reply", ["", "liveness.heartbeat.w2", "liveness.goodbye.w1", "$JS.API.STREAM.DELETE.x"])
async def test_nothing_is_said_but_to_an_inbox(nats: NatsServer, reply: str) -> None:
    """A probe that names no inbox is ignored: elsewhere the answer would be a beat, or a command."""
    client = await nats_py.connect(nats.url)
    async with beating_once(nats.url):
        everything = await client.subscribe(">")
        await client.publish(PROBE, reply=reply)
        answer = await client.request(PROBE, timeout=SOON)
        # The answers come in the order of the probes, and the ignored one was given no number.
        assert msgspec.json.decode(answer.data, type=Heartbeat).seq == 2
        await client.publish("end")
        heard = []
        while (message := await everything.next_msg(SOON)).subject != "end":
            heard.append(message.subject)
    await client.close()
    assert heard == [PROBE, PROBE, answer.subject]


async def test_noise_stops_no_beat(nats: NatsServer) -> None:
    """Whatever comes as a probe, and however much of it, beats go on, on the connection that stands."""
    client = await nats_py.connect(nats.url)
    async with spying(nats.url) as spy, Heartbeater(nats.url, worker="w1", ttl=5, interval=0.05) as worker:
        link = worker._connection.link
        for number in range(10_000):
            # Nobody listens there; the answers are for nothing.
            reply = ("_INBOX.nobody", "_" * 2000, "_\xff", "_x.*", "_x.>", "")[number % 6]
            await client.publish(PROBE, (b"", b"\xff", b"{", b"[" * 5000)[number % 4], reply, headers={"a": "b"})
        # What nats-py itself would not send.
        await client._send_command(b"PUB %b _\xff\xfe 0\r\n\r\n" % PROBE.encode())
        await delivered(client)
        assert (await client.request(PROBE, timeout=SOON)).data
        sent = worker.beats_sent
        while worker.beats_sent < sent + 3:
            await spy.beat()
        assert worker._connection.link is link
        assert worker.last_problem is None
    await client.close()


async def test_probe_after_a_restart(nats: NatsServer) -> None:
    """The worker answers on a later connection, too."""
    async with beating_once(nats.url) as worker:
        worker._known.clear()
        nats.kill()
        await nats.stop()
        await nats.start()
        async with asyncio.timeout(SOON):
            await worker._known.wait()
        client = await nats_py.connect(nats.url)
        answer = msgspec.json.decode((await client.request(PROBE, timeout=SOON)).data, type=Heartbeat)
        await client.close()
    assert answer.seq == 3
    assert answer.incarnation == "mine"


async def test_no_answer_behind_the_goodbye(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is leaving answers no more: heard behind its goodbye, it would begin a new life."""
    client = await nats_py.connect(nats.url)
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    original = Link.deliver

    async def asked_meanwhile(link: Link, subject: str, payload: bytes, seconds: float) -> None:
        if subject == "liveness.goodbye.w1":
            await client.publish(PROBE, reply=inbox)
            await delivered(client)
        # It waits for the server's answer, which comes behind the probe.
        await original(link, subject, payload, seconds)
        await link.answer(seconds)

    monkeypatch.setattr(Link, "deliver", asked_meanwhile)
    async with beating_once(nats.url):
        await client.publish(PROBE, reply=inbox)
        assert (await answers.next_msg(SOON)).data
    await delivered(client)
    assert answers.pending_msgs == 0
    await client.close()
