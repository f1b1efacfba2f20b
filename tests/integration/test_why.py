"""Why a piece of work moved, or did not: told by the whole service on real servers."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import asyncpg
import msgspec
import pytest
from nats.aio.client import Client

from liveness.cli import alone, asking
from liveness.cli.why import run
from liveness.embedded import NatsServer
from liveness.errors import DatabaseAwayError
from liveness.facts import WhyRequest
from liveness.settings import Settings
from liveness.store import Database, Store
from liveness.store import history as store_history
from tests.conftest import SOON, HostTables, look_again
from tests.integration.running import News, Serve, ask, beat, hello
from tests.unit.known import life

# A service that never sweeps by itself while a test looks.
RARELY = 3600.0
CLOCK = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \(\d+\.\d s ago\)"
MakeSettings = Callable[..., Settings]


async def story(client: Client, work_id: str, **request: Any) -> Any:
    """Return the only piece of work that an id tells of."""
    answer = await ask(client, "why", work_id=work_id, **request)
    assert answer.get("known"), answer
    (piece,) = answer["pieces"]
    assert answer["sentence"] == piece["sentence"]
    assert piece["sentence"].startswith(f"workflow {work_id} ")
    return piece


async def until(client: Client, work_id: str, pattern: str) -> Any:
    """Ask until the sentence has what is looked for."""
    told = "nothing"
    async with asyncio.timeout(SOON):
        while not re.search(pattern, told):
            await look_again()
            told = (await story(client, work_id))["sentence"]
    return told


def steps(told: Any) -> list[str]:
    """Return what happened, in its order."""
    return [step["what"] for step in told["steps"]]


def says(told: Any, what: str) -> str:
    """Return the evidence of the only step of a kind."""
    (found,) = [step["says"] for step in told["steps"] if step["what"] == what]
    return str(found)


async def claim(host: HostTables, workflow: str, worker: str) -> None:
    """Let a worker take a workflow, as the host does."""
    await host.connection.execute(
        "UPDATE workflow_execution SET status = 'RUNNING', worker_id = $2, updated_at = now() WHERE id = $1::uuid",
        workflow,
        worker,
    )


async def test_a_lapse(host: HostTables, serve: Serve, client: Client, news: News) -> None:
    """Each step from the epoch to the queue, with the evidence; and who has it since."""
    await serve(gap_grace=0)
    await beat(client, "w1", ttl=1, incarnation="a")
    (workflow,) = await host.workflows("w1")
    await news.until("workflow.reclaimed")

    told = await story(client, workflow)

    assert re.fullmatch(
        rf"workflow {workflow} went back to the queue at {CLOCK} because w1 was not heard for 1\.\d s \(ttl 1 s\); "
        r"now PENDING, nobody holds it\.",
        told["sentence"],
    )
    # The beat comes first, and the epoch with the next grant.
    assert steps(told) == ["last beat", "granted", "lapsed", "ended", "reclaimed"]
    assert {step["worker"] for step in told["steps"]} == {"w1"}
    assert {step["epoch"] for step in told["steps"]} == {move["epoch"] for move in told["moves"]}
    evidence = says(told, "ended")
    for words in (
        r"no heartbeat for 1\.\d+ s of hearing; ttl 1 s",
        r"no storm",
        r"the hearing clock stood at \d+\.\d s, with \d+\.\d s not counted in [1-9]\d* gaps?",
        r"decided by \S+:\d+ in transaction \d+",
    ):
        assert re.search(words, evidence), evidence

    await claim(host, workflow, "w9")
    await beat(client, "w9", ttl=60)
    told = await until(client, workflow, r"epoch \d+\.$")
    assert re.search(
        r"; now RUNNING, owner w9 is alive, last beat \d\.\d s ago, its lease has \d\d\.\d s left, epoch \d+\.$", told
    )
    assert (await story(client, workflow, limit=0))["moves"] == []


async def crash(client: Client, worker: str, signal: int) -> None:
    """Let a worker live, and be seen to end by a signal."""
    await beat(client, worker, ttl=60)
    await client.publish(f"liveness.goodbye.{worker}", msgspec.json.encode({"signal": signal}))


async def test_a_quarantine(host: HostTables, serve: Serve, client: Client, news: News) -> None:
    """Each crash that counts, what was set aside, and that it explains the deaths of what ran beside it."""
    await serve(gap_grace=0, crash_budget=2, crash_action="quarantine", quarantine_status="FAILED")
    killer, innocent = await host.workflows("w1", 2)
    await crash(client, "w1", signal=9)
    await news.until("workflow.reclaimed")
    await news.until("workflow.reclaimed")
    await claim(host, killer, "w2")
    await crash(client, "w2", signal=11)
    await news.until("workflow.quarantined")

    told = await story(client, killer)

    assert re.fullmatch(
        rf"workflow {killer} was set aside at {CLOCK} because its workers kept dying, 2 of them; the last time the "
        r"process of w2 was seen to end \(signal 11\); now FAILED, so there is nothing to take back\.",
        told["sentence"],
    )
    assert says(told, "quarantined") == "taken back for the 2nd time, and set aside: quarantined"
    assert says(told, "reclaimed") == "back in the queue for the 1st time; that death was put down to it"
    assert says(await story(client, innocent), "reclaimed") == (
        f"back in the queue for the 1st time; that death was put down to workflow {killer}, and counts against nothing "
        "else"
    )


async def test_a_leak(host: HostTables, serve: Serve, client: Client, news: News) -> None:
    """The worker lived and left it out; and that stays the cause, however the life ends that went on."""
    await serve(gap_grace=0, leak_grace=0.5, leak_action="reclaim")
    await beat(client, "w1", incarnation="a", ttl=60, running=[])
    (workflow,) = await host.workflows("w1")
    back = asyncio.create_task(news.until("workflow.reclaimed"))
    async with asyncio.timeout(SOON):
        while not back.done():
            await beat(client, "w1", incarnation="a", ttl=60, running=[])
            await asyncio.wait({back}, timeout=0.1)
    told_then = await story(client, workflow)
    await client.publish("liveness.goodbye.w1", msgspec.json.encode({"incarnation": "a", "signal": 9}))
    await news.until("worker.expired")

    for told in (told_then, await story(client, workflow)):
        assert re.fullmatch(
            rf"workflow {workflow} went back to the queue at {CLOCK} because w1, which lived, left it out of what it "
            r"says it runs for \d\.\d s \(leaked\); now PENDING, nobody holds it\.",
            told["sentence"],
        )
        # Its last beat may have come before the row went back, or after.
        assert [one for one in steps(told) if one not in {"last beat", "ended"}] == ["granted", "leaked", "reclaimed"]
        assert says(told, "reclaimed") == "back in the queue for the 1st time"
        for words in (
            r"RUNNING in the name of a worker that lives and left it out for \d\.\d+ s of hearing",
            r"leak_grace 0\.5 s",
            r"the hearing clock stood at \d+\.\d s",
            r"decided by \S+:\d+ in transaction \d+",
        ):
            assert re.search(words, says(told, "leaked")), says(told, "leaked")
    assert told_then["moves"][0]["life"]["end"] is None


async def test_a_leak_that_is_told_of(host: HostTables, serve: Serve, client: Client, news: News) -> None:
    """By default nothing is taken: the row is told to be as it is, and that it leaked, until somebody touches it."""
    await serve(gap_grace=0, leak_grace=0.5)
    await beat(client, "w1", incarnation="a", ttl=60, running=[])
    (workflow,) = await host.workflows("w1")
    told_of = asyncio.create_task(news.until("worker.leaked"))
    async with asyncio.timeout(SOON):
        while not told_of.done():
            await beat(client, "w1", incarnation="a", ttl=60, running=[])
            await asyncio.wait({told_of}, timeout=0.1)

    told = await story(client, workflow)

    assert re.fullmatch(
        rf"workflow {workflow} was never moved: RUNNING, owner w1 is alive, .*, epoch \d+; at {CLOCK} it had left it "
        r"out of what it says it runs for \d\.\d s \(leaked\), which was told of, and nothing was taken\.",
        told["sentence"],
    )
    assert re.search(r"left it out for \d\.\d+ s of hearing, in each of \d+ beats; leak_grace", says(told, "leaked"))
    await claim(host, workflow, "w1")
    assert "leaked" not in (await story(client, workflow))["sentence"]


async def test_one_that_is_not_well(host: HostTables, serve: Serve, client: Client, news: News) -> None:
    """Why its row is DEGRADED, and that it gets nothing done, is told as long as it is so."""
    await serve(gap_grace=0, wedge_after=0.3, max_gap=0.05)
    (workflow,) = await host.workflows("w1")
    told_of = asyncio.create_task(news.until("worker.wedged"))
    async with asyncio.timeout(SOON):
        while not told_of.done():
            await beat(client, "w1", ttl=60, interval=0.3, running=[workflow], progress=7)
            await asyncio.wait({told_of}, timeout=0.1)
    await until(client, workflow, r"owner w1 is alive, .*; it says that it runs something, and gets nothing done")
    await news.until("worker.suspected")
    await until(client, workflow, r"owner w1 may be dead \(silent for two of its intervals\), last beat")
    await beat(client, "w1", ttl=60, interval=100, running=[workflow], progress=8)

    await until(
        client, workflow, r"owner w1 is alive, last beat \d\.\d s ago, its lease has \d\d\.\d s left, epoch \d+\."
    )


async def test_a_name_that_is_heard_again(host: HostTables, serve: Serve, client: Client, news: News) -> None:
    """Its recovery is a step of the story, and a second loss is the second time."""
    await serve(heartbeat_timeout=1, gap_grace=0)
    (workflow,) = await host.workflows("w1")
    await beat(client, "w1")
    await news.until("workflow.reclaimed")
    await beat(client, "w1")
    await news.until("worker.recovered")
    await claim(host, workflow, "w1")
    await client.publish("liveness.goodbye.w1")
    await news.until("workflow.reclaimed")

    told = await story(client, workflow)

    assert "for the 2nd time, because w1 said goodbye" in told["sentence"]
    expected = ["ended", "reclaimed", "heard again", "ended", "reclaimed"]
    assert [what for what in steps(told) if what in expected] == expected
    last = await story(client, workflow, limit=1)
    assert (last["more"], len(last["moves"]), last["moves"][0]["reclaim_count"]) == (True, 1, 2)

    worker = (await ask(client, "why", worker="w1"))["worker"]
    assert [life["gave_back"] for life in worker["lives"]] == [{"workflow": 1}, {"workflow": 1}]
    assert re.fullmatch(
        rf"w1 has no lease: nothing was heard of it since, and it is not up in the registry; it holds nothing; its "
        rf"last life to end did so at {CLOCK} because w1 said goodbye\.",
        worker["sentence"],
    )
    assert worker["steps"][-1]["says"].startswith("released: the worker said goodbye; ")
    assert worker["steps"][-1]["says"].endswith("; 1 x workflow went back")


@pytest.mark.parametrize(
    ("goodbye", "because"),
    [
        ({}, "w1 said goodbye"),
        ({"exit_code": 1}, "the process of w1 was seen to end (exit code 1)"),
        ({"signal": 9}, "the process of w1 was seen to end (signal 9)"),
    ],
)
async def test_a_goodbye(
    host: HostTables, serve: Serve, client: Client, news: News, goodbye: dict[str, int], because: str
) -> None:
    """A release and a certificate are told as what they are."""
    await serve()
    await beat(client, "w1", ttl=60)
    (workflow,) = await host.workflows("w1")
    await client.publish("liveness.goodbye.w1", msgspec.json.encode(goodbye))
    await news.until("workflow.reclaimed")

    told = await story(client, workflow)

    assert f" because {because}; now PENDING" in told["sentence"]
    assert "lapsed" not in steps(told)


async def test_a_restart(host: HostTables, serve: Serve, client: Client) -> None:
    """What the former process held went back because there is a new one, which lives."""
    await serve()
    await hello(client, "w1", incarnation="a", ttl=60)
    (workflow,) = await host.workflows("w1")
    await hello(client, "w1", incarnation="b", ttl=60)

    told = await story(client, workflow)

    assert "because w1 was started again, and its former process is over; now PENDING" in told["sentence"]
    assert steps(told)[-3:] == ["ended", "reclaimed", "heard again"]
    sentence = (await ask(client, "why", worker="w1"))["sentence"]
    assert re.match(r"w1 is alive, last beat \d\.\d s ago, .*; it holds nothing; its last life", sentence)


async def test_an_operator(host: HostTables, serve: Serve, client: Client) -> None:
    """Whoever ended it, and what was known of the worker then, stands in the evidence."""
    await serve()
    await beat(client, "w1", ttl=60)
    (workflow,) = await host.workflows("w1")
    await until(client, workflow, r"epoch \d")
    assert (await ask(client, "reclaim", worker="w1", force=True))["reclaimed"] == 1

    told = await story(client, workflow)

    assert "because an operator ended the life of w1" in told["sentence"]
    assert re.search(r"an operator ended it; known of it then: last heartbeat \d\.\d s ago", says(told, "ended"))


async def test_an_orphan(host: HostTables, serve: Serve, client: Client, news: News) -> None:
    """Before the sweep takes it, when that will be; after it, why it did."""
    await serve(heartbeat_timeout=1, workflow_stuck_timeout=300, stale_worker_check_interval=0.3)
    (young,) = await host.workflows("gone")
    await until(client, young, "untouched")
    told = (await story(client, young))["sentence"]
    assert re.search(
        r"was never moved: RUNNING, owner gone is not up in the registry and was never heard; the sweep takes it when "
        r"it has been untouched for 300 s, in 5 min \(sweeps come every 0\.3 s\)\.$",
        told,
    )

    (workflow,) = await host.workflows("gone", untouched_for=3600)
    await news.until("workflow.reclaimed")
    told = await story(client, workflow)
    assert "because its owner gone was neither up nor heard, and nobody touched it; now PENDING" in told["sentence"]
    assert "untouched for more than 300 s" in says(told, "ended")


async def test_too_early(host: HostTables, serve: Serve, client: Client) -> None:
    """A service that has only begun to listen says how long it has to."""
    await serve(heartbeat_timeout=60)
    (workflow,) = await host.workflows("gone", untouched_for=3600)
    told = await until(client, workflow, "listened")
    assert re.search(
        r"the sweep takes it when the service has listened for 60 s without a loss, in (5\d|60)\.\d s", told
    )


async def test_a_worker_that_is_up_and_was_not_heard(host: HostTables, serve: Serve, client: Client) -> None:
    """What somebody else recorded is waited for, and said."""
    await serve(heartbeat_timeout=1, stale_worker_check_interval=RARELY)
    await host.worker("w1", silent_for=-50)
    (workflow,) = await host.workflows("w1")
    await until(client, workflow, "recorded")
    told = (await story(client, workflow))["sentence"]
    assert re.search(r"is up in the registry .* nobody has recorded a heartbeat for 1 s, in \d\d\.\d s \(sweeps", told)


async def test_work_of_a_worker_that_was_restored(host: HostTables, serve: Serve, client: Client) -> None:
    """A service that has just started owes it a ttl, and says so."""
    (workflow,) = await host.workflows("w1")
    await serve(heartbeat_timeout=60)
    told = (await story(client, workflow))["sentence"]
    assert re.search(
        r"was never moved: RUNNING, owner w1 was not heard since the service has been listening, and has "
        r"(59|60)\.\d s left to be heard",
        told,
    )


async def test_a_storm(host: HostTables, serve: Serve, client: Client) -> None:
    """What a storm holds is RUNNING, and it is said for how long at most."""
    await serve(heartbeat_timeout=60, storm_max_hold=500, gap_grace=0)
    (workflow,) = await host.workflows("w0")
    orphaned = (await host.workflows("gone", untouched_for=3600))[0]
    for number in range(4):
        await hello(client, f"w{number}", incarnation="a", ttl=1, uptime=100)
    await claim(host, workflow, "w0")

    told = await until(client, workflow, "storm")

    assert re.search(
        r"RUNNING, owner w0 lapsed \d\.\d s ago \(last beat \d\.\d s ago, ttl 1 s\); held by a storm: \d of 4 workers "
        r"by NATS fell silent at once; lapses are held since \d s, for 8 min more at most, then 15 % of them a second",
        told,
    ), told
    assert "the sweep takes it when no storm holds any lapse (storm: " in (await story(client, orphaned))["sentence"]


async def test_what_its_table_refuses(host: HostTables, serve: Serve, client: Client) -> None:
    """What the table has against one row stands in the sentence."""
    await host.connection.execute(
        "ALTER TABLE workflow_execution ADD CONSTRAINT keeps CHECK (kind <> 'poison' OR worker_id IS NOT NULL)"
    )
    await serve()
    await beat(client, "w1", ttl=60)
    (workflow,) = await host.workflows("w1")
    await host.connection.execute("UPDATE workflow_execution SET kind = 'poison'")
    await client.publish("liveness.goodbye.w1")

    told = await until(client, workflow, "refuses")

    assert re.search(r"RUNNING, the life of w1 that held it is over, and the table refuses to put it back.*keeps", told)


async def test_what_postgres_refuses(host: HostTables, serve: Serve, client: Client) -> None:
    """What Postgres has against the end of the whole life stands in the sentence."""
    await host.connection.execute("ALTER TABLE liveness.expiration ADD CONSTRAINT keeps CHECK (worker <> 'w1')")
    await serve()
    await host.worker("w1")
    await beat(client, "w1", ttl=60)
    (workflow,) = await host.workflows("w1")
    await client.publish("liveness.goodbye.w1")

    told = await until(client, workflow, "refuses")

    assert re.search(r"RUNNING, owner w1 ended \d\.\d s ago \(released\); Postgres refuses to end it.*keeps", told)


async def test_what_the_host_has_locked(dsn: str, host: HostTables, serve: Serve, client: Client, news: News) -> None:
    """A row of a life that is over waits for its lock; an epoch that somebody has locked, for that."""
    await serve()
    await beat(client, "w1", ttl=60)
    await beat(client, "w2", ttl=60)
    (workflow,) = await host.workflows("w1")
    (other,) = await host.workflows("w2")
    await until(client, other, "epoch \\d")
    locking = await asyncpg.connect(dsn)
    transaction = locking.transaction()
    await transaction.start()
    await locking.execute("SELECT FROM workflow_execution WHERE id = $1::uuid FOR UPDATE", workflow)
    await locking.execute("SELECT FROM liveness.epoch WHERE worker = 'w2' FOR UPDATE")
    await client.publish("liveness.goodbye.w1")
    await client.publish("liveness.goodbye.w2")

    told = await until(client, workflow, "fixed to go back")
    assert "the life of w1 that held it is over, and the row is fixed to go back: the host has it locked" in told
    told = await until(client, other, "locked in Postgres")
    assert re.search(r"owner w2 ended .* somebody has its epoch locked in Postgres", told)

    await transaction.rollback()
    await locking.close()
    assert {(await news.until("workflow.reclaimed")).subject for _ in range(2)} == {workflow, other}
    assert "was never moved" not in (await story(client, workflow))["sentence"]


async def test_mode_observe(host: HostTables, serve: Serve, client: Client) -> None:
    """What was decided there is told as what would have been."""
    await serve(mode="observe")
    await beat(client, "w1", ttl=60)
    (workflow,) = await host.workflows("w1")
    await client.publish("liveness.goodbye.w1")

    told = await until(client, workflow, "would have")

    assert re.search(
        rf"would have gone back at {CLOCK}, but mode was observe, because w1 said goodbye; now RUNNING, owner w1 is "
        rf"not up in the registry and was not heard since its life ended \(released\) at {CLOCK}; mode is observe: it "
        r"is recorded that it would go back, and it is left\.",
        told,
    )
    assert steps(await story(client, workflow))[-1] == "observed"


async def test_what_is_left_alone(host: HostTables, serve: Serve, client: Client) -> None:
    """Work without an owner, of a name that no worker can have, and of one that differs only in case."""
    await serve()
    (ownerless,), (empty,) = await host.workflows(None), await host.workflows("")
    (faulty,) = await host.workflows("two words\n\x1b[2J")
    await beat(client, "Worker")
    (differs,) = await host.workflows("worker")
    await until(client, differs, "case")

    for workflow, words in (
        (ownerless, "RUNNING, without an owner: nobody can say whose it is, so it is left alone."),
        (empty, "RUNNING, without an owner: nobody can say whose it is, so it is left alone."),
        (faulty, "no worker can be called (it contains white space or a control character), so it is left alone."),
        (differs, "it differs only in case from Worker, so it is left alone."),
    ):
        assert (await story(client, workflow))["sentence"].endswith(words)


async def test_what_is_done_or_waits(host: HostTables, serve: Serve, client: Client) -> None:
    """There is nothing to take back, and that is said."""
    await serve()
    (done,) = await host.workflows("w1", status="COMPLETED")
    (waits,) = await host.workflows(None, status="PENDING")
    assert (await story(client, done))["sentence"].endswith(
        "was never moved: COMPLETED, so there is nothing to take back."
    )
    assert (await story(client, waits))["sentence"].endswith("was never moved: PENDING, nobody holds it.")


async def test_an_unknown_id(serve: Serve, client: Client) -> None:
    """Whatever it looks like, it is not there, and it is said where was looked."""
    await serve()
    for work_id in ("0f3c8a1e-0000-4000-8000-000000000000", "banana", "1' OR '1'='1", "a\0b", "ä" * 1024):
        answer = await ask(client, "why", work_id=work_id)
        assert (answer["known"], answer["pieces"]) == (False, [])
        assert answer["sentence"] == (
            "nothing is known of that id: looked in public.workflow_execution, public.task_execution and in the "
            "history of all that ever moved."
        )
    assert "length >= 1" in (await ask(client, "why", work_id=""))["error"]


async def test_an_unknown_worker(serve: Serve, client: Client) -> None:
    """It is said where was looked; and a request for nothing, or for both, is refused."""
    await serve()
    answer = await ask(client, "why", worker="nobody")
    assert not answer["known"]
    assert answer["sentence"].startswith("nothing is known of a worker nobody: looked in the registry, the epochs")
    for request in ({}, {"worker": "a", "work_id": "b"}):
        assert "and not both" in (await ask(client, "why", **request))["error"]


async def test_an_id_of_two_tables_and_of_a_row_that_is_gone(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """Both stories are told, in whatever case the id is given; the one of a deleted row by the history alone."""
    await serve()
    await beat(client, "w1", ttl=60)
    (workflow,) = await host.workflows("w1")
    await host.connection.execute(
        "INSERT INTO task_execution (id, worker_id, status) VALUES ($1::uuid, 'w1', 'RUNNING')", workflow
    )
    await client.publish("liveness.goodbye.w1")
    await news.until("workflow.reclaimed")
    await news.until("task.reclaimed")
    await host.connection.execute("DELETE FROM task_execution")

    answer = await ask(client, "why", work_id=workflow.upper())

    first, second = answer["pieces"]
    assert (first["work"], first["id"], len(first["moves"])) == ("workflow", workflow, 1)
    assert (second["work"], second["row"], len(second["moves"])) == ("task", None, 1)
    assert f"task {workflow} is not in public.task_execution any more; it went back" in answer["sentence"]


async def test_without_a_service(
    nats: NatsServer, host: HostTables, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres alone is told, and that nobody could say who lives; without Postgres, it is one line."""
    monkeypatch.setattr(asking, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(alone, "CONNECT_SECONDS", 0.5)
    served = settings(nats_url=nats.url)
    await host.worker("w1", silent_for=20)
    (workflow,) = await host.workflows("w1")

    told = await run(served, WhyRequest(work_id=workflow))

    assert (
        "RUNNING, owner w1: nobody could say whether it lives (no liveness service answers on this NATS: is "
        "`liveness serve` running, and past its start?; as Postgres has it, nobody acts); it never had an epoch, and "
        "the registry has it up, with a heartbeat recorded 20."
    ) in told.sentence
    away = await run(settings(nats_url="nats://127.0.0.1:1"), WhyRequest(worker="w1"))
    assert away.known
    assert "nobody could say whether it lives (NATS" in away.sentence
    with pytest.raises(DatabaseAwayError, match="Postgres does not answer within") as raised:
        await run(settings(nats_url=nats.url, postgres_dsn="postgresql://127.0.0.1:1/none"), WhyRequest(worker="w1"))
    assert "\n" not in str(raised.value)


async def test_nothing_is_read_that_was_not_asked_for(
    host: HostTables, dsn: str, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a history that has grown since Postgres counted it, and of the host's tables: indexes lead to the rows."""
    await host.connection.execute(
        "ALTER TABLE liveness.reclaim SET (autovacuum_enabled = off);"
        "ANALYZE liveness.reclaim;"
        "INSERT INTO liveness.reclaim (work, id, worker, epoch, reclaim_count, reclaimed_at)"
        " SELECT 'workflow', gen_random_uuid()::text, 'w', 1, 1, now() - make_interval(secs => 100000 - n)"
        " FROM generate_series(1, 50000) AS n;"
        "INSERT INTO liveness.epoch (worker, epoch, ttl, term, ended_at)"
        " SELECT 'w', n, 60, 1, now() FROM generate_series(1, 1000) AS n;"
        "INSERT INTO liveness.expiration (worker, epoch, reason, ttl, decided_by, evidence, expired_at, finished_at)"
        " SELECT 'w', n, 'lapsed', 60, 'me', '{}', moment, moment"
        " FROM generate_series(1, 1000) AS n, LATERAL (SELECT now() - make_interval(secs => 99000 - n) AS moment) AS m;"
        "INSERT INTO workflow_execution (status) SELECT 'PENDING' FROM generate_series(1, 5000)"
    )
    (workflow,) = await host.workflows("w1")
    await host.connection.execute(
        "INSERT INTO liveness.reclaim (work, id, worker, epoch, reclaim_count) VALUES ('workflow', $1, 'w', 3, 1)",
        workflow,
    )
    database = Database(dsn)
    history = (await Store.open(database, settings())).history
    async with history._reading() as (connection, now):
        await history._rows(connection, workflow)
        assert len((await history._moves(connection, [workflow, "another"], 20))["workflow"]) == 1
        await history._owner(connection, "w", now)
        lives = [life("w", 1), life("w", 2)]
        assert await history._gave_back(connection, lives) == {1: {"workflow": 1}, 2: {}}
        monkeypatch.setattr(store_history, "COUNT_SECONDS", -1)
        assert await history._gave_back(connection, lives) == {}
        scanned = await connection.fetch(
            "SELECT relname, seq_scan, idx_tup_fetch FROM pg_stat_xact_all_tables"
            " WHERE relname IN ('reclaim', 'epoch', 'expiration', 'workflow_execution', 'task_execution')"
        )
    await database.close()
    assert {row["relname"]: row["seq_scan"] for row in scanned} == dict.fromkeys(
        ("reclaim", "epoch", "expiration", "workflow_execution", "task_execution"), 0
    )


@pytest.mark.parametrize(
    ("kind", "stored", "found", "not_there"),
    [
        ("bigint", "17", ["17", "017"], ["17.5", "seventeen", "1" + "0" * 30, "18"]),
        ("character varying(5)", "abcde", ["abcde"], ["abcdef", "ABCDE", "abcd"]),
        ("character(5)", "abc", ["abc"], ["abcdef", "a"]),
        ("numeric(6,2)", "1.20", ["1.2", "1.20"], ["1.204", "one"]),
        ("timestamptz", "2025-11-27 03:12:04+00", ["2025-11-27T04:12:04+01"], ["yesterday's", "2025-13-27"]),
        ("text", "job 1; --", ["job 1; --"], ["job 1", ""]),
    ],
)
async def test_ids_of_other_types(
    host: HostTables,
    dsn: str,
    settings: MakeSettings,
    kind: str,
    stored: str,
    found: list[str],
    not_there: list[str],
) -> None:
    """An id is found as its column's type reads it, never one that was cut or rounded to it, and is else not there."""
    await host.connection.execute(
        "ALTER TABLE task_execution ALTER COLUMN id DROP DEFAULT;"  # noqa: S608 - of the test's own literals
        f"ALTER TABLE task_execution ALTER COLUMN id TYPE {kind} USING NULL::{kind};"
        f"INSERT INTO task_execution (id, status) VALUES ('{stored}', 'PENDING');"
        "INSERT INTO liveness.reclaim (work, id, worker, epoch, reclaim_count)"
        " SELECT 'task', id::text, 'w', 1, 1 FROM task_execution"
    )
    database = Database(dsn)
    history = (await Store.open(database, settings())).history
    for work_id in found:
        (piece,) = (await history.of_work(work_id, 20)).pieces
        assert piece.row is not None, work_id
        assert len(piece.moves) == 1, work_id
    for work_id in not_there:
        assert not (await history.of_work(work_id, 20)).known, work_id
    await database.close()


async def test_without_a_service_nothing_is_tried_on_the_host(host: HostTables, settings: MakeSettings) -> None:
    """Whoever asks may have no right to write, and a status that is refused is the service's trouble."""
    (workflow,) = await host.workflows("w1")
    acting = settings(crash_action="quarantine", quarantine_status="NO SUCH STATUS")
    await host.connection.execute("CREATE ROLE a_reader LOGIN")
    await host.connection.execute("GRANT USAGE ON SCHEMA public, liveness TO a_reader")
    await host.connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public, liveness TO a_reader")
    reading = msgspec.structs.replace(acting, postgres_dsn=acting.postgres_dsn.replace("postgres@", "a_reader@"))
    try:
        told, _ = await alone.past_alone(reading, WhyRequest(work_id=workflow))
    finally:
        await host.connection.execute("DROP OWNED BY a_reader; DROP ROLE a_reader")

    assert told.known
