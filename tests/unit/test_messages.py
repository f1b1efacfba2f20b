"""What comes in, however broken it is."""

import msgspec
import pytest

from liveness.errors import MessageError
from liveness.messages import (
    MAX_INCARNATION,
    SHORT,
    Goodbye,
    Heartbeat,
    Hello,
    decode_goodbye,
    decode_heartbeat,
    decode_hello,
)


def test_an_empty_payload_is_a_good_heartbeat() -> None:
    """A worker needs nothing but a publish."""
    assert decode_heartbeat(b"") == (Heartbeat(), None)


def test_every_field_is_read() -> None:
    """What the contract names arrives."""
    beat = Heartbeat(
        incarnation="a", seq=2**63 - 1, ttl=10, interval=2.5, uptime=0.5, probe=True, via="N", running=["x"], progress=3
    )

    assert decode_heartbeat(msgspec.json.encode(beat)) == (beat, None)


def test_unknown_fields_are_ignored() -> None:
    """A newer worker is understood by an older service."""
    assert decode_heartbeat(b'{"ttl": 5, "mood": "good"}') == (Heartbeat(ttl=5.0), None)


@pytest.mark.parametrize(
    "payload",
    [b"no json", b"[1, 2]", b"7", b"\xff\xfe", b'{"ttl": 1e400}', b"[" * 100_000, b'{"a": "\\ud800"}', b"\x00"],
)
def test_a_payload_that_does_not_decode_is_still_a_heartbeat(payload: bytes) -> None:
    """It lives; what it said is lost, and there is a complaint."""
    beat, complaint = decode_heartbeat(payload)

    assert beat == Heartbeat()
    assert complaint


@pytest.mark.parametrize(
    "payload",
    [
        b'{"ttl": 5, "seq": 10000000000000000000000}',
        b'{"ttl": 5, "seq": -1}',
        b'{"ttl": 5, "running": "x"}',
        b'{"ttl": 5, "uptime": "long"}',
        b'{"ttl": 5, "probe": 1}',
    ],
)
def test_the_good_fields_of_a_bad_payload_are_kept(payload: bytes) -> None:
    """One field that cannot be used costs only itself."""
    beat, complaint = decode_heartbeat(payload)

    assert beat == Heartbeat(ttl=5.0)
    assert complaint


@pytest.mark.parametrize("value", ["a\u0000b", "", "x" * (MAX_INCARNATION + 1), 7, None.__class__.__name__ * 40, ["a"]])
def test_an_incarnation_that_cannot_be_used_is_distinct(value: object) -> None:
    """It is its hash: always the same for the same text, never none, never another's."""
    first, complaint = decode_heartbeat(msgspec.json.encode({"incarnation": value}))
    again, _ = decode_heartbeat(msgspec.json.encode({"incarnation": value, "seq": 1}))
    other, _ = decode_heartbeat(msgspec.json.encode({"incarnation": [value]}))

    assert complaint
    assert first.incarnation is not None
    assert first.incarnation.startswith("sha256:")
    assert len(first.incarnation) <= MAX_INCARNATION
    assert first.incarnation == again.incarnation != other.incarnation


class Reading:
    """A decoder that notes the bytes that it is given to parse."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self.read: list[bytes] = []
        self._decoder = msgspec.json.Decoder(kind)

    def decode(self, payload: bytes) -> msgspec.Struct:
        """Parse them all the same."""
        self.read.append(payload)
        return self._decoder.decode(payload)


# A number that msgspec reads in 15 us, where others take a hundredth of that: a megabyte of them holds up the loop for
# more than a second, and nobody is heard.
SLOW = b"1e300"


@pytest.mark.parametrize(
    ("payload", "read"),
    [
        (b'{"x":[%s],"seq":-1}' % b",".join([SLOW] * 1000), {b'{"seq":-1}'}),
        (b"{%s}" % b",".join([b'"ttl":' + SLOW] * 1000), {b'{"ttl":1e300}'}),
        (b'{"progress":-1%s}' % (b',"seq":7' * 1000), {b'{"seq":7,"progress":-1}', b'{"seq":7}', b'{"progress":-1}'}),
    ],
)
def test_of_a_long_message_each_known_field_is_parsed_once(
    monkeypatch: pytest.MonkeyPatch, payload: bytes, read: set[bytes]
) -> None:
    """However often it is repeated, and whatever stands beside it."""
    reading = Reading(Heartbeat)
    monkeypatch.setattr("liveness.messages._heartbeat._decoder", reading)
    decode_heartbeat(payload)

    assert set(reading.read) == read


def test_a_hello_is_as_long_as_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for what must be legible."""
    reading = Reading(Hello)
    monkeypatch.setattr("liveness.messages._hello._decoder", reading)
    hello = decode_hello(b'{"incarnation":"a"%s}' % ((b',"uptime":' + SLOW) * 1000))

    assert (hello.incarnation, hello.uptime) == ("a", 1e300)
    assert reading.read == [b'{"incarnation":"a","uptime":1e300}']


def test_a_final_newline_is_no_way_around_the_pattern() -> None:
    """U+0000 is refused wherever it stands."""
    beat, _ = decode_heartbeat(b'{"incarnation": "a\\u0000\\n"}')

    assert beat.incarnation is not None
    assert "\x00" not in beat.incarnation


@pytest.mark.parametrize(
    ("goodbye", "reason"),
    [
        (Goodbye(), "released"),
        (Goodbye(exit_code=0), "released"),
        (Goodbye(exit_code=1), "died"),
        (Goodbye(signal=9), "died"),
    ],
)
def test_a_goodbye_is_a_release_or_a_certificate(goodbye: Goodbye, reason: str) -> None:
    """By exit code and signal."""
    assert decode_goodbye(msgspec.json.encode(goodbye)).reason == reason


@pytest.mark.parametrize("payload", [b"", b"{}", b" { }\n", b'{"exit_code": null, "x": 1}', b'{"incarnation": null}'])
def test_a_goodbye_without_an_incarnation_is_a_release(payload: bytes) -> None:
    """Of a worker that states none."""
    assert decode_goodbye(payload) == Goodbye()


@pytest.mark.parametrize(
    "payload",
    [
        # What JetStream says where it is asked to, and no permission is looked at for that.
        b'{"type":"io.nats.jetstream.api.v1.consumer_info_response","stream_name":"E","config":{"incarnation":"a"}}',
        b'{"type":"io.nats.jetstream.api.v1.consumer_info_response","error":{"code":404}}',
        b'{"specversion":"1.0","type":"worker.expired","data":{"worker":"w","incarnation":"a"}}',
        b'{"x":"%s"}' % (b"y" * SHORT),
    ],
)
def test_what_has_no_field_of_a_goodbye_ends_nothing(payload: bytes) -> None:
    """It was said by somebody who meant something else, or by JetStream at the word of somebody who meant this."""
    with pytest.raises(MessageError, match="none of a goodbye"):
        decode_goodbye(payload)


@pytest.mark.parametrize("payload", [b"x", b"[]", b'{"incarnation": ""}', b'{"exit_code": "zero"}', b'{"signal": 0}'])
def test_a_goodbye_that_does_not_decode_ends_nothing(payload: bytes) -> None:
    """What would take work must be legible."""
    with pytest.raises(MessageError):
        decode_goodbye(payload)


@pytest.mark.parametrize("via", ["a\u0000b", "x" * 129, 7])
def test_a_server_id_that_postgres_cannot_hold_is_none(via: object) -> None:
    """It is kept as evidence, and told of a storm: one such value would fail what it travels in, for ever."""
    payload = msgspec.json.encode({"incarnation": "a", "via": via})

    beat, complaint = decode_heartbeat(payload)
    assert (beat, bool(complaint)) == (Heartbeat(incarnation="a"), True)
    with pytest.raises(MessageError):
        decode_hello(payload)
