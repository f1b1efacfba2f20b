r"""What a NATS server sends, cut into frames. Pure: bytes in, frames out, no I/O and no clock.

nats-py's own parser is not used. It is a set of patterns in which `\s` parts the words, but nats-server parts them
only at space, tab, CR and LF: one subject with a vertical tab in it, which any client may publish, is no protocol to
those patterns and ends the connection.

The rules that this file keeps:

1. Strict about framing, which is the server's: a line ends with CR LF, its words are parted by one space, sizes are
   decimal digits, and CR LF stands behind every payload. Anything else means that we lost our place in the stream, and
   from there on every byte would be read as something that it is not: `FramingError`, and a new connection.
2. Tolerant about content, which is anybody's: a subject, a reply, headers and a payload are bytes, and none of them is
   looked at here. A payload that looks like protocol is a payload, because its size is known before it is read.
3. Each byte costs the same, however the bytes arrive. What is incomplete waits in pieces that are joined once; nothing
   grows by being copied. A megabyte that comes in small pieces and a chunk full of small messages are both linear.
4. Headers are parsed only where somebody asks for them, and at most `HEADERS_READ` of them.
5. Messages of one kind may be taken in runs, as they lie, by whoever reads them faster (`run`); where a run ends,
   frames go on, and nothing is taken out of its turn.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

# A line that is still not over is none. MSG lines are bounded by the server's max_control_line (4 KiB unless set);
# INFO lines name every server of a cluster.
MAX_LINE_BYTES: Final = 1 << 20
# A server refuses to be configured for payloads beyond 64 MiB.
_MAX_SIZE_DIGITS: Final = 9
# Nobody who may be answered needs more; a megabyte of header lines must not cost a dictionary of them.
HEADERS_READ: Final = 100
NO_RESPONDERS: Final = b"503"

# After so many runs, one behind the other, that took nothing, the rest of what was read is taken one by one: to try
# costs, too, and who wants it to cost sends what looks like a run and is none.
VAIN_MOST: Final = 8

_CRLF: Final = b"\r\n"
_VERSION: Final = b"NATS/1.0"
_SPACE: Final = 32
_CONTROLS: Final = frozenset({b"PING", b"PONG", b"+OK", b"-ERR", b"INFO"})

# The sid, subject, reply, headers and payload of a message. A word of the server itself has the empty sid, which no
# message has; its subject is the word (PING, PONG, +OK, -ERR, INFO) and its payload what stood behind it on the line.
Frame = tuple[bytes, bytes, bytes, bytes, bytes]


class FramingError(Exception):
    """The bytes are not framed as a NATS server frames them; nothing behind them can be understood."""


class Incoming:
    """The bytes of one connection, in the order in which they came, as frames."""

    def __init__(self) -> None:
        # Takes whole messages of some bytes from a place on, and returns the place behind them.
        self.run: Callable[[bytes, int], int] | None = None
        # Of what is incomplete: the pieces, and how many bytes they have.
        self._pieces: list[bytes] = []
        self._held = 0
        # What the payload under way belongs to, and how many bytes it has with its CR LF; none while a line is read.
        self._head: tuple[bytes, bytes, bytes, int] | None = None
        self._size = 0

    def read(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete once `data` has come; raises FramingError, and is of no use after that.

        To be exhausted before the next call: what is left of `data` is kept only at the end.
        """
        at = 0
        if self._pieces or self._head is not None:
            joined, at = self._join(data)
            if joined is None:
                return
            if (frame := self._piece(joined)) is not None:
                yield frame
        vain = 0
        while True:
            if self._head is None and self.run is not None and vain < VAIN_MOST:
                start, at = at, self.run(data, at)
                vain = 0 if at > start else vain + 1
            end = self._end(data, at)
            if end is None:
                break
            piece, at = data[at:end], end
            if (frame := self._piece(piece)) is not None:
                yield frame
        self._keep(data[at:])

    def _end(self, data: bytes, at: int) -> int | None:
        """Return where the line or the payload ends that begins at `at`, or None if it is not all there."""
        if self._head is None:
            return data.find(b"\n", at) + 1 or None
        end = at + self._size
        return end if end <= len(data) else None

    def _piece(self, piece: bytes) -> Frame | None:
        """Return the frame that a line or a payload completes, or None when it begins one."""
        return self._line(piece) if self._head is None else self._complete(piece)

    def _join(self, data: bytes) -> tuple[bytes | None, int]:
        """Return what was incomplete, if `data` completes it, and how much of `data` that took."""
        end = data.find(b"\n") + 1 if self._head is None else self._size - self._held
        if end == 0 or end > len(data):
            self._keep(data)
            return None, 0
        self._pieces.append(data[:end])
        joined = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        return joined, end

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._pieces.append(rest)
            self._held += len(rest)
            if self._head is None and self._held > MAX_LINE_BYTES:
                raise FramingError("a line without an end")

    def _line(self, line: bytes) -> Frame | None:
        """Return the frame that a line is, or None when it begins one."""
        if line[-2:] != _CRLF:
            raise FramingError(f"a line that does not end with CR LF: {line[-40:]!r}")
        words = line[:-2].split(b" ")
        word = words[0]
        if word == b"MSG":
            self._begin(words, 0)
        elif word == b"HMSG":
            self._begin(words, 1)
        elif word in _CONTROLS:
            return b"", word, b"", b"", line[len(word) : -2].strip(b" ")
        else:
            raise FramingError(f"an unknown word: {line[:40]!r}")
        return None

    def _begin(self, words: list[bytes], with_headers: int) -> None:
        """Begin the message `MSG subject sid [reply] size`, or `HMSG subject sid [reply] headers_size size`."""
        replies = len(words) - 4 - with_headers
        if replies not in {0, 1} or not words[1] or not words[2].isdigit():
            raise FramingError(f"a message without its words: {words[0]!r} and {len(words) - 1} more")
        size = _number(words[-1])
        headers_size = _number(words[-2]) if with_headers else 0
        if headers_size > size:
            raise FramingError(f"headers of {headers_size} bytes in a message of {size}")
        self._head = (words[2], words[1], words[3] if replies else b"", headers_size)
        self._size = size + 2

    def _complete(self, body: bytes) -> Frame:
        if self._head is None or body[-2:] != _CRLF:
            raise FramingError("a payload that does not end where its size says")
        sid, subject, reply, headers_size = self._head
        self._head = None
        return sid, subject, reply, body[:headers_size], body[headers_size:-2]


def run_of(subject: str, sid: int, longest: int) -> re.Pattern[bytes]:
    """Return what matches a message of the subscription `sid` to `<prefix>.>`: its name, stated size, and payload.

    The name is what stands behind the prefix. A payload is matched up to `longest` bytes and only without a CR in it;
    it is one only if it has the size. Messages with a reply or headers are not matched.
    """
    prefix = re.escape(subject.removesuffix(">").encode())
    return re.compile(rb"MSG %b([^ \r\n]++) %d (\d++)\r\n([^\r]{0,%d}+)\r\n" % (prefix, sid, longest))


def status_of(headers: bytes) -> bytes:
    """Return the status that a server puts into the first line of headers (`NATS/1.0 503`), empty if it is none."""
    status = headers[len(_VERSION) + 1 : len(_VERSION) + 4]
    return status if headers.startswith(_VERSION + b" ") and status.isdigit() else b""


def headers_of(headers: bytes) -> dict[str, str] | None:
    """Return headers as nats-py gives them to its users, of whatever bytes they are; None when there are none.

    `Status` and `Description` are those of the first line, if it has them. Of a name that comes twice the last counts,
    and what is no `Name: value` is left out.
    """
    first, *lines = headers.split(_CRLF, HEADERS_READ + 1)[: HEADERS_READ + 1]
    found = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        key = name.strip()
        if colon and key and key.isascii() and not any(byte <= _SPACE for byte in key):
            found[key.decode()] = value.strip().decode(errors="replace")
    if status := status_of(first):
        found["Status"] = status.decode()
        if description := first[len(_VERSION) + 1 + len(status) :].strip():
            found["Description"] = description.decode(errors="replace")
    return found or None


def _number(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > _MAX_SIZE_DIGITS:
        raise FramingError(f"a size that is none: {digits[:40]!r}")
    return int(digits)
