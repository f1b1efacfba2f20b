import asyncio
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from liveness.bounded import cancellations, finish_within
from liveness.client import Heartbeater, events
from liveness.client.connection import Connection
from liveness.client.consumer import ACK, Consumer
from liveness.client.events import read_event
from liveness.client.problems import Problems
from liveness.errors import MessageError
from liveness.eventdata import WorkerEnded

URL = "nats://127.0.0.1:4222"
ENVELOPE = {
    "specversion": "1.0",
    "id": "7",
    "source": "liveness",
    "type": "worker.expired",
    "subject": "w1",
    "time": "2026-01-01T00:00:00Z",
    "data": {
        "worker": "w1",
        "incarnation": None,
        "epoch": 3,
        "reason": "lapsed",
        "ttl": 10,
        "last_heartbeat_at": None,
        "lapsed_at": None,
        "expired_at": "2026-01-01T00:00:00Z",
    },
}


@pytest.mark.parametrize(
    ("ttl", "interval", "expected"), [(None, None, 10.0), (10, None, 2.0), (10, 3, 3), (None, 60, 60)]
)
def test_interval_follows_the_ttl(ttl: float | None, interval: float | None, expected: float) -> None:
    """A worker that states no interval beats five times in its ttl, or every ten seconds."""
    assert Heartbeater(URL, worker="w1", ttl=ttl, interval=interval).interval == expected


@pytest.mark.parametrize(
    ("ttl", "interval", "words"),
    [
        (10, 10, ["interval (10)", "ttl (10)", "lower interval"]),
        (10, 0, ["interval (0)", "ttl (10)", "raise interval"]),
        (None, -1, ["interval (-1)", "raise interval"]),
        (10, float("nan"), ["interval (nan)", "ttl (10)"]),
        (0, None, ["ttl (0)"]),
        (float("inf"), None, ["ttl (inf)"]),
        (float("nan"), None, ["ttl (nan)"]),
    ],
)
def test_durations_that_cannot_be(ttl: float | None, interval: float | None, words: list[str]) -> None:
    """Durations that would make the lease lapse by themselves are refused, with the values and the fix."""
    with pytest.raises(ValueError, match=r"has to be|is not below") as caught:
        Heartbeater(URL, worker="w1", ttl=ttl, interval=interval)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("worker", ["", "a b", "a..b", "*", "a\x00", "x" * 256])
def test_worker_names_that_cannot_be_subjects(worker: str) -> None:
    """A name that could not be heard is refused where it is given."""
    with pytest.raises(ValueError, match="the worker name"):
        Heartbeater(URL, worker=worker)


@pytest.mark.parametrize("incarnation", ["", "x" * 65, "a\x00b"])
def test_incarnations_that_cannot_be(incarnation: str) -> None:
    """An incarnation that the service could not use is refused."""
    with pytest.raises(ValueError, match="incarnation"):
        Heartbeater(URL, worker="w1", incarnation=incarnation)


def test_incarnations_differ() -> None:
    """Two lives of one name are told apart without anybody's doing anything."""
    assert Heartbeater(URL, worker="w1").incarnation != Heartbeater(URL, worker="w1").incarnation


@pytest.mark.parametrize("url", ["", " , ", "nats://", "http://h:1", "nats://u:secret@h:port", "nats://u:secret@:1"])
def test_urls_that_cannot_be(url: str) -> None:
    """A URL that will never work is refused at once, without showing its password."""
    for make in (lambda: Heartbeater(url, worker="w1"), lambda: events(url, durable="d")):
        with pytest.raises(ValueError, match="nats_url") as caught:
            make()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1", "h:4222", "tls://u:p@h:4222", "nats://a:1, nats://b:2", "nats://[::1]:1"])
def test_urls_that_nats_knows(url: str) -> None:
    """Every form of address that NATS clients take is taken."""
    assert Heartbeater(url, worker="w1").last_problem is None


@pytest.mark.parametrize("durable", ["", "a.b", "a b", "a*", ">", "a/b", "a\\b", "a\n", "a\x00", "x" * 256])
def test_durables_that_cannot_be(durable: str) -> None:
    """A durable name that the server would refuse is refused before anything is awaited."""
    with pytest.raises(ValueError, match="durable"):
        events(URL, durable=durable)


def test_other_arguments_of_events_that_cannot_be() -> None:
    """The other arguments are looked at as early as the name."""
    with pytest.raises(ValueError, match="stream"):
        events(URL, durable="d", stream="a.b")
    with pytest.raises(ValueError, match="types is empty"):
        events(URL, durable="d", types=[])
    with pytest.raises(ValueError, match=r"worker\.\*"):
        events(URL, durable="d", types=["worker.*"])
    with pytest.raises(ValueError, match="ack_wait"):
        events(URL, durable="d", ack_wait=0)


def test_known_event_is_typed() -> None:
    """The data of a type that this version knows comes as that type."""
    event = read_event(msgspec.json.encode(ENVELOPE), 2)
    assert isinstance(event.data, WorkerEnded)
    assert (event.id, event.subject, event.data.epoch, event.deliveries) == ("7", "w1", 3, 2)


def test_unknown_event_is_a_dict() -> None:
    """The data of a type that a later version brings is handed on as it is."""
    event = read_event(msgspec.json.encode(ENVELOPE | {"type": "worker.promoted", "data": {"to": "king"}}), 1)
    assert event.data == {"to": "king"}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[" * 100_000,
        msgspec.json.encode(ENVELOPE | {"type": "worker.promoted", "data": None}).replace(b"null", b"[" * 100_000),
        msgspec.json.encode(ENVELOPE).replace(b'"w1"', b'"\xff"'),
        msgspec.json.encode(ENVELOPE | {"data": {}}),
        msgspec.json.encode(ENVELOPE | {"type": "worker.promoted", "data": 1}),
        msgspec.json.encode(ENVELOPE | {"specversion": "2.0"}),
    ],
)
def test_what_is_no_event(payload: bytes) -> None:
    """Bytes that are no event raise the one error that says so."""
    with pytest.raises(MessageError):
        read_event(payload, 1)


def test_client_imports_little() -> None:
    """A worker's process loads nothing of the service."""
    program = (
        "import sys, liveness.client;"
        "unwanted = {'asyncpg', 'starlette', 'structlog', 'rich', 'uvicorn'} & sys.modules.keys();"
        "own = {name for name in sys.modules if name.startswith('liveness.')} - "
        "{'liveness.errors', 'liveness.subjects', 'liveness.messages', 'liveness.eventdata', 'liveness.link', "
        "'liveness.wire', 'liveness.bounded', 'liveness.share', 'liveness.client', 'liveness.access', "
        "'liveness.addresses', 'liveness.login', 'liveness.refusals', 'liveness.certificates', "
        "'liveness.secret_files'};"
        "print(*unwanted, *(name for name in own if not name.startswith('liveness.client.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_waits_grow_and_end() -> None:
    """Attempts come slower and slower, but never slower than the patience."""
    connection = Connection(URL, "test", patience=2.0, problems=Problems("test"))
    assert connection.wait(0) == 0
    for attempts, longest in [(1, 0.1), (3, 0.4), (6, 2.0), (10**9, 2.0)]:
        assert longest / 2 <= connection.wait(attempts) <= longest


async def test_finish_within_outlives_cancellations() -> None:
    """Work that has to be done at the end is done, however often its caller is cancelled."""
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go_on.wait()
        done.set()

    caller = asyncio.create_task(finish_within(10, work()))
    await begun.wait()
    caller.cancel()
    await asyncio.wait({caller}, timeout=0)
    caller.cancel()
    await asyncio.wait({caller}, timeout=0)
    go_on.set()
    await asyncio.wait({caller})
    assert caller.cancelled()
    assert done.is_set()


async def test_finish_within_is_bounded_and_silent() -> None:
    """Work that hangs, even against its cancellation, costs its time and no more; what it raises is dropped."""
    release = asyncio.Event()

    async def hang() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def fail() -> None:
        raise RuntimeError

    async with asyncio.timeout(5):
        await finish_within(0.01, hang())
        await finish_within(0.01, fail())
    release.set()


async def test_swallowed_cancellation_is_heeded() -> None:
    """A cancellation that a library swallowed is raised all the same; an older one is not."""
    heeded = []

    async def swallow() -> None:
        heed = cancellations()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancellations()()
            heeded.append("old one let be")
        heed()

    task = asyncio.create_task(swallow())
    await asyncio.wait({task}, timeout=0)
    task.cancel()
    await asyncio.wait({task})
    assert heeded == ["old one let be"]
    assert task.cancelled()


class FakeLink:
    """A link whose requests end as they are told to."""

    def __init__(self, outcome: Exception | None, *, answers: bool) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self._outcome = outcome
        self._answers = answers

    async def request(self, subject: str, payload: bytes, **_: float) -> None:
        """Note what is asked, and end."""
        self.asked.append((subject, payload))
        if self._outcome is not None:
            raise self._outcome

    async def answer(self, _: float) -> None:
        """Say whether the server is there."""
        if not self._answers:
            raise ConnectionError


class FakeConnection:
    """Opens the given links, each until it is lost."""

    def __init__(self, links: list[FakeLink]) -> None:
        self.links = links

    async def open(self) -> FakeLink:
        """Return the link that stands."""
        return self.links[0]

    async def lose(self, _: FakeLink, __: str) -> None:
        """Go on to the next link."""
        self.links.pop(0)


@pytest.mark.parametrize(
    ("outcome", "answers", "again"),
    [
        (None, True, False),
        (nats_errors.ConnectionClosedError(), False, True),
        (nats_errors.TimeoutError(), False, True),
        # It has heard us, or nobody is there who would care.
        (nats_errors.TimeoutError(), True, False),
        (nats_errors.NoRespondersError(), True, False),
    ],
)
async def test_verdict_is_told_until_it_is_heard(outcome: Exception | None, *, answers: bool, again: bool) -> None:
    """What became of an event is told again on the next connection, if and only if this one failed."""
    first, second = FakeLink(outcome, answers=answers), FakeLink(None, answers=True)
    connection: Any = FakeConnection([first, second])
    consumer = Consumer(connection, Problems("test"), stream="s", durable="d", subjects=[], ack_wait=30)
    await consumer.settle(Msg(_client=Client(), reply="$JS.ACK.s.d.1.1.1.1.0"), ACK)
    assert first.asked == [("$JS.ACK.s.d.1.1.1.1.0", ACK)]
    assert second.asked == (first.asked if again else [])
