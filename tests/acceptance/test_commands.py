import asyncio
import json
import re
from pathlib import Path
from typing import Any

import asyncpg
from click.testing import CliRunner
from nats.aio.client import Client

from liveness.cli import commands
from liveness.embedded import NatsServer
from tests.conftest import SOON, HostTables
from tests.roles import Roles

from .conftest import Liveness, Serve, all_of, beating, eventually
from .told import of_type, published

COMMANDS = {"demo", "dev", "serve", "migrate", "status", "watch", "why", "sweep", "reclaim", "check"}
# A service that looks by itself only once, at its start, so that a test sees what a command did.
RARELY = 3600


async def epochs(host: HostTables) -> Any:
    """Return the open epoch of each worker."""
    rows = await host.connection.fetch("SELECT worker, epoch FROM liveness.epoch WHERE ended_at IS NULL")
    return {row["worker"]: row["epoch"] for row in rows}


async def test_migrate_twice(liveness: Liveness, empty_dsn: str) -> None:
    """The second migration finds nothing to do, and the reference tables come only when asked for."""
    first = await liveness("migrate", postgres_dsn=empty_dsn)
    assert first.code == 0
    assert re.fullmatch(r"schema liveness is at version \d+: applied 0001_initial.*\n", first.out)
    connection = await asyncpg.connect(empty_dsn)
    try:
        there = "SELECT to_regclass('public.worker') IS NOT NULL"
        assert not await connection.fetchval(there)

        second = await liveness("migrate", "--host-tables", "--json", postgres_dsn=empty_dsn)
        assert second.code == 0
        assert second.answer["applied"] == []
        assert await connection.fetchval(there)
        await connection.execute("INSERT INTO worker (worker_name) VALUES ('A')")

        third = await liveness("migrate", "--host-tables", postgres_dsn=empty_dsn)
        assert third.code == 0
        assert "nothing to do" in third.out
        assert await connection.fetchval("SELECT count(*) FROM worker") == 1
    finally:
        await connection.close()


async def test_two_migrations_at_once(liveness: Liveness, empty_dsn: str) -> None:
    """Of two migrations that run at the same time both succeed, and one does the work."""
    connection, watcher = await asyncpg.connect(empty_dsn), await asyncpg.connect(empty_dsn)
    try:
        # Both have begun before either can go on.
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("CREATE SCHEMA liveness")
        waiting = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'liveness' AND wait_event_type = 'Lock'"
        )

        async def let_go() -> None:
            await eventually(lambda: watcher.fetchval(waiting), lambda count: count == 2)
            await transaction.rollback()

        async with asyncio.TaskGroup() as group:
            group.create_task(let_go())
            migrations = [
                group.create_task(liveness("migrate", "--host-tables", "--json", postgres_dsn=empty_dsn))
                for _ in range(2)
            ]
    finally:
        await connection.close()
        await watcher.close()
    answers = [task.result() for task in migrations]
    assert [one.code for one in answers] == [0, 0]
    applied = sorted((one.answer["applied"] for one in answers), key=len)
    assert applied[0] == []
    assert applied[1][0] == "0001_initial"


async def test_help(liveness: Liveness) -> None:
    """Every command explains itself."""
    overview = await liveness("--help")
    assert overview.code == 0
    listed = re.findall(r"^  ([a-z]+)  ", overview.out.partition("Commands:")[2], re.MULTILINE)
    assert set(listed) >= COMMANDS
    # Each in a process of its own says the same, in a third of a second.
    for name in listed:
        explained = CliRunner().invoke(commands, [name, "--help"], prog_name="liveness")
        assert (explained.exit_code, explained.stderr) == (0, "")
        assert explained.stdout.startswith(f"Usage: liveness {name} ")
        # A sentence, not only the options.
        assert re.search(r"^  [A-Z].*\.$", explained.stdout, re.MULTILINE), explained.stdout


async def test_wrong_use(liveness: Liveness) -> None:
    """Wrong use exits 2 and says what is wrong, a failure exits 1 with one line."""
    wrong = {
        ("resurrect",): "No such command 'resurrect'",
        ("serve", "--loudly"): "No such option",
        ("reclaim",): "Missing argument 'WORKER'",
        ("status", "--limit", "many"): "'many' is not a valid",
    }
    *refused, nobody = await all_of(*(liveness(*arguments) for arguments in wrong), liveness("status"))
    for ran, words in zip(refused, wrong.values(), strict=True):
        assert (ran.code, ran.out) == (2, "")
        assert words in ran.err
    assert (nobody.code, nobody.out) == (1, "")
    assert nobody.complaint.startswith("liveness: no liveness service answers on this NATS")


async def test_commands_that_cannot_hear(liveness: Liveness, host: HostTables, strict_nats: NatsServer) -> None:
    """Where NATS does not let them in, commands fail with one line, and none takes anything unheard."""
    (workflow,) = await host.workflows("A", untouched_for=3600)
    for ran in await all_of(
        liveness("status", nats_url=strict_nats.url),
        liveness("sweep", nats_url=strict_nats.url),
        liveness("reclaim", "A", "--force", nats_url=strict_nats.url),
    ):
        assert (ran.code, ran.out) == (1, "")
        assert ran.complaint.startswith(f"liveness: NATS at 127.0.0.1:{strict_nats.port} refuses us: ")
    assert await host.state(workflow) == ("RUNNING", "A")


async def test_status(liveness: Liveness, serve: Serve, host: HostTables, client: Client) -> None:
    """Status shows the service and each worker with what it holds, to people and as JSON."""
    await serve(heartbeat_timeout=60, workflow_stuck_timeout=60)
    await host.workflows("billing.1", count=3)
    await host.tasks("billing.1", count=2)
    async with beating(client, ["billing.1", "idle"]):
        known = await eventually(lambda: epochs(host), lambda known: len(known) == 2)

    answer = (await liveness("status", "--json")).answer
    assert (answer["mode"], answer["troubles"], answer["hearing"]) == ("act", [], True)
    assert (answer["leases"], answer["outbox"]) == (2, 0)
    workers = {worker["worker"]: worker for worker in answer["workers"]}
    assert {name: worker["running"] for name, worker in workers.items()} == {"billing.1": 5, "idle": 0}
    for name, worker in workers.items():
        assert (worker["state"], worker["ttl"], worker["epoch"]) == ("live", 60, known[name])
        assert 0 < worker["remaining"] <= 60

    shown = await liveness("status")
    assert (shown.code, shown.err) == (0, "")
    assert "ready" in shown.out.splitlines()[0]
    assert re.search(rf"billing\.1 .* live .* 5 .* {known['billing.1']} ", shown.out)
    assert "\x1b" not in shown.out


async def test_why(liveness: Liveness, serve: Serve, host: HostTables, client: Client) -> None:
    """One sentence, then the table; as JSON the whole; an unknown id exits 1, and wrong use 2."""
    await serve(heartbeat_timeout=60, workflow_stuck_timeout=60)
    (workflow,) = await host.workflows("w1")
    async with beating(client, ["w1"]):
        await eventually(lambda: epochs(host), lambda known: "w1" in known)
        living, as_data, worker, unknown, unknown_data, both, neither = await all_of(
            liveness("why", workflow),
            liveness("why", workflow, "--json"),
            liveness("why", "--worker", "w1"),
            liveness("why", "no-such-id"),
            liveness("why", "no-such-id", "--json"),
            liveness("why", workflow, "--worker", "w1"),
            liveness("why"),
        )
    assert (living.code, living.err) == (0, "")
    sentence, *table = living.out.splitlines()
    assert re.fullmatch(
        rf"workflow {workflow} was never moved: RUNNING, owner w1 is alive, last beat \d\.\d s ago, its lease has "
        r"\d\d\.\d s left, epoch \d+\.",
        sentence,
    )
    assert "evidence" in table[1]
    assert "\x1b" not in living.out
    assert as_data.code == 0
    assert as_data.answer["pieces"][0]["owner"]["standing"]["state"] == "live"
    assert re.match(r"w1 is alive, last beat .*; it holds 1 x workflow\.$", worker.out.splitlines()[0])

    assert (unknown.code, unknown.out) == (1, "")
    assert unknown.complaint.startswith("liveness: nothing is known of that id: looked in public.workflow_execution, ")
    assert (unknown_data.code, unknown_data.answer["known"]) == (1, False)
    for ran in (both, neither):
        assert (ran.code, ran.out) == (2, "")
        assert "name a WORK_ID, or a worker with --worker, and not both" in ran.err


async def test_sweep_with_a_service(liveness: Liveness, serve: Serve, host: HostTables, client: Client) -> None:
    """A sweep on demand is the running service's: a dry run names what it would take and takes nothing."""
    await serve(stale_worker_check_interval=RARELY)
    await host.worker("stale", silent_for=3600)
    # Of a stale name a service that has just begun takes only what was touched before it could hear.
    (stale,) = await host.workflows("stale", untouched_for=3600)
    (orphan,) = await host.workflows("gone", untouched_for=3600)

    async def looked() -> Any:
        return json.loads((await client.request("liveness.api.sweep", b'{"dry_run": true}', timeout=SOON)).data)

    # Nothing is taken before the service itself has listened for a ttl.
    assert set((await looked())["too_early"]) == {"stale", "gone"}
    await eventually(looked, lambda answer: not answer["too_early"])
    dry = (await liveness("sweep", "--dry-run", "--json")).answer
    assert (dry["stale"], dry["orphaned"], dry["ended"], dry["items"]) == (["stale"], ["gone"], 0, 0)
    shown = await liveness("sweep", "--dry-run")
    assert (shown.code, shown.err) == (0, "")
    assert "stale: stale\n" in shown.out
    assert "owners of orphans: gone\n" in shown.out
    assert "would end 2 lives; nothing was touched\n" in shown.out
    assert await host.state(stale) == ("RUNNING", "stale")
    assert await host.state(orphan) == ("RUNNING", "gone")

    swept = await liveness("sweep")
    assert (swept.code, swept.err) == (0, "")
    assert "ended 2 lives, put 2 pieces of work back\n" in swept.out
    assert await host.state(stale) == ("PENDING", None)
    assert await host.state(orphan) == ("PENDING", None)
    assert await host.worker_status("stale") == ["OFFLINE"]


async def test_reclaim_with_a_service(liveness: Liveness, serve: Serve, host: HostTables, client: Client) -> None:
    """The running service takes nothing of a worker that lives unless forced, and says when it was heard."""
    await serve(heartbeat_timeout=60, workflow_stuck_timeout=60, stale_worker_check_interval=RARELY)
    living = await host.workflows("living", count=3)
    (silent,) = await host.workflows("silent")
    async with beating(client, ["living"]):
        await eventually(lambda: epochs(host), lambda known: "living" in known)

        dry = await liveness("reclaim", "living", "--dry-run")
        assert (dry.code, dry.err) == (0, "")
        assert re.match(r"living: last heartbeat \d\.\d s ago, its lease runs \d+\.\d s more; it holds 3 ", dry.out)
        assert dry.out.endswith("nothing was touched\n")

        refused = await liveness("reclaim", "living")
        assert (refused.code, refused.out) == (1, "")
        assert re.match(r"liveness: living: last heartbeat \d\.\d s ago, its lease runs", refused.complaint)
        assert "--force" in refused.complaint
        assert [await host.state(workflow) for workflow in living] == [("RUNNING", "living")] * 3

    forced = await liveness("reclaim", "living", "--force", "--json")
    assert forced.code == 0
    assert (forced.answer["held"], forced.answer["reclaimed"]) == (3, 3)
    assert [await host.state(workflow) for workflow in living] == [("PENDING", None)] * 3

    unheard = await liveness("reclaim", "silent")
    assert (unheard.code, unheard.err) == (0, "")
    assert "nothing was heard of it" in unheard.out
    assert "put 1 piece of work back" in unheard.out
    assert await host.state(silent) == ("PENDING", None)


async def test_sweep_without_a_service(liveness: Liveness, host: HostTables, client: Client) -> None:
    """Without a service a sweep listens for a ttl, says what it heard, and takes the work of the silent only."""
    await host.worker("dead", silent_for=3600)
    await host.worker("living", silent_for=3600)
    (taken,) = await host.workflows("dead", untouched_for=3600)
    (orphan,) = await host.workflows("gone", untouched_for=3600)
    kept = await host.workflows("living", count=2, untouched_for=3600)
    async with beating(client, ["living", "unknown"]):
        dry = await liveness("sweep", "--dry-run", "--json")
        assert dry.code == 0
        assert set(dry.answer["lapsed"]) | set(dry.answer["stale"]) | set(dry.answer["orphaned"]) == {"dead", "gone"}
        assert await host.count("RUNNING") == 4

        swept = await liveness("sweep")
    assert swept.code == 0
    assert "no service answers: listening for 3.02 s\n" in swept.err
    assert re.search(r"^heard \d+ heartbeats of 2 workers$", swept.err, re.MULTILINE)
    assert "ended 2 lives, put 2 pieces of work back\n" in swept.out
    assert await host.state(taken) == ("PENDING", None)
    assert await host.state(orphan) == ("PENDING", None)
    assert [await host.state(workflow) for workflow in kept] == [("RUNNING", "living")] * 2
    # Nobody else would publish what it committed.
    told = of_type(await published(client), "workflow.reclaimed")
    assert sorted(event["subject"] for event in told) == sorted([taken, orphan])


async def test_reclaim_without_a_service(liveness: Liveness, host: HostTables, client: Client) -> None:
    """Without a service a reclaim listens for the worker itself, and spares one that it hears unless forced."""
    await host.worker("living", silent_for=3600)
    (kept,) = await host.workflows("living", untouched_for=3600)
    (taken,) = await host.workflows("dead")
    (spared,) = await host.workflows("also-dead")
    async with beating(client, ["living"]):
        # Each listens for as long.
        refused, dry, dead = await all_of(
            liveness("reclaim", "living"), liveness("reclaim", "also-dead", "--dry-run"), liveness("reclaim", "dead")
        )
        assert (refused.code, refused.out) == (1, "")
        assert "no service answers: listening for 3.02 s\n" in refused.err
        assert re.search(r"^heard \d+ heartbeats? of 1 worker$", refused.err, re.MULTILINE)
        assert "--force" in refused.err.splitlines()[-1]
        assert await host.state(kept) == ("RUNNING", "living")
        assert dry.code == 0
        assert "it holds 1 piece of work\nnothing was touched\n" in dry.out
        assert await host.state(spared) == ("RUNNING", "also-dead")
        assert dead.code == 0
        assert "put 1 piece of work back" in dead.out
        assert await host.state(taken) == ("PENDING", None)
        assert await host.state(kept) == ("RUNNING", "living")

        forced = await liveness("reclaim", "living", "--force")
    assert forced.code == 0
    assert "put 1 piece of work back" in forced.out
    assert await host.state(kept) == ("PENDING", None)
    told = of_type(await published(client), "workflow.reclaimed")
    assert [(event["subject"], event["data"]["former_worker"]) for event in told] == [(taken, "dead"), (kept, "living")]


async def test_check(liveness: Liveness, host: HostTables, dsn: str, tmp_path: Path) -> None:
    """A check exits 1 as long as it has something to say, to people or as JSON; the heaviest comes first."""
    # One that asks who somebody is.
    known = NatsServer(tmp_path / "known", config='authorization { user: "us", password: "them" }')
    await known.start()
    roles = Roles(dsn)
    roles.run_script()
    known_as = {
        "nats_url": known.url.replace("nats://", "nats://us:them@"),
        "postgres_dsn": roles.dsn(roles.service),
    }
    await host.workflows("A", count=3)
    try:
        good, good_json = await all_of(liveness("check", **known_as), liveness("check", "--json", **known_as))
        assert (good.code, good.err) == (0, "")
        assert good.out.startswith("nothing to say")
        assert (good_json.code, good_json.answer) == (0, {"findings": []})

        await host.connection.execute("DROP INDEX workflow_execution_owner_idx; DROP SCHEMA liveness CASCADE")
        shown, as_json = await all_of(
            liveness("check", **known_as), liveness("check", "--json", "--seconds", "10", **known_as)
        )
    finally:
        await known.stop()
        await roles.drop(host.connection)
    assert (shown.code, shown.err, as_json.code) == (1, "", 1)
    schema, finding = as_json.answer["findings"]
    assert (schema["check"], schema["weight"], schema["fix"]) == ("schema", "broken", "run `liveness migrate`")
    assert (finding["check"], finding["weight"], finding["about"]) == ("indexes", "better", "public.workflow_execution")
    assert all(gain["now"] > 0 and gain["then"] > 0 for gain in finding["gains"])
    # A line of its own, to be copied.
    (statement,) = finding["statements"]
    assert statement in shown.out.splitlines()
    assert statement.startswith("CREATE INDEX CONCURRENTLY ")
    assert re.search(r"at each reclaim: [\d.]+ ms now, [\d.]+ ms with it$", shown.out, re.MULTILINE)
    assert shown.out.startswith("broken liveness serve: the schema liveness has not been created\n  why: ")


async def test_check_of_what_is_not_there(liveness: Liveness) -> None:
    """Servers that cannot be reached are findings like all others, and so are a superuser and names on trust."""
    on_trust, nobody = await all_of(
        liveness("check"),
        liveness("check", nats_url="nats://127.0.0.1:1", postgres_dsn="postgresql://127.0.0.1:1/none"),
    )
    # The servers of this test ask nobody who it is.
    assert on_trust.code == 1
    superuser, nats = (line for line in on_trust.out.splitlines() if line.startswith("better "))
    assert superuser == "better role postgres: is a superuser"
    assert nats.startswith("better NATS: NATS asks nobody who it is, so any client can beat for any worker")
    assert "docs/nats.md" in on_trust.out
    assert nobody.code == 1
    assert re.findall("^[a-z]+ .*: cannot be reached", nobody.out, re.MULTILINE) == [
        "broken Postgres: cannot be reached",
        "broken NATS at 127.0.0.1:1: cannot be reached",
    ]
