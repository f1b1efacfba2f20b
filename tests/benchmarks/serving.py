"""The service as `liveness serve` runs it, a process of its own: `python -m tests.benchmarks.serving SETTINGS`.

SETTINGS is a JSON object; what it leaves out has its default. Says {"started": the machine's time} when its duties
begin, and for each line on its standard input what it knows then: {"gaps" and "lost" (seconds) of hearing, "published"
(events), "heard" (heartbeats), "leases", "wanting" (leases without an epoch), "cpu" (seconds, of this process)}. Its
log lines are made as always, and thrown away.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from liveness.cli.serve import loop_factory
from liveness.logs import configure
from liveness.service import Service
from liveness.settings import load
from tests.benchmarks.child import say


async def serve(overrides: dict[str, Any]) -> None:
    """Serve until the input ends."""
    # Crowds of workers that are in no registry are what is measured, and not how they are held back.
    unbounded = {"max_workers": 2**31, "max_grants": 1_000_000.0}
    settings, _ = load({}, http_listen="127.0.0.1:0", **(unbounded | overrides))
    service, stop = Service(settings), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    starting = asyncio.create_task(service.started.wait())
    await asyncio.wait({running, starting}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    say({"started": time.time()})
    while await lines.readline():
        say(_known(service))
    stop.set()
    await running


def _known(service: Service) -> dict[str, float]:
    parts = service.parts
    assert parts is not None
    return {
        "gaps": parts.hearing.gaps,
        "lost": parts.hearing.lost,
        "published": parts.relay.published,
        "heard": parts.intake.counts["heartbeats"],
        "leases": len(parts.book),
        "wanting": len(parts.book.wanting),
        "cpu": time.process_time(),
    }


def main(overrides: dict[str, Any]) -> None:
    """Run the service. What ends it unexpectedly is shown."""
    shown = sys.stderr
    with Path(os.devnull).open("w") as nowhere:
        sys.stderr = nowhere
        configure("json", "info")
        sys.stderr = shown
        with asyncio.Runner(loop_factory=loop_factory(overrides.get("event_loop", "auto"))) as runner:
            runner.run(serve(overrides))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
