"""Hostile frames, from a seed: everything that a NATS server lets through, and a little that it does not."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Final

API: Final = b"liveness.api."
# What the service listens to, but for its inboxes, which are learned from the questions that it asks.
STEMS: Final = (
    b"liveness.heartbeat.",
    b"liveness.heartbeat.",
    b"liveness.heartbeat.",
    b"liveness.goodbye.",
    b"liveness.hello.",
    API,
)
# The server parts the words of a command at these, so they cannot be in a subject.
PARTING: Final = b" \t\r\n"
# Longer command lines end the connection; this leaves room for the rest of the line.
LONG: Final = 3000
# Names that could be workers', so that not every frame ends in the complaint about its name.
NAMES: Final = 2000
TAILS, REPLIES, HEADERS, PAYLOADS = 4000, 600, 600, 1500
# One frame in so many breaks the protocol, and its connection; one has a payload of up to a megabyte. Rare, because
# what is tried here are bytes that harm by what they are, not by being more than the network carries.
ILLEGAL_EVERY: Final = 5000
LARGE_EVERY: Final = 2000
LARGE: Final = 1_000_000

LOOK_ALIKES: Final = (
    b"MSG liveness.heartbeat.x 1 0\r\n\r\n",
    b"PING\r\n",
    b"PONG\r\n",
    b"-ERR 'Authorization Violation'\r\n",
    b"+OK\r\nMSG a 1 99999999\r\n",
    b'INFO {"ldm":true}\r\n',
    b"\r\n\r\nHMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    b"\r",
    b"\n",
    b"\r\n",
)
REPLIES_THAT_ACT: Final = (
    b"liveness.heartbeat.good-0",
    b"liveness.goodbye.good-1",
    b"$JS.API.STREAM.DELETE.LIVENESS_EVENTS",
    b"workflow.reclaimed",
    b"_INBOX.>",
    b"_INBOX.*.x",
)
ODD_TAILS: Final = (
    b"",
    b".",
    b"..",
    b".a",
    b"a.",
    b"a..b",
    b"*",
    b">",
    b"a.*",
    b"a.>",
    b"$liveness.echo.x",
    b"$liveness.echo.",
    b"$liveness",
    b"$SYS.x",
    "\ufffd".encode(),
    "x\ufffdy".encode(),
    "\u0085".encode(),
    "\u2028".encode(),
    "\u202egood-1".encode(),
    b"GOOD-1",
    "\N{PILE OF POO}".encode(),
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xff\xfe",
    b"\x00",
    b"good-1\x00",
    b"\x0b",
    b"\x0c",
    b"\x85",
    b"\xa0",
    b"\x1c",
    b"'", b'"', b"\\", b"%s", b"{}", b"status", b"sweep", b"reclaim", b"why",
)  # fmt: skip
_JSON: Final = (
    b"", b"{", b"}", b"[]", b"null", b"1", b'"x"', b"\xff", b"\x00", b"\xef\xbb\xbf{}", b"NaN", b"Infinity", b"{}{}",
    b'{"seq": NaN}', b'{"seq": 1e400}', b'{"seq": 99999999999999999999999999}', b'{"seq": -1}', b'{"seq": 1.5}',
    b'{"ttl": 1e308}', b'{"ttl": -1}', b'{"ttl": 0}', b'{"ttl": 315360000}', b'{"ttl": 1e-300}', b'{"ttl": "x"}',
    b'{"incarnation": "\\u0000"}', b'{"incarnation": ""}', b'{"incarnation": "\\ud800"}', b'{"incarnation": 5}',
    b'{"uptime": 1e308}', b'{"uptime": -5}', b'{"uptime": 1e-9}', b'{"interval": 0}', b'{"via": "\\u0000"}',
    b'{"probe": 1}', b'{"progress": 1e99}', b'{"running": {}}', b'{"running": [null]}', b'{"running": [[[[]]]]}',
    b'{"reason": "died"}', b'{"reason": "died", "exit_code": 1e999}', b'{"reason": "released", "incarnation": "i"}',
    b'{"reason": "died", "signal": 99999999999999999999}', b'{"error": 5}', b'{"stream": "LIVENESS_EVENTS", "seq": 1}',
)  # fmt: skip


class Frames:
    """An endless stream of frames; the same for the same seed, but for the inboxes that it was told of."""

    def __init__(self, seed: int) -> None:
        self._rng = rng = random.Random(seed)
        self._inboxes: list[bytes] = []
        self._names = [f"w-{number}".encode() for number in range(NAMES)]
        self._tails = [*ODD_TAILS, *(_around(byte) for byte in range(256) if byte not in PARTING), *self._names]
        self._tails += [_tail(rng) for _ in range(TAILS)]
        self._replies = [b"", b"_INBOX.x", *REPLIES_THAT_ACT, *ODD_TAILS[1:], *(_tail(rng) for _ in range(REPLIES))]
        self._headers = _headers(rng)
        self._payloads = [*_JSON, *LOOK_ALIKES, *(_payload(rng) for _ in range(PAYLOADS))]
        self._large = [bytes([byte]) * LARGE for byte in b"[x\x00"] + [b'{"via":"' + b"v" * LARGE + b'"}']
        self._large += [(part * 20_000)[:LARGE] for part in (b"[", b'{"a":', b'{"running":[', *LOOK_ALIKES)]
        # Of the numbers that take longest to read, as many as there is room for.
        slow = b",".join([b"1e300"] * (LARGE // 6 - 10))
        self._large += [b'{"incarnation":[%b]}' % slow, b'{"seq":-1,"x":[%b]}' % slow]
        self._large += [b"{%b}" % b",".join([b'"uptime":1e300'] * (LARGE // 15))]

    def tell(self, inbox: bytes) -> None:
        """Use this inbox of the service's, and others beside it, from now on."""
        if len(self._inboxes) < NAMES:
            self._inboxes.append(inbox)

    def next(self) -> tuple[bytes, bool]:
        """Return a frame, and whether a server takes it and hands it to one of the sinks for anybody's names."""
        rng = self._rng
        if rng.randrange(ILLEGAL_EVERY) == 0:
            return rng.choice(_ILLEGAL)(rng), False
        for_anybody = False
        to_inbox = bool(self._inboxes) and rng.random() < 0.1
        if to_inbox:
            subject = rng.choice(self._inboxes)
            if rng.random() < 0.5:
                subject = subject.rpartition(b".")[0] + b"." + rng.choice(self._names)
        else:
            stem, tail = rng.choice(STEMS), rng.choice(self._tails)
            subject = stem + tail
            # Of the api only its verbs are listened to; what the service says to itself is told apart by its name.
            for_anybody = stem != API and not tail.startswith(b"$liveness")
        reply = rng.choice(self._replies) if rng.random() < 0.3 else b""
        payload = rng.choice(self._large) if rng.randrange(LARGE_EVERY) == 0 else rng.choice(self._payloads)
        if rng.random() < 0.3:
            headers = rng.choice(self._headers)
            sizes = b"%d %d" % (len(headers), len(headers) + len(payload))
            frame = b"HPUB %b %b %b\r\n%b%b\r\n" % (subject, reply, sizes, headers, payload)
        else:
            frame = b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
        return frame, for_anybody


def _around(byte: int) -> bytes:
    return b"a%bb" % bytes([byte])


def _tail(rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    length = rng.choice([1, 2, 3, 8, 30, 254, 255, 256, 1000, LONG]) if kind else rng.randrange(1, 64)
    if kind == 0:
        raw = rng.randbytes(length)
    elif kind == 1:
        raw = bytes([rng.randrange(256)]) * length
    elif kind == 2:
        raw = b".".join([bytes([rng.randrange(256)])] * (length // 2 + 1))
    else:
        raw = "".join(
            chr(rng.choice([rng.randrange(0x21, 0x3000), rng.randrange(0x10000, 0x11000)])) for _ in range(60)
        )[:length].encode(errors="surrogatepass")
    return bytes(byte for byte in raw if byte not in PARTING) or b"x"


def _headers(rng: random.Random) -> list[bytes]:
    line = b"NATS/1.0"
    fixed = [
        line,
        line + b"\r\n",
        line + b"\r\n\r\n",
        line + b" 503\r\n\r\n",
        line + b" 503",
        line + b" 404 No Messages\r\n\r\n",
        line + b" 100 Idle Heartbeat\r\n\r\n",
        line + b" 100 FlowControl Request\r\n\r\n",
        line + b" \xff\xff\xff\r\n\r\n",
        line + b" \r\n\r\n",
        line + b" 5\r\n\r\n",
        line + "\u0661\u0662\u0663".encode() + b"\r\n\r\n",
        line + b"\xff\xff\r\n\r\n",
        line + b"\r\nno colon\r\n\r\n",
        line + b"\r\n: no name\r\n\r\n",
        line + b"\r\nA:\r\nA: 1\r\nA: 2\r\na: 3\r\n\r\n",
        line + b"\r\n\xff\xfe: x\r\n\r\n",
        line + b"\r\nA: \xff\xfe\r\n\r\n",
        line + b"\r\nStatus: 503\r\n\r\n",
        line + b"\r\nA: 1\rB: 2\nC: 3\r\n\r\n",
        line + b"\r\n folded\r\n\tfolded\r\n\r\n",
        line + b"\r\nA: " + b"x" * 60_000 + b"\r\n\r\n",
        line + b"\r\n" + b"A: 1\r\n" * 10_000 + b"\r\n",
        line + b"\r\n" * 20_000,
        b"NATS/9.9 503\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\r\n\r\n",
        b"x",
        b"\x00" * 12,
    ]
    return fixed + [rng.choice([line, b""]) + rng.randbytes(rng.randrange(1, 60)) for _ in range(HEADERS)]


def _payload(rng: random.Random) -> bytes:
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return rng.choice([b"[", b'{"a":', b'{"running":[']) * rng.choice([10, 100, 300])
    if kind == 2:
        return rng.choice(LOOK_ALIKES) * rng.randrange(1, 20)
    if kind == 3:
        return json.dumps({"running": ["x" * rng.randrange(100)] * rng.choice([1, 10, 50])}).encode()
    if kind == 4:
        return json.dumps({rng.choice(["seq", "ttl", "uptime", "progress"]): 10 ** rng.randrange(300)}).encode()
    fields = {
        "incarnation": rng.choice(["a", "b", "\0", "x" * 65, "\ufffd", None]),
        "seq": rng.choice([0, 1, 2**63, -1]),
        "ttl": rng.choice([0.001, 1, 5, 3600, 1e9, None]),
        "uptime": rng.choice([0, 1, 1e6, 1e300]),
        "via": rng.choice(["", "a", "x" * 100]),
        "probe": rng.choice([True, False]),
        "reason": rng.choice(["released", "died", "x"]),
    }
    some = {name: fields[name] for name in rng.sample(sorted(fields), rng.randrange(len(fields)))}
    text = json.dumps(some).encode()
    return text if kind < 7 else text[: rng.randrange(len(text) + 1)]


_ILLEGAL: Final[Sequence[Callable[[random.Random], bytes]]] = (
    lambda _: b"PUB liveness.heartbeat.x -1\r\n\r\n",
    lambda _: b"PUB liveness.heartbeat.x 99999999999999999999\r\n",
    lambda _: b"PUB liveness.heartbeat.x 2000000\r\n",
    lambda _: b"PUB liveness.heartbeat.x 3\r\nabcde\r\n",
    lambda _: b"PUB liveness.heartbeat." + b"x" * 10_000 + b" 1\r\nx\r\n",
    lambda _: b"HPUB liveness.heartbeat.x 20 10\r\nNATS/1.0\r\n\r\n\r\n",
    lambda _: b"HPUB liveness.heartbeat.x -5 0\r\n\r\n",
    lambda _: b"MSG liveness.heartbeat.x 1 0\r\n\r\n",
    lambda rng: rng.randbytes(100),
)
