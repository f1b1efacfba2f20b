"""Workers that beat as they should, a process of their own: `python -m tests.fuzz.fleet PORT WORKERS`.

Beats until its input ends; then prints, as JSON, how many beats of each worker the server has confirmed.
"""

import json
import select
import socket
import sys
import time
from typing import Final

TTL_SECONDS: Final = 5.0
INTERVAL_SECONDS: Final = 1.0
_STEPS: Final = 50


def main() -> None:
    """Beat, each worker once an interval, spread over it."""
    port, workers = map(int, sys.argv[1:3])
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
    began, step, beats = time.monotonic(), 0, [0] * workers
    told, input_ended = b"", False
    while not input_ended:
        wait = began + step * INTERVAL_SECONDS / _STEPS - time.monotonic()
        ready, _, _ = select.select([sys.stdin, connection], [], [], max(wait, 0.0))
        if connection in ready and (data := connection.recv(4096)):
            connection.sendall(b"PONG\r\n" * data.count(b"PING\r\n"))
        input_ended = sys.stdin in ready
        if wait <= 0:
            lines = []
            for worker in range(step % _STEPS, workers, _STEPS):
                beats[worker] += 1
                beat = {"incarnation": "good", "seq": beats[worker], "ttl": TTL_SECONDS, "interval": INTERVAL_SECONDS}
                payload = json.dumps(beat | {"uptime": round(time.monotonic() - began, 3)}).encode()
                lines.append(b"PUB liveness.heartbeat.good-%d %d\r\n%b\r\n" % (worker, len(payload), payload))
            connection.sendall(b"".join(lines))
            step += 1
    connection.sendall(b"PING\r\n")
    while not told.endswith(b"PONG\r\n"):
        told += connection.recv(4096)
    sys.stdout.write(json.dumps(beats) + "\n")


if __name__ == "__main__":
    main()
