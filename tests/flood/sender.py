"""Invented names by the thousand, a process of its own: `python -m tests.flood.sender PORT NAMES RATE`.

NAMES different ones, RATE a second, each heard once: nine in ten beat, and state nothing; the tenth says hello.

Says {"sent"} when a third of them are sent, and {"sent", "seconds"} at its end.
"""

import sys
import time
from typing import Final

from tests.benchmarks.child import say
from tests.benchmarks.load import TURNS_A_SECOND, connected

HELLO: Final = b'{"incarnation":"a"}'


def invented(number: int) -> bytes:
    """Return what a client writes for the name of that number."""
    if number % 10:
        return b"PUB liveness.heartbeat.invented-%d 0\r\n\r\n" % number
    return b"PUB liveness.hello.invented-%d _INBOX.flood %d\r\n%b\r\n" % (number, len(HELLO), HELLO)


def main(port: int, names: int, rate: int) -> None:
    """Send."""
    server, _ = connected(port)
    began, at_once = time.monotonic(), max(rate // TURNS_A_SECOND, 1)
    for start in range(0, names, at_once):
        server.sendall(b"".join(map(invented, range(start, min(start + at_once, names)))))
        if start <= names // 3 < start + at_once:
            say({"sent": start + at_once})
        ahead = began + (start + at_once) / rate - time.monotonic()
        if ahead > 0:
            # The pace of a flood; nothing is waited for.
            time.sleep(ahead)
    server.sendall(b"PING\r\n")
    server.recv(1 << 16)
    say({"sent": names, "seconds": time.monotonic() - began})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
