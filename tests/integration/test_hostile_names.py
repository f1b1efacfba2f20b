"""Names that look like SQL, subjects, markup or commands mean nothing on their way through the service."""

import msgspec
from nats.aio.client import Client

from liveness.eventdata import WorkflowReclaimed
from liveness.subjects import name_fault
from tests.conftest import HostTables, delivered
from tests.integration.running import News, Serve, ask, beat
from tests.unit.hostile import HOSTILE

# Those that are names; and some that are made of what they go into.
NAMES = [
    *(text for text in HOSTILE if name_fault(text) is None),
    "w1'||(SELECT/**/'w2')||'",
    "$1",
    "{running$2}",
    'w"1',
    "E'\\\\x00'",
    "w2\u202e",
    "liveness.heartbeat.w2",
    "_INBOX.x",
    "$JS.API.STREAM.DELETE.LIVENESS_EVENTS",
]
# Postgres has no text with a NUL in it, so an incarnation with one is none.
INCARNATIONS = [text[:64] for text in HOSTILE if "\0" not in text]


async def test_a_name_means_nothing_but_itself(host: HostTables, serve: Serve, client: Client, news: News) -> None:
    """Whoever is called so beats, says goodbye and is explained as any other; and nobody else is touched."""
    assert len(NAMES) > 12
    await serve()
    await beat(client, "w2", ttl=60)
    (kept,) = await host.workflows("w2")
    held: dict[str, str] = {}
    lives: dict[str, bytes] = {}
    for number, name in enumerate(NAMES):
        lives[name] = msgspec.json.encode({"incarnation": INCARNATIONS[number % len(INCARNATIONS)], "ttl": 60})
        await client.publish(f"liveness.heartbeat.{name}", lives[name])
        (held[name],) = await host.workflows(name)
    await delivered(client)
    known = {worker["worker"] for worker in (await ask(client, "status"))["workers"]}
    assert known == {"w2", *NAMES}

    for name in NAMES:
        await client.publish(f"liveness.goodbye.{name}", lives[name])
    await delivered(client)

    told: dict[str, str] = {}
    while len(told) < len(NAMES):
        event = await news.until("workflow.reclaimed")
        assert isinstance(event.data, WorkflowReclaimed)
        told[event.data.former_worker] = event.data.workflow_id
    assert told == held
    for workflow in held.values():
        assert await host.state(workflow) == ("PENDING", None)
    assert await host.state(kept) == ("RUNNING", "w2")
    for name in NAMES[:3]:
        assert (await ask(client, "why", worker=name))["known"]
