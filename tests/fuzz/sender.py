"""The hostile client, a process of its own: `python -m tests.fuzz.sender PORT FRAMES SEED AHEAD`.

AHEAD is by how many batches it may be ahead of what the service has heard; 0 for as many as the server takes, which is
more than any one subscriber reads: that tries out overload, and not bytes.

Prints, as JSON, how many frames the server has confirmed, how many of them were for the service's sinks, and how often
the server ended the connection.
"""

import json
import re
import socket
import sys
import time
from typing import Final

from tests.fuzz.frames import Frames

# A batch is confirmed by a PONG. What was in a batch that ended in an error counts for nothing.
BATCH: Final = 200
ANSWER_SECONDS: Final = 60.0
# Behind each batch goes a mark, which the stage answers when the service has heard it.
MARK: Final = b"liveness.heartbeat.fuzz-mark"
HEARD: Final = b"fuzz.heard"
_MARKED: Final = re.compile(rb"MSG fuzz\.heard \d+ \d+\r\n(\d+)\r\n")
_ASKED: Final = re.compile(rb"MSG (?:liveness\.probe\.\S+|workflow\.reclaimed) \d+ (\S+) \d+\r\n")


class Sender:
    """One hostile client, connected anew whenever the server has had enough."""

    def __init__(self, port: int, seed: int, ahead: int) -> None:
        self.confirmed = self.for_sinks = self.ended = 0
        self._port = port
        self._ahead = ahead
        # Of the marks: the last that was sent, and the last that the service has heard.
        self._marked = self._heard = 0
        self._frames = Frames(seed)
        self._socket = self._connect()

    def run(self, frames: int) -> None:
        """Send until the server has confirmed so many."""
        while self.confirmed < frames:
            batch = [self._frames.next() for _ in range(BATCH)]
            try:
                self._socket.sendall(b"".join(frame for frame, _ in batch) + self._mark() + b"PING\r\n")
                self._answered()
            except OSError:
                self.ended += 1
                self._socket.close()
                self._socket = self._connect()
                self._catch_up()
            else:
                self.confirmed += BATCH
                self.for_sinks += sum(good for _, good in batch)

    def _connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port))
        made.settimeout(ANSWER_SECONDS)
        # What the service asks, and what it publishes, tells a stranger its inboxes.
        made.sendall(
            b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n'
            b"SUB liveness.probe.> 1\r\nSUB workflow.reclaimed 2\r\nSUB %b 3\r\n" % HEARD
        )
        return made

    def _catch_up(self) -> None:
        # Or connections that end soon, one after the other, would never wait for the service.
        self._socket.sendall(self._mark() + b"PING\r\n")
        self._answered()

    def _mark(self) -> bytes:
        self._marked += 1
        number = b"%d" % self._marked
        return b"PUB %b %d\r\n%b\r\n" % (MARK, len(number), number)

    def _too_far_ahead(self, heard: bytes) -> bool:
        # A mark that came to nobody, because the connection ended, is made good by the next.
        self._heard = max([self._heard, *map(int, _MARKED.findall(heard[-1000:]))])
        return bool(self._ahead) and self._marked - self._heard > self._ahead

    def _answered(self) -> None:
        heard = b""
        # A question of the service's may stand behind it.
        while b"PONG\r\n" not in heard or self._too_far_ahead(heard):
            data = self._socket.recv(1 << 16)
            if not data or b"-ERR" in data:
                raise ConnectionError
            if data.endswith(b"PING\r\n"):
                self._socket.sendall(b"PONG\r\n")
            heard += data
        for inbox in _ASKED.findall(heard):
            self._frames.tell(inbox)


def main() -> None:
    """Send, and print what came of it."""
    port, frames, seed, ahead = map(int, sys.argv[1:5])
    sender, began = Sender(port, seed, ahead), time.monotonic()
    sender.run(frames)
    seconds = time.monotonic() - began
    told = {"confirmed": sender.confirmed, "for_sinks": sender.for_sinks, "ended": sender.ended, "seconds": seconds}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
