"""Workers that leave their sign of life in Postgres alone, and Postgres out of reach."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from liveness.cli.alone import listening
from liveness.cli.sweep import lines
from liveness.embedded import NatsServer, PostgresServer
from liveness.settings import Settings
from liveness.store import Store
from tests.conftest import SOON, HostTables, look_again
from tests.integration.running import Serve
from tests.integration.test_sweep import Eye

# How long Postgres was away, with the default 60 s and 120 s.
AWAY = 300.0


@pytest.fixture
async def eye(store: Store, settings: Callable[..., Settings]) -> Eye:
    """A sweep that has listened for 1,000 s, and has seen Postgres `AWAY` ago and just now."""
    made = Eye(store, settings(), listened_for=1_000.0)
    store.leader.on_seen = made.sweep.reach.seen
    made.sweep.reach.seen(time.time() - AWAY)
    assert await store.leader.renew()
    assert made.sweep.reach.outages == 1
    return made


async def test_who_could_leave_no_sign_of_life_is_not_stale(host: HostTables, eye: Eye) -> None:
    """Of the minute and more for which it was silent, hardly anything counts."""
    await host.worker("w1", silent_for=AWAY + 30.0)
    await host.workflows("w1", untouched_for=AWAY + 30.0)

    assert (await eye.sweep.run_once()).ended == 0
    assert await host.count("RUNNING", "w1") == 1


async def test_who_was_silent_without_the_outage_as_well_is_stale(host: HostTables, eye: Eye) -> None:
    """And it is written down what did not count."""
    await host.worker("w1", silent_for=AWAY + 61.0)
    await host.workflows("w1", untouched_for=AWAY + 61.0)

    swept = await eye.sweep.run_once()

    assert (swept.stale, swept.ended, swept.items) == (["w1"], 1, 1)
    told = await host.connection.fetchval("SELECT evidence ->> 'why' FROM liveness.expiration")
    assert told.startswith(
        "up in the registry, but nobody recorded a heartbeat for more than 60 s (not counting 295.0 s in "
        "which Postgres was not seen) and none was heard in 1000.000 s"
    )


async def test_what_nobody_could_touch_is_no_orphan(host: HostTables, eye: Eye) -> None:
    """Its owner is in no registry, and touches its rows when it can; only what is older goes back."""
    (young,) = await host.workflows("w1", untouched_for=AWAY + 90.0)
    assert (await eye.sweep.run_once()).orphaned == []
    (old,) = await host.workflows("w1", untouched_for=AWAY + 121.0)

    assert (await eye.sweep.run_once()).items == 1
    assert await host.state(old) == ("PENDING", None)
    assert await host.state(young) == ("RUNNING", "w1")


async def test_a_sweep_sees_for_itself_that_postgres_is_back(
    host: HostTables, store: Store, settings: Callable[..., Settings]
) -> None:
    """It may be the first to ask; and it does not even say that it would take."""
    eye = Eye(store, settings(), listened_for=1_000.0)
    store.leader.on_seen = eye.sweep.reach.seen
    eye.sweep.reach.seen(time.time() - AWAY)
    await host.worker("w1", silent_for=AWAY + 30.0)

    assert (await eye.sweep.run_once(dry_run=True)).stale == []


async def test_a_beat_that_was_recorded_before_the_outage_spares(
    host: HostTables, eye: Eye, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is found only by the statement that takes."""
    await host.worker("w1", silent_for=AWAY + 61.0)
    await host.workflows("w1", untouched_for=AWAY + 61.0)
    ambiguous = eye.sweep._store.host.ambiguous

    async def meanwhile(names: Any) -> Any:
        await host.connection.execute("UPDATE worker SET last_heartbeat_at = now() - interval '310 seconds'")
        return await ambiguous(names)

    monkeypatch.setattr(eye.sweep._store.host, "ambiguous", meanwhile)

    assert (await eye.sweep.run_once()).ended == 0
    assert await host.count("RUNNING", "w1") == 1


async def test_nothing_is_taken_if_it_was_out_of_reach_while_the_sweep_looked(
    host: HostTables, eye: Eye, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found before that is not true any more; the next sweep looks again."""
    await host.worker("w1", silent_for=AWAY + 61.0)
    await host.workflows("w1", untouched_for=AWAY + 61.0)
    await host.workflows("w2", untouched_for=AWAY + 121.0)
    ambiguous = store.host.ambiguous

    async def stands_still(names: Any) -> Any:
        reach = eye.sweep.reach
        assert reach._seen_at is not None
        reach._seen_at -= AWAY / 2
        return await ambiguous(names)

    with monkeypatch.context() as patched:
        patched.setattr(store.host, "ambiguous", stands_still)
        swept = await eye.sweep.run_once()

    assert (swept.stale, swept.ended) == (["w1"], 0)
    assert "held: Postgres was not seen while it looked: it looks again" in lines(swept)

    assert await host.count("RUNNING") == 2


async def test_a_command_that_acts_alone_sees_it_as_well(
    nats: NatsServer, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody renews there, and a sweep may look for longer than two sights may lie apart."""
    monkeypatch.setattr("liveness.cli.alone.SIGHT_SECONDS", 0.01)
    seen: list[float] = []
    async with listening(settings(nats_url=nats.url)) as parts, asyncio.timeout(SOON):
        parts.store.leader.on_seen = seen.append
        while len(seen) < 3:
            await look_again()

    assert seen == sorted(seen)


async def test_a_service_behind_an_outage(
    serve: Serve, host: HostTables, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time in which Postgres stood still comes on top of the time after which a name is stale."""
    apart, away, timeout = 0.3, 1.5, 1.0
    monkeypatch.setattr("liveness.reach.APART", apart)
    service = await serve(heartbeat_timeout=timeout, stale_worker_check_interval=0.1)
    parts = service.parts
    assert parts is not None
    async with asyncio.timeout(SOON):
        while parts.sweep.listened_for() < timeout:
            await look_again()
        await host.worker("w1")
        (workflow,) = await host.workflows("w1")
        postgres.pause()
        try:
            until = time.monotonic() + away
            while time.monotonic() < until:
                await look_again()
        finally:
            postgres.resume()
        while await host.state(workflow) != ("PENDING", None):
            await look_again()

    silent = await host.connection.fetchval(
        "SELECT extract(epoch FROM x.expired_at - w.last_heartbeat_at)::float FROM liveness.expiration AS x"
        " JOIN worker AS w ON w.worker_name = x.worker"
    )
    # Between two sights of it lies a quarter of a second.
    assert silent > timeout + away - apart - 0.3
