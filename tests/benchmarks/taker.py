"""A durable pull consumer, a process of its own: `python -m tests.benchmarks.taker PORT STREAM DURABLE`.

A raw socket that counts deliveries and looks at nothing else of them: who takes must not be the limit. It has several
pulls open, and acknowledges the last message of each (the consumer's policy is `all`).

Says {"ready": true}, and for each number on its standard input, once so many came since the one before: {"received",
"last"}, the machine's time of the last one.
"""

import re
import socket
import sys
import time
from typing import Final

from tests.benchmarks.child import say
from tests.benchmarks.load import connected

PULL: Final = 1_000
PULLS_OPEN: Final = 8
PULL_NANOSECONDS: Final = 900 * 10**9
# Every delivery has one, and our payloads none.
_DELIVERY: Final = re.compile(rb"\$JS\.ACK\.[^ \r\n]+ ")
# Longer than any of those, so that none is lost between two reads.
_MOST_BYTES: Final = 512


class Taker:
    """Takes what a consumer delivers."""

    def __init__(self, server: socket.socket, stream: str, durable: str) -> None:
        self._server = server
        self._request = (
            b'{"batch":%d,"expires":%d}' % (PULL, PULL_NANOSECONDS),
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}".encode(),
        )
        self._received = 0
        self._rest = b""

    def begin(self) -> None:
        """Subscribe, and ask for the first messages."""
        self._server.sendall(b"SUB _INBOX.taker 1\r\n")
        for _ in range(PULLS_OPEN):
            self._pull()

    def take(self, count: int) -> dict[str, float]:
        """Wait for so many messages, and say when they came."""
        received = 0
        while received < count:
            data = self._rest + self._server.recv(1 << 20)
            found, ended = 0, 0
            for delivery in _DELIVERY.finditer(data):
                found += 1
                ended = delivery.end()
                self._received += 1
                if self._received % PULL == 0:
                    self._acknowledge(delivery.group().rstrip())
            self._rest = data[max(ended, len(data) - _MOST_BYTES) :]
            received += found
        return {"received": received, "last": time.time()}

    def _acknowledge(self, delivery: bytes) -> None:
        self._server.sendall(b"PUB %b 4\r\n+ACK\r\n" % delivery)
        self._pull()

    def _pull(self) -> None:
        wish, subject = self._request
        self._server.sendall(b"PUB %b _INBOX.taker %d\r\n%b\r\n" % (subject, len(wish), wish))


def main(port: int, stream: str, durable: str) -> None:
    """Take."""
    server, _ = connected(port)
    taker = Taker(server, stream, durable)
    taker.begin()
    say({"ready": True})
    for line in sys.stdin:
        say(taker.take(int(line)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
