"""Traces of reclaims: from the transaction through the outbox and the stream to whoever reads the event."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from nats.aio.client import Client
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from liveness import otel, spans
from liveness.bus import Bus
from liveness.embedded import NatsServer
from liveness.errors import DatabaseRefusedError, NotLeaderError
from liveness.finish import Finish
from liveness.service import Service
from liveness.settings import Settings
from liveness.store import Store
from liveness.tracing import collecting
from tests.conftest import HostTables
from tests.contract.conftest import validator
from tests.integration.conftest import Grant, case
from tests.integration.running import News, beat
from tests.integration.test_comparing import Eye as Comparer
from tests.integration.test_relay import bus, reader, relay_through, stored
from tests.integration.test_sweep import Eye as Sweeper
from tests.traces import collected, linked, traceparent_of

__all__ = ["bus", "reader"]

# Beyond FLUSH_SECONDS, on a machine that has other things to do.
SLACK = 1.5


async def contexts(host: HostTables) -> list[str | None]:
    """Return the trace contexts in the outbox, in the order of its rows."""
    rows = await host.connection.fetch("SELECT traceparent FROM liveness.outbox ORDER BY seq")
    return [row["traceparent"] for row in rows]


async def test_an_event_names_the_span_of_its_reclaim(
    host: HostTables,
    store: Store,
    settings: Callable[..., Settings],
    grant: Grant,
    bus: Bus,
    reader: Client,
    news: News,
) -> None:
    """To whoever reads it; and the span of the batch that carried it is linked to that of the reclaim."""
    await host.workflows("w1", 2)
    await host.tasks("w2")
    cases = [case("w1", await grant("w1"), incarnation="a"), case("w2", await grant("w2"), reason="died")]
    with collected() as found:
        await store.reclaims.settle(cases)
        done = await relay_through(store, settings(), bus).run_once()
        reclaim, relay = found.one("reclaim"), found.one("relay")

    assert done.published == 5
    carried = {(await news.next()).traceparent for _ in range(5)}
    assert carried == {traceparent_of(reclaim)}
    # As docs/tracing.md shows it.
    cause = trace.get_current_span(extract({"traceparent": carried.pop() or ""})).get_span_context()
    assert (cause.trace_id, cause.span_id) == (reclaim.context.trace_id, reclaim.context.span_id)
    for _, headers, _ in await stored(reader):
        validator("event-headers").validate(headers)
    assert linked(relay) == [traceparent_of(reclaim)]
    assert relay.kind is trace.SpanKind.PRODUCER
    assert dict(relay.attributes or {}) == {
        "messaging.system": "nats",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "LIVENESS_EVENTS",
        "messaging.batch.message_count": 5,
        "liveness.published": 5,
    }
    assert reclaim.kind is trace.SpanKind.CLIENT
    assert dict(reclaim.attributes or {}) == {
        "db.system.name": "postgresql",
        "liveness.mode": "act",
        "liveness.lives": 2,
        "liveness.workers": ("w1", "w2"),
        "liveness.reasons.lapsed": 1,
        "liveness.reasons.died": 1,
        "liveness.retries": 0,
        "liveness.lives.ended": 2,
        "liveness.lives.spared": 0,
        "liveness.lives.held": 0,
        "liveness.lives.over": 0,
        "liveness.items": 3,
        "liveness.items.workflow": 2,
        "liveness.items.task": 1,
    }
    assert [(event.name, dict(event.attributes or {})) for event in reclaim.events] == [
        (
            "life",
            {
                "liveness.worker": "w1",
                "liveness.reason": "lapsed",
                "liveness.outcome": "ended",
                "liveness.items": 2,
                "liveness.epoch": cases[0].epoch,
                "liveness.incarnation": "a",
            },
        ),
        (
            "life",
            {
                "liveness.worker": "w2",
                "liveness.reason": "died",
                "liveness.outcome": "ended",
                "liveness.items": 1,
                "liveness.epoch": cases[1].epoch,
            },
        ),
    ]


async def test_what_is_logged_of_an_end_names_its_reclaim(
    host: HostTables,
    nats: NatsServer,
    settings: Callable[..., Settings],
    client: Client,
    news: News,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though it is logged when that is committed, and its span over."""
    said: list[tuple[str, str | None]] = []

    def note(event: str, **_: object) -> None:
        said.append((event, spans.carried.get()))

    monkeypatch.setattr("liveness.expiry.log", SimpleNamespace(info=note, warning=note, error=note))
    with collected() as found:
        context = await given_back(settings(nats_url=nats.url), client, host, news)

    assert said == [("life_ended", context)]
    assert context == traceparent_of(found.one("reclaim"))


async def test_what_is_published_after_a_restart_still_names_the_reclaim(
    host: HostTables, stores: Callable[..., Any], settings: Callable[..., Settings], grant: Grant, bus: Bus, news: News
) -> None:
    """The context is the row's: another process, which is not even traced, publishes it."""
    await host.workflows("w1")
    first = await stores()
    with collected() as found:
        await first.reclaims.settle([case("w1", await grant("w1"))])
        reclaim = traceparent_of(found.one("reclaim"))
    await first.leader.release()
    second = await stores(leads=False)
    assert await second.leader.take(0.0)

    await relay_through(second, settings(), bus).run_once()

    assert [(await news.next()).traceparent for _ in range(2)] == [reclaim, reclaim]


async def test_without_a_trace_nothing_is_carried(
    host: HostTables,
    store: Store,
    settings: Callable[..., Settings],
    grant: Grant,
    bus: Bus,
    reader: Client,
    news: News,
) -> None:
    """Nor by a session that carried something before: the context ends with its transaction."""
    for name in ("w1", "w2"):
        await host.workflows(name)
    with collected():
        await store.reclaims.settle([case("w1", await grant("w1"))])
    await store.reclaims.settle([case("w2", await grant("w2"))])

    assert [context is None for context in await contexts(host)] == [False, False, True, True]
    untraced = "SELECT string_agg(worker, ',') FROM liveness.expiration WHERE traceparent IS NULL"
    assert await host.connection.fetchval(untraced) == "w2"
    await relay_through(store, settings(), bus).run_once()
    assert ["traceparent" in headers for _, headers, _ in await stored(reader)] == [True, True, False, False]
    assert [(await news.next()).traceparent is None for _ in range(4)] == [False, False, True, True]


async def test_an_unsound_context_keeps_no_event(
    host: HostTables, store: Store, settings: Callable[..., Settings], grant: Grant, bus: Bus, reader: Client
) -> None:
    """Whoever wrote it there; least of all may it write headers of its own."""
    await store.reclaims.settle([case("w1", await grant("w1"))])
    await host.connection.execute("UPDATE liveness.outbox SET traceparent = E'00-1\\r\\nNats-Rollup: all'")

    with collected() as found:
        assert (await relay_through(store, settings(), bus).run_once()).published == 1

    assert linked(found.one("relay")) == []
    ((_, headers, _),) = await stored(reader)
    assert headers.keys() == {"Nats-Msg-Id", "Nats-Expected-Stream", "Content-Type"}


async def test_what_finishes_a_reclaim_is_linked_to_it(
    host: HostTables, stores: Callable[..., Any], grant: Grant
) -> None:
    """And what goes back then names the span that did it, by another process, too."""
    await host.workflows("w1", 5)
    store = await stores(reclaim_chunk=2)
    with collected() as found:
        await store.reclaims.settle([case("w1", await grant("w1"))])
        reclaim = traceparent_of(found.one("reclaim"))
    with collected() as found:
        await Finish(store, time.monotonic).run_once()
        finish = found.one("finish")

    assert linked(finish) == [reclaim]
    assert dict(finish.attributes or {}) == {
        "db.system.name": "postgresql",
        "liveness.lives": 1,
        "liveness.items": 3,
    }
    # The end of the life and the parcel of its first chunk; and a parcel for each chunk.
    assert await contexts(host) == [reclaim, reclaim, traceparent_of(finish), traceparent_of(finish)]


async def test_what_a_sweep_takes_is_a_part_of_it(
    host: HostTables, store: Store, settings: Callable[..., Settings]
) -> None:
    """Its reclaims are spans inside its own."""
    await host.worker("w1", silent_for=61.0)
    await host.workflows("w1")

    with collected() as found:
        await Sweeper(store, settings()).sweep.run_once()
        sweep, reclaim = found.one("sweep"), found.one("reclaim")

    assert reclaim.parent == sweep.context
    told = dict(sweep.attributes or {})
    assert (told["liveness.stale"], told["liveness.lives.ended"], told["liveness.items"]) == (1, 1, 1)
    assert (reclaim.attributes or {})["liveness.reasons.stale"] == 1


async def test_leaks_that_go_back_are_a_reclaim(
    host: HostTables, stores: Callable[..., Any], settings: Callable[..., Settings], grant: Grant
) -> None:
    """Of lives that go on."""
    leaky = {"leak_grace": 60.0, "leak_action": "reclaim"}
    await host.workflows("w1", 3)
    comparer = Comparer(await stores(**leaky), settings(**leaky))
    comparer.beat("w1", [], await grant("w1"))

    with collected() as found:
        await comparer.until_leaked(("w1", []))
        told = dict(found.one("reclaim").attributes or {})

    assert told["liveness.reasons.leaked"] == told["liveness.lives"] == 1
    assert told["liveness.items"] == told["liveness.items.workflow"] == 3


async def test_a_reclaim_that_fails_says_how(host: HostTables, store: Store, grant: Grant) -> None:
    """A table that refuses a row is no failure, at the second try; one of ours is; a term that is over is none."""
    await host.connection.execute("ALTER TABLE workflow_execution ADD CHECK (worker_id IS NOT NULL)")
    await host.workflows("w1")
    epochs = {name: await grant(name) for name in ("w1", "w2", "w3")}
    with collected() as found:
        await store.reclaims.settle([case("w1", epochs["w1"])])
        await host.connection.execute("ALTER TABLE liveness.expiration ADD CHECK (worker <> 'w2')")
        with pytest.raises(DatabaseRefusedError):
            await store.reclaims.settle([case("w2", epochs["w2"])])
        store.leader.term = None
        with pytest.raises(NotLeaderError):
            await store.reclaims.settle([case("w3", epochs["w3"])])
        again, refused, elsewhere = found.all("reclaim")

    assert (again.attributes or {})["liveness.retries"] == 1
    assert (again.attributes or {})["liveness.lives.ended"] == 1
    assert again.status.is_unset
    assert (refused.attributes or {})["error.type"] == "DatabaseRefusedError"
    assert refused.status.status_code is trace.StatusCode.ERROR
    assert "violates check constraint" in (refused.status.description or "")
    assert (elsewhere.attributes or {})["error.type"] == "NotLeaderError"
    assert elsewhere.status.is_unset


async def test_many_lives_are_told_up_to_a_bound(store: Store, grant: Grant) -> None:
    """Their number is told whole."""
    cases = [case(f"w{number}", await grant(f"w{number}")) for number in range(120)]

    with collected() as found:
        await store.reclaims.settle(cases)
        reclaim = found.one("reclaim")

    assert (reclaim.attributes or {})["liveness.lives.ended"] == 120
    assert len(reclaim.events) == len((reclaim.attributes or {})["liveness.workers"]) == 100  # type: ignore[arg-type]


class Collector:
    """A collector as OTLP over HTTP wants it, or (`answers` is False) one that takes everything and says nothing."""

    def __init__(self, *, answers: bool) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.url = ""
        self._answers = answers
        self._connections: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Collector"]:
        """Listen for the time of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for connection in self._connections:
                connection.close()

    async def _serve(self, reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        self._connections.append(writing)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reading.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = await reading.readexactly(length)
                if self._answers:
                    self.requests.append(ExportTraceServiceRequest.FromString(body))
                    writing.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def spans(self) -> dict[str, list[Any]]:
        """Return the spans that came, by name."""
        found: dict[str, list[Any]] = {}
        for request in self.requests:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        found.setdefault(span.name, []).append(span)
        return found


async def given_back(settings: Settings, client: Client, host: HostTables, news: News) -> str | None:
    """Run a service while a worker says goodbye; return the trace context of the event about its work."""
    service, stop = Service(settings), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    await service.started.wait()
    (workflow,) = await host.workflows("w1")
    await beat(client, "w1")
    await client.publish("liveness.goodbye.w1")
    event = await news.until("workflow.reclaimed")
    stop.set()
    await running
    assert event.subject == workflow
    return event.traceparent


async def test_a_service_exports_what_the_environment_asks_for(
    nats: NatsServer,
    settings: Callable[..., Settings],
    client: Client,
    host: HostTables,
    news: News,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By OTLP over HTTP; what is left at a stop, too."""
    async with Collector(answers=True).running() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "dead-letter-office")
        async with collecting():
            context = await given_back(settings(nats_url=nats.url), client, host, news)

        assert context is not None
        (reclaim,) = collector.spans()["reclaim"]
        assert context.startswith(f"00-{reclaim.trace_id.hex()}-{reclaim.span_id.hex()}-")
        assert reclaim.span_id in {link.span_id for one in collector.spans()["relay"] for link in one.links}
        resource = collector.requests[0].resource_spans[0].resource
        assert {one.key: one.value.string_value for one in resource.attributes}["service.name"] == "dead-letter-office"


async def nowhere() -> str:
    """Return where nobody listens."""
    async with Collector(answers=True).running() as gone:
        return gone.url


@pytest.mark.parametrize("silent", [True, False])
async def test_a_collector_that_is_away_costs_nothing_but_its_spans(
    nats: NatsServer,
    settings: Callable[..., Settings],
    client: Client,
    host: HostTables,
    news: News,
    monkeypatch: pytest.MonkeyPatch,
    *,
    silent: bool,
) -> None:
    """Be it that nobody listens, or that somebody never answers: work goes back, and a stop does not wait for it."""
    async with Collector(answers=False).running() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url if silent else await nowhere())
        # At once, so that an export is under way when the service stops.
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        monkeypatch.setattr(otel, "FLUSH_SECONDS", 0.2)
        async with collecting():
            context = await given_back(settings(nats_url=nats.url), client, host, news)
            stopping = time.monotonic()

    assert context is not None
    # Its own time limit is 10 s.
    assert time.monotonic() - stopping < otel.FLUSH_SECONDS + SLACK
    assert spans.span("reclaim") is spans.NOTHING
