"""What a running service tells whoever measures it, or asks whether it is well."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from nats.aio.client import Client
from prometheus_client.parser import text_string_to_metric_families

from liveness.errors import DatabaseAwayError
from liveness.health import STILL_SECONDS
from liveness.service import Service
from tests.conftest import SOON, HostTables, delivered, look_again
from tests.contract.test_monitoring import RULES, alerts, loaded, of_the_dashboard
from tests.integration.running import News, Serve, ask, beat
from tests.prometheus import MISSING, Prometheus, find

DEPLOYED = RULES.parent


async def get(service: Service, path: str) -> tuple[int, str]:
    """Return status and body of what the service answers."""

    def asked() -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{service.http.port}{path}") as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(asked)


async def measured(service: Service) -> dict[str, float]:
    """Return what `/metrics` says: by name and labels, without those that are 0."""
    status, text = await get(service, "/metrics")
    assert status == 200
    return {
        sample.name.removeprefix("liveness_") + "".join(f" {value}" for _, value in sorted(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.value
    }


async def until(service: Service, *awaited: str) -> dict[str, float]:
    """Wait until all of these are told, and return what is."""
    async with asyncio.timeout(SOON):
        while not (samples := await measured(service)).keys() >= set(awaited):
            await look_again()
    return samples


async def test_what_was_given_back_is_counted_as_the_database_has_it(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """By work and reason, at once or in chunks; and whoever was heard again lived all the time, or did not."""
    service = await serve(reclaim_chunk=2)
    await client.publish("liveness.heartbeat.w2", b"{")
    await beat(client, "w2", incarnation="b")
    await beat(client, "w3", ttl=1, incarnation="c")
    await beat(client, "w1", ttl=1, incarnation="a")
    await host.workflows("w1", 5)
    await host.tasks("w1")
    await host.workflows("w2", 2)
    samples = await until(service, "leases live", "work_reclaimed_total act lapsed task")
    await client.publish("liveness.goodbye.w2", b'{"incarnation": "b"}')
    await until(service, "lives_ended_total act lapsed", "lives_ended_total act released")
    await beat(client, "w1", ttl=60, incarnation="a")
    await beat(client, "w3", ttl=60, incarnation="another", uptime=0.1)
    await delivered(client)
    samples = await until(
        service, "recovered_total act same lapsed", "recovered_total act another lapsed", "leases live"
    )
    for _ in range(7):
        await news.until("workflow.reclaimed")
    async with asyncio.timeout(SOON):
        # Two that expired, one that was released, two that recovered, and the work.
        while (samples := await measured(service))["events_published_total"] < 5 + 8:
            await look_again()

    rows = await host.connection.fetch(
        "SELECT r.work, x.reason, count(*) FROM liveness.reclaim AS r JOIN liveness.expiration AS x"
        " USING (worker, epoch) GROUP BY 1, 2"
    )
    assert {key: value for key, value in samples.items() if key.startswith("work_reclaimed_total")} == {
        f"work_reclaimed_total act {row['reason']} {row['work']}": row["count"] for row in rows
    }
    assert len(rows) == 3
    assert samples["lives_ended_total act lapsed"] == samples["lapses_total ended"] == 2
    assert samples["reclaim_lateness_seconds_count"] == samples["reclaim_lateness_seconds_bucket +Inf"] == 2
    assert 0 < samples["reclaim_lateness_seconds_sum"] < SOON
    assert samples["reclaim_seconds_count"] >= 2
    assert samples["heartbeats_total"] == 6
    assert samples["complaints_total malformed"] == samples["goodbyes_total"] == 1
    assert samples["leases live"] == 2
    assert samples["events_published_total"] == 5 + 8
    assert samples["leader_term"] == (await ask(client, "status"))["term"]
    assert samples["process_resident_memory_bytes"] > 10_000_000


@pytest.fixture
async def service(serve: Serve) -> Service:
    """A service that is well."""
    one = await serve()
    async with asyncio.timeout(SOON):
        while (await get(one, "/readyz"))[0] != 200:
            await look_again()
    return one


async def test_it_is_not_ready_while_it_is_deaf_or_holds_or_has_no_database_and_says_so(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a line of its own; and none of it is a reason to start it anew."""
    parts = service.parts
    assert parts is not None

    @contextlib.asynccontextmanager
    async def away(**_: Any) -> AsyncIterator[Any]:
        raise DatabaseAwayError("a test says so")
        yield

    parts.hearing.stop()
    assert await get(service, "/readyz") == (503, "NATS: connected, and nothing is heard, not even ourselves\n")
    assert (await measured(service))["deaf"] == 1
    parts.hearing.start(parts.clock())
    await until(service, "ready")

    group = parts.storms._group("n1")
    group.members = 3
    parts.storms._begin(group, 3, 60.0, parts.hearing.now)
    status, said = await get(service, "/readyz")
    assert (status, said.partition(";")[0]) == (
        503, "storm: 3 of 3 workers by the NATS server n1 fell silent at once",
    )  # fmt: skip
    samples = await measured(service)
    assert samples["storms_held"] == samples["storms_total"] == 1
    parts.storms._over(group, parts.hearing.now)
    await until(service, "ready")

    with monkeypatch.context() as patched:
        patched.setattr(service._database, "transaction", away)
        samples = await until(service, "database_away", "database_retries_total leadership")
        assert "ready" not in samples
        status, said = await get(service, "/readyz")
        duties, _, cause = said.splitlines()[0].partition(": ")
        assert (status, duties.split(", ")[0]) == (503, "leadership")
        assert cause == "Postgres does not answer: a test says so"
        assert await get(service, "/livez") == (200, "alive\n")
    samples = await until(service, "ready")
    assert samples["database_away_seconds_total"] > 0
    assert "database_away" not in samples


async def test_it_is_not_alive_where_a_part_of_it_has_ended_or_stands_still(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ready by all that it knows, and a start anew would mend it."""
    parts, health = service.parts, service.health
    assert parts is not None
    assert await get(service, "/livez") == (200, "alive\n")

    await until(service, "sweeps_total")

    comparing = next(duty for duty in parts.rounds if duty.name == "comparing")
    with monkeypatch.context() as patched:
        patched.setattr(comparing, "under_way_since", parts.clock() - STILL_SECONDS - 1.0)
        patched.setattr("liveness.health.APART_SECONDS", 1e-6)
        assert (await get(service, "/livez"))[0] == 200
        status, said = await get(service, "/livez")
        assert (status, said.partition(":")[0]) == (503, "comparing")
    assert await get(service, "/livez") == (200, "alive\n")

    (listening,) = [task for task in health._lasting if task.get_name() == "listening"]
    listening.cancel()
    await asyncio.wait({listening})
    assert await get(service, "/livez") == (503, "listening: it has ended, and the service has not\n")


async def test_prometheus_scrapes_it_and_answers_what_the_dashboard_asks(
    tmp_path: Path, service: Service, client: Client
) -> None:
    """With the configuration and the rules that come with it."""
    program = find("prometheus")
    if program is None:
        pytest.skip(MISSING.format("prometheus"))
    configuration = loaded(DEPLOYED / "prometheus.yml")
    configuration["global"] = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"}
    configuration["rule_files"] = [str(DEPLOYED / "liveness.rules.yml")]
    configuration["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{service.http.port}"]}]
    prometheus = Prometheus(tmp_path / "prometheus", program, configuration)
    await beat(client, "w1", ttl=60)
    await beat(client, "w2", ttl=60)
    await prometheus.start()
    try:
        async with asyncio.timeout(SOON):
            while not await prometheus.query("liveness_ready == 1"):
                await look_again()
        assert [value for _, value in await prometheus.query('sum(liveness_leases{job="liveness"})')] == [2.0]
        assert [value for _, value in await prometheus.query("liveness_heartbeats_total")] == [2.0]
        for query in of_the_dashboard():
            await prometheus.query(query)
        rules = (await prometheus.ask("rules"))["groups"][0]["rules"]
        assert {rule["name"] for rule in rules} == {alert["alert"] for alert in alerts()}
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        assert await prometheus.query('ALERTS{alertstate="firing"}') == []
    finally:
        await prometheus.stop()
