"""A headless Chromium, spoken to by its own protocol over a pipe, so that nothing has to be installed beside it."""

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Until the browser has to have answered (seconds): the machine may be busy.
PATIENCE: Final = 60.0
# A picture holds all that a JSON message may.
_LONGEST: Final = 1 << 28
_SHELL: Final = 'in=$1 out=$2; shift 2; exec "$@" 3<&"$in" 4>&"$out" 2>/dev/null'


def find() -> str | None:
    """Return where a Chromium is, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def until(condition: str) -> str:
    """Return a script that waits for it."""
    return (
        f"new Promise(so => {{ const look = () => ({condition}) ? so(true) : requestAnimationFrame(look); look(); }})"
    )


class Tab:
    """One page of the browser."""

    def __init__(self, reader: asyncio.StreamReader, write: int) -> None:
        self._reader = reader
        self._write = write
        self._session: str | None = None
        self._last = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        # What the page complained of: errors of scripts, and what the policy forbade.
        self.complaints: list[str] = []

    async def read(self) -> None:
        """Take what the browser says, until it ends."""
        while True:
            message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
            if (waiting := self._waiting.pop(message.get("id", 0), None)) is not None and not waiting.done():
                waiting.set_result(message)
            method = message.get("method")
            if method == "Page.loadEventFired":
                self._loaded.set()
            elif method == "Log.entryAdded":
                self.complaints.append(message["params"]["entry"]["text"])
            elif method == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(message["params"]["exceptionDetails"]))

    async def call(self, method: str, **parameters: Any) -> Any:
        """Return what it answers."""
        self._last += 1
        request: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            request["sessionId"] = self._session
        waiting = self._waiting[self._last] = asyncio.get_running_loop().create_future()
        os.write(self._write, json.dumps(request).encode() + b"\0")
        async with asyncio.timeout(PATIENCE):
            message = await waiting
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    async def open(self) -> None:
        """Make the page that the rest is about."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def look(self, *, width: int, dark: bool, scripts: bool = True) -> None:
        """Be so wide (px), and like that."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[feature])
        await self.call("Emulation.setScriptExecutionDisabled", value=not scripts)

    async def go(self, address: str) -> None:
        """Go there, and wait until it is there."""
        self._loaded.clear()
        await self.call("Page.navigate", url=address)
        async with asyncio.timeout(PATIENCE):
            await self._loaded.wait()

    async def value(self, expression: str) -> Any:
        """Return what a script says; a promise is waited for."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def picture(self, path: Path, most: int) -> None:
        """Write what is to be seen, from the top on, up to `most` px high."""
        metrics: Mapping[str, Any] = await self.call("Page.getLayoutMetrics")
        size = metrics["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], most), "scale": 1}
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))


@asynccontextmanager
async def browser(program: str) -> AsyncIterator[Tab]:
    """Start the browser; it ends with the block."""
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="liveness-browser-", ignore_cleanup_errors=True) as profile:
        command = [
            program, "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--no-sandbox",
            "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", _SHELL, "bash", str(to_read), str(to_write), *command, pass_fds=(to_read, to_write),
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        reader = asyncio.StreamReader(limit=_LONGEST)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb")
        )
        tab = Tab(reader, write)
        reading = asyncio.create_task(tab.read())
        try:
            await tab.open()
            yield tab
        finally:
            reading.cancel()
            transport.close()
            os.close(write)
            process.terminate()
            await process.wait()
