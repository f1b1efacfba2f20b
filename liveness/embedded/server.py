"""What the embedded servers have in common: start, stop and the faults that tests put in."""

import asyncio
import errno
import signal
import socket
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from liveness.embedded.claim import POLL_SECONDS, FolderClaim
from liveness.embedded.process import ServerProcess
from liveness.errors import EmbeddedError

# Recovery after a crash is the slow case, and takes about a second for the data of a test.
START_SECONDS: Final = 30.0
# A free port may be taken between choosing it and using it; five times in a row is not chance any more.
PORT_ATTEMPTS: Final = 5
HOST: Final = "127.0.0.1"


def port_is_taken(port: int) -> bool:
    """Say whether another program holds this TCP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As both servers do, so that connections which still linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


class EmbeddedServer(ABC):
    """A server in a folder of its own, on one TCP port of 127.0.0.1, which it keeps over restarts."""

    name: str

    def __init__(self, folder: Path, port: int | None) -> None:
        self.folder: Final = folder.absolute()
        self._port = port
        self._process: ServerProcess | None = None

    @property
    def port(self) -> int:
        """The TCP port; raises EmbeddedError before the first start when none was given."""
        if self._port is None:
            raise EmbeddedError(f"{self.name} has no port yet: call start() first")
        return self._port

    @property
    def pid(self) -> int:
        """The process's number; raises EmbeddedError when the server was not started."""
        return self._started().pid

    async def start(self) -> None:
        """Start the server and return once it answers, within 30 seconds.

        Raises EmbeddedError when it cannot be found, cannot start, or its folder or port is in use.
        """
        if self._process is not None:
            if self._process.exit_code is None and not self._process.ending:
                raise EmbeddedError(f"{self.name} already runs with pid {self._process.pid}: call stop() first")
            await self.stop()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            claim = await FolderClaim.take(self.folder)
            try:
                await self._prepare(claim)
                self._process = await self._launch_until_ready(claim)
            except BaseException:
                claim.release()
                await self._settle()
                raise
            claim.release()
        except OSError as error:
            raise EmbeddedError(f"{self.name} cannot use the folder {self.folder}: {error}") from error

    async def stop(self) -> None:
        """Stop the server and wait until none of its processes is left; does nothing when it is not running.

        Raises EmbeddedError when one of its processes does not end within ten seconds after SIGKILL.
        """
        process, self._process = self._process, None
        if process is not None:
            await process.stop()
            await self._settle()

    def pause(self) -> None:
        """Freeze the server with SIGSTOP, its open connections too."""
        self._started().signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue a paused server with SIGCONT."""
        self._started().signal_all(signal.SIGCONT)

    def kill(self) -> None:
        """End the server at once with SIGKILL, as a crash would; start() and stop() wait until it is gone."""
        self._started().signal_all(signal.SIGKILL)

    def _started(self) -> ServerProcess:
        if self._process is None:
            raise EmbeddedError(f"{self.name} is not running: call start() first")
        return self._process

    async def _settle(self) -> None:
        """Wait until no process of this server is left: a killed server's children end a moment after it."""
        (await FolderClaim.take(self.folder)).release()

    async def _launch_until_ready(self, claim: FolderClaim) -> ServerProcess:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            port = self._port or self._choose_port()
            process = self._launch(claim, port)
            try:
                ready_port = await self._wait_until_ready(process, port)
            except BaseException:
                await process.break_off()
                raise
            if ready_port is not None:
                self._port = ready_port
                return process
            if port > 0 and port_is_taken(port):
                if self._port is None and attempt < PORT_ATTEMPTS:
                    continue
                raise EmbeddedError(
                    f"{self.name} cannot listen on port {port}: another program holds it; stop that program"
                    " or choose another port"
                )
            break
        raise EmbeddedError(
            f"{self.name} ended with exit code {process.exit_code} while starting, its log says: {process.last_lines()}"
        )

    async def _wait_until_ready(self, process: ServerProcess, port: int) -> int | None:
        """Return the port on which the server answers, or None when the process has ended."""
        deadline = time.monotonic() + START_SECONDS
        while process.exit_code is None:
            if (ready_port := await self._answers(process, port)) is not None:
                return ready_port
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{self.name} did not answer within {START_SECONDS:g} s, its log says: {process.last_lines()}"
                )
            await asyncio.sleep(POLL_SECONDS)
        return None

    @abstractmethod
    async def _prepare(self, claim: FolderClaim) -> None:
        """Find the program and lay out the folder."""

    def _choose_port(self) -> int:
        """Return a port for the first start; negative when the server chooses one itself."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((HOST, 0))
            return int(probe.getsockname()[1])

    @abstractmethod
    def _launch(self, claim: FolderClaim, port: int) -> ServerProcess:
        """Spawn the server from this thread."""

    @abstractmethod
    async def _answers(self, process: ServerProcess, port: int) -> int | None:
        """Return the port on which this very process answers, or None when it does not yet."""
