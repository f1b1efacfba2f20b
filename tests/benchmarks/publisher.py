"""nats-py's way to publish much, a process of its own: `python -m tests.benchmarks.publisher URL SUBJECT SIZE KIND`.

JetStream's `publish_async`, with the window of 4,000 that it has by default, and `publish_async_completed` at the end:
so says its manual. KIND is `bare` (a payload of SIZE bytes) or `named` (the headers of our events with it).

Says {"ready": true}, and for each number on its standard input, once so many are published and acknowledged:
{"published", "began" (the machine's time), "cpu" (seconds)}.
"""

import asyncio
import sys
import time
import uuid

import nats

from tests.benchmarks.child import say


async def publish(url: str, subject: str, size: int, kind: str) -> None:
    """Publish as many as are asked for, until the input ends."""
    client = await nats.connect(url)
    context = client.jetstream()
    payload = b"x" * size
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    say({"ready": True})
    while line := await lines.readline():
        count = int(line)
        ids = [str(uuid.uuid4()) for _ in range(count)] if kind == "named" else []
        began, cpu = time.time(), time.process_time()
        for place in range(count):
            if ids:
                headers = {"Nats-Msg-Id": ids[place], "Content-Type": "application/cloudevents+json"}
                await context.publish_async(subject, payload, headers=headers)
            else:
                await context.publish_async(subject, payload)
        await context.publish_async_completed()
        say({"published": count, "began": began, "cpu": time.process_time() - cpu})
    await client.close()


if __name__ == "__main__":
    asyncio.run(publish(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
