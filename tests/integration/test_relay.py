"""The news, from the outbox to the stream."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import nats as nats_py
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from liveness.bus import Bus
from liveness.embedded import NatsServer
from liveness.publishing import Event
from liveness.relay import BATCH_BESIDE, BESIDE_MOST, RATE_BESIDE, Relay
from liveness.settings import Settings
from liveness.store import Store
from tests.conftest import SOON, HostTables
from tests.integration.conftest import Grant, case

SUBJECTS = ["workflow.reclaimed", "task.reclaimed", "worker.expired", "worker.released", "worker.recovered"]


@pytest.fixture
async def bus(nats: NatsServer) -> AsyncIterator[Bus]:
    """A connected bus with the events' stream."""
    connected = Bus(nats.url)
    await connected.connect()
    await connected.ensure_stream("LIVENESS_EVENTS", SUBJECTS, 600.0, 1 << 24)
    yield connected
    await connected.close()


@pytest.fixture
async def reader(nats: NatsServer) -> AsyncIterator[Client]:
    """A plain client that looks at the stream."""
    client = await nats_py.connect(nats.url)
    yield client
    await client.close()


def relay_through(store: Store, settings: Settings, bus: Bus) -> Relay:
    """Make a relay as the service does."""
    return Relay(store=store, settings=settings, publish=lambda events: bus.publish_events("LIVENESS_EVENTS", events))


async def stored(client: Client) -> list[tuple[str, dict[str, str], dict[str, object]]]:
    """Return subject, headers and envelope of everything in the stream."""
    context = client.jetstream()
    state = (await context.stream_info("LIVENESS_EVENTS")).state
    messages = []
    for seq in range(state.first_seq, state.last_seq + 1):
        message = await context.get_msg("LIVENESS_EVENTS", seq)
        assert message.subject is not None
        assert message.data is not None
        messages.append((message.subject, dict(message.headers or {}), msgspec.json.decode(message.data)))
    return messages


async def test_events_are_published_as_cloud_events(
    host: HostTables, store: Store, settings: Callable[..., Settings], grant: Grant, bus: Bus, reader: Client
) -> None:
    """Literally on their subjects, the outbox id as id and Nats-Msg-Id, and the outbox is empty afterwards."""
    (workflow,) = await host.workflows("w1")
    await store.reclaims.settle([case("w1", await grant("w1"))])
    ids = [event.id for event in await store.outbox.pending(0, 10)]

    done = await relay_through(store, settings(), bus).run_once()

    messages = await stored(reader)
    assert (done.published, done.complaint) == (2, None)
    assert [subject for subject, _, _ in messages] == ["worker.expired", "workflow.reclaimed"]
    assert [envelope["id"] for _, _, envelope in messages] == ids
    _, headers, envelope = messages[1]
    assert headers["Nats-Msg-Id"] == ids[1]
    assert headers["Nats-Expected-Stream"] == "LIVENESS_EVENTS"
    assert headers["Content-Type"] == "application/cloudevents+json"
    data = envelope.pop("data")
    assert isinstance(data, dict)
    assert envelope.keys() == {"specversion", "id", "source", "type", "subject", "time", "datacontenttype"}
    assert (envelope["specversion"], envelope["type"], envelope["subject"]) == ("1.0", "workflow.reclaimed", workflow)
    assert list(data) == [
        "workflow_id", "kind", "queue", "former_worker", "incarnation", "epoch", "reason", "last_heartbeat_at",
        "lapsed_at", "reclaimed_at", "reclaim_count",
    ]  # fmt: skip
    assert await host.outbox() == []


async def test_an_event_published_twice_is_in_the_stream_once(
    host: HostTables, store: Store, settings: Callable[..., Settings], grant: Grant, bus: Bus, reader: Client
) -> None:
    """A relay that died between acknowledgement and clearing does no harm."""
    await host.workflows("w1", 10)
    await store.reclaims.settle([case("w1", await grant("w1"))])
    relay = relay_through(store, settings(), bus)
    events = [relay._event(event) for event in await store.outbox.pending(0, 100)]
    acknowledged, _ = await bus.publish_events("LIVENESS_EVENTS", events)
    assert len(acknowledged) == 11

    await relay.run_once()

    assert len(await stored(reader)) == 11
    assert await host.outbox() == []


async def test_nothing_is_cleared_that_was_not_acknowledged(
    host: HostTables, store: Store, settings: Callable[..., Settings], grant: Grant, bus: Bus
) -> None:
    """When the stream is gone, the events stay, and go out when it is back."""
    await host.workflows("w1", 3)
    await store.reclaims.settle([case("w1", await grant("w1"))])
    relay = relay_through(store, settings(), bus)

    async with asyncio.timeout(SOON):
        elsewhere = Relay(store=store, settings=settings(), publish=lambda events: bus.publish_events("OTHER", events))
        done = await elsewhere.run_once()
    assert done.published == 0
    assert done.complaint
    assert len(await host.outbox()) == 4
    assert not elsewhere.emptied

    assert (await relay.run_once()).published == 4
    assert relay.emptied
    assert relay.published == 4


async def test_a_parcel_stays_until_all_of_its_events_are_acknowledged(
    host: HostTables, store: Store, settings: Callable[..., Settings], grant: Grant, bus: Bus, reader: Client
) -> None:
    """It is published again whole, under the same ids, and the stream holds each once."""
    works = await host.workflows("w1", 5)
    await store.reclaims.settle([case("w1", await grant("w1"))])
    asked: list[list[str]] = []

    async def half(events: Sequence[Event]) -> tuple[list[int], str | None]:
        asked.append([event.id for event in events])
        positions, _ = await bus.publish_events("LIVENESS_EVENTS", events[:3])
        return positions, "the stream does not answer"

    done = await Relay(store=store, settings=settings(), publish=half).run_once()
    left = [event.id for event in await store.outbox.pending(0, 10)]
    await relay_through(store, settings(), bus).run_once()

    assert done.published == 3
    assert left == asked[0][1:]
    messages = await stored(reader)
    assert [headers["Nats-Msg-Id"] for _, headers, _ in messages] == asked[0]
    assert {envelope["subject"] for _, _, envelope in messages[1:]} == set(works)
    assert await host.outbox() == []


async def test_what_is_in_a_parcel_is_told_as_it_is(host: HostTables, store: Store, grant: Grant) -> None:
    """Whatever characters a host uses in its kinds and queues, and whoever it names so."""
    odd = 'a "quoted" \\ line\nüñ'
    await host.workflows("w1")
    await host.connection.execute("UPDATE workflow_execution SET kind = $1, queue = $1", odd)
    await store.reclaims.settle([case("w1", await grant("w1"))])

    (_, event) = await store.outbox.pending(0, 10)

    data = msgspec.json.decode(event.data)
    assert (data["kind"], data["queue"], data["former_worker"], data["reclaim_count"]) == (odd, odd, "w1", 1)
    assert data["workflow_id"] == event.subject


async def test_an_earlier_transaction_is_acknowledged_before_a_later_one_is_sent(
    host: HostTables, store: Store, settings: Callable[..., Settings], grant: Grant
) -> None:
    """For each worker; a failure in between stops what would overtake it."""
    await store.reclaims.settle([case("w1", await grant("w1"))])
    await store.epochs.recover({"w1": await grant("w1")})
    await host.workflows("w1")
    await store.reclaims.settle([case("w1", await grant("w1"))])
    sent: list[list[str]] = []

    async def publish(events: Sequence[Event]) -> tuple[list[int], str | None]:
        sent.append([event.subject for event in events])
        return (list(range(len(events))), None) if len(sent) == 1 else ([], "the stream does not answer")

    done = await Relay(store=store, settings=settings(), publish=publish).run_once()

    assert sent == [["worker.expired"], ["worker.recovered"]]
    assert done.published == 1
    assert [kind for kind, _ in await host.outbox()] == ["worker.recovered", "worker.expired", "workflow.reclaimed"]


async def test_a_prefix_is_put_before_the_events_subjects(
    store: Store, settings: Callable[..., Settings], grant: Grant
) -> None:
    """For hosts whose own stream takes the plain ones."""
    await store.reclaims.settle([case("w1", await grant("w1"))])
    subjects: list[str] = []

    async def publish(events: Sequence[Event]) -> tuple[list[int], str | None]:
        subjects.extend(event.subject for event in events)
        return list(range(len(events))), None

    await Relay(store=store, settings=settings(event_prefix="acme"), publish=publish).run_once()

    assert subjects == ["acme.worker.expired"]


async def test_while_work_waits_to_be_put_back_the_news_of_other_work_go_out_slowly(
    host: HostTables, store: Store, settings: Callable[..., Settings], grant: Grant
) -> None:
    """A batch at a time and then a rest by its size, so that they never stop; none as soon as nothing waits."""
    await host.workflows("w1", BATCH_BESIDE)
    cases = [case(worker, await grant(worker)) for worker in ("w1", "w2", "w3")]
    for each in cases:
        await store.reclaims.settle([each])
    urgent, now = True, 100.0
    sent: list[int] = []

    async def publish(events: Sequence[Event]) -> tuple[list[int], str | None]:
        sent.append(len(events))
        return list(range(len(events))), None

    relay = Relay(store=store, settings=settings(), publish=publish, urgent=lambda: urgent, clock=lambda: now)
    await relay.run_once()
    await relay.run_once()
    assert sent == [1 + BATCH_BESIDE]

    now += (1 + BATCH_BESIDE) / RATE_BESIDE
    await store.reclaims.settle([case("w4", await grant("w4"))])
    await relay.run_once()
    assert sent == [1 + BATCH_BESIDE, 3]

    await store.reclaims.settle([case("w5", await grant("w5"))])
    await relay.run_once()
    urgent = False
    await relay.run_once()
    assert sent == [1 + BATCH_BESIDE, 3, 1]
    assert await host.outbox() == []


async def test_news_wait_no_longer_than_for_a_while(
    store: Store, settings: Callable[..., Settings], grant: Grant
) -> None:
    """However long there is more urgent work: theirs is back, and somebody waits to be told."""
    now = 100.0
    sent: list[int] = []

    async def publish(events: Sequence[Event]) -> tuple[list[int], str | None]:
        sent.append(len(events))
        return list(range(len(events))), None

    relay = Relay(store=store, settings=settings(), publish=publish, urgent=lambda: True, clock=lambda: now)
    for worker in ("w1", "w2", "w3"):
        await store.reclaims.settle([case(worker, await grant(worker))])
        await relay.run_once()
        if worker == "w2":
            # It rests since the first.
            assert sent == [1]
            now += BESIDE_MOST + 0.001
    assert sent == [1, 2]


async def test_a_relay_that_rests_says_nothing(store: Store, settings: Callable[..., Settings], grant: Grant) -> None:
    """Not that it goes on, for it has not tried."""
    now = 100.0

    async def publish(_: Sequence[Event]) -> tuple[list[int], str | None]:
        return [], "the stream does not answer"

    relay = Relay(store=store, settings=settings(), publish=publish, urgent=lambda: True, clock=lambda: now)
    await store.reclaims.settle([case("w1", await grant("w1"))])
    with capture_logs() as logs:
        await relay.run_once()
        await relay.run_once()
        now += 1.0
        await relay.run_once()

    assert [line["event"] for line in logs] == ["relay_stopped"]
