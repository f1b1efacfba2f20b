"""Workers by the ten thousand, of whom some fall silent: `python -m tests.benchmarks.silences WORK`.

WORK is a JSON object: `port` of the nats-server, `workers` who beat by turns, `rate` beats a second in all, `ttl` that
they state, `dying` of them who fall silent, within `seconds`, each at a moment of its own. They beat as
`liveness.Heartbeater` does, on a raw socket.

Says {"beating": true} when each has beaten twice. The dying fall silent from the first line on its standard input on;
when the last of them has, it says {worker: the machine's time of its last beat, ...}, and the others beat on.
"""

import json
import random
import select
import socket
import sys
import time
from typing import Any, Final

from tests.benchmarks.child import say
from tests.benchmarks.load import SUBJECT, TURNS_A_SECOND, connected

# What a process that has begun long ago states; nobody may be taken for a restart.
UPTIME: Final = 10_000.0


class Crowd:
    """All of them."""

    def __init__(self, work: dict[str, Any], server: socket.socket, via: str) -> None:
        self._workers: int = work["workers"]
        self._rate: float = work["rate"]
        self._seconds: float = work["seconds"]
        self._server = server
        # When each of the dying beats no more, by the machine's time.
        self._ends = dict.fromkeys(random.sample(range(self._workers), work["dying"]), float("inf"))
        self._last: dict[int, float] = {}
        self._silent = 0
        self._via = via.encode()
        self._stated = b'"ttl":%.1f,"interval":%.1f' % (work["ttl"], self._workers / self._rate)

    def live(self) -> None:
        """Beat until killed."""
        began, sent, dying = time.monotonic(), 0, False
        at_once = max(int(self._rate / TURNS_A_SECOND), 1)
        while True:
            self._turn(sent, at_once, time.monotonic() - began)
            if sent < 2 * self._workers <= sent + at_once:
                say({"beating": True})
            sent += at_once
            if not dying and select.select([sys.stdin], [], [], 0)[0]:
                dying, now = True, time.time()
                self._ends = {worker: now + random.uniform(0.0, self._seconds) for worker in self._ends}
            # The pace of a load; nothing is waited for.
            time.sleep(max(began + sent / self._rate - time.monotonic(), 0.0))

    def _turn(self, sent: int, count: int, uptime: float) -> None:
        now = time.time()
        beats = []
        for number in range(sent, sent + count):
            seq, worker = divmod(number, self._workers)
            if worker not in self._ends or self._still(worker, now):
                beats.append(self._beat(worker, seq, uptime))
        self._server.sendall(b"".join(beats))

    def _still(self, worker: int, now: float) -> bool:
        """Say whether one of the dying still beats."""
        if now < self._ends[worker]:
            self._last[worker] = now
            return True
        if self._ends[worker] > 0:
            # Once for each.
            self._ends[worker] = 0.0
            self._silent += 1
            if self._silent == len(self._ends):
                say({f"worker-{worker}": at for worker, at in self._last.items()})
        return False

    def _beat(self, worker: int, seq: int, uptime: float) -> bytes:
        said = b'{"incarnation":"%032x","seq":%d,%b,"uptime":%.3f,"probe":true,"via":"%b"}' % (
            worker, seq, self._stated, UPTIME + uptime, self._via,
        )  # fmt: skip
        return b"PUB %b%d %d\r\n%b\r\n" % (SUBJECT.encode(), worker, len(said), said)


def main(work: dict[str, Any]) -> None:
    """Send."""
    server, via = connected(work["port"])
    Crowd(work, server, via).live()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
