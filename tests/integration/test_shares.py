"""Sidecars that own a share of the workers each, on a nats-server that divides the heartbeats."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from liveness.answers import ReclaimAnswer, ReclaimRequest, StatusAnswer, StatusRequest, SweepRequest
from liveness.bus import Bus
from liveness.cli import alone
from liveness.cli import why as why_command
from liveness.cli.alone import DeafError, reclaim_alone, sweep_alone
from liveness.cli.asking import RefusedError, ask
from liveness.cli.why import run as run_why
from liveness.embedded import NatsServer
from liveness.errors import CannotStartError, DatabaseAwayError, NotLeaderError
from liveness.facts import WhyRequest
from liveness.messages import HelloAnswer
from liveness.reclaim import NotOursError, StillAliveError
from liveness.settings import Settings
from liveness.store import Store
from liveness.subjects import Subjects
from tests.conftest import SOON, HostTables, look_again
from tests.integration.running import News, Serve
from tests.integration.shares import NAMES, beat, known, leads, mapped, owned

MakeSettings = Callable[..., Settings]


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server with a mapping for two shards."""
    server = NatsServer(tmp_path / "nats", config=mapped(2))
    await server.start()
    yield server
    await server.stop()


async def test_each_worker_is_heard_by_one_of_two(serve: Serve, client: Client) -> None:
    """Whatever dots and letters its name has; both lead, and neither hears the other's."""
    services = [await serve(shard=f"{index}/2") for index in range(2)]
    await beat(client, *NAMES)

    assert owned(0)
    assert owned(1)
    for index, service in enumerate(services):
        await known(service, *owned(index))
        assert service.parts is not None
        assert service.parts.leadership.leading


async def test_a_goodbye_and_a_hello_are_the_owners(serve: Serve, host: HostTables, client: Client, news: News) -> None:
    """The other one hears them, too, and neither answers nor acts."""
    services = [await serve(shard=f"{index}/2") for index in range(2)]
    for name in NAMES:
        answer = await client.request(f"liveness.hello.{name}", b'{"incarnation": "a"}', timeout=SOON)
        assert msgspec.json.decode(answer.data, type=HelloAnswer).epoch is not None
        (workflow,) = await host.workflows(name)
        await client.publish(f"liveness.goodbye.{name}", b'{"incarnation": "a"}')
        assert (await news.until("workflow.reclaimed")).subject == workflow
        assert await host.state(workflow) == ("PENDING", None)

    for index, service in enumerate(services):
        assert service.parts is not None
        assert service.parts.intake.counts["goodbyes"] == service.parts.intake.counts["hellos"] == len(owned(index))


async def test_a_sidecar_restores_and_sweeps_its_share_only(serve: Serve, host: HostTables) -> None:
    """What is another's is not even looked at."""
    for name in NAMES:
        await host.worker(name)
    service = await serve(shard="0/2")
    assert service.parts is not None

    assert sorted(lease.worker for lease in service.parts.book) == sorted(owned(0))
    silent = await service.parts.store.host.stale(-1.0)
    assert sorted(found.worker for found in silent) == sorted(owned(0))


async def test_a_mapping_for_another_number_of_shares_leaves_it_deaf(serve: Serve, client: Client) -> None:
    """It does not hear itself, so nobody lapses, and it says so."""
    service = await serve(shard="0/3")
    await beat(client, *NAMES)
    assert service.parts is not None
    hearing = service.parts.hearing
    async with asyncio.timeout(SOON):
        # Nobody tells when it is.
        while not hearing.deaf(service.parts.clock()):
            await look_again()

    assert len(service.parts.book) == 0
    assert hearing.now == 0.0
    assert any("nothing is heard" in trouble or "not connected" in trouble for trouble in service.troubles())


async def test_a_beat_on_our_subject_of_anothers_worker_is_not_taken(serve: Serve, client: Client) -> None:
    """Whoever may publish past the mapping makes nobody ours."""
    service = await serve(shard="0/2")
    await client.publish(f"liveness.2.0.heartbeat.{owned(1)[0]}")
    await beat(client, owned(0)[0])
    await known(service, owned(0)[0])

    assert service.parts is not None
    assert service.parts.intake.counts["not_ours"] == 1


async def test_a_server_that_cannot_divide_is_refused(nats: NatsServer) -> None:
    """At the start, in a line that says which version it takes."""
    bus = Bus(nats.url, least_server=(99, 1))
    with pytest.raises(CannotStartError, match=r"older than 99\.1"):
        await bus.connect()
    await bus.close()


async def test_leaders_of_two_shares_are_two(serve: Serve, host: HostTables) -> None:
    """Each has a row of its own, beside that of the service that owns everybody: an older one finds it alone there."""
    await serve(shard="0/2")
    await serve(shard="1/2")

    rows = await host.connection.fetch(
        "SELECT share, term, holder IS NOT NULL AS held FROM liveness.share_leader ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [("0/2", 1, True), ("1/2", 1, True)]
    assert await host.connection.fetchval("SELECT term FROM liveness.leader") == 0


async def test_a_command_asks_the_shard_that_it_names(serve: Serve, nats: NatsServer, settings: MakeSettings) -> None:
    """Each shard's leader answers on a subject of its own; who names none is told to."""
    for index in range(2):
        await serve(shard=f"{index}/2")
    answer = await ask(settings(nats_url=nats.url, shard="1/2"), "status", StatusRequest(), StatusAnswer)

    assert answer.troubles == []
    for verb, request in (("status", StatusRequest()), ("sweep", SweepRequest())):
        with pytest.raises(RefusedError, match="divided into shards"):
            await ask(settings(nats_url=nats.url), verb, request, StatusAnswer)


@pytest.mark.parametrize("shard", ["", "0/2", "1/2"])
async def test_a_reclaim_is_done_by_the_owner(
    serve: Serve, nats: NatsServer, host: HostTables, settings: MakeSettings, shard: str
) -> None:
    """Whichever shard the command names, if any; nobody else answers, or acts."""
    for index in range(2):
        await serve(shard=f"{index}/2")
    for name in (owned(0)[0], owned(1)[0]):
        (workflow,) = await host.workflows(name)
        request = ReclaimRequest(worker=name, dry_run=False, force=False)
        answer = await ask(settings(nats_url=nats.url, shard=shard), "reclaim", request, ReclaimAnswer)
        assert (answer.worker, answer.reclaimed) == (name, 1)
        assert await host.state(workflow) == ("PENDING", None)


async def test_a_command_alone_does_not_act_for_another_shard(nats: NatsServer, settings: MakeSettings) -> None:
    """Nobody runs, and it was told whose it is to be."""
    request = ReclaimRequest(worker=owned(1)[0], dry_run=False, force=True)
    with pytest.raises(NotOursError, match="is of the shard 1/2"):
        await reclaim_alone(settings(nats_url=nats.url, shard="0/2"), request)


async def test_a_command_alone_does_not_act_beside_shards(
    serve: Serve, nats: NatsServer, settings: MakeSettings
) -> None:
    """Of everybody's workers it knows nothing while their owners act; when they have gone it may."""
    service = await serve(shard="0/2")
    request = ReclaimRequest(worker=owned(1)[0], dry_run=False, force=True)
    with pytest.raises(NotLeaderError, match="divided otherwise"):
        await reclaim_alone(settings(nats_url=nats.url), request)
    assert service.parts is not None
    await service.parts.leadership.step_down()
    service.parts.leadership._hears = lambda: False
    assert (await reclaim_alone(settings(nats_url=nats.url), request)).reclaimed == 0


async def test_a_command_alone_hears_everybody_on_servers_that_divide(
    nats: NatsServer, client: Client, host: HostTables, settings: MakeSettings
) -> None:
    """It owns all of them, however they come: what lives is not given back."""
    (workflow,) = await host.workflows("w1")
    stop = asyncio.Event()

    async def live() -> None:
        while not stop.is_set():
            await beat(client, "w1", ttl=1.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.1)

    living = asyncio.create_task(live())
    request = ReclaimRequest(worker="w1", dry_run=False, force=False)
    with pytest.raises(StillAliveError):
        await reclaim_alone(settings(nats_url=nats.url), request)
    stop.set()
    await living
    assert await host.state(workflow) == ("RUNNING", "w1")


async def test_a_command_alone_asks_again_when_postgres_breaks_off(
    nats: NatsServer, host: HostTables, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still for a moment, or Postgres did: nothing was decided yet, and somebody waits for the answer."""
    await host.worker("w1", silent_for=600.0)
    (workflow,) = await host.workflows("w1")
    opened, tries = Store.open, list[int]()

    async def open_at_last(*asked: Any) -> Store:
        tries.append(1)
        if len(tries) < 3:
            raise DatabaseAwayError("terminating connection due to idle-in-transaction timeout")
        return await opened(*asked)

    monkeypatch.setattr(Store, "open", open_at_last)
    answer = await reclaim_alone(settings(nats_url=nats.url), ReclaimRequest(worker="w1", dry_run=False, force=True))

    assert len(tries) == 3
    assert answer.reclaimed == 1
    assert await host.state(workflow) == ("PENDING", None)


async def test_a_command_that_hears_nothing_gives_up(
    nats: NatsServer, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers divide otherwise than it was told: its own echo goes elsewhere, and time would never pass."""
    monkeypatch.setattr(alone, "DEAF_SECONDS", 0.5)
    with pytest.raises(DeafError, match="not even ourselves"):
        await sweep_alone(settings(nats_url=nats.url, shard="0/3"), dry_run=True)


async def test_why_asks_whoever_hears_the_owner(
    serve: Serve, host: HostTables, client: Client, nats: NatsServer, settings: MakeSettings
) -> None:
    """The shard that tells the story may be another one: the command asks twice, and the sentence is whole."""
    services = [await serve(shard=f"{index}/2") for index in range(2)]
    await leads(*services)
    await beat(client, *NAMES)
    for index, service in enumerate(services):
        await known(service, *owned(index))
    for name in NAMES:
        (workflow,) = await host.workflows(name)
        told = await run_why(settings(nats_url=nats.url), WhyRequest(work_id=workflow))
        assert f"RUNNING, owner {name} is alive, last beat " in told.sentence
        told = await run_why(settings(nats_url=nats.url), WhyRequest(worker=name))
        assert told.sentence.startswith(f"{name} is alive, ")

    unknown = await run_why(settings(nats_url=nats.url), WhyRequest(work_id="nowhere"))
    assert not unknown.known


async def test_why_of_an_owner_whose_shard_nobody_runs(
    serve: Serve, host: HostTables, client: Client, nats: NatsServer, settings: MakeSettings, monkeypatch: Any
) -> None:
    """The story is told all the same, and nobody can say of it whether it lives; of the other's owners somebody can."""
    monkeypatch.setattr(why_command, "READ_SECONDS", 0.5)
    service = await serve(shard="0/2")
    (ours, *_), (theirs, *_) = owned(0), owned(1)
    await beat(client, ours)
    await known(service, ours)
    told_by: dict[int, str] = {}
    # Whose story it is to tell goes by the id.
    while len(told_by) < 2:
        (workflow,) = await host.workflows(ours)
        told_by[Subjects().hash_of(workflow) % 2] = workflow
    for workflow in told_by.values():
        told = await run_why(settings(nats_url=nats.url), WhyRequest(work_id=workflow))
        assert f"RUNNING, owner {ours} is alive, last beat " in told.sentence

    (workflow,) = await host.workflows(theirs)
    for request in (WhyRequest(work_id=workflow), WhyRequest(worker=theirs)):
        told = await run_why(settings(nats_url=nats.url), request)
        assert "nobody could say whether it lives (the liveness service did not answer within 0.5 s" in told.sentence
    assert re.search(r"; as Postgres has it, \S+:\d+ \(shard 0/2\) acts\); it", told.sentence)
