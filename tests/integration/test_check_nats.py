"""What `liveness check` says of NATS: the server, and the stream of the events."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from liveness import eventstream
from liveness.bus import Bus
from liveness.checks import CHECKS, Of, check_all
from liveness.embedded import NatsServer
from liveness.eventstream import event_subjects
from liveness.findings import Finding, Weight
from liveness.settings import Settings, load
from tests.integration.test_nats_permissions import CONFIG, SECRET, started

# What of a stream is not as it should be, and the word that says so.
DOUBTS: list[tuple[str, dict[str, Any], Weight, str]] = [
    ("unacknowledged", {"no_ack": True}, Weight.BAD, "does not acknowledge"),
    ("shared", {"retention": RetentionPolicy.WORK_QUEUE}, Weight.BAD, "drops events once they are read"),
    ("memory", {"storage": StorageType.MEMORY}, Weight.BAD, "is kept in memory"),
    ("full", {"discard": DiscardPolicy.NEW, "max_msgs": 9}, Weight.BAD, "refuses events when it is full"),
    ("small", {"max_msg_size": 1000}, Weight.BAD, "takes no event of more than 1000 bytes"),
    ("last", {"max_msgs_per_subject": 1}, Weight.BAD, "keeps 1 events of each kind"),
    ("forgetful", {"duplicate_window": 120.0}, Weight.BETTER, "for 120 s (its duplicate window), not for 600"),
    ("short", {"max_age": 300.0, "duplicate_window": 300.0}, Weight.BETTER, "keeps events 300 s"),
]


@pytest.fixture
def permitted(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server with the shipped accounts."""
    yield from started(tmp_path / "accounts", CONFIG)


def settings_on(url: str, **overrides: Any) -> Settings:
    """Return settings that name this NATS."""
    return load({}, nats_url=url, **overrides)[0]


async def check(settings: Settings) -> list[Finding]:
    """Return what there is to say of NATS; that this one lets anybody in is known."""
    of_nats = [check for check in CHECKS if check[1] is Of.NATS]
    return [finding for finding in await check_all(settings, 5.0, checks=of_nats) if finding.check != "trust"]


async def test_a_stream_that_does_not_serve_is_told_and_one_of_ours_is_not(nats: NatsServer, client: Client) -> None:
    """What is missing is made by the service's start, as it should be; a look changes nothing."""
    ours = settings_on(nats.url)
    assert await check(ours) == []
    bus = Bus(nats.url)
    await bus.connect()
    await bus.ensure_stream(ours.events_stream, event_subjects(ours), ours.events_max_age, ours.events_max_bytes)
    await bus.close()
    assert await check(ours) == []

    for name, how, weight, words in DOUBTS:
        settings = settings_on(nats.url, events_stream=name, event_prefix=name)
        config = StreamConfig(name=name, subjects=event_subjects(settings), **({"duplicate_window": 600.0} | how))
        await client.jetstream().add_stream(config)

        (finding,) = await check(settings)

        assert (finding.check, finding.weight, finding.about) == ("stream", weight, f"stream {name}")
        assert words in finding.says
        assert finding.why
        assert finding.fix

    lacking = settings_on(nats.url, events_stream="lacking", event_prefix="lacking")
    made = StreamConfig(name="lacking", subjects=event_subjects(lacking)[1:], duplicate_window=600.0)
    await client.jetstream().add_stream(made)
    (finding,) = await check(lacking)
    assert (finding.weight, finding.says) == (Weight.BETTER, "did not take lacking.workflow.reclaimed")
    assert (await client.jetstream().stream_info("lacking")).config.subjects == made.subjects

    # What the service would not start with.
    await client.jetstream().add_stream(StreamConfig(name="HOST", subjects=["theirs.workflow.>"]))
    (finding,) = await check(settings_on(nats.url, events_stream="taken", event_prefix="theirs"))
    assert (finding.weight, finding.about) == (Weight.BROKEN, "liveness serve")
    assert "the JetStream stream HOST already takes some of theirs.workflow.reclaimed" in finding.says
    assert "event_prefix" in finding.fix


async def test_a_server_that_carries_too_little_or_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heaviest first: without JetStream nothing starts."""
    # It is not about to start, either.
    monkeypatch.setattr(eventstream, "JETSTREAM_START_SECONDS", 0.0)
    server = NatsServer(tmp_path / "plain", jetstream=False, config="max_payload: 4096")
    await server.start()
    try:
        stream, payload = await check(settings_on(server.url))
    finally:
        await server.stop()

    assert (stream.check, stream.weight) == ("stream", Weight.BROKEN)
    assert "has no JetStream" in stream.says
    assert "-js" in stream.fix
    assert (payload.check, payload.weight) == ("nats", Weight.BAD)
    assert payload.says == "max_payload is 4096 bytes"


async def test_a_server_that_cannot_be_reached(nats: NatsServer) -> None:
    """It is one finding, without the password."""
    await nats.stop()
    settings = settings_on(nats.url.replace("nats://", "nats://somebody:secret@"))

    (finding,) = await check(settings)

    assert (finding.check, finding.weight) == ("reach", Weight.BROKEN)
    assert finding.about == f"NATS at 127.0.0.1:{nats.port}"
    assert finding.says.startswith("cannot be reached: ")
    assert "secret" not in str(finding)


async def test_the_shipped_permissions_are_enough_for_a_look(permitted: NatsServer) -> None:
    """As the service: that the stream is not there yet, and that nobody else has its subjects."""
    service = {"nats_user": "liveness", "nats_password": SECRET, "nats_inbox_prefix": "_INBOX_liveness"}

    assert await check(settings_on(permitted.url, **service)) == []
