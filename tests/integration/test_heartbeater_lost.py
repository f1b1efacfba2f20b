"""What a heartbeater knows of its own end: lost, superseded, and a life after that."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import msgspec
import nats as nats_py
import pytest
from nats.aio.client import Client

from liveness.client import Heartbeater, LostError, life
from liveness.client.clock import clock
from liveness.embedded import NatsServer
from liveness.messages import Goodbye, Heartbeat, HelloAnswer, Superseded
from tests.conftest import SOON, HostTables, delivered
from tests.integration.beats import FakeServer, Spy, spying
from tests.integration.running import News, Serve, ask, hello
from tests.integration.test_heartbeater_hello import Desk, answer_to

REFUSED = b"-ERR 'Permissions Violation for Publish to \"liveness.4.1.heartbeat.w1\"'\r\n"
ELSEWHERE = b"-ERR 'Permissions Violation for Publish to \"liveness.hello.w1\"'\r\n"


@pytest.fixture
async def desk(nats: NatsServer) -> AsyncIterator[Desk]:
    """Where hellos come in."""
    client = await nats_py.connect(nats.url)
    desk = Desk(client)
    await desk.open()
    yield desk
    await client.close()


async def soon(event: asyncio.Event) -> None:
    """Wait for an event that has to come."""
    async with asyncio.timeout(SOON):
        await event.wait()


async def test_beats_that_are_taken_keep_it(nats: NatsServer, ahead: Callable[[float], None]) -> None:
    """Without any service, and for many ttls."""
    async with spying(nats.url) as spy, Heartbeater(nats.url, worker="w1", ttl=600, interval=0.02) as worker:
        for _ in range(40):
            await spy.beat()
            ahead(50)
        assert not worker.lost.is_set()
        assert 0 < worker.remaining <= 600
        worker.check()


async def test_it_is_lost_when_nats_takes_nothing(nats: NatsServer) -> None:
    """It is told so once; and its beats go on when NATS is back, but it stays lost."""
    told = []
    async with Heartbeater(nats.url, worker="w1", ttl=0.5, on_lost=lambda: told.append(clock())) as worker:
        assert (worker.margin, worker.interval) == (0.1, 0.1)
        nats.pause()
        await soon(worker.lost)
        assert worker.loss == "had no beat taken by NATS for 0.4 s of its ttl of 0.5 s"
        assert worker.remaining == 0.0
        assert worker.grace <= 0.1
        sent = worker.beats_sent
        nats.resume()
        async with spying(nats.url) as spy:
            while worker.beats_sent < sent + 3:
                await spy.beat()
        with pytest.raises(LostError, match="worker w1 had no beat taken"):
            worker.check()
        assert (worker.remaining, len(told)) == (0.0, 1)


async def test_what_is_asked_is_answered_by_the_clock(nats: NatsServer, ahead: Callable[[float], None]) -> None:
    """By any thread, and before the loop has had a turn: it may be blocked, or the machine was suspended."""
    async with Heartbeater(nats.url, worker="w1", ttl=600) as worker:
        assert 580 < worker.remaining <= 590
        worker.check(500)
        with pytest.raises(LostError, match="s left, and 595 are asked for"):
            worker.check(595)
        ahead(595)
        answers: list[object] = []

        def ask() -> None:
            try:
                worker.check()
            except LostError as error:
                answers.append((str(error), worker.remaining, worker.grace < 6))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert answers == [("worker w1 had no beat taken by NATS for 590 s of its ttl of 600 s", 0.0, True)]
        # The loop finds it by itself, though its own clock has not moved.
        await soon(worker.lost)


async def test_a_beat_behind_a_suspension_is_too_late(nats: NatsServer, ahead: Callable[[float], None]) -> None:
    """It is taken at once, and its work was given away before that."""
    async with spying(nats.url) as spy, Heartbeater(nats.url, worker="w1", ttl=600, interval=0.02) as worker:
        await spy.beat()
        ahead(595)
        seen = worker.beats_sent
        while worker.beats_sent < seen + 2:
            await spy.beat()
        assert worker.lost.is_set()


@pytest.mark.parametrize(("words", "lost"), [(REFUSED, True), (ELSEWHERE, False)])
async def test_beats_that_are_refused_prove_nothing(
    ahead: Callable[[float], None], words: bytes, *, lost: bool
) -> None:
    """The server answers, and gives them to nobody; what else it refuses is another matter."""

    def slow(_connection: int, _beat: int) -> bytes:
        ahead(50)
        return words

    async with (
        FakeServer(slow) as server,
        Heartbeater(server.url, worker="w1", ttl=600, interval=0.02) as worker,
    ):
        for _ in range(15):
            await server.next()
        assert worker.lost.is_set() == lost
        assert bool(worker.beats_sent) != lost


async def test_it_counts_from_when_the_beat_was_sent(ahead: Callable[[float], None]) -> None:
    """And not from the answer, however long that takes."""

    def slow(_connection: int, _beat: int) -> bytes:
        ahead(100)
        return b""

    async with FakeServer(slow) as server, Heartbeater(server.url, worker="w1", ttl=600) as worker:
        assert 480 < worker.remaining <= 490


async def test_a_beat_that_is_sent_proves_nothing() -> None:
    """Each connection takes one, and is silent from there on: who knows whether it ever came."""
    async with (
        FakeServer(lambda *_: None) as server,
        Heartbeater(server.url, worker="w1", ttl=1.2, interval=0.1) as worker,
    ):
        await soon(worker.lost)
        assert worker.beats_sent == 0


async def test_a_worker_that_was_never_heard(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was promised to it, so it may not rely on anything; and it is told when a ttl would be over."""
    monkeypatch.setattr("liveness.client.heartbeater.ENTER_SECONDS", 0.05)
    await nats.stop()
    async with Heartbeater(nats.url, worker="w1", ttl=0.5) as worker:
        assert worker.remaining == 0.0
        assert not worker.lost.is_set()
        with pytest.raises(LostError, match="w1 was not heard yet"):
            worker.check()
        await soon(worker.lost)


async def test_after_the_goodbye_nothing_remains(nats: NatsServer) -> None:
    """Its work is on its way back, though nobody has lost it."""
    async with Heartbeater(nats.url, worker="w1", ttl=600) as worker:
        worker.check()
    assert (worker.remaining, worker.lost.is_set()) == (0.0, False)
    with pytest.raises(LostError, match="w1 has said goodbye"):
        worker.check()


@pytest.mark.parametrize(
    ("ttl", "granted", "window", "interval"),
    [(600, 50, 40, 10), (None, 5, 4, 1), (50, 600, 40, 10), (600, None, 590, 120)],
)
async def test_the_ttl_that_the_service_grants_counts(
    nats: NatsServer, desk: Desk, ttl: float | None, granted: float | None, window: float, interval: float
) -> None:
    """If it is the shorter one, or none was stated; and beats come often enough for it, without delay."""
    entering = asyncio.create_task(Heartbeater(nats.url, worker="w1", ttl=ttl).__aenter__())
    said, answer = await desk.next()
    epoch = HelloAnswer(worker="w1", incarnation=said.incarnation, epoch=7, ttl=granted)
    await answer(msgspec.json.encode(epoch))
    worker = await entering
    assert await worker.welcome(SOON)
    assert window - 1 < worker.remaining <= window
    assert worker.interval == interval
    await worker.__aexit__(None, None, None)


async def test_superseded_is_lost(nats: NatsServer) -> None:
    """Both are called, once, and what they raise reaches nobody."""
    told: list[str] = []

    def on_superseded() -> None:
        told.append("superseded")
        raise KeyError("the worker's own")

    async with spying(nats.url) as spy:
        async with Heartbeater(
            nats.url, worker="w1", ttl=600, on_superseded=on_superseded, on_lost=lambda: told.append("lost")
        ) as worker:
            await spy.beat()
            for _ in range(2):
                notice = Superseded(
                    epoch=7, incarnation=worker.incarnation, new_epoch=9, new_incarnation=worker.incarnation
                )
                await spy.client.publish("liveness.superseded.w1", msgspec.json.encode(notice))
            await soon(worker.lost)
            assert told == ["superseded", "lost"]
            assert worker.superseded.is_set()
            assert "KeyError" in (worker.last_problem or "")
            assert worker.grace == 0.0
            with pytest.raises(LostError, match="its epoch 7 is over, and its work was given away"):
                worker.check()
        await spy.goodbye()
    assert told == ["superseded", "lost"]


async def test_a_new_life_begins_when_everything_is_dropped(
    serve: Serve, host: HostTables, nats: NatsServer, ahead: Callable[[float], None]
) -> None:
    """What the former one held is PENDING by then, what is claimed after that stays, and nothing is lost any more."""
    await serve()
    await host.worker("w1")
    async with Heartbeater(nats.url, worker="w1", ttl=60) as worker:
        assert await worker.welcome(SOON)
        former = worker.epoch
        (dropped,) = await host.workflows("w1")
        ahead(55)
        await soon(worker.lost)
        assert await host.state(dropped) == ("RUNNING", "w1")
        with worker.holding(dropped), pytest.raises(RuntimeError, match="1 held still"):
            await worker.begin_again()

        async with asyncio.timeout(SOON):
            await worker.begin_again()
        assert worker.epoch is not None
        assert worker.epoch > (former or 0)
        assert await host.state(dropped) == ("PENDING", None)
        (claimed,) = await host.workflows("w1")
        assert not worker.lost.is_set()
        assert (worker.loss, worker.superseded.is_set()) == (None, False)
        worker.check(30)
        assert await host.state(claimed) == ("RUNNING", "w1")


async def test_a_goodbye_that_comes_behind_the_next_life_leaves_it_alone(
    serve: Serve, host: HostTables, nats: NatsServer, client: Client, news: News, ahead: Callable[[float], None]
) -> None:
    """By another server that stood still it may come as late as that; the one with which it leaves counts."""
    service = await serve()
    assert service.parts is not None
    counts = service.parts.intake.counts
    await host.worker("w1")
    goodbyes = await client.subscribe("liveness.goodbye.w1")
    async with Heartbeater(nats.url, worker="w1", ttl=60) as worker:
        assert await worker.welcome(SOON)
        ahead(55)
        await soon(worker.lost)
        async with asyncio.timeout(SOON):
            await worker.begin_again()
        (claimed,) = await host.workflows("w1")
        await client.publish("liveness.goodbye.w1", (await goodbyes.next_msg(SOON)).data)
        (line,) = (await ask(client, "status"))["workers"]
        assert (counts["goodbye_stale"], line["epoch"], line["state"]) == (1, worker.epoch, "live")
        assert await host.state(claimed) == ("RUNNING", "w1")
    assert (await news.until("workflow.reclaimed")).subject == claimed
    assert counts["goodbye_stale"] == 1


async def test_beats_count_while_the_next_life_is_waited_for(
    nats: NatsServer, desk: Desk, ahead: Callable[[float], None]
) -> None:
    """An answer that takes long is no silence: what was beaten behind its hello is of the next life."""
    async with spying(nats.url) as spy, Heartbeater(nats.url, worker="w1", ttl=600, interval=0.02) as worker:
        hello, answer = await desk.next()
        await answer(answer_to(hello, 7))
        assert await worker.welcome(SOON)
        ahead(601)
        await soon(worker.lost)
        beginning = asyncio.create_task(worker.begin_again())
        hello, answer = await desk.next()
        ahead(601)
        seen = worker.beats_sent
        while worker.beats_sent < seen + 2:
            await spy.next()
        await answer(answer_to(hello, 8))
        async with asyncio.timeout(SOON):
            await beginning
        assert (worker.epoch, worker.lost.is_set(), worker.loss) == (8, False, None)
        assert worker.remaining > 500


async def test_what_is_told_of_a_life_that_was_given_up_is_no_news(nats: NatsServer, desk: Desk) -> None:
    """It was lost, and the service has ended it as well; a notice of that may come late."""
    told: list[int | None] = []
    async with spying(nats.url) as spy:
        heartbeater = Heartbeater(
            nats.url, worker="w1", ttl=60, on_superseded=lambda: told.append(heartbeater.superseded_epoch)
        )
        entering = asyncio.create_task(heartbeater.__aenter__())
        for epoch in (7, 9):
            said, answer = await desk.next()
            if epoch == 9:
                await tell(spy, heartbeater, 7)
            await answer(answer_to(said, epoch))
            await entering
            async with asyncio.timeout(SOON):
                await (heartbeater.greeted.wait() if epoch == 9 else heartbeater.welcome(SOON))
            if epoch == 7:
                again = asyncio.create_task(heartbeater.begin_again())
        await again
        for over in (7, 9):
            await tell(spy, heartbeater, over)
        await soon(heartbeater.lost)
        assert told == [9]
        await heartbeater.__aexit__(None, None, None)


async def test_an_answer_before_the_last_goodbye_does_not_count(
    nats: NatsServer, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The life that it tells of may have been ended by that."""
    monkeypatch.setattr(life, "GREET_AGAIN_SECONDS", 0.05)
    async with spying(nats.url) as spy:
        worker = Heartbeater(nats.url, worker="w1", ttl=60, interval=0.02)
        entering = asyncio.create_task(worker.__aenter__())
        said, answer = await desk.next()
        await answer(answer_to(said, 7))
        await entering
        again = asyncio.create_task(worker.begin_again())
        said, late = await desk.next()
        said, answer = await desk.next()
        await late(answer_to(said, 9))
        await spy.client.flush()
        for _ in range(3):
            await spy.next()
        assert (worker.epoch, again.done()) == (None, False)
        while not again.done():
            await answer(answer_to(said, 11))
            said, answer = await desk.next() if desk.waiting else (said, answer)
            await asyncio.wait({again}, timeout=0.01)
        assert worker.epoch == 11
        await worker.__aexit__(None, None, None)


async def tell(spy: Spy, worker: Heartbeater, epoch: int) -> None:
    """Tell the worker that an epoch is over."""
    notice = Superseded(
        epoch=epoch, incarnation=worker.incarnation, new_epoch=epoch + 1, new_incarnation=worker.incarnation
    )
    await spy.client.publish("liveness.superseded.w1", msgspec.json.encode(notice))
    await delivered(spy.client)


async def test_no_life_begins_again_where_a_newer_process_bears_the_name(
    serve: Serve, host: HostTables, nats: NatsServer
) -> None:
    """Its work stays its own: a hello under a new incarnation would take it, and so on for ever."""
    await serve()
    await host.worker("w1")
    client = await nats_py.connect(nats.url)
    async with Heartbeater(nats.url, worker="w1", ttl=60, interval=0.1) as worker:
        assert await worker.welcome(SOON)
        assert (await hello(client, "w1", incarnation="newer", ttl=60, uptime=0.0))["epoch"]
        (workflow,) = await host.workflows("w1")
        await soon(worker.lost)
        with pytest.raises(LostError, match=r"cannot begin again: .*newer one of w1 was heard"):
            async with asyncio.timeout(SOON):
                await worker.begin_again()
        assert worker.lost.is_set()
        assert worker.epoch is None
        assert await host.state(workflow) == ("RUNNING", "w1")
    assert await host.state(workflow) == ("RUNNING", "w1")
    await client.close()


async def test_a_life_that_did_not_end_is_given_up_again(
    nats: NatsServer, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A goodbye that nobody heard leaves its work with it: it is said until there is another epoch, and not after."""
    monkeypatch.setattr(life, "GREET_AGAIN_SECONDS", 0.05)
    async with spying(nats.url) as spy:
        entering = asyncio.create_task(
            Heartbeater(nats.url, worker="w1", incarnation="mine", ttl=60, interval=0.02).__aenter__()
        )
        said, answer = await desk.next()
        await answer(answer_to(said, 7))
        worker = await entering
        assert await worker.welcome(SOON)
        again = asyncio.create_task(worker.begin_again())
        for epoch in (7, 7, 9):
            while isinstance(message := await spy.next(), Heartbeat):
                pass
            assert message == Goodbye(incarnation="mine", uptime=message.uptime)
            said, answer = await desk.next()
            assert (message.uptime or 0.0) < (said.uptime or 0.0)
            assert (worker.epoch, said.incarnation, again.done()) == (None, "mine", False)
            await answer(answer_to(said, epoch))
        async with asyncio.timeout(SOON):
            await again
        assert worker.epoch == 9
        for _ in range(5):
            await spy.beat()
        await worker.__aexit__(None, None, None)


async def test_leaving_ends_the_wait_for_a_new_life(nats: NatsServer) -> None:
    """There is no service, and so it would never begin."""
    async with Heartbeater(nats.url, worker="w1", ttl=60) as worker:
        again = asyncio.create_task(worker.begin_again())
        await asyncio.wait({again}, timeout=0)
        assert not again.done()
    with pytest.raises(LostError, match="cannot begin again: it is leaving"):
        await again
    with pytest.raises(RuntimeError, match="is not leaving"):
        await worker.begin_again()


async def test_who_is_beaten_for_relies_on_who_beats(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot know when that was heard last, and is stopped by it; but what it is told counts."""
    monkeypatch.setenv("LIVENESS_WORKER", "w1")
    monkeypatch.setenv("LIVENESS_INCARNATION", "outer")
    async with spying(nats.url) as spy, Heartbeater(nats.url) as worker:
        assert worker.remaining == float("inf")
        worker.check(1e9)
        with pytest.raises(RuntimeError, match="beats for itself"):
            await worker.begin_again()
        notice = Superseded(epoch=7, incarnation="outer", new_epoch=9, new_incarnation="outer")
        await spy.client.publish("liveness.superseded.w1", msgspec.json.encode(notice))
        await soon(worker.lost)
        with pytest.raises(LostError, match="its epoch 7 is over"):
            worker.check()
