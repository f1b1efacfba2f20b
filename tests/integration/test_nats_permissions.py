"""deploy/nats/liveness.conf on a real nats-server: who may say and hear what, and that it is enough."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Self

import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

import liveness
from liveness import service as service_module
from liveness.answers import ReclaimAnswer, ReclaimRequest, StatusAnswer, StatusRequest
from liveness.cli.asking import ask
from liveness.client import Heartbeater
from liveness.embedded import NatsServer
from liveness.errors import CannotStartError, ForbiddenError
from liveness.service import Service
from liveness.settings import Settings
from liveness.subjects import Subjects
from tests.conftest import SOON, HostTables, delivered
from tests.integration.running import Serve

CONFIG = (Path(__file__).parents[2] / "deploy" / "nats" / "liveness.conf").read_text(encoding="utf-8")
SECRET = "secret"  # noqa: S105 - a test's own
PASSWORDS = "".join(f'{name}: "{SECRET}"\n' for name in sorted(set(re.findall(r"\$(LIVENESS_\w+_PASSWORD)", CONFIG))))
OTHER = "build-7.eu.example"
EVENTS = ("workflow.reclaimed", "task.reclaimed", "worker.expired", "liveness.storm", "observed.workflow.reclaimed")


def started(folder: Path, config: str) -> Iterator[NatsServer]:
    """Start a server with this configuration, as it is shipped, and stop it."""
    server = NatsServer(folder, config=PASSWORDS + config)
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server with the shipped accounts."""
    yield from started(tmp_path_factory.mktemp("accounts"), CONFIG)


@pytest.fixture
def nats(server: NatsServer) -> NatsServer:
    """For what runs on it."""
    return server


def login(user: str, inbox: str = "_INBOX") -> liveness.Access:
    """Return how `user` logs in."""
    return liveness.Access(user=user, password=SECRET, inbox_prefix=inbox)


class Someone:
    """Somebody with a plain client, and what the server has refused it."""

    def __init__(self, server: NatsServer, user: str, inbox: str = "_INBOX") -> None:
        self._url = server.url.replace("nats://", f"nats://{user}:{SECRET}@")
        self._inbox = inbox
        self.refused: list[str] = []
        self.heard: list[str] = []
        self.client = Client()

    async def __aenter__(self) -> Self:
        await self.client.connect(self._url, inbox_prefix=self._inbox, error_cb=self._note)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def hear(self, *subjects: str) -> None:
        """Listen, and return once the server has said what it has against that."""
        for subject in subjects:
            await self.client.subscribe(subject, cb=self._hear)
        await delivered(self.client)

    async def say(self, *subjects: str, reply: str = "", payload: bytes = b"") -> None:
        """Publish, and return once the server has said what it has against that."""
        for subject in subjects:
            await self.client.publish(subject, payload, reply=reply)
        await delivered(self.client)

    async def _note(self, error: Exception) -> None:
        # nats-py has put it into small letters.
        self.refused += re.findall(r'violation for (?:publish|subscription) to "(.*?)"', str(error).lower())

    async def _hear(self, message: Msg) -> None:
        self.heard.append(message.subject)


@contextlib.asynccontextmanager
async def overhearing(server: NatsServer) -> AsyncIterator[Someone]:
    """Somebody who hears all that the service would."""
    async with Someone(server, "liveness", "_INBOX_liveness") as service:
        await service.hear("liveness.heartbeat.>", "liveness.goodbye.>", "liveness.hello.>", "liveness.*.*.heartbeat.>")
        yield service


async def ended_by_jetstream(server: NatsServer, service: Service, worker: str) -> bool:
    """Have the keeper make JetStream beat for `worker`, and then say goodbye; say whether that ended its life."""
    assert service.parts is not None
    question, fetch = (f"$JS.API.CONSUMER.{verb}.LIVENESS_EVENTS.billing" for verb in ("INFO", "MSG.NEXT"))
    intake, book = service.parts.intake, service.parts.book
    async with Someone(server, "keeper", "_INBOX_keeper") as keeper, asyncio.timeout(SOON):
        await keeper.say(question, reply=f"liveness.heartbeat.{worker}")
        while book.get(worker) is None:
            await delivered(keeper.client)
        await keeper.say(question, fetch, reply=f"liveness.goodbye.{worker}")
        # What that answers may be empty.
        assert keeper.refused == [fetch.lower()]
        while not intake.counts["goodbyes"]:
            await delivered(keeper.client)
    lease = book.get(worker)
    return lease is None or lease.ending is not None


def said_for(worker: str) -> list[str]:
    """Return all that is said in the name of a worker."""
    return [f"liveness.{verb}.{worker}" for verb in ("heartbeat", "goodbye", "hello")]


async def test_a_worker_speaks_for_itself_alone(server: NatsServer) -> None:
    """It cannot beat, release, greet or supersede for another, forge an event, command, nor touch the stream."""
    forbidden = [
        *(subject for name in (OTHER, "w2", "w1.x", "x.w1", "$liveness.echo.x") for subject in said_for(name)),
        *("liveness.superseded.w1", f"liveness.superseded.{OTHER}", f"liveness.probe.{OTHER}"),
        *("liveness.4.0.heartbeat.w2", "liveness.4.0.heartbeat.w1", "liveness.goodbye.x.heartbeat.w1"),
        *("liveness.api.reclaim", "liveness.api.status", *EVENTS),
        *("$JS.API.STREAM.INFO.LIVENESS_EVENTS", "$JS.API.STREAM.DELETE.LIVENESS_EVENTS", "$JS.API.INFO"),
        *("$JS.API.CONSUMER.MSG.NEXT.LIVENESS_EVENTS.billing", "$JS.ACK.LIVENESS_EVENTS.billing.1.1.1.1.1"),
        *("$SYS.REQ.SERVER.PING", f"_INBOX.{OTHER}.a.b", "_INBOX_liveness.a.b", "_INBOX.w1.a.b"),
    ]
    async with overhearing(server) as service, Someone(server, "w1") as worker:
        await worker.say(*forbidden, payload=b"{}")
        await worker.say(*said_for("w1"))
        await delivered(service.client)

        assert worker.refused == [subject.lower() for subject in forbidden]
        assert service.heard == said_for("w1")


async def test_a_worker_hears_what_is_meant_for_it_alone(server: NatsServer) -> None:
    """Neither what another is asked, told or answered, nor the heartbeats, the events and the commands."""
    forbidden = [
        *(
            "liveness.probe.>",
            "liveness.superseded.*",
            "liveness.>",
            ">",
            "liveness.heartbeat.>",
            "liveness.goodbye.w1",
        ),
        *(f"liveness.probe.{OTHER}", f"liveness.superseded.{OTHER}", f"liveness.heartbeat.{OTHER}"),
        *("_INBOX.>", "_INBOX.*.*.*", f"_INBOX.{OTHER}.*.*", "_INBOX.w1.>", "_INBOX_liveness.>", "_INBOX_operator.>"),
        *("liveness.api.status", "$SYS.>", "$JS.>", *EVENTS),
    ]
    async with Someone(server, "w1") as worker:
        await worker.hear(*forbidden)
        assert worker.refused == [subject.lower() for subject in forbidden]

        await worker.hear("liveness.probe.w1", "liveness.superseded.w1", "_INBOX.w1.token.*")
        assert len(worker.refused) == len(forbidden)


async def test_a_probe_is_answered_once_and_nothing_else_is(server: NatsServer) -> None:
    """Whoever was asked may answer where it was asked to, and not again."""
    asked = asyncio.Queue[Msg]()
    async with Someone(server, "liveness", "_INBOX_liveness") as service, Someone(server, "w1") as worker:
        await service.hear("_INBOX_liveness.>")
        await worker.client.subscribe("liveness.probe.w1", cb=asked.put)
        await delivered(worker.client)
        await service.say("liveness.probe.w1", reply="_INBOX_liveness.x.y")
        async with asyncio.timeout(SOON):
            assert (await asked.get()).reply == "_INBOX_liveness.x.y"
        await worker.say("_INBOX_liveness.x.y", "_INBOX_liveness.x.y", "_INBOX_liveness.x.z")
        await delivered(service.client)

        assert service.heard == ["_INBOX_liveness.x.y"]
        assert worker.refused == ["_inbox_liveness.x.y", "_inbox_liveness.x.z"]


async def test_an_operator_commands_and_speaks_for_nobody(server: NatsServer) -> None:
    """`liveness.api.*`, and an inbox."""
    forbidden = [*said_for("w1"), "liveness.superseded.w1", "workflow.reclaimed", "$JS.API.INFO", "_INBOX.w1.a.b"]
    async with Someone(server, "operator", "_INBOX_operator") as operator:
        await operator.say("liveness.api.status", *forbidden)
        await operator.hear("_INBOX_operator.a.*", "liveness.heartbeat.>", "_INBOX.>", "liveness.api.>")

    assert operator.refused == [
        *(subject.lower() for subject in forbidden),
        *("liveness.heartbeat.>", "_inbox.>", "liveness.api.>"),
    ]


async def test_a_login_that_may_not_ask_is_told_so_at_once(
    server: NatsServer, settings: Callable[..., Settings]
) -> None:
    """As whom it asked, and not after a minute that nobody answers."""
    keeper = settings(nats_url=server.url, nats_user="keeper", nats_password=SECRET, nats_inbox_prefix="_INBOX_keeper")
    with pytest.raises(ForbiddenError, match=r"^NATS forbids the user 'keeper' liveness.api.status, .*as one who may"):
        await asyncio.wait_for(ask(keeper, "status", StatusRequest(), StatusAnswer), SOON)


async def test_nobody_has_the_service_answer_into_its_own_inboxes(server: NatsServer) -> None:
    """But for a command's, which bears a random name: what a worker asks for may be answered anywhere it says."""
    async with Someone(server, "liveness", "_INBOX_liveness") as service:
        await service.say("_INBOX_liveness.a.b", "_INBOX_liveness.a", "_INBOX_liveness.command.a", "liveness.api.why")

    assert service.refused == ["_inbox_liveness.a.b", "_inbox_liveness.a"]


async def test_a_reader_reads_and_has_nobody_speak_for_it(server: NatsServer) -> None:
    """Not even JetStream, which answers wherever it is asked to: in the reader's own account nobody is there."""
    async with overhearing(server) as service, Someone(server, "billing", "_INBOX_billing") as reader:
        forbidden = [
            *said_for("w1"),
            "workflow.reclaimed",
            "liveness.api.status",
            "$JS.API.STREAM.INFO.LIVENESS_EVENTS",
        ]
        others = "$JS.LIVENESS.CONSUMER.MSG.NEXT.LIVENESS_EVENTS.other", "$JS.ACK.LIVENESS_EVENTS.other.1.1.1.1.1"
        makes = "$JS.API.CONSUMER.CREATE.LIVENESS_EVENTS.x", "$JS.LIVENESS.CONSUMER.CREATE.LIVENESS_EVENTS.x"
        await reader.say(*forbidden, *others, *makes)
        await reader.hear("liveness.heartbeat.>", "_INBOX.>")
        assert reader.refused == [
            *(subject.lower() for subject in (*forbidden, *others, *makes)),
            *("liveness.heartbeat.>", "_inbox.>"),
        ]

        asks = (
            "$JS.LIVENESS.CONSUMER.INFO.LIVENESS_EVENTS.billing",
            "$JS.LIVENESS.CONSUMER.MSG.NEXT.LIVENESS_EVENTS.billing",
        )
        await reader.say(*asks, "$JS.ACK.LIVENESS_EVENTS.billing.1.1.1.1.1", reply="liveness.heartbeat.w1")
        # The same question by somebody who may ask it in the workers' account: it is answered behind those, if at all.
        async with Someone(server, "keeper", "_INBOX_keeper") as keeper:
            await keeper.say(
                "$JS.API.CONSUMER.INFO.LIVENESS_EVENTS.billing", reply="liveness.heartbeat.whom-the-keeper-likes"
            )
            async with asyncio.timeout(SOON):
                while not service.heard:
                    await delivered(service.client)
        assert service.heard == ["liveness.heartbeat.whom-the-keeper-likes"]


async def test_the_system_account_tells_of_lost_connections_and_nothing_else(server: NatsServer) -> None:
    """Its user may say nothing at all."""
    async with Someone(server, "advisories", "_INBOX_liveness") as system:
        await system.hear("$SYS.ACCOUNT.*.DISCONNECT", "_INBOX_liveness.x.*", "$SYS.>")
        await system.say("$SYS.REQ.SERVER.PING", "liveness.heartbeat.w1")

    assert system.refused == ["$sys.>", "$sys.req.server.ping", "liveness.heartbeat.w1"]


async def test_everything_that_is_needed_is_allowed(
    serve: Serve,
    settings: Callable[..., Settings],
    server: NatsServer,
    host: HostTables,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hello, beats, what is held, being superseded, beginning again, goodbye; commands; events, and their end.

    And nobody's life ends by what JetStream answers, wherever the keeper has it do so.
    """
    as_service = {"nats_user": "liveness", "nats_password": SECRET, "nats_inbox_prefix": "_INBOX_liveness"}
    system = server.url.replace("nats://", f"nats://advisories:{SECRET}@")
    told: list[str] = []
    monkeypatch.setattr(service_module.log, "warning", lambda event, **_: told.append(event))
    service = await serve(**as_service, nats_system_url=system)
    assert service.parts is not None
    assert service.parts.advisories is not None
    reading = {"durable": "billing", "types": ["workflow.reclaimed"]}
    await liveness.make_reader(server.url, **reading, access=login("keeper", "_INBOX_keeper"))  # type: ignore[arg-type]
    first, second = await host.workflows("w1"), await host.workflows(OTHER)
    as_operator = settings(
        nats_url=server.url, nats_user="operator", nats_password=SECRET, nats_inbox_prefix="_INBOX_operator"
    )
    async with contextlib.aclosing(
        liveness.events(
            server.url,
            **reading,  # type: ignore[arg-type]
            api_prefix="$JS.LIVENESS",
            access=login("billing", "_INBOX_billing"),
        )
    ) as news:
        async with (
            Heartbeater(server.url, worker="w1", ttl=600, interval=0.1, access=login("w1")) as worker,
            Heartbeater(server.url, worker=OTHER, ttl=600, access=login(OTHER)) as other,
        ):
            async with asyncio.timeout(SOON):
                await asyncio.gather(worker.greeted.wait(), other.greeted.wait())
            with worker.holding("0198c0a4-2f7e-7c11-9d3a-5b1f6c2e8a90"):
                assert await worker.welcome(SOON)
                status = await ask(as_operator, "status", StatusRequest(), StatusAnswer)
                assert {one.worker for one in status.workers} == {"w1", OTHER}
                # And where the service runs, under its own login.
                assert (await ask(service.settings, "status", StatusRequest(), StatusAnswer)).workers
            async with asyncio.timeout(SOON):
                # Of the lives before the hellos.
                assert {(await anext(news)).subject, (await anext(news)).subject} == {*first, *second}
            assert not await ended_by_jetstream(server, service, "nameless")
            before = worker.epoch
            request = ReclaimRequest(worker="w1", dry_run=False, force=True)
            await ask(as_operator, "reclaim", request, ReclaimAnswer)
            async with asyncio.timeout(SOON):
                await worker.superseded.wait()
                await worker.begin_again()
            assert (worker.epoch or 0) > (before or 0)
            async with Someone(server, "liveness", "_INBOX_liveness") as asking:
                answer = await asking.client.request("liveness.probe.w1", timeout=SOON)
            assert msgspec.json.decode(answer.data)["incarnation"] == worker.incarnation
            (third,) = await host.workflows("w1")
            assert worker.last_problem is None
            assert other.last_problem is None
        async with asyncio.timeout(SOON):
            # By its goodbye.
            event = await anext(news)
        assert (event.subject, event.data.reason) == (third, "released")  # type: ignore[union-attr]
    await asyncio.wait_for(service.parts.advisories.up.wait(), SOON)
    assert not service.parts.bus.faults["forbidden"]
    assert "names_on_trust" not in told


async def test_a_command_is_run_under_the_same_permissions(server: NatsServer) -> None:
    """By the environment that all commands have in common: it is greeted, beaten for and released."""
    given = {"NATS_URL": server.url, "NATS_USER": OTHER, "NATS_PASSWORD": SECRET}
    environment = os.environ | {f"LIVENESS_{name}": value for name, value in given.items()}
    async with overhearing(server) as service:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "liveness", "run", "--worker", OTHER, "--", "true"),
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(SOON):
            _, complaints = await running.communicate()
        await delivered(service.client)

    assert (running.returncode, complaints) == (0, b"")
    assert set(service.heard) == set(said_for(OTHER))


async def test_a_reader_that_cannot_be_made_is_told_why(server: NatsServer) -> None:
    """By the operator, who may not."""
    with pytest.raises(CannotStartError, match=r"reader 'x' of the stream 'LIVENESS_EVENTS' cannot be made: .*onsumer"):
        await liveness.make_reader(server.url, durable="x", access=login("operator", "_INBOX_operator"))


async def test_where_workers_are_divided(tmp_path: Path) -> None:
    """With the lines that are commented out, w1's heartbeats come out at its shard, and no others do."""
    divided = re.sub(r"# (mappings:|\"liveness\.4\.)", r"\1", CONFIG)
    assert divided.count("\n    mappings:") == 1
    server = NatsServer(tmp_path / "nats", config=PASSWORDS + divided)
    await server.start()
    async with Someone(server, "liveness", "_INBOX_liveness") as service, Someone(server, "w1") as worker:
        await service.hear(
            "liveness.*.*.heartbeat.>", "liveness.heartbeat.>", "liveness.goodbye.>", "liveness.4.0.api.>"
        )
        await service.say("liveness.heartbeat.$liveness.echo.x")
        forbidden = [
            "liveness.4.0.heartbeat.w2",
            "liveness.goodbye.x.heartbeat.w1",
            "liveness.heartbeat.x.heartbeat.w1",
        ]
        await worker.say(*forbidden, "liveness.heartbeat.w1")
        await delivered(service.client)

        share = {name: Subjects().hash_of(name) % 4 for name in ("w1", "$liveness.echo.x")}
        assert service.heard == [f"liveness.4.{index}.heartbeat.{name}" for name, index in reversed(share.items())]
        assert len(worker.refused) == len(forbidden)
        assert service.refused == []
    await server.stop()


def test_the_configuration_names_the_worker_where_it_says() -> None:
    """Seven times, so that a block can be copied."""
    block = CONFIG[CONFIG.index("{ user: w1") : CONFIG.index('{ user: "build')]
    assert len(re.findall(r"[.\s]w1[\".,]", re.sub(r"(?m)^ *#.*", "", block))) == 7
