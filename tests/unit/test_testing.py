"""What users test their workers with: it behaves as the real thing, and the test decides."""

import asyncio
import contextlib
import inspect
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

import liveness
from liveness.client import DrainingError, Event, Heartbeater, LostError, SyncHeartbeater, events
from liveness.eventdata import EVENT_TYPES, WorkflowReclaimed, WorkReclaimed
from liveness.messages import Goodbye
from liveness.testing import FakeEvents, FakeHeartbeater, FakeSyncHeartbeater
from tests.conftest import SOON

# Nothing of these tests waits: whatever is waited for is there at once, or never.


def told(kind: type) -> dict[str, Any]:
    """Return the public members of a class, and how each is called."""
    members = {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}
    return {name: inspect.signature(member) if callable(member) else None for name, member in members.items()}


@pytest.mark.parametrize(("fake", "real"), [(FakeHeartbeater, Heartbeater), (FakeSyncHeartbeater, SyncHeartbeater)])
def test_the_fake_ones_are_the_real_ones(fake: type, real: type) -> None:
    """They can stand wherever a real one can, and be made with the same arguments."""
    assert issubclass(fake, real)
    assert {name: told(fake)[name] for name in told(real)} == told(real)
    played, given = (dict(inspect.signature(kind).parameters) for kind in (fake, real))
    assert played.pop("epoch").default == 1
    for parameters in (played, given):
        # The first names a server, which nobody needs to; the other's default is a function.
        for name in ("nats_url", "alive"):
            parameters[name] = parameters[name].replace(default=None)
    assert played == given


def test_both_flavours_tell_the_same() -> None:
    """What one has, the other has; and so it is with the fake ones."""
    assert set(told(Heartbeater)) == set(told(SyncHeartbeater))
    assert set(told(FakeHeartbeater)) == set(told(FakeSyncHeartbeater))
    assert set(vars(Heartbeater("nats://x", worker="w1"))) >= {"lost", "superseded", "greeted"}
    assert set(vars(SyncHeartbeater("nats://x", worker="w1"))) >= {"lost", "superseded", "greeted"}


async def test_the_time_stands_still_but_for_the_test() -> None:
    """So what remains is exact."""
    async with FakeHeartbeater(worker="w1", ttl=10) as worker:
        assert (worker.remaining, worker.grace, worker.epoch, worker.connected) == (8, 10, 1, True)
        worker.elapse(5)
        assert (worker.remaining, worker.grace) == (3, 5)
        worker.check(2)
        with pytest.raises(LostError, match="has 3 s left, and 4 are asked for"):
            worker.check(4)
        assert await worker.beat()
        assert worker.remaining == 8
        worker.elapse(8)
        assert worker.lost.is_set()
        assert await worker.beat()
        assert worker.remaining == 0
    with pytest.raises(ValueError, match="time does not go back"):
        worker.elapse(-1)


async def test_a_worker_that_is_lost() -> None:
    """It is told, has its margin left to stop in, and may begin again."""
    told = []
    async with FakeHeartbeater(worker="w1", ttl=10, on_lost=lambda: told.append("lost")) as worker:
        worker.lose()
        assert worker.lost.is_set()
        assert worker.grace == pytest.approx(2)
        with pytest.raises(LostError, match="had no beat taken"):
            worker.check()
        await worker.begin_again()
        assert (worker.epoch, worker.lost.is_set()) == (2, False)
        assert worker.remaining == pytest.approx(8)
        assert worker.goodbye is not None
        assert not worker.said_goodbye
    assert told == ["lost"]


async def test_the_goodbye_of_a_life_that_is_given_up_is_older_than_the_next_hello() -> None:
    """By however little, though no time has passed between: it may come behind that."""
    async with FakeHeartbeater(worker="w1", ttl=10) as worker:
        worker.elapse(5)
        await worker.begin_again()
        assert worker.goodbye is not None
        assert worker.goodbye.uptime is not None
        (_, hello) = worker._stage.hellos
        assert hello.uptime == 5.0
        assert 4.999 < worker.goodbye.uptime < 5.0


async def test_a_worker_that_is_superseded() -> None:
    """It lives under another epoch from then on."""
    told = []
    async with FakeHeartbeater(worker="w1", epoch=5, on_superseded=lambda: told.append("over")) as worker:
        worker.supersede()
        assert (worker.superseded.is_set(), worker.lost.is_set()) == (True, True)
        assert (worker.superseded_epoch, worker.epoch) == (5, 6)
        await worker.begin_again()
        assert (worker.superseded.is_set(), worker.epoch) == (False, 7)
        worker.supersede(99)
        assert worker.epoch == 99
    assert told == ["over", "over"]
    with pytest.raises(RuntimeError, match="nobody hears it"):
        worker.supersede()


async def test_a_hello_that_nobody_answers_at_first() -> None:
    """Nothing is waited for, and the answer is given when the test says so."""
    async with FakeHeartbeater(worker="w1", ttl=60, epoch=None) as worker:
        assert (worker.epoch, worker.greeted.is_set()) == (None, False)
        worker.grant(7, ttl=10)
        assert (worker.epoch, worker.greeted.is_set(), worker.interval) == (7, True, 2)


async def test_a_hello_that_is_refused() -> None:
    """Whoever bears the name now has its own life; beginning again is no way out."""
    async with FakeHeartbeater(worker="w1", epoch=None) as worker:
        worker.refuse("another one is w1")
        assert (worker.refusal, worker.superseded.is_set()) == ("another one is w1", True)
        with pytest.raises(LostError, match="another one is w1"):
            await worker.begin_again()


async def test_what_the_worker_says_is_noted() -> None:
    """Its work, its progress, and how it ended."""
    worker = FakeHeartbeater(worker="a.b", ttl=10)
    async with worker:
        with worker.holding("x"), worker.holding("y"):
            worker.progressed()
            assert (worker.held, worker.progress) == (("x", "y"), 1)
            await worker.beat()
        assert not worker.said_goodbye
        worker.died(exit_code=3)
    assert worker.was_held == ["x", "y"]
    assert [(beat.running, beat.progress) for beat in worker.heartbeats] == [(None, None), (["x", "y"], 1)]
    assert worker.said_goodbye
    assert worker.goodbye == Goodbye(incarnation=worker.incarnation, uptime=0.0, exit_code=3)
    assert not await worker.beat()


async def test_a_worker_that_drains() -> None:
    """By the real one's rules."""
    async with FakeHeartbeater(worker="w1") as worker:
        with worker.holding("x"):
            drained = asyncio.create_task(worker.drain())
            await asyncio.sleep(0)
            assert worker.draining
            with pytest.raises(DrainingError), worker.holding("y"):
                pass
        await drained
        assert worker.said_goodbye


async def test_whoever_is_adopted_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it lost by silence; but it hears when it is given up."""
    monkeypatch.setenv("LIVENESS_WORKER", "w1")
    monkeypatch.setenv("LIVENESS_INCARNATION", "outer")
    async with FakeHeartbeater() as worker:
        assert (worker.adopted, worker.remaining) == (True, math.inf)
        assert not await worker.beat()
        with pytest.raises(RuntimeError, match="supersede it"):
            worker.lose()
        worker.supersede(4)
        assert (worker.lost.is_set(), worker.epoch) == (True, 4)
    assert (worker.heartbeats, worker.said_goodbye) == ([], False)


def test_the_fake_one_without_a_loop() -> None:
    """The test is one thread, and the worker under test another."""
    stopped = []

    def work(worker: SyncHeartbeater) -> None:
        with worker.holding("x"):
            worker.lost.wait(SOON)
            stopped.append(worker.held)

    with FakeSyncHeartbeater(worker="w1", ttl=10, epoch=3) as worker:
        assert (worker.epoch, worker.remaining) == (3, 8)
        thread = threading.Thread(target=work, args=(worker,))
        thread.start()
        worker.elapse(7)
        worker.check(0.5)
        assert worker.beat()
        worker.lose()
        thread.join(SOON)
        assert stopped == [("x",)]
        worker.begin_again(SOON)
        assert (worker.epoch, worker.lost.is_set()) == (4, False)
        worker.supersede(9)
        assert worker.superseded.wait(SOON)
        worker.refuse("no")
        with pytest.raises(LostError, match="no"):
            worker.begin_again(SOON)
    assert (worker.was_held, worker.said_goodbye, worker.progress) == (["x"], True, 0)
    assert worker.goodbye is not None
    assert worker.goodbye == Goodbye(incarnation=worker.incarnation, uptime=worker.goodbye.uptime)
    assert worker.heartbeats


def test_the_fake_one_whose_hello_is_answered_later() -> None:
    """As `grant` says."""
    with FakeSyncHeartbeater(worker="w1", epoch=None) as worker:
        assert worker.epoch is None
        worker.grant(7)
        assert worker.epoch == 7


async def test_who_leaves_keeps_nobody_waiting_for_a_beat() -> None:
    """Whichever of the two comes first."""
    async with FakeHeartbeater(worker="w1") as worker:
        beat = asyncio.create_task(worker.beat())
        await asyncio.sleep(0)
        await worker.drain()
        async with asyncio.timeout(SOON):
            assert not await beat
        assert not await worker.beat()


def test_behind_the_block_a_sync_one_is_as_the_other() -> None:
    """No beat is sent, the time passes, and nobody hears what is said."""
    with FakeSyncHeartbeater(worker="w1", ttl=10) as worker:
        assert worker.drain()
    assert not worker.beat()
    worker.elapse(3)
    worker.lose()
    with pytest.raises(RuntimeError, match="nobody hears it"):
        worker.supersede()


async def test_events_are_finished_as_those_of_a_stream() -> None:
    """When the next one is asked for; the one whose body fails comes again."""
    source, seen = FakeEvents(), []

    async def subscribe() -> None:
        async with contextlib.aclosing(source("nats://x", durable="billing")) as news:
            async for event in news:
                seen.append((event.subject, event.deliveries))
                if seen == [("7", 1)]:
                    raise KeyError

    source.add("workflow.reclaimed", workflow_id="7", reason="died")
    with pytest.raises(KeyError):
        await subscribe()
    assert source.finished == []
    subscriber = asyncio.create_task(subscribe())
    source.add("worker.released", worker="w2")
    await source.all_finished()
    subscriber.cancel()
    await asyncio.wait({subscriber})

    assert seen == [("7", 1), ("7", 2), ("w2", 1)]
    first = source.finished[0]
    assert isinstance(first.data, WorkflowReclaimed)
    assert (first.data.workflow_id, first.data.reason, first.data.former_worker) == ("7", "died", "w1")
    assert [event.id for event in source.finished] == ["1", "2"]


async def test_events_of_other_types_stay() -> None:
    """For whoever asks for them."""
    source = FakeEvents()
    source.add("worker.expired")
    source.add("task.reclaimed", task_id="8")
    event = await anext(source("nats://x", durable="d", types=["task.reclaimed"]))
    assert (event.type, event.subject) == ("task.reclaimed", "8")


def test_events_of_tables_of_ones_own() -> None:
    """Whose type begins with what the work is called there."""
    event = FakeEvents().add("invoice.reclaimed", subject="7", reason="died")
    assert isinstance(event.data, WorkReclaimed)
    assert (event.subject, event.data.reason) == ("7", "died")


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_event_can_be_made(kind: str) -> None:
    """Without a word on what is in it."""
    event = FakeEvents().add(kind)
    assert isinstance(event, Event)
    assert type(event.data) is EVENT_TYPES[kind]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda source: source.add("workflow.stolen"), "no event type 'workflow.stolen'"),
        (lambda source: source.add("worker.expired", workflow_id="7"), "worker.expired has no field 'workflow_id'"),
        (lambda source: source.add("worker.expired", epoch="7"), "worker.expired cannot be so"),
    ],
)
def test_events_that_cannot_be(make: Callable[[FakeEvents], Event], words: str) -> None:
    """A test that speaks of what there is not would prove nothing."""
    with pytest.raises(ValueError, match=words):
        make(FakeEvents())


def test_fake_events_stand_for_the_real_ones() -> None:
    """They can be called as these can, and in no other way: a typing error is found by the test, and not in use."""
    assert inspect.signature(FakeEvents()) == inspect.signature(events)
    assert liveness.events is events


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("nats://x", {"durable": "bill.ing"}),
        ("nats://x", {"durable": "billing", "types": []}),
        ("nats://x", {"durable": "billing", "types": ["workflow reclaimed"]}),
        ("nats://x", {"durable": "billing", "stream": ""}),
        ("nats://x", {"durable": "billing", "ack_wait": 0.0}),
        ("http://x", {"durable": "billing"}),
    ],
)
def test_fake_events_refuse_what_the_real_ones_do(url: str, options: dict[str, Any]) -> None:
    """With the same words."""
    with pytest.raises(ValueError, match=r"\w") as real:
        events(url, **options)
    with pytest.raises(ValueError, match=r"\w") as fake:
        FakeEvents()(url, **options)
    assert str(fake.value) == str(real.value)
