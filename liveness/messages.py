"""The words on the wire, in and out. Pure.

What comes in is read with tolerance: unknown fields are ignored, and a heartbeat that does not decode is still
a heartbeat of its subject's worker. What goes out is exact. `schemas/messages/*.json` is generated from these
types, and their docstrings and descriptions are the schemas' prose.
"""

import hashlib
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from liveness.errors import MessageError

MAX_INCARNATION = 64
# Postgres `text` refuses U+0000, and one such value would fail the whole batch it travels in. The look-ahead
# instead of `$`: Python's `$` also matches before a final newline.
_TEXT = r"^[^\u0000]*(?![\s\S])"

Incarnation = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_INCARNATION,
        pattern=_TEXT,
        description="Opaque text made by the worker at its start; a new one means that the former process is over.",
    ),
]
Via = Annotated[
    str, Meta(max_length=128, pattern=_TEXT, description="Id of the NATS server that the worker is connected to.")
]
Instant = Annotated[
    str, Meta(description="RFC 3339, UTC, by Postgres' clock.", extra_json_schema={"format": "date-time"})
]
Epoch = Annotated[int, Meta(ge=0, description="Issued by Postgres for each life of a name; it only grows.")]
Reason = Annotated[
    str, Meta(description="lapsed, released, died, restarted, stale, orphaned, operator or leaked; more may come.")
]
Seconds = Annotated[float, Meta(ge=0, description="A duration in seconds.")]


class Heartbeat(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a worker says on `<prefix>.heartbeat.<worker>`. Every field may be left out; so may the payload."""

    incarnation: Incarnation | None = None
    # Bounded by what Postgres' bigint holds: a JSON integer has no bound of its own.
    seq: Annotated[int, Meta(ge=0, le=2**63 - 1, description="Grows with every beat.")] | None = None
    ttl: Annotated[float, Meta(description="Seconds this beat is good for; the service clamps it.")] | None = None
    interval: Annotated[float, Meta(ge=0, description="Seconds until the next beat is due.")] | None = None
    uptime: Annotated[float, Meta(ge=0, description="Seconds since this incarnation began.")] | None = None
    probe: Annotated[bool, Meta(description="Whether this worker answers probes.")] = False
    via: Via | None = None
    running: Annotated[list[str], Meta(description="Ids of the work it believes it holds.")] | None = None
    progress: Annotated[int, Meta(ge=0, le=2**63 - 1, description="Grows while it gets anything done.")] | None = None
    draining: Annotated[bool, Meta(description="Whether it begins nothing new, and leaves when it is done.")] = False


class Renewal(msgspec.Struct, frozen=True, gc=False):
    """What a renewal depends on, of a heartbeat.

    Of texts the rules are left out, which cost five times all the rest: a renewal's are equal to those of a heartbeat
    that was read with the rules. All other fields are there with theirs, so that nothing decodes that a `Heartbeat`
    does not (but for a text that is stated twice, where the last one counts for both).
    """

    incarnation: str | None = None
    seq: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    ttl: float | None = None
    interval: Annotated[float, Meta(ge=0)] | None = None
    uptime: Annotated[float, Meta(ge=0)] | None = None
    probe: bool = False
    via: str | None = None
    running: list[str] | None = None
    progress: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    draining: bool = False


class Goodbye(msgspec.Struct, frozen=True, omit_defaults=True):
    """What ends a life on `<prefix>.goodbye.<worker>`: the worker's release, or a certificate of its death.

    Without `exit_code` and `signal`, or with exit code 0, it is a release. Anything else is a certificate:
    whoever published it saw the process end. It ends only the life of the incarnation it names; without one it
    ends only a life that had none. And it ends none that has begun since, by the hello of its incarnation that states a
    greater uptime: then it comes late. What has fields and none of these is no goodbye.
    """

    incarnation: Incarnation | None = None
    uptime: Annotated[float, Meta(ge=0, description="Seconds since this incarnation began.")] | None = None
    exit_code: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, description="With which the process ended.")] | None = (
        None
    )
    signal: Annotated[int, Meta(ge=1, le=64, description="By which the process was ended.")] | None = None

    @property
    def reason(self) -> Literal["released", "died"]:
        """Why the work goes back: `released`, or `died` when this is a certificate."""
        return "died" if self.exit_code or self.signal else "released"


class Hello(msgspec.Struct, frozen=True, omit_defaults=True):
    """What begins a new incarnation, as a request on `<prefix>.hello.<worker>`, before it claims any work.

    It is answered once all that a former incarnation of the name still held is back in the queue.
    """

    incarnation: Incarnation
    ttl: Annotated[float, Meta(description="Seconds this beat is good for; the service clamps it.")] | None = None
    uptime: Annotated[float, Meta(ge=0, description="Seconds since this incarnation began.")] | None = None
    probe: Annotated[bool, Meta(description="Whether this worker answers probes.")] = False
    via: Via | None = None

    def as_heartbeat(self) -> Heartbeat:
        """Return the heartbeat that a hello is, too."""
        return Heartbeat(incarnation=self.incarnation, ttl=self.ttl, uptime=self.uptime, probe=self.probe, via=self.via)


class HelloAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a hello: the epoch under which this incarnation lives from now on, or why it does not."""

    worker: str
    incarnation: str | None
    epoch: Annotated[int, Meta(ge=0, description="The fencing token of this life; None when it was refused.")] | None
    error: Annotated[str, Meta(description="Why the hello was refused, in a line.")] | None = None
    ttl: (
        Annotated[float, Meta(gt=0, description="Seconds that a beat of this worker is good for, clamped if it was.")]
        | None
    ) = None


class Superseded(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told on `<prefix>.superseded.<worker>`: `epoch` is over; stop, drop its work."""

    epoch: Epoch
    incarnation: str | None
    new_epoch: Epoch
    new_incarnation: (
        Annotated[str, Meta(description="Whose the new epoch is; null: of one that states none.")] | None
    ) = None


Message = TypeVar("Message", bound=msgspec.Struct)

# Bytes of a message that is decoded as it is; usual ones are a quarter of it. Some numbers (1e300) take 15 us each, and
# a field may be repeated: a megabyte of them would hold up the loop for more than a second.
SHORT = 512
_FAULTS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Reader(Generic[Message]):
    """Decodes one kind of message in a time that its length bounds, whatever is in it."""

    def __init__(self, kind: type[Message]) -> None:
        self._decoder = msgspec.json.Decoder(kind)
        absent = msgspec.Raw()
        names = kind.__struct_fields__
        # What is raw is passed over, not parsed. Of a field that is repeated, the last one counts.
        self._raw = msgspec.json.Decoder(msgspec.defstruct("Fields", [(name, msgspec.Raw, absent) for name in names]))

    def decode(self, payload: bytes) -> Message:
        """Return the message. Raises one of `_FAULTS`."""
        if len(payload) > SHORT:
            payload = b"{" + b",".join(_member(name, raw) for name, raw in self.fields(payload).items()) + b"}"
        return self._decoder.decode(payload)

    def fields(self, payload: bytes) -> dict[str, bytes]:
        """Return the JSON of every known field that is there. Raises one of `_FAULTS`."""
        found = msgspec.structs.asdict(self._raw.decode(payload))
        return {name: bytes(raw) for name, raw in found.items() if raw}


def _member(name: str, raw: bytes) -> bytes:
    return b'"%s":%s' % (name.encode(), raw)


_heartbeat = _Reader(Heartbeat)
_goodbye = _Reader(Goodbye)
_hello = _Reader(Hello)
_EMPTY = Heartbeat()
_RELEASE = Goodbye()
# Raises one of `_FAULTS`. For payloads of at most `SHORT` bytes.
decode_renewal: Final = msgspec.json.Decoder(Renewal).decode


def decode_heartbeat(payload: bytes) -> tuple[Heartbeat, str | None]:
    """Return what a heartbeat says, and a complaint about its bytes or None.

    There is always a heartbeat: of a payload that does not decode, the fields that can be used are kept. An
    incarnation that cannot be used counts as a distinct one, its hash; never as none, for then a new process
    would pass for the former one.
    """
    if not payload:
        return _EMPTY, None
    try:
        return _heartbeat.decode(payload), None
    except _FAULTS as error:
        return _salvage(payload), str(error)


def _salvage(payload: bytes) -> Heartbeat:
    try:
        fields = _heartbeat.fields(payload)
    except _FAULTS:
        return _EMPTY
    usable: dict[str, Any] = {}
    for name, raw in fields.items():
        try:
            usable[name] = getattr(_heartbeat.decode(b"{" + _member(name, raw) + b"}"), name)
        except _FAULTS:
            if name == "incarnation":
                # Half of the digest: enough to be distinct, and within MAX_INCARNATION.
                usable[name] = "sha256:" + hashlib.sha256(raw).hexdigest()[:32]
    return Heartbeat(**usable)


def decode_goodbye(payload: bytes) -> Goodbye:
    """Return what a goodbye says; an empty payload is the release of a worker that has no incarnation.

    Raises MessageError for anything that does not decode: what would take work must be legible.
    """
    if not payload:
        return _RELEASE
    try:
        goodbye = _goodbye.decode(payload)
        # Whoever may ask JetStream has it answer here, with an object of its own: that ends nobody.
        strange = goodbye == _RELEASE and payload.strip(b"{} \t\r\n") and not _goodbye.fields(payload)
    except _FAULTS as error:
        raise MessageError(f"the goodbye does not decode: {error}") from error
    if strange:
        raise MessageError("it has fields, and none of a goodbye (incarnation, uptime, exit_code, signal): send one")
    return goodbye


def decode_hello(payload: bytes) -> Hello:
    """Return what a hello says. Raises MessageError for anything that does not decode: it may take work."""
    try:
        return _hello.decode(payload)
    except _FAULTS as error:
        raise MessageError(
            f"the hello does not decode: {error}; send JSON with an incarnation, a text of 1 to {MAX_INCARNATION}"
        ) from error
