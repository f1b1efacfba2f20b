"""Programs of the benchmarks as processes of their own, so that nobody's figure holds another's work."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

# Far above the longest of them: only a hang meets it.
RUN_SECONDS: Final = 900.0


class Child:
    """One run of `python -m module arguments`. It prints JSON, a line for each thing that it has to say."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    async def says(self, seconds: float = RUN_SECONDS) -> Any:
        """Return the next thing that it says. Raises RuntimeError when it ends without."""
        assert self._process.stdout is not None
        async with asyncio.timeout(seconds):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark's process ended with exit code {await self._process.wait()}")
        return json.loads(line)

    def tell(self, word: str = "") -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())

    def kill(self) -> None:
        """End it as a machine ends that loses its power."""
        self._process.kill()


@asynccontextmanager
async def child(module: str, *arguments: object) -> AsyncIterator[Child]:
    """Run a module of the benchmarks while the body runs; it is ended with it."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    bound = ["setpriv", "--pdeathsig", "KILL"] if sys.platform == "linux" else []
    process = await asyncio.create_subprocess_exec(
        *bound, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def run(module: str, *arguments: object) -> Any:
    """Run a module of the benchmarks to its end, and return the one thing that it says."""
    async with child(module, *arguments) as process:
        return await process.says()


def say(thing: Any) -> None:
    """In such a module: say something to who runs it."""
    sys.stdout.write(json.dumps(thing) + "\n")
    sys.stdout.flush()
