"""Prometheus and promtool, where they are installed, for the tests."""

import asyncio
import shutil
import signal
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

import msgspec

from liveness.embedded.claim import FolderClaim
from liveness.embedded.process import ServerProcess
from liveness.embedded.server import HOST, EmbeddedServer

MISSING: Final = "no {0} on the PATH: install Debian's package prometheus"


def find(program: str) -> Path | None:
    """Return `prometheus` or `promtool`, if it is there."""
    found = shutil.which(program)
    return Path(found) if found else None


class Prometheus(EmbeddedServer):
    """Prometheus in `folder`, with `configuration` (as its YAML would have it)."""

    name = "prometheus"

    def __init__(self, folder: Path, program: Path, configuration: Any) -> None:
        super().__init__(folder, None)
        self._program: Final = program
        self._configuration: Final = configuration

    async def ask(self, path: str, **query: str) -> Any:
        """Return the data of what its API answers."""

        def asked() -> Any:
            with urlopen(f"http://{HOST}:{self.port}/api/v1/{path}?{urlencode(query)}", timeout=5) as answer:
                return msgspec.json.decode(answer.read())["data"]

        return await asyncio.to_thread(asked)

    async def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return what a query finds now: labels and value of each."""
        found = (await self.ask("query", query=expression))["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    async def _prepare(self, claim: FolderClaim) -> None:  # noqa: ARG002 - it needs no other process first
        # JSON is YAML.
        (self.folder / "prometheus.yml").write_bytes(msgspec.json.encode(self._configuration))

    def _launch(self, claim: FolderClaim, port: int) -> ServerProcess:
        return ServerProcess(
            [
                self._program,
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                f"--web.listen-address={HOST}:{port}",
            ],
            log=self.folder / "prometheus.log",
            claim=claim,
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGKILL,
            account=None,
            folder=self.folder,
        )

    async def _answers(self, process: ServerProcess, port: int) -> int | None:
        def asked() -> None:
            with urlopen(f"http://{HOST}:{port}/-/ready", timeout=1):
                pass

        try:
            await asyncio.to_thread(asked)
        except OSError:
            # Refused, or 503 until it is ready.
            return None
        return port if process.exit_code is None else None
