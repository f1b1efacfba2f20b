"""What systemd is told, on a real socket: that the service is ready, how it is, that it lives, that it stops."""

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from liveness.cli import serve as serve_module
from liveness.settings import load
from liveness.systemd import LOOK_SECONDS, Systemd
from tests.conftest import SOON

# As short as may be: a word every millisecond.
QUICKLY = "2000"


class Listener:
    """Systemd's end of the socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(address)

    async def next(self) -> str:
        """Wait for a message."""
        async with asyncio.timeout(SOON):
            return (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()

    async def until(self, wanted: str) -> list[str]:
        """Return what came up to the message that is `wanted`."""
        came = [await self.next()]
        while came[-1] != wanted:
            came.append(await self.next())
        return came

    def close(self) -> None:
        """Hear nothing any more."""
        self._socket.close()


class Telling:
    """A service that tells systemd how it is."""

    def __init__(self, place: str, **environment: str) -> None:
        self.systemd = Systemd({"NOTIFY_SOCKET": place, "WATCHDOG_USEC": QUICKLY, **environment})
        self.ready = asyncio.Event()
        self.status = "starting"
        self.ills: list[str] = []

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Tell it meanwhile, and at the end that it stops."""
        telling = asyncio.create_task(
            self.systemd.keep(ready=self.ready, status=lambda: self.status, ills=lambda: self.ills)
        )
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait({telling})
            self.systemd.stopping()


@pytest.mark.parametrize("abstract", [False, True])
async def test_it_is_told_how_the_service_is_and_when_it_is_ready(tmp_path: Path, abstract: bool) -> None:  # noqa: FBT001 - parametrized
    """Each once, on a path or in the abstract namespace; that it lives, all the time; at last that it stops."""
    name = f"liveness-{secrets.token_hex(8)}"
    listener = Listener(f"\0{name}" if abstract else str(tmp_path / "socket"))
    telling = Telling(f"@{name}" if abstract else str(tmp_path / "socket"))
    try:
        async with telling.going_on():
            assert [await listener.next() for _ in range(3)] == ["STATUS=starting", "WATCHDOG=1", "WATCHDOG=1"]
            telling.status = "leads,\n2 leases"
            assert set(await listener.until("STATUS=leads, 2 leases")) <= {"WATCHDOG=1", "STATUS=leads, 2 leases"}
            telling.ready.set()
            assert set(await listener.until("READY=1")) <= {"WATCHDOG=1", "READY=1"}
            assert {await listener.next() for _ in range(3)} == {"WATCHDOG=1"}
        assert set((await listener.until("STOPPING=1\nSTATUS=stopping"))[:-1]) <= {"WATCHDOG=1"}
    finally:
        listener.close()


async def test_a_service_that_a_start_would_help_does_not_say_that_it_lives(tmp_path: Path) -> None:
    """Its silence is what systemd starts it anew for; how it is, is told all the same."""
    listener, telling = Listener(str(tmp_path / "socket")), Telling(str(tmp_path / "socket"))
    telling.ills = ["relay: it has ended, and the service has not"]
    try:
        async with telling.going_on():
            for status in ("one", "two"):
                telling.status = status
                assert await listener.next() == f"STATUS={status}"
            telling.ills = []
            assert await listener.next() == "WATCHDOG=1"
    finally:
        listener.close()


async def test_nobody_is_waited_for(tmp_path: Path) -> None:
    """A socket that is full, or not there, keeps nothing from going on; what was not taken is said again."""
    telling = Telling(str(tmp_path / "socket"))
    telling.ready.set()
    async with telling.going_on():
        for _ in range(100):
            await asyncio.sleep(0)
        listener = Listener(str(tmp_path / "socket"))
        try:
            await listener.until("READY=1")
            queued = 0
            while telling.systemd._tell("WATCHDOG=1"):
                queued += 1
            assert queued
            telling.status = "late"
            await listener.until("STATUS=late")
        finally:
            listener.close()


def test_elsewhere_nobody_is_told_anything() -> None:
    """Without systemd, and where the watchdog is another process's."""
    assert not Systemd({})._tell("READY=1")
    assert Systemd({}).interval == LOOK_SECONDS
    assert Systemd({"WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid() + 1)}).interval == LOOK_SECONDS
    assert Systemd({"WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid())}).interval == 0.1
    assert Systemd({"WATCHDOG_USEC": "soon"}).interval == LOOK_SECONDS


class Signalled:
    """In the place of the service: it gets signals, and ends when it is told to."""

    signals: tuple[signal.Signals, ...] = ()

    def __init__(self, _settings: object) -> None:
        pass

    async def run(self, stop: asyncio.Event) -> None:
        """Get them, in their order."""
        for number in self.signals:
            os.kill(os.getpid(), number)
        async with asyncio.timeout(SOON):
            await stop.wait()


@pytest.mark.parametrize(
    ("signals", "terminal", "ignored", "told"),
    [
        ((signal.SIGHUP, signal.SIGTERM), False, False, ["settings_stay"]),
        ((signal.SIGHUP,), True, False, []),
        ((signal.SIGHUP, signal.SIGTERM), True, True, []),
    ],
)
def test_sighup_ends_nothing_but_what_lost_its_terminal(
    monkeypatch: pytest.MonkeyPatch,
    signals: tuple[signal.Signals, ...],
    terminal: bool,  # noqa: FBT001 - parametrized
    ignored: bool,  # noqa: FBT001 - parametrized
    told: list[str],
) -> None:
    """Then in good order, as by SIGTERM, unless it was started with nohup; whoever means settings is told how."""
    monkeypatch.setattr(serve_module, "Service", Signalled)
    monkeypatch.setattr(Signalled, "signals", signals)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with capture_logs() as logs:
            asyncio.run(serve_module.serve(load({})[0]))
    finally:
        signal.signal(signal.SIGHUP, former)

    assert [line["event"] for line in logs] == told
