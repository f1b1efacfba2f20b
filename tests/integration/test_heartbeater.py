import asyncio
import logging
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import nats as nats_py
import pytest

from liveness import link
from liveness.client import Heartbeater, heartbeater
from liveness.client.clock import clock
from liveness.client.connection import Connection
from liveness.embedded import NatsServer
from liveness.messages import Goodbye, Heartbeat, Superseded
from tests.conftest import delivered
from tests.integration.beats import FakeServer, spying
from tests.integration.conftest import Logs

SECONDS = 10


@pytest.fixture
def logs() -> Iterator[Logs]:
    """Yield what the client logs from here on."""
    taken = Logs()
    logger = logging.getLogger("liveness.client")
    logger.addHandler(taken)
    logger.setLevel(logging.INFO)
    yield taken
    logger.removeHandler(taken)


async def test_it_is_as_old_as_its_body(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made long before it is entered: it could claim nothing before, and what was claimed then is another's."""
    now = clock()
    monkeypatch.setattr("liveness.client.surroundings.clock", lambda: now - 1000.0)
    worker = Heartbeater(nats.url, worker="w1")
    monkeypatch.undo()
    async with spying(nats.url) as spy, worker:
        assert ((await spy.beat()).uptime or 0.0) < 500.0
        assert not worker.lost.is_set()


async def test_first_beat_comes_at_once(nats: NatsServer) -> None:
    """Once entered, the worker has been heard, and its beat says what the contract asks for."""
    async with (
        spying(nats.url) as spy,
        Heartbeater(nats.url, worker="host.example.w1", ttl=600, interval=100) as worker,
    ):
        assert worker.beats_sent == 1
        assert worker.connected
        beat = await spy.beat()
        assert (beat.incarnation, beat.seq, beat.ttl, beat.interval) == (worker.incarnation, 1, 600, 100)
        assert beat.uptime is not None
        assert 0 <= beat.uptime < 5
        assert beat.via == spy.client._server_info["server_id"]
        assert worker.last_problem is None


async def test_subject_carries_name_and_prefix(nats: NatsServer) -> None:
    """The subject is the identity: prefix and name stand in it as they were given."""
    client = await nats_py.connect(nats.url)
    subscription = await client.subscribe("house.>")
    await delivered(client)
    async with Heartbeater(nats.url, worker="a.b", prefix="house", incarnation="mine"):
        hello, beat = [await subscription.next_msg(SECONDS) for _ in range(2)]
    goodbye = await subscription.next_msg(SECONDS)
    await client.close()
    said = [hello, beat, goodbye]
    assert [message.subject for message in said] == ["house.hello.a.b", "house.heartbeat.a.b", "house.goodbye.a.b"]
    assert {msgspec.json.decode(message.data)["incarnation"] for message in said} == {"mine"}
    assert "ttl" not in msgspec.json.decode(beat.data)


async def test_beats_are_steady(nats: NatsServer) -> None:
    """Beats follow each other at the interval, each with the next number."""
    async with (
        spying(nats.url) as spy,
        Heartbeater(nats.url, worker="w1", ttl=1, interval=0.05) as worker,
    ):
        beats = [await spy.beat() for _ in range(6)]
        assert [beat.seq for beat in beats] == [1, 2, 3, 4, 5, 6]
        uptimes = [beat.uptime or 0 for beat in beats]
        assert uptimes == sorted(uptimes)
        assert uptimes[5] - uptimes[0] > 0.2
        assert worker.beats_sent >= 5


async def test_stall_is_followed_by_one_beat(nats: NatsServer) -> None:
    """After the loop stood still a beat comes at once, and the missed ones are not made up for."""
    async with spying(nats.url) as spy, Heartbeater(nats.url, worker="w1", ttl=1, interval=0.1):
        before = await spy.beat()
        end = time.monotonic() + 0.65
        while time.monotonic() < end:
            pass
        uptimes = [(await spy.beat()).uptime or 0 for _ in range(4)]
        assert uptimes[0] - (before.uptime or 0) > 0.6
        assert uptimes[3] - uptimes[0] > 0.15


async def test_entering_while_nats_is_away(nats: NatsServer, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker starts without NATS, and is heard as soon as NATS is there."""
    monkeypatch.setattr(heartbeater, "ENTER_SECONDS", 0.05)
    await nats.stop()
    async with asyncio.timeout(SECONDS), Heartbeater(nats.url, worker="w1", ttl=600) as worker:
        assert not worker.connected
        await logs.until("cannot connect")
        assert "refused" in (worker.last_problem or "").lower() or "connect" in (worker.last_problem or "").lower()
        await nats.start()
        await worker._known.wait()
        assert worker.beats_sent == 1
        assert worker.connected
    assert len([line for line in logs.seen if "cannot connect" in line]) == 1


async def test_leaving_while_nats_was_never_there(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that nobody could hear ends without ado."""
    monkeypatch.setattr(heartbeater, "ENTER_SECONDS", 0.05)
    await nats.stop()
    async with asyncio.timeout(5):
        async with Heartbeater(nats.url, worker="w1"):
            pass


async def test_exception_of_the_body(nats: NatsServer) -> None:
    """What the body raises comes out unchanged, after a goodbye of this incarnation behind the last beat."""
    error = KeyError("the body's own")
    async with spying(nats.url) as spy:
        with pytest.raises(KeyError) as caught:
            async with Heartbeater(nats.url, worker="w1", incarnation="mine", ttl=1, interval=0.01):
                raise error
        assert caught.value is error
        assert await spy.goodbye() == Goodbye(incarnation="mine")


async def test_normal_end(nats: NatsServer) -> None:
    """A body that ends says goodbye, and nothing is left running."""
    async with spying(nats.url) as spy:
        before = asyncio.all_tasks()
        async with Heartbeater(nats.url, worker="w1", ttl=1, interval=0.01) as worker:
            await spy.beat()
        assert await spy.goodbye() == Goodbye(incarnation=worker.incarnation)
        assert not worker.connected
        assert asyncio.all_tasks() <= before
    with pytest.raises(RuntimeError, match="entered once"):
        async with worker:
            pass


@pytest.mark.parametrize("times", [1, 2])
async def test_cancellation(nats: NatsServer, times: int) -> None:
    """A cancelled worker says goodbye and stays cancelled, also when it is cancelled again meanwhile."""
    inside = asyncio.Event()

    async def work() -> None:
        async with Heartbeater(nats.url, worker="w1", incarnation="mine"):
            inside.set()
            await asyncio.Event().wait()

    async with spying(nats.url) as spy, asyncio.timeout(SECONDS):
        task = asyncio.create_task(work())
        await inside.wait()
        for _ in range(times):
            task.cancel()
            # One turn of the loop, so that the second one meets the leaving.
            await asyncio.wait({task}, timeout=0)
        await asyncio.wait({task})
        assert task.cancelled()
        assert await spy.goodbye() == Goodbye(incarnation="mine")


async def test_cancellation_while_leaving(nats: NatsServer) -> None:
    """A cancellation that comes while the goodbye is said is not lost, and neither is the goodbye."""
    about_to_leave = asyncio.Event()

    async def work() -> None:
        async with Heartbeater(nats.url, worker="w1", incarnation="mine"):
            about_to_leave.set()

    async with spying(nats.url) as spy, asyncio.timeout(SECONDS):
        task = asyncio.create_task(work())
        await about_to_leave.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert await spy.goodbye() == Goodbye(incarnation="mine")


async def test_cancellation_while_entering(nats: NatsServer) -> None:
    """A worker cancelled before its body began leaves nothing behind."""
    nats.pause()
    before = asyncio.all_tasks()

    async def work() -> None:
        async with Heartbeater(nats.url, worker="w1"):
            raise AssertionError

    task = asyncio.create_task(work())
    await asyncio.wait({task}, timeout=0.05)
    task.cancel()
    async with asyncio.timeout(SECONDS):
        await asyncio.wait({task})
    assert task.cancelled()
    assert asyncio.all_tasks() <= before
    nats.resume()


async def test_leaving_while_nats_stands_still(nats: NatsServer) -> None:
    """Leaving costs about a second when the server says nothing, and raises nothing."""
    async with Heartbeater(nats.url, worker="w1", ttl=100) as worker:
        nats.pause()
        start = time.monotonic()
    assert time.monotonic() - start < 2
    assert worker.last_problem is not None or not worker.connected
    nats.resume()


async def test_restart_of_nats(nats: NatsServer, logs: Logs) -> None:
    """After an outage beats go on at once, and none of those that fell into it arrives late."""
    client = await nats_py.connect(nats.url)
    # The stream hears every beat, in the first moment after the restart too, and notes when it came.
    await client.jetstream().add_stream(name="BEATS", subjects=["liveness.heartbeat.>"])
    subscription = await client.subscribe("liveness.heartbeat.>")
    await delivered(client)
    async with Heartbeater(nats.url, worker="w1", ttl=1, interval=0.05) as worker:
        for _ in range(3):
            await subscription.next_msg(SECONDS)
        await client.close()
        nats.kill()
        await logs.until("lost NATS")
        assert not worker.connected
        await nats.stop()
        # Attempts to connect are the clock of the outage: at growing distances, the fourth comes after many intervals.
        attempts: asyncio.Queue[None] = asyncio.Queue()

        def turn_away(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            attempts.put_nowait(None)
            writer.transport.abort()

        in_place = await asyncio.start_server(turn_away, "127.0.0.1", nats.port)
        async with asyncio.timeout(SECONDS):
            for _ in range(4):
                await attempts.get()
        in_place.close()
        sent = worker.beats_sent
        await nats.start()
        await logs.until("goes on")
        async with spying(nats.url) as spy:
            while ((await spy.beat()).seq or 0) < sent + 3:
                pass
            context = spy.client.jetstream()
            last = (await context.stream_info("BEATS")).state.last_seq
            stored = [await context.get_msg("BEATS", number) for number in range(1, last + 1)]
    births, seqs = [], []
    for message in stored:
        beat = msgspec.json.decode(message.data or b"", type=Heartbeat)
        assert isinstance(message.time, datetime)
        births.append(message.time.timestamp() - (beat.uptime or 0))
        seqs.append(beat.seq or 0)
    assert seqs == sorted(set(seqs))
    # The moment of arrival minus the uptime is the same for all that came fresh; the outage alone took longer.
    assert max(births) - min(births) < 0.5
    assert len([line for line in logs.seen if "NATS at" in line]) == 1


async def test_beat_after_reconnect_is_not_awaited(nats: NatsServer, logs: Logs) -> None:
    """The first beat after an outage does not wait for the interval to pass."""
    async with Heartbeater(nats.url, worker="w1", ttl=6000, interval=1000) as worker:
        worker._known.clear()
        nats.kill()
        await logs.until("lost NATS")
        await nats.start()
        async with asyncio.timeout(SECONDS):
            await worker._known.wait()
        assert worker.beats_sent == 2


@pytest.mark.parametrize(
    "last_words",
    [
        b"-ERR 'Authentication Timeout'\r\n",
        b"-ERR 'User Authentication Expired'\r\n",
        b"-ERR 'maximum connections exceeded'\r\n",
        # nats-py's reading ends at this with an exception that it only logs.
        b"INFO {this is no JSON}\r\n",
        # And this is no word of the protocol.
        b"HELLO\r\n",
        # A half-open connection: nothing is said any more.
        None,
    ],
)
async def test_connection_that_is_no_good_is_replaced(logs: Logs, last_words: bytes | None) -> None:
    """Whatever ends or numbs nats-py's client, another one takes over, and beats at once."""
    async with (
        FakeServer(lambda connection, _: b"" if connection > 1 else last_words) as server,
        Heartbeater(server.url, worker="w1", ttl=600, interval=0.5) as worker,
    ):
        assert (await server.next())[0] == 1
        await logs.until("lost NATS")
        connection, beat = await server.next()
        assert connection == 2
        assert (beat.seq, beat.incarnation) == (2, worker.incarnation)
        assert worker.last_problem is not None


async def test_server_that_sends_everybody_away_is_not_pestered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts slow down also when each of them gets as far as a connection."""
    waits = []
    original = Connection.wait

    def note(self: Connection, attempts: int) -> float:
        waits.append(attempts)
        return original(self, attempts) / 10

    monkeypatch.setattr(Connection, "wait", note)
    async with (
        FakeServer(lambda *_: b"-ERR 'Authentication Timeout'\r\n") as server,
        Heartbeater(server.url, worker="w1", ttl=600),
    ):
        for _ in range(4):
            await server.next()
    assert waits[:4] == [0, 1, 2, 3]


async def test_late_answer_does_no_harm(nats: NatsServer) -> None:
    """An answer that nobody waits for any more leaves the connection as it is."""
    made = link.Link(lambda _: None)
    await made.open([nats.url], "test", "_INBOX")
    nats.pause()
    with pytest.raises(ConnectionError, match=r"no answer within 0\.01 s"):
        await made.answer(0.01)
    nats.resume()
    await made.answer(SECONDS)
    assert not made.lost.done()
    await made.drop()
    assert made.lost.done()


async def test_superseded(nats: NatsServer, logs: Logs) -> None:
    """The news that an epoch of this incarnation is over arrives; another incarnation's, and noise, does not."""
    async with (
        spying(nats.url) as spy,
        Heartbeater(nats.url, worker="w1", ttl=1, interval=0.05) as worker,
    ):
        other = Superseded(epoch=3, incarnation="another", new_epoch=4)
        for payload in (b"\xff", b"[]", msgspec.json.encode(other)):
            await spy.client.publish("liveness.superseded.w1", payload)
        await logs.until("does not decode")
        mine = Superseded(epoch=5, incarnation=worker.incarnation, new_epoch=6, new_incarnation=worker.incarnation)
        await spy.client.publish("liveness.superseded.w2", msgspec.json.encode(mine))
        await delivered(spy.client)
        assert not worker.superseded.is_set()
        await spy.client.publish("liveness.superseded.w1", msgspec.json.encode(mine))
        async with asyncio.timeout(SECONDS):
            await worker.superseded.wait()
        assert worker.superseded_epoch == 5
        sent = worker.beats_sent
        while ((await spy.beat()).seq or 0) <= sent + 1:
            pass


async def test_superseded_after_a_restart(nats: NatsServer, logs: Logs) -> None:
    """The worker still hears about its epoch on a later connection."""
    async with Heartbeater(nats.url, worker="w1", ttl=600) as worker:
        nats.kill()
        await logs.until("lost NATS")
        await nats.start()
        await logs.until("goes on")
        client = await nats_py.connect(nats.url)
        mine = Superseded(epoch=1, incarnation=worker.incarnation, new_epoch=2, new_incarnation=worker.incarnation)
        await client.publish("liveness.superseded.w1", msgspec.json.encode(mine))
        async with asyncio.timeout(SECONDS):
            await worker.superseded.wait()
        await client.close()


async def test_refused_subject_is_told(tmp_path: Path, logs: Logs) -> None:
    """A worker that may not publish its beats works on; the log says why nobody hears it."""
    config = 'authorization { users: [{user: u, password: secret, permissions: {publish: ["other"]}}] }'
    server = NatsServer(tmp_path / "nats", jetstream=False, config=config)
    await server.start()
    url = server.url.replace("nats://", "nats://u:secret@")
    async with Heartbeater(url, worker="w1", ttl=600) as worker:
        await logs.until("refuses")
        assert "liveness.heartbeat.w1" in (worker.last_problem or "")
    await server.stop()


async def test_beats_that_are_refused_do_not_go_on(logs: Logs) -> None:
    """It is told once, and not taken back by the answer to the next one."""
    refused = b"-ERR 'Permissions Violation for Publish to \"liveness.heartbeat.w1\"'\r\n"
    async with (
        FakeServer(lambda *_: refused) as server,
        Heartbeater(server.url, worker="w1", ttl=600, interval=0.02) as worker,
    ):
        for _ in range(5):
            await server.next()
        assert worker.beats_sent == 0
    told = logs.seen
    assert sum("refuses" in line for line in told) == 1, told
    assert not any("goes on" in line for line in told), told


async def test_alive_that_raises_says_no(nats: NatsServer, logs: Logs) -> None:
    """No beat is sent, which is told; the connection stands, so that it hears, and beats again once it can say yes."""
    broken, asked, enough = True, 0, asyncio.Event()

    def alive() -> bool:
        nonlocal asked
        asked += 1
        if asked == 5:
            enough.set()
        if broken:
            raise KeyError("state")
        return True

    async with (
        spying(nats.url) as spy,
        Heartbeater(nats.url, worker="w1", ttl=600, interval=0.02, alive=alive) as worker,
    ):
        await logs.until("alive has raised KeyError('state'): no beat is sent")
        async with asyncio.timeout(SECONDS):
            await enough.wait()
        assert (await spy.silent(), worker.beats_sent, worker.connected) == (True, 0, True)
        broken = False
        await spy.beat()
    assert not any("lost NATS" in line for line in logs.seen)


async def test_wrong_password_is_told_and_not_shown(
    tmp_path: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that NATS does not let in works on; the log names the cause, and no password."""
    monkeypatch.setattr(heartbeater, "ENTER_SECONDS", 0.05)
    server = NatsServer(tmp_path / "nats", jetstream=False, config="authorization { user: u, password: right }")
    await server.start()
    async with Heartbeater(server.url.replace("nats://", "nats://u:secret@"), worker="w1", ttl=600) as worker:
        await logs.until("uthorization")
        assert not worker.connected
    await server.stop()
    assert "secret" not in "".join(logs.seen)
