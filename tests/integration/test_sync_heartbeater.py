"""A worker without an event loop: its heart beats in a thread."""

import asyncio
import concurrent.futures
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator

import pytest

from liveness.client import LostError, SyncHeartbeater
from liveness.embedded import NatsServer
from liveness.messages import Goodbye
from tests.conftest import SOON, HostTables
from tests.integration.beats import Spy, spying
from tests.integration.running import Serve

# What leaving may cost, with what a busy machine adds to it.
LEAVING = 5.0


@pytest.fixture
async def spy(nats: NatsServer) -> AsyncIterator[Spy]:
    """What a service would hear."""
    async with spying(nats.url) as heard:
        yield heard


async def test_it_beats_while_its_body_blocks(nats: NatsServer, spy: Spy) -> None:
    """And says goodbye behind it, whatever it raises."""

    def work() -> str:
        worker = SyncHeartbeater(nats.url, worker="w1", ttl=600, interval=0.02)
        with contextlib.suppress(KeyError), worker:
            assert (worker.connected, worker.beats_sent > 0, worker.remaining > 400) == (True, True, True)
            with worker.holding("x"):
                worker.progressed()
                while worker.beats_sent < 5:
                    time.sleep(0.001)
                raise KeyError
        return worker.incarnation

    working = asyncio.create_task(asyncio.to_thread(work))
    beats = [await spy.beat() for _ in range(4)]
    goodbye = await spy.goodbye()
    assert goodbye.incarnation == beats[0].incarnation == await working
    assert (beats[-1].running, beats[-1].progress) == (["x"], 1)
    assert spy.subjects == {"liveness.heartbeat.w1", "liveness.goodbye.w1"}


async def test_any_thread_holds_and_waits(nats: NatsServer) -> None:
    """Nothing is lost between them, and draining waits for all."""
    with SyncHeartbeater(nats.url, worker="w1", ttl=600, interval=0.01) as worker:

        def hold(number: int) -> None:
            for piece in range(50):
                with worker.holding(f"{number}.{piece}"):
                    worker.progressed()

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(hold, range(8)))
        assert list(worker.held) == []
        assert worker._heart._holding.progress == 400
        assert worker._heart._holding._bytes == 0

        finish = threading.Event()
        begun = threading.Event()

        def hold_on() -> None:
            with worker.holding("x"):
                begun.set()
                finish.wait(SOON)

        thread = threading.Thread(target=hold_on)
        thread.start()
        begun.wait(SOON)
        assert not worker.drain(timeout=0.01)
        assert worker.draining
        assert list(worker.held) == ["x"]
        draining = asyncio.create_task(asyncio.to_thread(worker.drain))
        await asyncio.sleep(0)
        finish.set()
        assert await draining
        thread.join()
        assert worker.remaining == 0


async def test_a_thread_hears_that_it_is_lost(nats: NatsServer) -> None:
    """By its clock, though NATS says nothing; `on_lost` is called in the heart's own thread, which must not wait."""
    told: list[object] = []

    def on_lost() -> None:
        told.append(threading.current_thread().name)
        try:
            worker.superseded.wait(1)
        except RuntimeError as error:
            told.append(str(error))

    with SyncHeartbeater(nats.url, worker="w1", ttl=0.5, on_lost=on_lost) as worker:
        assert not worker.lost.wait(0.01)
        # Nobody goes on waiting for whoever has given up.
        while worker._heart.lost._waiters:  # noqa: ASYNC110 - it is asyncio's own, and tells nobody
            await asyncio.sleep(0.001)
        nats.pause()
        assert worker.lost.wait(SOON)
        nats.resume()
        with pytest.raises(LostError, match="had no beat taken"):
            worker.check()
        assert told[0] == "heartbeat of w1"
        assert "would wait for itself" in str(told[1])


async def test_leaving_is_bounded(nats: NatsServer) -> None:
    """By a NATS that says nothing; and whoever waits in another thread is let go."""
    answers: list[bool] = []
    with SyncHeartbeater(nats.url, worker="w1", ttl=600) as worker:
        waiting = threading.Thread(target=lambda: answers.append(worker.lost.wait()))
        waiting.start()
        nats.pause()
        left_at = time.monotonic()
    assert time.monotonic() - left_at < LEAVING
    nats.resume()
    waiting.join(SOON)
    assert answers == [False]
    assert worker._thread._thread is not None
    assert not worker._thread._thread.is_alive()
    # And nothing is waited for any more.
    assert not worker.lost.wait()
    assert not worker.welcome(SOON)
    assert worker.drain()
    worker.beat_now()
    with pytest.raises(LostError, match="it has left"):
        worker.begin_again()


async def test_leaving_does_not_wait_for_a_callback(nats: NatsServer) -> None:
    """One that never returns costs the goodbye, and is told of; the interpreter waits for it as little."""
    stuck, gate = threading.Event(), threading.Event()
    with SyncHeartbeater(
        nats.url, worker="w1", ttl=600, interval=0.01, alive=lambda: not stuck.is_set() or gate.wait(SOON)
    ) as worker:
        stuck.set()
        left_at = time.monotonic()
    assert time.monotonic() - left_at < LEAVING
    thread = worker._thread._thread
    assert thread is not None
    assert thread.daemon
    gate.set()
    thread.join(SOON)
    assert not thread.is_alive()


async def test_it_begins_again(nats: NatsServer, serve: Serve, host: HostTables) -> None:
    """With a service; what it held is back then."""
    await serve()
    await host.worker("w1")

    def live() -> tuple[int | None, int | None]:
        with SyncHeartbeater(nats.url, worker="w1", ttl=600) as worker:
            assert worker.welcome(SOON)
            assert worker.greeted.is_set()
            first = worker.epoch
            worker.begin_again(SOON)
            return first, worker.epoch

    first, second = await asyncio.to_thread(live)
    assert first is not None
    assert second is not None
    assert first < second


async def test_beginning_again_may_be_given_up(nats: NatsServer) -> None:
    """Where nobody answers: the caller knows that nothing has begun."""
    with SyncHeartbeater(nats.url, worker="w1", ttl=600) as worker, pytest.raises(TimeoutError):
        worker.begin_again(0.01)


async def test_a_certificate(nats: NatsServer, spy: Spy) -> None:
    """Whoever works in another process may have been seen to end."""
    with SyncHeartbeater(nats.url, worker="w1", ttl=600) as worker:
        worker.died(signal=9)
    assert await spy.goodbye() == Goodbye(incarnation=worker.incarnation, signal=9)


async def test_it_adopts_an_identity(nats: NatsServer, spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `liveness run`, which beats for it."""
    monkeypatch.setenv("LIVENESS_WORKER", "w1")
    monkeypatch.setenv("LIVENESS_INCARNATION", "outer")
    monkeypatch.setenv("LIVENESS_EPOCH", "7")
    with SyncHeartbeater(nats.url) as worker:
        assert (worker.worker, worker.incarnation, worker.epoch, worker.adopted) == ("w1", "outer", 7, True)
        assert worker.welcome(SOON)
    assert await spy.silent()


async def test_wrong_use_is_refused(nats: NatsServer) -> None:
    """What has not begun answers nothing, and what is over does not begin."""
    worker = SyncHeartbeater(nats.url, worker="w1", ttl=600)
    with pytest.raises(RuntimeError, match="was not entered"):
        worker.drain()
    with worker, pytest.raises(RuntimeError, match="entered once"), worker:
        pass
    with pytest.raises(RuntimeError, match="entered once"), worker:
        pass
    with pytest.raises(ValueError, match="the worker name"):
        SyncHeartbeater(nats.url, worker="a b")


BEGIN = """
import contextlib, signal, socket, sys, threading, time
import liveness
# Whoever started the tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
heartbeater = liveness.SyncHeartbeater(sys.argv[1], worker="w1", ttl=600)
def working():
    print("working", flush=True)
    threading.Event().wait()
"""


async def program(text: str, url: str) -> asyncio.subprocess.Process:
    """Start a worker, and return when it works."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BEGIN + text, url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(SOON):
        assert await process.stdout.readline() == b"working\n"
    return process


async def ended(process: asyncio.subprocess.Process, seconds: float = SOON) -> tuple[int | None, str]:
    """Return its exit code, and what it complained of."""
    try:
        async with asyncio.timeout(seconds):
            _, complaint = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return process.returncode, complaint.decode()


async def test_an_interrupt_says_goodbye(nats: NatsServer, spy: Spy) -> None:
    """Ctrl-C in the body."""
    process = await program("with heartbeater: working()", nats.url)
    process.send_signal(signal.SIGINT)
    await spy.goodbye()
    code, complaint = await ended(process)
    assert code == -signal.SIGINT
    assert complaint.rstrip().endswith("KeyboardInterrupt")


async def test_who_never_leaves_says_goodbye(nats: NatsServer, spy: Spy) -> None:
    """When the interpreter ends."""
    text = "heartbeater.__enter__(); signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); working()"
    process = await program(text, nats.url)
    process.send_signal(signal.SIGTERM)
    await spy.goodbye()
    assert await ended(process) == (3, "")


async def test_a_signals_handler_may_ask(nats: NatsServer) -> None:
    """Whatever it has interrupted: the same question, for one."""
    text = """
times = 0
def ask(*_):
    global times
    times += 1
    heartbeater.progressed(), heartbeater.held, heartbeater.beat_now()
    if times < 2000:
        # One after the other: a handler is interrupted, too.
        signal.setitimer(signal.ITIMER_REAL, 0.0001)
with heartbeater:
    signal.signal(signal.SIGALRM, ask)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    print("working", flush=True)
    while times < 2000:
        with heartbeater.holding("x"):
            heartbeater.beat_now()
    sys.exit(3 if not heartbeater.held else 4)
"""
    process = await program(text, nats.url)
    assert await ended(process) == (3, "")


async def test_the_interpreter_ends_though_nobody_knows_the_server() -> None:
    """The look-up of an address may take half a minute, and cannot be given up."""
    text = """
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
with heartbeater:
    print("working", flush=True)
"""
    process = await program(text, "nats://nowhere.invalid:4222")
    code, complaint = await ended(process, LEAVING)
    assert (code, complaint) == (0, "")
