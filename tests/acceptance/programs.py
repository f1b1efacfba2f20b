"""Runs what a page shows: snippets in Python, lines for a shell, in a folder and an environment of a test's own."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from .conftest import Child, Service, _kept

# Where the pages take NATS to be.
URL = "nats://127.0.0.1:4222"

Kept = TypeVar("Kept", bound=Child)


class Terminal(Child):
    """A shell. All that was started in it ends with it, as when a window is closed."""

    def enter(self, lines: str) -> None:
        """Enter lines; they are carried out one behind the other."""
        assert self.process.stdin is not None
        self.process.stdin.write(lines.encode() + b"\n")

    async def shows(self, wanted: re.Pattern[str], behind: int) -> None:
        """Wait until what it has said behind so many lines matches."""
        await self.line(lambda _: wanted.search("\n".join(self.lines[behind:])) is not None)

    async def kill(self) -> None:
        """End it, with all that was started in it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.end()


class Programs:
    """Runs them; what it starts has a session of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str], children: list[Child]) -> None:
        self.folder = folder
        self.environment = environment
        self._children = children

    async def python(self, text: str) -> Child:
        """Start a program."""
        return self._kept(
            Child(await self._start([sys.executable, "-c", text.replace(URL, self.environment["NATS_URL"])]))
        )

    async def sh(self, text: str) -> Child:
        """Start lines for a shell, in a session of their own."""
        return self._kept(Child(await self._start(["sh", "-e", "-c", text])))

    async def terminal(self) -> "Terminal":
        """Open a shell that is given line after line."""
        return self._kept(Terminal(await self._start(["bash"], stdin=subprocess.PIPE)))

    async def serve(self, text: str) -> Service:
        """Start lines for a shell, the last of which serves."""
        return self._kept(Service(await self._start(["sh", "-e", "-c", text])))

    def _kept(self, child: Kept) -> Kept:
        self._children.append(child)
        return child

    async def _start(self, command: Sequence[str], stdin: int = subprocess.DEVNULL) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env=os.environ | dict(self.environment),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            limit=2**20,
        )

    def write(self, name: str, text: str) -> None:
        """Put a program into the folder, which is on the path."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)


@contextlib.asynccontextmanager
async def programs_in(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Programs]:
    """Run programs in a folder that is made for them; nothing of them is left."""
    await asyncio.to_thread(folder.mkdir)
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], str(folder)]),
        "LIVENESS_HTTP_LISTEN": "127.0.0.1:0",
        "PYTHONUNBUFFERED": "1",
    }
    async with _kept() as children:
        yield Programs(folder, own | dict(environment), children)
