"""Heartbeats by the ten thousand, a process of its own: `python -m tests.benchmarks.load PORT WORKERS RATE BEATS KIND`.

WORKERS beat by turns, RATE beats a second in all (0: as fast as the server takes them), BEATS of them, or for ever if
that is 0. KIND is `short` (40 bytes, what a script sends) or `full` (what `liveness.Heartbeater` sends). A raw socket
and bytes that were made before: the load must not be the limit.

Says {"sending": true} when it begins, and {"sent", "seconds", "late"} at its end: `late` is by how many seconds it was
behind its rate at worst.
"""

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final

from tests.benchmarks.child import say

SUBJECT: Final = "liveness.heartbeat.worker-"
# The ttl that they state, seconds.
TTL: Final = 10.0
# How often a second beats are handed to the kernel: real ones come spread out, and not in waves.
TURNS_A_SECOND: Final = 500
_SERVER: Final = re.compile(rb'"server_id":"(\w+)"')


def payload(kind: str, worker: int, seq: int, via: str) -> bytes:
    """Return what the beat number `seq` of a worker says."""
    if kind == "short":
        return b'{"seq":%d,"ttl":10.0,"uptime":%.1f}' % (10_000 + seq % 80_000, 1000.5 + seq % 8_000)
    return json.dumps(
        {
            "incarnation": f"{worker:032x}", "seq": 1_000 + seq, "ttl": TTL, "interval": TTL / 5,
            "uptime": 1000.123 + seq, "probe": True, "via": via,
        },
        separators=(",", ":"),
    ).encode()  # fmt: skip


def beats(kind: str, workers: int, seq: int, via: str) -> Iterator[bytes]:
    """Go through a round of all workers, as what a client writes."""
    for worker in range(workers):
        said = payload(kind, worker, seq, via)
        yield b"PUB %b%d %d\r\n%b\r\n" % (SUBJECT.encode(), worker, len(said), said)


def connected(port: int) -> tuple[socket.socket, str]:
    """Return a connection to the nats-server, and the server's id."""
    made = socket.create_connection(("127.0.0.1", port))
    # Else the kernel keeps small writes back for up to 40 ms, and no beat is sent when it is said to be.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    greeting = b""
    while b"\r\n" not in greeting:
        greeting += made.recv(1 << 16)
    made.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
    answer = b""
    while b"PONG" not in answer:
        answer += made.recv(1 << 16)
    found = _SERVER.search(greeting)
    return made, found[1].decode() if found else ""


def main(port: int, workers: int, rate: float, most: int, kind: str) -> None:
    """Send."""
    server, via = connected(port)
    # Some rounds that differ; to make them new for each beat would take longer than to send them.
    rounds = [list(beats(kind, workers, seq, via)) for seq in range(max(2, min(10, 400_000 // workers)))]
    flat = [beat for one in rounds for beat in one]
    say({"sending": True})
    began, sent, late = time.monotonic(), 0, 0.0
    at_once = max(int(rate / TURNS_A_SECOND), 1) if rate else 2_000
    while not most or sent < most:
        count = min(at_once, most - sent) if most else at_once
        start = sent % len(flat)
        piece = flat[start : start + count]
        server.sendall(b"".join(piece))
        sent += len(piece)
        if rate:
            ahead = began + sent / rate - time.monotonic()
            late = max(late, -ahead)
            if ahead > 0:
                # The pace of a load; nothing is waited for.
                time.sleep(ahead)
    server.sendall(b"PING\r\n")
    server.recv(1 << 16)
    say({"sent": sent, "seconds": time.monotonic() - began, "late": late})


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
