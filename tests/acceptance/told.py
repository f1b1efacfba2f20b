"""What the service has told: all that is in its stream."""

import json
from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from tests.conftest import SOON, HostTables

from .conftest import eventually


async def outbox_is_empty(host: HostTables) -> None:
    """Wait until everything that was committed is published."""
    await eventually(lambda: host.connection.fetchval("SELECT count(*) FROM liveness.outbox"), lambda rows: rows == 0)


async def published(client: Client, stream: str = "LIVENESS_EVENTS") -> list[dict[str, Any]]:
    """Return all that the stream holds now."""
    jetstream = client.jetstream()
    total = (await jetstream.stream_info(stream)).state.messages
    reading = await jetstream.pull_subscribe("", stream=stream, config=ConsumerConfig(ack_policy=AckPolicy.NONE))
    found: list[dict[str, Any]] = []
    while len(found) < total:
        messages = await reading.fetch(min(total - len(found), 500), timeout=SOON)
        for message in messages:
            event = json.loads(message.data)
            # Literally there, and with the id by which the stream drops repeats.
            assert message.subject == event["type"]
            assert message.headers is not None
            assert message.headers["Nats-Msg-Id"] == event["id"]
            found.append(event)
    await reading.unsubscribe()
    return found


def of_type(events: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the events of one type."""
    return [event for event in events if event["type"] == kind]
