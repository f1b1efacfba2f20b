"""A real `liveness serve` under what plays systemd."""

import asyncio
import secrets
import signal
import socket

import pytest

from tests.conftest import SOON

from .conftest import Serve


async def test_a_service_under_systemd(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ready when it serves, says that it lives and how it is, outlives SIGHUP, and says when it is to end."""
    name = f"liveness-{secrets.token_hex(8)}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    # Whoever runs us may ignore it (nohup), which the service would inherit.
    inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as systemd:
        systemd.bind(f"\0{name}")

        async def until(wanted: str) -> None:
            async with asyncio.timeout(SOON):
                while wanted not in told:
                    told.append((await asyncio.get_running_loop().sock_recv(systemd, 4096)).decode())

        service = await serve(wait=False)
        signal.signal(signal.SIGHUP, inherited)
        await until("READY=1")
        await service.logged("serving")
        assert told[0].startswith("STATUS=not ready: ")
        await until("STATUS=leads, 0 leases")

        service.signal(signal.SIGHUP)
        await service.logged("settings_stay")
        told.clear()
        await until("WATCHDOG=1")

        service.signal(signal.SIGTERM)
        await until("STOPPING=1\nSTATUS=stopping")
        await service.stop()
