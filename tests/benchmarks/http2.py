"""As much of HTTP/2 (RFC 9113) as a stream of gRPC messages needs, by hand, so that a load of them is no load on us.

One stream on a connection, made of bytes that are sent as they are. What it has under way is a few KiB, far below the
64 KiB of flow control that a server begins with and renews as it reads; what it may receive is set to the most that
there is, 2 GiB. So neither side ever waits for a window, and none is counted.
"""

from typing import Final

_DATA: Final = 0
_HEADERS: Final = 1
_RST_STREAM: Final = 3
_SETTINGS: Final = 4
_PING: Final = 6
_GOAWAY: Final = 7
_WINDOW_UPDATE: Final = 8
_ACK: Final = 1
_END_STREAM: Final = 1
_END_HEADERS: Final = 4
_INITIAL_WINDOW_SIZE: Final = 4
_MOST_WINDOW: Final = (1 << 31) - 1
_FIRST_WINDOW: Final = 65_535
_HEAD: Final = 9
STREAM: Final = 1


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def message(encoded: bytes) -> bytes:
    """Return one gRPC message, not compressed, as a frame of the stream."""
    return frame(_DATA, 0, STREAM, b"\x00" + len(encoded).to_bytes(4, "big") + encoded)


def opening(path: str, authority: str) -> bytes:
    """Return what a client says to open a connection and its stream of messages to the gRPC method at `path`."""
    window = _MOST_WINDOW.to_bytes(4, "big")
    settings = _INITIAL_WINDOW_SIZE.to_bytes(2, "big") + window
    # Names by their place in HPACK's static table where they have one: POST, http, :path, :authority, content-type.
    headers = b"\x83\x86" + b"\x04" + _text(path) + b"\x01" + _text(authority)
    headers += b"\x0f\x10" + _text("application/grpc") + b"\x00" + _text("te") + _text("trailers")
    return b"".join((
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        frame(_SETTINGS, 0, 0, settings),
        frame(_WINDOW_UPDATE, 0, 0, (_MOST_WINDOW - _FIRST_WINDOW).to_bytes(4, "big")),
        frame(_HEADERS, _END_HEADERS, STREAM, headers),
    ))  # fmt: skip


class Frames:
    """Cuts what comes into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the gRPC messages that have come whole, and what has to be answered to the server itself.

        Raises RuntimeError when it ends the stream or the connection. A message comes in one frame: they are short.
        """
        data = self._rest + data
        messages: list[bytes] = []
        answer = b""
        at, end = 0, len(data)
        while at + _HEAD <= end:
            stop = at + _HEAD + int.from_bytes(data[at : at + 3], "big")
            if stop > end:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == _DATA:
                if stop - at > _HEAD:
                    messages.append(data[at + _HEAD + 5 : stop])
            elif kind in {_SETTINGS, _PING}:
                if not flags & _ACK:
                    answer += frame(kind, _ACK, 0, data[at + _HEAD : stop] if kind == _PING else b"")
            elif kind in {_RST_STREAM, _GOAWAY} or (kind == _HEADERS and flags & _END_STREAM):
                raise RuntimeError(f"the server has ended the stream: {data[at:stop]!r}")
            at = stop
        self._rest = data[at:]
        return messages, answer


def _text(text: str) -> bytes:
    # A length below 127, and not compressed.
    return bytes((len(text),)) + text.encode()
