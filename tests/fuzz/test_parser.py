"""The parser alone, against a naive model."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveness.wire import MAX_LINE_BYTES, FramingError, Incoming, headers_of, status_of

# Any byte but those at which the server parts words.
texts = st.binary(min_size=1, max_size=20).map(
    lambda raw: bytes(byte for byte in raw if byte not in b" \t\r\n") or b"x"
)
bodies = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"MSG a 1 0\r\n\r\n", b"PING\r\n", b"-ERR 'x'\r\n", b"\r\n", b"\r", b"\n", b"x" * 3000]),
)
messages = st.tuples(
    st.integers(min_value=1, max_value=99999).map(lambda sid: str(sid).encode()),
    texts,
    st.one_of(st.just(b""), texts),
    st.one_of(st.just(b""), bodies),
    bodies,
)
words = st.sampled_from(
    [
        (b"", b"PING", b"", b"", b""),
        (b"", b"PONG", b"", b"", b""),
        (b"", b"+OK", b"", b"", b""),
        (b"", b"-ERR", b"", b"", b"'Permissions Violation for Publish to \"a\x0bb\"'"),
        (b"", b"INFO", b"", b"", b'{"server_id":"x", "max_payload":1}'),
    ]
)
Frame = tuple[bytes, bytes, bytes, bytes, bytes]


def written(frame: Frame) -> bytes:
    """Return the bytes that a server sends for `frame`: the naive model of `Incoming`."""
    sid, subject, reply, headers, payload = frame
    if not sid:
        return b" ".join(filter(None, [subject, payload])) + b"\r\n"
    address = b" ".join(filter(None, [subject, sid, reply]))
    if headers:
        return b"HMSG %b %d %d\r\n%b%b\r\n" % (address, len(headers), len(headers + payload), headers, payload)
    return b"MSG %b %d\r\n%b\r\n" % (address, len(payload), payload)


def read(*chunks: bytes) -> list[Frame]:
    """Return what one connection gives for these chunks."""
    incoming = Incoming()
    return [frame for chunk in chunks for frame in incoming.read(chunk)]


@given(st.lists(st.one_of(messages, words), max_size=12), st.data())
def test_frames_are_read_however_they_are_cut(frames: list[Frame], data: st.DataObject) -> None:
    """Into any chunks, in any place."""
    stream = b"".join(map(written, frames))
    cuts = sorted(data.draw(st.lists(st.integers(min_value=0, max_value=len(stream)), max_size=8)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*chunks) == frames


def test_frames_are_read_cut_at_every_byte() -> None:
    """One by one, and in two at every place."""
    frames: list[Frame] = [
        (b"1", b"a\x0bb", b"", b"", b"MSG a 1 0\r\n"),
        (b"", b"PING", b"", b"", b""),
        (b"22", b"\xff\x00", b"r", b"NATS/1.0", b""),
        (b"3", b"a", b"", b"", b""),
    ]
    stream = b"".join(map(written, frames))
    assert read(*(bytes([byte]) for byte in stream)) == frames
    for place in range(len(stream)):
        assert read(stream[:place], stream[place:]) == frames


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a 1\r\n",
        b"MSG a 1 r x 0\r\n\r\n",
        b"MSG  1 0\r\n\r\n",
        b"MSG a x 0\r\n\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 +1\r\nx\r\n",
        b"MSG a 1 1_0\r\n",
        b"MSG a 1 9999999999\r\n",
        b"MSG a 1 0\n\r\n",
        b"MSG\ta 1 0\r\n\r\n",
        b"MSG a 1 1\r\nxyz",
        b"HMSG a 1 12 11\r\n",
        b"HMSG a 1 12\r\n",
        b"HMSG a 1 -1 5\r\n",
        b"msg a 1 0\r\n\r\n",
        b"\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"x" * (MAX_LINE_BYTES + 1),
    ],
)
def test_what_no_server_sends_is_refused(line: bytes) -> None:
    """Whoever lost the place in the stream must not read on."""
    with pytest.raises(FramingError):
        read(line)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """With no other error, and the same however they are cut."""

    def outcome(*chunks: bytes) -> tuple[list[Frame], bool]:
        frames, incoming = list[Frame](), Incoming()
        try:
            for chunk in chunks:
                frames.extend(incoming.read(chunk))
        except FramingError:
            return frames, True
        return frames, False

    assert outcome(raw) == outcome(*(bytes([byte]) for byte in raw))


class Counted(bytes):
    """Bytes that count how often they are cut or searched, and for how many bytes."""

    touched = 0

    def __getitem__(self, part: Any) -> Any:
        """Return a part, counted."""
        got = super().__getitem__(part)
        Counted.touched += len(got) if isinstance(got, bytes) else 1
        return got


@pytest.mark.parametrize(
    ("stream", "chunk"),
    [
        (b"MSG liveness.heartbeat.w 1 2\r\n{}\r\n" * 20_000, 1 << 20),
        (b"MSG liveness.heartbeat.w 1 1000000\r\n" + b"x" * 1_000_000 + b"\r\n", 1 << 15),
        (b"MSG liveness.heartbeat.w 1 1000000\r\n" + b"x" * 1_000_000 + b"\r\n", 100),
        (b"INFO " + b"x" * 1_000_000 + b"\r\n", 100),
    ],
)
def test_each_byte_is_copied_a_few_times_at_most(stream: bytes, chunk: int) -> None:
    """Whether many messages come in one chunk or one message comes in many."""
    Counted.touched = 0
    incoming = Incoming()
    frames = sum(1 for at in range(0, len(stream), chunk) for _ in incoming.read(Counted(stream[at : at + chunk])))
    held = sum(map(len, incoming._pieces))
    assert frames >= 1
    assert held == 0
    assert Counted.touched < 3 * len(stream)


@pytest.mark.parametrize("beginning", [b"INFO ", b"MSG a 1 1000000\r\n"])
def test_what_is_incomplete_waits_as_it_came(beginning: bytes) -> None:
    """Joined with each piece that comes, a long line or payload would cost the square of its length."""
    incoming = Incoming()
    chunks = [bytes([65 + number]) * 100 for number in range(10)]
    assert not [frame for chunk in [beginning, *chunks] for frame in incoming.read(chunk)]
    assert all(piece is chunk for piece, chunk in zip(incoming._pieces[-10:], chunks, strict=True))


@pytest.mark.parametrize(
    ("raw", "status", "headers"),
    [
        (b"NATS/1.0", b"", None),
        (b"NATS/1.0\r\n\r\n", b"", None),
        (b"NATS/1.0 503\r\n\r\n", b"503", {"Status": "503"}),
        (b"NATS/1.0 503", b"503", {"Status": "503"}),
        (b"NATS/1.0 404 No Messages\r\n\r\n", b"404", {"Status": "404", "Description": "No Messages"}),
        (b"NATS/1.0 \xff\xff\xff\r\n\r\n", b"", None),
        (b"NATS/1.0\xff\xff\r\n\r\n", b"", None),
        (b"NATS/1.0\r\nA:1\r\nB : \xff\r\nA: 2\r\n\r\n", b"", {"A": "2", "B": "\ufffd"}),
        (b"NATS/1.0\r\nno colon\r\n: x\r\n\xff: x\r\na b: x\r\n\r\n", b"", None),
        (b"NATS/1.0\r\nStatus: 503\r\n\r\n", b"", {"Status": "503"}),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"", None),
        (b"", b"", None),
    ],
)
def test_headers_of_any_bytes(raw: bytes, status: bytes, headers: dict[str, str] | None) -> None:
    """A status is what the server says in the first line; what is no header is left out."""
    assert status_of(raw) == status
    assert headers_of(raw) == headers


def test_a_megabyte_of_headers_is_not_all_read() -> None:
    """Nobody who may be answered needs more than a hundred."""
    headers = headers_of(b"NATS/1.0\r\n" + b"".join(b"A%d: x\r\n" % number for number in range(100_000)))
    assert headers is not None
    assert len(headers) == 100
